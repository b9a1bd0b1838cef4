//! Exchange ids that were seen: within the window of five minutes none begins twice, whoever brings it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::identifier::{ExchangeId, ServerId};

/// Each security server may fill this part of the set, so that none can close it to the others.
const SHARE: usize = 4;

/// Why an exchange does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplayError {
    /// It began before.
    #[error("an exchange of this id was seen before")]
    Seen,
    /// Its time lies outside the window.
    #[error("the exchange id's time lies more than five minutes from this server's")]
    Time,
    /// The security server's share of the set is full.
    #[error("this security server began more exchanges within the window than are remembered")]
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
    /// By the second of their time, so that the old ones go together; with who brought them.
    by_second: BTreeMap<i64, Vec<(ExchangeId, ServerId)>>,
    counts: HashMap<ServerId, usize>,
}

impl ReplayGuard {
    /// Remembers at most `capacity` ids.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, seen: Mutex::default() }
    }

    /// Admits an id once, on the account of the security server that made it.
    pub(crate) fn admit(&self, id: ExchangeId, maker: &ServerId, now: Time) -> Result<(), ReplayError> {
        if id.time() > now.plus(TOLERANCE) || id.time() < now.minus(TOLERANCE) {
            return Err(ReplayError::Time);
        }
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.forget_before(now.minus(TOLERANCE));
        if seen.ids.contains(&id) {
            return Err(ReplayError::Seen);
        }
        let count = seen.counts.get(maker).copied().unwrap_or(0);
        if count >= self.capacity.div_ceil(SHARE) || seen.ids.len() >= self.capacity {
            return Err(ReplayError::Full);
        }
        seen.ids.insert(id);
        seen.counts.insert(maker.clone(), count + 1);
        seen.by_second.entry(id.time().as_secs()).or_default().push((id, maker.clone()));
        Ok(())
    }
}

impl Seen {
    fn forget_before(&mut self, time: Time) {
        while let Some(oldest) = self.by_second.first_entry().filter(|oldest| *oldest.key() < time.as_secs())
        {
            for (id, maker) in oldest.remove() {
                self.ids.remove(&id);
                match self.counts.get_mut(&maker) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(self.counts.remove(&maker)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Time = Time::from_millis(1_795_288_440_000);

    fn server(name: &str) -> ServerId {
        format!("NORD/SH/luebeck/{name}").parse().unwrap()
    }

    #[test]
    fn an_id_begins_once_within_the_window_whoever_brings_it() {
        let guard = ReplayGuard::new(100);
        let first = ExchangeId::new(NOW, &[1; 10]);
        assert_eq!(guard.admit(first, &server("s1"), NOW), Ok(()));
        assert_eq!(guard.admit(first, &server("s1"), NOW), Err(ReplayError::Seen));
        assert_eq!(guard.admit(first, &server("s2"), NOW.plus(TOLERANCE)), Err(ReplayError::Seen));
        let later = NOW.plus(TOLERANCE).plus(Duration::from_secs(2));
        assert_eq!(guard.admit(first, &server("s1"), later), Err(ReplayError::Time));
        // The window has moved on: what is outside it is forgotten, and refused by its time.
        assert_eq!(guard.admit(ExchangeId::new(later, &[4; 10]), &server("s1"), later), Ok(()));
        assert_eq!(guard.seen.lock().unwrap().ids.len(), 1);
        assert_eq!(guard.seen.lock().unwrap().counts[&server("s1")], 1);
    }

    #[test]
    fn one_server_cannot_close_the_set_to_others() {
        let guard = ReplayGuard::new(8);
        let id = |random| ExchangeId::new(NOW, &[random; 10]);
        assert_eq!(guard.admit(id(1), &server("greedy"), NOW), Ok(()));
        assert_eq!(guard.admit(id(2), &server("greedy"), NOW), Ok(()));
        assert_eq!(guard.admit(id(3), &server("greedy"), NOW), Err(ReplayError::Full));
        assert_eq!(guard.admit(id(3), &server("modest"), NOW), Ok(()));
    }
}
