//! Opening a log, which is the same after a clean stop and after a power cut: read, cut what was never acknowledged, refuse
//! what contradicts a checkpoint.

use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::digest::Digest;

use crate::continuity;
use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::index::file::{self, IndexFile};
use crate::key_ring::KeyRing;
use crate::keys::KeyFiles;
use crate::open_segment::{self, OpenSegment};
use crate::scan::{Extent, Tail, read_closed, read_last};
use crate::segment::{self, SegmentHeader};
use crate::shared::{Catalogue, Closed, Recovered, Shared, TREE_DIR, grow};
use crate::tree::Tree;

/// What the committer begins with.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: OpenSegment,
    pub(crate) recovered: Recovered,
}

/// Opens the log in `dir`, or begins it.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    key: &NoteVerifier,
    (segment_size, key_block): (u64, u64),
) -> Result<Opened, LogError> {
    // All of them before the log's directory is synced: without its entry, what is synced in one of them is lost.
    for made in [SEGMENTS_DIR, KEYS_DIR, TREE_DIR].map(|name| dir.join(name)) {
        disk.create_dir(&made).map_err(LogError::disk("create", &made))?;
    }
    for dir in [dir.parent(), Some(dir)].into_iter().flatten() {
        disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    }
    let mut recovered = Recovered::default();
    // Before the segments: a content that is damaged may be one that is being erased.
    let keys = KeyFiles::new(disk, &dir.join(KEYS_DIR));
    let found = Found::read((disk, &keys), dir, key, segment_size, &mut recovered)?;
    recovered.records = found.open.next();
    let (next_slot, left) = slots(&keys, found.open.next_slot, &mut recovered)?;
    let tree = load_tree(disk, dir, &found, &mut recovered)?;
    let Found { closed, segment, open, unwritten } = found;
    let catalogue = Catalogue { closed, open_path: segment.path.clone(), open, checkpoint: None };
    let keys = (keys, KeyRing::new(next_slot, key_block));
    let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), tree, keys, catalogue));
    recovered.tree_rebuilt |= continuity::check(&shared, key)?;
    write_indexes(&shared, unwritten)?;
    // Last: nothing is overwritten before the log is known to be whole.
    shared.prepare_keys(left)?;
    Ok(Opened { shared, segment, recovered })
}

/// Most key slots that a process leaves behind the last one that the log names: those that it had prepared, and those of
/// exchanges that never came to be logged.
const MAX_LEFT: u64 = 65_536;

/// The slot with which this process begins, and the end of those that earlier ones left: their keys are in no record, but
/// may have encrypted what was cut. They are overwritten before anything else is encrypted. More than a process leaves are
/// kept: then it is segments that are missing, and whoever finds them needs the keys.
fn slots(keys: &KeyFiles, named: u64, recovered: &mut Recovered) -> Result<(u64, u64), LogError> {
    let end = keys.end()?;
    if end.saturating_sub(named) <= MAX_LEFT {
        return Ok((named, end));
    }
    recovered.warnings.push(format!(
        "{} keys of contents follow the last that a record names; they are kept: are segments missing?",
        end - named
    ));
    Ok((end, end))
}

/// Writes the indexes that were made again: after the tree, because a segment that has an index file is not read again for
/// its leaf hashes.
fn write_indexes(shared: &Shared, unwritten: Vec<Unwritten>) -> Result<(), LogError> {
    if !unwritten.is_empty() {
        shared.tree_mut().persist()?;
    }
    for Unwritten { segment, index, chain } in unwritten {
        let path = file::path_of(&segment.path);
        file::write(&*shared.disk, &path, &index, chain)?;
        segment.set_index(Arc::new(IndexFile::open(&shared.disk, &path)?));
    }
    Ok(())
}

/// The directory of the segments, in that of the log.
const SEGMENTS_DIR: &str = "segments";
/// The directory of the keys of contents, in that of the log.
const KEYS_DIR: &str = "keys";

/// The segments on the disk.
struct Found {
    closed: Vec<Arc<Closed>>,
    segment: OpenSegment,
    open: MemoryIndex,
    /// Closed segments whose indexes are to be written, after the tree is durable.
    unwritten: Vec<Unwritten>,
}

struct Unwritten {
    segment: Arc<Closed>,
    index: Arc<MemoryIndex>,
    chain: Digest,
}

impl Found {
    fn read(
        (disk, keys): (&Arc<dyn Disk>, &KeyFiles),
        dir: &Path,
        key: &NoteVerifier,
        segment_size: u64,
        recovered: &mut Recovered,
    ) -> Result<Self, LogError> {
        let origin = Digest::of(key.name().as_bytes());
        let (log, dir) = (dir, &dir.join(SEGMENTS_DIR));
        let mut firsts = list(&**disk, dir)?;
        let Some(last) = firsts.pop() else {
            continuity::must_reach(&**disk, log, key, 0)?;
            let header = SegmentHeader { origin, id: [0; 16], first: 0, chain: random_chain()? };
            let segment = open_segment::begin(&**disk, dir, header, segment_size, None)?;
            let open = MemoryIndex::new(0);
            return Ok(Self { closed: Vec::new(), segment, open, unwritten: Vec::new() });
        };
        let (mut closed, mut unwritten) = (Vec::new(), Vec::new());
        let (mut next, mut chain, mut next_slot) = (0, None, 0);
        for first in firsts {
            let path = dir.join(segment::file_name(first));
            let header = checked_header(&**disk, &path, origin, (first, next, chain))?;
            let (segment, end) = open_closed((disk, keys), &path, header, recovered)?;
            (next, chain, next_slot) = (first + segment.count, Some(end.chain), end.next_slot.max(next_slot));
            let segment = Arc::new(segment);
            if let Some(index) = end.unwritten {
                unwritten.push(Unwritten { segment: segment.clone(), index, chain: end.chain });
            }
            closed.push(segment);
        }
        let path = dir.join(segment::file_name(last));
        let header = checked_header(&**disk, &path, origin, (last, next, chain))?;
        let file = disk.open(&path).map_err(LogError::disk("open", &path))?;
        let read = read_last(&*file, &path, header, keys)?;
        let must_reach = |leaves| continuity::must_reach(&**disk, log, key, leaves);
        recovered.cut_bytes = cut_tail(&*file, &path, (&read.1, read.2), must_reach)?;
        let (mut open, segment) = (read.0, reopen(file, &path, header, read.1)?);
        open.next_slot = open.next_slot.max(next_slot);
        Ok(Self { closed, segment, open, unwritten })
    }
}

/// The first leaves of all segments, ascending. Files that were being prepared are removed.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk.list(dir).map_err(LogError::disk("list", dir))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        disk.remove(&dir.join(name)).map_err(LogError::disk("remove", &dir.join(name)))?;
    }
    // What the system shows may not be on the disk, if an earlier process died between making a file and this.
    disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    let mut firsts: Vec<_> = names.iter().filter_map(|name| segment::first_of(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
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

/// A closed segment by its index file, or by reading it if that is missing or damaged.
fn open_closed(
    (disk, keys): (&Arc<dyn Disk>, &KeyFiles),
    path: &Path,
    header: SegmentHeader,
    recovered: &mut Recovered,
) -> Result<(Closed, End), LogError> {
    if let Ok(index) = IndexFile::open(disk, &file::path_of(path))
        && index.head().first == header.first
    {
        let head = index.head().clone();
        let end = End { chain: head.chain, next_slot: head.next_slot, unwritten: None };
        return Ok((Closed::new(path.to_owned(), head.first, head.count, head.times, Arc::new(index)), end));
    }
    recovered.indexes_rebuilt += 1;
    let (index, chain) = read_closed(&**disk, path, header, keys)?;
    let (count, times, next_slot) = (index.leaves.len() as u64, index.times(), index.next_slot);
    let index = Arc::new(index);
    let closed = Closed::new(path.to_owned(), header.first, count, times, index.clone());
    Ok((closed, End { chain, next_slot, unwritten: Some(index) }))
}

/// Cuts what follows the last whole group, if it is the rest of a write; says how many bytes. A write that was never
/// acknowledged is in no checkpoint: `must_reach` is asked first, so that what was given away is never cut.
fn cut_tail(
    file: &dyn DiskFile,
    path: &Path,
    (extent, tail): (&Extent, Tail),
    must_reach: impl FnOnce(u64) -> Result<(), LogError>,
) -> Result<u64, LogError> {
    if let Tail::GroupsBeyond { at } = tail {
        let why = extent.torn.as_deref().unwrap_or("zeros");
        let what = format!("{why}, but a whole group follows at byte {at}");
        return Err(LogError::damaged(path, extent.end, what));
    }
    must_reach(extent.next)?;
    let Tail::Torn { to } = tail else { return Ok(0) };
    let bytes = to - extent.end;
    tracing::warn!(path = %path.display(), bytes, "cut the rest of a write that was never acknowledged");
    fill_zeros(file, extent.end, to).map_err(LogError::disk("cut", path))?;
    Ok(bytes)
}

/// Makes ready for writing the segment that was last written to. Writes the last group again, since after a failed sync of
/// an earlier process the system may show bytes that the disk does not have.
fn reopen(
    file: Arc<dyn DiskFile>,
    path: &Path,
    header: SegmentHeader,
    extent: Extent,
) -> Result<OpenSegment, LogError> {
    let mut last = vec![0; usize::try_from(extent.end - extent.last_group).unwrap_or(0)];
    file.read_exact_at(&mut last, extent.last_group).map_err(LogError::disk("read", path))?;
    file.write_all_at(&last, extent.last_group).map_err(LogError::disk("write", path))?;
    file.sync().map_err(LogError::disk("sync", path))?;
    let capacity = file.len().map_err(LogError::disk("read", path))?;
    let Extent { end, chain, .. } = extent;
    Ok(OpenSegment { file, path: path.to_owned(), header, end, capacity, chain })
}

/// The tree as it was kept when the first segment without an index file began, and the leaves from there; or all of it made
/// again.
fn load_tree(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    found: &Found,
    recovered: &mut Recovered,
) -> Result<Tree, LogError> {
    let from = found.unwritten.first().map_or(found.open.first, |first| first.segment.first);
    let kept = Tree::load(disk, &dir.join(TREE_DIR), from)?;
    recovered.tree_rebuilt = kept.is_none();
    let mut tree = match kept {
        Some(tree) => tree,
        None => Tree::create(disk, &dir.join(TREE_DIR))?,
    };
    grow(&mut tree, &found.closed, found.open.first, &found.open.leaves)?;
    if recovered.tree_rebuilt {
        tree.persist()?;
    }
    Ok(tree)
}
