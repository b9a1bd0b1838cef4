//! Two years pass: what had to go is gone from every file of both servers, what is held is there with its reason, and every
//! newer proof holds.
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use trave_gateway::config::Config;
use trave_host::client::Channel;
use trave_host::stubs::citizen::citizen_service_client::CitizenServiceClient;
use trave_message_log::{ArchiveIdentity, DirectoryStore, Source};
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, ContentStory};
use trave_proto::schema::citizen::WhoAskedRequest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::{
    CheckLogRequest, DiskReportRequest, LiftHoldRequest, ListHoldsRequest, ListLogRequest, SetHoldRequest,
    StatusRequest,
};
use trave_tests::network::{
    CLIENT, Identities, Instance, Plan, Question, Server, export, judge, operator, story, try_export,
};

const DAY: Duration = Duration::from_secs(86_400);
const PERSON: &str = "steuer-id:12345678901";
const SUBJECT: &str = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\n";
const REASON: &str = "VG Schwerin 3 A 12/27";

/// Waits until `holds`, for a minute at most.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not in a minute: {what}");
}

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
        answer.status() == 0
    })
    .await;
    exchange.unwrap()
}

/// How many exchanges about this person a server tells.
async fn asked_about(server: &Server, person: &str) -> usize {
    let socket = Config::read(&server.configuration_file()).unwrap().operator_socket();
    let request = WhoAskedRequest { person: person.into(), reason: "Antrag 7".into(), after: None };
    let mut client = CitizenServiceClient::new(Channel::unix(&socket).await.unwrap());
    let mut entries = client.who_asked(request).await.unwrap().into_inner();
    let mut count = 0;
    while entries.message().await.unwrap().is_some() {
        count += 1;
    }
    count
}

/// The exchanges that the log tells of.
async fn told(server: &Server) -> Vec<Bytes> {
    let request = ListLogRequest { reason: "Prüfung".into(), ..ListLogRequest::default() };
    let mut entries = operator(server).await.list_log(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(entry) = entries.message().await.unwrap() {
        told.push(entry.exchange_id);
    }
    told
}

async fn whole(server: &Server) {
    let report = operator(server).await.check_log(CheckLogRequest {}).await.unwrap().into_inner();
    assert_eq!(report.problems, Vec::<String>::new(), "{}", server.id);
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
        client: client.into(),
        reason: REASON.into(),
        operator: "Muster".into(),
        ..SetHoldRequest::default()
    };
    for wrong in [
        request(""),
        request("niemand"),
        SetHoldRequest { reason: String::new(), ..request(CLIENT) },
        SetHoldRequest { from_ms: Some(2), to_ms: Some(1), ..request("") },
        SetHoldRequest { exchange_ids: vec![Bytes::from_static(&[7; 16])], ..request("") },
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
