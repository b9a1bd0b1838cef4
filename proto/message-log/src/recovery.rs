//! Opening a log, which is the same after a clean stop and after a power cut: read, cut what was never acknowledged, refuse
//! what contradicts a checkpoint.

mod found;
mod listing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trave_proto::checkpoint::{Checkpoint, NoteVerifier};
use trave_proto::digest::Digest;

use crate::compaction;
use crate::continuity::{self, Given};
use crate::disk::{Disk, RealDisk};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::index::file::persons::Table;
use crate::index::file::{self, IndexFile};
use crate::key_ring::KeyRing;
use crate::keys::KeyFiles;
use crate::open_segment::OpenSegment;
use crate::pseudonyms::PeriodKeys;
use crate::shared::{Catalogue, Closed, Recovered, Shared, TREE_DIR, grow};
use crate::tree::{Edge, Tree};
use found::{Found, Unwritten};
pub(crate) use listing::{KEYS_DIR, Named};
use listing::{SEGMENTS_DIR, list, make_dirs};

/// What the committer begins with.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: OpenSegment,
    pub(crate) recovered: Recovered,
    pub(crate) doubtful: Vec<Doubtful>,
}

/// What is taken for a pruned segment only if a statement in the log says that it was pruned.
#[derive(Debug)]
pub(crate) struct Doubtful {
    pub(crate) segment: Arc<Closed>,
    /// Why the log is refused where no statement says so.
    pub(crate) why: LogError,
    /// A segment file in an earlier generation, which is to be destroyed.
    pub(crate) displaced: Option<PathBuf>,
}

impl Doubtful {
    fn displaced(segment: &Arc<Closed>, before: PathBuf) -> Self {
        let what = "a later generation of it should have been pruned, and no statement in the log says so";
        let why = LogError::damaged(&before, 0, what);
        Self { segment: segment.clone(), why, displaced: Some(before) }
    }

    fn damaged(segment: &Arc<Closed>, why: LogError) -> Self {
        Self { segment: segment.clone(), why, displaced: None }
    }
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
    let Found { closed, open, unwritten, replaced, doubtful, .. } = found;
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
    Ok(Opened { shared, segment, recovered, doubtful })
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
) -> Result<(Arc<Shared>, Vec<Doubtful>), LogError> {
    let keys = KeyFiles::new(disk, &dir.join(KEYS_DIR));
    let found = Found::read((disk, &keys), dir, key)?;
    let last = found.last.as_ref().ok_or(LogError::Refused("no segment is here"))?;
    last.cut_tail()?;
    let path = last.path.clone();
    let tree = load_tree(disk, dir, &found, &mut Recovered::default())?;
    let Found { mut closed, mut open, unwritten, replaced, doubtful, .. } = found;
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
    Ok((shared, doubtful))
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

/// The segments in a directory, ascending: of each the highest generation, here or pruned.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Named>, LogError> {
    Ok(list(disk, dir)?.segments)
}

/// Whether the log in `dir` came out of an archive, and is only to be read.
pub(crate) fn is_restored(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    let names = disk.list(dir).map_err(LogError::disk("list", dir))?;
    Ok(names.iter().any(|name| name == RESTORED_FILE))
}

/// The file that says that a directory came out of an archive.
pub(crate) const RESTORED_FILE: &str = "restored";

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
