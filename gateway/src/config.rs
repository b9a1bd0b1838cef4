//! The configuration of a security server: one TOML file, every key documented here, unknown keys refused.

mod access;
mod archive;
mod agency;
mod auditors;
mod register;
mod subject;
mod cockpit;
mod limits;
mod retention;
mod route;
mod service;
mod witnesses;
mod x_road;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use trave_host::config::{self, ConfigError, Directory, FilePath, Problems};
use trave_proto::identifier::ServerId;

use access::Operator;
pub use access::{Access, Approval};
pub use agency::{Agency, AgencyClient, AgencyTransport};
pub use archive::{Archive, ObjectStorage};
pub use auditors::{AuditRole, Auditor, Auditors};
pub use cockpit::{Cockpit, CockpitClient};
pub use limits::Limits;
pub use register::{OneOrMore, RegisterAddress};
pub use retention::{OnNotice, Retention, RetentionRule};
pub use route::Route;
pub use service::{KeepContent, Service};
pub use subject::Subject;
pub use witnesses::Witnesses;
pub use x_road::{FromXRoad, ToXRoad};

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum GatewayConfigError {
    /// It cannot be read.
    #[error(transparent)]
    Read(ConfigError),
    /// It says what cannot be; all of it at once.
    #[error("{0}")]
    Problems(Problems),
}

/// A value that is written as text and checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Everything an operator sets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This security server: `INSTANCE/CLASS/MEMBER/SERVER`.
    pub server: Parsed<ServerId>,
    /// Directory of keys, certificates, configurations and the message log.
    data: FilePath,
    /// File with the passphrase of the private keys; readable by its owner alone.
    passphrase_file: FilePath,
    /// Where the global configuration comes from.
    pub registry: Registry,
    /// The door for other security servers.
    pub peer: Peer,
    /// The doors for agency systems.
    #[serde(default)]
    pub agency: Vec<Agency>,
    /// What callers need not say themselves.
    #[serde(default)]
    pub route: Vec<Route>,
    /// What is offered here.
    #[serde(default)]
    pub service: Vec<Service>,
    /// The door for data-protection cockpits.
    pub cockpit: Option<Cockpit>,
    /// Health and metrics.
    pub operations: Option<Operations>,
    /// The door for the operator.
    #[serde(default)]
    operator: Operator,
    /// The door for auditors; without it there is none.
    pub auditors: Option<Auditors>,
    /// How it is decided who may call.
    #[serde(default)]
    pub access: Access,
    /// How much at once.
    #[serde(default)]
    pub limits: Limits,
    /// The message log.
    #[serde(default)]
    pub log: Log,
    /// How the witnesses of the global configuration are reached.
    #[serde(default)]
    witnesses: Witnesses,
    /// Where its closed segments are copied to; nowhere if absent.
    pub archive: Option<Archive>,
    /// How long what the message log holds is kept.
    #[serde(default)]
    pub retention: Retention,
    #[serde(skip, default = "here")]
    directory: Directory,
}

/// The registry's distribution door.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// `host:port`; spoken to over TLS that is pinned to what enrolment learnt.
    pub address: String,
    /// Seconds between two looks for a new global configuration.
    #[serde(default = "sixty")]
    pub poll_seconds: u64,
}

/// The door for other security servers: mutual TLS 1.3.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Address to listen on.
    pub listen: SocketAddr,
}

/// `/healthz` and `/metrics`, cleartext.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operations {
    /// Address to listen on; of the inner network only.
    pub listen: SocketAddr,
}

/// The message log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Size of a segment file, in MiB.
    pub segment_mib: u64,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
    /// Free space that is kept for the log's own records; below it exchanges are refused. In MiB.
    pub reserve_mib: u64,
    /// Whole months for which persons can be found in the log, beside the one that runs: then the month's key is destroyed.
    pub persons_months: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { segment_mib: 64, checkpoint_seconds: 60, reserve_mib: 256, persons_months: 24 }
    }
}

fn here() -> Directory {
    Directory::of(Path::new("."))
}

/// More of anything than anybody means.
const MOST: u64 = 1_000_000_000;

const fn sixty() -> u64 {
    60
}

impl Config {
    /// Reads and checks the file; tells all that is wrong in one run.
    pub fn read(path: &Path) -> Result<Self, GatewayConfigError> {
        let config::Configuration { value, directory } =
            config::read::<Self>(path).map_err(GatewayConfigError::Read)?;
        let config = Self { directory, ..value };
        let mut problems = Problems::of(path);
        config.check(&mut problems);
        problems.finish(config).map_err(GatewayConfigError::Problems)
    }

    fn check(&self, problems: &mut Problems) {
        for (at, agency) in self.agency.iter().enumerate() {
            agency.check(&format!("agency[{at}]"), problems);
        }
        for (at, route) in self.route.iter().enumerate() {
            route.check(&format!("route[{at}]"), problems);
        }
        for (at, service) in self.service.iter().enumerate() {
            service.check(&format!("service[{at}]"), problems);
            if self.service[..at].iter().any(|other| other.id == service.id) {
                problems.add(format!("service[{at}].id"), "this service stands here twice");
            }
        }
        if let Some(auditors) = &self.auditors {
            auditors.check(problems);
        }
        if let Some(cockpit) = &self.cockpit {
            cockpit.check(problems);
        }
        self.limits.check(problems);
        self.retention.check(problems);
        self.operator.check(self.access.approval, problems);
        if let Some(archive) = &self.archive {
            archive.check(self.log.segment_mib, problems);
        }
        for (key, value) in [
            ("log.segment_mib", self.log.segment_mib),
            ("log.checkpoint_seconds", self.log.checkpoint_seconds),
            ("registry.poll_seconds", self.registry.poll_seconds),
        ] {
            if value == 0 || value > MOST {
                problems.add(key, format!("is not between 1 and {MOST}")).hint("leave the key out");
            }
        }
    }

    /// What of `other` differs and is read at start alone.
    pub fn differs(&self, other: &Self) -> Vec<&'static str> {
        let sections = |config: &Self| {
            [
                ("server", format!("{:?}", config.server)),
                ("data", format!("{:?} {:?}", config.data, config.passphrase_file)),
                ("registry", format!("{:?}", config.registry)),
                ("peer", format!("{:?}", config.peer)),
                ("agency", format!("{:?}", config.agency)),
                ("cockpit", format!("{:?}", config.cockpit)),
                ("operations", format!("{:?}", config.operations)),
                ("operator", format!("{:?}", config.operator)),
                ("auditors", format!("{:?}", config.auditors)),
                ("access", format!("{:?}", config.access)),
                ("log", format!("{:?}", config.log)),
                ("witnesses", format!("{:?}", config.witnesses)),
                ("archive", format!("{:?}", config.archive)),
                ("retention", format!("{:?}", config.retention)),
            ]
        };
        let differ =
            sections(self).into_iter().zip(sections(other)).filter(|(ours, theirs)| ours.1 != theirs.1);
        differ.map(|((name, _), _)| name).chain(self.limits.differs(&other.limits)).collect()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.data.within(&self.directory)
    }

    /// The file with the passphrase.
    pub fn passphrase_file(&self) -> PathBuf {
        self.passphrase_file.within(&self.directory)
    }

    /// The operator's socket.
    pub fn operator_socket(&self) -> PathBuf {
        match &self.operator.socket {
            Some(socket) => socket.within(&self.directory),
            None => self.data().join("operator.sock"),
        }
    }

    /// The directory of the message log's archive, if there is one.
    pub fn archive_directory(&self) -> Option<PathBuf> {
        self.archive.as_ref()?.directory(&self.directory)
    }

    /// The object storage of the message log's archive, with the files of its credentials and its authorities, if there is
    /// one.
    pub fn archive_storage(&self) -> Option<(&ObjectStorage, PathBuf, Option<PathBuf>)> {
        let storage = self.archive.as_ref()?.object_storage.as_ref()?;
        let authorities = storage.authorities.as_ref().map(|file| self.path(file));
        Some((storage, self.path(&storage.credentials_file), authorities))
    }

    /// The file with the authorities of witnesses, if there is one.
    pub fn witness_authorities(&self) -> Option<PathBuf> {
        Some(self.path(self.witnesses.authorities.as_ref()?))
    }

    /// Further users who may come in at the operator's door.
    pub fn operator_users(&self) -> &[u32] {
        &self.operator.users
    }

    /// A path of this configuration, from where the file stands.
    pub fn path(&self, path: &FilePath) -> PathBuf {
        path.within(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../gateway.example.toml");

    fn read(text: &str) -> Result<Config, GatewayConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn the_example_is_valid() {
        let config = read(EXAMPLE).unwrap();
        assert_eq!(config.agency.len(), 2);
        assert!(matches!(config.agency[1].transport(), Ok(AgencyTransport::Tls(..))));
        let register = config.service[0].register().unwrap();
        assert_eq!((register.tls, register.addresses, register.rest), (false, vec!["127.0.0.1:50051"], None));
        let register = config.service[1].register().unwrap();
        assert_eq!((register.addresses, register.rest), (vec!["127.0.0.1:8080"], Some(("/api", false))));
    }

    #[test]
    fn all_mistakes_are_told_in_one_run() {
        let text = EXAMPLE
            .replace("listen = \"127.0.0.1:7080\"", "listen = \"0.0.0.0:7080\"")
            .replace("backend = \"http://127.0.0.1:50051\"", "backend = \"http://register.example:50051\"")
            .replace("path = \"/gewerbe.v1.Register/\"", "path = \"gewerbe\"");
        let Err(GatewayConfigError::Problems(problems)) = read(&text) else { panic!("accepted") };
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["agency[0].listen", "route[0].path", "service[0].backend"]);
    }

    #[test]
    fn two_persons_are_two_and_have_a_door() {
        let with = |users: &str, socket: &str| {
            let two = "approval = \"two_persons\"";
            EXAMPLE
                .replace("approval = \"one\"", two)
                .replace("# users = [1001, 1002]", &format!("users = {users}"))
                .replace("socket = \"data/operator.sock\"", socket)
        };
        let socket = "socket = \"/run/trave/operator.sock\"";
        assert_eq!(read(&with("[1001, 1002]", socket)).unwrap().operator_users(), [1001, 1002]);
        for (users, socket, expected) in [
            ("[1001]", socket, &["operator.users"][..]),
            ("[1001, 1001]", socket, &["operator.users", "operator.users"]),
            ("[0, 1001]", socket, &["operator.users"]),
            ("[1001, 1002]", "", &["operator.socket"]),
        ] {
            let Err(GatewayConfigError::Problems(problems)) = read(&with(users, socket)) else {
                panic!("{users} was accepted")
            };
            let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(keys, expected, "{users}");
        }
    }

    #[test]
    fn what_waits_for_a_start_is_named() {
        let text = EXAMPLE
            .replace("backend = \"http://127.0.0.1:50051\"", "backend = \"http://127.0.0.1:50052\"")
            .replace("listen = \"127.0.0.1:7080\"", "listen = \"127.0.0.1:7081\"");
        let (first, second) = (read(EXAMPLE).unwrap(), read(&text).unwrap());
        assert_eq!(first.differs(&second), ["agency"], "a service's register is no such thing");
        assert!(first.differs(&first).is_empty());
    }

    #[test]
    fn unknown_keys_and_missing_policies_are_refused() {
        assert!(matches!(read(&format!("sever = 1\n{EXAMPLE}")), Err(GatewayConfigError::Read(_))));
        let without = EXAMPLE.replace("keep_content = \"request\"", "");
        assert!(matches!(read(&without), Err(GatewayConfigError::Read(_))));
    }
}
