//! The cosigner's memory on disk: one file, replaced durably before each answer.

use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use trave_host::files::{FileError, replace};
use trave_proto::clock::Time;
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
    /// It cannot be written.
    #[error("cannot keep what was signed")]
    Write {
        /// Why.
        source: FileError,
    },
}

/// Reads the memory; empty if there is no file yet.
pub(super) fn recall(path: &Path) -> Result<Memory, KeepingError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
        Err(source) => return Err(KeepingError::Read { path: path.into(), source }),
    };
    let damaged = || KeepingError::Damaged { path: path.into() };
    let state = CosignerState::decode(bytes.as_slice()).map_err(|_| damaged())?;
    // An empty file would mean: nothing signed yet. A file that exists always says something.
    let last = Some(state.last.ok_or_else(damaged)?);
    let used = state.used.iter().map(|act| {
        let id = ActId::from_slice(&act.id).ok_or_else(damaged)?;
        Ok((id, Time::from_millis(act.expires_ms)))
    });
    Ok(Memory { last, used: used.collect::<Result<_, KeepingError>>()? })
}

/// Keeps the memory, durably.
pub(super) fn keep(path: &Path, memory: &Memory) -> Result<(), KeepingError> {
    let used = memory.used.iter();
    let used = used.map(|(id, expires)| UsedAct { id: id.to_bytes(), expires_ms: expires.as_millis() });
    let state = CosignerState { last: memory.last.clone(), used: used.collect() };
    replace(path, &state.encode_to_vec()).map_err(|source| KeepingError::Write { source })
}
