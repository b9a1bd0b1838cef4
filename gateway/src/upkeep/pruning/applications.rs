//! Prunings that one person applied for, and that wait for another one: approved, dropped, or lapsed.

use std::time::Duration;

use trave_message_log::{ArchiveState, LogError, PruningApplication, RangeHere};
use trave_proto::clock::Time;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ArchiveAct, PruningDropped, RangePruned, archive_act};

use super::{DAY, PruneError};
use crate::upkeep::Upkeep;

/// So long another person may approve it, as with the acts of the registry.
const LAPSES: Duration = Duration::from_secs(14 * DAY);

/// A pruning that waits, and what would go.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) range: RangePruned,
    pub(crate) since: Time,
    pub(crate) lapses: Time,
    pub(crate) here: RangeHere,
    /// What of it must stay by now, in words.
    pub(crate) stays: Vec<String>,
}

impl Upkeep {
    /// The prunings that wait for another person, the earliest first. Reads the records that they are about.
    pub(crate) async fn prunings(&self) -> Result<Vec<Application>, PruneError> {
        let now = self.exchanges.clock.now();
        let mut waiting: Vec<PruningApplication> = {
            let (_, state) = self.archiving_state().await?;
            let all = state.iter().flat_map(|state| state.all_waiting());
            all.filter(|it| now < lapses(it)).cloned().collect()
        };
        waiting.sort_by_key(|it| it.since);
        let mut applications = Vec::new();
        for waits in waiting {
            let (log, first, count) =
                (self.exchanges.recorder.log().clone(), waits.range.first, waits.range.count);
            let here = tokio::task::spawn_blocking(move || log.range_here(first, count)).await;
            let here = here.unwrap_or(Err(LogError::Closed)).map_err(PruneError::Log)?;
            let stays = self.stays(&waits.range).await?;
            let (lapses, since) = (lapses(&waits), waits.since);
            applications.push(Application { range: waits.range, since, lapses, here, stays });
        }
        Ok(applications)
    }

    /// What was applied for under this id, if it may still be approved.
    pub(crate) async fn waiting_pruning(&self, id: &str) -> Result<RangePruned, PruneError> {
        let (_, state) = self.archiving_state().await?;
        let state = state.as_ref().ok_or_else(|| PruneError::Unknown(id.to_owned()))?;
        waiting(state, id, self.exchanges.clock.now()).cloned()
    }

    /// Withdraws what was applied for under this id; that is logged.
    pub(crate) async fn drop_pruning(&self, dropped: PruningDropped) -> Result<(), PruneError> {
        // Held to the end: it is either approved or dropped.
        let (_, mut state) = self.archiving_state().await?;
        let state = state.as_mut().ok_or_else(|| PruneError::Unknown(dropped.id.clone()))?;
        waiting(state, &dropped.id, self.exchanges.clock.now())?;
        let act = ArchiveAct { act: Some(archive_act::Act::Dropped(dropped)) };
        let logged = self.exchanges.recorder.event(Entry::Archive(act), Vec::new()).await;
        state.take(logged.map_err(PruneError::Log)?.get());
        Ok(())
    }
}

/// What waits under this id at that time.
pub(super) fn waiting<'a>(
    state: &'a ArchiveState,
    id: &str,
    now: Time,
) -> Result<&'a RangePruned, PruneError> {
    let found = state.waiting(id).ok_or_else(|| PruneError::Unknown(id.to_owned()))?;
    match now < lapses(found) {
        true => Ok(&found.range),
        false => Err(PruneError::Lapsed(id.to_owned(), found.since, lapses(found))),
    }
}

fn lapses(application: &PruningApplication) -> Time {
    application.since.plus(LAPSES)
}
