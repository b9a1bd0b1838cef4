//! Certificates: who a key belongs to, according to whom, and whether that still held at a given time.
//!
//! A [`Certificate`] has been read and nothing more. A [`VerifiedChain`] has been traced to a certification authority of
//! the global configuration at a given time and names a security server; [`ocsp`] says whether it was revoked.
//! Standards: X.509 in the profile of RFC 5280, RFC 6960 (OCSP), RFC 9336 (document signing).

mod chain;
mod security_server;
pub mod ocsp;
mod revocation_list;
mod public_key;

use bytes::Bytes;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Time;
use crate::digest::Digest;

pub use chain::{ChainError, MAX_CHAIN, VerifiedChain};
pub use public_key::{KeyError, PublicKey, SignatureAlgorithm, SignatureInvalid};
pub(crate) use public_key::{VERIFICATION_ALGORITHMS, verify_as_certified};
pub use revocation_list::{RevocationListError, VerifiedRevocationList};
pub use security_server::{Profile, SecurityServerCertificate};

/// Largest certificate that is read, in bytes.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

/// Why bytes are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More than [`MAX_CERTIFICATE`] bytes.
    #[error("a certificate of {0} bytes is too large: at most {MAX_CERTIFICATE} are read")]
    TooLarge(usize),
    /// Not one X.509 certificate in DER.
    #[error("not an X.509 certificate in DER")]
    Malformed,
    /// An extension is malformed or occurs twice.
    #[error("the extension {0} of the certificate is malformed or occurs twice")]
    Extension(&'static str),
}

/// An X.509 certificate that has been read, and not verified in any way.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Bytes,
    facts: Facts,
}

/// What is read out of a certificate, once.
#[derive(Clone, PartialEq, Eq)]
struct Facts {
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    subject_text: String,
    not_before: Time,
    not_after: Time,
    spki: Vec<u8>,
    public_key_bits: Vec<u8>,
    key_usage: Option<u16>,
    extended_key_usage: Option<ExtendedKeyUsage>,
    subject_key_identifier: Option<Vec<u8>>,
    alternative_names: Vec<AlternativeName>,
}

/// Extended key usage (RFC 5280 section 4.2.1.12).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ExtendedKeyUsage {
    pub(crate) critical: bool,
    /// Dotted decimal, sorted.
    pub(crate) purposes: Vec<String>,
}

/// A subject alternative name, as far as it matters here.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum AlternativeName {
    Uri(String),
    Other,
}

impl Certificate {
    /// Reads one certificate in DER; nothing may follow it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertificateError::TooLarge(der.len()));
        }
        match X509Certificate::from_der(der) {
            Ok(([], parsed)) => Ok(Self { der: Bytes::copy_from_slice(der), facts: Facts::of(&parsed)? }),
            _ => Err(CertificateError::Malformed),
        }
    }

    /// The certificate, byte for byte.
    pub fn der(&self) -> &Bytes {
        &self.der
    }

    /// SHA-256 of the certificate's DER.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// The SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.facts.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what the global configuration lists.
    pub fn spki_digest(&self) -> Digest {
        Digest::of(&self.facts.spki)
    }

    /// The public key, if it is of a kind that may sign here.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_spki(&self.facts.spki)
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> Time {
        self.facts.not_before
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> Time {
        self.facts.not_after
    }

    /// Whether `time` lies in its validity, both ends included (RFC 5280 section 4.1.2.5).
    pub fn is_valid_at(&self, time: Time) -> bool {
        self.not_before() <= time && time.as_secs() <= self.not_after().as_secs()
    }

    /// Content bytes of the serial number, as in the certificate.
    pub fn serial(&self) -> &[u8] {
        &self.facts.serial
    }

    /// The subject as people read it.
    pub fn subject(&self) -> &str {
        &self.facts.subject_text
    }

    /// The subject, DER.
    pub fn subject_der(&self) -> &[u8] {
        &self.facts.subject
    }

    /// The issuer's name, DER.
    pub fn issuer_der(&self) -> &[u8] {
        &self.facts.issuer
    }

    /// The bits of the public key without their algorithm: what OCSP and key identifiers hash.
    pub fn public_key_bits(&self) -> &[u8] {
        &self.facts.public_key_bits
    }

    pub(crate) fn key_usage(&self) -> Option<u16> {
        self.facts.key_usage
    }

    pub(crate) fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage> {
        self.facts.extended_key_usage.as_ref()
    }

    pub(crate) fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.facts.subject_key_identifier.as_deref()
    }

    pub(crate) fn alternative_names(&self) -> &[AlternativeName] {
        &self.facts.alternative_names
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({}, {})", self.subject(), self.digest())
    }
}

impl Facts {
    fn of(parsed: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let extension = CertificateError::Extension;
        let usage = parsed.key_usage().map_err(|_| extension("keyUsage"))?;
        let purposes = parsed.extended_key_usage().map_err(|_| extension("extKeyUsage"))?;
        let names = parsed.subject_alternative_name().map_err(|_| extension("subjectAltName"))?;
        Ok(Self {
            serial: parsed.raw_serial().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            subject_text: parsed.subject().to_string(),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            spki: parsed.public_key().raw.to_vec(),
            public_key_bits: parsed.public_key().subject_public_key.data.to_vec(),
            key_usage: usage.map(|usage| usage.value.flags),
            extended_key_usage: purposes.map(|found| purposes_of(found.critical, found.value)),
            subject_key_identifier: key_identifier(parsed)?,
            alternative_names: names
                .map(|names| names.value.general_names.iter().map(alternative_name).collect())
                .unwrap_or_default(),
        })
    }
}

/// From seconds since 1970, as certificates count.
fn time(seconds: i64) -> Time {
    Time::from_millis(seconds.saturating_mul(1000))
}

fn purposes_of(critical: bool, value: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> ExtendedKeyUsage {
    let known = [
        (value.any, "2.5.29.37.0"),
        (value.server_auth, "1.3.6.1.5.5.7.3.1"),
        (value.client_auth, "1.3.6.1.5.5.7.3.2"),
        (value.code_signing, "1.3.6.1.5.5.7.3.3"),
        (value.email_protection, "1.3.6.1.5.5.7.3.4"),
        (value.time_stamping, "1.3.6.1.5.5.7.3.8"),
        (value.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
    ];
    let named = known.iter().filter(|(present, _)| *present).map(|(_, purpose)| (*purpose).to_owned());
    let mut purposes: Vec<String> = named.chain(value.other.iter().map(ToString::to_string)).collect();
    purposes.sort();
    ExtendedKeyUsage { critical, purposes }
}

fn key_identifier(parsed: &X509Certificate<'_>) -> Result<Option<Vec<u8>>, CertificateError> {
    use x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier;
    let oid = x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
    let malformed = CertificateError::Extension("subjectKeyIdentifier");
    match parsed.get_extension_unique(&oid).map_err(|_| malformed.clone())? {
        None => Ok(None),
        Some(found) => match found.parsed_extension() {
            SubjectKeyIdentifier(identifier) => Ok(Some(identifier.0.to_vec())),
            _ => Err(malformed),
        },
    }
}

fn alternative_name(name: &GeneralName<'_>) -> AlternativeName {
    match name {
        GeneralName::URI(uri) => AlternativeName::Uri((*uri).to_owned()),
        _ => AlternativeName::Other,
    }
}

#[cfg(test)]
mod tests;
