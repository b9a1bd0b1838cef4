//! Answering a search from the segments' search indexes, the segments one after the other, until a page is full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;
use trave_proto::identifier::ExchangeId;
use trave_proto::search::{Key, Outcome, Term};

use super::indexing::{self, load, may_hold};
use super::{Count, Found, MAX_PAGE, Search};
use crate::concerned;
use crate::entry::kind;
use crate::error::LogError;
use crate::finding::{self, Entries};
use crate::index::Index as _;
use crate::search_index::file::path_of;
use crate::search_index::{BLOCK, Kept, SearchIndex};
use crate::shared::{Closed, Shared};

/// A page of what is searched for.
pub(super) fn find(shared: &Arc<Shared>, search: &Search) -> Result<Found, LogError> {
    let limit = search.limit.clamp(1, MAX_PAGE);
    let (mut places, mut named) = (Vec::new(), Named::new(shared, search));
    each_segment(shared, search.newest_first, |first, segment, closed| {
        if is_beside(search, closed) || passed(search, first, segment.count()) {
            return Ok(true);
        }
        let named = || named.of(first, closed);
        let Some(leaves) = matching(search, segment, named)? else { return Ok(true) };
        let mut within = Within::new(shared, search, (first, segment))?;
        let mut step = |leaf: u32| {
            let place = first + u64::from(leaf);
            if within.accepts(leaf)? && counts(shared, search, place)? {
                places.push(place);
            }
            Ok(places.len() <= limit)
        };
        each(&leaves, search, first, &mut step)
    })?;
    let more = places.len() > limit;
    places.truncate(limit);
    Ok(Found { places, more })
}

/// Calls `step` with each leaf of the set that comes after where the last page ended, until it says that it is enough.
fn each(
    leaves: &RoaringBitmap,
    search: &Search,
    first: u64,
    step: &mut impl FnMut(u32) -> Result<bool, LogError>,
) -> Result<bool, LogError> {
    let relative = |place: u64| u32::try_from(place.saturating_sub(first)).unwrap_or(u32::MAX);
    match (search.newest_first, search.after) {
        (true, after) => {
            let before = after.map_or(u32::MAX, relative);
            for leaf in leaves.range(..before).rev() {
                if !step(leaf)? {
                    return Ok(false);
                }
            }
        }
        (false, after) => {
            let from = after.map_or(0, |after| relative(after + 1));
            for leaf in leaves.range(from..) {
                if !step(leaf)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// How often each value of `by` occurs among what is searched for.
pub(super) fn count(shared: &Arc<Shared>, search: &Search, by: Key) -> Result<Count, LogError> {
    let (mut counts, mut named) = (BTreeMap::new(), Named::new(shared, search));
    each_segment(shared, false, |first, segment, closed| {
        if is_beside(search, closed) {
            return Ok(true);
        }
        let named = || named.of(first, closed);
        let Some(mut leaves) = matching(search, segment, named)? else { return Ok(true) };
        let mut within = Within::new(shared, search, (first, segment))?;
        if !within.all {
            let mut kept = RoaringBitmap::new();
            for leaf in &leaves {
                if within.accepts(leaf)? {
                    kept.insert(leaf);
                }
            }
            leaves = kept;
        }
        let mut here = Vec::new();
        for value in segment.values(by) {
            let of_value = segment.leaves(&Term::new(by, &*value))?.unwrap_or_default();
            here.push((value, leaves.intersection_len(&of_value)));
        }
        for (value, count) in here.into_iter().filter(|(_, count)| *count > 0) {
            *counts.entry(value).or_default() += count;
        }
        Ok(true)
    })?;
    Ok(counts)
}

/// The places of an exchange's messages, refusals and end.
pub(super) fn course(shared: &Arc<Shared>, exchange: ExchangeId) -> Result<Vec<u64>, LogError> {
    let (closed, open) = {
        let catalogue = shared.catalogue();
        (catalogue.closed.clone(), catalogue.open.of_exchange(exchange.as_bytes())?)
    };
    let mut places = Vec::new();
    for segment in closed {
        let kept = shared.search.closed().get(&segment.first).cloned();
        if kept.is_none_or(|kept| may_hold(&kept, exchange)) {
            places.extend(segment.index().of_exchange(exchange.as_bytes())?);
        }
    }
    places.extend(open);
    Ok(places)
}

/// Calls `look` with the segments in the order asked for, until it says that it is enough. Nothing is left out: what is
/// durable and not yet indexed is indexed first, where an index is missing the answer is an error, and one that is found
/// damaged is made again. Of a segment, `look` takes nothing down before it has read all that it needs. With a closed segment
/// it is given that one and those that come after it.
fn each_segment(
    shared: &Arc<Shared>,
    newest_first: bool,
    mut look: impl FnMut(u64, &dyn SearchIndex, &[Arc<Closed>]) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    // Held to the end, so that what is closed meanwhile is neither missed nor met twice.
    let open = indexing::catch_up(shared)?;
    let Some(open) = open.as_ref() else { return Ok(()) };
    let mut closed = shared.catalogue().closed.clone();
    closed.retain(|segment| segment.first < open.first);
    if newest_first {
        if !look(open.first, open, &[])? {
            return Ok(());
        }
        closed.reverse();
    }
    for (at, segment) in closed.iter().enumerate() {
        let kept = kept(shared, segment)?;
        let enough = match look(segment.first, &*kept.index, &closed[at..]) {
            Err(LogError::Damaged { path, what, .. }) if path == path_of(&segment.path) => {
                tracing::warn!(path = %path.display(), what, "a search index is damaged and is made again");
                indexing::remake(shared, segment.first)?;
                let kept = indexing::make(shared, segment)?;
                shared.search.closed_mut().insert(segment.first, kept.clone());
                !look(segment.first, &*kept.index, &closed[at..])?
            }
            looked => !looked?,
        };
        if enough {
            return Ok(());
        }
    }
    if !newest_first {
        look(open.first, open, &[])?;
    }
    Ok(())
}

fn kept(shared: &Shared, segment: &Closed) -> Result<Kept, LogError> {
    if let Some(kept) = shared.search.closed().get(&segment.first) {
        return Ok(kept.clone());
    }
    let kept =
        load(shared, segment).map_err(|_| LogError::NotIndexed { left: indexing::missing(shared).len() })?;
    shared.search.closed_mut().insert(segment.first, kept.clone());
    Ok(kept)
}

/// The leaves of a segment that meet all conditions, and are `named` as asked for; none if there are none.
fn matching(
    search: &Search,
    segment: &dyn SearchIndex,
    named: impl FnOnce() -> Result<RoaringBitmap, LogError>,
) -> Result<Option<RoaringBitmap>, LogError> {
    // A value that is rare does not occur in most segments: then none of its sets is read.
    let occurs = |condition: &Vec<Term>| condition.iter().any(|term| segment.holds(term));
    if search.all.is_empty() || !search.all.iter().all(occurs) {
        return Ok(None);
    }
    // What a caller calls an exchange by is rarest of all.
    let mut all = if search.references.is_empty() { None } else { Some(named()?) };
    if all.as_ref().is_some_and(RoaringBitmap::is_empty) {
        return Ok(None);
    }
    for condition in &search.all {
        let mut any = RoaringBitmap::new();
        for term in condition {
            if let Some(leaves) = segment.leaves(term)? {
                any |= leaves;
            }
        }
        let both = match all {
            None => any,
            Some(all) => all & any,
        };
        if both.is_empty() {
            return Ok(None);
        }
        all = Some(both);
    }
    Ok(all)
}

/// What callers call so, by segment: looked for in the next segments at once, and in ever more of them while nothing is found.
struct Named<'a> {
    shared: &'a Shared,
    search: &'a Search,
    found: HashMap<u64, Result<RoaringBitmap, LogError>>,
    ahead: usize,
}

impl<'a> Named<'a> {
    fn new(shared: &'a Shared, search: &'a Search) -> Self {
        Self { shared, search, found: HashMap::new(), ahead: 1 }
    }

    /// The leaves of the segment that begins with leaf `first`; `closed` are it and those that come next.
    fn of(&mut self, first: u64, closed: &[Arc<Closed>]) -> Result<RoaringBitmap, LogError> {
        if !self.found.contains_key(&first) {
            let next = closed.iter().filter(|segment| !is_beside(self.search, std::slice::from_ref(segment)));
            let next: Vec<_> = next.take(self.ahead).cloned().collect();
            let looked = concerned::at_once(&next, |segment| self.look(segment.first));
            self.found.extend(next.iter().map(|segment| segment.first).zip(looked));
            self.ahead = (2 * self.ahead).min(concerned::AT_ONCE);
        }
        self.found.remove(&first).unwrap_or_else(|| self.look(first))
    }

    fn look(&self, first: u64) -> Result<RoaringBitmap, LogError> {
        let mut all: Option<RoaringBitmap> = None;
        for reference in &self.search.references {
            let places = concerned::of_reference(self.shared, reference, first)?;
            let leaves = places.into_iter().filter_map(|place| u32::try_from(place.checked_sub(first)?).ok());
            let named: RoaringBitmap = leaves.collect();
            all = Some(match all {
                None => named,
                Some(all) => all & named,
            });
        }
        Ok(all.unwrap_or_default())
    }
}

/// Whether nothing in the first of these segments lies in the time asked for.
fn is_beside(search: &Search, closed: &[Arc<Closed>]) -> bool {
    closed.first().and_then(|segment| segment.times).is_some_and(|times| !overlaps(search, times))
}

fn overlaps(search: &Search, (earliest, latest): (i64, i64)) -> bool {
    search.from.is_none_or(|from| latest >= from) && search.to.is_none_or(|to| earliest < to)
}

fn inside(search: &Search, (earliest, latest): (i64, i64)) -> bool {
    search.from.is_none_or(|from| earliest >= from) && search.to.is_none_or(|to| latest < to)
}

/// Whether the pages before have passed a segment.
fn passed(search: &Search, first: u64, count: u64) -> bool {
    search.after.is_some_and(|after| match search.newest_first {
        true => first >= after,
        false => first + count <= after + 1,
    })
}

/// Whether a hit is how the exchange ended: an answer that was complete and then broken off all the same is found as
/// broken off alone.
fn counts(shared: &Arc<Shared>, search: &Search, place: u64) -> Result<bool, LogError> {
    let answered = [Outcome::Complete, Outcome::Aborted].map(Term::outcome);
    if !search.all.iter().flatten().any(|term| answered.contains(term)) {
        return Ok(true);
    }
    let entry = finding::entry(shared, place)?.0;
    let Ok(id) = ExchangeId::from_slice(&entry.exchange) else { return Ok(true) };
    if !matches!(entry.kind, kind::MESSAGE | kind::RECOVERED) {
        return Ok(true);
    }
    for other in course(shared, id)? {
        if other > place && finding::entry(shared, other)?.0.kind == kind::ENDED {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether leaves of a segment lie in the time asked for: mostly known for a whole block of them.
struct Within<'a> {
    shared: &'a Arc<Shared>,
    search: &'a Search,
    first: u64,
    all: bool,
    times: Vec<(i64, i64)>,
    entries: Option<(u32, Vec<i64>)>,
    count: u64,
}

impl<'a> Within<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        search: &'a Search,
        (first, segment): (u64, &dyn SearchIndex),
    ) -> Result<Self, LogError> {
        let all = search.from.is_none() && search.to.is_none();
        let times = if all { Vec::new() } else { segment.times()? };
        let all = all || times.iter().all(|times| inside(search, *times));
        Ok(Self { shared, search, first, all, times, entries: None, count: segment.count() })
    }

    fn accepts(&mut self, leaf: u32) -> Result<bool, LogError> {
        if self.all {
            return Ok(true);
        }
        let block = leaf / BLOCK;
        let Some(times) = self.times.get(block as usize).copied() else { return Ok(false) };
        if !overlaps(self.search, times) || inside(self.search, times) {
            return Ok(inside(self.search, times));
        }
        let time = self.times_of(block)?.get((leaf % BLOCK) as usize).copied();
        Ok(time.is_some_and(|time| inside(self.search, (time, time))))
    }

    fn times_of(&mut self, block: u32) -> Result<&[i64], LogError> {
        if self.entries.as_ref().is_none_or(|(known, _)| *known != block) {
            let from = self.first + u64::from(block * BLOCK);
            let to = (from + u64::from(BLOCK)).min(self.first + self.count);
            let times = Entries::new(self.shared.clone(), from..to).map(|entry| Ok(entry?.1.time));
            self.entries = Some((block, times.collect::<Result<_, LogError>>()?));
        }
        Ok(self.entries.as_ref().map_or(&[], |(_, times)| times))
    }
}
