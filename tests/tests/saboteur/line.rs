//! One connection carries all exchanges between two servers: what goes wrong with some of them must not end it for all.

use std::time::Duration;

use super::until;
use tokio::sync::watch;
use tokio::task::JoinSet;
use trave_tests::network::hostile::{Alteration, Credentials, HostileClient, HostileProvider, Outcome};
use trave_tests::network::{Caller, Instance, LUEBECK, Plan, Question, REGISTER, Way, frame, happened};

async fn sabotaged() -> Instance {
    let plan = Plan {
        keep_at_client: "none",
        keep_at_provider: "none",
        saboteur: true,
        // A busy machine has time for all that is done while an exchange is open.
        register_seconds: 120,
        ..Plan::default()
    };
    Instance::planned(plan).await
}

/// Asks the usual question on this connection until told to stop; how often, and what went wrong.
fn busy(caller: &Caller, callers: &mut JoinSet<(usize, Vec<String>)>, stop: &watch::Sender<bool>) {
    let (caller, stop) = (caller.clone(), stop.subscribe());
    callers.spawn(async move {
        let (mut count, mut wrong) = (0, Vec::new());
        while !*stop.borrow() {
            let answer = caller.ask(Question::new()).await;
            count += 1;
            if answer.status() != 0 {
                wrong.push(answer.message());
            }
        }
        (count, wrong)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_stands_still_for_a_moment_breaks_no_exchange() {
    let mut instance = sabotaged().await;
    let caller = instance.caller().await;
    assert_eq!(caller.ask(Question::new()).await.status(), 0);
    let (mut callers, stop) = (JoinSet::new(), watch::Sender::new(false));
    (0..100).for_each(|_| busy(&caller, &mut callers, &stop));
    let calls = instance.register.count();
    until(|| instance.register.count() > calls + 100, "calls are made").await;
    instance.saboteur().stand_still(Duration::from_secs(3)).await;
    let calls = instance.register.count();
    until(|| instance.register.count() > calls + 100, "calls go on").await;
    stop.send_replace(true);
    let done = callers.join_all().await;
    assert!(done.iter().map(|done| done.0).sum::<usize>() > 200);
    assert!(done.iter().all(|done| done.1.is_empty()), "{done:?}");
    assert_eq!(instance.saboteur().connections(), 1);
    instance.stop().await;
}

/// The register's server has answered, and the stream on which it was asked ends seconds later: the peer stood still
/// between the two. HTTP/2 would let it reset the stream and forget it; and a few frames on forgotten streams end a
/// connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_end_after_their_answers_do_not_wear_a_connection_out() {
    let mut instance = sabotaged().await;
    let credentials = Credentials::of(LUEBECK, &instance.authorities, &instance.configuration);
    let mut client = HostileClient::connect(&instance, credentials).await.unwrap();
    instance.saboteur().hold(Way::Answering);
    let (end, mut asked) = (watch::Sender::new(false), JoinSet::new());
    for _ in 0..64 {
        let (client, question, end) = (client.clone(), client.sign(client.question()), end.subscribe());
        asked.spawn(async move { client.linger(question, end).await });
    }
    let answered = || {
        let told = happened(&instance.mv.records(0));
        told.iter().filter(|line| *line == "sent response end").count()
    };
    until(|| answered() == 64, "all are answered").await;
    // Longer than HTTP/2 remembers a stream that was reset.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    end.send_replace(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    instance.saboteur().release(Way::Answering);
    for outcome in asked.join_all().await {
        assert!(matches!(outcome, Outcome::Answered), "{outcome:?}");
    }
    let question = client.sign(client.question());
    let outcome = client.send(vec![question]).await;
    assert!(matches!(outcome, Outcome::Answered), "the connection stands: {outcome:?}");
    assert_eq!(instance.saboteur().connections(), 1);
    instance.stop().await;
}

/// Callers that give up while the line stands still: the other server sees them all at once, opened and reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_while_the_line_stands_still_break_no_other() {
    let mut instance = sabotaged().await;
    let patient = instance.caller().await;
    let mut open = patient.open(Question::new()).await;
    open.send(b"eins").await;
    open.head().await;
    assert_eq!(open.next().await.unwrap(), frame(b"eins"));
    let size = instance.sh.size();
    instance.saboteur().hold(Way::Asking);
    for round in 1..=2 {
        let mut impatient = JoinSet::new();
        for _ in 0..30 {
            let caller = instance.caller().await;
            impatient.spawn(async move {
                caller.ask(Question::new().header("grpc-timeout", "1S")).await.status()
            });
        }
        assert!(impatient.join_all().await.iter().all(|status| *status == 4), "round {round}");
    }
    assert!(instance.sh.size() >= size + 60);
    instance.saboteur().release(Way::Asking);
    open.send(b"zwei").await;
    assert_eq!(open.next().await.unwrap(), frame(b"zwei"));
    open.end();
    assert_eq!(open.next().await.unwrap_err()["grpc-status"], "0");
    assert_eq!(patient.ask(Question::new()).await.status(), 0);
    assert_eq!(instance.saboteur().connections(), 1);
    instance.stop().await;
}

/// An answer is complete with its last message; the stream's own end comes a moment later, and is waited for. A stream
/// that is dropped instead is reset, and each reset counts against the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_an_answer_is_read_to_its_end_and_not_reset() {
    let mut instance = Instance::start().await;
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let hostile = HostileProvider::start(&instance, credentials, Alteration::LateEnd).await;
    for _ in 0..5 {
        assert_eq!(instance.ask(b"wer?").await.only().as_ref(), b"niemand");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(hostile.broken_off(), 0);
    hostile.stop().await;
    instance.stop().await;
}
