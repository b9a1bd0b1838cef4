//! Gathering what is kept of a segment that is pruned, from a reading of all of it.

use std::path::Path;

use trave_proto::digest::Digest;

use crate::disk::DiskFile;
use crate::error::LogError;
use crate::index::Index;
use crate::keys::KeyFiles;
use crate::reading;
use crate::record::Kind;
use crate::remnant::Gathering;
use crate::scan::read_whole;
use crate::segment::{self, Item, SegmentHeader};

/// Reads a segment of `count` leaves from end to end; `index` says where its artefacts stand.
pub(crate) fn gather(
    (file, path): (&dyn DiskFile, &Path),
    (header, count): (SegmentHeader, u64),
    keys: &KeyFiles,
    index: &dyn Index,
) -> Result<Gathering, LogError> {
    let (mut kept, mut next) = (Gathering::new(header, count), header.first);
    read_whole((file, path), header, keys, &mut |kind, _, payload| {
        if !matches!(kind, Kind::Leaf | Kind::Expired) {
            return Ok(());
        }
        let item = segment::item(kind, payload, 0);
        let added = match &item {
            Some(Item::Leaf(leaf, _)) => kept.add(next, leaf.kind, payload),
            Some(Item::Expired(_)) => Some(()),
            _ => None,
        };
        next += item.map_or(0, |item| item.leaves());
        added.ok_or_else(|| LogError::damaged(path, 0, "it holds a leaf that cannot be read"))
    })?;
    for digest in kept.needs() {
        // A segment that an earlier release made anew may lack it.
        let Some(at) = index.artefact(&digest)? else { continue };
        let bytes = reading::read_record(file, path, at, Kind::Artefact)?;
        if Digest::of(&bytes) != digest {
            return Err(LogError::damaged(path, at, "the artefact has another digest"));
        }
        kept.add_artefact(digest, &bytes);
    }
    Ok(kept)
}
