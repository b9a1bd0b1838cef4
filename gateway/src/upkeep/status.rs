//! The status of this server's own signing certificate: an OCSP answer (RFC 6960) that is shown to every peer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_host::client::{Fetch, FetchError};
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::files;
use trave_proto::certificate::{ChainError, Profile, VerifiedChain, ocsp};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::Configuration;
use trave_proto::verification::{TrustedSigner, VerificationError};

use super::conditions::Kind;
use super::{Backoff, Upkeep};
use crate::custody::Layout;
use crate::recorder::KnownSigner;
use crate::trust::Trust;

/// Why the own certificate's status is not known to be good.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The own chain is not trusted.
    #[error("the signing certificate of this server is not trusted by the global configuration")]
    Chain(#[source] ChainError),
    /// The answer, or the certificate, is refused.
    #[error("the signing certificate of this server is refused")]
    Refused(#[source] VerificationError),
    /// No responder answered.
    #[error("no OCSP responder of the certification authority answered")]
    Fetch(#[source] FetchError),
    /// The global configuration names none.
    #[error("the global configuration names no OCSP responder for the certification authority")]
    NoResponder,
    /// The certificate cannot be asked about.
    #[error("a question about the signing certificate cannot be made")]
    Request(#[source] ocsp::OcspError),
}

/// The least time between two questions about the own certificate.
const LEAST: Duration = Duration::from_secs(1);

/// This server's own signer, with the stored answer if it still counts, else with a new one. While no responder answers
/// it waits: without an answer this server does not serve, and its start needs nobody who starts it again.
pub(crate) async fn own_signer(
    chain: &[Bytes],
    layout: &Layout,
    trust: &Trust,
    clock: &dyn Clock,
    drain: &Drain,
) -> Result<KnownSigner, StatusError> {
    let configuration = &trust.snapshot().configuration;
    if let Ok(stored) = std::fs::read(layout.signing_status())
        && let Ok(signer) = TrustedSigner::verify(chain, stored.into(), configuration, clock.now())
    {
        return Ok(KnownSigner::new(signer));
    }
    let mut backoff = Backoff::new();
    loop {
        let error = match fresh_signer(chain, layout, configuration, clock).await {
            Err(error @ StatusError::Fetch(_)) => error,
            other => return other,
        };
        let pause = backoff.next();
        tracing::warn!(
            error = with_causes(&error),
            again_in_seconds = pause.as_secs(),
            "waiting with the doors closed: the status of the signing certificate is not known"
        );
        tokio::select! {
            () = drain.begun() => return Err(error),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Upkeep {
    /// Asks again when half of the time is over for which the last answer counts.
    pub(super) async fn keep_status_fresh(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let (now, until) = (clock.now(), self.exchanges.own.signer.load().status_until());
            let half = until.since(now) / 2;
            if half < LEAST {
                // Also where civil time stands still: what has run out is renewed.
                tokio::time::sleep(LEAST).await;
            } else {
                clock.sleep_until(now.plus(half)).await;
            }
            let mut backoff = Backoff::new();
            while let Err(error) = self.refresh_status().await {
                let until = self.exchanges.own.signer.load().status_until();
                let what = format!(
                    "the status of the signing certificate cannot be renewed: {}; the last answer counts until {until}",
                    with_causes(&error)
                );
                self.conditions.set(Kind::CertificateStatusUnavailable, Some(what)).await;
                tokio::time::sleep(backoff.next()).await;
            }
            self.conditions.set(Kind::CertificateStatusUnavailable, None).await;
        }
    }

    async fn refresh_status(&self) -> Result<(), StatusError> {
        let exchanges = &self.exchanges;
        let chain: Vec<_> = exchanges.own.signer.load().chain().certificates().cloned().collect();
        let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
        let signer = fresh_signer(&chain, &self.layout, &configuration, exchanges.clock.as_ref()).await?;
        exchanges.own.signer.store(Arc::new(signer));
        Ok(())
    }
}

/// This server's own signer with a new answer, which is stored for the next start.
async fn fresh_signer(
    chain: &[Bytes],
    layout: &Layout,
    configuration: &Configuration,
    clock: &dyn Clock,
) -> Result<KnownSigner, StatusError> {
    let authorities: Vec<_> =
        configuration.certification_authorities().iter().map(|authority| &authority.certificate).collect();
    let verified = VerifiedChain::verify(chain, &authorities, Profile::Signing, clock.now())
        .map_err(StatusError::Chain)?;
    let request =
        ocsp::request(verified.certificate(), verified.issuer(), None).map_err(StatusError::Request)?;
    let urls = configuration
        .certification_authorities()
        .iter()
        .filter(|authority| authority.certificate.as_ref() == verified.authority().der().as_ref());
    let mut failed = StatusError::NoResponder;
    for url in urls.flat_map(|authority| &authority.ocsp_urls) {
        let Ok(uri) = url.parse() else { continue };
        match Fetch::new(None).post(&uri, "application/ocsp-request", request.clone().into()).await {
            Ok(fetched) => {
                match TrustedSigner::verify(chain, fetched.body.clone(), configuration, clock.now()) {
                    Ok(signer) => {
                        if let Err(error) = files::replace(&layout.signing_status(), &fetched.body) {
                            tracing::warn!(%error, "the answer about the signing certificate cannot be stored");
                        }
                        return Ok(KnownSigner::new(signer));
                    }
                    Err(error) => failed = StatusError::Refused(error),
                }
            }
            Err(error) => failed = StatusError::Fetch(error),
        }
    }
    Err(failed)
}
