//! The message log: what an exchange, a refusal or an act was is written here before anything follows from it.
//!
//! [`Log::append`] never waits; its [`Pending`] is ready when the record is durable, and then every record before it is
//! durable too.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use trave_proto::checkpoint::{NoteSigner, NoteVerifier};
use trave_proto::clock::{Clock, Time};
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Erasure, Leaf, leaf};
use trave_proto::tree::root_from_path;

use crate::batching::{Gauge, Limits, NotQueued, Queue};
use crate::check::{self, Report};
use crate::committer::{Command, Committer};
use crate::disk::{Disk, Held, RealDisk};
use crate::entry::{Entry, kind};
use crate::erasure;
use crate::error::LogError;
use crate::keeper::Keeper;
use crate::pending::Pending;
use crate::prepare::{check_size, prepare, started};
use crate::reading::{self, StoredRecord};
use crate::recovery::{self, Opened};
use crate::shared::{Counters, Recovered, Shared, SignedCheckpoint, TREE_DIR};

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

    pub(crate) fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), LogError> {
        let dir = options.dir.clone();
        disk.create_dir(&dir).map_err(LogError::disk("create", &dir))?;
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(LogError::disk("lock", &lock_path))?;
        let lock = lock.ok_or(LogError::Locked { path: lock_path })?;
        let Opened { shared, segment, mut recovered } =
            recovery::open(&disk, &dir, &options.signer.verifier(), options.segment_size)?;
        erasure::redo(&shared, &mut recovered)?;
        let thread = LogError::disk("start a thread for", &dir);
        let keeper = Keeper::start(shared.clone(), options.segment_size, options.reserve).map_err(thread)?;
        keeper.prepare_spare();
        let mut committer =
            Committer::new(shared.clone(), segment, options.signer.clone(), options.segment_size, keeper);
        let origin = options.signer.name();
        committer.commit(&[started(origin, &options.release, recovered.records, options.clock.now())])?;
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

    /// Queues a record, and never waits. The order of calls is the order in the log. `carried` comes back with the proof
    /// that the record is durable.
    pub fn append<T>(&self, entry: Entry, carried: T) -> Result<Pending<T>, LogError> {
        self.0.shared.healthy()?;
        let mut prepared = prepare(&self.0.shared, entry)?;
        if prepared.kind == kind::MESSAGE && self.0.shared.disk_full.load(Ordering::Relaxed) {
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

    /// Makes the contents of an exchange unreadable: logs the act, then overwrites the key, then the bytes. Returns how
    /// many contents there were.
    pub async fn erase(&self, exchange: ExchangeId, operator: &str, reason: &str) -> Result<u64, LogError> {
        // First, so that nothing more is encrypted under the key that will be gone.
        self.0.shared.key_ring.forget(exchange.as_bytes());
        let entry = leaf::Entry::Erasure(Erasure {
            exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
            operator: operator.to_owned(),
            reason: reason.to_owned(),
        });
        let logged_ms = self.0.clock.now().as_millis();
        let leaf = Leaf { version: 1, logged_ms, entry: Some(entry) };
        let logged = self.append(Entry::new(leaf), ())?.await?;
        let (done, answer) = oneshot::channel();
        self.push(Command::Erase(*exchange.as_bytes(), logged.index(), done), 64)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    /// All records about an exchange, in order: messages, its end, refusals, erasures. Reads the disk.
    pub fn exchange(&self, exchange: ExchangeId) -> Result<Vec<StoredRecord>, LogError> {
        let indexes = reading::of_exchange(&self.0.shared, exchange.as_bytes())?;
        indexes.into_iter().map(|index| reading::record(&self.0.shared, index)).collect()
    }

    /// The places of all records about an exchange, in order. Reads the indexes alone.
    pub fn places(&self, exchange: ExchangeId) -> Result<Vec<u64>, LogError> {
        reading::of_exchange(&self.0.shared, exchange.as_bytes())
    }

    /// The leaf at `index`, without what stands beside it: however much the contents are, this is small. Reads the disk.
    pub fn leaf(&self, index: u64) -> Result<Leaf, LogError> {
        reading::locate(&self.0.shared, index)?.read().map(|raw| raw.leaf)
    }

    /// The record at `index`. Reads the disk.
    pub fn record(&self, index: u64) -> Result<StoredRecord, LogError> {
        reading::record(&self.0.shared, index)
    }

    /// An artefact by its digest; none if no segment holds it. Reads the disk.
    pub fn artefact(&self, digest: &Digest) -> Result<Option<Bytes>, LogError> {
        reading::artefact(&self.0.shared, digest)
    }

    /// The records from `from` to the last that is durable now, one at a time. Reads the disk.
    pub fn scan(&self, from: u64) -> impl Iterator<Item = Result<StoredRecord, LogError>> + use<> {
        let shared = self.0.shared.clone();
        (from..self.size()).map(move |index| reading::record(&shared, index))
    }

    /// The records of one [`kind`] from `from` on. Only these are read: the others cost a look into the index.
    pub fn scan_kind(
        &self,
        kind: u8,
        from: u64,
    ) -> impl Iterator<Item = Result<StoredRecord, LogError>> + use<> {
        let shared = self.0.shared.clone();
        let entries = reading::Entries::new(shared.clone(), from..self.size());
        entries.filter(move |entry| !matches!(entry, Ok((_, entry)) if entry.kind != kind)).map(
            move |entry| {
                let (index, _) = entry?;
                reading::record(&shared, index)
            },
        )
    }

    /// The exchanges with a record since `since`, each once: what must not be accepted again. Reads the indexes alone.
    pub fn tail_ids(&self, since: Time) -> Result<Vec<ExchangeId>, LogError> {
        reading::tail_ids(&self.0.shared, since)
    }

    /// Leaves that are durable.
    pub fn size(&self) -> u64 {
        self.0.shared.catalogue().open.next()
    }

    /// The last checkpoint, with its timestamp token if there is one.
    pub fn latest_checkpoint(&self) -> Option<SignedCheckpoint> {
        self.0.shared.catalogue().checkpoint.clone()
    }

    /// The audit path of leaf `index` in the tree over the first `size` leaves (RFC 6962 section 2.1.1). It is verified
    /// before it is given out; if the kept tree is damaged, it is made again from the leaves.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let shared = &self.0.shared;
        let leaf = reading::locate(shared, index)?.entry.hash;
        if index >= size || size > self.size() {
            return Err(LogError::OutOfRange { asked: index.max(size), size: self.size() });
        }
        let path = || -> Result<Option<Vec<Digest>>, LogError> {
            let root = shared.root(size)?;
            let path = shared.tree().path(index, size)?;
            Ok((root_from_path(&leaf, index, size, &path) == Some(root)).then_some(path))
        };
        if let Some(path) = path()? {
            return Ok(path);
        }
        tracing::warn!(index, size, "the kept tree is damaged and is made again from the leaves");
        shared.rebuild_tree()?;
        path()?.ok_or_else(|| {
            LogError::damaged(&shared.dir.join(TREE_DIR), 0, "the tree does not agree with the leaves")
        })
    }

    /// The root over the first `size` leaves.
    pub fn root(&self, size: u64) -> Result<Digest, LogError> {
        self.0.shared.root(size)
    }

    /// Reads everything and says what is wrong. Takes as long as reading all segments does; exchanges go on meanwhile.
    pub fn check(&self) -> Report {
        check::check(&self.0.shared, &self.0.verifier)
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
