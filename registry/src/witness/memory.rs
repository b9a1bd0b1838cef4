//! What a witness remembers on disk: of each log the last checkpoint that it cosigned, durable before the cosignature is
//! given away.
//!
//! ```text
//! witness           the verifier key: whose memory this is
//! origins           SHA-256 of the origin of each log that was ever cosigned, one a line
//! logs/ORIGIN       the last checkpoint, signed by the log and cosigned here (ORIGIN: that SHA-256)
//! evidence/ORIGIN/  what the log's key has signed and was not cosigned, for people: `two-stories-DIGEST` contradicts what
//!                   was cosigned, `not-proved-DIGEST` came with a wrong proof (DIGEST: SHA-256 of the checkpoint's text)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use trave_host::files::{FileError, create, replace};
use trave_proto::checkpoint::{AddCheckpoint, Checkpoint, CheckpointError, Note, WitnessVerifier};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::tree::Head;

/// Most requests of a kind that are kept as evidence of one log: people have looked long before.
const MAX_EVIDENCE: usize = 32;

/// What a request that was not cosigned shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The log's key has signed two roots for one size.
    TwoStories,
    /// Nothing by itself: anybody can send a wrong proof.
    NotProved,
}

impl Evidence {
    /// How its files' names begin.
    const fn prefix(self) -> &'static str {
        match self {
            Self::TwoStories => "two-stories-",
            Self::NotProved => "not-proved-",
        }
    }
}

/// Why the memory cannot be read or kept. A witness without its memory must not cosign.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
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
    /// It cannot be written.
    #[error("cannot keep what was cosigned")]
    Write(#[source] FileError),
    /// There is none.
    #[error(
        "{} is not there: without it this witness could contradict itself (hint: a witness that lost its memory is given up; \
         make a new one, with a new key, and have the administrators register it)", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{} is damaged: {why} (hint: never put an older file in its place; a witness without its memory is given up)",
        path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it is known.
        why: String,
    },
    /// The memory of another witness.
    #[error("{} is the memory of another witness, or of another key: {found}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose.
        found: String,
    },
    /// Another witness works with this memory.
    #[error("{} is in use: two witnesses with one memory could contradict each other", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A write failed before: what the disk holds is not known.
    #[error("a write failed before, so nothing is cosigned until this witness is started again")]
    Poisoned,
}

/// The last checkpoint of a log that was cosigned.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) head: Head,
    /// When it was cosigned.
    pub(super) time: Time,
    /// With the log's signature and the cosignature.
    pub(super) note: Vec<u8>,
}

/// The memory, in the hands of this process alone until it is dropped.
#[derive(Debug)]
pub(super) struct Memory {
    directory: PathBuf,
    logs: BTreeMap<Digest, Remembered>,
    poisoned: bool,
    _lock: File,
}

/// Makes the memory of a witness that never cosigned anything. A memory that is there stays.
pub(crate) fn begin(directory: &Path, witness: &WitnessVerifier) -> Result<(), MemoryError> {
    let made = fs::create_dir_all(directory.join("logs"));
    made.map_err(|source| MemoryError::Io { action: "make", path: directory.join("logs"), source })?;
    create(&directory.join("origins"), b"").map_err(MemoryError::Write)?;
    // Last: without it there is no memory.
    create(&directory.join("witness"), format!("{witness}\n").as_bytes()).map_err(MemoryError::Write)
}

impl Memory {
    /// Reads the memory of `witness` and takes hold of it.
    pub(super) fn recall(directory: &Path, witness: &WitnessVerifier) -> Result<Self, MemoryError> {
        let whose = directory.join("witness");
        let found = read(&whose)?;
        if found != format!("{witness}\n").as_bytes() {
            let found = String::from_utf8_lossy(&found).trim_end().chars().take(400).collect();
            return Err(MemoryError::Foreign { path: directory.into(), found });
        }
        let lock = take_lock(directory)?;
        let mut logs = BTreeMap::new();
        let place = directory.join("logs");
        let failed = |source| MemoryError::Io { action: "read", path: place.clone(), source };
        for entry in fs::read_dir(&place).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            // What a process that was killed had not finished writing was never given away.
            if name.starts_with('.') {
                continue;
            }
            let path = place.join(&*name);
            let (origin, remembered) = recall_log(&path, &name, witness)?;
            logs.insert(origin, remembered);
        }
        let memory = Self { directory: directory.into(), logs, poisoned: false, _lock: lock };
        memory.check_origins()?;
        Ok(memory)
    }

    /// Each log that was ever cosigned has its file: one that was lost must not begin anew.
    fn check_origins(&self) -> Result<(), MemoryError> {
        let path = self.directory.join("origins");
        let listed = read(&path)?;
        let damaged = |why: &str| MemoryError::Damaged { path: path.clone(), why: why.to_owned() };
        let text = String::from_utf8(listed).map_err(|_| damaged("it is no text"))?;
        let mut listed = 0;
        for line in text.lines() {
            let mut bytes = [0; Digest::LEN];
            hex::decode_to_slice(line, &mut bytes).map_err(|_| damaged("a line is no digest"))?;
            if !self.logs.contains_key(&Digest::from_bytes(bytes)) {
                return Err(MemoryError::Missing { path: self.directory.join("logs").join(line) });
            }
            listed += 1;
        }
        // Killed between a log's file and its line here: without the line the file could be lost unnoticed.
        if listed < self.logs.len() { self.write_origins(self.logs.keys()) } else { Ok(()) }
    }

    fn write_origins<'d>(&self, origins: impl Iterator<Item = &'d Digest>) -> Result<(), MemoryError> {
        let listed: String = origins.map(|origin| format!("{origin}\n")).collect();
        replace(&self.directory.join("origins"), listed.as_bytes()).map_err(MemoryError::Write)
    }

    /// Whether it can be relied on: a write that failed leaves unknown what the disk holds.
    pub(super) fn healthy(&self) -> Result<(), MemoryError> {
        if self.poisoned { Err(MemoryError::Poisoned) } else { Ok(()) }
    }

    /// What was last cosigned of the log with this origin, given as its SHA-256.
    pub(super) fn last(&self, origin: &Digest) -> Option<&Remembered> {
        self.logs.get(origin)
    }

    /// Keeps what is about to be cosigned, durably. After an error nothing is kept any more.
    pub(super) fn keep(&mut self, origin: Digest, remembered: Remembered) -> Result<(), MemoryError> {
        self.healthy()?;
        let written = self.write(origin, &remembered.note);
        self.poisoned = written.is_err();
        written?;
        self.logs.insert(origin, remembered);
        Ok(())
    }

    fn write(&self, origin: Digest, note: &[u8]) -> Result<(), MemoryError> {
        replace(&self.directory.join("logs").join(origin.to_string()), note).map_err(MemoryError::Write)?;
        if self.logs.contains_key(&origin) {
            return Ok(());
        }
        self.write_origins(self.logs.keys().chain([&origin]))
    }

    /// Keeps a request for people, each checkpoint once, as long as there is room: it changes nothing.
    pub(super) fn keep_evidence(&self, kind: Evidence, origin: &Digest, request: &AddCheckpoint) {
        let place = self.directory.join("evidence").join(origin.to_string());
        let text = Digest::of(request.checkpoint.text().as_bytes());
        let path = place.join(format!("{}{text}", kind.prefix()));
        if path.exists() {
            return;
        }
        let kept = match room(&place, kind.prefix()) {
            Ok(true) => create(&path, &request.to_bytes()).map_err(|error| error.to_string()),
            Ok(false) => Err(format!("{} is full", place.display())),
            Err(error) => Err(format!("{}: {error}", place.display())),
        };
        if let Err(error) = kept {
            tracing::error!(error, "what speaks against a log cannot be kept");
        }
    }
}

/// Whether another file with this beginning of its name has room; makes the directory.
fn room(place: &Path, prefix: &str) -> io::Result<bool> {
    fs::create_dir_all(place)?;
    let mut count = 0;
    for entry in fs::read_dir(place)? {
        count += usize::from(entry?.file_name().to_string_lossy().starts_with(prefix));
    }
    Ok(count < MAX_EVIDENCE)
}

fn recall_log(
    path: &Path,
    name: &str,
    witness: &WitnessVerifier,
) -> Result<(Digest, Remembered), MemoryError> {
    let damaged = |why: String| MemoryError::Damaged { path: path.into(), why };
    let note = read(path)?;
    let read = || -> Result<(Checkpoint, Time), CheckpointError> {
        let parsed = Note::parse(&note)?;
        let cosignatures = parsed.cosignatures(std::slice::from_ref(witness))?;
        let own = cosignatures.first().ok_or(CheckpointError::NoKnownSignature)?;
        Ok((Checkpoint::from_text(parsed.text())?, own.time))
    };
    let (checkpoint, time) = read().map_err(|error| damaged(error.to_string()))?;
    let origin = Digest::of(checkpoint.origin.as_bytes());
    if origin.to_string() != name {
        return Err(damaged(format!("it is about the log {:?}", checkpoint.origin)));
    }
    let head = Head { size: checkpoint.size, root: checkpoint.root };
    Ok((origin, Remembered { head, time, note }))
}

/// What is locked is a file of its own, as the others are replaced each time.
fn take_lock(directory: &Path) -> Result<File, MemoryError> {
    let path = directory.join("lock");
    let failed = |source| MemoryError::Io { action: "lock", path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(MemoryError::InUse { path: directory.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MemoryError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => MemoryError::Missing { path: path.into() },
        _ => MemoryError::Io { action: "read", path: path.into(), source },
    })
}
