//! Certificate requests (PKCS#10, RFC 2986).

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use trave_proto::certificate::{PublicKey, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{AuthorityError, MAX_REQUEST};

/// The key of a request whose signature was checked.
pub(super) struct RequestedKey {
    /// SubjectPublicKeyInfo, DER.
    pub(super) info: Vec<u8>,
    bits: Vec<u8>,
    algorithm: &'static rcgen::SignatureAlgorithm,
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

/// Reads a certificate request, of which only the key counts, and that whoever sent it holds the key.
pub(super) fn requested_key(request: &[u8]) -> Result<RequestedKey, AuthorityError> {
    if request.len() > MAX_REQUEST {
        return Err(AuthorityError::Request);
    }
    let Ok(([], parsed)) = X509CertificationRequest::from_der(request) else {
        return Err(AuthorityError::Request);
    };
    let key = &parsed.certification_request_info.subject_pki;
    let public = PublicKey::from_spki(key.raw).map_err(AuthorityError::Key)?;
    parsed.verify_signature().map_err(|_| AuthorityError::Possession)?;
    Ok(RequestedKey {
        info: key.raw.to_vec(),
        bits: key.subject_public_key.data.to_vec(),
        algorithm: match public.algorithm() {
            SignatureAlgorithm::EcdsaP256Sha256 => &PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaP384Sha384 => &PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::Ed25519 => &PKCS_ED25519,
            SignatureAlgorithm::RsaPssSha256 => &PKCS_RSA_SHA256,
        },
    })
}
