//! Who finds it out, if somebody with full access to one security server's disk and keys wants another past, and what
//! nobody finds out. The rows here are those of `docs/tampering.md`, word for word.
//!
//! The past is the same for every row: two exchanges that both states' witnesses have seen, and a third that they have not.
//! Then both servers stand still, the register's server is tampered with, everything starts again, and every guard is asked.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rows::{By, Deed, ROWS, UNWITNESSED};
use tempfile::TempDir;
use trave_host::client::Fetch;
use trave_host::config::with_causes;
use trave_message_log::Entry;
use trave_proto::checkpoint::Checkpoint;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::Manifest;
use trave_proto::proof::{Conclusion, NotProved, Outcome, Proof};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::message as schema;
use trave_proto::schema::operator::CheckLogRequest;
use trave_tests::network::{
    Caller, Forger, Identities, Instance, OTHER_PURPOSE, Question, Server, Witness, copy, exchange_of,
    export, judge, operator, status, try_export, witnessed,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The past, and what a stranger kept of it.
struct World {
    instance: Instance,
    witnesses: [Witness; 2],
    /// Everything as it lay there when the servers stood still; and as it was after the first exchange.
    now: TempDir,
    before: TempDir,
    exchanges: [ExchangeId; 3],
    /// The checkpoint of a proof of the second exchange, which both witnesses have cosigned last, and its timestamp.
    kept: Checkpoint,
    token: Bytes,
}

impl World {
    async fn make() -> Self {
        let (mut instance, sh, mv) = witnessed(|_| {}).await;
        let mut witnesses = [sh, mv];
        let one = instance.ask(b"eins").await.exchange();
        export(&instance.mv, one, false).await;
        let before = stop_and_save(&mut instance, &mut witnesses).await;
        start_all(&mut instance, &mut witnesses).await;
        let two = instance.ask(b"zwei").await.exchange();
        // It is witnessed for this, by both.
        let file = export(&instance.mv, two, false).await;
        assert_eq!(status(&instance.mv).await.witnessed_by.len(), 2);
        let proof = Proof::parse(file).unwrap();
        let key = Identities::get().of(instance.mv.id).log.verifier();
        let seal = proof.raw().checkpoint.clone().unwrap();
        let (kept, token) = (Checkpoint::verify(&seal.note, &[key]).unwrap(), seal.timestamp_token);
        let three = instance.ask(b"drei").await.exchange();
        let now = stop_and_save(&mut instance, &mut witnesses).await;
        Self { instance, witnesses, now, before, exchanges: [one, two, three], kept, token }
    }

    /// Does what a row says, starts everything again, and asks every guard.
    async fn play(&mut self, deed: Deed) -> Found {
        restore(&self.instance, &self.witnesses, self.now.path());
        let cut_off = [Deed::Fork, Deed::OldBackupCutOff].contains(&deed);
        if deed == Deed::OldBackupOfAll {
            self.witnesses.iter().for_each(|one| put(&self.before.path().join(name(one)), &one.state()));
        }
        if !cut_off {
            start_witnesses(&mut self.witnesses).await;
        }
        self.commit(deed).await;
        let mut found = Found::default();
        self.instance.sh.start().await.unwrap();
        match self.instance.mv.start().await {
            Err(error) => found.note(By::OwnStart, with_causes(&error)),
            Ok(()) => {
                if deed == Deed::OldTimestamp {
                    self.forge_a_proof(&mut found).await;
                }
                self.ask_guards(cut_off, &mut found).await;
            }
        }
        for server in [&mut self.instance.sh, &mut self.instance.mv] {
            server.stop().await;
        }
        for witness in &mut self.witnesses {
            witness.stop().await;
        }
        found
    }

    async fn commit(&self, deed: Deed) {
        let forger = Forger::of(&self.instance.mv);
        let data = self.instance.mv.data();
        let [one, two, three] = self.exchanges;
        match deed {
            Deed::Scratch => forger.scratch(one.as_bytes()),
            Deed::RewriteAndLeaveTheRest | Deed::Rewrite => {
                let mut records = forger.records();
                let first = records.iter_mut().find(|record| is_of(record, one)).unwrap();
                change_manifest(&mut first.1, |manifest| manifest.purpose = OTHER_PURPOSE.into());
                forger.write(records).await;
            }
            Deed::HideRecord => {
                let mut records = forger.records();
                let last = records.iter().rposition(|record| is_of(record, one)).unwrap();
                assert!(records.remove(last).0.starts_with("sent response"));
                forger.write(records).await;
            }
            Deed::HideExchange => without(&forger, two).await,
            Deed::TruncateAndLeaveTheRest | Deed::Truncate => cut_from(&forger, two).await,
            Deed::TruncateUnseen => cut_from(&forger, three).await,
            Deed::TruncateUnseenOnBothSides => {
                cut_from(&forger, three).await;
                cut_from(&Forger::of(&self.instance.sh), three).await;
            }
            Deed::Fork => without(&forger, two).await,
            Deed::StolenKey => {
                self.steal(&forger).await;
                put(&self.now.path().join(self.instance.mv.id), &data);
            }
            Deed::OldLog => put(&self.before.path().join(self.instance.mv.id).join("log"), &data.join("log")),
            Deed::OldBackup | Deed::OldBackupCutOff | Deed::OldBackupOfAll => {
                put(&self.before.path().join(self.instance.mv.id), &data);
            }
            Deed::BeginAnewAndLeaveTheRest | Deed::BeginAnew => forger.remove_log(),
            Deed::InventExchange => {
                let mut records = forger.records();
                records.extend(self.invented(&records));
                forger.write(records).await;
            }
            Deed::SetClockBack | Deed::SetClockBackALittle => {
                let by = if deed == Deed::SetClockBack { 3_600_000 } else { 1_000 };
                let mut records = forger.records();
                for record in records.iter_mut().filter(|record| is_of(record, three)) {
                    record.1.leaf.logged_ms -= by;
                }
                forger.write(records).await;
            }
            // What is forged is the proof, when the server runs again.
            Deed::OldTimestamp => {}
            Deed::DestroyKeys => forger.destroy_keys(),
            Deed::SayNotKept => {
                let mut records = forger.records();
                records.iter_mut().for_each(|record| record.1.content = None);
                forger.write(records).await;
            }
            Deed::AskPastTheServers => {
                let caller = Caller::connect(self.instance.register.address).await;
                assert_eq!(caller.ask(Question::new().message(b"vorbei")).await.status(), 0);
            }
        }
        let forgets = [
            Deed::Rewrite,
            Deed::HideRecord,
            Deed::HideExchange,
            Deed::Truncate,
            Deed::Fork,
            Deed::BeginAnew,
        ];
        if forgets.contains(&deed) {
            forger.forget_witnesses();
        }
    }

    /// Goes on with the log elsewhere, and has both witnesses cosign that.
    async fn steal(&self, forger: &Forger) {
        let mut records = forger.records();
        records.extend(self.invented(&records));
        forger.write(records).await;
        let request = forger.submission(self.kept.size).await;
        for witness in &self.witnesses {
            let uri = format!("{}/add-checkpoint", witness.listed().url).parse().unwrap();
            let answer = Fetch::new(None).ask(&uri, "text/plain", request.clone()).await.unwrap();
            assert_eq!(answer.0, 200);
        }
    }

    /// The first exchange once more, under another id: who signed it did not sign that.
    fn invented(&self, records: &[(String, Entry)]) -> Vec<(String, Entry)> {
        let id = ExchangeId::new(self.instance.clock.now(), &[7; 10]);
        let mut invented: Vec<_> =
            records.iter().filter(|record| is_of(record, self.exchanges[0])).cloned().collect();
        for record in &mut invented {
            change_manifest(&mut record.1, |manifest| {
                manifest.exchange_id = Bytes::copy_from_slice(id.as_bytes());
            });
        }
        assert_eq!(invented.len(), 2);
        invented
    }

    async fn ask_guards(&mut self, cut_off: bool, found: &mut Found) {
        let mv = &self.instance.mv;
        let checked = operator(mv).await.check_log(CheckLogRequest {}).await.unwrap().into_inner();
        checked.problems.into_iter().for_each(|problem| found.note(By::CheckLog, problem));
        if !cut_off {
            self.ask_witnesses(found).await;
        }
        self.ask_verifier(found).await;
        if cut_off {
            start_witnesses(&mut self.witnesses).await;
            self.ask_witnesses(found).await;
        }
        self.instance.mv.stop().await;
        if Forger::of(&self.instance.mv).root(self.kept.size).await != Some(self.kept.root) {
            found.note(By::KeptProof, String::new());
        }
    }

    /// Lets minutes pass until the witnesses have cosigned what the log holds, or contradict it.
    async fn ask_witnesses(&self, found: &mut Found) {
        let begun = status(&self.instance.mv).await.log_size;
        for _ in 0..200 {
            let now = status(&self.instance.mv).await;
            let alarm = now.warnings.iter().find(|warning| warning.contains("ALARM: a witness"));
            if let Some(alarm) = alarm {
                return found.note(By::Witness, alarm.clone());
            }
            if now.witnessed_size >= begun {
                return;
            }
            self.instance.advance(MINUTE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the witnesses say neither yes nor no in 10 s");
    }

    /// Judges a proof of every exchange that either side knows, and compares the two sides.
    async fn ask_verifier(&self, found: &mut Found) {
        let Instance { sh, mv, .. } = &self.instance;
        let known: BTreeSet<_> =
            [sh, mv].iter().flat_map(|server| server.records(0)).filter_map(|it| exchange_of(&it)).collect();
        for exchange in known {
            let (ours, mut theirs_found) = (self.proof(mv, exchange, found).await, Found::default());
            let theirs = self.proof(sh, exchange, &mut theirs_found).await;
            for said in theirs_found.0.remove(&By::OtherSide).unwrap_or_default() {
                found.note(By::OtherSide, said);
            }
            if ours.is_some() && theirs.is_some() && ours != theirs {
                found.note(By::OtherSide, format!("{ours:?} here, {theirs:?} there"));
            }
        }
    }

    /// Puts the timestamp of the proof that was kept into a proof of the last exchange.
    async fn forge_a_proof(&self, found: &mut Found) {
        let file = export(&self.instance.mv, self.exchanges[2], false).await;
        let mut raw = Proof::parse(file).unwrap().raw().clone();
        let checkpoint = raw.checkpoint.as_mut().unwrap();
        checkpoint.timestamp_token = self.token.clone();
        let forged = [b"trave proof v1\n", &raw.encode_to_vec()[..]].concat();
        let report = judge(&self.instance, &forged.into());
        assert_eq!(report.conclusion, Conclusion::DoesNotHold);
        for check in report.checks {
            if let Outcome::Fails(why) = check.outcome {
                found.note(By::Verifier, why);
            }
        }
    }

    /// What a proof of this exchange tells that both sides must tell alike.
    async fn proof(&self, server: &Server, exchange: ExchangeId, found: &mut Found) -> Option<String> {
        let file = match try_export(server, exchange, false).await {
            Ok(file) => file,
            Err(why) if why.contains("knows no exchange") => {
                found.note(By::OtherSide, why);
                return None;
            }
            Err(why) => {
                found.note(By::Verifier, why);
                return None;
            }
        };
        let report = judge(&self.instance, &file);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        if report.not_proved.contains(&NotProved::Witness) {
            found.note(By::Verifier, UNWITNESSED.1.into());
        }
        let story = report.story.unwrap();
        let messages = story.requests.iter().chain(&story.responses);
        let messages: Vec<_> = messages.map(|message| (message.created, message.length)).collect();
        Some(format!("{messages:?} {:?}", story.completeness))
    }
}

/// Who found something out, and what they said.
#[derive(Debug, Default)]
struct Found(BTreeMap<By, Vec<String>>);

impl Found {
    fn note(&mut self, by: By, said: String) {
        self.0.entry(by).or_default().push(said);
    }
}

fn is_of(record: &(String, Entry), exchange: ExchangeId) -> bool {
    let Some(LeafEntry::Message(message)) = &record.1.leaf.entry else { return false };
    Manifest::parse(message.manifest.clone()).unwrap().exchange == exchange
}

/// Changes what was signed, as it stands in a record. The signature stays what it was.
fn change_manifest(entry: &mut Entry, change: impl FnOnce(&mut schema::Manifest)) {
    let Some(LeafEntry::Message(message)) = &mut entry.leaf.entry else { panic!("{entry:?}") };
    let mut manifest = schema::Manifest::decode(message.manifest.clone()).unwrap();
    change(&mut manifest);
    message.manifest = manifest.encode_to_vec().into();
}

async fn without(forger: &Forger, exchange: ExchangeId) {
    let mut records = forger.records();
    records.retain(|record| !is_of(record, exchange));
    forger.write(records).await;
}

async fn cut_from(forger: &Forger, exchange: ExchangeId) {
    let mut records = forger.records();
    records.truncate(records.iter().position(|record| is_of(record, exchange)).unwrap());
    forger.write(records).await;
}

async fn start_witnesses(witnesses: &mut [Witness; 2]) {
    for witness in witnesses {
        witness.start().await;
    }
}

async fn start_all(instance: &mut Instance, witnesses: &mut [Witness; 2]) {
    start_witnesses(witnesses).await;
    instance.sh.start().await.unwrap();
    instance.mv.start().await.unwrap();
}

async fn stop_and_save(instance: &mut Instance, witnesses: &mut [Witness; 2]) -> TempDir {
    let saved = tempfile::tempdir().unwrap();
    instance.sh.stop().await;
    instance.mv.stop().await;
    for witness in witnesses {
        witness.stop().await;
        copy(&witness.state(), &saved.path().join(name(witness)));
    }
    for server in [&instance.sh, &instance.mv] {
        copy(&server.data(), &saved.path().join(server.id));
    }
    saved
}

fn restore(instance: &Instance, witnesses: &[Witness; 2], saved: &Path) {
    witnesses.iter().for_each(|one| put(&saved.join(name(one)), &one.state()));
    [&instance.sh, &instance.mv].iter().for_each(|server| put(&saved.join(server.id), &server.data()));
}

/// Puts a copy of a directory in the place of another.
fn put(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

fn name(witness: &Witness) -> String {
    witness.verifier.name().replace('/', "-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_found_out_by_whom_the_document_says_and_by_nobody_else() {
    let mut world = World::make().await;
    let only = std::env::var("TRAVE_TAMPER").ok();
    let mut wrong = Vec::new();
    for (deed, what, by) in ROWS {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|only| format!("{deed:?}") == only)) {
            continue;
        }
        let found = world.play(*deed).await;
        let expected: BTreeSet<_> = by.iter().map(|(by, _)| *by).collect();
        let says = by.iter().all(|(by, says)| {
            found.0.get(by).is_some_and(|said| said.iter().any(|said| said.contains(says)))
        });
        if found.0.keys().copied().collect::<BTreeSet<_>>() != expected || !says {
            wrong.push(format!("{deed:?}, {what}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.instance.stop().await;
}
