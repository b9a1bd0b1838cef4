//! An administrator's configuration: `admin.toml`, on the person's own machine.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_host::keys::SigningKey;
use trave_host::tls::Identity;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;

use super::files::{open_anchor, parse_digest};
use super::{SettingsError, TlsFiles, load};

/// `admin.toml`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdministratorConfig {
    /// `host:port` of the registry's door for administrators.
    pub registry: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the registry's TLS key.
    pub registry_key: String,
    /// The anchor file: what the registry shows as the configuration is verified with it.
    pub anchor: FilePath,
    /// The administrator's certificate and key. Their holder can apply for or approve acts, never both.
    pub administrator: TlsFiles,
}

/// What an administrator's program works with.
#[derive(Debug)]
pub struct AdministratorSettings {
    /// `host:port`.
    pub registry: String,
    /// SHA-256 of the registry's TLS public key.
    pub registry_key: Digest,
    /// The anchor.
    pub anchor: Anchor,
    /// For TLS.
    pub identity: Arc<Identity>,
    /// For acts.
    pub key: Arc<SigningKey>,
}

impl AdministratorSettings {
    /// Reads `admin.toml` and opens what it names.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        load(path, open)
    }
}

fn open(
    config: &AdministratorConfig,
    directory: &Directory,
    problems: &mut Problems,
) -> Option<AdministratorSettings> {
    let registry_key = parse_digest(&config.registry_key, "registry_key", problems);
    let anchor = open_anchor(&config.anchor, directory, problems);
    let administrator = config.administrator.open(directory, "administrator", problems);
    let (identity, key) = administrator?;
    Some(AdministratorSettings {
        registry: config.registry.clone(),
        registry_key: registry_key?,
        anchor: anchor?,
        identity,
        key,
    })
}
