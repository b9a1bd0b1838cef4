//! Enrolment: a new security server makes its keys, has them certified with a one-time token, and stores what it is to
//! trust.
//!
//! The token pins the registry and the anchor, so that nobody on the way is believed. The administrators of the registry
//! compare the fingerprint that is shown here: it is made from the keys alone. Interrupted at any point and run again, an
//! enrolment goes on with the same keys and the same request.

mod keys;
mod received;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use trave_host::client::{Channel, ConnectError};
use trave_host::config::with_causes;
use trave_host::files::{self, FileError};
use trave_host::keys::KeyError;
use trave_host::stubs::management::enrolment_service_client::EnrolmentServiceClient;
use trave_host::tls::{self, Http, Pinned, TlsError};
use trave_proto::certificate::ChainError;
use trave_proto::clock::{Clock, Time};
use trave_proto::global_configuration::AnchorError;
use trave_proto::identifier::ServerId;
use trave_proto::management::{EnrolmentToken, enrolment_mac, status_mac};
use trave_proto::schema::management::{EnrolRequest, GetEnrolmentRequest, GetEnrolmentResponse};

use crate::config::Config;
use crate::custody::Layout;
use crate::trust::TrustError;
use keys::Keys;

/// Pauses between two questions how the enrolment stands.
const PAUSE: Duration = Duration::from_secs(2);
/// The largest answer: a configuration of 16 MiB, with certificates.
const MAX_ANSWER: usize = 17 << 20;

/// Why a security server has not enrolled.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum EnrolmentError {
    #[error("the token is for {token}, and the configuration is of {configured}")]
    OtherServer { token: ServerId, configured: ServerId },
    #[error("the token was valid until {0}\nhint: an administrator of the registry makes a new one")]
    Expired(Time),
    #[error("cannot make {path}")]
    Directory { path: std::path::PathBuf, source: std::io::Error },
    #[error("a file cannot be read or written")]
    File(#[source] FileError),
    #[error("a key cannot be made or opened")]
    Key(#[source] KeyError),
    #[error("this server's system gives no random bytes")]
    Random,
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    #[error("the registry is not reached")]
    Connect(#[source] ConnectError),
    #[error("the registry declined: {0}")]
    Declined(String),
    #[error(
        "the registry shows the fingerprint {theirs} for these keys, which have {ours}\nhint: somebody stands between; do \
         not go on, and tell the registry's administrators"
    )]
    Fingerprint { ours: String, theirs: String },
    #[error(
        "the enrolment is {0}\nhint: ask the registry's administrators, and begin again with a new token"
    )]
    Ended(String),
    #[error("the registry sent another anchor than the token names")]
    OtherAnchor,
    #[error("the anchor is not valid")]
    Anchor(#[source] AnchorError),
    #[error("the first global configuration is not usable")]
    Configuration(#[source] TrustError),
    #[error("the global configuration does not list {0} of this security server")]
    NotListed(&'static str),
    #[error("the {profile} certificate is not trusted by the global configuration")]
    Chain {
        profile: &'static str,
        #[source]
        source: ChainError,
    },
    #[error("the {0} certificate is for another key or another security server")]
    OtherCertificate(&'static str),
}

/// How far an enrolment has come, to be told to whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Keys were made, or those of an interrupted enrolment opened; the passphrase file was made too, if so.
    Keys {
        /// Whether the passphrase file was made just now.
        passphrase_made: bool,
    },
    /// The registry has the request. Administrators must see this fingerprint before they approve.
    Requested {
        /// 24 hexadecimal digits in groups of four.
        fingerprint: String,
    },
    /// How it stands: "requested", "applied", "approved".
    State(String),
    /// The registry is not reached for now.
    Waiting(String),
}

/// How an enrolment ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolled {
    /// Everything that `run` needs is stored.
    Now,
    /// It was before; nothing was changed.
    Before,
}

/// Enrols the security server of `config` with `token`; waits until the registry's administrators have decided.
pub async fn enrol(
    config: &Config,
    token: &EnrolmentToken,
    clock: Arc<dyn Clock>,
    mut tell: impl FnMut(Progress),
) -> Result<Enrolled, EnrolmentError> {
    let server = &config.server.0;
    if token.server != *server {
        return Err(EnrolmentError::OtherServer { token: token.server.clone(), configured: server.clone() });
    }
    let layout = Layout::new(config.data());
    if received::is_complete(&layout) {
        return Ok(Enrolled::Before);
    }
    let (keys, passphrase_made) = Keys::make_or_open(config).await?;
    tell(Progress::Keys { passphrase_made });
    let request = request(&layout, token, &keys, clock.now())?;
    let mut registry = RegistryDoor { token, clock: Arc::clone(&clock), client: None };
    let answer = registry.enrol(request.clone()).await?;
    let fingerprint = keys.names(server).fingerprint();
    if answer.fingerprint != fingerprint {
        return Err(EnrolmentError::Fingerprint {
            ours: fingerprint,
            theirs: printable(&answer.fingerprint),
        });
    }
    tell(Progress::Requested { fingerprint });
    let decided = registry.decided(&answer.enrolment_id, &mut tell).await?;
    let received = received::Received::verify(&decided, token, &keys.names(server), clock.now())?;
    received.store(&layout, token, clock.now())?;
    // What was stored is complete; the request is of no more use.
    let _ = std::fs::remove_file(keys::request_file(&layout));
    Ok(Enrolled::Now)
}

/// The request as it was sent before, or a new one: signatures differ each time, and the registry takes one alone.
fn request(
    layout: &Layout,
    token: &EnrolmentToken,
    keys: &Keys,
    now: Time,
) -> Result<EnrolRequest, EnrolmentError> {
    let path = keys::request_file(layout);
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(before) = EnrolRequest::decode(bytes.as_slice())
        && before.token_id == token.id_text()
    {
        return Ok(before);
    }
    if now > token.expires {
        return Err(EnrolmentError::Expired(token.expires));
    }
    let mut request = keys.request(token)?;
    request.mac = enrolment_mac(&token.secret, &request);
    files::replace(&path, &request.encode_to_vec()).map_err(EnrolmentError::File)?;
    Ok(request)
}

/// The registry's door for enrolment, connected to when needed: the key that the token pins, and no other.
struct RegistryDoor<'a> {
    token: &'a EnrolmentToken,
    clock: Arc<dyn Clock>,
    client: Option<EnrolmentServiceClient<Channel>>,
}

impl RegistryDoor<'_> {
    async fn client(&mut self) -> Result<&mut EnrolmentServiceClient<Channel>, EnrolmentError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let pinned = Arc::new(Pinned::new([self.token.registry_key]));
                let tls = tls::Client::new(None, pinned, Http::Two, Arc::clone(&self.clock));
                let tls = tls.map_err(EnrolmentError::Tls)?;
                let channel =
                    Channel::tls(&self.token.registry, &tls).await.map_err(EnrolmentError::Connect)?;
                EnrolmentServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER)
            }
        };
        Ok(self.client.insert(client))
    }

    async fn enrol(
        &mut self,
        request: EnrolRequest,
    ) -> Result<trave_proto::schema::management::EnrolResponse, EnrolmentError> {
        let answer = self.client().await?.enrol(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| declined(&status))
    }

    /// Asks until the administrators have decided; a registry that is away for a while is waited for.
    async fn decided(
        &mut self,
        id: &bytes::Bytes,
        tell: &mut impl FnMut(Progress),
    ) -> Result<GetEnrolmentResponse, EnrolmentError> {
        let mac = status_mac(&self.token.secret, id);
        let mut told = String::new();
        loop {
            let request = GetEnrolmentRequest { enrolment_id: id.clone(), mac: mac.clone() };
            match self.ask(request).await {
                Ok(answer) => match answer.state.as_str() {
                    "in_force" => return Ok(answer),
                    "requested" | "applied" | "approved" => {
                        if told != answer.state {
                            told.clone_from(&answer.state);
                            tell(Progress::State(answer.state));
                        }
                    }
                    other => return Err(EnrolmentError::Ended(printable(other))),
                },
                Err(error @ EnrolmentError::Declined(_)) => return Err(error),
                Err(error) => {
                    self.client = None;
                    tell(Progress::Waiting(with_causes(&error)));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&mut self, request: GetEnrolmentRequest) -> Result<GetEnrolmentResponse, EnrolmentError> {
        match self.client().await?.get_enrolment(request).await {
            Ok(answer) => Ok(answer.into_inner()),
            // The connection broke, or the registry is busy or starting: asked again.
            Err(status)
                if matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::ResourceExhausted | Code::Cancelled
                ) =>
            {
                self.client = None;
                Err(EnrolmentError::Connect(ConnectError::Unreachable {
                    address: self.token.registry.clone(),
                    source: std::io::Error::other(printable(status.message())),
                }))
            }
            Err(status) => Err(declined(&status)),
        }
    }
}

fn declined(status: &Status) -> EnrolmentError {
    EnrolmentError::Declined(printable(status.message()))
}

/// What another machine said, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
