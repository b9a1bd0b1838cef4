//! The files that hold the keys of contents, apart from the log: overwriting 64 bytes here makes a content unreadable
//! wherever a copy of it lies.
//!
//! Key files (`keys/keys-<n>.bin`, open to the owner alone) hold fixed slots of 64 bytes: state (4), CRC-32 (4), exchange
//! (16), key (32), zeros (8). A slot number is never used twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::contents::ContentKey;
use crate::disk::{Disk, DiskFile, fill_zeros};
use crate::error::LogError;

const SLOT: usize = 64;
const SLOTS_PER_FILE: u64 = 4_096;
const LIVE: u32 = 1;
const ERASED: u32 = 2;

/// What a key slot holds.
pub(crate) enum SlotState {
    /// The key of this exchange.
    Live(Box<ContentKey>),
    /// The key was overwritten.
    Erased,
    /// No key, or that of another exchange: why.
    Missing(String),
}

/// The key files. Written by the committer alone.
#[derive(Debug)]
pub(crate) struct KeyFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl KeyFiles {
    /// The key files in `dir`, whose entry is durable.
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk: disk.clone(), dir: dir.to_owned() }
    }

    /// The first slot that was never used. Writes the last file's bytes again and makes them durable: after a failed
    /// sync of an earlier process, the system may show bytes that the disk does not have.
    pub(crate) fn recover(&self) -> Result<u64, LogError> {
        let names = self.disk.list(&self.dir).map_err(LogError::disk("list", &self.dir))?;
        self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        let Some(last) = names.iter().filter_map(|name| file_number(name)).max() else { return Ok(0) };
        let (file, path) = self.file(last)?;
        let len = file.len().map_err(LogError::disk("read", &path))?.min(SLOTS_PER_FILE * SLOT as u64);
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or(0)]);
        file.read_exact_at(&mut bytes, 0).map_err(LogError::disk("read", &path))?;
        let used = bytes.chunks(SLOT).rposition(|slot| *slot != [0; SLOT][..]).map_or(0, |at| at + 1);
        let rewritten = bytes.len().min(used * SLOT);
        file.write_all_at(&bytes[..rewritten], 0).map_err(LogError::disk("write", &path))?;
        file.sync().map_err(LogError::disk("sync", &path))?;
        Ok(last * SLOTS_PER_FILE + used as u64)
    }

    /// Writes keys into their slots and makes them durable. Returns how often it synced.
    pub(crate) fn store<'a>(&self, keys: impl Iterator<Item = &'a ContentKey>) -> Result<u64, LogError> {
        let mut written = HashMap::new();
        for key in keys {
            let (file, path) = self.slot_file(key.slot, &mut written)?;
            file.write_all_at(slot_bytes(key).as_ref(), place(key.slot))
                .map_err(LogError::disk("write", &path))?;
        }
        sync_all(&written)
    }

    /// Overwrites slots and makes that durable. A slot whose file is gone holds no key; a file that does not open may well
    /// hold one.
    pub(crate) fn erase(&self, slots: impl IntoIterator<Item = u64>) -> Result<(), LogError> {
        let mut written = HashMap::new();
        for slot in slots {
            let number = slot / SLOTS_PER_FILE;
            let (file, path) = match written.entry(number) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(place) => match self.existing(number)? {
                    Some(file) => place.insert((file, self.path(number))),
                    None => continue,
                },
            };
            let mut bytes = [0; SLOT];
            bytes[..4].copy_from_slice(&ERASED.to_le_bytes());
            file.write_all_at(&bytes, place(slot)).map_err(LogError::disk("write", path))?;
        }
        sync_all(&written).map(|_| ())
    }

    /// Whether the key in this slot was overwritten.
    pub(crate) fn is_erased(&self, slot: u64) -> Result<bool, LogError> {
        Ok(self.slot(slot)?.is_some_and(|bytes| bytes.starts_with(&ERASED.to_le_bytes())))
    }

    /// What stands in a slot that a record of `exchange` names.
    pub(crate) fn read(&self, slot: u64, exchange: &[u8; 16]) -> Result<SlotState, LogError> {
        let Some(bytes) = self.slot(slot)? else {
            let path = self.path(slot / SLOTS_PER_FILE);
            return Ok(SlotState::Missing(format!("the key file {} is missing", path.display())));
        };
        let [s0, s1, s2, s3, c0, c1, c2, c3, ..] = *bytes;
        Ok(match u32::from_le_bytes([s0, s1, s2, s3]) {
            ERASED => SlotState::Erased,
            LIVE if u32::from_le_bytes([c0, c1, c2, c3]) == crc32fast::hash(&bytes[8..56])
                && bytes[8..24] == exchange[..] =>
            {
                let mut secret = Zeroizing::new([0; 32]);
                secret.copy_from_slice(&bytes[24..56]);
                ContentKey::new(slot, *exchange, secret).map_or_else(
                    || SlotState::Missing("the key is not a key".into()),
                    |key| SlotState::Live(Box::new(key)),
                )
            }
            _ => SlotState::Missing(format!("slot {slot} of the key file does not hold the exchange's key")),
        })
    }

    /// The bytes of a slot; none if no file reaches that far.
    fn slot(&self, slot: u64) -> Result<Option<Zeroizing<[u8; SLOT]>>, LogError> {
        let number = slot / SLOTS_PER_FILE;
        let Some(file) = self.existing(number)? else { return Ok(None) };
        let mut bytes = Zeroizing::new([0; SLOT]);
        match file.read_exact_at(bytes.as_mut(), place(slot)) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(LogError::disk("read", &self.path(number))(error)),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("keys-{number:010}.bin"))
    }

    /// A key file, if it is there.
    fn existing(&self, number: u64) -> Result<Option<Arc<dyn DiskFile>>, LogError> {
        let path = self.path(number);
        match self.disk.open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::disk("open", &path)(error)),
        }
    }

    fn slot_file(
        &self,
        slot: u64,
        open: &mut HashMap<u64, (Arc<dyn DiskFile>, PathBuf)>,
    ) -> Result<(Arc<dyn DiskFile>, PathBuf), LogError> {
        let number = slot / SLOTS_PER_FILE;
        if let Some(known) = open.get(&number) {
            return Ok(known.clone());
        }
        let found = self.file(number)?;
        open.insert(number, found.clone());
        Ok(found)
    }

    /// Opens a key file, or makes it: preallocated, and durable with its directory entry.
    fn file(&self, number: u64) -> Result<(Arc<dyn DiskFile>, PathBuf), LogError> {
        let path = self.path(number);
        let full = SLOTS_PER_FILE * SLOT as u64;
        let file = match self.existing(number)? {
            Some(file) => file,
            None => self.disk.create(&path).map_err(LogError::disk("create", &path))?,
        };
        let len = file.len().map_err(LogError::disk("read", &path))?;
        if len < full {
            fill_zeros(&*file, len, full).map_err(LogError::disk("write", &path))?;
            file.sync().map_err(LogError::disk("sync", &path))?;
            self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        }
        Ok((file, path))
    }
}

fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("keys-")?.strip_suffix(".bin")?.parse().ok()
}

const fn place(slot: u64) -> u64 {
    slot % SLOTS_PER_FILE * SLOT as u64
}

fn sync_all(files: &HashMap<u64, (Arc<dyn DiskFile>, PathBuf)>) -> Result<u64, LogError> {
    for (file, path) in files.values() {
        file.sync().map_err(LogError::disk("sync", path))?;
    }
    Ok(files.len() as u64)
}

/// A slot as it is written.
fn slot_bytes(key: &ContentKey) -> Zeroizing<[u8; SLOT]> {
    let mut bytes = Zeroizing::new([0; SLOT]);
    bytes[..4].copy_from_slice(&LIVE.to_le_bytes());
    bytes[8..24].copy_from_slice(&key.exchange);
    bytes[24..56].copy_from_slice(key.secret.as_ref());
    let crc = crc32fast::hash(&bytes[8..56]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}
