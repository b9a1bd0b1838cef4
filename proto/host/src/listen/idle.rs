//! When a door is full, the connection on which nothing is asked, and that for the longest time, makes room for the next.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// One connection: how much is asked on it.
#[derive(Debug)]
pub(super) struct Standing {
    asked: AtomicUsize,
    /// Counts up with everything that ends at the door: the lowest has been idle for the longest time.
    since: AtomicU64,
    leave: Notify,
    clock: Arc<AtomicU64>,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Asked(Arc<Standing>);

/// All connections of a door.
#[derive(Debug, Default)]
pub(super) struct Idlers {
    clock: Arc<AtomicU64>,
    all: Mutex<Vec<Weak<Standing>>>,
}

impl Idlers {
    /// A new connection; it is idle from now on.
    pub(super) fn stand(&self) -> Arc<Standing> {
        let since = self.clock.fetch_add(1, Ordering::Relaxed);
        let (asked, since) = (AtomicUsize::new(0), AtomicU64::new(since));
        let clock = Arc::clone(&self.clock);
        let standing = Arc::new(Standing { asked, since, leave: Notify::new(), clock });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == all.capacity() {
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Arc::downgrade(&standing));
        standing
    }

    /// Tells the connection that has been idle for the longest time to leave. False if on each something is asked.
    pub(super) fn send_one_away(&self) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        let idle = all.iter().enumerate().filter_map(|(at, one)| {
            let one = one.upgrade()?;
            (one.asked.load(Ordering::Relaxed) == 0).then(|| (one.since.load(Ordering::Relaxed), at, one))
        });
        let Some((_, at, longest)) = idle.min_by_key(|(since, ..)| *since) else { return false };
        // It is told once.
        all.swap_remove(at);
        longest.leave.notify_one();
        true
    }
}

impl Standing {
    /// A request has begun.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asked(Arc::clone(self))
    }

    /// Whether something is asked on it now.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// Ends when the connection is to make room.
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.since.store(self.0.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(standing: &Standing) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(standing.sent_away()).poll(&mut context).is_ready()
    }

    #[test]
    fn whoever_asked_nothing_for_the_longest_time_leaves_first() {
        let idlers = Idlers::default();
        let [first, second, third] = [(); 3].map(|()| idlers.stand());
        let asked = first.ask();
        drop(second.ask());
        assert!(idlers.send_one_away());
        assert!(left(&third) && !left(&second));
        assert!(idlers.send_one_away() && left(&second));
        assert!(!idlers.send_one_away(), "the first asks something, the others were told");
        drop(asked);
        assert!(idlers.send_one_away() && left(&first));
        drop((first, second, third));
        assert!(!idlers.send_one_away());
    }
}
