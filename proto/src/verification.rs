//! Who may sign what: from a signed message to an authentic one.
//!
//! A signing certificate names one member and one security server. A message is authentic if that certificate is traced
//! to an authority of the global configuration, was not revoked, and its key is listed there for that server; if the
//! member is the client's (request) or the service's (response); if the configuration registers each side's subsystem on
//! its server; and if the signature holds over exactly the bytes received. Online and offline the rules are these.

use bytes::Bytes;
use prost::Message;

use crate::certificate::ocsp::{self, OcspError};
use crate::certificate::{ChainError, Profile, VerifiedChain};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::Configuration;
use crate::identifier::{ServerId, SubsystemId};
use crate::message::{Direction, Manifest};
use crate::schema::log::CertificateChain;
use crate::signature::{BatchSignature, Parts, SignatureError, Signed, Way};

/// Why a message is not authentic.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// The signer's certificate is not trusted.
    #[error("the signing certificate is not trusted")]
    Chain(#[source] ChainError),
    /// The certificate's status is not known to be good.
    #[error("the signing certificate's status is not good")]
    Status(#[source] OcspError),
    /// The certificate's key is not listed for the security server, or the server is unknown or suspended.
    #[error("the global configuration does not list this signing key for {0}")]
    NotListed(ServerId),
    /// The algorithm is not, or no longer, in force.
    #[error("signatures by {0} are not in force in the global configuration")]
    Algorithm(&'static str),
    /// The certificate or the answer about its status has run out since it was verified.
    #[error("the signing certificate, or what is known of its status, has expired")]
    Expired,
    /// The manifest names another signing certificate.
    #[error("the message names another signing certificate than its sender showed")]
    OtherCertificate,
    /// The signer's certificate is another member's, or another server's.
    #[error(
        "the signer may not sign this: its certificate is for {certified}, the message is from {claimed}"
    )]
    NotTheSigner {
        /// Whom the certificate names.
        certified: String,
        /// Whom the message names.
        claimed: String,
    },
    /// A subsystem is not registered on the server that acts for it.
    #[error("the global configuration does not register {subsystem} on {server}")]
    NotRegistered {
        /// The subsystem.
        subsystem: SubsystemId,
        /// The security server.
        server: ServerId,
    },
    /// The signature's parts do not fit the manifest.
    #[error("the batch signature does not fit the manifest")]
    Batch(#[source] SignatureError),
    /// The signature is not that key's over these bytes.
    #[error("the signature does not verify")]
    Signature,
}

/// Batches whose signature verified, so that messages of one batch cost one verification. Holds successes only.
pub trait VerifiedBatches: Send + Sync {
    /// Whether `batch` verified before.
    fn contains(&self, batch: &Digest) -> bool;
    /// Remembers that `batch` verified.
    fn insert(&self, batch: Digest);
}

/// Remembers nothing: for whoever verifies once.
#[derive(Debug, Clone, Copy)]
pub struct NoMemory;

impl VerifiedBatches for NoMemory {
    fn contains(&self, _: &Digest) -> bool {
        false
    }

    fn insert(&self, _: Digest) {}
}

/// A signer whose certificate was verified: chain, status, and that the configuration lists its key.
#[derive(Debug, Clone)]
pub struct TrustedSigner {
    chain: VerifiedChain,
    encoded_chain: Bytes,
    chain_digest: Digest,
    ocsp_response: Bytes,
    ocsp_digest: Digest,
    status_until: Time,
}

impl TrustedSigner {
    /// Verifies `chain` (DER, leaf first) and the OCSP response about its leaf at time `at`.
    pub fn verify(
        chain: &[Bytes],
        ocsp_response: Bytes,
        configuration: &Configuration,
        at: Time,
    ) -> Result<Self, VerificationError> {
        let authorities: Vec<_> = configuration
            .certification_authorities()
            .iter()
            .map(|authority| &authority.certificate)
            .collect();
        let verified = VerifiedChain::verify(chain, &authorities, Profile::Signing, at)
            .map_err(VerificationError::Chain)?;
        let expected = ocsp::Expected { at, max_age: configuration.policy().ocsp_max_age, nonce: None };
        let good = ocsp::verify(&ocsp_response, verified.certificate(), verified.issuer(), expected)
            .map_err(VerificationError::Status)?;
        let encoded_chain: Bytes = CertificateChain { certificates: chain.to_vec() }.encode_to_vec().into();
        let signer = Self {
            chain_digest: Digest::of(&encoded_chain),
            ocsp_digest: Digest::of(&ocsp_response),
            status_until: good.expires(),
            chain: verified,
            encoded_chain,
            ocsp_response,
        };
        signer.check_current(configuration, at)?;
        Ok(signer)
    }

    /// Whether the signer is still trusted at time `at` by `configuration`: cheap, for every message.
    pub fn check_current(&self, configuration: &Configuration, at: Time) -> Result<(), VerificationError> {
        let subject = self.chain.subject();
        let entry = configuration.security_server(&subject.server);
        if !entry.is_some_and(|entry| !entry.is_suspended() && entry.lists_signing_key(&subject.spki_digest))
        {
            return Err(VerificationError::NotListed(subject.server.clone()));
        }
        let algorithm = subject.public_key.algorithm().name();
        if !configuration.policy().allows_algorithm(algorithm, at) {
            return Err(VerificationError::Algorithm(algorithm));
        }
        if at > self.chain.not_after() || at > self.status_until {
            return Err(VerificationError::Expired);
        }
        Ok(())
    }

    /// The security server that signs.
    pub fn server(&self) -> &ServerId {
        &self.chain.subject().server
    }

    /// SHA-256 of the signing certificate.
    pub fn certificate(&self) -> Digest {
        self.chain.subject().digest
    }

    /// The verified chain.
    pub fn chain(&self) -> &VerifiedChain {
        &self.chain
    }

    /// Encoded `CertificateChain` and its digest, as logs and proofs hold them.
    pub fn encoded_chain(&self) -> (Digest, Bytes) {
        (self.chain_digest, self.encoded_chain.clone())
    }

    /// The OCSP response and its digest, as logs and proofs hold them.
    pub fn ocsp_response(&self) -> (Digest, Bytes) {
        (self.ocsp_digest, self.ocsp_response.clone())
    }

    /// Until when the answer about the certificate's status counts.
    pub fn status_until(&self) -> Time {
        self.status_until
    }

    /// Verifies that this signer signed `signed` and may do so at time `at`.
    pub fn authenticate<W: Way>(
        &self,
        signed: Signed<W>,
        configuration: &Configuration,
        at: Time,
        memory: &dyn VerifiedBatches,
    ) -> Result<Authentic<W>, VerificationError> {
        self.verify_manifest((signed.manifest(), signed.signature()), configuration, at, memory)?;
        Ok(Authentic(signed))
    }

    /// [`Self::authenticate`] by the manifest alone: whoever proves an exchange may not have its contents any more.
    pub fn verify_manifest(
        &self,
        (manifest, signature): (&Manifest, &BatchSignature),
        configuration: &Configuration,
        at: Time,
        memory: &dyn VerifiedBatches,
    ) -> Result<(), VerificationError> {
        self.check_current(configuration, at)?;
        self.check_manifest(manifest, configuration)?;
        let bytes = signature.signed_bytes(manifest.encoded()).map_err(VerificationError::Batch)?;
        let value = signature.value();
        let batch = Digest::of_parts(&[self.certificate().as_bytes(), &bytes, value]);
        if !memory.contains(&batch) {
            self.chain.verify_signature(&bytes, value).map_err(|_| VerificationError::Signature)?;
            memory.insert(batch);
        }
        Ok(())
    }

    fn check_manifest(
        &self,
        manifest: &Manifest,
        configuration: &Configuration,
    ) -> Result<(), VerificationError> {
        if manifest.signing_certificate != self.certificate() {
            return Err(VerificationError::OtherCertificate);
        }
        let subject = self.chain.subject();
        if subject.member != manifest.signing_member() || subject.server != manifest.sender {
            return Err(VerificationError::NotTheSigner {
                certified: format!("{} on {}", subject.member, subject.server),
                claimed: format!("{} on {}", manifest.signing_member(), manifest.sender),
            });
        }
        let provider = manifest.service.subsystem();
        let (sender_acts_for, receiver_acts_for) = match manifest.direction {
            Direction::Response => (&provider, &manifest.client),
            _ => (&manifest.client, &provider),
        };
        for (server, subsystem) in
            [(&manifest.sender, sender_acts_for), (&manifest.receiver, receiver_acts_for)]
        {
            if !configuration.hosts(server, subsystem) {
                let (server, subsystem) = (server.clone(), subsystem.clone());
                return Err(VerificationError::NotRegistered { subsystem, server });
            }
        }
        Ok(())
    }
}

/// A message whose signer is known and may sign it. [`TrustedSigner::authenticate`] is its only maker. Whether it is
/// addressed to this server, fresh, and in order is for [`crate::conversation`] to say.
#[derive(Debug, Clone)]
pub struct Authentic<W>(Signed<W>);

impl<W: Way> Authentic<W> {
    /// What was signed.
    pub fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    /// What the manifest commits to.
    pub fn parts(&self) -> &Parts {
        self.0.parts()
    }

    /// The message itself.
    pub fn signed(&self) -> &Signed<W> {
        &self.0
    }

    /// The message itself, for the next stage.
    pub(crate) fn into_signed(self) -> Signed<W> {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn unchecked_in_tests(signed: Signed<W>) -> Self {
        Self(signed)
    }
}
