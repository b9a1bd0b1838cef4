//! A key of ours, in a file or a hardware module, as the library that writes certificates wants to see it.

use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};
use trave_host::keys::Sign;
use trave_proto::certificate::{PublicKey, SignatureAlgorithm};

/// The point of a P-256 key: one byte of form, two coordinates.
const POINT: usize = 65;

/// The key is none that trust services sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("trust services sign with ECDSA P-256 keys; this key is of another kind")]
pub struct WrongKey;

/// An ECDSA P-256 key that signs certificates, responses and timestamps.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: Arc<dyn Sign>,
    point: Vec<u8>,
}

impl Signer {
    pub(crate) fn new(key: Arc<dyn Sign>) -> Result<Self, WrongKey> {
        let info = key.public_key_info();
        let public = PublicKey::from_spki(info).map_err(|_| WrongKey)?;
        if public.algorithm() != SignatureAlgorithm::EcdsaP256Sha256 {
            return Err(WrongKey);
        }
        let point = info[info.len() - POINT..].to_vec();
        Ok(Self { key, point })
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}
