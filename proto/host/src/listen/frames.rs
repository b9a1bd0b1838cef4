//! Follows the frames of an HTTP/2 connection as they pass (RFC 9113, section 4.1), and ends one on which too much is said
//! that carries nothing: pings, settings, resets, priorities, windows that grow byte by byte, frames that nobody knows.
//!
//! Each is allowed by itself, and answered or forgotten at little cost; without end they are an attack that costs its
//! sender less than us (section 10.5). What the library limits by itself (requests reset before they were begun, header
//! blocks without end, empty data) is not counted here once more.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{Counts, Limits, Peer};

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Seconds' worth of frames that may come at once.
const AT_ONCE: f64 = 10.0;
/// What a reader says of each piece that it gets: that the window of its stream and that of the connection grow again.
const PER_PIECE: f64 = 2.0;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
/// The flag of DATA and HEADERS with which a side ends its part of a request.
const END_STREAM: u8 = 1;

/// A stream of HTTP/2, behind its preface, whose frames are followed.
pub(super) struct Followed<T> {
    stream: T,
    peer: Peer,
    counts: Arc<Counts>,
    heard: Frames,
    said: Frames,
    budget: Budget,
    standing: Standing,
    begun: bool,
}

impl<T> Followed<T> {
    /// As many frames that carry nothing may come each second as `limits` say. The stream begins with `preface` bytes of
    /// something else.
    pub(super) fn new(
        stream: T,
        (peer, counts): (Peer, Arc<Counts>),
        preface: usize,
        limits: &Limits,
    ) -> Self {
        let heard = Frames { left: preface, ..Frames::default() };
        Self {
            stream,
            peer,
            counts,
            heard,
            said: Frames::default(),
            budget: Budget::new(limits.control_frames),
            standing: Standing::new(limits),
            begun: false,
        }
    }

    fn hear(&mut self, bytes: &[u8], now: Instant) -> io::Result<()> {
        let Self { peer, counts, heard, budget, standing, begun, .. } = self;
        let mut wrong = None;
        heard.follow(bytes, |frame| {
            if !*begun && frame.kind != SETTINGS {
                wrong = Some("the connection does not begin with settings");
            }
            *begun = true;
            let pays = match frame.kind {
                HEADERS => standing.begins(frame.stream, now),
                CONTINUATION => true,
                DATA => frame.length > 0,
                RST_STREAM => standing.is_given_up(frame.stream, now),
                _ => false,
            };
            if !pays && !budget.take(now) {
                wrong = Some("more frames that carry nothing than may come");
            }
        });
        let Some(why) = wrong else { return Ok(()) };
        counts.breaks_off();
        tracing::warn!(%peer, why, "connection broken off");
        Err(io::Error::other(why))
    }

    fn say(&mut self, bytes: &[u8]) {
        let Self { said, budget, standing, .. } = self;
        said.follow(bytes, |frame| {
            let carries = matches!(frame.kind, DATA | HEADERS);
            if carries {
                budget.give(PER_PIECE);
            }
            if frame.kind == RST_STREAM || (carries && frame.flags & END_STREAM != 0) {
                standing.ends(frame.stream);
            }
        });
    }
}

/// Since when the requests stand that are not answered to the end: each pays for its own reset, once, if it did not come at
/// once. So whoever gives calls up is no attacker, and whoever opens and resets without end is (CVE-2023-44487).
#[derive(Debug)]
struct Standing {
    since: HashMap<u32, Instant>,
    /// The last that began: none begins twice.
    last: u32,
    /// Those beyond are reset by the library, and not remembered.
    most: usize,
    stood: Duration,
}

impl Standing {
    fn new(limits: &Limits) -> Self {
        let most = usize::try_from(limits.concurrent_streams).unwrap_or(usize::MAX);
        Self { since: HashMap::new(), last: 0, most, stood: limits.stood }
    }

    /// A request begins, or its trailers come; both carry something.
    fn begins(&mut self, stream: u32, now: Instant) -> bool {
        if stream > self.last {
            self.last = stream;
            if self.since.len() < self.most {
                self.since.insert(stream, now);
            }
        }
        true
    }

    /// A request is reset; whether it has stood for long enough.
    fn is_given_up(&mut self, stream: u32, now: Instant) -> bool {
        self.since.remove(&stream).is_some_and(|since| now.saturating_duration_since(since) >= self.stood)
    }

    /// A request is answered to the end, or reset by this side.
    fn ends(&mut self, stream: u32) {
        self.since.remove(&stream);
    }
}

/// What the head of a frame says.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
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
    /// Calls `each` with every frame whose head is complete with these bytes.
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
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
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                (self.left, self.filled) = (length, 0);
                // Its highest bit means nothing (section 4.1).
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                each(Head { kind, flags, stream, length });
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
        Poll::Ready(self.hear(&buffer.filled()[before..], Instant::now()))
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

    fn followed(per_second: u32) -> Followed<()> {
        let limits = Limits { control_frames: per_second, stood: STOOD, ..Limits::default() };
        Followed::new((), (Peer::Unix(0), Arc::default()), 0, &limits)
    }

    const STOOD: Duration = Duration::from_millis(20);

    fn on(stream: u32, kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
        [head, vec![0; length.into()]].concat()
    }

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        on(0, kind, 0, length)
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let bytes =
            [b"preface".to_vec(), frame(4, 0), frame(0, 200), frame(6, 8), on(259, 1, 5, 30)].concat();
        for step in [1, 2, 8, 9, 10, 17, 1000] {
            let mut frames = Frames { left: 7, ..Frames::default() };
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                frames.follow(piece, |head| seen.push((head.kind, head.length, head.flags, head.stream)));
            }
            assert_eq!(seen, [(4, 0, 0, 0), (0, 200, 0, 0), (6, 8, 0, 0), (1, 30, 5, 259)], "{step}");
        }
    }

    #[test]
    fn what_carries_something_is_not_counted_and_what_is_read_may_be_acknowledged() {
        let (mut followed, now) = (followed(1), Instant::now());
        followed.hear(&frame(SETTINGS, 0), now).unwrap();
        for _ in 0..100 {
            let carries = [frame(HEADERS, 3), frame(DATA, 3), frame(CONTINUATION, 0)].concat();
            followed.hear(&carries, now).unwrap();
            followed.say(&frame(DATA, 3));
            followed.hear(&[frame(8, 4), frame(8, 4)].concat(), now).unwrap();
        }
        let pings = (0..20).map_while(|_| followed.hear(&frame(6, 8), now).ok()).count();
        assert!((8..20).contains(&pings), "{pings} where ten seconds' worth is ten");
        assert!(super::tests::followed(1).hear(&frame(HEADERS, 3), now).is_err(), "settings come first");
    }

    /// How many of 100 requests are reset before the connection is ended, each so long after it began; `then` comes again.
    fn resets(after: Duration, said: Option<u8>, then: bool) -> usize {
        let (mut followed, begun) = (followed(1), Instant::now());
        followed.hear(&frame(SETTINGS, 0), begun).unwrap();
        let reset = |number: u32| {
            let stream = 2 * number + 1;
            followed.hear(&on(stream, HEADERS, 4, 3), begun).ok()?;
            if let Some(kind) = said {
                followed.say(&on(stream, kind, END_STREAM, 4));
            }
            let reset = on(stream, RST_STREAM, 0, 4);
            followed.hear(&reset, begun + after).ok()?;
            if then {
                followed.hear(&reset, begun + after).ok()?;
            }
            Some(())
        };
        (0..100).map_while(reset).count()
    }

    #[test]
    fn a_request_pays_for_its_reset_once_unless_it_comes_at_once() {
        assert_eq!(resets(STOOD, None, false), 100, "callers give up");
        let few = |count: usize| (8..40).contains(&count);
        assert!(few(resets(Duration::ZERO, None, false)), "whoever resets at once is counted");
        assert!(few(resets(STOOD, None, true)), "nothing is reset twice");
        assert!(few(resets(STOOD, Some(RST_STREAM), false)), "nor what was reset by this side");
    }

    #[test]
    fn no_more_is_remembered_than_may_stand() {
        let (mut followed, now) = (followed(1), Instant::now());
        followed.hear(&frame(SETTINGS, 0), now).unwrap();
        for number in 0..10_000 {
            followed.hear(&on(2 * number + 1, HEADERS, 4, 3), now).unwrap();
        }
        assert_eq!(followed.standing.since.len(), 256);
        for number in 0..256 {
            followed.say(&on(2 * number + 1, HEADERS, END_STREAM, 3));
        }
        assert!(followed.standing.since.is_empty());
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
