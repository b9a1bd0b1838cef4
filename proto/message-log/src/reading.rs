//! Reading the log: records, artefacts, and contents as far as they are kept.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Attachment, Leaf, leaf};
use trave_proto::tree::leaf_hash;

use crate::contents::ContentParts;
use crate::disk::DiskFile;
use crate::entry::{artefacts_of, kind};
use crate::error::LogError;
use crate::expiry::Covered;
use crate::finding;
use crate::index::Index;
use crate::keys::SlotState;
use crate::packing;
use crate::record::{self, HEADER, Header, Kind};
use crate::remnant::Remnant;
use crate::segment::{EXPIRED, LeafEntry};
use crate::shared::{Closed, Shared};

/// A leaf as it stands in the log.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Its place in the log and in the tree.
    pub index: u64,
    /// The leaf as it was hashed.
    pub leaf_bytes: Bytes,
    /// The same, decoded.
    pub leaf: Leaf,
    /// Its hash in the tree.
    pub leaf_hash: Digest,
    /// What stands beside it: signature, place of the content.
    pub attachment: Attachment,
    /// What became of its content.
    pub content: ContentState,
}

impl StoredRecord {
    /// SHA-256 of each artefact that this record needs, each once.
    pub fn artefacts(&self) -> BTreeSet<Digest> {
        artefacts_of(&self.leaf, &self.attachment).collect()
    }
}

/// What became of the content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentState {
    /// It is here.
    Included(ContentParts),
    /// The policy of the service did not keep it, or the record is not of a message.
    NotKept,
    /// The log came out of its archive, which holds no keys, and no key file was put back beside it.
    NotRestored,
    /// It was erased, as a record says.
    Erased,
    /// Its time was over and it was overwritten, as a record says.
    Expired,
    /// It should be here and is not, and no record says why: somebody or something changed this log.
    Mismatch(String),
}

/// A record that was found: where it is, and its file.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) index: u64,
    pub(crate) entry: LeafEntry,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// A record without its content.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) leaf_bytes: Bytes,
    pub(crate) leaf: Leaf,
    pub(crate) attachment: Attachment,
}

impl Located {
    /// Reads leaf and attachment, and checks that they are what was logged.
    pub(crate) fn read(&self) -> Result<Raw, LogError> {
        let damaged = |what: &str| LogError::damaged(&self.path, self.entry.offset, what);
        if self.entry.kind == EXPIRED {
            return Err(LogError::Expired { index: self.index });
        }
        let payload = read_leaf(&*self.file, &self.path, self.entry.offset)?;
        let (leaf, attachment) = record::split_leaf(&payload).ok_or_else(|| damaged("no leaf"))?;
        if leaf_hash(leaf) != self.entry.hash {
            return Err(damaged("the leaf is not the one that the index names"));
        }
        Ok(Raw {
            leaf_bytes: Bytes::copy_from_slice(leaf),
            leaf: Leaf::decode(leaf).map_err(|_| damaged("the leaf cannot be decoded"))?,
            attachment: Attachment::decode(attachment)
                .map_err(|_| damaged("the attachment cannot be decoded"))?,
        })
    }
}

/// Reads the payload of the leaf's record at `offset`, as it would be if the leaf were not packed.
pub(crate) fn read_leaf(file: &dyn DiskFile, path: &Path, offset: u64) -> Result<Vec<u8>, LogError> {
    let (kind, payload) = read_one_of(file, path, offset, &[Kind::Leaf, Kind::PackedLeaf])?;
    if kind == Kind::Leaf {
        return Ok(payload);
    }
    let damaged = |what: &str| LogError::damaged(path, offset, what);
    let form_at = packing::form_at(&payload).ok_or_else(|| damaged("no packed leaf"))?;
    let form = read_record(file, path, form_at, Kind::Form)?;
    packing::unpack(&form, &payload).ok_or_else(|| damaged("a leaf and its form do not make one"))
}

/// Reads the payload of the record at `offset`, which must be of this kind and whole; overwritten contents pass.
pub(crate) fn read_record(
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    kind: Kind,
) -> Result<Vec<u8>, LogError> {
    read_one_of(file, path, offset, &[kind]).map(|(_, payload)| payload)
}

fn read_one_of(
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    kinds: &[Kind],
) -> Result<(Kind, Vec<u8>), LogError> {
    let mut bytes = [0; HEADER];
    // An attachment says where a content lies: a place that no file has must not overflow.
    let after = offset.checked_add(HEADER as u64);
    let after = after.ok_or_else(|| LogError::damaged(path, offset, "no file has such a place"))?;
    file.read_exact_at(&mut bytes, offset).map_err(LogError::disk("read", path))?;
    let header = Header::read(&bytes).filter(|header| kinds.contains(&header.kind));
    let header =
        header.ok_or_else(|| LogError::damaged(path, offset, format!("no record of kind {kinds:?}")))?;
    let kind = header.kind;
    let mut payload = vec![0; header.len];
    file.read_exact_at(&mut payload, after).map_err(LogError::disk("read", path))?;
    if !header.covers(&payload) && !record::is_overwritten(kind, &payload) {
        return Err(LogError::damaged(path, offset, "the record's checksum is wrong"));
    }
    Ok((kind, payload))
}

/// Finds the record of leaf `index`.
pub(crate) fn locate(shared: &Shared, index: u64) -> Result<Located, LogError> {
    let (entry, path) = finding::entry(shared, index)?;
    match shared.disk.open(&path) {
        Ok(file) => Ok(Located { index, entry, path, file }),
        Err(error) => match finding::closed(shared, index).filter(|segment| segment.is_pruned()) {
            Some(segment) => kept(shared, &segment, index, entry),
            None => Err(LogError::disk("open", &path)(error)),
        },
    }
}

/// The record of a leaf in what is kept of its pruned segment.
fn kept(shared: &Shared, segment: &Closed, index: u64, entry: LeafEntry) -> Result<Located, LogError> {
    let remnant = Remnant::open(&*shared.disk, &segment.path)?;
    let entry = remnant.entry(index, entry).ok_or_else(|| segment.pruned())?;
    Ok(Located { index, entry, path: remnant.path, file: remnant.file })
}

/// The full record at `index`.
pub(crate) fn record(shared: &Shared, index: u64) -> Result<StoredRecord, LogError> {
    let mut before = shared.rewritten();
    loop {
        let found = record_once(shared, index);
        let doubtful = match &found {
            Ok(record) => matches!(record.content, ContentState::Mismatch(_)),
            Err(_) => true,
        };
        // A segment may be written anew meanwhile, and the file that was read be gone.
        if !doubtful || shared.rewritten() == before {
            return found;
        }
        before = shared.rewritten();
    }
}

fn record_once(shared: &Shared, index: u64) -> Result<StoredRecord, LogError> {
    let located = locate(shared, index)?;
    let raw = located.read()?;
    let content = content(shared, &located, &raw)?;
    let Raw { leaf_bytes, leaf, attachment } = raw;
    Ok(StoredRecord { index, leaf_bytes, leaf, leaf_hash: located.entry.hash, attachment, content })
}

/// What became of a record's content.
fn content(shared: &Shared, located: &Located, raw: &Raw) -> Result<ContentState, LogError> {
    let Some(leaf::Entry::Message(message)) = &raw.leaf.entry else { return Ok(ContentState::NotKept) };
    let Some(stored) = &raw.attachment.content else {
        return Ok(match raw.attachment.content_kept {
            true => ContentState::Mismatch("the record says that a content was kept, and names none".into()),
            false => ContentState::NotKept,
        });
    };
    let exchange = &located.entry.exchange;
    let slot = shared.keys.read(stored.key_slot, exchange)?;
    let missing = match &slot {
        SlotState::Live(key) => {
            match read_record(&*located.file, &located.path, stored.offset, Kind::Content) {
                Ok(payload) => match key.open(&message.manifest, &payload) {
                    Some(parts) => return Ok(ContentState::Included(parts)),
                    None if record::is_overwritten(Kind::Content, &payload) => {
                        "the content was overwritten".to_owned()
                    }
                    None => "the content does not decrypt".to_owned(),
                },
                Err(error) => error.in_full(),
            }
        }
        SlotState::Erased => "the key was overwritten".to_owned(),
        SlotState::Missing(_) if shared.is_restored() => return Ok(ContentState::NotRestored),
        SlotState::Missing(why) => why.clone(),
    };
    // A content that was on its way while its exchange was erased stands behind the erasure, under the erased key.
    let key_erased = matches!(slot, SlotState::Erased);
    let erased = finding::last_erasure(shared, exchange)?;
    let erased = erased.is_some_and(|last| last > located.index || key_erased)
        || key_erased && shared.is_erased_elsewhere(exchange);
    Ok(if erased {
        ContentState::Erased
    } else if covered(shared, located.index)?.contents(located.index) {
        ContentState::Expired
    } else {
        ContentState::Mismatch(format!("{missing}, and no record says that it was erased"))
    })
}

/// The bytes of an artefact; none if no segment holds it.
pub(crate) fn artefact(shared: &Shared, digest: &Digest) -> Result<Option<Bytes>, LogError> {
    shared.steady(|| artefact_once(shared, digest))
}

fn artefact_once(shared: &Shared, digest: &Digest) -> Result<Option<Bytes>, LogError> {
    let (closed, open, open_path) = {
        let catalogue = shared.catalogue();
        (catalogue.closed.clone(), Index::artefact(&catalogue.open, digest)?, catalogue.open_path.clone())
    };
    let mut found = open.map(|offset| (open_path, offset));
    for segment in closed.iter().rev() {
        if found.is_some() {
            break;
        }
        if segment.is_pruned() {
            continue;
        }
        found = segment.index().artefact(digest)?.map(|offset| (segment.path.clone(), offset));
    }
    let Some((path, offset)) = (match found {
        Some(found) => Some(found),
        None => kept_artefact(shared, &closed, digest)?,
    }) else {
        return Ok(None);
    };
    let file = shared.disk.open(&path).map_err(LogError::disk("open", &path))?;
    let bytes = read_record(&*file, &path, offset, Kind::Artefact)?;
    if Digest::of(&bytes) != *digest {
        return Err(LogError::damaged(&path, offset, "the artefact has another digest"));
    }
    Ok(Some(bytes.into()))
}

/// The file and the place of an artefact that is kept of a pruned segment, since a kept record needs it.
fn kept_artefact(
    shared: &Shared,
    closed: &[Arc<Closed>],
    digest: &Digest,
) -> Result<Option<(PathBuf, u64)>, LogError> {
    for segment in closed.iter().rev().filter(|segment| segment.is_pruned()) {
        // Most had it for messages, which are not here any more: what is kept says so.
        if segment.index().artefact(digest)?.is_some() {
            let remnant = Remnant::open(&*shared.disk, &segment.path)?;
            if let Some(at) = remnant.artefact(digest) {
                return Ok(Some((remnant.path, at)));
            }
        }
    }
    Ok(None)
}

/// What acts cover of the segment that holds leaf `index`.
pub(crate) fn covered(shared: &Shared, index: u64) -> Result<Arc<Covered>, LogError> {
    let segment = finding::segment_of(shared, index);
    let acts = match shared.expiries.known(segment) {
        (_, Some(covered)) => return Ok(covered),
        (Some(acts), None) => acts,
        (None, None) => {
            shared.expiries.found(acts(shared)?);
            shared.expiries.known(segment).0.unwrap_or_default()
        }
    };
    let mut covered = Covered::default();
    for act in &acts {
        let raw = shared.steady(|| locate(shared, *act)?.read())?;
        if let Some(leaf::Entry::Expiry(act)) = &raw.leaf.entry {
            covered.add(act);
        }
    }
    shared.expiries.add_elsewhere(segment, &mut covered);
    let covered = Arc::new(covered);
    shared.expiries.read(segment, acts.len(), &covered);
    Ok(covered)
}

/// Looks through the indexes for all acts of schedules, and reads these: by the segment that they are about.
fn acts(shared: &Shared) -> Result<HashMap<u64, Vec<u64>>, LogError> {
    let mut acts: HashMap<u64, Vec<u64>> = HashMap::new();
    for index in shared.steady(|| finding::of_kind(shared, kind::EXPIRY, 0))? {
        let raw = shared.steady(|| locate(shared, index)?.read())?;
        if let Some(leaf::Entry::Expiry(act)) = raw.leaf.entry {
            acts.entry(act.segment).or_default().push(index);
        }
    }
    Ok(acts)
}
