//! Checkpoints are submitted to the witnesses that the configuration names (<https://c2sp.org/tlog-witness>): whoever
//! cosigns one states that the log continues all that this witness saw of it before.

mod asking;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trave_host::config::with_causes;
use trave_host::files;
use trave_message_log::SignedCheckpoint;
use trave_proto::checkpoint::{Checkpoint, CheckpointError, Note, NoteVerifier, WitnessVerifier};
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::global_configuration::{Configuration, WitnessEntry};
use trave_proto::schema::proof::Checkpoint as Stored;

use super::Upkeep;
use super::conditions::Kind;
use crate::custody::Layout;
pub(crate) use asking::Ways;
use asking::{NoCosignature, ask};

/// A witness that was not reached is left alone for so long where somebody waits for a proof.
const SILENCE: Duration = Duration::from_secs(60);

/// Who is asked for a cosignature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// All who are listed.
    All,
    /// Those who were not silent a moment ago.
    WhoAnswers,
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
    /// Those who did not answer when they were last asked, by their keys: when that was, and what was seen of it.
    silent: Mutex<HashMap<String, (Instant, String)>>,
}

impl Witnessing {
    /// What was seen of a witness that was silent a moment ago.
    fn silence(&self, witness: &WitnessVerifier) -> Option<String> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, what) = silent.get(&witness.to_string())?;
        (since.elapsed() < SILENCE).then(|| what.clone())
    }

    /// Takes note of an answer, or of silence.
    fn note(&self, witness: &WitnessVerifier, answer: &Result<String, NoCosignature>) {
        self.contradictions.lock().unwrap_or_else(PoisonError::into_inner).note(witness, answer);
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Err(error) if error.is_silence() => {
                silent.insert(witness.to_string(), (Instant::now(), with_causes(error)));
            }
            _ => {
                silent.remove(&witness.to_string());
            }
        }
    }
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
pub(crate) fn recall(path: &Path, key: &NoteVerifier) -> Option<Witnessed> {
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

    /// Whether it may help to ask for cosignatures of a checkpoint: a witness has not cosigned it, and was not silent a moment
    /// ago.
    pub(crate) fn may_be_cosigned(&self, sealed: &SignedCheckpoint) -> bool {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let lines = self.lines_under(sealed, &configuration);
        let asked = |witness: &WitnessEntry| {
            !has_cosigned(sealed, &lines, &witness.verifier)
                && self.witnessing.silence(&witness.verifier).is_none()
        };
        configuration.witnesses().iter().any(asked)
    }

    /// Submits a durable checkpoint to each witness that has not cosigned it yet; the lines of all that have.
    pub(super) async fn submit(&self, sealed: &SignedCheckpoint, whom: Whom) -> String {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        if configuration.witnesses().is_empty() {
            self.tell_of(&configuration, &[]).await;
            return String::new();
        }
        let latest = latest(self.exchanges.clock.now());
        let mut lines = self.lines_under(sealed, &configuration);
        let (mut asked, mut failed) = (JoinSet::new(), Vec::new());
        for witness in configuration.witnesses() {
            if has_cosigned(sealed, &lines, &witness.verifier) {
                continue;
            }
            let name = witness.verifier.name().to_owned();
            let silence = self.witnessing.silence(&witness.verifier).filter(|_| whom == Whom::WhoAnswers);
            if let Some(silence) = silence {
                failed.push((name, NoCosignature::Silent(silence)));
                continue;
            }
            let (ways, witness, sealed) = (Arc::clone(&self.ways), witness.clone(), sealed.clone());
            let (log, seen) = (self.exchanges.recorder.log().clone(), self.seen(&name));
            asked.spawn(async move {
                let answer = ask(&ways, &witness, &sealed, &log, (seen, latest)).await;
                (witness.verifier, answer)
            });
        }
        while let Some(joined) = asked.join_next().await {
            // One that panicked says nothing; the others count all the same.
            let Ok((witness, answer)) = joined else { continue };
            self.witnessing.note(&witness, &answer);
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

/// The latest time that a cosignature may bear: beyond it a verifier could not tell whether it holds.
fn latest(now: Time) -> Time {
    now.plus(TOLERANCE)
}

fn cosigned(note: &[u8], lines: &str) -> Result<Note, CheckpointError> {
    let mut note = Note::parse(note)?;
    note.add_lines(lines.as_bytes())?;
    Ok(note)
}

fn has_cosigned(sealed: &SignedCheckpoint, lines: &str, witness: &WitnessVerifier) -> bool {
    let under = cosigned(&sealed.note, lines);
    under.is_ok_and(|note| !note.cosignature_lines(std::slice::from_ref(witness)).is_empty())
}

fn keys(witnesses: &[WitnessEntry]) -> Vec<WitnessVerifier> {
    witnesses.iter().map(|witness| witness.verifier.clone()).collect()
}

#[cfg(test)]
#[path = "witnesses_tests.rs"]
mod tests;
