//! Whether a log can go on: its leaves must give the root of every checkpoint that it gave away.

use std::path::Path;
use std::sync::Arc;

use trave_proto::checkpoint::{Checkpoint, NoteVerifier};

use crate::disk::{Disk, read_small};
use crate::error::LogError;
use crate::finding;
use crate::reading;
use crate::record::Kind;
use crate::shared::{Shared, SignedCheckpoint};
use crate::tree::Edge;

/// The file that holds the last checkpoint once more: what the log gave away, it must be able to continue.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// Where the token begins in its record, behind the size.
const TOKEN_AT: usize = 8;

/// Holds the leaves against the last checkpoint in the log and the one beside it. If they differ, the kept tree may be at
/// fault: it is made again from the leaves before the log is refused. Returns whether that was needed.
pub(crate) fn check(shared: &Arc<Shared>, key: &NoteVerifier) -> Result<bool, LogError> {
    let in_log = last_checkpoint(shared, key)?;
    let beside = beside(&*shared.disk, &shared.dir, key)?;
    let size = |signed: &Option<SignedCheckpoint>| signed.as_ref().map(|signed| signed.checkpoint.size);
    let (latest, other) = if size(&beside) > size(&in_log) { (beside, in_log) } else { (in_log, beside) };
    let rebuilt = !agrees(shared, latest.as_ref())?;
    if rebuilt {
        shared.rebuild_tree()?;
    }
    for signed in [&latest, &other].into_iter().flatten() {
        must_extend(shared, &signed.checkpoint)?;
    }
    shared.catalogue_mut().checkpoint = latest;
    Ok(rebuilt)
}

/// Holds the leaves of a log that came out of an archive against the last checkpoint in its segments. The one beside it may
/// say more: the end of the log was not archived.
pub(crate) fn check_restored(shared: &Arc<Shared>, key: &NoteVerifier) -> Result<(), LogError> {
    let last = last_checkpoint(shared, key)?;
    if let Some(signed) = &last {
        must_extend(shared, &signed.checkpoint)?;
    }
    shared.catalogue_mut().checkpoint = last;
    Ok(())
}

/// Whether the tree's right edge is that of the leaves: the edge at the last checkpoint, proved by its root, and from there
/// every leaf as the indexes have it. What is signed next rests on this.
fn agrees(shared: &Arc<Shared>, latest: Option<&SignedCheckpoint>) -> Result<bool, LogError> {
    let size = shared.tree().size();
    let mut edge = Edge::default();
    if let Some(Checkpoint { size: proved, root, .. }) = latest.map(|signed| &signed.checkpoint) {
        let at = if *proved <= size { shared.tree().edge_at(*proved).ok() } else { None };
        let Some(at) = at.filter(|at| at.root() == *root) else { return Ok(false) };
        edge = at;
    }
    for entry in finding::Entries::new(shared.clone(), edge.size()..size) {
        edge.push(entry?.1.hash);
    }
    Ok(edge.root() == shared.tree().head())
}

/// The last checkpoint that the segments hold, with its timestamp token.
fn last_checkpoint(shared: &Shared, key: &NoteVerifier) -> Result<Option<SignedCheckpoint>, LogError> {
    let mut tokens = Vec::new();
    for (path, note) in finding::notes(shared)? {
        let kind = if note.checkpoint { Kind::Checkpoint } else { Kind::Timestamp };
        let file = shared.disk.open(&path).map_err(LogError::disk("open", &path))?;
        let payload = reading::read_record(&*file, &path, note.offset, kind)?;
        if !note.checkpoint {
            tokens.push((note.size, bytes::Bytes::from(payload).slice(TOKEN_AT..)));
            continue;
        }
        let mut signed = verified(&path, note.offset, payload, key)?;
        signed.timestamp = tokens.into_iter().find(|(size, _)| *size == note.size).map(|(_, token)| token);
        return Ok(Some(signed));
    }
    Ok(None)
}

/// The last checkpoint that has a timestamp token, with it.
pub(crate) fn last_stamped(
    shared: &Shared,
    key: &NoteVerifier,
) -> Result<Option<SignedCheckpoint>, LogError> {
    let Some([(path, note), token]) = finding::last_stamped(shared)? else { return Ok(None) };
    let read = |path: &Path, offset, kind| {
        let file = shared.disk.open(path).map_err(LogError::disk("open", path))?;
        reading::read_record(&*file, path, offset, kind)
    };
    let mut signed = verified(&path, note.offset, read(&path, note.offset, Kind::Checkpoint)?, key)?;
    let token = bytes::Bytes::from(read(&token.0, token.1.offset, Kind::Timestamp)?);
    signed.timestamp = Some(token.slice(TOKEN_AT..));
    Ok(Some(signed))
}

/// The last checkpoint that was given away, as it stands beside the log in `dir`.
fn beside(disk: &dyn Disk, dir: &Path, key: &NoteVerifier) -> Result<Option<SignedCheckpoint>, LogError> {
    let path = dir.join(CHECKPOINT_FILE);
    let limit = trave_proto::checkpoint::MAX_NOTE as u64;
    let note = read_small(disk, &path, limit).map_err(LogError::disk("read", &path))?;
    note.map(|note| verified(&path, 0, note, key)).transpose()
}

/// A checkpoint that a log must continue, because others may hold it.
pub(crate) struct Given {
    pub(crate) checkpoint: Checkpoint,
    /// Who saw it, in words.
    seen: &'static str,
}

/// What was given away of the log in `dir`, as far as it is known without reading the log: the checkpoint beside it, and
/// `witnessed`. Asked before anything is changed.
pub(crate) fn given(
    (disk, dir): (&dyn Disk, &Path),
    key: &NoteVerifier,
    witnessed: Option<&Checkpoint>,
) -> Result<Vec<Given>, LogError> {
    let beside = beside(disk, dir, key)?.map(|signed| signed.checkpoint);
    let beside = beside.map(|checkpoint| Given { checkpoint, seen: "the log gave it away" });
    Ok(beside.into_iter().chain(witnessed.map(Given::seen)).collect())
}

impl Given {
    /// One that others saw.
    pub(crate) fn seen(checkpoint: &Checkpoint) -> Self {
        Self { checkpoint: checkpoint.clone(), seen: "it was seen by witnesses" }
    }

    /// Refuses a log of only `leaves` leaves.
    pub(crate) fn must_reach(&self, leaves: u64) -> Result<(), LogError> {
        if self.checkpoint.size <= leaves {
            return Ok(());
        }
        Err(self.contradicted(&format!("the log has only {leaves} whole records")))
    }

    /// That the log's leaves give another root.
    pub(crate) fn differs(&self) -> LogError {
        self.contradicted("its records give another root")
    }

    fn contradicted(&self, what: &str) -> LogError {
        let what = format!("{}, and {what}", self.seen);
        LogError::ContradictsCheckpoint { size: self.checkpoint.size, what }
    }
}

fn too_short(size: u64, leaves: u64) -> LogError {
    LogError::ContradictsCheckpoint { size, what: format!("the log has only {leaves} whole leaves") }
}

fn verified(
    path: &Path,
    offset: u64,
    note: Vec<u8>,
    key: &NoteVerifier,
) -> Result<SignedCheckpoint, LogError> {
    let checkpoint = Checkpoint::verify(&note, std::slice::from_ref(key))
        .map_err(|error| LogError::damaged(path, offset, format!("the checkpoint: {error}")))?;
    Ok(SignedCheckpoint { checkpoint, note: note.into(), timestamp: None })
}

/// Whether the tree still has the root that `checkpoint` says.
pub(crate) fn must_extend(shared: &Shared, checkpoint: &Checkpoint) -> Result<(), LogError> {
    let Checkpoint { size, root, .. } = checkpoint;
    let leaves = shared.tree().size();
    if *size > leaves {
        return Err(too_short(*size, leaves));
    }
    if shared.root(*size)? != *root {
        let what = "its leaves give another root".to_owned();
        return Err(LogError::ContradictsCheckpoint { size: *size, what });
    }
    Ok(())
}
