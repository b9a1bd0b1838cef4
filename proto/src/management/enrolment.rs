//! The enrolment of a security server: the keys that people compare, and the seal that only the token's holder can make.

use bytes::Bytes;
use ring::hmac;

use super::token::Secret;
use crate::digest::{Digest, tag};
use crate::schema::configuration::LogKey;
use crate::schema::management::{EnrolRequest, EnrolSecurityServer};

/// The three keys with which a security server enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentKeys {
    /// The security server.
    pub server: String,
    /// SHA-256 of the authentication key's SubjectPublicKeyInfo.
    pub authentication_key: Digest,
    /// SHA-256 of the signing key's SubjectPublicKeyInfo.
    pub signing_key: Digest,
    /// Origin of its message log.
    pub log_origin: String,
    /// The log's Ed25519 public key.
    pub log_key: [u8; 32],
}

impl EnrolmentKeys {
    /// The keys that an act enrols; none if one of them is absent or malformed.
    pub fn of(enrolment: &EnrolSecurityServer) -> Option<Self> {
        let log = enrolment.log.as_ref()?;
        Some(Self {
            server: enrolment.id.clone(),
            authentication_key: Digest::from_slice(&enrolment.authentication_key)?,
            signing_key: Digest::from_slice(&enrolment.signing_key)?,
            log_origin: log.origin.clone(),
            log_key: log.public_key.as_ref().try_into().ok()?,
        })
    }

    /// The change that enrols these keys.
    pub fn to_change(&self) -> EnrolSecurityServer {
        EnrolSecurityServer {
            id: self.server.clone(),
            authentication_key: self.authentication_key.to_bytes(),
            signing_key: self.signing_key.to_bytes(),
            log: Some(LogKey {
                origin: self.log_origin.clone(),
                public_key: Bytes::copy_from_slice(&self.log_key),
            }),
        }
    }

    /// What people compare: 24 hexadecimal digits in groups of four. Finding other keys with the same 96 bits is out of
    /// reach, also for who controls the registry.
    pub fn fingerprint(&self) -> String {
        let digest = Digest::of_parts(&[
            tag::ENROLMENT,
            b"fingerprint\n",
            Digest::of(self.server.as_bytes()).as_bytes(),
            self.authentication_key.as_bytes(),
            self.signing_key.as_bytes(),
            Digest::of(self.log_origin.as_bytes()).as_bytes(),
            &self.log_key,
        ]);
        let hex = hex::encode(&digest.as_bytes()[..12]);
        let groups: Vec<_> = (0..6).map(|group| &hex[group * 4..group * 4 + 4]).collect();
        groups.join(" ")
    }
}

/// The seal of an enrolment request: HMAC-SHA-256 (RFC 2104) under the token's secret over the digests of its parts.
pub fn enrolment_mac(secret: &Secret, request: &EnrolRequest) -> Bytes {
    tag_bytes(&hmac::sign(&key(secret), &sealed(request)))
}

/// Whether the request's seal is right, compared in constant time.
pub fn verify_enrolment_mac(secret: &Secret, request: &EnrolRequest) -> bool {
    hmac::verify(&key(secret), &sealed(request), &request.mac).is_ok()
}

/// The seal with which the token's holder asks how the enrolment stands.
pub fn status_mac(secret: &Secret, enrolment_id: &[u8]) -> Bytes {
    tag_bytes(&hmac::sign(&key(secret), &asked(enrolment_id)))
}

/// Whether the seal of such a question is right, compared in constant time.
pub fn verify_status_mac(secret: &Secret, enrolment_id: &[u8], mac: &[u8]) -> bool {
    hmac::verify(&key(secret), &asked(enrolment_id), mac).is_ok()
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn tag_bytes(tag: &hmac::Tag) -> Bytes {
    Bytes::copy_from_slice(tag.as_ref())
}

/// Digests have one length, so their concatenation has one reading.
fn sealed(request: &EnrolRequest) -> Vec<u8> {
    let log = request.log.clone().unwrap_or_default();
    let parts: [&[u8]; 6] = [
        request.token_id.as_bytes(),
        request.security_server.as_bytes(),
        &request.authentication_request,
        &request.signing_request,
        log.origin.as_bytes(),
        &log.public_key,
    ];
    let digests = parts.iter().flat_map(|part| *Digest::of(part).as_bytes());
    [tag::ENROLMENT, b"request\n"].concat().into_iter().chain(digests).collect()
}

fn asked(enrolment_id: &[u8]) -> Vec<u8> {
    [tag::ENROLMENT, b"status\n", Digest::of(enrolment_id).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> EnrolRequest {
        EnrolRequest {
            token_id: "t".into(),
            security_server: "NORD/SH/luebeck/s1".into(),
            authentication_request: Bytes::from_static(b"a"),
            signing_request: Bytes::from_static(b"s"),
            log: Some(LogKey { origin: "o".into(), public_key: Bytes::from_static(&[1; 32]) }),
            mac: Bytes::new(),
        }
    }

    #[test]
    fn the_seal_covers_every_part() {
        let secret = Secret::from_bytes([7; 32]);
        let mut sealed = request();
        sealed.mac = enrolment_mac(&secret, &sealed);
        assert!(verify_enrolment_mac(&secret, &sealed));
        assert!(!verify_enrolment_mac(&Secret::from_bytes([8; 32]), &sealed));
        let alter: [fn(&mut EnrolRequest); 7] = [
            |r| r.token_id.push('x'),
            |r| r.security_server.push('x'),
            |r| r.authentication_request = Bytes::from_static(b"x"),
            |r| r.signing_request = Bytes::from_static(b"x"),
            |r| r.log.as_mut().unwrap().origin.push('x'),
            |r| r.log = None,
            |r| std::mem::swap(&mut r.authentication_request, &mut r.signing_request),
        ];
        for alter in alter {
            let mut altered = sealed.clone();
            alter(&mut altered);
            assert!(!verify_enrolment_mac(&secret, &altered), "{altered:?}");
        }
        let status = status_mac(&secret, b"id");
        assert!(verify_status_mac(&secret, b"id", &status));
        assert!(!verify_status_mac(&secret, b"other", &status));
        assert!(!verify_status_mac(&secret, b"id", &sealed.mac), "one seal never passes for the other");
    }

    #[test]
    fn the_fingerprint_differs_with_every_key() {
        let keys = EnrolmentKeys {
            server: "NORD/SH/luebeck/s1".into(),
            authentication_key: Digest::of(b"a"),
            signing_key: Digest::of(b"s"),
            log_origin: "o".into(),
            log_key: [1; 32],
        };
        assert_eq!(EnrolmentKeys::of(&keys.to_change()), Some(keys.clone()));
        let print = keys.fingerprint();
        assert_eq!(print.len(), 29);
        for other in [
            EnrolmentKeys { authentication_key: Digest::of(b"x"), ..keys.clone() },
            EnrolmentKeys { signing_key: Digest::of(b"x"), ..keys.clone() },
            EnrolmentKeys { log_key: [2; 32], ..keys.clone() },
            EnrolmentKeys { log_origin: "x".into(), ..keys.clone() },
            EnrolmentKeys { server: "NORD/SH/luebeck/s2".into(), ..keys },
        ] {
            assert_ne!(other.fingerprint(), print);
        }
    }
}
