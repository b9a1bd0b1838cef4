//! Publication: what two administrators decided becomes a configuration, once enough configuration keys have signed it.
//!
//! A proposal is durable before a cosigner sees it, and the same until it is published: so no number ever has two. Where
//! a cosigner is absent, approved acts wait, and the proposal is offered again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::Notify;
use trave_certs::authority::CertificationAuthority;
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::keys::NoteKey;
use trave_proto::clock::{Clock, Time};
use trave_proto::global_configuration::{Anchor, Configuration, ConfigurationError, sign_configuration};
use trave_proto::management::{Validity, check_genesis, follow};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{CertificatesIssued, CosignRequest, SignedAct, registry_event::Event};

use crate::cosigners::{Asked, Cosigners};
use crate::state::{JournalError, State, Store};
use crate::trust_services::{certify, revoke_unlisted};

/// After this time a failed attempt is made again, then after twice as long, up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A proposal of this age may be abandoned, if the cosigners find it too old.
const OLD: Duration = Duration::from_secs(5 * 60);

/// Why nothing could be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublicationError {
    /// Signatures are missing.
    #[error("configuration {number} awaits signatures: {missing}")]
    Unsigned { number: u64, missing: String },
    /// This clock and the cosigners' differ too much.
    #[error("the cosigners hold a new proposal for an old one: the registry's clock is behind theirs")]
    Clocks,
    /// Signed, but not as security servers demand.
    #[error("the signed configuration would be refused by every security server")]
    Unacceptable(#[source] ConfigurationError),
    /// The first configuration is none.
    #[error("the first configuration, as the ceremony made it, cannot be used: {0}")]
    Genesis(String),
    /// The log.
    #[error("the registry cannot write to its log")]
    Journal(#[source] JournalError),
}

/// What publishes.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) anchor: Anchor,
    pub(crate) genesis: Bytes,
    pub(crate) key_name: String,
    pub(crate) key: NoteKey,
    pub(crate) validity: Duration,
    pub(crate) cosigners: Cosigners,
    pub(crate) authority: Option<Arc<CertificationAuthority>>,
    pub(crate) wake: Arc<Notify>,
}

impl Publication {
    /// Publishes whenever there is something to publish, until the server ends.
    pub(crate) async fn run(self, drain: Drain) {
        let mut retry = None;
        loop {
            match self.advance().await {
                Ok(()) => retry = None,
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(error, "nothing can be published; it is tried again");
                    let twice = |wait: Duration| (wait * 2).min(LAST_RETRY);
                    retry = Some(retry.map_or(FIRST_RETRY, twice));
                }
            }
            tokio::select! {
                () = drain.begun() => return,
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(self.due()), if retry.is_none() => {}
                () = tokio::time::sleep(retry.unwrap_or(LAST_RETRY)), if retry.is_some() => {}
            }
        }
    }

    /// When the configuration in force must have a successor: before half of its validity has passed.
    fn due(&self) -> Time {
        match self.store.latest() {
            Some(latest) => {
                let (issued, until) = (latest.configuration.issued(), latest.configuration.valid_until());
                issued.plus(until.since(issued).min(self.validity) * 9 / 20)
            }
            None => self.clock.now(),
        }
    }

    /// Publishes all that can be published now.
    async fn advance(&self) -> Result<(), PublicationError> {
        self.issue_certificates().await?;
        while let Some(proposal) = self.proposal().await? {
            self.publish(proposal).await?;
            self.issue_certificates().await?;
        }
        Ok(())
    }

    /// The proposal that stands, or a new one if there is a reason for it.
    async fn proposal(&self) -> Result<Option<Bytes>, PublicationError> {
        let mut state = self.store.lock().await;
        if let Some(standing) = state.proposal() {
            return Ok(Some(standing.clone()));
        }
        let Some(bytes) = self.next(&state)? else { return Ok(None) };
        let proposed = Event::Proposed(bytes.clone());
        self.store.record(&mut state, proposed).await.map_err(PublicationError::Journal)?;
        Ok(Some(bytes))
    }

    fn next(&self, state: &State) -> Result<Option<Bytes>, PublicationError> {
        let Some(latest) = state.latest() else {
            return self.first().map(Some);
        };
        let now = self.clock.now().max(latest.configuration.issued());
        let validity = Validity { issued: now, until: now.plus(self.validity) };
        let mut acts: Vec<SignedAct> = Vec::new();
        for record in state.approved() {
            acts.push(record.signed.clone());
            // One that cannot be carried out any more must not hold up the others. It stays approved until it expires.
            if let Err(error) = follow(&latest.decoded, &acts, validity) {
                let error = with_causes(&error);
                tracing::warn!(act = %record.act.id(), error, "an approved act cannot come into force");
                acts.pop();
            }
        }
        if acts.is_empty() && now < self.due() {
            return Ok(None);
        }
        match follow(&latest.decoded, &acts, validity) {
            Ok(next) => Ok(Some(next.encode_to_vec().into())),
            Err(error) => {
                tracing::error!(error = with_causes(&error), "no configuration follows");
                Ok(None)
            }
        }
    }

    fn first(&self) -> Result<Bytes, PublicationError> {
        let refused = |why: &dyn std::error::Error| PublicationError::Genesis(with_causes(why));
        let genesis = GlobalConfiguration::decode(self.genesis.clone()).map_err(|error| refused(&error))?;
        check_genesis(&genesis).map_err(|error| refused(&error))?;
        Ok(self.genesis.clone())
    }

    /// Gathers the signatures on a proposal and publishes it, or abandons it if no cosigner signed it and none will.
    async fn publish(&self, proposal: Bytes) -> Result<(), PublicationError> {
        let request = self.request(proposal).await;
        let asked = self.cosigners.ask(request, &self.anchor, &self.store).await;
        let signed = match asked {
            Asked::Signed(signed) => signed,
            Asked::Stale { digest, issued } => {
                // A proposal that is new by this clock and old by theirs would be so again and again.
                if self.clock.now().since(issued) < OLD {
                    return Err(PublicationError::Clocks);
                }
                let mut state = self.store.lock().await;
                let abandoned = Event::Abandoned(digest.to_bytes());
                return self.store.record(&mut state, abandoned).await.map_err(PublicationError::Journal);
            }
            Asked::Missing { number, missing } => {
                return Err(PublicationError::Unsigned { number, missing });
            }
        };
        // What no security server would accept is not published.
        let configuration =
            Configuration::verify(&signed, &self.anchor).map_err(PublicationError::Unacceptable)?;
        let mut state = self.store.lock().await;
        let published = Event::Published(signed);
        self.store.record(&mut state, published).await.map_err(PublicationError::Journal)?;
        let (number, acts) = (configuration.number(), configuration.acts().len());
        tracing::info!(number, acts, valid_until = %configuration.valid_until(), "configuration published");
        Ok(())
    }

    /// The proposal with the registry's own signature and the acts that lead to it.
    async fn request(&self, proposal: Bytes) -> CosignRequest {
        let acts = self.store.lock().await.acts_of(&proposal);
        let sign = |content: &[u8]| self.key.sign(content);
        let own = sign_configuration(&proposal, &self.key_name, sign);
        let proposed = SignedConfiguration { configuration: proposal, signatures: vec![own] };
        CosignRequest { proposed: Some(proposed), acts, missed: Vec::new() }
    }

    /// Certifies the keys of enrolments that came into force, and revokes the certificates of keys that are out of force.
    async fn issue_certificates(&self) -> Result<(), PublicationError> {
        let Some(authority) = &self.authority else { return Ok(()) };
        let mut state = self.store.lock().await;
        let Some(latest) = state.latest().cloned() else { return Ok(()) };
        let waiting: Vec<_> =
            state.uncertified().map(|(id, enrolment)| (*id, enrolment.request.clone())).collect();
        for (id, request) in waiting {
            let Ok(server) = request.security_server.parse() else { continue };
            match certify(authority, &server, &request) {
                Ok((authentication_chain, signing_chain)) => {
                    let issued =
                        CertificatesIssued { id: id.to_bytes(), authentication_chain, signing_chain };
                    let issued = Event::CertificatesIssued(issued);
                    self.store.record(&mut state, issued).await.map_err(PublicationError::Journal)?;
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::error!(%server, error, "the keys of an enrolment could not be certified");
                }
            }
        }
        for (_, enrolment) in state.enrolments() {
            revoke_unlisted(authority, &latest.configuration, enrolment);
        }
        Ok(())
    }
}
