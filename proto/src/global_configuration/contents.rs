//! Everything that a configuration says, checked entry by entry and ready to be looked up.

use std::collections::HashMap;

use super::auditors::{AuditorEntry, check_auditors};
use super::groups::{GroupEntry, check_groups};
use super::members::Members;
use super::offerings::{
    Catalogue, CertificationAuthorityEntry, PolicyEntry, TimestampingAuthorityEntry,
    check_certification_authorities, check_policy, check_timestamping_authorities,
};
use super::people::{AdministratorEntry, check_administrators};
use super::servers::Servers;
use super::text::{FieldError, digest, require};
use super::witnesses::{WitnessEntry, check_enough, check_witnesses};
use crate::digest::Digest;
use crate::identifier::MemberId;
use crate::schema::configuration::GlobalConfiguration;

const MAX_ACTS: usize = 1_000;

/// The checked contents of a configuration. Who signed it is another question: see [`super::Configuration`].
#[derive(Debug)]
pub(crate) struct Contents {
    pub(super) previous: Option<Digest>,
    pub(super) acts: Vec<Digest>,
    pub(super) members: Members,
    pub(super) servers: Servers,
    pub(super) catalogue: Catalogue,
    pub(super) groups: HashMap<String, GroupEntry>,
    pub(super) certification_authorities: Vec<CertificationAuthorityEntry>,
    pub(super) timestamping_authorities: Vec<TimestampingAuthorityEntry>,
    pub(super) witnesses: Vec<WitnessEntry>,
    pub(super) auditors: HashMap<Digest, AuditorEntry>,
    pub(crate) administrators: HashMap<Digest, AdministratorEntry>,
    pub(crate) policy: PolicyEntry,
}

impl Contents {
    /// Checks every field of `configuration`.
    pub(crate) fn check(configuration: &GlobalConfiguration) -> Result<Self, FieldError> {
        let previous = check_head(configuration)?;
        let instance = &configuration.instance;
        let acts = configuration.acts.iter().enumerate();
        let acts = acts.map(|(i, act)| digest(act, || format!("acts[{i}]"))).collect::<Result<_, _>>()?;
        let members = Members::check(&configuration.members, instance)?;
        let servers = Servers::check(&configuration.security_servers, instance, &members)?;
        let catalogue = Catalogue::check(configuration, &members)?;
        let groups = check_groups(&configuration.groups, &members)?;
        let trust_services = configuration.trust_services.as_ref();
        let trust_services = trust_services.ok_or_else(|| FieldError::new("trust_services", "are absent"))?;
        let policy = configuration.policy.as_ref();
        let policy = policy.ok_or_else(|| FieldError::new("policy", "is absent"))?;
        let policy = check_policy(policy)?;
        let witnesses = check_witnesses(&configuration.witnesses, &servers)?;
        check_enough(&policy.witnessing, &witnesses, &servers)?;
        Ok(Self {
            previous,
            acts,
            members,
            servers,
            catalogue,
            groups,
            certification_authorities: check_certification_authorities(
                &trust_services.certification_authorities,
            )?,
            timestamping_authorities: check_timestamping_authorities(
                &trust_services.timestamping_authorities,
            )?,
            administrators: check_administrators(&configuration.administrators)?,
            auditors: check_auditors(&configuration.auditors, instance)?,
            witnesses,
            policy,
        })
    }
}

/// The version of the format that says what `configuration` says: always the lowest, so that what older releases can read
/// they are given to read.
pub(crate) fn version_of(configuration: &GlobalConfiguration) -> u32 {
    let policy = configuration.policy.as_ref();
    let speaks = policy.is_some_and(|policy| policy.witnessing.is_some() || policy.timestamping.is_some());
    match configuration {
        _ if !configuration.auditors.is_empty() => 3,
        _ if !configuration.witnesses.is_empty() || speaks => 2,
        _ => 1,
    }
}

fn check_head(configuration: &GlobalConfiguration) -> Result<Option<Digest>, FieldError> {
    let version = version_of(configuration);
    require(configuration.version == version, || "version".into(), "is not that of what it says, 1 to 3")?;
    let instance = format!("{}/x/x", configuration.instance).parse::<MemberId>().is_ok();
    require(instance, || "instance".into(), "is not the first part of an identifier")?;
    require(configuration.number > 0, || "number".into(), "counts from 1")?;
    let times = configuration.issued_ms >= 0 && configuration.valid_until_ms > configuration.issued_ms;
    require(times, || "valid_until_ms".into(), "is not after issued_ms")?;
    require(configuration.acts.len() <= MAX_ACTS, || "acts".into(), "are more than 1000")?;
    if configuration.number == 1 {
        require(configuration.previous.is_empty(), || "previous".into(), "must be empty at number 1")?;
        return Ok(None);
    }
    digest(&configuration.previous, || "previous".into()).map(Some)
}
