//! An administrator's side: signs in at the registry, signs acts with a key that never leaves the person's machine, and
//! believes of the registry's answers only what is signed.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tonic::Status;
use trave_host::client::{Channel, ConnectError};
use trave_host::keys::{KeyError, Sign};
use trave_host::stubs::management::administration_service_client::AdministrationServiceClient;
use trave_host::tls::{self, Http, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::{Configuration, ConfigurationError, MAX_CONFIGURATION};
use trave_proto::management::{Act, ActError, ActId, EnrolmentKeys, Role};
use trave_proto::schema::configuration::GlobalConfiguration;
use trave_proto::schema::management::{
    ActEntry, ActSignature, ApplyRequest, ApproveRequest, CreateEnrolmentTokenRequest,
    GetConfigurationRequest, ListActsRequest, RejectRequest, SignedAct, act::Change,
};
use zeroize::Zeroizing;

use crate::config::AdministratorSettings;

/// How long the registry has to answer; an approval waits for its publication.
const ANSWER: Duration = Duration::from_secs(30);

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AdministratorError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// The registry is not reached.
    #[error("the registry is not reached")]
    Connect(#[source] ConnectError),
    /// The registry declines.
    #[error("the registry declines: {}", .0.message())]
    Declined(Box<Status>),
    /// The act cannot be made, or what the registry shows is none.
    #[error("this is no act to sign")]
    Act(#[source] ActError),
    /// The key.
    #[error("the key cannot sign")]
    Key(#[source] KeyError),
    /// No such act.
    #[error("the registry knows no pending act {0}")]
    UnknownAct(ActId),
    /// The fingerprint is another one.
    #[error(
        "the fingerprint is {found}, not {expected}: these are not the keys that the security server displays; reject it"
    )]
    Fingerprint {
        /// What the security server displays.
        expected: String,
        /// What the registry shows.
        found: String,
    },
    /// What the registry shows as the configuration is not signed as the anchor demands.
    #[error("what the registry shows is no valid configuration")]
    Configuration(#[source] ConfigurationError),
    /// No random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// An act as the registry shows it, read and checked.
#[derive(Debug)]
pub struct ShownAct {
    /// The act.
    pub act: Act,
    /// The act with the signatures it has.
    pub signed: SignedAct,
    /// Where it stands: "requested", "applied", "approved", "in_force", "rejected", "expired".
    pub state: String,
    /// Name of who applied.
    pub applicant: String,
    /// Name of who approved.
    pub approver: String,
    /// The configuration that put it into force; 0 if none did.
    pub configuration_number: u64,
}

impl ShownAct {
    fn of(entry: ActEntry) -> Result<Self, AdministratorError> {
        let signed = entry.act.unwrap_or_default();
        Ok(Self {
            act: Act::parse(&signed.act).map_err(AdministratorError::Act)?,
            signed,
            state: printable(&entry.state),
            applicant: printable(&entry.applicant),
            approver: printable(&entry.approver),
            configuration_number: entry.configuration_number,
        })
    }

    /// What must be compared with the security server's display; none if this is no enrolment.
    pub fn fingerprint(&self) -> Option<String> {
        match self.act.change() {
            Change::EnrolSecurityServer(enrolment) => {
                EnrolmentKeys::of(enrolment).map(|keys| keys.fingerprint())
            }
            _ => None,
        }
    }
}

/// A signed-in administrator.
#[derive(Debug)]
pub struct Administrator {
    settings: AdministratorSettings,
    client: AdministrationServiceClient<Channel>,
    clock: Arc<dyn Clock>,
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
        Ok(Self { settings, client, clock })
    }

    /// Applies for a change; it comes into force when another administrator approves it within `lifetime`.
    pub async fn apply(&mut self, change: Change, lifetime: Duration) -> Result<ActId, AdministratorError> {
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| AdministratorError::Random)?;
        let instance = self.settings.anchor.instance().to_owned();
        let act = Act::new(&instance, change, ActId::from_bytes(id), self.clock.now(), lifetime)
            .map_err(AdministratorError::Act)?;
        self.send_application(&act).await?;
        Ok(act.id())
    }

    /// Applies for the enrolment that a security server asked for, if its keys have this `fingerprint`.
    pub async fn apply_for_enrolment(
        &mut self,
        id: ActId,
        fingerprint: &str,
    ) -> Result<(), AdministratorError> {
        let shown = self.pending(id).await?;
        check_fingerprint(&shown, Some(fingerprint))?;
        self.send_application(&shown.act).await
    }

    /// Approves an act that another administrator applied for. For an enrolment, `fingerprint` is what the security
    /// server displays. Answers the number of the configuration that puts the act into force; 0 if it awaits a
    /// cosigner's signature.
    pub async fn approve(&mut self, id: ActId, fingerprint: Option<&str>) -> Result<u64, AdministratorError> {
        let shown = self.pending(id).await?;
        check_fingerprint(&shown, fingerprint)?;
        let approver = Some(self.sign(&shown.act, Role::Approver)?);
        let request = self.request(ApproveRequest { id: id.to_bytes(), approver });
        let answer = self.client.approve(request).await.map_err(declined)?;
        Ok(answer.into_inner().configuration_number)
    }

    /// Rejects a pending act.
    pub async fn reject(&mut self, id: ActId, reason: &str) -> Result<(), AdministratorError> {
        let request = self.request(RejectRequest { id: id.to_bytes(), reason: reason.into() });
        self.client.reject(request).await.map_err(declined)?;
        Ok(())
    }

    /// All acts, oldest first, or those that are pending.
    pub async fn acts(&mut self, pending_only: bool) -> Result<Vec<ShownAct>, AdministratorError> {
        let request = self.request(ListActsRequest { pending_only });
        let answer = self.client.list_acts(request).await.map_err(declined)?;
        answer.into_inner().acts.into_iter().map(ShownAct::of).collect()
    }

    /// A pending act.
    pub async fn pending(&mut self, id: ActId) -> Result<ShownAct, AdministratorError> {
        let acts = self.acts(true).await?;
        acts.into_iter().find(|shown| shown.act.id() == id).ok_or(AdministratorError::UnknownAct(id))
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

    /// The configuration with this number, or the latest for 0, verified against the administrator's own anchor.
    pub async fn configuration(
        &mut self,
        number: u64,
    ) -> Result<(Configuration, GlobalConfiguration), AdministratorError> {
        let request = self.request(GetConfigurationRequest { number });
        let answer = self.client.get_configuration(request).await.map_err(declined)?;
        let signed = answer.into_inner().configuration.unwrap_or_default();
        let verified = Configuration::verify(&signed, &self.settings.anchor)
            .map_err(AdministratorError::Configuration)?;
        let decoded = <GlobalConfiguration as prost::Message>::decode(signed.configuration);
        Ok((verified, decoded.unwrap_or_default()))
    }

    async fn send_application(&mut self, act: &Act) -> Result<(), AdministratorError> {
        let applicant = Some(self.sign(act, Role::Applicant)?);
        let signed = SignedAct { act: act.bytes().clone(), applicant, approver: None };
        let request = self.request(ApplyRequest { act: Some(signed) });
        self.client.apply(request).await.map_err(declined)?;
        Ok(())
    }

    fn sign(&self, act: &Act, role: Role) -> Result<ActSignature, AdministratorError> {
        let key = &self.settings.key;
        act.sign(role, key.public_key_info(), |content| key.sign(content)).map_err(AdministratorError::Key)
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(ANSWER);
        request
    }
}

/// An enrolment is signed only with the fingerprint that somebody read from the security server's own display.
fn check_fingerprint(shown: &ShownAct, given: Option<&str>) -> Result<(), AdministratorError> {
    let Some(found) = shown.fingerprint() else { return Ok(()) };
    let expected = given.unwrap_or("(not given)").trim();
    let compared = |text: &str| text.replace(' ', "").to_ascii_lowercase();
    if compared(expected) == compared(&found) {
        return Ok(());
    }
    Err(AdministratorError::Fingerprint { expected: expected.into(), found })
}

fn declined(status: Status) -> AdministratorError {
    let message = printable(status.message());
    AdministratorError::Declined(Box::new(Status::new(status.code(), message)))
}

/// A text of the registry, for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(2_000).collect()
}
