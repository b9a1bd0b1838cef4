//! A group: the records that become durable together, laid out as they will stand in the segment.

use std::collections::HashMap;

use prost::Message as _;
use tokio::sync::oneshot;
use trave_proto::digest::Digest;
use trave_proto::schema::log::{Attachment, StoredContent};

use crate::contents::Sealed;
use crate::entry::Artefact;
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::packing::{MAX_FORMS, Packed, REACH};
use crate::pseudonyms::{PSEUDONYM_LEN, Pseudonym};
use crate::record::{self, HEADER, Kind, Marker, len_of};
use crate::segment::{Item, LeafEntry, SegmentHeader};

/// A leaf and all that stands beside it, encoded and encrypted by the thread that appends it.
pub(crate) struct Prepared {
    pub(crate) leaf: Vec<u8>,
    /// The same in two parts, if it is of a message.
    pub(crate) packed: Option<Packed>,
    pub(crate) hash: Digest,
    pub(crate) kind: u8,
    pub(crate) exchange: [u8; 16],
    pub(crate) time: i64,
    /// The encoded attachment, without the place of the content, which only the committer knows.
    pub(crate) attachment: Vec<u8>,
    pub(crate) artefacts: Vec<Artefact>,
    pub(crate) content: Option<Sealed>,
    pub(crate) pseudonyms: Vec<Pseudonym>,
    pub(crate) done: Option<oneshot::Sender<Result<u64, LogError>>>,
}

impl Prepared {
    /// About how many bytes this holds in memory and takes on the disk.
    pub(crate) fn weight(&self) -> usize {
        let content = self.content.as_ref().map_or(0, |content| content.payload.len());
        // Artefacts are shared between entries and mostly in the segment already.
        let pseudonyms = self.pseudonyms.len() * (HEADER + PSEUDONYM_LEN);
        self.leaf.len() + self.attachment.len() + content + pseudonyms + 256
    }
}

/// Records in the making.
#[derive(Debug)]
pub(crate) struct Group {
    base: u64,
    bytes: Vec<u8>,
    headers: Vec<[u8; HEADER]>,
    items: Vec<Item>,
    /// Forms that were added.
    forms: HashMap<Vec<u8>, u64>,
    next: u64,
}

impl Group {
    /// A group that will stand at `base`; `next` is the index of its first leaf. `bytes` is empty memory for it.
    pub(crate) fn new(base: u64, next: u64, bytes: Vec<u8>) -> Self {
        Self { base, bytes, headers: Vec::new(), items: Vec::new(), forms: HashMap::new(), next }
    }

    /// Adds a leaf, before it its content, and before that the artefacts and the form that the segment (`known`) and this
    /// group do not hold yet, so that each segment stands alone.
    pub(crate) fn leaf(&mut self, prepared: &Prepared, segment: u64, known: Option<&MemoryIndex>) {
        for artefact in &prepared.artefacts {
            let digest = artefact.digest();
            let here = |item: &Item| matches!(item, Item::Artefact(other, _) if *other == digest);
            let known = known.is_some_and(|segment| segment.artefacts.contains_key(&digest));
            if !known && !self.items.iter().any(here) {
                let offset = self.record(Kind::Artefact, &[artefact.bytes()]);
                self.items.push(Item::Artefact(digest, offset));
            }
        }
        let (mut place, mut slot) = (Vec::new(), None);
        if let Some(content) = &prepared.content {
            let key_slot = content.slot;
            let offset = self.record(Kind::Content, &[&content.payload]);
            self.items.push(Item::Content(key_slot));
            let length = u32::try_from(content.payload.len()).unwrap_or(u32::MAX);
            let content = Some(StoredContent { segment, offset, length, key_slot });
            // A protobuf message may be written in pieces: this adds the field to the attachment.
            place = Attachment { content, ..Attachment::default() }.encode_to_vec();
            slot = Some(key_slot);
        }
        for pseudonym in &prepared.pseudonyms {
            let offset = self.record(Kind::Pseudonym, &[&pseudonym.payload()]);
            self.items.push(Item::Pseudonym(Some(*pseudonym), offset));
        }
        let (leaf, attachment) = (&prepared.leaf, &prepared.attachment);
        let packed = prepared.packed.as_ref();
        let packed = packed.and_then(|Packed { form, rest }| Some((self.form(form, known)?, rest)));
        let offset = match packed {
            Some((form, rest)) => {
                let parts = [&form.to_le_bytes(), &len_of(rest)[..], rest, attachment, &place];
                self.record(Kind::PackedLeaf, &parts)
            }
            None => self.record(Kind::Leaf, &[&len_of(leaf), leaf, attachment, &place]),
        };
        let Prepared { kind, exchange, time, hash, .. } = *prepared;
        self.items.push(Item::Leaf(LeafEntry { offset, time, kind, exchange, hash }, slot));
        self.next += 1;
    }

    /// Where a form stands, which is added where it does not stand yet; none if there are too many.
    fn form(&mut self, form: &[u8], known: Option<&MemoryIndex>) -> Option<u64> {
        let at = self.base + self.bytes.len() as u64;
        let last = self.forms.get(form).or_else(|| known?.forms.get(form)).copied();
        match last {
            Some(offset) if at - offset < REACH => return Some(offset),
            None if known.map_or(0, |segment| segment.forms.len()) + self.forms.len() >= MAX_FORMS => {
                return None;
            }
            _ => {}
        }
        let offset = self.record(Kind::Form, &[form]);
        self.items.push(Item::Form(form.to_vec(), offset));
        self.forms.insert(form.to_vec(), offset);
        Some(offset)
    }

    /// Adds a checkpoint's note.
    pub(crate) fn checkpoint(&mut self, note: Vec<u8>) {
        let offset = self.record(Kind::Checkpoint, &[&note]);
        self.items.push(Item::Checkpoint(note, offset));
    }

    /// Adds a timestamp token over the checkpoint of `size`.
    pub(crate) fn timestamp(&mut self, size: u64, token: &[u8]) {
        let offset = self.record(Kind::Timestamp, &[&size.to_le_bytes(), token]);
        self.items.push(Item::Timestamp(size, offset));
    }

    fn record(&mut self, kind: Kind, parts: &[&[u8]]) -> u64 {
        let offset = self.base + self.bytes.len() as u64;
        self.headers.push(record::write(&mut self.bytes, kind, parts));
        offset
    }

    /// Bytes of the group, its marker included.
    pub(crate) fn len(&self) -> u64 {
        (self.bytes.len() + HEADER + record::MARKER_LEN) as u64
    }

    /// Ends the group: its bytes, what is in it, and the new chain value.
    pub(crate) fn finish(mut self, header: &SegmentHeader, last: &Digest) -> (Vec<u8>, Vec<Item>, Digest) {
        let chain = record::chain(last, &self.headers);
        let at = self.base + self.bytes.len() as u64;
        Marker { segment: header.id, group: self.base, at, size: self.next, chain }.write(&mut self.bytes);
        (self.bytes, self.items, chain)
    }
}
