//! Everything that is refused, in one table: what is done, what the caller is told, how often the register was called, and
//! what both logs hold. Forged messages come from security servers that break the rules with real keys and real TLS.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use trave_proto::fault::{Fault, Reason};
use trave_proto::message::{Ending, MAX_BODY};
use trave_proto::schema::message::Envelope;
use trave_proto::schema::transport::Fault as WireFault;
use trave_proto::signature::Signer;
use trave_tests::network::hostile::{
    Alteration, Credentials, HostileClient, HostileProvider, Outcome, Spoken,
};
use trave_tests::network::{
    Answer, Caller, EMPTY_SERVICE, Instance, KIEL, LUEBECK, OTHER_CLIENT, OTHER_LEGAL_BASIS, OTHER_PURPOSE,
    Plan, Question, REGISTER, SERVICE, Script, happened,
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

/// What the caller was told: gRPC status, reason, side, whether the register was reached.
type Told = (i32, String, String, String);

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
        spoken("a wrong audience", |s| s.fields.receiver = KIEL.parse().unwrap(), REPLAYED, OLD),
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
            UNCERTIFIED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "a revoked signing certificate",
            Act::Forge(
                |instance| honest(instance).with_signing_for(&instance.authorities, DAY, true),
                as_it_is,
                as_it_is,
            ),
            UNCERTIFIED,
            &["refused cert_validation by provider_server"],
        ),
        refused_by_peer(
            "a signing key that the configuration does not list",
            Act::Forge(
                |instance| honest(instance).with_unlisted_signing(&instance.authorities),
                as_it_is,
                as_it_is,
            ),
            UNCERTIFIED,
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
            UNCERTIFIED,
            &["refused cert_validation by provider_server"],
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
            &["sent request end", "ended failed invalid_signature_value by client_server, register unknown"],
        ),
        envelope(
            "an answer that was altered",
            |e| flip(&mut e.body),
            (15, "content_mismatch", "client_server", "unknown"),
            &["sent request end", "ended failed content_mismatch by client_server, register unknown"],
        ),
        fields(
            "an answer to another question",
            |f| f.last_received = Some(trave_proto::digest::Digest::of(b"another")),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended failed inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer of another exchange",
            |f| f.exchange = trave_proto::identifier::ExchangeId::new(f.created, &[4; 10]),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended failed inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer for another purpose",
            |f| f.purpose = OTHER_PURPOSE.parse().unwrap(),
            (15, "inconsistent_response", "client_server", "unknown"),
            &["sent request end", "ended failed inconsistent_response by client_server, register unknown"],
        ),
        fields(
            "an answer with the nonce of another connection",
            |f| f.nonce = [1; 32],
            (7, "replayed", "client_server", "unknown"),
            &["sent request end", "ended failed replayed by client_server, register unknown"],
        ),
        fields(
            "an answer of another security server",
            |f| f.sender = KIEL.parse().unwrap(),
            (7, "signer_not_allowed", "client_server", "unknown"),
            &["sent request end", "ended failed signer_not_allowed by client_server, register unknown"],
        ),
        fields(
            "an answer under a configuration that nobody signed",
            |f| f.configuration_digest = trave_proto::digest::Digest::of(b"nothing"),
            (14, "global_conf_outdated", "client_server", "unknown"),
            &["sent request end", "ended failed global_conf_outdated by client_server, register unknown"],
        ),
        fields(
            "an answer that is broken off",
            |f| f.ending = Ending::Abort,
            (1, "aborted", "register", "yes"),
            &[
                "sent request end",
                "received response abort",
                "ended aborted aborted by register, register yes",
            ],
        ),
        refused_answer(
            "no answer",
            Act::Answered(provider, Alteration::Silence),
            (14, "network_error", "client_server", "unknown"),
            &["sent request end", "ended failed network_error by client_server, register unknown"],
        ),
        refused_answer(
            "a fault that is not in the table",
            Act::Answered(
                provider,
                Alteration::Fault(|| WireFault { reason: "keine Lust".into(), ..WireFault::default() }),
            ),
            (13, "internal_error", "provider_server", "unknown"),
            &["sent request end", "ended failed internal_error by provider_server, register unknown"],
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

fn broken() -> Vec<Row> {
    Vec::new()
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::Fault(fault) => of_fault(&fault),
        other => panic!("no fault: {other:?}"),
    }
}

fn of_fault(fault: &Fault) -> Told {
    let status = fault.reason.grpc_status() as i32;
    let reached = fault.register_reached_str();
    (status, fault.reason.as_str().into(), fault.side.as_str().into(), reached.into())
}

/// What a refused greeting means for a caller of an honest server in the same place.
fn greeted(connected: Result<HostileClient, tonic::Status>) -> Told {
    let status = connected.expect_err("the greeting is refused");
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
    let reason = Reason::CertValidation;
    (reason.grpc_status() as i32, reason.as_str().into(), "provider_server".into(), "no".into())
}

fn of_answer(answer: &Answer) -> Told {
    let message = answer.message();
    assert!(message.len() > 15, "a refusal says what happened: {message:?}");
    let info = answer.info().expect("a refusal says its reason to programs");
    assert_eq!(info.domain, "trave");
    assert!(Reason::parse(&info.reason.to_lowercase()).is_some(), "{info:?}");
    assert_eq!(info.metadata["exchange_id"], answer.exchange().to_string());
    let (reason, side, reached) = answer.told().unwrap();
    (answer.status(), reason, side, reached)
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
        let (status, reason, side, reached) = act(&mut instance, row.act).await;
        let caller = (status, reason.as_str(), side.as_str(), reached.as_str());
        let (sh, mv) = (happened(&instance.sh.records(sh)), happened(&instance.mv.records(mv)));
        let register = instance.register.count() - calls;
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
