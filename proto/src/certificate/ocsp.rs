//! The Online Certificate Status Protocol (RFC 6960): whether a certificate was revoked, as its authority answered then.
//!
//! An answer is kept with what it was used for, and verified again years later, over the bytes that came and for the time
//! at which it was used.

mod in_cms;
mod response;

use std::time::Duration;

use rasn::prelude::{ObjectIdentifier, OctetString};
use rasn_ocsp::{CertId, CertStatus, OcspRequest, Request, ResponseData, SingleResponse, TbsRequest};
use rasn_pkix::{AlgorithmIdentifier, CrlReason, Extension, Extensions};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::Certificate;
use crate::clock::Time;
use crate::der::{self, NotDer};
use crate::digest::Digest;
pub(crate) use in_cms::{crls, of_crls};
use response::Basic;

/// Largest response that is read, in bytes.
pub const MAX_RESPONSE: usize = 32 * 1024;

/// How far a responder's clock may be ahead of the reader's.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];
const SHA_1: &[u32] = &[1, 3, 14, 3, 2, 26];
const SHA_256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// Why an OCSP response does not show that a certificate was good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// More than [`MAX_RESPONSE`] bytes.
    #[error("an OCSP response of {0} bytes is too large: at most {MAX_RESPONSE} are read")]
    TooLarge(usize),
    /// Not an OCSP response with a basic response in it.
    #[error("not an OCSP response in DER (RFC 6960)")]
    Malformed,
    /// The responder answered with an error instead of a status.
    #[error("the OCSP responder refused to answer: {0}")]
    Refused(&'static str),
    /// Signed neither by the certificate's issuer nor by a responder that the issuer certified for this.
    #[error("the OCSP response is not by the certificate's issuer, nor by a responder that it certified")]
    UnknownResponder,
    /// The responder's own certificate was not valid at that time.
    #[error("the OCSP responder's certificate is not valid at {0}")]
    ResponderNotValid(Time),
    /// The signature is not the responder's over this response.
    #[error("the OCSP response's signature is wrong")]
    Signature,
    /// The response has a critical extension that is not known here.
    #[error("the OCSP response has an unknown critical extension")]
    CriticalExtension,
    /// The nonce of the request is not in the response.
    #[error("the OCSP response does not carry the request's nonce")]
    Nonce,
    /// The response is about other certificates.
    #[error("the OCSP response is not about this certificate")]
    OtherCertificate,
    /// The certificate was revoked.
    #[error("the certificate was revoked at {at} ({reason})")]
    Revoked {
        /// When.
        at: Time,
        /// Why, in the words of RFC 5280 section 5.3.1.
        reason: &'static str,
    },
    /// The responder does not know the certificate.
    #[error("the OCSP responder does not know this certificate")]
    Unknown,
    /// The response was made after the time in question.
    #[error("the OCSP response is from {this_update}, later than {at}")]
    NotYetValid {
        /// Its thisUpdate.
        this_update: Time,
        /// The time in question.
        at: Time,
    },
    /// The response had ended, or was older than the policy allows.
    #[error("the OCSP response of {this_update} had expired at {at}")]
    Expired {
        /// Its thisUpdate.
        this_update: Time,
        /// The time in question.
        at: Time,
    },
}

impl From<NotDer> for OcspError {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

/// What is expected of a response beside its being about the certificate.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The time for which it shall show that the certificate was good.
    pub at: Time,
    /// How old it may be then, by its thisUpdate.
    pub max_age: Duration,
    /// The nonce of the request, if the response must be an answer to it.
    pub nonce: Option<&'a [u8]>,
}

/// A certificate was good, as its authority answered. [`verify`] is the only maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    certificate: Digest,
    response: Digest,
    this_update: Time,
    expires: Time,
}

impl Good {
    /// SHA-256 of the certificate (DER).
    pub fn certificate(&self) -> Digest {
        self.certificate
    }

    /// SHA-256 of the response (DER).
    pub fn response(&self) -> Digest {
        self.response
    }

    /// The time for which the responder said it.
    pub fn this_update(&self) -> Time {
        self.this_update
    }

    /// Until when it counts: its nextUpdate or the policy's age, whichever is earlier.
    pub fn expires(&self) -> Time {
        self.expires
    }
}

/// An OCSP request (DER) for `certificate`, which `issuer` issued, by SHA-256; with a nonce (RFC 9654: 1 to 128 bytes) the
/// answer cannot be an old one.
pub fn request(
    certificate: &Certificate,
    issuer: &Certificate,
    nonce: Option<&[u8]>,
) -> Result<Vec<u8>, OcspError> {
    let extensions = nonce.map(|nonce| {
        let value = der::encode(&OctetString::from(nonce.to_vec()));
        Extensions::from(vec![Extension {
            extn_id: ObjectIdentifier::new_unchecked(NONCE.into()),
            critical: false,
            extn_value: OctetString::from(value),
        }])
    });
    let one = Request {
        req_cert: cert_id(certificate, issuer, &SHA256, SHA_256)?,
        single_request_extensions: None,
    };
    Ok(der::encode(&OcspRequest {
        tbs_request: TbsRequest {
            version: 0.into(),
            requestor_name: None,
            request_list: vec![one],
            request_extensions: extensions,
        },
        optional_signature: None,
    }))
}

/// Verifies that `response` (DER) shows `certificate`, which `issuer` issued, as good.
///
/// The caller has verified the certificate and its issuer; a [`super::VerifiedChain`] has both.
pub fn verify(
    response: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
    expected: Expected<'_>,
) -> Result<Good, OcspError> {
    let basic = Basic::read(response)?;
    basic.verify_signature(issuer, expected.at)?;
    let data: ResponseData = der::decode(basic.signed)?;
    check_extensions(&data, expected.nonce)?;
    let single = status_of(&data, certificate, issuer)?;
    let expires = check_status(single, expected)?;
    Ok(Good {
        certificate: certificate.digest(),
        response: Digest::of(response),
        this_update: time(&single.this_update),
        expires,
    })
}

fn check_extensions(data: &ResponseData, nonce: Option<&[u8]>) -> Result<(), OcspError> {
    let all = data.responses.iter().flat_map(|single| &single.single_extensions);
    if all.flat_map(|list| list.iter()).any(|extension| extension.critical) {
        return Err(OcspError::CriticalExtension);
    }
    let is_nonce = |extension: &&Extension| is(&extension.extn_id, NONCE);
    let (nonces, others): (Vec<_>, Vec<_>) =
        data.response_extensions.iter().flat_map(|list| list.iter()).partition(is_nonce);
    if others.iter().any(|extension| extension.critical) {
        return Err(OcspError::CriticalExtension);
    }
    let Some(nonce) = nonce else { return Ok(()) };
    match nonces.as_slice() {
        [only] if only.extn_value == der::encode(&OctetString::from(nonce.to_vec())) => Ok(()),
        _ => Err(OcspError::Nonce),
    }
}

/// The one status in the response that is about this certificate.
fn status_of<'a>(
    data: &'a ResponseData,
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<&'a SingleResponse, OcspError> {
    let by_sha_256 = cert_id(certificate, issuer, &SHA256, SHA_256)?;
    let by_sha_1 = cert_id(certificate, issuer, &SHA1_FOR_LEGACY_USE_ONLY, SHA_1)?;
    let same = |one: &CertId, other: &CertId| {
        one.hash_algorithm.algorithm == other.hash_algorithm.algorithm
            && one.issuer_name_hash == other.issuer_name_hash
            && one.issuer_key_hash == other.issuer_key_hash
            && one.serial_number == other.serial_number
    };
    let about =
        |single: &&SingleResponse| same(&single.cert_id, &by_sha_256) || same(&single.cert_id, &by_sha_1);
    let mut found = data.responses.iter().filter(about);
    match (found.next(), found.next()) {
        (Some(single), None) => Ok(single),
        (None, _) => Err(OcspError::OtherCertificate),
        (Some(_), Some(_)) => Err(OcspError::Malformed),
    }
}

/// Good and fresh; until when. A revocation counts however old the answer is.
fn check_status(single: &SingleResponse, expected: Expected<'_>) -> Result<Time, OcspError> {
    let (this_update, at) = (time(&single.this_update), expected.at);
    match &single.cert_status {
        CertStatus::Good => {}
        CertStatus::Revoked(info) => {
            let reason = info.revocation_reason.map_or("unspecified", reason_name);
            return Err(OcspError::Revoked { at: time(&info.revocation_time), reason });
        }
        CertStatus::Unknown(()) => return Err(OcspError::Unknown),
    }
    if this_update > at.plus(MAX_SKEW) {
        return Err(OcspError::NotYetValid { this_update, at });
    }
    let by_age = this_update.plus(expected.max_age);
    let expires = single.next_update.as_ref().map_or(by_age, |next| time(next).min(by_age));
    if at > expires {
        return Err(OcspError::Expired { this_update, at });
    }
    Ok(expires)
}

/// CertID (section 4.1.1). With SHA-1 too: it finds the certificate, and proves nothing.
fn cert_id(
    certificate: &Certificate,
    issuer: &Certificate,
    algorithm: &'static ring::digest::Algorithm,
    oid: &'static [u32],
) -> Result<CertId, NotDer> {
    let hash = |bytes: &[u8]| OctetString::from(digest(algorithm, bytes).as_ref().to_vec());
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifier {
            algorithm: ObjectIdentifier::new_unchecked(oid.into()),
            parameters: None,
        },
        issuer_name_hash: hash(issuer.subject_der()),
        issuer_key_hash: hash(issuer.public_key_bits()),
        serial_number: der::integer(certificate.serial())?,
    })
}

fn is(oid: &ObjectIdentifier, arcs: &[u32]) -> bool {
    let found: &[u32] = oid;
    found == arcs
}

fn time(of: &rasn::types::GeneralizedTime) -> Time {
    Time::from_millis(of.timestamp_millis())
}

/// The name of a reason (RFC 5280 section 5.3.1).
const fn reason_name(reason: CrlReason) -> &'static str {
    match reason {
        CrlReason::Unspecified => "unspecified",
        CrlReason::KeyCompromise => "keyCompromise",
        CrlReason::CaCompromise => "cACompromise",
        CrlReason::AffiliationChanged => "affiliationChanged",
        CrlReason::Superseded => "superseded",
        CrlReason::CessationOfOperation => "cessationOfOperation",
        CrlReason::CertificateHold => "certificateHold",
        CrlReason::RemoveFromCRL => "removeFromCRL",
        CrlReason::PrivilegeWithdrawn => "privilegeWithdrawn",
        CrlReason::AaCompromise => "aACompromise",
    }
}

#[cfg(test)]
mod tests;
