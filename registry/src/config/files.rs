//! Keys, certificates and the anchor, as configuration files name them.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems, Secret};
use trave_host::files::FileError;
use trave_host::keys::{KeyError, NoteKey, SigningKey};
use trave_host::tls::{Identity, chain_from_pem};
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Anchor;

/// A private key at rest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Encrypted PKCS#8 in PEM, mode 0600.
    pub key: FilePath,
    /// File that holds the passphrase, mode 0600; kept where backups of the key do not go.
    pub passphrase_file: FilePath,
}

impl KeyFile {
    fn passphrase(&self, directory: &Directory) -> Result<Secret, FileError> {
        Secret::from_file(&self.passphrase_file.within(directory))
    }

    pub(super) fn open_note_key(
        &self,
        directory: &Directory,
        at: &str,
        problems: &mut Problems,
    ) -> Option<NoteKey> {
        let secret = problems.keep(format!("{at}.passphrase_file"), self.passphrase(directory))?;
        problems.keep(format!("{at}.key"), NoteKey::open(&self.key.within(directory), &secret))
    }

    pub(super) fn open_signing_key(
        &self,
        directory: &Directory,
        at: &str,
        problems: &mut Problems,
    ) -> Option<SigningKey> {
        let secret = problems.keep(format!("{at}.passphrase_file"), self.passphrase(directory))?;
        let key: Result<_, KeyError> = SigningKey::open(&self.key.within(directory), &secret);
        problems.keep(format!("{at}.key"), key)
    }
}

/// A certificate for TLS with its private key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates in PEM, the own one first.
    pub certificate: FilePath,
    /// Encrypted PKCS#8 in PEM, mode 0600.
    pub key: FilePath,
    /// File that holds the passphrase, mode 0600.
    pub passphrase_file: FilePath,
}

impl TlsFiles {
    /// The identity, and the SHA-256 of its SubjectPublicKeyInfo.
    pub(super) fn open(
        &self,
        directory: &Directory,
        at: &str,
        problems: &mut Problems,
    ) -> Option<(Arc<Identity>, Arc<SigningKey>)> {
        let chain = chain_from_pem(&self.certificate.within(directory));
        let chain = problems.keep(format!("{at}.certificate"), chain);
        let file = KeyFile { key: self.key.clone(), passphrase_file: self.passphrase_file.clone() };
        let key = Arc::new(file.open_signing_key(directory, at, problems)?);
        let identity = Identity::new(chain?, key.clone());
        Some((Arc::new(problems.keep(format!("{at}.certificate"), identity)?), key))
    }
}

/// Reads the anchor file.
pub(super) fn open_anchor(path: &FilePath, directory: &Directory, problems: &mut Problems) -> Option<Anchor> {
    let path: PathBuf = path.within(directory);
    let bytes = problems.keep("anchor", std::fs::read(&path))?;
    problems.keep("anchor", Anchor::parse(&bytes))
}

/// A SHA-256 digest of 64 hexadecimal digits.
pub(super) fn parse_digest(text: &str, at: &str, problems: &mut Problems) -> Option<Digest> {
    let mut bytes = [0; Digest::LEN];
    if hex::decode_to_slice(text, &mut bytes).is_err() {
        problems.add(at, "is not a SHA-256 digest of 64 hexadecimal digits");
        return None;
    }
    Some(Digest::from_bytes(bytes))
}
