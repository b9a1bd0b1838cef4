//! The greeting: nonce, signing certificate with the answer about its status, log, and configuration in use.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use trave_message_log::Artefact;
use trave_proto::certificate::MAX_CHAIN;
use trave_proto::clock::Time;
use trave_proto::conversation::Party;
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::ServerId;
use trave_proto::schema::transport::Greeting;
use trave_proto::verification::{TrustedSigner, VerificationError};

use crate::recorder::KnownSigner;
use crate::trust::TlsPeer;

/// How long a nonce is accepted: a connection is replaced when half of it has passed.
pub(crate) const NONCE_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Longest origin of a log, in bytes.
const MAX_ORIGIN: usize = 256;

/// Why another security server is not believed or not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("cannot reach the security server {server} at {address}")]
    Connect {
        server: ServerId,
        address: String,
        #[source]
        source: trave_host::client::ConnectError,
    },
    #[error("the security server {server} does not answer as one")]
    Call {
        server: ServerId,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("the greeting is malformed: {0}")]
    Malformed(&'static str),
    #[error("the security server greets as {found}, and its TLS certificate is for {expected}")]
    OtherServer { expected: ServerId, found: String },
    #[error("the greeting's signing certificate is refused")]
    Signer(#[source] VerificationError),
    #[error("the global configuration does not list the log that this security server names")]
    Log,
    #[error("the security server's TLS certificate is refused: {0}")]
    NotListed(String),
}

impl TransportError {
    /// What the caller is told.
    pub(crate) fn fault(&self, side: Side) -> Fault {
        let reason = match self {
            // Somebody's certificate was not accepted, or what came was not TLS. A line that breaks in between is none of this.
            Self::Connect { source: trave_host::client::ConnectError::Tls { source, .. }, .. }
                if source.kind() == std::io::ErrorKind::InvalidData =>
            {
                Reason::SslAuthenticationFailed
            }
            // It refused this server's greeting or certificate: trying again changes nothing.
            Self::Call { source, .. } if source.code() == tonic::Code::PermissionDenied => {
                Reason::SslAuthenticationFailed
            }
            Self::Connect { .. } | Self::Call { .. } => Reason::NetworkError,
            Self::Signer(_) => Reason::CertValidation,
            Self::Malformed(_) | Self::OtherServer { .. } | Self::Log | Self::NotListed(_) => {
                Reason::SslAuthenticationFailed
            }
        };
        Fault::before_call(reason, side, trave_host::config::with_causes(self))
    }
}

/// This security server, as it shows itself.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) server: ServerId,
    pub(crate) log_origin: String,
    pub(crate) signer: OwnSigner,
}

/// This server's own signing certificate with the newest answer about its status.
pub(crate) type OwnSigner = ArcSwap<KnownSigner>;

impl Own {
    /// A party of a conversation, with the nonce of one connection.
    pub(crate) fn party(&self, nonce: [u8; 32]) -> Party {
        Party {
            server: self.server.clone(),
            nonce,
            log_origin: self.log_origin.clone(),
            signing_certificate: self.signer.load().certificate(),
        }
    }

    /// What this server shows at the beginning of a connection.
    pub(crate) fn greeting(&self, nonce: [u8; 32], configuration: &Configuration) -> Greeting {
        let signer = self.signer.load();
        Greeting {
            server: self.server.to_string(),
            nonce: Bytes::copy_from_slice(&nonce),
            nonce_lifetime_ms: u64::try_from(NONCE_LIFETIME.as_millis()).unwrap_or(u64::MAX),
            signing_chain: signer.chain().certificates().cloned().collect(),
            ocsp_response: signer.ocsp_response().1,
            log_origin: self.log_origin.clone(),
            configuration_number: configuration.number(),
            configuration_digest: configuration.digest().to_bytes(),
        }
    }
}

/// The other side of a connection, its greeting verified.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) signer: KnownSigner,
    pub(crate) party: Party,
    /// Until when messages may be sent to it over this connection.
    pub(crate) good_until: Time,
}

impl Greeted {
    /// Verifies the greeting of `server`, which TLS has authenticated.
    pub(crate) fn verify(
        greeting: Greeting,
        server: &ServerId,
        configuration: &Configuration,
        now: Time,
    ) -> Result<Self, TransportError> {
        if greeting.server != server.as_str() {
            return Err(TransportError::OtherServer {
                expected: server.clone(),
                found: plain(&greeting.server),
            });
        }
        let nonce = greeting.nonce.as_ref().try_into().map_err(|_| TransportError::Malformed("its nonce"))?;
        if greeting.log_origin.len() > MAX_ORIGIN {
            return Err(TransportError::Malformed("its log's origin"));
        }
        // Copies, so that what is kept does not hold on to the whole of what was received.
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let chain: Vec<_> = greeting.signing_chain.iter().take(MAX_CHAIN + 1).map(copy).collect();
        let signer = TrustedSigner::verify(&chain, copy(&greeting.ocsp_response), configuration, now)
            .map_err(TransportError::Signer)?;
        if signer.server() != server {
            return Err(TransportError::Malformed("its signing certificate is another server's"));
        }
        let entry = configuration.security_server(server);
        if entry.and_then(|entry| entry.log(&greeting.log_origin)).is_none() {
            return Err(TransportError::Log);
        }
        let lifetime = Duration::from_millis(greeting.nonce_lifetime_ms).min(NONCE_LIFETIME);
        let good_until = now.plus(lifetime / 2).min(signer.status_until());
        let party = Party {
            server: server.clone(),
            nonce,
            log_origin: greeting.log_origin,
            signing_certificate: signer.certificate(),
        };
        Ok(Self { signer: KnownSigner::new(signer), party, good_until })
    }
}

/// What the answering side of a connection knows of it: made when TLS has authenticated the peer.
#[derive(Debug, Clone)]
pub(crate) struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: TlsPeer,
    tls: Artefact,
    nonce: [u8; 32],
    begun: Time,
    greeted: OnceLock<Arc<Greeted>>,
}

impl Session {
    /// A new connection from `peer`.
    pub(crate) fn new(peer: TlsPeer, now: Time) -> Option<Self> {
        let tls = artefact(peer.certificate()?);
        let nonce = fresh_nonce()?;
        Some(Self(Arc::new(Inner { peer, tls, nonce, begun: now, greeted: OnceLock::new() })))
    }

    pub(crate) fn server(&self) -> &ServerId {
        self.0.peer.server()
    }

    /// Whom TLS has authenticated.
    pub(crate) fn peer(&self) -> &TlsPeer {
        &self.0.peer
    }

    pub(crate) fn tls(&self) -> Artefact {
        self.0.tls.clone()
    }

    /// The nonce that messages on this connection must carry, while it is accepted.
    pub(crate) fn nonce(&self, now: Time) -> Option<[u8; 32]> {
        (now <= self.0.begun.plus(NONCE_LIFETIME)).then_some(self.0.nonce)
    }

    /// The other side, once it has greeted.
    pub(crate) fn greeted(&self) -> Option<Arc<Greeted>> {
        self.0.greeted.get().cloned()
    }

    /// Keeps the first greeting; a second one is refused.
    pub(crate) fn greet(&self, greeted: Greeted) -> bool {
        self.0.greeted.set(Arc::new(greeted)).is_ok()
    }
}

/// A TLS certificate as logs and proofs hold it.
pub(crate) fn artefact(certificate: &CertificateDer<'_>) -> Artefact {
    Artefact::new(Bytes::copy_from_slice(certificate))
}

/// 32 random bytes.
pub(crate) fn fresh_nonce() -> Option<[u8; 32]> {
    let mut nonce = [0; 32];
    SystemRandom::new().fill(&mut nonce).ok().map(|()| nonce)
}

/// What an answering server says to a greeting that it refuses.
pub(crate) fn refused_greeting(error: &TransportError) -> tonic::Status {
    tonic::Status::permission_denied(trave_host::config::with_causes(error))
}
