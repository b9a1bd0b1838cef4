//! A body whose pieces come from the other side, one after the other, each verified and logged before.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Pieces that may wait to be taken; with the one in the sender's hand that is two.
const WAITING: usize = 1;

/// The body that an agency system or a register reads.
#[derive(Debug, Default)]
pub(crate) struct Relayed(Option<mpsc::Receiver<Frame<Bytes>>>);

/// Where its pieces are put in. Dropped, the body ends.
#[derive(Debug, Clone)]
pub(crate) struct Relay(mpsc::Sender<Frame<Bytes>>);

/// Whoever reads the body has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderGone;

impl Relayed {
    /// A body and where its pieces are put in.
    pub(crate) fn new() -> (Relay, Self) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Relay(sender), Self(Some(receiver)))
    }

    /// A body of nothing.
    pub(crate) fn empty() -> Self {
        Self(None)
    }
}

impl Relay {
    /// Puts in bytes and waits until there is room.
    pub(crate) async fn data(&self, bytes: Bytes) -> Result<(), ReaderGone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.send(Frame::data(bytes)).await.map_err(|_| ReaderGone)
    }

    /// Puts in the trailers, which are the last.
    pub(crate) async fn trailers(&self, trailers: HeaderMap) -> Result<(), ReaderGone> {
        self.0.send(Frame::trailers(trailers)).await.map_err(|_| ReaderGone)
    }

    /// Ends when the reader has gone.
    pub(crate) async fn reader_gone(&self) {
        self.0.closed().await;
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(receiver) => receiver.poll_recv(context).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
