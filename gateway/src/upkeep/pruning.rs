//! Pruning: archived segments leave this server's disk. What is to be pruned must be settled first, so that nothing that
//! schedules, holds or erasures ask for later needs what is not here any more.

mod applications;

use std::time::Duration;

use tokio::sync::MutexGuard;
use trave_message_log::{ArchiveState, Log, LogError, Survey};
use trave_proto::clock::Time;
use trave_proto::schema::log::{Leaf, RangePruned};

use super::Upkeep;
use super::archiving::Archiving;
use crate::retention::Schedules;
pub(crate) use applications::Application;

/// What is younger is not pruned: other servers still ask about it, and exchanges may still need it.
const YOUNGEST: Duration = Duration::from_secs(31 * DAY);
/// The records of a segment must be due within so much time: it goes as a whole, when the last of them is due.
const SPAN: Duration = Duration::from_secs(31 * DAY);
const DAY: u64 = 86_400;

/// Why nothing is pruned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    #[error("no archive is configured, and what is not archived is not pruned\nhint: docs/archive.md")]
    NoArchive,
    #[error(
        "nothing of that time can be pruned{}\nhint: whole segments go that are closed, archived, older than 31 days, and \
         before the last checkpoint and timestamp",
        told(.0)
    )]
    Nothing(Vec<String>),
    #[error("the range is not pruned: something in it must stay by now{}\nhint: prune anew, what may go", told(.0))]
    Stays(Vec<String>),
    #[error("no pruning waits for approval as {0}\nhint: `archive prunings` lists those that do")]
    Unknown(String),
    #[error("{0} was applied for on {1}, and lapsed on {2}, as nobody approved it\nhint: apply for it anew")]
    Lapsed(String, Time, Time),
    #[error("the range was not pruned")]
    Log(#[source] LogError),
}

fn told(stays: &[String]) -> String {
    stays.iter().map(|why| format!("; {why}")).collect()
}

impl Upkeep {
    /// What may be pruned of the records before a time, as a statement that lacks its persons; and what stays, in words.
    pub(crate) async fn prunable(&self, before: Time) -> Result<(RangePruned, Vec<String>), PruneError> {
        let now = self.exchanges.clock.now();
        let (archiving, mut kept) = self.archiving_state().await?;
        let (log, state) = (self.exchanges.recorder.log().clone(), kept.take().unwrap_or_default());
        let (policy, holds) = (self.retaining.policy().clone(), self.retaining.holds());
        let before = before.min(now.minus(YOUNGEST));
        let found = tokio::task::spawn_blocking(move || {
            let mut stays = Vec::new();
            let range = Schedules::read(&log, &policy, &holds, now).and_then(|mut schedules| {
                log.prunable(&state, before, &mut |first| {
                    let why = stays_as(&log, first, now, &mut schedules)?;
                    let goes = why.is_none();
                    stays.extend(why);
                    Ok(goes)
                })
            });
            (range, stays, state)
        });
        // The state is read again if this was cut off.
        let (range, stays, state) = found.await.map_err(|_| PruneError::Log(LogError::Closed))?;
        *kept = Some(state);
        let Some(range) = range.map_err(PruneError::Log)? else { return Err(PruneError::Nothing(stays)) };
        let statement = RangePruned {
            first: range.first,
            count: range.count,
            root: range.root.to_bytes(),
            place: archiving.archive.store.place(),
            ..RangePruned::default()
        };
        Ok((statement, stays))
    }

    /// Prunes what the statement says; how many segments were removed. What came between, a hold or the end of a time, is
    /// looked at before: it may have been applied for days ago, and dropped since. Until it is done no hold comes into force.
    pub(crate) async fn prune(&self, statement: RangePruned) -> Result<u64, PruneError> {
        let _still = self.retaining.still().await;
        let stays = self.stays(&statement).await?;
        if !stays.is_empty() {
            return Err(PruneError::Stays(stays));
        }
        let (archiving, mut state) = self.archiving_state().await?;
        let Some(state) = state.as_mut() else { return Err(PruneError::Nothing(Vec::new())) };
        if statement.approver_user.is_some() {
            applications::waiting(state, &statement.id, self.exchanges.clock.now())?;
        }
        let log = self.exchanges.recorder.log();
        let segments = log.prune(&archiving.archive, statement, state).await.map_err(PruneError::Log)?;
        // What is due of it next is looked for anew.
        self.retaining.look_again();
        Ok(segments)
    }

    /// What of a range must stay now, in words.
    async fn stays(&self, range: &RangePruned) -> Result<Vec<String>, PruneError> {
        let (log, now) = (self.exchanges.recorder.log().clone(), self.exchanges.clock.now());
        let (policy, holds) = (self.retaining.policy().clone(), self.retaining.holds());
        let range = range.first..range.first.saturating_add(range.count);
        let found = tokio::task::spawn_blocking(move || {
            let mut schedules = Schedules::read(&log, &policy, &holds, now)?;
            let segments = log.segments().into_iter().filter(|it| range.contains(&it.first));
            let stays = segments.map(|it| stays_as(&log, it.first, now, &mut schedules));
            stays.filter_map(Result::transpose).collect()
        });
        found.await.unwrap_or(Err(LogError::Closed)).map_err(PruneError::Log)
    }

    /// Takes a record about the archive into account that somebody else logged.
    pub(crate) async fn archive_changed(&self, leaf: &Leaf) {
        if let Some(archiving) = &self.archiving
            && let Some(state) = archiving.state.lock().await.as_mut()
        {
            state.take(leaf);
        }
    }

    async fn archiving_state(
        &self,
    ) -> Result<(&Archiving, MutexGuard<'_, Option<ArchiveState>>), PruneError> {
        let archiving = self.archiving.as_ref().ok_or(PruneError::NoArchive)?;
        Ok((archiving, self.read_state(archiving).await.map_err(PruneError::Log)?))
    }
}

/// That the segment which begins with this record must stay, in words; none if it may go.
fn stays_as(
    log: &Log,
    first: u64,
    now: Time,
    schedules: &mut Schedules<'_>,
) -> Result<Option<String>, LogError> {
    let why = obstacle(&log.survey(first, now, schedules)?);
    Ok(why.map(|why| format!("the segment that begins with record {first} stays: {why}")))
}

/// Why a segment must stay, by what is due in it; none if it may go.
fn obstacle(survey: &Survey) -> Option<&'static str> {
    if survey.unreadable() > 0 {
        return Some("records of it cannot be read; run check-log");
    }
    if survey.records() > 0 {
        return Some(
            "the time of records in it is over: they are taken out within the hour, and it is archived anew",
        );
    }
    if survey.undated() > 0 {
        return Some("something in it is held");
    }
    let (earliest, latest) = survey.span()?;
    let apart = latest.since(earliest) > SPAN;
    apart.then_some(
        "its records are due at times more than 31 days apart, and in the archive they go together",
    )
}
