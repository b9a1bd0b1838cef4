//! The logs that a witness knows, and their keys: those of the global configuration, followed like a security server does,
//! and those that its own administrator names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use trave_host::client::{Fetch, FetchError};
use trave_host::config::with_causes;
use trave_host::files::{FileError, replace};
use trave_host::tls::{self, Http, Pinned, TlsError};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::{Clock, Time};
use trave_proto::global_configuration::{
    AdoptionError, Configuration, ConfigurationError, MAX_CONFIGURATION,
};

use crate::config::FollowedSettings;

/// For one look, with a configuration of 16 MiB over a slow line.
const PATIENCE: Duration = Duration::from_secs(60);

/// The logs that are known now.
#[derive(Debug)]
pub(super) struct Logs {
    listed: HashMap<String, NoteVerifier>,
    configuration: ArcSwapOption<Configuration>,
}

/// Why a log's key cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// It is not known.
    Unknown,
    /// The global configuration has ended: what it said of logs counts no longer.
    Ended(Time),
}

impl Logs {
    /// These and, where a configuration was adopted before, those of the configuration in `stored`.
    pub(super) fn new(listed: Vec<NoteVerifier>, stored: Option<Configuration>) -> Self {
        let listed = listed.into_iter().map(|key| (key.name().to_owned(), key)).collect();
        Self { listed, configuration: ArcSwapOption::from(stored.map(Arc::new)) }
    }

    /// The key of the log with this origin.
    pub(super) fn key(&self, origin: &str, now: Time) -> Result<NoteVerifier, NoKey> {
        if let Some(key) = self.listed.get(origin) {
            return Ok(key.clone());
        }
        let configuration = self.configuration.load_full().ok_or(NoKey::Unknown)?;
        let log = configuration.log_key(origin).ok_or(NoKey::Unknown)?;
        if now > configuration.valid_until() {
            return Err(NoKey::Ended(configuration.valid_until()));
        }
        NoteVerifier::new(&log.origin, log.public_key).map_err(|_| NoKey::Unknown)
    }

    /// Number of the configuration in use; 0 for none.
    pub(super) fn number(&self) -> u64 {
        self.configuration.load().as_ref().map_or(0, |configuration| configuration.number())
    }
}

/// Why a look at the registry did not end well.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the registry is not reached")]
    Fetch(#[source] FetchError),
    #[error("what the registry sent is refused")]
    Refused(#[source] ConfigurationError),
    #[error("what the registry sent is not adopted")]
    NotAdopted(#[source] AdoptionError),
    #[error("the configuration cannot be stored")]
    Store(#[source] FileError),
}

/// Where the configuration that was adopted last is kept.
fn stored_at(state: &Path) -> PathBuf {
    state.join("configuration")
}

/// The configuration that was adopted last, if it is there and whole: what is not comes again from the registry.
pub(super) fn stored(state: &Path, followed: &FollowedSettings) -> Option<Configuration> {
    let bytes = std::fs::read(stored_at(state)).ok()?;
    match Configuration::verify_encoded(bytes.into(), &followed.anchor) {
        Ok(configuration) => Some(configuration),
        Err(error) => {
            tracing::warn!(error = with_causes(&error), "the stored configuration is refused");
            None
        }
    }
}

/// Looks for newer configurations.
pub(super) struct Following {
    followed: FollowedSettings,
    uri: Uri,
    fetch: Fetch,
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Following {
    pub(super) fn new(
        followed: FollowedSettings,
        state: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FollowingError> {
        let uri = format!("https://{}/configuration/latest", followed.address);
        let uri = uri.parse().map_err(|_| FollowingError::Address)?;
        let pinned = Arc::new(Pinned::new([followed.key]));
        let tls =
            tls::Client::new(None, pinned, Http::One, Arc::clone(&clock)).map_err(FollowingError::Tls)?;
        let fetch = Fetch::new(Some(tls)).with_limit(MAX_CONFIGURATION).with_time(PATIENCE);
        Ok(Self { followed, uri, fetch, path: stored_at(state), clock })
    }

    /// Looks again and again.
    pub(super) async fn run(self, logs: Arc<Logs>) {
        let mut known = None;
        loop {
            if let Err(error) = self.look(&logs, &mut known).await {
                tracing::warn!(
                    error = with_causes(&error),
                    "no newer configuration; the logs stay those known"
                );
            }
            self.clock.sleep_until(self.clock.now().plus(self.followed.every)).await;
        }
    }

    async fn look(&self, logs: &Logs, known: &mut Option<String>) -> Result<(), LookError> {
        let fetched = self.fetch.get_unless(&self.uri, known.as_deref()).await.map_err(LookError::Fetch)?;
        let Some(fetched) = fetched else { return Ok(()) };
        let configuration = Configuration::verify_encoded(fetched.body.clone(), &self.followed.anchor)
            .map_err(LookError::Refused)?;
        let before = logs.configuration.load_full();
        configuration.check_current(self.clock.now(), before.as_deref()).map_err(LookError::NotAdopted)?;
        if before.is_none_or(|before| before.digest() != configuration.digest()) {
            replace(&self.path, &fetched.body).map_err(LookError::Store)?;
            tracing::info!(number = configuration.number(), "global configuration adopted");
            logs.configuration.store(Some(Arc::new(configuration)));
        }
        *known = fetched.entity_tag;
        Ok(())
    }
}

/// Why the registry cannot be followed at all.
#[derive(Debug, thiserror::Error)]
pub enum FollowingError {
    /// Not an address.
    #[error("the registry's address is not host:port")]
    Address,
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
}
