//! Whether a checkpoint may be cosigned: only one that continues, provably, all that was cosigned of its log before.

use trave_proto::checkpoint::{AddCheckpoint, Checkpoint, CheckpointError, NoteVerifier, RequestError};
use trave_proto::tree::{Head, is_consistent, root};

/// Why a checkpoint is not cosigned, as <https://c2sp.org/tlog-witness> tells the cases apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error("the request cannot be read")]
    Malformed(#[source] RequestError),
    /// What it holds is no checkpoint.
    #[error("what is submitted is no checkpoint")]
    NotACheckpoint(#[source] CheckpointError),
    /// It claims to have been larger than it is.
    #[error("the old size {old} is beyond the checkpoint's {size}")]
    Backwards {
        /// The old size in the request.
        old: u64,
        /// The checkpoint's.
        size: u64,
    },
    /// A log that is not known here.
    #[error("no log with the origin {0:?} is known here")]
    Unknown(String),
    /// The log has not signed it.
    #[error("the checkpoint is not signed by its log's key")]
    NotSigned(#[source] CheckpointError),
    /// The request begins elsewhere than where this witness last saw the log.
    #[error("this witness last cosigned the log at {last} records")]
    Conflict {
        /// How many records the log had then; 0 for never cosigned.
        last: u64,
    },
    /// The log has signed two roots for one size.
    #[error(
        "the log of {origin} was cosigned at {size} records, and now has another root: one of them was changed"
    )]
    TwoStories {
        /// The log.
        origin: String,
        /// The size of both.
        size: u64,
    },
    /// The proof proves nothing: a wrong one, which anybody can send, or a log that tells another story than before.
    #[error("the checkpoint of {origin} is not shown to continue what was cosigned at {last} records: {why}")]
    NotProved {
        /// The log.
        origin: String,
        /// What it had when it was last cosigned.
        last: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// What was cosigned last, with a wrong proof: nothing that speaks against the log.
    #[error(
        "a checkpoint that was cosigned before needs no proof to be cosigned again, and this one is wrong"
    )]
    Needless,
}

/// The log of which a request speaks, as it says itself.
pub(super) fn claimed(request: &AddCheckpoint) -> Result<Checkpoint, Refusal> {
    Checkpoint::from_text(request.checkpoint.text()).map_err(Refusal::NotACheckpoint)
}

/// Decides on a request for the log of that `key`, which was last cosigned at `last`.
pub(super) fn judge(
    request: &AddCheckpoint,
    key: &NoteVerifier,
    last: Option<Head>,
) -> Result<Checkpoint, Refusal> {
    let note = request.checkpoint.to_bytes();
    let checkpoint = Checkpoint::verify(&note, std::slice::from_ref(key)).map_err(Refusal::NotSigned)?;
    let (old, size) = (request.old, checkpoint.size);
    if old > size {
        return Err(Refusal::Backwards { old, size });
    }
    let last = last.unwrap_or_else(|| Head { size: 0, root: root(&[]) });
    if old != last.size {
        return Err(Refusal::Conflict { last: last.size });
    }
    let refused = |why| {
        let origin = checkpoint.origin.clone();
        Err(Refusal::NotProved { origin, last: last.size, why })
    };
    let new = Head { size, root: checkpoint.root };
    if new.size == 0 && new.root != root(&[]) {
        return refused("the empty log has another root than that of nothing");
    }
    if new.size == last.size && new.root != last.root {
        return Err(Refusal::TwoStories { origin: checkpoint.origin.clone(), size });
    }
    if new == last && !request.proof.is_empty() {
        return Err(Refusal::Needless);
    }
    if !is_consistent(&last, &new, &request.proof) {
        return refused("the consistency proof does not lead from what was cosigned to this checkpoint");
    }
    Ok(checkpoint)
}
