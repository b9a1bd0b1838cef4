//! Where they are reached: the security servers, and which keys count as theirs.

use std::collections::{HashMap, HashSet};

use super::members::Members;
use super::text::{FieldError, digest, identifier, require, require_address, require_ascending};
use crate::digest::Digest;
use crate::identifier::{ServerId, SubsystemId};
use crate::schema::configuration as schema;

const MAX_SERVERS: usize = 10_000;
const MAX_HOSTED: usize = 256;
const MAX_KEYS: usize = 16;
const MAX_LOGS: usize = 64;
const MAX_ORIGIN: usize = 255;

/// A security server, and the keys that count as its own.
#[derive(Debug, Clone)]
pub struct SecurityServerEntry {
    id: ServerId,
    address: String,
    subsystems: Vec<SubsystemId>,
    authentication_keys: HashSet<Digest>,
    signing_keys: HashSet<Digest>,
    logs: Vec<LogEntry>,
    suspended: bool,
}

/// The key of one message log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Origin line of the log's checkpoints.
    pub origin: String,
    /// Ed25519 public key (RFC 8032).
    pub public_key: [u8; 32],
    /// The server that keeps the log.
    pub server: ServerId,
}

impl SecurityServerEntry {
    /// Its identifier.
    pub fn id(&self) -> &ServerId {
        &self.id
    }

    /// `host:port` of its peer door.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The subsystems registered on it, ascending.
    pub fn subsystems(&self) -> &[SubsystemId] {
        &self.subsystems
    }

    /// Whether this SHA-256 of a SubjectPublicKeyInfo is one of its authentication keys in force.
    pub fn lists_authentication_key(&self, key: &Digest) -> bool {
        self.authentication_keys.contains(key)
    }

    /// Whether this SHA-256 of a SubjectPublicKeyInfo is one of its signing keys in force.
    pub fn lists_signing_key(&self, key: &Digest) -> bool {
        self.signing_keys.contains(key)
    }

    /// Its message logs.
    pub fn logs(&self) -> &[LogEntry] {
        &self.logs
    }

    /// The key of the log with this origin.
    pub fn log(&self, origin: &str) -> Option<&LogEntry> {
        self.logs.iter().find(|log| log.origin == origin)
    }

    /// Whether it has been suspended: nobody talks to it, and its messages are refused.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }
}

/// The security servers of a configuration.
#[derive(Debug, Default)]
pub(super) struct Servers {
    pub(super) servers: HashMap<ServerId, SecurityServerEntry>,
    pub(super) servers_of: HashMap<SubsystemId, Vec<ServerId>>,
    pub(super) logs: HashMap<String, LogEntry>,
    keys: HashSet<Vec<u8>>,
}

impl Servers {
    pub(super) fn check(
        list: &[schema::SecurityServer],
        instance: &str,
        members: &Members,
    ) -> Result<Self, FieldError> {
        let at = "security_servers";
        require_ascending(list, MAX_SERVERS, at, |server| server.id.as_str())?;
        let mut checked = Self::default();
        for (i, server) in list.iter().enumerate() {
            let at = format!("{at}[{i}]");
            let id: ServerId = identifier(&server.id, instance, || format!("{at}.id"))?;
            let known = members.members.contains_key(&id.member());
            require(known, || format!("{at}.id"), "is of a member that is not registered")?;
            let subsystems = checked.hosted(server, &id, members, &format!("{at}.subsystems"))?;
            checked.add(server, id, subsystems, &at)?;
        }
        Ok(checked)
    }

    fn hosted(
        &mut self,
        server: &schema::SecurityServer,
        id: &ServerId,
        members: &Members,
        at: &str,
    ) -> Result<Vec<SubsystemId>, FieldError> {
        require_ascending(&server.subsystems, MAX_HOSTED, at, String::as_str)?;
        let mut subsystems = Vec::with_capacity(server.subsystems.len());
        for (i, subsystem) in server.subsystems.iter().enumerate() {
            let subsystem: SubsystemId = identifier(subsystem, id.instance(), || format!("{at}[{i}]"))?;
            let known = members.subsystems.contains_key(&subsystem);
            require(known, || format!("{at}[{i}]"), "is not a registered subsystem")?;
            self.servers_of.entry(subsystem.clone()).or_default().push(id.clone());
            subsystems.push(subsystem);
        }
        Ok(subsystems)
    }

    fn add(
        &mut self,
        server: &schema::SecurityServer,
        id: ServerId,
        subsystems: Vec<SubsystemId>,
        at: &str,
    ) -> Result<(), FieldError> {
        require_address(&server.address, || format!("{at}.address"))?;
        let authentication_keys =
            self.keys(&server.authentication_keys, &format!("{at}.authentication_keys"))?;
        let signing_keys = self.keys(&server.signing_keys, &format!("{at}.signing_keys"))?;
        let logs = self.logs(&server.logs, &id, &format!("{at}.logs"))?;
        let entry = SecurityServerEntry {
            id: id.clone(),
            address: server.address.clone(),
            subsystems,
            authentication_keys,
            signing_keys,
            logs,
            suspended: server.suspended,
        };
        self.servers.insert(id, entry);
        Ok(())
    }

    /// A key has one server and one use in the whole instance.
    fn keys(&mut self, list: &[bytes::Bytes], at: &str) -> Result<HashSet<Digest>, FieldError> {
        require_ascending(list, MAX_KEYS, at, |key| key.as_ref())?;
        let mut keys = HashSet::with_capacity(list.len());
        for (i, key) in list.iter().enumerate() {
            keys.insert(digest(key, || format!("{at}[{i}]"))?);
            require(self.keys.insert(key.to_vec()), || format!("{at}[{i}]"), "is in use elsewhere")?;
        }
        Ok(keys)
    }

    fn logs(
        &mut self,
        list: &[schema::LogKey],
        server: &ServerId,
        at: &str,
    ) -> Result<Vec<LogEntry>, FieldError> {
        require_ascending(list, MAX_LOGS, at, |log| log.origin.as_str())?;
        let mut logs = Vec::with_capacity(list.len());
        for (i, log) in list.iter().enumerate() {
            let at = || format!("{at}[{i}]");
            require(is_origin(&log.origin), at, "has no usable origin line")?;
            let public_key: [u8; 32] = log
                .public_key
                .as_ref()
                .try_into()
                .map_err(|_| FieldError::new(at(), "has no Ed25519 public key of 32 bytes"))?;
            let origin = log.origin.clone();
            let entry = LogEntry { origin: origin.clone(), public_key, server: server.clone() };
            require(self.keys.insert(public_key.to_vec()), at, "has a key that is in use elsewhere")?;
            let other = self.logs.insert(origin, entry.clone());
            require(other.is_none(), at, "has the origin of another log")?;
            logs.push(entry);
        }
        Ok(logs)
    }
}

/// A key name of a C2SP signed note: visible, without plus signs.
fn is_origin(origin: &str) -> bool {
    (1..=MAX_ORIGIN).contains(&origin.len()) && origin.bytes().all(|b| b.is_ascii_graphic() && b != b'+')
}
