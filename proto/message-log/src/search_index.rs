//! By what the exchanges in a segment are found: for each value of each [`Key`], the set of leaves that it stands for.
//!
//! The open segment's is in memory. A closed segment's is a file beside it, of which the list of values (some hundred) is
//! held in memory: what occurs in a segment at all is known without reading. Nothing here is needed by an exchange;
//! whatever is lost is made again from the segment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use roaring::RoaringBitmap;
use trave_proto::search::{Key, Term};

use crate::error::LogError;

pub(crate) mod file;
pub(crate) mod memory;

pub(crate) use memory::SearchMemory;

/// Leaves of which the earliest and the latest time are kept together.
pub(crate) const BLOCK: u32 = 256;

/// What can be asked of a segment's search index, wherever it is. Leaves are counted from the segment's first.
pub(crate) trait SearchIndex: std::fmt::Debug + Send + Sync {
    /// Leaves that it covers.
    fn count(&self) -> u64;
    /// Whether a value occurs. Reads nothing.
    fn holds(&self, term: &Term) -> bool;
    /// The leaves that a value stands for; none if it does not occur.
    fn leaves(&self, term: &Term) -> Result<Option<RoaringBitmap>, LogError>;
    /// The values of a key.
    fn values(&self, key: Key) -> Vec<String>;
    /// Earliest and latest time of each [`BLOCK`] of leaves.
    fn times(&self) -> Result<Vec<(i64, i64)>, LogError>;
    /// The earliest and latest time in the ids of exchanges whose messages or ends stand here, milliseconds since 1970.
    fn ids(&self) -> Option<(i64, i64)>;
}

/// The search indexes of a log's segments.
#[derive(Debug, Default)]
pub(crate) struct SearchIndexes {
    closed: RwLock<BTreeMap<u64, Kept>>,
    open: Mutex<Option<SearchMemory>>,
}

/// The search index of a closed segment.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) index: Arc<dyn SearchIndex>,
    /// Where it is not in a file yet.
    pub(crate) unwritten: Option<Arc<SearchMemory>>,
}

impl SearchIndexes {
    /// Those of closed segments, by the first leaf.
    pub(crate) fn closed(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Kept>> {
        self.closed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to change them.
    pub(crate) fn closed_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Kept>> {
        self.closed.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of the open segment, as far as it was read.
    pub(crate) fn open(&self) -> MutexGuard<'_, Option<SearchMemory>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
