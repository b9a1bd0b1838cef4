//! A log that cannot continue what it gave away is closed, and a new generation takes its place: approved by the registry,
//! it begins by naming what is missing, and every proof from before holds.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_gateway::config::Config;
use trave_gateway::generation::{self, Ask, Begun, GenerationError};
use trave_gateway::security_server::StartError;
use trave_host::client::Fetch;
use trave_host::config::Secret;
use trave_host::keys::NoteKey;
use trave_message_log::{ArchiveIdentity, DirectoryStore, LogError, Source};
use trave_proto::checkpoint::{Checkpoint, Note};
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, ContentStory, NotProved};
use trave_proto::schema::configuration::LogKey;
use trave_proto::schema::log::{EarlierAct, GrantChange, earlier_act::Act, leaf::Entry};
use trave_proto::schema::operator::{
    ErasePersonRequest, EraseRequest, GrantRequest, LiftHoldRequest, ListLogRequest, SetHoldRequest,
};
use trave_tests::network::{
    Identities, Instance, PASSPHRASE, Plan, Question, Server, Witness, asked_about, copy, export, grant,
    judge, operator, picture, soon, status, story, try_export, witnessed,
};

const DAY: Duration = Duration::from_secs(86_400);
const PERSON: &str = "steuer-id:12345678901";
const SUBJECT: &str = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\n";

fn ask(checkpoint: Option<Vec<u8>>) -> Ask {
    Ask { reason: "Platte verloren".into(), operator: "uid 0".into(), checkpoint, ..Ask::default() }
}

async fn begin(instance: &Instance, ask: Ask) -> Result<Begun, GenerationError> {
    let config = Config::read(&instance.mv.configuration_file()).unwrap();
    let clock = Arc::clone(&instance.clock);
    tokio::task::spawn_blocking(move || generation::begin(&config, &ask, clock)).await.unwrap()
}

/// What the registry publishes when two administrators have approved the key that lies there now.
async fn approve(instance: &mut Instance, witnesses: &mut [Witness], origin: &str) {
    let key = NoteKey::open(&instance.mv.layout().log_key(), &Secret::new(PASSPHRASE.into())).unwrap();
    let public_key = Bytes::copy_from_slice(&key.public_key());
    let server = instance.mv.id;
    let next = instance.next_configuration(|next| {
        let entry = next.security_servers.iter_mut().find(|entry| entry.id == server).unwrap();
        entry.logs.push(LogKey { origin: origin.into(), public_key });
        entry.logs.sort_by(|a, b| a.origin.cmp(&b.origin));
    });
    instance.sh.stop().await;
    for server in [&instance.sh, &instance.mv] {
        server.put_configuration(&next);
    }
    instance.configuration = next;
    instance.sh.start().await.unwrap();
    let verifier = key.into_signer(origin).unwrap().verifier();
    for witness in witnesses {
        witness.stop().await;
        witness.learn(&verifier);
        witness.start().await;
    }
}

/// The operator's usual grant.
async fn allow(instance: &Instance) {
    let GrantChange { client, service, method, purposes, legal_bases, operator: who, .. } = grant();
    let request = GrantRequest {
        client,
        service,
        method,
        purposes,
        legal_bases,
        operator: who,
        ..GrantRequest::default()
    };
    operator(&instance.mv).await.grant(request).await.unwrap();
}

/// The last checkpoint of a log as a witness shows it to anybody.
async fn shown(witness: &Witness, origin: &str) -> Vec<u8> {
    let place = hex::encode(Digest::of(origin.as_bytes()).as_bytes());
    let url = format!("{}/{place}/checkpoint", witness.listed().url).parse().unwrap();
    Fetch::new(None).get(&url).await.unwrap().body.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_generation_names_what_is_missing_and_every_proof_from_before_holds() {
    let (mut instance, sh, mv) = witnessed(|_| {}).await;
    let mut witnesses = [sh, mv];
    let old_key = Identities::get().of(instance.mv.id).log.verifier();
    // An old copy of the log, from before anything was asked, takes the place of the one that witnesses saw.
    instance.mv.stop().await;
    let kept = tempfile::tempdir().unwrap();
    let log = instance.mv.layout().log();
    copy(&log, kept.path());
    instance.mv.start().await.unwrap();
    let exchange = instance.ask(b"vorher").await.exchange();
    let proofs = [export(&instance.mv, exchange, false).await, export(&instance.sh, exchange, false).await];
    let seen = status(&instance.mv).await.witnessed_size;
    assert!(matches!(begin(&instance, ask(None)).await, Err(GenerationError::Running)));
    instance.mv.stop().await;
    // What is whole is not closed by mistake.
    let refused = begin(&instance, ask(None)).await;
    assert!(matches!(refused, Err(GenerationError::Whole(_, size)) if size == seen), "{refused:?}");
    assert!(!instance.mv.layout().generation_plan().exists());
    std::fs::remove_dir_all(&log).unwrap();
    copy(kept.path(), &log);
    let lies = picture(&log);
    let refused = instance.mv.start().await.unwrap_err();
    assert!(matches!(refused, StartError::Log(LogError::ContradictsCheckpoint { .. })), "{refused}");

    let begun = begin(&instance, ask(None)).await.unwrap();
    assert_eq!((begun.previous.as_str(), begun.witnessed), (old_key.name(), seen));
    assert!(begun.origin.ends_with("/2") && begun.left < seen, "{begun:?}");
    let missing =
        format!("of the {seen} records that witnesses saw, those from {} on are missing", begun.left);
    assert!(begun.missing.starts_with(&missing), "{}", begun.missing);
    let moved = picture(&begun.aside.join("log"));
    assert!(moved.values().eq(lies.values()), "the old log lies aside as it was");
    assert!(matches!(begin(&instance, ask(None)).await, Err(GenerationError::Waiting)));
    let refused = instance.mv.start().await.unwrap_err();
    assert!(matches!(refused, StartError::LogNotListed(_)), "{refused}");
    assert!(refused.to_string().contains("hint: the key of a new generation"), "{refused}");

    approve(&mut instance, &mut witnesses, &begun.origin).await;
    instance.mv.start().await.unwrap();
    let records = instance.mv.records(0);
    let Some(Entry::Generation(said)) = &records[0].leaf.entry else { panic!("{:?}", records[0]) };
    assert_eq!(records[0].leaf.version, 3);
    assert_eq!((said.previous_origin.as_str(), said.witnessed_size), (old_key.name(), seen));
    assert_eq!((said.reason.as_str(), said.missing.as_str()), ("Platte verloren", begun.missing.as_str()));
    let checkpoint = Checkpoint::verify(&said.witnessed, std::slice::from_ref(&old_key)).unwrap();
    assert_eq!(checkpoint.size, seen);
    let keys: Vec<_> = witnesses.iter().map(|witness| witness.verifier.clone()).collect();
    assert_eq!(Note::parse(&said.witnessed).unwrap().cosignatures(&keys).unwrap().len(), 2);

    let denied = instance.ask(b"ohne Erlaubnis").await.told().unwrap();
    assert_eq!(denied.0, "access_denied", "grants stood in the log: they are given again");
    allow(&instance).await;
    let exchange = instance.ask(b"nachher").await.exchange();
    for server in [&instance.mv, &instance.sh] {
        let report = judge(&instance, &export(server, exchange, false).await);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert!(!report.not_proved.contains(&NotProved::Witness), "{:?}", report.not_proved);
    }
    for proof in &proofs {
        assert_eq!(judge(&instance, proof).conclusion, Conclusion::Holds, "proofs from before hold");
    }
    assert_eq!(status(&instance.mv).await.log_origin, begun.origin);
    // And once more, when all is lost but keys and configuration: what witnesses saw is brought from one of them.
    let witnessed = status(&instance.mv).await.witnessed_size;
    instance.mv.stop().await;
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::remove_file(instance.mv.layout().witnessed()).unwrap();
    let other = shown(&witnesses[0], Identities::get().of(instance.sh.id).log.verifier().name()).await;
    let refused = begin(&instance, ask(Some(other))).await;
    assert!(matches!(refused, Err(GenerationError::Checkpoint(_))), "that is another log's: {refused:?}");
    let shown = shown(&witnesses[0], &begun.origin).await;
    let again = begin(&instance, ask(Some(shown))).await.unwrap();
    assert_eq!((again.previous.as_str(), again.witnessed, again.left), (begun.origin.as_str(), witnessed, 0));
    assert!(again.origin.ends_with("/3"), "{again:?}");
    approve(&mut instance, &mut witnesses, &again.origin).await;
    instance.mv.start().await.unwrap();
    allow(&instance).await;
    let exchange = instance.ask(b"wieder").await.exchange();
    let report = judge(&instance, &export(&instance.mv, exchange, false).await);
    assert_eq!(report.conclusion, Conclusion::Holds);
    assert!(!report.not_proved.contains(&NotProved::Witness));
    instance.stop().await;
}

/// Whether some file below `folder` holds these bytes.
fn found(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found(&path, needle),
            false => {
                std::fs::read(&path).unwrap_or_default().windows(needle.len()).any(|window| window == needle)
            }
        }
    })
}

/// The exchanges that the log tells of, and how they ended.
async fn told(server: &Server, limit: u32) -> Vec<(Bytes, String)> {
    let request = ListLogRequest { reason: "Prüfung".into(), limit, ..ListLogRequest::default() };
    let mut entries = operator(server).await.list_log(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(entry) = entries.message().await.unwrap() {
        told.push((entry.exchange_id, entry.outcome));
    }
    told
}

fn bytes_of(exchange: ExchangeId) -> Bytes {
    Bytes::copy_from_slice(exchange.as_bytes())
}

/// Whether a server's proof holds, and what it says of the contents.
async fn contents(instance: &Instance, exchange: ExchangeId) -> Vec<ContentStory> {
    let file = export(&instance.mv, exchange, false).await;
    let report = judge(instance, &file);
    assert_eq!(report.conclusion, Conclusion::Holds, "{exchange}: {:#?}", report.checks);
    let story = story(instance, &file);
    story.requests.iter().chain(&story.responses).map(|one| one.content.clone()).collect()
}

fn are_kept(contents: &[ContentStory]) -> bool {
    contents.iter().all(|one| matches!(one, ContentStory::Included(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_generation_is_searched_proved_held_erased_and_expires() {
    let plan = Plan { keep_at_provider: "all", at_provider: SUBJECT.into(), ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    instance.mv.reconfigure(|text| text.replace("[log]\n", "[log]\npersons_months = 36\n")).await;
    let question = Question::new().header("trave-subject", PERSON).message(b"wer?");
    let about = instance.caller().await.ask(question).await.exchange();
    instance.advance(Duration::from_secs(1));
    let held = instance.ask(b"bleibt").await.exchange();
    instance.advance(Duration::from_secs(1));
    let plain = instance.ask(b"vergeht").await.exchange();
    let hold = SetHoldRequest {
        exchange_ids: vec![bytes_of(held)],
        reason: "VG Schwerin 3 A 12/27".into(),
        operator: "Muster".into(),
        ..SetHoldRequest::default()
    };
    let hold = operator(&instance.mv).await.set_hold(hold).await.unwrap().into_inner().id;
    // Under a checkpoint with a timestamp: what comes after the last of these is proved by nobody.
    export(&instance.mv, plain, false).await;
    instance.mv.stop().await;
    let begun = begin(&instance, ask(None)).await.unwrap();
    approve(&mut instance, &mut [], &begun.origin).await;
    instance.mv.start().await.unwrap();
    allow(&instance).await;
    let newer = instance.ask(b"nachher").await.exchange();

    for exchange in [about, held, plain, newer] {
        assert!(are_kept(&contents(&instance, exchange).await), "{exchange}");
    }
    let all = told(&instance.mv, 0).await;
    let order: Vec<_> =
        [about, held, plain, newer].iter().map(|id| (bytes_of(*id), "answered".to_owned())).collect();
    assert_eq!(all, order);
    assert_eq!(told(&instance.mv, 2).await, order[2..]);
    assert_eq!(asked_about(&instance.mv, PERSON).await, 1);
    let request =
        EraseRequest { exchange_id: bytes_of(held), operator: "M".into(), reason: "Art. 17".into() };
    let refused = operator(&instance.mv).await.erase(request).await.unwrap_err();
    assert!(refused.message().contains(&hold), "{refused}");

    let request =
        ErasePersonRequest { person: PERSON.into(), operator: "Muster".into(), reason: "Art. 17".into() };
    let erased = operator(&instance.mv).await.erase_person(request).await.unwrap().into_inner();
    assert_eq!((erased.exchanges, erased.pseudonyms), (1, 1));
    assert!(erased.contents >= 2 && erased.telling == [instance.sh.id], "{erased:?}");
    let mut acts = 0;
    for _ in 0..3 {
        let story = contents(&instance, about).await;
        assert!(story.iter().all(|one| *one == ContentStory::NotKept), "{story:?}");
        assert!(are_kept(&contents(&instance, held).await) && are_kept(&contents(&instance, plain).await));
        assert_eq!(asked_about(&instance.mv, PERSON).await, 0);
        assert!(!status(&instance.mv).await.warnings.iter().any(|it| it.contains("generation")));
        acts = instance
            .mv
            .records(0)
            .iter()
            .filter(|it| matches!(it.leaf.entry, Some(Entry::Earlier(_))))
            .count();
        instance.mv.stop().await;
        instance.mv.start().await.unwrap();
    }
    assert_eq!(acts, 2, "of the exchange and of the person: said once");

    // Two years: what is held stays, all else of it goes; and when the hold ends, that.
    let pass = async |instance: &mut Instance, time: Duration| {
        instance.sh.stop().await;
        instance.mv.stop().await;
        instance.advance(time);
        instance.renew();
        instance.sh.start().await.unwrap();
        instance.mv.start().await.unwrap();
    };
    let generations = instance.mv.layout().generations();
    assert!(found(&generations, plain.as_bytes()));
    pass(&mut instance, 740 * DAY).await;
    soon("what is due is gone", async || !found(&generations, plain.as_bytes())).await;
    assert!(are_kept(&contents(&instance, held).await));
    let refused = try_export(&instance.mv, plain, false).await.unwrap_err();
    assert!(refused.contains("have expired"), "{refused}");
    let lift = LiftHoldRequest { id: hold, reason: "beendet".into(), operator: "Muster".into() };
    operator(&instance.mv).await.lift_hold(lift).await.unwrap();
    pass(&mut instance, DAY).await;
    soon("what was held is gone", async || {
        try_export(&instance.mv, held, false).await.is_err_and(|why| why.contains("have expired"))
    })
    .await;
    assert!(!status(&instance.mv).await.warnings.iter().any(|it| it.contains("generation")));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_comes_back_from_its_archive_before_a_new_generation() {
    let (place, identity) = (tempfile::tempdir().unwrap(), ArchiveIdentity::generate());
    let archive = place.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let recipient = identity.recipient().to_string();
    let to =
        format!("[archive]\ndirectory = {archive:?}\nrecipients = [{recipient:?}]\nevery_seconds = 60\n");
    let plan = Plan { keep_at_provider: "all", at_provider: to, ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let first = instance.ask(b"archiviert").await.exchange();
    export(&instance.mv, first, false).await;
    for number in 0..4_u8 {
        instance.advance(Duration::from_secs(1));
        assert_eq!(instance.ask(&[number; 400_000]).await.status(), 0);
    }
    soon("segments are archived", async || {
        instance.advance(Duration::from_secs(60));
        std::fs::read_dir(&archive).unwrap().count() >= 2
    })
    .await;
    let last = instance.ask(b"nur auf der Platte").await.exchange();
    instance.mv.stop().await;

    // The disk is lost. What the archive has takes the log's place, and is closed.
    let log = instance.mv.layout().log();
    std::fs::remove_dir_all(&log).unwrap();
    let (store, key) = (DirectoryStore::new(&archive), Identities::get().of(instance.mv.id).log.verifier());
    let source = Source { store: &store, identity: &identity, key: &key, checkpoint: None };
    let whole = source.restore(&log, &mut |_, _| {}).unwrap();
    assert!(whole.problems.is_empty() && whole.records > 5, "{whole:?}");
    assert!(instance.mv.start().await.is_err(), "it is not continued");
    let begun = begin(&instance, ask(None)).await.unwrap();
    assert_eq!(begun.left, whole.records, "{begun:?}");
    approve(&mut instance, &mut [], &begun.origin).await;
    instance.mv.start().await.unwrap();

    // What was archived is found and proved, without contents, whose keys were in no archive; what was not is not there.
    let listed = told(&instance.mv, 0).await;
    assert!(listed.contains(&(bytes_of(first), "answered".into())), "{listed:?}");
    assert!(!listed.iter().any(|(id, _)| *id == bytes_of(last)));
    let story = contents(&instance, first).await;
    assert!(!story.is_empty() && story.iter().all(|one| *one == ContentStory::NotKept), "{story:?}");
    let refused = try_export(&instance.mv, last, false).await.unwrap_err();
    assert!(refused.contains("knows no exchange"), "{refused}");
    assert!(!status(&instance.mv).await.warnings.iter().any(|it| it.contains("generation")));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_month_keys_of_a_closed_generation_go_when_their_time_is_over() {
    for readable in [true, false] {
        let plan = Plan { at_provider: SUBJECT.into(), ..Plan::default() };
        let mut instance = Instance::planned(plan).await;
        instance.mv.reconfigure(|text| text.replace("[log]\n", "[log]\npersons_months = 1\n")).await;
        let question = Question::new().header("trave-subject", PERSON).message(b"wer?");
        let about = instance.caller().await.ask(question).await.exchange();
        export(&instance.mv, about, false).await;
        instance.mv.stop().await;
        let begun = begin(&instance, ask(None)).await.unwrap();
        approve(&mut instance, &mut [], &begun.origin).await;
        let closed = instance.mv.layout().generations().join("1").join("log");
        if !readable {
            std::fs::rename(closed.join("segments"), closed.join("verlegt")).unwrap();
        }
        instance.mv.start().await.unwrap();
        let key = closed.join("keys/persons-2026-11.bin");
        assert!(key.exists());
        assert_eq!(asked_about(&instance.mv, PERSON).await, usize::from(readable));
        instance.advance(30 * DAY);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(key.exists(), "the month before is kept");
        instance.advance(32 * DAY);
        soon("the key of the month is gone", async || !key.exists()).await;
        assert_eq!(asked_about(&instance.mv, PERSON).await, 0);
        // It was said before it was done, once, of which log.
        let origin = Identities::get().of(instance.mv.id).log.verifier().name().to_owned();
        let acts = instance.mv.records(0).into_iter().filter_map(|record| match record.leaf.entry {
            Some(Entry::Earlier(EarlierAct { origin, act: Some(Act::Persons(change)) })) => {
                Some((origin, change.destroyed_before))
            }
            _ => None,
        });
        assert_eq!(acts.collect::<Vec<_>>(), [(origin, "2026-12".to_owned())], "readable: {readable}");
        instance.stop().await;
    }
}
