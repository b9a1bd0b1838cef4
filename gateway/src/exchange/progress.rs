//! How far an exchange came: the order of its messages, and how many of them this server's log holds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use trave_proto::conversation::Conversation;

/// What both directions of an exchange share.
#[derive(Debug)]
pub(crate) struct Progress {
    conversation: Mutex<Conversation>,
    sent: AtomicU64,
    received: AtomicU64,
    begun: Instant,
    /// When a message came or went last, in milliseconds after the beginning.
    moved: AtomicU64,
    /// Whether something came from the other side that did not verify.
    unverified: AtomicBool,
    /// Held by the message that is being signed. Signing is never undone by a caller who goes away: whoever tells the
    /// exchange's end waits for it, so that the log holds the message before it holds the end.
    signing: Arc<Semaphore>,
}

impl Progress {
    pub(crate) fn new(conversation: Conversation) -> Arc<Self> {
        Arc::new(Self {
            conversation: Mutex::new(conversation),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            begun: Instant::now(),
            moved: AtomicU64::new(0),
            unverified: AtomicBool::new(false),
            signing: Arc::new(Semaphore::new(1)),
        })
    }

    /// The order of the messages.
    pub(crate) fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to sign; it goes with the message to the signing thread.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.signing).acquire_owned().await.ok()
    }

    /// Counts a message that stands in the log's queue, as one sent.
    pub(crate) fn logged_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.moves();
    }

    /// Counts a message that stands in the log's queue, as one received.
    pub(crate) fn logged_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.moves();
    }

    fn moves(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    /// When a message came or went last; the beginning, before the first.
    pub(crate) fn moved(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Something came from the other side that did not verify.
    pub(crate) fn did_not_verify(&self) {
        self.unverified.store(true, Ordering::Relaxed);
    }

    /// Whether all that came from the other side verified.
    pub(crate) fn has_verified(&self) -> bool {
        !self.unverified.load(Ordering::Relaxed)
    }

    /// Whether the other side has said all, and this side nothing.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.counts().0 == 0 && self.conversation().peer_has_ended()
    }

    /// Messages sent and received that the log holds, when nothing is being signed any more.
    pub(crate) async fn settled(&self) -> (u64, u64) {
        let turn = self.turn().await;
        let counts = self.counts();
        drop(turn);
        counts
    }

    /// Messages sent and received that the log holds now.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}
