//! The certification authority: who holds a key, it certifies; what no longer counts, it revokes.
//!
//! Whoever holds the authority's key can issue certificates in any name of the instance. They would still not be trusted:
//! the global configuration lists each key by its digest.

mod error;
mod request;
mod revocation;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, Issuer, KeyIdMethod,
    RevokedCertParams, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use trave_host::files;
use trave_host::keys::Sign;
use trave_proto::certificate::Certificate;
use trave_proto::clock::{Clock, Time};

pub use crate::ledger::LedgerError;
pub use crate::signer::WrongKey;
pub use error::AuthorityError;
pub use revocation::{Reason, RevocationList, Status};

use crate::ledger::{Entry, Ledger, Record};
use crate::profile::{self, Profile};
use crate::signer::Signer;
use request::{RequestedKey, requested_key};

/// Largest certificate request that is read, in bytes.
pub const MAX_REQUEST: usize = 16 * 1024;

/// By how much a certificate begins earlier than it is issued: clocks differ.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// How long the authority's own certificate is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// How long a revocation list counts; a new one is made after half of it, and after each revocation.
const LIST_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);

const CERTIFICATE_FILE: &str = "authority.pem";
const LEDGER_FILE: &str = "issued.log";

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER, the certificate first; without the authority, which is in the global configuration.
    pub chain: Vec<Bytes>,
    /// Its serial number, hexadecimal: what [`CertificationAuthority::revoke`] takes.
    pub serial: String,
}

/// One certificate of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Name of its profile.
    pub profile: String,
    /// Its subject.
    pub subject: String,
    /// The last second in which it is valid.
    pub not_after: Time,
    /// Whether it was revoked.
    pub status: Status,
}

/// Where whoever holds a certificate asks whether it still counts; written into each certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// http URL of the OCSP responder.
    pub ocsp: Option<String>,
    /// http URL of the revocation list.
    pub revocation_list: Option<String>,
}

/// A certification authority with its key and its record, which lie in one directory.
#[derive(Debug)]
pub struct CertificationAuthority {
    certificate: Certificate,
    issuer: Issuer<'static, Signer>,
    ledger: Mutex<Ledger>,
    clock: Arc<dyn Clock>,
    addresses: Addresses,
    /// The last list, with the number of revocations that it knows.
    list: Mutex<Option<(RevocationList, usize)>>,
}

impl CertificationAuthority {
    /// Begins an authority of this name in `directory`, which exists and holds none.
    pub fn create(
        directory: &Path,
        name: &str,
        key: Arc<dyn Sign>,
        clock: Arc<dyn Clock>,
        addresses: Addresses,
    ) -> Result<Self, AuthorityError> {
        let now = clock.now();
        let signer = Signer::new(Arc::clone(&key))?;
        let mut params = profile::authority(name).map_err(AuthorityError::Profile)?;
        params.serial_number = Some(serial_number()?);
        (params.not_before, params.not_after) =
            (date(now.minus(BACKDATED)), date(now.plus(AUTHORITY_VALIDITY)));
        let root =
            params.self_signed(&signer).map_err(|_| AuthorityError::Cryptography("sign a certificate"))?;
        files::create(&directory.join(CERTIFICATE_FILE), root.pem().as_bytes())
            .map_err(AuthorityError::File)?;
        Ledger::create(&directory.join(LEDGER_FILE))?;
        Self::open(directory, key, clock, addresses)
    }

    /// Opens the authority in `directory`.
    pub fn open(
        directory: &Path,
        key: Arc<dyn Sign>,
        clock: Arc<dyn Clock>,
        addresses: Addresses,
    ) -> Result<Self, AuthorityError> {
        let path = directory.join(CERTIFICATE_FILE);
        let other = || AuthorityError::OtherCertificate(path.display().to_string());
        let der = CertificateDer::from_pem_file(&path).map_err(|_| other())?;
        let certificate = Certificate::from_der(&der).map_err(|_| other())?;
        if certificate.spki() != key.public_key_info() {
            return Err(other());
        }
        let issuer = Issuer::from_ca_cert_der(&der, Signer::new(key)?).map_err(|_| other())?;
        let ledger = Mutex::new(Ledger::open(&directory.join(LEDGER_FILE))?);
        Ok(Self { certificate, issuer, ledger, clock, addresses, list: Mutex::new(None) })
    }

    /// The authority's own certificate: what the global configuration names.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The time by which the authority goes.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Issues a certificate for the key of a certificate request (PKCS#10, DER), valid as long as its profile says. Of
    /// the request only the key counts, and that whoever sent it holds it.
    pub fn issue(&self, profile: &Profile, request: &[u8]) -> Result<Issued, AuthorityError> {
        self.issue_for(profile, request, profile.validity())
    }

    /// Issues a certificate that is valid for `validity` from now, or until the authority's own ends.
    pub fn issue_for(
        &self,
        profile: &Profile,
        request: &[u8],
        validity: Duration,
    ) -> Result<Issued, AuthorityError> {
        let key = requested_key(request)?;
        let now = self.now();
        if !self.certificate.is_valid_at(now) {
            return Err(AuthorityError::AuthorityNotValid(now));
        }
        let mut params = profile.parameters().map_err(AuthorityError::Profile)?;
        params.serial_number = Some(serial_number()?);
        params.not_before = date(now.minus(BACKDATED).max(self.certificate.not_before()));
        params.not_after = date(now.plus(validity).min(self.certificate.not_after()));
        self.write_addresses(profile, &mut params);
        let certificate = self.sign(&params, &key)?;
        let serial = serial_text(certificate.serial());
        let record = Record::Issued {
            serial: serial.clone(),
            profile: profile.name().to_owned(),
            subject: certificate.subject().to_owned(),
            at_ms: now.as_millis(),
            not_after_ms: certificate.not_after().as_millis(),
            certificate: hex::encode(certificate.der()),
        };
        self.ledger().append(|_| Ok::<_, AuthorityError>((Some(record), ())))?;
        Ok(Issued { chain: vec![certificate.der().clone()], serial })
    }

    /// Revokes a certificate for good; returns when. The serial number is hexadecimal, as [`Issued::serial`] or as
    /// OpenSSL writes it.
    pub fn revoke(&self, serial: &str, reason: Reason) -> Result<Time, AuthorityError> {
        let digits = serial.replace(':', "");
        let bytes = hex::decode(&digits).map_err(|_| AuthorityError::NotIssued(serial.to_owned()))?;
        let (serial, at) = (serial_text(&bytes), self.now());
        self.ledger().append(|ledger| match ledger.entry(&serial) {
            None => Err(AuthorityError::NotIssued(serial)),
            Some(Entry { revoked: Some((at, _)), .. }) => {
                Err(AuthorityError::AlreadyRevoked { serial, at: *at })
            }
            Some(Entry { revoked: None, .. }) => {
                let reason = reason.name().to_owned();
                Ok((Some(Record::Revoked { serial, at_ms: at.as_millis(), reason }), at))
            }
        })
    }

    /// What the authority says of a serial number (content bytes).
    pub fn status(&self, serial: &[u8]) -> Result<Status, AuthorityError> {
        let mut ledger = self.ledger();
        ledger.refresh()?;
        Ok(ledger.entry(&serial_text(serial)).map_or(Status::Unknown, status_of))
    }

    /// Every certificate that was issued, those that end last first.
    pub fn issued(&self) -> Result<Vec<Overview>, AuthorityError> {
        let mut ledger = self.ledger();
        ledger.refresh()?;
        let overview = |(serial, entry): (&str, &Entry)| Overview {
            serial: serial.to_owned(),
            profile: entry.profile.clone(),
            subject: entry.subject.clone(),
            not_after: entry.not_after,
            status: status_of(entry),
        };
        let mut all: Vec<_> = ledger.entries().map(overview).collect();
        all.sort_by(|a, b| (b.not_after, &a.serial).cmp(&(a.not_after, &b.serial)));
        Ok(all)
    }

    /// The revocation list in force: the last one, or a new one after a revocation and after half its validity.
    pub fn revocation_list(&self) -> Result<RevocationList, AuthorityError> {
        let now = self.now();
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.ledger();
        ledger.refresh()?;
        if let Some((last, known)) = &*list {
            let fresh = last.this_update <= now && now < last.this_update.plus(LIST_VALIDITY / 2);
            if fresh && *known == ledger.revocations() {
                return Ok(last.clone());
            }
        }
        let (new, known) = ledger.append(|ledger| {
            let new = self.sign_list(ledger, now)?;
            let record = Record::RevocationList { number: new.number };
            Ok::<_, AuthorityError>((Some(record), (new, ledger.revocations())))
        })?;
        *list = Some((new.clone(), known));
        Ok(new)
    }

    fn write_addresses(&self, profile: &Profile, params: &mut CertificateParams) {
        if matches!(profile, Profile::OcspResponder { .. }) {
            return; // ocsp-nocheck stands there instead
        }
        if let Some(url) = &self.addresses.ocsp {
            params.custom_extensions.push(profile::ocsp_address(url));
        }
        if let Some(url) = &self.addresses.revocation_list {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.clone()] }];
        }
    }

    /// Signs, and reads again what was signed: the key in it is the requester's, byte for byte.
    fn sign(&self, params: &CertificateParams, key: &RequestedKey) -> Result<Certificate, AuthorityError> {
        let failed = AuthorityError::Cryptography("sign a certificate");
        let Ok(signed) = params.signed_by(key, &self.issuer) else { return Err(failed) };
        match Certificate::from_der(signed.der()) {
            Ok(certificate) if certificate.spki() == key.info => Ok(certificate),
            _ => Err(failed),
        }
    }

    fn sign_list(&self, ledger: &Ledger, now: Time) -> Result<RevocationList, AuthorityError> {
        let (number, next_update) = (ledger.list_number() + 1, now.plus(LIST_VALIDITY));
        let revoked = ledger.entries().filter_map(|(serial, entry)| {
            let (at, reason) = entry.revoked.as_ref()?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&hex::decode(serial).ok()?),
                revocation_time: date(*at),
                reason_code: Some(Reason::from_record(reason).in_list()),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: date(now),
            next_update: date(next_update),
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = params.signed_by(&self.issuer);
        let signed = signed.map_err(|_| AuthorityError::Cryptography("sign a revocation list"))?;
        Ok(RevocationList {
            der: Bytes::copy_from_slice(signed.der()),
            number,
            this_update: now,
            next_update,
        })
    }

    /// A thread that died with the lock left the ledger as it was read last; the file decides anyway.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status_of(entry: &Entry) -> Status {
    entry
        .revoked
        .as_ref()
        .map_or(Status::Good, |(at, reason)| Status::Revoked { at: *at, reason: Reason::from_record(reason) })
}

/// A serial number as people and the record write it: hexadecimal, without the zero byte by which DER keeps it positive.
fn serial_text(content: &[u8]) -> String {
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    hex::encode(&content[zeros..])
}

/// 128 random bits (RFC 5280 section 4.1.2.2 asks for a positive number of at most 20 bytes).
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| AuthorityError::Cryptography("draw a serial number"))?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A time in whole seconds, as certificates count; nothing before 1970.
fn date(time: Time) -> time::OffsetDateTime {
    const LAST: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z, the last time that X.509 can express
    let seconds = u64::try_from(time.as_secs()).unwrap_or(0).min(LAST);
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}
