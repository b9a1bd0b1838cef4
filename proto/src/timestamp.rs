//! Timestamps (RFC 3161): a timestamping authority's signed word that a digest existed at a time.
//!
//! [`request`] makes what is sent to an authority, [`token_of`] takes the token out of its answer, and
//! [`Timestamp::verify`] checks a token offline, years later, with nothing but the authority's certificate.

mod response;
mod status;
mod token;

use std::time::Duration;

use rasn::prelude::{ObjectIdentifier, OctetString};
use rasn_cms::tsp::{MessageImprint, TimeStampReq};
use rasn_pkix::AlgorithmIdentifier;

use crate::clock::Time;
use crate::der;
use crate::digest::Digest;

pub use response::{Failure, token_of};
pub use status::{apart, with_status};
pub use token::TokenError;

/// Largest response or token that is read, in bytes.
pub const MAX_RESPONSE: usize = 64 * 1024;

pub(crate) const SHA_256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// A random number in a request that its answer must repeat. Not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(u64);

impl Nonce {
    /// From eight random bytes.
    pub const fn from_random(bytes: [u8; 8]) -> Self {
        match u64::from_be_bytes(bytes) {
            0 => Self(1),
            number => Self(number),
        }
    }
}

/// A timestamp whose token was verified. [`Timestamp::verify`] is its only maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    time: Time,
    accuracy: Option<Duration>,
    serial: Vec<u8>,
    policy: String,
    authority: Digest,
}

impl Timestamp {
    /// Verifies that `token` (TimeStampToken, DER) is about `digest`, answers `nonce` if one is given, and is signed by
    /// one of the timestamping `authorities` (DER) of the global configuration.
    pub fn verify(
        token: &[u8],
        digest: &Digest,
        nonce: Option<Nonce>,
        authorities: &[impl AsRef<[u8]>],
    ) -> Result<Self, TokenError> {
        token::verify(token, digest, nonce, authorities)
    }

    /// The authority's time (genTime).
    pub fn time(&self) -> Time {
        self.time
    }

    /// How far the true time may lie from it, either way; none if the authority did not say.
    pub fn accuracy(&self) -> Option<Duration> {
        self.accuracy
    }

    /// Content bytes of the token's serial number.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The authority's policy, dotted decimal.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// SHA-256 of the authority's certificate (DER).
    pub fn authority(&self) -> Digest {
        self.authority
    }
}

/// A TimeStampReq (DER, section 2.4.1) for a SHA-256 digest. The answer shall carry the authority's certificate.
pub fn request(digest: &Digest, nonce: Nonce) -> Vec<u8> {
    der::encode(&TimeStampReq {
        version: 1,
        message_imprint: MessageImprint {
            hash_algorithm: AlgorithmIdentifier {
                algorithm: ObjectIdentifier::new_unchecked(SHA_256.into()),
                parameters: Some(rasn::types::Any::new(vec![5, 0])),
            },
            hashed_message: OctetString::from(digest.as_bytes().to_vec()),
        },
        req_policy: None,
        nonce: Some(nonce.0.into()),
        cert_req: true,
        extensions: None,
    })
}

#[cfg(test)]
mod tests;
