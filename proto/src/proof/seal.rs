//! The log's own word and the clock of a third party: checkpoint, inclusion of each record, and timestamp.

use super::reading::Reading;
use super::report::{Failure, Found};
use super::story::WitnessStory;
use super::trust::Trust;
use crate::checkpoint::{Checkpoint, Note, NoteVerifier};
use crate::clock::Time;
use crate::conversation::TOLERANCE;
use crate::digest::Digest;
use crate::global_configuration::{LogEntry, WitnessEntry};
use crate::schema::proof::Proof;
use crate::timestamp::Timestamp;
use crate::tree;

/// Verifies the checkpoint under the key that the recorder's configurations list for its log.
pub(super) fn checkpoint(proof: &Proof, reading: &Reading<'_>, trust: &Trust) -> Found<Checkpoint> {
    let refused = |error| Failure::because("the checkpoint", &error);
    let note = &proof.checkpoint.as_ref().ok_or_else(|| Failure::fails("there is no checkpoint"))?.note;
    let claimed = Note::parse(note).and_then(|note| Checkpoint::from_text(note.text())).map_err(refused)?;
    let log = log_of(&claimed.origin, reading, trust)?;
    let key = NoteVerifier::new(&log.origin, log.public_key).map_err(refused)?;
    let checkpoint = Checkpoint::verify(note, &[key]).map_err(refused)?;
    let detail = format!("{}, {}, {}", checkpoint.origin, checkpoint.size, checkpoint.root);
    Ok((checkpoint, detail))
}

/// The log of that origin: one and the same in each configuration that the recorder used, and the recorder's own.
fn log_of<'t>(origin: &str, reading: &Reading<'_>, trust: &'t Trust) -> Result<&'t LogEntry, Failure> {
    let recorder = reading.messages[0].recorder();
    let mut found: Option<&LogEntry> = None;
    for digest in reading.recorders_configurations() {
        let configuration = trust.get(&digest)?;
        let number = configuration.number();
        let entry = configuration.log_key(origin).filter(|entry| entry.server == *recorder);
        let entry = entry.ok_or_else(|| {
            Failure::fails(format!("configuration {number} lists no log {origin:?} of {recorder}"))
        })?;
        if found.is_some_and(|other| other != entry) {
            return Err(Failure::fails(format!("the key of the log {origin:?} changed during the exchange")));
        }
        found = Some(entry);
    }
    found.ok_or_else(|| Failure::fails("no record names a configuration"))
}

/// Each record stands where it says in the tree under the checkpoint.
pub(super) fn inclusion(proof: &Proof, checkpoint: &Checkpoint) -> Found<()> {
    for record in &proof.records {
        let path: Option<Vec<_>> = record.path.iter().map(|hash| Digest::from_slice(hash)).collect();
        let leaf = tree::leaf_hash(&record.leaf);
        let root = path.and_then(|path| tree::root_from_path(&leaf, record.index, checkpoint.size, &path));
        if root != Some(checkpoint.root) {
            return Err(Failure::fails(format!(
                "record {} is not in the log at this checkpoint",
                record.index
            )));
        }
    }
    let places: Vec<_> = proof.records.iter().take(8).map(|record| record.index.to_string()).collect();
    let more = if proof.records.len() > places.len() { ", …" } else { "" };
    Ok(((), format!("{}{more} / {}", places.join(", "), checkpoint.size)))
}

/// Whether the file holds cosignatures.
pub(super) fn is_cosigned(proof: &Proof) -> bool {
    proof.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.cosignatures.is_empty())
}

/// Verifies the cosignatures: each by a witness that a configuration of the recorder lists, each witness once, and nothing
/// beside them.
pub(super) fn cosignatures(
    proof: &Proof,
    reading: &Reading<'_>,
    trust: &Trust,
    now: Option<Time>,
) -> Found<Vec<WitnessStory>> {
    let refused = |error| Failure::because("a cosignature", &error);
    let checkpoint = proof.checkpoint.as_ref().ok_or_else(|| Failure::fails("there is no checkpoint"))?;
    let mut listed: Vec<&WitnessEntry> = Vec::new();
    for configuration in reading.recorders_configurations() {
        let new = trust.get(&configuration)?.witnesses().iter();
        listed.extend(
            new.filter(|new| listed.iter().all(|known| known.verifier != new.verifier)).collect::<Vec<_>>(),
        );
    }
    let keys: Vec<_> = listed.iter().map(|witness| witness.verifier.clone()).collect();
    let mut note = Note::parse(&checkpoint.note).map_err(refused)?.signed_by(&[]);
    note.add_lines(&checkpoint.cosignatures).map_err(refused)?;
    let found = note.cosignatures(&keys).map_err(refused)?;
    if note.cosignature_lines(&keys).as_bytes() != checkpoint.cosignatures {
        return Err(Failure::fails(
            "a line under the checkpoint is of no witness that a configuration lists",
        ));
    }
    let recorder = reading.messages[0].recorder();
    let mut witnesses = Vec::new();
    for (witness, time) in found.iter().map(|one| (one.witness, one.time)) {
        if now.is_some_and(|now| time > now.plus(TOLERANCE)) {
            let name = witness.name();
            return Err(Failure::CannotTell(format!(
                "the cosignature of {name} at {time} lies in the future of this computer's clock"
            )));
        }
        let Some(entry) = listed.iter().find(|entry| entry.verifier == *witness) else { continue };
        let (name, class) = (witness.name().to_owned(), entry.class.clone());
        witnesses.push(WitnessStory { name, class, foreign: entry.is_foreign_to(recorder), at: time });
    }
    let told = witnesses.iter().map(|it| format!("{} ({}), {}", it.name, it.class, it.at));
    let detail = told.collect::<Vec<_>>().join("; ");
    Ok((witnesses, detail))
}

/// A timestamp, and the name of the authority that gave it.
#[derive(Debug)]
pub(super) struct Stamped {
    pub(super) timestamp: Timestamp,
    pub(super) authority: String,
}

impl Stamped {
    /// The latest moment at which the stamped thing may have come into being.
    pub(super) fn not_later_than(&self) -> Time {
        self.timestamp.time().plus(self.timestamp.accuracy().unwrap_or_default())
    }
}

/// Verifies the timestamp over the note, by an authority that a configuration of the recorder lists.
pub(super) fn timestamp(
    proof: &Proof,
    reading: &Reading<'_>,
    trust: &Trust,
    now: Option<Time>,
) -> Found<Stamped> {
    let checkpoint = proof.checkpoint.as_ref().ok_or_else(|| Failure::fails("there is no checkpoint"))?;
    if checkpoint.timestamp_token.is_empty() {
        return Err(Failure::cannot_tell(
            "the checkpoint has no timestamp yet: export the proof again later",
        ));
    }
    let digest = Digest::of(&checkpoint.note);
    let mut refused = None;
    for configuration in reading.recorders_configurations() {
        let authorities = trust.get(&configuration)?.timestamping_authorities();
        let certificates: Vec<_> = authorities.iter().map(|authority| &authority.certificate).collect();
        match Timestamp::verify(&checkpoint.timestamp_token, &digest, None, &certificates) {
            Ok(timestamp) => {
                let by = |der: &&&bytes::Bytes| Digest::of(der) == timestamp.authority();
                let at = certificates.iter().position(|der| by(&der));
                let authority = at.map(|at| authorities[at].name.clone()).unwrap_or_default();
                return check_now(Stamped { timestamp, authority }, now);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(
        || Failure::fails("no configuration lists a timestamping authority"),
        |error| Failure::because("the timestamp", &error),
    ))
}

fn check_now(stamped: Stamped, now: Option<Time>) -> Found<Stamped> {
    let time = stamped.timestamp.time();
    if now.is_some_and(|now| time > now.plus(TOLERANCE)) {
        let why = format!("the timestamp {time} lies in the future of this computer's clock");
        return Err(Failure::CannotTell(why));
    }
    let detail = format!("{time}, {}", stamped.authority);
    Ok((stamped, detail))
}
