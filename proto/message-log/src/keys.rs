//! The files that hold the keys of contents, apart from the log: overwriting 64 bytes here makes a content unreadable
//! wherever a copy of it lies.
//!
//! Key files (`keys/keys-<n>.bin`, open to the owner alone) hold 4,096 fixed slots of 64 bytes: state (4), CRC-32 (4) of
//! what follows but for the last 8, exchange (16), key (32), zeros (8). The state is the version of a slot. *Prepared* (3):
//! a key that was made before anybody needed it; the exchange is zeros, and whether the key was ever used only the log
//! knows, whose records name their slots. *Live* (1): a key that was written together with its exchange, as was done before
//! keys were prepared; it is read as ever. *Erased* (2): overwritten. All zeros: nothing yet.

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
/// Slots in a key file.
pub(crate) const SLOTS_PER_FILE: u64 = 4_096;
/// Bytes of a key.
pub(crate) const SECRET: usize = 32;
const LIVE: u32 = 1;
const ERASED: u32 = 2;
const PREPARED: u32 = 3;

/// What a key slot holds.
pub(crate) enum SlotState {
    /// The key of this exchange.
    Live(Box<ContentKey>),
    /// The key was overwritten.
    Erased,
    /// No key, or that of another exchange: why.
    Missing(String),
}

/// The key files.
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

    /// The slot behind the last that holds anything. Nothing is known of what it holds: a process that failed may have
    /// left there what is not on the disk.
    pub(crate) fn end(&self) -> Result<u64, LogError> {
        let names = self.disk.list(&self.dir).map_err(LogError::disk("list", &self.dir))?;
        // What the system shows may not be on the disk, if an earlier process died between making a file and this.
        self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        let Some(last) = names.iter().filter_map(|name| file_number(name)).max() else { return Ok(0) };
        let path = self.path(last);
        let file = self.disk.open(&path).map_err(LogError::disk("open", &path))?;
        let len = file.len().map_err(LogError::disk("read", &path))?.min(SLOTS_PER_FILE * SLOT as u64);
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or(0)]);
        file.read_exact_at(&mut bytes, 0).map_err(LogError::disk("read", &path))?;
        let used = bytes.chunks(SLOT).rposition(|slot| *slot != [0; SLOT][..]).map_or(0, |at| at + 1);
        Ok(last * SLOTS_PER_FILE + used as u64)
    }

    /// Writes keys into the slots from `first` on, whatever stood there, and makes them durable with one sync. All of them
    /// stand in one file.
    pub(crate) fn write(&self, first: u64, secrets: &[[u8; SECRET]]) -> Result<(), LogError> {
        let mut bytes = Zeroizing::new(vec![0; secrets.len() * SLOT]);
        for (slot, secret) in bytes.chunks_mut(SLOT).zip(secrets) {
            slot[..4].copy_from_slice(&PREPARED.to_le_bytes());
            slot[24..56].copy_from_slice(secret);
            let crc = crc32fast::hash(&slot[8..56]);
            slot[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let number = first / SLOTS_PER_FILE;
        let path = self.path(number);
        let (file, made) = match self.existing(number)? {
            Some(file) => (file, false),
            None => (self.disk.create(&path).map_err(LogError::disk("create", &path))?, true),
        };
        let len = file.len().map_err(LogError::disk("read", &path))?;
        // Whole from the beginning, so that later blocks change no metadata of the file.
        let full = SLOTS_PER_FILE * SLOT as u64;
        fill_zeros(&*file, len, full)
            .and_then(|()| file.write_all_at(&bytes, place(first)))
            .map_err(LogError::disk("write", &path))?;
        file.sync().map_err(LogError::disk("sync", &path))?;
        if made {
            self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))?;
        }
        Ok(())
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
        sync_all(&written)
    }

    /// Whether the key in this slot was overwritten.
    pub(crate) fn is_erased(&self, slot: u64) -> Result<bool, LogError> {
        Ok(self.slot(slot)?.is_some_and(|bytes| bytes.starts_with(&ERASED.to_le_bytes())))
    }

    /// Whether a key stands in this slot.
    pub(crate) fn is_live(&self, slot: u64) -> Result<bool, LogError> {
        let live = [LIVE, PREPARED].map(u32::to_le_bytes);
        Ok(self.slot(slot)?.is_some_and(|bytes| live.iter().any(|state| bytes.starts_with(state))))
    }

    /// What stands in a slot that a record of `exchange` names.
    pub(crate) fn read(&self, slot: u64, exchange: &[u8; 16]) -> Result<SlotState, LogError> {
        let Some(bytes) = self.slot(slot)? else {
            let path = self.path(slot / SLOTS_PER_FILE);
            return Ok(SlotState::Missing(format!("the key file {} is missing", path.display())));
        };
        let [s0, s1, s2, s3, c0, c1, c2, c3, ..] = *bytes;
        let state = u32::from_le_bytes([s0, s1, s2, s3]);
        // Whose a prepared key is says the content: it decrypts for its own exchange alone.
        let holder = if state == PREPARED { &[0; 16] } else { exchange };
        Ok(match state {
            ERASED => SlotState::Erased,
            LIVE | PREPARED
                if u32::from_le_bytes([c0, c1, c2, c3]) == crc32fast::hash(&bytes[8..56])
                    && bytes[8..24] == holder[..] =>
            {
                ContentKey::new(slot, *exchange, &bytes[24..56]).map_or_else(
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
}

fn file_number(name: &str) -> Option<u64> {
    name.strip_prefix("keys-")?.strip_suffix(".bin")?.parse().ok()
}

const fn place(slot: u64) -> u64 {
    slot % SLOTS_PER_FILE * SLOT as u64
}

fn sync_all(files: &HashMap<u64, (Arc<dyn DiskFile>, PathBuf)>) -> Result<(), LogError> {
    files.values().try_for_each(|(file, path)| file.sync().map_err(LogError::disk("sync", path)))
}
