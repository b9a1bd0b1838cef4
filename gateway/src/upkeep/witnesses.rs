//! Checkpoints are submitted to the witnesses that the configuration names (<https://c2sp.org/tlog-witness>): whoever
//! cosigns one states that the log continues all that this witness saw of it before.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use tokio::task::JoinSet;
use trave_host::client::{Fetch, FetchError};
use trave_host::config::with_causes;
use trave_host::files;
use trave_message_log::{Log, LogError, SignedCheckpoint};
use trave_proto::checkpoint::{
    AddCheckpoint, Checkpoint, CheckpointError, MAX_NOTE, Note, NoteVerifier, WitnessVerifier,
};
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::global_configuration::{Configuration, WitnessEntry};
use trave_proto::schema::proof::Checkpoint as Stored;

use super::Upkeep;
use super::conditions::Kind;
use crate::custody::Layout;

/// For one question to one witness.
const PATIENCE: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; charset=utf-8";

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
enum NoCosignature {
    #[error("its address is no URL")]
    Address,
    #[error("the message log gives no consistency proof")]
    Log(#[source] LogError),
    #[error("it is not reached")]
    Fetch(#[source] FetchError),
    #[error("its answer cannot be read")]
    Answer(#[source] CheckpointError),
    #[error("its answer is not signed with the key that the configuration names")]
    OtherKey,
    #[error("it answered {status}: {said}")]
    Refused { status: StatusCode, said: String },
    #[error("it saw this log at {last} records, and there are only {size}: the log lost what it gave away")]
    Ahead { last: u64, size: u64 },
    #[error("it says that this log contradicts what it saw before: {0}")]
    Contradiction(String),
    #[error("its cosignature is dated {0}, in the future of this server's clock; compare the clocks")]
    Future(Time),
}

impl NoCosignature {
    /// Whether the log itself may be at fault, which no later attempt mends.
    const fn is_alarm(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Contradiction(_))
    }
}

/// A checkpoint of this log, and the lines of witnesses under it.
#[derive(Debug, Clone)]
pub(crate) struct Witnessed {
    pub(crate) checkpoint: SignedCheckpoint,
    pub(crate) lines: String,
}

impl Witnessed {
    /// Who of `witnesses` has cosigned it, and when. What lies in the future of `now` does not count: no verifier would take
    /// it.
    pub(crate) fn by<'w>(&self, witnesses: &'w [WitnessEntry], now: Time) -> Vec<(&'w WitnessEntry, Time)> {
        let keys = keys(witnesses);
        let mut found = Vec::new();
        let Ok(note) = cosigned(&self.checkpoint.note, &self.lines) else { return found };
        let lines = note.cosignatures(&keys).unwrap_or_default();
        for one in lines.into_iter().filter(|one| one.time <= latest(now)) {
            let entry = witnesses.iter().find(|entry| entry.verifier == *one.witness);
            found.extend(entry.map(|entry| (entry, one.time)));
        }
        found
    }

    fn size(&self) -> u64 {
        self.checkpoint.checkpoint.size
    }
}

/// What is known of the witnesses.
#[derive(Debug, Default)]
pub(super) struct Witnessing {
    last: Mutex<Option<Arc<Witnessed>>>,
    /// How far each saw the log, by its name. A guess: it says so itself where that is wrong.
    seen: Mutex<HashMap<String, u64>>,
    contradictions: Mutex<Contradictions>,
}

/// Witnesses that contradict this log, by their keys, each with its name and in words. Only that witness's own cosignature
/// takes its word back: that it is not reached afterwards does not.
#[derive(Debug, Default)]
struct Contradictions(BTreeMap<String, (String, String)>);

impl Contradictions {
    fn note(&mut self, witness: &WitnessVerifier, answer: &Result<String, NoCosignature>) {
        match answer {
            Ok(_) => {
                self.0.remove(&witness.to_string());
            }
            Err(error) if error.is_alarm() => {
                self.0.insert(witness.to_string(), (witness.name().to_owned(), with_causes(error)));
            }
            Err(_) => {}
        }
    }

    /// Forgets witnesses that are no longer listed, and tells what is left.
    fn told(&mut self, listed: &[WitnessEntry]) -> Option<String> {
        let keys: Vec<_> = listed.iter().map(|witness| witness.verifier.to_string()).collect();
        self.0.retain(|key, _| keys.contains(key));
        let told: Vec<_> = self.0.values().map(|(name, what)| format!("{name}: {what}")).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// The last checkpoint of the log with this key that was witnessed: what the log must continue.
pub(crate) fn last_witnessed(layout: &Layout, key: &NoteVerifier) -> Option<Checkpoint> {
    recall(&layout.witnessed(), key).map(|witnessed| witnessed.checkpoint.checkpoint)
}

/// The same, with its note and the witnesses' lines under it.
pub(crate) fn last_witnessed_note(layout: &Layout, key: &NoteVerifier) -> Option<(Checkpoint, Bytes)> {
    let Witnessed { checkpoint, lines } = recall(&layout.witnessed(), key)?;
    let note = [&checkpoint.note, lines.as_bytes()].concat();
    Some((checkpoint.checkpoint, note.into()))
}

/// The last checkpoint that was witnessed, as it was kept. What cannot be read is not believed; witnesses give it again.
fn recall(path: &Path, key: &NoteVerifier) -> Option<Witnessed> {
    let bytes = std::fs::read(path).ok()?;
    let stored = Stored::decode(bytes.as_slice()).ok()?;
    let checkpoint = Checkpoint::verify(&stored.note, std::slice::from_ref(key)).ok()?;
    let lines = String::from_utf8(stored.cosignatures.to_vec()).ok()?;
    cosigned(&stored.note, &lines).ok()?;
    let timestamp = Some(stored.timestamp_token).filter(|token| !token.is_empty());
    Some(Witnessed { checkpoint: SignedCheckpoint { checkpoint, note: stored.note, timestamp }, lines })
}

impl Upkeep {
    /// The last checkpoint that is witnessed as the policy asks; with any cosignature, where it asks for none.
    pub(crate) fn witnessed(&self) -> Option<Arc<Witnessed>> {
        self.witnessing.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is witnessed as the policy of `configuration` asks.
    pub(crate) fn is_witnessed(&self, witnessed: &Witnessed, configuration: &Configuration) -> bool {
        let by = witnessed.by(configuration.witnesses(), self.exchanges.clock.now());
        let has = |key: &WitnessVerifier| by.iter().any(|(entry, _)| entry.verifier == *key);
        let (policy, server) = (configuration.policy(), &self.exchanges.own.server);
        !by.is_empty() && policy.witnessing.missing(configuration.witnesses(), server, has).is_none()
    }

    pub(super) fn remember_last_witnessed(&self) {
        let recalled = recall(&self.layout.witnessed(), self.exchanges.recorder.log().verifier());
        *self.witnessing.last.lock().unwrap_or_else(PoisonError::into_inner) = recalled.map(Arc::new);
    }

    /// Submits a durable checkpoint to each witness that has not cosigned it yet; the lines of all that have.
    pub(super) async fn submit(&self, sealed: &SignedCheckpoint) -> String {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        if configuration.witnesses().is_empty() {
            self.tell_of(&configuration, &[]).await;
            return String::new();
        }
        let latest = latest(self.exchanges.clock.now());
        let mut lines = self.lines_under(sealed, &configuration);
        let mut asked = JoinSet::new();
        for witness in configuration.witnesses() {
            let has = cosigned(&sealed.note, &lines).is_ok_and(|note| {
                !note.cosignature_lines(std::slice::from_ref(&witness.verifier)).is_empty()
            });
            if !has {
                let (witness, sealed) = (witness.clone(), sealed.clone());
                let (log, seen) = (self.exchanges.recorder.log().clone(), self.seen(witness.verifier.name()));
                asked.spawn(async move {
                    let answer = ask(&witness, &sealed, &log, (seen, latest)).await;
                    (witness.verifier, answer)
                });
            }
        }
        let mut failed = Vec::new();
        while let Some(joined) = asked.join_next().await {
            // One that panicked says nothing; the others count all the same.
            let Ok((witness, answer)) = joined else { continue };
            self.witnessing
                .contradictions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .note(&witness, &answer);
            let name = witness.name().to_owned();
            match answer {
                Ok(line) => {
                    lines.push_str(&line);
                    let mut seen = self.witnessing.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.insert(name, sealed.checkpoint.size);
                }
                Err(error) => failed.push((name, error)),
            }
        }
        self.tell_of(&configuration, &failed).await;
        lines
    }

    /// What is kept under this very checkpoint already.
    fn lines_under(&self, sealed: &SignedCheckpoint, configuration: &Configuration) -> String {
        let kept = self.witnessed().filter(|kept| kept.checkpoint.note == sealed.note);
        let note = kept.and_then(|kept| cosigned(&sealed.note, &kept.lines).ok());
        let latest = latest(self.exchanges.clock.now());
        note.map(|note| note.cosignature_lines_until(&keys(configuration.witnesses()), latest))
            .unwrap_or_default()
    }

    fn seen(&self, name: &str) -> u64 {
        self.witnessing.seen.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or(0)
    }

    async fn tell_of(&self, configuration: &Configuration, failed: &[(String, NoCosignature)]) {
        let contradicted = {
            let contradictions = &self.witnessing.contradictions;
            contradictions.lock().unwrap_or_else(PoisonError::into_inner).told(configuration.witnesses())
        };
        let alarm = contradicted.map(|what| {
            format!("ALARM: a witness contradicts this message log; keep its disk as it is, and tell both states: {what}")
        });
        self.conditions.set(Kind::LogContradicted, alarm).await;
        let others = failed.iter().filter(|(_, error)| !error.is_alarm());
        let others: Vec<_> = others.map(|(name, error)| format!("{name}: {}", with_causes(error))).collect();
        let unavailable =
            (!others.is_empty()).then(|| format!("checkpoints are not cosigned by {}", others.join("; ")));
        self.conditions.set(Kind::WitnessUnavailable, unavailable).await;
    }

    /// Keeps a checkpoint with the lines under it, beside the log, unless the one kept serves better: what is witnessed as
    /// the policy asks gives way only to what is too.
    pub(super) async fn keep_witnessed(&self, checkpoint: SignedCheckpoint, lines: String) {
        if lines.is_empty() {
            return;
        }
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let new = Witnessed { checkpoint, lines };
        let serves = |one: &Witnessed| self.is_witnessed(one, &configuration);
        let before = self.witnessed();
        if before.as_ref().is_some_and(|old| serves(old) && !serves(&new) || old.size() > new.size()) {
            return;
        }
        let stored = Stored {
            note: new.checkpoint.note.clone(),
            timestamp_token: new.checkpoint.timestamp.clone().unwrap_or_default(),
            cosignatures: Bytes::from(new.lines.clone()),
        };
        let path = self.layout.witnessed();
        let kept = tokio::task::spawn_blocking(move || files::replace(&path, &stored.encode_to_vec())).await;
        // What is not kept is asked for again after the next start.
        if let Ok(Err(error)) = kept {
            tracing::warn!(error = with_causes(&error), "cosignatures cannot be kept");
        }
        *self.witnessing.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(new));
    }
}

/// The line of one witness. Where it saw the log elsewhere than was thought, it is asked once more from there.
async fn ask(
    witness: &WitnessEntry,
    sealed: &SignedCheckpoint,
    log: &Log,
    (seen, latest): (u64, Time),
) -> Result<String, NoCosignature> {
    let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
    let uri = url.parse().map_err(|_| NoCosignature::Address)?;
    let fetch = Fetch::new(None).with_limit(MAX_NOTE).with_time(PATIENCE);
    let size = sealed.checkpoint.size;
    let mut old = seen.min(size);
    for _ in 0..2 {
        let request = request(sealed, log, old).await?;
        let (status, answer) =
            fetch.ask(&uri, TEXT, request.to_bytes().into()).await.map_err(NoCosignature::Fetch)?;
        match answered(status, &answer.body, (old, size))? {
            Answer::Lines => return line(&request.checkpoint, &answer.body, &witness.verifier, latest),
            Answer::Elsewhere(last) => old = last,
        }
    }
    Err(NoCosignature::Refused { status: StatusCode::CONFLICT, said: "twice".into() })
}

/// What goes on after a witness's answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It has cosigned.
    Lines,
    /// It last saw the log at this size.
    Elsewhere(u64),
}

/// Reads the answer to a request from the `old` size to this one.
fn answered(status: StatusCode, body: &[u8], (old, size): (u64, u64)) -> Result<Answer, NoCosignature> {
    let said = || {
        let said = String::from_utf8_lossy(body);
        said.trim().chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    match (status, AddCheckpoint::parse_conflict(body)) {
        (StatusCode::OK, _) => Ok(Answer::Lines),
        (StatusCode::CONFLICT, Some(last)) if last > size => Err(NoCosignature::Ahead { last, size }),
        // The specification's answer to another root for the size that it cosigned.
        (StatusCode::CONFLICT, Some(last)) if last == old && old == size => {
            Err(NoCosignature::Contradiction(format!("another root at {size} records")))
        }
        (StatusCode::CONFLICT, Some(last)) if last != old => Ok(Answer::Elsewhere(last)),
        (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(NoCosignature::Contradiction(said())),
        _ => Err(NoCosignature::Refused { status, said: said() }),
    }
}

async fn request(sealed: &SignedCheckpoint, log: &Log, old: u64) -> Result<AddCheckpoint, NoCosignature> {
    let (log, size) = (log.clone(), sealed.checkpoint.size);
    let proof = tokio::task::spawn_blocking(move || log.consistency(old, size)).await;
    let proof = proof.unwrap_or(Err(LogError::Closed)).map_err(NoCosignature::Log)?;
    let checkpoint = Note::parse(&sealed.note).map_err(NoCosignature::Answer)?;
    Ok(AddCheckpoint { old, proof, checkpoint })
}

/// The witness's own line of an answer; lines of others are ignored, as the specification asks.
fn line(
    checkpoint: &Note,
    answer: &[u8],
    key: &WitnessVerifier,
    latest: Time,
) -> Result<String, NoCosignature> {
    let mut note = checkpoint.clone();
    note.add_lines(answer).map_err(NoCosignature::Answer)?;
    let keys = std::slice::from_ref(key);
    let line = note.cosignature_lines_until(keys, latest);
    if !line.is_empty() {
        return Ok(line);
    }
    let found = note.cosignatures(keys).ok().and_then(|found| found.first().map(|one| one.time));
    Err(found.map_or(NoCosignature::OtherKey, NoCosignature::Future))
}

/// The latest time that a cosignature may bear: beyond it a verifier could not tell whether it holds.
fn latest(now: Time) -> Time {
    now.plus(TOLERANCE)
}

fn cosigned(note: &[u8], lines: &str) -> Result<Note, CheckpointError> {
    let mut note = Note::parse(note)?;
    note.add_lines(lines.as_bytes())?;
    Ok(note)
}

fn keys(witnesses: &[WitnessEntry]) -> Vec<WitnessVerifier> {
    witnesses.iter().map(|witness| witness.verifier.clone()).collect()
}

#[cfg(test)]
#[path = "witnesses_tests.rs"]
mod tests;
