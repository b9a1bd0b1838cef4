//! The security servers of both states compare their logs, hour by hour: equal logs agree, and what is not in both is told
//! apart, on both sides, whatever the other one says.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Code;
use trave_message_log::{Artefact, Entry as Appended};
use trave_proto::checkpoint::Checkpoint;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Direction, Manifest, ManifestFields};
use trave_proto::proof::{Completeness, MessageStory, NotProved};
use trave_proto::reconciliation::{Name, Period};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{
    Degradation, DifferenceKind as Kind, Leaf, MessageEntry, PeerCheckpoint, Reconciliation,
};
use trave_proto::schema::operator::{
    CheckLogRequest, ListLogRequest, ListLogResponse, ListReconciliationsRequest, ReconcileRequest,
    ReconciledPeer, StatusRequest, StatusResponse,
};
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, ExchangeState, ListRecordsRequest, ListRecordsResponse,
    ListedRecord, RecordRange, RecordSummary,
};
use trave_tests::network::hostile::{Alteration, Credentials, HostileClient, HostileProvider};
use trave_tests::network::{
    Identities, Instance, KIEL, LUEBECK, Plan, Question, REGISTER, REGISTER_TOO, START, Script, Server, Way,
    export, judge, manifest_of, operator,
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

/// An instance in which the agency's server lost the second of two exchanges: its disk was put back.
async fn lost_at_the_agency() -> (Instance, ExchangeId) {
    let mut instance = Instance::start().await;
    assert_eq!(instance.ask(b"bleibt").await.status(), 0);
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    let lost = instance.ask(b"geht verloren").await.exchange();
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    instance.sh.start().await.unwrap();
    assert!(instance.sh.tells(lost).is_empty());
    (instance, lost)
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
    let unreasoned = ListReconciliationsRequest { reason: String::new(), ..request };
    assert!(operator(&instance.mv).await.list_reconciliations(unreasoned).await.is_err());
    instance.stop().await;
}

/// How the journal of a server tells of an exchange.
async fn told_of(server: &Server, exchange: ExchangeId) -> ListLogResponse {
    let request = ListLogRequest { reason: "Stichprobe".into(), ..ListLogRequest::default() };
    let mut listed = operator(server).await.list_log(request).await.unwrap().into_inner();
    while let Some(entry) = listed.message().await.unwrap() {
        if entry.exchange_id.as_ref() == exchange.as_bytes() {
            return entry;
        }
    }
    panic!("{} lists no exchange {exchange}", server.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agencys_server_signed_and_lost_comes_back_and_the_answer_does_not() {
    let (mut instance, lost) = lost_at_the_agency().await;
    instance.advance(LATER);
    let before = compare(&instance.mv, LUEBECK).await.unwrap();
    let [(Kind::MissingThere, messages)] = counts(&before)[..] else { panic!("{before:?}") };
    assert!(messages >= 2, "request and response");
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    let recovered = found.recovered;
    assert!(recovered >= 1, "{found:?}");
    // What is left is the answer, which the other side alone has signed; and the log knows that it knows no end.
    assert_eq!(counts(&found), [(Kind::ClientCrashed, messages - recovered)]);
    assert!(found.differences.iter().all(|one| one.direction() == Direction::Response));
    let [first, second] = &logged(&instance.sh)[..] else {
        panic!("what was missing is logged, and what came back")
    };
    assert_eq!((counts(first), second), (vec![(Kind::MissingHere, messages)], &found));
    let tells = instance.sh.tells(lost);
    let (back, rest) = tells.split_at(recovered as usize);
    assert!(back.iter().all(|told| *told == format!("recovered request from {REGISTER}")), "{tells:?}");
    assert!(matches!(rest, [end] if end.starts_with("ended unknown aborted")), "{tells:?}");
    let told = told_of(&instance.sh, lost).await;
    assert_eq!((told.recovered, told.outcome.as_str(), told.side.as_str()), (recovered, "unknown", "client"));
    // Its proof holds, and says that it came back.
    let report = judge(&instance, &export(&instance.sh, lost, false).await);
    assert!(report.holds(), "{:#?}", report.checks);
    assert!(report.not_proved.contains(&NotProved::LoggedThen), "{:?}", report.not_proved);
    let story = report.story.unwrap();
    assert!(matches!(story.completeness, Completeness::BrokenOff { responses: 0, .. }));
    let from = |message: &MessageStory| message.recovered_from.as_ref().map(ToString::to_string);
    assert!(story.requests.iter().all(|message| from(message).as_deref() == Some(REGISTER)));
    assert!(warned(&instance.sh, "logs do not agree").await.is_none());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_registers_server_lost_comes_back_whole_and_once_also_when_it_is_cut_off_in_between() {
    let mut instance = Instance::start().await;
    assert_eq!(instance.ask(b"bleibt").await.status(), 0);
    instance.mv.stop().await;
    instance.mv.keep_disk();
    instance.mv.start().await.unwrap();
    let lost = instance.ask(b"geht verloren").await.exchange();
    instance.mv.stop().await;
    instance.mv.put_disk_back();
    instance.mv.keep_disk();
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(counts(&found).is_empty() && found.here == found.there, "{found:?}");
    let [first, second] = &logged(&instance.mv)[..] else { panic!("missing, and then not") };
    let [(Kind::MissingHere, messages)] = counts(first)[..] else { panic!("{first:?}") };
    assert_eq!((found.recovered, second), (messages, &found));
    let tells = instance.mv.tells(lost);
    assert_eq!(tells.len() as u64, messages, "{tells:?}");
    assert!(tells.iter().all(|told| told.starts_with("recovered ") && told.ends_with(LUEBECK)), "{tells:?}");
    let told = told_of(&instance.mv, lost).await;
    assert_eq!(
        (told.recovered, told.outcome.as_str(), told.side.as_str()),
        (messages, "answered", "provider")
    );
    let report = judge(&instance, &export(&instance.mv, lost, false).await);
    assert!(report.holds(), "{:#?}", report.checks);
    assert!(report.not_proved.contains(&NotProved::LoggedThen), "{:?}", report.not_proved);
    assert_eq!(report.story.unwrap().completeness, Completeness::Whole);
    let here = compare(&instance.sh, REGISTER).await.unwrap();
    assert!(counts(&here).is_empty() && here.recovered == 0, "{here:?}");
    let problems =
        operator(&instance.mv).await.check_log(CheckLogRequest {}).await.unwrap().into_inner().problems;
    assert!(problems.is_empty(), "{problems:?}");
    // The same, cut off when the first of them had come back.
    let records = instance.mv.records(0);
    let back = records.iter().find(|record| matches!(record.leaf.entry, Some(Entry::Recovered(_)))).unwrap();
    assert_eq!(back.leaf.version, 3, "who knows version 2 alone does not know it");
    instance.mv.stop().await;
    let artefacts = back.attachment.artefacts.iter().map(|digest| {
        let log = instance.mv.open_log();
        let found = log.artefact(&Digest::from_slice(digest).unwrap()).unwrap().unwrap();
        log.close();
        Artefact::new(found)
    });
    let artefacts: Vec<_> = artefacts.collect();
    instance.mv.put_disk_back();
    let log = instance.mv.open_log();
    let entry = Appended {
        signature: back.attachment.signature.clone(),
        artefacts,
        ..Appended::new(back.leaf.clone())
    };
    log.append(entry, ()).unwrap().await.unwrap();
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    instance.mv.start().await.unwrap();
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(counts(&found).is_empty() && found.recovered == messages, "{found:?}");
    compare(&instance.mv, LUEBECK).await.unwrap();
    assert_eq!(instance.mv.tells(lost).len() as u64, messages, "none comes back twice");
    assert!(judge(&instance, &export(&instance.mv, lost, false).await).holds());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_never_signed_is_planted_in_its_log_by_nobody() {
    let mut instance = Instance::start().await;
    instance.ask(b"wurde gefragt").await;
    instance.mv.stop().await;
    let records = instance.mv.records(0);
    let genuine = records
        .iter()
        .find(|record| {
            manifest_of(record).is_some_and(|it| it.direction == Direction::Request && it.index == 0)
        })
        .unwrap();
    let Some(Entry::Message(entry)) = &genuine.leaf.entry else { panic!("a message") };
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    // A question that the agency's server never asked, as the register's server says that it received it: unsigned, signed
    // by the register's key, and with a signature that the agency's server gave for another.
    let planted: Vec<_> = (1..=3).map(|n| ExchangeId::new(START, &[n; 10])).collect();
    let own = genuine.attachment.signature.clone().unwrap();
    for (n, exchange) in planted.iter().enumerate() {
        let original = manifest_of(genuine).unwrap();
        let manifest =
            Manifest::new(ManifestFields { exchange: *exchange, ..ManifestFields::clone(&original) });
        let signature = match n {
            0 => None,
            1 => Some(credentials.sign(&manifest).to_schema()),
            _ => Some(own.clone()),
        };
        let signature_digest = Digest::of(&signature.clone().unwrap_or_default().encode_to_vec()).to_bytes();
        let entry = MessageEntry { manifest: manifest.encoded().clone(), signature_digest, ..entry.clone() };
        let leaf = Leaf::of(instance.clock.now().as_millis(), Entry::Message(entry));
        let log = instance.mv.open_log();
        log.append(Appended { signature, ..Appended::new(leaf) }, ()).unwrap().await.unwrap();
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    }
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    assert_eq!((counts(&found), found.recovered), (vec![(Kind::MissingHere, 3)], 0), "{found:?}");
    for exchange in planted {
        assert!(instance.sh.tells(exchange).is_empty());
    }
    assert!(warned(&instance.sh, "3 messages are missing here").await.is_some());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_of_its_own_exchanges_alone() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"geht Kiel nichts an").await.exchange();
    let id = Bytes::copy_from_slice(exchange.as_bytes());
    let compare = |ranges: usize| CompareRecordsRequest {
        period: Some(hour().to_schema()),
        ranges: vec![RecordRange::default(); ranges],
        own: None,
    };
    let list = ListRecordsRequest { period: Some(hour().to_schema()), range: None };
    for (server, records, state) in
        [(LUEBECK, 2..10, ExchangeState::Answered), (KIEL, 0..1, ExchangeState::Nothing)]
    {
        let credentials = Credentials::of(server, &instance.authorities, &instance.configuration);
        let mut client = HostileClient::connect(&instance, credentials).await.unwrap();
        assert!(records.contains(&client.compare(compare(1)).await.unwrap().summaries[0].count));
        assert!(records.contains(&(client.list(list.clone()).await.unwrap().records.len() as u64)));
        assert_eq!(client.tell(vec![id.clone()]).await.unwrap(), [i32::from(state)]);
        // What is no question is no answer's worth.
        for ranges in [0, 65] {
            assert_eq!(client.compare(compare(ranges)).await.unwrap_err().code(), Code::InvalidArgument);
        }
        for wrong in [Vec::new(), vec![1; 24], vec![1; 26]].into_iter().skip(1) {
            let range = RecordRange { from: wrong.into(), to: Bytes::new() };
            let request = ListRecordsRequest { range: Some(range), ..list.clone() };
            assert_eq!(client.list(request).await.unwrap_err().code(), Code::InvalidArgument);
        }
        for from_ms in [START.as_millis() + 1, i64::MIN, i64::MAX] {
            let mut request = compare(1);
            request.period.as_mut().unwrap().from_ms = from_ms;
            assert_eq!(client.compare(request).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let mut ancient = compare(1);
        ancient.period.as_mut().unwrap().from_ms = 0;
        assert_eq!(client.compare(ancient).await.unwrap_err().code(), Code::FailedPrecondition);
        let old = Bytes::copy_from_slice(ExchangeId::new(Time::from_millis(0), &[1; 10]).as_bytes());
        assert_eq!(client.tell(vec![old]).await.unwrap_err().code(), Code::FailedPrecondition);
        for ids in [vec![id.clone(), id.clone()], vec![id.clone(); 257], vec![Bytes::from_static(b"no id")]] {
            assert_eq!(client.tell(ids).await.unwrap_err().code(), Code::InvalidArgument);
        }
    }
    instance.stop().await;
}

/// What a log says that another server showed of its own, or of this one.
fn seen(server: &Server) -> Vec<PeerCheckpoint> {
    let found = server.records(0).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::PeerCheckpoint(shown)) => {
            assert_eq!(record.leaf.version, 3, "who knows version 2 alone does not know it");
            Some(shown)
        }
        _ => None,
    });
    found.collect()
}

/// Compares until a log says that more checkpoints were shown: a server gives one of its own in its own time.
async fn until_shown(server: &Server, peer: &str, more_than: usize) -> PeerCheckpoint {
    for _ in 0..100 {
        compare(server, peer).await.unwrap();
        if let Some(shown) = seen(server).get(more_than) {
            return shown.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} was shown no further checkpoint of {peer}", server.id);
}

/// What the operator is told with this in it.
async fn warned(server: &Server, of: &str) -> Option<String> {
    status(server).await.warnings.into_iter().find(|told| told.contains(of))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_put_back_and_goes_on_elsewhere_is_found_out_by_the_checkpoint_it_gave_away() {
    let mut instance = Instance::start().await;
    instance.ask(b"bleibt").await;
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    for _ in 0..5 {
        assert_eq!(instance.ask(b"danach").await.status(), 0);
    }
    instance.advance(LATER);
    let first = until_shown(&instance.mv, LUEBECK, 0).await;
    assert_eq!((first.peer.as_str(), first.contradiction.as_str()), (LUEBECK, ""));
    let origin = Identities::get().of(LUEBECK).log.verifier();
    let read = Checkpoint::verify(&first.note, std::slice::from_ref(&origin)).unwrap();
    assert_eq!((read.origin.as_str(), read.size), (first.origin.as_str(), first.size));
    assert!(first.size > 10, "{first:?}");
    // It goes on, and shows that it does.
    instance.ask(b"und weiter").await;
    instance.advance(Duration::from_secs(120));
    let second = until_shown(&instance.mv, LUEBECK, 1).await;
    assert!(second.size > first.size && second.contradiction.is_empty(), "{second:?}");
    let compared = status(&instance.mv).await.reconciled;
    assert_eq!(compared[0].seen_size, second.size);
    assert_eq!(warned(&instance.mv, "contradicts a checkpoint").await, None);
    assert_eq!(warned(&instance.sh, "does not continue").await, None);
    // An older disk takes its place. Who saw more remembers, over a start of its own.
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    instance.sh.start().await.unwrap();
    instance.advance(Duration::from_secs(120));
    let third = until_shown(&instance.mv, LUEBECK, 2).await;
    assert!(third.contradiction.starts_with(&format!("it had {} records", second.size)), "{third:?}");
    assert_eq!(third.before, second.note, "both notes are kept");
    Checkpoint::verify(&third.note, std::slice::from_ref(&origin)).unwrap();
    let told = warned(&instance.mv, "contradicts a checkpoint").await.unwrap();
    assert!(told.starts_with("ALARM") && told.contains(LUEBECK), "{told}");
    // Its own server learns it too, from the note that its own key has signed; its log holds that.
    let told = warned(&instance.sh, "does not continue").await.unwrap();
    assert!(told.starts_with("ALARM") && told.contains(REGISTER), "{told}");
    let held = seen(&instance.sh).into_iter().find(|held| !held.contradiction.is_empty()).unwrap();
    assert_eq!((held.note, held.origin), (second.note.clone(), second.origin.clone()));
    // It grows beyond what was seen, on another branch: neither forgets, and neither logs it again and again.
    for _ in 0..8 {
        assert_eq!(instance.ask(b"anderswo").await.status(), 0);
    }
    instance.advance(Duration::from_secs(120));
    for _ in 0..3 {
        compare(&instance.mv, LUEBECK).await.unwrap();
    }
    assert_eq!(seen(&instance.mv).len(), 3);
    for (server, of) in
        [(&mut instance.mv, "contradicts a checkpoint"), (&mut instance.sh, "does not continue")]
    {
        server.stop().await;
        server.start().await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(20), async {
            while warned(server, of).await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        told.await.expect("a start forgets nothing");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_with_one_key_are_found_out_where_they_part() {
    let mut instance = Instance::start().await;
    instance.ask(b"gemeinsam").await;
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    instance.ask(b"die eine").await;
    instance.advance(LATER);
    let seen_of_one = until_shown(&instance.mv, LUEBECK, 0).await;
    // The other one grows longer before it is shown.
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    let leaf = Leaf::of(instance.clock.now().as_millis(), Entry::Degradation(Degradation::default()));
    append(&instance.sh, vec![leaf; 40]).await;
    instance.sh.start().await.unwrap();
    instance.advance(Duration::from_secs(120));
    let other = until_shown(&instance.mv, LUEBECK, 1).await;
    assert!(other.size > seen_of_one.size, "{other:?}");
    assert!(other.contradiction.contains("does not show that"), "{}", other.contradiction);
    assert_eq!(other.before, seen_of_one.note);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sees_the_others_checkpoints_by_itself() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.advance(Duration::from_secs(50 * 60));
    minutes_later(&instance, "both hold a checkpoint of the other", async || {
        !seen(&instance.sh).is_empty() && !seen(&instance.mv).is_empty()
    })
    .await;
    assert_eq!(
        (seen(&instance.sh)[0].peer.as_str(), seen(&instance.mv)[0].peer.as_str()),
        (REGISTER, LUEBECK)
    );
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_holds_up_no_other_and_is_asked_again() {
    let mut instance = Instance::planned(Plan { second: true, ..Plan::default() }).await;
    // Exchanges with both of the register's servers.
    assert_eq!(instance.ask(b"den einen").await.status(), 0);
    let mut with: BTreeSet<_> = shared_with(&instance.sh);
    for _ in 0..50 {
        if with.len() == 2 {
            break;
        }
        assert_eq!(instance.ask(b"den anderen").await.status(), 0);
        with = shared_with(&instance.sh);
    }
    assert_eq!(with.len(), 2, "{with:?}");
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let mute = HostileProvider::start(&instance, credentials, Alteration::Mute).await;
    instance.advance(LATER);
    minutes_later(&instance, "the other is compared with", async || {
        logged(&instance.sh).iter().any(|found| found.peer == REGISTER_TOO)
    })
    .await;
    assert!(logged(&instance.sh).iter().all(|found| found.peer != REGISTER));
    mute.stop().await;
    until_warned(&instance, "is not compared with", true).await;
    // It is there again: the hour was not forgotten.
    instance.mv.start().await.unwrap();
    minutes_later(&instance, "the first is compared with", async || {
        logged(&instance.sh).iter().any(|found| found.peer == REGISTER)
    })
    .await;
    until_warned(&instance, "is not compared with", false).await;
    instance.stop().await;
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

/// The servers with which a log holds messages that it sent.
fn shared_with(server: &Server) -> BTreeSet<String> {
    let records = server.records(0);
    let sent =
        records.iter().filter_map(manifest_of).filter(|manifest| manifest.sender.as_str() == server.id);
    sent.map(|manifest| manifest.receiver.to_string()).collect()
}

fn other_digests(request: &CompareRecordsRequest) -> CompareRecordsResponse {
    let summary = RecordSummary { count: 1, digest: Digest::of(b"else").to_bytes() };
    CompareRecordsResponse { summaries: vec![summary; request.ranges.len()] }
}

/// A page full of what was never said, and more behind it.
fn endless(request: &ListRecordsRequest) -> ListRecordsResponse {
    let from = request.range.as_ref().unwrap().from.clone();
    let mut first = [0; Name::LEN];
    first[..16].copy_from_slice(ExchangeId::new(START, &[0; 10]).as_bytes());
    let first = Name::from_slice(&from).or(Name::from_slice(&first));
    let names = std::iter::successors(first, Name::successor).take(512);
    let manifest_digest = Digest::of(b"made up").to_bytes();
    let records = names.map(|name| ListedRecord {
        name: name.to_bytes(),
        manifest_digest: manifest_digest.clone(),
        sent: true,
    });
    ListRecordsResponse { records: records.collect(), more: true }
}

fn nothing(_: &ListRecordsRequest) -> ListRecordsResponse {
    ListRecordsResponse { records: Vec::new(), more: true }
}

fn out_of_order(request: &ListRecordsRequest) -> ListRecordsResponse {
    let mut answer = endless(request);
    answer.records.reverse();
    answer
}

fn the_same(request: &CompareRecordsRequest) -> CompareRecordsResponse {
    // What the caller itself says that it holds, if it does.
    match &request.own {
        Some(own) => CompareRecordsResponse { summaries: vec![own.clone(); request.ranges.len()] },
        None => other_digests(request),
    }
}

/// A difference every time, and another one each time.
fn ever_another(request: &ListRecordsRequest) -> ListRecordsResponse {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let mut answer = endless(request);
    answer.records.truncate(1);
    answer.records[0].manifest_digest = Digest::of(&asked.to_be_bytes()).to_bytes();
    answer.more = false;
    answer
}

fn of_another_hour(request: &ListRecordsRequest) -> ListRecordsResponse {
    let mut answer = endless(request);
    for record in &mut answer.records {
        let mut name = record.name.to_vec();
        name[..16].copy_from_slice(ExchangeId::new(START.plus(2 * LATER), &[0; 10]).as_bytes());
        record.name = name.into();
    }
    answer.records.truncate(1);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_what_it_likes_comes_to_an_end_and_is_not_believed() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.mv.stop().await;
    instance.advance(LATER);
    let compares = async |alteration, instance: &Instance| {
        let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
        let hostile = HostileProvider::start(instance, credentials, alteration).await;
        let request = ReconcileRequest {
            peer: REGISTER.into(),
            from_ms: START.as_millis(),
            to_ms: START.as_millis() + 1,
        };
        // The first connections may still be those to the server that stood there.
        let mut found = Err(tonic::Status::unavailable("not asked"));
        for _ in 0..20 {
            let mut answers =
                operator(&instance.sh).await.reconcile(request.clone()).await.unwrap().into_inner();
            found = answers.message().await.map(|answer| answer.unwrap().found.unwrap());
            match &found {
                Err(status) if !status.message().contains("malformed") => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                _ => break,
            }
        }
        hostile.stop().await;
        found
    };
    let found = compares(Alteration::Comparing(other_digests, endless), &instance).await.unwrap();
    assert!(found.unexplained, "more than is looked at");
    assert!(found.differences.len() <= 256);
    let record = Leaf::of(0, Entry::Reconciliation(found)).encoded_len();
    assert!(record < 64 << 10, "{record} bytes are logged");
    for list in [nothing, out_of_order, of_another_hour] {
        let refused = compares(Alteration::Comparing(other_digests, list), &instance).await.unwrap_err();
        assert!(refused.message().contains("malformed"), "{}", refused.message());
    }
    let honest_list = |_: &ListRecordsRequest| ListRecordsResponse::default();
    let found = compares(Alteration::Comparing(the_same, honest_list), &instance).await.unwrap();
    let missing = counts(&found);
    assert!(
        matches!(missing[..], [(Kind::MissingThere, 2..)]),
        "it repeats what it is told, lists nothing, and is held to that: {missing:?}"
    );
    let before = logged(&instance.sh).len();
    for _ in 0..40 {
        compares(Alteration::Comparing(other_digests, ever_another), &instance).await.unwrap();
    }
    let more = logged(&instance.sh).len() - before;
    assert!((2..=24).contains(&more), "{more} of 40 are logged");
    instance.mv.start().await.unwrap();
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    assert!(counts(&found).is_empty() && found.here == found.there);
    instance.stop().await;
}
