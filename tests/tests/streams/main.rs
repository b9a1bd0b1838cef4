//! Streams: each gRPC message is a signed, chained, logged message of its own; what one side ends, breaks off or does not
//! read, the other side feels; and what was not complete is proved as incomplete, at its index.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod ending;
mod pressure;
mod tampered;

use std::time::Duration;

use bytes::Bytes;
use trave_proto::message::{Direction, Ending, Manifest};
use trave_proto::proof::Completeness;
use trave_tests::network::{
    Ended, Instance, Open, Plan, Question, Script, Server, binary, ended_after, export, frame, manifests,
    story,
};

/// What an end must reach the other side within: a round trip, and what a busy machine adds.
const PROMPT: Duration = Duration::from_secs(2);

/// A stream of the usual call, with this message already sent.
async fn open(instance: &Instance, message: &[u8]) -> Open {
    let open = instance.caller().await.open(Question::new()).await;
    open.send(message).await;
    open
}

/// The lengths of the bodies of messages, where they have one.
fn lengths(manifests: &[Manifest]) -> Vec<u64> {
    manifests.iter().map(|manifest| manifest.content_length).filter(|length| *length > 0).collect()
}

/// Both logs hold the same messages of this direction, each chained to the one before; the last ends it.
fn whole(
    instance: &Instance,
    exchange: trave_proto::identifier::ExchangeId,
    way: Direction,
) -> Vec<Manifest> {
    let ours = manifests(&instance.sh.records(0), exchange, way);
    assert_eq!(ours, manifests(&instance.mv.records(0), exchange, way), "both logs hold the same");
    assert!(ours.iter().enumerate().all(|(at, manifest)| manifest.index == at as u64));
    assert_eq!(ours[0].previous, None);
    assert!(ours.windows(2).all(|two| two[1].previous == Some(two[0].digest())));
    let (last, before) = ours.split_last().unwrap();
    assert!(before.iter().all(|manifest| manifest.ending == Ending::Continue));
    assert_eq!(last.ending, Ending::End);
    ours
}

async fn proved_whole(instance: &Instance, exchange: trave_proto::identifier::ExchangeId) {
    for server in [&instance.sh, &instance.mv] {
        let told = story(instance, &export(server, exchange, false).await);
        assert_eq!(told.completeness, Completeness::Whole, "{}", server.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_questions_one_answer() {
    let mut instance = Instance::start().await;
    let trailers =
        vec![("grpc-status", "0".to_owned()), ("summe-bin", binary(b"\x00\xff")), ("zahl", "5".into())];
    let answer =
        Script::Answer { headers: Vec::new(), messages: vec![Bytes::from_static(b"alle")], trailers };
    instance.register.script(answer);
    let mut open = open(&instance, b"0").await;
    for message in [&b"eins"[..], b"", b"drei", b"vier"] {
        open.send(message).await;
    }
    open.end();
    open.head().await;
    assert_eq!(open.next().await.unwrap(), frame(b"alle"));
    let trailers = open.next().await.unwrap_err();
    let [status, sum, number] =
        ["grpc-status", "summe-bin", "zahl"].map(|name| trailers[name].to_str().unwrap());
    assert_eq!((status, sum, number), ("0", binary(b"\x00\xff").as_str(), "5"));
    let call = instance.register.last();
    let sent: Vec<u8> = [&b"0"[..], b"eins", b"", b"drei", b"vier"].into_iter().flat_map(frame).collect();
    assert_eq!(call.body(), sent);
    let exchange = call.exchange();
    assert_eq!(lengths(&whole(&instance, exchange, Direction::Request)), [6, 9, 5, 9, 9]);
    assert_eq!(lengths(&whole(&instance, exchange, Direction::Response)), [9]);
    proved_whole(&instance, exchange).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_question_many_answers() {
    let mut instance = Instance::start().await;
    let messages: Vec<Bytes> = (0_usize..50).map(|length| vec![7; length * 100].into()).collect();
    let trailers = vec![("grpc-status", "0".to_owned())];
    instance.register.script(Script::Answer { headers: Vec::new(), messages: messages.clone(), trailers });
    let answer = instance.ask(b"alle, bitte").await;
    assert_eq!((answer.status(), answer.messages), (0, messages.clone()));
    let exchange = instance.register.last().exchange();
    let framed: Vec<u64> = messages.iter().map(|message| message.len() as u64 + 5).collect();
    assert_eq!(lengths(&whole(&instance, exchange, Direction::Response)), framed, "each one its own");
    proved_whole(&instance, exchange).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_at_once_and_each_ends_by_itself() {
    let mut instance = Instance::start().await;
    let mut open = open(&instance, b"eins").await;
    open.head().await;
    assert_eq!(open.next().await.unwrap(), frame(b"eins"));
    for message in [&b"zwei"[..], b"drei"] {
        // Each is answered before the next is asked: nothing waits for the end of the stream.
        open.send(message).await;
        assert_eq!(open.next().await.unwrap(), frame(message));
    }
    // Compressed or not is between caller and register: the flag passes as it came.
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 3, 9, 9, 9]);
    open.send_raw(compressed.clone()).await;
    assert_eq!(open.next().await.unwrap(), compressed);
    open.end();
    assert_eq!(open.next().await.unwrap_err()["grpc-status"], "0");
    let exchange = instance.register.last().exchange();
    let asked = whole(&instance, exchange, Direction::Request);
    let answered = whole(&instance, exchange, Direction::Response);
    assert_eq!(lengths(&asked), [9, 9, 9, 8]);
    assert_eq!(lengths(&answered), [9, 9, 9, 8]);
    // Each answer names the question that it was given after.
    let said = |manifest: &&Manifest| manifest.content_length > 0;
    for (question, answer) in asked.iter().filter(said).zip(answered.iter().filter(said)) {
        assert_eq!(answer.last_received, Some(question.digest()));
    }
    proved_whole(&instance, exchange).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_end_of_the_request_the_answer_goes_on() {
    let mut instance = Instance::start().await;
    instance.register.script(Script::Flood(1000));
    let mut open = open(&instance, b"und dann?").await;
    open.end();
    open.head().await;
    open.read(200 * 1005).await;
    assert_eq!(instance.register.last().body(), Bytes::new(), "a flood reads nothing");
    open.cancel();
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_passed_on_as_what_is_left_of_it_and_ends_a_stream_that_is_under_way() {
    let mut instance = Instance::start().await;
    let question = Question::new().header("grpc-timeout", "1500m");
    let mut open = instance.caller().await.open(question).await;
    open.send(b"eins").await;
    open.head().await;
    open.next().await.unwrap();
    let call = instance.register.last();
    let left: u64 = call.header("grpc-timeout").unwrap().strip_suffix('u').unwrap().parse().unwrap();
    assert!((500_000..1_500_000).contains(&left), "{left} µs are left of 1.5 s");
    let trailers = tokio::time::timeout(PROMPT + Duration::from_millis(1500), open.next()).await.unwrap();
    assert_eq!(trailers.unwrap_err()["grpc-status"], "4", "DEADLINE_EXCEEDED");
    assert_eq!(call.ended().await, Ended::BrokenOff);
    let told = ending::broken_off(&instance, &instance.sh, call.exchange()).await;
    assert_eq!(told.ended.unwrap().reason, "deadline_exceeded");
    // The register's side measures the same time, or hears first that the other gave up.
    let told = ending::broken_off(&instance, &instance.mv, call.exchange()).await;
    let reason = told.ended.unwrap().reason;
    assert!(["deadline_exceeded", "aborted"].contains(&reason.as_str()), "{reason}");
    instance.stop().await;
}
