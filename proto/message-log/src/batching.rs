//! One rule by which work is gathered into batches: wait so little that nobody notices, and only when others are at work.
//!
//! At most two exchanges in flight: go at once. Otherwise wait until a quarter of those in flight are queued, or until
//! the oldest has waited for the given time. Without the small wait every batch holds whatever came during the last
//! one, which is little; with it a batch holds several times as much at the same latency.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many exchanges are in flight. One gauge is shared by all that gather batches for them.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicUsize>);

/// One exchange in flight, until dropped.
#[derive(Debug)]
#[must_use = "the exchange counts as in flight until this is dropped"]
pub struct InFlight(Gauge);

impl Gauge {
    /// Counts one exchange more, until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.0.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Exchanges in flight now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bounds of a queue and of its batches.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest time that the oldest item waits for others.
    pub wait: Duration,
    /// Most items queued, and most in a batch.
    pub items: usize,
    /// Most bytes queued.
    pub queued_bytes: usize,
    /// A batch ends with the item that reaches this many bytes.
    pub batch_bytes: usize,
}

/// Why an item was not queued; it is given back.
#[derive(Debug)]
pub enum NotQueued<T> {
    /// The queue holds as much as it may.
    Full(T),
    /// The queue was closed.
    Closed(T),
}

/// A bounded queue, filled from anywhere without waiting, emptied in batches by one thread.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    gauge: Gauge,
    limits: Limits,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<Queued<T>>,
    bytes: usize,
    /// The consumer waits for a first item or for a batch.
    waiting: bool,
    closed: bool,
}

#[derive(Debug)]
struct Queued<T> {
    item: T,
    bytes: usize,
    since: Instant,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(gauge: Gauge, limits: Limits) -> Self {
        let inner = Inner { items: VecDeque::new(), bytes: 0, waiting: false, closed: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), gauge, limits }
    }

    /// The gauge by which this queue decides how long to wait.
    pub const fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Queues an item that counts as `bytes`. Never waits. One item always fits into an empty queue, however large.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), NotQueued<T>> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(NotQueued::Closed(item));
        }
        let full = inner.items.len() >= self.limits.items
            || inner.bytes.saturating_add(bytes) > self.limits.queued_bytes;
        if full && !inner.items.is_empty() {
            return Err(NotQueued::Full(item));
        }
        inner.bytes += bytes;
        inner.items.push_back(Queued { item, bytes, since: Instant::now() });
        // The consumer is woken for the first item, which starts its wait, and when the batch is due; not for each.
        if inner.waiting && (inner.items.len() == 1 || self.is_due(&inner)) {
            inner.waiting = false;
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The next batch, in the order of queueing; waits for it. None once the queue is closed and empty.
    pub fn next_batch(&self) -> Option<Vec<T>> {
        let mut inner = self.lock();
        loop {
            let now = Instant::now();
            let left = match inner.items.front() {
                None if inner.closed => return None,
                None => None,
                Some(oldest) => {
                    let left = self.limits.wait.saturating_sub(now.saturating_duration_since(oldest.since));
                    if inner.closed || left.is_zero() || self.is_due(&inner) {
                        return Some(self.take(&mut inner));
                    }
                    Some(left)
                }
            };
            inner.waiting = true;
            inner = match left {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.changed.wait_timeout(inner, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            inner.waiting = false;
        }
    }

    /// Refuses what comes; what is queued is still given out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_due(&self, inner: &Inner<T>) -> bool {
        let in_flight = self.gauge.count();
        in_flight <= 2
            || inner.items.len() * 4 >= in_flight
            || inner.items.len() >= self.limits.items
            || inner.bytes >= self.limits.batch_bytes
    }

    fn take(&self, inner: &mut Inner<T>) -> Vec<T> {
        let (mut batch, mut bytes) = (Vec::with_capacity(inner.items.len()), 0);
        while bytes < self.limits.batch_bytes {
            let Some(queued) = inner.items.pop_front() else { break };
            bytes += queued.bytes;
            batch.push(queued.item);
        }
        inner.bytes -= bytes;
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No code that can panic runs under this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(wait: Duration) -> Limits {
        Limits { wait, items: 8, queued_bytes: 100, batch_bytes: 40 }
    }

    #[test]
    fn few_in_flight_go_at_once_and_many_are_waited_for() {
        let queue = Arc::new(Queue::new(Gauge::default(), limits(Duration::from_secs(60))));
        queue.push(1, 1).unwrap();
        assert_eq!(queue.next_batch(), Some(vec![1]));
        let _in_flight: Vec<_> = (0..12).map(|_| queue.gauge().enter()).collect();
        let consumer = std::thread::spawn({
            let queue = queue.clone();
            move || queue.next_batch()
        });
        for item in [1, 2, 3] {
            assert!(!consumer.is_finished(), "a quarter of twelve is three");
            queue.push(item, 1).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(consumer.join().unwrap(), Some(vec![1, 2, 3]));
    }

    #[test]
    fn nobody_waits_longer_than_the_limit() {
        let queue = Queue::new(Gauge::default(), limits(Duration::from_millis(5)));
        let _in_flight: Vec<_> = (0..100).map(|_| queue.gauge().enter()).collect();
        let start = Instant::now();
        queue.push(1, 1).unwrap();
        assert_eq!(queue.next_batch(), Some(vec![1]));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn queue_and_batches_are_bounded() {
        let queue = Queue::new(Gauge::default(), limits(Duration::ZERO));
        queue.push(0, 1_000).unwrap();
        assert!(matches!(queue.push(1, 1), Err(NotQueued::Full(1))), "bytes");
        assert_eq!(queue.next_batch(), Some(vec![0]), "one item always fits");
        for item in 0..8 {
            queue.push(item, 10).unwrap();
        }
        assert!(matches!(queue.push(8, 1), Err(NotQueued::Full(8))), "items");
        assert_eq!(queue.next_batch(), Some(vec![0, 1, 2, 3]));
        queue.close();
        assert!(matches!(queue.push(9, 1), Err(NotQueued::Closed(9))));
        assert_eq!(queue.next_batch(), Some(vec![4, 5, 6, 7]));
        assert_eq!(queue.next_batch(), None);
    }

    #[test]
    fn nothing_is_lost_or_reordered_between_threads() {
        let queue = Arc::new(Queue::new(Gauge::default(), limits(Duration::from_micros(100))));
        let consumer = std::thread::spawn({
            let queue = queue.clone();
            move || std::iter::from_fn(|| queue.next_batch()).flatten().collect::<Vec<_>>()
        });
        let _in_flight: Vec<_> = (0..40).map(|_| queue.gauge().enter()).collect();
        for item in 0..2_000 {
            let mut item = item;
            while let Err(NotQueued::Full(back)) = queue.push(item, 3) {
                item = back;
                std::thread::yield_now();
            }
        }
        queue.close();
        assert_eq!(consumer.join().unwrap(), (0..2_000).collect::<Vec<_>>());
    }
}
