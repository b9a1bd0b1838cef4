//! Copying closed segments into the archive, in the background: no exchange waits for it, and one segment is copied at a
//! time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use trave_host::config::with_causes;
use trave_message_log::{Archive, ArchiveState, LogError};
use trave_proto::clock::Clock;

use super::Upkeep;
use super::conditions::Kind;
use crate::config::Config;
use crate::object_storage::{self, StorageError};

/// The archive, and what the log says of it.
#[derive(Debug)]
pub(crate) struct Archiving {
    pub(super) archive: Arc<Archive>,
    every: Duration,
    /// Read once; whoever changes the archive changes it too, one at a time.
    pub(super) state: Mutex<Option<ArchiveState>>,
}

impl Archiving {
    /// As the configuration says; none if there is no archive.
    pub(crate) fn new(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Self>, StorageError> {
        let Some(section) = &config.archive else { return Ok(None) };
        let Some(store) = object_storage::archive_store(config, clock)? else { return Ok(None) };
        let recipients = section.recipients.iter().map(|it| it.0.clone()).collect();
        let (archive, every) = (Archive { store, recipients }, Duration::from_secs(section.every_seconds));
        Ok(Some(Self { archive: Arc::new(archive), every, state: Mutex::default() }))
    }
}

impl Upkeep {
    /// Archives what is due, as long as the server runs.
    pub(super) async fn archive_regularly(self: Arc<Self>) {
        let Some(archiving) = &self.archiving else { return };
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let failed = self.archive_due(archiving).await.err().map(|error| {
                format!("closed segments are not archived: {}; it is tried again", with_causes(&error))
            });
            self.conditions.set(Kind::ArchiveUnavailable, failed).await;
            clock.sleep_until(clock.now().plus(archiving.every)).await;
        }
    }

    async fn archive_due(&self, archiving: &Archiving) -> Result<(), LogError> {
        let log = self.exchanges.recorder.log();
        let mut state = self.read_state(archiving).await?;
        let Some(state) = state.as_mut() else { return Ok(()) };
        let mut damaged = None;
        for first in log.due_for_archive(state) {
            match log.archive_segment(&archiving.archive, first, state).await {
                Ok(segment) => {
                    tracing::info!(
                        first,
                        records = segment.count,
                        bytes = segment.length,
                        "segment archived"
                    );
                }
                // What is wrong with one segment keeps no other from the archive.
                Err(error @ LogError::Damaged { .. }) => drop(damaged.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        damaged.map_or(Ok(()), Err)
    }

    /// What the log says of its archive, read once.
    pub(super) async fn read_state<'a>(
        &self,
        archiving: &'a Archiving,
    ) -> Result<MutexGuard<'a, Option<ArchiveState>>, LogError> {
        let log = self.exchanges.recorder.log();
        let mut state = archiving.state.lock().await;
        if state.is_none() {
            let (log, archive) = (log.clone(), Arc::clone(&archiving.archive));
            let read = tokio::task::spawn_blocking(move || {
                let state = log.archive_state()?;
                let left = log.tidy_archive(&archive, &state)?;
                if !left.is_empty() {
                    tracing::info!(
                        objects = left.len(),
                        "removed what an interrupted run left in the archive"
                    );
                }
                Ok(state)
            });
            *state = Some(read.await.unwrap_or(Err(LogError::Closed))?);
        }
        Ok(state)
    }
}
