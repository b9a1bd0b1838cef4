//! The archive: ZIP (APPNOTE 6.3) with stored entries alone, written in exactly one way, and read only if it is written so.
//!
//! What is read comes from strangers. An archive that could be written in two ways could be read in two ways; here nothing is
//! unpacked, so nothing grows, and every byte that is not the data of an entry is the one that this program would write: no
//! compression, no ZIP64, no extra fields or comments, nothing before, between or behind the entries, and a directory
//! that says what the entries say.

use std::collections::HashSet;

use bytes::Bytes;

/// Largest container that is read or written, in bytes.
pub const MAX_CONTAINER: usize = 512 << 20;
/// Most entries of a container.
pub(super) const MAX_ENTRIES: usize = 1024;
/// Longest name of an entry, in bytes.
const MAX_NAME: usize = 128;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
/// Bytes of an entry's header without its name.
const LOCAL_LENGTH: usize = 30;
/// Stored entries are understood by version 1.0.
const VERSION: u16 = 10;
/// 1980-01-01 00:00, the first time that ZIP can say: when an entry was written is nobody's business.
const TIME_AND_DATE: [u8; 4] = [0, 0, 0x21, 0];

/// Why an archive is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// More than [`MAX_CONTAINER`] bytes.
    #[error("the container has more than {} MiB", MAX_CONTAINER >> 20)]
    TooLarge,
    /// More entries than any container has.
    #[error("the container has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// A name that stands nowhere else than in an attack.
    #[error("an entry's name is not one that a container has")]
    Name,
    /// Two entries of one name.
    #[error("two entries have the same name")]
    Twice,
    /// Not written as containers are.
    #[error(
        "the archive is not written as a container is: it was damaged, altered or packed anew by another program \
         (use the file as it was exported)"
    )]
    NotAsWritten,
}

/// One file of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) data: Bytes,
    /// The checksum beside it.
    crc: u32,
}

impl Entry {
    pub(super) fn new(name: impl Into<String>, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { name: name.into(), crc: crc32fast::hash(&data), data }
    }

    /// Whether the checksum beside the data is theirs: other programs refuse the entry if not.
    pub(super) fn is_intact(&self) -> bool {
        self.crc == crc32fast::hash(&self.data)
    }

    /// Checksum, size twice, length of the name, no extra field: the same in both headers.
    fn facts(&self) -> Vec<u8> {
        let size = u32::try_from(self.data.len()).unwrap_or(u32::MAX).to_le_bytes();
        let name = u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&self.crc.to_le_bytes()[..], &size, &size, &name, &[0, 0]].concat()
    }

    fn local_header(&self) -> Vec<u8> {
        let version = VERSION.to_le_bytes();
        // No flags, method 0: stored.
        let fixed = [&LOCAL[..], &version, &[0; 4], &TIME_AND_DATE, &self.facts()].concat();
        [&fixed, self.name.as_bytes()].concat()
    }

    fn central_header(&self, offset: u32) -> Vec<u8> {
        let version = VERSION.to_le_bytes();
        let fixed = [&CENTRAL[..], &version, &version, &[0; 4], &TIME_AND_DATE, &self.facts()].concat();
        // No comment, disk 0, no attributes.
        [&fixed, &[0; 10][..], &offset.to_le_bytes(), self.name.as_bytes()].concat()
    }
}

/// Writes an archive.
pub(super) fn write(entries: &[Entry]) -> Result<Vec<u8>, ArchiveError> {
    check(entries)?;
    let size: usize = entries.iter().map(|entry| entry.data.len() + 2 * MAX_NAME + 128).sum();
    if size > MAX_CONTAINER {
        return Err(ArchiveError::TooLarge);
    }
    let (mut file, mut offsets) = (Vec::with_capacity(size), Vec::with_capacity(entries.len()));
    for entry in entries {
        offsets.push(file.len());
        file.extend(entry.local_header());
        file.extend_from_slice(&entry.data);
    }
    let directory = directory(entries, &offsets, file.len());
    file.extend(directory);
    Ok(file)
}

/// Whether a file begins as archives do: what else it is, [`read`] says.
pub(super) fn is_archive(file: &[u8]) -> bool {
    file.starts_with(&LOCAL)
}

/// Reads an archive that is written as [`write`] writes.
pub(super) fn read(file: &Bytes) -> Result<Vec<Entry>, ArchiveError> {
    if file.len() > MAX_CONTAINER {
        return Err(ArchiveError::TooLarge);
    }
    let (mut entries, mut offsets, mut at) = (Vec::new(), Vec::new(), 0);
    while file[at..].starts_with(&LOCAL) {
        if entries.len() == MAX_ENTRIES {
            return Err(ArchiveError::TooMany);
        }
        let entry = read_entry(file, at)?;
        offsets.push(at);
        at += LOCAL_LENGTH + entry.name.len() + entry.data.len();
        entries.push(entry);
    }
    check(&entries)?;
    if directory(&entries, &offsets, at) != file[at..] {
        return Err(ArchiveError::NotAsWritten);
    }
    Ok(entries)
}

fn read_entry(file: &Bytes, at: usize) -> Result<Entry, ArchiveError> {
    let rest = file.slice(at..);
    let number = |at: usize, length: usize| -> Option<usize> {
        let digits = rest.get(at..at + length)?;
        Some(digits.iter().rev().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))
    };
    let read = || {
        let (crc, size, name) = (number(14, 4)?, number(22, 4)?, number(26, 2)?);
        let data = LOCAL_LENGTH.checked_add(name)?;
        let end = data.checked_add(size).filter(|end| *end <= rest.len())?;
        let name = std::str::from_utf8(&rest[LOCAL_LENGTH..data]).ok()?.to_owned();
        let entry = Entry { name, data: rest.slice(data..end), crc: u32::try_from(crc).ok()? };
        (entry.local_header() == rest[..data]).then_some(entry)
    };
    read().ok_or(ArchiveError::NotAsWritten)
}

/// What no container has, whatever the directory says.
fn check(entries: &[Entry]) -> Result<(), ArchiveError> {
    if entries.len() > MAX_ENTRIES {
        return Err(ArchiveError::TooMany);
    }
    if !entries.iter().all(|entry| is_name(&entry.name)) {
        return Err(ArchiveError::Name);
    }
    let names: HashSet<_> = entries.iter().map(|entry| entry.name.to_ascii_lowercase()).collect();
    if names.len() == entries.len() { Ok(()) } else { Err(ArchiveError::Twice) }
}

/// Folders and a file of letters, digits, dots and hyphens: no root, no way up, nothing hidden, nothing to escape in XML.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
    };
    name.len() <= MAX_NAME && name.split('/').all(is_part)
}

/// The central directory and its end, for entries at `offsets` and itself at `at`.
fn directory(entries: &[Entry], offsets: &[usize], at: usize) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let headers = entries.iter().zip(offsets).map(|(entry, offset)| entry.central_header(number(*offset)));
    let mut directory = headers.collect::<Vec<_>>().concat();
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX).to_le_bytes();
    let size = number(directory.len()).to_le_bytes();
    directory.extend([&END[..], &[0; 4], &count, &count, &size, &number(at).to_le_bytes(), &[0, 0]].concat());
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        vec![Entry::new("mimetype", "a"), Entry::new("request/body.json", "{}"), Entry::new("empty", "")]
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        // Without the checks that the writer makes first.
        let (mut file, mut offsets) = (Vec::new(), Vec::new());
        for entry in entries {
            offsets.push(file.len());
            file.extend(entry.local_header());
            file.extend_from_slice(&entry.data);
        }
        let directory = directory(entries, &offsets, file.len());
        file.extend(directory);
        file
    }

    #[test]
    fn what_is_written_is_read_and_begins_as_the_standard_says() {
        let file = write(&entries()).unwrap();
        assert_eq!(read(&file.clone().into()).unwrap(), entries());
        // EN 319 162-1 annex A: the name at offset 30, the media type at offset 38.
        assert_eq!((&file[..4], &file[30..39]), (&LOCAL[..], &b"mimetypea"[..]));
        assert!(is_archive(&file) && !is_archive(b"trave proof v1\n"));
    }

    #[test]
    fn no_byte_of_the_archive_can_be_another_but_an_entry_s_own() {
        let file = write(&entries()).unwrap();
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut other = file.clone();
                other[at] ^= bit;
                if let Ok(found) = read(&other.into()) {
                    // What changed is data, which are under the seal, or the checksum in one place and not the other.
                    let changed = found.iter().zip(entries()).filter(|(found, before)| *found != before);
                    assert!(changed.clone().all(|(found, _)| !found.is_intact()), "byte {at}");
                    assert_eq!(changed.count(), 1, "byte {at}");
                }
            }
        }
        for cut in 0..file.len() {
            assert!(read(&file[..cut].to_vec().into()).is_err(), "cut to {cut}");
        }
        assert_eq!(
            read(&[&file[..], b"x"].concat().into()),
            Err(ArchiveError::NotAsWritten),
            "something behind"
        );
        assert!(read(&[b"x", &file[..]].concat().into()).is_err(), "something before");
    }

    #[test]
    fn hostile_names_are_refused_on_either_way() {
        for name in [
            "../exchange.proof",
            "request/../../x",
            "/etc/passwd",
            "C:\\x",
            "c:x",
            "a//b",
            "a/",
            "",
            ".hidden",
            "a/.b",
            "a\0b",
            "a\nb",
            "a b",
            "a&b",
            "ä",
            &"x".repeat(MAX_NAME + 1),
        ] {
            let hostile = [entries(), vec![Entry::new(name, "x")]].concat();
            assert_eq!(write(&hostile), Err(ArchiveError::Name), "{name:?}");
            assert_eq!(read(&written(&hostile).into()), Err(ArchiveError::Name), "{name:?}");
        }
        for twice in ["mimetype", "MIMETYPE"] {
            let hostile = [entries(), vec![Entry::new(twice, "other")]].concat();
            assert_eq!(write(&hostile), Err(ArchiveError::Twice));
            assert_eq!(read(&written(&hostile).into()), Err(ArchiveError::Twice));
        }
        let many: Vec<_> = (0..=MAX_ENTRIES).map(|number| Entry::new(format!("e{number}"), "")).collect();
        assert_eq!(read(&written(&many).into()), Err(ArchiveError::TooMany));
    }

    #[test]
    fn compression_zip64_flags_comments_and_extra_fields_are_refused() {
        let file = write(&entries()).unwrap();
        let end = file.len() - 22;
        let directory = 30 + 8 + 1 + 30 + 17 + 2 + 30 + 5;
        for (what, at, bytes) in [
            ("deflate", 8, &[8, 0][..]),
            ("deflate in the directory", directory + 10, &[8, 0]),
            ("encrypted", 6, &[1, 0]),
            ("sizes behind the data", 6, &[8, 0]),
            ("version 4.5, ZIP64", 4, &[45, 0]),
            ("sizes in a ZIP64 field", 18, &[0xff; 8]),
            ("a size that the file has not", 22, &[0xff, 0xff, 0xff, 0x7f]),
            ("two sizes", 18, &[9, 0, 0, 0]),
            ("an extra field", 28, &[4, 0]),
            ("an extra field in the directory", directory + 30, &[4, 0]),
            ("a comment of an entry", directory + 32, &[4, 0]),
            ("another disk", directory + 34, &[1, 0]),
            ("another place", directory + 42, &[1, 0, 0, 0]),
            ("fewer entries", end + 8, &[2, 0, 2, 0]),
            ("another place of the directory", end + 16, &[0; 4]),
            ("a comment of the archive", end + 20, &[1, 0]),
        ] {
            let mut other = file.clone();
            other[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(read(&other.into()), Err(ArchiveError::NotAsWritten), "{what}");
        }
    }
}
