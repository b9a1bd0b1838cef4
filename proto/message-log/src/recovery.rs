//! Opening a log, which is the same after a clean stop and after a power cut: read, cut what was never acknowledged, refuse
//! what contradicts a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::checkpoint::{Checkpoint, NoteVerifier};
use trave_proto::digest::Digest;

use crate::compaction;
use crate::concerned;
use crate::continuity::{self, Given};
use crate::disk::{Disk, DiskFile, RealDisk, fill_zeros};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::index::file::persons::Table;
use crate::index::file::{self, IndexFile};
use crate::key_ring::KeyRing;
use crate::keys::KeyFiles;
use crate::open_segment::{self, OpenSegment};
use crate::pseudonyms::PeriodKeys;
use crate::remnant::{self, Remnant};
use crate::scan::{Extent, Tail, read_closed, read_last};
use crate::segment::{self, SegmentHeader};
use crate::shared::{Catalogue, Closed, Recovered, Shared, TREE_DIR, grow, hashes};
use crate::tree::{Edge, Tree};

/// What the committer begins with.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: OpenSegment,
    pub(crate) recovered: Recovered,
}

/// What a log is opened with.
pub(crate) struct Terms<'a> {
    pub(crate) key: &'a NoteVerifier,
    /// A checkpoint that others have seen, beside those that the log keeps itself.
    pub(crate) must_continue: Option<&'a Checkpoint>,
    pub(crate) segment_size: u64,
    pub(crate) key_block: u64,
}

/// Opens the log in `dir`, or begins it. Nothing is written before the log is known to continue what was given away.
pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, terms: &Terms<'_>) -> Result<Opened, LogError> {
    // Before the segments: a content that is damaged may be one that is being erased.
    let keys = KeyFiles::new(disk, &dir.join(KEYS_DIR));
    let found = Found::read((disk, &keys), dir, terms.key)?;
    for given in continuity::given((&**disk, dir), terms.key, terms.must_continue)? {
        given.must_reach(found.next())?;
        if !found.has_root(disk, dir, &given.checkpoint)? {
            return Err(given.differs());
        }
    }
    make_dirs(&**disk, dir)?;
    let mut recovered = Recovered { indexes_rebuilt: found.unwritten.len() as u64, ..Recovered::default() };
    recovered.records = found.next();
    let (segment, cut_bytes) = found.take_up(&**disk, &dir.join(SEGMENTS_DIR), terms)?;
    recovered.cut_bytes = cut_bytes;
    let (next_slot, left) = slots(&keys, found.open.next_slot, &mut recovered)?;
    let tree = load_tree(disk, dir, &found, &mut recovered)?;
    let Found { closed, open, unwritten, replaced, .. } = found;
    let catalogue = Catalogue { closed, open_path: segment.path.clone(), open, checkpoint: None };
    let (period_keys, unreadable) = PeriodKeys::load(disk, &dir.join(KEYS_DIR))?;
    recovered.warnings.extend(unreadable);
    let keys = (keys, KeyRing::new(next_slot, terms.key_block), period_keys);
    let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), tree, keys, catalogue));
    recovered.tree_rebuilt |= continuity::check(&shared, terms.key)?;
    write_indexes(&shared, unwritten)?;
    // Last: nothing is overwritten before the log is known to be whole.
    replaced.iter().try_for_each(|path| compaction::destroy(&**disk, path))?;
    shared.prepare_keys(left)?;
    Ok(Opened { shared, segment, recovered })
}

/// Opens a log that came out of an archive, to be read: the newest checkpoint that its segments hold is its last.
pub(crate) fn open_restored(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    key: &NoteVerifier,
) -> Result<Arc<Shared>, LogError> {
    let keys = KeyFiles::new(disk, &dir.join(KEYS_DIR));
    let found = Found::read((disk, &keys), dir, key)?;
    let Some(path) = found.last.as_ref().map(|last| last.path.clone()) else {
        return Err(LogError::Refused("no segment is here"));
    };
    let tree = load_tree(disk, dir, &found, &mut Recovered::default())?;
    let Found { closed, open, unwritten, .. } = found;
    let keys_dir = dir.join(KEYS_DIR);
    disk.create_dir(&keys_dir).map_err(LogError::disk("create", &keys_dir))?;
    let (period_keys, _) = PeriodKeys::load(disk, &keys_dir)?;
    let keys = (keys, KeyRing::new(open.next_slot, 1), period_keys);
    let catalogue = Catalogue { closed, open_path: path, open, checkpoint: None };
    let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), tree, keys, catalogue));
    shared.set_restored();
    continuity::check_restored(&shared, key)?;
    write_indexes(&shared, unwritten)?;
    Ok(shared)
}

/// Opens a log in whose place another one goes on: to be read, and to have overwritten what must go. No segment of it is open:
/// the last one is closed as it was found.
pub(crate) fn open_earlier(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    key: &NoteVerifier,
) -> Result<Arc<Shared>, LogError> {
    let keys = KeyFiles::new(disk, &dir.join(KEYS_DIR));
    let found = Found::read((disk, &keys), dir, key)?;
    let last = found.last.as_ref().ok_or(LogError::Refused("no segment is here"))?;
    last.cut_tail()?;
    let path = last.path.clone();
    let tree = load_tree(disk, dir, &found, &mut Recovered::default())?;
    let Found { mut closed, mut open, unwritten, replaced, .. } = found;
    let keys_dir = dir.join(KEYS_DIR);
    disk.create_dir(&keys_dir).map_err(LogError::disk("create", &keys_dir))?;
    let (period_keys, _) = PeriodKeys::load(disk, &keys_dir)?;
    let keys = (keys, KeyRing::new(open.next_slot, 1), period_keys);
    let (first, count, times) = (open.first, open.leaves.len() as u64, open.times());
    let next = MemoryIndex { next_slot: open.next_slot, ..MemoryIndex::new(open.next()) };
    if count > 0 {
        let persons = Table::Memory(std::mem::take(&mut open.persons));
        let last = Closed::new(path, first, count, times, Arc::new(open));
        closed.push(Arc::new(last.with_persons(persons).indexed()));
    }
    let catalogue = Catalogue { closed, open_path: PathBuf::new(), open: next, checkpoint: None };
    let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), tree, keys, catalogue));
    if is_restored(&**disk, dir)? {
        shared.set_restored();
    }
    continuity::check_restored(&shared, key)?;
    write_indexes(&shared, unwritten)?;
    replaced.iter().try_for_each(|path| compaction::destroy(&**disk, path))?;
    Ok(shared)
}

/// Refuses to begin a log of which others saw a checkpoint: asked before anything is made.
pub(crate) fn must_have_begun(disk: &dyn Disk, dir: &Path, seen: &Checkpoint) -> Result<(), LogError> {
    let begun = !list(disk, &dir.join(SEGMENTS_DIR))?.segments.is_empty();
    if begun { Ok(()) } else { Given::seen(seen).must_reach(0) }
}

/// What is left of a log that is not opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Whole records, from the first on.
    pub records: u64,
    /// The root over them; none where there is no record.
    pub root: Option<Digest>,
    /// The root over as many as was asked for; none where there are not as many.
    pub root_at: Option<Digest>,
}

/// Looks at the log in `dir`, which has this key, and changes nothing. A directory that is not there is an empty log.
///
/// # Errors
/// If its records cannot be read whole.
pub fn what_is_left(dir: &Path, key: &NoteVerifier, at: Option<u64>) -> Result<Left, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let keys = KeyFiles::new(&disk, &dir.join(KEYS_DIR));
    let found = Found::read((&disk, &keys), dir, key)?;
    let records = found.next();
    let root = |size| found.root_from(Edge::default(), size);
    let root_at = at.filter(|size| *size <= records).map(root).transpose()?;
    let root = (records > 0).then(|| root(records)).transpose()?;
    Ok(Left { records, root, root_at })
}

/// Whether the log in `dir` came out of an archive, and is only to be read.
pub(crate) fn is_restored(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    let names = disk.list(dir).map_err(LogError::disk("list", dir))?;
    Ok(names.iter().any(|name| name == RESTORED_FILE))
}

/// The file that says that a directory came out of an archive.
pub(crate) const RESTORED_FILE: &str = "restored";

/// Makes what is missing of a log's directories, and clears away files that were being prepared.
fn make_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    // All of them before the log's directory is synced: without its entry, what is synced in one of them is lost.
    for made in [SEGMENTS_DIR, KEYS_DIR, TREE_DIR].map(|name| dir.join(name)) {
        disk.create_dir(&made).map_err(LogError::disk("create", &made))?;
    }
    for dir in [dir.parent(), Some(dir)].into_iter().flatten() {
        disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    }
    let segments = dir.join(SEGMENTS_DIR);
    let names = disk.list(&segments).map_err(LogError::disk("list", &segments))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = segments.join(name);
        // What is made of a segment holds records already, and a segment that is written anew has its index first.
        if segment::is_unfinished(name) {
            compaction::discard(disk, &path)?;
        } else if name.starts_with("segment-") {
            compaction::wipe(disk, &path)?;
        } else {
            disk.remove(&path).map_err(LogError::disk("remove", &path))?;
        }
    }
    // What the system shows may not be on the disk, if an earlier process died between making a file and this.
    disk.sync_dir(&segments).map_err(LogError::disk("sync", &segments))
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

/// The segments on the disk, as they were read: nothing is changed yet.
struct Found {
    closed: Vec<Arc<Closed>>,
    /// The segment that was written to; none in a log that has not begun.
    last: Option<Last>,
    origin: Digest,
    open: MemoryIndex,
    /// Closed segments whose indexes are to be written, after the tree is durable.
    unwritten: Vec<Unwritten>,
    /// Segments that were written anew, as they were before: a crash came before they were overwritten.
    replaced: Vec<PathBuf>,
}

struct Unwritten {
    segment: Arc<Closed>,
    index: Arc<MemoryIndex>,
    chain: Digest,
}

/// The segment that was last written to.
struct Last {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
    extent: Extent,
    tail: Tail,
}

impl Found {
    fn read(
        (disk, keys): (&Arc<dyn Disk>, &KeyFiles),
        dir: &Path,
        key: &NoteVerifier,
    ) -> Result<Self, LogError> {
        let origin = Digest::of(key.name().as_bytes());
        let dir = &dir.join(SEGMENTS_DIR);
        let Listed { mut segments, mut replaced } = list(&**disk, dir)?;
        let pruned = list_pruned(&**disk, dir, &segments, &mut replaced)?;
        segments.extend(pruned.clone());
        segments.sort_unstable();
        let (mut closed, mut unwritten) = (Vec::new(), Vec::new());
        let Some((last, last_name)) = segments.pop() else {
            let open = MemoryIndex::new(0);
            return Ok(Self { closed, last: None, origin, open, unwritten, replaced: Vec::new() });
        };
        let (mut next, mut chain, mut next_slot) = (0, None, 0);
        for (first, name) in segments {
            let path = dir.join(&name);
            if pruned.contains_key(&first) {
                let (segment, end) = open_pruned(disk, &path, (first, next))?;
                (next, chain, next_slot) =
                    (first + segment.count, Some(end.chain), end.next_slot.max(next_slot));
                closed.push(Arc::new(segment));
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
        let path = dir.join(last_name);
        let header = checked_header(&**disk, &path, origin, (last, next, chain))?;
        let file = disk.open(&path).map_err(LogError::disk("open", &path))?;
        let (mut open, extent, tail) = read_last(&*file, &path, header, keys)?;
        open.next_slot = open.next_slot.max(next_slot);
        let last = Last { file, path, header, extent, tail };
        last.must_be_whole()?;
        let replaced = replaced.into_iter().map(|(_, name)| dir.join(name)).collect();
        Ok(Self { closed, last: Some(last), origin, open, unwritten, replaced })
    }

    /// Number of whole leaves.
    fn next(&self) -> u64 {
        self.open.next()
    }

    /// The size of the tree that is kept.
    fn kept(&self) -> u64 {
        self.unwritten.first().map_or(self.open.first, |first| first.segment.first)
    }

    /// Whether the first `size` leaves have this root: by the tree that is kept, and where that says otherwise, by the
    /// leaves alone.
    fn has_root(&self, disk: &Arc<dyn Disk>, dir: &Path, given: &Checkpoint) -> Result<bool, LogError> {
        let kept = self.kept().min(given.size);
        let edge =
            (kept > 0).then(|| Tree::load(disk, &dir.join(TREE_DIR), self.kept())).transpose()?.flatten();
        let edge = edge.and_then(|tree| tree.edge_at(kept).ok()).unwrap_or_default();
        Ok(self.root_from(edge.clone(), given.size)? == given.root
            || edge.size() > 0 && self.root_from(Edge::default(), given.size)? == given.root)
    }

    fn root_from(&self, mut edge: Edge, size: u64) -> Result<Digest, LogError> {
        hashes((&self.closed, self.open.first, &self.open.leaves), edge.size()..size, |hash| {
            edge.push(hash);
            Ok(())
        })?;
        Ok(edge.root())
    }

    /// Makes ready for writing: cuts what was never acknowledged, or begins the first segment. Says how many bytes were cut.
    fn take_up(
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

/// The segment files.
struct Listed {
    /// First leaf and name, ascending: of each segment the highest generation.
    segments: Vec<(u64, String)>,
    /// Of what was replaced.
    replaced: Vec<(u64, String)>,
}

/// The segment files; none where there is no such directory.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Listed, LogError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(LogError::disk("list", dir))?,
    };
    let named = names.into_iter().filter_map(|name| Some((segment::of_name(&name)?, name)));
    let mut found: Vec<_> = named.collect();
    found.sort_unstable();
    let (mut segments, mut replaced): (Vec<(u64, String)>, Vec<_>) = (Vec::new(), Vec::new());
    for ((first, _), name) in found {
        if segments.last().is_some_and(|(last, _)| *last == first) {
            replaced.extend(segments.pop());
        }
        segments.push((first, name));
    }
    Ok(Listed { segments, replaced })
}

/// First leaf and name of the segments that were pruned: something is kept of them, and no generation of them is here. Where a
/// later one is, what is kept belongs to what it replaced.
fn list_pruned(
    disk: &dyn Disk,
    dir: &Path,
    here: &[(u64, String)],
    replaced: &mut Vec<(u64, String)>,
) -> Result<BTreeMap<u64, String>, LogError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(LogError::disk("list", dir))?,
    };
    let mut kept: Vec<_> = names.iter().filter_map(|name| remnant::of_name(name)).collect();
    kept.retain(|((first, generation), name)| {
        let Ok(at) = here.binary_search_by_key(first, |(here, _)| *here) else { return true };
        let later = segment::of_name(&here[at].1).is_some_and(|(_, later)| later > *generation);
        if later && !replaced.iter().any(|(_, known)| known == name) {
            replaced.push((*first, name.clone()));
        }
        false
    });
    kept.sort_unstable();
    // Of several, the highest generation.
    Ok(kept.into_iter().map(|((first, _), name)| (first, name)).collect())
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

/// A pruned segment, by its index file and what is kept of it: `(first in the name, next leaf)`.
fn open_pruned(
    disk: &Arc<dyn Disk>,
    path: &Path,
    (first, next): (u64, u64),
) -> Result<(Closed, End), LogError> {
    let index = IndexFile::open(disk, &file::path_of(path))?;
    let head = index.head().clone();
    if head.first != first || first != next || !Remnant::open(&**disk, path)?.is_of(first, head.count) {
        let what = format!(
            "what is kept of the pruned segment {first} does not belong to it, or {next} is the next leaf"
        );
        return Err(LogError::damaged(&file::path_of(path), 0, what));
    }
    let end = End { chain: head.chain, next_slot: head.next_slot, unwritten: None };
    let segment = Closed::new(path.to_owned(), head.first, head.count, head.times, Arc::new(index));
    let segment = segment.with_persons(concerned::at_start(disk, path, &head)).indexed();
    segment.set_pruned();
    Ok((segment, end))
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
    fn cut_tail(&self) -> Result<u64, LogError> {
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

/// The tree as it was kept when the first segment without an index file began, and the leaves from there; or all of it made
/// again.
fn load_tree(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    found: &Found,
    recovered: &mut Recovered,
) -> Result<Tree, LogError> {
    let kept = Tree::load(disk, &dir.join(TREE_DIR), found.kept())?;
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
