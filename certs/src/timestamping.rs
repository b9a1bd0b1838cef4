//! The timestamping authority (RFC 3161): signs that a digest existed at a time, without learning what it is of.
//!
//! Whoever holds its key can backdate anything; a log's witnesses are the answer to that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rasn::prelude::ObjectIdentifier;
use rasn::types::Integer;
use rasn_cms::tsp::{Accuracy, TimeStampReq, TstInfo};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use trave_host::keys::Sign;
use trave_proto::certificate::Certificate;
use trave_proto::clock::{Clock, Time};
use trave_proto::timestamp::Failure;

use crate::der;

/// Largest request that is read, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Longest nonce, in bytes.
const MAX_NONCE: usize = 32;

/// Digests that may be stamped, with their length in bytes.
const DIGESTS: [(&[u32], usize); 3] = [
    (&[2, 16, 840, 1, 101, 3, 4, 2, 1], 32),
    (&[2, 16, 840, 1, 101, 3, 4, 2, 2], 48),
    (&[2, 16, 840, 1, 101, 3, 4, 2, 3], 64),
];

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 4];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 47];

/// Under which terms timestamps are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The authority's policy, dotted decimal.
    pub policy: String,
    /// How far its clock may be wrong, either way.
    pub accuracy: Duration,
    /// Whether any two of its timestamps can be ordered by their time alone: each is then later than the one before.
    pub ordering: bool,
}

impl Terms {
    /// Whether a timestamping authority can keep them.
    pub fn check(&self) -> Result<(), TimestampingError> {
        self.checked().map(|_| ())
    }

    fn checked(&self) -> Result<ObjectIdentifier, TimestampingError> {
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&self.accuracy) {
            return Err(TimestampingError::Accuracy);
        }
        object_identifier(&self.policy).ok_or_else(|| TimestampingError::Policy(self.policy.clone()))
    }
}

/// Why a timestamping authority cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampingError {
    /// The certificate is not one, or not this key's.
    #[error("the timestamping authority's certificate is not that of its key")]
    OtherCertificate,
    /// The policy is no object identifier.
    #[error("\"{0}\" is no object identifier such as 1.3.6.1.4.1.32473.1")]
    Policy(String),
    /// The accuracy cannot be expressed.
    #[error("an accuracy lies between a millisecond and an hour")]
    Accuracy,
}

/// A timestamping authority.
#[derive(Debug)]
pub struct Tsa {
    certificate: Certificate,
    key: Arc<dyn Sign>,
    clock: Arc<dyn Clock>,
    policy: ObjectIdentifier,
    terms: Terms,
    last: Mutex<Time>,
}

/// A refusal with a word for people.
type Refusal = (Failure, &'static str);

impl Tsa {
    /// An authority with its certificate (DER) and the key (ECDSA P-256) in it.
    pub fn new(
        certificate: &[u8],
        key: Arc<dyn Sign>,
        clock: Arc<dyn Clock>,
        terms: Terms,
    ) -> Result<Self, TimestampingError> {
        let certificate =
            Certificate::from_der(certificate).map_err(|_| TimestampingError::OtherCertificate)?;
        if certificate.spki() != key.public_key_info() {
            return Err(TimestampingError::OtherCertificate);
        }
        let policy = terms.checked()?;
        let last = Mutex::new(Time::from_millis(i64::MIN));
        Ok(Self { certificate, key, clock, policy, terms, last })
    }

    /// Its certificate: what the global configuration names.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Answers a request (TimeStampReq, DER), whatever it is, with a TimeStampResp (DER).
    pub fn answer(&self, request: &[u8]) -> Bytes {
        match self.stamp(request) {
            Ok(token) => {
                let granted = der::value(der::SEQUENCE, &[&der::value(der::INTEGER, &[&[0]])]);
                der::value(der::SEQUENCE, &[&granted, &token]).into()
            }
            Err((failure, text)) => refusal(failure, text).into(),
        }
    }

    fn stamp(&self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = read(request)?;
        self.check(&request)?;
        let info = der::encode(&TstInfo {
            version: 1.into(),
            policy: self.policy.clone(),
            message_imprint: request.message_imprint,
            serial_number: serial_number()?,
            gen_time: der::time(self.time()?)
                .ok_or((Failure::TimeNotAvailable, "the time is out of range"))?,
            accuracy: Some(accuracy(self.terms.accuracy)),
            ordering: self.terms.ordering,
            nonce: request.nonce,
            tsa: None,
            extensions: None,
        });
        self.sign(&info, request.cert_req)
    }

    /// What RFC 3161 section 2.4.2 has a refusal for.
    fn check(&self, request: &TimeStampReq) -> Result<(), Refusal> {
        if request.version != 1 {
            return Err((Failure::BadRequest, "requests have version 1"));
        }
        if request.extensions.is_some() {
            return Err((Failure::UnacceptedExtension, "no extension is supported"));
        }
        if request.req_policy.as_ref().is_some_and(|policy| *policy != self.policy) {
            return Err((Failure::UnacceptedPolicy, "timestamps are made under one policy only"));
        }
        let imprint = &request.message_imprint;
        let algorithm: &[u32] = &imprint.hash_algorithm.algorithm;
        let Some((_, length)) = DIGESTS.iter().find(|(known, _)| *known == algorithm) else {
            return Err((Failure::BadAlgorithm, "digests are SHA-256, SHA-384 or SHA-512"));
        };
        if imprint.hashed_message.len() != *length {
            return Err((Failure::BadDataFormat, "the digest has not the length of its algorithm"));
        }
        if request.nonce.as_ref().is_some_and(|nonce| der::encode(nonce).len() > MAX_NONCE + 2) {
            return Err((Failure::BadRequest, "a nonce has at most 32 bytes"));
        }
        Ok(())
    }

    /// The time of a timestamp. A clock that went back further than the stated accuracy, or left the validity of the
    /// authority's certificate, is not believed.
    fn time(&self) -> Result<Time, Refusal> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if now.plus(self.terms.accuracy) < *last {
            return Err((Failure::TimeNotAvailable, "the clock went back"));
        }
        if !self.certificate.is_valid_at(now) {
            return Err((Failure::TimeNotAvailable, "the authority's certificate is not valid now"));
        }
        let time = if self.terms.ordering { now.max(last.plus(Duration::from_millis(1))) } else { now };
        if time > now.plus(self.terms.accuracy) {
            return Err((Failure::TimeNotAvailable, "too many timestamps at once to order them"));
        }
        *last = time.max(*last);
        Ok(time)
    }

    /// CMS SignedData (RFC 5652) with one signer and the signed attributes that RFC 3161 and RFC 5816 ask for.
    fn sign(&self, info: &[u8], with_certificate: bool) -> Result<Vec<u8>, Refusal> {
        let attributes = der::set_of(vec![
            attribute(CONTENT_TYPE, &der::value(der::OID, &[TST_INFO])),
            attribute(MESSAGE_DIGEST, &der::value(der::OCTET_STRING, &[digest(&SHA256, info).as_ref()])),
            attribute(SIGNING_CERTIFICATE_V2, &signing_certificate(&self.certificate)),
        ]);
        let signature = self.key.sign(&attributes).map_err(|error| {
            tracing::error!(%error, "a timestamp could not be signed");
            (Failure::SystemFailure, "the timestamp could not be signed")
        })?;
        let signer = signer_info(&self.certificate, &attributes, &signature);
        Ok(signed_data(info, with_certificate.then_some(&self.certificate), &signer))
    }
}

fn read(request: &[u8]) -> Result<TimeStampReq, Refusal> {
    let whole = (request.len() <= MAX_REQUEST).then(|| der::decode(request)).flatten();
    whole.ok_or((Failure::BadDataFormat, "not a timestamp request in DER"))
}

/// 128 random bits: unique without a counter that a restored backup would repeat.
fn serial_number() -> Result<Integer, Refusal> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| (Failure::SystemFailure, "no serial number could be drawn"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and always of the same length
    Ok(Integer::from(i128::from_be_bytes(bytes)))
}

fn accuracy(of: Duration) -> Accuracy {
    let millis = of.subsec_millis();
    Accuracy {
        seconds: (of.as_secs() > 0).then(|| of.as_secs().into()),
        millis: (millis > 0).then(|| millis.into()),
        micros: None,
    }
}

/// At least three arcs, of which the first two are bounded (X.660 section 7.2).
fn object_identifier(text: &str) -> Option<ObjectIdentifier> {
    let arcs: Vec<u32> = text.split('.').map(|arc| arc.parse().ok()).collect::<Option<_>>()?;
    match arcs.as_slice() {
        [0 | 1, 0..=39, _, ..] | [2, 0..=0xffff, _, ..] => ObjectIdentifier::new(arcs),
        _ => None,
    }
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    der::value(der::SEQUENCE, &[&der::value(der::OID, &[kind]), &der::value(der::SET, &[value])])
}

/// ESS SigningCertificateV2 (RFC 5035) with SHA-256, its default, and issuer and serial number.
fn signing_certificate(certificate: &Certificate) -> Vec<u8> {
    const DIRECTORY_NAME: u8 = 0xa4;
    let hash = der::value(der::OCTET_STRING, &[certificate.digest().as_bytes()]);
    let issuer = der::value(der::SEQUENCE, &[&der::value(DIRECTORY_NAME, &[certificate.issuer_der()])]);
    let serial = der::value(der::INTEGER, &[certificate.serial()]);
    let id = der::value(der::SEQUENCE, &[&hash, &der::value(der::SEQUENCE, &[&issuer, &serial])]);
    der::value(der::SEQUENCE, &[&der::value(der::SEQUENCE, &[&id])])
}

fn signer_info(certificate: &Certificate, attributes: &[u8], signature: &[u8]) -> Vec<u8> {
    let serial = der::value(der::INTEGER, &[certificate.serial()]);
    let signer = der::value(der::SEQUENCE, &[certificate.issuer_der(), &serial]);
    der::value(
        der::SEQUENCE,
        &[
            &der::value(der::INTEGER, &[&[1]]),
            &signer,
            der::SHA256,
            &der::value(der::CONTEXT_0, &[der::content(attributes)]),
            der::ECDSA_WITH_SHA256,
            &der::value(der::OCTET_STRING, &[signature]),
        ],
    )
}

fn signed_data(info: &[u8], certificate: Option<&Certificate>, signer: &[u8]) -> Vec<u8> {
    let content = der::value(der::CONTEXT_0, &[&der::value(der::OCTET_STRING, &[info])]);
    let certificates =
        certificate.map(|certificate| der::value(der::CONTEXT_0, &[certificate.der()])).unwrap_or_default();
    let data = der::value(
        der::SEQUENCE,
        &[
            &der::value(der::INTEGER, &[&[3]]),
            &der::value(der::SET, &[der::SHA256]),
            &der::value(der::SEQUENCE, &[&der::value(der::OID, &[TST_INFO]), &content]),
            &certificates,
            &der::value(der::SET, &[signer]),
        ],
    );
    let kind = der::value(der::OID, &[SIGNED_DATA]);
    der::value(der::SEQUENCE, &[&kind, &der::value(der::CONTEXT_0, &[&data])])
}

/// PKIStatusInfo "rejection" with the failure's bit (section 2.4.2).
fn refusal(failure: Failure, text: &str) -> Vec<u8> {
    const REJECTION: &[u8] = &[2];
    let bit = failure.bit();
    let mut bits = vec![7 - (bit % 8)];
    bits.extend(std::iter::repeat_n(0, usize::from(bit / 8)));
    bits.push(0x80 >> (bit % 8));
    let texts = der::value(der::SEQUENCE, &[&der::value(der::UTF8_STRING, &[text.as_bytes()])]);
    let parts = [&der::value(der::INTEGER, &[REJECTION])[..], &texts, &der::value(der::BIT_STRING, &[&bits])];
    der::value(der::SEQUENCE, &[&der::value(der::SEQUENCE, &parts)])
}
