//! What is kept on this server of a segment that was pruned, beside its index: the leaves on which the server's state rests
//! (grants, groups, statements about archives, …), the slots of the keys of its contents, so that they can be erased though the
//! segment is not here, and what each message and refusal was about, so that holds and schedules concern it as before.
//!
//! File `segment-<first>.pruned` (`segment-<first>.c<generation>.pruned`, as the segment's file was named): 16 bytes `trave pruned 1\n\0`, length of the table (4, little-endian), the table
//! (`trave.log.v1.PrunedSegment`), CRC-32 (4) of all before it, then the kept leaves and the artefacts that they need, as records of a segment. A file of
//! this name beside a segment that is still here means nothing: it is prepared before anything is removed.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use trave_proto::digest::Digest;
use trave_proto::message::Manifest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{
    Attachment, ContentSlot, KeptArtefact, KeptLeaf, Leaf, PrunedSegment, PrunedSubject, SubjectOfLeaf,
};

use crate::disk::{Disk, DiskFile, replace};
use crate::entry::{artefacts_of, kind};
use crate::error::LogError;
use crate::record::{self, Kind};
use crate::segment::{LeafEntry, SegmentHeader};

const MAGIC: &[u8; 16] = b"trave pruned 1\n\0";
const VERSION: u32 = 1;
const TABLE_AT: usize = MAGIC.len() + 4;
/// Two numbers for each content of a segment of 1 GiB are far less.
const MAX_TABLE: usize = 256 << 20;

/// The file of what is kept of this segment.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("pruned")
}

/// The first leaf and the generation of the segment, and the name of the segment's file, from that of this file; none if it
/// is not the name of such a file.
pub(crate) fn of_name(name: &str) -> Option<((u64, u64), String)> {
    let segment = format!("{}.log", name.strip_suffix(".pruned")?);
    Some((crate::segment::of_name(&segment)?, segment))
}

/// Whether a leaf is kept when its segment is pruned: all but those that only say what exchanges there were, which are what
/// takes the space. What a later release logs may be state; better too much is kept than too little.
pub(crate) const fn is_kept(kind: u8) -> bool {
    !matches!(kind, kind::MESSAGE | kind::ENDED | kind::REFUSAL | kind::RECOVERED)
}

/// Gathers what is kept of a segment.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    table: PrunedSegment,
    records: Vec<u8>,
    subjects: HashMap<Vec<u8>, u32>,
    needs: BTreeSet<Digest>,
}

impl Gathering {
    pub(crate) fn new(header: SegmentHeader, count: u64) -> Self {
        let (first, header) = (header.first, header.to_bytes().into());
        let table = PrunedSegment { version: VERSION, first, count, header, ..PrunedSegment::default() };
        Self { table, ..Self::default() }
    }

    /// Takes the next leaf's record.
    pub(crate) fn add(&mut self, index: u64, kind: u8, payload: &[u8]) -> Option<()> {
        let (leaf, attachment) = record::split_leaf(payload)?;
        let attachment = Attachment::decode(attachment).ok()?;
        let leaf = Leaf::decode(leaf).ok()?;
        if is_kept(kind) {
            self.needs.extend(artefacts_of(&leaf, &attachment));
        }
        if let Some(subject) = subject(&leaf) {
            let subject = self.subject(subject);
            self.table.about.push(SubjectOfLeaf { index, subject });
        }
        if let Some(content) = attachment.content {
            self.table.slots.push(ContentSlot { index, slot: content.key_slot });
        }
        if is_kept(kind) {
            self.table.leaves.push(KeptLeaf { index, offset: self.records.len() as u64 });
            record::write(&mut self.records, Kind::Leaf, &[payload]);
        }
        Some(())
    }

    /// The artefacts that the kept leaves need.
    pub(crate) fn needs(&self) -> BTreeSet<Digest> {
        self.needs.clone()
    }

    /// Takes one of them.
    pub(crate) fn add_artefact(&mut self, digest: Digest, bytes: &[u8]) {
        let offset = self.records.len() as u64;
        self.table.artefacts.push(KeptArtefact { digest: digest.to_bytes(), offset });
        record::write(&mut self.records, Kind::Artefact, &[bytes]);
    }

    /// The place of a subject among all.
    fn subject(&mut self, subject: PrunedSubject) -> u32 {
        let next = u32::try_from(self.table.subjects.len()).unwrap_or(u32::MAX);
        let subjects = &mut self.table.subjects;
        *self.subjects.entry(subject.encode_to_vec()).or_insert_with(|| {
            subjects.push(subject);
            next
        })
    }

    /// Makes it durable.
    pub(crate) fn write(&self, disk: &dyn Disk, segment: &Path) -> Result<(), LogError> {
        let path = path_of(segment);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(LogError::Refused("what is kept of a segment needs a name"));
        };
        let table = self.table.encode_to_vec();
        let length = u32::try_from(table.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = [&MAGIC[..], &length, &table].concat();
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend_from_slice(&crc);
        bytes.extend_from_slice(&self.records);
        replace(disk, dir, &name.to_string_lossy(), &bytes).map_err(LogError::disk("write", &path))
    }
}

/// What a message or a refusal is about; none of other leaves.
fn subject(leaf: &Leaf) -> Option<PrunedSubject> {
    let message = match leaf.entry.as_ref()? {
        Entry::Message(message) => message,
        Entry::Recovered(recovered) => recovered.message.as_ref()?,
        Entry::Refusal(refusal) => {
            return Some(PrunedSubject {
                client: refusal.client.clone(),
                service: refusal.service.clone(),
                purpose: refusal.purpose.clone(),
                legal_basis: refusal.legal_basis.clone(),
                ..PrunedSubject::default()
            });
        }
        _ => return None,
    };
    let manifest = Manifest::parse(message.manifest.clone()).ok()?;
    Some(PrunedSubject {
        client: manifest.client.to_string(),
        service: manifest.service.to_string(),
        purpose: manifest.purpose.to_string(),
        legal_basis: manifest.legal_basis.to_string(),
        sender: manifest.sender.to_string(),
        receiver: manifest.receiver.to_string(),
    })
}

/// What is kept of a pruned segment, open for reading.
#[derive(Debug)]
pub(crate) struct Remnant {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    table: PrunedSegment,
    records_at: u64,
}

impl Remnant {
    /// Opens what is kept of the segment whose file was `segment`.
    pub(crate) fn open(disk: &dyn Disk, segment: &Path) -> Result<Self, LogError> {
        let path = path_of(segment);
        let damaged = |what: &str| LogError::damaged(&path, 0, what);
        let file = disk.open(&path).map_err(LogError::disk("open", &path))?;
        let mut begin = [0; TABLE_AT];
        file.read_exact_at(&mut begin, 0).map_err(LogError::disk("read", &path))?;
        let length = begin[MAGIC.len()..].try_into().map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if begin[..MAGIC.len()] != MAGIC[..] || length > MAX_TABLE {
            return Err(damaged("it is not what is kept of a pruned segment"));
        }
        let mut bytes = begin.to_vec();
        bytes.resize(TABLE_AT + length + 4, 0);
        file.read_exact_at(&mut bytes[TABLE_AT..], TABLE_AT as u64).map_err(LogError::disk("read", &path))?;
        let crc = bytes.split_off(TABLE_AT + length);
        if crc != crc32fast::hash(&bytes).to_le_bytes() {
            return Err(damaged("its checksum is wrong"));
        }
        let table = PrunedSegment::decode(&bytes[TABLE_AT..]).map_err(|_| damaged("it cannot be read"))?;
        if table.version != VERSION {
            return Err(damaged("a later release wrote it"));
        }
        Ok(Self { path, file, table, records_at: (TABLE_AT + length + 4) as u64 })
    }

    /// Whether it is of the segment with these leaves.
    pub(crate) fn is_of(&self, first: u64, count: u64) -> bool {
        (self.table.first, self.table.count) == (first, count)
    }

    /// Where a kept leaf stands in this file; none if it was not kept.
    pub(crate) fn entry(&self, index: u64, entry: LeafEntry) -> Option<LeafEntry> {
        let at = self.table.leaves.binary_search_by_key(&index, |leaf| leaf.index).ok()?;
        Some(LeafEntry { offset: self.records_at.checked_add(self.table.leaves[at].offset)?, ..entry })
    }

    /// Where an artefact stands in this file that a kept leaf needs; none if no kept leaf does.
    pub(crate) fn artefact(&self, digest: &Digest) -> Option<u64> {
        let artefacts = &self.table.artefacts;
        let at = artefacts.binary_search_by(|it| it.digest[..].cmp(digest.as_ref())).ok()?;
        self.records_at.checked_add(artefacts[at].offset)
    }

    /// Where the kept leaves stand in this file.
    pub(crate) fn records(&self) -> impl Iterator<Item = u64> {
        self.table.leaves.iter().map(|leaf| self.records_at.saturating_add(leaf.offset))
    }

    /// The key slot of the content of leaf `index`; none if it had no content.
    pub(crate) fn slot(&self, index: u64) -> Option<u64> {
        let at = self.table.slots.binary_search_by_key(&index, |slot| slot.index).ok()?;
        Some(self.table.slots[at].slot)
    }

    /// What leaf `index` was about; none if it was neither a message nor a refusal.
    pub(crate) fn subject(&self, index: u64) -> Option<&PrunedSubject> {
        let at = self.table.about.binary_search_by_key(&index, |about| about.index).ok()?;
        self.table.subjects.get(usize::try_from(self.table.about[at].subject).ok()?)
    }

    /// The header of the segment's file.
    pub(crate) fn header(&self) -> Result<SegmentHeader, LogError> {
        let header = SegmentHeader::of_bytes(&self.table.header);
        header.ok_or_else(|| LogError::damaged(&self.path, 0, "it holds no header of the segment"))
    }
}
