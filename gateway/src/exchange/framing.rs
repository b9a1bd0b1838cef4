//! Cuts a body into the pieces that become messages: one per gRPC message, at most [`MAX_BODY`] bytes each.
//!
//! gRPC frames are kept as they are, prefix included (gRPC over HTTP/2, "Length-Prefixed-Message"): the other side
//! forwards the same bytes, and no schema need be known.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, timeout_at};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::MAX_BODY;

use crate::config::Limits;

/// How long the first message waits for the end of its direction, so as to be signed together with it.
const WAIT_FOR_END: Duration = Duration::from_millis(1);
/// How long a head waits for the first piece of its body: few streams begin with an answer to a head alone, and each such
/// head is a message more, to be signed and made durable.
pub(crate) const WAIT_FOR_FIRST: Duration = Duration::from_millis(10);
/// So many bytes of a message that has begun come in time, or it is given up.
const COMING: usize = 4 << 10;
/// gRPC's prefix: one byte for compression, four for the length.
const PREFIX: usize = 5;

/// A piece of a body that becomes one message.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Bytes, none where only the end is told.
    pub(crate) body: Bytes,
    /// Whether the direction ends here.
    pub(crate) end: bool,
    /// Trailers, where the direction ends with some.
    pub(crate) trailers: Option<HeaderMap>,
}

/// How large a body may be, and how slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The most bytes of one gRPC message.
    message: u64,
    /// The most bytes in all.
    body: u64,
    /// The most bytes of the head of a request, as it crosses between security servers.
    pub(crate) head: usize,
    /// In which the next [`COMING`] bytes of what has begun must come.
    pub(crate) slow: Duration,
}

impl Bounds {
    /// As configured.
    pub(crate) fn of(limits: &Limits) -> Self {
        let body = limits.body_mib.map_or(u64::MAX, |mib| mib << 20);
        let head = usize::try_from(limits.head_kib << 10).unwrap_or(usize::MAX);
        Self { message: limits.message_mib << 20, body, head, slow: limits.slow() }
    }
}

/// Why a body is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// Whoever sends it broke off.
    #[error("the body broke off")]
    Broken,
    /// It came too slowly.
    #[error("what had begun came more slowly than {COMING} bytes in {} seconds", .0.as_secs())]
    Slow(Duration),
    /// A gRPC message says that it is longer than one may be.
    #[error("a message is longer than the {0} bytes that one may have")]
    Message(u64),
    /// There is more of it than may be.
    #[error("the body is longer than the {0} bytes that one may have")]
    Body(u64),
}

impl Cut {
    /// What the caller is told; `broken` if it broke off.
    pub(crate) fn fault(self, side: Side, broken: impl FnOnce() -> Fault) -> Fault {
        let reason = match self {
            Self::Broken => return broken(),
            Self::Slow(_) => Reason::DeadlineExceeded,
            Self::Message(_) | Self::Body(_) => Reason::TooLarge,
        };
        Fault::before_call(reason, side, self.to_string())
    }
}

/// How a body's bytes are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// gRPC: a piece ends where a gRPC message ends.
    Grpc,
    /// Anything else: a piece is what is there.
    Raw,
}

impl Framing {
    /// gRPC where the content type says so.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(http::header::CONTENT_TYPE).map(|value| value.as_bytes());
        match value {
            Some(value) if value.starts_with(b"application/grpc") => Self::Grpc,
            _ => Self::Raw,
        }
    }
}

/// Reads a body piece by piece, holding at most one frame beyond the piece in hand.
pub(crate) struct Pieces<B> {
    body: B,
    framing: Framing,
    /// Received and not yet handed out.
    held: BytesMut,
    /// Bytes of the gRPC message under way that have not been handed out yet.
    rest_of_message: usize,
    /// A whole piece that waits for the end of the body to be signed together with it.
    waiting: Option<(Bytes, Instant)>,
    first: bool,
    done: bool,
    /// How the body ended, where that was read already: perhaps with trailers, or with a failure.
    over: Option<Result<Option<HeaderMap>, Cut>>,
    bounds: Bounds,
    /// Bytes in all.
    read: u64,
    /// How much came of what has begun since enough of it had come, and how long that was waited for. Time in which nobody
    /// waits, as nobody has taken the piece before, does not count: nothing could come.
    came: usize,
    waited: Duration,
}

impl<B: Body<Data = Bytes> + Unpin> Pieces<B> {
    pub(crate) fn new(body: B, framing: Framing, bounds: Bounds) -> Self {
        let held = BytesMut::new();
        Self {
            body,
            framing,
            held,
            rest_of_message: 0,
            waiting: None,
            first: true,
            done: false,
            over: None,
            bounds,
            read: 0,
            came: 0,
            waited: Duration::ZERO,
        }
    }

    /// Reads on while `busy` runs, as far as one message goes. A body without limits of its own is cut where it pauses: what
    /// comes while a message is signed or made durable goes into the next one, instead of into many small ones.
    ///
    /// `busy` is pinned by who calls: handed over, it would stand once more in each future on the way.
    pub(crate) fn gather_while<F: Future>(
        &mut self,
        mut busy: Pin<&mut F>,
    ) -> impl Future<Output = F::Output> {
        std::future::poll_fn(move |context| {
            let ready = busy.as_mut().poll(context);
            if ready.is_pending() && self.framing == Framing::Raw && !self.done {
                self.gather(context);
            }
            ready
        })
    }

    /// Takes what has come, and is woken by what comes next.
    fn gather(&mut self, context: &mut Context<'_>) {
        while self.over.is_none() && self.held.len() < MAX_BODY {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else { return };
            self.take(frame);
        }
    }

    /// The next piece; none after the one with the end. What was read is kept if this is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Cut> {
        if self.done {
            return Ok(None);
        }
        loop {
            if self.framing == Framing::Raw && self.waiting.is_none() && !self.held.is_empty() {
                // What has come already goes into one message: fewer signatures for the same bytes.
                std::future::poll_fn(|context| {
                    self.gather(context);
                    Poll::Ready(())
                })
                .await;
            }
            if self.waiting.is_none()
                && let Some(body) = self.cut()?
            {
                let wait = if std::mem::take(&mut self.first) { WAIT_FOR_END } else { Duration::ZERO };
                self.waiting = Some((body, Instant::now() + wait));
            }
            // What came before a failure passes.
            if self.waiting.is_some() && (!self.held.is_empty() || matches!(self.over, Some(Err(_)))) {
                return Ok(Some(self.piece()));
            }
            if self.over.is_none() && self.body.is_end_stream() {
                self.over = Some(Ok(None));
            }
            if let Some(over) = self.over.take() {
                let trailers = over?;
                self.done = true;
                return Ok(Some(Piece { end: true, trailers, ..self.piece() }));
            }
            let frame = match &self.waiting {
                None if self.has_begun() => self.wait().await?,
                None => self.body.frame().await,
                Some((_, until)) => match timeout_at(*until, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Ok(Some(self.piece())),
                },
            };
            self.take(frame);
        }
    }

    /// Waits for what comes next of something that has begun, as long as is left of its time.
    async fn wait(&mut self) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Cut> {
        let begun = Instant::now();
        let due = begun + self.bounds.slow.saturating_sub(self.waited);
        let frame = timeout_at(due, self.body.frame()).await.map_err(|_| Cut::Slow(self.bounds.slow))?;
        self.waited += begun.elapsed();
        Ok(frame)
    }

    /// The piece that waited, or at the end whatever is left: an incomplete gRPC message passes as it came, for the
    /// receiver to judge.
    fn piece(&mut self) -> Piece {
        let body = match self.waiting.take() {
            Some((body, _)) => body,
            None => self.held.split().freeze(),
        };
        Piece { body, ..Piece::default() }
    }

    /// Takes what came: a frame's bytes, or how the body is over.
    fn take<E>(&mut self, frame: Option<Result<Frame<Bytes>, E>>) {
        match frame.transpose() {
            Ok(Some(frame)) => match frame.into_data() {
                Ok(data) => self.hold(&data),
                Err(frame) => self.over = frame.into_trailers().ok().map(|trailers| Ok(Some(trailers))),
            },
            Ok(None) => self.over = Some(Ok(None)),
            Err(_) => self.over = Some(Err(Cut::Broken)),
        }
    }

    fn hold(&mut self, data: &Bytes) {
        // What begins now has its time from now on.
        let begins = !self.has_begun();
        self.read = self.read.saturating_add(data.len() as u64);
        self.came += data.len();
        if self.read > self.bounds.body {
            self.over = Some(Err(Cut::Body(self.bounds.body)));
            return;
        }
        self.held.extend_from_slice(data);
        if begins || self.came >= COMING {
            self.comes_on();
        }
    }

    /// Whether something has begun whose end is still to come: a gRPC message, or a body of a length that was said.
    fn has_begun(&self) -> bool {
        match self.framing {
            Framing::Grpc => !self.held.is_empty() || self.rest_of_message > 0,
            Framing::Raw => self.body.size_hint().exact().is_some_and(|left| left > 0),
        }
    }

    fn comes_on(&mut self) {
        (self.came, self.waited) = (0, Duration::ZERO);
    }

    /// Cuts the next whole piece off what is held.
    fn cut(&mut self) -> Result<Option<Bytes>, Cut> {
        if self.framing == Framing::Raw {
            let len = self.held.len().min(MAX_BODY);
            return Ok((len > 0).then(|| self.held.split_to(len).freeze()));
        }
        if self.rest_of_message == 0 {
            let Some(mut prefix) = self.held.get(..PREFIX) else { return Ok(None) };
            prefix.advance(1);
            let len = prefix.get_u32();
            if u64::from(len) > self.bounds.message {
                return Err(Cut::Message(self.bounds.message));
            }
            self.rest_of_message = PREFIX + len as usize;
        }
        let len = self.rest_of_message.min(MAX_BODY);
        if self.held.len() < len {
            return Ok(None);
        }
        self.rest_of_message -= len;
        if self.rest_of_message == 0 {
            // The next message has its own time.
            self.comes_on();
        }
        Ok(Some(self.held.split_to(len).freeze()))
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
