//! Segment files: the truth of the log. How one begins, how records stand in it, and how it is read from end to end.
//!
//! The first 512 bytes are the header, alone in its sector. Then groups follow: records, ended by a marker. What follows
//! the last marker is zeros.
//!
//! A closed segment of which records have expired is written anew without them, under the name of its next generation
//! (`segment-<first>.c<generation>.log`). Whichever generation is the highest is the segment.

use std::path::{Path, PathBuf};

use prost::Message as _;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Attachment, Leaf, leaf};
use trave_proto::tree::leaf_hash;

use crate::disk::DiskFile;
use crate::error::LogError;
use crate::pseudonyms::Pseudonym;
use crate::record::{self, Kind};

/// Where the first group begins.
pub(crate) const DATA: u64 = 512;
const MAGIC: &[u8; 16] = b"trave segment 2\n";
const COMPACT_MAGIC: &[u8; 16] = b"trave compact 2\n";
/// How they began before leaves were packed; else they are the same.
const MAGICS_1: [&[u8; 16]; 2] = [b"trave segment 1\n", b"trave compact 1\n"];
const HEAD_LEN: usize = 16 + 32 + 16 + 8 + 32;
const COMPACT_LEN: usize = HEAD_LEN + 32 + 8 + 8;

/// The name of the segment file that begins with leaf `first`.
pub(crate) fn file_name(first: u64) -> String {
    format!("segment-{first:020}.log")
}

/// The same of a generation of it.
pub(crate) fn name_of(first: u64, generation: u64) -> String {
    match generation {
        0 => file_name(first),
        generation => format!("segment-{first:020}.c{generation:06}.log"),
    }
}

/// The first leaf of a segment and its generation, from the file's name; none if it is not the name of a segment.
pub(crate) fn of_name(name: &str) -> Option<(u64, u64)> {
    let number = |text: &str, len: usize| {
        (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let stem = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    match stem.split_once(".c") {
        None => Some((number(stem, 20)?, 0)),
        Some((first, generation)) => Some((number(first, 20)?, number(generation, 6).filter(|it| *it > 0)?)),
    }
}

/// The name of the same segment, written anew.
pub(crate) fn next_generation(path: &Path) -> Option<PathBuf> {
    let (first, generation) = of_name(&path.file_name()?.to_string_lossy())?;
    Some(path.with_file_name(name_of(first, generation + 1)))
}

/// Whether this is the name of a segment that was being written anew.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp").map(|stem| format!("{stem}.log"));
    whole.and_then(|name| of_name(&name)).is_some_and(|(_, generation)| generation > 0)
}

/// How often the segment in this file was written anew.
pub(crate) fn generation(path: &Path) -> u64 {
    path.file_name().and_then(|name| of_name(&name.to_string_lossy())).map_or(0, |(_, generation)| generation)
}

/// Whether a file stands beside a segment's `generation`, or is that: its index, and whatever else is made of it.
pub(crate) fn belongs_to(name: &str, (first, generation): (u64, u64)) -> bool {
    let Some(rest) = name.strip_prefix(&format!("segment-{first:020}")) else { return false };
    match generation {
        0 => rest.starts_with('.') && !rest.starts_with(".c0"),
        generation => rest.starts_with(&format!(".c{generation:06}.")),
    }
}

/// With what a segment file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// SHA-256 of the log's origin.
    pub(crate) origin: Digest,
    /// Random: what comes from outside cannot contain it, so that no body of a message passes for a marker.
    pub(crate) id: [u8; 16],
    /// Index of the first leaf.
    pub(crate) first: u64,
    /// Chain value of the last marker of the segment before.
    pub(crate) chain: Digest,
    /// Of a segment that was written anew: what cannot be read from it any more.
    pub(crate) compact: Option<Compact>,
}

/// What a segment that was written anew keeps of the one that it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compact {
    /// Chain value of the last marker as it was first written: with it the segment after this one begins.
    pub(crate) end: Digest,
    /// The first key slot that no record of it named.
    pub(crate) next_slot: u64,
    /// Leaves that the log held when it was written anew: what these had overwritten in it is done. Places in its file that
    /// they name are those of an earlier generation.
    pub(crate) as_of: u64,
}

impl SegmentHeader {
    /// Chain value with which the segment after this one begins, where `last` is that of its last marker.
    pub(crate) fn chain_after(&self, last: Digest) -> Digest {
        self.compact.map_or(last, |compact| compact.end)
    }

    /// The first key slot that no record of it named, as far as these are gone.
    pub(crate) fn next_slot(&self) -> u64 {
        self.compact.map_or(0, |compact| compact.next_slot)
    }

    /// The header as it is written, with its checksum.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let first = self.first.to_le_bytes();
        let magic = if self.compact.is_some() { COMPACT_MAGIC } else { MAGIC };
        let mut bytes = [&magic[..], self.origin.as_ref(), &self.id, &first, self.chain.as_ref()].concat();
        if let Some(Compact { end, next_slot, as_of }) = self.compact {
            bytes.extend_from_slice(end.as_ref());
            bytes.extend_from_slice(&next_slot.to_le_bytes());
            bytes.extend_from_slice(&as_of.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the header of a segment file.
    pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<Self, LogError> {
        let mut bytes = [0; COMPACT_LEN + 4];
        let damaged = || LogError::damaged(path, 0, "it does not begin with a segment's header");
        if file.len().map_err(LogError::disk("read", path))? < DATA {
            return Err(damaged());
        }
        file.read_exact_at(&mut bytes, 0).map_err(LogError::disk("read", path))?;
        Self::parse(&bytes).ok_or_else(damaged)
    }

    /// Reads a header as it was written, of either form.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; COMPACT_LEN + 4];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Self::parse(&padded)
    }

    fn parse(bytes: &[u8; COMPACT_LEN + 4]) -> Option<Self> {
        let [plain_1, compact_1] = MAGICS_1;
        let compact = bytes.starts_with(COMPACT_MAGIC) || bytes.starts_with(compact_1);
        let (body, crc) = bytes.split_at(if compact { COMPACT_LEN } else { HEAD_LEN });
        let (origin, rest) = body.get(MAGIC.len()..)?.split_at(32);
        let (id, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (chain, rest) = rest.split_first_chunk::<32>()?;
        let whole = crc.starts_with(&crc32fast::hash(body).to_le_bytes());
        let known = compact || bytes.starts_with(MAGIC) || bytes.starts_with(plain_1);
        let compact = if compact { Some(Compact::parse(rest)?) } else { None };
        (whole && known).then_some(Self {
            origin: Digest::from_slice(origin)?,
            id: *id,
            first: u64::from_le_bytes(*first),
            chain: Digest::from_slice(chain)?,
            compact,
        })
    }
}

impl Compact {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (end, rest) = bytes.split_first_chunk::<32>()?;
        let (next_slot, as_of) = rest.split_first_chunk()?;
        Some(Self {
            end: Digest::from_slice(end)?,
            next_slot: u64::from_le_bytes(*next_slot),
            as_of: u64::from_le_bytes(*as_of.first_chunk()?),
        })
    }
}

/// In the place of a leaf's kind: its record has expired, and its hash alone is left.
pub(crate) const EXPIRED: u8 = 0;

/// What the index keeps of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeafEntry {
    /// Where its record stands.
    pub(crate) offset: u64,
    /// When it was logged, milliseconds since 1970.
    pub(crate) time: i64,
    /// The field number of its entry in the schema.
    pub(crate) kind: u8,
    /// The exchange that it is about; zeros for none.
    pub(crate) exchange: [u8; 16],
    /// Its hash in the tree.
    pub(crate) hash: Digest,
}

/// What was found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A leaf, and the key slot of its content if it has one.
    Leaf(LeafEntry, Option<u64>),
    /// Leaves whose records have expired.
    Expired(Vec<LeafEntry>),
    /// An artefact and where its record stands.
    Artefact(Digest, u64),
    /// A content record, by its key slot.
    Content(u64),
    /// A checkpoint's note and where its record stands.
    Checkpoint(Vec<u8>, u64),
    /// A timestamp token: the size of the checkpoint, and where its record stands.
    Timestamp(u64, u64),
    /// What leaves have in common, and where its record stands.
    Form(Vec<u8>, u64),
    /// The pseudonym of a person, which stands before its leaf, and where its record stands; none if it was overwritten.
    Pseudonym(Option<Pseudonym>, u64),
}

impl Item {
    /// How many leaves of the tree it stands for.
    pub(crate) fn leaves(&self) -> u64 {
        match self {
            Self::Leaf(..) => 1,
            Self::Expired(leaves) => leaves.len() as u64,
            _ => 0,
        }
    }
}

/// The payload of a record of expired leaves: a time that is as coarse as the schedule needs, and the hashes.
pub(crate) fn expired_payload(time: i64, hashes: &[Digest]) -> Vec<u8> {
    let mut payload = time.to_le_bytes().to_vec();
    payload.extend(hashes.iter().flat_map(|hash| *hash.as_bytes()));
    payload
}

fn expired(payload: &[u8], offset: u64) -> Option<Item> {
    let (time, hashes) = payload.split_first_chunk()?;
    let time = i64::from_le_bytes(*time);
    if hashes.is_empty() || hashes.len() % Digest::LEN != 0 {
        return None;
    }
    let leaf = |hash| LeafEntry { offset, time, kind: EXPIRED, exchange: [0; 16], hash };
    Some(Item::Expired(hashes.chunks_exact(Digest::LEN).filter_map(Digest::from_slice).map(leaf).collect()))
}

/// Reads the parts of a leaf that the index keeps.
pub(crate) fn describe(leaf: &Leaf) -> (u8, [u8; 16]) {
    /// Only the exchange id of a manifest: its other fields are skipped.
    #[derive(Clone, PartialEq, prost::Message)]
    struct ManifestId {
        #[prost(bytes = "bytes", tag = "2")]
        exchange_id: bytes::Bytes,
    }
    use leaf::Entry;
    let id = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 16]);
    match &leaf.entry {
        None => (0, [0; 16]),
        Some(Entry::Message(message)) => {
            let manifest = ManifestId::decode(message.manifest.clone()).unwrap_or_default();
            (10, id(&manifest.exchange_id))
        }
        Some(Entry::Ended(ended)) => (11, id(&ended.exchange_id)),
        Some(Entry::Refusal(refusal)) => (12, id(&refusal.exchange_id)),
        Some(Entry::Grant(_)) => (13, [0; 16]),
        Some(Entry::Erasure(erasure)) => (14, id(&erasure.exchange_id)),
        Some(Entry::Configuration(_)) => (15, [0; 16]),
        Some(Entry::Degradation(_)) => (16, [0; 16]),
        Some(Entry::Read(_)) => (17, [0; 16]),
        Some(Entry::Act(_)) => (18, [0; 16]),
        Some(Entry::Started(_)) => (19, [0; 16]),
        Some(Entry::Group(_)) => (20, [0; 16]),
        Some(Entry::PeerCheckpoint(_)) => (24, [0; 16]),
        Some(Entry::Recovered(recovered)) => {
            let message = recovered.message.as_ref().map(|message| message.manifest.clone());
            let manifest = ManifestId::decode(message.unwrap_or_default()).unwrap_or_default();
            (25, id(&manifest.exchange_id))
        }
        Some(Entry::PersonSearchAsked(_)) => (26, [0; 16]),
        Some(Entry::PersonSearchReleased(_)) => (27, [0; 16]),
        Some(Entry::Persons(_)) => (28, [0; 16]),
        Some(Entry::Generation(_)) => (29, [0; 16]),
        Some(Entry::Reconciliation(_)) => (31, [0; 16]),
        Some(Entry::Archive(_)) => (30, [0; 16]),
        Some(Entry::PeerCondition(_)) => (35, [0; 16]),
        Some(Entry::HourNotCompared(_)) => (36, [0; 16]),
        Some(Entry::SummaryCommitted(_)) => (37, [0; 16]),
        Some(Entry::Earlier(_)) => (32, [0; 16]),
        Some(Entry::Hold(_)) => (21, [0; 16]),
        Some(Entry::Expiry(_)) => (22, [0; 16]),
        Some(Entry::ErasureNotice(_)) => (23, [0; 16]),
    }
}

/// Reads what the index keeps of a record, which is not packed; none if it cannot be read.
pub(crate) fn item(kind: Kind, payload: &[u8], offset: u64) -> Option<Item> {
    Some(match kind {
        Kind::Leaf => {
            let (leaf, attachment) = record::split_leaf(payload)?;
            let decoded = Leaf::decode(leaf).ok()?;
            let (kind, exchange) = describe(&decoded);
            let content = Attachment::decode(attachment).ok()?.content;
            let hash = leaf_hash(leaf);
            let entry = LeafEntry { offset, time: decoded.logged_ms, kind, exchange, hash };
            Item::Leaf(entry, content.map(|content| content.key_slot))
        }
        Kind::Artefact => Item::Artefact(Digest::of(payload), offset),
        Kind::Content => Item::Content(record::key_slot(kind, payload)?),
        Kind::Checkpoint => Item::Checkpoint(payload.to_vec(), offset),
        Kind::Timestamp => Item::Timestamp(u64::from_le_bytes(*payload.first_chunk()?), offset),
        Kind::Pseudonym if record::is_overwritten(kind, payload) => Item::Pseudonym(None, offset),
        Kind::Pseudonym => Item::Pseudonym(Some(Pseudonym::of_payload(payload)?), offset),
        Kind::Expired => expired(payload, offset)?,
        Kind::Form => Item::Form(payload.to_vec(), offset),
        Kind::PackedLeaf | Kind::Marker => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_segment_and_generation() {
        assert_eq!(of_name(&file_name(7)), Some((7, 0)));
        let mut path = PathBuf::from("/log/segments").join(file_name(7));
        for generation in 1..=3 {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(belongs_to(&name, (7, generation - 1)) && !belongs_to(&name, (7, generation)));
            path = next_generation(&path).unwrap();
            assert_eq!(of_name(&path.file_name().unwrap().to_string_lossy()), Some((7, generation)));
        }
        assert!(belongs_to("segment-00000000000000000007.index", (7, 0)));
        assert!(!belongs_to("segment-00000000000000000007.c000001.index", (7, 0)));
        assert!(!belongs_to("segment-00000000000000000070.index", (7, 0)));
        for name in
            ["segment-7.log", "segment-00000000000000000007.c1.log", "segment-00000000000000000007.tmp"]
        {
            assert_eq!(of_name(name), None, "{name}");
        }
    }

    #[test]
    fn headers_read_back() {
        let plain = SegmentHeader {
            origin: Digest::of(b"o"),
            id: [7; 16],
            first: 9,
            chain: Digest::of(b"c"),
            compact: None,
        };
        let compact = Compact { end: Digest::of(b"e"), next_slot: 3, as_of: 12 };
        for header in [plain, SegmentHeader { compact: Some(compact), ..plain }] {
            let mut bytes = header.to_bytes();
            bytes.resize(COMPACT_LEN + 4, 0);
            let bytes: [u8; COMPACT_LEN + 4] = bytes.try_into().unwrap();
            assert_eq!(SegmentHeader::parse(&bytes), Some(header));
            let mut changed = bytes;
            changed[60] ^= 1;
            assert_eq!(SegmentHeader::parse(&changed), None);
            // As they began before leaves were packed.
            let len = if header.compact.is_some() { COMPACT_LEN } else { HEAD_LEN };
            let mut earlier = bytes;
            earlier[14] = b'1';
            let crc = crc32fast::hash(&earlier[..len]).to_le_bytes();
            earlier[len..len + 4].copy_from_slice(&crc);
            assert_eq!(SegmentHeader::parse(&earlier), Some(header));
        }
    }
}
