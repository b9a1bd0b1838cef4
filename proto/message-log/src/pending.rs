//! What a caller holds while a record is on its way to the disk, and the proof that it has arrived.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use trave_proto::digest::Digest;

use crate::error::LogError;

/// Proof that something is durable in the log. Made here alone.
#[derive(Debug)]
pub struct Logged<T> {
    index: u64,
    leaf_hash: Digest,
    carried: T,
}

impl<T> Logged<T> {
    /// Its place in the log.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The hash of its leaf.
    pub const fn leaf_hash(&self) -> Digest {
        self.leaf_hash
    }

    /// What was carried through the log.
    pub const fn get(&self) -> &T {
        &self.carried
    }

    /// Takes out what was carried through the log.
    pub fn into_inner(self) -> T {
        self.carried
    }
}

/// A record on its way to the disk. It is written whether or not somebody waits for it.
#[derive(Debug)]
#[must_use = "what follows from a record must wait until it is durable"]
pub struct Pending<T> {
    pub(crate) answer: oneshot::Receiver<Result<u64, LogError>>,
    pub(crate) leaf_hash: Digest,
    pub(crate) carried: Option<T>,
}

/// Nothing in it is pinned.
impl<T> Unpin for Pending<T> {}

impl<T> Future for Pending<T> {
    type Output = Result<Logged<T>, LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        let index = answer.unwrap_or(Err(LogError::Closed))?;
        let carried = self.carried.take().ok_or(LogError::Closed)?;
        Poll::Ready(Ok(Logged { index, leaf_hash: self.leaf_hash, carried }))
    }
}
