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
use crate::scan::Scanner;
use crate::segment::{Item, SegmentHeader};

/// Reads a segment of `count` leaves from end to end; `index` says where its artefacts stand.
pub(crate) fn gather(
    (file, path): (&dyn DiskFile, &Path),
    (header, count): (SegmentHeader, u64),
    keys: &KeyFiles,
    index: &dyn Index,
) -> Result<Gathering, LogError> {
    let (mut kept, mut next) = (Gathering::new(header, count), header.first);
    let mut scanner = Scanner::new(file, path, header, keys)?;
    while let Some(records) = scanner.next_records()? {
        for (item, _, payload) in records {
            if let Item::Leaf(leaf, _) = &item {
                let added = kept.add(next, leaf.kind, &payload);
                added.ok_or_else(|| LogError::damaged(path, leaf.offset, "a leaf that cannot be read"))?;
            }
            next += item.leaves();
        }
    }
    scanner.ends_whole()?;
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
