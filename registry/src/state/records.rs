//! What the registry keeps of each thing: an act, a token, an enrolment, a configuration.

use bytes::Bytes;
use prost::Message;
use trave_proto::clock::Time;
use trave_proto::global_configuration::{Anchor, Configuration, ConfigurationError};
use trave_proto::management::{Act, ActError, ActId};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{CertificatesIssued, EnrolRequest, SignedAct};

/// Why the events do not make a state: the log is not this registry's, or the program has a mistake.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An act that cannot be read.
    #[error("an act in the registry's log cannot be read")]
    Act(#[source] ActError),
    /// The configuration in force does not hold under the anchor.
    #[error("the last configuration in the registry's log does not hold; is this the anchor of that log?")]
    Configuration(#[source] ConfigurationError),
    /// A configuration that is not built upon the one before it.
    #[error("configuration {0} in the registry's log is not built upon the one before it")]
    Chain(u64),
    /// An event about an act that never was.
    #[error("the registry's log speaks of the act {0}, which it does not hold")]
    UnknownAct(String),
    /// Signatures on a proposal that never was.
    #[error("the registry's log holds signatures on the configuration {0}, which it did not propose")]
    UnknownProposal(String),
}

/// Where an act stands. Whether it has expired, its own time says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A security server asks to enrol; nobody has applied for it yet.
    Requested,
    /// One administrator has signed.
    Applied,
    /// Two have; it awaits its publication.
    Approved,
    /// It is in force since the configuration of this number.
    InForce(u64),
    /// An administrator rejected it.
    Rejected,
    /// It was approved, and cannot be carried out any more.
    Failed,
}

/// An act, with the signatures it has so far.
#[derive(Debug, Clone)]
pub(crate) struct ActRecord {
    pub(crate) act: Act,
    pub(crate) signed: SignedAct,
    pub(crate) stage: Stage,
}

impl ActRecord {
    /// Whether it can still come into force.
    pub(crate) fn is_pending(&self, now: Time) -> bool {
        matches!(self.stage, Stage::Requested | Stage::Applied | Stage::Approved) && now <= self.act.expires()
    }
}

/// A token that was handed out.
#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    pub(crate) server: String,
    pub(crate) expires: Time,
    /// The enrolment for which it was used.
    pub(crate) used: Option<ActId>,
}

/// An enrolment that a security server asked for.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    pub(crate) request: EnrolRequest,
    pub(crate) certificates: Option<CertificatesIssued>,
}

/// A configuration that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) configuration: Configuration,
    /// The same, as acts are applied to it.
    pub(crate) decoded: GlobalConfiguration,
    /// Encoded `SignedConfiguration`, as it is served.
    pub(crate) encoded: Bytes,
}

impl Published {
    pub(super) fn new(signed: &SignedConfiguration, anchor: &Anchor) -> Result<Self, StateError> {
        let configuration = Configuration::verify(signed, anchor).map_err(StateError::Configuration)?;
        // It was verified, so it decodes; nothing here relies on that.
        let decoded = GlobalConfiguration::decode(signed.configuration.clone()).unwrap_or_default();
        Ok(Self { configuration, decoded, encoded: signed.encode_to_vec().into() })
    }
}
