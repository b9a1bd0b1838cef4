//! Making a log's directory again from its archive, in an empty place.
//!
//! Nothing is believed that does not verify against the log's key. What is written can be read, and continued by a new
//! generation alone: the file `restored` keeps it from being opened for writing. Keys of contents are in no archive, so
//! contents stay unreadable until the key files are put beside it.
//!
//! Killed meanwhile, it leaves a directory with `restored` in it and some of the segments: nothing takes that for a log to
//! be written to. Remove it, and begin again.

use std::path::Path;
use std::sync::Arc;

use trave_proto::checkpoint::{Checkpoint, NoteVerifier};

use super::keys::ArchiveIdentity;
use super::object::Verified;
use super::store::{ArchiveStore, Writing};
use super::whole::{Places, Progress, Whole, look};
use crate::continuity::CHECKPOINT_FILE;
use crate::disk::{Disk, RealDisk, replace};
use crate::error::LogError;
use crate::recovery::RESTORED_FILE;
use crate::segment;

/// Where a log is read from: its archive, and the keys that open and verify it.
#[derive(Debug)]
pub struct Source<'a> {
    /// The archive.
    pub store: &'a dyn ArchiveStore,
    /// The secret key that opens it.
    pub identity: &'a ArchiveIdentity,
    /// The key that verifies the log's checkpoints; its name is the origin.
    pub key: &'a NoteVerifier,
    /// A checkpoint of the log that somebody else kept, whose signature was verified: the log should reach it.
    pub checkpoint: Option<&'a Checkpoint>,
}

impl Source<'_> {
    /// Reads the log in `dir` and its archive from end to end, and tells what is missing or wrong. A server may be running.
    ///
    /// # Errors
    /// If directory or archive cannot be listed; what is wrong inside them stands in the report.
    pub fn check(&self, dir: &Path, progress: Progress<'_>) -> Result<Whole, LogError> {
        self.check_on(&(Arc::new(RealDisk) as _), dir, progress)
    }

    pub(crate) fn check_on(
        &self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        progress: Progress<'_>,
    ) -> Result<Whole, LogError> {
        look(&self.places(disk, Some(dir)), &mut |_| Ok(()), progress)
    }

    /// Makes the log again in `to`, which must be empty or not be there.
    ///
    /// # Errors
    /// If something is in the way, or cannot be written; what is missing or wrong in the archive stands in the report.
    pub fn restore(&self, to: &Path, progress: Progress<'_>) -> Result<Whole, LogError> {
        self.restore_on(&(Arc::new(RealDisk) as _), to, progress)
    }

    pub(crate) fn restore_on(
        &self,
        disk: &Arc<dyn Disk>,
        to: &Path,
        progress: Progress<'_>,
    ) -> Result<Whole, LogError> {
        let segments = to.join("segments");
        disk.create_dir(to).map_err(LogError::disk("create", to))?;
        if !disk.list(to).map_err(LogError::disk("list", to))?.is_empty() {
            return Err(LogError::Refused("the directory is not empty: a log is restored into a new place"));
        }
        // First: whatever happens from here on, nobody writes to what is here.
        let marked = replace(&**disk, to, RESTORED_FILE, b"trave restored log 1\n");
        marked.map_err(LogError::disk("write", &to.join(RESTORED_FILE)))?;
        disk.create_dir(&segments).map_err(LogError::disk("create", &segments))?;
        for dir in [to.parent(), Some(to)].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty()) {
            disk.sync_dir(dir).map_err(LogError::disk("sync", dir))?;
        }
        let mut note = None;
        let mut write = |object: &Verified| {
            note = Some(object.note.clone());
            place(&**disk, &segments, object)
        };
        let whole = look(&self.places(disk, None), &mut write, progress)?;
        if let Some(note) = note {
            replace(&**disk, to, CHECKPOINT_FILE, &note)
                .map_err(LogError::disk("write", &to.join(CHECKPOINT_FILE)))?;
        }
        Ok(whole)
    }

    fn places<'a>(&'a self, disk: &'a Arc<dyn Disk>, dir: Option<&'a Path>) -> Places<'a> {
        let Self { store, identity, key, checkpoint } = *self;
        Places { disk, dir, store, identity, key, checkpoint }
    }
}

/// Writes a segment file, whole or not at all.
pub(crate) fn place(disk: &dyn Disk, segments: &Path, object: &Verified) -> Result<(), LogError> {
    let path = segments.join(segment::file_name(object.first));
    let temporary = path.with_extension("tmp");
    let write = || {
        let file = disk.create(&temporary)?;
        std::io::Write::write_all(&mut Writing { file: &*file, at: 0 }, &object.bytes)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(segments)
    };
    write().map_err(LogError::disk("write", &path))
}
