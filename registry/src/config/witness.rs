//! The witness's configuration: `witness.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_proto::checkpoint::{NoteVerifier, WitnessSigner};
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;

use super::files::{open_anchor, parse_digest};
use super::{KeyFile, SettingsError, load};

/// Most logs that the file itself may name.
const MAX_LOGS: usize = 1_000;

/// `witness.toml`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// `address:port` of the cleartext HTTP door: what comes in is signed, and so is what is answered.
    pub listen: SocketAddr,
    /// Name under which this witness cosigns, as `witness.mv.example/w1`.
    pub name: String,
    /// The key of its cosignatures. Its holder can say that a log never changed its story.
    pub witness_key: KeyFile,
    /// Directory in which it remembers what it cosigned. Whoever can exchange it for an older one and holds the key can make
    /// this witness contradict itself: it is never restored from a backup.
    pub state: FilePath,
    /// The registry whose security servers' logs it witnesses.
    pub registry: Option<FollowedRegistry>,
    /// Logs that it witnesses beside those.
    #[serde(default)]
    pub log: Vec<ListedLog>,
}

/// Where the global configuration comes from, which names the logs and their keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowedRegistry {
    /// `host:port` of its door for security servers.
    pub address: String,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key.
    pub key: String,
    /// The anchor file, received in person.
    pub anchor: FilePath,
    /// How often is looked for a newer configuration, in seconds.
    #[serde(default = "poll_seconds")]
    pub poll_seconds: u64,
}

fn poll_seconds() -> u64 {
    60
}

/// A log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedLog {
    /// Its verifier key, `ORIGIN+ID+KEY` (C2SP signed note).
    pub key: String,
}

/// What a witness works with: the configuration, opened and checked.
#[derive(Debug)]
pub struct WitnessSettings {
    /// `address:port`.
    pub listen: SocketAddr,
    /// Name and key.
    pub signer: WitnessSigner,
    /// The state's directory.
    pub state: PathBuf,
    /// The registry that is followed.
    pub registry: Option<FollowedSettings>,
    /// Keys of further logs.
    pub logs: Vec<NoteVerifier>,
}

/// The registry that a witness follows.
#[derive(Debug)]
pub struct FollowedSettings {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of its TLS public key.
    pub key: Digest,
    /// The anchor.
    pub anchor: Anchor,
    /// How often is looked.
    pub every: Duration,
}

impl WitnessSettings {
    /// Reads `witness.toml` and opens what it names.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        load(path, open)
    }
}

fn open(config: &WitnessConfig, directory: &Directory, problems: &mut Problems) -> Option<WitnessSettings> {
    let key = config.witness_key.open_note_key(directory, "witness_key", problems);
    let registry = config.registry.as_ref().map(|it| open_registry(it, directory, problems));
    if config.registry.is_none() && config.log.is_empty() {
        problems
            .add("registry", "no log would be witnessed")
            .hint("name the registry whose security servers' logs it witnesses, or single logs: [[log]]");
    }
    if config.log.len() > MAX_LOGS {
        problems.add("log", format!("are more than {MAX_LOGS}"));
    }
    let logs = config.log.iter().enumerate();
    let logs: Vec<_> = logs
        .map(|(i, log)| problems.keep(format!("log[{i}].key"), log.key.parse::<NoteVerifier>()))
        .collect();
    let signer = problems.keep("name", WitnessSigner::new(&config.name, key?.into_pair()))?;
    Some(WitnessSettings {
        listen: config.listen,
        signer,
        state: config.state.within(directory),
        registry: match registry {
            Some(opened) => Some(opened?),
            None => None,
        },
        logs: logs.into_iter().collect::<Option<_>>()?,
    })
}

fn open_registry(
    config: &FollowedRegistry,
    directory: &Directory,
    problems: &mut Problems,
) -> Option<FollowedSettings> {
    let anchor = open_anchor(&config.anchor, directory, problems);
    let key = parse_digest(&config.key, "registry.key", problems);
    if !(1..=3600).contains(&config.poll_seconds) {
        problems.add("registry.poll_seconds", "is not 1 to 3600 seconds");
    }
    let every = Duration::from_secs(config.poll_seconds);
    Some(FollowedSettings { address: config.address.clone(), key: key?, anchor: anchor?, every })
}
