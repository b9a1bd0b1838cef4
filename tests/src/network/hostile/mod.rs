//! Security servers that do not keep to the rules: they have real keys, certificates and TLS, speak the peers' protocol
//! themselves, and can alter every stage of it.

mod between;
mod client;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rustls_pki_types::CertificateDer;
use trave_certs::authority::Issued;
use trave_host::keys::{Sign, SigningKey};
use trave_host::tls::{self, Http, Identity, PeerPolicy};
use trave_proto::clock::{Clock, Time};
use trave_proto::conversation::Party;
use trave_proto::digest::Digest;
use trave_proto::message::Manifest;
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::transport::Greeting;
use trave_proto::signature::{BatchSignature, Signer, sign_batch};

use super::keys::{Identities, Keys};
use super::server::LONG;
use super::trust_services::Authorities;

pub use between::{Between, Passing, Tampering, Target};
pub use client::{HostileClient, Outcome, Spoken};
pub use provider::{Alteration, HostileProvider};

/// What a hostile security server shows and signs with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Whom it says that it is.
    pub server: &'static str,
    /// TLS key and chain.
    pub authentication: (Arc<SigningKey>, Vec<Bytes>),
    /// Signing key and chain.
    pub signing: (Arc<SigningKey>, Vec<Bytes>),
    /// The answer about the status of the signing certificate.
    pub ocsp: Bytes,
    /// The configuration that it uses.
    pub configuration: SignedConfiguration,
}

impl Credentials {
    /// Those that `server` rightly has.
    pub fn of(server: &'static str, authorities: &Authorities, configuration: &SignedConfiguration) -> Self {
        let keys = Identities::get().of(server);
        let authentication = authorities.authentication(server, keys.authentication.as_ref(), LONG);
        let signing = authorities.signing(server, keys.signing.as_ref(), LONG);
        Self {
            server,
            authentication: (Arc::clone(&keys.authentication), authentication.chain),
            ocsp: authorities.ocsp(&signing.chain),
            signing: (Arc::clone(&keys.signing), signing.chain),
            configuration: configuration.clone(),
        }
    }

    /// With another TLS key, which the authority has certified and the configuration does not list.
    #[must_use]
    pub fn with_unlisted_authentication(self, authorities: &Authorities) -> Self {
        let key = Arc::new(SigningKey::generate().unwrap());
        let issued = authorities.authentication(self.server, key.as_ref(), LONG);
        Self { authentication: (key, issued.chain), ..self }
    }

    /// With another signing key, which the authority has certified and the configuration does not list.
    #[must_use]
    pub fn with_unlisted_signing(self, authorities: &Authorities) -> Self {
        let key = Arc::new(SigningKey::generate().unwrap());
        let issued = authorities.signing(self.server, key.as_ref(), LONG);
        Self { ocsp: authorities.ocsp(&issued.chain), signing: (key, issued.chain), ..self }
    }

    /// With a signing certificate that is valid for so long, and was revoked if `revoked`.
    #[must_use]
    pub fn with_signing_for(self, authorities: &Authorities, validity: Duration, revoked: bool) -> Self {
        let issued: Issued = authorities.signing(self.server, self.signing.0.as_ref(), validity);
        if revoked {
            authorities.revoke(&issued);
        }
        Self { ocsp: authorities.ocsp(&issued.chain), signing: (self.signing.0, issued.chain), ..self }
    }

    /// TLS as it speaks it: whoever answers is believed.
    pub fn tls(&self, clock: &Arc<dyn Clock>) -> tls::Client {
        tls::Client::new(Some(self.identity()), Arc::new(Whoever), Http::Two, Arc::clone(clock)).unwrap()
    }

    fn identity(&self) -> Arc<Identity> {
        let (key, chain) = &self.authentication;
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Arc::new(Identity::new(chain, Arc::clone(key) as Arc<dyn Sign>).unwrap())
    }

    fn party(&self, nonce: [u8; 32]) -> Party {
        Party {
            server: self.server.parse().unwrap(),
            nonce,
            log_origin: Keys::origin(self.server),
            signing_certificate: Digest::of(&self.signing.1[0]),
        }
    }

    fn greeting(&self, nonce: [u8; 32]) -> Greeting {
        let (number, digest) = self.in_use();
        Greeting {
            server: self.server.into(),
            nonce: Bytes::copy_from_slice(&nonce),
            nonce_lifetime_ms: 3_600_000,
            signing_chain: self.signing.1.clone(),
            ocsp_response: self.ocsp.clone(),
            log_origin: Keys::origin(self.server),
            configuration_number: number,
            configuration_digest: digest.to_bytes(),
        }
    }

    fn in_use(&self) -> (u64, Digest) {
        let configuration = GlobalConfiguration::decode(self.configuration.configuration.clone()).unwrap();
        (configuration.number, Digest::of(&self.configuration.configuration))
    }

    /// Signs one manifest with the signing key.
    pub fn sign(&self, manifest: &Manifest) -> BatchSignature {
        sign_batch(&With(&self.signing.0), &[manifest]).unwrap().remove(0)
    }
}

/// A key, as batches are signed with it.
struct With<'a>(&'a SigningKey);

impl Signer for With<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Sign::sign(self.0, message).map_err(Into::into)
    }
}

/// A hostile server does not care with whom it speaks.
#[derive(Debug)]
struct Whoever;

impl PeerPolicy for Whoever {
    fn check(&self, _: &[CertificateDer<'_>], _: Time) -> Result<(), String> {
        Ok(())
    }
}
