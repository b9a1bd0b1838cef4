//! What other servers said that they hold of an hour, before they were told more than that this log holds something else. Who
//! has not said it is told nothing of the hour.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{Period, Summary};

/// Hours of one server that are remembered, the latest asked about: it may say it again.
const HOURS: usize = 64;
/// Commitments of one server to something else than this log holds that are logged in one hour of civil time.
const LOGGED: u32 = 256;

/// What was said, by whom.
#[derive(Debug, Default)]
pub(super) struct Commitments(Mutex<BTreeMap<ServerId, Said>>);

#[derive(Debug, Default)]
struct Said {
    hours: VecDeque<(Period, Summary)>,
    /// How many were logged in the civil hour that runs.
    logged: (Option<Period>, u32),
}

/// Whether a commitment is to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToLog {
    Yes,
    /// The log says it already.
    Known,
    /// It said too much already in this hour of civil time.
    TooMany,
}

impl Commitments {
    /// Whether a server has said what it holds of an hour.
    pub(super) fn has(&self, peer: &ServerId, period: Period) -> bool {
        self.locked().get(peer).is_some_and(|said| said.of(period).is_some())
    }

    /// Whether it is to be logged that a server holds this of an hour, where this log holds something else. Counts it.
    pub(super) fn is_to_log(
        &self,
        peer: &ServerId,
        (period, there): (Period, Summary),
        now: Period,
    ) -> ToLog {
        let mut all = self.locked();
        let said = all.entry(peer.clone()).or_default();
        if said.of(period) == Some(there) {
            return ToLog::Known;
        }
        if said.logged.0 != Some(now) {
            said.logged = (Some(now), 0);
        }
        if said.logged.1 >= LOGGED {
            return ToLog::TooMany;
        }
        said.logged.1 += 1;
        ToLog::Yes
    }

    /// Takes what a server said.
    pub(super) fn take(&self, peer: &ServerId, period: Period, there: Summary) {
        let mut all = self.locked();
        let hours = &mut all.entry(peer.clone()).or_default().hours;
        hours.retain(|(of, _)| *of != period);
        hours.push_front((period, there));
        hours.truncate(HOURS);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ServerId, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn of(&self, period: Period) -> Option<Summary> {
        self.hours.iter().find(|(of, _)| *of == period).map(|(_, there)| *there)
    }
}

#[cfg(test)]
mod tests {
    use trave_proto::clock::Time;
    use trave_proto::digest::Digest;

    use super::*;

    #[test]
    fn what_was_said_is_known_and_what_is_said_without_end_is_not_logged() {
        let commitments = Commitments::default();
        let peer: ServerId = "NORD/MV/register/s1".parse().unwrap();
        let first = Period::of(Time::from_millis(1_795_255_200_000));
        let there = |n: u64| Summary { count: n, digest: Digest::of(&n.to_be_bytes()) };
        assert!(!commitments.has(&peer, first));
        let to_log = |n, now| commitments.is_to_log(&peer, (first, there(n)), now);
        assert_eq!(to_log(1, first), ToLog::Yes);
        commitments.take(&peer, first, there(1));
        assert!(commitments.has(&peer, first) && !commitments.has(&peer, first.next()));
        assert_eq!(to_log(1, first), ToLog::Known);
        let logged = (2..1_000).filter(|n| to_log(*n, first) == ToLog::Yes).count();
        assert_eq!(logged, LOGGED as usize - 1);
        assert_eq!(to_log(1_000, first), ToLog::TooMany);
        assert_eq!(to_log(1_000, first.next()), ToLog::Yes, "an hour later");
        let hours = std::iter::successors(Some(first.next()), |hour| Some(hour.next())).take(HOURS);
        hours.for_each(|hour| commitments.take(&peer, hour, there(1)));
        assert!(!commitments.has(&peer, first), "the latest are remembered");
    }
}
