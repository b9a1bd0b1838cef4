//! Public keys and the signatures that they verify. The algorithm follows from the key alone: no message chooses it.

use std::fmt;
use std::str::FromStr;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};

use crate::der::{self, NotDer};
use crate::digest::Digest;

/// Largest SubjectPublicKeyInfo that is read: RSA with 8192 bits has about 1060 bytes.
const MAX_SPKI: usize = 2048;

/// Fewest bits of an RSA key (BSI TR-02102 asks for 3000 of new keys; older ones still verify).
const MIN_RSA_BITS: usize = 2048;

/// Most bits: longer ones only cost time.
const MAX_RSA_BITS: usize = 8192;

/// How a key signs. One algorithm for each kind of key; names as in the global configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// `ecdsa-p256-sha256`: ECDSA (FIPS 186-5) over NIST P-256 with SHA-256, encoded as in RFC 3279 section 2.2.3.
    EcdsaP256Sha256,
    /// `ecdsa-p384-sha384`: ECDSA over NIST P-384 with SHA-384, encoded as in RFC 3279 section 2.2.3.
    EcdsaP384Sha384,
    /// `ed25519`: Ed25519 (RFC 8032).
    Ed25519,
    /// `rsa-pss-sha256`: RSASSA-PSS (RFC 8017) with SHA-256, salt of 32 bytes, keys of 2048 to 8192 bits.
    RsaPssSha256,
}

impl SignatureAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::EcdsaP256Sha256, Self::EcdsaP384Sha384, Self::Ed25519, Self::RsaPssSha256];

    /// The name that the global configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
            Self::RsaPssSha256 => "rsa-pss-sha256",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::Ed25519 => &signature::ED25519,
            Self::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(KeyError::UnknownAlgorithm)
    }
}

/// Why a public key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo in DER.
    #[error("not a SubjectPublicKeyInfo in DER")]
    Malformed,
    /// Neither ECDSA P-256 or P-384 (uncompressed), nor Ed25519, nor RSA.
    #[error("keys of this kind are not accepted: use ECDSA P-256 or P-384, Ed25519, or RSA")]
    Unsupported,
    /// An RSA key that is too short or too long.
    #[error("an RSA key of {0} bits is not accepted: 2048 to 8192 bits are")]
    RsaSize(usize),
    /// A name that is none of [`SignatureAlgorithm::ALL`].
    #[error("not the name of a signature algorithm")]
    UnknownAlgorithm,
}

/// A signature is not by this key over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not by this key over these bytes")]
pub struct SignatureInvalid;

/// A public key whose kind is known.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: SignatureAlgorithm,
    bits: Vec<u8>,
    digest: Digest,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) in DER.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        if spki.len() > MAX_SPKI {
            return Err(KeyError::Malformed);
        }
        let (algorithm, bits) = split_spki(spki).map_err(|NotDer| KeyError::Malformed)?;
        Ok(Self { algorithm: algorithm_of(algorithm, bits)?, bits: bits.to_vec(), digest: Digest::of(spki) })
    }

    /// How this key signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn spki_digest(&self) -> Digest {
        self.digest
    }

    /// Verifies a signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.bits)
            .verify(message, signature)
            .map_err(|_| SignatureInvalid)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm, self.digest)
    }
}

fn algorithm_of(identifier: &[u8], bits: &[u8]) -> Result<SignatureAlgorithm, KeyError> {
    let is = |known: AlgorithmIdentifier| *known == *identifier;
    let uncompressed = |length| bits.len() == length && bits[0] == 4;
    if is(alg_id::ECDSA_P256) && uncompressed(65) {
        Ok(SignatureAlgorithm::EcdsaP256Sha256)
    } else if is(alg_id::ECDSA_P384) && uncompressed(97) {
        Ok(SignatureAlgorithm::EcdsaP384Sha384)
    } else if is(alg_id::ED25519) && bits.len() == 32 {
        Ok(SignatureAlgorithm::Ed25519)
    } else if is(alg_id::RSA_ENCRYPTION) {
        let size = rsa_bits(bits).map_err(|NotDer| KeyError::Malformed)?;
        let fits = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&size);
        fits.then_some(SignatureAlgorithm::RsaPssSha256).ok_or(KeyError::RsaSize(size))
    } else {
        Err(KeyError::Unsupported)
    }
}

/// Bits of the modulus of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_bits(key: &[u8]) -> Result<usize, NotDer> {
    let mut numbers = der::only(der::SEQUENCE, key)?.inside();
    let modulus = numbers.expect(der::INTEGER)?.content;
    numbers.expect(der::INTEGER)?;
    numbers.finish()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros).ok_or(NotDer)?;
    Ok((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// With what certification authorities, OCSP responders and timestamping authorities may sign. Nothing with SHA-1.
pub(crate) static VERIFICATION_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Verifies a signature as certificates and OCSP responses carry it: `algorithm` is the content of its
/// AlgorithmIdentifier, and must fit the key's.
pub(crate) fn verify_as_certified(
    spki: &[u8],
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureInvalid> {
    let (key_algorithm, bits) = split_spki(spki).map_err(|NotDer| SignatureInvalid)?;
    VERIFICATION_ALGORITHMS
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == algorithm)
        .find(|known| known.public_key_alg_id().as_ref() == key_algorithm)
        .ok_or(SignatureInvalid)?
        .verify_signature(bits, message, signature)
        .map_err(|_| SignatureInvalid)
}

/// The content of the AlgorithmIdentifier, and the bits of the key.
fn split_spki(spki: &[u8]) -> Result<(&[u8], &[u8]), NotDer> {
    let mut inside = der::only(der::SEQUENCE, spki)?.inside();
    let algorithm = inside.expect(der::SEQUENCE)?.content;
    let bits = inside.expect(der::BIT_STRING)?.whole_bits()?;
    inside.finish().map(|()| (algorithm, bits))
}
