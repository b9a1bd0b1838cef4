//! Ed25519 keys, which need no certificate: the global configuration or the anchor lists them.

use std::fmt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use trave_proto::checkpoint::{CheckpointError, NoteSigner};
use zeroize::Zeroizing;

use super::{ED25519_INFO_PREFIX, KeyError, Sign, file};
use crate::config::Secret;

/// PKCS#8 (version 1, which OpenSSL reads) of an Ed25519 key up to the seed (RFC 8410, section 7).
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// An Ed25519 key: signs checkpoints of a log and global configurations.
pub struct NoteKey {
    pair: Ed25519KeyPair,
    info: Vec<u8>,
}

impl NoteKey {
    const KIND: &str = "Ed25519";

    /// Makes a key that lives in memory alone.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pkcs8(&Self::generate_pkcs8()?).ok_or(KeyError::Cryptography { action: "generate a key" })
    }

    /// Makes a key and stores it, encrypted, in the new file `path`. Takes a fifth of a second of computing, as
    /// [`Self::open`] does: not for an asynchronous task.
    pub fn create(path: &Path, passphrase: &Secret) -> Result<Self, KeyError> {
        let pkcs8 = Self::generate_pkcs8()?;
        let key = Self::from_pkcs8(&pkcs8).ok_or(KeyError::Cryptography { action: "generate a key" })?;
        file::store(path, &pkcs8, passphrase)?;
        Ok(key)
    }

    /// Reads the key from the file `path`.
    pub fn open(path: &Path, passphrase: &Secret) -> Result<Self, KeyError> {
        let pkcs8 = file::load(path, passphrase)?;
        Self::from_pkcs8(&pkcs8)
            .ok_or_else(|| KeyError::WrongKind { path: path.to_owned(), expected: Self::KIND })
    }

    /// Signs `message` (RFC 8032, Ed25519). Unlike with a key behind [`Sign`], this cannot fail.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The key pair itself, for the one log whose checkpoints it signs.
    pub fn into_pair(self) -> Ed25519KeyPair {
        self.pair
    }

    /// The public key (RFC 8032, section 5.1.5).
    pub fn public_key(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// Gives the key to a log: it signs the log's checkpoints under the name `origin`.
    ///
    /// # Errors
    /// If the name cannot stand in a signed note.
    pub fn into_signer(self, origin: &str) -> Result<NoteSigner, CheckpointError> {
        NoteSigner::new(origin, self.pair)
    }

    fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(&mut *seed)
            .map_err(|_| KeyError::Cryptography { action: "generate a key" })?;
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(ED25519_PKCS8_PREFIX.len() + seed.len()));
        pkcs8.extend_from_slice(&ED25519_PKCS8_PREFIX);
        pkcs8.extend_from_slice(&*seed);
        Ok(pkcs8)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        // "unchecked": a file of version 1 holds no public key to check the private one against.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        let info = [&ED25519_INFO_PREFIX[..], pair.public_key().as_ref()].concat();
        Some(Self { pair, info })
    }
}

impl Sign for NoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(Self::sign(self, message).to_vec())
    }

    fn public_key_info(&self) -> &[u8] {
        &self.info
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({})", self.public_key_digest().short())
    }
}
