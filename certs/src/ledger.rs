//! What the certification authority issued and revoked: an append-only file, durable before anything is given out.
//!
//! Each line is the first 16 hexadecimal digits of the SHA-256 of what follows, a space, and one record in JSON. Several
//! processes may use the file: who writes holds its lock, and everybody reads what others have added. The end of a line is
//! written once the line is durable. So a last line without its end is torn, and nobody was told of it: it is set aside
//! beside the file. A whole line that is not what was written is damage, also the last, and stops the authority.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trave_host::files::{self, FileError};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;

/// Hexadecimal digits of the checksum before each record.
const CHECKSUM: usize = 16;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system says no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file could not be made.
    #[error("cannot begin the ledger of issued certificates")]
    Create(#[source] FileError),
    /// A record that was durable once is damaged.
    #[error(
        "{} is damaged at byte {offset} (hint: restore it from a backup; without it revoked certificates would count \
         as good)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged line begins.
        offset: u64,
    },
    /// An earlier write failed, so that it is not known what the disk holds.
    #[error("{} could not be written earlier: nothing is issued or revoked until a restart", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// A certificate was issued.
    Issued {
        /// Hexadecimal, without leading zeros.
        serial: String,
        profile: String,
        subject: String,
        at_ms: i64,
        not_after_ms: i64,
        /// DER, hexadecimal.
        certificate: String,
    },
    /// A certificate was revoked, for good.
    Revoked { serial: String, at_ms: i64, reason: String },
    /// A revocation list was published under this number.
    RevocationList { number: u64 },
}

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) profile: String,
    pub(crate) subject: String,
    pub(crate) not_after: Time,
    pub(crate) revoked: Option<(Time, String)>,
}

/// The ledger, read into memory and kept up to date.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    /// Up to where the file was read.
    read: u64,
    poisoned: bool,
    /// By serial number, hexadecimal.
    entries: HashMap<String, Entry>,
    list_number: u64,
    revocations: usize,
}

impl Ledger {
    /// Begins an empty ledger in a new file.
    pub(crate) fn create(path: &Path) -> Result<Self, LedgerError> {
        files::create(path, b"").map_err(LedgerError::Create)?;
        Self::open(path)
    }

    /// Opens the ledger and reads it.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| LedgerError::Io { action: "open", path: path.to_owned(), source })?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            read: 0,
            poisoned: false,
            entries: HashMap::new(),
            list_number: 0,
            revocations: 0,
        };
        ledger.refresh()?;
        Ok(ledger)
    }

    /// Reads what other processes have added.
    pub(crate) fn refresh(&mut self) -> Result<(), LedgerError> {
        let length = self.file.metadata().map_err(|source| self.io("read", source))?.len();
        if length == self.read {
            return Ok(());
        }
        if length < self.read {
            return Err(LedgerError::Damaged { path: self.path.clone(), offset: length });
        }
        self.file.lock_shared().map_err(|source| self.io("lock", source))?;
        let result = self.read_new();
        self.file.unlock().map_err(|source| self.io("unlock", source))?;
        result.map(|_torn| ())
    }

    /// What is known of the certificate with this serial number (hexadecimal).
    pub(crate) fn entry(&self, serial: &str) -> Option<&Entry> {
        self.entries.get(serial)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(serial, entry)| (serial.as_str(), entry))
    }

    /// Number of the last revocation list.
    pub(crate) fn list_number(&self) -> u64 {
        self.list_number
    }

    /// How many certificates were revoked: it grows whenever a revocation list changes.
    pub(crate) fn revocations(&self) -> usize {
        self.revocations
    }

    /// Makes a record under the file's lock, once everything that others wrote was read, and writes it durably. What
    /// `decide` returns beside the record is handed on; without a record nothing is written.
    pub(crate) fn append<T, E: From<LedgerError>>(
        &mut self,
        decide: impl FnOnce(&Self) -> Result<(Option<Record>, T), E>,
    ) -> Result<T, E> {
        if self.poisoned {
            return Err(LedgerError::Poisoned { path: self.path.clone() }.into());
        }
        self.file.lock().map_err(|source| self.io("lock", source))?;
        let result = self.append_locked(decide);
        self.file.unlock().map_err(|source| self.io("unlock", source))?;
        result
    }

    fn append_locked<T, E: From<LedgerError>>(
        &mut self,
        decide: impl FnOnce(&Self) -> Result<(Option<Record>, T), E>,
    ) -> Result<T, E> {
        let torn = self.read_new()?;
        if !torn.is_empty() {
            self.set_aside(&torn)?;
        }
        let (record, value) = decide(self)?;
        if let Some(record) = record {
            self.write(&record).map_err(|source| {
                self.poisoned = true;
                self.io("write", source)
            })?;
            self.apply(record);
        }
        Ok(value)
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let line = line_of(record)?;
        self.file.seek(SeekFrom::Start(self.read))?;
        let (record, end) = line.split_at(line.len() - 1);
        for part in [record, end] {
            self.file.write_all(part)?;
            self.file.sync_data()?;
        }
        self.read += line.len() as u64;
        Ok(())
    }

    /// Reads whole lines from where reading ended; returns a torn last one.
    fn read_new(&mut self) -> Result<Vec<u8>, LedgerError> {
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(self.read)).and_then(|_| self.file.read_to_end(&mut bytes));
        read.map_err(|source| self.io("read", source))?;
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            self.apply(record_of(line).ok_or_else(|| self.damaged())?);
            self.read += end as u64 + 1;
            rest = after;
        }
        // A whole record with something else in the place of its end was not torn.
        match rest.split_last() {
            Some((_, line)) if record_of(line).is_some() => Err(self.damaged()),
            _ => Ok(rest.to_vec()),
        }
    }

    /// Keeps a torn line beside the file and cuts it off.
    fn set_aside(&mut self, torn: &[u8]) -> Result<(), LedgerError> {
        let aside = self.path.with_extension(format!("torn-{}", self.read));
        tracing::warn!(file = %aside.display(), bytes = torn.len(), "a torn record of an interrupted write was set aside");
        files::replace(&aside, torn).map_err(LedgerError::Create)?;
        let cut = self.file.set_len(self.read).and_then(|()| self.file.sync_all());
        cut.map_err(|source| self.io("repair", source))
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Issued { serial, profile, subject, not_after_ms, .. } => {
                let not_after = Time::from_millis(not_after_ms);
                self.entries.insert(serial, Entry { profile, subject, not_after, revoked: None });
            }
            Record::Revoked { serial, at_ms, reason } => {
                self.revocations += 1;
                if let Some(entry) = self.entries.get_mut(&serial) {
                    entry.revoked.get_or_insert((Time::from_millis(at_ms), reason));
                }
            }
            Record::RevocationList { number } => self.list_number = self.list_number.max(number),
        }
    }

    fn damaged(&self) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), offset: self.read }
    }

    fn io(&self, action: &'static str, source: io::Error) -> LedgerError {
        LedgerError::Io { action, path: self.path.clone(), source }
    }
}

fn line_of(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{} {json}\n", checksum(json.as_bytes())).into_bytes())
}

fn record_of(line: &[u8]) -> Option<Record> {
    let (stated, json) = (line.get(..CHECKSUM)?, line.get(CHECKSUM + 1..)?);
    let whole = line[CHECKSUM] == b' ' && stated == checksum(json).as_bytes();
    whole.then(|| serde_json::from_slice(json).ok()).flatten()
}

fn checksum(json: &[u8]) -> String {
    let mut hex = Digest::of(json).to_string();
    hex.truncate(CHECKSUM);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(serial: &str) -> Record {
        Record::Issued {
            serial: serial.to_owned(),
            profile: "signing".to_owned(),
            subject: "CN=test".to_owned(),
            at_ms: 1,
            not_after_ms: 2,
            certificate: "00".to_owned(),
        }
    }

    fn append(ledger: &mut Ledger, record: Record) -> Result<(), LedgerError> {
        ledger.append(|_| Ok((Some(record), ())))
    }

    #[test]
    fn two_processes_see_what_the_other_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issued.log");
        let mut one = Ledger::create(&path).unwrap();
        let mut two = Ledger::open(&path).unwrap();
        append(&mut one, issued("01")).unwrap();
        append(&mut two, issued("02")).unwrap();
        let revoked = Record::Revoked { serial: "01".to_owned(), at_ms: 7, reason: "superseded".to_owned() };
        append(&mut two, revoked).unwrap();
        one.refresh().unwrap();
        assert_eq!(one.entry("01").unwrap().revoked, Some((Time::from_millis(7), "superseded".to_owned())));
        assert_eq!(one.entry("02").unwrap().revoked, None);
        assert_eq!(one.revocations(), 1);
    }

    #[test]
    fn every_torn_tail_is_set_aside_and_nothing_before_it_is_lost() {
        let whole = line_of(&issued("02")).unwrap();
        for cut in 1..whole.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("issued.log");
            append(&mut Ledger::create(&path).unwrap(), issued("01")).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let kept = bytes.len();
            bytes.extend_from_slice(&whole[..cut]);
            std::fs::write(&path, &bytes).unwrap();

            let mut ledger = Ledger::open(&path).unwrap();
            assert!(ledger.entry("01").is_some() && ledger.entry("02").is_none(), "cut at {cut}");
            append(&mut ledger, issued("03")).unwrap();
            let again = Ledger::open(&path).unwrap();
            assert!(again.entry("01").is_some() && again.entry("03").is_some(), "cut at {cut}");
            let aside = std::fs::read(path.with_extension(format!("torn-{kept}"))).unwrap();
            assert_eq!(aside, &whole[..cut]);
        }
    }

    #[test]
    fn damage_before_the_last_line_stops_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issued.log");
        let mut ledger = Ledger::create(&path).unwrap();
        append(&mut ledger, issued("01")).unwrap();
        append(&mut ledger, issued("02")).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn a_rotted_last_line_is_no_torn_one_and_a_revocation_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issued.log");
        let mut ledger = Ledger::create(&path).unwrap();
        append(&mut ledger, issued("01")).unwrap();
        let start = std::fs::metadata(&path).unwrap().len();
        let revoked = Record::Revoked { serial: "01".to_owned(), at_ms: 7, reason: "stolen".to_owned() };
        append(&mut ledger, revoked).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // Every byte of the last line, its end included.
        for at in usize::try_from(start).unwrap()..whole.len() {
            let mut rotted = whole.clone();
            rotted[at] ^= 1;
            std::fs::write(&path, &rotted).unwrap();
            let opened = Ledger::open(&path);
            assert!(
                matches!(opened, Err(LedgerError::Damaged { offset, .. }) if offset == start),
                "byte {at}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), rotted, "nothing was changed");
        }
    }

    #[test]
    fn a_record_that_became_shorter_stops_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issued.log");
        let mut ledger = Ledger::create(&path).unwrap();
        append(&mut ledger, issued("01")).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(ledger.refresh(), Err(LedgerError::Damaged { offset: 0, .. })));
    }
}
