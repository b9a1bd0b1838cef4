//! Broken off: by the caller, by the register, by an answer that did not wait for the question.

use super::*;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{MessageStory, Story};

/// The story of a stream that this server's log holds without its end: incomplete, after as many messages as its record
/// of the end counts.
pub(super) async fn broken_off(instance: &Instance, server: &Server, exchange: ExchangeId) -> Story {
    server.until(|told| told.iter().any(|line| line.starts_with("ended")), exchange).await;
    let (requests, responses) = ended_after(&server.records(0), exchange).unwrap();
    let told = story(instance, &export(server, exchange, false).await);
    assert_eq!(told.completeness, Completeness::BrokenOff { requests, responses }, "{}", server.id);
    assert_eq!((told.requests.len() as u64, told.responses.len() as u64), (requests, responses));
    assert!(told.requests.iter().chain(&told.responses).all(|message| message.ending != Ending::Abort));
    told
}

/// How many of these messages carry bytes of the stream: a head that came long before its first bytes is a message too.
fn with_bodies(messages: &[MessageStory]) -> usize {
    messages.iter().filter(|message| message.length > 0).count()
}

/// A stream that has been answered so many times, each way one message at a time.
async fn answered(instance: &Instance, times: usize) -> Open {
    let mut open = open(instance, b"0").await;
    open.head().await;
    open.next().await.unwrap();
    for _ in 1..times {
        open.send(b"weiter").await;
        open.next().await.unwrap();
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_caller_breaks_off_the_register_feels_and_both_logs_say_where() {
    let mut instance = Instance::start().await;
    let open = answered(&instance, 7).await;
    let call = instance.register.last();
    assert_eq!(call.ended_now(), Ended::No);
    open.cancel();
    let ended = tokio::time::timeout(PROMPT, call.ended()).await;
    assert_eq!(ended.expect("the register hears of it"), Ended::BrokenOff);
    for (server, side) in [(&instance.sh, "client"), (&instance.mv, "client_server")] {
        let told = broken_off(&instance, server, call.exchange()).await;
        let ended = told.ended.as_ref().unwrap();
        assert_eq!((ended.outcome, ended.reason.as_str(), ended.side.as_str()), ("aborted", "aborted", side));
        let bodies = [with_bodies(&told.requests), with_bodies(&told.responses)];
        assert_eq!(bodies, [7, 7], "{}", server.id);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_register_breaks_off_the_caller_feels_and_both_logs_say_where() {
    let mut instance = Instance::start().await;
    instance.register.script(Script::AbortWhenTold);
    let mut open = open(&instance, b"0").await;
    open.end();
    open.head().await;
    assert_eq!(open.next().await.unwrap(), frame(b"halb"));
    instance.register.tell();
    let trailers = tokio::time::timeout(PROMPT, open.next()).await.expect("the caller hears of it");
    let trailers = trailers.unwrap_err();
    assert_eq!(trailers["grpc-status"], "14");
    let exchange = instance.register.last().exchange();
    assert_eq!(trailers["trave-exchange-id"], exchange.to_string());
    for server in [&instance.sh, &instance.mv] {
        let told = broken_off(&instance, server, exchange).await;
        let ended = told.ended.as_ref().unwrap();
        assert_eq!((ended.reason.as_str(), ended.side.as_str()), ("service_failed", "register"));
        assert_eq!(with_bodies(&told.responses), 1, "{}", server.id);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_register_that_goes_away_in_the_middle_of_a_stream_is_felt_at_once() {
    let mut instance = Instance::start().await;
    let mut open = answered(&instance, 3).await;
    let exchange = instance.register.last().exchange();
    instance.register.stop().await;
    let trailers = tokio::time::timeout(PROMPT, open.next()).await.expect("the caller hears of it");
    assert_eq!(trailers.unwrap_err()["grpc-status"], "14");
    for server in [&instance.sh, &instance.mv] {
        let told = broken_off(&instance, server, exchange).await;
        assert_eq!(with_bodies(&told.requests), 3, "{}", server.id);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_server_that_stops_ends_what_it_cannot_finish_as_broken_off() {
    let mut instance = Instance::start().await;
    let open = answered(&instance, 2).await;
    let exchange = instance.register.last().exchange();
    // The caller ends its stream while its server drains.
    let ending = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        open.cancel();
    };
    tokio::join!(instance.sh.stop(), ending);
    instance.sh.start().await.unwrap();
    for server in [&instance.sh, &instance.mv] {
        broken_off(&instance, server, exchange).await;
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_end_of_the_question_is_whole_and_the_question_is_not() {
    let mut instance = Instance::start().await;
    let trailers = vec![("grpc-status", "8".to_owned()), ("grpc-message", "genug".into())];
    instance.register.script(Script::Early(trailers));
    let mut open = open(&instance, b"0").await;
    open.head().await;
    let trailers = tokio::time::timeout(PROMPT, open.next()).await.unwrap().unwrap_err();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"8".parse().unwrap(), &"genug".parse().unwrap())
    );
    let exchange = instance.register.last().exchange();
    let ended = tokio::time::timeout(PROMPT, instance.register.last().ended()).await;
    assert_eq!(ended.expect("the register is not kept"), Ended::Complete);
    for server in [&instance.sh, &instance.mv] {
        server.until(|told| told.iter().any(|line| line.starts_with("ended")), exchange).await;
        let told = story(&instance, &export(server, exchange, false).await);
        let (requests, responses) = (told.requests.len() as u64, told.responses.len() as u64);
        assert_eq!(told.completeness, Completeness::AnsweredEarly { requests, responses }, "{}", server.id);
        assert_eq!(told.responses.last().unwrap().ending, Ending::End);
        assert_eq!(told.requests.last().unwrap().ending, Ending::Continue);
        let answer = told.answer.unwrap();
        assert_eq!((answer.grpc_status, answer.grpc_message.as_deref()), (Some(8), Some("genug")));
    }
    // The caller may go on sending for a while; nothing of it is left in the way.
    drop(open);
    instance.register.script(Script::Echo);
    assert_eq!(instance.ask(b"und jetzt?").await.only().as_ref(), b"und jetzt?");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_long_and_is_ended_when_nothing_is_said() {
    let limits = "[limits]\nidle_seconds = 2\n".to_owned();
    for (at_client, at_provider, side) in
        [(String::new(), limits.clone(), "provider_server"), (limits, String::new(), "client_server")]
    {
        let plan = Plan { register_seconds: 1, at_client, at_provider, ..Plan::default() };
        let mut instance = Instance::planned(plan).await;
        let mut open = answered(&instance, 1).await;
        // Longer than the register may take for an answer, and than anything may be silent.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            open.send(b"weiter").await;
            assert_eq!(open.next().await.unwrap(), frame(b"weiter"));
        }
        let silent = tokio::time::Instant::now();
        let trailers = tokio::time::timeout(Duration::from_secs(2) + PROMPT, open.next()).await;
        let trailers = trailers.expect("a silent stream is ended").unwrap_err();
        assert_eq!(trailers["grpc-status"], "4", "DEADLINE_EXCEEDED");
        assert!(silent.elapsed() > Duration::from_millis(1900), "{:?}", silent.elapsed());
        let exchange = instance.register.last().exchange();
        let ended = tokio::time::timeout(PROMPT, instance.register.last().ended()).await;
        assert_eq!(ended.expect("the register hears of it"), Ended::BrokenOff);
        let told = broken_off(&instance, &instance.sh, exchange).await;
        let ended = told.ended.as_ref().unwrap();
        assert_eq!((ended.reason.as_str(), ended.side.as_str()), ("deadline_exceeded", side));
        broken_off(&instance, &instance.mv, exchange).await;
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_a_connection_carries_are_carried_by_another() {
    let mut instance = Instance::start().await;
    let mut streams = Vec::new();
    // More than one connection carries between the servers, and than a register takes on one.
    for _ in 0..2 {
        let caller = instance.caller().await;
        for _ in 0..150 {
            let open = caller.open(Question::new()).await;
            open.send(b"0").await;
            streams.push(open);
        }
    }
    for open in &mut streams {
        let head = tokio::time::timeout(10 * PROMPT, open.head()).await;
        head.expect("no stream waits for another to end");
        assert_eq!(open.next().await.unwrap(), frame(b"0"));
    }
    assert_eq!(instance.ask(b"und ich?").await.only().as_ref(), b"und ich?");
    assert_eq!(instance.register.count(), 301);
    for open in &mut streams {
        open.send(b"1").await;
        assert_eq!(open.next().await.unwrap(), frame(b"1"), "each is still open");
    }
    drop(streams);
    instance.stop().await;
}
