//! A body whose pieces come from the other side, one after the other, each verified and logged before.
//!
//! It ends well only where its end was verified and logged too: in every other case its reader is told that it was broken
//! off, and never takes a part for the whole.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

/// Pieces that may wait to be taken; with the one in the sender's hand that is two.
const WAITING: usize = 1;
/// How long a reader may take for the last piece.
const LAST: Duration = Duration::from_secs(30);

/// The exchange was broken off before this body was complete.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the exchange was broken off")]
pub(crate) struct BrokenOff;

/// What the other side puts in.
#[derive(Debug)]
pub(crate) enum Item {
    Frame(Frame<Bytes>),
    End,
}

/// The body that an agency system or a register reads.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// More may come.
    Open(mpsc::Receiver<Item>),
    /// All that is left of it.
    Whole(Whole),
    /// It has ended.
    Ended,
}

/// A body that is complete, so that it leaves together with its head.
#[derive(Debug)]
pub(crate) struct Whole {
    data: Bytes,
    trailers: Option<HeaderMap>,
    _leaving: Option<Leaving>,
    /// Whether its reader is told how long it is.
    counted: bool,
}

/// Goes with what is handed out, and is dropped with it.
#[derive(Debug)]
pub(crate) struct Leaving(#[expect(dead_code, reason = "only its end tells something")] oneshot::Sender<()>);

/// Tells when that was taken, or that nobody will.
#[derive(Debug)]
pub(crate) struct Left(oneshot::Receiver<()>);

impl Leaving {
    /// What goes along, and what tells that it has.
    pub(crate) fn new() -> (Self, Left) {
        let (leaving, left) = oneshot::channel();
        (Self(leaving), Left(left))
    }
}

impl Left {
    /// Waits until it was taken, or for long enough: nobody who reads nothing holds a place for ever.
    pub(crate) async fn taken(self) {
        let _ = tokio::time::timeout(LAST, self.0).await;
    }
}

/// Where its pieces are put in.
#[derive(Debug, Clone)]
pub(crate) struct Relay(mpsc::Sender<Item>);

/// Whoever reads the body has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderGone;

impl Relayed {
    /// A body and where its pieces are put in.
    pub(crate) fn new() -> (Relay, Self) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Relay(sender), Self::Open(receiver))
    }

    /// A body of `data`, whose length its reader is told.
    pub(crate) fn counted(data: Bytes) -> Self {
        if data.is_empty() {
            return Self::Ended;
        }
        Self::Whole(Whole { data, trailers: None, _leaving: None, counted: true })
    }

    /// A body of `data` and `trailers`; `leaving` goes with it.
    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>, leaving: Option<Leaving>) -> Self {
        match data.is_empty() && trailers.is_none() {
            true => Self::Ended,
            false => Self::Whole(Whole { data, trailers, _leaving: leaving, counted: false }),
        }
    }
}

/// A body of nothing.
impl Default for Relayed {
    fn default() -> Self {
        Self::Ended
    }
}

impl Relay {
    /// Puts in bytes and waits until there is room.
    pub(crate) async fn data(&self, bytes: Bytes) -> Result<(), ReaderGone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.put(Item::Frame(Frame::data(bytes))).await
    }

    /// Puts in the trailers, which end the body.
    pub(crate) async fn trailers(&self, trailers: HeaderMap) -> Result<(), ReaderGone> {
        self.put(Item::Frame(Frame::trailers(trailers))).await
    }

    /// Ends the body without trailers.
    pub(crate) async fn end(&self) -> Result<(), ReaderGone> {
        self.put(Item::End).await
    }

    /// Waits until the last piece was taken, or for long enough: only then has it left, and its place is free.
    pub(crate) async fn taken(&self) {
        let _ = tokio::time::timeout(LAST, self.0.reserve()).await;
    }

    /// Ends when the reader has gone.
    pub(crate) async fn reader_gone(&self) {
        self.0.closed().await;
    }

    async fn put(&self, item: Item) -> Result<(), ReaderGone> {
        self.0.send(item).await.map_err(|_| ReaderGone)
    }
}

impl Whole {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::take(&mut self.data) {
            data if data.is_empty() => self.trailers.take().map(Frame::trailers),
            data => Some(Frame::data(data)),
        }
    }

    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let receiver = match &mut *self {
            Self::Open(receiver) => receiver,
            Self::Whole(whole) => {
                let frame = whole.next();
                if whole.is_empty() {
                    *self = Self::Ended;
                }
                return Poll::Ready(frame.map(Ok));
            }
            Self::Ended => return Poll::Ready(None),
        };
        let item = std::task::ready!(receiver.poll_recv(context));
        if !matches!(&item, Some(Item::Frame(frame)) if frame.is_data()) {
            *self = Self::Ended;
        }
        Poll::Ready(match item {
            Some(Item::Frame(frame)) => Some(Ok(frame)),
            Some(Item::End) => None,
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Open(_) => SizeHint::default(),
            Self::Whole(Whole { data, counted: true, .. }) => SizeHint::with_exact(data.len() as u64),
            Self::Whole(_) => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_whole_body_gives_its_data_and_its_trailers_and_ends() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let mut body = Relayed::whole(Bytes::from_static(b"all"), Some(trailers.clone()), None);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "all");
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert!(Relayed::whole(Bytes::new(), None, None).is_end_stream());
    }

    #[tokio::test]
    async fn a_body_that_was_not_ended_is_broken_off() {
        let (relay, body) = Relayed::new();
        relay.data(Bytes::from_static(b"half")).await.unwrap();
        drop(relay);
        assert!(body.collect().await.is_err());

        let (relay, mut body) = Relayed::new();
        relay.data(Bytes::from_static(b"whole")).await.unwrap();
        let ending = tokio::spawn(async move { relay.end().await });
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "whole");
        assert!(body.frame().await.is_none());
        ending.await.unwrap().unwrap();
    }
}
