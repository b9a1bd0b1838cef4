//! Answers that nobody takes are given up: a caller whose HTTP/2 window stays shut, or whose connection takes no bytes,
//! holds what waits for it for a while and not for ever (RFC 9113, section 10.5; "slow read").
//!
//! Answers leave in small pieces, so that at most one of each has left the answer's own task, where it is watched, for the
//! library's queues. The library takes a piece as soon as the window lets a single byte of it through, and an end without
//! asking; so what comes last of a body goes by itself, and waits in the task until all before it was taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Counts;
use super::idle::Asked;

/// The most that leaves at once: as much as a frame of HTTP/2 holds if nothing else was agreed on.
const PIECE: usize = 16 << 10;

/// What is smaller may be left to the library: a connection has no more of these than streams.
const SMALL: usize = 2 << 10;

tokio::task_local! {
    /// Of the request whose task this is.
    static OFFERED: Arc<Offered>;
}

/// How often a piece of the answer was handed out; an odd number while it waits for more from the other side.
#[derive(Debug, Default)]
struct Offered(AtomicU64);

impl Offered {
    /// A piece was handed out: now it is for the reader to take it.
    fn handed_out(&self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store((count | 1) + 1, Ordering::Relaxed);
    }

    /// Nothing is there to be taken.
    fn waits(&self) {
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count | 1, Ordering::Relaxed);
    }

    /// What changes whenever the reader has taken something; none while there is nothing to take.
    fn untaken(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count % 2 == 0 && *count > 0)
    }
}

/// Runs each request of an HTTP/2 connection, and gives up one whose reader takes no piece for `patience`: the library
/// resets its stream then, and drops its body.
#[derive(Clone, Debug)]
pub(super) struct Watching {
    pub(super) patience: Duration,
    pub(super) counts: Arc<Counts>,
}

impl<F> hyper::rt::Executor<F> for Watching
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, request: F) {
        let (offered, patience) = (Arc::<Offered>::default(), self.patience);
        let watched = Watched {
            // On the heap at once: a large task would be copied by each layer of the runtime.
            request: Box::pin(request),
            offered: Arc::clone(&offered),
            untaken: None,
            due: None,
            patience,
            counts: Arc::clone(&self.counts),
        };
        tokio::spawn(OFFERED.scope(offered, watched));
    }
}

struct Watched<F> {
    request: Pin<Box<F>>,
    offered: Arc<Offered>,
    untaken: Option<u64>,
    due: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    counts: Arc<Counts>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.request.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let untaken = self.offered.untaken();
        if untaken != self.untaken {
            self.untaken = untaken;
            let due = Instant::now() + self.patience;
            match (&mut self.due, untaken) {
                (_, None) => {}
                (Some(sleep), Some(_)) => sleep.as_mut().reset(due),
                (none, Some(_)) => *none = Some(Box::pin(sleep_until(due))),
            }
        }
        if self.untaken.is_some()
            && let Some(due) = &mut self.due
        {
            ready!(due.as_mut().poll(context));
            self.counts.breaks_off();
            tracing::info!("an answer is given up: its reader takes nothing of it");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// The body of an answer, in pieces that are told of as they are handed out.
pub(super) struct Taken<B: Body> {
    body: B,
    /// Of the piece that the body gave last.
    rest: Option<B::Data>,
    offered: Option<Arc<Offered>>,
    /// To its end the request is under way.
    _asked: Asked,
}

impl<B: Body> Taken<B> {
    /// Made on the request's task. Where nobody watches, pieces are as large as they come.
    pub(super) fn new(body: B, asked: Asked) -> Self {
        Self { body, rest: None, offered: OFFERED.try_with(Arc::clone).ok(), _asked: asked }
    }

    fn piece(&mut self, mut data: B::Data) -> Frame<Bytes> {
        let left = data.remaining();
        let most = match self.offered {
            None => left,
            // Its last byte waits until the others were taken.
            Some(_) if left > SMALL => PIECE.min(left - 1),
            Some(_) => left,
        };
        let piece = data.copy_to_bytes(most);
        self.rest = data.has_remaining().then_some(data);
        Frame::data(piece)
    }
}

impl<B: Body + Unpin> Body for Taken<B>
where
    B::Data: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = match this.rest.take() {
            Some(rest) => Poll::Ready(Some(Ok(this.piece(rest)))),
            None => Pin::new(&mut this.body).poll_frame(context).map_ok(|frame| match frame.into_data() {
                Ok(data) => this.piece(data),
                Err(frame) => frame.map_data(|_| Bytes::new()),
            }),
        };
        match (&this.offered, &frame) {
            (Some(offered), Poll::Ready(Some(Ok(_)))) => offered.handed_out(),
            (Some(offered), _) => offered.waits(),
            (None, _) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first piece.
        self.body.size_hint()
    }
}

/// A stream that ends when it takes no byte for so long.
pub(super) struct Unblocked<T> {
    stream: T,
    patience: Duration,
    /// Until it has been counted there.
    counts: Option<Arc<Counts>>,
    /// When what waits to be written has waited for too long.
    due: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl<T> Unblocked<T> {
    pub(super) fn new(stream: T, patience: Duration, counts: Arc<Counts>) -> Self {
        Self { stream, patience, counts: Some(counts), due: None, waits: false }
    }

    /// Passes on what a write came to, unless it has waited for too long.
    fn judge<R>(&mut self, written: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        if !std::mem::replace(&mut self.waits, true) {
            let due = Instant::now() + self.patience;
            match &mut self.due {
                Some(sleep) => sleep.as_mut().reset(due),
                none => *none = Some(Box::pin(sleep_until(due))),
            }
        }
        if let Some(due) = &mut self.due {
            ready!(due.as_mut().poll(context));
        }
        // What follows, such as shutting it down, fails in the same way.
        if let Some(counts) = self.counts.take() {
            counts.breaks_off();
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side takes nothing")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Unblocked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Unblocked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(shut, context)
    }
}
