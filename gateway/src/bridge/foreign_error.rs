//! X-Road's own errors, as they come from beyond a bridge: in the spelling of before 7.8 (`Server.ServerProxy.AccessDenied`)
//! and in that of since then (`server.serverproxy.access_denied`).

use http::HeaderValue;
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::identifier::XRoadServiceId;
use trave_proto::schema::transport::RegisterReached;

/// Where in X-Road a code says that it failed: what stands before its last part.
const PLACES: [&str; 5] = ["server", "client", "serverproxy", "clientproxy", "service_failed"];
/// Last parts of a code that are said before any register was called, whichever of the two security servers says them. Of all
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
/// The parts of X-Road's codes that callers meet and that may come after the call.
const ANY_TIME: [&str; 12] = [
    "service_failed",
    "network_error",
    "io_error",
    "invalid_message",
    "missing_signature",
    "invalid_signature_value",
    "cert_validation",
    "inconsistent_response",
    "global_conf_outdated",
    "logging_failed",
    "timestamping_failed",
    "cannot_create_signature",
];
/// The longest part of a code, in characters.
const LONGEST: usize = 64;

/// An error from beyond the bridge, by who may have written it.
pub(super) enum ForeignError<'a> {
    /// X-Road alone: the answer is of none of its exchanges.
    OfXRoad { code: &'a str, message: Option<&'a str> },
    /// X-Road or the register there: X-Road passes on what a register calls an error of X-Road's, and may add one to an
    /// answer that had begun. So nothing of it is believed, and nothing shown but words that are X-Road's.
    OfEither { code: &'a str },
}

impl ForeignError<'_> {
    /// What the caller is told: X-Road's code, and that it is from beyond the bridge. X-Road's sentence goes with it where
    /// there was no call yet: after it, it may tell of the content.
    pub(super) fn fault(&self, service: &XRoadServiceId) -> Fault {
        let (Self::OfXRoad { code, .. } | Self::OfEither { code }) = self;
        let parts: Vec<String> = code.split('.').map(snake_case).collect();
        let shown = plain(&parts.join("."));
        let (reached, why) = match self {
            Self::OfXRoad { message, .. } if is_before_call(&parts) => {
                let said = message.map(|message| format!(": {}", plain(message))).unwrap_or_default();
                (RegisterReached::No, format!("X-Road refused with {shown}{said}"))
            }
            Self::OfXRoad { .. } => (RegisterReached::Unknown, format!("X-Road failed with {shown}")),
            Self::OfEither { .. } => {
                let known = parts.iter().all(|part| PLACES.contains(&part.as_str()) || is_leaf(part));
                let shown = if known { &*shown } else { "a code that is none of X-Road's" };
                let why =
                    format!("the answer is marked as an error, by X-Road or by the service, with {shown}");
                (RegisterReached::Unknown, why)
            }
        };
        let why = format!("beyond the bridge, on the way to {service}, {why}");
        Fault::before_call(reason(&parts), Side::Register, why).with_register(reached)
    }
}

/// The last part says most. Reasons of our own that X-Road has not are none that it can have meant.
fn reason(parts: &[String]) -> Reason {
    let theirs = parts.iter().rev().filter(|part| is_leaf(part));
    theirs.filter_map(|part| Reason::parse(part)).next().unwrap_or(Reason::ServiceFailed)
}

/// Whether the code can only come before the call: that says its last part, and the others say no more than where.
fn is_before_call(parts: &[String]) -> bool {
    let Some((last, places)) = parts.split_last() else { return false };
    BEFORE_CALL.contains(&last.as_str()) && places.iter().all(|part| PLACES.contains(&part.as_str()))
}

/// Whether X-Road's codes have this part.
fn is_leaf(part: &str) -> bool {
    BEFORE_CALL.contains(&part) || ANY_TIME.contains(&part)
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
            // The last part is the reason, and says alone whether there was a call.
            (
                "server.serverproxy.service_failed.unknown_member",
                Reason::UnknownMember,
                RegisterReached::No,
                "server.serverproxy.service_failed.unknown_member",
            ),
            (
                "server.network_error.access_denied",
                Reason::AccessDenied,
                RegisterReached::Unknown,
                "server.network_error.access_denied",
            ),
            (
                "server.serverproxy.access_denied.io_error",
                Reason::AccessDenied,
                RegisterReached::Unknown,
                "server.serverproxy.access_denied.io_error",
            ),
            // Reasons of ours that X-Road has not.
            ("server.serverproxy.disk_full", Reason::ServiceFailed, RegisterReached::Unknown, "disk_full"),
            ("", Reason::ServiceFailed, RegisterReached::Unknown, ""),
            ("\u{1b}[2J.x", Reason::ServiceFailed, RegisterReached::Unknown, "?[2_j.x"),
        ] {
            let fault = ForeignError::OfXRoad { code, message: Some("GET /anna?b") }.fault(&service);
            assert_eq!((fault.reason, fault.register_reached, fault.side), (reason, reached, Side::Register));
            assert!(fault.message.contains(shown), "{code}: {}", fault.message);
            // After a call the sentence may hold what was asked.
            assert_eq!(fault.message.ends_with(": GET /anna?b"), reached == RegisterReached::No, "{code}");
            assert_eq!(fault.message.contains("anna"), reached == RegisterReached::No, "{code}");
        }
    }

    #[test]
    fn what_a_register_may_have_written_is_not_believed() {
        let service = "EE/GOV/1/sub/rr".parse().unwrap();
        for (code, shown) in [
            ("server.serverproxy.maintenance_mode", true),
            ("Server.ServerProxy.AccessDenied", true),
            ("server.network_error.access_denied", true),
            ("anna.access_denied", false),
            ("", false),
        ] {
            let fault = ForeignError::OfEither { code }.fault(&service);
            assert_eq!(
                (fault.register_reached, fault.retry_safe()),
                (RegisterReached::Unknown, false),
                "{code}"
            );
            assert!(!fault.message.contains("anna"), "{}", fault.message);
            assert_eq!(fault.message.contains("none of X-Road's"), !shown, "{}", fault.message);
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
