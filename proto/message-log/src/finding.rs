//! Finding records by the indexes alone: by place, by exchange, by kind or time. No segment is read.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;

use crate::entry::kind;
use crate::error::LogError;
use crate::index::{Index, NoteEntry};
use crate::segment::LeafEntry;
use crate::shared::{Closed, Shared};

/// What the index says of leaf `index`, and the file that holds it.
pub(crate) fn entry(shared: &Shared, index: u64) -> Result<(LeafEntry, PathBuf), LogError> {
    let (closed, open_path, size) = {
        let catalogue = shared.catalogue();
        let size = catalogue.open.next();
        if let Some(entry) = catalogue.open.leaf(index) {
            (Err(entry), catalogue.open_path.clone(), size)
        } else {
            let after = catalogue.closed.partition_point(|segment| segment.first <= index);
            (Ok(after.checked_sub(1).map(|at| catalogue.closed[at].clone())), PathBuf::new(), size)
        }
    };
    let out_of_range = LogError::OutOfRange { asked: index, size };
    match closed {
        Err(entry) => Ok((entry, open_path)),
        Ok(segment) => {
            let segment = segment.ok_or(out_of_range.clone())?;
            Ok((segment.index().leaf(index)?.ok_or(out_of_range)?, segment.path.clone()))
        }
    }
}

/// The closed segment of leaf `index`.
pub(crate) fn closed(shared: &Shared, index: u64) -> Option<Arc<Closed>> {
    let catalogue = shared.catalogue();
    let after = catalogue.closed.partition_point(|segment| segment.first <= index);
    let segment = catalogue.closed.get(after.checked_sub(1)?)?;
    (index < segment.first + segment.count).then(|| segment.clone())
}

/// The indexes of the leaves about an exchange, from leaf `from` on, ascending.
pub(crate) fn of_exchange(shared: &Shared, exchange: &[u8; 16], from: u64) -> Result<Vec<u64>, LogError> {
    let (closed, open) = {
        let catalogue = shared.catalogue();
        let first = catalogue.closed.partition_point(|segment| segment.first + segment.count <= from);
        (catalogue.closed[first..].to_vec(), Index::of_exchange(&catalogue.open, exchange)?)
    };
    let mut found = Vec::new();
    for segment in closed {
        found.extend(segment.index().of_exchange(exchange)?);
    }
    found.extend(open);
    found.retain(|index| *index >= from);
    Ok(found)
}

/// The indexes of the leaves about an exchange in a range of leaves, ascending: only segments there are looked into.
pub(crate) fn of_exchange_within(
    shared: &Shared,
    exchange: &[u8; 16],
    range: Range<u64>,
) -> Result<Vec<u64>, LogError> {
    let closed = {
        let catalogue = shared.catalogue();
        let first = catalogue.closed.partition_point(|segment| segment.first + segment.count <= range.start);
        let after = catalogue.closed.partition_point(|segment| segment.first < range.end);
        catalogue.closed[first..after.max(first)].to_vec()
    };
    let mut found = Vec::new();
    for segment in closed {
        found.extend(segment.index().of_exchange(exchange)?);
    }
    found.retain(|index| range.contains(index));
    Ok(found)
}

/// The last erasure of an exchange. What was found is kept, since whoever meets one erased content mostly meets all those of
/// its exchange: only what came since is looked through again.
pub(crate) fn last_erasure(shared: &Shared, exchange: &[u8; 16]) -> Result<Option<u64>, LogError> {
    let size = shared.catalogue().open.next();
    let mut last = shared.last_erasures().get(exchange).copied().unwrap_or_default();
    if last.looked_to == size {
        return Ok(last.index);
    }
    for index in of_exchange(shared, exchange, last.looked_to)?.into_iter().rev() {
        if entry(shared, index)?.0.kind == kind::ERASURE {
            last.index = Some(index);
            break;
        }
    }
    last.looked_to = size;
    let mut kept = shared.last_erasures();
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert(*exchange, last);
    Ok(last.index)
}

/// Most exchanges whose last erasure is kept in memory.
const MAX_KEPT: usize = 4_096;

/// The last checkpoint and timestamp records, latest first.
pub(crate) fn notes(shared: &Shared) -> Result<Vec<(PathBuf, NoteEntry)>, LogError> {
    let (closed, open, open_path) = {
        let catalogue = shared.catalogue();
        (catalogue.closed.clone(), catalogue.open.notes.clone(), catalogue.open_path.clone())
    };
    let mut notes: Vec<_> = open.into_iter().rev().map(|note| (open_path.clone(), note)).collect();
    for segment in closed.iter().rev() {
        let has_checkpoint = notes.iter().any(|(_, note)| note.checkpoint);
        if has_checkpoint {
            break;
        }
        if segment.is_pruned() {
            continue;
        }
        notes.extend(segment.index().notes()?.into_iter().rev().map(|note| (segment.path.clone(), note)));
    }
    Ok(notes)
}

/// Where the last checkpoint that has a timestamp token stands, and its last token.
pub(crate) fn last_stamped(shared: &Shared) -> Result<Option<[(PathBuf, NoteEntry); 2]>, LogError> {
    let (closed, open, open_path) = {
        let catalogue = shared.catalogue();
        (catalogue.closed.clone(), catalogue.open.notes.clone(), catalogue.open_path.clone())
    };
    let here = closed.iter().rev().filter(|segment| !segment.is_pruned());
    let closed = here.map(|it| it.index().notes().map(|notes| (it.path.clone(), notes)));
    let mut token: Option<(PathBuf, NoteEntry)> = None;
    for segment in std::iter::once(Ok((open_path, open))).chain(closed) {
        let (path, notes) = segment?;
        for note in notes.into_iter().rev() {
            match token.take() {
                None if !note.checkpoint => token = Some((path.clone(), note)),
                // A token follows its checkpoint in the log.
                Some(token) if note.checkpoint && token.1.size == note.size => {
                    return Ok(Some([(path, note), token]));
                }
                other => token = other,
            }
        }
    }
    Ok(None)
}

/// The index entries of a range of leaves, one after the other, in either direction.
pub(crate) struct Entries {
    shared: Arc<Shared>,
    range: Range<u64>,
    /// What was read last: the index of the first, and the entries.
    near: (u64, Vec<LeafEntry>),
}

impl Entries {
    pub(crate) fn new(shared: Arc<Shared>, range: Range<u64>) -> Self {
        Self { shared, range, near: (0, Vec::new()) }
    }

    fn entry(&mut self, index: u64) -> Result<(u64, LeafEntry), LogError> {
        if self.cached(index).is_none() {
            self.near = self.shared.steady(|| near(&self.shared, index))?;
        }
        let size = self.range.end;
        self.cached(index).map(|entry| (index, entry)).ok_or(LogError::OutOfRange { asked: index, size })
    }

    fn cached(&self, index: u64) -> Option<LeafEntry> {
        let (first, entries) = &self.near;
        entries.get(usize::try_from(index.checked_sub(*first)?).ok()?).copied()
    }
}

/// What is read with leaf `index`: the index of the first, and the entries.
fn near(shared: &Shared, index: u64) -> Result<(u64, Vec<LeafEntry>), LogError> {
    let segment = {
        let catalogue = shared.catalogue();
        let after = catalogue.closed.partition_point(|segment| segment.first <= index);
        let closed = after.checked_sub(1).map(|at| catalogue.closed[at].clone());
        match closed.filter(|segment| index < segment.first + segment.count) {
            Some(segment) => segment,
            None => return catalogue.open.leaves_near(index),
        }
    };
    segment.index().leaves_near(index)
}

impl Iterator for Entries {
    type Item = Result<(u64, LeafEntry), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.range.next()?;
        Some(self.entry(index))
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.range.next_back()?;
        Some(self.entry(index))
    }
}

/// The places and kinds of the records about exchanges whose ids' times lie in `begun`, from leaf `from` up to `size`. No
/// record of an exchange is older than its id by more than `early`.
pub(crate) fn begun_in(
    shared: &Arc<Shared>,
    begun: Range<Time>,
    (from, size): (u64, u64),
    early: Duration,
) -> impl Iterator<Item = Result<(u64, ExchangeId, u8), LogError>> + use<> {
    let since = begun.start.minus(early).as_millis();
    let first = {
        let catalogue = shared.catalogue();
        let recent = |times: Option<(i64, i64)>| times.is_some_and(|(_, latest)| latest >= since);
        let first = catalogue.closed.iter().find(|segment| recent(segment.times));
        first.map_or(catalogue.open.first, |segment| segment.first)
    };
    Entries::new(shared.clone(), from.max(first)..size).filter_map(move |entry| {
        let (index, entry) = match entry {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        let id = ExchangeId::from_slice(&entry.exchange).ok()?;
        begun.contains(&id.time()).then_some(Ok((index, id, entry.kind)))
    })
}

/// The exchanges with a record since `since`, each once.
pub(crate) fn tail_ids(shared: &Arc<Shared>, since: Time) -> Result<Vec<ExchangeId>, LogError> {
    let since = since.as_millis();
    let recent = |times: Option<(i64, i64)>| times.is_some_and(|(_, latest)| latest >= since);
    let (from, size) = {
        let catalogue = shared.catalogue();
        let first = catalogue.closed.iter().find(|segment| recent(segment.times));
        (first.map_or(catalogue.open.first, |segment| segment.first), catalogue.open.next())
    };
    let mut ids = BTreeSet::new();
    for entry in Entries::new(shared.clone(), from..size) {
        let (_, entry) = entry?;
        if entry.time >= since
            && let Ok(id) = ExchangeId::from_slice(&entry.exchange)
        {
            ids.insert(id);
        }
    }
    Ok(ids.into_iter().collect())
}

/// The first leaf of the segment that holds leaf `index`.
pub(crate) fn segment_of(shared: &Shared, index: u64) -> u64 {
    let catalogue = shared.catalogue();
    if index >= catalogue.open.first {
        return catalogue.open.first;
    }
    let after = catalogue.closed.partition_point(|segment| segment.first <= index);
    after.checked_sub(1).map_or(0, |at| catalogue.closed[at].first)
}

/// The places of the records of one kind from leaf `from` on, ascending. Reads of each segment's index what is about the kind,
/// or all of it where that stands nowhere by itself.
pub(crate) fn of_kind(shared: &Shared, kind: u8, from: u64) -> Result<Vec<u64>, LogError> {
    let (closed, open) = {
        let catalogue = shared.catalogue();
        let first = catalogue.closed.partition_point(|segment| segment.first + segment.count <= from);
        (catalogue.closed[first..].to_vec(), catalogue.open.of_kind(kind)?.unwrap_or_default())
    };
    let mut found = Vec::new();
    for segment in closed {
        match segment.index().of_kind(kind)? {
            Some(places) => found.extend(places),
            None => found.extend(among_all(&segment, kind)?),
        }
    }
    found.extend(open);
    found.retain(|index| *index >= from);
    Ok(found)
}

fn among_all(segment: &Closed, kind: u8) -> Result<Vec<u64>, LogError> {
    let (index, mut at, mut found) = (segment.index(), segment.first, Vec::new());
    while at < segment.first + segment.count {
        let (first, near) = index.leaves_near(at)?;
        if near.is_empty() {
            return Err(LogError::damaged(&segment.path, 0, "its index is incomplete"));
        }
        let of_kind = (first..).zip(&near).filter(|(_, leaf)| leaf.kind == kind);
        found.extend(of_kind.map(|(index, _)| index));
        at = first + near.len() as u64;
    }
    Ok(found)
}
