//! Segment files: the truth of the log. How one begins, how records stand in it, and how it is read from end to end.
//!
//! The first 512 bytes are the header, alone in its sector. Then groups follow: records, ended by a marker. What follows
//! the last marker is zeros.

use std::path::Path;

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
const MAGIC: &[u8; 16] = b"trave segment 1\n";
const HEAD_LEN: usize = 16 + 32 + 16 + 8 + 32;

/// The name of the segment file that begins with leaf `first`.
pub(crate) fn file_name(first: u64) -> String {
    format!("segment-{first:020}.log")
}

/// The first leaf of a segment, from the file's name; none if it is not the name of a segment.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let first = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    (first.len() == 20 && first.bytes().all(|b| b.is_ascii_digit())).then(|| first.parse().ok())?
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
}

impl SegmentHeader {
    /// The header as it is written, with its checksum.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let first = self.first.to_le_bytes();
        let mut bytes = [&MAGIC[..], self.origin.as_ref(), &self.id, &first, self.chain.as_ref()].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the header of a segment file.
    pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<Self, LogError> {
        let mut bytes = [0; HEAD_LEN + 4];
        let damaged = || LogError::damaged(path, 0, "it does not begin with a segment's header");
        if file.len().map_err(LogError::disk("read", path))? < DATA {
            return Err(damaged());
        }
        file.read_exact_at(&mut bytes, 0).map_err(LogError::disk("read", path))?;
        Self::parse(&bytes).ok_or_else(damaged)
    }

    fn parse(bytes: &[u8; HEAD_LEN + 4]) -> Option<Self> {
        let (body, crc) = bytes.split_at(HEAD_LEN);
        let (origin, rest) = body.strip_prefix(MAGIC)?.split_at(32);
        let (id, rest) = rest.split_first_chunk()?;
        let (first, chain) = rest.split_first_chunk()?;
        (crc == crc32fast::hash(body).to_le_bytes()).then_some(Self {
            origin: Digest::from_slice(origin)?,
            id: *id,
            first: u64::from_le_bytes(*first),
            chain: Digest::from_slice(chain)?,
        })
    }
}

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
    /// An artefact and where its record stands.
    Artefact(Digest, u64),
    /// A content record, by its key slot.
    Content(u64),
    /// A checkpoint's note and where its record stands.
    Checkpoint(Vec<u8>, u64),
    /// A timestamp token: the size of the checkpoint, and where its record stands.
    Timestamp(u64, u64),
    /// The pseudonym of a person, which stands before its leaf, and where its record stands; none if it was overwritten.
    Pseudonym(Option<Pseudonym>, u64),
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
    }
}

/// Reads what the index keeps of a record; none if it cannot be read.
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
        Kind::Marker => return None,
    })
}
