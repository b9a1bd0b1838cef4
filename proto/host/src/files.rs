//! Small files that must survive a power cut, and secret ones that nobody but their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

/// The largest secret file that is read, in bytes.
const SECRET_MAX: u64 = 64 * 1024;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a file of this name, and it must not be overwritten.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A secret that others can read or replace.
    #[error(
        "{} holds a secret, but its mode is {mode:04o} (hint: make it its owner's alone: chmod 600 {})",
        path.display(), path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret that belongs to somebody else than this process's user or root.
    #[error("{} holds a secret, but belongs to user {owner}, not to the user of this process", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The numeric user id of its owner.
        owner: u32,
    },
    /// Larger than any file of its kind.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most it may hold, in bytes.
        limit: u64,
    },
}

/// Reads a secret file: a regular file that its owner alone can read, and that belongs to this process's user or root.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let io = |source| FileError::Io { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // Of the opened file, not of the name, which may be exchanged in between.
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate { path: path.to_owned(), mode });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != user_id() {
        return Err(FileError::ForeignOwner { path: path.to_owned(), owner });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(SECRET_MAX).unwrap_or(0) + 1));
    file.take(SECRET_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > SECRET_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), limit: SECRET_MAX });
    }
    Ok(bytes)
}

/// Writes a new file, mode 0600, durably: after a power cut it is there whole, or not at all. An existing file stays.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = write_beside(path, bytes)?;
    // A link, unlike a rename, never takes the place of a file that is there.
    let linked = fs::hard_link(temporary.path(), path);
    match linked {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(FileError::Exists { path: path.to_owned() })
        }
        Err(source) => Err(FileError::Io { action: "create", path: path.to_owned(), source }),
    }
}

/// Writes a file, mode 0600, durably, in place of what had its name: after a power cut the old or the new one is
/// there, and whole.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(temporary.path(), path).map_err(|source| FileError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })?;
    sync_directory(path)
}

/// The numeric id of this process's effective user.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file that is removed when it has not got its final name by then.
struct Temporary(PathBuf);

impl Temporary {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, and a forgotten temporary file harms nobody.
        let _: io::Result<()> = fs::remove_file(&self.0);
    }
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<Temporary, FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let io = |source| FileError::Io { action: "write", path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| io(io::ErrorKind::InvalidFilename.into()))?;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!(".{}.{}-{count}.new", name.to_string_lossy(), std::process::id());
    let temporary = path.with_file_name(name);
    // Left by a process of the same id that was killed.
    let _: io::Result<()> = fs::remove_file(&temporary);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io)?;
    let temporary = Temporary(temporary);
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| FileError::Io {
        action: "write",
        path: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_created_file_is_private_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(create(&path, b"second"), Err(FileError::Exists { .. })));
        assert_eq!(*read_secret(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(*read_secret(&path).unwrap(), b"third");
        assert_eq!(names(directory.path()), ["key"], "no temporary file is left");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        fs::write(&path, "correct horse battery").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = read_secret(&path).unwrap_err();
            assert!(matches!(refused, FileError::NotPrivate { mode: found, .. } if found == mode));
            assert!(refused.to_string().contains("chmod 600"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_secret(&path).is_ok());
    }

    #[test]
    fn an_endless_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        create(&path, &vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(matches!(read_secret(&path), Err(FileError::TooLarge { .. })));
    }
}
