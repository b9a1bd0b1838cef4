//! Which leaves of a segment concern which pseudonym: in memory, or as a file of sorted rows beside the closed segment,
//! in pages as those of the index file are. A row: pseudonym (16), leaf (8), where its record begins (8), whose highest bit says
//! that it is the pseudonym of a reference: of a pruned segment there is no record left that would.
//!
//! The file (`segment-<first>.persons`) is apart from the index because it is written anew whenever a person is erased:
//! first every byte of it is overwritten where it stands, then the rows that remain are put in its place. A crash between
//! leaves no table, or one whose pages do not read; then the table is made again from the segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::{self, BODY, PAGE, Pages, Rows, number, read_page};
use crate::disk::{Disk, DiskFile, fill_zeros, replace};
use crate::error::LogError;
use crate::index::PersonRow;
use crate::pseudonyms::HASH;

const MAGIC: &[u8; 16] = b"trave persons v1";
const ROW: usize = HASH + 8 + 8;
/// In the place of a record: it is that of a reference.
const OF_REFERENCE: u64 = 1 << 63;
const PER_PAGE: u64 = (BODY / ROW) as u64;

/// The table's file that belongs to a segment file.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("persons")
}

/// Where the next table of a pruned segment is made ready, beside this one.
pub(crate) fn next_of(table: &Path) -> PathBuf {
    table.with_extension("persons-next")
}

/// The pseudonyms in a closed segment, wherever they are.
#[derive(Debug)]
pub(crate) enum Table {
    /// Nobody knows: the segment is to be read.
    Unknown,
    /// In memory; in no file.
    Memory(Vec<PersonRow>),
    /// In a file.
    File(PersonsFile),
}

/// A file of rows, open for look-ups.
#[derive(Debug)]
pub(crate) struct PersonsFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    rows: u64,
}

impl PersonsFile {
    /// Opens the table of the segment that begins with leaf `first`, and reads its head.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path, first: u64) -> Result<Self, LogError> {
        let file = disk.open(path).map_err(LogError::disk("open", path))?;
        let body = read_page(&*file, path, 0)?;
        let head = body.strip_prefix(MAGIC).filter(|head| number(head) == first);
        let head = head.ok_or_else(|| LogError::damaged(path, 0, "no table of persons of this segment"))?;
        let rows = number(&head[8..]);
        let len = file.len().map_err(LogError::disk("read", path))?;
        if rows.div_ceil(PER_PAGE).checked_add(1).and_then(|pages| pages.checked_mul(PAGE as u64))
            != Some(len)
        {
            return Err(LogError::damaged(path, 0, "the table has not the length that it says"));
        }
        Ok(Self { disk: disk.clone(), path: path.to_owned(), rows })
    }

    /// The rows of a pseudonym.
    pub(crate) fn find(&self, hash: &[u8; HASH]) -> Result<Vec<PersonRow>, LogError> {
        let file = self.file()?;
        let table = table::Table { page: 1, rows: self.rows, width: ROW };
        let rows = Rows::new(&*file, &self.path, table).starting_with(hash, (0, u64::MAX))?;
        Ok(rows.iter().map(|row| read_row(row)).collect())
    }

    /// All rows, in order.
    pub(crate) fn all(&self) -> Result<Vec<PersonRow>, LogError> {
        let file = self.file()?;
        let mut rows = Vec::new();
        for page in 0..self.rows.div_ceil(PER_PAGE) {
            let body = read_page(&*file, &self.path, page + 1)?;
            let here = usize::try_from((self.rows - page * PER_PAGE).min(PER_PAGE)).unwrap_or(0);
            rows.extend(body.chunks_exact(ROW).take(here).map(read_row));
        }
        Ok(rows)
    }

    fn file(&self) -> Result<Arc<dyn DiskFile>, LogError> {
        self.disk.open(&self.path).map_err(LogError::disk("open", &self.path))
    }
}

fn read_row(row: &[u8]) -> PersonRow {
    let mut hash = [0; HASH];
    hash.copy_from_slice(&row[..HASH]);
    let (leaf, place) = (number(&row[HASH..]), number(&row[HASH + 8..]));
    PersonRow { hash, leaf, offset: place & !OF_REFERENCE, reference: place & OF_REFERENCE != 0 }
}

/// Writes the table of the segment that begins with leaf `first`.
pub(crate) fn write(
    disk: &Arc<dyn Disk>,
    path: &Path,
    first: u64,
    rows: &[PersonRow],
) -> Result<PersonsFile, LogError> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    let (first, count) = (first.to_be_bytes(), (rows.len() as u64).to_be_bytes());
    let mut pages = Pages::default();
    pages.table(std::iter::once([&MAGIC[..], &first, &count].concat()));
    pages.table(sorted.iter().map(|row| {
        let place = row.offset | if row.reference { OF_REFERENCE } else { 0 };
        [&row.hash[..], &row.leaf.to_be_bytes(), &place.to_be_bytes()].concat()
    }));
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(LogError::Refused("a table of persons needs a name"));
    };
    replace(&**disk, dir, &name.to_string_lossy(), &pages.0).map_err(LogError::disk("write", path))?;
    Ok(PersonsFile { disk: disk.clone(), path: path.to_owned(), rows: rows.len() as u64 })
}

/// Overwrites a table where it stands, if there is one, readable or not.
pub(crate) fn wipe(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::disk("open", path)(error)),
    };
    let wiped = file.len().and_then(|len| fill_zeros(&*file, 0, len)).and_then(|()| file.sync());
    wiped.map_err(LogError::disk("overwrite", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::SimulatedDisk;

    #[test]
    fn a_table_finds_what_was_written_and_sees_damage() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let (dir, path) = (Path::new("/log"), Path::new("/log/segment-00000000000000000005.persons"));
        disk.create_dir(dir).unwrap();
        let row =
            |of: u8, leaf: u64| PersonRow { hash: [of; HASH], leaf, offset: leaf * 100, reference: of == 7 };
        let rows: Vec<_> = (0..1_000).map(|leaf| row((leaf % 200) as u8, leaf)).collect();
        let written = write(&disk, path, 5, &rows).unwrap();
        let file = PersonsFile::open(&disk, path, 5).unwrap();
        for of in [0, 7, 199] {
            let found: Vec<_> = (0..5).map(|at| row(of, at * 200 + u64::from(of))).collect();
            assert_eq!(
                (file.find(&[of; HASH]).unwrap(), written.find(&[of; HASH]).unwrap()),
                (found.clone(), found)
            );
        }
        assert_eq!(file.find(&[200; HASH]).unwrap(), []);
        assert_eq!(file.all().unwrap().len(), 1_000);
        assert!(PersonsFile::open(&disk, path, 6).is_err(), "of another segment");
        disk.open(path).unwrap().write_all_at(&[9], 5_000).unwrap();
        assert!(matches!(file.find(&[0; HASH]), Err(LogError::Damaged { .. })));
        wipe(&*disk, path).unwrap();
        assert!(matches!(PersonsFile::open(&disk, path, 5), Err(LogError::Damaged { .. })));
        assert_eq!(write(&disk, path, 5, &[]).unwrap().all().unwrap(), []);
    }
}
