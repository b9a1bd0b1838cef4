//! An administrator's side: signs in at the registry, signs acts with a key that never leaves the person's machine, and
//! believes of the registry's answers only what is signed.

mod error;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tonic::Status;
use trave_host::client::Channel;
use trave_host::keys::Sign;
use trave_host::stubs::management::administration_service_client::AdministrationServiceClient;
use trave_host::tls::{self, Http, Pinned};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::{Configuration, MAX_CONFIGURATION};
use trave_proto::management::{Act, ActError, ActId, Authority, Role};
use trave_proto::schema::configuration::GlobalConfiguration;
use trave_proto::schema::management::{
    ActSignature, ApplyRequest, ApproveRequest, CreateEnrolmentTokenRequest, GetConfigurationRequest,
    ListActsRequest, RejectRequest, SignedAct, act::Change,
};
use zeroize::Zeroizing;

pub use error::AdministratorError;
pub use shown::{ActReference, Chosen, ShownAct};
use shown::{check_fingerprint, printable};

use crate::config::AdministratorSettings;

/// How long the registry has to answer; an approval waits for its publication.
const ANSWER: Duration = Duration::from_secs(30);

/// A signed-in administrator.
#[derive(Debug)]
pub struct Administrator {
    settings: AdministratorSettings,
    client: AdministrationServiceClient<Channel>,
    clock: Arc<dyn Clock>,
    /// The latest configuration that the registry showed: it shows no older one any more.
    latest: Option<Configuration>,
}

impl Administrator {
    /// Signs in.
    pub async fn connect(
        settings: AdministratorSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AdministratorError> {
        let policy = Arc::new(Pinned::new([settings.registry_key]));
        let tls = tls::Client::new(Some(settings.identity.clone()), policy, Http::Two, clock.clone());
        let tls = tls.map_err(AdministratorError::Tls)?;
        let channel = Channel::tls(&settings.registry, &tls).await.map_err(AdministratorError::Connect)?;
        let client =
            AdministrationServiceClient::new(channel).max_decoding_message_size(2 * MAX_CONFIGURATION);
        Ok(Self { settings, client, clock, latest: None })
    }

    /// Applies for a change; it comes into force when another administrator approves it within `lifetime`.
    pub async fn apply(
        &mut self,
        change: Change,
        lifetime: Duration,
    ) -> Result<ActReference, AdministratorError> {
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| AdministratorError::Random)?;
        let instance = self.settings.anchor.instance().to_owned();
        let act = Act::new(&instance, change, ActId::from_bytes(id), self.clock.now(), lifetime)
            .map_err(AdministratorError::Act)?;
        self.send_application(&act).await?;
        Ok(ActReference::from(&act))
    }

    /// Applies for the enrolment that a security server asked for, if its keys have this `fingerprint`. Nothing but an
    /// enrolment is ever signed here.
    pub async fn apply_for_enrolment(
        &mut self,
        chosen: impl Into<Chosen>,
        fingerprint: &str,
    ) -> Result<(), AdministratorError> {
        let shown = self.chosen(chosen.into(), Some(fingerprint)).await?;
        check_fingerprint(&shown, Some(fingerprint))?;
        self.send_application(&shown.act).await
    }

    /// Approves an act that another administrator applied for, as the configuration in force lists that person. For an
    /// enrolment, and for nothing else, `fingerprint` is what the security server displays. Answers the number of the
    /// configuration that puts the act into force; 0 if it awaits a cosigner's signature.
    pub async fn approve(
        &mut self,
        chosen: impl Into<Chosen>,
        fingerprint: Option<&str>,
    ) -> Result<u64, AdministratorError> {
        let shown = self.chosen(chosen.into(), fingerprint).await?;
        check_fingerprint(&shown, fingerprint)?;
        if self.verified_applicant(&shown).await?.is_none() {
            return Err(AdministratorError::NotApplied(shown.act.id()));
        }
        let approver = Some(self.sign(&shown.act, Role::Approver)?);
        let request = self.request(ApproveRequest { id: shown.act.id().to_bytes(), approver });
        let answer = self.client.approve(request).await.map_err(declined)?;
        Ok(answer.into_inner().configuration_number)
    }

    /// Rejects a pending act.
    pub async fn reject(&mut self, id: impl Into<ActId>, reason: &str) -> Result<(), AdministratorError> {
        let id = id.into().to_bytes();
        let request = self.request(RejectRequest { id, reason: reason.into() });
        self.client.reject(request).await.map_err(declined)?;
        Ok(())
    }

    /// The acts, oldest first, or those that are pending: as many of the youngest as the registry shows at once. Who
    /// signed them is the registry's word.
    pub async fn acts(&mut self, pending_only: bool) -> Result<Vec<ShownAct>, AdministratorError> {
        self.list(ListActsRequest { pending_only, ..Default::default() }).await
    }

    /// A pending act, whose applicant was verified against the configuration in force: the name is that of the listed
    /// key that signed, empty if nobody applied yet.
    pub async fn pending(&mut self, id: impl Into<ActId>) -> Result<ShownAct, AdministratorError> {
        let mut shown = self.fetch(id.into()).await?;
        shown.applicant = self.verified_applicant(&shown).await?.unwrap_or_default();
        Ok(shown)
    }

    /// A one-time token with which a registered security server enrols.
    pub async fn token(
        &mut self,
        server: &str,
        lifetime: Duration,
    ) -> Result<Zeroizing<String>, AdministratorError> {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let request = CreateEnrolmentTokenRequest { security_server: server.into(), lifetime_ms };
        let request = self.request(request);
        let answer = self.client.create_enrolment_token(request).await.map_err(declined)?;
        Ok(Zeroizing::new(answer.into_inner().token))
    }

    /// The configuration with this number, or the one in force for 0, verified against the administrator's own anchor.
    pub async fn configuration(
        &mut self,
        number: u64,
    ) -> Result<(Configuration, GlobalConfiguration), AdministratorError> {
        let request = self.request(GetConfigurationRequest { number });
        let answer = self.client.get_configuration(request).await.map_err(declined)?;
        let signed = answer.into_inner().configuration.unwrap_or_default();
        let verify = || {
            Configuration::verify(&signed, &self.settings.anchor).map_err(AdministratorError::Configuration)
        };
        let verified = verify()?;
        if number == 0 {
            verified
                .check_current(self.clock.now(), self.latest.as_ref())
                .map_err(AdministratorError::NotCurrent)?;
            self.latest = Some(verify()?);
        } else if verified.number() != number {
            let found = verified.number();
            return Err(AdministratorError::OtherNumber { expected: number, found });
        }
        let decoded = <GlobalConfiguration as prost::Message>::decode(signed.configuration);
        Ok((verified, decoded.unwrap_or_default()))
    }

    /// The act that is meant. What the registry shows in its place is refused.
    async fn chosen(
        &mut self,
        chosen: Chosen,
        fingerprint: Option<&str>,
    ) -> Result<ShownAct, AdministratorError> {
        match chosen {
            Chosen::Shown(shown) => Ok(*shown),
            Chosen::Referred(expected) => {
                let shown = self.fetch(expected.id).await?;
                let (id, found) = (expected.id, shown.act.digest());
                if found != expected.digest {
                    return Err(AdministratorError::Exchanged { id, expected: expected.digest, found });
                }
                Ok(shown)
            }
            Chosen::Enrolment(id) if fingerprint.is_none() => Err(AdministratorError::Unseen(id)),
            Chosen::Enrolment(id) => self.fetch(id).await,
        }
    }

    async fn fetch(&mut self, id: ActId) -> Result<ShownAct, AdministratorError> {
        let acts = self.list(ListActsRequest { pending_only: true, id: id.to_bytes() }).await?;
        acts.into_iter().find(|shown| shown.act.id() == id).ok_or(AdministratorError::UnknownAct(id))
    }

    async fn list(&mut self, request: ListActsRequest) -> Result<Vec<ShownAct>, AdministratorError> {
        let request = self.request(request);
        let answer = self.client.list_acts(request).await.map_err(declined)?;
        answer.into_inner().acts.into_iter().map(ShownAct::of).collect()
    }

    /// Name of the listed administrator whose signature as the applicant holds; none if there is no such signature yet.
    async fn verified_applicant(&mut self, shown: &ShownAct) -> Result<Option<String>, AdministratorError> {
        let Some(signature) = &shown.signed.applicant else { return Ok(None) };
        let (_, configuration) = self.configuration(0).await?;
        let authority = Authority::of(&configuration).map_err(AdministratorError::Administrators)?;
        let applicant = authority.verify_application(&shown.act, Some(signature), self.clock.now());
        Ok(Some(applicant.map_err(AdministratorError::Act)?.name.clone()))
    }

    async fn send_application(&mut self, act: &Act) -> Result<(), AdministratorError> {
        let applicant = Some(self.sign(act, Role::Applicant)?);
        let signed = SignedAct { act: act.bytes().clone(), applicant, approver: None };
        let request = self.request(ApplyRequest { act: Some(signed) });
        self.client.apply(request).await.map_err(declined)?;
        Ok(())
    }

    fn sign(&self, act: &Act, role: Role) -> Result<ActSignature, AdministratorError> {
        let expected = self.settings.anchor.instance();
        if act.instance() != expected {
            let (expected, found) = (expected.to_owned(), printable(act.instance()));
            return Err(AdministratorError::Act(ActError::Instance { expected, found }));
        }
        let key = &self.settings.key;
        act.sign(role, key.public_key_info(), |content| key.sign(content)).map_err(AdministratorError::Key)
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(ANSWER);
        request
    }
}

fn declined(status: Status) -> AdministratorError {
    let message = printable(status.message());
    AdministratorError::Declined(Box::new(Status::new(status.code(), message)))
}
