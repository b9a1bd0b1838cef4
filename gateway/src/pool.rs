//! Connections that exchanges share: as many as their streams need. An HTTP/2 connection carries so many streams at a time
//! and no more; what would be one too many waits without a word until another has ended, which a stream that is held open
//! may not do for hours.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A connection that no exchange has used for so long is closed, unless it is the only one.
const UNUSED: Duration = Duration::from_secs(60);

/// The connections to one place.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    lines: Mutex<Vec<Line<C>>>,
    /// Held while one is made, so that one is made at a time.
    making: tokio::sync::Mutex<()>,
    /// Streams at a time on each connection.
    streams: usize,
    /// How long a connection stays that nobody uses.
    unused: Duration,
}

#[derive(Debug)]
struct Line<C> {
    connection: C,
    taken: Arc<AtomicUsize>,
    used: Instant,
}

/// A place for one stream on a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<C> {
    connection: C,
    taken: Arc<AtomicUsize>,
}

impl<C: Clone> Pool<C> {
    /// None yet; each is to carry at most `streams` at a time.
    pub(crate) fn new(streams: usize) -> Self {
        Self { lines: Mutex::default(), making: tokio::sync::Mutex::default(), streams, unused: UNUSED }
    }

    /// A place on a connection that is `good`, or on one that is made now. What is not good any more carries what was
    /// begun on it to its end, and nothing else.
    pub(crate) async fn take<E>(
        &self,
        good: impl Fn(&C) -> bool,
        make: impl AsyncFnOnce() -> Result<C, E>,
    ) -> Result<Taken<C>, E> {
        match self.free(&good) {
            Some(taken) => Ok(taken),
            // On the heap: what is rare does not make every exchange large.
            None => Box::pin(self.made(good, make)).await,
        }
    }

    /// Streams under way on the connections that still stand.
    pub(crate) fn taken(&self) -> usize {
        self.lines().iter().map(|line| line.taken.load(Ordering::Relaxed)).sum()
    }

    async fn made<E>(
        &self,
        good: impl Fn(&C) -> bool,
        make: impl AsyncFnOnce() -> Result<C, E>,
    ) -> Result<Taken<C>, E> {
        let _making = self.making.lock().await;
        if let Some(taken) = self.free(&good) {
            return Ok(taken);
        }
        let connection = make().await?;
        let taken = Arc::new(AtomicUsize::new(1));
        let line = Line { connection: connection.clone(), taken: Arc::clone(&taken), used: Instant::now() };
        self.lines().push(line);
        Ok(Taken { connection, taken })
    }

    /// The first place that is free: the first connections are filled, so that the last fall out of use.
    fn free(&self, good: impl Fn(&C) -> bool) -> Option<Taken<C>> {
        let mut lines = self.lines();
        lines.retain(|line| good(&line.connection));
        let line = lines.iter_mut().find(|line| line.taken.load(Ordering::Relaxed) < self.streams)?;
        line.taken.fetch_add(1, Ordering::Relaxed);
        line.used = Instant::now();
        let taken = Taken { connection: line.connection.clone(), taken: Arc::clone(&line.taken) };
        let last = lines.last().filter(|_| lines.len() > 1);
        if last
            .is_some_and(|last| last.taken.load(Ordering::Relaxed) == 0 && last.used.elapsed() >= self.unused)
        {
            lines.pop();
        }
        Some(taken)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line<C>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Deref for Taken<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Taken<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

impl<C> Drop for Taken<C> {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    async fn take(pool: &Pool<u32>, made: &Cell<u32>, good: impl Fn(&u32) -> bool) -> Taken<u32> {
        let make = async || {
            made.set(made.get() + 1);
            Ok::<_, Infallible>(made.get())
        };
        pool.take(good, make).await.unwrap_or_else(|never| match never {})
    }

    #[tokio::test]
    async fn as_many_connections_as_streams_need_and_the_first_are_filled() {
        let (mut pool, made) = (Pool::new(2), Cell::new(0));
        let mut taken = Vec::new();
        for expected in [1, 1, 2, 2, 3] {
            taken.push(take(&pool, &made, |_| true).await);
            assert_eq!(**taken.last().unwrap(), expected);
        }
        taken.remove(0);
        taken.push(take(&pool, &made, |_| true).await);
        assert_eq!((**taken.last().unwrap(), made.get()), (1, 3), "a place that is free again is taken");

        taken.clear();
        pool.unused = Duration::ZERO;
        for left in [2, 1, 1] {
            drop(take(&pool, &made, |_| true).await);
            assert_eq!(pool.lines().len(), left, "what nobody uses is closed, but for one");
        }
    }

    #[tokio::test]
    async fn what_is_not_good_any_more_is_left_to_what_was_begun_on_it() {
        let (pool, made) = (Pool::new(2), Cell::new(0));
        let begun = take(&pool, &made, |_| true).await;
        let next = take(&pool, &made, |connection| *connection > 1).await;
        assert_eq!((*begun, *next, pool.lines().len()), (1, 2, 1));
    }
}
