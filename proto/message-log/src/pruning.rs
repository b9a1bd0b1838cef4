//! Removing archived segments from this server's disk. Hashes, indexes, what the state rests on and the slots of keys stay,
//! so that newer proofs hold, a start finds its grants, and contents can still be erased.
//!
//! | killed after | disk | log | the next start |
//! |---|---|---|---|
//! | what is kept was written (`.pruned`) | the segment too | – | the segment is here; the file beside it means nothing |
//! | the statement is durable | the same | says that the range is pruned | waits for a checkpoint over it |
//! | a checkpoint covers it | the same | the same | removes the segments |
//! | some segments were removed | the others | the same | removes the others |
//! | one was about to be overwritten | it has another name (`.away.tmp`) | the same | overwrites and removes it, too |
//!
//! Nothing is removed that was not read back from the archive just before, and nothing that holds the last checkpoint or
//! the last timestamp.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use trave_proto::digest::Digest;

use crate::archive::store::digest_of;
use crate::archive::writing::is_current;
use crate::archive::{Archive, ArchiveState};
use crate::compaction;
use crate::concerned;
use crate::entry::kind;
use crate::error::LogError;
use crate::finding;
use crate::gathering;
use crate::reading;
use crate::recovery::Doubtful;
use crate::remnant;
use crate::segment::{self, SegmentHeader};
use crate::shared::{Closed, Shared};

/// The first segments that are here and may be pruned: archived, with no record at or after `before` (milliseconds since
/// 1970), and before the segments that hold the last checkpoint and the last timestamp.
pub(crate) fn prunable(
    shared: &Shared,
    state: &ArchiveState,
    before: i64,
) -> Result<Vec<Arc<Closed>>, LogError> {
    let mut border = u64::MAX;
    let notes = finding::notes(shared)?;
    let checkpoint = notes.iter().find(|(_, note)| note.checkpoint).map(|(path, _)| path.clone());
    let stamped = finding::last_stamped(shared)?.map(|[(path, _), _]| path);
    if checkpoint.is_none() {
        return Ok(Vec::new());
    }
    let closed = shared.catalogue().closed.clone();
    for path in [checkpoint, stamped].into_iter().flatten() {
        let first = closed.iter().find(|segment| segment.path == path).map(|segment| segment.first);
        border = border.min(first.unwrap_or(u64::MAX));
    }
    let here = closed.into_iter().filter(|segment| !segment.is_pruned());
    let may = |segment: &Arc<Closed>| {
        segment.first < border
            && segment.is_indexed()
            && state
                .archived(segment.first)
                .is_some_and(|it| it.count == segment.count && is_current(it, segment))
            && segment.times.is_some_and(|(_, latest)| latest < before)
    };
    Ok(here.take_while(may).collect())
}

/// The segments of a range that are here; none if the range does not end with one.
pub(crate) fn range(shared: &Shared, first: u64, count: u64) -> Option<Vec<Arc<Closed>>> {
    let end = first.checked_add(count)?;
    let closed = shared.catalogue().closed.clone();
    let mut inside: Vec<_> = closed.into_iter().filter(|it| it.first >= first && it.first < end).collect();
    let exact = inside.first()?.first == first && inside.last().is_some_and(|it| it.first + it.count == end);
    inside.retain(|segment| !segment.is_pruned());
    exact.then_some(inside)
}

/// The root of the tree that ends with a range.
pub(crate) fn root_after(shared: &Shared, first: u64, count: u64) -> Result<Digest, LogError> {
    shared.root(first.saturating_add(count))
}

/// Reads the objects of these segments back, and writes what is kept of each.
pub(crate) fn prepare(
    shared: &Shared,
    archive: &Archive,
    state: &ArchiveState,
    segments: &[Arc<Closed>],
) -> Result<(), LogError> {
    for segment in segments {
        let known = state.archived(segment.first);
        let known = known.ok_or(LogError::Refused("a segment that is not archived is not pruned"))?;
        let found = digest_of(&*archive.store, &known.name)?;
        if found.0.as_ref() != &known.digest[..] || found.1 != known.length {
            return Err(LogError::archive(
                &known.name,
                "it is not the one that the log names; nothing is pruned",
            ));
        }
        keep(shared, segment)?;
    }
    Ok(())
}

/// Writes what is kept of a segment, from a reading of all of it.
fn keep(shared: &Shared, segment: &Closed) -> Result<(), LogError> {
    let path = &segment.path;
    let file = shared.disk.open(path).map_err(LogError::disk("open", path))?;
    let header = SegmentHeader::read(&*file, path)?;
    let index = segment.index();
    let kept = gathering::gather((&*file, path), (header, segment.count), &shared.keys, &*index)?;
    // Whom its records concern must be found here as long as their contents can be erased.
    concerned::settle(shared, segment)?;
    kept.write(&*shared.disk, path)
}

/// Removes segments of which a statement in the log says that they are pruned.
pub(crate) fn remove(shared: &Shared, segments: &[Arc<Closed>]) -> Result<(), LogError> {
    for segment in segments {
        let _alone = shared.placing();
        if !shared.is_current(segment) {
            // Records in it have expired meanwhile: what is here now was never archived.
            continue;
        }
        // First: whoever finds the file gone knows why.
        segment.set_pruned();
        wipe(shared, &segment.path)?;
    }
    let dir = shared.dir.join("segments");
    shared.disk.sync_dir(&dir).map_err(LogError::disk("sync", &dir))
}

/// Overwrites a segment and removes it: what expires later must not be left on the disk without a name. Under another name,
/// which a start clears away, since half of it is no segment.
fn wipe(shared: &Shared, segment: &Path) -> Result<(), LogError> {
    let away = segment.with_extension("away.tmp");
    match shared.disk.rename(segment, &away) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(LogError::disk("rename", segment))?,
    }
    let dir = segment.parent().unwrap_or(&shared.dir);
    shared.disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    compaction::wipe(&*shared.disk, &away)
}

/// What the log says of its archive and of what was pruned, in its first `size` records, as far as it can be read; and what
/// could not.
pub(crate) fn stated(shared: &Arc<Shared>, size: u64) -> (ArchiveState, Option<LogError>) {
    let (mut state, mut unreadable) = (ArchiveState::default(), None);
    for entry in finding::Entries::new(shared.clone(), 0..size) {
        let leaf = entry.and_then(|(index, entry)| match entry.kind {
            kind::ARCHIVE => Ok(Some(reading::locate(shared, index)?.read()?.leaf)),
            _ => Ok(None),
        });
        match leaf {
            Ok(leaf) => leaf.iter().for_each(|leaf| state.take(leaf)),
            Err(error) => drop(unreadable.get_or_insert(error)),
        }
    }
    (state, unreadable)
}

/// Refuses the log if something is taken for pruned that no statement says was pruned; and destroys what lies beside what
/// was. What is lost of it is returned, in words.
pub(crate) fn settle(shared: &Arc<Shared>, doubtful: Vec<Doubtful>) -> Result<Vec<String>, LogError> {
    let mut lost = Vec::new();
    if doubtful.is_empty() {
        return Ok(lost);
    }
    let (state, _) = stated(shared, shared.catalogue().open.next());
    for Doubtful { segment, why, displaced } in doubtful {
        if !state.is_pruned(segment.first, segment::generation(&segment.path)) {
            return Err(why);
        }
        match displaced {
            Some(path) => compaction::destroy(&*shared.disk, &path)?,
            None => lost.push(format!(
                "{}; what is kept of the pruned records {} to {} cannot be read: who rests on it is refused, until \
                 `archive repair` has fetched it from the archive",
                why.in_full(),
                segment.first,
                segment.first + segment.count - 1
            )),
        }
    }
    Ok(lost)
}

/// Removes what an interrupted run did not come to remove: as far as a checkpoint covers the statement, as for whoever was
/// not interrupted. Where signing it failed, the segments stay until a later start.
pub(crate) fn redo(shared: &Arc<Shared>) -> Result<(), LogError> {
    let mut left = interrupted(shared)?;
    let covered = shared.catalogue().checkpoint.as_ref().map_or(0, |signed| signed.checkpoint.size);
    if left.is_empty() || covered == 0 {
        return Ok(());
    }
    let (state, unreadable) = stated(shared, covered);
    unreadable.map_or(Ok(()), Err)?;
    left.retain(|segment| state.is_pruned(segment.first, segment::generation(&segment.path)));
    if left.is_empty() { Ok(()) } else { remove(shared, &left) }
}

/// Segments that are here although something is kept of them as of pruned ones: where a statement says that they are
/// pruned, an earlier run was interrupted before it removed them.
fn interrupted(shared: &Shared) -> Result<Vec<Arc<Closed>>, LogError> {
    let dir = shared.dir.join("segments");
    let names = shared.disk.list(&dir).map_err(LogError::disk("list", &dir))?;
    let kept: BTreeSet<String> =
        names.iter().filter_map(|name| remnant::of_name(name)).map(|it| it.1).collect();
    let closed = shared.catalogue().closed.clone();
    let is_kept =
        |it: &Closed| it.path.file_name().is_some_and(|name| kept.contains(&*name.to_string_lossy()));
    Ok(closed.into_iter().filter(|it| !it.is_pruned() && is_kept(it)).collect())
}
