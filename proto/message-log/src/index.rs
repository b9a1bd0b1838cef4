//! Where things stand in a segment: which records belong to an exchange, where an artefact is, when a leaf was logged.
//!
//! The open segment's index is in memory. A closed segment's is a file beside it, or again in memory until that file is
//! written. Whatever is lost is made again from the segment.

use std::collections::HashMap;

use trave_proto::digest::Digest;

use crate::error::LogError;
use crate::pseudonyms::HASH;
use crate::segment::{Item, LeafEntry};

pub(crate) mod file;

/// A checkpoint or timestamp token in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoteEntry {
    /// Whether it is a checkpoint; else it is a timestamp token.
    pub(crate) checkpoint: bool,
    /// Size of the tree that it is about.
    pub(crate) size: u64,
    /// Where its record stands.
    pub(crate) offset: u64,
}

/// An index in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    pub(crate) first: u64,
    pub(crate) leaves: Vec<LeafEntry>,
    pub(crate) exchanges: HashMap<[u8; 16], Vec<u64>>,
    pub(crate) artefacts: HashMap<Digest, u64>,
    /// Where the forms of packed leaves stood last.
    pub(crate) forms: HashMap<Vec<u8>, u64>,
    pub(crate) notes: Vec<NoteEntry>,
    /// The first key slot that no record here or before names.
    pub(crate) next_slot: u64,
    pub(crate) persons: Vec<PersonRow>,
    /// How many there were, also when some were erased since or stand elsewhere.
    pub(crate) persons_ever: u64,
    /// Pseudonyms that were overwritten: their leaves, and where their records begin.
    pub(crate) overwritten: Vec<(u64, u64)>,
}

/// That a person is concerned by a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PersonRow {
    pub(crate) hash: [u8; HASH],
    pub(crate) leaf: u64,
    /// Where the record of the pseudonym begins.
    pub(crate) offset: u64,
    /// Whether it is that of a reference, and not of a person.
    pub(crate) reference: bool,
}

impl MemoryIndex {
    /// An empty index of the segment that begins with leaf `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The index of the next leaf.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.leaves.len() as u64
    }

    /// Adds what was found or written.
    pub(crate) fn add(&mut self, item: &Item) {
        match item {
            Item::Leaf(entry, slot) => {
                if entry.exchange != [0; 16] {
                    let index = self.next();
                    self.exchanges.entry(entry.exchange).or_default().push(index);
                }
                self.next_slot = self.next_slot.max(slot.map_or(0, |slot| slot + 1));
                self.leaves.push(*entry);
            }
            Item::Expired(leaves) => self.leaves.extend_from_slice(leaves),
            Item::Artefact(digest, offset) => {
                self.artefacts.entry(*digest).or_insert(*offset);
            }
            Item::Form(form, offset) => {
                self.forms.insert(form.clone(), *offset);
            }
            Item::Checkpoint(note, offset) => {
                if let Some(size) = size_of_note(note) {
                    self.notes.push(NoteEntry { checkpoint: true, size, offset: *offset });
                }
            }
            Item::Timestamp(size, offset) => {
                self.notes.push(NoteEntry { checkpoint: false, size: *size, offset: *offset });
            }
            Item::Pseudonym(Some(pseudonym), offset) => {
                self.persons_ever += 1;
                // It stands before its leaf.
                let (hash, reference) = (pseudonym.hash, pseudonym.is_reference());
                self.persons.push(PersonRow { hash, leaf: self.next(), offset: *offset, reference });
            }
            Item::Pseudonym(None, offset) => self.overwritten.push((self.next(), *offset)),
            Item::Content(slot) => self.next_slot = self.next_slot.max(slot + 1),
        }
    }

    /// The leaf at `index`.
    pub(crate) fn leaf(&self, index: u64) -> Option<LeafEntry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.leaves.get(at).copied()
    }

    /// The earliest and latest time of a leaf.
    pub(crate) fn times(&self) -> Option<(i64, i64)> {
        let times = self.leaves.iter().map(|leaf| leaf.time);
        Some((times.clone().min()?, times.max()?))
    }
}

fn size_of_note(note: &[u8]) -> Option<u64> {
    let note = trave_proto::checkpoint::Note::parse(note).ok()?;
    Some(trave_proto::checkpoint::Checkpoint::from_text(note.text()).ok()?.size)
}

/// What can be asked of a segment's index, wherever it is.
pub(crate) trait Index: std::fmt::Debug + Send + Sync {
    /// The leaf at `index`, counted over the whole log; none if it is not in this segment.
    fn leaf(&self, index: u64) -> Result<Option<LeafEntry>, LogError>;
    /// The leaf at `index` and those near it, which cost nothing more: the index of the first, and all of them.
    fn leaves_near(&self, index: u64) -> Result<(u64, Vec<LeafEntry>), LogError>;
    /// Leaves about an exchange, in order.
    fn of_exchange(&self, exchange: &[u8; 16]) -> Result<Vec<u64>, LogError>;
    /// Where an artefact's record stands.
    fn artefact(&self, digest: &Digest) -> Result<Option<u64>, LogError>;
    /// Leaves of one kind, in order; none if only a look at all leaves could say which.
    fn of_kind(&self, kind: u8) -> Result<Option<Vec<u64>>, LogError>;
    /// Checkpoints and timestamp tokens, in order.
    fn notes(&self) -> Result<Vec<NoteEntry>, LogError>;
}

impl Index for MemoryIndex {
    fn leaf(&self, index: u64) -> Result<Option<LeafEntry>, LogError> {
        Ok(Self::leaf(self, index))
    }

    fn leaves_near(&self, index: u64) -> Result<(u64, Vec<LeafEntry>), LogError> {
        const NEAR: u64 = 64;
        let from = index.saturating_sub(self.first) / NEAR * NEAR;
        let at = usize::try_from(from).unwrap_or(usize::MAX);
        let near = self.leaves.iter().skip(at).take(NEAR as usize).copied().collect();
        Ok((self.first + from, near))
    }

    fn of_exchange(&self, exchange: &[u8; 16]) -> Result<Vec<u64>, LogError> {
        Ok(self.exchanges.get(exchange).cloned().unwrap_or_default())
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<u64>, LogError> {
        Ok(self.artefacts.get(digest).copied())
    }

    fn of_kind(&self, kind: u8) -> Result<Option<Vec<u64>>, LogError> {
        let of_kind = (self.first..).zip(&self.leaves).filter(|(_, leaf)| leaf.kind == kind);
        Ok(Some(of_kind.map(|(index, _)| index).collect()))
    }

    fn notes(&self) -> Result<Vec<NoteEntry>, LogError> {
        Ok(self.notes.clone())
    }
}
