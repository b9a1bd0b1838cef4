//! The search index of a closed segment as a file, written once and whole.
//!
//! Magic (16 bytes). Then the head: first leaf, leaves, earliest and latest time in exchange ids, length of the list, the
//! CRC-32 of the list, that of these numbers; all big-endian. Then the list: for each value its key, length, bytes, and of
//! its set the place, length and CRC-32; and for the blocks of leaves the earliest and latest times. Then the sets, each in
//! the portable format of Roaring bitmaps.
//!
//! After a crash the file is there whole, or not at all: it is written beside, synced and renamed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringBitmap;
use trave_proto::search::{Key, Term};

use super::{SearchIndex, SearchMemory};
use crate::disk::{Disk, replace};
use crate::error::LogError;

const MAGIC: &[u8; 16] = b"trave search v1\n";
const HEAD: usize = 16 + 5 * 8 + 4 + 4;
/// Longest list that is read: more values than any configuration names.
const MAX_LIST: u64 = 64 << 20;
/// Largest set that is read: one bit for each of the leaves of the largest segment.
const MAX_SET: u32 = 64 << 20;

/// The search index that belongs to a segment file. It goes when the segment goes.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("search")
}

/// Writes the search index of a closed segment.
pub(crate) fn write(disk: &dyn Disk, path: &Path, index: &SearchMemory) -> Result<(), LogError> {
    let failed = || LogError::disk("write", path);
    let bytes = encode(index).map_err(failed())?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed()(io::ErrorKind::InvalidInput.into()));
    };
    replace(disk, dir, &name.to_string_lossy(), &bytes).map_err(failed())
}

fn encode(index: &SearchMemory) -> io::Result<Vec<u8>> {
    let (mut list, mut sets) = (Vec::new(), Vec::new());
    let terms: Vec<_> = index.terms.iter().filter(|(_, leaves)| !leaves.is_empty()).collect();
    put(&mut list, terms.len());
    for (term, leaves) in terms {
        let from = sets.len();
        leaves.serialize_into(&mut sets)?;
        list.push(term.key as u8);
        put(&mut list, term.value.len());
        list.extend_from_slice(term.value.as_bytes());
        put(&mut list, from);
        put(&mut list, sets.len() - from);
        list.extend_from_slice(&crc32fast::hash(&sets[from..]).to_be_bytes());
    }
    put(&mut list, index.times.len());
    for time in index.times.iter().flat_map(|(earliest, latest)| [earliest, latest]) {
        list.extend_from_slice(&time.to_be_bytes());
    }
    let (earliest, latest) = index.ids.unwrap_or((i64::MAX, i64::MIN));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&index.first.to_be_bytes());
    bytes.extend_from_slice(&u64::from(index.count).to_be_bytes());
    bytes.extend_from_slice(&earliest.to_be_bytes());
    bytes.extend_from_slice(&latest.to_be_bytes());
    bytes.extend_from_slice(&(list.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&list).to_be_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.append(&mut list);
    bytes.append(&mut sets);
    Ok(bytes)
}

/// A length or a place: all of them are shorter than a segment.
fn put(list: &mut Vec<u8>, number: usize) {
    list.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

/// A search index in a file, open for look-ups.
#[derive(Debug)]
pub(crate) struct SearchFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    count: u64,
    ids: Option<(i64, i64)>,
    /// Ascending.
    terms: Vec<(Term, Place)>,
    times: Vec<(i64, i64)>,
}

/// Where a set stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    len: u32,
    crc: u32,
}

impl SearchFile {
    /// Opens a file and reads its list. It must be of the segment with these leaves.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path, first: u64, count: u64) -> Result<Self, LogError> {
        let damaged = |what: &str| LogError::damaged(path, 0, what);
        let file = disk.open(path).map_err(LogError::disk("open", path))?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).map_err(LogError::disk("read", path))?;
        let mut rest = Reader(head.strip_prefix(MAGIC).ok_or_else(|| damaged("no search index"))?);
        let head = (|| {
            Some((
                [rest.u64()?, rest.u64()?, rest.u64()?, rest.u64()?, rest.u64()?],
                [rest.u32()?, rest.u32()?],
            ))
        })();
        let ([of, leaves, earliest, latest, list_len], [list_crc, crc]) =
            head.ok_or_else(|| damaged("its head is too short"))?;
        if crc != crc_of_head(&file, path)? || (of, leaves) != (first, count) || list_len > MAX_LIST {
            return Err(damaged("its head is not that of the search index of this segment"));
        }
        let mut list = vec![0; usize::try_from(list_len).unwrap_or(0)];
        file.read_exact_at(&mut list, HEAD as u64).map_err(LogError::disk("read", path))?;
        if list_crc != crc32fast::hash(&list) {
            return Err(damaged("the checksum of its list is wrong"));
        }
        let (terms, times) =
            read_list(&list, HEAD as u64 + list_len).ok_or_else(|| damaged("its list cannot be read"))?;
        let ends = terms.iter().map(|(_, place)| place.offset + u64::from(place.len));
        if file.len().map_err(LogError::disk("read", path))? != ends.max().unwrap_or(HEAD as u64 + list_len) {
            return Err(damaged("it has not the length that it says"));
        }
        let (earliest, latest) = (earliest.cast_signed(), latest.cast_signed());
        let ids = (earliest <= latest).then_some((earliest, latest));
        Ok(Self { disk: disk.clone(), path: path.to_owned(), count, ids, terms, times })
    }

    fn place(&self, term: &Term) -> Option<Place> {
        self.terms.binary_search_by(|(other, _)| other.cmp(term)).ok().map(|at| self.terms[at].1)
    }

    fn read(&self, place: Place) -> Result<RoaringBitmap, LogError> {
        let damaged = |what: &str| LogError::damaged(&self.path, place.offset, what);
        let file = self.disk.open(&self.path).map_err(LogError::disk("open", &self.path))?;
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(&mut bytes, place.offset).map_err(LogError::disk("read", &self.path))?;
        if crc32fast::hash(&bytes) != place.crc {
            return Err(damaged("the checksum of a set is wrong"));
        }
        RoaringBitmap::deserialize_from(&*bytes).map_err(|_| damaged("a set cannot be read"))
    }
}

fn crc_of_head(file: &Arc<dyn crate::disk::DiskFile>, path: &Path) -> Result<u32, LogError> {
    let mut head = [0; HEAD - 4];
    file.read_exact_at(&mut head, 0).map_err(LogError::disk("read", path))?;
    Ok(crc32fast::hash(&head))
}

type List = (Vec<(Term, Place)>, Vec<(i64, i64)>);

fn read_list(list: &[u8], sets: u64) -> Option<List> {
    let (mut rest, mut terms) = (Reader(list), Vec::new());
    for _ in 0..rest.u32()? {
        let number = rest.take(1)?[0];
        let key = Key::ALL.into_iter().find(|key| *key as u8 == number)?;
        let len = rest.u32()? as usize;
        let value = std::str::from_utf8(rest.take(len)?).ok()?.to_owned();
        let (from, len, crc) = (rest.u32()?, rest.u32()?, rest.u32()?);
        if len > MAX_SET {
            return None;
        }
        terms.push((Term { key, value }, Place { offset: sets + u64::from(from), len, crc }));
    }
    let blocks = rest.u32()?;
    let mut times = Vec::new();
    for _ in 0..blocks {
        times.push((rest.u64()?.cast_signed(), rest.u64()?.cast_signed()));
    }
    let ascending = terms.is_sorted_by(|one, next| one.0 < next.0);
    (rest.0.is_empty() && ascending).then_some((terms, times))
}

/// Reads numbers, big-endian.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
}

impl SearchIndex for SearchFile {
    fn count(&self) -> u64 {
        self.count
    }

    fn holds(&self, term: &Term) -> bool {
        self.place(term).is_some()
    }

    fn leaves(&self, term: &Term) -> Result<Option<RoaringBitmap>, LogError> {
        self.place(term).map(|place| self.read(place)).transpose()
    }

    fn values(&self, key: Key) -> Vec<String> {
        let from = self.terms.partition_point(|(term, _)| term.key < key);
        let of_key = self.terms[from..].iter().take_while(|(term, _)| term.key == key);
        of_key.map(|(term, _)| term.value.clone()).collect()
    }

    fn times(&self) -> Result<Vec<(i64, i64)>, LogError> {
        Ok(self.times.clone())
    }

    fn ids(&self) -> Option<(i64, i64)> {
        self.ids
    }
}
