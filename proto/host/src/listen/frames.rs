//! Follows the frames of an HTTP/2 connection as they pass (RFC 9113, section 4.1), and ends one on which too much is said
//! that carries nothing: pings, settings, resets, priorities, windows that grow byte by byte, frames that nobody knows.
//!
//! Each is allowed by itself, and answered or forgotten at little cost; without end they are an attack that costs its
//! sender less than us (section 10.5). What the library limits by itself (requests reset before they were begun, header
//! blocks without end, empty data) is not counted here once more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Counts, Peer};

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Seconds' worth of frames that may come at once.
const AT_ONCE: f64 = 10.0;
/// What a reader says of each piece that it gets: that the window of its stream and that of the connection grow again.
const PER_PIECE: f64 = 2.0;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// A stream of HTTP/2, behind its preface, whose frames are followed.
pub(super) struct Followed<T> {
    stream: T,
    peer: Peer,
    counts: Arc<Counts>,
    heard: Frames,
    said: Frames,
    budget: Budget,
    begun: bool,
}

impl<T> Followed<T> {
    /// `per_second` frames that carry nothing may come each second. The stream begins with `preface` bytes of something else.
    pub(super) fn new(
        stream: T,
        (peer, counts): (Peer, Arc<Counts>),
        preface: usize,
        per_second: u32,
    ) -> Self {
        let heard = Frames { left: preface, ..Frames::default() };
        Self {
            stream,
            peer,
            counts,
            heard,
            said: Frames::default(),
            budget: Budget::new(per_second),
            begun: false,
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { peer, counts, heard, budget, begun, .. } = self;
        let mut wrong = None;
        heard.follow(bytes, |kind, length| {
            if !*begun && kind != SETTINGS {
                wrong = Some("the connection does not begin with settings");
            }
            *begun = true;
            let carries = matches!(kind, HEADERS | CONTINUATION) || (kind == DATA && length > 0);
            if !carries && !budget.take(Instant::now()) {
                wrong = Some("more frames that carry nothing than may come");
            }
        });
        let Some(why) = wrong else { return Ok(()) };
        counts.breaks_off();
        tracing::warn!(%peer, why, "connection broken off");
        Err(io::Error::other(why))
    }

    fn say(&mut self, bytes: &[u8]) {
        let Self { said, budget, .. } = self;
        said.follow(bytes, |kind, _| {
            if matches!(kind, DATA | HEADERS) {
                budget.give(PER_PIECE);
            }
        });
    }
}

/// Where in a sequence of frames the next byte belongs.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD],
    filled: usize,
    /// Of the frame under way, after its head.
    left: usize,
}

impl Frames {
    /// Calls `each` with type and length of every frame whose head is complete with these bytes.
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8, usize)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                let [a, b, c, kind, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.filled = 0;
                each(kind, self.left);
            }
        }
    }
}

/// What is left to a connection of frames that carry nothing.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: per_second * AT_ONCE, at: Instant::now() }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        if self.left < 1.0 {
            let passed = now.saturating_duration_since(self.at).as_secs_f64();
            self.at = now;
            self.give(passed * self.per_second);
        }
        self.left -= 1.0;
        self.left >= 0.0
    }

    fn give(&mut self, more: f64) {
        self.left = (self.left + more).min(self.per_second * AT_ONCE);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Followed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.hear(&buffer.filled()[before..]))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Followed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.say(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = count;
        for slice in slices {
            let written = left.min(slice.len());
            self.say(&slice[..written]);
            left -= written;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn nobody() -> (Peer, Arc<Counts>) {
        (Peer::Unix(0), Arc::default())
    }

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, 0, 0, 0, 0, 0][..], &vec![0; length.into()]].concat()
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let bytes = [b"preface".to_vec(), frame(4, 0), frame(0, 200), frame(6, 8), frame(1, 30)].concat();
        for step in [1, 2, 8, 9, 10, 17, 1000] {
            let mut frames = Frames { left: 7, ..Frames::default() };
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                frames.follow(piece, |kind, length| seen.push((kind, length)));
            }
            assert_eq!(seen, [(4, 0), (0, 200), (6, 8), (1, 30)], "{step}");
        }
    }

    #[test]
    fn what_carries_something_is_not_counted_and_what_is_read_may_be_acknowledged() {
        let mut followed = Followed::new((), nobody(), 0, 1);
        followed.hear(&frame(SETTINGS, 0)).unwrap();
        for _ in 0..100 {
            followed.hear(&[frame(HEADERS, 3), frame(DATA, 3), frame(CONTINUATION, 0)].concat()).unwrap();
            followed.say(&frame(DATA, 3));
            followed.hear(&[frame(8, 4), frame(8, 4)].concat()).unwrap();
        }
        let pings = (0..20).map_while(|_| followed.hear(&frame(6, 8)).ok()).count();
        assert!((8..20).contains(&pings), "{pings} where ten seconds' worth is ten");
        assert!(Followed::new((), nobody(), 0, 1).hear(&frame(HEADERS, 3)).is_err(), "settings come first");
    }

    #[test]
    fn a_budget_fills_again_and_no_further() {
        let mut budget = Budget::new(2);
        let begun = budget.at;
        let taken = |budget: &mut Budget, now| (0..100).take_while(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, begun), 20);
        budget.left = 0.0;
        assert_eq!(taken(&mut budget, begun + Duration::from_secs(3)), 6);
        budget.left = 0.0;
        assert_eq!(taken(&mut budget, begun + Duration::from_secs(1000)), 20);
    }
}
