//! What is known of comparisons with other servers' logs: what was found last of each hour, and which hours another server
//! did not let compare.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trave_proto::clock::Time;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::Period;
use trave_proto::schema::log::{DifferenceKind, Reconciliation};

/// Findings about one hour with one server that are logged: who answers otherwise every time does not fill the log.
const LOGGED: u32 = 24;

/// What is known of comparisons.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// One hour is compared with each server at a time.
    turns: Mutex<BTreeMap<ServerId, Arc<tokio::sync::Mutex<()>>>>,
    /// What was found last of each hour: those of the last days, and those that somebody asked for.
    found: Mutex<BTreeMap<(ServerId, Period), Finding>>,
    /// Why hours could not be compared; an hour stays until it was.
    failed: Mutex<BTreeMap<(ServerId, Period), String>>,
}

#[derive(Debug)]
struct Finding {
    last: Reconciliation,
    /// How many about this hour the log holds.
    logged: u32,
}

/// How far another server's log was compared, and what is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerStanding {
    pub(crate) peer: ServerId,
    /// End of the last hour that was compared.
    pub(crate) until: Time,
    pub(crate) missing_here: u64,
    pub(crate) missing_there: u64,
    pub(crate) differing: u64,
    /// Hours whose difference nothing explains.
    pub(crate) unexplained: u64,
    /// Records of its log that were seen under a checkpoint.
    pub(crate) seen: u64,
}

impl Findings {
    /// Whose turn it is with `peer`: a slow server holds up nobody but itself.
    pub(super) fn turn(&self, peer: &ServerId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(locked(&self.turns).entry(peer.clone()).or_default())
    }

    pub(super) fn last(&self, peer: &ServerId, period: Period) -> Option<Reconciliation> {
        locked(&self.found).get(&(peer.clone(), period)).map(|finding| finding.last.clone())
    }

    /// Whether the log is to say it: it says something else of this hour, and has not said too much of it.
    pub(super) fn is_to_log(&self, peer: &ServerId, period: Period, found: &Reconciliation) -> bool {
        let all = locked(&self.found);
        all.get(&(peer.clone(), period))
            .is_none_or(|finding| finding.last != *found && finding.logged < LOGGED)
    }

    /// Takes what was found; with it the hour was compared.
    pub(super) fn remember(&self, peer: &ServerId, period: Period, found: Reconciliation, logged: bool) {
        locked(&self.failed).remove(&(peer.clone(), period));
        let mut all = locked(&self.found);
        let before = all.get(&(peer.clone(), period)).map_or(0, |finding| finding.logged);
        let finding = Finding { last: found, logged: before.saturating_add(u32::from(logged)) };
        all.insert((peer.clone(), period), finding);
    }

    /// Takes why an hour was not compared.
    pub(super) fn failed(&self, peer: &ServerId, period: Period, why: String) {
        locked(&self.failed).insert((peer.clone(), period), why);
    }

    /// Who is no security server any longer, has nothing to be compared with.
    pub(super) fn forget_failed(&self, listed: impl Fn(&ServerId) -> bool) {
        locked(&self.failed).retain(|(peer, _), _| listed(peer));
    }

    /// Servers with which this log was compared, or should have been.
    pub(super) fn peers(&self) -> BTreeSet<ServerId> {
        let (found, failed) = (locked(&self.found), locked(&self.failed));
        found.keys().chain(failed.keys()).map(|(peer, _)| peer).cloned().collect()
    }

    /// Whom this log could not be compared with, in words.
    pub(super) fn not_compared(&self) -> Option<String> {
        let failed = locked(&self.failed);
        let mut told = BTreeMap::<&ServerId, (Period, &str, usize)>::new();
        for ((peer, period), why) in failed.iter() {
            let (_, last, count) = told.entry(peer).or_insert((*period, why, 0));
            (*last, *count) = (why, *count + 1);
        }
        let told = told.into_iter().map(|(peer, (first, why, count))| match count {
            1 => format!("{peer}, the hour from {}: {why}", first.begin()),
            _ => format!("{peer}, {count} hours, the first from {}: {why}", first.begin()),
        });
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then(|| format!("the log is not compared with that of {}", told.join("; ")))
    }

    pub(super) fn standings(&self) -> Vec<PeerStanding> {
        let found = locked(&self.found);
        let mut standings = BTreeMap::<&ServerId, PeerStanding>::new();
        for ((peer, period), Finding { last: found, .. }) in found.iter() {
            let standing = standings.entry(peer).or_insert_with(|| PeerStanding {
                peer: peer.clone(),
                until: period.end(),
                missing_here: 0,
                missing_there: 0,
                differing: 0,
                unexplained: 0,
                seen: 0,
            });
            standing.until = standing.until.max(period.end());
            standing.missing_here += count(found, DifferenceKind::MissingHere);
            standing.missing_there += count(found, DifferenceKind::MissingThere);
            standing.differing += count(found, DifferenceKind::Differing);
            standing.unexplained += u64::from(found.unexplained);
        }
        standings.into_values().collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Differences of one kind.
fn count(found: &Reconciliation, kind: DifferenceKind) -> u64 {
    found.counts.iter().filter(|one| one.kind() == kind).map(|one| one.count).sum()
}

/// Whether a later comparison may find something else.
pub(super) fn is_open(found: &Reconciliation) -> bool {
    let open = [
        DifferenceKind::InFlight,
        DifferenceKind::MissingHere,
        DifferenceKind::MissingThere,
        DifferenceKind::Differing,
    ];
    found.unexplained || open.into_iter().any(|kind| count(found, kind) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> ServerId {
        "NORD/MV/register/s1".parse().unwrap()
    }

    #[test]
    fn an_hour_that_was_refused_is_told_of_until_that_hour_is_compared() {
        let findings = Findings::default();
        let first = Period::of(Time::from_millis(1_795_255_200_000));
        let found = Reconciliation::default;
        findings.failed(&peer(), first, "it is busy".into());
        findings.failed(&peer(), first.next(), "it does not answer".into());
        findings.remember(&peer(), first.next(), found(), true);
        findings.remember(&peer(), first.next().next(), found(), true);
        let told = findings.not_compared().unwrap();
        assert!(told.ends_with(&format!("s1, the hour from {}: it is busy", first.begin())), "{told}");
        findings.failed(&peer(), first.next(), "it does not answer".into());
        let told = findings.not_compared().unwrap();
        assert!(told.contains(&format!("2 hours, the first from {}", first.begin())), "{told}");
        findings.forget_failed(|listed| *listed == peer());
        assert!(findings.not_compared().is_some());
        findings.remember(&peer(), first, found(), true);
        findings.forget_failed(|_| false);
        assert_eq!(findings.not_compared(), None);
    }

    #[test]
    fn what_is_found_again_is_not_logged_again_and_never_without_end() {
        let findings = Findings::default();
        let hour = Period::of(Time::from_millis(0));
        let mut logged = 0;
        for n in 0..100 {
            let found = Reconciliation { recovered: n / 2, ..Reconciliation::default() };
            let is = findings.is_to_log(&peer(), hour, &found);
            findings.remember(&peer(), hour, found, is);
            logged += u32::from(is);
        }
        assert_eq!(logged, LOGGED);
        assert!(findings.is_to_log(&peer(), hour.next(), &Reconciliation::default()), "each hour for itself");
    }
}
