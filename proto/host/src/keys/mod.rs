//! Private keys: made here, kept encrypted in a file that its owner alone can read, and used through one trait, so that
//! a hardware module (PKCS#11) can take a file's place.
//!
//! Whoever holds a key file and its passphrase can do what the key does: sign messages as the member (signing key),
//! be the server towards its peers (authentication key), write another history of the log (log key), or sign a global
//! configuration in one state's name (configuration key).

mod signing;
mod note;
mod request;
mod file;

use std::fmt;
use std::path::PathBuf;

use trave_proto::digest::Digest;

pub use note::NoteKey;
pub use request::{certificate_of_its_own, certificate_request};
pub use signing::SigningKey;

use crate::files::FileError;

/// SubjectPublicKeyInfo of a P-256 key up to the point (RFC 5480, section 2).
const P256_INFO_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// SubjectPublicKeyInfo of an Ed25519 key up to the key (RFC 8410, section 4).
const ED25519_INFO_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key cannot be made, read or used. It never holds anything of the key or the passphrase.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the key file is not usable")]
    File(#[source] FileError),
    /// Not a PEM file with an encrypted private key.
    #[error(
        "{} is not an encrypted private key in PEM (hint: it must begin with -----BEGIN ENCRYPTED PRIVATE KEY-----; \
         `openssl pkcs8 -topk8 -scrypt` makes one from a key without encryption)",
        path.display()
    )]
    NotEncryptedPem {
        /// The key file.
        path: PathBuf,
    },
    /// It does not decrypt.
    #[error(
        "the passphrase does not open {} (hint: it must be the one the key was created with; a damaged file looks \
         the same)",
        path.display()
    )]
    WrongPassphrase {
        /// The key file.
        path: PathBuf,
    },
    /// It decrypts, but to a key of another kind.
    #[error("{} holds no {expected} key", path.display())]
    WrongKind {
        /// The key file.
        path: PathBuf,
        /// The kind that was needed.
        expected: &'static str,
    },
    /// The passphrase would be guessed.
    #[error("a passphrase needs at least {least} characters (hint: `openssl rand -base64 24` makes one)")]
    WeakPassphrase {
        /// The fewest that are accepted.
        least: usize,
    },
    /// The system's random number generator or the cryptographic library failed.
    #[error("cannot {action}: the cryptographic library failed")]
    Cryptography {
        /// What was tried.
        action: &'static str,
    },
    /// A certificate request can be made for ECDSA P-256 keys alone.
    #[error("a certificate request needs an ECDSA P-256 key")]
    RequestKind,
    /// The certificate request could not be encoded.
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
}

/// What signs: a key in a file now, a hardware module later.
pub trait Sign: fmt::Debug + Send + Sync {
    /// Signs `message`; the algorithm is the key's. ECDSA signatures are ASN.1 (RFC 3279, section 2.2.3), over the
    /// SHA-256 of the message.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// The public key as a DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    fn public_key_info(&self) -> &[u8];

    /// SHA-256 of [`Sign::public_key_info`], as the global configuration lists it.
    fn public_key_digest(&self) -> Digest {
        Digest::of(self.public_key_info())
    }
}

/// What a key is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// The kind of the key in a DER SubjectPublicKeyInfo; none if it is neither.
    pub(crate) fn of(info: &[u8]) -> Option<Self> {
        if p256_point(info).is_some() {
            return Some(Self::EcdsaP256);
        }
        info.strip_prefix(&ED25519_INFO_PREFIX).filter(|key| key.len() == 32).map(|_| Self::Ed25519)
    }
}

/// The point of a P-256 SubjectPublicKeyInfo; none if it is of another kind.
fn p256_point(info: &[u8]) -> Option<&[u8]> {
    info.strip_prefix(&P256_INFO_PREFIX).filter(|point| point.len() == 65)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

    use super::*;
    use crate::config::Secret;

    fn passphrase() -> Secret {
        Secret::new(b"correct horse battery staple".to_vec())
    }

    #[test]
    fn keys_come_back_from_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let (ecdsa, ed25519) = (directory.path().join("ecdsa"), directory.path().join("ed25519"));
        let signing = SigningKey::create(&ecdsa, &passphrase()).unwrap();
        let note = NoteKey::create(&ed25519, &passphrase()).unwrap();

        let pem = std::fs::read_to_string(&ecdsa).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{pem}");
        let again = SigningKey::open(&ecdsa, &passphrase()).unwrap();
        assert_eq!(again.public_key_digest(), signing.public_key_digest());
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, p256_point(signing.public_key_info()).unwrap())
            .verify(b"message", &again.sign(b"message").unwrap())
            .unwrap();
        let again = NoteKey::open(&ed25519, &passphrase()).unwrap();
        UnparsedPublicKey::new(&ED25519, note.public_key())
            .verify(b"message", &again.sign(b"message"))
            .unwrap();

        let refused = NoteKey::open(&ecdsa, &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyError::WrongKind { expected: "Ed25519", .. }));
        let refused = SigningKey::open(&ed25519, &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyError::WrongKind { expected: "ECDSA P-256", .. }));
    }

    #[test]
    fn a_wrong_passphrase_and_a_damaged_file_are_named_and_nothing_leaks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        SigningKey::create(&path, &passphrase()).unwrap();
        let wrong = Secret::new(b"a wrong passphrase, but long".to_vec());
        let refused = SigningKey::open(&path, &wrong).unwrap_err();
        assert!(matches!(refused, KeyError::WrongPassphrase { .. }));
        let text = format!("{refused} {refused:?}");
        assert!(text.contains("key.pem") && !text.contains("wrong passphrase, but"), "{text}");

        crate::files::replace(&path, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
            .unwrap();
        let refused = SigningKey::open(&path, &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyError::NotEncryptedPem { .. }));
    }

    #[test]
    fn a_key_is_not_overwritten_and_not_hidden_behind_a_weak_passphrase() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let weak = SigningKey::create(&path, &Secret::new(b"short".to_vec()));
        assert!(matches!(weak, Err(KeyError::WeakPassphrase { .. })));
        assert!(!path.exists());
        let first = SigningKey::create(&path, &passphrase()).unwrap();
        let second = SigningKey::create(&path, &passphrase());
        assert!(matches!(second, Err(KeyError::File(FileError::Exists { .. }))));
        let kept = SigningKey::open(&path, &passphrase()).unwrap();
        assert_eq!(kept.public_key_info(), first.public_key_info());
    }

    #[test]
    fn the_public_key_is_a_subject_public_key_info() {
        let key = NoteKey::generate().unwrap();
        let (rest, info) = <x509_parser::x509::SubjectPublicKeyInfo<'_> as x509_parser::prelude::FromDer<
            _,
        >>::from_der(key.public_key_info())
        .unwrap();
        assert!(rest.is_empty());
        assert_eq!(info.subject_public_key.data.as_ref(), key.public_key());
        assert_eq!(info.algorithm.algorithm.to_id_string(), "1.3.101.112");
    }
}
