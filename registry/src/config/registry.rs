//! The registry's configuration: `registry.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_host::keys::{NoteKey, Sign, SigningKey};
use trave_host::tls::Identity;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;

use super::cosigner::check_key;
use super::files::{open_anchor, parse_digest};
use super::{KeyFile, SettingsError, TlsFiles, load};

/// `registry.toml`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Directory of the registry's log and of what is derived from it.
    pub data: FilePath,
    /// The anchor file.
    pub anchor: FilePath,
    /// The first configuration, as the ceremony made it.
    pub genesis: FilePath,
    /// Name of the registry's key in the anchor.
    pub key_name: String,
    /// `address:port` of the door for security servers: configurations and enrolment.
    pub public_listen: SocketAddr,
    /// `host:port` by which security servers reach that door; goes into enrolment tokens. If absent, the address on
    /// which it listens.
    pub public_address: Option<String>,
    /// `address:port` of the door for administrators.
    pub admin_listen: SocketAddr,
    /// The configuration key. Its holder can sign configurations in one state's name, which alone is not enough.
    pub configuration_key: KeyFile,
    /// The key of the registry's own log. Its holder could present another history of the registry.
    pub log_key: KeyFile,
    /// The key from which the secrets of enrolment tokens are made. Its holder could request enrolments, which two
    /// administrators would still have to sign.
    pub token_key: KeyFile,
    /// With what the registry shows itself at its doors and to the cosigners.
    pub tls: TlsFiles,
    /// The holders of further configuration keys.
    #[serde(default)]
    pub cosigner: Vec<CosignerAddress>,
    /// When configurations are published.
    #[serde(default)]
    pub publication: PublicationConfig,
    /// The certification authority and the timestamping authority, if this registry runs them.
    pub trust_services: Option<TrustServicesConfig>,
}

/// Where a cosigner is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosignerAddress {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key.
    pub key: String,
}

/// How long configurations hold and how soon they follow each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublicationConfig {
    /// Minutes for which a configuration is valid; renewed before half of them have passed. A security server that is
    /// cut off works so long. Cosigners accept up to 10080 (7 days).
    pub validity_minutes: u32,
}

impl Default for PublicationConfig {
    fn default() -> Self {
        Self { validity_minutes: 24 * 60 }
    }
}

/// The embedded trust services.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustServicesConfig {
    /// `address:port` of the cleartext HTTP door for OCSP, CRL and timestamps; what it answers is signed.
    pub listen: SocketAddr,
    /// Directory with the authorities' keys, certificates and ledger, as the ceremony made it.
    pub directory: FilePath,
    /// File that holds the passphrase of their keys, mode 0600.
    pub passphrase_file: FilePath,
}

/// A cosigner to ask.
#[derive(Debug, Clone)]
pub struct Cosigner {
    /// `host:port`.
    pub address: String,
    /// SHA-256 of its TLS public key.
    pub key: Digest,
}

/// What a registry works with: the configuration, opened and checked.
#[derive(Debug)]
pub struct RegistrySettings {
    /// Directory of the log.
    pub data: PathBuf,
    /// The anchor.
    pub anchor: Anchor,
    /// The first configuration, encoded.
    pub genesis: Bytes,
    /// Name of the registry's key in the anchor.
    pub key_name: String,
    /// The configuration key.
    pub key: NoteKey,
    /// The log's key.
    pub log_key: NoteKey,
    /// From which the secrets of tokens are made.
    pub token_key: NoteKey,
    /// Door for security servers.
    pub public_listen: SocketAddr,
    /// How they reach it.
    pub public_address: Option<String>,
    /// Door for administrators.
    pub admin_listen: SocketAddr,
    /// The TLS identity.
    pub identity: Arc<Identity>,
    /// SHA-256 of its public key.
    pub identity_key: Digest,
    /// The cosigners.
    pub cosigners: Vec<Cosigner>,
    /// Validity of a configuration.
    pub validity: Duration,
    /// The embedded trust services.
    pub trust_services: Option<TrustServicesSettings>,
}

/// Where the embedded trust services listen and keep their things.
#[derive(Debug)]
pub struct TrustServicesSettings {
    /// Cleartext door.
    pub listen: SocketAddr,
    /// Keys, certificates, ledger.
    pub directory: PathBuf,
    /// Opens the keys.
    pub passphrase: trave_host::config::Secret,
}

impl RegistrySettings {
    /// Reads `registry.toml` and opens what it names.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        load(path, open)
    }
}

fn open(config: &RegistryConfig, directory: &Directory, problems: &mut Problems) -> Option<RegistrySettings> {
    let anchor = open_anchor(&config.anchor, directory, problems);
    let genesis = problems.keep("genesis", std::fs::read(config.genesis.within(directory)));
    let key = config.configuration_key.open_note_key(directory, "configuration_key", problems);
    let log_key = config.log_key.open_note_key(directory, "log_key", problems);
    let token_key = config.token_key.open_note_key(directory, "token_key", problems);
    let tls: Option<(Arc<Identity>, Arc<SigningKey>)> = config.tls.open(directory, "tls", problems);
    let cosigners: Vec<_> = config.cosigner.iter().map(|c| open_cosigner(c, problems)).collect();
    let minutes = config.publication.validity_minutes;
    if !(2..=7 * 24 * 60).contains(&minutes) {
        problems.add("publication.validity_minutes", "is not 2 to 10080 minutes");
    }
    let trust_services =
        config.trust_services.as_ref().map(|it| open_trust_services(it, directory, problems));
    let (anchor, key, tls) = (anchor?, key?, tls?);
    check_key(&anchor, &config.key_name, &key, problems);
    if anchor.threshold() > cosigners.len() + 1 {
        problems
            .add("cosigner", format!("the anchor asks for {} signatures", anchor.threshold()))
            .hint("name the cosigners: [[cosigner]] with address and key");
    }
    Some(RegistrySettings {
        data: config.data.within(directory),
        anchor,
        genesis: genesis?.into(),
        key_name: config.key_name.clone(),
        key,
        log_key: log_key?,
        token_key: token_key?,
        public_listen: config.public_listen,
        public_address: config.public_address.clone(),
        admin_listen: config.admin_listen,
        identity: tls.0,
        identity_key: tls.1.public_key_digest(),
        cosigners: cosigners.into_iter().collect::<Option<_>>()?,
        validity: Duration::from_secs(u64::from(minutes) * 60),
        trust_services: match trust_services {
            Some(opened) => Some(opened?),
            None => None,
        },
    })
}

fn open_cosigner(config: &CosignerAddress, problems: &mut Problems) -> Option<Cosigner> {
    let key = parse_digest(&config.key, "cosigner.key", problems)?;
    Some(Cosigner { address: config.address.clone(), key })
}

fn open_trust_services(
    config: &TrustServicesConfig,
    directory: &Directory,
    problems: &mut Problems,
) -> Option<TrustServicesSettings> {
    let passphrase = trave_host::config::Secret::from_file(&config.passphrase_file.within(directory));
    Some(TrustServicesSettings {
        listen: config.listen,
        directory: config.directory.within(directory),
        passphrase: problems.keep("trust_services.passphrase_file", passphrase)?,
    })
}
