//! The cosigner's memory on disk: one file, replaced durably before each answer.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use trave_host::files::{FileError, create, replace};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::management::ActId;
use trave_proto::schema::management::{CosignerState, UsedAct};

use super::judge::Memory;

/// Why the memory cannot be read or kept. A cosigner without its memory must not sign.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// The system says no.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is damaged.
    #[error(
        "{} is damaged; restore it from a backup that is not older than the last configuration, or this cosigner could \
         sign twice", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// There is no file. Only people know whether there never was one.
    #[error(
        "{} is not there: without it this cosigner could sign one number twice; restore it from a backup that is not \
         older than the last configuration (hint: --begin, only for a cosigner that never signed anything)",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The memory of a cosigner of another instance.
    #[error("{} is the memory of a cosigner that began with another first configuration", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another cosigner works with this memory.
    #[error("{} is in use: two cosigners with one memory could sign one number twice", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot keep what was signed")]
    Write {
        /// Why.
        source: FileError,
    },
}

/// The memory's file, in the hands of this process alone until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes hold of the memory at `path`. What is locked is a file beside it, as the memory itself is replaced each time.
    pub(super) fn take(path: &Path) -> Result<Self, KeepingError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let beside = path.with_file_name(name);
        let failed = |source| KeepingError::Read { path: beside.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&beside).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(KeepingError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it too.
        let _: io::Result<()> = self.0.unlock();
    }
}

/// Writes the memory of a cosigner that never signed anything; a memory that is there stays.
pub(crate) fn begin(path: &Path, genesis: &Digest) -> Result<(), KeepingError> {
    create(path, &encoded(&Memory::default(), genesis)).map_err(|source| KeepingError::Write { source })
}

/// Reads the memory of the cosigner that began with the first configuration `genesis`.
pub(super) fn recall(path: &Path, genesis: &Digest) -> Result<Memory, KeepingError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeepingError::Missing { path: path.into() });
        }
        Err(source) => return Err(KeepingError::Read { path: path.into(), source }),
    };
    let damaged = || KeepingError::Damaged { path: path.into() };
    let state = CosignerState::decode(bytes.as_slice()).map_err(|_| damaged())?;
    // Also a memory of nothing says whose it is: an empty file, or one cut off, is none.
    let found = Digest::from_slice(&state.genesis).ok_or_else(damaged)?;
    if found != *genesis {
        return Err(KeepingError::Foreign { path: path.into() });
    }
    let used = state.used.iter().map(|act| {
        let id = ActId::from_slice(&act.id).ok_or_else(damaged)?;
        Ok((id, Time::from_millis(act.expires_ms)))
    });
    Ok(Memory { last: state.last, used: used.collect::<Result<_, KeepingError>>()? })
}

/// Keeps the memory, durably.
pub(super) fn keep(path: &Path, memory: &Memory, genesis: &Digest) -> Result<(), KeepingError> {
    replace(path, &encoded(memory, genesis)).map_err(|source| KeepingError::Write { source })
}

fn encoded(memory: &Memory, genesis: &Digest) -> Vec<u8> {
    let used = memory.used.iter();
    let used = used.map(|(id, expires)| UsedAct { id: id.to_bytes(), expires_ms: expires.as_millis() });
    let (last, used) = (memory.last.clone(), used.collect());
    CosignerState { last, used, genesis: genesis.to_bytes() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_cut_off_or_foreign_memory_is_never_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cosigner.state");
        let genesis = Digest::of(b"first");
        assert!(matches!(recall(&path, &genesis), Err(KeepingError::Missing { .. })));
        begin(&path, &genesis).unwrap();
        assert_eq!(recall(&path, &genesis).unwrap(), Memory::default());
        assert!(matches!(recall(&path, &Digest::of(b"other")), Err(KeepingError::Foreign { .. })));
        assert!(begin(&path, &genesis).is_err(), "a memory that is there stays");

        let used = [(ActId::from_bytes([1; 16]), Time::from_millis(7))].into();
        let memory = Memory { last: Some(Default::default()), used };
        keep(&path, &memory, &genesis).unwrap();
        assert_eq!(recall(&path, &genesis).unwrap(), memory);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(recall(&path, &genesis).is_err(), "cut off after {length} bytes");
        }
    }

    #[test]
    fn a_memory_serves_one_cosigner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cosigner.state");
        let lock = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(KeepingError::InUse { .. })));
        drop(lock);
        Lock::take(&path).unwrap();
    }
}
