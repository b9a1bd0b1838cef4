//! X-Road's own errors, as they come from beyond a bridge: in the spelling of before 7.8 (`Server.ServerProxy.AccessDenied`)
//! and in that of since then (`server.serverproxy.access_denied`).

use http::HeaderValue;
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::identifier::XRoadServiceId;
use trave_proto::schema::transport::RegisterReached;

/// Parts of a code that are said before any register was called, whichever of the two security servers says them. Of all
/// others it is not known: most can be said of the answer too.
const BEFORE_CALL: [&str; 9] = [
    "access_denied",
    "unknown_service",
    "unknown_member",
    "service_disabled",
    "invalid_client_identifier",
    "invalid_security_server",
    "ssl_authentication_failed",
    "unknown_host",
    "maintenance_mode",
];
/// The longest part of a code, in characters.
const LONGEST: usize = 64;

/// What the caller is told: X-Road's code and words, and that they are from beyond the bridge.
pub(super) fn fault(code: &str, message: Option<&str>, service: &XRoadServiceId) -> Fault {
    let parts: Vec<String> = code.split('.').map(snake_case).collect();
    let reason = parts.iter().find_map(|part| Reason::parse(part)).unwrap_or(Reason::ServiceFailed);
    let before = parts.iter().any(|part| BEFORE_CALL.contains(&part.as_str()));
    let reached = if before { RegisterReached::No } else { RegisterReached::Unknown };
    let said = message.map(|message| format!(": {}", plain(message))).unwrap_or_default();
    let why = format!(
        "beyond the bridge, on the way to {service}, X-Road refused with {}{said}",
        plain(&parts.join("."))
    );
    Fault::before_call(reason, Side::Register, why).with_register(reached)
}

/// Both spellings become the later one. What is no code stays as it is, and is none that is known.
fn snake_case(part: &str) -> String {
    let mut snake = String::with_capacity(part.len() + 8);
    for (at, character) in part.chars().take(LONGEST).enumerate() {
        // "ServerProxy" and "ClientProxy" are one word in the later spelling.
        let first_or_one_word = at == 0 || part.ends_with("Proxy");
        if character.is_ascii_uppercase() && !first_or_one_word {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// The sentence for a person in an error's body.
pub(super) fn message(content_type: Option<&HeaderValue>, body: &[u8]) -> Option<String> {
    let content_type = content_type?.to_str().ok()?;
    if content_type.contains("json") {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        return body.get("message")?.as_str().map(str::to_owned);
    }
    // <error><type>…</type><message>…</message></error>: its entities stay as they are written.
    let body = std::str::from_utf8(body).ok().filter(|_| content_type.contains("xml"))?;
    let (_, rest) = body.split_once("<message>")?;
    rest.split_once("</message>").map(|(message, _)| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_error() {
        let service = "EE/GOV/1/sub/rr".parse().unwrap();
        for (code, reason, reached, shown) in [
            (
                "Server.ServerProxy.AccessDenied",
                Reason::AccessDenied,
                RegisterReached::No,
                "server.serverproxy.access_denied",
            ),
            (
                "server.serverproxy.access_denied",
                Reason::AccessDenied,
                RegisterReached::No,
                "server.serverproxy.access_denied",
            ),
            (
                "Server.ClientProxy.UnknownMember",
                Reason::UnknownMember,
                RegisterReached::No,
                "server.clientproxy.unknown_member",
            ),
            (
                "Client.InvalidClientIdentifier",
                Reason::InvalidClientIdentifier,
                RegisterReached::No,
                "client.invalid_client_identifier",
            ),
            (
                "Server.ClientProxy.NetworkError",
                Reason::NetworkError,
                RegisterReached::Unknown,
                "server.clientproxy.network_error",
            ),
            (
                "server.serverproxy.service_failed.unknown_host",
                Reason::ServiceFailed,
                RegisterReached::No,
                "server.serverproxy.service_failed.unknown_host",
            ),
            (
                "Server.ServerProxy.ServiceDisabled",
                Reason::ServiceFailed,
                RegisterReached::No,
                "server.serverproxy.service_disabled",
            ),
            ("", Reason::ServiceFailed, RegisterReached::Unknown, ""),
            ("\u{1b}[2J.x", Reason::ServiceFailed, RegisterReached::Unknown, "?[2_j.x"),
        ] {
            let fault = fault(code, Some("Request is not allowed"), &service);
            assert_eq!((fault.reason, fault.register_reached, fault.side), (reason, reached, Side::Register));
            assert!(fault.message.contains(shown), "{code}: {}", fault.message);
            assert!(fault.message.ends_with(": Request is not allowed"));
        }
    }

    #[test]
    fn the_sentence_is_read_from_either_form() {
        let json = HeaderValue::from_static("application/json;charset=utf-8");
        let xml = HeaderValue::from_static("text/xml");
        assert_eq!(message(Some(&json), br#"{"type":"a","message":"no"}"#).as_deref(), Some("no"));
        let body = b"<error><type>a</type><message>no</message></error>";
        assert_eq!(message(Some(&xml), body).as_deref(), Some("no"));
        for (kind, body) in
            [(&json, &b"{\"message\":1}"[..]), (&json, b"<"), (&xml, b"<message>"), (&xml, b"\xff")]
        {
            assert_eq!(message(Some(kind), body), None);
        }
        assert_eq!(message(None, body), None);
    }
}
