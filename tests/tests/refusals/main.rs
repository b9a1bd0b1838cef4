//! Everything that is refused, in one table: what is done, what the caller is told, how often the register was called, and
//! what both logs hold. Forged messages come from security servers that break the rules with real keys and real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod answer;
mod broken;
mod door;
mod peer;

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
    Plan, Question, REGISTER, RegisterCall, Script, Server, happened, summary,
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
    [door::rows(), peer::rows(), answer::rows(), broken::rows()].into_iter().flatten().collect()
}

fn signature(envelope: &mut Envelope) -> &mut trave_proto::schema::message::Signature {
    envelope.signature.as_mut().unwrap()
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

/// Whether a log tells what is expected. Of an exchange that failed, the last message may not have come any more: where its
/// head came by itself, that is not told apart from the whole.
fn same(seen: &[String], expected: &[&str]) -> bool {
    let failed = seen.iter().any(|line| line.starts_with("ended"));
    let line =
        |line: &str| if failed { line.replace("request continue", "request end") } else { line.into() };
    seen.iter().map(|seen| line(seen)).eq(expected.iter().map(|expected| line(expected)))
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
        let logged = same(&sh, row.sh) && same(&mv, row.mv);
        if caller != row.caller || register != row.register || !logged {
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
