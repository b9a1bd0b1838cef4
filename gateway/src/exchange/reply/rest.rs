//! What an HTTP caller gets from this server itself: X-Road's headers with every answer, and its errors, in JSON or XML.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Side};
use trave_proto::identifier::ExchangeId;

use crate::exchange::head::{EXCHANGE_ID, Kind};
use crate::relayed::Relayed;

const X_ROAD_ERROR: HeaderName = HeaderName::from_static("x-road-error");
const TRAVE_ERROR: HeaderName = HeaderName::from_static("trave-error");

/// What stands in the head of every answer, whoever gave it: under which ids it is logged and, for HTTP, whose call it was.
pub(crate) fn labels(kind: Kind, topic: Option<&Topic>, message_id: &str, exchange: ExchangeId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = exchange.to_string();
    if kind == Kind::Grpc {
        headers.extend(HeaderValue::from_str(&id).ok().map(|id| (EXCHANGE_ID, id)));
        return headers;
    }
    let message_id = if message_id.is_empty() { &id } else { message_id };
    let (client, service) =
        topic.map(|topic| (topic.client.as_str(), topic.service.as_str())).unwrap_or_default();
    // Beyond a bridge other names hold, which its security server gives there.
    let bridged = topic.is_some_and(|topic| topic.bridged_from.is_some());
    let (client, service, request_id) = if bridged { ("", "", "") } else { (client, service, id.as_str()) };
    for (name, value) in [
        (HeaderName::from_static("x-road-client"), client),
        (HeaderName::from_static("x-road-service"), service),
        (HeaderName::from_static("x-road-id"), message_id),
        (HeaderName::from_static("x-road-request-id"), request_id),
        (EXCHANGE_ID, &id),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    headers
}

/// An error of this server's or the other's, never of the register's.
pub(crate) fn fault(fault: &Fault, asked: &HeaderMap, exchange: Option<ExchangeId>) -> Response<Relayed> {
    let code = code(fault);
    let xml = wants_xml(asked);
    let body = if xml { in_xml(fault, &code, exchange) } else { in_json(fault, &code, exchange) };
    let mut response = Response::new(Relayed::counted(body));
    *response.status_mut() = status(fault);
    let headers = response.headers_mut();
    let content_type = if xml { "application/xml" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(code) = HeaderValue::from_str(&code) {
        headers.insert(X_ROAD_ERROR, code);
    }
    response
}

/// Beyond a bridge an error of ours is the service's own: X-Road itself did not fail.
pub(super) fn as_of_a_service(mut refusal: Response<Relayed>) -> Response<Relayed> {
    if let Some(code) = refusal.headers_mut().remove(X_ROAD_ERROR) {
        refusal.headers_mut().insert(TRAVE_ERROR, code);
    }
    refusal
}

/// X-Road's code: where it failed, and why.
fn code(fault: &Fault) -> String {
    let place = match fault.side {
        Side::Client => "client",
        Side::ClientServer => "server.clientproxy",
        Side::ProviderServer | Side::Register => "server.serverproxy",
    };
    format!("{place}.{}", fault.reason.as_str())
}

/// X-Road knows two: the caller's own mistakes, and everything else.
fn status(fault: &Fault) -> StatusCode {
    match fault.side {
        Side::Client => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether the caller takes XML and no JSON.
fn wants_xml(asked: &HeaderMap) -> bool {
    let accepted = asked.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types: Vec<String> = accepted
        .flat_map(|value| value.split(','))
        .map(|entry| entry.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .collect();
    let is = |names: &[&str]| types.iter().any(|entry| names.contains(&entry.as_str()));
    is(&["application/xml", "text/xml"]) && !is(&["application/json", "application/*", "*/*"])
}

fn told(fault: &Fault, exchange: Option<ExchangeId>) -> [(&'static str, String); 5] {
    let retry_safe = if fault.retry_safe() { "yes" } else { "no" };
    [
        ("reason", fault.reason.as_str().into()),
        ("side", fault.side.as_str().into()),
        ("register_reached", fault.register_reached_str().into()),
        ("retry_safe", retry_safe.into()),
        ("exchange_id", exchange.map(|id| id.to_string()).unwrap_or_default()),
    ]
}

fn in_json(fault: &Fault, code: &str, exchange: Option<ExchangeId>) -> Bytes {
    let detail = exchange.map(|id| id.to_string()).unwrap_or_default();
    let mut body = json!({ "type": code, "message": fault.message, "detail": detail });
    for (name, value) in told(fault, exchange) {
        body[name] = value.into();
    }
    body.to_string().into()
}

fn in_xml(fault: &Fault, code: &str, exchange: Option<ExchangeId>) -> Bytes {
    let detail = exchange.map(|id| id.to_string()).unwrap_or_default();
    let first = [("type", code.to_owned()), ("message", fault.message.clone()), ("detail", detail)];
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>");
    for (name, value) in first.into_iter().chain(told(fault, exchange)) {
        body.push_str(&format!("<{name}>{}</{name}>", escaped(&value)));
    }
    body.push_str("</error>\n");
    body.into()
}

/// What XML 1.0 may hold between tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use trave_proto::clock::Time;
    use trave_proto::fault::Reason;

    async fn read(response: Response<Relayed>) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn an_error_says_x_roads_code_and_ours() {
        let denied = Fault::before_call(Reason::AccessDenied, Side::ProviderServer, "no <grant> & \"none\"");
        let id = ExchangeId::new(Time::from_millis(1), &[1; 10]);
        let response = fault(&denied, &HeaderMap::new(), Some(id));
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[X_ROAD_ERROR], "server.serverproxy.access_denied");
        let body: serde_json::Value = serde_json::from_str(&read(response).await).unwrap();
        assert_eq!(body["type"], "server.serverproxy.access_denied");
        assert_eq!((&body["reason"], &body["side"]), (&"access_denied".into(), &"provider_server".into()));
        assert_eq!((&body["register_reached"], &body["retry_safe"]), (&"no".into(), &"no".into()));
        assert_eq!(body["detail"], id.to_string());

        let response = fault(&denied, &accepting("text/xml, application/xml;q=0.9"), Some(id));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/xml");
        let body = read(response).await;
        assert!(body.contains("<message>no &lt;grant&gt; &amp; \"none\"</message>"), "{body}");

        let mistake = Fault::before_call(Reason::UnknownService, Side::Client, "which?");
        let response = fault(&mistake, &accepting("application/xml, */*"), None);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[CONTENT_TYPE]),
            (400, &HeaderValue::from_static("application/json"))
        );
    }
}
