//! Writing a closed segment anew without the records that have expired. What is left of these is the hash of their leaf.
//!
//! The steps, and what a crash leaves: the new generation is written under a temporary name and synced (a start removes
//! it); its index is written; it gets its name, which is durable (from then on it is the segment, and a start removes the
//! earlier generation); everything of the earlier generation is overwritten, synced and removed (a start does it again).
//! So the segment is there at every instant, and what had expired is gone once the log says so and was opened again.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Attachment, Leaf, StoredContent};

use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::entry::artefacts_of;
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::index::file::persons::{self, Table};
use crate::index::file::{self, IndexFile};
use crate::packing::{self, MAX_FORMS, Packed, REACH};
use crate::reading;
use crate::record::{self, HEADER, Kind, Marker, len_of};
use crate::remnant::{self, Remnant};
use crate::scan::{self, Scanner};
use crate::segment::{self, Compact, DATA, EXPIRED, Item, SegmentHeader};
use crate::shared::{Closed, Shared};

/// A segment that was written anew, and waits to be put in its place.
#[derive(Debug)]
pub(crate) struct Rewritten {
    temporary: PathBuf,
    segment: Closed,
    /// What it replaces.
    before: PathBuf,
    /// What had been overwritten when it was begun.
    overwritten: u64,
    /// Whether it was made of what is kept of a pruned segment.
    of_pruned: bool,
}

/// What is kept of a segment.
pub(crate) struct Kept<'a> {
    /// Whether the record of this leaf goes.
    pub(crate) gone: &'a dyn Fn(u64) -> bool,
    /// The time that is left of it, of the time when it was logged: milliseconds since 1970.
    pub(crate) coarse: &'a dyn Fn(i64) -> i64,
    /// Whether checkpoints and timestamps stay.
    pub(crate) notes: bool,
}

/// Writes `segment` anew, without what is gone. It is on the disk, whole, when this returns; nothing else has changed.
pub(crate) fn rewrite(shared: &Shared, segment: &Closed, kept: &Kept<'_>) -> Result<Rewritten, LogError> {
    let overwritten = shared.overwritten.load(Ordering::Acquire);
    let as_of = shared.catalogue().open.next();
    let path = segment::next_generation(&segment.path)
        .ok_or_else(|| LogError::damaged(&segment.path, 0, "it has no segment's name"))?;
    let temporary = path.with_extension("tmp");
    let write = if segment.is_pruned() { write_pruned } else { write };
    let written = write(shared, segment, kept, (&temporary, as_of)).and_then(|(index, end)| {
        let index_path = file::path_of(&path);
        file::write(&*shared.disk, &index_path, &index, end)?;
        let kept = IndexFile::open(&shared.disk, &index_path)?;
        let table = persons::write(&shared.disk, &persons::path_of(&path), segment.first, &index.persons)?;
        Ok(Closed::new(path.clone(), segment.first, segment.count, index.times(), Arc::new(kept))
            .with_persons(Table::File(table))
            .indexed())
    });
    match written {
        Ok(closed) => {
            let before = segment.path.clone();
            Ok(Rewritten { temporary, segment: closed, before, overwritten, of_pruned: segment.is_pruned() })
        }
        Err(error) => {
            // What was written of it takes space. If it cannot be removed now, the next start removes it.
            let _ = discard(&*shared.disk, &temporary);
            Err(error)
        }
    }
}

/// What became of it: either way a file is to be destroyed.
#[derive(Debug)]
pub(crate) enum Installed {
    /// It is in its place; this is what it replaced.
    Replaced(PathBuf),
    /// It was not put there.
    Stale(PathBuf),
}

/// Puts it in its place, if nothing was overwritten since it was begun: else what it holds may be what was to go. The one
/// who overwrites calls this, so that neither comes between the other.
pub(crate) fn install(shared: &Shared, rewritten: Rewritten) -> Result<Installed, LogError> {
    let _alone = shared.placing();
    let there = shared.is_place(rewritten.segment.first, &rewritten.before);
    if there != Some(rewritten.of_pruned)
        || shared.overwritten.load(Ordering::Acquire) != rewritten.overwritten
    {
        return Ok(Installed::Stale(rewritten.temporary));
    }
    let Rewritten { temporary, segment, before, .. } = rewritten;
    let dir = segment.path.parent().unwrap_or(&shared.dir).to_owned();
    shared.disk.rename(&temporary, &segment.path).map_err(LogError::disk("rename", &temporary))?;
    shared.disk.sync_dir(&dir).map_err(LogError::disk("sync", &dir))?;
    shared.replace(segment);
    Ok(Installed::Replaced(before))
}

/// Overwrites and removes a segment that was replaced, and everything that was made of it: the segment itself last, so that
/// whoever finds it knows that the rest may be there; and of a pruned one what is kept of it.
pub(crate) fn destroy(disk: &dyn Disk, segment: &Path) -> Result<(), LogError> {
    let (Some(dir), Some(name)) = (segment.parent(), segment.file_name()) else { return Ok(()) };
    let name = name.to_string_lossy().into_owned();
    let Some(of) = segment::of_name(&name) else { return Ok(()) };
    let kept = remnant::path_of(segment);
    for other in disk.list(dir).map_err(LogError::disk("list", dir))? {
        if other != name && segment::belongs_to(&other, of) && !kept.ends_with(&other) {
            wipe(disk, &dir.join(other))?;
        }
    }
    disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
    wipe(disk, segment)?;
    wipe(disk, &kept)?;
    disk.sync_dir(dir).map_err(LogError::disk("sync", dir))
}

/// Overwrites and removes what was not put in its place, and its index; the segment itself last, as above.
pub(crate) fn discard(disk: &dyn Disk, temporary: &Path) -> Result<(), LogError> {
    wipe(disk, &file::path_of(temporary))?;
    wipe(disk, &persons::path_of(temporary))?;
    wipe(disk, temporary)
}

/// Overwrites a file and removes it.
pub(crate) fn wipe(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::disk("open", path)(error)),
    };
    let len = file.len().map_err(LogError::disk("read", path))?;
    fill_zeros(&*file, 0, len).map_err(LogError::disk("overwrite", path))?;
    file.sync().map_err(LogError::disk("sync", path))?;
    disk.remove(path).map_err(LogError::disk("remove", path))
}

/// Writes the new file; says what is in it, and the chain value with which the next segment begins.
fn write(
    shared: &Shared,
    segment: &Closed,
    kept: &Kept<'_>,
    (temporary, as_of): (&Path, u64),
) -> Result<(MemoryIndex, Digest), LogError> {
    let path = &segment.path;
    let old = shared.disk.open(path).map_err(LogError::disk("open", path))?;
    let header = SegmentHeader::read(&*old, path)?;
    let needs = Needs::of(shared, segment, (&*old, header), kept)?;
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| LogError::Refused("the system gives no random numbers"))?;
    let compact = Compact { end: needs.end, next_slot: needs.next_slot, as_of };
    let new = SegmentHeader { id, compact: Some(compact), ..header };
    let file = shared.disk.create(temporary).map_err(LogError::disk("create", temporary))?;
    let mut writer = Writer::begin(file, temporary, new)?;
    let mut scanner = Scanner::new(&*old, path, header, &shared.keys)?;
    let (mut index, mut content, mut persons) = (segment.first, None, Vec::new());
    while let Some(records) = scanner.next_records()? {
        for (item, kind, payload) in records {
            match item {
                Item::Artefact(digest, _) if needs.artefacts.contains(&digest) => {
                    writer.record(kind, &[&payload])?;
                }
                Item::Content(slot) => content = Some((slot, payload)),
                Item::Pseudonym(Some(_), _) => persons.push(payload),
                Item::Pseudonym(None, _) => {}
                Item::Checkpoint(..) | Item::Timestamp(..) if kept.notes => {
                    writer.record(kind, &[&payload])?;
                }
                Item::Artefact(..) | Item::Form(..) | Item::Checkpoint(..) | Item::Timestamp(..) => {}
                Item::Expired(leaves) => {
                    leaves.iter().try_for_each(|leaf| writer.expired(leaf.time, leaf.hash))?;
                    index += leaves.len() as u64;
                }
                Item::Leaf(leaf, _) if (kept.gone)(index) => {
                    writer.expired((kept.coarse)(leaf.time), leaf.hash)?;
                    (index, content) = (index + 1, None);
                    persons.clear();
                }
                Item::Leaf(..) => {
                    let content = content.take().filter(|(slot, _)| needs.live.contains(slot));
                    let beside = (content.map(|(_, payload)| payload), std::mem::take(&mut persons));
                    writer.leaf(&payload, beside)?;
                    index += 1;
                }
            }
        }
    }
    let mut made = writer.finish()?;
    made.next_slot = made.next_slot.max(needs.next_slot);
    read_again(shared, segment, (temporary, new), made)
}

/// The same of a pruned segment of which nothing stays but hashes and what is kept of it here: so it is here again, and the
/// next copy in the archive takes the place of the one that holds what has expired.
fn write_pruned(
    shared: &Shared,
    segment: &Closed,
    kept: &Kept<'_>,
    (temporary, as_of): (&Path, u64),
) -> Result<(MemoryIndex, Digest), LogError> {
    let path = &segment.path;
    let (remnant, index) = (Remnant::open(&*shared.disk, path)?, segment.index());
    let head = IndexFile::open(&shared.disk, &file::path_of(path))?.head().clone();
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| LogError::Refused("the system gives no random numbers"))?;
    let compact = Compact { end: head.chain, next_slot: head.next_slot, as_of };
    let new = SegmentHeader { id, compact: Some(compact), ..remnant.header()? };
    let file = shared.disk.create(temporary).map_err(LogError::disk("create", temporary))?;
    let (mut writer, mut written) = (Writer::begin(file, temporary, new)?, HashSet::new());
    for at in segment.first..segment.first + segment.count {
        let leaf = index.leaf(at)?.ok_or_else(|| segment.pruned())?;
        match remnant.entry(at, leaf) {
            Some(entry) if !(kept.gone)(at) => {
                let payload = reading::read_leaf(&*remnant.file, &remnant.path, entry.offset)?;
                let (kept_leaf, beside) = decoded(&remnant.path, &payload)?;
                for digest in artefacts_of(&kept_leaf, &beside).filter(|digest| written.insert(*digest)) {
                    let Some(at) = remnant.artefact(&digest) else { continue };
                    let bytes = reading::read_record(&*remnant.file, &remnant.path, at, Kind::Artefact)?;
                    writer.record(Kind::Artefact, &[&bytes])?;
                }
                writer.leaf(&payload, (None, Vec::new()))?;
            }
            _ if leaf.kind == EXPIRED => writer.expired(leaf.time, leaf.hash)?,
            _ if (kept.gone)(at) => writer.expired((kept.coarse)(leaf.time), leaf.hash)?,
            _ => return Err(LogError::Refused("a record of a pruned segment that stays")),
        }
    }
    let mut made = writer.finish()?;
    made.next_slot = made.next_slot.max(head.next_slot);
    read_again(shared, segment, (temporary, new), made)
}

/// Reads what was written before anything rests on it.
fn read_again(
    shared: &Shared,
    segment: &Closed,
    (temporary, new): (&Path, SegmentHeader),
    made: MemoryIndex,
) -> Result<(MemoryIndex, Digest), LogError> {
    let (path, written_end) = (&segment.path, new.compact.map(|compact| compact.end));
    if made.leaves.len() as u64 != segment.count {
        return Err(LogError::damaged(path, 0, "it has not the leaves that its index names"));
    }
    let (read, end) = scan::read_closed(&*shared.disk, temporary, new, &shared.keys)?;
    let same = read.leaves == made.leaves && read.exchanges == made.exchanges && Some(end) == written_end;
    let hashes = segment.index();
    let same = same
        && (segment.first..).zip(&read.leaves).try_fold(true, |same, (at, leaf)| {
            Ok::<_, LogError>(same && hashes.leaf(at)?.is_some_and(|known| known.hash == leaf.hash))
        })?;
    match same {
        true => Ok((made, end)),
        false => Err(LogError::damaged(temporary, 0, "the segment written anew is not what was written")),
    }
}

/// What the records need that stay.
struct Needs {
    artefacts: HashSet<Digest>,
    /// Key slots that hold a key.
    live: HashSet<u64>,
    next_slot: u64,
    end: Digest,
}

impl Needs {
    fn of(
        shared: &Shared,
        segment: &Closed,
        (old, header): (&dyn DiskFile, SegmentHeader),
        kept: &Kept<'_>,
    ) -> Result<Self, LogError> {
        let (next_slot, end) = (header.next_slot(), header.chain);
        let mut needs = Self { artefacts: HashSet::new(), live: HashSet::new(), next_slot, end };
        let mut scanner = Scanner::new(old, &segment.path, header, &shared.keys)?;
        let mut index = segment.first;
        while let Some(records) = scanner.next_records()? {
            for (item, _, payload) in records {
                if let Item::Leaf(..) = item {
                    let (leaf, attachment) = decoded(&segment.path, &payload)?;
                    needs.leaf(shared, (&leaf, &attachment), (kept.gone)(index))?;
                }
                if let Item::Content(slot) = item {
                    needs.next_slot = needs.next_slot.max(slot + 1);
                }
                index += item.leaves();
            }
        }
        let extent = scanner.extent();
        if let Some(why) = &extent.torn {
            return Err(LogError::damaged(&segment.path, extent.end, why.clone()));
        }
        needs.end = header.chain_after(extent.chain);
        Ok(needs)
    }

    fn leaf(
        &mut self,
        shared: &Shared,
        (leaf, attachment): (&Leaf, &Attachment),
        gone: bool,
    ) -> Result<(), LogError> {
        let slot = attachment.content.as_ref().map(|content| content.key_slot);
        self.next_slot = self.next_slot.max(slot.map_or(0, |slot| slot + 1));
        if gone {
            return Ok(());
        }
        self.artefacts.extend(artefacts_of(leaf, attachment));
        if let Some(slot) = slot
            && !shared.keys.is_erased(slot)?
        {
            self.live.insert(slot);
        }
        Ok(())
    }
}

fn decoded(path: &Path, payload: &[u8]) -> Result<(Leaf, Attachment), LogError> {
    let both = record::split_leaf(payload)
        .and_then(|(leaf, beside)| Some((Leaf::decode(leaf).ok()?, Attachment::decode(beside).ok()?)));
    both.ok_or_else(|| LogError::damaged(path, 0, "a leaf or what stands beside it cannot be decoded"))
}

/// Writes groups into a file, one after the other.
struct Writer {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
    index: MemoryIndex,
    chain: Digest,
    /// Where the group begins that is being laid out.
    at: u64,
    bytes: Vec<u8>,
    headers: Vec<[u8; HEADER]>,
    /// Expired leaves that go into one record.
    expired: Vec<Digest>,
    time: i64,
}

/// Bytes of a group, and leaves of a record of expired ones.
const GROUP: usize = 1 << 20;
const EXPIRED_AT_ONCE: usize = 4_096;

impl Writer {
    fn begin(file: Arc<dyn DiskFile>, path: &Path, header: SegmentHeader) -> Result<Self, LogError> {
        fill_zeros(&*file, 0, DATA)
            .and_then(|()| file.write_all_at(&header.to_bytes(), 0))
            .map_err(LogError::disk("write", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            header,
            index: MemoryIndex::new(header.first),
            chain: header.chain,
            at: DATA,
            bytes: Vec::new(),
            headers: Vec::new(),
            expired: Vec::new(),
            time: 0,
        })
    }

    /// Adds a record as it is.
    fn record(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), LogError> {
        self.end_expired()?;
        self.put(kind, parts)
    }

    fn put(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), LogError> {
        self.put_as(kind, parts, (kind, &parts.concat()))
    }

    /// Adds a record that reads as another: a leaf that is packed.
    fn put_as(
        &mut self,
        kind: Kind,
        parts: &[&[u8]],
        (as_kind, payload): (Kind, &[u8]),
    ) -> Result<(), LogError> {
        let offset = self.next_offset();
        self.headers.push(record::write(&mut self.bytes, kind, parts));
        let item = segment::item(as_kind, payload, offset);
        let item = item.ok_or_else(|| LogError::damaged(&self.path, offset, "a record cannot be read"))?;
        self.index.add(&item);
        if self.bytes.len() >= GROUP { self.end_group() } else { Ok(()) }
    }

    fn next_offset(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Adds the hash of a leaf whose record has expired.
    fn expired(&mut self, time: i64, hash: Digest) -> Result<(), LogError> {
        if self.time != time || self.expired.len() >= EXPIRED_AT_ONCE {
            self.end_expired()?;
        }
        self.time = time;
        self.expired.push(hash);
        Ok(())
    }

    fn end_expired(&mut self) -> Result<(), LogError> {
        if self.expired.is_empty() {
            return Ok(());
        }
        let hashes = std::mem::take(&mut self.expired);
        self.put(Kind::Expired, &[&segment::expired_payload(self.time, &hashes)])
    }

    /// Adds a leaf that stays, with its content, whose place changes, and the pseudonyms beside it.
    fn leaf(
        &mut self,
        payload: &[u8],
        (content, persons): (Option<Vec<u8>>, Vec<Vec<u8>>),
    ) -> Result<(), LogError> {
        self.end_expired()?;
        let damaged = |path: &Path| LogError::damaged(path, 0, "no leaf");
        let (bytes, beside) = record::split_leaf(payload).ok_or_else(|| damaged(&self.path))?;
        let mut attachment = Attachment::decode(beside).map_err(|_| damaged(&self.path))?;
        if let Some(stored) = &mut attachment.content {
            match content {
                Some(content) => {
                    stored.offset = self.next_offset();
                    self.put(Kind::Content, &[&content])?;
                }
                // It was erased: nothing is left to be overwritten.
                None => *stored = StoredContent { offset: 0, length: 0, ..*stored },
            }
        }
        persons.iter().try_for_each(|payload| self.put(Kind::Pseudonym, &[payload]))?;
        let packed = match packing::split(bytes) {
            Some(Packed { form, rest }) => self.form(form)?.map(|form| (form, rest)),
            None => None,
        };
        let attachment = attachment.encode_to_vec();
        let whole = [&len_of(bytes)[..], bytes, &attachment].concat();
        match packed {
            Some((form, rest)) => {
                let parts = [&form.to_le_bytes(), &len_of(&rest)[..], &rest, &attachment];
                self.put_as(Kind::PackedLeaf, &parts, (Kind::Leaf, &whole))
            }
            None => self.put(Kind::Leaf, &[&whole]),
        }
    }

    /// Where a form stands, which is added where it does not stand yet; none if there are too many.
    fn form(&mut self, form: Vec<u8>) -> Result<Option<u64>, LogError> {
        let offset = self.next_offset();
        match self.index.forms.get(&form) {
            Some(last) if offset - last < REACH => return Ok(Some(*last)),
            None if self.index.forms.len() >= MAX_FORMS => return Ok(None),
            _ => {}
        }
        self.put(Kind::Form, &[&form])?;
        Ok(Some(offset))
    }

    fn end_group(&mut self) -> Result<(), LogError> {
        let at = self.next_offset();
        self.chain = record::chain(&self.chain, &self.headers);
        let (segment, size, chain) = (self.header.id, self.index.next(), self.chain);
        Marker { segment, group: self.at, at, size, chain }.write(&mut self.bytes);
        self.file.write_all_at(&self.bytes, self.at).map_err(LogError::disk("write", &self.path))?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        self.headers.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<MemoryIndex, LogError> {
        self.end_expired()?;
        self.end_group()?;
        self.file.sync().map_err(LogError::disk("sync", &self.path))?;
        Ok(self.index)
    }
}
