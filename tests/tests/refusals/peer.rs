//! What the register's security server refuses: of honest servers without a grant, and of hostile ones.

use super::*;

/// A row of a question that is signed and sent, and refused by the register's server.
fn refused_by_peer(
    refused: &'static str,
    act: Act,
    caller: (i32, &'static str, &'static str, &'static str),
    mv: &'static [&'static str],
) -> Row {
    let sh: &[&str] = match act {
        Act::Ask(..) if caller.1 == "access_denied" => {
            &["sent request end", "ended failed access_denied by provider_server, register no"]
        }
        Act::Ask(..) => &["sent request end", "ended failed unknown_service by provider_server, register no"],
        _ => &[],
    };
    Row { refused, stage: Stage::Peer, act, caller, register: 0, sh, mv }
}

const DENIED: (i32, &str, &str, &str) = (7, "access_denied", "provider_server", "no");
const NOT_GRANTED: &[&str] = &["refused access_denied by provider_server"];
const REPLAYED: (i32, &str, &str, &str) = (7, "replayed", "provider_server", "no");
const OLD: &[&str] = &["refused replayed by provider_server"];
const NOT_SIGNED: (i32, &str, &str, &str) = (7, "invalid_signature_value", "provider_server", "no");
const UNSIGNED: &[&str] = &["refused invalid_signature_value by provider_server"];
const UNCERTIFIED: (i32, &str, &str, &str) = (7, "cert_validation", "provider_server", "no");
const NOT_GREETED: (i32, &str, &str, &str) = (7, "greeting", "provider_server", "no");

pub(super) fn rows() -> Vec<Row> {
    let forged = |refused, alter, caller, mv| {
        refused_by_peer(refused, Act::Forge(honest, as_it_is, alter), caller, mv)
    };
    let spoken = |refused, speak, caller, mv| {
        refused_by_peer(refused, Act::Forge(honest, speak, as_it_is), caller, mv)
    };
    vec![
        refused_by_peer(
            "a purpose that is not granted",
            Act::Ask(0, |q| q.set("trave-purpose", OTHER_PURPOSE)),
            DENIED,
            NOT_GRANTED,
        ),
        refused_by_peer(
            "a legal basis that is not granted",
            Act::Ask(0, |q| q.set("trave-legal-basis", OTHER_LEGAL_BASIS)),
            DENIED,
            NOT_GRANTED,
        ),
        refused_by_peer("a client without a grant", Act::Ask(1, |q| q), DENIED, NOT_GRANTED),
        refused_by_peer(
            "a method that is not granted",
            Act::Ask(0, |q| q.method("/gewerbe.v1.Register/Auskunft")),
            DENIED,
            NOT_GRANTED,
        ),
        refused_by_peer(
            "a service without a register",
            Act::Ask(0, |q| q.set("x-road-service", EMPTY_SERVICE)),
            (5, "unknown_service", "provider_server", "no"),
            &["refused unknown_service by provider_server"],
        ),
        forged("a wrong signature", |e| flip(&mut signature(e).value), NOT_SIGNED, UNSIGNED),
        forged("no signature", |e| e.signature = None, NOT_SIGNED, UNSIGNED),
        forged(
            "a signature at another place of a batch",
            |e| signature(e).batch_size = 2,
            NOT_SIGNED,
            UNSIGNED,
        ),
        forged(
            "a manifest altered after it was signed",
            |e| alter_manifest(e, |f| f.created = f.created.plus(Duration::from_millis(1))),
            NOT_SIGNED,
            UNSIGNED,
        ),
        refused_by_peer(
            "a signature by another member's key",
            Act::Do(|instance| Box::pin(signed_by_kiels_key(instance))),
            NOT_SIGNED,
            UNSIGNED,
        ),
        refused_by_peer(
            "a signer of another member",
            Act::Forge(kiel, as_it_is, as_it_is),
            (7, "signer_not_allowed", "provider_server", "no"),
            &["refused signer_not_allowed by provider_server"],
        ),
        spoken(
            "a sender that is another security server",
            |s| s.fields.sender = KIEL.parse().unwrap(),
            (7, "signer_not_allowed", "provider_server", "no"),
            &["refused signer_not_allowed by provider_server"],
        ),
        forged(
            "altered content",
            |e| flip(&mut e.body),
            (15, "content_mismatch", "provider_server", "no"),
            &["refused content_mismatch by provider_server"],
        ),
        forged(
            "an altered head",
            |e| e.head = Some(Bytes::from_static(b"\n\x04POST")),
            (15, "content_mismatch", "provider_server", "no"),
            &["refused content_mismatch by provider_server"],
        ),
        forged(
            "an altered caller context",
            |e| e.caller_context = Some(Bytes::from_static(b"\n\x01x")),
            (15, "content_mismatch", "provider_server", "no"),
            &["refused content_mismatch by provider_server"],
        ),
        forged(
            "oversize: more than a message may hold",
            |e| e.body = vec![0; MAX_BODY + 1].into(),
            (8, "too_large", "provider_server", "no"),
            &["refused too_large by provider_server"],
        ),
        spoken(
            "a head that is for another method than the manifest",
            |s| s.fields.method = Some("/test.v1.Auskunft/Andere".parse().unwrap()),
            (3, "invalid_message", "provider_server", "no"),
            &["received request end", "ended failed invalid_message by provider_server, register no"],
        ),
        spoken("a wrong nonce", |s| s.fields.nonce = [1; 32], REPLAYED, OLD),
        spoken(
            "a receiver that does not offer the service",
            |s| s.fields.receiver = KIEL.parse().unwrap(),
            (7, "signer_not_allowed", "provider_server", "no"),
            &["refused signer_not_allowed by provider_server"],
        ),
        Row {
            refused: "a wrong audience: another security server that offers the service",
            stage: Stage::Peer,
            act: Act::Do(|instance| Box::pin(for_another_server(instance))),
            caller: REPLAYED,
            register: 0,
            sh: &[],
            mv: &["configuration 2 from peer", "refused replayed by provider_server"],
        },
        spoken(
            "a message of six minutes ago",
            |s| s.fields.created = s.fields.created.minus(6 * MINUTE),
            REPLAYED,
            OLD,
        ),
        spoken(
            "an exchange id of six minutes ago",
            |s| s.fields.exchange = old_exchange(s, false),
            REPLAYED,
            OLD,
        ),
        spoken("an exchange id of the future", |s| s.fields.exchange = old_exchange(s, true), REPLAYED, OLD),
        Row {
            refused: "an exchange id that was seen",
            stage: Stage::Peer,
            act: Act::Do(|instance| Box::pin(sent_twice(instance))),
            caller: REPLAYED,
            register: 1,
            sh: &[],
            mv: &["received request end", "sent response end", "refused replayed by provider_server"],
        },
        Row {
            refused: "an exchange id that was seen before a restart, signed anew",
            stage: Stage::Peer,
            act: Act::Do(|instance| Box::pin(sent_again_after_a_restart(instance))),
            caller: REPLAYED,
            register: 1,
            sh: &[],
            mv: &["received request end", "sent response end", "refused replayed by provider_server"],
        },
        spoken(
            "a message that begins in the middle",
            |s| {
                s.fields.index = 1;
                s.fields.previous = Some(trave_proto::digest::Digest::of(b"nothing"));
            },
            (3, "invalid_message", "provider_server", "no"),
            &["refused invalid_message by provider_server"],
        ),
        spoken(
            "a client that is registered elsewhere",
            |s| s.fields.client = "NORD/SH/kiel/gewerbeamt".parse().unwrap(),
            (7, "signer_not_allowed", "provider_server", "no"),
            &["refused signer_not_allowed by provider_server"],
        ),
        spoken(
            "a purpose that the caller's server did not check",
            |s| s.fields.purpose = "neugier".parse().unwrap(),
            (3, "unknown_purpose", "provider_server", "no"),
            &["refused unknown_purpose by provider_server"],
        ),
        spoken(
            "a configuration that nobody signed",
            |s| s.fields.configuration_digest = trave_proto::digest::Digest::of(b"nothing"),
            (14, "global_conf_outdated", "provider_server", "no"),
            &["refused global_conf_outdated by provider_server"],
        ),
        refused_by_peer(
            "an expired signing certificate, in the middle of a connection",
            Act::Do(|instance| Box::pin(expired_on_the_way(instance))),
            UNCERTIFIED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "an expired signing certificate",
            Act::Do(|instance| Box::pin(expired(instance))),
            NOT_GREETED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "a revoked signing certificate",
            Act::Forge(
                |instance| honest(instance).with_signing_for(&instance.authorities, DAY, true),
                as_it_is,
                as_it_is,
            ),
            NOT_GREETED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "a signing key that the configuration does not list",
            Act::Forge(
                |instance| honest(instance).with_unlisted_signing(&instance.authorities),
                as_it_is,
                as_it_is,
            ),
            NOT_GREETED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "another member's signing certificate",
            Act::Forge(
                |instance| {
                    let kiel = kiel(instance);
                    Credentials { signing: kiel.signing, ocsp: kiel.ocsp, ..honest(instance) }
                },
                as_it_is,
                as_it_is,
            ),
            NOT_GREETED,
            &["refused ssl_authentication_failed by provider_server"],
        ),
    ]
}

fn alter_manifest(envelope: &mut Envelope, alter: fn(&mut trave_proto::message::ManifestFields)) {
    let manifest = trave_proto::message::Manifest::parse(envelope.manifest.clone()).unwrap();
    let mut fields = trave_proto::message::ManifestFields::clone(&manifest);
    alter(&mut fields);
    envelope.manifest = trave_proto::message::Manifest::new(fields).encoded().clone();
}

fn old_exchange(spoken: &Spoken, future: bool) -> trave_proto::identifier::ExchangeId {
    let time = spoken.fields.exchange.time();
    let time = if future { time.plus(6 * MINUTE) } else { time.minus(6 * MINUTE) };
    trave_proto::identifier::ExchangeId::new(time, &[5; 10])
}

async fn for_another_server(instance: &mut Instance) -> Told {
    const OTHER: &str = "NORD/MV/gewerberegister/s2";
    let next = instance.next_configuration(|configuration| {
        let mut other = configuration.security_servers[0].clone();
        other.id = OTHER.into();
        other.authentication_keys = vec![vec![1; 32].into()];
        other.signing_keys = vec![vec![2; 32].into()];
        other.logs.clear();
        configuration.security_servers.insert(1, other);
    });
    let mut client = HostileClient::connect(instance, kiel(instance)).await.unwrap();
    client.offer(&next).await.unwrap();
    let credentials = Credentials { configuration: next, ..honest(instance) };
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    let mut question = client.question();
    question.fields.receiver = OTHER.parse().unwrap();
    told(client.send(vec![client.sign(question)]).await)
}

async fn sent_twice(instance: &mut Instance) -> Told {
    let mut client = HostileClient::connect(instance, honest(instance)).await.unwrap();
    let envelope = client.sign(client.question());
    assert!(matches!(client.send(vec![envelope.clone()]).await, Outcome::Answered));
    told(client.send(vec![envelope]).await)
}

async fn sent_again_after_a_restart(instance: &mut Instance) -> Told {
    let mut client = HostileClient::connect(instance, honest(instance)).await.unwrap();
    let question = client.question();
    let exchange = question.fields.exchange;
    assert!(matches!(client.send(vec![client.sign(question)]).await, Outcome::Answered));
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    let mut client = HostileClient::connect(instance, honest(instance)).await.unwrap();
    let mut again = client.question();
    again.fields.exchange = exchange;
    told(client.send(vec![client.sign(again)]).await)
}

async fn signed_by_kiels_key(instance: &mut Instance) -> Told {
    struct With<'a>(&'a dyn trave_host::keys::Sign);
    impl Signer for With<'_> {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
            self.0.sign(message).map_err(Into::into)
        }
    }
    let mut client = HostileClient::connect(instance, honest(instance)).await.unwrap();
    let mut envelope = client.sign(client.question());
    let manifest = trave_proto::message::Manifest::parse(envelope.manifest.clone()).unwrap();
    let kiel = kiel(instance);
    let other = trave_proto::signature::sign_batch(&With(kiel.signing.0.as_ref()), &[&manifest]).unwrap();
    envelope.signature = Some(other[0].to_schema());
    told(client.send(vec![envelope]).await)
}

async fn expired_on_the_way(instance: &mut Instance) -> Told {
    let credentials = honest(instance).with_signing_for(&instance.authorities, 10 * MINUTE, false);
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    instance.advance(11 * MINUTE);
    let mut question = client.question();
    question.fields.created = question.fields.created.plus(11 * MINUTE);
    question.fields.exchange = trave_proto::identifier::ExchangeId::new(question.fields.created, &[6; 10]);
    told(client.send(vec![client.sign(question)]).await)
}

async fn expired(instance: &mut Instance) -> Told {
    let credentials = honest(instance).with_signing_for(&instance.authorities, 10 * MINUTE, false);
    instance.advance(11 * MINUTE);
    greeted(HostileClient::connect(instance, credentials).await)
}
