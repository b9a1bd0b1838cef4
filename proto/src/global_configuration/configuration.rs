//! The global configuration as a value that cannot exist unverified.

use bytes::Bytes;
use prost::Message;

use super::anchor::{Anchor, AnchorError, sign};
use super::auditors::AuditorEntry;
use super::contents::Contents;
use super::groups::GroupEntry;
use super::members::{MemberEntry, SubsystemEntry};
use super::offerings::{
    CatalogueEntry, CertificationAuthorityEntry, PolicyEntry, ServiceEntry, TimestampingAuthorityEntry,
};
use super::people::AdministratorEntry;
use super::servers::{LogEntry, SecurityServerEntry};
use super::text::FieldError;
use super::witnesses::WitnessEntry;
use crate::clock::Time;
use crate::digest::{Digest, tag};
use crate::encoding::{EncodingError, decode_canonical};
use crate::identifier::{MemberId, ServerId, ServiceId, SubsystemId};
use crate::schema::configuration::{GlobalConfiguration, KeySignature, SignedConfiguration};

/// Longest configuration that is read, in bytes, with its signatures.
pub const MAX_CONFIGURATION: usize = 16 * 1024 * 1024;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Longer than [`MAX_CONFIGURATION`].
    #[error("the configuration has {length} bytes, more than the {MAX_CONFIGURATION} that are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Not the one encoding of a configuration.
    #[error("the configuration cannot be read")]
    Encoding {
        /// Why.
        source: EncodingError,
    },
    /// A configuration of another instance than the anchor's.
    #[error("the configuration is of the instance {found:?}, the anchor of {expected:?}")]
    Instance {
        /// The anchor's instance.
        expected: String,
        /// The configuration's.
        found: String,
    },
    /// Too few valid signatures, or one that does not hold.
    #[error("the configuration is not signed as the anchor demands")]
    Signatures {
        /// Why.
        source: AnchorError,
    },
    /// A field that is not as it must be.
    #[error("the configuration holds what no registry of this version publishes")]
    Field {
        /// Which, and why.
        source: FieldError,
    },
}

/// A global configuration that enough configuration keys signed and whose every entry was checked.
///
/// [`Configuration::verify`] is its only maker.
#[derive(Debug)]
pub struct Configuration {
    signed: SignedConfiguration,
    digest: Digest,
    number: u64,
    issued: Time,
    valid_until: Time,
    instance: String,
    contents: Contents,
}

impl Configuration {
    /// Verifies signatures and contents. Whether it is the one to use now, [`Self::check_current`] says.
    pub fn verify(signed: &SignedConfiguration, anchor: &Anchor) -> Result<Self, ConfigurationError> {
        let length = signed.encoded_len();
        if length > MAX_CONFIGURATION {
            return Err(ConfigurationError::TooLong { length });
        }
        // Signatures first: nothing of an unsigned text is interpreted.
        anchor
            .require_threshold(&[tag::CONFIGURATION, &signed.configuration].concat(), &signed.signatures)
            .map_err(|source| ConfigurationError::Signatures { source })?;
        let configuration: GlobalConfiguration =
            decode_canonical("global configuration", signed.configuration.clone())
                .map_err(|source| ConfigurationError::Encoding { source })?;
        if configuration.instance != anchor.instance() {
            let expected = anchor.instance().to_owned();
            return Err(ConfigurationError::Instance { expected, found: configuration.instance });
        }
        let contents =
            Contents::check(&configuration).map_err(|source| ConfigurationError::Field { source })?;
        Ok(Self {
            digest: Digest::of(&signed.configuration),
            signed: signed.clone(),
            number: configuration.number,
            issued: Time::from_millis(configuration.issued_ms),
            valid_until: Time::from_millis(configuration.valid_until_ms),
            instance: configuration.instance,
            contents,
        })
    }

    /// [`Self::verify`] of an encoded `SignedConfiguration`, as the registry serves it and disks keep it.
    pub fn verify_encoded(bytes: Bytes, anchor: &Anchor) -> Result<Self, ConfigurationError> {
        if bytes.len() > MAX_CONFIGURATION {
            return Err(ConfigurationError::TooLong { length: bytes.len() });
        }
        let what = "signed configuration";
        let signed = SignedConfiguration::decode(bytes).map_err(|source| ConfigurationError::Encoding {
            source: EncodingError::Malformed { what, source },
        })?;
        Self::verify(&signed, anchor)
    }

    /// Its number: from 1, without gaps.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// SHA-256 of the configuration as signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// SHA-256 of the configuration before; none at number 1.
    pub fn previous(&self) -> Option<Digest> {
        self.contents.previous
    }

    /// The instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// When it was issued.
    pub fn issued(&self) -> Time {
        self.issued
    }

    /// Until when it may be used.
    pub fn valid_until(&self) -> Time {
        self.valid_until
    }

    /// The encoded `GlobalConfiguration`, as signed.
    pub fn bytes(&self) -> &Bytes {
        &self.signed.configuration
    }

    /// The configuration with its signatures, to pass on or to keep.
    pub fn signed(&self) -> &SignedConfiguration {
        &self.signed
    }

    /// SHA-256 of each administrative act that this configuration puts into force.
    pub fn acts(&self) -> &[Digest] {
        &self.contents.acts
    }

    /// A member.
    pub fn member(&self, id: &MemberId) -> Option<&MemberEntry> {
        self.contents.members.members.get(id)
    }

    /// All members, ascending.
    pub fn members(&self) -> impl Iterator<Item = &MemberEntry> {
        let mut members: Vec<_> = self.contents.members.members.values().collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        members.into_iter()
    }

    /// A subsystem.
    pub fn subsystem(&self, id: &SubsystemId) -> Option<&SubsystemEntry> {
        self.contents.members.subsystems.get(id)
    }

    /// A security server, also a suspended one.
    pub fn security_server(&self, id: &ServerId) -> Option<&SecurityServerEntry> {
        self.contents.servers.servers.get(id)
    }

    /// All security servers, in no particular order.
    pub fn security_servers(&self) -> impl Iterator<Item = &SecurityServerEntry> {
        self.contents.servers.servers.values()
    }

    /// The security servers on which the subsystem is registered, ascending, also suspended ones.
    pub fn servers_of(&self, subsystem: &SubsystemId) -> impl Iterator<Item = &SecurityServerEntry> {
        let ids = self.contents.servers.servers_of.get(subsystem).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.security_server(id))
    }

    /// Whether the subsystem is registered on the security server.
    pub fn hosts(&self, server: &ServerId, subsystem: &SubsystemId) -> bool {
        self.security_server(server).is_some_and(|entry| entry.subsystems().binary_search(subsystem).is_ok())
    }

    /// A service.
    pub fn service(&self, id: &ServiceId) -> Option<&ServiceEntry> {
        self.contents.catalogue.services.get(id)
    }

    /// A purpose, by its code.
    pub fn purpose(&self, code: &str) -> Option<&CatalogueEntry> {
        self.contents.catalogue.purposes.get(code)
    }

    /// A legal basis, by its code.
    pub fn legal_basis(&self, code: &str) -> Option<&CatalogueEntry> {
        self.contents.catalogue.legal_bases.get(code)
    }

    /// A global group, by its code.
    pub fn group(&self, code: &str) -> Option<&GroupEntry> {
        self.contents.groups.get(code)
    }

    /// All global groups, ascending by code.
    pub fn groups(&self) -> impl Iterator<Item = &GroupEntry> {
        let mut groups: Vec<_> = self.contents.groups.values().collect();
        groups.sort_by(|one, other| one.code.cmp(&other.code));
        groups.into_iter()
    }

    /// The certification authorities to which security servers' certificates chain.
    pub fn certification_authorities(&self) -> &[CertificationAuthorityEntry] {
        &self.contents.certification_authorities
    }

    /// The timestamping authorities.
    pub fn timestamping_authorities(&self) -> &[TimestampingAuthorityEntry] {
        &self.contents.timestamping_authorities
    }

    /// The witnesses of message logs, ascending by name.
    pub fn witnesses(&self) -> &[WitnessEntry] {
        &self.contents.witnesses
    }

    /// The rules of the instance.
    pub fn policy(&self) -> &PolicyEntry {
        &self.contents.policy
    }

    /// All administrators, in no particular order.
    pub fn administrators(&self) -> impl Iterator<Item = &AdministratorEntry> {
        self.contents.administrators.values()
    }

    /// The administrator with this key, given as SHA-256 of its SubjectPublicKeyInfo.
    pub fn administrator(&self, key: &Digest) -> Option<&AdministratorEntry> {
        self.contents.administrators.get(key)
    }

    /// All auditors, in no particular order.
    pub fn auditors(&self) -> impl Iterator<Item = &AuditorEntry> {
        self.contents.auditors.values()
    }

    /// The auditor with this key, given as SHA-256 of its SubjectPublicKeyInfo.
    pub fn auditor(&self, key: &Digest) -> Option<&AuditorEntry> {
        self.contents.auditors.get(key)
    }

    /// The log with this origin, its key and its server.
    pub fn log_key(&self, origin: &str) -> Option<&LogEntry> {
        self.contents.servers.logs.get(origin)
    }
}

/// The signature of the configuration key `name` over an encoded `GlobalConfiguration`; `key` signs what it is given
/// (Ed25519, RFC 8032).
pub fn sign_configuration(
    configuration: &[u8],
    name: &str,
    key: impl FnOnce(&[u8]) -> [u8; 64],
) -> KeySignature {
    sign(tag::CONFIGURATION, configuration, name, key)
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
