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
use trave_proto::management::{ActError, ActId, FollowError, MAX_ACTS, Succession, Validity, check_genesis};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{
    ActFailed, CertificatesIssued, CosignRequest, ProposalSigned, registry_event::Event,
};

use crate::cosigners::{Asked, Cosigners};
use crate::state::{ActRecord, JournalError, State, Store};
use crate::trust_services::{certify, revoke_unlisted};

/// After this time a failed attempt is made again, then after twice as long, up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A proposal of this age may be abandoned, if the cosigners find it too old.
const OLD: Duration = Duration::from_secs(5 * 60);
/// Most bytes of acts in one proposal: with the longest configuration they still fit into what a cosigner reads.
const MAX_ACTS_BYTES: usize = 8 * 1024 * 1024;
/// Longest reason for a failure that is recorded, in characters.
const MAX_REASON: usize = 500;

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
        let Next { proposal, failed } = self.next(&state)?;
        for (id, reason) in failed {
            tracing::warn!(act = %id, reason, "an approved act cannot come into force");
            let failed = Event::Failed(ActFailed { id: id.to_bytes(), reason });
            self.store.record(&mut state, failed).await.map_err(PublicationError::Journal)?;
        }
        let Some(bytes) = proposal else { return Ok(None) };
        let proposed = Event::Proposed(bytes.clone());
        self.store.record(&mut state, proposed).await.map_err(PublicationError::Journal)?;
        Ok(Some(bytes))
    }

    fn next(&self, state: &State) -> Result<Next, PublicationError> {
        let Some(latest) = state.latest() else {
            return Ok(Next { proposal: Some(self.first()?), failed: Vec::new() });
        };
        let now = self.clock.now().max(latest.configuration.issued());
        let validity = Validity { issued: now, until: now.plus(self.validity) };
        let waiting = waiting(state, now);
        if waiting.is_empty() && now < self.due() {
            return Ok(Next::default());
        }
        let (succession, failed) = match carried_out(&latest.decoded, &waiting, validity) {
            Ok(carried_out) => carried_out,
            Err(error) => {
                tracing::error!(error = with_causes(&error), "no configuration follows");
                return Ok(Next::default());
            }
        };
        if failed.len() == waiting.len() && now < self.due() {
            return Ok(Next { proposal: None, failed });
        }
        match succession.finish() {
            Ok(next) => Ok(Next { proposal: Some(next.encode_to_vec().into()), failed }),
            Err(error) => {
                tracing::error!(error = with_causes(&error), "no configuration follows");
                Ok(Next { proposal: None, failed })
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
        // The configuration itself is in the log already, as the proposal.
        let digest = configuration.digest().to_bytes();
        let published = Event::ProposalSigned(ProposalSigned { digest, signatures: signed.signatures });
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

/// What is to be proposed, and the acts that failed on the way to it, with the reasons.
#[derive(Debug, Default)]
struct Next {
    proposal: Option<Bytes>,
    failed: Vec<(ActId, String)>,
}

/// The approved acts that have not expired, in the order of their approval: as many as one proposal takes. The others
/// wait for the next.
fn waiting(state: &State, now: Time) -> Vec<&ActRecord> {
    let mut bytes = 0;
    let fits = |record: &&ActRecord| {
        bytes += record.signed.encoded_len();
        bytes <= MAX_ACTS_BYTES
    };
    state.approved().filter(|record| record.is_pending(now)).take(MAX_ACTS).take_while(fits).collect()
}

/// What follows by as many of `acts` as can be carried out. One that cannot must not hold up the others.
fn carried_out(
    previous: &GlobalConfiguration,
    acts: &[&ActRecord],
    validity: Validity,
) -> Result<(Succession, Vec<(ActId, String)>), FollowError> {
    let begin = Succession::new(previous, validity)?;
    let mut failed = Vec::new();
    let mut succession = begin.clone();
    for record in acts {
        succession.add(&record.signed).unwrap_or_else(|error| fail(&mut failed, record, &error));
    }
    if succession.check().is_ok() {
        return Ok((succession, failed));
    }
    // One of them spoils the whole: which one, a look after each act tells.
    failed.clear();
    succession = begin;
    for record in acts {
        let mut with = succession.clone();
        match with.add(&record.signed).and_then(|()| with.check()) {
            Ok(()) => succession = with,
            Err(error) => fail(&mut failed, record, &error),
        }
    }
    Ok((succession, failed))
}

fn fail(failed: &mut Vec<(ActId, String)>, record: &ActRecord, error: &FollowError) {
    // What has expired says so itself.
    if !matches!(error, FollowError::Act { source: ActError::Expired { .. }, .. }) {
        failed.push((record.act.id(), with_causes(error).chars().take(MAX_REASON).collect()));
    }
}
