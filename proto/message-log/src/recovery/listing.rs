//! The files of a log, by their names: which of them is the segment, what it replaced, and what was being prepared.

use std::collections::BTreeMap;
use std::path::Path;

use crate::compaction;
use crate::disk::Disk;
use crate::error::LogError;
use crate::remnant;
use crate::segment;
use crate::shared::TREE_DIR;

/// The directory of the segments, in that of the log.
pub(super) const SEGMENTS_DIR: &str = "segments";
/// The directory of the keys of contents, in that of the log.
pub(crate) const KEYS_DIR: &str = "keys";

/// The segment of some leaves: a file, or what is kept of one that was pruned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    /// The first leaf.
    pub(crate) first: u64,
    /// The name of the segment's file, also where that is gone.
    pub(crate) name: String,
    pub(crate) pruned: bool,
}

/// The segment files.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Ascending: of each segment the highest generation.
    pub(super) segments: Vec<Named>,
    /// First leaf and name of what was replaced.
    pub(super) replaced: Vec<(u64, String)>,
    /// The same of earlier generations than the one that was pruned: somebody has put them back, or they could not be
    /// removed.
    pub(super) displaced: Vec<(u64, String)>,
}

/// The segment files; none where there is no such directory. A segment is pruned if something is kept of it and no file of
/// that generation or a later one is here. Where a later one is, what is kept belongs to what it replaced.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listed, LogError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(LogError::disk("list", dir))?,
    };
    // Per first leaf, ascending: the generations, each with its name and whether what is kept of it is all that is here.
    let mut found: BTreeMap<u64, BTreeMap<u64, (String, bool)>> = BTreeMap::new();
    for ((first, generation), name) in names.iter().filter_map(|name| remnant::of_name(name)) {
        found.entry(first).or_default().insert(generation, (name, true));
    }
    for name in names {
        if let Some((first, generation)) = segment::of_name(&name) {
            found.entry(first).or_default().insert(generation, (name, false));
        }
    }
    let mut listed = Listed::default();
    for (first, mut generations) in found {
        let Some((_, (name, pruned))) = generations.pop_last() else { continue };
        let others = generations.into_values();
        match pruned {
            false => listed.replaced.extend(others.map(|(name, _)| (first, name))),
            true => {
                let here = others.filter(|(_, pruned)| !pruned);
                listed.displaced.extend(here.map(|(name, _)| (first, name)));
            }
        }
        listed.segments.push(Named { first, name, pruned });
    }
    Ok(listed)
}

/// Makes what is missing of a log's directories, and clears away files that were being prepared.
pub(super) fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    // All of them before the log's directory is synced: without its entry, what is synced in one of them is lost.
    for made in [SEGMENTS_DIR, KEYS_DIR, TREE_DIR].map(|name| dir.join(name)) {
        disk.create_dir(&made).map_err(LogError::disk("create", &made))?;
    }
    for dir in [dir.parent(), Some(dir)].into_iter().flatten() {
        disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    }
    let segments = dir.join(SEGMENTS_DIR);
    let names = disk.list(&segments).map_err(LogError::disk("list", &segments))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = segments.join(name);
        // What is made of a segment holds records already, and a segment that is written anew has its index first.
        if segment::is_unfinished(name) {
            compaction::discard(disk, &path)?;
        } else if name.starts_with("segment-") {
            compaction::wipe(disk, &path)?;
        } else {
            disk.remove(&path).map_err(LogError::disk("remove", &path))?;
        }
    }
    // What the system shows may not be on the disk, if an earlier process died between making a file and this.
    disk.sync_dir(&segments).map_err(LogError::disk("sync", &segments))
}
