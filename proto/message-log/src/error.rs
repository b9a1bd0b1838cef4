//! What can go wrong with a message log, said so that a person knows what happened and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the log did not do what was asked. Cheap to clone: one failure is told to everyone it concerns.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The disk refused an operation.
    #[error("could not {what} {path}", path = path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// Bytes on the disk are not what was written; they are kept as they are.
    #[error("{path} is damaged at byte {offset}: {what}; nothing was changed: restore it from the archive or a copy", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A write failed earlier, so what the disk holds is unknown until the log is opened again.
    #[error("the log stopped after a failed write and must be opened again: {0}")]
    Poisoned(Arc<str>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// More is queued than the disk takes; try again later.
    #[error("the log's queue is full: the disk is slower than the load")]
    Busy,
    /// Less is free than the reserve: no exchange is accepted, the log's own small records still are.
    #[error("the disk of the log is full: free space has fallen below the reserve of {reserve} bytes")]
    DiskFull {
        /// The reserve, in bytes.
        reserve: u64,
    },
    /// Another process has this log open.
    #[error("{path} is held by another process: stop it first; a log has one writer", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// What a search needs is still being made.
    #[error(
        "the search indexes of {left} segments of the log are still being made; search again in a few minutes"
    )]
    NotIndexed {
        /// Segments that have none.
        left: usize,
    },
    /// The log cannot continue what it has signed.
    #[error(
        "the log contradicts its checkpoint of size {size}: {what}; do not continue it: restore the missing segments, or begin a new generation"
    )]
    ContradictsCheckpoint {
        /// Size of the checkpoint.
        size: u64,
        /// How they differ.
        what: String,
    },
    /// The directory came out of an archive.
    #[error("{path} came out of an archive: it can be read, and only a new generation goes on after it", path = path.display())]
    Restored {
        /// The log's directory.
        path: PathBuf,
    },
    /// The directory holds the log of another origin.
    #[error("{path} belongs to the log {found}, not to {expected}", path = path.display())]
    OtherOrigin {
        /// The segment file.
        path: PathBuf,
        /// What the caller asked for, as the start of its digest.
        expected: String,
        /// What the file says, as the start of its digest.
        found: String,
    },
    /// An archived object cannot be used.
    #[error("the archived object {name} cannot be used: {what}")]
    Archive {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The record was pruned: it is in the archive.
    #[error(
        "the records {first} to {last} were pruned from this server's disk; they are in the archive, as a statement in the log says"
    )]
    Pruned {
        /// The first record of the segment.
        first: u64,
        /// Its last record.
        last: u64,
    },
    /// What was to be logged is not a leaf that can be logged.
    #[error("this cannot be logged: {0}")]
    Refused(&'static str),
    /// Larger than a record may be.
    #[error("a record of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The time of this record is over: its leaf's hash alone is left.
    #[error(
        "record {index} of the log has expired: by law it was overwritten, and the hash of its leaf alone is left"
    )]
    Expired {
        /// Its place.
        index: u64,
    },
    /// There is no such leaf, or the tree has not that size.
    #[error("the log has {size} leaves; {asked} is not among them")]
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// Leaves in the log.
        size: u64,
    },
}

impl LogError {
    /// Makes an error of the operating system one of the log.
    pub(crate) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { what, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }

    pub(crate) fn archive(name: &str, what: impl ToString) -> Self {
        Self::Archive { name: name.to_owned(), what: what.to_string() }
    }

    /// Whether something could not be written or made durable: then what the disk holds is unknown.
    pub(crate) fn is_failed_write(&self) -> bool {
        matches!(self, Self::Disk { what, .. } if !matches!(*what, "read" | "open" | "list"))
    }

    /// Whether a file or an object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether a file is missing, cut off, or not what was written: not that the disk could not be asked just now.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Disk { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        }
    }

    /// The error with its causes, in one line.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
