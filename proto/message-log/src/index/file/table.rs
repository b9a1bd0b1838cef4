//! Tables of sorted rows of one width, in pages of 4 KiB: 4,092 bytes and the CRC-32 of the page's number and these bytes.
//! A look-up reads a few pages, and a damaged page is noticed.

use std::io;
use std::path::Path;

use crate::disk::DiskFile;
use crate::error::LogError;

pub(super) const PAGE: usize = 4_096;
pub(super) const BODY: usize = PAGE - 4;
/// Pages that one look reads: mostly the row that is sought is among them, and four cost the disk what one costs.
const WINDOW: u64 = 4;

/// A file's pages, while it is made.
#[derive(Default)]
pub(super) struct Pages(pub(super) Vec<u8>);

impl Pages {
    /// Rows of one width; no row lies across two pages.
    pub(super) fn table(&mut self, rows: impl Iterator<Item = Vec<u8>>) {
        let mut page = Vec::with_capacity(PAGE);
        for row in rows {
            if page.len() + row.len() > BODY {
                self.seal(&mut page);
            }
            page.extend_from_slice(&row);
        }
        if !page.is_empty() {
            self.seal(&mut page);
        }
    }

    fn seal(&mut self, page: &mut Vec<u8>) {
        page.resize(BODY, 0);
        let crc = page_crc((self.0.len() / PAGE) as u64, page);
        self.0.append(page);
        self.0.extend_from_slice(&crc.to_be_bytes());
    }
}

fn page_crc(number: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_be_bytes());
    crc.update(body);
    crc.finalize()
}

/// A page's bytes without its checksum, which is right.
pub(super) fn read_page(file: &dyn DiskFile, path: &Path, number: u64) -> Result<Vec<u8>, LogError> {
    read_pages(file, path, number, 1)
}

/// The same of several pages, one after the other.
fn read_pages(file: &dyn DiskFile, path: &Path, first: u64, count: u64) -> Result<Vec<u8>, LogError> {
    let mut pages = vec![0; usize::try_from(count).unwrap_or(0) * PAGE];
    let offset = first * PAGE as u64;
    file.read_exact_at(&mut pages, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => LogError::damaged(path, offset, "the index file is too short"),
        _ => LogError::disk("read", path)(error),
    })?;
    let mut bodies = Vec::with_capacity(pages.len());
    for (number, page) in (first..).zip(pages.chunks_exact(PAGE)) {
        let (body, crc) = page.split_at(BODY);
        if crc != page_crc(number, body).to_be_bytes() {
            return Err(LogError::damaged(path, number * PAGE as u64, "a page's checksum is wrong"));
        }
        bodies.extend_from_slice(body);
    }
    Ok(bodies)
}

/// The number in the first eight bytes; where there are fewer, zeros follow.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    let len = bytes.len().min(8);
    number[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(number)
}

/// A table in the file: its first page, its rows and their width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) page: u64,
    pub(super) rows: u64,
    pub(super) width: usize,
}

impl Table {
    pub(super) const fn per_page(&self) -> u64 {
        (BODY / self.width) as u64
    }

    pub(super) const fn pages(&self) -> u64 {
        self.rows.div_ceil(self.per_page())
    }
}

/// The rows of a table in an open file.
pub(super) struct Rows<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    table: Table,
    /// What was read last: from which page of the table on, and its rows' bytes.
    window: (u64, Vec<u8>),
}

impl<'a> Rows<'a> {
    pub(super) const fn new(file: &'a dyn DiskFile, path: &'a Path, table: Table) -> Self {
        Self { file, path, table, window: (0, Vec::new()) }
    }

    /// One row.
    pub(super) fn row(&mut self, row: u64) -> Result<&[u8], LogError> {
        let per_page = self.table.per_page();
        let page = row / per_page;
        if self.within(row).is_none() {
            self.read(page, 1)?;
        }
        self.within(row).ok_or_else(|| LogError::damaged(self.path, 0, "a row is not in its page"))
    }

    /// The rows that begin with `key`, of a table whose rows ascend. `spread` says between which numbers the first eight bytes
    /// of its keys lie about evenly; where they do not, the look-up takes longer.
    pub(super) fn starting_with(&mut self, key: &[u8], spread: (u64, u64)) -> Result<Vec<Vec<u8>>, LogError> {
        let mut found = Vec::new();
        for row in self.lower_bound(key, spread)?..self.table.rows {
            let row = self.row(row)?;
            if !row.starts_with(key) {
                break;
            }
            found.push(row.to_vec());
        }
        Ok(found)
    }

    /// The first row that does not stand before `key`. Where it should stand is guessed from the keys around, and every
    /// third time the middle is looked at, so that no distribution of keys takes more than three times what halving does.
    fn lower_bound(&mut self, key: &[u8], spread: (u64, u64)) -> Result<u64, LogError> {
        let (mut from, mut to) = (0, self.table.pages());
        let (mut low, mut high) = spread;
        for turn in 1_u32.. {
            if from == to {
                break;
            }
            let middle = if turn.is_multiple_of(3) {
                from.midpoint(to)
            } else {
                from + share(number(key), (low, high), to - from)
            };
            let first = middle.saturating_sub(WINDOW / 2).clamp(from, to.saturating_sub(WINDOW).max(from));
            let last = (first + WINDOW).min(to);
            self.read(first, last - first)?;
            let (begin, end) = (first * self.table.per_page(), self.end(last));
            let (least, most) = (self.row(begin)?.to_vec(), self.row(end - 1)?.to_vec());
            if least[..key.len()] >= *key {
                (to, high) = (first, number(&least));
            } else if most[..key.len()] < *key {
                (from, low) = (last, number(&most));
            } else {
                return self.among(key, begin, end);
            }
        }
        Ok(self.end(from))
    }

    /// The same among the rows of the window that begins with row `from` and ends before `to`.
    fn among(&mut self, key: &[u8], mut from: u64, mut to: u64) -> Result<u64, LogError> {
        while from < to {
            let middle = from.midpoint(to);
            if self.row(middle)?[..key.len()] < *key { from = middle + 1 } else { to = middle }
        }
        Ok(from)
    }

    /// The row before which so many pages end.
    fn end(&self, pages: u64) -> u64 {
        (pages * self.table.per_page()).min(self.table.rows)
    }

    fn read(&mut self, first: u64, count: u64) -> Result<(), LogError> {
        self.window = (first, read_pages(self.file, self.path, self.table.page + first, count)?);
        Ok(())
    }

    fn within(&self, row: u64) -> Option<&[u8]> {
        let per_page = self.table.per_page();
        let page = usize::try_from((row / per_page).checked_sub(self.window.0)?).ok()?;
        let from = page * BODY + usize::try_from(row % per_page).ok()? * self.table.width;
        self.window.1.get(from..from + self.table.width)
    }
}

/// Where `sought` stands between `low` and `high`, of so many places.
fn share(sought: u64, (low, high): (u64, u64), places: u64) -> u64 {
    let (beyond, width) = (u128::from(sought.saturating_sub(low)), u128::from(high.saturating_sub(low)));
    let at = beyond * u128::from(places) / width.max(1);
    u64::try_from(at).unwrap_or(u64::MAX).min(places.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::disk::MemoryFile;

    /// A file that counts how often it is read.
    #[derive(Debug)]
    struct Counted(MemoryFile, AtomicU32);

    impl DiskFile for Counted {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_exact_at(buffer, offset)
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Looks for each of these keys and for each of those beside it, and tells how many reads one took: most, and on average.
    fn looks(mut keys: Vec<u64>, spread: (u64, u64)) -> (u32, f64) {
        keys.sort_unstable();
        let mut pages = Pages::default();
        let rows = keys.iter().zip(0_u64..);
        pages.table(rows.map(|(key, at)| [key.to_be_bytes(), at.to_be_bytes(), [0; 8], [0; 8]].concat()));
        let file = Counted(MemoryFile(pages.0), AtomicU32::new(0));
        let table = Table { page: 0, rows: keys.len() as u64, width: 32 };
        let (mut most, mut all, mut looks) = (0, 0, 0);
        let distinct = keys.chunk_by(|one, other| one == other).map(|same| same[0]);
        let sought = distinct.flat_map(|key| [key.saturating_sub(1), key, key.saturating_add(1)]);
        for key in sought.step_by(keys.len() / 3_000 + 1).chain([0, u64::MAX]) {
            file.1.store(0, Ordering::Relaxed);
            let path = Path::new("table");
            let found = Rows::new(&file, path, table).starting_with(&key.to_be_bytes(), spread).unwrap();
            let places: Vec<_> = found.iter().map(|row| number(&row[8..])).collect();
            let same =
                keys.partition_point(|other| *other < key)..keys.partition_point(|other| *other <= key);
            assert_eq!(places, same.clone().map(|at| at as u64).collect::<Vec<_>>(), "{key}");
            // Those of the rows that follow are not the look's.
            let reads = file.1.load(Ordering::Relaxed).saturating_sub(same.len() as u32 / 127);
            (most, all, looks) = (most.max(reads), all + reads, looks + 1);
        }
        (most, f64::from(all) / f64::from(looks))
    }

    fn even(count: u64) -> Vec<u64> {
        (1..=count).map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
    }

    #[test]
    fn keys_that_lie_about_evenly_are_mostly_found_in_one_read() {
        let (most, average) = looks(even(60_000), (0, u64::MAX));
        assert!(most <= 4 && average < 1.2, "{most}, {average}");
        // Ids of an hour, two in a millisecond, and looked for in a whole minute more on each side.
        let begin = 1_795_288_440_000_u64;
        let ids =
            even(60_000).iter().zip(0..).map(|(key, at)| (begin + at / 2 * 120) << 16 | key >> 48).collect();
        let (most, average) = looks(ids, (begin << 16, (begin + 3_600_000) << 16));
        assert!(most <= 4 && average < 1.2, "{most}, {average}");
    }

    #[test]
    fn keys_of_any_distribution_are_found() {
        let spread = (0, u64::MAX);
        for count in [0, 1, 126, 127, 128, 509, 10_000] {
            looks(even(count), spread);
        }
        // Half of all are the same; all lie close together; each is twice the one before.
        let same = || std::iter::repeat_n(0x7777 << 48, 30_000);
        let (most, average) = looks(same().chain(even(30_000)).collect(), spread);
        assert!(most <= 27 && average < 4.0, "{most}, {average}");
        let (most, average) = looks((5_000..65_000).collect(), spread);
        assert!(most <= 27 && average < 12.0, "{most}, {average}");
        let (most, _) = looks((0..60_000).map(|at| 1 << (at % 64)).collect(), spread);
        assert!(most <= 27, "{most}");
        looks(vec![3; 1_000], spread);
        looks(even(10_000), (u64::MAX, 0));
    }

    #[test]
    fn a_page_that_is_not_what_was_written_is_damaged() {
        let mut pages = Pages::default();
        pages.table((0..1_000_u64).map(|key| key.to_be_bytes().to_vec()));
        pages.0[PAGE + 9] ^= 1;
        let file = MemoryFile(pages.0);
        let table = Table { page: 0, rows: 1_000, width: 8 };
        let looked = |key: u64| Rows::new(&file, Path::new("t"), table).row(key).map(number);
        assert_eq!(looked(0).unwrap(), 0);
        assert!(matches!(looked(511), Err(LogError::Damaged { offset: 4_096, .. })));
        let short = Table { rows: 2_000, ..table };
        let beyond = Rows::new(&file, Path::new("t"), short).row(1_500).map(number);
        assert!(matches!(beyond, Err(LogError::Damaged { .. })));
    }
}
