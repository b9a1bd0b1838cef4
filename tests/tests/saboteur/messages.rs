//! Every harm to a message of a unary call, and at every stage of a stream, by somebody who has the TLS keys of both servers, and no signing
//! key: it is refused where it is done, and nothing of it is logged as received.

use std::time::Duration;

use trave_proto::message::Direction;
use trave_tests::network::hostile::Tampering::{
    Altered, BrokenOff, Doubled, Dropped, Foreign, Reordered, Replayed, Truncated,
};
use trave_tests::network::hostile::{Between, Passing, Tampering, Target};
use trave_tests::network::{Answer, Instance, Question, Script, Server, happened, manifests};

/// The messages of a direction: the head, two messages of the caller's, the end.
const FIRST: u64 = 0;
const MIDDLE: u64 = 2;
const LAST: u64 = 3;

/// After harm was done, so long until more is said.
const AFTERWARDS: Duration = Duration::from_millis(350);

/// What everybody sees.
struct Row {
    /// Of a unary call, which has one message each way; of a stream otherwise.
    unary: bool,
    request: bool,
    index: u64,
    harms: &'static [Tampering],
    /// What the caller is told: status; reason, side, register reached.
    caller: (i32, &'static str, &'static str, &'static str),
    /// Calls that the register saw.
    register: usize,
    /// How the exchange ended in the log of the agency's server, and in that of the register's; none where it was
    /// complete, or had not begun.
    ended: (Option<&'static str>, Option<&'static str>),
}

const fn asked(
    index: u64,
    harms: &'static [Tampering],
    caller: (i32, &'static str, &'static str, &'static str),
    ended: (&'static str, Option<&'static str>),
) -> Row {
    let register = if index == FIRST { 0 } else { 1 };
    Row { unary: false, request: true, index, harms, caller, register, ended: (Some(ended.0), ended.1) }
}

const fn answered(
    index: u64,
    harms: &'static [Tampering],
    caller: (i32, &'static str, &'static str, &'static str),
    ended: (&'static str, Option<&'static str>),
) -> Row {
    Row { unary: false, request: false, index, harms, caller, register: 1, ended: (Some(ended.0), ended.1) }
}

/// The only message of a unary call, or its only answer. After it nobody listens any more: once more it is nothing.
const fn unary_message(
    request: bool,
    harms: &'static [Tampering],
    (caller, register): ((i32, &'static str, &'static str, &'static str), usize),
    ended: (Option<&'static str>, Option<&'static str>),
) -> Row {
    Row { unary: true, request, index: FIRST, harms, caller, register, ended }
}

const GONE: Option<&str> = Some("ended aborted aborted by client_server, register unknown");
const DISORDER: Option<&str> = Some("ended aborted out_of_order by provider_server, register unknown");

const BROKE: Option<&str> = Some("ended unknown network_error by client_server, register unknown");
const ANSWERED: (i32, &str, &str, &str) = (0, "", "", "");

const ROWS: &[Row] = &[
    unary_message(
        true,
        &[Altered, Truncated],
        ((15, "content_mismatch", "provider_server", "no"), 0),
        (
            Some("ended failed content_mismatch by provider_server, register no"),
            Some("refused content_mismatch by provider_server"),
        ),
    ),
    unary_message(
        true,
        &[Foreign],
        ((7, "replayed", "provider_server", "no"), 0),
        (
            Some("ended failed replayed by provider_server, register no"),
            Some("refused replayed by provider_server"),
        ),
    ),
    unary_message(
        true,
        &[Dropped, Reordered, BrokenOff],
        ((14, "network_error", "client_server", "unknown"), 0),
        (BROKE, None),
    ),
    unary_message(true, &[Doubled], (ANSWERED, 1), (None, None)),
    unary_message(
        false,
        &[Altered, Truncated],
        ((15, "content_mismatch", "client_server", "unknown"), 1),
        (Some("ended unknown content_mismatch by client_server, register unknown"), None),
    ),
    unary_message(
        false,
        &[Foreign],
        ((15, "inconsistent_response", "client_server", "unknown"), 1),
        (Some("ended unknown inconsistent_response by client_server, register unknown"), None),
    ),
    unary_message(
        false,
        &[Dropped, Reordered, BrokenOff],
        ((14, "network_error", "client_server", "unknown"), 1),
        (BROKE, None),
    ),
    unary_message(false, &[Doubled], (ANSWERED, 1), (None, None)),
    asked(
        FIRST,
        &[Altered, Truncated],
        (15, "content_mismatch", "provider_server", "no"),
        (
            "ended failed content_mismatch by provider_server, register no",
            Some("refused content_mismatch by provider_server"),
        ),
    ),
    asked(
        FIRST,
        &[Dropped, Reordered],
        (15, "out_of_order", "provider_server", "no"),
        (
            "ended failed out_of_order by provider_server, register no",
            Some("refused out_of_order by provider_server"),
        ),
    ),
    asked(
        FIRST,
        &[Foreign],
        (7, "replayed", "provider_server", "no"),
        (
            "ended failed replayed by provider_server, register no",
            Some("refused replayed by provider_server"),
        ),
    ),
    asked(
        FIRST,
        &[BrokenOff],
        (14, "network_error", "client_server", "unknown"),
        ("ended unknown network_error by client_server, register unknown", None),
    ),
    asked(
        MIDDLE,
        &[Altered, Truncated],
        (15, "content_mismatch", "provider_server", "yes"),
        (
            "ended aborted content_mismatch by provider_server, register yes",
            Some("ended aborted content_mismatch by provider_server, register unknown"),
        ),
    ),
    asked(
        MIDDLE,
        &[Dropped, Reordered, Replayed, Doubled, Foreign],
        (15, "out_of_order", "provider_server", "yes"),
        ("ended aborted out_of_order by provider_server, register yes", DISORDER),
    ),
    asked(
        MIDDLE,
        &[BrokenOff],
        (1, "aborted", "provider_server", "yes"),
        ("ended aborted aborted by provider_server, register yes", GONE),
    ),
    // The end has no content: it is its manifest that is changed.
    asked(
        LAST,
        &[Altered],
        (7, "invalid_signature_value", "provider_server", "yes"),
        (
            "ended aborted invalid_signature_value by provider_server, register yes",
            Some("ended aborted invalid_signature_value by provider_server, register unknown"),
        ),
    ),
    asked(
        LAST,
        &[Truncated],
        (3, "invalid_message", "provider_server", "yes"),
        (
            "ended aborted invalid_message by provider_server, register yes",
            Some("ended aborted invalid_message by provider_server, register unknown"),
        ),
    ),
    asked(
        LAST,
        &[Replayed, Foreign],
        (15, "out_of_order", "provider_server", "yes"),
        ("ended aborted out_of_order by provider_server, register yes", DISORDER),
    ),
    asked(
        LAST,
        &[Dropped, Reordered, BrokenOff],
        (1, "aborted", "provider_server", "yes"),
        ("ended aborted aborted by provider_server, register yes", GONE),
    ),
    answered(
        FIRST,
        &[Altered, Truncated],
        (15, "content_mismatch", "client_server", "unknown"),
        ("ended unknown content_mismatch by client_server, register unknown", GONE),
    ),
    answered(
        FIRST,
        &[Dropped, Reordered],
        (15, "out_of_order", "client_server", "unknown"),
        ("ended unknown out_of_order by client_server, register unknown", GONE),
    ),
    answered(
        FIRST,
        &[Doubled],
        (15, "out_of_order", "client_server", "yes"),
        ("ended aborted out_of_order by client_server, register yes", GONE),
    ),
    answered(
        FIRST,
        &[Foreign],
        (15, "inconsistent_response", "client_server", "unknown"),
        ("ended unknown inconsistent_response by client_server, register unknown", GONE),
    ),
    answered(
        FIRST,
        &[BrokenOff],
        (14, "network_error", "client_server", "unknown"),
        ("ended unknown network_error by client_server, register unknown", GONE),
    ),
    answered(
        MIDDLE,
        &[Altered, Truncated],
        (15, "content_mismatch", "client_server", "yes"),
        ("ended aborted content_mismatch by client_server, register yes", GONE),
    ),
    answered(
        MIDDLE,
        &[Replayed, Doubled],
        (15, "out_of_order", "client_server", "yes"),
        ("ended aborted out_of_order by client_server, register yes", GONE),
    ),
    // It is the end that shows it, when the register's server has done its part.
    answered(
        MIDDLE,
        &[Dropped, Reordered],
        (15, "out_of_order", "client_server", "yes"),
        ("ended aborted out_of_order by client_server, register yes", None),
    ),
    answered(
        MIDDLE,
        &[Foreign],
        (15, "inconsistent_response", "client_server", "yes"),
        ("ended aborted inconsistent_response by client_server, register yes", GONE),
    ),
    answered(
        MIDDLE,
        &[BrokenOff],
        (14, "network_error", "client_server", "yes"),
        ("ended aborted network_error by client_server, register yes", GONE),
    ),
    answered(
        LAST,
        &[Altered, Truncated],
        (15, "content_mismatch", "client_server", "yes"),
        ("ended aborted content_mismatch by client_server, register yes", None),
    ),
    answered(
        LAST,
        &[Replayed],
        (15, "out_of_order", "client_server", "yes"),
        ("ended aborted out_of_order by client_server, register yes", None),
    ),
    answered(
        LAST,
        &[Foreign],
        (15, "inconsistent_response", "client_server", "yes"),
        ("ended aborted inconsistent_response by client_server, register yes", None),
    ),
    answered(
        LAST,
        &[Dropped, Reordered, BrokenOff],
        (14, "network_error", "client_server", "yes"),
        ("ended aborted network_error by client_server, register yes", None),
    ),
];

/// Two messages to and fro, one after the other; what the caller is answered in the end.
async fn stream(instance: &Instance, between: &Between) -> Answer {
    instance.register.script(Script::Echo);
    let mut open = instance.caller().await.open(Question::new().header("grpc-timeout", "9S")).await;
    let sender = open.split();
    let mut passing = between.passing();
    let sending = tokio::spawn(async move {
        for (number, message) in ["eins", "zwei", ""].into_iter().enumerate() {
            // Each has come and gone before the next, so that each is a message of its own: the head first.
            let said = number as u64 + 1;
            let gone =
                |passing: &Passing| passing.harmed || (passing.requests >= said && passing.answers >= said);
            if passing.wait_for(gone).await.unwrap().harmed {
                // What is refused is refused before more comes.
                tokio::time::sleep(AFTERWARDS).await;
            }
            if !message.is_empty() && !sender.try_send(message.as_bytes()).await {
                return;
            }
        }
    });
    let answer = tokio::time::timeout(Duration::from_secs(15), open.finish()).await.expect("nothing hangs");
    sending.abort();
    answer
}

/// One message to, one fro.
async fn unary(instance: &Instance) -> Answer {
    instance.register.script(Script::TrailersOnly(vec![("grpc-status", "0".to_owned())]));
    let question = Question::new().header("grpc-timeout", "9S").message(b"eins");
    let caller = instance.caller().await;
    tokio::time::timeout(Duration::from_secs(15), caller.ask(question)).await.expect("nothing hangs")
}

/// How the log says that an exchange ended, since it had so many records; waits for it if it should.
async fn ended(server: &Server, since: u64, waits: bool) -> Option<String> {
    for _ in 0..200 {
        let told = happened(&server.records(since));
        let found = told.into_iter().find(|line| line.starts_with("ended") || line.starts_with("refused"));
        if found.is_some() || !waits {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Goes through one row; what differs from it.
async fn differs(instance: &Instance, between: &Between, row: &Row, tampering: Tampering) -> Option<String> {
    let said = async || match row.unary {
        true => unary(instance).await,
        false => stream(instance, between).await,
    };
    between.aim(None);
    assert_eq!(said().await.status(), 0, "an exchange before, and after others were harmed");
    let (sizes, calls) = ((instance.sh.size(), instance.mv.size()), instance.register.count());
    let Row { request, index, .. } = *row;
    between.aim(Some(Target { request, index, tampering }));
    let answer = said().await;
    let (reason, side, reached) = answer.told().unwrap_or_default();
    let caller = (answer.status(), reason.as_str(), side.as_str(), reached.as_str());
    let sh = ended(&instance.sh, sizes.0, row.ended.0.is_some()).await;
    let mv = ended(&instance.mv, sizes.1, row.ended.1.is_some()).await;
    let calls = instance.register.count() - calls;
    // Who receives the message has logged all before it, and none from it on; but the first of two that are the same.
    let (receiver, direction) = match request {
        true => (&instance.mv, Direction::Request),
        false => (&instance.sh, Direction::Response),
    };
    let received = manifests(&receiver.records(0), answer.exchange(), direction).len() as u64;
    let expected = index + u64::from(tampering == Doubled);
    let same = caller == row.caller
        && calls == row.register
        && (sh.as_deref(), mv.as_deref()) == row.ended
        && received == expected;
    (!same).then(|| {
        let way = if request { "request" } else { "answer" };
        let seen = (caller, calls, sh, mv, received);
        let expected = (row.caller, row.register, row.ended, expected);
        let kind = if row.unary { "unary" } else { "stream" };
        format!("{kind} {way} {index} {tampering:?}:\n  expected {expected:?}\n  seen     {seen:?}")
    })
}

async fn go_through(request: bool) {
    let mut instance = Instance::start().await;
    // One connection for all: whoever connects a second time finds nobody.
    let between = Between::start(&mut instance, None).await;
    let mut wrong = Vec::new();
    for row in ROWS.iter().filter(|row| row.request == request) {
        for tampering in row.harms {
            wrong.extend(differs(&instance, &between, row, *tampering).await);
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    between.aim(None);
    assert_eq!(stream(&instance, &between).await.status(), 0);
    between.stop().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harmed_message_of_a_request_is_refused_where_it_is_harmed() {
    go_through(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harmed_message_of_an_answer_is_not_given_out() {
    go_through(false).await;
}
