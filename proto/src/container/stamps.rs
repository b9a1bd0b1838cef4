//! The timestamps of a container: over the seal, and over what is archived. Each is by an authority of the global configuration
//! that was in force, and may carry what that authority's own issuer said of its certificate.

use std::time::Duration;

use bytes::Bytes;

use super::parts::{PartName, PartState, Wrong, mismatch};
use crate::certificate::Certificate;
use crate::certificate::ocsp::{self, Expected, Good, OcspError};
use crate::clock::Time;
use crate::conversation::TOLERANCE;
use crate::digest::Digest;
use crate::global_configuration::{CertificationAuthorityEntry, Configuration, TimestampingAuthorityEntry};
use crate::timestamp::{self, Timestamp};

/// What a verified timestamp tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampStory {
    /// The authority's time.
    pub at: Time,
    /// When at the latest, as exactly as the authority states.
    pub not_later_than: Time,
    /// The authority's name in the configuration.
    pub authority: String,
    /// The end of the authority's certificate, by when other programs want the next timestamp over this one.
    pub until: Time,
    /// For which time the issuer of that certificate answered that it counts; none where no answer is here.
    pub status: Option<Time>,
}

/// Checks that a token is over `digest`, by an authority of the configuration, which was in force then.
pub(super) fn check(
    (name, token): (&PartName, &Bytes),
    digest: &Digest,
    configuration: &Configuration,
    now: Option<Time>,
) -> Result<StampStory, Wrong> {
    let refused = |why: String| mismatch(name.clone(), why);
    let authorities = configuration.timestamping_authorities().iter();
    let authorities: Vec<_> = authorities.map(|authority| &authority.certificate).collect();
    let stamp = Timestamp::verify(token, digest, None, &authorities);
    let stamp = stamp.map_err(|error| refused(error.to_string()))?;
    let authority = StampingAuthority::of(&stamp, configuration);
    let authority = authority.ok_or_else(|| refused("its authority's certificate cannot be read".into()))?;
    // Other programs find it there, and nothing signs what stands there in its place.
    let own = authority.certificate().der();
    if !token.windows(own.len()).any(|part| part == &own[..]) {
        return Err(refused("it does not carry its authority's certificate".into()));
    }
    let at = stamp.time();
    if now.is_some_and(|now| at > now.plus(TOLERANCE)) {
        let why = format!("{at} lies in the future of this computer's clock");
        return Err((name.clone(), PartState::CannotTell, why));
    }
    if at < configuration.issued().minus(TOLERANCE) || at > configuration.valid_until().plus(TOLERANCE) {
        return Err(refused(format!("configuration {} was not in force at {at}", configuration.number())));
    }
    let (_, response) = timestamp::apart(token).map_err(|error| refused(error.to_string()))?;
    let status = response.map(|response| authority.verify_status(&response, at)).transpose();
    let status = status.map_err(|error| refused(format!("what is said of its authority: {error}")))?;
    Ok(StampStory {
        at,
        not_later_than: at.plus(stamp.accuracy().unwrap_or_default()),
        authority: authority.name().to_owned(),
        until: authority.certificate().not_after(),
        status: status.map(|good| good.this_update()),
    })
}

/// The timestamping authority of a verified token.
#[derive(Debug, Clone)]
pub struct StampingAuthority<'c> {
    entry: &'c TimestampingAuthorityEntry,
    certificate: Certificate,
    issuer: Option<(&'c CertificationAuthorityEntry, Certificate)>,
    max_age: Duration,
}

impl<'c> StampingAuthority<'c> {
    /// The authority of `configuration` that made the token; none if it is of another configuration.
    pub fn of(stamp: &Timestamp, configuration: &'c Configuration) -> Option<Self> {
        let is_it = |entry: &&TimestampingAuthorityEntry| Digest::of(&entry.certificate) == stamp.authority();
        let entry = configuration.timestamping_authorities().iter().find(is_it)?;
        let certificate = Certificate::from_der(&entry.certificate).ok()?;
        let read = |entry: &'c CertificationAuthorityEntry| {
            let issuer = Certificate::from_der(&entry.certificate).ok()?;
            (issuer.subject_der() == certificate.issuer_der()).then_some((entry, issuer))
        };
        let issuer = configuration.certification_authorities().iter().find_map(read);
        Some(Self { entry, certificate, issuer, max_age: configuration.policy().ocsp_max_age })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &'c str {
        &self.entry.name
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The question about its certificate (OCSPRequest, DER), and the URLs of those who can answer. None of an authority that no
    /// certification authority of the configuration certified: the configuration alone vouches for it then.
    pub fn question(&self) -> Option<(Vec<u8>, &'c [String])> {
        let (entry, issuer) = self.issuer.as_ref()?;
        Some((ocsp::request(&self.certificate, issuer, None).ok()?, &entry.ocsp_urls))
    }

    /// Verifies an answer (OCSPResponse, DER) for the time of a timestamp.
    pub fn verify_status(&self, response: &[u8], at: Time) -> Result<Good, OcspError> {
        let (_, issuer) = self.issuer.as_ref().ok_or(OcspError::UnknownResponder)?;
        let expected = Expected { at, max_age: self.max_age, nonce: None };
        ocsp::verify(response, &self.certificate, issuer, expected)
    }
}
