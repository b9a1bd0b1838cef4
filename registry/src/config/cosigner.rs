//! The cosigner's configuration: `cosigner.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_host::keys::NoteKey;
use trave_host::tls::Identity;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;

use super::files::{open_anchor, parse_digest};
use super::{KeyFile, SettingsError, TlsFiles, load};

/// `cosigner.toml`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosignerConfig {
    /// `address:port` on which the registry reaches the cosigner.
    pub listen: SocketAddr,
    /// The anchor file, received in person.
    pub anchor: FilePath,
    /// Name of this cosigner's key in the anchor.
    pub key_name: String,
    /// SHA-256 of the first configuration, as its makers compared it at the ceremony: the only thing that is signed
    /// without acts.
    pub genesis: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the registry's TLS key: nobody else is let in.
    pub registry_key: String,
    /// File in which the last signed configuration and the used acts are kept. Whoever can exchange it for an older one
    /// and holds the key can make this cosigner sign twice: it belongs to a backup that is never older than a day.
    pub state: FilePath,
    /// The configuration key. Its holder can sign configurations in one state's name.
    pub configuration_key: KeyFile,
    /// With what the cosigner shows itself to the registry.
    pub tls: TlsFiles,
}

/// What a cosigner works with: the configuration, opened and checked.
#[derive(Debug)]
pub struct CosignerSettings {
    /// `address:port`.
    pub listen: SocketAddr,
    /// The anchor.
    pub anchor: Anchor,
    /// Name of the key in the anchor.
    pub key_name: String,
    /// The configuration key.
    pub key: NoteKey,
    /// SHA-256 of the first configuration.
    pub genesis: Digest,
    /// SHA-256 of the registry's TLS public key.
    pub registry_key: Digest,
    /// The state file.
    pub state: PathBuf,
    /// The TLS identity.
    pub identity: Arc<Identity>,
}

impl CosignerSettings {
    /// Reads `cosigner.toml` and opens what it names.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        load(path, open)
    }
}

fn open(config: &CosignerConfig, directory: &Directory, problems: &mut Problems) -> Option<CosignerSettings> {
    let anchor = open_anchor(&config.anchor, directory, problems);
    let genesis = parse_digest(&config.genesis, "genesis", problems);
    let registry_key = parse_digest(&config.registry_key, "registry_key", problems);
    let key = config.configuration_key.open_note_key(directory, "configuration_key", problems);
    let tls = config.tls.open(directory, "tls", problems);
    let (anchor, key) = (anchor?, key?);
    check_key(&anchor, &config.key_name, &key, problems);
    Some(CosignerSettings {
        listen: config.listen,
        anchor,
        key_name: config.key_name.clone(),
        key,
        genesis: genesis?,
        registry_key: registry_key?,
        state: config.state.within(directory),
        identity: tls?.0,
    })
}

/// The key must be the one that the anchor knows by this name.
pub(super) fn check_key(anchor: &Anchor, name: &str, key: &NoteKey, problems: &mut Problems) {
    match anchor.key(name) {
        None => problems
            .add("key_name", format!("the anchor knows no key {name:?}"))
            .hint("it names the keys in the lines that begin with \"key\""),
        Some(public) if *public != key.public_key() => problems
            .add("configuration_key.key", format!("is not the key that the anchor names {name:?}"))
            .hint("was another key file put in its place, or is this the anchor of another instance?"),
        Some(_) => {}
    }
}
