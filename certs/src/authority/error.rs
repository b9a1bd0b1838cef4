//! Why the authority did not do what was asked.

use trave_host::files::FileError;
use trave_proto::certificate::KeyError;
use trave_proto::clock::Time;

use super::MAX_REQUEST;
use crate::ledger::LedgerError;
use crate::profile::ProfileError;
use crate::signer::WrongKey;

/// Why the authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key is of another kind.
    #[error(transparent)]
    WrongKey(#[from] WrongKey),
    /// The authority's certificate cannot be read or written.
    #[error("the authority's certificate cannot be read or written")]
    File(#[source] FileError),
    /// The authority's certificate is not one, or not this key's.
    #[error("{0} is not the certificate of the authority's key")]
    OtherCertificate(String),
    /// The record of issued certificates.
    #[error("the record of issued certificates is not usable")]
    Ledger(#[from] LedgerError),
    /// The request is not PKCS#10 in DER.
    #[error("the certificate request is not PKCS#10 in DER of at most {MAX_REQUEST} bytes (RFC 2986)")]
    Request,
    /// The request is not signed by the key in it.
    #[error("the certificate request is not signed by the key that it names: the requester does not hold it")]
    Possession,
    /// The request's key is too weak or of another kind.
    #[error("the key of the certificate request is not accepted")]
    Key(#[source] KeyError),
    /// A name of the profile.
    #[error("the certificate cannot name what it should")]
    Profile(#[source] ProfileError),
    /// No certificate of this serial number was issued.
    #[error("no certificate with the serial number {0} was issued here")]
    NotIssued(String),
    /// Revoked before; that stays.
    #[error("the certificate {serial} was revoked at {at} already")]
    AlreadyRevoked {
        /// Its serial number, hexadecimal.
        serial: String,
        /// When.
        at: Time,
    },
    /// The authority's own certificate does not count now.
    #[error("the authority's own certificate is not valid at {0}")]
    AuthorityNotValid(Time),
    /// The random number generator or the key failed.
    #[error("cannot {0}: the cryptographic library failed")]
    Cryptography(&'static str),
}
