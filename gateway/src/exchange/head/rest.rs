//! Heads of HTTP exchanges: the path within the service, and every header that is about more than one connection.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use trave_proto::encoding::decode_canonical;
use trave_proto::message::MAX_HEAD;
use trave_proto::schema::message as schema;

use super::{Kind, passed_on, to_header_map};
use trave_proto::path::{Canonical, check_query};

/// An HTTP request's head, checked: the path is canonical, and that path is permitted and forwarded.
#[derive(Debug, Clone)]
pub(crate) struct RestHead {
    pub(crate) method: http::Method,
    pub(crate) path: Canonical,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    /// Where WebDAV moves or copies to: a path within the same service, taken out of the headers.
    pub(crate) destination: Option<Canonical>,
}

/// The header with WebDAV's second path (RFC 4918, section 10.3).
pub(crate) const DESTINATION: HeaderName = HeaderName::from_static("destination");

/// Methods of WebDAV that name two paths.
pub(crate) fn names_two_paths(method: &http::Method) -> bool {
    matches!(method.as_str(), "COPY" | "MOVE")
}

impl RestHead {
    /// Reads the head of a verified request. Whoever sent it is not believed to have checked it.
    pub(crate) fn read(encoded: &Bytes) -> Result<Self, &'static str> {
        if encoded.len() > MAX_HEAD {
            return Err("its head is too long");
        }
        let head: schema::RequestHead =
            decode_canonical("head", encoded.clone()).map_err(|_| "its head cannot be read")?;
        let path = Canonical::of(&head.path)?;
        if path.as_str() != head.path {
            return Err("its path is not in its canonical form");
        }
        head.query.as_deref().map_or(Ok(()), check_query)?;
        let mut headers = to_header_map(Kind::Rest, &head.headers)?;
        content_length(&headers)?;
        let method = method(&head.method)?;
        let destination = if names_two_paths(&method) { destination(&mut headers)? } else { None };
        Ok(Self { method, path, query: head.query, headers, destination })
    }

    /// Path and query behind a base path.
    pub(crate) fn target(&self, base: &str) -> String {
        let path = match (base, self.path.as_str()) {
            ("", "") => "/",
            (_, path) => path,
        };
        match &self.query {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        }
    }
}

/// The head of an HTTP request as it is signed.
pub(crate) fn rest_request_head(
    parts: &http::request::Parts,
    path: &Canonical,
    query: Option<String>,
) -> schema::RequestHead {
    let headers = passed_on(Kind::Rest, &parts.headers);
    schema::RequestHead { method: parts.method.as_str().into(), path: path.as_str().into(), query, headers }
}

fn destination(headers: &mut HeaderMap) -> Result<Option<Canonical>, &'static str> {
    if headers.get_all(DESTINATION).iter().count() > 1 {
        return Err("it has two destinations");
    }
    let Some(value) = headers.remove(DESTINATION) else { return Ok(None) };
    let path = value.to_str().map_err(|_| "its destination is not a path")?;
    let canonical = Canonical::of(path)?;
    match canonical.as_str() == path {
        true => Ok(Some(canonical)),
        false => Err("its destination is not in its canonical form"),
    }
}

/// A method that can be passed on: any but CONNECT, which asks for a connection and no answer (RFC 9110, section 9.3.6).
pub(crate) fn method(name: &str) -> Result<http::Method, &'static str> {
    let method = http::Method::from_bytes(name.as_bytes()).map_err(|_| "the method is not valid")?;
    match method == http::Method::CONNECT || name.len() > 64 {
        true => Err("the method is not one that is passed on"),
        false => Ok(method),
    }
}

/// The one length that a body is said to have.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(CONTENT_LENGTH) { Err("it has two lengths") } else { Ok(None) };
    };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).map(Some).ok_or("its content length is no number")
}

/// What is still to come of a body whose length was said. A body of another length is an error of its sender's: the next
/// program would cut it off, or take what follows for something else.
///
/// The last bytes wait for the end of the direction: whoever counts takes the body for whole when it has them.
#[derive(Debug)]
pub(crate) struct Length {
    left: Option<u64>,
    held: Bytes,
}

impl Length {
    /// The length that these headers say; none of a gRPC message, which frames itself.
    pub(crate) fn said(kind: Kind, headers: &HeaderMap) -> Result<Self, &'static str> {
        let left = match kind {
            Kind::Grpc => None,
            Kind::Rest => content_length(headers)?,
        };
        Ok(Self { left, held: Bytes::new() })
    }

    /// So many bytes. None, whatever the headers say, has an answer to HEAD, or one that says that nothing was changed (RFC
    /// 9110, sections 9.3.2 and 15.4.5).
    pub(crate) fn of(len: u64) -> Self {
        Self { left: Some(len), held: Bytes::new() }
    }

    /// Whether it was said: then the reader knows the end before it is told.
    pub(crate) fn is_known(&self) -> bool {
        self.left.is_some()
    }

    /// Takes the next bytes, and gives those that may go on now.
    pub(crate) fn take(&mut self, bytes: Bytes, ends: bool) -> Result<[Bytes; 2], &'static str> {
        let Some(left) = &mut self.left else { return Ok([bytes, Bytes::new()]) };
        *left = left.checked_sub(bytes.len() as u64).ok_or("its body is longer than it says")?;
        match (*left, ends) {
            (1.., true) => Err("its body is shorter than it says"),
            (0, false) if !bytes.is_empty() => {
                self.held = bytes;
                Ok([Bytes::new(), Bytes::new()])
            }
            (_, true) => Ok([std::mem::take(&mut self.held), bytes]),
            _ => Ok([bytes, Bytes::new()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use prost::Message;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Bytes {
        let header = |(name, value): &(&str, &str)| schema::Header {
            name: (*name).into(),
            value: value.as_bytes().to_vec().into(),
        };
        let headers = headers.iter().map(header).collect();
        schema::RequestHead { method: method.into(), path: path.into(), query: Some("a=1".into()), headers }
            .encode_to_vec()
            .into()
    }

    fn passed(length: Option<u64>, lens: &[usize]) -> Result<Vec<usize>, &'static str> {
        let mut length = Length { left: length, held: Bytes::new() };
        let mut passed = Vec::new();
        for (at, len) in lens.iter().enumerate() {
            let pieces = length.take(vec![0; *len].into(), at + 1 == lens.len())?;
            passed.push(pieces.iter().map(Bytes::len).sum());
        }
        Ok(passed)
    }

    #[test]
    fn a_body_has_the_length_that_was_said_and_is_whole_at_its_end_alone() {
        assert_eq!(passed(Some(5), &[2, 3]), Ok(vec![2, 3]));
        assert_eq!(passed(Some(5), &[2, 3, 0]), Ok(vec![2, 0, 3]));
        assert_eq!(passed(None, &[2, 3, 0]), Ok(vec![2, 3, 0]));
        assert_eq!(passed(Some(0), &[0, 0]), Ok(vec![0, 0]));
        for wrong in [&[2, 2][..], &[2, 4], &[6, 0], &[5, 0, 1], &[5, 1]] {
            assert!(passed(Some(5), wrong).is_err(), "{wrong:?}");
        }
        let said = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        assert!(Length::said(Kind::Rest, &said).unwrap().is_known());
        assert!(!Length::said(Kind::Grpc, &said).unwrap().is_known());
    }

    #[test]
    fn only_a_canonical_path_is_forwarded() {
        let read = RestHead::read(&head("GET", "/v1/a", &[("content-length", "3")])).unwrap();
        assert_eq!(read.target("/base"), "/base/v1/a?a=1");
        assert_eq!(RestHead::read(&head("GET", "", &[])).unwrap().target(""), "/?a=1");
        for (method, path, headers) in [
            ("GET", "/v1/%61", &[][..]),
            ("GET", "/v1/../a", &[][..]),
            ("CONNECT", "/v1", &[][..]),
            ("G T", "/v1", &[][..]),
            ("GET", "/v1", &[("content-length", "3"), ("content-length", "4")][..]),
            ("GET", "/v1", &[("content-length", "+3")][..]),
            ("GET", "/v1", &[("transfer-encoding", "chunked")][..]),
            ("GET", "/v1", &[("x-road-client", "NORD/SH/luebeck/gewerbeamt")][..]),
            ("GET", "/v1", &[("user-agent", "x")][..]),
            ("MOVE", "/v1", &[("destination", "http://register.example/v1")][..]),
            ("COPY", "/v1", &[("destination", "/v1/../../etc")][..]),
            ("COPY", "/v1", &[("destination", "/v1"), ("destination", "/v2")][..]),
        ] {
            assert!(RestHead::read(&head(method, path, headers)).is_err(), "{method} {path} {headers:?}");
        }
    }
}
