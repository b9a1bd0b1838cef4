//! A small database beside the log, for what may be lost or can be made again: a security server keeps in it how often
//! auditors asked.
//!
//! It is sled 0.34, kept on a short lead because of what was measured: its `flush` is no fsync (so [`Store::persist`] adds
//! one), `flush_async` deadlocks (nobody calls it), large values are lost (so values are at most [`MAX_VALUE`] bytes),
//! and damage panics (so every call is guarded, and a database that does not open is set aside and begun anew). No exchange
//! waits for it. The segments' catalogue is not in here: the head of each index file says it already, and a second copy
//! could only disagree.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest value, in bytes: sled keeps larger ones in files that it does not make durable.
pub const MAX_VALUE: usize = 4_096;
/// Largest key, in bytes.
pub const MAX_KEY: usize = 256;
/// Memory that the database may use for its cache, in bytes.
const CACHE: u64 = 32 << 20;
/// How long an open waits for the one before to let go: sled's own threads hold the lock a little longer than its handle.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the database did not do what was asked. What it held can be made again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A value or key that is too large.
    #[error("a {what} of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// "value" or "key".
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The database says no.
    #[error("the state database refused")]
    Database {
        /// What it says.
        source: sled::Error,
    },
    /// Somebody else has it open: it is whole, and stays where it is.
    #[error("the state database {path} is in use by another process", path = path.display())]
    InUse {
        /// Its directory.
        path: PathBuf,
    },
    /// The database broke off. It is set aside at the next start.
    #[error("the state database is damaged; restart the server, which sets it aside and begins a new one")]
    Damaged,
    /// The disk refused.
    #[error("could not {what} {path}", path = path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The database. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Store {
    db: sled::Db,
    /// The database's file, opened once more to make it durable.
    file: Arc<File>,
    path: PathBuf,
}

impl Store {
    /// Opens the database in the directory `dir`, or begins it. If it cannot be opened, it is renamed (`-damaged-1`, …) and a
    /// new one begun; the second value says where the old one went. One that is in use is left alone. Blocks.
    pub fn open(dir: &Path) -> Result<(Self, Option<PathBuf>), StoreError> {
        wait_until_free(dir, PATIENCE)?;
        let first = match Self::try_open(dir) {
            Ok(store) => return Ok((store, None)),
            Err(error) => error,
        };
        let aside = set_aside(dir)?;
        tracing::warn!(error = %first, aside = %aside.display(), "the state database did not open and is begun anew");
        Ok((Self::try_open(dir)?, Some(aside)))
    }

    fn try_open(dir: &Path) -> Result<Self, StoreError> {
        // The files in it are as open as the system makes them: nobody else passes through the directory.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Disk { what: "make", path: dir.to_owned(), source })?;
        let config = sled::Config::new().path(dir).cache_capacity(CACHE).mode(sled::Mode::HighThroughput);
        let db = guarded(|| config.open())?;
        // A database that opens may still be damaged inside: everything is looked at once.
        for name in db.tree_names() {
            guarded(|| db.open_tree(&name)?.iter().try_for_each(|entry| entry.map(|_| ())))?;
        }
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| StoreError::Disk {
            what: "open",
            path: path.clone(),
            source,
        })?;
        Ok(Self { db, file: Arc::new(file), path })
    }

    /// A part of the database with keys of its own.
    pub fn namespace(&self, name: &str) -> Result<Namespace, StoreError> {
        Ok(Namespace { tree: guarded(|| self.db.open_tree(name))? })
    }

    /// Makes everything put so far durable. Blocks; call it outside of exchanges.
    pub fn persist(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush())?;
        let path = &self.path;
        self.file.sync_data().map_err(|source| StoreError::Disk { what: "sync", path: path.clone(), source })
    }
}

/// A part of the database.
#[derive(Debug, Clone)]
pub struct Namespace {
    tree: sled::Tree,
}

impl Namespace {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(guarded(|| self.tree.get(key))?.map(|value| value.to_vec()))
    }

    /// Puts a value; durable only after [`Store::persist`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        for (what, bytes, limit) in [("key", key.len(), MAX_KEY), ("value", value.len(), MAX_VALUE)] {
            if bytes > limit {
                return Err(StoreError::TooLarge { what, bytes, limit });
            }
        }
        guarded(|| self.tree.insert(key, value)).map(|_| ())
    }

    /// Removes a key, if it is there.
    pub fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        guarded(|| self.tree.remove(key)).map(|_| ())
    }

    /// All keys and values, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StoreError>> + use<> {
        let mut entries = self.tree.iter();
        std::iter::from_fn(move || {
            let next = guarded(|| entries.next().transpose()).transpose()?;
            Some(next.map(|(key, value)| (key.to_vec(), value.to_vec())))
        })
    }
}

/// Calls the database; a panic in it becomes an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|source| StoreError::Database { source }),
        Err(_) => Err(StoreError::Damaged),
    }
}

/// Waits until nobody holds the lock that sled takes on its file.
fn wait_until_free(dir: &Path, patience: Duration) -> Result<(), StoreError> {
    let path = dir.join("db");
    let disk = |what, path: &Path, source| StoreError::Disk { what, path: path.to_owned(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(disk("open", &path, error)),
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            // The lock goes with the file, which is closed here.
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(disk("lock", &path, error)),
        }
    }
}

/// Renames a damaged database, so that somebody can look at it.
fn set_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let disk = |what| move |source| StoreError::Disk { what, path: dir.to_owned(), source };
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..1_000).map(|number| dir.with_file_name(format!("{name}-damaged-{number}")));
    let aside = free.into_iter().find(|path| !path.exists());
    let aside = aside.ok_or_else(|| disk("find a name for")(io::ErrorKind::AlreadyExists.into()))?;
    std::fs::rename(dir, &aside).map_err(disk("set aside"))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_the_owners_alone(dir: &Path) -> bool {
        std::os::unix::fs::MetadataExt::mode(&dir.metadata().unwrap()) & 0o077 == 0
    }

    #[test]
    fn values_are_kept_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (store, aside) = Store::open(&path).unwrap();
        assert_eq!(aside, None);
        assert!(is_the_owners_alone(&path));
        let space = store.namespace("ocsp").unwrap();
        space.put(b"b", &[2; MAX_VALUE]).unwrap();
        space.put(b"a", b"1").unwrap();
        space.put(b"c", b"3").unwrap();
        space.remove(b"c").unwrap();
        store.namespace("configuration").unwrap().put(b"a", b"other").unwrap();
        assert!(matches!(
            space.put(b"x", &[0; MAX_VALUE + 1]),
            Err(StoreError::TooLarge { what: "value", .. })
        ));
        assert!(matches!(space.put(&[0; MAX_KEY + 1], b""), Err(StoreError::TooLarge { what: "key", .. })));
        store.persist().unwrap();
        drop((store, space));
        let (store, aside) = Store::open(&path).unwrap();
        assert_eq!(aside, None);
        let space = store.namespace("ocsp").unwrap();
        assert_eq!((space.get(b"a").unwrap(), space.get(b"c").unwrap()), (Some(b"1".to_vec()), None));
        let keys: Vec<_> = space.entries().map(|entry| entry.unwrap().0).collect();
        assert_eq!(keys, [b"a", b"b"]);
    }

    #[test]
    fn a_database_in_use_is_not_taken_for_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (store, _) = Store::open(&path).unwrap();
        let refused = wait_until_free(&path, Duration::from_millis(30));
        assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
        // Whoever waits opens it as soon as the other has let go, and finds it whole.
        store.namespace("ocsp").unwrap().put(b"a", b"1").unwrap();
        store.persist().unwrap();
        let waiting = std::thread::spawn(move || Store::open(&path).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        drop(store);
        let (store, aside) = waiting.join().unwrap();
        assert_eq!(aside, None);
        assert_eq!(store.namespace("ocsp").unwrap().get(b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_damaged_database_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (store, _) = Store::open(&path).unwrap();
        let space = store.namespace("ocsp").unwrap();
        for number in 0..2_000_u32 {
            space.put(&number.to_be_bytes(), &[7; 300]).unwrap();
        }
        store.persist().unwrap();
        drop((store, space));
        // Damage in the pages: whatever is still given out is what was put in.
        let mut bytes = std::fs::read(path.join("db")).unwrap();
        bytes.iter_mut().skip(64).step_by(9_973).for_each(|byte| *byte ^= 0xa5);
        std::fs::write(path.join("db"), &bytes).unwrap();
        let (store, _) = Store::open(&path).unwrap();
        let space = store.namespace("ocsp").unwrap();
        assert!(space.entries().all(|entry| entry.unwrap().1 == [7; 300]));
        drop((store, space));
        // Damage that keeps it from opening.
        std::fs::write(path.join("conf"), b"segment_size: 3\nnonsense").unwrap();
        let (store, aside) = Store::open(&path).unwrap();
        assert!(aside.is_some_and(|aside| aside.join("conf").exists()));
        assert!(is_the_owners_alone(&path), "the new one, too");
        let space = store.namespace("ocsp").unwrap();
        assert_eq!(space.entries().count(), 0);
        space.put(b"a", b"1").unwrap();
        store.persist().unwrap();
    }
}
