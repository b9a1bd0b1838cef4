//! What a log says of its archive: which segments are archived, where, and what was pruned.

use std::collections::{BTreeMap, BTreeSet};

use trave_proto::clock::Time;
use trave_proto::schema::log::archive_act::Act;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{Leaf, RangePruned, SegmentArchived};

/// The archive as the log's own records tell it. Read with [`crate::Log::archive_state`].
#[derive(Debug, Clone, Default)]
pub struct ArchiveState {
    archived: BTreeMap<u64, SegmentArchived>,
    pruned: Vec<RangePruned>,
    /// First leaf and generation of each segment that was pruned. A statement counts for the generations that were archived
    /// when it was logged: nothing else was pruned by it.
    generations: BTreeSet<(u64, u64)>,
    waiting: BTreeMap<String, PruningApplication>,
    removed: BTreeSet<String>,
}

/// A pruning that somebody applied for, and nobody approved or dropped so far.
#[derive(Debug, Clone, PartialEq)]
pub struct PruningApplication {
    /// What was applied for.
    pub range: RangePruned,
    /// When it was logged.
    pub since: Time,
}

impl ArchiveState {
    /// Takes the next record of the log into account; those of other kinds change nothing.
    pub fn take(&mut self, leaf: &Leaf) {
        let Some(Entry::Archive(act)) = &leaf.entry else { return };
        match act.act.clone() {
            Some(Act::Archived(segment)) => {
                self.archived.insert(segment.first, segment);
            }
            Some(Act::Removed(removed)) => {
                if self.archived.get(&removed.first).is_some_and(|segment| segment.name == removed.name) {
                    self.archived.remove(&removed.first);
                }
                self.removed.insert(removed.name);
            }
            Some(Act::Pruned(range)) if range.applied => {
                let since = Time::from_millis(leaf.logged_ms);
                self.waiting.insert(range.id.clone(), PruningApplication { range, since });
            }
            Some(Act::Pruned(range)) => {
                self.waiting.remove(&range.id);
                let inside = range.first..range.first.saturating_add(range.count);
                let segments = self.archived.range(inside).map(|(first, copy)| (*first, copy.generation));
                self.generations.extend(segments);
                self.pruned.push(range);
            }
            Some(Act::Dropped(dropped)) => {
                self.waiting.remove(&dropped.id);
            }
            None => {}
        }
    }

    /// The object of the segment that begins with leaf `first`.
    pub fn archived(&self, first: u64) -> Option<&SegmentArchived> {
        self.archived.get(&first)
    }

    /// All archived segments, by their first leaf.
    pub fn all(&self) -> impl Iterator<Item = &SegmentArchived> {
        self.archived.values()
    }

    /// The names of all objects that the log knows of, also of removed ones: none is used again.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.archived
            .values()
            .map(|segment| segment.name.as_str())
            .chain(self.removed.iter().map(String::as_str))
    }

    /// The ranges that were pruned, as they were logged.
    pub fn pruned(&self) -> &[RangePruned] {
        &self.pruned
    }

    /// The pruning that was applied for under this id.
    pub fn waiting(&self, id: &str) -> Option<&PruningApplication> {
        self.waiting.get(id)
    }

    /// The prunings that were applied for, however long ago.
    pub fn all_waiting(&self) -> impl Iterator<Item = &PruningApplication> {
        self.waiting.values()
    }

    /// Whether a statement says that the segment that begins with leaf `first` was pruned in this generation.
    pub(crate) fn is_pruned(&self, first: u64, generation: u64) -> bool {
        self.generations.contains(&(first, generation))
    }

    /// Whether the log says that the object of this name was to be removed.
    pub(crate) fn is_removed(&self, name: &str) -> bool {
        self.removed.contains(name)
    }
}
