//! Writes of a connection, gathered: what its HTTP layer says while it is polled leaves in one piece.
//!
//! HTTP/2's frames of one answer (head, data, trailers) are written one by one, and flushed after each that carries data;
//! over TLS each would be a record, and everywhere a system call that the other side wakes up for. Here they are kept until
//! the connection has been polled, and once more after other tasks had their turn, so that answers which become ready
//! together leave together.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::company::Company;

/// Bytes beyond which a connection writes before it takes more.
const FULL: usize = 64 << 10;
/// A piece of this size is written by itself: copying it would cost more than it saves.
const LARGE: usize = 16 << 10;

/// A stream whose writes are kept until [`Gathered::drive`] lets them go. Reading is as it was.
#[derive(Debug)]
pub(crate) struct Gather<T>(Arc<Mutex<Inner<T>>>);

/// The other end of a [`Gather`]: drives the connection that writes to it.
#[derive(Debug)]
pub(crate) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

/// Executor for a client's connection, which hyper spawns by itself: the first that is to be run is the connection, what
/// comes later its [`Company`].
#[derive(Debug)]
pub(crate) struct Driver<T> {
    gathered: Gathered<T>,
    company: Company,
    begun: Arc<AtomicBool>,
}

/// One task reads and writes, so that nobody ever waits long for the lock.
#[derive(Debug)]
struct Inner<T> {
    stream: T,
    /// The task that writes: nobody else lets go what is kept, or waits in its place until the stream takes it.
    writer: Option<Waker>,
    kept: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// Other tasks have had their turn since something was kept.
    waited: bool,
    failed: Option<io::ErrorKind>,
}

/// A stream that gathers, and what lets it go.
pub(crate) fn gather<T>(stream: T) -> (Gather<T>, Gathered<T>) {
    let inner = Inner { stream, writer: None, kept: Vec::new(), written: 0, waited: false, failed: None };
    let inner = Arc::new(Mutex::new(inner));
    (Gather(Arc::clone(&inner)), Gathered(inner))
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    /// Runs `connection`, which writes to the other end, and writes what it has said after each of its steps.
    pub(crate) async fn drive<F: Future>(&self, connection: F) -> F::Output {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            let polled = connection.as_mut().poll(context);
            let mut inner = lock(&self.0);
            if inner.writer.as_ref().is_some_and(|writer| writer.will_wake(context.waker())) {
                match polled.is_pending() {
                    true => inner.settle(context),
                    // A connection that ended in order has shut the stream down, which writes all; of another the
                    // system takes the rest or not: nobody waits for a reader.
                    false => drop(inner.poll_out(context)),
                }
            }
            polled
        })
        .await
    }
}

impl<T> Driver<T> {
    /// Drives the connection that is written to the other end of `gathered`.
    pub(crate) fn new(gathered: Gathered<T>) -> Self {
        Self { gathered, company: Company::default(), begun: Arc::default() }
    }
}

impl<T, F> hyper::rt::Executor<F> for Driver<T>
where
    T: AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // On the heap at once: a large task would be copied by each of the layers below.
        let task = Box::pin(task);
        if self.begun.swap(true, Ordering::Relaxed) {
            return self.company.join(task);
        }
        let Self { gathered, company, .. } = self.clone();
        tokio::spawn(async move { company.run(gathered.drive(task)).await });
    }
}

impl<T> Clone for Driver<T> {
    fn clone(&self) -> Self {
        let Self { gathered, company, begun } = self;
        Self { gathered: gathered.clone(), company: company.clone(), begun: Arc::clone(begun) }
    }
}

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    /// Writes what is kept, but only after other tasks had a turn.
    fn settle(&mut self, context: &mut Context<'_>) {
        if self.kept.is_empty() {
            return;
        }
        if !self.waited {
            self.waited = true;
            context.waker().wake_by_ref();
            return;
        }
        if let Poll::Ready(Err(_)) = self.poll_out(context) {
            // The connection hears of it at its next step.
            context.waker().wake_by_ref();
        }
    }

    /// Writes all that is kept. An error stays.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = ready!(self.poll_write_kept(context));
        self.kept.clear();
        self.kept.shrink_to(LARGE);
        (self.written, self.waited) = (0, false);
        if let Err(error) = &written {
            self.failed = Some(error.kind());
        }
        Poll::Ready(written)
    }

    fn poll_write_kept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        while self.written < self.kept.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.kept[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *lock(&self.0);
        inner.check()?;
        if !inner.writer.as_ref().is_some_and(|writer| writer.will_wake(context.waker())) {
            inner.writer = Some(context.waker().clone());
        }
        if inner.kept.len() >= FULL {
            ready!(inner.poll_out(context))?;
        }
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if inner.kept.is_empty() && len >= LARGE {
            return Pin::new(&mut inner.stream).poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|slice| inner.kept.extend_from_slice(slice));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is kept leaves when the connection has been polled.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.0).check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *lock(&self.0);
        ready!(inner.poll_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_said_in_one_step_leaves_in_one_piece() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut io, gathered) = gather(near);
        let driven = tokio::spawn(async move {
            gathered
                .drive(async {
                    for piece in [b"head".as_slice(), b"data", b"trailers"] {
                        io.write_all(piece).await.unwrap();
                        io.flush().await.unwrap();
                    }
                    io.read_u8().await.unwrap()
                })
                .await
        });
        let mut first = vec![0; 100];
        let count = far.read(&mut first).await.unwrap();
        assert_eq!(&first[..count], b"headdatatrailers");
        far.write_u8(7).await.unwrap();
        assert_eq!(driven.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn much_is_written_as_it_comes_and_nothing_is_lost_or_reordered() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let (mut io, gathered) = gather(near);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let pieces = sent.clone();
        let driven = tokio::spawn(async move {
            gathered
                .drive(async {
                    let mut rest = &pieces[..];
                    for size in [1, 10, 70_000, 3, 20_000, 5].into_iter().cycle() {
                        let (piece, left) = rest.split_at(size.min(rest.len()));
                        io.write_all(piece).await.unwrap();
                        rest = left;
                        if rest.is_empty() {
                            break;
                        }
                    }
                    io.write_all(b"end").await.unwrap();
                    io.shutdown().await.unwrap();
                })
                .await
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        driven.await.unwrap();
        assert!(received.strip_suffix(b"end").is_some_and(|all| all == sent));
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_an_error_of_the_next_write() {
        let (near, far) = tokio::io::duplex(16);
        drop(far);
        let (mut io, gathered) = gather(near);
        let failed = gathered.drive(async {
            loop {
                if let Err(error) = io.write_all(b"hello").await {
                    return error.kind();
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(failed.await, io::ErrorKind::BrokenPipe);
    }
}
