//! The one writer of the registry's state: first the log, then the memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use prost::Message;
use tokio::sync::{Mutex, MutexGuard, watch};
use trave_host::files::replace;
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::Clock;
use trave_proto::global_configuration::Anchor;
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::registry_event::Event;

use super::journal::{Journal, JournalError};
use super::memory::State;
use super::records::{Published, StateError};

/// Why the state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The log.
    #[error("the registry's log cannot be opened")]
    Journal(#[source] JournalError),
    /// What the log says.
    #[error("the registry's log does not make a state")]
    State(#[source] StateError),
    /// The directory.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The state, its log, and the configuration in force for all who only read.
#[derive(Debug)]
pub(crate) struct Store {
    journal: Journal,
    state: Mutex<State>,
    latest: ArcSwapOption<Published>,
    changed: watch::Sender<u64>,
    /// Configurations as they are served, one file each: made again from the log if they are lost.
    configurations: PathBuf,
}

impl Store {
    /// Opens the state in the directory `data`. Blocks while it reads the log.
    pub(crate) fn open(
        data: &Path,
        signer: NoteSigner,
        anchor: &Anchor,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let configurations = data.join("configurations");
        std::fs::create_dir_all(&configurations)
            .map_err(|source| StoreError::Directory { path: configurations.clone(), source })?;
        let mut state = State::new(anchor.clone());
        let take = |event| {
            let published = state.replay(event)?;
            if let Some(signed) = published {
                keep_if_lost(&configurations, &signed);
            }
            Ok(())
        };
        let journal = Journal::open(&data.join("log"), signer, clock, take).map_err(StoreError::Journal)?;
        state.settle().map_err(StoreError::State)?;
        let latest = ArcSwapOption::new(state.latest().cloned());
        let number = state.latest().map_or(0, |latest| latest.configuration.number());
        let (changed, _) = watch::channel(number);
        Ok(Self { journal, state: Mutex::new(state), latest, changed, configurations })
    }

    /// The configuration in force.
    pub(crate) fn latest(&self) -> Option<Arc<Published>> {
        self.latest.load_full()
    }

    /// A published configuration, encoded, by its number.
    pub(crate) async fn configuration(&self, number: u64) -> Option<Bytes> {
        if let Some(latest) = self.latest().filter(|it| it.configuration.number() == number) {
            return Some(latest.encoded.clone());
        }
        let path = file_of(&self.configurations, number);
        let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
        read.ok()?.ok().map(Bytes::from)
    }

    /// Tells each number that is published.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The state, for whoever decides upon it and then [records](Self::record) what follows.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// Records an event and takes it into the state. The caller runs to its end: a task of its own, never a future that
    /// somebody may drop in between.
    pub(crate) async fn record(&self, state: &mut State, event: Event) -> Result<(), JournalError> {
        self.journal.record(&event).await?;
        let published = matches!(event, Event::Published(_) | Event::ProposalSigned(_));
        if let Err(error) = state.apply(event) {
            // Only what was checked is recorded, so this is a mistake in the program; the log stays the truth.
            tracing::error!(error = trave_host::config::with_causes(&error), "an event was not understood");
        }
        if let Some(latest) = state.latest().filter(|_| published) {
            keep_file(&file_of(&self.configurations, latest.configuration.number()), &latest.encoded);
            self.latest.store(Some(latest.clone()));
            self.changed.send_replace(latest.configuration.number());
            if let Err(error) = self.journal.checkpoint().await {
                let error = trave_host::config::with_causes(&error);
                tracing::warn!(error, "the registry's log could not be checkpointed");
            }
        }
        Ok(())
    }

    /// Ends the log in order.
    pub(crate) fn close(&self) {
        self.journal.close();
    }
}

fn file_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}.configuration"))
}

/// A file that was lost is made again from the log.
fn keep_if_lost(directory: &Path, signed: &SignedConfiguration) {
    let number = GlobalConfiguration::decode(signed.configuration.clone()).map_or(0, |it| it.number);
    let path = file_of(directory, number);
    if !path.exists() {
        keep_file(&path, &signed.encode_to_vec());
    }
}

/// The file only serves readers; the log holds the truth, so a failure is told and no more.
fn keep_file(path: &Path, encoded: &[u8]) {
    if let Err(error) = replace(path, encoded) {
        let error = trave_host::config::with_causes(&error);
        tracing::warn!(error, "a published configuration cannot be kept for readers");
    }
}
