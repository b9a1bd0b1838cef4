//! The file of a private key: PKCS#8, encrypted (PBES2 of RFC 8018 with scrypt and AES-256-CBC), in PEM.

use std::path::Path;

use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::KeyError;
use crate::config::Secret;
use crate::files;

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// The fewest characters of a passphrase that is set anew.
const PASSPHRASE_MIN: usize = 16;

/// scrypt's cost: 16 MiB, the most that OpenSSL reads without being told to. With a random passphrase the cost hardly
/// matters; with a human one, five passes are what OWASP asks for at this memory.
const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 5;

/// Encrypts `pkcs8` and stores it in the new file `path`.
pub(super) fn store(path: &Path, pkcs8: &[u8], passphrase: &Secret) -> Result<(), KeyError> {
    if passphrase.expose().len() < PASSPHRASE_MIN {
        return Err(KeyError::WeakPassphrase { least: PASSPHRASE_MIN });
    }
    let pem = encrypt(pkcs8, passphrase).ok_or(KeyError::Cryptography { action: "encrypt a key" })?;
    files::create(path, pem.as_bytes()).map_err(KeyError::File)
}

/// Reads and decrypts the key in `path`.
pub(super) fn load(path: &Path, passphrase: &Secret) -> Result<SecretBytes, KeyError> {
    let pem = files::read_secret(path).map_err(KeyError::File)?;
    let not_encrypted = || KeyError::NotEncryptedPem { path: path.to_owned() };
    let text = std::str::from_utf8(&pem).map_err(|_| not_encrypted())?;
    let (label, document) = SecretDocument::from_pem(text.trim()).map_err(|_| not_encrypted())?;
    if label != LABEL {
        return Err(not_encrypted());
    }
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| not_encrypted())?;
    // A wrong passphrase mostly fails at the padding, and else at what the padding held.
    let decrypted = encrypted
        .decrypt(passphrase.expose())
        .map_err(|_| KeyError::WrongPassphrase { path: path.to_owned() })?;
    Ok(Zeroizing::new(decrypted.as_bytes().to_vec()))
}

type SecretBytes = Zeroizing<Vec<u8>>;

fn encrypt(pkcs8: &[u8], passphrase: &Secret) -> Option<Zeroizing<String>> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    SystemRandom::new().fill(&mut salt).ok()?;
    SystemRandom::new().fill(&mut iv).ok()?;
    let cost = scrypt::Params::new(LOG_N, R, P).ok()?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).ok()?;
    let key = PrivateKeyInfoRef::try_from(pkcs8).ok()?;
    key.encrypt_with_params(parameters, passphrase.expose()).ok()?.to_pem(LABEL, LineEnding::LF).ok()
}
