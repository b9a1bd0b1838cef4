//! What enrolment brings: nothing of it is stored before all of it was verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use trave_host::files;
use trave_proto::certificate::{Profile, VerifiedChain};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, Configuration};
use trave_proto::management::{EnrolmentKeys, EnrolmentToken};
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::schema::management::GetEnrolmentResponse;

use super::EnrolmentError;
use crate::custody::Layout;
use crate::trust::{Trust, TrustError};

/// Certificates, anchor and first configuration, verified.
pub(super) struct Received {
    anchor: Anchor,
    configuration: SignedConfiguration,
    authentication: Vec<Bytes>,
    signing: Vec<Bytes>,
}

/// Whether an enrolment was stored to its end: the signing certificate is the last of it, or, where a new generation of the
/// log enrols, that it no longer waits.
pub(super) fn is_complete(layout: &Layout) -> bool {
    layout.signing_certificate().exists() && !layout.generation_pending().exists()
}

impl Received {
    /// Follows everything back to the token and to the keys made here.
    pub(super) fn verify(
        answer: &GetEnrolmentResponse,
        token: &EnrolmentToken,
        keys: &EnrolmentKeys,
        now: Time,
    ) -> Result<Self, EnrolmentError> {
        if Digest::of(&answer.anchor) != token.anchor {
            return Err(EnrolmentError::OtherAnchor);
        }
        let anchor = Anchor::parse(&answer.anchor).map_err(EnrolmentError::Anchor)?;
        let signed = answer.configuration.clone().unwrap_or_default();
        let refused = |source| EnrolmentError::Configuration(TrustError::Refused(source));
        let configuration = Configuration::verify(&signed, &anchor).map_err(refused)?;
        listed(&configuration, token, keys)?;
        let certified = [
            (
                "authentication",
                &answer.authentication_chain,
                Profile::Authentication,
                keys.authentication_key,
            ),
            ("signing", &answer.signing_chain, Profile::Signing, keys.signing_key),
        ];
        let authorities: Vec<_> = configuration
            .certification_authorities()
            .iter()
            .map(|authority| &authority.certificate)
            .collect();
        for (name, chain, profile, key) in certified {
            let verified = VerifiedChain::verify(chain, &authorities, profile, now)
                .map_err(|source| EnrolmentError::Chain { profile: name, source })?;
            let subject = verified.subject();
            if subject.spki_digest != key || subject.server != token.server {
                return Err(EnrolmentError::OtherCertificate(name));
            }
        }
        let (authentication, signing) = (answer.authentication_chain.clone(), answer.signing_chain.clone());
        Ok(Self { anchor, configuration: signed, authentication, signing })
    }

    /// Stores all of it, the signing certificate last: what a crash interrupts is done again.
    pub(super) fn store(
        &self,
        layout: &Layout,
        token: &EnrolmentToken,
        now: Time,
    ) -> Result<(), EnrolmentError> {
        let replace = |path: std::path::PathBuf, bytes: &[u8]| {
            files::replace(&path, bytes).map_err(EnrolmentError::File)
        };
        replace(layout.anchor(), self.anchor.bytes())?;
        replace(layout.registry_pin(), format!("{}\n", token.registry_key).as_bytes())?;
        Trust::store_first(&self.configuration, &self.anchor, &layout.configurations(), now)
            .map_err(EnrolmentError::Configuration)?;
        replace(layout.authentication_certificate(), pem(&self.authentication).as_bytes())?;
        replace(layout.signing_certificate(), pem(&self.signing).as_bytes())?;
        // What an OCSP responder said is of the certificate before.
        let _ = std::fs::remove_file(layout.signing_status());
        let _ = std::fs::remove_file(layout.generation_pending());
        Ok(())
    }
}

/// The configuration must list the very keys that were made here.
fn listed(
    configuration: &Configuration,
    token: &EnrolmentToken,
    keys: &EnrolmentKeys,
) -> Result<(), EnrolmentError> {
    let entry = configuration.security_server(&token.server);
    let entry = entry.ok_or(EnrolmentError::NotListed("the name"))?;
    if !entry.lists_authentication_key(&keys.authentication_key) {
        return Err(EnrolmentError::NotListed("the authentication key"));
    }
    if !entry.lists_signing_key(&keys.signing_key) {
        return Err(EnrolmentError::NotListed("the signing key"));
    }
    if entry.log(&keys.log_origin).is_none_or(|log| log.public_key != keys.log_key) {
        return Err(EnrolmentError::NotListed("the key of the message log"));
    }
    Ok(())
}

/// Certificates as text (RFC 7468).
fn pem(chain: &[Bytes]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
