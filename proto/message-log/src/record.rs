//! The records of a segment file, byte for byte.
//!
//! A record is a header of 12 bytes, then its payload. The header: length of the payload (4 bytes, little-endian as all
//! numbers here), kind (1), version of the format (1), zero (2), CRC-32 (4) over the first 8 bytes and the payload.
//! Zeros in the place of a header mean: nothing is written here yet.

use trave_proto::digest::Digest;

/// Bytes of a record's header.
pub(crate) const HEADER: usize = 12;
/// Largest payload of a record, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 32 << 20;

const VERSION: u8 = 1;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A leaf of the tree and what stands beside it.
    Leaf = 1,
    /// Bytes named by their SHA-256.
    Artefact = 2,
    /// The encrypted content of the message in the leaf that follows.
    Content = 3,
    /// A signed checkpoint.
    Checkpoint = 4,
    /// A timestamp token over a checkpoint.
    Timestamp = 5,
    /// The end of a group, chained to the last.
    Marker = 6,
    /// The pseudonym of a person concerned by the message in the leaf that follows.
    Pseudonym = 7,
    /// Leaves whose records have expired: their hashes, and nothing else of them.
    Expired = 8,
    /// What the leaves that name it have in common.
    Form = 9,
    /// A leaf without what its form says, and what stands beside it.
    PackedLeaf = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Leaf,
        Self::Artefact,
        Self::Content,
        Self::Checkpoint,
        Self::Timestamp,
        Self::Marker,
        Self::Pseudonym,
        Self::Expired,
        Self::Form,
        Self::PackedLeaf,
    ];
}

/// A header that was read and is well-formed; its payload is not yet checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) len: usize,
    crc: u32,
    start: [u8; 8],
}

impl Header {
    /// Reads a header; none if it is not one.
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let [start @ .., c0, c1, c2, c3] = *bytes;
        let [l0, l1, l2, l3, kind, version, z0, z1] = start;
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind)?;
        (version == VERSION && [z0, z1] == [0, 0] && len <= MAX_PAYLOAD).then_some(Self {
            kind,
            len,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            start,
        })
    }

    /// Whether `payload` is what was written under this header.
    pub(crate) fn covers(&self, payload: &[u8]) -> bool {
        payload.len() == self.len && crc(&self.start, &[payload]) == self.crc
    }
}

fn crc(start: &[u8; 8], parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(start);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Writes a record whose payload is the concatenation of `parts`, and returns its header.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, parts: &[&[u8]]) -> [u8; HEADER] {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut start = [0; 8];
    // Lengths are checked at the door (MAX_PAYLOAD), so that this never saturates.
    start[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    start[4] = kind as u8;
    start[5] = VERSION;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&start);
    header[8..].copy_from_slice(&crc(&start, parts).to_le_bytes());
    out.extend_from_slice(&header);
    for part in parts {
        out.extend_from_slice(part);
    }
    header
}

/// The length of a leaf as it stands before it.
pub(crate) fn len_of(leaf: &[u8]) -> [u8; 4] {
    // What is too long for a record was refused before.
    u32::try_from(leaf.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Splits the payload of a leaf record into the encoded leaf and the encoded attachment.
pub(crate) fn split_leaf(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

/// Bytes before the ciphertext in a content record: key slot (8), exchange id (16), nonce (12).
pub(crate) const CONTENT_PREFIX: usize = 36;

/// Whether a record was overwritten: the ciphertext of a content is all zeros, which AES-GCM never gives; or all of a
/// pseudonym with its salt, which is never drawn so.
pub(crate) fn is_overwritten(kind: Kind, payload: &[u8]) -> bool {
    let kept = match kind {
        Kind::Content => CONTENT_PREFIX,
        Kind::Pseudonym => 0,
        _ => return false,
    };
    payload.len() > kept && payload[kept..].iter().all(|byte| *byte == 0)
}

/// Bytes that a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// Whether a pseudonym, whose payload stands at `at`, may have been overwritten in part when the power went: one of the two
/// sectors in which it lies was. What is left of it is overwritten at the next start.
pub(crate) fn is_half_overwritten(kind: Kind, payload: &[u8], at: u64) -> bool {
    let first = usize::try_from(SECTOR - at % SECTOR).unwrap_or(usize::MAX);
    let halves = payload.split_at_checked(first).filter(|_| kind == Kind::Pseudonym);
    let gone = |half: &[u8]| !half.is_empty() && half.iter().all(|byte| *byte == 0);
    halves.is_some_and(|(before, after)| gone(before) || gone(after))
}

/// The key slot that a content record names; overwriting the content leaves it in place.
pub(crate) fn key_slot(kind: Kind, payload: &[u8]) -> Option<u64> {
    let slot = payload.first_chunk().filter(|_| kind == Kind::Content)?;
    Some(u64::from_le_bytes(*slot))
}

/// The end of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Random id of the segment: bytes from outside cannot pass for a marker.
    pub(crate) segment: [u8; 16],
    /// Where the group begins in the file.
    pub(crate) group: u64,
    /// Where this marker stands in the file.
    pub(crate) at: u64,
    /// Leaves in the log after this group.
    pub(crate) size: u64,
    /// SHA-256 over the last marker's chain value and the headers of this group's records. Headers hold the CRC of
    /// what was written, so that overwriting an erased content does not break the chain.
    pub(crate) chain: Digest,
}

/// With what a marker's payload begins.
pub(crate) const MARKER_MAGIC: &[u8; 16] = b"trave group end\n";
/// Bytes of a marker's payload.
pub(crate) const MARKER_LEN: usize = 16 + 16 + 8 + 8 + 8 + Digest::LEN;

impl Marker {
    /// Writes the marker as a record.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (group, at, size) = (self.group.to_le_bytes(), self.at.to_le_bytes(), self.size.to_le_bytes());
        write(out, Kind::Marker, &[MARKER_MAGIC, &self.segment, &group, &at, &size, self.chain.as_bytes()]);
    }

    /// Reads a marker's payload.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(MARKER_MAGIC)?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (group, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (size, chain) = rest.split_first_chunk()?;
        Some(Self {
            segment: *segment,
            group: u64::from_le_bytes(*group),
            at: u64::from_le_bytes(*at),
            size: u64::from_le_bytes(*size),
            chain: Digest::from_slice(chain)?,
        })
    }
}

/// The chain value of a group.
pub(crate) fn chain(last: &Digest, headers: &[[u8; HEADER]]) -> Digest {
    Digest::of_parts(&[b"trave group chain v1\n", last.as_bytes(), headers.as_flattened()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_changed_byte_is_seen() {
        let mut bytes = Vec::new();
        let header = write(&mut bytes, Kind::Leaf, &[b"ab", b"", b"cde"]);
        assert_eq!((&bytes[..HEADER], &bytes[HEADER..]), (&header[..], &b"abcde"[..]));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            let (header, payload) = changed.split_first_chunk::<HEADER>().unwrap();
            assert!(!Header::read(header).is_some_and(|header| header.covers(payload)), "byte {at}");
        }
        assert!(Header::read(&[0; HEADER]).is_none());
    }

    #[test]
    fn a_marker_reads_back() {
        let marker = Marker { segment: [7; 16], group: 512, at: 600, size: 3, chain: Digest::of(b"x") };
        let mut bytes = Vec::new();
        marker.write(&mut bytes);
        assert_eq!(bytes.len(), HEADER + MARKER_LEN);
        assert_eq!(Marker::read(&bytes[HEADER..]), Some(marker));
        assert_eq!(Marker::read(&bytes[HEADER..bytes.len() - 1]), None);
    }
}
