//! Copying a closed segment into the archive, step by step, and what a crash leaves at each:
//!
//! | killed after | archive | log | next time |
//! |---|---|---|---|
//! | part of the object was written | a `.tmp` (a directory) or nothing (S3) | – | it is written again, over it |
//! | the object has its name | the object | – | it is written again, under the next number: what no record names does not count |
//! | it was read back | the object | – | as above |
//! | the record is durable | the object | names it, with its digest | it is archived |
//! | the segment was written anew, since records in it expired | the earlier copy | names it, and the generation it is of | a newer copy is made |
//! | the record of a newer copy is durable | both copies | names the newer one | the older one is removed |

use std::sync::Arc;

use trave_proto::schema::log::{ArchiveAct, ArchiveRemoved, Leaf, SegmentArchived, archive_act, leaf};

use super::sealed::Sealer;
use super::state::ArchiveState;
use super::store::digest_of;
use super::{Archive, object, object_name, parse_name};
use crate::error::LogError;
use crate::segment;
use crate::shared::{Closed, Shared, SignedCheckpoint};

/// The closed segment that begins with leaf `first`, and the checkpoint that covers it; none if there is no such closed
/// segment here, or it is not yet covered.
pub(crate) fn ready(shared: &Shared, first: u64) -> Option<(Arc<Closed>, SignedCheckpoint)> {
    let catalogue = shared.catalogue();
    let segment = catalogue.closed.iter().find(|segment| segment.first == first)?.clone();
    let covered_by = catalogue.checkpoint.clone()?;
    (segment.first + segment.count <= covered_by.checkpoint.size).then_some((segment, covered_by))
}

/// Whether an archived copy is of the segment as it is now. What has expired since still stands in it, if it is not.
pub(crate) fn is_current(copy: &SegmentArchived, segment: &Closed) -> bool {
    copy.generation == segment::generation(&segment.path)
}

/// The first leaves of closed segments that are covered by a checkpoint and not archived as they are now, earliest first.
pub(crate) fn due(shared: &Shared, state: &ArchiveState) -> Vec<u64> {
    let closed = shared.catalogue().closed.clone();
    let lacks = |segment: &&Arc<Closed>| {
        !segment.is_pruned() && state.archived(segment.first).is_none_or(|copy| !is_current(copy, segment))
    };
    let lacking = closed.iter().filter(lacks).map(|segment| segment.first);
    lacking.filter(|first| ready(shared, *first).is_some()).collect()
}

/// Copies a segment into the archive and reads it back. What it returns is to be logged: only then it counts.
pub(crate) fn write(
    shared: &Shared,
    origin: &str,
    archive: &Archive,
    (first, state): (u64, &ArchiveState),
) -> Result<SegmentArchived, LogError> {
    let ready = ready(shared, first);
    let (segment, covered_by) =
        ready.ok_or(LogError::Refused("no closed segment under a checkpoint begins with this leaf"))?;
    let head = object::head_of(shared, origin, &segment, &covered_by)?;
    // No object is ever overwritten: one that no record names may be of a log that went further than this disk.
    let names = archive.store.list()?;
    let ever = names.iter().map(String::as_str).chain(state.names());
    let numbers = ever.filter_map(|name| parse_name(origin, name)).filter(|(of, _)| *of == first);
    let serial = match numbers.map(|(_, serial)| serial).max() {
        None => 0,
        Some(last) => last.checked_add(1).ok_or(LogError::Refused("the archive has no number left"))?,
    };
    let name = object_name(origin, first, serial);
    let mut written = None;
    archive.store.put(&name, &mut |out| {
        let failed = |error| LogError::archive(&name, error);
        let mut sealer = Sealer::new(out, &archive.recipients).map_err(failed)?;
        object::write(shared, &segment, &head, &mut sealer)?;
        written = Some(sealer.finish().map_err(failed)?);
        Ok(())
    })?;
    let found = digest_of(&*archive.store, &name)?;
    if written != Some(found) {
        return Err(LogError::archive(&name, "what was read back is not what was written"));
    }
    Ok(SegmentArchived {
        first,
        count: segment.count,
        name,
        digest: found.0.to_bytes(),
        length: found.1,
        place: archive.store.place(),
        generation: segment::generation(&segment.path),
        replaces: state.archived(first).map(|old| old.name.clone()).unwrap_or_default(),
    })
}

/// The record that says that a segment is archived.
pub(crate) fn archived(segment: SegmentArchived, now_ms: i64) -> Leaf {
    of(archive_act::Act::Archived(segment), now_ms)
}

/// The record that says that an object was removed.
pub(crate) fn removed(removed: ArchiveRemoved, now_ms: i64) -> Leaf {
    of(archive_act::Act::Removed(removed), now_ms)
}

pub(crate) fn of(act: archive_act::Act, now_ms: i64) -> Leaf {
    Leaf::of(now_ms, leaf::Entry::Archive(ArchiveAct { act: Some(act) }))
}
