//! Making the search indexes from the segments.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use trave_proto::identifier::ExchangeId;
use trave_proto::search::{Event, Topic};

use crate::entry::kind;
use crate::error::LogError;
use crate::finding::{self, Entries};
use crate::reading::{self, Located};
use crate::search_index::file::{self, SearchFile};
use crate::search_index::{Kept, SearchMemory};
use crate::shared::{Closed, Shared};

/// Does the next piece of work; says whether there may be more.
pub(super) fn step(shared: &Arc<Shared>) -> Result<bool, LogError> {
    let _making = shared.making();
    drop(catch_up(shared)?);
    let closed = shared.catalogue().closed.clone();
    let firsts: BTreeSet<_> = closed.iter().map(|segment| segment.first).collect();
    shared.search.closed_mut().retain(|first, _| firsts.contains(first));
    // The latest first: it is what is mostly asked for.
    for segment in closed.iter().rev() {
        let kept = shared.search.closed().get(&segment.first).cloned();
        let index = match kept {
            None => load(shared, segment).or_else(|_| make(shared, segment))?,
            Some(Kept { unwritten: Some(index), .. }) if !shared.disk_full.load(Ordering::Relaxed) => {
                write(shared, segment, &index)?
            }
            Some(_) => continue,
        };
        shared.search.closed_mut().insert(segment.first, index);
        return Ok(true);
    }
    Ok(false)
}

/// Closed segments that have no search index in memory or in a file that was opened.
pub(super) fn missing(shared: &Shared) -> Vec<Arc<Closed>> {
    let closed = shared.catalogue().closed.clone();
    let known = shared.search.closed();
    closed.into_iter().filter(|segment| !known.contains_key(&segment.first)).collect()
}

/// The search index of a closed segment from its file.
pub(super) fn load(shared: &Shared, segment: &Closed) -> Result<Kept, LogError> {
    let path = file::path_of(&segment.path);
    let index = SearchFile::open(&shared.disk, &path, segment.first, segment.count)?;
    Ok(Kept { index: Arc::new(index), unwritten: None })
}

/// Makes it from the segment. It is written at the next step.
pub(super) fn make(shared: &Arc<Shared>, segment: &Closed) -> Result<Kept, LogError> {
    let mut index = SearchMemory::new(segment.first);
    extend(shared, &mut index, &segment.path, segment.first + segment.count)?;
    index.complete();
    let index = Arc::new(index);
    Ok(Kept { index: index.clone(), unwritten: Some(index) })
}

fn write(shared: &Shared, segment: &Closed, index: &SearchMemory) -> Result<Kept, LogError> {
    file::write(&*shared.disk, &file::path_of(&segment.path), index)?;
    load(shared, segment)
}

/// Removes the search index of the closed segment that begins with leaf `first`: it is made again from what the segment
/// now holds. For whoever expires or erases records, after the segment was changed.
pub(crate) fn remake(shared: &Shared, first: u64) -> Result<(), LogError> {
    let segment = shared.catalogue().closed.iter().find(|segment| segment.first == first).cloned();
    let Some(segment) = segment else { return Ok(()) };
    let path = file::path_of(&segment.path);
    match shared.disk.remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(LogError::disk("remove", &path)(error));
        }
        _ => {}
    }
    shared.search.closed_mut().remove(&first);
    Ok(())
}

/// Forgets what was made of a segment that was written anew: what has expired stands in it. Waits for searches under way.
pub(crate) fn forget(shared: &Shared, first: u64) {
    let mut open = shared.search.open();
    if open.as_ref().is_some_and(|index| index.first == first) {
        *open = None;
    }
    shared.search.closed_mut().remove(&first);
}

/// Brings the index of the open segment up to what is durable, and holds it; if that segment was closed meanwhile,
/// ends it and goes on with the next.
pub(super) fn catch_up(shared: &Arc<Shared>) -> Result<MutexGuard<'_, Option<SearchMemory>>, LogError> {
    let mut open = shared.search.open();
    loop {
        let (first, next, path) = {
            let catalogue = shared.catalogue();
            (catalogue.open.first, catalogue.open.next(), catalogue.open_path.clone())
        };
        let index = open.get_or_insert_with(|| SearchMemory::new(first));
        if index.first == first {
            extend(shared, index, &path, next)?;
            return Ok(open);
        }
        let closed = shared.catalogue().closed.iter().find(|segment| segment.first == index.first).cloned();
        let Some(segment) = closed else {
            *open = None;
            continue;
        };
        let end = segment.first + segment.count;
        if !shared.search.closed().contains_key(&segment.first) {
            extend(shared, index, &segment.path, end)?;
            let mut index = std::mem::replace(index, SearchMemory::new(end));
            index.complete();
            let index = Arc::new(index);
            let kept = Kept { index: index.clone(), unwritten: Some(index) };
            shared.search.closed_mut().insert(segment.first, kept);
        } else {
            *index = SearchMemory::new(end);
        }
    }
}

/// Adds the leaves of a segment up to `to`.
fn extend(shared: &Arc<Shared>, index: &mut SearchMemory, path: &Path, to: u64) -> Result<(), LogError> {
    if index.next() >= to {
        return Ok(());
    }
    let file = match shared.disk.open(path) {
        Ok(file) => Some(file),
        // What was pruned is found by its exchange alone.
        Err(_) if finding::closed(shared, index.next()).is_some_and(|segment| segment.is_pruned()) => None,
        Err(error) => return Err(LogError::disk("open", path)(error)),
    };
    let mut unread = 0_u64;
    for entry in Entries::new(shared.clone(), index.next()..to) {
        let (at, entry) = entry?;
        let told = matches!(
            entry.kind,
            kind::MESSAGE
                | kind::RECOVERED
                | kind::ENDED
                | kind::REFUSAL
                | kind::READ
                | kind::PERSON_SEARCH_ASKED
                | kind::PERSON_SEARCH_RELEASED
        );
        let located = file.clone().map(|file| Located { index: at, entry, path: path.to_owned(), file });
        let event = match located.filter(|_| told).map(|located| located.read()) {
            None => None,
            Some(Ok(raw)) => Event::of(&raw.leaf),
            // One record that cannot be read must not hide all others; `check-log` tells what is wrong with it.
            Some(Err(LogError::Damaged { .. })) => {
                unread += 1;
                None
            }
            Some(Err(error)) => return Err(error),
        };
        index.add(&entry, event.as_ref(), || began(shared, &entry.exchange, at))?;
    }
    if unread > 0 {
        tracing::warn!(unread, segment = %path.display(), "records cannot be read and are not found by searches");
    }
    Ok(())
}

/// What an exchange is about whose end stands at `before`, in a later segment than its beginning.
fn began(shared: &Arc<Shared>, exchange: &[u8; 16], before: u64) -> Result<Option<Topic>, LogError> {
    let Ok(id) = ExchangeId::from_slice(exchange) else { return Ok(None) };
    let from = since(shared, id);
    for place in finding::of_exchange_within(shared, exchange, from..before)? {
        if matches!(finding::entry(shared, place)?.0.kind, kind::MESSAGE | kind::RECOVERED)
            && let Ok(raw) = reading::locate(shared, place)?.read()
            && let Some(Event::Begun(topic) | Event::Answered(topic, _)) = Event::of(&raw.leaf)
        {
            return Ok(Some(topic));
        }
    }
    Ok(None)
}

/// How far the time in the id of an exchange and the time at which it is logged may lie apart, in milliseconds: three times
/// what is accepted.
const APART: i64 = 15 * 60_000;

/// The first leaf of the first segment in which an exchange can have begun.
fn since(shared: &Shared, id: ExchangeId) -> u64 {
    let earliest = id.time().as_millis().saturating_sub(APART);
    let catalogue = shared.catalogue();
    let reaches = |segment: &&Arc<Closed>| segment.times.is_some_and(|(_, latest)| latest >= earliest);
    catalogue.closed.iter().find(reaches).map_or(catalogue.open.first, |segment| segment.first)
}

/// Whether records of an exchange other than erasures can stand in a segment, as its search index tells.
pub(super) fn may_hold(kept: &Kept, id: ExchangeId) -> bool {
    let time = id.time().as_millis();
    kept.index.ids().is_some_and(|(earliest, latest)| earliest <= time && time <= latest)
}
