//! Keeping a log to what it gave away: a checkpoint that a server shows must continue the last one that it showed before
//! (RFC 6962 section 2.1.2). Two checkpoints of one log that do not continue each other prove, to anybody, that it told two
//! stories: both are signed by its key.

use bytes::Bytes;
use trave_proto::checkpoint::{Checkpoint, MAX_NOTE, Note, NoteVerifier, WitnessVerifier};
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::digest::Digest;
use trave_proto::schema::transport::FollowLogResponse;
use trave_proto::tree::{Head, is_consistent};

/// A tree of 2^64 leaves needs no longer proof than this.
const LONGEST_PROOF: usize = 65;

/// A checkpoint of some log, signed by that log's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// With the log's own signature, and no other.
    pub(crate) note: Bytes,
    pub(crate) head: Head,
}

/// What another server showed of its log, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// None where it shows none any more.
    pub(crate) seen: Option<Seen>,
    /// The lines of listed witnesses under it.
    pub(crate) cosignatures: Bytes,
    /// How it contradicts what was seen before; none if it continues it.
    pub(crate) contradiction: Option<String>,
}

/// Reads a note that the log with this key has signed; none if it has not.
pub(crate) fn seen(note: &[u8], key: &NoteVerifier) -> Option<Seen> {
    let keys = std::slice::from_ref(key);
    let Checkpoint { size, root, .. } = Checkpoint::verify(note, keys).ok()?;
    // Whoever shows a note may write under it what it likes.
    let note = Note::parse(note).ok()?.signed_by(keys).to_bytes().into();
    Some(Seen { note, head: Head { size, root } })
}

/// Reads an answer to the question for the last checkpoint, and holds it against the one seen before; none where the log has
/// no checkpoint yet. That a log which had one shows none is signed by nobody, and no less a contradiction.
///
/// # Errors
/// If the log's key has not signed it: it says nothing about the log then.
pub(crate) fn shown(
    answer: &FollowLogResponse,
    (key, witnesses): (&NoteVerifier, &[WitnessVerifier]),
    before: Option<&Seen>,
    now: Time,
) -> Result<Option<Shown>, &'static str> {
    if answer.note.is_empty() {
        return Ok(before.map(|before| Shown {
            seen: None,
            cosignatures: Bytes::new(),
            contradiction: Some(format!("it had {} records, and now shows no checkpoint", before.head.size)),
        }));
    }
    if answer.note.len().max(answer.cosignatures.len()) > MAX_NOTE || answer.proof.len() > LONGEST_PROOF {
        return Err("it is too long");
    }
    let seen = seen(&answer.note, key).ok_or("the key of the log has not signed it")?;
    let proof: Option<Vec<_>> = answer.proof.iter().map(|hash| Digest::from_slice(hash)).collect();
    let proof = proof.ok_or("a hash has not 32 bytes")?;
    let contradiction = before.and_then(|before| contradiction(&before.head, &seen.head, &proof));
    let cosignatures = lines(&seen.note, &answer.cosignatures, witnesses, now);
    Ok(Some(Shown { seen: Some(seen), cosignatures, contradiction }))
}

/// How a checkpoint contradicts the one seen before; none if it continues it, as `proof` shows.
pub(super) fn contradiction(before: &Head, new: &Head, proof: &[Digest]) -> Option<String> {
    let (was, is) = (before.size, new.size);
    if is < was {
        return Some(format!("it had {was} records, and now shows {is}"));
    }
    if is == was && new.root != before.root {
        return Some(format!("it shows another root at {is} records than before"));
    }
    (!is_consistent(before, new, proof))
        .then(|| format!("it does not show that its {is} records continue the {was} seen before"))
}

/// The lines of witnesses that the configuration lists, as far as they hold.
fn lines(note: &[u8], lines: &[u8], witnesses: &[WitnessVerifier], now: Time) -> Bytes {
    let note = Note::parse(note).and_then(|mut note| note.add_lines(lines).map(|()| note));
    note.map(|note| note.cosignature_lines_until(witnesses, now.plus(TOLERANCE)).into()).unwrap_or_default()
}

#[cfg(test)]
#[path = "following_tests.rs"]
mod tests;
