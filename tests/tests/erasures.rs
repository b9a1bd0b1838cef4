//! Erased on one side, told to the other: what its operators decide, what its policy carries out, what a hold keeps, and what
//! a crash cuts off.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use trave_message_log::Entry as Record;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, ContentStory};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ErasureNotice, ErasureStage, Leaf};
use trave_proto::schema::operator::{
    ApproveRequest, CheckLogRequest, DropErasureRequest, ErasePersonRequest, EraseRequest, ErasureEntry,
    ListErasuresRequest, SetHoldRequest, StatusRequest,
};
use trave_tests::network::hostile::{Credentials, HostileClient};
use trave_tests::network::{
    Instance, KIEL, LUEBECK, Plan, Question, Server, export, judge, operator, soon, story,
};

const PERSON: &str = "steuer-id:12345678901";

fn bytes_of(exchange: ExchangeId) -> Bytes {
    Bytes::copy_from_slice(exchange.as_bytes())
}

async fn erase(server: &Server, exchange: ExchangeId) -> trave_proto::schema::operator::EraseResponse {
    let request =
        EraseRequest { exchange_id: bytes_of(exchange), operator: "Muster".into(), reason: "Art. 17".into() };
    operator(server).await.erase(request).await.unwrap().into_inner()
}

async fn listed(server: &Server) -> Vec<ErasureEntry> {
    operator(server).await.list_erasures(ListErasuresRequest {}).await.unwrap().into_inner().erasures
}

async fn warns(server: &Server, what: &str) -> bool {
    let status = operator(server).await.status(StatusRequest {}).await.unwrap().into_inner();
    status.warnings.iter().any(|warning| warning.contains(what))
}

/// Whether a server's proof of an exchange says that its contents were erased; it holds either way.
async fn is_erased(instance: &Instance, server: &Server, exchange: ExchangeId) -> bool {
    let file = export(server, exchange, false).await;
    assert_eq!(judge(instance, &file).conclusion, Conclusion::Holds);
    let story = story(instance, &file);
    let mut contents = story.requests.iter().chain(&story.responses).map(|one| &one.content);
    contents.all(|content| matches!(content, ContentStory::Erased))
}

async fn whole(server: &Server) {
    let report = operator(server).await.check_log(CheckLogRequest {}).await.unwrap().into_inner();
    assert_eq!(report.problems, Vec::<String>::new(), "{}", server.id);
}

fn approve(id: &str) -> ApproveRequest {
    ApproveRequest { id: id.into(), operator: "Muster".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_here_is_told_there_and_decided_there() {
    let mut instance = Instance::start().await;
    let [first, second, other] =
        [instance.ask(b"eins").await, instance.ask(b"zwei").await, instance.ask(b"drei").await]
            .map(|answer| answer.exchange());
    let done = erase(&instance.sh, first).await;
    assert!(done.contents > 0 && !done.waiting);
    assert_eq!(done.telling, [instance.mv.id]);
    soon("it is told", async || listed(&instance.sh).await.is_empty()).await;
    let told = listed(&instance.mv).await;
    assert_eq!((told.len(), &*told[0].server), (1, instance.sh.id));
    assert_eq!(told[0].exchange_ids, [bytes_of(first)]);
    assert!(told[0].reason.is_empty(), "why, is nobody's business there");
    soon("it is shown", async || warns(&instance.mv, "wait for a decision").await).await;
    assert!(is_erased(&instance, &instance.sh, first).await);
    assert!(!is_erased(&instance, &instance.mv, first).await, "nobody has decided");
    // It waits over a restart, and is carried out when somebody says so.
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    let id = listed(&instance.mv).await[0].id.clone();
    operator(&instance.mv).await.approve(approve(&id)).await.unwrap();
    assert!(is_erased(&instance, &instance.mv, first).await);
    assert!(operator(&instance.mv).await.approve(approve(&id)).await.is_err(), "it is over");
    soon("nothing is open", async || !warns(&instance.mv, "wait for a decision").await).await;
    // Declining leaves everything there, and says why in the log.
    erase(&instance.sh, second).await;
    soon("it is told", async || !listed(&instance.mv).await.is_empty()).await;
    let id = listed(&instance.mv).await[0].id.clone();
    let declined = DropErasureRequest { id, reason: "§ 35 BDSG".into(), operator: "Muster".into() };
    operator(&instance.mv).await.drop_erasure(declined).await.unwrap();
    assert!(listed(&instance.mv).await.is_empty());
    assert!(!is_erased(&instance, &instance.mv, second).await);
    assert!(
        !is_erased(&instance, &instance.sh, other).await && !is_erased(&instance, &instance.mv, other).await
    );
    let stages: Vec<_> = instance
        .mv
        .records(0)
        .iter()
        .filter_map(|record| match &record.leaf.entry {
            Some(Entry::ErasureNotice(notice)) => Some((notice.stage(), notice.reason.clone())),
            _ => None,
        })
        .collect();
    let expected = [
        (ErasureStage::Received, ""),
        (ErasureStage::Approved, ""),
        (ErasureStage::Received, ""),
        (ErasureStage::Dropped, "§ 35 BDSG"),
    ];
    assert_eq!(stages, expected.map(|(stage, why)| (stage, why.to_owned())));
    for server in [&instance.sh, &instance.mv] {
        whole(server).await;
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_reached_is_told_later_and_a_hold_is_stronger_than_a_policy() {
    let policy = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\n\
                  [retention]\nerasure_notices = \"carry_out\"\n";
    let mut instance = Instance::planned(Plan { at_provider: policy.into(), ..Plan::default() }).await;
    let about = || Question::new().header("trave-subject", PERSON).message(b"wer?");
    let caller = instance.caller().await;
    let [first, second] = [caller.ask(about()).await, caller.ask(about()).await].map(|it| it.exchange());
    let held = instance.ask(b"bleibt").await.exchange();
    let hold = SetHoldRequest {
        exchange_ids: vec![bytes_of(held)],
        reason: "VG Schwerin 3 A 12/27".into(),
        operator: "Muster".into(),
        ..SetHoldRequest::default()
    };
    operator(&instance.mv).await.set_hold(hold.clone()).await.unwrap();
    // What is held here is not erased here.
    let request =
        EraseRequest { exchange_id: bytes_of(held), operator: "M".into(), reason: "Art. 17".into() };
    let refused = operator(&instance.mv).await.erase(request).await.unwrap_err();
    assert!(refused.message().contains("the hold h-"), "{refused}");

    instance.mv.stop().await;
    let request =
        ErasePersonRequest { person: PERSON.into(), operator: "Muster".into(), reason: "Art. 17".into() };
    let done = operator(&instance.sh).await.erase_person(request).await.unwrap().into_inner();
    assert_eq!((done.exchanges, done.pseudonyms), (2, 2));
    assert_eq!(done.telling, [instance.mv.id]);
    erase(&instance.sh, held).await;
    soon("it is told that it is not told", async || warns(&instance.sh, "is not told of the erasure").await)
        .await;
    // What is to be told is in the log: a restart knows of it.
    instance.sh.stop().await;
    instance.mv.start().await.unwrap();
    instance.sh.start().await.unwrap();
    soon("both are told", async || listed(&instance.sh).await.is_empty()).await;
    soon("one is carried out, the held one waits", async || {
        let waits = listed(&instance.mv).await;
        waits.len() == 1 && waits[0].exchange_ids == [bytes_of(held)]
    })
    .await;
    for exchange in [first, second] {
        assert!(is_erased(&instance, &instance.sh, exchange).await);
        assert!(is_erased(&instance, &instance.mv, exchange).await);
    }
    assert!(
        is_erased(&instance, &instance.sh, held).await && !is_erased(&instance, &instance.mv, held).await
    );
    let text = format!("{:?}", instance.mv.records(0).iter().map(|record| &record.leaf).collect::<Vec<_>>());
    assert!(!text.contains("12345678901") && !text.contains("Art. 17"));
    for server in [&instance.sh, &instance.mv] {
        whole(server).await;
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_a_crash_cut_off_is_carried_out_at_the_next_start() {
    let mut instance = Instance::start().await;
    let [approved, applied] =
        [instance.ask(b"eins").await, instance.ask(b"zwei").await].map(|answer| answer.exchange());
    instance.sh.stop().await;
    // What the log holds when the process dies right after the approval, and before it.
    let notice = |id: &str, stage: ErasureStage, peer: &str, exchange: Option<ExchangeId>| ErasureNotice {
        id: id.into(),
        stage: stage.into(),
        peer: peer.into(),
        exchange_ids: exchange.map(bytes_of).into_iter().collect(),
        reason: "Art. 17".into(),
        operator: "Muster".into(),
        ..ErasureNotice::default()
    };
    let log = instance.sh.open_log();
    for record in [
        notice("e-1", ErasureStage::Applied, "", Some(approved)),
        notice("e-1", ErasureStage::ToTell, instance.mv.id, Some(approved)),
        notice("e-1", ErasureStage::Approved, "", None),
        notice("e-2", ErasureStage::Applied, "", Some(applied)),
        notice("e-2", ErasureStage::ToTell, instance.mv.id, Some(applied)),
    ] {
        let leaf = Leaf::of(instance.clock.now().as_millis(), Entry::ErasureNotice(record));
        log.append(Record::new(leaf), ()).unwrap().await.unwrap();
    }
    log.close();
    drop(log);
    instance.sh.start().await.unwrap();
    soon("it is told", async || !listed(&instance.mv).await.is_empty()).await;
    assert!(is_erased(&instance, &instance.sh, approved).await);
    assert_eq!(listed(&instance.mv).await[0].exchange_ids, [bytes_of(approved)]);
    // What nobody approved waits, and is told to nobody.
    assert!(!is_erased(&instance, &instance.sh, applied).await);
    let waits = listed(&instance.sh).await;
    assert_eq!((waits.len(), &*waits[0].id), (1, "e-2"));
    assert!(waits[0].state.contains("waits for another person's approval"));
    // Once more: it is done, and not done again.
    let erasures = |server: &Server| {
        let records = server.records(0);
        records.iter().filter(|record| matches!(record.leaf.entry, Some(Entry::Erasure(_)))).count()
    };
    assert_eq!(erasures(&instance.sh), 1);
    instance.sh.stop().await;
    instance.sh.start().await.unwrap();
    operator(&instance.sh).await.approve(approve("e-2")).await.unwrap();
    assert_eq!(erasures(&instance.sh), 2);
    soon("that is told too", async || listed(&instance.mv).await.len() == 2).await;
    whole(&instance.sh).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_server_tells_of_its_own_exchanges_alone() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"eins").await.exchange();
    let notices = |server: &Server| {
        let records = server.records(0);
        records.iter().filter(|record| matches!(record.leaf.entry, Some(Entry::ErasureNotice(_)))).count()
    };
    let credentials = Credentials::of(KIEL, &instance.authorities, &instance.configuration);
    let mut kiel = HostileClient::connect(&instance, credentials).await.unwrap();
    assert_eq!(kiel.tell_erasure("e-1", vec![bytes_of(exchange)]).await.unwrap(), 0);
    assert_eq!(notices(&instance.mv), 0, "what is none of its own is not even logged");
    for (id, ids) in [
        ("", vec![bytes_of(exchange)]),
        ("e 1", vec![bytes_of(exchange)]),
        ("e-1", vec![]),
        ("e-1", vec![Bytes::from_static(b"no id")]),
        ("e-1", vec![bytes_of(exchange); 2]),
        ("e-1", vec![bytes_of(exchange); 1_001]),
    ] {
        assert_eq!(kiel.tell_erasure(id, ids).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let credentials = Credentials::of(LUEBECK, &instance.authorities, &instance.configuration);
    let mut luebeck = HostileClient::connect(&instance, credentials).await.unwrap();
    // Told again, it changes nothing.
    for _ in 0..3 {
        assert_eq!(luebeck.tell_erasure("e-1", vec![bytes_of(exchange)]).await.unwrap(), 1);
    }
    assert_eq!((notices(&instance.mv), listed(&instance.mv).await.len()), (1, 1));
    // Nor does it under another name: it waits already.
    for number in 2..=20 {
        let known = luebeck.tell_erasure(&format!("e-{number}"), vec![bytes_of(exchange)]).await.unwrap();
        assert_eq!(known, 1);
    }
    assert_eq!((notices(&instance.mv), listed(&instance.mv).await.len()), (1, 1));
    // However much it tells, so much is open at a time.
    for number in 1..=100 {
        let other = instance.ask(b"noch eine").await.exchange();
        let told = luebeck.tell_erasure(&format!("e-0-{number}"), vec![bytes_of(other)]).await;
        assert_eq!(
            told.err().map(|refused| refused.code()),
            (number == 100).then_some(Code::ResourceExhausted)
        );
    }
    assert_eq!(listed(&instance.mv).await.len(), 100);
    instance.stop().await;
}

/// An instance whose register's server erases what it is told.
async fn carrying_out() -> Instance {
    let policy = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\n\
                  [retention]\nerasure_notices = \"carry_out\"\n";
    Instance::planned(Plan { at_provider: policy.into(), ..Plan::default() }).await
}

/// What a log says of erasures, in order.
fn acts(server: &Server) -> Vec<Leaf> {
    let records = server.records(0).into_iter().map(|record| record.leaf);
    let of_erasures = |leaf: &Leaf| {
        matches!(leaf.entry, Some(Entry::ErasureNotice(_) | Entry::Erasure(_) | Entry::Persons(_)))
    };
    records.filter(of_erasures).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_not_erased_again_however_often_it_is_told_under_other_names() {
    let mut instance = carrying_out().await;
    let exchange = instance.ask(b"eins").await.exchange();
    let credentials = Credentials::of(LUEBECK, &instance.authorities, &instance.configuration);
    let mut luebeck = HostileClient::connect(&instance, credentials).await.unwrap();
    luebeck.tell_erasure("e-1", vec![bytes_of(exchange)]).await.unwrap();
    soon("it is erased", async || is_erased(&instance, &instance.mv, exchange).await).await;
    let before = acts(&instance.mv).len();
    for number in 2..=50 {
        let known = luebeck.tell_erasure(&format!("e-{number}"), vec![bytes_of(exchange)]).await.unwrap();
        assert_eq!(known, 1, "it is known, and that it was told is durable");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(acts(&instance.mv).len(), before);
    whole(&instance.mv).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_is_exported_while_its_content_is_erased_holds() {
    let mut instance = Instance::start().await;
    for _ in 0..12 {
        let exchange = instance.ask(b"gleichzeitig").await.exchange();
        let request = EraseRequest {
            exchange_id: bytes_of(exchange),
            operator: "Muster".into(),
            reason: "Art. 17".into(),
        };
        let mut door = operator(&instance.mv).await;
        let erasing = async { door.erase(request).await.unwrap() };
        // Some before, some after, and now and then one in the midst of it.
        let exporting = async |at: u64| {
            tokio::time::sleep(Duration::from_micros(700 * at)).await;
            for _ in 0..3 {
                let report = judge(&instance, &export(&instance.mv, exchange, false).await);
                assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
            }
        };
        let first = async { tokio::join!(exporting(0), exporting(1), exporting(2), exporting(3)) };
        let then = async { tokio::join!(exporting(4), exporting(5), exporting(6), exporting(7)) };
        tokio::join!(erasing, first, then);
        assert!(is_erased(&instance, &instance.mv, exchange).await);
    }
    instance.stop().await;
}

/// Appends to the log of a server that does not run.
async fn append(server: &Server, leaves: &[Leaf]) {
    let log = server.open_log();
    for leaf in leaves {
        log.append(Record::new(leaf.clone()), ()).unwrap().await.unwrap();
    }
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
}

fn is_stage(leaf: &Leaf, stage: ErasureStage) -> bool {
    matches!(&leaf.entry, Some(Entry::ErasureNotice(notice)) if notice.stage() == stage)
}

/// An erasure of a person, applied for and approved on one side and carried out on both, is cut off behind each record that it
/// writes, on either side. Where writing a record failed, the log is without it or, failed but stored, has it: these are the
/// logs before and behind it. What a failing disk leaves of a single act of overwriting is the message log's own matter, and is
/// tried there at every operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_may_be_cut_off_behind_each_of_its_steps_on_either_side() {
    let mut instance = carrying_out().await;
    let caller = instance.caller().await;
    let about = || Question::new().header("trave-subject", PERSON).message(b"wer?");
    let exchanges = [caller.ask(about()).await, caller.ask(about()).await].map(|it| it.exchange());
    for server in [&mut instance.sh, &mut instance.mv] {
        server.stop().await;
        server.keep_disk();
        server.start().await.unwrap();
    }
    let request =
        ErasePersonRequest { person: PERSON.into(), operator: "Muster".into(), reason: "Art. 17".into() };
    operator(&instance.sh).await.erase_person(request).await.unwrap();
    let erased = async |instance: &Instance| {
        let mut all = true;
        for exchange in exchanges {
            all &= is_erased(instance, &instance.sh, exchange).await;
            all &= is_erased(instance, &instance.mv, exchange).await;
        }
        all
    };
    let told = async |instance: &Instance| listed(&instance.sh).await.is_empty();
    soon("all of it is done", async || told(&instance).await && erased(&instance).await).await;
    let (here, there) = (acts(&instance.sh), acts(&instance.mv));
    for (acts, stages) in [
        (
            &here,
            &[ErasureStage::Applied, ErasureStage::ToTell, ErasureStage::Approved, ErasureStage::Told][..],
        ),
        (&there, &[ErasureStage::Received, ErasureStage::Approved][..]),
    ] {
        let all = stages.iter().all(|stage| acts.iter().any(|leaf| is_stage(leaf, *stage)));
        let erasures = acts.iter().filter(|leaf| matches!(leaf.entry, Some(Entry::Erasure(_)))).count();
        assert!(all && erasures == 2, "{acts:#?}");
    }
    let untold: Vec<_> = here.iter().filter(|leaf| !is_stage(leaf, ErasureStage::Told)).cloned().collect();
    let cut_here = (0..=here.len()).map(|so_far| (&here[..so_far], &there[..0]));
    let cut_there = (1..=there.len()).map(|so_far| (&untold[..], &there[..so_far]));
    for (at, (here, there)) in cut_here.chain(cut_there).enumerate() {
        // That it was told is written when the other side has it.
        if here.iter().any(|leaf| is_stage(leaf, ErasureStage::Told)) && there.is_empty() {
            continue;
        }
        instance.sh.stop().await;
        // Who tells starts last: here no minute passes after which it would tell again.
        for (server, acts) in [(&mut instance.mv, there), (&mut instance.sh, here)] {
            server.stop().await;
            server.put_disk_back();
            server.keep_disk();
            append(server, acts).await;
            server.start().await.unwrap();
        }
        let approved = here.iter().any(|leaf| is_stage(leaf, ErasureStage::Approved));
        if approved {
            let done = async || told(&instance).await && erased(&instance).await;
            soon(&format!("step {at} is done to the end"), done).await;
        } else {
            let waits = here.iter().any(|leaf| is_stage(leaf, ErasureStage::Applied));
            assert_eq!(listed(&instance.sh).await.len(), usize::from(waits), "step {at}");
            for exchange in exchanges {
                assert!(!is_erased(&instance, &instance.sh, exchange).await, "step {at}");
                assert!(!is_erased(&instance, &instance.mv, exchange).await, "step {at}");
            }
        }
        for server in [&instance.sh, &instance.mv] {
            whole(server).await;
        }
    }
    instance.stop().await;
}
