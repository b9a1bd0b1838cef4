//! A server's own certificate chain and key, which can be exchanged while it runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use super::TlsError;
use crate::keys::{KeyKind, Sign};

/// What this server shows of itself. Handshakes that begin after [`Identity::set`] show the new chain; connections
/// that stand are left alone.
pub struct Identity(ArcSwap<CertifiedKey>);

impl Identity {
    /// An identity from its chain, the own certificate first, and the key of that certificate.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Arc<dyn Sign>) -> Result<Self, TlsError> {
        certified(chain, key).map(|certified| Self(ArcSwap::from_pointee(certified)))
    }

    /// Exchanges chain and key together. If they do not fit each other, the old ones stay.
    pub fn set(&self, chain: Vec<CertificateDer<'static>>, key: Arc<dyn Sign>) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(chain, key)?));
        Ok(())
    }

    /// The chain now shown, the own certificate first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().cert.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.load().key).finish()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Reads a certificate chain from the PEM file `path`, in the order in which it stands there.
pub fn chain_from_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Chain { path: path.to_owned(), source };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(TlsError::EmptyChain) } else { Ok(chain) }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: Arc<dyn Sign>) -> Result<CertifiedKey, TlsError> {
    let own = chain.first().ok_or(TlsError::EmptyChain)?;
    let certificate = webpki::EndEntityCert::try_from(own).map_err(TlsError::Certificate)?;
    if certificate.subject_public_key_info().as_ref() != key.public_key_info() {
        return Err(TlsError::OtherKey);
    }
    let scheme = match KeyKind::of(key.public_key_info()).ok_or(TlsError::KeyKind)? {
        KeyKind::EcdsaP256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        KeyKind::Ed25519 => SignatureScheme::ED25519,
    };
    Ok(CertifiedKey::new(chain, Arc::new(HandshakeKey { key, scheme })))
}

/// A key of ours as the library uses it.
#[derive(Clone, Debug)]
struct HandshakeKey {
    key: Arc<dyn Sign>,
    scheme: SignatureScheme,
}

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        if offered.contains(&self.scheme) { Some(Box::new(self.clone())) } else { None }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.key.public_key_info().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.scheme {
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(message).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
