//! Overwriting what is due: first the act is durable in the log, then keys and contents are overwritten, or the segment is
//! written anew without the records. One segment at a time, so that no exchange waits for it.
//!
//! What is due says a [`Schedule`], which knows of purposes and of holds. It is asked again at every start: an act whose
//! effect a crash cut off is done again then, unless a hold came between.

mod pruned;

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use trave_proto::clock::Time;
use trave_proto::schema::log::{Expiry, Leaf, leaf};

use crate::compaction::{self, Installed, Kept, Rewritten};
use crate::disk::DiskFile;
use crate::entry::kind;
use crate::erasure::Contents;
use crate::error::LogError;
use crate::expiry;
use crate::finding;
use crate::index::Index;
use crate::reading::{self, Located};
use crate::remnant;
use crate::search;
use crate::segment::{EXPIRED, LeafEntry};
use crate::shared::{Closed, Recovered, Shared};
pub use pruned::PrunedRecord;
pub(crate) use pruned::pruned_record;

/// When what a record holds must be gone; none: it stays for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// The record as a whole.
    pub record: Option<Time>,
    /// Its content alone.
    pub content: Option<Time>,
}

/// Says when records are due. All records of one exchange should be due at the same time: they share a key.
pub trait Schedule {
    /// When the record at `index` is due.
    fn due(&mut self, index: u64, leaf: &Leaf) -> Result<Due, LogError>;

    /// When a record is due that was pruned, by what is known of it here. What is not decided stays.
    fn due_pruned(&mut self, _: &PrunedRecord) -> Result<Due, LogError> {
        Ok(Due::default())
    }
}

/// A segment, as far as schedules need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Index of its first leaf.
    pub first: u64,
    /// Number of leaves.
    pub count: u64,
    /// Earliest and latest time of a leaf.
    pub times: Option<(Time, Time)>,
    /// Whether it is still written to.
    pub open: bool,
    /// Whether it was pruned: its records are in the archive alone.
    pub pruned: bool,
}

/// What is due in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub(crate) segment: u64,
    /// Leaves whose contents are due, but not their records.
    pub(crate) contents: Vec<u64>,
    /// Leaves whose records are due.
    pub(crate) records: Vec<u64>,
    next: Option<Time>,
    unreadable: u64,
    /// Of the records that go when a segment is pruned: the earliest and the latest time at which one is due, and how many are
    /// not due at any time that is known.
    span: Option<(Time, Time)>,
    undated: u64,
    /// When the first of the records is due that are kept when a segment is pruned.
    kept: Option<Time>,
    /// Records of a pruned segment that are due, and cannot be taken out of its object, as others of it stay.
    stuck: u64,
}

impl Survey {
    /// Contents that are due, of records that stay.
    pub fn contents(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Records that are due.
    pub fn records(&self) -> u64 {
        self.records.len() as u64
    }

    /// When something else in the segment will be due; none: nothing that the schedule knows of.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// The earliest and the latest time at which a record is due that only says what exchanges there were; none if there is no
    /// such record. What is due earlier and stays here when a segment is pruned counts too: it stands in the same object of the
    /// archive.
    pub fn span(&self) -> Option<(Time, Time)> {
        self.span.map(|(earliest, latest)| (self.kept.map_or(earliest, |kept| kept.min(earliest)), latest))
    }

    /// Such records that are not due at any time, as long as a hold keeps them.
    pub fn undated(&self) -> u64 {
        self.undated
    }

    /// Records of a pruned segment that are due and cannot go, because others of the same segment stay: they stand in one
    /// object of the archive, and this server cannot open it.
    pub fn stuck(&self) -> u64 {
        self.stuck
    }

    fn new(segment: u64) -> Self {
        Self {
            segment,
            contents: Vec::new(),
            records: Vec::new(),
            next: None,
            unreadable: 0,
            span: None,
            undated: 0,
            kept: None,
            stuck: 0,
        }
    }

    /// Takes into account when one more record is due.
    fn dated(&mut self, kind: u8, due: Option<Time>) {
        if remnant::is_kept(kind) {
            self.kept = [self.kept, due].into_iter().flatten().min();
            return;
        }
        match (due, self.span) {
            (None, _) => self.undated += 1,
            (Some(due), None) => self.span = Some((due, due)),
            (Some(due), Some((earliest, latest))) => {
                self.span = Some((earliest.min(due), latest.max(due)));
            }
        }
    }

    /// Records that cannot be read: a check of the log says more.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// All segments, the earliest first.
pub(crate) fn segments(shared: &Shared) -> Vec<SegmentSpan> {
    let millis = |(from, to)| (Time::from_millis(from), Time::from_millis(to));
    let catalogue = shared.catalogue();
    let closed = catalogue.closed.iter().map(|segment| SegmentSpan {
        first: segment.first,
        count: segment.count,
        times: segment.times.map(millis),
        open: false,
        pruned: segment.is_pruned(),
    });
    let open = &catalogue.open;
    let (first, count) = (open.first, open.leaves.len() as u64);
    let last = SegmentSpan { first, count, times: open.times().map(millis), open: true, pruned: false };
    closed.chain([last]).collect()
}

/// The leaves of a segment, and its file.
struct Opened {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    index: Source,
    range: Range<u64>,
}

enum Source {
    Closed(Arc<dyn Index>),
    Open(Vec<LeafEntry>),
}

impl Opened {
    fn of(shared: &Shared, first: u64) -> Result<Self, LogError> {
        let (path, index, range) = {
            let catalogue = shared.catalogue();
            match catalogue.closed.iter().find(|segment| segment.first == first) {
                Some(closed) => {
                    let range = first..first + closed.count;
                    (closed.path.clone(), Source::Closed(closed.index()), range)
                }
                None if catalogue.open.first == first => {
                    let leaves = catalogue.open.leaves.clone();
                    let range = first..first + leaves.len() as u64;
                    (catalogue.open_path.clone(), Source::Open(leaves), range)
                }
                None => return Err(LogError::OutOfRange { asked: first, size: catalogue.open.next() }),
            }
        };
        let file = shared.disk.open(&path).map_err(LogError::disk("open", &path))?;
        Ok(Self { path, file, index, range })
    }

    /// Leaves from `from` on: at least one, if there is one.
    fn near(&self, from: u64) -> Result<Vec<LeafEntry>, LogError> {
        let skip = |first: u64| usize::try_from(from - first).unwrap_or(usize::MAX);
        Ok(match &self.index {
            Source::Closed(index) => {
                let (first, near) = index.leaves_near(from)?;
                near.into_iter().skip(skip(first)).collect()
            }
            Source::Open(leaves) => leaves.iter().skip(skip(self.range.start)).take(1_024).copied().collect(),
        })
    }

    fn located(&self, index: u64, entry: LeafEntry) -> Located {
        Located { index, entry, path: self.path.clone(), file: Arc::clone(&self.file) }
    }

    /// Calls `act` for every leaf that has not expired.
    fn each(&self, mut act: impl FnMut(Located) -> Result<(), LogError>) -> Result<(), LogError> {
        let mut at = self.range.start;
        while at < self.range.end {
            let near = self.near(at)?;
            if near.is_empty() {
                return Err(LogError::damaged(&self.path, 0, "its index is incomplete"));
            }
            for entry in near.into_iter().take(usize::try_from(self.range.end - at).unwrap_or(usize::MAX)) {
                if entry.kind != EXPIRED {
                    act(self.located(at, entry))?;
                }
                at += 1;
            }
        }
        Ok(())
    }
}

/// Looks through a segment for what is due at `now`.
pub(crate) fn survey(
    shared: &Shared,
    segment: u64,
    now: Time,
    schedule: &mut dyn Schedule,
) -> Result<Survey, LogError> {
    if let Some(closed) = finding::closed(shared, segment).filter(|closed| closed.is_pruned()) {
        return pruned::survey(shared, &closed, now, schedule);
    }
    let mut survey = Survey::new(segment);
    // Slots of contents that stay: what is encrypted under the same key stays with them.
    let (mut stays, mut slots) = (HashSet::new(), Vec::new());
    let opened = shared.steady(|| Opened::of(shared, segment))?;
    opened.each(|located| {
        let Ok(raw) = located.read() else {
            survey.unreadable += 1;
            return Ok(());
        };
        let due = schedule.due(located.index, &raw.leaf)?;
        let is_due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        survey.dated(located.entry.kind, due.record);
        let slot = raw.attachment.content.map(|content| content.key_slot);
        let slot = match slot {
            Some(slot) if shared.keys.is_live(slot)? => Some(slot),
            _ => None,
        };
        if is_due(due.record) {
            survey.records.push(located.index);
            return Ok(());
        }
        let mut next = due.record;
        if let Some(slot) = slot {
            match is_due(due.content) {
                true => slots.push((located.index, slot)),
                false => {
                    stays.insert(slot);
                    next = [next, due.content].into_iter().flatten().min();
                }
            }
        }
        survey.next = [survey.next, next].into_iter().flatten().min();
        Ok(())
    })?;
    slots.retain(|(_, slot)| !stays.contains(slot));
    survey.contents = slots.into_iter().map(|(index, _)| index).collect();
    Ok(survey)
}

/// What the log must say before this survey is carried out; none if it says so already, as after a crash.
pub(crate) fn act(shared: &Shared, survey: &Survey, records: bool) -> Result<Option<Expiry>, LogError> {
    let due = if records { &survey.records } else { &survey.contents };
    let Some(first) = due.first() else { return Ok(None) };
    let covered = reading::covered(shared, *first)?;
    let known = |index: &u64| if records { covered.records(*index) } else { covered.contents(*index) };
    let lacking = due.iter().any(|index| !known(index));
    Ok(lacking.then(|| expiry::act(survey.segment, records, due)))
}

/// Overwrites the contents of these leaves of a segment, under the keys that no other leaf of it needs.
pub(crate) fn overwrite_contents(shared: &Shared, segment: u64, due: &[u64]) -> Result<u64, LogError> {
    if let Some(closed) = finding::closed(shared, segment).filter(|closed| closed.is_pruned()) {
        return pruned::overwrite(shared, &closed, due).map_err(|error| failed(shared, error));
    }
    let due: HashSet<u64> = due.iter().copied().collect();
    let opened = Opened::of(shared, segment)?;
    let (mut contents, mut spared) = (Contents::default(), HashSet::new());
    opened.each(|located| {
        if due.contains(&located.index) {
            shared.key_ring.forget(&located.entry.exchange);
            return contents.add(&located);
        }
        if located.entry.kind == kind::MESSAGE
            && let Some(content) = located.read()?.attachment.content
        {
            spared.insert(content.key_slot);
        }
        Ok(())
    })?;
    contents.spare(&spared);
    contents.destroy(shared).map_err(|error| failed(shared, error))
}

/// Writes a closed segment anew without these records, up to the point where it can be put in its place.
pub(crate) fn rewrite(
    shared: &Shared,
    survey: &Survey,
    coarse: &dyn Fn(i64) -> i64,
) -> Result<Rewritten, LogError> {
    let closed = closed(shared, survey.segment)?;
    let due: HashSet<u64> = survey.records.iter().copied().collect();
    let gone = |index| due.contains(&index);
    // Nothing of a pruned segment is here but hashes and what is kept of it: neither checkpoints nor timestamps.
    let notes = !closed.is_pruned() && keeps_notes(shared, &closed, &gone)?;
    compaction::rewrite(shared, &closed, &Kept { gone: &gone, coarse, notes })
}

fn closed(shared: &Shared, first: u64) -> Result<Arc<Closed>, LogError> {
    let catalogue = shared.catalogue();
    let found = catalogue.closed.iter().find(|segment| segment.first == first).cloned();
    found.ok_or(LogError::OutOfRange { asked: first, size: catalogue.open.next() })
}

/// Checkpoints and timestamps of a segment are of use while it holds messages, or while no later ones are there.
fn keeps_notes(shared: &Shared, segment: &Closed, gone: &dyn Fn(u64) -> bool) -> Result<bool, LogError> {
    let index = segment.index();
    for at in segment.first..segment.first + segment.count {
        let entry = index.leaf(at)?;
        let holds = |entry: LeafEntry| matches!(entry.kind, kind::MESSAGE | kind::RECOVERED);
        if entry.is_some_and(holds) && !gone(at) {
            return Ok(true);
        }
    }
    let (later, open) = {
        let catalogue = shared.catalogue();
        let after = catalogue.closed.partition_point(|closed| closed.first <= segment.first);
        (catalogue.closed[after..].to_vec(), catalogue.open.notes.clone())
    };
    let stamped = |notes: &[crate::index::NoteEntry]| {
        notes.iter().any(|note| note.checkpoint) && notes.iter().any(|note| !note.checkpoint)
    };
    if stamped(&open) {
        return Ok(false);
    }
    for closed in later {
        if stamped(&closed.index().notes()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what was replaced. Until that is done the log says that something has expired which is still there: a failure
/// stops the log, and its next start does it.
pub(crate) fn destroy(shared: &Shared, segment: u64, installed: &Installed) -> Result<(), LogError> {
    let _alone = shared.destroying();
    let destroyed = match installed {
        Installed::Replaced(before) => {
            search::forget(shared, segment);
            compaction::destroy(&*shared.disk, before)
        }
        Installed::Stale(temporary) => compaction::discard(&*shared.disk, temporary),
    };
    destroyed.map_err(|error| failed(shared, error))
}

/// What a failed write leaves on the disk is unknown: the log stops, and is opened again.
pub(crate) fn failed(shared: &Shared, error: LogError) -> LogError {
    if error.is_failed_write() { shared.poison(error) } else { error }
}

/// Overwrites the bytes of contents whose keys an interrupted run has overwritten already: what the log has said since it was
/// last opened. Keys that are still there are left to the next run of the schedule, which knows of holds.
pub(crate) fn redo(shared: &Arc<Shared>, recovered: &mut Recovered) -> Result<(), LogError> {
    let size = shared.catalogue().open.next();
    let mut acts = Vec::new();
    for entry in finding::Entries::new(Arc::clone(shared), 0..size).rev() {
        let (index, entry) = entry?;
        match entry.kind {
            kind::STARTED => break,
            kind::EXPIRY => acts.push(index),
            _ => {}
        }
    }
    for index in acts {
        let raw = reading::locate(shared, index)?.read()?;
        let Some(leaf::Entry::Expiry(act)) = raw.leaf.entry else { continue };
        recovered.erasures_redone += 1;
        if let Err(error) = redo_act(shared, &act) {
            if error.is_failed_write() {
                return Err(error);
            }
            let why = error.in_full();
            recovered.warnings.push(format!("the expiry in record {index} is not finished: {why}"));
        }
    }
    Ok(())
}

fn redo_act(shared: &Shared, act: &Expiry) -> Result<(), LogError> {
    if finding::closed(shared, act.segment).is_some_and(|closed| closed.is_pruned()) {
        // Its bytes went with it; keys that are still there are left to the next run.
        return Ok(());
    }
    let covered = reading::covered(shared, act.segment)?;
    let mut contents = Contents::default();
    Opened::of(shared, act.segment)?.each(|located| {
        if located.entry.kind != kind::MESSAGE || !covered.contents(located.index) {
            return Ok(());
        }
        match located.read()?.attachment.content {
            Some(content) if shared.keys.is_erased(content.key_slot)? => contents.add(&located),
            _ => Ok(()),
        }
    })?;
    contents.destroy(shared).map(|_| ())
}
