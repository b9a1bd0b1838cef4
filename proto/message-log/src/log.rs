//! The message log: what an exchange, a refusal or an act was is written here before anything follows from it.
//!
//! [`Log::append`] never waits; its [`Pending`] is ready when the record is durable, and then every record before it is
//! durable too.

pub(crate) mod earlier;
mod persons;
mod queries;
pub(crate) mod archiving;
mod retention;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use trave_proto::checkpoint::{Checkpoint, NoteSigner, NoteVerifier};
use trave_proto::clock::Clock;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Erasure, Leaf, leaf};

use crate::batching::{Gauge, Limits, NotQueued, Queue};
use crate::committer::{Command, Committer};
use crate::disk::{Disk, Held, RealDisk};
use crate::entry::{Entry, kind};
use crate::erasure;
use crate::error::LogError;
use crate::keeper::Keeper;
use crate::keys::SLOTS_PER_FILE;
use crate::pending::Pending;
use crate::prepare::{check_size, prepare, started};
use crate::pruning;
use crate::recovery::{self, Opened, Terms};
use crate::schedule;
use crate::search::Searcher;
use crate::shared::{Counters, Recovered, Shared, SignedCheckpoint};
pub use persons::{Concerned, ErasedPerson};

/// How a log is opened.
#[derive(Debug)]
pub struct Options {
    /// Directory of the log; made if it is missing. One log has one directory.
    pub dir: PathBuf,
    /// Signs checkpoints; its name is the log's origin.
    pub signer: NoteSigner,
    /// Civil time of the records that the log writes itself.
    pub clock: Arc<dyn Clock>,
    /// Exchanges in flight: how long a group waits for others.
    pub gauge: Gauge,
    /// Bytes of a segment file.
    pub segment_size: u64,
    /// Below this many free bytes no message is accepted; 0 for no reserve.
    pub reserve: u64,
    /// Version of the program, for the record that says that the log was opened.
    pub release: String,
    /// A checkpoint of this log that others are known to have seen, whose signature was verified. A log that does not
    /// continue it is refused, as it lies there: nothing in its directory is changed.
    pub must_continue: Option<Checkpoint>,
    /// What a log that holds nothing yet begins with, before it says that it was opened.
    pub begins_with: Option<Leaf>,
}

impl Options {
    /// The usual sizes: segments of 64 MiB, and four of them in reserve.
    pub fn new(dir: impl Into<PathBuf>, signer: NoteSigner, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.into(),
            signer,
            clock,
            gauge: Gauge::default(),
            segment_size: 64 << 20,
            reserve: 256 << 20,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            must_continue: None,
            begins_with: None,
        }
    }
}

/// A message log, open for writing. Clones are handles of the same log.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue<Command>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
    verifier: NoteVerifier,
    reserve: u64,
    /// Held until the committer has ended.
    lock: Mutex<Option<Box<dyn Held>>>,
}

/// Longest time that a group waits for others (DESIGN section 4).
const COMMIT_WAIT: Duration = Duration::from_micros(500);
const LIMITS: Limits =
    Limits { wait: COMMIT_WAIT, items: 8_192, queued_bytes: 128 << 20, batch_bytes: 8 << 20 };

impl Log {
    /// Opens the log in a directory, or begins it, and logs that it was opened. Blocks while it reads the last segment.
    pub fn open(options: Options) -> Result<(Self, Recovered), LogError> {
        Self::open_on(Arc::new(RealDisk), options)
    }

    /// Opens the log on this disk.
    pub(crate) fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), LogError> {
        Self::open_with(disk, options, SLOTS_PER_FILE)
    }

    /// Opens the log on this disk; `key_block` keys are made durable at a time.
    pub(crate) fn open_with(
        disk: Arc<dyn Disk>,
        options: Options,
        key_block: u64,
    ) -> Result<(Self, Recovered), LogError> {
        let dir = options.dir.clone();
        if let Some(given) = &options.must_continue {
            recovery::must_have_begun(&*disk, &dir, given)?;
        }
        disk.create_dir(&dir).map_err(LogError::disk("create", &dir))?;
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(LogError::disk("lock", &lock_path))?;
        let lock = lock.ok_or(LogError::Locked { path: lock_path })?;
        if recovery::is_restored(&*disk, &dir)? {
            return Err(LogError::Restored { path: dir });
        }
        let Opened { shared, segment, mut recovered, doubtful } = recovery::open(
            &disk,
            &dir,
            &Terms {
                key: &options.signer.verifier(),
                must_continue: options.must_continue.as_ref(),
                segment_size: options.segment_size,
                key_block,
            },
        )?;
        recovered.warnings.extend(pruning::settle(&shared, doubtful)?);
        pruning::redo(&shared)?;
        erasure::redo(&shared, &mut recovered)?;
        schedule::redo(&shared, &mut recovered)?;
        let thread = LogError::disk("start a thread for", &dir);
        let keeper = Keeper::start(shared.clone(), options.segment_size, options.reserve).map_err(thread)?;
        keeper.prepare_spare();
        let mut committer =
            Committer::new(shared.clone(), segment, options.signer.clone(), options.segment_size, keeper);
        let origin = options.signer.name();
        let mut first = Vec::new();
        if let (0, Some(leaf)) = (recovered.records, options.begins_with) {
            first.push(prepare(&committer.shared, Entry::new(leaf))?);
        }
        first.push(started(origin, &options.release, recovered.records, options.clock.now()));
        committer.commit(&first)?;
        let queue = Arc::new(Queue::new(options.gauge, limits(options.segment_size)));
        let thread = serve(committer, queue.clone()).map_err(LogError::disk("start a thread for", &dir))?;
        let inner = Inner {
            shared,
            queue,
            committer: Mutex::new(Some(thread)),
            clock: options.clock,
            verifier: options.signer.verifier(),
            reserve: options.reserve,
            lock: Mutex::new(Some(lock)),
        };
        Ok((Self(Arc::new(inner)), recovered))
    }

    /// Opens a log that came out of an archive, to be read: nothing can be appended. Makes its indexes and its tree again.
    ///
    /// # Errors
    /// If the directory did not come out of an archive, or leaves are missing between its segments.
    pub fn open_restored(
        dir: impl Into<PathBuf>,
        key: &NoteVerifier,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LogError> {
        Self::open_restored_on(Arc::new(RealDisk), &dir.into(), key, clock)
    }

    pub(crate) fn open_restored_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        key: &NoteVerifier,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LogError> {
        if !recovery::is_restored(&*disk, dir)? {
            return Err(LogError::Refused("this directory did not come out of an archive"));
        }
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(LogError::disk("lock", &lock_path))?;
        let lock = lock.ok_or(LogError::Locked { path: lock_path })?;
        Ok(Self::read_only(recovery::open_restored(&disk, dir, key)?, key, (clock, lock)))
    }

    /// A log to which nothing is appended.
    fn read_only(
        shared: Arc<Shared>,
        key: &NoteVerifier,
        (clock, lock): (Arc<dyn Clock>, Box<dyn Held>),
    ) -> Self {
        let queue = Arc::new(Queue::new(Gauge::default(), LIMITS));
        queue.close();
        Self(Arc::new(Inner {
            shared,
            queue,
            committer: Mutex::default(),
            clock,
            verifier: key.clone(),
            reserve: 0,
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Queues a record, and never waits. The order of calls is the order in the log. `carried` comes back with the proof
    /// that the record is durable.
    pub fn append<T>(&self, entry: Entry, carried: T) -> Result<Pending<T>, LogError> {
        self.0.shared.healthy()?;
        let mut prepared = prepare(&self.0.shared, entry)?;
        // What came back from a peer is there still: it is fetched again when there is room.
        if matches!(prepared.kind, kind::MESSAGE | kind::RECOVERED)
            && self.0.shared.disk_full.load(Ordering::Relaxed)
        {
            return Err(LogError::DiskFull { reserve: self.0.reserve });
        }
        let (done, answer) = oneshot::channel();
        prepared.done = Some(done);
        let (leaf_hash, weight) = (prepared.hash, prepared.weight());
        self.push(Command::Append(prepared), weight)?;
        Ok(Pending { answer, leaf_hash, carried: Some(carried) })
    }

    /// Signs a checkpoint over everything durable; the last one again if nothing was added since.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, LogError> {
        let (done, answer) = oneshot::channel();
        self.push(Command::Checkpoint(done), 256)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    /// Keeps an RFC 3161 token (DER) over the SHA-256 of the note of the checkpoint of `size`. The caller has verified it.
    pub async fn attach_timestamp(&self, size: u64, token: Bytes) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        check_size(token.len())?;
        let weight = token.len();
        self.push(Command::Timestamp(size, token, done), weight)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    /// Makes the contents of an exchange unreadable: logs the act, then overwrites the key, then the bytes. What its caller
    /// calls it by is overwritten too: it is of the contents. Returns how many contents there were.
    pub async fn erase(&self, exchange: ExchangeId, operator: &str, reason: &str) -> Result<u64, LogError> {
        // First, so that nothing more is encrypted under the key that will be gone.
        self.0.shared.key_ring.forget(exchange.as_bytes());
        let entry = leaf::Entry::Erasure(Erasure {
            exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
            operator: operator.to_owned(),
            reason: reason.to_owned(),
        });
        let leaf = Leaf::of(self.0.clock.now().as_millis(), entry);
        // Both acts are durable before a byte is overwritten, so that a restart does both. A table that cannot be read keeps
        // no contents from being erased: that is told afterwards.
        let references = self.log_references(&[exchange], operator, reason);
        let logged = self.append(Entry::new(leaf), ())?.await?;
        let references = Self::durable(references).await;
        let (done, answer) = oneshot::channel();
        self.push(Command::Erase(*exchange.as_bytes(), logged.index(), done), 64)?;
        let erased = answer.await.unwrap_or(Err(LogError::Closed));
        let erased = erased?;
        self.forget_references(references?).await?;
        Ok(erased)
    }

    /// Has the log's exchanges indexed for searching, from now on and back to its beginning, by a thread that no exchange
    /// waits for. One searcher serves all; it ends when its last clone is dropped.
    pub fn searcher(&self) -> Result<Searcher, LogError> {
        Searcher::start(self.0.shared.clone())
    }

    /// The key that verifies this log's checkpoints; its name is the origin.
    pub fn verifier(&self) -> &NoteVerifier {
        &self.0.verifier
    }

    /// Counts since opening.
    pub fn counters(&self) -> &Counters {
        &self.0.shared.counters
    }

    /// The gauge of exchanges in flight by which groups are gathered.
    pub fn gauge(&self) -> &Gauge {
        self.0.queue.gauge()
    }

    /// Why the log stopped, if it did.
    pub fn poisoned(&self) -> Option<LogError> {
        self.0.shared.healthy().err()
    }

    /// Writes what is queued and closes the log, for all its handles. Blocks until that is done.
    pub fn close(&self) {
        self.0.close();
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    fn push(&self, command: Command, weight: usize) -> Result<(), LogError> {
        self.0.queue.push(command, weight).map_err(|refused| match refused {
            NotQueued::Full(_) => LogError::Busy,
            NotQueued::Closed(_) => self.0.shared.healthy().err().unwrap_or(LogError::Closed),
        })
    }
}

/// A group should leave room for others in its segment.
fn limits(segment_size: u64) -> Limits {
    let batch_bytes = usize::try_from(segment_size / 4).unwrap_or(LIMITS.batch_bytes);
    Limits { batch_bytes: batch_bytes.min(LIMITS.batch_bytes), ..LIMITS }
}

/// Starts the committer's thread.
fn serve(committer: Committer, queue: Arc<Queue<Command>>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("log-committer".into()).spawn(move || {
        // Whatever ends the committer, nobody may wait for it any longer.
        let _close = CloseOnExit(queue.clone());
        committer.run(&queue);
    })
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's committer panicked");
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes the queue when the committer ends, and drops what is left in it, which tells those who wait.
struct CloseOnExit(Arc<Queue<Command>>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.close();
        while self.0.next_batch().is_some() {}
    }
}
