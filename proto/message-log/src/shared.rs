//! What the one writer and the many readers of a log share: the catalogue of its segments, the tree, the keys.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use trave_proto::checkpoint::Checkpoint;
use trave_proto::digest::Digest;

use crate::disk::Disk;
use crate::error::LogError;
use crate::expiry::Expiries;
use crate::index::file::persons::Table;
use crate::index::{Index, MemoryIndex};
use crate::key_ring::KeyRing;
use crate::keys::KeyFiles;
use crate::pseudonyms::PeriodKeys;
use crate::search_index::SearchIndexes;
use crate::segment::LeafEntry;
use crate::tree::Tree;

/// A checkpoint of this log as it was signed, and the timestamp token over it once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: Bytes,
    /// RFC 3161 token (DER) over the SHA-256 of the note.
    pub timestamp: Option<Bytes>,
}

/// What was found, and done, when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Leaves in the log, before the one that says that it was opened.
    pub records: u64,
    /// Bytes of a write that was never acknowledged, overwritten with zeros.
    pub cut_bytes: u64,
    /// Indexes of closed segments that were missing or damaged and were made again.
    pub indexes_rebuilt: u64,
    /// Whether the tree was made again from the leaves.
    pub tree_rebuilt: bool,
    /// Erasures that were done again: those of the last run, in case it was interrupted, and those that could not be
    /// finished at an earlier start.
    pub erasures_redone: u64,
    /// What is wrong but does not keep the log from going on, in words.
    pub warnings: Vec<String>,
}

/// Counts since the log was opened, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) groups: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Counters {
    /// Groups made durable.
    pub fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// Leaves made durable.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Calls of fdatasync for groups and for blocks of keys.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Bytes written to segments.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Shared between the committer and all handles of the log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) keys: KeyFiles,
    pub(crate) key_ring: KeyRing,
    pub(crate) period_keys: PeriodKeys,
    pub(crate) counters: Counters,
    pub(crate) disk_full: AtomicBool,
    pub(crate) poisoned: OnceLock<Arc<str>>,
    pub(crate) search: SearchIndexes,
    /// What schedules have overwritten, as the log says.
    pub(crate) expiries: Expiries,
    /// Held alone while what was replaced is destroyed, and by many while they make files of segments: nobody makes one of
    /// what is gone.
    destroying: RwLock<()>,
    /// Held while a segment's file gets another one's place, or is removed because the archive has it.
    placing: Mutex<()>,
    /// How often something was overwritten inside a segment: what was copied before lacks that.
    pub(crate) overwritten: AtomicU64,
    /// How often a segment was written anew: what was looked up before may be gone.
    rewritten: AtomicU64,
    catalogue: RwLock<Catalogue>,
    last_erasures: Mutex<HashMap<[u8; 16], LastErasure>>,
    /// Of an earlier generation: the exchanges whose erasure stands in a later log.
    erased_elsewhere: Mutex<HashSet<[u8; 16]>>,
    /// Whether it came out of an archive, in which there are no keys of contents.
    restored: AtomicBool,
}

/// The last erasure of an exchange, as far as the log was looked through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LastErasure {
    /// Leaves before this one were looked through.
    pub(crate) looked_to: u64,
    /// Its index.
    pub(crate) index: Option<u64>,
}

/// The segments of the log, and its last checkpoint: only what is durable.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) closed: Vec<Arc<Closed>>,
    pub(crate) open_path: PathBuf,
    pub(crate) open: MemoryIndex,
    pub(crate) checkpoint: Option<SignedCheckpoint>,
}

/// A closed segment. It never changes again, but for contents that are overwritten.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Earliest and latest time of a leaf.
    pub(crate) times: Option<(i64, i64)>,
    pub(crate) path: PathBuf,
    index: RwLock<Arc<dyn Index>>,
    persons: Mutex<Table>,
    pruned: AtomicBool,
    /// Whether the index stands in its file.
    indexed: AtomicBool,
}

impl Closed {
    pub(crate) fn new(
        path: PathBuf,
        first: u64,
        count: u64,
        times: Option<(i64, i64)>,
        index: Arc<dyn Index>,
    ) -> Self {
        Self {
            first,
            count,
            times,
            path,
            index: RwLock::new(index),
            persons: Mutex::new(Table::Unknown),
            pruned: AtomicBool::new(false),
            indexed: AtomicBool::new(false),
        }
    }

    /// With the pseudonyms that stand in it.
    pub(crate) fn with_persons(self, persons: Table) -> Self {
        Self { persons: Mutex::new(persons), ..self }
    }

    /// The pseudonyms in it. Whoever reads or changes them or their file holds this.
    pub(crate) fn persons(&self) -> MutexGuard<'_, Table> {
        self.persons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was pruned: its file is gone, or just going.
    pub(crate) fn is_pruned(&self) -> bool {
        self.pruned.load(Ordering::Acquire)
    }

    pub(crate) fn set_pruned(&self) {
        self.pruned.store(true, Ordering::Release);
    }

    /// What is said of its records when it was pruned.
    pub(crate) fn pruned(&self) -> LogError {
        LogError::Pruned { first: self.first, last: (self.first + self.count).saturating_sub(1) }
    }

    /// The index, wherever it is.
    pub(crate) fn index(&self) -> Arc<dyn Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the index by an equal one that stands in its file.
    pub(crate) fn set_index(&self, index: Arc<dyn Index>) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.indexed.store(true, Ordering::Release);
    }

    /// The same, with an index that stands in its file.
    pub(crate) fn indexed(self) -> Self {
        Self { indexed: AtomicBool::new(true), ..self }
    }

    /// Whether the index stands in its file: until then somebody is about to write it.
    pub(crate) fn is_indexed(&self) -> bool {
        self.indexed.load(Ordering::Acquire)
    }
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        tree: Tree,
        keys: (KeyFiles, KeyRing, PeriodKeys),
        catalogue: Catalogue,
    ) -> Self {
        Self {
            disk,
            dir,
            tree: RwLock::new(tree),
            keys: keys.0,
            key_ring: keys.1,
            period_keys: keys.2,
            counters: Counters::default(),
            disk_full: AtomicBool::new(false),
            poisoned: OnceLock::new(),
            search: SearchIndexes::default(),
            expiries: Expiries::default(),
            destroying: RwLock::default(),
            placing: Mutex::default(),
            overwritten: AtomicU64::new(0),
            rewritten: AtomicU64::new(0),
            catalogue: RwLock::new(catalogue),
            last_erasures: Mutex::default(),
            erased_elsewhere: Mutex::default(),
            restored: AtomicBool::new(false),
        }
    }

    /// The catalogue, for reading; held for moments only, never while the disk works.
    pub(crate) fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a segment was written anew so far.
    pub(crate) fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::Acquire)
    }

    /// What `read` finds; it is asked again where it failed while a segment was written anew.
    pub(crate) fn steady<T>(&self, read: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        let mut before = self.rewritten();
        loop {
            let found = read();
            if found.is_ok() || self.rewritten() == before {
                return found;
            }
            before = self.rewritten();
        }
    }

    /// While this is held, what is made of segments stays.
    pub(crate) fn making(&self) -> RwLockReadGuard<'_, ()> {
        self.destroying.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held, nobody makes anything of segments.
    pub(crate) fn destroying(&self) -> RwLockWriteGuard<'_, ()> {
        self.destroying.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held, every segment's file stays where it is.
    pub(crate) fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this closed segment was neither written anew nor pruned since.
    pub(crate) fn is_current(&self, segment: &Closed) -> bool {
        self.is_here(segment.first, &segment.path)
    }

    /// Whether this is the file of the closed segment that begins with leaf `first`.
    pub(crate) fn is_here(&self, first: u64, path: &Path) -> bool {
        let catalogue = self.catalogue();
        let at = catalogue.closed.binary_search_by_key(&first, |closed| closed.first);
        at.is_ok_and(|at| catalogue.closed[at].path == path && !catalogue.closed[at].is_pruned())
    }

    /// Whether this is, or was, the file of the closed segment that begins with leaf `first`, and if so, whether it was
    /// pruned.
    pub(crate) fn is_place(&self, first: u64, path: &Path) -> Option<bool> {
        let catalogue = self.catalogue();
        let at = catalogue.closed.binary_search_by_key(&first, |closed| closed.first).ok()?;
        (catalogue.closed[at].path == path).then(|| catalogue.closed[at].is_pruned())
    }

    /// Puts a segment that was written anew in the place of the one with the same leaves.
    pub(crate) fn replace(&self, segment: Closed) {
        let mut catalogue = self.catalogue_mut();
        if let Some(place) = catalogue.closed.iter_mut().find(|closed| closed.first == segment.first) {
            *place = Arc::new(segment);
        }
        self.rewritten.fetch_add(1, Ordering::Release);
    }

    /// Whether the index of this closed segment stands in its file.
    #[cfg(test)]
    pub(crate) fn is_indexed(&self, first: u64) -> bool {
        self.catalogue().closed.iter().any(|closed| closed.first == first && closed.is_indexed())
    }

    /// The catalogue, for the committer.
    pub(crate) fn catalogue_mut(&self) -> RwLockWriteGuard<'_, Catalogue> {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last erasures of exchanges that were asked for.
    pub(crate) fn last_erasures(&self) -> MutexGuard<'_, HashMap<[u8; 16], LastErasure>> {
        self.last_erasures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that it came out of an archive.
    pub(crate) fn set_restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }

    /// Whether it came out of an archive.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// Takes note that a later log says that the contents of an exchange were erased here.
    pub(crate) fn note_erased_elsewhere(&self, exchange: [u8; 16]) {
        self.erased_elsewhere.lock().unwrap_or_else(PoisonError::into_inner).insert(exchange);
    }

    /// Whether a later log says so.
    pub(crate) fn is_erased_elsewhere(&self, exchange: &[u8; 16]) -> bool {
        self.erased_elsewhere.lock().unwrap_or_else(PoisonError::into_inner).contains(exchange)
    }

    /// The tree, for reading.
    pub(crate) fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree, for the committer.
    pub(crate) fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the log still takes anything.
    pub(crate) fn healthy(&self) -> Result<(), LogError> {
        match self.poisoned.get() {
            Some(why) => Err(LogError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// Stops the log for good: what the disk holds is unknown until it is opened and read again.
    pub(crate) fn poison(&self, error: LogError) -> LogError {
        let why: Arc<str> = error.in_full().into();
        tracing::error!(error = %why, "the message log stops; it must be opened again");
        LogError::Poisoned(self.poisoned.get_or_init(|| why).clone())
    }

    /// Makes the keys of all slots before `to` durable, where they are not. A failure stops the log: the keys may be taken
    /// already, and a sync is never tried twice.
    pub(crate) fn prepare_keys(&self, to: u64) -> Result<(), LogError> {
        self.key_ring.prepare(to, |first, secrets| {
            self.healthy()?;
            self.keys.write(first, secrets).map_err(|error| self.poison(error))?;
            Counters::add(&self.counters.syncs, 1);
            Ok(())
        })
    }

    /// The root over the first `size` leaves, proved against that over all. If the kept tree is damaged, it is made again.
    pub(crate) fn root(&self, size: u64) -> Result<Digest, LogError> {
        let root = self.tree().root(size);
        match root {
            Err(LogError::Damaged { .. } | LogError::Disk { .. }) => {
                tracing::warn!(size, "the kept tree is damaged and is made again from the leaves");
                self.rebuild_tree()?;
                self.tree().root(size)
            }
            other => other,
        }
    }

    /// Makes the whole tree again from the indexes, in place. The committer waits for it.
    pub(crate) fn rebuild_tree(&self) -> Result<(), LogError> {
        let mut tree = self.tree_mut();
        *tree = self.steady(|| {
            let (closed, open) = {
                let catalogue = self.catalogue();
                (catalogue.closed.clone(), catalogue.open.leaves.clone())
            };
            let first = closed.last().map_or(0, |last| last.first + last.count);
            let mut rebuilt = Tree::create(&self.disk, &self.dir.join(TREE_DIR))?;
            grow(&mut rebuilt, &closed, first, &open)?;
            rebuilt.persist()?;
            Ok(rebuilt)
        })?;
        Ok(())
    }
}

/// The directory of the tree, in that of the log.
pub(crate) const TREE_DIR: &str = "tree";

/// Adds to a tree all leaves that it lacks; `open` are those from `first` on.
pub(crate) fn grow(
    tree: &mut Tree,
    closed: &[Arc<Closed>],
    first: u64,
    open: &[LeafEntry],
) -> Result<(), LogError> {
    let range = tree.size()..first + open.len() as u64;
    hashes((closed, first, open), range, |hash| tree.append(hash))
}

/// Hands over the hashes of the leaves in `range`, from closed segments and from `open`, whose first is `first`.
pub(crate) fn hashes(
    (closed, first, open): (&[Arc<Closed>], u64, &[LeafEntry]),
    range: Range<u64>,
    mut take: impl FnMut(Digest) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for segment in closed {
        let index = segment.index();
        for leaf in range.start.max(segment.first)..range.end.min(segment.first + segment.count) {
            let entry = index.leaf(leaf)?;
            let entry =
                entry.ok_or_else(|| LogError::damaged(&segment.path, 0, "its index is incomplete"))?;
            take(entry.hash)?;
        }
    }
    let at = |leaf: u64| usize::try_from(leaf.saturating_sub(first)).unwrap_or(usize::MAX).min(open.len());
    let (from, to) = (at(range.start), at(range.end));
    open.get(from..to).unwrap_or_default().iter().try_for_each(|leaf| take(leaf.hash))
}
