//! Following the registry: a newer global configuration is fetched and adopted. Exchanges never wait for it, and go on
//! without it while the configuration in use is valid.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use prost::Message;
use trave_host::client::{Fetch, FetchError};
use trave_host::config::with_causes;
use trave_host::tls::{self, Http, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{AdoptionError, MAX_CONFIGURATION};
use trave_proto::schema::configuration::SignedConfiguration;

use super::Upkeep;
use super::conditions::Kind;
use crate::config::Config;
use crate::custody::Layout;
use crate::trust::TrustError;

/// For one look, with a configuration of 16 MiB over a slow line.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where and how often is looked.
#[derive(Debug)]
pub(super) struct Following {
    address: String,
    every: Duration,
}

/// Why a look did not end well.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(
        "what enrolment stored of the registry cannot be read: {0} (hint: `trave-gateway enrol` stores it)"
    )]
    Pin(String),
    #[error("the registry's address is not host:port")]
    Address,
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    #[error("the registry is not reached")]
    Fetch(#[source] FetchError),
    #[error("what the registry sent is no global configuration")]
    NotOne(#[source] prost::DecodeError),
    #[error("what the registry sent is not adopted")]
    Adopt(#[source] TrustError),
}

impl Following {
    pub(super) fn new(config: &Config) -> Self {
        let every = Duration::from_secs(config.registry.poll_seconds);
        Self { address: config.registry.address.clone(), every }
    }
}

impl Upkeep {
    /// Whether the registry can be spoken to at all: told before the doors open, as nothing but enrolment changes it.
    pub(super) async fn check_pin(&self, following: &Following) {
        if let Err(error) = fetch(&self.layout, &self.exchanges.clock) {
            self.judge(Err(error), &following.address).await;
        }
    }

    /// Looks for a newer configuration again and again.
    pub(super) async fn follow_registry(self: Arc<Self>, following: Following) {
        let clock = Arc::clone(&self.exchanges.clock);
        let mut known = None;
        loop {
            let looked = self.look(&following.address, &mut known, &clock).await;
            self.judge(looked, &following.address).await;
            clock.sleep_until(clock.now().plus(following.every)).await;
        }
    }

    async fn look(
        &self,
        address: &str,
        known: &mut Option<String>,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), LookError> {
        let fetch = fetch(&self.layout, clock)?;
        let uri: Uri =
            format!("https://{address}/configuration/latest").parse().map_err(|_| LookError::Address)?;
        let Some(fetched) = fetch.get_unless(&uri, known.as_deref()).await.map_err(LookError::Fetch)? else {
            return Ok(());
        };
        let signed = SignedConfiguration::decode(Bytes::clone(&fetched.body)).map_err(LookError::NotOne)?;
        self.exchanges.adopt(&signed, "registry").await.map_err(LookError::Adopt)?;
        // Only what was adopted, or is in use, need not be sent again.
        *known = fetched.entity_tag;
        Ok(())
    }

    /// Tells the operator how a look ended. An alarm stays until people have looked into it and started the server anew.
    async fn judge(&self, looked: Result<(), LookError>, address: &str) {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let until = configuration.valid_until();
        match looked {
            Ok(()) => {
                self.registry_seen.store(self.exchanges.clock.now().as_millis(), Ordering::Relaxed);
                self.conditions.set(Kind::RegistryUnavailable, None).await;
            }
            Err(error) if is_alarm(&error) => {
                self.registry_seen.store(self.exchanges.clock.now().as_millis(), Ordering::Relaxed);
                let what = format!("the registry at {address}: {}", with_causes(&error));
                self.conditions.set(Kind::ConfigurationRefused, Some(what)).await;
            }
            Err(error) => {
                let what = format!(
                    "the registry at {address} gives no configuration: {}; exchanges go on with configuration {}, \
                     valid until {until}",
                    with_causes(&error),
                    configuration.number()
                );
                self.conditions.set(Kind::RegistryUnavailable, Some(what)).await;
            }
        }
    }
}

/// Forks, and going back: nothing that a later look mends.
fn is_alarm(error: &LookError) -> bool {
    match error {
        LookError::Adopt(TrustError::NotAdopted(error)) => {
            error.is_alarm() || matches!(error, AdoptionError::Rollback { .. })
        }
        LookError::Adopt(TrustError::Refused(_)) => true,
        _ => false,
    }
}

/// Downloads from the registry whose key enrolment stored, and from nobody else.
fn fetch(layout: &Layout, clock: &Arc<dyn Clock>) -> Result<Fetch, LookError> {
    let path = layout.registry_pin();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| LookError::Pin(format!("{}: {error}", path.display())))?;
    let bytes = hex::decode(text.trim()).unwrap_or_default();
    let pin = Digest::from_slice(&bytes)
        .ok_or_else(|| LookError::Pin(format!("{} holds no SHA-256 in hexadecimal", path.display())))?;
    let pinned = Arc::new(Pinned::new([pin]));
    let tls = tls::Client::new(None, pinned, Http::One, Arc::clone(clock)).map_err(LookError::Tls)?;
    Ok(Fetch::new(Some(tls)).with_limit(MAX_CONFIGURATION).with_time(PATIENCE))
}
