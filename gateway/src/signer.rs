//! The one thread that signs: gathers manifests into batches, signs each batch once, and hands every message to the log
//! before it gives it back. So the order of the log and what a cancelled exchange leaves behind are facts of construction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::oneshot;
use trave_message_log::batching::{Gauge, Limits, NotQueued, Queue};
use trave_message_log::{LogError, Pending};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::Manifest;
use trave_proto::schema::message::Envelope;
use trave_proto::signature::{self, BatchSignature, Signed, Unsigned, Way};

use crate::recorder::{MakeEntry, Recorder, Room, log_fault};

/// How long a message waits for others to share its signature.
const WAIT: Duration = Duration::from_micros(300);
/// The most manifests in one batch: a path of six hashes.
const BATCH: usize = 64;

/// What happens to a message between its signature and its place in the log.
pub(crate) struct Recording<W> {
    /// Makes the record.
    pub(crate) entry: MakeEntry<W>,
    /// Told when the record stands in the log's queue; dropped, told or not, when the message is done with.
    pub(crate) enqueued: Box<dyn FnOnce() + Send>,
    /// The room that the message takes until its record is durable.
    pub(crate) room: Room,
}

/// A message that was signed and stands in the log's queue: whatever happens now, it is recorded before anything later.
pub(crate) struct Enqueued<W> {
    /// As it travels.
    pub(crate) envelope: Envelope,
    /// The message itself, when its record is durable.
    pub(crate) durable: Pending<(Signed<W>, Room)>,
}

/// A handle to the signing thread.
#[derive(Debug, Clone)]
pub(crate) struct SigningThread {
    queue: Arc<Queue<Box<dyn Job>>>,
}

/// One message of either direction, on its way through the thread.
trait Job: Send {
    fn manifest(&self) -> &Manifest;
    /// Takes the signature, or the news that there is none.
    fn finish(self: Box<Self>, signature: Option<BatchSignature>, recorder: &Recorder);
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

struct MessageJob<W> {
    unsigned: Unsigned<W>,
    recording: Recording<W>,
    done: oneshot::Sender<Result<Enqueued<W>, SignError>>,
}

/// Why a message was not signed and enqueued.
#[derive(Debug)]
enum SignError {
    Key,
    Log(LogError),
}

impl SignError {
    fn fault(&self, side: Side) -> Fault {
        match self {
            Self::Key => {
                let why = "this security server cannot sign: its signing key does not answer";
                Fault::before_call(Reason::CannotCreateSignature, side, why)
            }
            Self::Log(error) => log_fault(error, side),
        }
    }
}

impl<W: Way> Job for MessageJob<W> {
    fn manifest(&self) -> &Manifest {
        self.unsigned.manifest()
    }

    fn finish(self: Box<Self>, signature: Option<BatchSignature>, recorder: &Recorder) {
        let Self { unsigned, recording, done } = *self;
        let signed = signature.and_then(|signature| unsigned.signed(signature).ok());
        let result = match signed {
            None => Err(SignError::Key),
            Some(signed) => {
                let (envelope, entry) = (signed.to_envelope(), (recording.entry)(&signed));
                let durable = recorder.log().append(entry, (signed, recording.room)).map_err(SignError::Log);
                durable.map(|durable| {
                    (recording.enqueued)();
                    Enqueued { envelope, durable }
                })
            }
        };
        // An exchange that no longer waits has its message in the log all the same.
        let _ = done.send(result);
    }
}

impl SigningThread {
    /// Starts the thread; it ends when [`Self::close`] is called.
    pub(crate) fn start(
        signer: Box<dyn signature::Signer>,
        recorder: Recorder,
        gauge: Gauge,
        counters: Arc<SigningCounters>,
    ) -> std::io::Result<Self> {
        // What waits here is bounded by the exchanges that are admitted and by the room that their messages hold.
        let limits = Limits { wait: WAIT, items: 1 << 16, queued_bytes: usize::MAX, batch_bytes: usize::MAX };
        let queue = Arc::new(Queue::new(gauge, limits));
        let jobs = Arc::clone(&queue);
        std::thread::Builder::new().name("signer".into()).spawn(move || {
            // Whatever ends the thread, nobody may wait for it any longer.
            let _close = CloseOnExit(Arc::clone(&jobs));
            while let Some(mut batch) = jobs.next_batch() {
                while !batch.is_empty() {
                    let rest = batch.split_off(batch.len().min(BATCH));
                    sign(signer.as_ref(), std::mem::replace(&mut batch, rest), &recorder, &counters);
                }
            }
        })?;
        Ok(Self { queue })
    }

    /// Signs `unsigned`, enqueues the record that `recording` makes of it, and gives it back.
    pub(crate) async fn sign<W: Way>(
        &self,
        unsigned: Unsigned<W>,
        recording: Recording<W>,
        side: Side,
    ) -> Result<Enqueued<W>, Fault> {
        let (done, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(MessageJob { unsigned, recording, done });
        match self.queue.push(job, 1) {
            Ok(()) => {}
            Err(NotQueued::Full(_)) => {
                let why = "more messages wait to be signed than this server holds";
                return Err(Fault::before_call(Reason::Overloaded, side, why));
            }
            Err(NotQueued::Closed(_)) => {
                return Err(Fault::before_call(
                    Reason::MaintenanceMode,
                    side,
                    "this security server is stopping",
                ));
            }
        }
        answer.await.unwrap_or(Err(SignError::Key)).map_err(|error| error.fault(side))
    }

    /// Signs what is queued and ends.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

/// Closes the queue when the thread ends, and drops what is left in it, which tells those who wait.
struct CloseOnExit(Arc<Queue<Box<dyn Job>>>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.close();
        while self.0.next_batch().is_some() {}
    }
}

/// Counts since start, for metrics.
#[derive(Debug, Default)]
pub(crate) struct SigningCounters {
    messages: AtomicU64,
    signatures: AtomicU64,
}

impl SigningCounters {
    /// Messages signed.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }

    /// Signatures made for them.
    pub(crate) fn signatures(&self) -> u64 {
        self.signatures.load(Relaxed)
    }
}

fn sign(
    signer: &dyn signature::Signer,
    batch: Vec<Box<dyn Job>>,
    recorder: &Recorder,
    counters: &SigningCounters,
) {
    let manifests: Vec<_> = batch.iter().map(|job| job.manifest()).collect();
    match signature::sign_batch(signer, &manifests) {
        Ok(signatures) => {
            counters.messages.fetch_add(batch.len() as u64, Relaxed);
            counters.signatures.fetch_add(1, Relaxed);
            for (job, signature) in batch.into_iter().zip(signatures) {
                job.finish(Some(signature), recorder);
            }
        }
        Err(error) => {
            tracing::error!(error = trave_host::config::with_causes(&error), "a batch could not be signed");
            batch.into_iter().for_each(|job| job.finish(None, recorder));
        }
    }
}
