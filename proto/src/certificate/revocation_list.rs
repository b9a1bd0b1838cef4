//! Certificate revocation lists (RFC 5280 section 5): whether a serial number is on an authority's signed list.

use x509_parser::oid_registry::{OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::{Certificate, verify_as_certified};
use crate::clock::Time;
use crate::der::{self, NotDer};

/// Largest list that is read, in bytes.
const MAX_LIST: usize = 4 * 1024 * 1024;

/// Why a list is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationListError {
    /// Not a list in DER, or larger than 4 MiB.
    #[error("not a certificate revocation list in DER of at most 4 MiB")]
    Malformed,
    /// By another authority than expected.
    #[error("the revocation list is by another authority")]
    OtherAuthority,
    /// Not signed by the authority's key.
    #[error("the revocation list's signature is wrong")]
    Signature,
    /// It has a critical extension, as lists for some certificates only have.
    #[error("the revocation list has a critical extension: it may not be complete")]
    Partial,
    /// Not in force at that time.
    #[error("the revocation list is not in force at {0}")]
    NotInForce(Time),
}

impl From<NotDer> for RevocationListError {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

/// A complete revocation list whose signature was verified. [`VerifiedRevocationList::verify`] is its only maker.
#[derive(Debug, Clone)]
pub struct VerifiedRevocationList {
    /// Serial numbers without leading zeros, sorted, with the time of revocation.
    revoked: Vec<(Vec<u8>, Time)>,
    next_update: Time,
}

impl VerifiedRevocationList {
    /// Verifies that `list` (DER) is `authority`'s complete list, in force at `at`.
    pub fn verify(list: &[u8], authority: &Certificate, at: Time) -> Result<Self, RevocationListError> {
        if list.len() > MAX_LIST {
            return Err(RevocationListError::Malformed);
        }
        verify_signature(list, authority)?;
        let Ok(([], parsed)) = CertificateRevocationList::from_der(list) else {
            return Err(RevocationListError::Malformed);
        };
        if parsed.issuer().as_raw() != authority.subject_der() {
            return Err(RevocationListError::OtherAuthority);
        }
        let known = [OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER];
        if parsed.extensions().iter().any(|one| one.critical && !known.contains(&one.oid)) {
            return Err(RevocationListError::Partial);
        }
        let seconds = |time: x509_parser::time::ASN1Time| super::time(time.timestamp());
        let next_update = parsed.next_update().map(seconds).ok_or(RevocationListError::Malformed)?;
        if at < seconds(parsed.last_update()) || at > next_update {
            return Err(RevocationListError::NotInForce(at));
        }
        let mut revoked: Vec<_> = parsed
            .iter_revoked_certificates()
            .map(|one| (number(one.raw_serial()).to_vec(), seconds(one.revocation_date)))
            .collect();
        revoked.sort();
        Ok(Self { revoked, next_update })
    }

    /// When the certificate with this serial number (content bytes, leading zeros do not count) was revoked, if it was.
    pub fn revoked_at(&self, serial: &[u8]) -> Option<Time> {
        let serial = number(serial);
        let found = self.revoked.binary_search_by(|(one, _)| one.as_slice().cmp(serial));
        found.ok().map(|at| self.revoked[at].1)
    }

    /// When the next list comes at the latest.
    pub fn next_update(&self) -> Time {
        self.next_update
    }
}

/// A serial number without the zero byte by which DER keeps it positive.
fn number(content: &[u8]) -> &[u8] {
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    &content[zeros..]
}

fn verify_signature(list: &[u8], authority: &Certificate) -> Result<(), RevocationListError> {
    let mut parts = der::only(der::SEQUENCE, list)?.inside();
    let signed = parts.expect(der::SEQUENCE)?.raw;
    let algorithm = parts.expect(der::SEQUENCE)?.content;
    let signature = parts.expect(der::BIT_STRING)?.whole_bits()?;
    parts.finish()?;
    verify_as_certified(authority.spki(), algorithm, signed, signature)
        .map_err(|_| RevocationListError::Signature)
}
