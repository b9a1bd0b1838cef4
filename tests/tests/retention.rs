//! Two years pass: what had to go is gone from every file of both servers, what is held is there with its reason, and every
//! newer proof holds.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use trave_message_log::{ArchiveIdentity, DirectoryStore, Source};
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, ContentStory};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::{
    CheckLogRequest, CheckLogResponse, DiskReportRequest, ErasePersonRequest, EraseRequest, LiftHoldRequest,
    ListHoldsRequest, ListLogRequest, ListLogResponse, PruneRequest, PruneResponse, SetHoldRequest,
    StatusRequest,
};
use trave_tests::network::{
    CLIENT, Identities, Instance, Plan, Question, Server, asked_about, export, judge, operator, soon, story,
    try_export,
};

const DAY: Duration = Duration::from_secs(86_400);
const PERSON: &str = "steuer-id:12345678901";
const SUBJECT: &str = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\n";
const REASON: &str = "VG Schwerin 3 A 12/27";

/// Whether some file below `folder` holds these bytes.
fn found(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found(&path, needle),
            Ok(metadata) if metadata.is_file() => {
                // A file may be replaced while it is looked at.
                let bytes = std::fs::read(&path).unwrap_or_default();
                let end = bytes.chunks(512).rposition(|sector| sector.iter().any(|byte| *byte != 0));
                let end = end.map_or(0, |last| bytes.len().min((last + 1) * 512));
                bytes[..end].windows(needle.len()).any(|window| window == needle)
            }
            _ => false,
        }
    })
}

async fn hold(server: &Server, exchange: ExchangeId) -> String {
    let request = SetHoldRequest {
        exchange_ids: vec![Bytes::copy_from_slice(exchange.as_bytes())],
        reason: REASON.into(),
        operator: "Operator Muster".into(),
        ..SetHoldRequest::default()
    };
    let done = operator(server).await.set_hold(request).await.unwrap().into_inner();
    assert!(!done.waiting);
    done.id
}

/// No time that has passed may find certificates or configurations over.
async fn restart(instance: &mut Instance, pass: Duration) {
    instance.sh.stop().await;
    instance.mv.stop().await;
    instance.advance(pass);
    instance.renew();
    instance.sh.start().await.unwrap();
    instance.mv.start().await.unwrap();
}

/// Asks until it is answered: after a long time without timestamps, exchanges are refused until there is one.
async fn answered(instance: &Instance, message: &[u8]) -> ExchangeId {
    let mut exchange = None;
    soon("an exchange is answered", async || {
        let answer = instance.ask(message).await;
        exchange = Some(answer.exchange());
        if answer.status() != 0 {
            // A server seals at its start what the run before left, and then every so often by its civil clock. Where the first
            // attempt fails, the next one comes only when civil time has passed; and here nobody else lets it pass.
            instance.advance(Duration::from_secs(60));
        }
        answer.status() == 0
    })
    .await;
    exchange.unwrap()
}

/// The exchanges that the log tells of.
async fn told(server: &Server) -> Vec<Bytes> {
    listed(server).await.into_iter().map(|entry| entry.exchange_id).collect()
}

/// What the log tells of exchanges.
async fn listed(server: &Server) -> Vec<ListLogResponse> {
    let request = ListLogRequest { reason: "Prüfung".into(), ..ListLogRequest::default() };
    let mut entries = operator(server).await.list_log(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(entry) = entries.message().await.unwrap() {
        told.push(entry);
    }
    told
}

async fn whole(server: &Server) -> CheckLogResponse {
    let report = operator(server).await.check_log(CheckLogRequest {}).await.unwrap().into_inner();
    assert_eq!(report.problems, Vec::<String>::new(), "{}", server.id);
    report
}

async fn warns(server: &Server, what: &str) -> bool {
    let status = operator(server).await.status(StatusRequest {}).await.unwrap().into_inner();
    status.warnings.iter().any(|warning| warning.contains(what))
}

async fn prune(server: &Server) -> Result<PruneResponse, tonic::Status> {
    let request = PruneRequest { before_ms: i64::MAX, reason: "Platz".into(), operator: "Muster".into() };
    operator(server).await.prune(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_years_pass() {
    let (place, identity) = (tempfile::tempdir().unwrap(), ArchiveIdentity::generate());
    let archive = place.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let recipient = identity.recipient().to_string();
    let to = format!("[archive]\ndirectory = {archive:?}\nrecipients = [{recipient:?}]\n");
    let policy = "[retention]\ncontents_days = 30\n".to_owned();
    let plan =
        Plan { at_client: policy.clone(), at_provider: format!("{SUBJECT}{policy}{to}"), ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    // Months' keys are kept longer than the records are: it is the pseudonym that goes.
    instance.mv.reconfigure(|text| text.replace("[log]\n", "[log]\npersons_months = 36\n")).await;
    let about = Question::new().header("trave-subject", PERSON).message(b"vergeht");
    let gone = instance.caller().await.ask(about).await.exchange();
    let held = instance.ask(b"bleibt").await.exchange();
    assert_eq!(asked_about(&instance.mv, PERSON).await, 1);
    let exported = export(&instance.sh, gone, false).await;
    let mut holds = Vec::new();
    for server in [&instance.sh, &instance.mv] {
        holds.push(hold(server, held).await);
        for id in [gone, held] {
            assert!(found(&server.data(), id.as_bytes()), "{} knows {id}", server.id);
        }
    }

    // A month: contents go, but for what is held.
    restart(&mut instance, 31 * DAY).await;
    for (server, of) in [(&instance.sh, gone), (&instance.mv, gone)] {
        soon("its contents are gone", async || {
            let story = story(&instance, &export(server, of, false).await);
            story.requests.iter().chain(&story.responses).all(|one| one.content == ContentStory::NotKept)
        })
        .await;
        let kept = story(&instance, &export(server, held, false).await);
        assert!(kept.requests.iter().all(|one| matches!(one.content, ContentStory::Included(_))));
        whole(server).await;
    }

    // Twenty months: another exchange.
    restart(&mut instance, 580 * DAY).await;
    let newer = answered(&instance, b"neuer").await;

    assert_eq!(asked_about(&instance.mv, PERSON).await, 1);

    // Two years and some days: records go.
    restart(&mut instance, 122 * DAY).await;
    for server in [&instance.sh, &instance.mv] {
        soon("its records are gone", async || !found(&server.data().join("log"), gone.as_bytes())).await;
    }
    // Once more, in the midst of whatever is still to be done.
    restart(&mut instance, Duration::ZERO).await;
    for server in [&instance.sh, &instance.mv] {
        assert!(!found(&server.data(), gone.as_bytes()), "{}: no file names it", server.id);
        whole(server).await;
        let refused = try_export(server, gone, false).await.unwrap_err();
        assert!(refused.contains("have expired"), "{refused}");
        for exchange in [held, newer] {
            let report = judge(&instance, &export(server, exchange, false).await);
            assert_eq!(report.conclusion, Conclusion::Holds, "{exchange}: {:#?}", report.checks);
        }
        let listed = operator(server).await.list_holds(ListHoldsRequest {}).await.unwrap().into_inner();
        assert_eq!(listed.holds[0].hold.as_ref().unwrap().reason, REASON);
        let report = operator(server).await.disk_report(DiskReportRequest {}).await.unwrap().into_inner();
        assert_eq!(report.held.len(), 1);
        let records = report.entries.iter().find(|entry| entry.what == "records and contents").unwrap();
        assert!(records.mode == 0o600 && records.bytes > 0, "{records:?}");
        let acts = server.records(0).into_iter().filter(|record| {
            matches!(&record.leaf.entry, Some(Entry::Expiry(expiry)) if expiry.records && expiry.count > 0)
        });
        assert!(acts.count() > 0, "the log says what has expired");
    }
    assert_eq!(asked_about(&instance.mv, PERSON).await, 0, "the pseudonym went with the record");
    for server in [&instance.sh, &instance.mv] {
        let told = told(server).await;
        let tells = |id: ExchangeId| told.iter().any(|it| *it == id.as_bytes()[..]);
        assert!(!tells(gone) && tells(held) && tells(newer), "{}", server.id);
    }
    // The archive follows: opened with its key, it holds what is held, and nothing of what had to go.
    instance.advance(Duration::from_secs(600));
    soon("the archive has its objects", async || std::fs::read_dir(&archive).unwrap().count() > 0).await;
    let store = DirectoryStore::new(&archive);
    let key = Identities::get().of(instance.mv.id).log.verifier();
    let source = Source { store: &store, identity: &identity, key: &key, checkpoint: None };
    let restored = place.path().join("restored");
    source.restore(&restored, &mut |_, _| {}).unwrap();
    assert!(found(&restored, held.as_bytes()) && !found(&restored, gone.as_bytes()));
    // What was exported in time proves what it proved.
    assert_eq!(judge(&instance, &exported).conclusion, Conclusion::Holds);

    // The hold ends, and what it kept goes.
    for (server, id) in [&instance.sh, &instance.mv].into_iter().zip(&holds) {
        let request = LiftHoldRequest { id: id.clone(), reason: "beendet".into(), operator: "Muster".into() };
        assert!(!operator(server).await.lift_hold(request).await.unwrap().into_inner().waiting);
    }
    restart(&mut instance, DAY).await;
    for server in [&instance.sh, &instance.mv] {
        soon("what was held is gone", async || {
            try_export(server, held, false).await.is_err_and(|why| why.contains("have expired"))
        })
        .await;
        whole(server).await;
        assert_eq!(judge(&instance, &export(server, newer, false).await).conclusion, Conclusion::Holds);
    }
    instance.stop().await;
}

/// A provider that archives to a directory, in segments of 1 MiB.
async fn archiving(archive: &Path, identity: &ArchiveIdentity) -> Instance {
    std::fs::create_dir(archive).unwrap();
    let recipient = identity.recipient().to_string();
    let to =
        format!("[archive]\ndirectory = {archive:?}\nrecipients = [{recipient:?}]\nevery_seconds = 60\n");
    let plan = Plan { keep_at_provider: "all", at_provider: format!("{SUBJECT}{to}"), ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    instance.mv.reconfigure(|text| text.replace("[log]\n", "[log]\npersons_months = 36\n")).await;
    instance
}

/// Has the archive catch up with the log.
async fn archived(instance: &Instance, archive: &Path, objects: usize) {
    soon("segments are archived", async || {
        instance.advance(Duration::from_secs(60));
        std::fs::read_dir(archive).unwrap().count() >= objects
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pruned_is_held_erased_and_expires_like_the_rest() {
    let (place, identity) = (tempfile::tempdir().unwrap(), ArchiveIdentity::generate());
    let archive = place.path().join("archive");
    let mut instance = archiving(&archive, &identity).await;
    let big = || Question::new().message(&[7; 400_000]);
    let caller = instance.caller().await;
    let about =
        caller.ask(Question::new().header("trave-subject", PERSON).message(&[1; 400_000])).await.exchange();
    let (held, beside) =
        (instance.ask(b"bleibt").await.exchange(), instance.ask(b"daneben").await.exchange());
    for _ in 0..3 {
        assert_eq!(caller.ask(big()).await.status(), 0);
    }
    drop(caller);
    archived(&instance, &archive, 2).await;
    let refused = prune(&instance.mv).await.unwrap_err();
    assert!(refused.message().contains("older than 31 days"), "{refused}");
    restart(&mut instance, 40 * DAY).await;
    let newer = answered(&instance, b"neuer").await;
    for _ in 0..2 {
        answered(&instance, &[8; 400_000]).await;
    }
    archived(&instance, &archive, 3).await;

    let pruned = prune(&instance.mv).await.unwrap();
    assert!(!pruned.waiting && pruned.first == 0 && pruned.segments >= 2, "{pruned:?}");
    assert_eq!(whole(&instance.mv).await.pruned, pruned.count);
    // What is still known is told; what is in the archive alone cannot be proved from here, and what is newer can.
    let entries = listed(&instance.mv).await;
    let entry = entries.iter().find(|entry| entry.exchange_id == about.as_bytes()[..]).unwrap();
    assert_eq!((&*entry.outcome, &*entry.client), ("pruned", CLIENT));
    assert_eq!(asked_about(&instance.mv, PERSON).await, 1);
    let refused = try_export(&instance.mv, about, false).await.unwrap_err();
    assert!(refused.contains("were pruned from this server's disk"), "{refused}");
    assert_eq!(judge(&instance, &export(&instance.mv, newer, false).await).conclusion, Conclusion::Holds);

    // A hold concerns what was pruned, and keeps it from being erased; a person is erased there, too.
    let hold = hold(&instance.mv, held).await;
    let erase = |exchange: ExchangeId| EraseRequest {
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        operator: "Muster".into(),
        reason: "Art. 17".into(),
    };
    let refused = operator(&instance.mv).await.erase(erase(held)).await.unwrap_err();
    assert!(refused.message().contains(&hold), "{refused}");
    let request =
        ErasePersonRequest { person: PERSON.into(), operator: "Muster".into(), reason: "Art. 17".into() };
    let erased = operator(&instance.mv).await.erase_person(request).await.unwrap().into_inner();
    assert_eq!((erased.exchanges, erased.pseudonyms), (1, 1));
    assert!(erased.contents >= 2 && erased.telling == [instance.sh.id], "{erased:?}");
    assert_eq!(asked_about(&instance.mv, PERSON).await, 0);
    whole(&instance.mv).await;

    // Two years: what is beside the held record cannot go alone, and that is said; when the hold ends, all of it goes.
    restart(&mut instance, 750 * DAY).await;
    let newer = answered(&instance, b"zwei Jahre").await;
    soon("it is told", async || warns(&instance.mv, "are in the archive alone").await).await;
    assert!(listed(&instance.mv).await.iter().any(|entry| entry.exchange_id == held.as_bytes()[..]));
    let request = LiftHoldRequest { id: hold, reason: "beendet".into(), operator: "Muster".into() };
    operator(&instance.mv).await.lift_hold(request).await.unwrap();
    let log = instance.mv.layout().log();
    soon("all of it is gone here", async || {
        instance.advance(Duration::from_secs(3_600));
        !found(&log.join("segments"), beside.as_bytes())
    })
    .await;
    soon("nothing is told any more", async || !warns(&instance.mv, "are in the archive alone").await).await;
    assert_eq!(whole(&instance.mv).await.pruned, 0);
    // Hold and erasure name what they were about for as long as administration is kept; the exchanges themselves are no more.
    for exchange in [about, held, beside] {
        let refused = try_export(&instance.mv, exchange, false).await.unwrap_err();
        assert!(refused.contains("have expired"), "{refused}");
    }
    let source_of = |to: &str| {
        let (store, key) =
            (DirectoryStore::new(&archive), Identities::get().of(instance.mv.id).log.verifier());
        let to = place.path().join(to);
        let source = Source { store: &store, identity: &identity, key: &key, checkpoint: None };
        source.restore(&to, &mut |_, _| {}).unwrap();
        to
    };
    let mut tries = 0;
    soon("and from the archive", async || {
        instance.advance(Duration::from_secs(60));
        tries += 1;
        let restored = source_of(&format!("restored-{tries}"));
        !found(&restored, beside.as_bytes())
    })
    .await;
    assert_eq!(judge(&instance, &export(&instance.mv, newer, false).await).conclusion, Conclusion::Holds);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_no_timestamp_confirms_destroys_nothing() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"bleibt").await.exchange();
    instance.authorities.stop().await;
    instance.advance(800 * DAY);
    let told = async |server: &Server| {
        operator(server).await.status(StatusRequest {}).await.unwrap().into_inner().warnings
    };
    soon("it is told", async || {
        told(&instance.sh).await.iter().any(|why| why.contains("is not overwritten"))
    })
    .await;
    assert!(!instance.sh.tells(exchange).is_empty());
    assert!(
        !instance
            .sh
            .records(0)
            .iter()
            .any(|record| matches!(&record.leaf.entry, Some(Entry::Expiry(expiry)) if expiry.count > 0))
    );
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_names_what_it_holds() {
    let mut instance = Instance::start().await;
    let mut sh = operator(&instance.sh).await;
    let request = |client: &str| SetHoldRequest {
        client: (client != "-").then(|| client.into()),
        reason: REASON.into(),
        operator: "Muster".into(),
        ..SetHoldRequest::default()
    };
    for wrong in [
        request(""),
        request("niemand"),
        SetHoldRequest { reason: String::new(), ..request(CLIENT) },
        // There and empty: not a hold of everything in that time.
        SetHoldRequest { from_ms: Some(2), ..request("") },
        SetHoldRequest { service: Some(String::new()), ..request(CLIENT) },
        request("-"),
        SetHoldRequest { from_ms: Some(2), to_ms: Some(1), ..request("-") },
        SetHoldRequest { exchange_ids: vec![Bytes::from_static(&[7; 16])], ..request("-") },
        SetHoldRequest { exchange_ids: vec![Bytes::from_static(&[7; 16])], ..request(CLIENT) },
    ] {
        assert!(sh.set_hold(wrong.clone()).await.is_err(), "{wrong:?}");
    }
    let id = sh.set_hold(request(CLIENT)).await.unwrap().into_inner().id;
    // A start reads it from the log.
    instance.sh.stop().await;
    instance.sh.start().await.unwrap();
    let mut sh = operator(&instance.sh).await;
    let listed = sh.list_holds(ListHoldsRequest {}).await.unwrap().into_inner().holds;
    assert_eq!((listed.len(), &listed[0].hold.as_ref().unwrap().id, &*listed[0].state), (1, &id, "holds"));
    let lift = LiftHoldRequest { id, reason: "beendet".into(), operator: "Muster".into() };
    sh.lift_hold(lift.clone()).await.unwrap();
    assert!(sh.lift_hold(lift).await.is_err(), "it ended");
    assert!(sh.list_holds(ListHoldsRequest {}).await.unwrap().into_inner().holds.is_empty());
    instance.stop().await;
}
