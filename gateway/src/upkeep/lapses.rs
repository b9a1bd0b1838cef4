//! What happens while timestamps or witnesses are missing: as the policy of the configuration says, people are told after a
//! time, and exchanges are refused after another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trave_proto::clock::Time;
use trave_proto::fault::Reason;
use trave_proto::global_configuration::Deadlines;

use super::Upkeep;
use super::conditions::Kind;
use crate::admission::Suspended;

/// Something that is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lapse {
    /// When the oldest record was logged for which it is missing.
    pub(crate) since: Time,
    deadlines: Deadlines,
}

impl Lapse {
    /// How long it is until exchanges are refused; none for never.
    pub(crate) fn left(&self, now: Time) -> Option<Duration> {
        self.deadlines.left(self.since, now)
    }

    /// What people are told, if it is time.
    fn alarm(&self, what: &str, now: Time) -> Option<String> {
        self.deadlines.alarms(self.since, now).then(|| {
            let then = match self.left(now) {
                None => "exchanges go on".to_owned(),
                Some(Duration::ZERO) => "exchanges are refused".to_owned(),
                Some(left) => format!("exchanges are refused in {} minutes", left.as_secs().div_ceil(60)),
            };
            format!("the records since {} {what}; {then}", self.since)
        })
    }

    fn refusal(&self, reason: Reason, what: &str, now: Time) -> Option<Suspended> {
        let why = || {
            format!(
                "the message log of this security server {what} since {}; its operator has been told",
                self.since
            )
        };
        self.deadlines.refuses(self.since, now).then(|| Suspended { reason, why: why() })
    }
}

/// What is missing now.
#[derive(Debug, Default)]
pub(super) struct Lapses {
    stamped: Mutex<Option<Lapse>>,
    witnessed: Mutex<Option<Lapse>>,
}

impl Upkeep {
    /// Since when records have no timestamp; none if all have one.
    pub(crate) fn unstamped(&self) -> Option<Lapse> {
        *self.lapses.stamped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when records are not witnessed as the policy asks; none if all are, or it asks for nobody.
    pub(crate) fn unwitnessed(&self) -> Option<Lapse> {
        *self.lapses.witnessed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks what is missing, tells it, and admits exchanges or not.
    pub(super) async fn judge_lapses(&self) {
        let exchanges = &self.exchanges;
        let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
        let (policy, now) = (configuration.policy(), exchanges.clock.now());
        let stamped = match configuration.timestamping_authorities().is_empty() {
            // Nobody could give one.
            true => None,
            false => {
                let covered = self.sealed().map(|sealed| sealed.size);
                self.uncovered(covered, self.unstamped(), policy.timestamping).await
            }
        };
        let witnessed = match policy.witnessing.asks(configuration.witnesses(), &exchanges.own.server) {
            true => {
                let serving = self.witnessed().filter(|it| self.is_witnessed(it, &configuration));
                let covered = serving.map(|it| it.checkpoint.checkpoint.size);
                self.uncovered(covered, self.unwitnessed(), policy.witnessing.deadlines).await
            }
            false => None,
        };
        *self.lapses.stamped.lock().unwrap_or_else(PoisonError::into_inner) = stamped;
        *self.lapses.witnessed.lock().unwrap_or_else(PoisonError::into_inner) = witnessed;
        let refused = stamped
            .and_then(|lapse| lapse.refusal(Reason::TimestamperFailed, "has had no timestamp", now))
            .or_else(|| {
                witnessed.and_then(|lapse| lapse.refusal(Reason::NotWitnessed, "has not been witnessed", now))
            })
            .map(Arc::new);
        exchanges.asking.suspend(refused.clone());
        exchanges.answering.suspend(refused);
        let alarm = stamped.and_then(|lapse| lapse.alarm("have no timestamp", now));
        self.conditions.set(Kind::TimestampOld, alarm).await;
        let alarm = witnessed.and_then(|lapse| lapse.alarm("are not witnessed as the policy asks", now));
        self.conditions.set(Kind::NotWitnessed, alarm).await;
    }

    /// Since when records lie beyond the `covered` ones. Where none ever was covered as the policy asks, the policy may be
    /// younger than the log: then it counts from when that was first seen, or what was missing `before`.
    async fn uncovered(
        &self,
        covered: Option<u64>,
        before: Option<Lapse>,
        deadlines: Deadlines,
    ) -> Option<Lapse> {
        let log = self.exchanges.recorder.log().clone();
        if covered.unwrap_or(0) >= log.size() {
            return None;
        }
        let now = self.exchanges.clock.now();
        let Some(at) = covered else {
            return Some(Lapse { since: before.map_or(now, |before| before.since), deadlines });
        };
        let leaf = tokio::task::spawn_blocking(move || log.leaf(at)).await;
        let since = match leaf {
            Ok(Ok(leaf)) => Time::from_millis(leaf.logged_ms),
            // A log that cannot be read says so elsewhere, and counts as not covered from now on.
            _ => now,
        };
        Some(Lapse { since, deadlines })
    }
}
