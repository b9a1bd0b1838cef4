//! Everything that is refused, in one table: what is done, what the caller is told, how often the register was called, and
//! what both logs hold. Forged messages come from security servers that break the rules with real keys and real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_proto::fault::{Fault, Reason};
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Ending, MAX_BODY};
use trave_proto::schema::message::Envelope;
use trave_proto::schema::transport::Fault as WireFault;
use trave_proto::signature::Signer;
use trave_tests::network::hostile::{
    Alteration, Credentials, HostileClient, HostileProvider, Outcome, Spoken,
};
use trave_tests::network::{
    Answer, Caller, EMPTY_SERVICE, Instance, KIEL, LUEBECK, OTHER_CLIENT, OTHER_LEGAL_BASIS, OTHER_PURPOSE,
    Plan, Question, REGISTER, RegisterCall, Script, happened, summary,
};

/// How far a call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Refused at the agency's door: nothing is signed, nothing is sent.
    Door,
    /// Refused by the register's security server.
    Peer,
    /// The answer is refused by the agency's security server.
    Answer,
    /// Something is down, expired or broken.
    Broken,
}

type Doing<'a> = Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

/// What is done.
#[derive(Clone, Copy)]
enum Act {
    /// The agency asks at one of its doors.
    Ask(usize, fn(Question) -> Question),
    /// A hostile security server asks: with which credentials, with what in the message, altered how after signing.
    Forge(fn(&Instance) -> Credentials, fn(&mut Spoken), fn(&mut Envelope)),
    /// The agency asks, and a hostile security server answers.
    Answered(fn(&Instance) -> Credentials, Alteration),
    /// Anything else; afterwards the instance is of no further use.
    Do(for<'a> fn(&'a mut Instance) -> Doing<'a>),
}

/// What the caller was told.
struct Told {
    /// gRPC status.
    status: i32,
    reason: String,
    side: String,
    /// Whether the register was reached.
    reached: String,
    /// Where other exchanges had to come before: the one that the row is about.
    exchange: Option<ExchangeId>,
}

/// One row: the act, and what everybody sees of it.
struct Row {
    refused: &'static str,
    stage: Stage,
    act: Act,
    caller: (i32, &'static str, &'static str, &'static str),
    /// Calls that the register saw.
    register: usize,
    /// What is new in the log of the agency's security server.
    sh: &'static [&'static str],
    /// What is new in the log of the register's security server.
    mv: &'static [&'static str],
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

fn honest(instance: &Instance) -> Credentials {
    Credentials::of(LUEBECK, &instance.authorities, &instance.configuration)
}

fn kiel(instance: &Instance) -> Credentials {
    Credentials::of(KIEL, &instance.authorities, &instance.configuration)
}

fn provider(instance: &Instance) -> Credentials {
    Credentials::of(REGISTER, &instance.authorities, &instance.configuration)
}

fn as_it_is<T>(_: &mut T) {}

fn flip(bytes: &mut Bytes) {
    let mut altered = bytes.to_vec();
    altered[8] ^= 1;
    *bytes = altered.into();
}

fn rows() -> Vec<Row> {
    [door(), peer(), answer(), broken()].into_iter().flatten().collect()
}

/// A row of the door: the agency's server alone sees it.
fn at_door(
    refused: &'static str,
    (door, question): (usize, fn(Question) -> Question),
    caller: (i32, &'static str, &'static str, &'static str),
    sh: &'static [&'static str],
) -> Row {
    Row { refused, stage: Stage::Door, act: Act::Ask(door, question), caller, register: 0, sh, mv: &[] }
}

fn door() -> Vec<Row> {
    vec![
        at_door(
            "a header that claims another subsystem",
            (0, |q| q.header("x-road-client", OTHER_CLIENT)),
            (7, "invalid_client_identifier", "client", "no"),
            &["refused invalid_client_identifier by client"],
        ),
        at_door(
            "a client that is no identifier",
            (0, |q| q.header("x-road-client", "Lübeck")),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "a doubled header",
            (0, |q| q.header("trave-purpose", OTHER_PURPOSE)),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "a member that the configuration does not know",
            (2, |q| q),
            (5, "unknown_member", "client_server", "no"),
            &["refused unknown_member by client_server"],
        ),
        at_door(
            "a service that the catalogue does not know",
            (0, |q| q.set("x-road-service", "NORD/MV/gewerberegister/register/nichts")),
            (5, "unknown_service", "client_server", "no"),
            &["refused unknown_service by client_server"],
        ),
        at_door(
            "no service",
            (0, |q| q.without("x-road-service")),
            (5, "unknown_service", "client", "no"),
            &["refused unknown_service by client"],
        ),
        at_door(
            "a method that the catalogue does not know",
            (0, |q| q.method("/test.v1.Loeschung/Alles")),
            (12, "unknown_method", "client_server", "no"),
            &["refused unknown_method by client_server"],
        ),
        at_door(
            "a path that is no method",
            (0, |q| q.method("/test.v1.Auskunft/Frage/../Alles")),
            (12, "unknown_method", "client", "no"),
            &["refused unknown_method by client"],
        ),
        at_door(
            "a purpose that the catalogue does not know",
            (0, |q| q.set("trave-purpose", "neugier")),
            (3, "unknown_purpose", "client_server", "no"),
            &["refused unknown_purpose by client_server"],
        ),
        at_door(
            "a purpose that is none of the service",
            (0, |q| q.set("trave-purpose", "statistik")),
            (3, "unknown_purpose", "client_server", "no"),
            &["refused unknown_purpose by client_server"],
        ),
        at_door(
            "no purpose",
            (0, |q| q.without("trave-purpose")),
            (3, "unknown_purpose", "client", "no"),
            &["refused unknown_purpose by client"],
        ),
        at_door(
            "a legal basis that the catalogue does not know",
            (0, |q| q.set("trave-legal-basis", "Faustrecht")),
            (3, "unknown_legal_basis", "client_server", "no"),
            &["refused unknown_legal_basis by client_server"],
        ),
        at_door(
            "something other than gRPC",
            (0, |q| q.set("content-type", "application/json")),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "a deadline that is none",
            (0, |q| q.header("grpc-timeout", "bald")),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "oversize: what goes with a message but is no content",
            (0, |q| q.header("x-road-userid", &"x".repeat(2000))),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
    ]
}

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

fn peer() -> Vec<Row> {
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

fn signature(envelope: &mut Envelope) -> &mut trave_proto::schema::message::Signature {
    envelope.signature.as_mut().unwrap()
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

/// A row of an answer that the agency's server does not give out.
fn refused_answer(
    refused: &'static str,
    act: Act,
    caller: (i32, &'static str, &'static str, &'static str),
    sh: &'static [&'static str],
) -> Row {
    Row { refused, stage: Stage::Answer, act, caller, register: 0, sh, mv: &[] }
}

fn answer() -> Vec<Row> {
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

/// A row of something that is down, expired or broken.
fn when_broken(
    refused: &'static str,
    act: for<'a> fn(&'a mut Instance) -> Doing<'a>,
    caller: (i32, &'static str, &'static str, &'static str),
    (sh, register, mv): (&'static [&'static str], usize, &'static [&'static str]),
) -> Row {
    Row { refused, stage: Stage::Broken, act: Act::Do(act), caller, register, sh, mv }
}

fn broken() -> Vec<Row> {
    vec![
        when_broken(
            "the register's security server is down",
            |instance| {
                Box::pin(async {
                    instance.mv.stop().await;
                    ask(instance).await
                })
            },
            (14, "network_error", "client_server", "no"),
            (&["refused network_error by client_server"], 0, &[]),
        ),
        when_broken(
            "the register is down",
            |instance| {
                Box::pin(async {
                    instance.register.stop().await;
                    ask(instance).await
                })
            },
            (14, "service_failed", "register", "no"),
            (
                &["sent request end", "ended failed service_failed by register, register no"],
                0,
                &["received request end", "ended failed service_failed by register, register no"],
            ),
        ),
        when_broken(
            "the register breaks the call off",
            |instance| {
                Box::pin(async {
                    instance.register.script(Script::Abort);
                    ask(instance).await
                })
            },
            (14, "service_failed", "register", "unknown"),
            (
                &["sent request end", "ended unknown service_failed by register, register unknown"],
                1,
                &["received request end", "ended unknown service_failed by register, register unknown"],
            ),
        ),
        when_broken(
            "the register breaks its answer off",
            |instance| Box::pin(broken_off_in_the_middle(instance)),
            (14, "service_failed", "register", "yes"),
            (
                &[
                    "sent request end",
                    "received response continue",
                    "ended failed service_failed by register, register yes",
                ],
                1,
                &[
                    "received request end",
                    "sent response continue",
                    "ended failed service_failed by register, register yes",
                ],
            ),
        ),
        when_broken(
            "more calls than the agency's server admits",
            |instance| Box::pin(one_too_many(instance, true)),
            (8, "overloaded", "client_server", "no"),
            (&["sent request end", "refused overloaded by client_server"], 1, &["received request end"]),
        ),
        when_broken(
            "more calls than the register's server admits",
            |instance| Box::pin(one_too_many(instance, false)),
            (8, "overloaded", "provider_server", "no"),
            (
                &[
                    "sent request end",
                    "sent request end",
                    "ended failed overloaded by provider_server, register no",
                ],
                1,
                &["received request end", "refused overloaded by provider_server"],
            ),
        ),
        when_broken(
            "a global configuration that has ended",
            |instance| {
                Box::pin(async {
                    instance.advance(25 * 60 * MINUTE);
                    ask(instance).await
                })
            },
            (14, "global_conf_outdated", "client_server", "no"),
            (&["refused global_conf_outdated by client_server"], 0, &[]),
        ),
        when_broken(
            "a stale configuration: the sender's has ended, and there is a newer one",
            |instance| Box::pin(stale(instance)),
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "configuration 2 from peer",
                    "refused global_conf_outdated by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a configuration below the threshold",
            |instance| {
                let next = instance.next_configuration(|_| {});
                Box::pin(under(instance, Instance::unsigned(&next), 1))
            },
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "refused invalid_signature_value by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a forked configuration: a second one of the same number",
            |instance| {
                let mut fork = Instance::unsigned(&instance.configuration);
                fork.members[0].name = "Unterschoben".into();
                Box::pin(under(instance, fork, 2))
            },
            (14, "global_conf_outdated", "provider_server", "no"),
            (
                &[],
                0,
                &[
                    "refused global_conf_outdated by provider_server",
                    "refused global_conf_outdated by provider_server",
                ],
            ),
        ),
        when_broken(
            "a TLS key of the agency's server that the configuration does not list",
            |instance| {
                Box::pin(async {
                    instance.sh.exchange_authentication_key(&instance.authorities).await;
                    ask(instance).await
                })
            },
            (14, "network_error", "client_server", "no"),
            (&["refused network_error by client_server"], 0, &[]),
        ),
        when_broken(
            "a full disk of the agency's server",
            |instance| {
                Box::pin(async {
                    instance
                        .sh
                        .reconfigure(|text| text.replace("reserve_mib = 1", "reserve_mib = 1000000000"))
                        .await;
                    ask(instance).await
                })
            },
            (8, "disk_full", "client_server", "no"),
            (&["refused disk_full by client_server"], 0, &[]),
        ),
        when_broken(
            "a full disk of the register's server",
            |instance| {
                Box::pin(async {
                    instance
                        .mv
                        .reconfigure(|text| text.replace("reserve_mib = 1", "reserve_mib = 1000000000"))
                        .await;
                    ask(instance).await
                })
            },
            (8, "disk_full", "provider_server", "no"),
            (
                &["sent request end", "ended failed disk_full by provider_server, register no"],
                0,
                &["refused disk_full by provider_server"],
            ),
        ),
        when_broken(
            "a disk of the register's server that fails before the call",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: false, again: false }))
            },
            (14, "logging_failed", "provider_server", "no"),
            (&["sent request end", "ended failed logging_failed by provider_server, register no"], 0, &[]),
        ),
        when_broken(
            "a disk of the register's server that fails in flight: the answer is withheld",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: true, again: false }))
            },
            (14, "logging_failed", "provider_server", "yes"),
            (
                &["sent request end", "ended unknown logging_failed by provider_server, register yes"],
                1,
                &["received request end"],
            ),
        ),
        when_broken(
            "a disk of the register's server that has failed already",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: false, while_answering: true, again: true }))
            },
            (14, "logging_failed", "provider_server", "no"),
            (&["sent request end", "ended failed logging_failed by provider_server, register no"], 0, &[]),
        ),
        when_broken(
            "a disk of the agency's server that fails in flight: the answer is withheld",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: true, while_answering: true, again: false }))
            },
            (14, "logging_failed", "client_server", "yes"),
            (&["sent request end"], 1, &["received request end", "sent response end"]),
        ),
        when_broken(
            "a disk of the agency's server that has failed already",
            |instance| {
                Box::pin(disk_fails(instance, Failing { ours: true, while_answering: true, again: true }))
            },
            (14, "logging_failed", "client_server", "no"),
            (&[], 0, &[]),
        ),
    ]
}

async fn ask(instance: &Instance) -> Told {
    of_answer(&instance.ask(b"wer?").await)
}

/// The caller has the first message when the register breaks off: the error follows as trailers.
async fn broken_off_in_the_middle(instance: &Instance) -> Told {
    instance.register.script(Script::AbortWhenTold);
    let mut open = instance.caller().await.open(Question::new()).await;
    open.send(b"wer?").await;
    open.end();
    let headers = open.head().await;
    assert_eq!(open.next().await.unwrap(), trave_tests::network::frame(b"halb"));
    instance.register.tell();
    let trailers = open.next().await.unwrap_err();
    of_answer(&Answer { headers, messages: Vec::new(), trailers, trailers_only: false })
}

/// One call is under way where one is admitted; the row is about the next.
async fn one_too_many(instance: &mut Instance, ours: bool) -> Told {
    let server = if ours { &mut instance.sh } else { &mut instance.mv };
    server.reconfigure(|text| format!("{text}\n[limits]\nexchanges = 1\n")).await;
    instance.register.script(Script::Hold);
    let mut first = instance.caller().await.open(Question::new()).await;
    first.send(b"wer?").await;
    first.end();
    instance.register.called(1).await;
    let told = ask(instance).await;
    first.cancel();
    told
}

/// The configuration that a hostile server goes on using has ended; the register's server has a newer one.
async fn stale(instance: &mut Instance) -> Told {
    let old = instance.configuration.clone();
    instance.advance(23 * 60 * MINUTE);
    let next = instance.next_configuration(|_| {});
    let mut client = HostileClient::connect(instance, kiel(instance)).await.unwrap();
    assert_eq!(client.offer(&next).await.unwrap(), 2);
    assert_eq!(client.offer(&old).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    instance.advance(2 * 60 * MINUTE);
    forged(instance, honest(instance)).await
}

/// A hostile server offers a configuration that may not be adopted, and goes on to use it.
async fn under(
    instance: &mut Instance,
    configuration: trave_proto::schema::configuration::GlobalConfiguration,
    signatures: usize,
) -> Told {
    let configuration = instance.keys.sign_by(&configuration, signatures);
    let credentials = Credentials { configuration: configuration.clone(), ..honest(instance) };
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    assert_eq!(client.offer(&configuration).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    told(client.send(vec![client.sign(client.question())]).await)
}

async fn forged(instance: &Instance, credentials: Credentials) -> Told {
    let mut client = HostileClient::connect(instance, credentials).await.unwrap();
    told(client.send(vec![client.sign(client.question())]).await)
}

/// Whose disk fails, and when.
#[derive(Clone, Copy)]
struct Failing {
    ours: bool,
    while_answering: bool,
    again: bool,
}

/// The segment that is written to is nearly full, and no other can begin: the one record that is too large fails.
async fn disk_fails(instance: &mut Instance, failing: Failing) -> Told {
    let server = if failing.ours { &instance.sh } else { &instance.mv };
    let caller = instance.caller().await;
    let some = "x".repeat(15 << 10);
    while server.left_in_segment() > 45 << 10 {
        assert_eq!(caller.ask(Question::new().header("fuellung", &some)).await.status(), 0);
    }
    server.break_disk();
    let large = "x".repeat(48 << 10);
    let question = if failing.while_answering {
        let status = ("grpc-status", "0".to_owned());
        instance.register.script(Script::TrailersOnly(vec![status, ("fuellung", large)]));
        Question::new()
    } else {
        Question::new().header("fuellung", &large)
    };
    let mut answer = caller.ask(question).await;
    if failing.again {
        assert_eq!(answer.told().unwrap().0, "logging_failed");
        answer = caller.ask(Question::new()).await;
    }
    server.mend_disk();
    Told { exchange: Some(answer.exchange()), ..of_answer(&answer) }
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::Fault(fault) => of_fault(&fault),
        other => panic!("no fault: {other:?}"),
    }
}

fn of_fault(fault: &Fault) -> Told {
    Told {
        status: fault.reason.grpc_status() as i32,
        reason: fault.reason.as_str().into(),
        side: fault.side.as_str().into(),
        reached: fault.register_reached_str().into(),
        exchange: None,
    }
}

/// A refused greeting has a status and no exchange.
fn greeted(connected: Result<HostileClient, tonic::Status>) -> Told {
    let status = connected.expect_err("the greeting is refused");
    assert!(status.message().len() > 15, "a refusal says what happened: {status:?}");
    let (reason, side, reached) = ("greeting".into(), "provider_server".into(), "no".into());
    Told { status: status.code() as i32, reason, side, reached, exchange: None }
}

fn of_answer(answer: &Answer) -> Told {
    let message = answer.message();
    assert!(message.len() > 15, "a refusal says what happened: {message:?}");
    let info = answer.info().expect("a refusal says its reason to programs");
    assert_eq!(info.domain, "trave");
    assert!(Reason::parse(&info.reason.to_lowercase()).is_some(), "{info:?}");
    assert_eq!(info.metadata["exchange_id"], answer.exchange().to_string());
    let (reason, side, reached) = answer.told().unwrap();
    Told { status: answer.status(), reason, side, reached, exchange: None }
}

async fn act(instance: &mut Instance, act: Act) -> Told {
    match act {
        Act::Ask(door, alter) => {
            let caller = Caller::connect(instance.sh.agency(door)).await;
            of_answer(&caller.ask(alter(Question::new().message(b"wer?"))).await)
        }
        Act::Forge(who, speak, alter) => {
            let mut client = match HostileClient::connect(instance, who(instance)).await {
                Ok(client) => client,
                refused => return greeted(refused),
            };
            let mut spoken = client.question();
            speak(&mut spoken);
            let mut envelope = client.sign(spoken);
            alter(&mut envelope);
            told(client.send(vec![envelope]).await)
        }
        Act::Answered(who, alteration) => {
            instance.mv.stop().await;
            let hostile = HostileProvider::start(instance, who(instance), alteration).await;
            let seen = of_answer(&instance.ask(b"wer?").await);
            hostile.stop().await;
            instance.mv.start().await.unwrap();
            seen
        }
        Act::Do(act) => act(instance).await,
    }
}

async fn start() -> Instance {
    let door = |subsystem: &str| {
        format!(
            "[[agency]]\nlisten = \"127.0.0.1:0\"\nsubsystem = \"{subsystem}\"\nkeep_content = \"none\"\n"
        )
    };
    let at_client = [door(OTHER_CLIENT), door("NORD/SH/flensburg/amt")].concat();
    Instance::planned(Plan { at_client, ..Plan::default() }).await
}

/// Goes through the rows of one stage. All that differ are told.
async fn go_through(stage: Stage) {
    let mut instance = start().await;
    let mut wrong = Vec::new();
    for row in rows().into_iter().filter(|row| row.stage == stage) {
        let (sh, mv, calls) = (instance.sh.size(), instance.mv.size(), instance.register.count());
        let told = act(&mut instance, row.act).await;
        let caller = (told.status, told.reason.as_str(), told.side.as_str(), told.reached.as_str());
        let (sh, mv) = (instance.sh.records(sh), instance.mv.records(mv));
        let (sh, mv, register) = match told.exchange {
            None => (happened(&sh), happened(&mv), instance.register.count() - calls),
            Some(exchange) => {
                let seen = instance.register.calls();
                let of = |call: &&Arc<RegisterCall>| {
                    call.header("trave-exchange-id") == Some(exchange.to_string().as_str())
                };
                (summary(&sh, exchange), summary(&mv, exchange), seen.iter().filter(of).count())
            }
        };
        if caller != row.caller || register != row.register || sh != row.sh || mv != row.mv {
            let (expected, seen) = ((row.caller, row.register, row.sh, row.mv), (caller, register, sh, mv));
            wrong.push(format!("{}:\n  expected {expected:?}\n  seen     {seen:?}", row.refused));
        }
        if matches!(row.act, Act::Do(_)) {
            instance.stop().await;
            instance = start().await;
        }
    }
    instance.stop().await;
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_at_the_door_is_neither_signed_nor_sent() {
    go_through(Stage::Door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_by_the_registers_server_the_register_never_sees() {
    go_through(Stage::Peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_an_answer_is_not_given_out() {
    go_through(Stage::Answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_down_or_broken_is_told_and_logged() {
    go_through(Stage::Broken).await;
}
