//! Exchange ids that were seen: within the window of five minutes none begins twice.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::identifier::ExchangeId;

/// Why an exchange does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplayError {
    /// It began before.
    #[error("an exchange of this id was seen before")]
    Seen,
    /// Its time lies outside the window.
    #[error("the exchange id's time lies more than five minutes from this server's")]
    Time,
    /// The set is full.
    #[error("more exchanges began within the window than this server remembers")]
    Full,
}

/// The ids inside the window, bounded. Refilled from the log's tail at start.
#[derive(Debug)]
pub(crate) struct ReplayGuard {
    capacity: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<ExchangeId>,
    /// By the second of their time, so that the old ones go together.
    by_second: BTreeMap<i64, Vec<ExchangeId>>,
}

impl ReplayGuard {
    /// Remembers at most `capacity` ids.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, seen: Mutex::default() }
    }

    /// Admits an id once.
    pub(crate) fn admit(&self, id: ExchangeId, now: Time) -> Result<(), ReplayError> {
        if id.time() > now.plus(TOLERANCE) || id.time() < now.minus(TOLERANCE) {
            return Err(ReplayError::Time);
        }
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.forget_before(now.minus(TOLERANCE));
        if seen.ids.contains(&id) {
            return Err(ReplayError::Seen);
        }
        if seen.ids.len() >= self.capacity {
            return Err(ReplayError::Full);
        }
        seen.ids.insert(id);
        seen.by_second.entry(id.time().as_secs()).or_default().push(id);
        Ok(())
    }
}

impl Seen {
    fn forget_before(&mut self, time: Time) {
        while let Some(oldest) = self.by_second.first_entry().filter(|oldest| *oldest.key() < time.as_secs())
        {
            for id in oldest.remove() {
                self.ids.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Time = Time::from_millis(1_795_288_440_000);

    #[test]
    fn an_id_begins_once_within_the_window() {
        let guard = ReplayGuard::new(2);
        let first = ExchangeId::new(NOW, &[1; 10]);
        assert_eq!(guard.admit(first, NOW), Ok(()));
        assert_eq!(guard.admit(first, NOW), Err(ReplayError::Seen));
        assert_eq!(guard.admit(first, NOW.plus(TOLERANCE)), Err(ReplayError::Seen));
        let later = NOW.plus(TOLERANCE).plus(Duration::from_secs(2));
        assert_eq!(guard.admit(first, later), Err(ReplayError::Time));
        assert_eq!(guard.admit(ExchangeId::new(NOW, &[2; 10]), NOW), Ok(()));
        assert_eq!(guard.admit(ExchangeId::new(NOW, &[3; 10]), NOW), Err(ReplayError::Full));
        // The window has moved on: what is outside it is forgotten, and refused by its time.
        assert_eq!(guard.admit(ExchangeId::new(later, &[4; 10]), later), Ok(()));
        assert_eq!(guard.seen.lock().unwrap().ids.len(), 1);
    }
}
