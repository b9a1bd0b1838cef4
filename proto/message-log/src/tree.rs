//! The Merkle tree over all leaves (RFC 6962), kept so that any root and any path costs a few small reads.
//!
//! File `level-0` holds the hashes of the leaves, 32 bytes each; `level-1` the roots of every 256 of them, and so on:
//! the hash at position i of level l is the root of the complete subtree over 256^l leaves (the tiles of
//! <https://c2sp.org/tlog-tiles>, laid end to end). All of it can be made again from the segments. The roots of the complete
//! subtrees at the right edge are in memory too, so that what is signed never comes from these files alone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trave_proto::digest::Digest;
use trave_proto::tree::{Tile, node_hash};

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;

const TILE: usize = 256;
const TILE_HEIGHT: u32 = 8;

/// The tree, growing at its right edge. Memory: one unfinished tile per level.
#[derive(Debug)]
pub(crate) struct Tree {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    edge: Edge,
    levels: Vec<Level>,
}

/// The right edge of a tree: the roots of its complete subtrees, largest first (RFC 6962 section 2.1). It can only grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    size: u64,
    roots: Vec<Digest>,
}

#[derive(Debug)]
struct Level {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Not yet durable for the first time: the file still has another name, so that nobody trusts it after a crash.
    temporary: bool,
    /// Hashes in full tiles, all of which are in the file.
    full: u64,
    /// The unfinished tile.
    tile: Vec<Digest>,
}

impl Tree {
    /// An empty tree in `dir`. The files of an earlier one are removed.
    pub(crate) fn create(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        disk.create_dir(dir).map_err(LogError::disk("create", dir))?;
        for name in disk.list(dir).map_err(LogError::disk("list", dir))? {
            let path = dir.join(name);
            disk.remove(&path).map_err(LogError::disk("remove", &path))?;
        }
        disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
        Ok(Self { disk: disk.clone(), dir: dir.to_owned(), edge: Edge::default(), levels: Vec::new() })
    }

    /// The tree over the first `size` leaves as it was kept; none if the files do not hold that much.
    pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path, size: u64) -> Result<Option<Self>, LogError> {
        if size == 0 {
            return Self::create(disk, dir).map(Some);
        }
        let mut levels = Vec::new();
        let mut count = size;
        while count > 0 {
            let path = dir.join(format!("level-{}", levels.len()));
            let Ok(file) = disk.open(&path) else { return Ok(None) };
            let len = file.len().map_err(LogError::disk("read", &path))?;
            if len / (Digest::LEN as u64) < count {
                return Ok(None);
            }
            let full = count - count % TILE as u64;
            let mut level = Level { file, path, temporary: false, full, tile: Vec::new() };
            level.tile = level.read(full, count - full)?;
            levels.push(level);
            count /= TILE as u64;
        }
        let mut tree = Self { disk: disk.clone(), dir: dir.to_owned(), edge: Edge::default(), levels };
        tree.edge = tree.edge_at(size)?;
        Ok(Some(tree))
    }

    /// Number of leaves.
    pub(crate) const fn size(&self) -> u64 {
        self.edge.size
    }

    /// Adds a leaf, given as its hash.
    pub(crate) fn append(&mut self, leaf: Digest) -> Result<(), LogError> {
        self.edge.push(leaf);
        let mut next = Some(leaf);
        let mut at = 0;
        while let Some(hash) = next {
            if at == self.levels.len() {
                self.levels.push(Level::create(&*self.disk, &self.dir, at)?);
            }
            next = self.levels[at].push(hash)?;
            at += 1;
        }
        Ok(())
    }

    /// Makes all of it durable.
    pub(crate) fn persist(&mut self) -> Result<(), LogError> {
        for level in &self.levels {
            level.write(&level.tile)?;
            level.file.sync().map_err(LogError::disk("sync", &level.path))?;
        }
        for level in self.levels.iter_mut().filter(|level| level.temporary) {
            let from = level.path.with_extension("tmp");
            self.disk.rename(&from, &level.path).map_err(LogError::disk("rename", &from))?;
            level.temporary = false;
        }
        self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))
    }

    /// The hash of leaf `index`, as it is kept.
    pub(crate) fn leaf(&self, index: u64) -> Result<Digest, LogError> {
        self.within(index + 1)?;
        self.node(0, index)
    }

    /// The root over all leaves, from memory.
    pub(crate) fn head(&self) -> Digest {
        self.edge.root()
    }

    /// The root over the first `size` leaves. It is proved against the root over all leaves before it is given out, by the
    /// same hashes that a consistency proof (RFC 6962 section 2.1.2) would name.
    pub(crate) fn root(&self, size: u64) -> Result<Digest, LogError> {
        self.within(size)?;
        if size == self.size() {
            return Ok(self.head());
        }
        if size == 0 {
            return Ok(Digest::of(b""));
        }
        if self.cut_at(size, 0, self.size())? != self.head() {
            return Err(LogError::damaged(&self.dir, 0, "the kept hashes do not give the root"));
        }
        self.range(0, size)
    }

    /// The right edge as it was at `size`, from the files: whoever goes on from it must know its root from elsewhere.
    pub(crate) fn edge_at(&self, size: u64) -> Result<Edge, LogError> {
        let (mut edge, mut start) = (Edge { size, roots: Vec::new() }, 0);
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            edge.roots.push(self.node(height, start >> height)?);
            start += 1 << height;
        }
        Ok(edge)
    }

    fn within(&self, size: u64) -> Result<(), LogError> {
        if size > self.size() {
            return Err(LogError::OutOfRange { asked: size, size: self.size() });
        }
        Ok(())
    }

    /// The root over `len` leaves from `start`, computed from subtrees of which none lies across leaf `cut`.
    fn cut_at(&self, cut: u64, start: u64, len: u64) -> Result<Digest, LogError> {
        if cut <= start || start + len <= cut {
            return self.range(start, len);
        }
        let left = split(len);
        Ok(node_hash(&self.cut_at(cut, start, left)?, &self.cut_at(cut, start + left, len - left)?))
    }

    /// The audit path of leaf `index` in the tree over the first `size` leaves, nearest sibling first.
    pub(crate) fn path(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        self.within(size)?;
        if index >= size {
            return Err(LogError::OutOfRange { asked: index, size });
        }
        let (mut start, mut len, mut path) = (0, size, Vec::new());
        while len > 1 {
            let left = split(len);
            if index < start + left {
                path.push(self.range(start + left, len - left)?);
                len = left;
            } else {
                path.push(self.range(start, left)?);
                (start, len) = (start + left, len - left);
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The proof that the tree over the first `size` leaves continues the one over the first `old` (RFC 6962 section 2.1.2).
    /// Empty where there is nothing to prove.
    pub(crate) fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        self.within(size)?;
        if old > size {
            return Err(LogError::OutOfRange { asked: old, size });
        }
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let (mut start, mut len, mut proof) = (0, size, Vec::new());
        while old < start + len {
            let left = split(len);
            if old <= start + left {
                proof.push(self.range(start + left, len - left)?);
                len = left;
            } else {
                proof.push(self.range(start, left)?);
                (start, len) = (start + left, len - left);
            }
        }
        // The root of the whole old tree is what the verifier has; of a part of it, it is not.
        if start > 0 {
            proof.push(self.range(start, len)?);
        }
        proof.reverse();
        Ok(proof)
    }

    /// The hashes of a tile, as they are kept.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Vec<Digest>, LogError> {
        let index = tile.index().saturating_mul(TILE as u64);
        let level = self.levels.get(usize::from(tile.level()));
        let level = level.ok_or(LogError::OutOfRange { asked: index, size: self.size() })?;
        level.read(index, tile.width().into())
    }

    /// The root over `len` leaves from `start`, computed by way of the hashes of a tile, which stand over the leaves `under`
    /// them, all of which there are.
    pub(crate) fn through(
        &self,
        (under, hashes): (&Range<u64>, &[Digest]),
        start: u64,
        len: u64,
    ) -> Result<Digest, LogError> {
        if under.end <= start || start + len <= under.start {
            return self.range(start, len);
        }
        // A complete subtree of the tree is one of every larger tree: halving leads to it.
        let one = (under.end - under.start) / hashes.len().max(1) as u64;
        if len <= one {
            let at = usize::try_from((start - under.start) / one).unwrap_or(usize::MAX);
            return hashes.get(at).copied().ok_or(LogError::OutOfRange { asked: start, size: self.size() });
        }
        let left = split(len);
        let whole = (under, hashes);
        Ok(node_hash(&self.through(whole, start, left)?, &self.through(whole, start + left, len - left)?))
    }

    /// The root over `len` leaves from `start`, which is a multiple of the largest power of two up to `len`.
    fn range(&self, start: u64, len: u64) -> Result<Digest, LogError> {
        if len.is_power_of_two() {
            let height = len.trailing_zeros();
            return self.node(height, start >> height);
        }
        let left = split(len);
        Ok(node_hash(&self.range(start, left)?, &self.range(start + left, len - left)?))
    }

    /// The root of the complete subtree number `index` of 2^height leaves.
    fn node(&self, height: u32, index: u64) -> Result<Digest, LogError> {
        let within = height % TILE_HEIGHT;
        let level = usize::try_from(height / TILE_HEIGHT).unwrap_or(usize::MAX);
        let level = self.levels.get(level).ok_or(LogError::OutOfRange { asked: index, size: self.size() })?;
        Ok(trave_proto::tree::root(&level.read(index << within, 1 << within)?))
    }
}

impl Edge {
    /// Adds a leaf, given as its hash.
    pub(crate) fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        // One complete subtree is joined for every trailing one in the number of leaves.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.roots.push(node);
        self.size += 1;
    }

    /// The edge of a tree of `size` leaves, from the roots of its complete subtrees; none if these are not as many as it has.
    pub(crate) fn from_roots(size: u64, roots: Vec<Digest>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// The roots of the complete subtrees, largest first.
    pub(crate) fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// Number of leaves.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves.
    pub(crate) fn root(&self) -> Digest {
        let joined = self.roots.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        joined.unwrap_or_else(|| Digest::of(b""))
    }
}

impl Level {
    fn create(disk: &dyn Disk, dir: &Path, number: usize) -> Result<Self, LogError> {
        let path = dir.join(format!("level-{number}"));
        let temporary = path.with_extension("tmp");
        let file = disk.create(&temporary).map_err(LogError::disk("create", &temporary))?;
        Ok(Self { file, path, temporary: true, full: 0, tile: Vec::with_capacity(TILE) })
    }

    /// Adds a hash; the root of the tile if this completes it.
    fn push(&mut self, hash: Digest) -> Result<Option<Digest>, LogError> {
        self.tile.push(hash);
        if self.tile.len() < TILE {
            return Ok(None);
        }
        self.write(&self.tile)?;
        let root = trave_proto::tree::root(&self.tile);
        self.full += TILE as u64;
        self.tile.clear();
        Ok(Some(root))
    }

    fn write(&self, hashes: &[Digest]) -> Result<(), LogError> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let offset = self.full * Digest::LEN as u64;
        self.file.write_all_at(&bytes, offset).map_err(LogError::disk("write", &self.path))
    }

    /// `count` hashes from position `first`, from memory where they are not yet in the file.
    fn read(&self, first: u64, count: u64) -> Result<Vec<Digest>, LogError> {
        let out_of_range = || LogError::OutOfRange { asked: first + count, size: self.full };
        if first >= self.full && !self.tile.is_empty() {
            let from = usize::try_from(first - self.full).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
            return Ok(self.tile.get(from..to).ok_or_else(out_of_range)?.to_vec());
        }
        let len = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(Digest::LEN);
        let mut bytes = vec![0; len];
        let offset = first * Digest::LEN as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(LogError::disk("read", &self.path))?;
        Ok(bytes.chunks_exact(Digest::LEN).filter_map(Digest::from_slice).collect())
    }
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

#[cfg(test)]
mod tests;
