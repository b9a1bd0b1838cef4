//! A search index in memory: that of the open segment, and that of a closed one until its file is written.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use trave_proto::identifier::ExchangeId;
use trave_proto::search::{Event, Key, Term, Topic};

use super::{BLOCK, SearchIndex};
use crate::entry::kind;
use crate::error::LogError;
use crate::segment::LeafEntry;

/// A search index in memory. It holds some bytes for each leaf of a segment, and each value once.
#[derive(Debug, Default)]
pub(crate) struct SearchMemory {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) terms: BTreeMap<Term, RoaringBitmap>,
    pub(crate) times: Vec<(i64, i64)>,
    pub(crate) ids: Option<(i64, i64)>,
    begun: HashMap<[u8; 16], u32>,
    answered: HashMap<[u8; 16], u32>,
}

impl SearchMemory {
    /// An empty one, of the segment that begins with leaf `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The index of the next leaf.
    pub(crate) fn next(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Lets go of what only further leaves would need.
    pub(crate) fn complete(&mut self) {
        (self.begun, self.answered) = Default::default();
    }

    /// Adds the next leaf and what it says. `earlier` tells what an exchange is about whose end stands here, and whose
    /// beginning stands in an earlier segment.
    pub(crate) fn add(
        &mut self,
        entry: &LeafEntry,
        event: Option<&Event>,
        earlier: impl FnOnce() -> Result<Option<Topic>, LogError>,
    ) -> Result<(), LogError> {
        let (at, id) = (self.count, entry.exchange);
        let terms = match event {
            None => Vec::new(),
            Some(event @ Event::Ended(_)) => self.end(at, id, event, earlier)?,
            Some(event) => event.terms(None),
        };
        match event {
            Some(Event::Begun(_)) => _ = self.begun.entry(id).or_insert(at),
            Some(Event::Answered(..)) => _ = self.answered.insert(id, at),
            _ => {}
        }
        for term in terms {
            self.terms.entry(term).or_default().insert(at);
        }
        // Refusals are left out: their ids may be anything that a stranger made up.
        if !matches!(event, None | Some(Event::Refused(_) | Event::Read { .. }))
            || matches!(entry.kind, kind::MESSAGE | kind::RECOVERED)
        {
            self.name(&id);
        }
        match self.times.last_mut().filter(|_| !at.is_multiple_of(BLOCK)) {
            Some((earliest, latest)) => {
                *earliest = entry.time.min(*earliest);
                *latest = entry.time.max(*latest);
            }
            None => self.times.push((entry.time, entry.time)),
        }
        self.count += 1;
        Ok(())
    }

    /// What the end of an exchange is found by. If its answer stands here as complete, that is not what counts any more.
    fn end(
        &mut self,
        at: u32,
        id: [u8; 16],
        event: &Event,
        earlier: impl FnOnce() -> Result<Option<Topic>, LogError>,
    ) -> Result<Vec<Term>, LogError> {
        if let Some(answered) = self.answered.remove(&id) {
            for (_, leaves) in self.terms.iter_mut().filter(|(term, _)| term.key == Key::Outcome) {
                leaves.remove(answered);
            }
        }
        let Some(begun) = self.begun.get(&id).copied() else {
            return Ok(event.terms(earlier()?.as_ref()));
        };
        let topic =
            self.terms.iter_mut().filter(|(term, leaves)| term.key.of_topic() && leaves.contains(begun));
        topic.for_each(|(_, leaves)| _ = leaves.insert(at));
        Ok(event.terms(None))
    }

    fn name(&mut self, id: &[u8; 16]) {
        let Ok(id) = ExchangeId::from_slice(id) else { return };
        let time = id.time().as_millis();
        let (earliest, latest) = self.ids.unwrap_or((time, time));
        self.ids = Some((earliest.min(time), latest.max(time)));
    }
}

impl SearchIndex for SearchMemory {
    fn count(&self) -> u64 {
        u64::from(self.count)
    }

    fn holds(&self, term: &Term) -> bool {
        self.terms.get(term).is_some_and(|leaves| !leaves.is_empty())
    }

    fn leaves(&self, term: &Term) -> Result<Option<RoaringBitmap>, LogError> {
        Ok(self.terms.get(term).cloned())
    }

    fn values(&self, key: Key) -> Vec<String> {
        self.terms.keys().filter(|term| term.key == key).map(|term| term.value.clone()).collect()
    }

    fn times(&self) -> Result<Vec<(i64, i64)>, LogError> {
        Ok(self.times.clone())
    }

    fn ids(&self) -> Option<(i64, i64)> {
        self.ids
    }
}
