//! What a security server holds in its data directory: keys, certificates, anchor. Written by enrolment, read at start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use trave_host::config::Secret;
use trave_host::files::FileError;
use trave_host::keys::{KeyError, NoteKey, Sign, SigningKey};
use trave_host::tls::{self, Identity, TlsError};
use trave_proto::global_configuration::{Anchor, AnchorError};
use trave_proto::signature::Signer;

/// Why the data directory is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The passphrase cannot be read.
    #[error("the passphrase cannot be read")]
    Passphrase(#[source] FileError),
    /// A key is missing or does not open.
    #[error("a private key cannot be opened (hint: `trave-gateway enrol` makes the keys)")]
    Key(#[source] KeyError),
    /// A certificate is missing or is another key's.
    #[error("a certificate cannot be used (hint: `trave-gateway enrol` fetches the certificates)")]
    Certificate(#[source] TlsError),
    /// The signing certificate is for another key than the signing key.
    #[error("the signing certificate is not for the signing key")]
    OtherKey,
    /// The anchor is missing.
    #[error("cannot read {} (hint: `trave-gateway enrol` stores it)", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The anchor is none.
    #[error("the anchor is not valid")]
    Anchor(#[source] AnchorError),
}

/// Where things stand in the data directory.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

impl Layout {
    /// The data directory `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self(data.into())
    }

    /// The key of TLS connections: whoever holds it, and a peer's trust, can connect as this server; not sign.
    pub fn authentication_key(&self) -> PathBuf {
        self.0.join("keys/authentication.key")
    }

    /// The key that signs messages: whoever holds it can make messages of this server's members.
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("keys/signing.key")
    }

    /// The key that signs checkpoints: whoever holds it can fork the log until a timestamp or a peer contradicts.
    pub fn log_key(&self) -> PathBuf {
        self.0.join("keys/log.key")
    }

    /// The chain for TLS connections, PEM.
    pub fn authentication_certificate(&self) -> PathBuf {
        self.0.join("certificates/authentication.pem")
    }

    /// The chain for messages, PEM.
    pub fn signing_certificate(&self) -> PathBuf {
        self.0.join("certificates/signing.pem")
    }

    /// The newest OCSP answer about the signing certificate, DER.
    pub fn signing_status(&self) -> PathBuf {
        self.0.join("certificates/signing.ocsp")
    }

    /// Which keys must have signed the global configuration.
    pub fn anchor(&self) -> PathBuf {
        self.0.join("anchor")
    }

    /// SHA-256 of the registry's TLS key, hexadecimal.
    pub fn registry_pin(&self) -> PathBuf {
        self.0.join("registry.pin")
    }

    /// The global configurations that were adopted.
    pub fn configurations(&self) -> PathBuf {
        self.0.join("configurations")
    }

    /// The last checkpoint of the message log that was witnessed, with its cosignatures.
    pub fn witnessed(&self) -> PathBuf {
        self.0.join("witnessed")
    }

    /// Generations of the message log that came before, each with its key and what was witnessed of it.
    pub fn generations(&self) -> PathBuf {
        self.0.join("generations")
    }

    /// The origin of the message log, where it is not the first.
    pub fn log_origin_file(&self) -> PathBuf {
        self.0.join("log.origin")
    }

    /// What that file says.
    pub(crate) fn log_origin(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.log_origin_file()).ok()?;
        Some(text.trim_end().to_owned()).filter(|origin| !origin.is_empty())
    }

    /// A new generation of the message log that was begun and is not yet complete.
    pub fn generation_plan(&self) -> PathBuf {
        self.0.join("generation.plan")
    }

    /// The same, complete here: its key waits for the registry's administrators.
    pub fn generation_pending(&self) -> PathBuf {
        self.0.join("generation.pending")
    }

    /// Small things that no exchange waits for, and that may be lost.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The message log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

/// The keys and certificates of a security server, opened.
#[derive(Debug)]
pub(crate) struct Custody {
    pub(crate) identity: Arc<Identity>,
    pub(crate) signing_key: Arc<SigningKey>,
    pub(crate) signing_chain: Vec<Bytes>,
    log_key: Option<NoteKey>,
    /// The public key of the log.
    pub(crate) log_public_key: [u8; 32],
    pub(crate) anchor: Anchor,
}

impl Custody {
    /// Opens all. Takes about a second: keys are kept behind a slow derivation.
    pub(crate) fn open(layout: &Layout, passphrase: &Secret) -> Result<Self, CustodyError> {
        // One after the other: each derivation takes 16 MiB of memory, which the next one uses again.
        let authentication =
            SigningKey::open(&layout.authentication_key(), passphrase).map_err(CustodyError::Key)?;
        let signing = SigningKey::open(&layout.signing_key(), passphrase).map_err(CustodyError::Key)?;
        let log = NoteKey::open(&layout.log_key(), passphrase).map_err(CustodyError::Key)?;
        let chain =
            tls::chain_from_pem(&layout.authentication_certificate()).map_err(CustodyError::Certificate)?;
        let identity = Identity::new(chain, Arc::new(authentication)).map_err(CustodyError::Certificate)?;
        let chain = tls::chain_from_pem(&layout.signing_certificate()).map_err(CustodyError::Certificate)?;
        let certified =
            chain.first().map(tls::public_key_digest).transpose().map_err(CustodyError::Certificate)?;
        if certified != Some(signing.public_key_digest()) {
            return Err(CustodyError::OtherKey);
        }
        let anchor = Anchor::parse(&read(&layout.anchor())?).map_err(CustodyError::Anchor)?;
        Ok(Self {
            identity: Arc::new(identity),
            signing_key: Arc::new(signing),
            signing_chain: chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            log_public_key: log.public_key(),
            log_key: Some(log),
            anchor,
        })
    }
}

impl Custody {
    /// The log's key, for the one log that signs with it.
    pub(crate) fn take_log_key(&mut self) -> Option<NoteKey> {
        self.log_key.take()
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CustodyError> {
    std::fs::read(path).map_err(|source| CustodyError::Read { path: path.to_owned(), source })
}

/// A signing key as batches are signed with it, and seals.
#[derive(Debug)]
pub(crate) struct BatchSigner(pub(crate) Arc<SigningKey>);

impl Signer for BatchSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Sign::sign(self.0.as_ref(), message).map_err(Into::into)
    }
}
