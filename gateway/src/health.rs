//! How somebody whom this server calls has done of late: one that fails is left alone for a time, longer each time it fails
//! again, and is then tried by one call before the others follow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

/// For how long one is left alone: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the one call has that tries it afterwards, before another one may.
const TRIAL: Duration = Duration::from_secs(10);

/// What is known of one of several who can do the same.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether anything is amiss: where nothing is, no exchange waits for the rest.
    amiss: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// How often it failed since it last did what it should.
    failures: u32,
    /// Until when it is left alone, or its trial lasts.
    until: Option<Instant>,
    trial: bool,
    /// When it first failed since then.
    since: Option<Instant>,
}

impl Health {
    /// For how long it is still left alone; zero where it may be called like any other.
    pub(crate) fn ejected_for(&self, now: Instant) -> Duration {
        match self.amiss.load(Ordering::Relaxed) {
            true => self.state().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            false => Duration::ZERO,
        }
    }

    /// How often it failed since it last did what it should.
    pub(crate) fn failures(&self) -> u32 {
        self.state().failures
    }

    /// For how long it has done nothing well; zero where nothing failed.
    pub(crate) fn failing_for(&self, now: Instant) -> Duration {
        self.state().since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// It was chosen for a call. Where its time alone is over, this call tries it, and others wait for what becomes of it.
    pub(crate) fn chosen(&self, now: Instant) {
        if !self.amiss.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        if state.until.is_some_and(|until| until <= now) {
            *state = State { until: Some(now + TRIAL), trial: true, ..*state };
        }
    }

    /// It can be reached. Whether it does what it should is not known by that.
    pub(crate) fn reached(&self) {
        if self.amiss.load(Ordering::Relaxed) {
            let mut state = self.state();
            *state = State { until: None, trial: false, ..*state };
        }
    }

    /// It did what it should. An answer to what was begun before it failed says nothing of now.
    pub(crate) fn did_well(&self) {
        if self.amiss.load(Ordering::Relaxed) {
            let mut state = self.state();
            if state.until.is_none() {
                *state = State::default();
                self.amiss.store(false, Ordering::Relaxed);
            }
        }
    }

    /// It failed. What fails because it is known to have failed, as all calls of a connection that broke, counts once.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.state();
        if state.until.is_some_and(|until| until > now) && !state.trial {
            return;
        }
        let failures = state.failures.saturating_add(1);
        let since = state.since.or(Some(now));
        *state = State { failures, until: Some(now + pause(failures, random())), trial: false, since };
        self.amiss.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubles with each failure, up or down by a quarter, so that not all who wait come back at once.
fn pause(failures: u32, random: u8) -> Duration {
    let doubled = PAUSES.0.saturating_mul(1 << (failures.saturating_sub(1)).min(10));
    let (base, random) = (doubled.min(PAUSES.1), u32::from(random));
    base * 3 / 4 + base * random / (2 * u32::from(u8::MAX))
}

/// Half of the way where the system gives nothing.
fn random() -> u8 {
    let mut byte = [u8::MAX / 2];
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER_ALL: Duration = Duration::from_secs(100);

    #[test]
    fn who_fails_again_is_left_alone_longer_up_to_a_limit() {
        for (failures, base) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let base = Duration::from_secs(base);
            assert_eq!(pause(failures, 0), base * 3 / 4, "{failures}");
            assert_eq!(pause(failures, u8::MAX), base * 5 / 4, "{failures}");
        }
    }

    #[test]
    fn all_that_breaks_at_once_is_one_failure() {
        let (health, now) = (Health::default(), Instant::now());
        assert_eq!(health.ejected_for(now), Duration::ZERO);
        for _ in 0..200 {
            health.failed(now);
        }
        assert_eq!((health.failures(), health.failing_for(now + AFTER_ALL)), (1, AFTER_ALL));
        assert!(health.ejected_for(now) > Duration::ZERO);
        assert_eq!(health.ejected_for(now + AFTER_ALL), Duration::ZERO);
    }

    #[test]
    fn one_call_tries_it_before_the_others_follow() {
        let (health, begun) = (Health::default(), Instant::now());
        health.failed(begun);
        let later = begun + AFTER_ALL;
        health.chosen(later);
        assert!(health.ejected_for(later) > Duration::ZERO, "others stay away while it is tried");
        health.failed(later);
        assert_eq!(health.failures(), 2);

        let later = later + AFTER_ALL;
        health.chosen(later);
        health.reached();
        assert_eq!((health.ejected_for(later), health.failures()), (Duration::ZERO, 2));
        health.failed(later);
        assert_eq!(
            health.failures(),
            3,
            "who is reached and does nothing well is left alone longer all the same"
        );
        health.did_well();
        assert_eq!(health.failures(), 3, "an answer to what was begun before says nothing of now");
        health.reached();
        health.did_well();
        assert_eq!((health.ejected_for(later), health.failures()), (Duration::ZERO, 0));
    }
}
