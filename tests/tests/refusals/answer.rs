//! Answers that the agency's security server does not give out.

use super::*;

/// A row of an answer that the agency's server does not give out.
fn refused_answer(
    refused: &'static str,
    act: Act,
    caller: (i32, &'static str, &'static str, &'static str),
    sh: &'static [&'static str],
) -> Row {
    Row { refused, stage: Stage::Answer, act, caller, register: 0, sh, mv: &[] }
}

pub(super) fn rows() -> Vec<Row> {
    let fields = |refused, alter, caller, sh| {
        refused_answer(refused, Act::Answered(provider, Alteration::Fields(alter)), caller, sh)
    };
    let envelope = |refused, alter, caller, sh| {
        refused_answer(refused, Act::Answered(provider, Alteration::Envelope(alter)), caller, sh)
    };
    let shown =
        |refused, who, caller, sh| refused_answer(refused, Act::Answered(who, Alteration::None), caller, sh);
    vec![
        envelope(
            "an answer with a wrong signature",
            |e| flip(&mut signature(e).value),
            (7, "invalid_signature_value", "client_server", "unknown"),
            &["sent request end", "ended unknown invalid_signature_value by client_server, register unknown"],
        ),
        envelope(
            "an answer that was altered",
            |e| flip(&mut e.body),
            (15, "content_mismatch", "client_server", "unknown"),
            &["sent request end", "ended unknown content_mismatch by client_server, register unknown"],
        ),
        fields(
            "an answer to another question",
            |f| f.last_received = Some(trave_proto::digest::Digest::of(b"another")),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended unknown inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer of another exchange",
            |f| f.exchange = trave_proto::identifier::ExchangeId::new(f.created, &[4; 10]),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended unknown inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer for another purpose",
            |f| f.purpose = OTHER_PURPOSE.parse().unwrap(),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended unknown inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer with the nonce of another connection",
            |f| f.nonce = [1; 32],
            (7, "replayed", "client_server", "unknown"),
            &["sent request end", "ended unknown replayed by client_server, register unknown"],
        ),
        fields(
            "an answer of another security server",
            |f| f.sender = KIEL.parse().unwrap(),
            (7, "signer_not_allowed", "client_server", "unknown"),
            &["sent request end", "ended unknown signer_not_allowed by client_server, register unknown"],
        ),
        fields(
            "an answer under a configuration that nobody signed",
            |f| f.configuration_digest = trave_proto::digest::Digest::of(b"nothing"),
            (14, "global_conf_outdated", "client_server", "unknown"),
            &["sent request end", "ended unknown global_conf_outdated by client_server, register unknown"],
        ),
        fields(
            "an answer that is broken off, and looks complete",
            |f| f.ending = Ending::Abort,
            (3, "invalid_message", "client_server", "unknown"),
            &["sent request end", "ended unknown invalid_message by client_server, register unknown"],
        ),
        refused_answer(
            "no answer",
            Act::Answered(provider, Alteration::Silence),
            (14, "network_error", "client_server", "unknown"),
            &["sent request end", "ended unknown network_error by client_server, register unknown"],
        ),
        refused_answer(
            "a fault that is not in the table",
            Act::Answered(
                provider,
                Alteration::Fault(|| WireFault { reason: "keine Lust".into(), ..WireFault::default() }),
            ),
            (13, "internal_error", "provider_server", "unknown"),
            &["sent request end", "ended unknown internal_error by provider_server, register unknown"],
        ),
        refused_answer(
            "a greeting in another server's name",
            Act::Answered(provider, Alteration::Greeting(|g| g.server = KIEL.into())),
            (14, "ssl_authentication_failed", "client_server", "no"),
            &["refused ssl_authentication_failed by client_server"],
        ),
        shown(
            "a revoked signing certificate of the register's server",
            |instance| provider(instance).with_signing_for(&instance.authorities, DAY, true),
            (7, "cert_validation", "client_server", "no"),
            &["refused cert_validation by client_server"],
        ),
        shown(
            "a signing key of the register's server that the configuration does not list",
            |instance| provider(instance).with_unlisted_signing(&instance.authorities),
            (7, "cert_validation", "client_server", "no"),
            &["refused cert_validation by client_server"],
        ),
        shown(
            "a TLS key of the register's server that the configuration does not list",
            |instance| provider(instance).with_unlisted_authentication(&instance.authorities),
            (14, "ssl_authentication_failed", "client_server", "no"),
            &["refused ssl_authentication_failed by client_server"],
        ),
        shown(
            "another security server where the register's should be",
            kiel,
            (14, "ssl_authentication_failed", "client_server", "no"),
            &["refused ssl_authentication_failed by client_server"],
        ),
    ]
}
