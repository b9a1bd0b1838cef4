//! How much of what a grant allows is used: calls by its rate, and exchanges under way.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trave_proto::access::{Rate, Terms};

/// What of a grant is used. It is not kept over a restart.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// When the bucket of calls will be full again; as a single time it is both the tokens and their clock.
    full_at: Mutex<Option<Instant>>,
    under_way: Arc<AtomicU32>,
}

/// An exchange that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicU32>);

/// More than is granted.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Exceeded {
    /// The rate is used up for so long.
    Rate(Duration),
    /// As many exchanges as are granted at a time are under way.
    Exchanges,
}

impl Allowance {
    /// Takes a place and one call, or neither.
    pub(super) fn take(&self, terms: &Terms, now: Instant) -> Result<Place, Exceeded> {
        let most = terms.exchanges.map_or(u32::MAX, std::num::NonZeroU32::get);
        let more = |count: u32| (count < most).then(|| count + 1);
        let entered = self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.map_err(|_| Exceeded::Exchanges)?;
        let place = Place(Arc::clone(&self.under_way));
        if let Some(rate) = &terms.rate {
            self.call(rate, now).map_err(Exceeded::Rate)?;
        }
        Ok(place)
    }

    /// How long the next call has to wait.
    pub(super) fn wait(&self, rate: &Rate, now: Instant) -> Duration {
        let full_at = *self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        wait(rate, full_at, now)
    }

    fn call(&self, rate: &Rate, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        match wait(rate, *full_at, now) {
            Duration::ZERO => {
                *full_at = Some(full_at.map_or(now, |at| at.max(now)) + each(rate));
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

/// The time that one call takes from the bucket.
fn each(rate: &Rate) -> Duration {
    rate.period / rate.calls
}

fn wait(rate: &Rate, full_at: Option<Instant>, now: Instant) -> Duration {
    let used = full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
    used.saturating_sub(each(rate) * (rate.burst - 1))
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trave_proto::schema::log::{GrantChange, RateLimit};

    fn terms(rate_limit: Option<RateLimit>, exchanges: u32) -> Terms {
        let change = GrantChange {
            client: "NORD/SH/luebeck".into(),
            service: "NORD/MV/gewerberegister/register/auskunft".into(),
            method: "/*".into(),
            purposes: vec!["x".into()],
            legal_bases: vec!["x".into()],
            rate_limit,
            exchanges,
            ..GrantChange::default()
        };
        Terms::parse(&change).unwrap()
    }

    #[test]
    fn a_rate_allows_its_burst_at_once_and_then_one_after_another() {
        let terms = terms(Some(RateLimit { calls: 10, period_ms: 1_000, burst: 3 }), 0);
        let (allowance, begin) = (Allowance::default(), Instant::now());
        let take = |millis| allowance.take(&terms, begin + Duration::from_millis(millis)).err();
        let refused = |millis| Some(Exceeded::Rate(Duration::from_millis(millis)));
        assert_eq!([take(0), take(0), take(0), take(0)], [None, None, None, refused(100)]);
        assert_eq!(take(40), refused(60), "a refusal uses nothing up");
        assert_eq!([take(100), take(100)], [None, refused(100)]);
        // After a pause there is the burst again, and no more.
        assert_eq!([take(9_000), take(9_000), take(9_000), take(9_000)], [None, None, None, refused(100)]);
        assert_eq!(
            allowance.wait(terms.rate.as_ref().unwrap(), begin + Duration::from_millis(9_001)),
            Duration::from_millis(99)
        );
    }

    #[test]
    fn over_a_long_time_no_more_than_the_rate_passes() {
        let terms = terms(Some(RateLimit { calls: 7, period_ms: 1_000, burst: 1 }), 0);
        let (allowance, begin) = (Allowance::default(), Instant::now());
        let passed = (0..10_000)
            .filter(|millis| allowance.take(&terms, begin + Duration::from_millis(*millis)).is_ok())
            .count();
        assert!((69..=70).contains(&passed), "{passed}");
    }

    #[test]
    fn a_place_is_given_back_and_a_refusal_takes_none() {
        let terms = terms(Some(RateLimit { calls: 1, period_ms: 1_000, burst: 3 }), 2);
        let (allowance, now) = (Allowance::default(), Instant::now());
        let first = allowance.take(&terms, now).unwrap();
        let _second = allowance.take(&terms, now).unwrap();
        assert_eq!(allowance.take(&terms, now).unwrap_err(), Exceeded::Exchanges);
        drop(first);
        let third = allowance.take(&terms, now).unwrap();
        drop(third);
        assert!(matches!(allowance.take(&terms, now), Err(Exceeded::Rate(_))));
        assert_eq!(allowance.under_way.load(Ordering::Relaxed), 1);
    }
}
