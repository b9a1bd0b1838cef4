//! What a caller gets when an exchange fails: a gRPC status with `google.rpc.ErrorInfo`, or X-Road's error.

mod rest;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use prost::Message;
use trave_proto::fault::Fault;
use trave_proto::identifier::ExchangeId;

use super::head::{EXCHANGE_ID, Kind};
use crate::bridge::FromXRoad;
use crate::relayed::Relayed;
pub(crate) use rest::labels;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: std::collections::BTreeMap<String, String>,
}

/// An error to whoever came through the door of this kind with these headers; beyond a bridge, where the door is one.
pub(crate) fn refusal(
    kind: Kind,
    asked: &HeaderMap,
    fault: &Fault,
    exchange: Option<ExchangeId>,
    bridge: Option<&FromXRoad>,
) -> Response<Relayed> {
    match (kind, bridge) {
        (Kind::Grpc, _) => trailers_only(fault, exchange),
        (Kind::Rest, None) => rest::fault(fault, asked, exchange),
        (Kind::Rest, Some(_)) => rest::as_of_a_service(rest::fault(fault, asked, exchange)),
    }
}

/// A gRPC error in a head without body ("Trailers-Only").
fn trailers_only<B: Default>(fault: &Fault, exchange: Option<ExchangeId>) -> Response<B> {
    let mut response = Response::new(B::default());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().extend(trailers(fault, exchange));
    response
}

/// A gRPC error as trailers, where a head went out before.
pub(crate) fn trailers(fault: &Fault, exchange: Option<ExchangeId>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let code = fault.reason.grpc_status() as i32;
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&fault.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Some(value) = exchange.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        headers.insert(EXCHANGE_ID, value);
    }
    let details = STANDARD_NO_PAD.encode(status(fault, exchange, code).encode_to_vec());
    if let Ok(details) = HeaderValue::from_str(&details) {
        headers.insert(GRPC_STATUS_DETAILS, details);
    }
    headers
}

fn status(fault: &Fault, exchange: Option<ExchangeId>, code: i32) -> Status {
    let retry_safe = if fault.retry_safe() { "yes" } else { "no" };
    let mut metadata: std::collections::BTreeMap<_, _> = [
        ("side", fault.side.as_str()),
        ("register_reached", fault.register_reached_str()),
        ("retry_safe", retry_safe),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    if let Some(id) = exchange {
        metadata.insert("exchange_id".into(), id.to_string());
    }
    let info = ErrorInfo { reason: fault.reason.as_str().to_uppercase(), domain: "trave".into(), metadata };
    let any = Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
        value: info.encode_to_vec().into(),
    };
    Status { code, message: fault.message.clone(), details: vec![any] }
}

/// gRPC's percent-encoding of messages: everything but printable ASCII, and the percent sign itself.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            0x20..=0x7e => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use trave_proto::clock::Time;
    use trave_proto::fault::{Reason, Side};

    #[test]
    fn an_error_says_reason_side_register_and_retry() {
        let fault = Fault::before_call(Reason::AccessDenied, Side::ProviderServer, "100 % nein: ü");
        let id = ExchangeId::new(Time::from_millis(1), &[1; 10]);
        let headers = trailers(&fault, Some(id));
        assert_eq!(headers[GRPC_STATUS], "7");
        assert_eq!(headers[GRPC_MESSAGE], "100 %25 nein: %C3%BC");
        assert_eq!(headers[EXCHANGE_ID], id.to_string());
        let details = STANDARD_NO_PAD.decode(&headers[GRPC_STATUS_DETAILS]).unwrap();
        let status = Status::decode(details.as_slice()).unwrap();
        let info = ErrorInfo::decode(status.details[0].value.clone()).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ACCESS_DENIED", "trave"));
        assert_eq!(info.metadata["register_reached"], "no");
        assert_eq!(info.metadata["side"], "provider_server");
    }

    #[test]
    fn beyond_a_bridge_an_error_of_ours_is_the_services_own() {
        let bridge = FromXRoad::new(&[]);
        let fault = Fault::before_call(Reason::InternalError, Side::ClientServer, "it stops");
        let refusal = |bridge| refusal(Kind::Rest, &HeaderMap::new(), &fault, None, bridge);
        let (here, beyond) = (refusal(None), refusal(Some(&bridge)));
        assert_eq!(here.headers()["x-road-error"], "server.clientproxy.internal_error");
        assert!(!here.headers().contains_key("trave-error"));
        assert_eq!(beyond.headers()["trave-error"], "server.clientproxy.internal_error");
        assert!(!beyond.headers().contains_key("x-road-error"));
    }
}
