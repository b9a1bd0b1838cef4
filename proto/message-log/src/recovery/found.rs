//! The segments of a log as a start finds them: read in their order, each held against the one before, and nothing changed
//! yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::checkpoint::{Checkpoint, NoteVerifier};
use trave_proto::digest::Digest;

use super::listing::{Listed, Named, SEGMENTS_DIR, list};
use super::{Doubtful, Terms};
use crate::concerned;
use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::index::file::persons::Table;
use crate::index::file::{self, IndexFile};
use crate::keys::KeyFiles;
use crate::open_segment::{self, OpenSegment};
use crate::remnant::Remnant;
use crate::scan::{Extent, Tail, read_closed, read_last};
use crate::segment::SegmentHeader;
use crate::shared::{Closed, TREE_DIR, hashes};
use crate::tree::{Edge, Tree};

/// The segments on the disk, as they were read: nothing is changed yet.
pub(super) struct Found {
    pub(super) closed: Vec<Arc<Closed>>,
    /// The segment that was written to; none in a log that has not begun.
    pub(super) last: Option<Last>,
    pub(super) origin: Digest,
    pub(super) open: MemoryIndex,
    /// Closed segments whose indexes are to be written, after the tree is durable.
    pub(super) unwritten: Vec<Unwritten>,
    /// Segments that were written anew, as they were before: a crash came before they were overwritten.
    pub(super) replaced: Vec<PathBuf>,
    /// What is taken for pruned only if a statement says that it was.
    pub(super) doubtful: Vec<Doubtful>,
}

pub(super) struct Unwritten {
    pub(super) segment: Arc<Closed>,
    pub(super) index: Arc<MemoryIndex>,
    pub(super) chain: Digest,
}

/// The segment that was last written to.
pub(super) struct Last {
    file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    header: SegmentHeader,
    extent: Extent,
    tail: Tail,
}

impl Found {
    pub(super) fn read(
        (disk, keys): (&Arc<dyn Disk>, &KeyFiles),
        dir: &Path,
        key: &NoteVerifier,
    ) -> Result<Self, LogError> {
        let origin = Digest::of(key.name().as_bytes());
        let dir = &dir.join(SEGMENTS_DIR);
        let Listed { mut segments, replaced, displaced } = list(&**disk, dir)?;
        let (mut closed, mut unwritten, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
        let Some(last) = segments.pop() else {
            let open = MemoryIndex::new(0);
            return Ok(Self { closed, last: None, origin, open, unwritten, replaced: Vec::new(), doubtful });
        };
        let (mut next, mut chain, mut next_slot) = (0, None, 0);
        for Named { first, name, pruned } in segments {
            let path = dir.join(&name);
            if pruned {
                let (segment, end, damage) = open_pruned(disk, &path, (first, next))?;
                (next, chain, next_slot) =
                    (first + segment.count, Some(end.chain), end.next_slot.max(next_slot));
                let segment = Arc::new(segment);
                let before = displaced.iter().filter(|(of, _)| *of == first).map(|(_, name)| dir.join(name));
                doubtful.extend(damage.map(|why| Doubtful::damaged(&segment, why)));
                doubtful.extend(before.map(|before| Doubtful::displaced(&segment, before)));
                closed.push(segment);
                continue;
            }
            let header = checked_header(&**disk, &path, origin, (first, next, chain))?;
            // Where the one that it replaced is still there, it is read from end to end before that is given up.
            if replaced.iter().any(|(of, _)| *of == first) {
                read_closed(&**disk, &path, header, keys)?;
            }
            let (segment, end) = open_closed((disk, keys), &path, header)?;
            (next, chain, next_slot) = (first + segment.count, Some(end.chain), end.next_slot.max(next_slot));
            let segment = Arc::new(segment);
            if let Some(index) = end.unwritten {
                unwritten.push(Unwritten { segment: segment.clone(), index, chain: end.chain });
            }
            closed.push(segment);
        }
        let path = dir.join(last.name);
        let header = checked_header(&**disk, &path, origin, (last.first, next, chain))?;
        let file = disk.open(&path).map_err(LogError::disk("open", &path))?;
        let (mut open, extent, tail) = read_last(&*file, &path, header, keys)?;
        open.next_slot = open.next_slot.max(next_slot);
        let last = Last { file, path, header, extent, tail };
        last.must_be_whole()?;
        let replaced = replaced.into_iter().map(|(_, name)| dir.join(name)).collect();
        Ok(Self { closed, last: Some(last), origin, open, unwritten, replaced, doubtful })
    }

    /// Number of whole leaves.
    pub(super) fn next(&self) -> u64 {
        self.open.next()
    }

    /// The size of the tree that is kept.
    pub(super) fn kept(&self) -> u64 {
        self.unwritten.first().map_or(self.open.first, |first| first.segment.first)
    }

    /// Whether the first `size` leaves have this root: by the tree that is kept, and where that says otherwise, by the
    /// leaves alone.
    pub(super) fn has_root(
        &self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        given: &Checkpoint,
    ) -> Result<bool, LogError> {
        let kept = self.kept().min(given.size);
        let edge =
            (kept > 0).then(|| Tree::load(disk, &dir.join(TREE_DIR), self.kept())).transpose()?.flatten();
        let edge = edge.and_then(|tree| tree.edge_at(kept).ok()).unwrap_or_default();
        Ok(self.root_from(edge.clone(), given.size)? == given.root
            || edge.size() > 0 && self.root_from(Edge::default(), given.size)? == given.root)
    }

    pub(super) fn root_from(&self, mut edge: Edge, size: u64) -> Result<Digest, LogError> {
        hashes((&self.closed, self.open.first, &self.open.leaves), edge.size()..size, |hash| {
            edge.push(hash);
            Ok(())
        })?;
        Ok(edge.root())
    }

    /// Makes ready for writing: cuts what was never acknowledged, or begins the first segment. Says how many bytes were cut.
    pub(super) fn take_up(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        terms: &Terms<'_>,
    ) -> Result<(OpenSegment, u64), LogError> {
        let Some(last) = &self.last else {
            let (origin, chain) = (self.origin, random_chain()?);
            let header = SegmentHeader { origin, id: [0; 16], first: 0, chain, compact: None };
            return Ok((open_segment::begin(disk, dir, header, terms.segment_size, None)?, 0));
        };
        let cut = last.cut_tail()?;
        Ok((last.reopen()?, cut))
    }
}

/// With what the chain of a new log begins.
fn random_chain() -> Result<Digest, LogError> {
    let mut bytes = [0; 32];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| LogError::Refused("the system gives no random numbers"))?;
    Ok(Digest::from_bytes(bytes))
}

/// Reads the header of a segment and checks that it continues the one before: `(first in the name, next leaf, chain)`.
fn checked_header(
    disk: &dyn Disk,
    path: &Path,
    origin: Digest,
    (first, next, chain): (u64, u64, Option<Digest>),
) -> Result<SegmentHeader, LogError> {
    let file = disk.open(path).map_err(LogError::disk("open", path))?;
    let header = SegmentHeader::read(&*file, path)?;
    if header.origin != origin {
        let (expected, found) = (origin.short(), header.origin.short());
        return Err(LogError::OtherOrigin { path: path.to_owned(), expected, found });
    }
    if header.first != first || first != next {
        return Err(LogError::damaged(
            path,
            0,
            format!("it begins with leaf {first}, but {next} is the next"),
        ));
    }
    if chain.is_some_and(|chain| chain != header.chain) {
        return Err(LogError::damaged(path, 0, "it does not continue the segment before it"));
    }
    Ok(header)
}

/// Where a closed segment ends.
struct End {
    chain: Digest,
    next_slot: u64,
    /// Its index, if it had to be made again and is not yet in a file.
    unwritten: Option<Arc<MemoryIndex>>,
}

/// A pruned segment, by its index file and what is kept of it: `(first in the name, next leaf)`. Where the latter is damaged,
/// the log is read all the same: what needs it is refused, and says why.
fn open_pruned(
    disk: &Arc<dyn Disk>,
    path: &Path,
    (first, next): (u64, u64),
) -> Result<(Closed, End, Option<LogError>), LogError> {
    let index = IndexFile::open(disk, &file::path_of(path))?;
    let head = index.head().clone();
    if head.first != first || first != next {
        let what = format!(
            "the index of the pruned segment {first} does not belong to it, or {next} is the next leaf"
        );
        return Err(LogError::damaged(&file::path_of(path), 0, what));
    }
    let damage = match Remnant::open(&**disk, path) {
        Ok(kept) if kept.is_of(first, head.count) => None,
        Ok(kept) => Some(LogError::damaged(&kept.path, 0, "it is of another segment")),
        Err(error) if error.is_damage() => Some(error),
        Err(error) => return Err(error),
    };
    let end = End { chain: head.chain, next_slot: head.next_slot, unwritten: None };
    let segment = Closed::new(path.to_owned(), head.first, head.count, head.times, Arc::new(index));
    let segment = segment.with_persons(concerned::at_start(disk, path, &head)).indexed();
    segment.set_pruned();
    Ok((segment, end, damage))
}

/// A closed segment by its index file, or by reading it if that is missing or damaged.
fn open_closed(
    (disk, keys): (&Arc<dyn Disk>, &KeyFiles),
    path: &Path,
    header: SegmentHeader,
) -> Result<(Closed, End), LogError> {
    if let Ok(index) = IndexFile::open(disk, &file::path_of(path))
        && index.head().first == header.first
    {
        let head = index.head().clone();
        let end = End { chain: head.chain, next_slot: head.next_slot, unwritten: None };
        let persons = concerned::at_start(disk, path, &head);
        let closed = Closed::new(path.to_owned(), head.first, head.count, head.times, Arc::new(index));
        return Ok((closed.with_persons(persons).indexed(), end));
    }
    let (mut index, chain) = read_closed(&**disk, path, header, keys)?;
    let persons = Table::Memory(std::mem::take(&mut index.persons));
    let (count, times, next_slot) = (index.leaves.len() as u64, index.times(), index.next_slot);
    let index = Arc::new(index);
    let closed = Closed::new(path.to_owned(), header.first, count, times, index.clone());
    Ok((closed.with_persons(persons), End { chain, next_slot, unwritten: Some(index) }))
}

impl Last {
    /// Refuses bytes after the last whole group that are no torn write.
    fn must_be_whole(&self) -> Result<(), LogError> {
        let Tail::GroupsBeyond { at } = self.tail else { return Ok(()) };
        let why = self.extent.torn.as_deref().unwrap_or("zeros");
        let what = format!("{why}, but a whole group follows at byte {at}");
        Err(LogError::damaged(&self.path, self.extent.end, what))
    }

    /// Cuts what follows the last whole group: the rest of a write that was never acknowledged, and so is in nothing that
    /// was given away. Says how many bytes.
    pub(super) fn cut_tail(&self) -> Result<u64, LogError> {
        let (Tail::Torn { to }, end) = (self.tail, self.extent.end) else { return Ok(0) };
        let bytes = to - end;
        tracing::warn!(path = %self.path.display(), bytes, "cut the rest of a write that was never acknowledged");
        fill_zeros(&*self.file, end, to).map_err(LogError::disk("cut", &self.path))?;
        Ok(bytes)
    }

    /// Makes ready for writing. Writes the last group again, since after a failed sync of an earlier process the system may
    /// show bytes that the disk does not have.
    fn reopen(&self) -> Result<OpenSegment, LogError> {
        let Self { file, path, header, extent, .. } = self;
        let mut last = vec![0; usize::try_from(extent.end - extent.last_group).unwrap_or(0)];
        file.read_exact_at(&mut last, extent.last_group).map_err(LogError::disk("read", path))?;
        file.write_all_at(&last, extent.last_group).map_err(LogError::disk("write", path))?;
        file.sync().map_err(LogError::disk("sync", path))?;
        let capacity = file.len().map_err(LogError::disk("read", path))?;
        let (file, path) = (file.clone(), path.clone());
        Ok(OpenSegment { file, path, header: *header, end: extent.end, capacity, chain: extent.chain })
    }
}
