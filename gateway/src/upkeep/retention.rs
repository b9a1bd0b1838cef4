//! Overwriting what is due, by the civil clock: one segment of the log after the other, beside the exchanges.
//!
//! A clock that is wrong would destroy what must be kept, and nothing brings it back. So nothing is overwritten unless a
//! timestamping authority has said within the last day what time it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use trave_host::config::with_causes;
use trave_message_log::{LogError, SegmentSpan, kind};
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::Leaf;
use trave_proto::schema::log::leaf::Entry;

use super::Upkeep;
use super::conditions::Kind;
use crate::config;
use crate::erasures::{ErasureError, Notices};
use crate::retention::{Holds, Schedules, begun_of};

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(3_600);
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Leaves that are looked at together for what came back.
const LEAVES: u64 = 4_096;
/// For how long a timestamp tells that the clock is right.
const VOUCHED: Duration = Duration::from_secs(86_400);

/// The policy, what is held, and where the last run left off.
#[derive(Debug)]
pub(crate) struct Retaining {
    policy: config::Retention,
    holds: ArcSwap<Holds>,
    /// When something in a segment is due next; and the change of holds for which that is so.
    next: Mutex<HashMap<Segment, Time>>,
    /// Exchanges that began long before their records were logged, because these came back: the earliest begin, by where the
    /// records stand, so many leaves at a time.
    late: Mutex<BTreeMap<u64, Time>>,
    /// How many there were.
    came_back: AtomicU64,
    /// One run at a time.
    turn: tokio::sync::Mutex<()>,
    /// Held while something is overwritten by the holds as they stood.
    pub(super) step: tokio::sync::Mutex<()>,
}

/// The number of an earlier generation of the log, 0 for this one, and the first leaf of a segment.
pub(super) type Segment = (u64, u64);

/// What a run did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) segments: u64,
    pub(crate) contents: u64,
    pub(crate) records: u64,
    /// Records that are due and cannot be taken out of the archive alone.
    pub(crate) stuck: u64,
}

impl Done {
    fn add(&mut self, step: Self) {
        self.segments += step.segments;
        self.contents += step.contents;
        self.records += step.records;
        self.stuck += step.stuck;
    }
}

impl Retaining {
    pub(super) fn new(policy: config::Retention) -> Self {
        Self {
            policy,
            holds: ArcSwap::default(),
            next: Mutex::default(),
            late: Mutex::default(),
            came_back: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
            step: tokio::sync::Mutex::default(),
        }
    }

    /// The holds as they stand.
    pub(crate) fn holds(&self) -> Arc<Holds> {
        self.holds.load_full()
    }

    /// The policy.
    pub(crate) fn policy(&self) -> &config::Retention {
        &self.policy
    }

    /// Takes a change of a hold into force that was logged. Nothing goes by the holds as they were when this returns; what was not
    /// due because of one may be due now.
    pub(crate) async fn apply(&self, leaf: &Leaf) {
        let mut holds = Holds::clone(&self.holds.load());
        holds.take(leaf);
        self.holds.store(Arc::new(holds));
        self.look_again();
        drop(self.step.lock().await);
    }

    /// Until this is let go, no hold comes into force: for whoever looks whether something is held and then erases it.
    pub(crate) async fn still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.step.lock().await
    }

    /// The months for which records are kept, if those of this exchange may have expired.
    pub(crate) fn expired(&self, id: ExchangeId, now: Time) -> Option<u32> {
        let months = self.policy.shortest();
        (id.time().plus_months(months) <= now).then_some(months)
    }

    /// Forgets when something is due next: at the next run, all is looked at.
    pub(super) fn look_again(&self) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes that a record came back of an exchange that began then: its time counts from there.
    pub(super) fn came_back(&self, index: u64, begun: Time) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = late.entry(index / LEAVES).or_insert(begun);
        *earliest = begun.min(*earliest);
        drop(late);
        self.came_back.fetch_add(1, Ordering::AcqRel);
        // It is looked again whether something is due there.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = next.keys().filter(|(of, first)| *of == 0 && *first <= index).max().copied() {
            next.remove(&segment);
        }
    }

    /// The earliest begin of an exchange of which a segment may hold something that came back.
    fn late(&self, segment: &SegmentSpan) -> Option<Time> {
        let last = segment.first + segment.count.saturating_sub(1);
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.range(segment.first / LEAVES..=last / LEAVES).map(|(_, begun)| *begun).min()
    }

    pub(super) fn is_due(&self, generation: u64, segment: &SegmentSpan, now: Time) -> bool {
        let key = (generation, segment.first);
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let next = next.or_else(|| {
            let logged = segment.times.map(|(earliest, _)| earliest);
            let late = (generation == 0).then(|| self.late(segment)).flatten();
            logged.into_iter().chain(late).min().map(|begun| self.policy.earliest(begun))
        });
        segment.count > 0 && next.is_some_and(|next| next <= now)
    }

    pub(super) fn remember(&self, segment: Segment, next: Time) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).insert(segment, next);
    }
}

impl Upkeep {
    /// Reads the holds from the log, before anything may be overwritten, and what came back long after its time.
    pub(super) fn read_holds(&self) -> Result<(), LogError> {
        for record in self.exchanges.recorder.log().scan_kind(kind::RECOVERED, 0) {
            let record = record?;
            if let Some(begun) = begun_of(&record.leaf) {
                self.retaining.came_back(record.index, begun);
            }
        }
        let mut holds = Holds::default();
        // What was held goes on being held when another generation of the log begins.
        let earlier = self.erasing().generations().all().iter().map(|generation| generation.log());
        for log in earlier.chain([self.exchanges.recorder.log()]) {
            for record in log.scan_kind(kind::HOLD, 0) {
                holds.take(&record?.leaf);
            }
        }
        self.retaining.holds.store(Arc::new(holds));
        Ok(())
    }

    /// Looks every hour, as long as the server runs.
    pub(super) async fn retain_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let pause = match self.retain().await {
                Ok(done) => {
                    let Done { segments, contents, records, stuck } = done;
                    if segments > 0 {
                        tracing::info!(segments, contents, records, "overwritten: their time was over");
                    }
                    let what = (stuck > 0).then(|| {
                        format!(
                            "{stuck} records whose time is over are in the archive alone, in one object each with records that \
                             are held or not due yet; they go with the last of these: docs/archive.md"
                        )
                    });
                    self.conditions.set(Kind::RetentionOverdue, what).await;
                    EVERY
                }
                Err(why) => {
                    let what =
                        format!("what is due is not overwritten: {why}; it is tried again every minute");
                    self.conditions.set(Kind::RetentionOverdue, Some(what)).await;
                    AGAIN
                }
            };
            clock.sleep_until(clock.now().plus(pause)).await;
        }
    }

    /// Overwrites all that is due now.
    pub(crate) async fn retain(&self) -> Result<Done, String> {
        let _turn = self.retaining.turn.lock().await;
        let (log, now) = (self.exchanges.recorder.log().clone(), self.exchanges.clock.now());
        let mut done = Done::default();
        let due: Vec<_> = log.segments().into_iter().filter(|it| self.retaining.is_due(0, it, now)).collect();
        let earlier = self.due_earlier(now);
        if due.is_empty() && earlier.is_empty() {
            return Ok(done);
        }
        self.time_is_vouched_for(now).await?;
        let mut failed = None;
        for segment in due {
            // Read again for each: a hold may have come.
            let step = match self.segment(segment, now).await {
                Ok(step) => step,
                // What is wrong with one segment keeps nothing of the others.
                Err(error @ LogError::Damaged { .. }) => {
                    failed.get_or_insert(with_causes(&error));
                    continue;
                }
                Err(error) => return Err(with_causes(&error)),
            };
            done.add(step);
        }
        for (generation, segment) in earlier {
            match self.segment_earlier(&generation, segment, now).await {
                Ok(step) => done.add(step),
                Err(error) => {
                    failed.get_or_insert(format!(
                        "generation {}: {}",
                        generation.number,
                        with_causes(&error)
                    ));
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn segment(&self, segment: SegmentSpan, now: Time) -> Result<Done, LogError> {
        let log = self.exchanges.recorder.log().clone();
        let (policy, holds) = (self.retaining.policy.clone(), self.retaining.holds());
        let (reading, first) = (log.clone(), segment.first);
        let seen = Arc::clone(&holds);
        let came_back = self.retaining.came_back.load(Ordering::Acquire);
        let survey = tokio::task::spawn_blocking(move || {
            let mut schedules = Schedules::read(&reading, &policy, &holds, now)?;
            reading.survey(first, now, &mut schedules)
        });
        let survey = survey.await.unwrap_or(Err(LogError::Closed))?;
        // Whoever sets a hold waits for this: a hold that came before is looked at, and one that comes after comes too late.
        let _step = self.retaining.step.lock().await;
        if !Arc::ptr_eq(&seen, &self.retaining.holds()) {
            return Ok(Done::default());
        }
        if survey.unreadable() > 0 {
            tracing::warn!(
                segment = first,
                records = survey.unreadable(),
                "records cannot be read: run check-log"
            );
        }
        let contents = log.expire_contents(&survey).await?;
        if survey.records() > 0
            && let Err(why) = self.persons_first().await
        {
            tracing::warn!(why, "no record expires before what was approved is erased");
            return Ok(Done { segments: u64::from(contents > 0), contents, ..Done::default() });
        }
        if segment.open && survey.records() > 0 {
            log.close_segment().await?;
        }
        let month = |millis| Time::from_millis(millis).start_of_month().as_millis();
        let records = log.expire_records(&survey, month).await?;
        // What is logged from now on is due later than that.
        let later = self.retaining.policy.earliest(now);
        let next = survey.next().map_or(later, |next| next.min(later));
        let stuck = survey.stuck();
        // What cannot go is looked at, and told, again.
        // And what came back meanwhile may be due sooner.
        if stuck == 0 && self.retaining.came_back.load(Ordering::Acquire) == came_back {
            self.retaining.remember((0, first), next);
        }
        Ok(Done { segments: u64::from(contents + records > 0), contents, records, stuck })
    }

    /// Where a person stands is another matter once a segment is written anew: so what was approved is erased before that.
    async fn persons_first(&self) -> Result<(), String> {
        if !self.erasing.look(Notices::has_approved_person) {
            return Ok(());
        }
        match self.erasing.redo().await {
            Ok(()) | Err(ErasureError::Moved) => Ok(()),
            Err(error) => Err(with_causes(&error)),
        }
    }

    /// Whether a timestamping authority agrees with this clock. Where the last token is too old, as on a server that nobody
    /// asks anything, something is logged and stamped.
    async fn time_is_vouched_for(&self, now: Time) -> Result<(), String> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        if configuration.timestamping_authorities().is_empty() {
            return Ok(());
        }
        let agrees = || self.sealed().is_some_and(|it| now.since(it.at).max(it.at.since(now)) <= VOUCHED);
        if agrees() {
            return Ok(());
        }
        let entry = Entry::Expiry(trave_proto::schema::log::Expiry::default());
        let logged = self.exchanges.recorder.event(entry, Vec::new()).await;
        logged.map_err(|error| with_causes(&error))?;
        self.seal().await.map_err(|error| with_causes(&error))?;
        match agrees() {
            true => Ok(()),
            false => {
                Err("this server's clock and the timestamping authority's are more than a day apart".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_due_by_the_time_of_its_exchange() {
        let policy: config::Retention = toml::from_str("records_months = 12").unwrap();
        let retaining = Retaining::new(policy);
        let begun = Time::from_millis(1_795_255_200_000);
        let logged = begun.plus(Duration::from_secs(300 * 86_400));
        let times = Some((logged, logged));
        let segment = |first| SegmentSpan { first, count: 5_000, times, open: false, pruned: false };
        let year = begun.plus_months(12);
        assert!(!retaining.is_due(0, &segment(10_000), year));
        // Also where it was looked before, and the next time was known.
        retaining.remember((0, 10_000), logged.plus_months(12));
        retaining.came_back(12_345, begun);
        assert!(retaining.is_due(0, &segment(10_000), year) && !retaining.is_due(0, &segment(30_000), year));
        assert!(!retaining.is_due(0, &segment(10_000), year.minus(Duration::from_secs(1))));
        retaining.remember((0, 10_000), logged.plus_months(12));
        assert!(!retaining.is_due(0, &segment(10_000), year), "it was looked");
    }
}
