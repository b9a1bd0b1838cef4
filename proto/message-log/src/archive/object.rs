//! What an archived object holds, inside compression (Zstandard, RFC 8878) and encryption: 16 bytes `trave segment v1\n`, the
//! length of the head (4, little-endian), the head (`trave.log.v1.ArchivedSegment`), and the segment file up to the end of
//! its last group. Pseudonyms of persons are zeros in it, as if they had been erased: an archive finds nobody.
//!
//! It is verified alone: the segment's groups chain, its leaves continue the tree that the head describes, and a proof leads
//! from there to a checkpoint that the log's key has signed. So the head need not be believed.

use std::io::{Read, Write};
use std::path::Path;

use prost::Message as _;
use trave_proto::checkpoint::{Checkpoint, NoteVerifier};
use trave_proto::digest::Digest;
use trave_proto::schema::log::ArchivedSegment;
use trave_proto::tree::{Head, is_consistent};

use super::keys::ArchiveIdentity;
use super::sealed::Opener;
use super::store::ArchiveStore;
use crate::disk::{MemoryFile, RealDisk};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::keys::KeyFiles;
use crate::record::{self, CONTENT_PREFIX, HEADER, Header, Kind};
use crate::scan::{Scanner, read_whole};
use crate::segment::{DATA, SegmentHeader};
use crate::shared::{Closed, Shared, SignedCheckpoint};
use crate::tree::Edge;

const MAGIC: &[u8; 16] = b"trave segment 1\n";
const VERSION: u32 = 1;
/// The largest head: a note, a token and at most 128 hashes stand in it.
const MAX_HEAD: u32 = 1 << 20;
/// The largest segment that is archived, in bytes: a reader holds it in memory.
pub(crate) const MAX_SEGMENT: u64 = 1 << 30;
/// Zstandard's own middle: certificates compress well, encrypted contents not at all.
const LEVEL: i32 = 3;

/// The head of a segment's object, from a first reading of all of it.
pub(crate) fn head_of(
    shared: &Shared,
    origin: &str,
    segment: &Closed,
    covered_by: &SignedCheckpoint,
) -> Result<ArchivedSegment, LogError> {
    let path = &segment.path;
    let file = shared.disk.open(path).map_err(LogError::disk("open", path))?;
    let header = SegmentHeader::read(&*file, path)?;
    let (index, extent) = read_whole((&*file, path), header, &shared.keys, &mut |_, _, _| Ok(()))?;
    if (index.first, index.leaves.len() as u64) != (segment.first, segment.count) {
        return Err(LogError::damaged(path, 0, "it holds other leaves than its index says"));
    }
    if extent.end > MAX_SEGMENT {
        return Err(LogError::Refused(
            "a segment of more than 1 GiB is not archived: make log.segment_mib smaller",
        ));
    }
    let (next, size) = (segment.first + segment.count, covered_by.checkpoint.size);
    let tree = shared.tree();
    let edge = tree.edge_at(segment.first)?;
    let mut after = edge.clone();
    index.leaves.iter().for_each(|leaf| after.push(leaf.hash));
    let consistency = tree.consistency(next, size)?;
    let (end, last) = (Head { size: next, root: after.root() }, &covered_by.checkpoint);
    if !is_consistent(&end, &Head { size, root: last.root }, &consistency) {
        return Err(LogError::damaged(path, 0, "its leaves do not lead to the checkpoint"));
    }
    let times = index.times();
    let bytes = |digests: &[Digest]| digests.iter().map(|digest| digest.to_bytes()).collect();
    Ok(ArchivedSegment {
        version: VERSION,
        origin: origin.to_owned(),
        first: segment.first,
        count: segment.count,
        earliest_ms: times.map(|times| times.0),
        latest_ms: times.map(|times| times.1),
        chain_before: header.chain.to_bytes(),
        chain_after: extent.chain.to_bytes(),
        length: extent.end,
        edge: bytes(edge.roots()),
        checkpoint: covered_by.note.clone(),
        timestamp: covered_by.timestamp.clone().unwrap_or_default(),
        consistency: bytes(&consistency),
    })
}

/// Writes the plaintext of an object: reads the segment a second time, group by group.
pub(crate) fn write(
    shared: &Shared,
    segment: &Closed,
    head: &ArchivedSegment,
    out: &mut dyn Write,
) -> Result<(), LogError> {
    let path = &segment.path;
    let failed = || LogError::disk("write the archived copy of", path);
    let file = shared.disk.open(path).map_err(LogError::disk("open", path))?;
    let header = SegmentHeader::read(&*file, path)?;
    let mut out = zstd::Encoder::new(out, LEVEL).map_err(failed())?;
    let encoded = head.encode_to_vec();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut begin = [&MAGIC[..], &length, &encoded, &header.to_bytes()].concat();
    begin.resize(MAGIC.len() + length.len() + encoded.len() + usize::try_from(DATA).unwrap_or(0), 0);
    out.write_all(&begin).map_err(failed())?;
    let mut scanner = Scanner::new(&*file, path, header, &shared.keys)?;
    let mut copy = |kind: Kind, header: &[u8; HEADER], payload: &[u8]| {
        let kept = match kind {
            // A copy that nobody can reach would name a person for as long as the month has its key.
            Kind::Pseudonym => 0,
            Kind::Content if is_half_erased(header, kind, payload) => CONTENT_PREFIX,
            _ => payload.len(),
        };
        let (kept, erased) = payload.split_at(kept);
        let parts = [&header[..], kept, &vec![0; erased.len()]];
        parts.iter().try_for_each(|part| out.write_all(part)).map_err(failed())
    };
    while scanner.next_group_with(&mut copy)?.is_some() {}
    let extent = scanner.extent();
    let after = header.chain_after(extent.chain).to_bytes();
    if (extent.end, after) != (head.length, head.chain_after.clone()) {
        return Err(LogError::damaged(path, extent.end, "it changed while it was archived"));
    }
    out.finish().map_err(failed())?;
    Ok(())
}

/// Whether a content is being overwritten just now, or was in part when the power failed: the scanner lets it pass because
/// its key is gone. In an archive it is all zeros, since whoever reads it there has no key files to ask.
fn is_half_erased(header: &[u8; HEADER], kind: Kind, payload: &[u8]) -> bool {
    kind == Kind::Content
        && payload.len() > CONTENT_PREFIX
        && !record::is_overwritten(kind, payload)
        && !Header::read(header).is_some_and(|header| header.covers(payload))
}

/// An object as it came out of the archive: it decrypted to its end, and is not yet believed.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) head: ArchivedSegment,
    file: MemoryFile,
}

/// An object whose leaves lead to a checkpoint that the log's key has signed.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) first: u64,
    pub(crate) index: MemoryIndex,
    pub(crate) header: SegmentHeader,
    pub(crate) chain_after: Digest,
    /// The tree before it.
    pub(crate) before: Edge,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: bytes::Bytes,
    /// The segment file, up to its last group.
    pub(crate) bytes: Vec<u8>,
}

/// Reads, decrypts and decompresses an object.
pub(crate) fn read(
    store: &dyn ArchiveStore,
    name: &str,
    identity: &ArchiveIdentity,
) -> Result<Object, LogError> {
    let failed = |error: std::io::Error| LogError::archive(name, error);
    let opened = Opener::new(store.open(name)?, identity).map_err(failed)?;
    let mut plain = zstd::Decoder::new(opened).map_err(failed)?;
    let mut begin = [0; MAGIC.len() + 4];
    plain.read_exact(&mut begin).map_err(failed)?;
    let (magic, length) = begin.split_at(MAGIC.len());
    let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    if magic != MAGIC || length > MAX_HEAD {
        return Err(LogError::archive(name, "it holds no segment"));
    }
    let mut head = vec![0; usize::try_from(length).unwrap_or(0)];
    plain.read_exact(&mut head).map_err(failed)?;
    let head = ArchivedSegment::decode(&head[..]).map_err(|error| LogError::archive(name, error))?;
    if head.version != VERSION {
        return Err(LogError::archive(
            name,
            format!("it has version {}: a newer release reads it", head.version),
        ));
    }
    if head.length > MAX_SEGMENT {
        return Err(LogError::archive(name, "it says that it is larger than segments are"));
    }
    let mut bytes = Vec::new();
    // One byte more than it says would be one too many; asking for it also reads to the end, which proves the whole.
    (&mut plain).take(head.length + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != head.length {
        return Err(LogError::archive(name, "it has not the length that it says"));
    }
    Ok(Object { name: name.to_owned(), head, file: MemoryFile(bytes) })
}

impl Object {
    /// Verifies it against the key of the log, whose name is the origin.
    pub(crate) fn verify(self, key: &NoteVerifier) -> Result<Verified, LogError> {
        let Self { name, head, file } = self;
        let wrong = |what: &str| LogError::archive(&name, what);
        if head.origin != key.name() {
            return Err(LogError::archive(&name, format!("it belongs to the log {}", head.origin)));
        }
        let path = Path::new(&name);
        let header = SegmentHeader::read(&file, path)?;
        // Nothing is erased here that is not all zeros: no key files are asked.
        let no_keys = KeyFiles::new(&(std::sync::Arc::new(RealDisk) as _), Path::new("/nonexistent/trave"));
        let read = read_whole((&file, path), header, &no_keys, &mut |_, _, _| Ok(()));
        let (index, extent) = read.map_err(|error| LogError::archive(&name, error.in_full()))?;
        if header.origin != Digest::of(head.origin.as_bytes())
            || (header.first, index.leaves.len() as u64) != (head.first, head.count)
            || header.chain.as_ref() != &head.chain_before[..]
            || extent.chain.as_ref() != &head.chain_after[..]
        {
            return Err(wrong("its segment is not the one that its head describes"));
        }
        let before = digests(&head.edge).and_then(|roots| Edge::from_roots(head.first, roots));
        let before = before.ok_or_else(|| wrong("the state of the tree in its head is none"))?;
        let mut after = before.clone();
        index.leaves.iter().for_each(|leaf| after.push(leaf.hash));
        let checkpoint = Checkpoint::verify(&head.checkpoint, std::slice::from_ref(key))
            .map_err(|error| LogError::archive(&name, format!("its checkpoint: {error}")))?;
        let proof = digests(&head.consistency).ok_or_else(|| wrong("its proof is none"))?;
        let end = Head { size: after.size(), root: after.root() };
        let covered = Head { size: checkpoint.size, root: checkpoint.root };
        if end.size > covered.size || !is_consistent(&end, &covered, &proof) {
            return Err(wrong("its records do not lead to its checkpoint"));
        }
        Ok(Verified {
            first: head.first,
            index,
            header,
            chain_after: extent.chain,
            before,
            checkpoint,
            note: head.checkpoint,
            bytes: file.0,
        })
    }
}

fn digests(bytes: &[bytes::Bytes]) -> Option<Vec<Digest>> {
    bytes.iter().map(|bytes| Digest::from_slice(bytes)).collect()
}
