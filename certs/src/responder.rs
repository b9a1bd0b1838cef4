//! The OCSP responder (RFC 6960): tells whoever asks whether a certificate of this authority still counts.
//!
//! It signs with a key of its own, which the authority certifies for this alone. Whoever holds that key can make revoked
//! certificates look good, and nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rasn::prelude::{ObjectIdentifier, OctetString};
use rasn_ocsp::{
    CertId, CertStatus, OcspRequest, OcspResponseStatus, ResponderId, ResponseData, RevokedInfo,
    SingleResponse,
};
use rasn_pkix::{CrlReason, Extension, Extensions};
use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use trave_host::keys::{KeyError, Sign, certificate_request};
use trave_proto::certificate::Certificate;
use trave_proto::clock::Time;

use crate::authority::{AuthorityError, CertificationAuthority, Reason, Status};
use crate::der;
use crate::profile::Profile;

/// Largest request that is read, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;

/// How long a response counts.
pub const VALIDITY: Duration = Duration::from_secs(60 * 60);

/// Most certificates that are asked for at once.
const MAX_CERTIFICATES: usize = 16;

/// Longest nonce (RFC 9654 section 2.1).
const MAX_NONCE: usize = 128;

/// The responder's certificate is renewed when it ends in less than this.
const RENEWED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const NONCE: &[u32] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];
const SHA_1: &[u32] = &[1, 3, 14, 3, 2, 26];
const SHA_256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];
const BASIC_RESPONSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// Why the responder cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// Its key.
    #[error("the OCSP responder's key is not usable")]
    Key(#[source] KeyError),
    /// The authority does not certify it.
    #[error("the authority does not certify its OCSP responder")]
    Authority(#[source] AuthorityError),
}

/// A response as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// OCSPResponse, DER.
    pub der: Bytes,
    /// From when until when it counts; nothing for an error, or for an answer to one request alone (a nonce).
    pub cacheable: Option<(Time, Time)>,
}

/// Answers for one authority.
#[derive(Debug)]
pub struct OcspResponder {
    authority: Arc<CertificationAuthority>,
    key: Arc<dyn Sign>,
    name: String,
    certificate: Mutex<Certificate>,
}

impl OcspResponder {
    /// A responder with a key (ECDSA P-256) of its own, which `authority` certifies now and before its certificate ends.
    pub fn new(
        authority: Arc<CertificationAuthority>,
        key: Arc<dyn Sign>,
        name: &str,
    ) -> Result<Self, ResponderError> {
        let certificate = Mutex::new(certify(&authority, &*key, name)?);
        Ok(Self { authority, key, name: name.to_owned(), certificate })
    }

    /// Answers a request (OCSPRequest, DER), whatever it is.
    pub fn answer(&self, request: &[u8]) -> Answer {
        let answered = Question::read(request).and_then(|question| self.respond(&question));
        answered.unwrap_or_else(refuse)
    }

    fn respond(&self, question: &Question) -> Result<Answer, OcspResponseStatus> {
        let now = der::whole_seconds(self.authority.now());
        let next = now.plus(VALIDITY);
        let certificate = self.certificate()?;
        let data = self.response_data(question, &certificate, now, next)?;
        let signature = self.key.sign(&data).map_err(|error| internal(&error))?;
        let certificates = der::value(der::CONTEXT_0, &[&der::value(der::SEQUENCE, &[certificate.der()])]);
        let parts = [&data, der::ECDSA_WITH_SHA256, &der::bits(&signature), &certificates];
        let basic = der::value(der::SEQUENCE, &parts);
        let cacheable = question.nonce.is_none().then_some((now, next));
        Ok(Answer { der: successful(&basic).into(), cacheable })
    }

    fn response_data(
        &self,
        question: &Question,
        certificate: &Certificate,
        now: Time,
        next: Time,
    ) -> Result<Vec<u8>, OcspResponseStatus> {
        let date = |time| der::time(time).ok_or(OcspResponseStatus::InternalError);
        let key = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.public_key_bits());
        let single = |id: &CertId| {
            Ok(SingleResponse {
                cert_id: id.clone(),
                cert_status: self.status(id)?,
                this_update: date(now)?,
                next_update: Some(date(next)?),
                single_extensions: None,
            })
        };
        Ok(der::encode(&ResponseData {
            version: 0.into(),
            responder_id: ResponderId::ByKey(OctetString::from(key.as_ref().to_vec())),
            produced_at: date(now)?,
            responses: question.about.iter().map(single).collect::<Result<_, _>>()?,
            response_extensions: question.nonce.clone().map(|nonce| Extensions::from(vec![nonce])),
        }))
    }

    /// Unknown for other authorities' certificates and for serial numbers that were never issued.
    fn status(&self, id: &CertId) -> Result<CertStatus, OcspResponseStatus> {
        if !self.is_ours(id) {
            return Ok(CertStatus::Unknown(()));
        }
        let serial = der::encode(&id.serial_number);
        let status = self.authority.status(der::content(&serial)).map_err(|error| internal(&error))?;
        Ok(match status {
            Status::Good => CertStatus::Good,
            Status::Unknown => CertStatus::Unknown(()),
            Status::Revoked { at, reason } => CertStatus::Revoked(RevokedInfo {
                revocation_time: der::time(der::whole_seconds(at))
                    .ok_or(OcspResponseStatus::InternalError)?,
                revocation_reason: Some(in_response(reason)),
            }),
        })
    }

    fn is_ours(&self, id: &CertId) -> bool {
        let hash: &[u32] = &id.hash_algorithm.algorithm;
        let algorithm: &'static Algorithm = match hash {
            SHA_1 => &SHA1_FOR_LEGACY_USE_ONLY,
            SHA_256 => &SHA256,
            _ => return false,
        };
        let authority = self.authority.certificate();
        let is = |stated: &OctetString, bytes: &[u8]| stated[..] == *digest(algorithm, bytes).as_ref();
        is(&id.issuer_name_hash, authority.subject_der())
            && is(&id.issuer_key_hash, authority.public_key_bits())
    }

    /// The certificate in force, renewed in time.
    fn certificate(&self) -> Result<Certificate, OcspResponseStatus> {
        let mut certificate = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if self.authority.now().plus(RENEWED) > certificate.not_after() {
            let renewed = certify(&self.authority, &*self.key, &self.name);
            *certificate = renewed.map_err(|error| internal(&error))?;
        }
        Ok(certificate.clone())
    }
}

fn certify(
    authority: &CertificationAuthority,
    key: &dyn Sign,
    name: &str,
) -> Result<Certificate, ResponderError> {
    let request = certificate_request(key, name).map_err(ResponderError::Key)?;
    let profile = Profile::OcspResponder { name: name.to_owned() };
    let issued = authority.issue(&profile, &request).map_err(ResponderError::Authority)?;
    let certificate = issued.chain.first().and_then(|der| Certificate::from_der(der).ok());
    certificate.ok_or(ResponderError::Authority(AuthorityError::Cryptography("sign a certificate")))
}

/// What is asked, as far as it matters.
struct Question {
    about: Vec<CertId>,
    /// The nonce as it is given back.
    nonce: Option<Extension>,
}

impl Question {
    fn read(request: &[u8]) -> Result<Self, OcspResponseStatus> {
        let malformed = OcspResponseStatus::MalformedRequest;
        if request.len() > MAX_REQUEST {
            return Err(malformed);
        }
        let request = der::decode::<OcspRequest>(request).ok_or(malformed)?.tbs_request;
        if request.version != 0.into() || !(1..=MAX_CERTIFICATES).contains(&request.request_list.len()) {
            return Err(malformed);
        }
        let of_one = request.request_list.iter().flat_map(|one| &one.single_request_extensions);
        let of_all = request.request_extensions.iter();
        let (nonces, others): (Vec<&Extension>, Vec<_>) = of_all
            .chain(of_one)
            .flat_map(|list| list.iter())
            .partition(|extension| *<ObjectIdentifier as AsRef<[u32]>>::as_ref(&extension.extn_id) == *NONCE);
        if others.iter().any(|extension| extension.critical) {
            return Err(malformed); // an extension that must be understood, and is not (section 4.4)
        }
        let nonce = match nonces.as_slice() {
            [] => None,
            [nonce] if is_nonce(nonce) => Some((*nonce).clone()),
            _ => return Err(malformed),
        };
        Ok(Self { about: request.request_list.into_iter().map(|one| one.req_cert).collect(), nonce })
    }
}

fn is_nonce(extension: &Extension) -> bool {
    let value: Option<OctetString> = der::decode(&extension.extn_value);
    value.is_some_and(|nonce| (1..=MAX_NONCE).contains(&nonce.len()))
}

fn successful(basic: &[u8]) -> Vec<u8> {
    let kind = der::value(der::OID, &[BASIC_RESPONSE]);
    let bytes = der::value(der::SEQUENCE, &[&kind, &der::value(der::OCTET_STRING, &[basic])]);
    let status = der::value(der::ENUMERATED, &[&[0]]);
    der::value(der::SEQUENCE, &[&status, &der::value(der::CONTEXT_0, &[&bytes])])
}

fn refuse(status: OcspResponseStatus) -> Answer {
    let status = match status {
        OcspResponseStatus::MalformedRequest => 1,
        _ => 2,
    };
    let der = der::value(der::SEQUENCE, &[&der::value(der::ENUMERATED, &[&[status]])]);
    Answer { der: der.into(), cacheable: None }
}

/// What goes wrong here is told to the operator; the asker learns only that it did.
fn internal(error: &dyn std::error::Error) -> OcspResponseStatus {
    let cause = trave_host::config::with_causes(error);
    tracing::error!(%cause, "an OCSP request could not be answered");
    OcspResponseStatus::InternalError
}

const fn in_response(reason: Reason) -> CrlReason {
    match reason {
        Reason::Unspecified => CrlReason::Unspecified,
        Reason::KeyCompromise => CrlReason::KeyCompromise,
        Reason::AffiliationChanged => CrlReason::AffiliationChanged,
        Reason::Superseded => CrlReason::Superseded,
        Reason::CessationOfOperation => CrlReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
    }
}
