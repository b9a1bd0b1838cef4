//! Peers that ask for more than is theirs, that do not answer, and that say what they like.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message;
use trave_proto::reconciliation::Name;
use trave_proto::schema::log::{CommitmentKind, SummaryCommitted};
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, ExchangeState, FetchMessageRequest, ListRecordsRequest,
    ListRecordsResponse, ListedRecord, RecordRange, RecordSummary,
};
use trave_tests::network::hostile::{Alteration, Credentials, HostileClient, HostileProvider};
use trave_tests::network::{KIEL, export, manifests};

use super::*;

/// What a log says that another server said first, where it was something else.
fn said_first(server: &Server, peer: &str) -> Vec<SummaryCommitted> {
    let records = server.records(0).into_iter();
    let found = records.filter_map(|record| match record.leaf.entry {
        Some(Entry::SummaryCommitted(said)) if said.peer == peer => Some(said),
        _ => None,
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_of_its_own_exchanges_alone() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"geht Kiel nichts an").await.exchange();
    // The honest one compares nothing meanwhile.
    instance.sh.stop().await;
    let id = Bytes::copy_from_slice(exchange.as_bytes());
    let request = manifests(&instance.mv.records(0), exchange, Direction::Request).remove(0);
    let fetch = FetchMessageRequest {
        name: Name::of(&request).to_bytes(),
        manifest_digest: request.digest().to_bytes(),
    };
    // Under a checkpoint, without which no message is given.
    export(&instance.mv, exchange, false).await;
    let compare = |ranges: usize| CompareRecordsRequest {
        period: Some(hour().to_schema()),
        ranges: vec![RecordRange::default(); ranges],
        nonce: Bytes::from_static(&[5; 32]),
        ..CompareRecordsRequest::default()
    };
    // What the asker says that it holds, as if it held something else.
    let own = Some(RecordSummary { count: 1, digest: Digest::of(b"else").to_bytes() });
    let proof = Bytes::from_static(&[6; 32]);
    let commit = CompareRecordsRequest { nonce: Bytes::new(), own, proof, ..compare(1) };
    let list = ListRecordsRequest { period: Some(hour().to_schema()), range: None };
    let credentials = Credentials::of(LUEBECK, &instance.authorities, &instance.configuration);
    let mut early = HostileClient::connect(&instance, credentials).await.unwrap();
    for refused in [early.compare(compare(1)).await.map(drop), early.list(list.clone()).await.map(drop)] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        assert!(refused.message().contains("is not over"), "{}", refused.message());
    }
    instance.advance(LATER);
    for (server, records, state) in
        [(LUEBECK, 2..10, ExchangeState::Answered), (KIEL, 0..1, ExchangeState::Nothing)]
    {
        let credentials = Credentials::of(server, &instance.authorities, &instance.configuration);
        let mut client = HostileClient::connect(&instance, credentials).await.unwrap();
        assert!(records.contains(&client.compare(compare(1)).await.unwrap().summaries[0].count));
        // More than that nobody is told who has not said what it holds itself; and that is logged.
        let more = CompareRecordsRequest { nonce: Bytes::new(), ..compare(1) };
        let refused = client.list(list.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        assert_eq!(client.compare(more.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
        // Nor how an exchange stands, nor a message: that names the digests of others.
        let refused = client.tell(vec![id.clone()]).await.unwrap_err();
        assert!(refused.message().contains("must say first"), "{refused}");
        let refused = client.fetch(fetch.clone()).await.unwrap_err();
        assert!(refused.message().contains("must say first"), "{refused}");
        assert_eq!(said_first(&instance.mv, server).len(), 0);
        for _ in 0..3 {
            // It holds for one comparison, and is said once in each.
            assert_eq!(client.compare(compare(1)).await.unwrap().nonce.len(), 32);
            assert_eq!(client.compare(more.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
            assert_eq!(client.list(list.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
            assert!(records.contains(&client.compare(commit.clone()).await.unwrap().summaries[0].count));
            assert_eq!(client.compare(commit.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
        }
        let [said] = &said_first(&instance.mv, server)[..] else { panic!("it is logged, and once") };
        assert_eq!((said.from_ms, &said.there), (START.as_millis(), &commit.own));
        assert_eq!(said.kind(), CommitmentKind::Summary);
        assert!(records.contains(&said.here.as_ref().unwrap().count));
        assert!(client.compare(more).await.is_ok());
        assert!(records.contains(&(client.list(list.clone()).await.unwrap().records.len() as u64)));
        assert_eq!(client.tell(vec![id.clone()]).await.unwrap(), [i32::from(state)]);
        let given = client.fetch(fetch.clone()).await.map(|message| message.leaf.is_empty());
        match state {
            ExchangeState::Answered => assert!(!given.unwrap(), "its own"),
            _ => assert_eq!(given.unwrap_err().code(), Code::NotFound, "another's"),
        }
        // What was said of one hour is said of no other.
        let other = ExchangeId::new(START.minus(LATER), &[1; 10]);
        let refused = client.tell(vec![Bytes::copy_from_slice(other.as_bytes())]).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        // What is no question is no answer's worth.
        for ranges in [0, 65] {
            assert_eq!(client.compare(compare(ranges)).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let short = CompareRecordsRequest { nonce: Bytes::from_static(&[5; 31]), ..compare(1) };
        let both = CompareRecordsRequest { own: commit.own.clone(), ..compare(1) };
        let unproven = CompareRecordsRequest { proof: Bytes::new(), ..commit.clone() };
        let of_nothing = CompareRecordsRequest { own: None, ..commit.clone() };
        for wrong in [short, both, unproven, of_nothing, compare(2)] {
            assert_eq!(client.compare(wrong).await.unwrap_err().code(), Code::InvalidArgument);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_holds_up_no_other_and_is_asked_again() {
    let mut instance = Instance::planned(Plan { second: true, ..Plan::default() }).await;
    ask_both(&instance).await;
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let mute = HostileProvider::start(&instance, credentials, Alteration::Mute).await;
    instance.advance(LATER);
    minutes_later(&instance, "the other is compared with", async || {
        logged(&instance.sh).iter().any(|found| found.peer == REGISTER_TOO)
    })
    .await;
    assert!(logged(&instance.sh).iter().all(|found| found.peer != REGISTER));
    // Nor the next round: an hour later it still has not answered the first question.
    let before = messages_to(&instance.sh, REGISTER_TOO);
    for _ in 0..50 {
        if messages_to(&instance.sh, REGISTER_TOO) > before {
            break;
        }
        instance.ask(b"eine Stunde danach").await;
    }
    minutes_later(&instance, "the next hour is compared with the other", async || {
        logged(&instance.sh).iter().filter(|found| found.peer == REGISTER_TOO).count() > 1
    })
    .await;
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

fn other_digests(request: &CompareRecordsRequest) -> CompareRecordsResponse {
    let summary = RecordSummary { count: 1, digest: Digest::of(b"else").to_bytes() };
    CompareRecordsResponse { summaries: vec![summary; request.ranges.len()], nonce: nonce() }
}

fn nonce() -> Bytes {
    Bytes::from_static(&[4; 32])
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
        Some(own) => {
            CompareRecordsResponse { summaries: vec![own.clone(); request.ranges.len()], nonce: nonce() }
        }
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

/// Has the agency's server compare the first hour with a hostile one in the place of the register's.
async fn compares(alteration: Alteration, instance: &Instance) -> Result<Reconciliation, tonic::Status> {
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let hostile = HostileProvider::start(instance, credentials, alteration).await;
    let request =
        ReconcileRequest { peer: REGISTER.into(), from_ms: START.as_millis(), to_ms: START.as_millis() + 1 };
    // The first connections may still be those to the server that stood there.
    let mut found = Err(tonic::Status::unavailable("not asked"));
    for _ in 0..20 {
        let mut answers = operator(&instance.sh).await.reconcile(request.clone()).await.unwrap().into_inner();
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
}

/// The nonce that the agency's own door gave.
static GIVEN: Mutex<Bytes> = Mutex::new(Bytes::new());
/// What the agency's server said that it holds, when it asked.
static TOLD: Mutex<Option<CompareRecordsRequest>> = Mutex::new(None);

/// Asks back with the nonce that the caller's own door gave, and keeps what it is told then.
fn asking_back(request: &CompareRecordsRequest) -> CompareRecordsResponse {
    if request.own.is_some() {
        *TOLD.lock().unwrap() = Some(request.clone());
    }
    CompareRecordsResponse { nonce: GIVEN.lock().unwrap().clone(), ..other_digests(request) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_is_asked_at_once_has_no_use_for_what_it_is_told_and_leaves_a_record() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.mv.stop().await;
    instance.advance(LATER);
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let mut client = HostileClient::connect_to(&instance, instance.sh.peer, credentials).await.unwrap();
    let begin = CompareRecordsRequest {
        period: Some(hour().to_schema()),
        ranges: vec![RecordRange::default()],
        nonce: Bytes::from_static(&[5; 32]),
        ..CompareRecordsRequest::default()
    };
    *GIVEN.lock().unwrap() = client.compare(begin).await.unwrap().nonce;
    // It is told what the other one holds, and breaks off.
    compares(Alteration::Comparing(asking_back, nothing), &instance).await.unwrap_err();
    let [answered] = &said_first(&instance.sh, REGISTER)[..] else { panic!("it is logged, and once") };
    assert_eq!((answered.kind(), answered.from_ms), (CommitmentKind::Answer, START.as_millis()));
    assert_ne!(answered.there, answered.here);
    // What it was told is no answer at the other one's door, though it is of the very nonce.
    let told = TOLD.lock().unwrap().take().unwrap();
    assert!(told.own.as_ref().unwrap().count >= 2 && told.nonce.is_empty() && told.proof.len() == 32);
    client.compare(told.clone()).await.unwrap();
    let [_, repeated] = &said_first(&instance.sh, REGISTER)[..] else { panic!("that is logged too") };
    let digest = |summary: &Option<RecordSummary>| summary.as_ref().unwrap().digest.clone();
    assert_eq!((repeated.kind(), digest(&repeated.there)), (CommitmentKind::Proof, told.proof));
    assert_ne!(digest(&repeated.here), digest(&repeated.there));
    assert!(logged(&instance.sh).iter().all(|found| found.here != found.there), "nothing is agreed on");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_what_it_likes_comes_to_an_end_and_is_not_believed() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.mv.stop().await;
    instance.advance(LATER);
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
        matches!(missing[..], [(Kind::MissingThere, 2..)]) && found.unexplained,
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
