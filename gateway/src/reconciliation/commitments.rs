//! What other servers said that they hold of an hour, before they were told more than that this log holds something else. Who
//! has not said it is told nothing of the hour; and who said it for one comparison has not said it for the next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{NONCE, Period, Summary};

use super::wire::OVERALL;

/// Logged commitments of one server that are remembered, the latest: it may say the same again.
const HOURS: usize = 64;
/// Commitments of one server to something else than this log holds that are logged in one hour of civil time.
const LOGGED: u32 = 256;

/// What was said, by whom.
#[derive(Debug, Default)]
pub(super) struct Commitments(Mutex<BTreeMap<ServerId, Said>>);

#[derive(Debug, Default)]
struct Said {
    /// What the log says that it said, of each hour the last; and whether that was proven.
    hours: VecDeque<(Period, Summary, bool)>,
    /// How many were logged in the civil hour that runs.
    logged: (Option<Period>, u32),
    /// The comparison that runs; there is one at a time.
    now: Option<Comparison>,
}

/// One comparison, as far as this server has answered.
#[derive(Debug)]
struct Comparison {
    period: Period,
    /// What the other server is to prove it with that it knows the list.
    nonce: [u8; NONCE],
    until: Instant,
    committed: bool,
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
    /// A server begins a comparison: what it said in an earlier one counts no longer.
    pub(super) fn begin(&self, peer: &ServerId, period: Period, (nonce, now): ([u8; NONCE], Instant)) {
        let until = now + OVERALL;
        let comparison = Comparison { period, nonce, until, committed: false };
        self.locked().entry(peer.clone()).or_default().now = Some(comparison);
    }

    /// The nonce that a server is to commit itself with; none if it has not begun, or has committed itself.
    pub(super) fn nonce(&self, peer: &ServerId, period: Period, now: Instant) -> Option<[u8; NONCE]> {
        let all = self.locked();
        let comparison = all.get(peer)?.of(period, now)?;
        (!comparison.committed).then_some(comparison.nonce)
    }

    /// Whether a server has said, in the comparison that runs, what it holds of an hour.
    pub(super) fn has(&self, peer: &ServerId, period: Period, now: Instant) -> bool {
        let all = self.locked();
        all.get(peer).and_then(|said| said.of(period, now)).is_some_and(|comparison| comparison.committed)
    }

    /// Whether it is to be logged that a server holds this of an hour, where this log holds something else, or where it did not
    /// prove it. Counts it.
    pub(super) fn is_to_log(&self, peer: &ServerId, said: (Period, Summary, bool), now: Period) -> ToLog {
        let mut all = self.locked();
        let of = all.entry(peer.clone()).or_default();
        if of.hours.contains(&said) {
            return ToLog::Known;
        }
        if of.logged.0 != Some(now) {
            of.logged = (Some(now), 0);
        }
        if of.logged.1 >= LOGGED {
            return ToLog::TooMany;
        }
        of.logged.1 += 1;
        ToLog::Yes
    }

    /// Takes that the log says what a server said.
    pub(super) fn logged(&self, peer: &ServerId, said: (Period, Summary, bool)) {
        let mut all = self.locked();
        let hours = &mut all.entry(peer.clone()).or_default().hours;
        hours.retain(|(of, ..)| *of != said.0);
        hours.push_front(said);
        hours.truncate(HOURS);
    }

    /// Takes that a server has committed itself in the comparison with this nonce.
    pub(super) fn take(&self, peer: &ServerId, nonce: &[u8; NONCE]) {
        let mut all = self.locked();
        let comparison = all.get_mut(peer).and_then(|said| said.now.as_mut());
        if let Some(comparison) = comparison.filter(|comparison| comparison.nonce == *nonce) {
            comparison.committed = true;
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<ServerId, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn of(&self, period: Period, now: Instant) -> Option<&Comparison> {
        self.now.as_ref().filter(|comparison| comparison.period == period && now < comparison.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trave_proto::clock::Time;
    use trave_proto::digest::Digest;

    use super::*;

    fn peer() -> ServerId {
        "NORD/MV/register/s1".parse().unwrap()
    }

    fn hour() -> Period {
        Period::of(Time::from_millis(1_795_255_200_000))
    }

    #[test]
    fn what_was_said_holds_for_one_comparison_and_not_for_long() {
        let (commitments, first, now) = (Commitments::default(), hour(), Instant::now());
        assert_eq!(commitments.nonce(&peer(), first, now), None, "nothing was begun");
        commitments.begin(&peer(), first, ([1; NONCE], now));
        assert!(!commitments.has(&peer(), first, now));
        assert_eq!(commitments.nonce(&peer(), first, now), Some([1; NONCE]));
        assert_eq!(commitments.nonce(&peer(), first.next(), now), None, "of another hour");
        commitments.take(&peer(), &[2; NONCE]);
        assert!(!commitments.has(&peer(), first, now), "of another comparison");
        commitments.take(&peer(), &[1; NONCE]);
        assert!(commitments.has(&peer(), first, now) && !commitments.has(&peer(), first.next(), now));
        assert_eq!(commitments.nonce(&peer(), first, now), None, "it has said it");
        assert!(commitments.has(&peer(), first, now + OVERALL - Duration::from_secs(1)));
        assert!(!commitments.has(&peer(), first, now + OVERALL), "it takes too long");
        commitments.begin(&peer(), first, ([3; NONCE], now));
        assert!(!commitments.has(&peer(), first, now), "the next one is another");
        commitments.begin(&peer(), first, ([4; NONCE], now));
        assert_eq!(commitments.nonce(&peer(), first, now + OVERALL), None);
    }

    #[test]
    fn what_was_said_is_known_and_what_is_said_without_end_is_not_logged() {
        let (commitments, first) = (Commitments::default(), hour());
        let there = |n: u64| Summary { count: n, digest: Digest::of(&n.to_be_bytes()) };
        let to_log = |n, now| commitments.is_to_log(&peer(), (first, there(n), true), now);
        assert_eq!(to_log(1, first), ToLog::Yes);
        commitments.logged(&peer(), (first, there(1), true));
        assert_eq!(to_log(1, first), ToLog::Known);
        assert_eq!(commitments.is_to_log(&peer(), (first, there(1), false), first), ToLog::Yes, "unproven");
        let logged = (2..1_000).filter(|n| to_log(*n, first) == ToLog::Yes).count();
        assert_eq!(logged, LOGGED as usize - 2);
        assert_eq!(to_log(1_000, first), ToLog::TooMany);
        assert_eq!(to_log(1_000, first.next()), ToLog::Yes, "an hour later");
        let hours = std::iter::successors(Some(first.next()), |hour| Some(hour.next())).take(HOURS);
        hours.for_each(|hour| commitments.logged(&peer(), (hour, there(1), true)));
        assert_eq!(to_log(1, first.next().next()), ToLog::Yes, "the latest are remembered");
    }
}
