//! The clocks: the machine's own, by which a server lives, and one that tests set by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use trave_proto::clock::{Clock, Sleep, Time};

/// The machine's civil clock.
///
/// A timer of the machine does not notice that its civil clock was set; so a wait looks at the clock again at least
/// every [`SystemClock::RECHECK`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The longest time for which a moved clock, or a machine that slept, stays unnoticed.
    pub const RECHECK: Duration = Duration::from_secs(2);
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where civil time enters")]
    fn now(&self) -> Time {
        let millis = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        };
        Time::from_millis(millis)
    }

    fn sleep_until(&self, time: Time) -> Sleep {
        let clock = *self;
        Box::pin(async move {
            loop {
                let remaining = time.since(clock.now());
                if remaining.is_zero() {
                    return;
                }
                tokio::time::sleep(remaining.min(Self::RECHECK)).await;
            }
        })
    }
}

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<watch::Sender<Time>>);

impl ManualClock {
    /// A clock that shows `time`.
    pub fn new(time: Time) -> Self {
        Self(Arc::new(watch::Sender::new(time)))
    }

    /// Moves the clock forward and wakes whoever waited for a time up to then.
    pub fn advance(&self, duration: Duration) {
        self.0.send_modify(|now| *now = now.plus(duration));
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, time: Time) {
        self.0.send_replace(time);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        *self.0.borrow()
    }

    fn sleep_until(&self, time: Time) -> Sleep {
        let clock = Arc::clone(&self.0);
        Box::pin(async move {
            // The sender lives as long as this future, so the wait cannot end for want of it.
            let _: Result<_, watch::error::RecvError> =
                clock.subscribe().wait_for(|now| *now >= time).await.map(|_| ());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_millis(1_795_288_440_000);

    #[tokio::test]
    async fn a_manual_clock_wakes_its_sleepers_when_it_gets_there() {
        let clock = ManualClock::new(START);
        let sleeper = tokio::spawn(clock.sleep_until(START.plus(Duration::from_secs(60))));
        clock.advance(Duration::from_secs(59));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(5), sleeper).await.unwrap().unwrap();
        assert_eq!(clock.now(), START.plus(Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_sleep_outlives_the_handle_of_its_clock() {
        let clock = ManualClock::new(START);
        let sleep = clock.sleep_until(START.plus(Duration::from_secs(1)));
        drop(clock);
        assert!(tokio::time::timeout(Duration::from_millis(50), sleep).await.is_err());
    }

    #[tokio::test]
    async fn the_system_clock_ends_a_sleep_at_its_time_and_not_before() {
        let until = SystemClock.now().plus(Duration::from_millis(30));
        SystemClock.sleep_until(until).await;
        assert!(SystemClock.now() >= until);
        assert!(until > START, "the machine's clock stands before this test was written");
    }
}
