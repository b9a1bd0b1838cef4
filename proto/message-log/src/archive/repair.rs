//! Fetching damaged or missing files of a log again from its archive, while no server runs.
//!
//! Nothing is put in place that the log does not name: the object's digest must be the one in the log's record, its segment
//! be of the generation that is here, its records lead to a checkpoint that the log's key has signed, and its groups
//! continue the segment before and be continued by the one after it. What was there is copied aside first. Pseudonyms are in
//! no archive: those that are still legible in the damaged file are taken from it.
//!
//! | killed after | disk | the next start or repair |
//! |---|---|---|
//! | the copy aside was written | the damaged file, and its copy | begins again |
//! | the new file was written under another name | the same | a start clears it away; begins again |
//! | it has its name | the new file | goes on with the next |

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Leaf, SegmentArchived};

use super::object::{self, Verified};
use super::restoring::Source;
use super::state::ArchiveState;
use super::store::digest_of;
use super::whole::{Progress, Whole};
use crate::disk::{Disk, DiskFile, MemoryFile, RealDisk, replace};
use crate::entry::kind;
use crate::error::LogError;
use crate::gathering;
use crate::index::file::{self, IndexFile};
use crate::keys::KeyFiles;
use crate::reading::{read_leaf, read_record};
use crate::record::{self, HEADER, Header, Kind};
use crate::recovery::{self, Named};
use crate::remnant::{self, Remnant};
use crate::scan;
use crate::segment::{self, SegmentHeader};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was put in place, in words: which file, from which object, and where what was there is now.
    pub mended: Vec<String>,
    /// What could not be mended, or not all of it, in words, with why.
    pub left: Vec<String>,
    /// Log and archive together, as they are now.
    pub whole: Whole,
}

impl Source<'_> {
    /// Fetches from the archive what is damaged or missing in the log in `dir`. No server may be running on it.
    ///
    /// # Errors
    /// If the log is in use, or the disk refuses something; what cannot be mended stands in the report.
    pub fn repair(&self, dir: &Path, progress: Progress<'_>) -> Result<Repaired, LogError> {
        self.repair_on(&(Arc::new(RealDisk) as _), dir, progress)
    }

    pub(crate) fn repair_on(
        &self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        progress: Progress<'_>,
    ) -> Result<Repaired, LogError> {
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(LogError::disk("lock", &lock_path))?;
        let _lock = lock.ok_or(LogError::Locked { path: lock_path })?;
        if recovery::is_restored(&**disk, dir)? {
            return Err(LogError::Restored { path: dir.to_owned() });
        }
        let repair = Repair {
            source: self,
            disk,
            segments: dir.join("segments"),
            keys: KeyFiles::new(disk, &dir.join("keys")),
            origin: Digest::of(self.key.name().as_bytes()),
        };
        let (mut mended, mut left, mut lost_with_it) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            // What was mended may hold the record of what was not: it is looked at anew, until nothing more is found.
            let pieces = repair.pieces()?;
            let state = repair.state(&pieces);
            let before = mended.len();
            left.clear();
            for wrong in repair.wrong(&pieces, &state) {
                match repair.mend(&wrong, &state) {
                    Ok(Mended { told, lost }) => {
                        mended.push(told);
                        lost_with_it.extend(lost);
                        break;
                    }
                    Err(error) if error.is_failed_write() => return Err(error),
                    Err(error) => left.push(format!("{}: {}", wrong.told(), error.in_full())),
                }
            }
            if mended.len() == before {
                break;
            }
        }
        left.append(&mut lost_with_it);
        let whole = self.check_on(disk, dir, progress)?;
        Ok(Repaired { mended, left, whole })
    }
}

struct Repair<'a> {
    source: &'a Source<'a>,
    disk: &'a Arc<dyn Disk>,
    segments: PathBuf,
    keys: KeyFiles,
    origin: Digest,
}

/// A segment that should be here, whole or not.
struct Piece {
    named: Named,
    /// Its end, with the chain values before and after it; or why it cannot be read.
    read: Result<Ends, LogError>,
    /// Whether it is the last, which is in no archive.
    last: bool,
}

struct Ends {
    next: u64,
    before: Option<Digest>,
    after: Option<Digest>,
    /// The leaves that say something of the archive.
    acts: Vec<Leaf>,
}

/// What is to be mended.
struct Wrong {
    first: u64,
    /// The name of its file, where one is here.
    name: Option<String>,
    pruned: bool,
    why: String,
    before: Option<Digest>,
    after: Option<Digest>,
    last: bool,
}

struct Mended {
    told: String,
    lost: Option<String>,
}

impl Wrong {
    fn told(&self) -> String {
        format!("the segment that begins with record {} is not mended ({})", self.first, self.why)
    }
}

impl Repair<'_> {
    fn pieces(&self) -> Result<Vec<Piece>, LogError> {
        let names = recovery::segments(&**self.disk, &self.segments)?;
        let count = names.len();
        let piece = |(at, named): (usize, Named)| {
            let last = at + 1 == count && !named.pruned;
            let path = self.segments.join(&named.name);
            let read = match (named.pruned, last) {
                (true, _) => self.pruned(&path, named.first),
                (false, last) => self.here(&path, named.first, last),
            };
            match read {
                Err(error) if !error.is_damage() => Err(error),
                read => Ok(Piece { named, read, last }),
            }
        };
        names.into_iter().enumerate().map(piece).collect()
    }

    fn here(&self, path: &Path, first: u64, last: bool) -> Result<Ends, LogError> {
        let file = self.disk.open(path).map_err(LogError::disk("open", path))?;
        let header = SegmentHeader::read(&*file, path)?;
        if header.origin != self.origin || header.first != first {
            return Err(LogError::damaged(path, 0, "it belongs to another log, or to another place in it"));
        }
        let (index, after) = match last {
            true => {
                let (index, extent, tail) = scan::read_last(&*file, path, header, &self.keys)?;
                if let scan::Tail::GroupsBeyond { at } = tail {
                    let what = format!("a whole group follows at byte {at} behind what cannot be read");
                    return Err(LogError::damaged(path, extent.end, what));
                }
                (index, None)
            }
            false => {
                let (index, end) = scan::read_closed(&**self.disk, path, header, &self.keys)?;
                (index, Some(end))
            }
        };
        let acts = index.leaves.iter().filter(|leaf| leaf.kind == kind::ARCHIVE);
        let acts = acts.filter_map(|leaf| act(&*file, path, leaf.offset)).collect();
        Ok(Ends { next: index.next(), before: Some(header.chain), after, acts })
    }

    fn pruned(&self, path: &Path, first: u64) -> Result<Ends, LogError> {
        let index = IndexFile::open(self.disk, &file::path_of(path))?;
        index.check()?;
        let kept = Remnant::open(&**self.disk, path)?;
        let head = index.head();
        if head.first != first || !kept.is_of(first, head.count) {
            return Err(LogError::damaged(&kept.path, 0, "what is kept of it is of another segment"));
        }
        let mut acts = Vec::new();
        for offset in kept.records() {
            read_record(&*kept.file, &kept.path, offset, Kind::Leaf)?;
            acts.extend(act(&*kept.file, &kept.path, offset));
        }
        acts.retain(|leaf| segment::describe(leaf).0 == kind::ARCHIVE);
        let before = Some(kept.header()?.chain);
        Ok(Ends { next: first + head.count, before, after: Some(head.chain), acts })
    }

    /// What the log says of its archive, as far as it can be read.
    fn state(&self, pieces: &[Piece]) -> ArchiveState {
        let mut state = ArchiveState::default();
        let read = pieces.iter().filter_map(|piece| piece.read.as_ref().ok());
        read.flat_map(|ends| &ends.acts).for_each(|leaf| state.take(leaf));
        state
    }

    /// What is damaged, and what is missing between the others.
    fn wrong(&self, pieces: &[Piece], state: &ArchiveState) -> Vec<Wrong> {
        let (mut wrong, mut next, mut before): (Vec<Wrong>, Option<u64>, Option<Digest>) =
            (Vec::new(), Some(0), None);
        for (at, piece) in pieces.iter().enumerate() {
            let first = piece.named.first;
            if let Some(from) = next.filter(|next| *next < first) {
                wrong.extend(missing(state, from, first));
                before = None;
            }
            match &piece.read {
                Ok(ends) => (next, before) = (Some(ends.next), ends.after),
                Err(error) => {
                    let after = pieces.get(at + 1).and_then(|piece| piece.read.as_ref().ok()?.before);
                    wrong.push(Wrong {
                        first,
                        name: Some(piece.named.name.clone()),
                        pruned: piece.named.pruned,
                        why: error.in_full(),
                        before,
                        after,
                        last: piece.last,
                    });
                    // Where it ended is not known: what follows it is missing only if an object says so.
                    next = state.archived(first).map(|copy| copy.first + copy.count);
                    before = None;
                }
            }
        }
        wrong
    }

    fn mend(&self, wrong: &Wrong, state: &ArchiveState) -> Result<Mended, LogError> {
        if wrong.last {
            return Err(LogError::Refused("it was written to when the server stopped, and is in no archive"));
        }
        let unknown = LogError::Refused("no legible record says that it was archived");
        let known = state.archived(wrong.first).ok_or(unknown)?;
        let name = segment::name_of(known.first, known.generation);
        if wrong.name.as_ref().is_some_and(|here| *here != name) {
            return Err(LogError::Refused(
                "the archive holds another generation of it: records that have expired since would come back",
            ));
        }
        let object = self.fetch(known, wrong)?;
        let path = self.segments.join(&name);
        let told = |what: &str, aside: &[PathBuf]| {
            let aside: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
            let aside = if aside.is_empty() {
                "nothing was there".into()
            } else {
                format!("what was there is in {}", aside.join(", "))
            };
            let last = known.first + known.count - 1;
            format!(
                "{what} of the records {} to {last} was fetched from {}; {aside}",
                known.first, known.name
            )
        };
        if wrong.pruned || wrong.name.is_none() && state.is_pruned(known.first, known.generation) {
            let aside = self.put_pruned(&path, &object)?;
            return Ok(Mended { told: told("what is kept", &aside), lost: None });
        }
        let (aside, lost) = self.put(&path, object)?;
        let lost = (lost > 0).then(|| {
            format!(
                "{lost} pseudonyms beside the records {} to {} are in no archive, or were erased: nobody finds these by person here",
                known.first,
                known.first + known.count - 1
            )
        });
        Ok(Mended { told: told("the segment", &aside), lost })
    }

    /// The object that the log names, verified, which fits between its neighbours.
    fn fetch(&self, known: &SegmentArchived, wrong: &Wrong) -> Result<Verified, LogError> {
        let Source { store, identity, key, .. } = self.source;
        let (digest, length) = digest_of(*store, &known.name)?;
        if digest.as_ref() != &known.digest[..] || length != known.length {
            return Err(LogError::archive(&known.name, "it is not the one that the log names"));
        }
        let object = object::read(*store, &known.name, identity)?.verify(key)?;
        let end = object.header.chain_after(object.chain_after);
        let fits = |known: Option<Digest>, found| known.is_none_or(|known| known == found);
        if (object.first, object.index.leaves.len() as u64) != (known.first, known.count)
            || !fits(wrong.before, object.header.chain)
            || !fits(wrong.after, end)
        {
            return Err(LogError::archive(&known.name, "it does not fit between the segments beside it"));
        }
        Ok(object)
    }

    /// Puts a segment in its place; what was there, and how many pseudonyms are lost.
    fn put(&self, path: &Path, object: Verified) -> Result<(Vec<PathBuf>, usize), LogError> {
        let Verified { mut bytes, index, .. } = object;
        let old = self.disk.open(path).ok();
        let lost =
            index.overwritten.iter().filter(|(_, at)| !take_over(&mut bytes, old.as_deref(), *at)).count();
        let mut aside = Vec::new();
        // Its index is made anew at the next start, where it is not whole.
        let index_path = file::path_of(path);
        let is_whole = IndexFile::open(self.disk, &index_path).and_then(|index| index.check());
        if is_whole.is_err() {
            aside.extend(self.aside(&index_path)?);
            match self.disk.remove(&index_path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(LogError::disk("remove", &index_path)(error));
                }
                _ => {}
            }
        }
        aside.extend(self.aside(path)?);
        self.replace(path, &bytes)?;
        Ok((aside, lost))
    }

    /// Makes what is kept of a pruned segment again.
    fn put_pruned(&self, path: &Path, object: &Verified) -> Result<Vec<PathBuf>, LogError> {
        let (file, header) = (MemoryFile(object.bytes.clone()), object.header);
        let of = (header, object.index.leaves.len() as u64);
        let kept = gathering::gather((&file, path), of, &self.keys, &object.index)?;
        let (kept_path, index_path) = (remnant::path_of(path), file::path_of(path));
        let mut aside = Vec::new();
        // The index first: what is kept without it is found, and it without what is kept is not.
        if IndexFile::open(self.disk, &index_path).and_then(|index| index.check()).is_err() {
            aside.extend(self.aside(&index_path)?);
            let end = header.chain_after(object.chain_after);
            file::write_again(&**self.disk, &index_path, &object.index, (end, header.next_slot()))?;
        }
        let whole = Remnant::open(&**self.disk, path).is_ok_and(|kept| kept.is_of(of.0.first, of.1));
        if !whole || !self.is_legible(path) {
            aside.extend(self.aside(&kept_path)?);
            kept.write(&**self.disk, path)?;
        }
        Ok(aside)
    }

    fn is_legible(&self, path: &Path) -> bool {
        let Ok(kept) = Remnant::open(&**self.disk, path) else { return false };
        kept.records().all(|at| read_record(&*kept.file, &kept.path, at, Kind::Leaf).is_ok())
    }

    /// Copies a file aside, if there is one: under a name that no start takes for anything.
    fn aside(&self, path: &Path) -> Result<Option<PathBuf>, LogError> {
        let file = match self.disk.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(LogError::disk("open", path))?,
        };
        let length = file.len().map_err(LogError::disk("read", path))?;
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < length {
            // What the disk does not give is zeros in the copy.
            let mut chunk = vec![0; usize::try_from((length - at).min(CHUNK)).unwrap_or(0)];
            let _ = file.read_exact_at(&mut chunk, at);
            at += chunk.len() as u64;
            bytes.append(&mut chunk);
        }
        let names = self.disk.list(&self.segments).map_err(LogError::disk("list", &self.segments))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut free = (1..=names.len() + 1).map(|number| format!("{name}.damaged-{number}"));
        let free = free.find(|name| !names.contains(name)).unwrap_or_default();
        let aside = self.segments.join(free);
        self.replace(&aside, &bytes)?;
        Ok(Some(aside))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        replace(&**self.disk, &self.segments, &name, bytes).map_err(LogError::disk("write", path))
    }
}

/// Bytes of a file that are copied at a time.
const CHUNK: u64 = 64 << 10;

/// The archived segments of a range of which nothing is here.
fn missing(state: &ArchiveState, from: u64, to: u64) -> Vec<Wrong> {
    let of = |first, why: String| Wrong {
        first,
        name: None,
        pruned: false,
        why,
        before: None,
        after: None,
        last: false,
    };
    let inside: BTreeMap<u64, u64> = state
        .all()
        .filter(|copy| (from..to).contains(&copy.first))
        .map(|copy| (copy.first, copy.count))
        .collect();
    let mut wrong: Vec<_> =
        inside.keys().map(|first| of(*first, "neither it nor what is kept of it is here".into())).collect();
    if inside.values().sum::<u64>() < to - from {
        wrong.push(of(
            from,
            format!("the records {from} to {} are not here, and not all of them in the archive", to - 1),
        ));
    }
    wrong
}

/// What a kept or stored leaf at this place says.
fn act(file: &dyn DiskFile, path: &Path, offset: u64) -> Option<Leaf> {
    let payload = read_leaf(file, path, offset).ok()?;
    Leaf::decode(record::split_leaf(&payload)?.0).ok()
}

/// Takes the pseudonym at this place from the old file, if it is still legible there. Says whether.
fn take_over(bytes: &mut [u8], old: Option<&dyn DiskFile>, at: u64) -> bool {
    let read = || {
        let from = usize::try_from(at).ok()?;
        let header = bytes.get(from..from + HEADER)?;
        let known = Header::read(header.try_into().ok()?)?;
        let mut here = vec![0; HEADER + known.len];
        old?.read_exact_at(&mut here, at).ok()?;
        let legible = here[..HEADER] == *header && known.covers(&here[HEADER..]);
        (legible && bytes.len() >= from + here.len()).then_some((from, here))
    };
    let Some((from, here)) = read() else { return false };
    bytes[from..from + here.len()].copy_from_slice(&here);
    true
}
