//! What a log does with its archive.

use std::sync::Arc;

use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{ArchiveRemoved, RangePruned, SegmentArchived, archive_act};

use super::Log;
use crate::archive::{Archive, ArchiveState, parse_name, writing};
use crate::entry::{Entry, kind};
use crate::error::LogError;
use crate::pruning;
use crate::shared::Closed;

impl Log {
    /// What the log says of its archive. Reads the indexes, and the records about archives.
    pub fn archive_state(&self) -> Result<ArchiveState, LogError> {
        let mut state = ArchiveState::default();
        for record in self.scan_kind(kind::ARCHIVE, 0) {
            state.take(&record?.leaf);
        }
        Ok(state)
    }

    /// The first leaves of the segments that can be archived and are not, earliest first: those that are closed and under a
    /// checkpoint.
    pub fn due_for_archive(&self, state: &ArchiveState) -> Vec<u64> {
        writing::due(&self.0.shared, state)
    }

    /// Copies the closed segment that begins with leaf `first` into the archive, reads it back, and logs that. If it was
    /// archived before, the new copy takes the place of the old one, which is removed: so what was overwritten here since
    /// (expired records, erased contents) leaves the archive too. `state` is brought up to date.
    ///
    /// Needs a tokio runtime; the work is done on a thread for what blocks, and no exchange waits for it.
    pub async fn archive_segment(
        &self,
        archive: &Arc<Archive>,
        first: u64,
        state: &mut ArchiveState,
    ) -> Result<SegmentArchived, LogError> {
        let (inner, to, known) = (self.0.clone(), archive.clone(), state.clone());
        let written = tokio::task::spawn_blocking(move || {
            writing::write(&inner.shared, inner.verifier.name(), &to, (first, &known))
        });
        let segment = written.await.unwrap_or(Err(LogError::Closed))?;
        let leaf = writing::archived(segment.clone(), self.0.clock.now().as_millis());
        self.append(Entry::new(leaf.clone()), ())?.await?;
        state.take(&leaf);
        if !segment.replaces.is_empty() {
            let (archive, old) = (archive.clone(), segment.replaces.clone());
            let removed = tokio::task::spawn_blocking(move || archive.store.remove(&old)).await;
            removed.unwrap_or(Err(LogError::Closed))?;
        }
        Ok(segment)
    }

    /// Removes the object of the segment that begins with leaf `first` from the archive, where all that it holds has expired:
    /// logs the act, then removes. Returns whether there was one. `state` is brought up to date.
    pub async fn remove_from_archive(
        &self,
        archive: &Arc<Archive>,
        (first, reason): (u64, &str),
        state: &mut ArchiveState,
    ) -> Result<bool, LogError> {
        let Some(segment) = state.archived(first) else { return Ok(false) };
        let name = segment.name.clone();
        let removed = ArchiveRemoved { first, name: name.clone(), reason: reason.to_owned() };
        let leaf = writing::removed(removed, self.0.clock.now().as_millis());
        self.append(Entry::new(leaf.clone()), ())?.await?;
        let archive = archive.clone();
        let removed = tokio::task::spawn_blocking(move || archive.store.remove(&name)).await;
        removed.unwrap_or(Err(LogError::Closed))?;
        state.take(&leaf);
        Ok(true)
    }

    /// Removes from the archive what an interrupted run left there: copies in whose place a newer one stands, and objects
    /// that were to be removed. Returns their names.
    pub fn tidy_archive(&self, archive: &Archive, state: &ArchiveState) -> Result<Vec<String>, LogError> {
        let origin = self.0.verifier.name();
        let mut left = Vec::new();
        for name in archive.store.list()? {
            let Some((first, serial)) = parse_name(origin, &name) else { continue };
            // Only what is older than what the log names: a newer one may just be written, or be of a log that went further
            // than this disk.
            let current = state.archived(first).and_then(|current| parse_name(origin, &current.name));
            if current.is_some_and(|(_, current)| serial < current) || state.is_removed(&name) {
                archive.store.remove(&name)?;
                left.push(name);
            }
        }
        Ok(left)
    }
}

/// What is to be pruned: whole segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prunable {
    /// The first leaf.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Segments.
    pub segments: u64,
    /// Root of the tree over all leaves up to the end of the range.
    pub root: Digest,
}

/// What of a range of records stands on this server's disk: whole segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RangeHere {
    /// Segments.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// When the first and the last record was logged, milliseconds since 1970; none where no segment is here.
    pub times: Option<(i64, i64)>,
}

impl Log {
    /// What of the closed segments that begin in `first..first + count` is here. Asks the disk for the size of each.
    pub fn range_here(&self, first: u64, count: u64) -> Result<RangeHere, LogError> {
        let closed = self.0.shared.catalogue().closed.clone();
        let inside = |it: &&Arc<Closed>| it.first >= first && it.first - first < count && !it.is_pruned();
        let mut here = RangeHere::default();
        for segment in closed.iter().filter(inside) {
            let path = &segment.path;
            let file = self.0.shared.disk.open(path).map_err(LogError::disk("open", path))?;
            here.segments += 1;
            here.bytes += file.len().map_err(LogError::disk("read", path))?;
            here.times = match (here.times, segment.times) {
                (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
                (one, other) => one.or(other),
            };
        }
        Ok(here)
    }

    /// What may be pruned of the records before this time: of the segments that are here, archived, and before those that hold
    /// the last checkpoint and the last timestamp, the first that `may` go, and those behind it up to the next that may not.
    /// `may` is asked about the first leaf of a segment. None if there is nothing.
    pub fn prunable(
        &self,
        state: &ArchiveState,
        before: Time,
        may: &mut dyn FnMut(u64) -> Result<bool, LogError>,
    ) -> Result<Option<Prunable>, LogError> {
        let mut segments = Vec::new();
        for segment in pruning::prunable(&self.0.shared, state, before.as_millis())? {
            match may(segment.first)? {
                true => segments.push(segment),
                false if segments.is_empty() => {}
                false => break,
            }
        }
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(None) };
        let (first, count) = (first.first, last.first + last.count - first.first);
        let root = pruning::root_after(&self.0.shared, first, count)?;
        Ok(Some(Prunable { first, count, segments: segments.len() as u64, root }))
    }

    /// Removes a range from this server's disk: reads its objects back from the archive, logs `statement`, has a checkpoint
    /// signed over it, and then removes the segments. Hashes and indexes stay, what the server's state rests on, and what
    /// an erasure needs. `state` is brought up to date. Returns how many segments were removed.
    ///
    /// # Errors
    /// If the range is not what may be pruned, or an object is not what the log says; then nothing was removed.
    pub async fn prune(
        &self,
        archive: &Arc<Archive>,
        statement: RangePruned,
        state: &mut ArchiveState,
    ) -> Result<u64, LogError> {
        let refused = LogError::Refused("this range is not one that may be pruned");
        let all = pruning::prunable(&self.0.shared, state, i64::MAX)?;
        let segments =
            pruning::range(&self.0.shared, statement.first, statement.count).ok_or(refused.clone())?;
        let allowed = |segment: &Arc<Closed>| all.iter().any(|it| it.first == segment.first);
        if statement.applied || segments.is_empty() || !segments.iter().all(allowed) {
            return Err(refused);
        }
        let blocking = |work: Box<dyn FnOnce() -> Result<(), LogError> + Send>| async {
            tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Closed))
        };
        let (inner, to, known, these) = (self.0.clone(), archive.clone(), state.clone(), segments.clone());
        blocking(Box::new(move || pruning::prepare(&inner.shared, &to, &known, &these))).await?;
        let leaf = writing::of(archive_act::Act::Pruned(statement), self.0.clock.now().as_millis());
        self.append(Entry::new(leaf.clone()), ())?.await?;
        state.take(&leaf);
        self.checkpoint().await?;
        let (inner, count) = (self.0.clone(), segments.len() as u64);
        blocking(Box::new(move || pruning::remove(&inner.shared, &segments))).await?;
        Ok(count)
    }
}
