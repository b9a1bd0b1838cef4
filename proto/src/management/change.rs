//! What each kind of act does to a configuration.

use crate::global_configuration::version_of;
use crate::schema::configuration::{GlobalConfiguration, LogKey, SecurityServer, TrustServices};
use crate::schema::management::{EnrolSecurityServer, RemoveKey, act::Change};

/// Why a change cannot be made to the configuration before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct ChangeError {
    /// What was to be changed.
    pub subject: String,
    /// Why it cannot be.
    pub problem: &'static str,
}

impl ChangeError {
    fn new(subject: &str, problem: &'static str) -> Self {
        // A subject may come from outside and be anything.
        Self { subject: subject.chars().take(330).collect(), problem }
    }
}

/// Makes `change` to `configuration`, or leaves it as it is and says why it cannot be made. Lists stay ascending; whether the result holds together is checked afterwards.
pub(super) fn make(configuration: &mut GlobalConfiguration, change: &Change) -> Result<(), ChangeError> {
    let c = configuration;
    match change {
        Change::PutMember(member) => {
            let mut member = member.clone();
            member.subsystems.sort_by(|a, b| a.id.cmp(&b.id));
            put(&mut c.members, member, |m| m.id.as_str());
        }
        Change::RemoveMember(id) => remove(&mut c.members, id, |m| m.id.as_str())?,
        Change::PutSecurityServer(server) => put_server(c, server)?,
        Change::RemoveSecurityServer(id) => remove(&mut c.security_servers, id, |s| s.id.as_str())?,
        Change::SuspendSecurityServer(change) => server(c, &change.id)?.suspended = change.suspended,
        Change::PutService(service) => {
            let mut service = service.clone();
            service.methods.sort_unstable();
            service.purposes.sort_unstable();
            put(&mut c.services, service, |s| s.id.as_str());
        }
        Change::RemoveService(id) => remove(&mut c.services, id, |s| s.id.as_str())?,
        Change::PutPurpose(entry) => put(&mut c.purposes, entry.clone(), |e| e.code.as_str()),
        Change::PutLegalBasis(entry) => put(&mut c.legal_bases, entry.clone(), |e| e.code.as_str()),
        Change::PutGroup(group) => {
            let mut group = group.clone();
            group.members.sort_unstable();
            put(&mut c.groups, group, |g| g.code.as_str());
        }
        Change::RemoveGroup(code) => remove(&mut c.groups, code, |g| g.code.as_str())?,
        Change::PutWitness(witness) => put(&mut c.witnesses, witness.clone(), |w| w.name.as_str()),
        Change::RemoveWitness(name) => remove(&mut c.witnesses, name, |w| w.name.as_str())?,
        Change::PutAuditor(auditor) => {
            let mut auditor = auditor.clone();
            auditor.classes.sort_unstable();
            auditor.members.sort_unstable();
            put(&mut c.auditors, auditor, |a| a.name.as_str());
        }
        Change::RemoveAuditor(name) => remove(&mut c.auditors, name, |a| a.name.as_str())?,
        Change::PutTrustServices(services) => c.trust_services = Some(sorted(services)),
        Change::PutAdministrator(person) => {
            put(&mut c.administrators, person.clone(), |p| p.name.as_str());
        }
        Change::RemoveAdministrator(name) => remove(&mut c.administrators, name, |p| p.name.as_str())?,
        Change::PutPolicy(policy) => {
            let mut policy = policy.clone();
            policy.algorithms.sort_by(|a, b| a.name.cmp(&b.name));
            policy.witnessing.iter_mut().for_each(|witnessing| witnessing.required.sort_unstable());
            c.policy = Some(policy);
        }
        Change::EnrolSecurityServer(enrolment) => enrol(c, enrolment)?,
        Change::RemoveKey(key) => remove_key(c, key)?,
    }
    c.version = version_of(c);
    Ok(())
}

fn sorted(services: &TrustServices) -> TrustServices {
    let mut services = services.clone();
    services.certification_authorities.sort_by(|a, b| a.name.cmp(&b.name));
    services.timestamping_authorities.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// Registers a server or changes its entry. Its keys come by enrolment alone, so those it has are kept.
fn put_server(configuration: &mut GlobalConfiguration, new: &SecurityServer) -> Result<(), ChangeError> {
    if !(new.authentication_keys.is_empty() && new.signing_keys.is_empty() && new.logs.is_empty()) {
        return Err(ChangeError::new(&new.id, "keys come by enrolment, not by registration"));
    }
    if new.suspended {
        return Err(ChangeError::new(&new.id, "is suspended by an act of its own"));
    }
    let own = new.id.rsplit_once('/').map_or("", |(member, _)| member);
    let foreign = |subsystem: &String| subsystem.rsplit_once('/').is_none_or(|(member, _)| member != own);
    // A signing certificate names the server's own member, so for another member it could not sign.
    if new.subsystems.iter().any(foreign) {
        return Err(ChangeError::new(&new.id, "hosts a subsystem of another member"));
    }
    let mut entry = new.clone();
    entry.subsystems.sort_unstable();
    if let Ok(old) = server(configuration, &new.id) {
        entry.authentication_keys = std::mem::take(&mut old.authentication_keys);
        entry.signing_keys = std::mem::take(&mut old.signing_keys);
        entry.logs = std::mem::take(&mut old.logs);
        entry.suspended = old.suspended;
    }
    put(&mut configuration.security_servers, entry, |s| s.id.as_str());
    Ok(())
}

/// Adds the keys of an enrolment to those that the server has.
fn enrol(configuration: &mut GlobalConfiguration, new: &EnrolSecurityServer) -> Result<(), ChangeError> {
    let entry = server(configuration, &new.id)?;
    let Some(log) = &new.log else {
        return Err(ChangeError::new(&new.id, "enrols without the key of a message log"));
    };
    if entry.logs.iter().any(|other| other.origin == log.origin) {
        return Err(ChangeError::new(&log.origin, "is the origin of a log that is registered already"));
    }
    put(&mut entry.authentication_keys, new.authentication_key.clone(), |key| key.as_ref());
    put(&mut entry.signing_keys, new.signing_key.clone(), |key| key.as_ref());
    put::<LogKey, str>(&mut entry.logs, log.clone(), |log| log.origin.as_str());
    Ok(())
}

fn remove_key(configuration: &mut GlobalConfiguration, change: &RemoveKey) -> Result<(), ChangeError> {
    let entry = server(configuration, &change.security_server)?;
    let count = |entry: &SecurityServer| {
        entry.authentication_keys.len() + entry.signing_keys.len() + entry.logs.len()
    };
    let before = count(entry);
    entry.authentication_keys.retain(|key| *key != change.key);
    entry.signing_keys.retain(|key| *key != change.key);
    entry.logs.retain(|log| crate::digest::Digest::of(&log.public_key).as_bytes()[..] != change.key);
    if count(entry) == before {
        return Err(ChangeError::new(&change.security_server, "has no such key"));
    }
    Ok(())
}

fn server<'c>(
    configuration: &'c mut GlobalConfiguration,
    id: &str,
) -> Result<&'c mut SecurityServer, ChangeError> {
    let found = configuration.security_servers.iter_mut().find(|server| server.id == id);
    found.ok_or_else(|| ChangeError::new(id, "is no registered security server"))
}

/// Puts `entry` into its place in an ascending list, instead of the one with the same key.
fn put<T, K: Ord + ?Sized>(list: &mut Vec<T>, entry: T, key: impl Fn(&T) -> &K) {
    match list.binary_search_by(|other| key(other).cmp(key(&entry))) {
        Ok(at) => list[at] = entry,
        Err(at) => list.insert(at, entry),
    }
}

fn remove<T>(list: &mut Vec<T>, id: &str, key: impl Fn(&T) -> &str) -> Result<(), ChangeError> {
    let at = list.iter().position(|entry| key(entry) == id);
    let at = at.ok_or_else(|| ChangeError::new(id, "is not registered, so it cannot be removed"))?;
    list.remove(at);
    Ok(())
}
