//! The chain from a security server's certificate to a certification authority of the global configuration.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::security_server::{Profile, SecurityServerCertificate};
use super::{Certificate, CertificateError, KeyError, VERIFICATION_ALGORITHMS};
use crate::clock::Time;
use crate::identifier::IdentifierError;

/// Most certificates in a chain, the security server's own included, the authority's not.
pub const MAX_CHAIN: usize = 4;

/// Most certification authorities that are tried.
const MAX_AUTHORITIES: usize = 64;

/// Why a chain is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate, or more than [`MAX_CHAIN`].
    #[error("a chain has 1 to {MAX_CHAIN} certificates, this has {0}")]
    Length(usize),
    /// A certificate of the chain cannot be read.
    #[error("certificate {position} of the chain cannot be read")]
    Certificate {
        /// Which, from 1 (the security server's own).
        position: usize,
        /// What is wrong.
        source: CertificateError,
    },
    /// A certification authority's certificate in the global configuration cannot be read, or there are too many.
    #[error("the certification authorities of the global configuration cannot be read")]
    Authorities,
    /// No certification authority of the global configuration issued it.
    #[error("no certification authority of the global configuration issued this certificate")]
    UnknownAuthority,
    /// A certificate of the path, or the authority's own, had ended.
    #[error("a certificate of the chain expired at {not_after}, before {at}")]
    Expired {
        /// Its end.
        not_after: Time,
        /// The time in question.
        at: Time,
    },
    /// A certificate of the path, or the authority's own, had not begun.
    #[error("a certificate of the chain is valid from {not_before}, after {at}")]
    NotYetValid {
        /// Its beginning.
        not_before: Time,
        /// The time in question.
        at: Time,
    },
    /// A certificate of the path is not signed by its issuer.
    #[error("a certificate of the chain is not signed by its issuer's key")]
    Signature,
    /// The chain holds a certificate that the path does not need, or in another order.
    #[error(
        "the chain is not exactly the path: leaf first, each followed by its issuer, without the authority"
    )]
    NotThePath,
    /// Key usage or extended key usage is not that of the profile.
    #[error("the certificate's key usages are not those of the profile {0}")]
    Profile(Profile),
    /// The subject alternative names do not name one member and one security server, and nothing else.
    #[error("the certificate names not exactly one member and one security server in urn:trave: names")]
    Names,
    /// A name is no identifier.
    #[error("a urn:trave: name in the certificate is no identifier")]
    Identifier(#[source] IdentifierError),
    /// An authentication certificate names another member than the server's, or a signing certificate another instance.
    #[error("the certificate's security server does not belong to its member")]
    Foreign,
    /// The certificate's key is of a kind that is not accepted.
    #[error("the certificate's key is not accepted")]
    Key(#[source] KeyError),
    /// The chain breaks another rule of RFC 5280.
    #[error("the chain breaks a rule of RFC 5280: {0}")]
    Rule(String),
}

/// A security server's certificate, traced to a certification authority at a given time. [`VerifiedChain::verify`] is its
/// only maker. It says nothing about revocation ([`super::ocsp`]) and nothing about whether the key is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    subject: SecurityServerCertificate,
    path: Vec<Certificate>,
    authority: Certificate,
    at: Time,
}

impl VerifiedChain {
    /// Verifies `chain` (DER, the security server's certificate first, without the authority) to one of `authorities`
    /// (DER) at the time `at`, for `profile`.
    pub fn verify(
        chain: &[impl AsRef<[u8]>],
        authorities: &[impl AsRef<[u8]>],
        profile: Profile,
        at: Time,
    ) -> Result<Self, ChainError> {
        let path = read_chain(chain)?;
        let leaf = path.first().ok_or(ChainError::Length(0))?;
        let subject = SecurityServerCertificate::of(leaf, profile)?;
        let authority = trace(&path, &read_authorities(authorities)?, profile, at)?;
        if !path[1..].iter().chain([&authority]).all(may_certify) {
            return Err(ChainError::Rule("an authority on the path may not sign certificates".to_owned()));
        }
        Ok(Self { subject, path, authority, at })
    }

    /// What the security server's certificate says.
    pub fn subject(&self) -> &SecurityServerCertificate {
        &self.subject
    }

    /// The security server's certificate itself.
    pub fn certificate(&self) -> &Certificate {
        &self.path[0]
    }

    /// The certificate of whoever issued the security server's: the next of the chain, or the authority.
    pub fn issuer(&self) -> &Certificate {
        self.path.get(1).unwrap_or(&self.authority)
    }

    /// The certification authority of the global configuration.
    pub fn authority(&self) -> &Certificate {
        &self.authority
    }

    /// The time for which the chain was verified.
    pub fn verified_at(&self) -> Time {
        self.at
    }

    /// The end of the chain's validity: that of the certificate which ends first.
    pub fn not_after(&self) -> Time {
        let ends = self.path.iter().map(Certificate::not_after);
        ends.fold(self.authority.not_after(), Time::min)
    }

    /// The chain, DER, the security server's certificate first.
    pub fn certificates(&self) -> impl Iterator<Item = &bytes::Bytes> {
        self.path.iter().map(Certificate::der)
    }

    /// Verifies a signature over `message` by the security server's key.
    pub fn verify_signature(&self, message: &[u8], signature: &[u8]) -> Result<(), super::SignatureInvalid> {
        self.subject.public_key.verify(message, signature)
    }
}

fn read_chain(chain: &[impl AsRef<[u8]>]) -> Result<Vec<Certificate>, ChainError> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(ChainError::Length(chain.len()));
    }
    let read = |(at, der): (usize, &_)| {
        Certificate::from_der(AsRef::<[u8]>::as_ref(der))
            .map_err(|source| ChainError::Certificate { position: at + 1, source })
    };
    chain.iter().enumerate().map(read).collect()
}

fn read_authorities(authorities: &[impl AsRef<[u8]>]) -> Result<Vec<Certificate>, ChainError> {
    if authorities.len() > MAX_AUTHORITIES {
        return Err(ChainError::Authorities);
    }
    let read = |der: &_| Certificate::from_der(AsRef::<[u8]>::as_ref(der));
    authorities.iter().map(read).collect::<Result<_, _>>().map_err(|_| ChainError::Authorities)
}

/// Traces the path to the authority that issued it, by RFC 5280 section 6.
fn trace(
    path: &[Certificate],
    authorities: &[Certificate],
    profile: Profile,
    at: Time,
) -> Result<Certificate, ChainError> {
    let ders: Vec<CertificateDer<'_>> = path.iter().map(|one| CertificateDer::from(&one.der()[..])).collect();
    let roots: Vec<CertificateDer<'_>> =
        authorities.iter().map(|one| CertificateDer::from(&one.der()[..])).collect();
    let anchors = roots.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
    let anchors: Vec<TrustAnchor<'_>> = anchors.map_err(|_| ChainError::Authorities)?;
    let now = unix_time(at)?;
    let leaf = EndEntityCert::try_from(&ders[0]).map_err(|error| from_webpki(error, at))?;
    // The certificate's own usages were compared already; an authority between may be silent, or must allow this one.
    let usage = KeyUsage::required_if_present(profile.required());
    let verified = leaf
        .verify_for_usage(VERIFICATION_ALGORITHMS, &anchors, &ders[1..], now, usage, None, None)
        .map_err(|error| from_webpki(error, at))?;
    if !is_exactly(&verified, &ders) {
        return Err(ChainError::NotThePath);
    }
    authority_in_force(&verified, &anchors, authorities, at)
}

/// The path uses every certificate of the chain, in its order.
fn is_exactly(verified: &VerifiedPath<'_>, chain: &[CertificateDer<'_>]) -> bool {
    verified.intermediate_certificates().map(webpki::Cert::der).eq(chain[1..].iter().cloned())
}

/// The authority at the end of the path. Path validation leaves an authority's own validity aside; here it counts.
fn authority_in_force(
    verified: &VerifiedPath<'_>,
    anchors: &[TrustAnchor<'_>],
    authorities: &[Certificate],
    at: Time,
) -> Result<Certificate, ChainError> {
    let found = || anchors.iter().zip(authorities).filter(|(anchor, _)| *anchor == verified.anchor());
    if let Some((_, authority)) = found().find(|(_, authority)| authority.is_valid_at(at)) {
        return Ok(authority.clone());
    }
    match found().next().map(|(_, authority)| authority) {
        Some(ended) if ended.not_before() <= at => {
            Err(ChainError::Expired { not_after: ended.not_after(), at })
        }
        Some(coming) => Err(ChainError::NotYetValid { not_before: coming.not_before(), at }),
        None => Err(ChainError::UnknownAuthority),
    }
}

/// An authority's key usage, if it states one, allows keyCertSign (RFC 5280 section 4.2.1.3); path validation by webpki
/// looks at basicConstraints alone.
fn may_certify(authority: &Certificate) -> bool {
    const KEY_CERT_SIGN: u16 = 1 << 5;
    authority.key_usage().is_none_or(|usage| usage & KEY_CERT_SIGN != 0)
}

pub(super) fn unix_time(at: Time) -> Result<UnixTime, ChainError> {
    let seconds =
        u64::try_from(at.as_secs()).map_err(|_| ChainError::Rule("a time before 1970".to_owned()))?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn from_webpki(error: webpki::Error, at: Time) -> ChainError {
    use webpki::Error as Found;
    match error {
        Found::UnknownIssuer => ChainError::UnknownAuthority,
        Found::CertExpired { not_after, .. } => ChainError::Expired { not_after: from_unix(not_after), at },
        Found::CertNotValidYet { not_before, .. } => {
            ChainError::NotYetValid { not_before: from_unix(not_before), at }
        }
        Found::InvalidSignatureForPublicKey => ChainError::Signature,
        other => ChainError::Rule(other.to_string()),
    }
}

fn from_unix(time: UnixTime) -> Time {
    super::time(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
