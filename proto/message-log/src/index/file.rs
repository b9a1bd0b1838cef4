//! The index of a closed segment as a file: sorted tables in pages of 4 KiB, each with its checksum, so that a look-up
//! reads a few pages and a damaged page is noticed.
//!
//! Page 0 is the head. Then follow, each from a page of its own: leaves by index, exchanges by id, artefacts by digest,
//! notes in order, and the leaves that are no messages by kind.

pub(crate) mod persons;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trave_proto::digest::Digest;

use crate::disk::{Disk, DiskFile, replace};
use crate::entry::kind;
use crate::error::LogError;
use crate::index::{Index, MemoryIndex, NoteEntry};
use crate::segment::{EXPIRED, LeafEntry};
use table::{BODY, PAGE, Pages, Rows, Table, number, read_page};

const MAGIC: &[u8; 16] = b"trave index v1\n\n";

const LEAF: usize = 8 + 8 + 1 + 16 + 32;
const EXCHANGE: usize = 16 + 8;
const ARTEFACT: usize = 32 + 8;
const NOTE: usize = 1 + 8 + 8;
const KIND: usize = 1 + 8;

/// The tables, in order.
const LEAVES: usize = 0;
const EXCHANGES: usize = 1;
const ARTEFACTS: usize = 2;
const NOTES: usize = 3;
const KINDS: usize = 4;

/// The index file that belongs to a segment file.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// What the head of an index file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexHead {
    /// Index of the first leaf.
    pub(crate) first: u64,
    /// Number of leaves.
    pub(crate) count: u64,
    /// Earliest and latest time of a leaf.
    pub(crate) times: Option<(i64, i64)>,
    /// The first key slot that no record up to here names.
    pub(crate) next_slot: u64,
    /// Chain value of the segment's last marker.
    pub(crate) chain: Digest,
    rows: [u64; 3],
    /// Pseudonyms of persons that the segment had when it was closed; none if the file is of a release that knew of none.
    pub(crate) persons: Option<u64>,
    /// Leaves that have a row by kind; none if the file is of a release that knew of none.
    by_kind: Option<u64>,
}

/// Writes the index file of a closed segment.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    index: &MemoryIndex,
    chain: Digest,
) -> Result<(), LogError> {
    write_as(disk, path, index, (chain, index.next_slot, index.persons_ever))
}

/// Writes that of a pruned segment again, from its archived copy, in whose header `next_slot` stands. Pseudonyms are erased
/// in a copy: how many there were, it says all the same.
pub(crate) fn write_again(
    disk: &dyn Disk,
    path: &Path,
    index: &MemoryIndex,
    (chain, next_slot): (Digest, u64),
) -> Result<(), LogError> {
    let persons = index.persons_ever + index.overwritten.len() as u64;
    write_as(disk, path, index, (chain, index.next_slot.max(next_slot), persons))
}

fn write_as(
    disk: &dyn Disk,
    path: &Path,
    index: &MemoryIndex,
    (chain, next_slot, persons): (Digest, u64, u64),
) -> Result<(), LogError> {
    let mut exchanges: Vec<_> =
        index.exchanges.iter().flat_map(|(id, leaves)| leaves.iter().map(|leaf| (*id, *leaf))).collect();
    exchanges.sort_unstable();
    let mut artefacts: Vec<_> = index.artefacts.iter().collect();
    artefacts.sort_unstable();
    let leaves = (index.first..).zip(&index.leaves);
    let by_kind = leaves.filter(|(_, leaf)| !is_in_no_table(leaf.kind)).map(|(at, leaf)| (leaf.kind, at));
    let mut by_kind: Vec<_> = by_kind.collect();
    by_kind.sort_unstable();
    let rows = [exchanges.len() as u64, artefacts.len() as u64, index.notes.len() as u64];
    let head = IndexHead {
        first: index.first,
        count: index.leaves.len() as u64,
        times: index.times(),
        next_slot,
        chain,
        rows,
        persons: Some(persons),
        by_kind: Some(by_kind.len() as u64),
    };
    let mut pages = Pages::default();
    pages.table(std::iter::once(head.to_bytes()));
    pages.table(index.leaves.iter().map(leaf_row));
    pages.table(exchanges.iter().map(|(id, leaf)| [&id[..], &leaf.to_be_bytes()].concat()));
    pages.table(artefacts.iter().map(|(digest, at)| [digest.as_ref(), &at.to_be_bytes()].concat()));
    pages.table(index.notes.iter().map(|note| {
        [&[u8::from(note.checkpoint)][..], &note.size.to_be_bytes(), &note.offset.to_be_bytes()].concat()
    }));
    pages.table(by_kind.iter().map(|(kind, leaf)| [&[*kind][..], &leaf.to_be_bytes()].concat()));
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(LogError::Refused("an index file needs a name"));
    };
    replace(disk, dir, &name.to_string_lossy(), &pages.0).map_err(LogError::disk("write", path))
}

/// Messages are most of a segment, and nobody asks for all of them, or for what has expired.
const fn is_in_no_table(kind: u8) -> bool {
    matches!(kind, kind::MESSAGE | EXPIRED)
}

fn leaf_row(leaf: &LeafEntry) -> Vec<u8> {
    let (offset, time) = (leaf.offset.to_be_bytes(), leaf.time.to_be_bytes());
    [&offset[..], &time, &[leaf.kind], &leaf.exchange, leaf.hash.as_ref()].concat()
}

fn read_leaf(row: &[u8]) -> Option<LeafEntry> {
    Some(LeafEntry {
        offset: number(row),
        time: number(row.get(8..)?).cast_signed(),
        kind: *row.get(16)?,
        exchange: row.get(17..33)?.try_into().ok()?,
        hash: Digest::from_slice(row.get(33..)?)?,
    })
}

impl IndexHead {
    fn tables(&self) -> [Table; 5] {
        let IndexHead { count, rows: [exchanges, artefacts, notes], by_kind, .. } = *self;
        let by_kind = by_kind.unwrap_or(0);
        let mut page = 1;
        [(count, LEAF), (exchanges, EXCHANGE), (artefacts, ARTEFACT), (notes, NOTE), (by_kind, KIND)].map(
            |(rows, width)| {
                let table = Table { page, rows, width };
                page += table.pages();
                table
            },
        )
    }

    fn to_bytes(&self) -> Vec<u8> {
        let (min, max) = self.times.unwrap_or((i64::MAX, i64::MIN));
        let numbers = [self.first, self.count, self.next_slot, self.rows[0], self.rows[1], self.rows[2]];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        bytes.extend([min, max].iter().flat_map(|time| time.to_be_bytes()));
        bytes.extend_from_slice(self.chain.as_ref());
        // One more than there are: zeros stood here before.
        for rows in [self.persons, self.by_kind] {
            bytes.extend_from_slice(&rows.map_or(0, |rows| rows + 1).to_be_bytes());
        }
        bytes
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut rest = body.strip_prefix(MAGIC)?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_be_bytes(*number))
        };
        let (first, count, next_slot) = (number()?, number()?, number()?);
        let rows = [number()?, number()?, number()?];
        let (min, max) = (number()?.cast_signed(), number()?.cast_signed());
        let (chain, rest) = rest.split_at_checked(Digest::LEN)?;
        let chain = Digest::from_slice(chain)?;
        let persons = u64::from_be_bytes(*rest.first_chunk()?).checked_sub(1);
        let by_kind = u64::from_be_bytes(*rest.get(8..)?.first_chunk()?).checked_sub(1);
        let times = (min <= max).then_some((min, max));
        Some(Self { first, count, times, next_slot, chain, rows, persons, by_kind })
    }
}

/// An index file, open for look-ups.
#[derive(Debug)]
pub(crate) struct IndexFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    head: IndexHead,
}

impl IndexFile {
    /// Opens an index file and reads its head.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, LogError> {
        let file = disk.open(path).map_err(LogError::disk("open", path))?;
        let body = read_page(&*file, path, 0)?;
        let head = IndexHead::parse(&body).ok_or_else(|| LogError::damaged(path, 0, "no index file"))?;
        let index = Self { disk: disk.clone(), path: path.to_owned(), head };
        let len = file.len().map_err(LogError::disk("read", path))?;
        if len != index.pages() * PAGE as u64 {
            return Err(LogError::damaged(path, 0, "the index file has not the length that it says"));
        }
        Ok(index)
    }

    /// What the head says.
    pub(crate) const fn head(&self) -> &IndexHead {
        &self.head
    }

    /// Reads all of it: whether every page is what was written.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let file = self.file()?;
        (0..self.pages()).try_for_each(|page| read_page(&*file, &self.path, page).map(drop))
    }

    fn pages(&self) -> u64 {
        let last = self.head.tables()[KINDS];
        last.page + last.pages()
    }

    fn file(&self) -> Result<Arc<dyn DiskFile>, LogError> {
        self.disk.open(&self.path).map_err(LogError::disk("open", &self.path))
    }

    fn rows<'a>(&'a self, file: &'a dyn DiskFile, table: usize) -> Rows<'a> {
        Rows::new(file, &self.path, self.head.tables()[table])
    }

    /// What stands behind `key` in the rows that begin with it.
    fn find(&self, table: usize, key: &[u8], spread: (u64, u64)) -> Result<Vec<u64>, LogError> {
        let file = self.file()?;
        let rows = self.rows(&*file, table).starting_with(key, spread)?;
        Ok(rows.iter().map(|row| number(&row[key.len()..])).collect())
    }
}

impl Index for IndexFile {
    fn leaf(&self, index: u64) -> Result<Option<LeafEntry>, LogError> {
        let Some(row) = index.checked_sub(self.head.first).filter(|row| *row < self.head.count) else {
            return Ok(None);
        };
        Ok(read_leaf(self.rows(&*self.file()?, LEAVES).row(row)?))
    }

    fn leaves_near(&self, index: u64) -> Result<(u64, Vec<LeafEntry>), LogError> {
        let per_page = (BODY / LEAF) as u64;
        let page = index.saturating_sub(self.head.first) / per_page;
        let from = page * per_page;
        let body = read_page(&*self.file()?, &self.path, self.head.tables()[LEAVES].page + page)?;
        let rows = usize::try_from(self.head.count.saturating_sub(from).min(per_page)).unwrap_or(0);
        let near = body.chunks_exact(LEAF).take(rows).filter_map(read_leaf).collect();
        Ok((self.head.first + from, near))
    }

    fn of_exchange(&self, exchange: &[u8; 16]) -> Result<Vec<u64>, LogError> {
        // An id begins with its time in milliseconds, in 48 bits.
        let (earliest, latest) = self.head.times.unwrap_or_default();
        let spread = [earliest, latest].map(|time| time.max(0).cast_unsigned() << 16);
        self.find(EXCHANGES, exchange, spread.into())
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<u64>, LogError> {
        Ok(self.find(ARTEFACTS, digest.as_ref(), (0, u64::MAX))?.first().copied())
    }

    fn of_kind(&self, kind: u8) -> Result<Option<Vec<u64>>, LogError> {
        if self.head.by_kind.is_none() || is_in_no_table(kind) {
            return Ok(None);
        }
        self.find(KINDS, &[kind], (0, u64::MAX)).map(Some)
    }

    fn notes(&self) -> Result<Vec<NoteEntry>, LogError> {
        let file = self.file()?;
        let mut rows = self.rows(&*file, NOTES);
        let note = |row: &[u8]| NoteEntry {
            checkpoint: row[0] == 1,
            size: number(&row[1..]),
            offset: number(&row[9..]),
        };
        (0..self.head.rows[2]).map(|row| rows.row(row).map(note)).collect()
    }
}

/// The same file as a release wrote it that knew of no kinds.
#[cfg(test)]
pub(crate) fn without_kinds(file: &[u8]) -> Vec<u8> {
    let mut head = IndexHead::parse(&file[..BODY]).unwrap();
    head.by_kind = None;
    let end = usize::try_from(head.tables()[KINDS].page).unwrap() * PAGE;
    let mut pages = Pages::default();
    pages.table(std::iter::once(head.to_bytes()));
    [&pages.0, &file[PAGE..end]].concat()
}
