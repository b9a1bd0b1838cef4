//! Whether a log is whole: its segments on the disk and its objects in the archive, held together against its last
//! checkpoint. Needs no running server, and changes nothing.
//!
//! Segments and objects are read in the order of their leaves, one at a time. What is missing is told as ranges of leaves;
//! behind a gap it goes on with the tree that the next object proves by its own checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use trave_proto::checkpoint::{Checkpoint, MAX_NOTE, NoteVerifier};
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Leaf, leaf};

use super::keys::ArchiveIdentity;
use super::object::{self, Verified};
use super::parse_name;
use super::state::ArchiveState;
use super::store::{ArchiveStore, digest_of};
use crate::disk::{Disk, DiskFile, MemoryFile, read_small};
use crate::entry::kind;
use crate::error::LogError;
use crate::expiry::Covered;
use crate::index::MemoryIndex;
use crate::keys::KeyFiles;
use crate::reading::read_leaf;
use crate::record;
use crate::scan;
use crate::segment::{self, EXPIRED, LeafEntry, SegmentHeader};
use crate::tree::Edge;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole {
    /// Leaves that are on the disk or in the archive.
    pub records: u64,
    /// Segments on the disk that are whole.
    pub segments: u64,
    /// Archived objects that decrypt and verify.
    pub objects: u64,
    /// First leaves of closed segments that stand on the disk alone.
    pub not_archived: Vec<u64>,
    /// Leaves that should be there and are neither on the disk nor in the archive. A range without end is told up to the
    /// last checkpoint that is known.
    pub missing: Vec<Range<u64>>,
    /// The last checkpoint that is known: given, beside the log, or in the archive.
    pub checkpoint: Option<Checkpoint>,
    /// Whether the leaves give the root of that checkpoint: none if some of them are missing at its end.
    pub agrees: Option<bool>,
    /// What is wrong, in words; empty if nothing is.
    pub problems: Vec<String>,
}

impl Whole {
    /// Whether nothing is missing and nothing is wrong. Without a checkpoint nobody knows: what is empty is not whole.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.problems.is_empty() && self.agrees == Some(true)
    }
}

/// What is looked at.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The log's directory, where there is one.
    pub(crate) dir: Option<&'a Path>,
    pub(crate) store: &'a dyn ArchiveStore,
    pub(crate) identity: &'a ArchiveIdentity,
    pub(crate) key: &'a NoteVerifier,
    /// A checkpoint that the log must reach: from a witness or a peer.
    pub(crate) checkpoint: Option<&'a Checkpoint>,
}

/// Takes what comes out of the archive, in the order of its leaves.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&Verified) -> Result<(), LogError>;
/// Told after each segment: how many leaves were looked through, and how many there are as far as is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What begins with a leaf.
#[derive(Debug, Default)]
struct Piece {
    local: Option<PathBuf>,
    /// The last segment, which is written to or was when a process ended.
    open: bool,
    /// The newest object.
    object: Option<(u32, String)>,
}

/// What was read of a piece, wherever it was.
struct Read {
    leaves: Vec<LeafEntry>,
    before: Digest,
    after: Digest,
}

/// Looks at everything; `take` gets each object that verifies.
pub(crate) fn look(places: &Places<'_>, take: Take<'_>, progress: Progress<'_>) -> Result<Whole, LogError> {
    let mut walk = Walk::begin(places)?;
    let pieces = pieces(places)?;
    let firsts: Vec<u64> = pieces.keys().copied().collect();
    let last = firsts.last().copied().unwrap_or(0);
    for (first, piece) in pieces {
        walk.piece(first, &piece, take)?;
        let known = walk.found.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        progress(walk.edge.size(), known.max(last));
    }
    walk.end()
}

fn pieces(places: &Places<'_>) -> Result<BTreeMap<u64, Piece>, LogError> {
    let mut pieces: BTreeMap<u64, Piece> = BTreeMap::new();
    if let Some(dir) = places.dir {
        let dir = dir.join("segments");
        let names = places.disk.list(&dir).map_err(LogError::disk("list", &dir))?;
        let mut here: Vec<_> =
            names.iter().filter_map(|name| Some((segment::of_name(name)?, name))).collect();
        here.sort_unstable();
        // Of several generations, the last that is taken is the segment.
        for ((first, _), name) in here {
            pieces.entry(first).or_default().local = Some(dir.join(name));
        }
        if let Some(mut last) = pieces.last_entry() {
            last.get_mut().open = true;
        }
    }
    for name in places.store.list()? {
        let Some((first, serial)) = parse_name(places.key.name(), &name) else { continue };
        let piece = pieces.entry(first).or_default();
        if piece.object.as_ref().is_none_or(|(newest, _)| *newest < serial) {
            piece.object = Some((serial, name));
        }
    }
    Ok(pieces)
}

struct Walk<'a> {
    places: &'a Places<'a>,
    keys: KeyFiles,
    found: Whole,
    edge: Edge,
    chain: Option<Digest>,
    /// The root at the size of the last checkpoint, once the edge was there.
    root: Option<Digest>,
    /// Checkpoints that lie ahead: their size, root, and where they come from.
    ahead: BTreeSet<(u64, Digest, String)>,
    state: ArchiveState,
    /// SHA-256 and length of the objects that were read.
    objects: BTreeMap<String, (Digest, u64)>,
    /// What the log says has expired, by the first leaf of its segment.
    covered: BTreeMap<u64, Covered>,
    /// Leaves of which nothing but the hash is left, by the first leaf of their segment.
    expired: BTreeMap<u64, Vec<u64>>,
}

impl<'a> Walk<'a> {
    fn begin(places: &'a Places<'a>) -> Result<Self, LogError> {
        let dir = places.dir.unwrap_or(Path::new("/nonexistent/trave"));
        let mut found = Whole { checkpoint: places.checkpoint.cloned(), ..Whole::default() };
        let beside = dir.join(crate::continuity::CHECKPOINT_FILE);
        let note =
            read_small(&**places.disk, &beside, MAX_NOTE as u64).map_err(LogError::disk("read", &beside))?;
        if let Some(note) = note {
            match Checkpoint::verify(&note, std::slice::from_ref(places.key)) {
                Ok(checkpoint) => later(&mut found.checkpoint, &checkpoint),
                Err(error) => found.problems.push(format!("the checkpoint {}: {error}", beside.display())),
            }
        }
        Ok(Self {
            places,
            keys: KeyFiles::new(places.disk, &dir.join("keys")),
            found,
            edge: Edge::default(),
            chain: None,
            root: None,
            ahead: places
                .checkpoint
                .map(|given| (given.size, given.root, "what was given".into()))
                .into_iter()
                .collect(),
            state: ArchiveState::default(),
            objects: BTreeMap::new(),
            covered: BTreeMap::new(),
            expired: BTreeMap::new(),
        })
    }

    /// Reads what begins with leaf `first`: on the disk, in the archive, or both, which then must agree.
    fn piece(&mut self, first: u64, piece: &Piece, take: Take<'_>) -> Result<(), LogError> {
        let archived = match &piece.object {
            Some((_, name)) => self.object(first, name),
            None => None,
        };
        if let Some(object) = &archived {
            take(object)?;
        }
        let local = piece.local.as_ref().and_then(|path| self.local(first, path, piece.open));
        if let (Some(local), Some(object)) = (&local, &archived) {
            let same = local.leaves.iter().map(|leaf| leaf.hash).eq(object
                .index
                .leaves
                .iter()
                .map(|leaf| leaf.hash));
            if !same || (local.before, local.after) != (object.header.chain, object.chain_after) {
                let what = format!(
                    "the segment that begins with leaf {first} and its archived copy hold other records"
                );
                self.found.problems.push(what);
            }
        }
        if local.is_some() && archived.is_none() && !piece.open {
            self.found.not_archived.push(first);
        }
        let before = archived.as_ref().map(|object| object.before.clone());
        let read = local.or_else(|| {
            archived.map(|object| Read {
                leaves: object.index.leaves,
                before: object.header.chain,
                after: object.chain_after,
            })
        });
        if let Some(read) = read {
            self.walk(first, before, read);
        }
        Ok(())
    }

    /// Goes on with the leaves of a piece.
    fn walk(&mut self, first: u64, before: Option<Edge>, read: Read) {
        let size = self.edge.size();
        if first > size {
            self.found.missing.push(size..first);
            self.chain = None;
            // Behind a gap only what an object proves by its own checkpoint continues the tree.
            self.edge = before.unwrap_or_default();
        } else if first < size {
            self.found.problems.push(format!("leaf {first} stands in two segments"));
            return;
        }
        if self.edge.size() != first {
            let what = format!(
                "what begins with leaf {first} is on the disk alone, behind a gap: its place in the tree is not proved"
            );
            self.found.problems.push(what);
            self.found.records += read.leaves.len() as u64;
            return;
        }
        if self.chain.is_some_and(|chain| chain != read.before) {
            self.found
                .problems
                .push(format!("the segment that begins with leaf {first} does not continue the one before"));
        }
        self.chain = Some(read.after);
        self.compare();
        for leaf in &read.leaves {
            self.edge.push(leaf.hash);
            self.compare();
        }
        self.found.records += read.leaves.len() as u64;
    }

    /// Holds the tree as it is now against the checkpoints of this size.
    fn compare(&mut self) {
        let size = self.edge.size();
        while self.ahead.first().is_some_and(|(ahead, ..)| *ahead <= size)
            && let Some((ahead, root, name)) = self.ahead.pop_first()
        {
            if ahead == size && root != self.edge.root() {
                let what = format!("the records contradict the checkpoint of size {size} in {name}");
                self.found.problems.push(what);
            }
        }
        if self.found.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.size == size) {
            self.root = Some(self.edge.root());
        }
    }

    fn object(&mut self, first: u64, name: &str) -> Option<Verified> {
        let store = self.places.store;
        let read = digest_of(store, name).and_then(|digest| {
            self.objects.insert(name.to_owned(), digest);
            object::read(store, name, self.places.identity)?.verify(self.places.key)
        });
        let verified = match read {
            Ok(verified) if verified.first == first => verified,
            Ok(_) => {
                self.found
                    .problems
                    .push(format!("the archived object {name} holds other leaves than its name says"));
                return None;
            }
            Err(error) => {
                self.found.problems.push(error.in_full());
                return None;
            }
        };
        self.found.objects += 1;
        let known = self.found.checkpoint.as_ref().map(|checkpoint| checkpoint.size);
        later(&mut self.found.checkpoint, &verified.checkpoint);
        if self.found.checkpoint.as_ref().map(|checkpoint| checkpoint.size) != known {
            // What was compared was an earlier one.
            self.root = None;
        }
        self.ahead.insert((verified.checkpoint.size, verified.checkpoint.root, name.to_owned()));
        self.read_state(&MemoryFile(verified.bytes.clone()), Path::new(name), &verified.index);
        Some(verified)
    }

    fn local(&mut self, first: u64, path: &Path, open: bool) -> Option<Read> {
        let read = self.read_local(first, path, open);
        match read {
            Ok(read) => {
                self.found.segments += 1;
                Some(read)
            }
            Err(error) => {
                self.found.problems.push(error.in_full());
                None
            }
        }
    }

    fn read_local(&mut self, first: u64, path: &Path, open: bool) -> Result<Read, LogError> {
        let file = self.places.disk.open(path).map_err(LogError::disk("open", path))?;
        let header = SegmentHeader::read(&*file, path)?;
        if header.origin != Digest::of(self.places.key.name().as_bytes()) || header.first != first {
            return Err(LogError::damaged(path, 0, "it belongs to another log, or to another place in it"));
        }
        let (index, after) = if open {
            let (index, extent, tail) = scan::read_last(&*file, path, header, &self.keys)?;
            if let (scan::Tail::GroupsBeyond { at }, why) = (tail, extent.torn) {
                let why = why.unwrap_or_else(|| "zeros".into());
                return Err(LogError::damaged(
                    path,
                    extent.end,
                    format!("{why}, but a whole group follows at {at}"),
                ));
            }
            (index, extent.chain)
        } else {
            let (index, extent) =
                scan::read_whole((&*file, path), header, &self.keys, &mut |_, _, _| Ok(()))?;
            (index, extent.chain)
        };
        self.read_state(&*file, path, &index);
        Ok(Read { leaves: index.leaves, before: header.chain, after })
    }

    /// What the records of a segment say of archives and of what has expired. Taken twice, where it is in both places, it
    /// says the same.
    fn read_state(&mut self, file: &dyn DiskFile, path: &Path, index: &MemoryIndex) {
        for entry in index.leaves.iter().filter(|it| matches!(it.kind, kind::ARCHIVE | kind::EXPIRY)) {
            let leaf = read_leaf(file, path, entry.offset)
                .ok()
                .and_then(|payload| Leaf::decode(record::split_leaf(&payload)?.0).ok());
            if let Some(Leaf { entry: Some(leaf::Entry::Expiry(act)), .. }) = &leaf {
                self.covered.entry(act.segment).or_default().add(act);
            }
            leaf.iter().for_each(|leaf| self.state.take(leaf));
        }
        let gone = (index.first..).zip(&index.leaves).filter(|(_, leaf)| leaf.kind == EXPIRED);
        let gone: Vec<u64> = gone.map(|(index, _)| index).collect();
        if !gone.is_empty() {
            self.expired.insert(index.first, gone);
        }
    }

    /// What is gone without an act of a schedule has not expired.
    fn expired(&mut self) {
        let none = Covered::default();
        for (segment, gone) in &self.expired {
            let covered = self.covered.get(segment).unwrap_or(&none);
            let mut missing = gone.iter().filter(|index| !covered.records(**index));
            if let Some(first) = missing.next() {
                let what = format!(
                    "MISMATCH: record {first} and {} after it are missing, and no record says that they have expired",
                    missing.count()
                );
                self.found.problems.push(what);
            }
        }
    }

    fn end(mut self) -> Result<Whole, LogError> {
        let size = self.edge.size();
        if let Some(checkpoint) = self.found.checkpoint.clone() {
            if checkpoint.size > size {
                self.found.missing.push(size..checkpoint.size);
            }
            self.found.agrees = self.root.map(|root| root == checkpoint.root);
            if self.found.agrees == Some(false) {
                let size = checkpoint.size;
                self.found.problems.push(format!("the records contradict the checkpoint of size {size}"));
            }
        }
        self.expired();
        for segment in self.state.all() {
            let named = format!(
                "the archived object {} (leaves {} to {})",
                segment.name,
                segment.first,
                segment.first + segment.count - 1
            );
            // A newer copy that no record names yet may have been read in its place.
            let read = self.objects.get(&segment.name).copied();
            match read.map_or_else(|| digest_of(self.places.store, &segment.name), Ok) {
                Err(error) if error.is_not_found() => {
                    self.found.problems.push(format!("{named} is not in the archive"));
                }
                Err(error) => self.found.problems.push(error.in_full()),
                Ok((digest, length))
                    if digest.as_ref() != &segment.digest[..] || length != segment.length =>
                {
                    self.found.problems.push(format!("{named} is not the one that the log names"));
                }
                Ok(_) => {}
            }
        }
        Ok(self.found)
    }
}

/// Keeps the later of two checkpoints.
fn later(kept: &mut Option<Checkpoint>, other: &Checkpoint) {
    if kept.as_ref().is_none_or(|kept| kept.size < other.size) {
        *kept = Some(other.clone());
    }
}
