//! ECDSA keys on P-256, a pair of which stands behind every certificate of ours.

use std::fmt;
use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{KeyError, P256_INFO_PREFIX, Sign, file};
use crate::config::Secret;

/// An ECDSA P-256 key: signs messages, TLS handshakes, acts of administrators.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    info: Vec<u8>,
}

impl SigningKey {
    const KIND: &str = "ECDSA P-256";

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

    fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| KeyError::Cryptography { action: "generate a key" })
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).ok()?;
        let info = [&P256_INFO_PREFIX[..], pair.public_key().as_ref()].concat();
        Some(Self { pair, random, info })
    }
}

impl Sign for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&self.random, message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Cryptography { action: "sign" })
    }

    fn public_key_info(&self) -> &[u8] {
        &self.info
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key_digest().short())
    }
}
