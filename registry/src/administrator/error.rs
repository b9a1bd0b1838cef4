//! Why something could not be done for an administrator, in words for that person.

use tonic::Status;
use trave_host::client::ConnectError;
use trave_host::keys::KeyError;
use trave_host::tls::TlsError;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{AdoptionError, ConfigurationError, FieldError};
use trave_proto::management::{ActError, ActId};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AdministratorError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// The registry is not reached.
    #[error("the registry is not reached")]
    Connect(#[source] ConnectError),
    /// The registry declines.
    #[error("the registry declines: {}", .0.message())]
    Declined(Box<Status>),
    /// The act cannot be made, or what the registry shows is none.
    #[error("this is no act to sign")]
    Act(#[source] ActError),
    /// The key.
    #[error("the key cannot sign")]
    Key(#[source] KeyError),
    /// No such act.
    #[error("the registry knows no pending act {0}")]
    UnknownAct(ActId),
    /// The registry shows another act under the id than the one that is meant.
    #[error(
        "ALARM: under the id {id} the registry shows an act with the digest {found}, and the one that is meant has \
         {expected}; nothing was signed"
    )]
    Exchanged {
        /// The id.
        id: ActId,
        /// Digest of the act that is meant.
        expected: Digest,
        /// Digest of what the registry shows.
        found: Digest,
    },
    /// An id alone does not say what is signed: the registry could show anything under it.
    #[error("the act {0} was not looked at; nobody signs what nobody has seen")]
    Unseen(ActId),
    /// An act without an applicant's signature is there to be applied for, not to be approved.
    #[error("nobody has applied for the act {0} yet")]
    NotApplied(ActId),
    /// The fingerprint is another one.
    #[error(
        "the fingerprint is {found}, not {expected}: these are not the keys that the security server displays; reject it"
    )]
    Fingerprint {
        /// What the security server displays.
        expected: String,
        /// What the registry shows.
        found: String,
    },
    /// A fingerprint was given for something that has none.
    #[error(
        "the act {0} enrols no security server, so no fingerprint belongs to it; look at what it does, and reject it"
    )]
    NoEnrolment(ActId),
    /// An enrolment with keys that are none.
    #[error("the act {0} enrols a security server with malformed keys; reject it")]
    MalformedEnrolment(ActId),
    /// What the registry shows as the configuration is not signed as the anchor demands.
    #[error("what the registry shows is no valid configuration")]
    Configuration(#[source] ConfigurationError),
    /// What the registry shows as the latest configuration has expired, or is older than one that it showed before.
    #[error("what the registry shows is not the configuration in force")]
    NotCurrent(#[source] AdoptionError),
    /// Another configuration than the one that was asked for.
    #[error("configuration {expected} was asked for, and the registry shows number {found}")]
    OtherNumber {
        /// What was asked for.
        expected: u64,
        /// What the registry shows.
        found: u64,
    },
    /// The administrators of a configuration cannot be read.
    #[error("the administrators in the configuration cannot be read")]
    Administrators(#[source] FieldError),
    /// No random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}
