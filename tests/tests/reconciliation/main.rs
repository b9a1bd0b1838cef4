//! The security servers of both states compare their logs, hour by hour: equal logs agree, and what is not in both is told
//! apart, on both sides, whatever the other one says.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod alarms;
mod following;
mod peers;
mod recovering;

use std::time::Duration;

use tonic::Code;
use trave_message_log::Entry as Appended;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Direction, Manifest, ManifestFields};
use trave_proto::reconciliation::Period;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{DifferenceKind as Kind, Leaf, MessageEntry, Reconciliation};
use trave_proto::schema::operator::{
    ListReconciliationsRequest, ReconcileRequest, ReconciledPeer, StatusRequest, StatusResponse,
};
use trave_tests::network::{
    Instance, LUEBECK, Plan, Question, REGISTER, REGISTER_TOO, START, Script, Server, Way, manifest_of,
    operator,
};

/// Past the end of the first hour, and the time that is waited after it.
const LATER: Duration = Duration::from_secs(75 * 60);

/// The hour in which every instance begins.
fn hour() -> Period {
    Period::of(START)
}

async fn status(server: &Server) -> StatusResponse {
    operator(server).await.status(StatusRequest {}).await.unwrap().into_inner()
}

/// What the log of a server says that comparisons found.
fn logged(server: &Server) -> Vec<Reconciliation> {
    let found = server.records(0).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::Reconciliation(found)) => {
            assert_eq!(record.leaf.version, 3, "who knows version 2 alone does not know it");
            Some(found)
        }
        _ => None,
    });
    found.collect()
}

/// Has a server compare the first hour with another one now. Just after the clock was moved, either may not have renewed yet
/// what it shows.
async fn compare(server: &Server, peer: &str) -> Result<Reconciliation, tonic::Status> {
    let request =
        ReconcileRequest { peer: peer.into(), from_ms: START.as_millis(), to_ms: START.as_millis() + 1 };
    for _ in 0..100 {
        let mut found = operator(server).await.reconcile(request.clone()).await.unwrap().into_inner();
        match found.message().await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other.map(|answer| answer.unwrap().found.unwrap()),
        }
    }
    panic!("{} was not compared with", peer);
}

fn counts(found: &Reconciliation) -> Vec<(Kind, u64)> {
    found.counts.iter().map(|one| (one.kind(), one.count)).collect()
}

/// Waits until `holds`, for 30 s at most, and lets ten minutes pass again and again.
async fn minutes_later(instance: &Instance, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..100 {
        instance.advance(Duration::from_secs(600));
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if holds().await {
                return;
            }
        }
    }
    panic!("not in 30 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logs_say_by_themselves_that_they_agree_after_the_hour() {
    let mut instance = Instance::start().await;
    for message in [&b"eins"[..], b"zwei", b"drei"] {
        assert_eq!(instance.ask(message).await.status(), 0);
    }
    let refused = compare(&instance.sh, REGISTER).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "the hour is not over: {}", refused.message());
    instance.advance(Duration::from_secs(50 * 60));
    minutes_later(&instance, "both say that they agree", async || {
        [&instance.sh, &instance.mv].iter().all(|server| !logged(server).is_empty())
    })
    .await;
    for (server, peer) in [(&instance.sh, REGISTER), (&instance.mv, LUEBECK)] {
        let found = &logged(server)[0];
        assert_eq!((found.peer.as_str(), found.from_ms), (peer, START.as_millis()));
        assert_eq!(found.here, found.there);
        assert!(found.here.as_ref().unwrap().count >= 6, "a message each way, or more");
        assert!(found.counts.is_empty() && !found.unexplained);
        let status = status(server).await;
        let expected = ReconciledPeer {
            server: peer.into(),
            until_ms: hour().end().as_millis(),
            // Whether a checkpoint was seen by then is not what this is about.
            seen_size: status.reconciled[0].seen_size,
            ..ReconciledPeer::default()
        };
        assert_eq!(status.reconciled, [expected]);
        assert!(!status.warnings.iter().any(|told| told.contains("ALARM")), "{:?}", status.warnings);
        // The same again is not logged again.
        assert_eq!(compare(server, peer).await.unwrap(), *found);
        assert_eq!(logged(server).len(), 1);
    }
    instance.stop().await;
}

/// A response in the log of a server.
fn response(server: &Server) -> Manifest {
    let found = server.records(0);
    found.iter().filter_map(manifest_of).find(|it| it.direction == Direction::Response).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_log_lacks_is_an_alarm_on_both_sides_and_what_nothing_shows_does_not_come_back() {
    let mut instance = Instance::start().await;
    assert_eq!(instance.ask(b"wurde gefragt").await.status(), 0);
    instance.mv.stop().await;
    // The register's server says that it has sent an answer, of which nothing that the agency's server signed knows.
    let exchange = ExchangeId::new(START, &[9; 10]);
    let fields = ManifestFields { exchange, ..ManifestFields::clone(&response(&instance.mv)) };
    let entry = MessageEntry {
        manifest: Manifest::new(fields).encoded().clone(),
        sent: true,
        ..MessageEntry::default()
    };
    append(&instance.mv, vec![Leaf::of(instance.clock.now().as_millis(), Entry::Message(entry))]).await;
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    for (server, peer, kind) in
        [(&instance.mv, LUEBECK, Kind::MissingThere), (&instance.sh, REGISTER, Kind::MissingHere)]
    {
        let found = compare(server, peer).await.unwrap();
        assert_eq!((counts(&found), found.recovered, found.unexplained), (vec![(kind, 1)], 0, false));
        let [difference] = &found.differences[..] else { panic!("{found:?}") };
        assert_eq!(difference.exchange_id.as_ref(), exchange.as_bytes());
        assert_eq!(difference.here.is_empty(), kind == Kind::MissingHere);
        assert_eq!(logged(server), [found]);
        let told = warned(server, "ALARM").await.unwrap();
        assert!(told.contains(peer) && told.contains("1 messages are missing"), "{told}");
        let standing = &status(server).await.reconciled[0];
        assert_eq!(standing.missing_here + standing.missing_there, 1);
    }
    assert!(instance.sh.tells(exchange).is_empty());
    // A restart forgets none of it.
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        while warned(&instance.mv, "ALARM").await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    told.await.expect("the alarm goes on");
    assert_eq!(status(&instance.mv).await.reconciled[0].missing_there, 1);
    // Whoever reads it says why, and the log keeps that.
    let request = ListReconciliationsRequest {
        different: true,
        reader: "Prüferin Muster".into(),
        reason: "Stichprobe".into(),
        ..ListReconciliationsRequest::default()
    };
    let mut shown =
        operator(&instance.mv).await.list_reconciliations(request.clone()).await.unwrap().into_inner();
    assert_eq!(shown.message().await.unwrap().unwrap().found.unwrap().counts[0].count, 1);
    assert!(shown.message().await.unwrap().is_none());
    let empty = ListReconciliationsRequest { peer: Some(String::new()), ..request.clone() };
    let refused = operator(&instance.mv).await.list_reconciliations(empty).await.unwrap_err();
    assert!(refused.message().contains("`peer` is there and is empty"), "{refused}");
    let unreasoned = ListReconciliationsRequest { reason: String::new(), ..request };
    assert!(operator(&instance.mv).await.list_reconciliations(unreasoned).await.is_err());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_crashed_before_its_answer_is_told_apart() {
    let mut instance = Instance::start().await;
    instance.register.script(Script::MuteUntilTold);
    let caller = instance.caller().await;
    let asked = tokio::spawn(async move { caller.ask(Question::new().message(b"und dann")).await });
    instance.register.called(1).await;
    let exchange = instance.register.calls()[0].exchange();
    // The disk as a crash just now would leave it: with the request, which is durable a moment after it was sent, and no answer.
    instance.sh.until(|tells| !tells.is_empty(), exchange).await;
    instance.sh.keep_disk();
    instance.register.tell();
    asked.await.unwrap();
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    instance.sh.start().await.unwrap();
    let tells = instance.sh.until(|tells| tells.len() > 1, exchange).await;
    assert!(tells[1].starts_with("ended unknown aborted"), "{tells:?}");
    instance.advance(LATER);
    for (server, peer) in [(&instance.mv, LUEBECK), (&instance.sh, REGISTER)] {
        let found = compare(server, peer).await.unwrap();
        assert!(matches!(counts(&found)[..], [(Kind::ClientCrashed, 1..)]), "{found:?}");
        assert!(found.differences.iter().all(|one| one.direction() == Direction::Response));
        let status = status(server).await;
        assert!(!status.warnings.iter().any(|told| told.contains("ALARM")), "{:?}", status.warnings);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_withheld_by_a_refusal_or_a_broken_line_is_no_alarm() {
    let mut instance = Instance::start().await;
    let refused = instance.caller().await.ask(Question::new().set("trave-purpose", "gewerbeaufsicht")).await;
    assert_ne!(refused.status(), 0);
    instance.advance(LATER);
    for (server, peer) in [(&instance.sh, REGISTER), (&instance.mv, LUEBECK)] {
        let found = compare(server, peer).await.unwrap();
        assert!(matches!(counts(&found)[..], [(Kind::NotDelivered, 1..)]), "{found:?}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_end_yet_when_the_hour_is_over_is_in_flight_and_settles() {
    let plan = Plan { saboteur: true, register_seconds: 3600, ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    // So shortly before the border that nothing of the connection has run out behind it, once the status of both servers'
    // certificates was asked for again.
    let status = |server: &Server| std::fs::read(server.layout().signing_status()).unwrap();
    let before = [status(&instance.sh), status(&instance.mv)];
    // Whoever renews it is to wait for half of its time by then, also on a machine that has much else to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    instance.advance(Duration::from_secs(58 * 60));
    let renewed = async {
        while before[0] == status(&instance.sh) || before[1] == status(&instance.mv) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("both are renewed");
    assert_eq!(instance.ask(b"vorher").await.status(), 0);
    instance.register.script(Script::MuteUntilTold);
    let caller = instance.caller().await;
    let asked = tokio::spawn(async move { caller.ask(Question::new().message(b"dauert")).await });
    instance.register.called(2).await;
    let exchange = instance.register.calls()[1].exchange();
    // The answer is on its way, over the border of the hour, and does not arrive.
    instance.advance(Duration::from_secs(4 * 60));
    instance.saboteur().hold(Way::Answering);
    instance.register.tell();
    instance.mv.until(|tells| tells.iter().any(|told| told == "sent response end"), exchange).await;
    instance.advance(Duration::from_secs(4 * 60));
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(matches!(counts(&found)[..], [(Kind::InFlight, 1..)]), "{found:?}");
    instance.saboteur().release(Way::Answering);
    assert_eq!(asked.await.unwrap().status(), 0);
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(counts(&found).is_empty() && found.here == found.there, "{found:?}");
    assert_eq!(logged(&instance.mv).len(), 2, "both are logged");
    instance.stop().await;
}

/// Exchanges with both of the register's servers.
async fn ask_both(instance: &Instance) {
    let both = || [REGISTER, REGISTER_TOO].iter().all(|server| messages_to(&instance.sh, server) > 0);
    for _ in 0..50 {
        assert_eq!(instance.ask(b"dem einen oder dem anderen").await.status(), 0);
        if both() {
            return;
        }
    }
    panic!("one of the two is asked everything");
}

/// How many messages a log holds that its server sent to another one.
fn messages_to(server: &Server, peer: &str) -> usize {
    let records = server.records(0);
    let sent = records.iter().filter_map(manifest_of);
    sent.filter(|it| it.sender.as_str() == server.id && it.receiver.as_str() == peer).count()
}

/// Puts into the log of a server that does not run that it has sent an answer, of which nothing that the agency's server
/// signed knows.
async fn plant(server: &Server, number: u8, now: Time) {
    let exchange = ExchangeId::new(START, &[number; 10]);
    let fields = ManifestFields { exchange, ..ManifestFields::clone(&response(server)) };
    let manifest = Manifest::new(fields).encoded().clone();
    let entry = MessageEntry { manifest, sent: true, ..MessageEntry::default() };
    append(server, vec![Leaf::of(now.as_millis(), Entry::Message(entry))]).await;
}

/// Adds to the log of a server that does not run.
async fn append(server: &Server, leaves: Vec<Leaf>) {
    let log = server.open_log();
    for leaf in leaves {
        log.append(Appended::new(leaf), ()).unwrap().await.unwrap();
    }
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
}

/// Another manifest in place of one, as its signer could make it.
fn forged(manifest: &Manifest) -> Manifest {
    let created = manifest.created.plus(Duration::from_secs(1));
    Manifest::new(ManifestFields { created, ..ManifestFields::clone(manifest) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stories_of_one_message_are_told_as_that() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"was war").await.exchange();
    // The register's side adds another answer to its log.
    instance.mv.stop().await;
    let records = instance.mv.records(0);
    let original = records
        .iter()
        .filter_map(manifest_of)
        .find(|manifest| manifest.exchange == exchange && manifest.direction == Direction::Response)
        .unwrap();
    let forged = forged(&original);
    let entry = MessageEntry { manifest: forged.encoded().clone(), sent: true, ..MessageEntry::default() };
    append(&instance.mv, vec![Leaf::of(instance.clock.now().as_millis(), Entry::Message(entry))]).await;
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    for (server, peer) in [(&instance.sh, REGISTER), (&instance.mv, LUEBECK)] {
        let found = compare(server, peer).await.unwrap();
        assert_eq!(counts(&found), [(Kind::Differing, 1)]);
        let [one] = &found.differences[..] else { panic!("{found:?}") };
        let told = [&one.here, &one.there].map(|digest| Digest::from_slice(digest).unwrap());
        assert!(told.contains(&original.digest()) && told.contains(&forged.digest()));
        assert!(status(server).await.warnings.iter().any(|told| told.contains("1 messages differ")));
    }
    instance.stop().await;
}

/// What the operator is told with this in it.
async fn warned(server: &Server, of: &str) -> Option<String> {
    status(server).await.warnings.into_iter().find(|told| told.contains(of))
}

/// Waits until the agency's operator is told this, or is told it no longer.
async fn until_warned(instance: &Instance, of: &str, is: bool) {
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        while warned(&instance.sh, of).await.is_some() != is {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    told.await.unwrap_or_else(|_| panic!("told of {of:?}: {}", !is));
}
