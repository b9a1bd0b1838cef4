//! HTTP heads: what is taken out of a caller's request, what is signed and passed on, and what never is.
//!
//! Header identities are never believed: what a caller declares is taken out here and checked against how it came in;
//! the register gets these headers from us alone.

mod declared;
mod rest;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use trave_proto::encoding::decode_canonical;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::Method;
use trave_proto::message::MAX_HEAD;
use trave_proto::schema::message as schema;

pub(crate) use declared::Declared;
pub(crate) use rest::{
    DESTINATION, Length, RestHead, content_length, method, names_two_paths, rest_request_head,
};
pub(crate) use trave_proto::path::{Canonical, check_query, decoded};

/// gRPC's deadline header.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The exchange's id, in every answer and every error.
pub(crate) const EXCHANGE_ID: HeaderName = HeaderName::from_static("trave-exchange-id");

/// Which of the two doors an exchange came through. To the core both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A gRPC method: the manifest names it.
    Grpc,
    /// An HTTP request: the manifest names the service, the content the rest.
    Rest,
}

impl Kind {
    /// As the manifest tells it.
    pub(crate) fn of(method: Option<&Method>) -> Self {
        if method.is_some() { Self::Grpc } else { Self::Rest }
    }
}

/// Never passed on, either way: they are about one connection (RFC 9110 section 7.6.1), or made anew by each hop.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
];
/// What gRPC frames by itself.
const NOT_GRPC: [&str; 2] = ["trailer", "content-length"];
/// What X-Road does not pass on beside them: programs at the two ends do not see each other's names, and an expectation
/// is met by each hop.
const NOT_REST: [&str; 3] = ["user-agent", "server", "expect"];
/// Ours and X-Road's, taken out of what callers and registers send and set by us; and those in which proxies tell who
/// comes, because a register that trusts its gateway would believe them.
const RESERVED: [&str; 7] =
    ["x-road-", "trave-", "x-forwarded-", "forwarded", "x-real-ip", "x-client-cert", "remote-user"];
/// The most header fields of a head or of trailers.
const MAX_FIELDS: usize = 256;

/// Whether a header is passed on.
fn passes(kind: Kind, name: &str) -> bool {
    // Some servers take an underscore for a hyphen.
    let name = if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
    let others: &[&str] = match kind {
        Kind::Grpc => &NOT_GRPC,
        Kind::Rest => &NOT_REST,
    };
    !HOP_BY_HOP.contains(&&*name)
        && !others.contains(&&*name)
        && !RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses more header fields than pass through to the other side.
pub(crate) fn check_fields(headers: &HeaderMap, side: Side) -> Result<(), Fault> {
    if headers.len() > MAX_FIELDS {
        let why = format!("there are {} header fields, more than {MAX_FIELDS}", headers.len());
        return Err(Fault::before_call(Reason::TooLarge, side, why));
    }
    Ok(())
}

/// The headers that are signed and passed on, in their order.
pub(crate) fn passed_on(kind: Kind, headers: &HeaderMap) -> Vec<schema::Header> {
    let named = named_by_connection(headers);
    let kept = headers.iter().filter(|(name, _)| {
        passes(kind, name.as_str())
            && **name != GRPC_TIMEOUT
            && !named.iter().any(|named| named == name.as_str())
    });
    kept.map(|(name, value)| schema::Header {
        name: name.as_str().to_owned(),
        value: Bytes::from_owner(value.clone()),
    })
    .collect()
}

/// What a sender says is about this connection alone (RFC 9110, section 7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// The head of a gRPC request as it is signed; its deadline is told by [`set_deadline`].
pub(crate) fn request_head(parts: &http::request::Parts) -> schema::RequestHead {
    schema::RequestHead {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: passed_on(Kind::Grpc, &parts.headers),
    }
}

/// Says how much time is left to a gRPC call's deadline.
pub(crate) fn set_deadline(head: &mut schema::RequestHead, remaining: Duration) {
    let value = grpc_timeout(remaining).into();
    head.headers.push(schema::Header { name: GRPC_TIMEOUT.as_str().into(), value });
}

/// The head of a response as it is signed.
pub(crate) fn response_head(kind: Kind, parts: &http::response::Parts) -> schema::ResponseHead {
    schema::ResponseHead { status: parts.status.as_u16().into(), headers: passed_on(kind, &parts.headers) }
}

/// Encoded trailers as they are signed.
pub(crate) fn trailers(kind: Kind, trailers: &HeaderMap) -> Bytes {
    schema::Trailers { headers: passed_on(kind, trailers) }.encode_to_vec().into()
}

/// Reads signed headers back. What could not have been sent is refused: the other side is not believed either.
pub(crate) fn to_header_map(kind: Kind, headers: &[schema::Header]) -> Result<HeaderMap, &'static str> {
    if headers.len() > MAX_FIELDS {
        return Err("it has too many header fields");
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| "a header's name is not valid")?;
        if !passes(kind, name.as_str()) || name.as_str() != header.name {
            return Err("a header that is never passed on");
        }
        let value = HeaderValue::from_maybe_shared(header.value.clone())
            .map_err(|_| "a header's value is not valid")?;
        map.append(name, value);
    }
    Ok(map)
}

/// The trailers of a verified message.
pub(crate) fn read_trailers(kind: Kind, encoded: &Bytes) -> Result<HeaderMap, &'static str> {
    let trailers: schema::Trailers =
        decode_canonical("trailers", encoded.clone()).map_err(|_| "its trailers cannot be read")?;
    to_header_map(kind, &trailers.headers)
}

/// The response head of a verified message.
pub(crate) fn read_response_head(
    kind: Kind,
    encoded: &Bytes,
) -> Result<(http::StatusCode, HeaderMap), &'static str> {
    let head: schema::ResponseHead =
        decode_canonical("head", encoded.clone()).map_err(|_| "its head cannot be read")?;
    let status = u16::try_from(head.status).ok().and_then(|status| http::StatusCode::from_u16(status).ok());
    let status = status.filter(|status| !status.is_informational()).ok_or("its status is not one of HTTP")?;
    Ok((status, to_header_map(kind, &head.headers)?))
}

/// A gRPC request's head, checked: the path is the method that was permitted, and nothing else is forwarded.
#[derive(Debug)]
pub(crate) struct GrpcHead {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Option<Duration>,
}

impl GrpcHead {
    /// Reads the head of a verified request, which must be for `method`.
    pub(crate) fn read(encoded: &Bytes, method: &Method) -> Result<Self, &'static str> {
        if encoded.len() > MAX_HEAD {
            return Err("its head is too long");
        }
        let head: schema::RequestHead =
            decode_canonical("head", encoded.clone()).map_err(|_| "its head cannot be read")?;
        if head.method != "POST" || head.path != method.as_str() || head.query.is_some() {
            return Err("its head is not that of the gRPC method in the manifest");
        }
        let mut headers = to_header_map(Kind::Grpc, &head.headers)?;
        if !is_grpc_type(&headers) {
            return Err("its content type is not gRPC's");
        }
        let timeout = match headers.remove(GRPC_TIMEOUT) {
            None => None,
            Some(value) => Some(parse_grpc_timeout(&value).ok_or("its grpc-timeout is not valid")?),
        };
        Ok(Self { method: method.clone(), headers, timeout })
    }
}

/// Whether a request is gRPC (gRPC over HTTP/2, "Requests").
pub(crate) fn is_grpc(parts: &http::request::Parts) -> bool {
    parts.version == http::Version::HTTP_2
        && parts.method == http::Method::POST
        && is_grpc_type(&parts.headers)
}

fn is_grpc_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// A duration in gRPC's form: at most eight digits and a unit.
pub(crate) fn grpc_timeout(duration: Duration) -> String {
    const MAX: u128 = 99_999_999;
    for (value, unit) in [
        (duration.as_nanos(), 'n'),
        (duration.as_micros(), 'u'),
        (duration.as_millis(), 'm'),
        (duration.as_secs().into(), 'S'),
    ] {
        if value <= MAX {
            return format!("{value}{unit}");
        }
    }
    format!("{}M", (u128::from(duration.as_secs()) / 60).min(MAX))
}

/// A gRPC deadline; none if it is not of its form.
pub(crate) fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        list.iter().map(pair).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn identities_and_connection_headers_are_never_passed_on() {
        let map = headers(&[
            ("x-road-client", "NORD/SH/luebeck/gewerbeamt"),
            ("trave-purpose", "x"),
            ("x-road-anything", "x"),
            ("x_road_client", "NORD/SH/luebeck/gewerbeamt"),
            ("x-forwarded-client-cert", "x"),
            ("forwarded", "for=10.0.0.1"),
            ("connection", "close"),
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            ("content-type", "application/grpc"),
            ("key-bin", "AAEC"),
            ("key-bin", "AwQF"),
        ]);
        let names: Vec<_> = passed_on(Kind::Grpc, &map).into_iter().map(|header| header.name).collect();
        assert_eq!(names, ["content-type", "key-bin", "key-bin"]);
        assert!(
            to_header_map(Kind::Grpc, &[schema::Header { name: "x-road-client".into(), value: "x".into() }])
                .is_err()
        );
        assert!(
            to_header_map(Kind::Grpc, &[schema::Header { name: "Upper".into(), value: "x".into() }]).is_err()
        );
        assert!(
            to_header_map(Kind::Grpc, &[schema::Header { name: "a".into(), value: "b\r\nc".into() }])
                .is_err()
        );
    }

    #[test]
    fn what_a_caller_declares_is_strict() {
        let declared = Declared::read(&headers(&[("x-road-client", "NORD/SH/luebeck/gewerbeamt")])).unwrap();
        assert_eq!(declared.client.unwrap().as_str(), "NORD/SH/luebeck/gewerbeamt");
        for (reason, list) in [
            (Reason::InvalidMessage, &[("x-road-client", "a"), ("x-road-client", "a")][..]),
            (Reason::InvalidClientIdentifier, &[("x-road-client", "NORD/SH/luebeck")][..]),
            (Reason::UnknownService, &[("x-road-service", "auskunft")][..]),
            (Reason::UnknownPurpose, &[("trave-purpose", "um zu fragen")][..]),
        ] {
            assert_eq!(Declared::read(&headers(list)).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn deadlines_keep_their_value() {
        for text in ["1S", "250m", "99999999u", "1H", "0n"] {
            let duration = parse_grpc_timeout(&HeaderValue::from_static(text)).unwrap();
            let again = parse_grpc_timeout(&grpc_timeout(duration).parse().unwrap()).unwrap();
            assert_eq!(again, duration, "{text}");
        }
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S"] {
            assert_eq!(parse_grpc_timeout(&HeaderValue::from_static(text)), None, "{text}");
        }
    }

    #[test]
    fn many_small_headers_are_refused_before_they_are_counted_out() {
        let many = vec![schema::Header::default(); 25_000];
        assert!(to_header_map(Kind::Grpc, &many).is_err());
        let mut headers = HeaderMap::new();
        for _ in 0..=MAX_FIELDS {
            headers.append("a", HeaderValue::from_static("b"));
        }
        assert_eq!(check_fields(&headers, Side::Client).unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn only_the_permitted_method_is_forwarded() {
        let method: Method = "/a.B/C".parse().unwrap();
        let grpc = schema::Header { name: "content-type".into(), value: "application/grpc".into() };
        let head = |path: &str, verb: &str, query: Option<&str>| {
            let (method, path, query) = (verb.into(), path.into(), query.map(str::to_owned));
            let head = schema::RequestHead { method, path, query, headers: vec![grpc.clone()] };
            Bytes::from(head.encode_to_vec())
        };
        assert!(GrpcHead::read(&head("/a.B/C", "POST", None), &method).is_ok());
        for other in
            [head("/a.B/D", "POST", None), head("/a.B/C", "GET", None), head("/a.B/C", "POST", Some("x"))]
        {
            assert!(GrpcHead::read(&other, &method).is_err());
        }
    }
}
