//! `X-Road-Request-Hash`, as X-Road's message protocol for REST gives it with an answer: what its caller asked, as one value.
//!
//! It has no salt: whoever holds it can try out what may have been asked, also when the content has long been erased. So it
//! is made only at a door that asks for it, for the services that it names; it goes to the caller alone, who knows what was
//! asked, and neither the log nor the other side ever has it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use ring::digest::{self, SHA512};
use trave_host::listen::RawHead;
use trave_proto::identifier::ServiceId;

const REQUEST_HASH: HeaderName = HeaderName::from_static("x-road-request-hash");
const REQUEST_ID: &str = "x-road-request-id";
const MESSAGE_ID: &str = "x-road-id";
/// With what a path of X-Road's protocol begins: of others it knows no hash.
const PROTOCOL: &str = "/r1/";
/// The most header fields of one head.
const MAX_FIELDS: usize = 256;
/// What X-Road takes for no part of a request: fields about one connection, and the two that it gives itself.
const SKIPPED: [&str; 15] = [
    "transfer-encoding",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "connection",
    "user-agent",
    "host",
    "content-length",
    "server",
    "expect",
    REQUEST_ID,
    "x-road-request-hash",
];

/// The hash of a request that is still being read.
pub(crate) struct RequestHash {
    head: Head,
    body: Arc<Mutex<Said>>,
}

/// A head in X-Road's serialisation, without the lines that a security server adds.
struct Head {
    bytes: Vec<u8>,
    /// Whether the caller gave its message an id.
    identified: bool,
}

/// What was said of a body so far.
struct Said {
    digest: digest::Context,
    any: bool,
    ended: bool,
}

impl RequestHash {
    /// Of a request of X-Road's protocol over HTTP/1.1: other versions have neither case nor one order of fields. None where
    /// X-Road knows no hash.
    pub(crate) fn of(parts: &http::request::Parts, body: &Incoming) -> Option<Self> {
        let raw = parts.extensions.get::<RawHead>().filter(|_| parts.version == Version::HTTP_11)?;
        let said = Said { digest: digest::Context::new(&SHA512), any: false, ended: body.is_end_stream() };
        Some(Self { head: Head::read(&raw.0)?, body: Arc::new(Mutex::new(said)) })
    }

    /// Puts the hash into the head of an answer of one of these services. None is given where the answer begins before the
    /// request has ended, and with an error of a security server's.
    pub(crate) fn label(self, services: &[ServiceId], answer: &mut HeaderMap) {
        let text = |name: &str| answer.get(name).and_then(|value| value.to_str().ok());
        let service = text("x-road-service").filter(|name| services.iter().any(|one| one.as_str() == *name));
        let (Some(_), Some(id), None) = (service, text(REQUEST_ID), text("x-road-error")) else { return };
        let hash = self.value(id, text(MESSAGE_ID).unwrap_or_default());
        if let Some(hash) = hash.and_then(|hash| HeaderValue::from_str(&hash).ok()) {
            answer.insert(REQUEST_HASH, hash);
        }
    }

    fn value(self, request_id: &str, message_id: &str) -> Option<String> {
        let Head { bytes: mut head, identified } = self.head;
        write_field(&mut head, REQUEST_ID, request_id.as_bytes());
        if !identified {
            write_field(&mut head, MESSAGE_ID, message_id.as_bytes());
        }
        let head = digest::digest(&SHA512, &head);
        let said = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.ended {
            return None;
        }
        let whole = match said.any {
            false => head,
            true => {
                let body = said.digest.clone().finish();
                digest::digest(&SHA512, &[head.as_ref(), body.as_ref()].concat())
            }
        };
        Some(STANDARD.encode(whole))
    }
}

impl Head {
    /// Method, target, and fields in their order and case. None of what is not X-Road's protocol, or has other characters
    /// than ASCII, which programs read differently.
    fn read(raw: &[u8]) -> Option<Self> {
        let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        request.parse(raw).ok().filter(httparse::Status::is_complete)?;
        let (method, target) = (request.method?, request.path.filter(|path| path.starts_with(PROTOCOL))?);
        let mut bytes = Vec::with_capacity(raw.len());
        for line in [method, target] {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let mut identified = false;
        for field in request.headers.iter() {
            let is = |name: &&str| field.name.eq_ignore_ascii_case(name);
            identified |= is(&MESSAGE_ID);
            if !SKIPPED.iter().any(is) {
                write_field(&mut bytes, field.name, field.value);
            }
        }
        bytes.is_ascii().then_some(Self { bytes, identified })
    }
}

fn write_field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b":", value.trim_ascii(), b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

/// The body of a call, and who listens while it is read.
pub(crate) struct Heard {
    body: Incoming,
    hash: Option<Arc<Mutex<Said>>>,
}

impl Heard {
    pub(crate) fn new(body: Incoming, hash: Option<&RequestHash>) -> Self {
        Self { body, hash: hash.map(|hash| Arc::clone(&hash.body)) }
    }
}

impl Body for Heard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(hash), Poll::Ready(frame)) = (&self.hash, &polled) {
            let ended = frame.is_none() || self.body.is_end_stream();
            hash.lock().unwrap_or_else(PoisonError::into_inner).hear(frame.as_ref(), ended);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Said {
    fn hear<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>, ended: bool) {
        match frame {
            Some(Err(_)) => {}
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.digest.update(data);
                    self.any |= !data.is_empty();
                }
                self.ended = ended || frame.is_trailers();
            }
            None => self.ended = ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "NORD/MV/gewerberegister/register/akten";

    fn head(method: &str, field: &str) -> Head {
        let raw = format!(
            "{method} /r1/{SERVICE}/v1/betriebe?felder=a%2Fb HTTP/1.1\r\nHost: 127.0.0.1\r\n\
             X-Road-Client:   NORD/SH/luebeck/gewerbeamt \r\n{field}\r\ntrave-Purpose: gewerbeummeldung\r\n\
             User-Agent: x\r\ncontent-LENGTH: 6\r\nX-Road-Request-Hash: forged\r\n\r\n"
        );
        Head::read(raw.as_bytes()).unwrap()
    }

    fn hash(head: Head, body: &[&'static [u8]], ended: bool) -> RequestHash {
        let mut said = Said { digest: digest::Context::new(&SHA512), any: false, ended: body.is_empty() };
        for (at, piece) in body.iter().enumerate() {
            let frame: Result<_, ()> = Ok(Frame::data(Bytes::from_static(piece)));
            said.hear(Some(&frame), ended && at + 1 == body.len());
        }
        RequestHash { head, body: Arc::new(Mutex::new(said)) }
    }

    fn answer(message_id: &str) -> HeaderMap {
        let fields = [("x-road-service", SERVICE), (REQUEST_ID, "0197-1"), (MESSAGE_ID, message_id)];
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn labelled(hash: RequestHash, mut answer: HeaderMap) -> Option<String> {
        hash.label(&[SERVICE.parse().unwrap()], &mut answer);
        answer.get(REQUEST_HASH).map(|value| value.to_str().unwrap().to_owned())
    }

    /// The values are those of Python's hashlib over what X-Road's source writes.
    #[test]
    fn it_is_x_roads() {
        let bare = labelled(hash(head("GET", "Accept: */*"), &[], true), answer("0197-1"));
        let expected =
            "sqa5CxydbeAwiq7FqxtYAJ69koKUDP/Hk+O4vOf2dysO6Nv7Z5UIaQ09jl6WXFbNhuMCuOJ7m/cGMdZd0/XxKg==";
        assert_eq!(bare.as_deref(), Some(expected));
        let with_body = hash(head("POST", "X-ROAD-ID: mine"), &[b"abc", b"def"], true);
        let expected =
            "5solK541jxvbAmwJgOpCCnMpcZRHqC3GJdJcHN+m0VZI8A7Tvq8bVRHdXy/KM5Vqvj7tlQvTj//bW8X10xT+eQ==";
        assert_eq!(labelled(with_body, answer("mine")).as_deref(), Some(expected));
        // A body of nothing is none.
        let empty = hash(head("GET", "Accept: */*"), &[b""], true);
        assert_eq!(labelled(empty, answer("0197-1")), bare);
    }

    #[test]
    fn none_is_given_where_x_road_has_none() {
        let request = || hash(head("GET", "Accept: */*"), &[], true);
        assert!(labelled(request(), answer("a")).is_some());
        for (name, value) in
            [("x-road-service", "NORD/MV/gewerberegister/register/x"), ("x-road-error", "a.b")]
        {
            let mut other = answer("a");
            other.insert(name, value.parse().unwrap());
            assert_eq!(labelled(request(), other), None, "{name}");
        }
        assert_eq!(
            labelled(hash(head("POST", "A: b"), &[b"abc"], false), answer("a")),
            None,
            "not yet ended"
        );
        for raw in ["GET /akten/a HTTP/1.1\r\n\r\n", "GET /r1/a HTTP/1.1\r\nA: \u{e4}\r\n\r\n", "GET /r1/a"] {
            assert!(Head::read(raw.as_bytes()).is_none(), "{raw:?}");
        }
    }
}
