//! What is known of comparisons with other servers' logs: what was found last of each hour, and which hours another server
//! did not let compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{Period, Summary};
use trave_proto::schema::log::{DifferenceKind, PeerCondition, Reconciliation};
use trave_proto::schema::transport::RecordSummary;

use super::alarms::{Matter, Matters};
use super::conditions::Kind;
use crate::reconciliation::too_old;

/// Records of each kind about one hour with one server that are logged: who answers otherwise every time does not fill the
/// log. A finding that is graver than all before is logged beyond that.
const LOGGED: u32 = 24;
/// Hours that ended longer ago are forgotten, unless something is open in them that nobody has looked into.
pub(super) const RECALLED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is known of comparisons.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// One hour is compared with each server at a time.
    turns: Mutex<BTreeMap<ServerId, Arc<tokio::sync::Mutex<()>>>>,
    /// What was found last of each hour: those of the last days, those that are open, and those that somebody asked for.
    found: Mutex<BTreeMap<(ServerId, Period), Finding>>,
    /// Why hours could not be compared; an hour stays until it was.
    failed: Mutex<BTreeMap<(ServerId, Period), Failed>>,
    /// Hours of which servers answered wrongly what they hold.
    wrong: Mutex<BTreeMap<(ServerId, Period), Wrongly>>,
}

/// An hour that could not be compared.
#[derive(Debug, Default)]
struct Failed {
    /// Why; none once it was.
    why: Option<String>,
    /// How many times the log says it, and whether it says this one.
    logged: u32,
    on_record: bool,
}

/// An hour of which a server answered wrongly.
#[derive(Debug, Default)]
struct Wrongly {
    /// How many times the log says it, and whether it does since the hour was agreed on last.
    logged: u32,
    since: bool,
}

/// Of a finding so much as is needed later: an hour's differences may be many.
#[derive(Debug, Clone)]
struct Finding {
    /// Of the record that says it.
    digest: Digest,
    there: Option<RecordSummary>,
    grave: Grave,
    in_flight: bool,
    /// How many about this hour the log holds, the most that they say, and where the last of them stands.
    logged: u32,
    gravest: Grave,
    at: u64,
    /// The finding that somebody has looked into.
    acknowledged: Option<Digest>,
}

impl Finding {
    fn is_alarm(&self) -> bool {
        self.grave != Grave::default() && self.acknowledged != Some(self.digest)
    }
}

/// What nobody can explain, of one hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Grave {
    missing_here: u64,
    missing_there: u64,
    differing: u64,
    /// Hours.
    unexplained: u64,
}

impl Grave {
    fn of(found: &Reconciliation) -> Self {
        Self {
            missing_here: count(found, DifferenceKind::MissingHere),
            missing_there: count(found, DifferenceKind::MissingThere),
            differing: count(found, DifferenceKind::Differing),
            unexplained: found.unexplained.into(),
        }
    }

    const fn each(&self) -> [u64; 4] {
        [self.missing_here, self.missing_there, self.differing, self.unexplained]
    }

    fn joined(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            missing_here: join(self.missing_here, other.missing_here),
            missing_there: join(self.missing_there, other.missing_there),
            differing: join(self.differing, other.differing),
            unexplained: join(self.unexplained, other.unexplained),
        }
    }

    /// Whether something is in it that was not, or at least twice as much: so that even who finds a little more every time
    /// fills no log.
    fn is_graver_than(&self, most: &Self) -> bool {
        self.each().into_iter().zip(most.each()).any(|(is, was)| is > was && is / 2 >= was)
    }
}

impl fmt::Display for Grave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.differing, "messages differ"),
            (self.missing_here, "messages are missing here"),
            (self.missing_there, "messages are missing there"),
            (self.unexplained, "hours differ, and nothing explains it"),
        ];
        let told =
            words.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        f.write_str(&told.collect::<Vec<_>>().join(", "))
    }
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

    /// Whether nothing is open of this hour, also not what the other server said that it holds.
    pub(super) fn is_settled(&self, peer: &ServerId, period: Period, said: Option<&Summary>) -> bool {
        locked(&self.found).get(&(peer.clone(), period)).is_some_and(|finding| {
            let known = said.is_none_or(|said| finding.there == Some(said.to_schema()));
            known && finding.grave == Grave::default() && !finding.in_flight
        })
    }

    /// Whether the log is to say it: it says something else of this hour, and has not said too much of it, or nothing so
    /// grave.
    pub(super) fn is_to_log(&self, peer: &ServerId, period: Period, found: &Reconciliation) -> bool {
        let all = locked(&self.found);
        all.get(&(peer.clone(), period)).is_none_or(|finding| {
            let graver = Grave::of(found).is_graver_than(&finding.gravest);
            finding.digest != digest(found) && (finding.logged < LOGGED || graver)
        }) || self.takes_back(peer, period)
    }

    /// Whether the log says that this hour could not be compared, which only a later finding takes back. It says so as many
    /// times as it may, and is taken back as many times.
    fn takes_back(&self, peer: &ServerId, period: Period) -> bool {
        let failed = locked(&self.failed);
        failed.get(&(peer.clone(), period)).is_some_and(|failed| failed.why.is_some() && failed.on_record)
    }

    /// Whether the log is to say that a server answered wrongly what it holds.
    pub(super) fn is_wrong_to_log(&self, peer: &ServerId, period: Period) -> bool {
        let wrong = locked(&self.wrong);
        wrong.get(&(peer.clone(), period)).is_none_or(|wrong| !wrong.since && wrong.logged < LOGGED)
    }

    /// Takes that the log says so.
    pub(super) fn answered_wrongly(&self, peer: &ServerId, period: Period) {
        let mut wrong = locked(&self.wrong);
        let wrong = wrong.entry((peer.clone(), period)).or_default();
        (wrong.logged, wrong.since) = (wrong.logged.saturating_add(1), true);
    }

    /// Takes what was found, and where it was logged, if it was; with it the hour was compared.
    pub(super) fn remember(&self, peer: &ServerId, period: Period, found: &Reconciliation, at: Option<u64>) {
        if let Some(failed) = locked(&self.failed).get_mut(&(peer.clone(), period)) {
            failed.why = None;
        }
        if found.here == found.there
            && Grave::of(found) == Grave::default()
            && let Some(wrong) = locked(&self.wrong).get_mut(&(peer.clone(), period))
        {
            wrong.since = false;
        }
        let mut all = locked(&self.found);
        let before = all.get(&(peer.clone(), period));
        let (grave, gravest) = (Grave::of(found), before.map(|before| before.gravest).unwrap_or_default());
        let finding = Finding {
            digest: digest(found),
            there: found.there.clone(),
            grave,
            in_flight: count(found, DifferenceKind::InFlight) > 0,
            logged: before.map_or(0, |before| before.logged).saturating_add(at.is_some().into()),
            gravest: if at.is_some() { gravest.joined(grave, u64::max) } else { gravest },
            at: at.or(before.map(|before| before.at)).unwrap_or_default(),
            acknowledged: before.and_then(|before| before.acknowledged),
        };
        all.insert((peer.clone(), period), finding);
    }

    /// Takes why an hour was not compared; whether the log is to say so: that is new, and was not said too many times.
    pub(super) fn failed(&self, peer: &ServerId, period: Period, why: String) -> bool {
        let mut all = locked(&self.failed);
        let failed = all.entry((peer.clone(), period)).or_default();
        if failed.why.replace(why).is_some() {
            return false;
        }
        failed.on_record = failed.logged < LOGGED;
        failed.logged += u32::from(failed.on_record);
        failed.on_record
    }

    /// Takes that somebody has looked into what the log says so far.
    pub(super) fn acknowledge(&self, said: &PeerCondition) {
        if said.kind != Kind::LogsDisagree.as_str() {
            return;
        }
        for ((peer, _), finding) in locked(&self.found).iter_mut() {
            if peer.as_str() == said.peer && finding.at <= said.up_to {
                finding.acknowledged = Some(finding.digest);
            }
        }
    }

    /// Forgets what is long over: hours that nobody has to look into, those that can be compared no more, and servers that
    /// are listed no more.
    pub(super) fn forget(&self, now: Time, listed: impl Fn(&ServerId) -> bool) {
        let recent = |period: &Period| period.end() > now.minus(RECALLED);
        locked(&self.failed).retain(|(peer, period), failed| {
            listed(peer) && !too_old(*period, now) && (failed.why.is_some() || recent(period))
        });
        locked(&self.wrong).retain(|(_, period), _| recent(period));
        locked(&self.found).retain(|(_, period), finding| recent(period) || finding.is_alarm());
    }

    /// Servers with which this log was compared, or should have been.
    pub(super) fn peers(&self) -> BTreeSet<ServerId> {
        let (found, failed) = (locked(&self.found), locked(&self.failed));
        found.keys().chain(failed.keys()).map(|(peer, _)| peer).cloned().collect()
    }

    /// Whom this log could not be compared with, in words.
    pub(super) fn not_compared(&self) -> BTreeMap<String, String> {
        let failed = locked(&self.failed);
        let mut told = BTreeMap::<&ServerId, (Period, &str, usize)>::new();
        for ((peer, period), failed) in failed.iter() {
            let Some(why) = &failed.why else { continue };
            let (_, last, count) = told.entry(peer).or_insert((*period, why, 0));
            (*last, *count) = (why, *count + 1);
        }
        let told = told.into_iter().map(|(peer, (first, why, count))| {
            let hours = match count {
                1 => format!("the hour from {}", first.begin()),
                _ => format!("{count} hours, the first from {}", first.begin()),
            };
            (peer.to_string(), format!("the log is not compared with that of {peer}, {hours}: {why}"))
        });
        told.collect()
    }

    /// What the logs do not agree on, and nobody has explained.
    pub(super) fn matters(&self) -> Matters {
        let mut matters = Matters::default();
        let mut sums = BTreeMap::<(String, bool), (Grave, Matter)>::new();
        for ((peer, period), finding) in locked(&self.found).iter() {
            if finding.grave == Grave::default() {
                continue;
            }
            let (sum, matter) = sums.entry((peer.to_string(), finding.is_alarm())).or_default();
            *sum = sum.joined(finding.grave, u64::saturating_add);
            matter.up_to = matter.up_to.max(finding.at);
            matter.found.extend(period.begin().as_millis().to_be_bytes());
            matter.found.extend(finding.digest.as_bytes());
        }
        for ((peer, open), (sum, matter)) in sums {
            let what = format!(
                "logs do not agree: {peer}: {sum}; `reconcile list` shows which messages, docs/reconciliation.md what to do"
            );
            let of = if open { &mut matters.open } else { &mut matters.acknowledged };
            of.insert(peer, Matter { what, ..matter });
        }
        matters
    }

    pub(super) fn standings(&self) -> Vec<PeerStanding> {
        let found = locked(&self.found);
        let mut standings = BTreeMap::<&ServerId, PeerStanding>::new();
        for ((peer, period), Finding { grave, .. }) in found.iter() {
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
            standing.missing_here += grave.missing_here;
            standing.missing_there += grave.missing_there;
            standing.differing += grave.differing;
            standing.unexplained += grave.unexplained;
        }
        standings.into_values().collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(found: &Reconciliation) -> Digest {
    Digest::of(&found.encode_to_vec())
}

/// Differences of one kind.
fn count(found: &Reconciliation, kind: DifferenceKind) -> u64 {
    found.counts.iter().filter(|one| one.kind() == kind).map(|one| one.count).sum()
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
