//! The one-time token with which a registered security server enrols: handed over by a person, on paper or screen.
//!
//! ```text
//! trave-enrol-v1.AQIDBAUG…
//! ```
//!
//! After the point stands, in base64url without padding (RFC 4648 section 5): secret (32 bytes), SHA-256 of the registry's
//! TLS SubjectPublicKeyInfo (32), SHA-256 of the anchor (32), token id (16), expiry (8, big-endian milliseconds since
//! 1970), length of the registry's address (1), the address, the server's identifier, and the first four bytes of the
//! SHA-256 of all that, so that a token copied in part is noticed before it is used. The secret never travels: it seals the enrolment request (see [`super::enrolment_mac`]). Whoever holds the token can enrol keys of
//! their own for that server, if an administrator approves their fingerprint.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use crate::clock::Time;
use crate::digest::Digest;
use crate::identifier::{IdentifierError, ServerId};

const PREFIX: &str = "trave-enrol-v1.";
const CHECKSUM: usize = 4;
const FIXED: usize = 32 + 32 + 32 + 16 + 8 + 1;
const MAX_TEXT: usize = 1024;

/// Why a text is no enrolment token. The text itself is never shown: it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this version, or cut off.
    #[error(
        "this is no whole enrolment token; it begins with \"trave-enrol-v1.\" and is copied in one piece"
    )]
    Malformed,
    /// The server in it is none.
    #[error("the enrolment token names no security server")]
    Server {
        /// Why.
        source: IdentifierError,
    },
}

/// The secret of a token: shown by nothing, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// What a security server needs to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// `host:port` of the registry's enrolment door.
    pub registry: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the registry's TLS certificate.
    pub registry_key: Digest,
    /// SHA-256 of the anchor file.
    pub anchor: Digest,
    /// The security server that may enrol.
    pub server: ServerId,
    /// The token's own id.
    pub id: [u8; 16],
    /// After this it is worth nothing.
    pub expires: Time,
    /// What seals the request.
    pub secret: Secret,
}

impl EnrolmentToken {
    /// The token's id as `EnrolRequest.token_id` carries it: 32 hexadecimal digits.
    pub fn id_text(&self) -> String {
        hex::encode(self.id)
    }

    /// The token as it is handed over; none if the registry's address is longer than 255 bytes.
    pub fn format(&self) -> Option<Zeroizing<String>> {
        let address = u8::try_from(self.registry.len()).ok()?;
        let parts: [&[u8]; 8] = [
            self.secret.as_bytes(),
            self.registry_key.as_bytes(),
            self.anchor.as_bytes(),
            &self.id,
            &self.expires.as_millis().to_be_bytes(),
            &[address],
            self.registry.as_bytes(),
            self.server.as_str().as_bytes(),
        ];
        // Of the right size from the start, so that growing leaves no copy of the secret behind.
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut payload = Zeroizing::new(Vec::with_capacity(length + CHECKSUM));
        parts.iter().for_each(|part| payload.extend_from_slice(part));
        let checksum = Digest::of(&payload);
        payload.extend_from_slice(&checksum.as_bytes()[..CHECKSUM]);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + payload.len() * 2));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*payload, &mut text);
        Some(text)
    }

    /// Reads a token; white space around it is ignored, for it is copied by people.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TEXT);
        let encoded = encoded.ok_or(TokenError::Malformed)?;
        let payload = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
        let payload = Zeroizing::new(payload);
        Self::from_payload(&payload).ok_or(TokenError::Malformed)?
    }

    fn from_payload(payload: &[u8]) -> Option<Result<Self, TokenError>> {
        let (payload, checksum) = payload.split_at_checked(payload.len().checked_sub(CHECKSUM)?)?;
        if Digest::of(payload).as_bytes()[..CHECKSUM] != *checksum {
            return None;
        }
        let (fixed, rest) = payload.split_at_checked(FIXED)?;
        let (address, server) = rest.split_at_checked(usize::from(fixed[FIXED - 1]))?;
        let registry = std::str::from_utf8(address).ok()?;
        let server = std::str::from_utf8(server).ok()?;
        let server = match server.parse() {
            Ok(server) => server,
            Err(source) => return Some(Err(TokenError::Server { source })),
        };
        Some(Ok(Self {
            secret: Secret::from_bytes(fixed[..32].try_into().ok()?),
            registry_key: Digest::from_slice(&fixed[32..64])?,
            anchor: Digest::from_slice(&fixed[64..96])?,
            id: fixed[96..112].try_into().ok()?,
            expires: Time::from_millis(i64::from_be_bytes(fixed[112..120].try_into().ok()?)),
            registry: registry.into(),
            server,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolmentToken {
        EnrolmentToken {
            registry: "registry.example:7443".into(),
            registry_key: Digest::of(b"key"),
            anchor: Digest::of(b"anchor"),
            server: "NORD/SH/luebeck/s1".parse().unwrap(),
            id: [3; 16],
            expires: Time::from_millis(1_795_288_440_000),
            secret: Secret::from_bytes([0x5a; 32]),
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let text = token().format().unwrap();
        assert!(text.starts_with(PREFIX));
        assert_eq!(EnrolmentToken::parse(&format!(" {}\n", text.as_str())), Ok(token()));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let text = token().format().unwrap();
        let (cut, long) = (&text[..text.len() - 8], "x".repeat(2000));
        for bad in ["", "trave-enrol-v1.", "trave-enrol-v2.AAAA", &text[..60], cut, &text[1..], &long] {
            assert_eq!(EnrolmentToken::parse(bad), Err(TokenError::Malformed), "{bad}");
        }
        assert!(format!("{:?}", token()).contains("Secret(redacted)"));
    }
}
