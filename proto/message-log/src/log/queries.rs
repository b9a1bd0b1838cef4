//! What can be asked of an open log: its records, its tree, its state. Nothing here waits for the one who writes.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Attachment, Leaf};
use trave_proto::tree::{Head, Tile, is_consistent, root_from_path};

use super::Log;
use crate::check::{self, Report};
use crate::continuity;
use crate::error::LogError;
use crate::finding;
use crate::reading::{self, StoredRecord};
use crate::schedule::{self, PrunedRecord};
use crate::shared::{SignedCheckpoint, TREE_DIR};

impl Log {
    /// All records about an exchange, in order: messages, its end, refusals, erasures. All contents at once:
    /// for a long stream, take one record after the other from its [`Log::places`]. Reads the disk.
    pub fn exchange(&self, exchange: ExchangeId) -> Result<Vec<StoredRecord>, LogError> {
        let indexes = self.places(exchange)?;
        indexes.into_iter().map(|index| reading::record(&self.0.shared, index)).collect()
    }

    /// The places of all records about an exchange, in order. Reads the indexes alone.
    pub fn places(&self, exchange: ExchangeId) -> Result<Vec<u64>, LogError> {
        self.0.shared.steady(|| finding::of_exchange(&self.0.shared, exchange.as_bytes(), 0))
    }

    /// The leaf at `index`, without what stands beside it: however much the contents are, this is small. Reads the disk.
    pub fn leaf(&self, index: u64) -> Result<Leaf, LogError> {
        let shared = &self.0.shared;
        shared.steady(|| reading::locate(shared, index)?.read().map(|raw| raw.leaf))
    }

    /// The leaf at `index`, and the bytes that were hashed. Reads the disk.
    pub fn leaf_bytes(&self, index: u64) -> Result<(Leaf, Bytes), LogError> {
        let shared = &self.0.shared;
        shared.steady(|| reading::locate(shared, index)?.read().map(|raw| (raw.leaf, raw.leaf_bytes)))
    }

    /// The hash of the leaf at `index` in the tree, also where the leaf itself is no more, or cannot be read. Reads the index,
    /// and the kept tree where that cannot be read; then it is verified by whoever has a root.
    pub fn leaf_hash(&self, index: u64) -> Result<Digest, LogError> {
        let shared = &self.0.shared;
        match shared.steady(|| finding::entry(shared, index)) {
            Ok((entry, _)) => Ok(entry.hash),
            Err(error) => shared.tree().leaf(index).map_err(|_| error),
        }
    }

    /// What is known here of a record that was pruned; none if it is here, or has expired. Reads the disk.
    pub fn pruned(&self, index: u64) -> Result<Option<PrunedRecord>, LogError> {
        let shared = &self.0.shared;
        shared.steady(|| schedule::pruned_record(shared, index))
    }

    /// The record at `index`. Reads the disk.
    pub fn record(&self, index: u64) -> Result<StoredRecord, LogError> {
        reading::record(&self.0.shared, index)
    }

    /// The leaf at `index`, the bytes that were hashed, and what stands beside it. Its content is neither read nor decrypted.
    /// Reads the disk.
    pub fn signed(&self, index: u64) -> Result<(Leaf, Bytes, Attachment), LogError> {
        let shared = &self.0.shared;
        let raw = shared.steady(|| reading::locate(shared, index)?.read())?;
        Ok((raw.leaf, raw.leaf_bytes, raw.attachment))
    }

    /// An artefact by its digest; none if no segment holds it. Reads the disk.
    pub fn artefact(&self, digest: &Digest) -> Result<Option<Bytes>, LogError> {
        reading::artefact(&self.0.shared, digest)
    }

    /// The records from `from` to the last that is durable now, one at a time, without those that have expired. Reads the
    /// disk.
    pub fn scan(&self, from: u64) -> impl Iterator<Item = Result<StoredRecord, LogError>> + use<> {
        let shared = self.0.shared.clone();
        let records = (from..self.size()).map(move |index| reading::record(&shared, index));
        records.filter(|record| !matches!(record, Err(LogError::Expired { .. })))
    }

    /// The records of one [`kind`] from `from` on. Only these are read. Those that were pruned, and on which no state rests, are
    /// left out.
    pub fn scan_kind(
        &self,
        kind: u8,
        from: u64,
    ) -> impl Iterator<Item = Result<StoredRecord, LogError>> + use<> {
        let shared = self.0.shared.clone();
        let (places, failed) = match shared.steady(|| finding::of_kind(&shared, kind, from)) {
            Ok(places) => (places, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        let records = places.into_iter().map(move |index| reading::record(&shared, index));
        let left_out = |error: &LogError| matches!(error, LogError::Pruned { .. } | LogError::Expired { .. });
        failed.into_iter().chain(records.filter(move |record| !record.as_ref().is_err_and(left_out)))
    }

    /// The exchanges with a record since `since`, each once: what must not be accepted again. Reads the indexes alone.
    pub fn tail_ids(&self, since: Time) -> Result<Vec<ExchangeId>, LogError> {
        self.0.shared.steady(|| finding::tail_ids(&self.0.shared, since))
    }

    /// The places and [`kind`]s of the records from `from` on about exchanges that began in `begun`, by the time in their ids
    /// (UUIDv7). `early` is how much older than its exchange's id a record may be: clocks differ. Reads the indexes alone.
    pub fn begun_in(
        &self,
        begun: Range<Time>,
        from: u64,
        early: Duration,
    ) -> impl Iterator<Item = Result<(u64, ExchangeId, u8), LogError>> + use<> {
        finding::begun_in(&self.0.shared, begun, (from, self.size()), early)
    }

    /// Leaves that are durable.
    pub fn size(&self) -> u64 {
        self.0.shared.catalogue().open.next()
    }

    /// The last checkpoint, with its timestamp token if there is one.
    pub fn latest_checkpoint(&self) -> Option<SignedCheckpoint> {
        self.0.shared.catalogue().checkpoint.clone()
    }

    /// The last checkpoint that has a timestamp token; there may be later ones without. Reads the disk.
    pub fn last_stamped(&self) -> Result<Option<SignedCheckpoint>, LogError> {
        continuity::last_stamped(&self.0.shared, &self.0.verifier)
    }

    /// The audit path of leaf `index` in the tree over the first `size` leaves (RFC 6962 section 2.1.1). It is verified
    /// before it is given out; if the kept tree is damaged, it is made again from the leaves.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let shared = &self.0.shared;
        let leaf = shared.steady(|| finding::entry(shared, index))?.0.hash;
        if index >= size || size > self.size() {
            return Err(LogError::OutOfRange { asked: index.max(size), size: self.size() });
        }
        self.proved(|| {
            let root = shared.root(size)?;
            let path = shared.tree().path(index, size)?;
            Ok((root_from_path(&leaf, index, size, &path) == Some(root)).then_some(path))
        })
    }

    /// The proof that the log at `size` leaves continues what it was at `old` (RFC 6962 section 2.1.2). It is verified before
    /// it is given out; if the kept tree is damaged, it is made again from the leaves.
    pub fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let shared = &self.0.shared;
        if old > size || size > self.size() {
            return Err(LogError::OutOfRange { asked: old.max(size), size: self.size() });
        }
        self.proved(|| {
            let head = |size| Ok(Head { size, root: shared.root(size)? });
            let proof = shared.tree().consistency(old, size)?;
            Ok(is_consistent(&head(old)?, &head(size)?, &proof).then_some(proof))
        })
    }

    /// The hashes of a tile of the tree over the first `size` leaves (C2SP tlog-tiles); none where these are not as many. They
    /// are verified before they are given out; if the kept tree is damaged, it is made again from the leaves.
    pub fn tile(&self, tile: &Tile, size: u64) -> Result<Option<Vec<Digest>>, LogError> {
        let shared = &self.0.shared;
        if size > self.size() {
            return Err(LogError::OutOfRange { asked: size, size: self.size() });
        }
        let Some(under) = tile.leaves().filter(|under| under.end <= size) else { return Ok(None) };
        let made = self.proved(|| {
            let root = shared.root(size)?;
            let tree = shared.tree();
            let hashes = tree.tile(tile)?;
            Ok((tree.through((&under, &hashes), 0, size)? == root).then_some(hashes))
        });
        made.map(Some)
    }

    /// What `make` makes of the kept tree; if that does not hold, of the tree made again from the leaves.
    fn proved<T>(&self, make: impl Fn() -> Result<Option<T>, LogError>) -> Result<T, LogError> {
        let shared = &self.0.shared;
        if let Some(made) = make()? {
            return Ok(made);
        }
        tracing::warn!("the kept tree is damaged and is made again from the leaves");
        shared.rebuild_tree()?;
        make()?.ok_or_else(|| {
            LogError::damaged(&shared.dir.join(TREE_DIR), 0, "the tree does not agree with the leaves")
        })
    }

    /// The root over the first `size` leaves.
    pub fn root(&self, size: u64) -> Result<Digest, LogError> {
        self.0.shared.root(size)
    }

    /// Reads everything and says what is wrong. Takes as long as reading all segments does; exchanges go on meanwhile.
    pub fn check(&self) -> Report {
        check::check(&self.0.shared, &self.0.verifier)
    }
}
