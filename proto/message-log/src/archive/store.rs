//! Where archived objects are kept: a directory, or whatever else can put, get, list and remove.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::LogError;

/// Writes an object into what it is given.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), LogError>;

/// A place for archived objects. Its methods block; none is called while an exchange waits.
pub trait ArchiveStore: fmt::Debug + Send + Sync {
    /// Where this is, in words: it stands in the log. No credentials.
    fn place(&self) -> String;
    /// Puts an object, whole and durable or not at all; one of the same name is given up.
    fn put(&self, name: &str, fill: Fill<'_>) -> Result<(), LogError>;
    /// Opens an object for reading from its beginning.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, LogError>;
    /// The names of all objects.
    fn list(&self) -> Result<Vec<String>, LogError>;
    /// Removes an object, durably; one that is not there is removed already.
    fn remove(&self, name: &str) -> Result<(), LogError>;
}

/// A directory, which must be there: where a file system is not mounted, nothing should be written beside it.
///
/// An object is written under another name (`.tmp`), synced, renamed, and the directory synced: a crash leaves the whole
/// object or a `.tmp` that the next attempt overwrites.
pub struct DirectoryStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl DirectoryStore {
    /// The archive in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::on(Arc::new(RealDisk), dir)
    }

    /// The archive in `dir` on this disk.
    pub(crate) fn on(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into() }
    }
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryStore({})", self.dir.display())
    }
}

impl ArchiveStore for DirectoryStore {
    fn place(&self) -> String {
        format!("the directory {}", self.dir.display())
    }

    fn put(&self, name: &str, fill: Fill<'_>) -> Result<(), LogError> {
        let (path, temporary) = (self.dir.join(name), self.dir.join(format!("{name}.tmp")));
        // What an interrupted run left, or somebody else put there.
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::disk("remove", &temporary)(error));
            }
            _ => {}
        }
        let file = self.disk.create(&temporary).map_err(LogError::disk("create", &temporary))?;
        let written = fill(&mut Writing { file: &*file, at: 0 })
            .and_then(|()| file.sync().map_err(LogError::disk("sync", &temporary)));
        if let Err(error) = written {
            // What is left of it takes space; the next attempt overwrites it.
            let _ = self.disk.remove(&temporary);
            return Err(error);
        }
        self.disk.rename(&temporary, &path).map_err(LogError::disk("rename", &temporary))?;
        self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, LogError> {
        let path = self.dir.join(name);
        let file = self.disk.open(&path).map_err(LogError::disk("open", &path))?;
        let len = file.len().map_err(LogError::disk("read", &path))?;
        Ok(Box::new(Reading { file, at: 0, len }))
    }

    fn list(&self) -> Result<Vec<String>, LogError> {
        self.disk.list(&self.dir).map_err(LogError::disk("list", &self.dir))
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        let path = self.dir.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::disk("remove", &path)(error))
            }
            _ => self.disk.sync_dir(&self.dir).map_err(LogError::disk("sync", &self.dir)),
        }
    }
}

/// Writes a file from its beginning.
pub(crate) struct Writing<'a> {
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) at: u64,
}

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Reading {
    file: Arc<dyn DiskFile>,
    at: u64,
    len: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let taken = buffer.len().min(left);
        self.file.read_exact_at(&mut buffer[..taken], self.at)?;
        self.at += taken as u64;
        Ok(taken)
    }
}

/// Reads an object to its end, and tells its SHA-256 and its length.
pub(crate) fn digest_of(
    store: &dyn ArchiveStore,
    name: &str,
) -> Result<(trave_proto::digest::Digest, u64), LogError> {
    let mut object = store.open(name)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut buffer, mut length) = (vec![0; 64 << 10], 0);
    loop {
        let read = object.read(&mut buffer).map_err(LogError::disk("read", Path::new(name)))?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
        length += read as u64;
    }
    let digest = trave_proto::digest::Digest::from_slice(context.finish().as_ref());
    digest.map(|digest| (digest, length)).ok_or(LogError::Refused("no digest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_link_in_the_archive_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, archive) = (dir.path().join("precious"), dir.path().join("archive"));
        std::fs::write(&precious, b"a key").unwrap();
        std::fs::create_dir(&archive).unwrap();
        std::os::unix::fs::symlink(&precious, archive.join("one.tmp")).unwrap();
        std::os::unix::fs::symlink(&precious, archive.join("two")).unwrap();
        let store = DirectoryStore::on(Arc::new(RealDisk), &archive);
        store
            .put("one", &mut |out| {
                out.write_all(b"an object").map_err(|error| LogError::archive("one", error))
            })
            .unwrap();
        assert_eq!(std::fs::read(&precious).unwrap(), b"a key");
        assert!(std::fs::symlink_metadata(archive.join("one")).unwrap().is_file());
        assert_eq!(std::fs::read(archive.join("one")).unwrap(), b"an object");
        assert!(store.open("two").is_err(), "what a link names is no object");
    }
}
