//! Reading a segment file from end to end: how far it is whole, and whether what follows is a torn write or damage.
//!
//! What rests on assumption: a sector of 512 bytes is written whole or not at all; and the very last group, if it is not
//! whole, was never acknowledged. A clean end therefore adds an empty group behind the last; and a checkpoint is kept in a
//! file of its own besides, which is read before anything is cut, so that damage below what was given away is refused and
//! kept. Damage in the last group of a crash, above the last checkpoint, cannot be told from a torn write.

use std::path::{Path, PathBuf};

use trave_proto::digest::Digest;

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::index::MemoryIndex;
use crate::keys::KeyFiles;
use crate::packing::Forms;
use crate::record::{self, HEADER, Header, Kind, MARKER_LEN, MARKER_MAGIC, Marker};
use crate::segment::{DATA, Item, SegmentHeader, item};

/// How far a segment is whole.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    /// Where the last whole group begins; equal to `end` if there is none.
    pub(crate) last_group: u64,
    /// The end of the last whole group.
    pub(crate) end: u64,
    /// Chain value of its marker.
    pub(crate) chain: Digest,
    /// Index of the next leaf.
    pub(crate) next: u64,
    /// Groups.
    pub(crate) groups: u64,
    /// Why the bytes from `end` on are no group, if they are not all zeros.
    pub(crate) torn: Option<String>,
}

/// A record that was read: what it is, its kind, its payload.
pub(crate) type Read = (Item, Kind, Vec<u8>);

/// Reads a segment's groups one after the other.
pub(crate) struct Scanner<'a> {
    file: &'a dyn DiskFile,
    keys: &'a KeyFiles,
    path: PathBuf,
    header: SegmentHeader,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
    extent: Extent,
    forms: Forms,
    keep_payloads: bool,
    payloads: Vec<(Kind, Vec<u8>)>,
}

const WINDOW: u64 = 1 << 20;

/// Takes a record: its kind, header and payload.
pub(crate) type Show<'a> = &'a mut dyn FnMut(Kind, &[u8; HEADER], &[u8]) -> Result<(), LogError>;

impl<'a> Scanner<'a> {
    /// Begins at the first group of `file`, whose header was read.
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        path: &Path,
        header: SegmentHeader,
        keys: &'a KeyFiles,
    ) -> Result<Self, LogError> {
        let len = file.len().map_err(LogError::disk("read", path))?;
        let extent = Extent {
            last_group: DATA,
            end: DATA,
            chain: header.chain,
            next: header.first,
            groups: 0,
            torn: None,
        };
        Ok(Self {
            file,
            keys,
            path: path.to_owned(),
            header,
            len,
            window: Vec::new(),
            window_at: 0,
            extent,
            forms: Forms::default(),
            keep_payloads: false,
            payloads: Vec::new(),
        })
    }

    /// The items of the next whole group, each with the kind and payload of its record as if nothing were packed; none at the end of what is whole.
    pub(crate) fn next_records(&mut self) -> Result<Option<Vec<Read>>, LogError> {
        self.keep_payloads = true;
        let Some(items) = self.next_group()? else { return Ok(None) };
        let payloads = std::mem::take(&mut self.payloads);
        Ok(Some(
            items.into_iter().zip(payloads).map(|(item, (kind, payload))| (item, kind, payload)).collect(),
        ))
    }

    /// How far the segment was found whole.
    pub(crate) const fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The items of the next whole group; none at the end of what is whole.
    pub(crate) fn next_group(&mut self) -> Result<Option<Vec<Item>>, LogError> {
        self.next_group_with(&mut |_, _, _| Ok(()))
    }

    /// The same, showing each record as it stands, its marker included: what is shown counts only if the group is whole.
    pub(crate) fn next_group_with(&mut self, show: Show<'_>) -> Result<Option<Vec<Item>>, LogError> {
        let (start, mut at) = (self.extent.end, self.extent.end);
        let (mut items, mut headers, mut next) = (Vec::new(), Vec::new(), self.extent.next);
        self.payloads.clear();
        loop {
            let (kind, bytes, payload) = match self.record(at)? {
                Ok(Some(record)) => record,
                Ok(None) if at == start => return Ok(None),
                Ok(None) => return self.torn("a group without its end"),
                Err(why) => return self.torn(why),
            };
            let after = at + (HEADER + payload.len()) as u64;
            show(kind, &bytes, &payload)?;
            if kind == Kind::Marker {
                let chain = record::chain(&self.extent.chain, &headers);
                let expected = Marker { segment: self.header.id, group: start, at, size: next, chain };
                if Marker::read(&payload) != Some(expected) {
                    return self.torn("the end of a group does not belong to it");
                }
                let groups = self.extent.groups + 1;
                self.extent = Extent { last_group: start, end: after, chain, next, groups, torn: None };
                return Ok(Some(items));
            }
            let whole = self.forms.whole(kind, payload, at);
            let read = whole.and_then(|(kind, payload)| Some((item(kind, &payload, at)?, kind, payload)));
            let Some((item, kind, payload)) = read else {
                return self.torn("a record that cannot be read");
            };
            next += item.leaves();
            headers.push(bytes);
            items.push(item);
            if self.keep_payloads {
                self.payloads.push((kind, payload));
            }
            at = after;
        }
    }

    fn torn(&mut self, why: &str) -> Result<Option<Vec<Item>>, LogError> {
        self.extent.torn = Some(why.to_owned());
        Ok(None)
    }

    /// The record at `at`; `None` where zeros stand or the file ends, `Err` where no record stands. A content under an
    /// erased key may read as it likes: a power cut can leave it overwritten in part. The chain holds its header.
    #[expect(clippy::type_complexity, reason = "private, and read once")]
    fn record(
        &mut self,
        at: u64,
    ) -> Result<Result<Option<(Kind, [u8; HEADER], Vec<u8>)>, &'static str>, LogError> {
        let mut bytes = [0; HEADER];
        match self.bytes(at, HEADER)? {
            Some(found) => bytes.copy_from_slice(found),
            None => return Ok(Ok(None)),
        }
        if bytes == [0; HEADER] {
            return Ok(Ok(None));
        }
        let Some(header) = Header::read(&bytes) else { return Ok(Err("no record's header")) };
        let keys = self.keys;
        let Some(payload) = self.bytes(at + HEADER as u64, header.len)? else {
            return Ok(Err("a record longer than the file"));
        };
        let erased = |payload| match record::key_slot(header.kind, payload) {
            Some(slot) => keys.is_erased(slot),
            None => Ok(false),
        };
        if header.covers(payload) || record::is_overwritten(header.kind, payload) || erased(payload)? {
            return Ok(Ok(Some((header.kind, bytes, payload.to_vec()))));
        }
        if record::is_half_overwritten(header.kind, payload, at + HEADER as u64) {
            return Ok(Ok(Some((header.kind, bytes, vec![0; payload.len()]))));
        }
        Ok(Err("a record whose checksum is wrong"))
    }

    fn bytes(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>, LogError> {
        let end = at + len as u64;
        if end > self.len {
            return Ok(None);
        }
        if at < self.window_at || end > self.window_at + self.window.len() as u64 {
            let size = WINDOW.max(len as u64).min(self.len - at);
            self.window.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
            self.file.read_exact_at(&mut self.window, at).map_err(LogError::disk("read", &self.path))?;
            self.window_at = at;
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from + len))
    }

    /// That nothing but zeros follows the groups that were read.
    pub(crate) fn ends_whole(&mut self) -> Result<(), LogError> {
        match (self.extent.torn.clone(), self.inspect_tail()?) {
            (None, Tail::Zeros) => Ok(()),
            (why, _) => {
                let why = why.unwrap_or_else(|| "bytes after the last group".to_owned());
                Err(LogError::damaged(&self.path, self.extent.end, why))
            }
        }
    }

    /// Looks at everything after the last whole group. Bytes there may be the rest of a write that the power cut off;
    /// but if the end of a *later* group stands there, what lies between was once whole and acknowledged.
    pub(crate) fn inspect_tail(&mut self) -> Result<Tail, LogError> {
        let end = self.extent.end;
        let (mut at, mut dirty_to) = (end, end);
        while at < self.len {
            // Windows overlap, so that a marker across two of them is seen.
            let len = usize::try_from(WINDOW.min(self.len - at)).unwrap_or(usize::MAX);
            let (id, step) = (self.header.id, len.saturating_sub(HEADER + MARKER_LEN).max(1));
            let Some(window) = self.bytes(at, len)? else { break };
            if let Some(last) = last_nonzero(window) {
                dirty_to = at + last as u64 + 1;
                let later = markers(window, at).find(|marker| marker.segment == id && marker.group > end);
                if let Some(marker) = later {
                    return Ok(Tail::GroupsBeyond { at: marker.group });
                }
            }
            at += if at + len as u64 == self.len { len } else { step } as u64;
        }
        Ok(if dirty_to > end { Tail::Torn { to: dirty_to } } else { Tail::Zeros })
    }
}

/// Reads a closed segment from end to end; nothing in it may be torn.
pub(crate) fn read_closed(
    disk: &dyn Disk,
    path: &Path,
    header: SegmentHeader,
    keys: &KeyFiles,
) -> Result<(MemoryIndex, Digest), LogError> {
    let file = disk.open(path).map_err(LogError::disk("open", path))?;
    read_whole((&*file, path), header, keys, &mut |_, _, _| Ok(()))
        .map(|(index, extent)| (index, extent.chain))
}

/// Reads a closed segment's file from end to end, showing each record.
pub(crate) fn read_whole(
    (file, path): (&dyn DiskFile, &Path),
    header: SegmentHeader,
    keys: &KeyFiles,
    show: Show<'_>,
) -> Result<(MemoryIndex, Extent), LogError> {
    let mut scanner = Scanner::new(file, path, header, keys)?;
    let mut index = MemoryIndex::new(header.first);
    while let Some(items) = scanner.next_group_with(show)? {
        items.iter().for_each(|item| index.add(item));
    }
    index.next_slot = index.next_slot.max(header.next_slot());
    scanner.ends_whole()?;
    let extent = Extent { chain: header.chain_after(scanner.extent().chain), ..scanner.extent().clone() };
    Ok((index, extent))
}

/// The items, extent and tail of the segment that was last written to.
pub(crate) fn read_last(
    file: &dyn DiskFile,
    path: &Path,
    header: SegmentHeader,
    keys: &KeyFiles,
) -> Result<(MemoryIndex, Extent, Tail), LogError> {
    let mut scanner = Scanner::new(file, path, header, keys)?;
    let mut open = MemoryIndex::new(header.first);
    while let Some(items) = scanner.next_group()? {
        items.iter().for_each(|item| open.add(item));
    }
    open.next_slot = open.next_slot.max(header.next_slot());
    let tail = scanner.inspect_tail()?;
    Ok((open, scanner.extent().clone(), tail))
}

/// What stands after the last whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    Zeros,
    /// The rest of a write that was never acknowledged, up to there.
    Torn {
        /// The last byte that is not zero, plus one.
        to: u64,
    },
    /// The end of a later group: this is damage, not a torn write.
    GroupsBeyond {
        /// Where that group begins.
        at: u64,
    },
}

/// The last byte that is not zero. Zeros are compared by the block: most of a segment can be zeros.
fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 4_096;
    let dirty = |block: &[u8]| *block != [0; BLOCK][..block.len()];
    let block = bytes.chunks(BLOCK).rposition(dirty)? * BLOCK;
    let end = bytes.len().min(block + BLOCK);
    bytes[block..end].iter().rposition(|byte| *byte != 0).map(|at| block + at)
}

/// The markers in `window`, which was read from `at`, that stand where they say they stand.
fn markers(window: &[u8], at: u64) -> impl Iterator<Item = Marker> {
    let candidates = window.windows(MARKER_LEN).enumerate();
    candidates.filter(|(_, bytes)| bytes.starts_with(MARKER_MAGIC)).filter_map(move |(from, payload)| {
        let start = from.checked_sub(HEADER)?;
        let header = Header::read(window[start..].first_chunk()?)?;
        let marker = Marker::read(payload)?;
        (header.covers(payload) && marker.at == at + start as u64).then_some(marker)
    })
}
