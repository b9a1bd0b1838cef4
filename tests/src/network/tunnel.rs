//! TLS as somebody else's program speaks it, beside a part of a test that speaks none. Each side knows one certificate of the
//! other's, which its operator was handed, and takes no other.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trave_host::config::Secret;
use trave_host::keys::{Sign, SigningKey};

use super::PASSPHRASE;

/// A certificate that its own key signed, and the key.
pub struct Certified {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Certified {
    /// One for a program on loopback, whose certificate is written to `file` for the other side.
    pub fn new(file: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = for_loopback().self_signed(&key).unwrap();
        std::fs::write(file, certificate.pem()).unwrap();
        Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

/// Makes a key of ours in the file `key`, under the passphrase of every server here, and its certificate in `file`.
pub fn certified_by_itself(key: &Path, file: &Path) -> CertificateDer<'static> {
    let key = SigningKey::create(key, &Secret::new(PASSPHRASE.into())).unwrap();
    let certificate = for_loopback().self_signed(&Ours(key)).unwrap();
    std::fs::write(file, certificate.pem()).unwrap();
    certificate.der().clone()
}

fn for_loopback() -> CertificateParams {
    CertificateParams::new(["127.0.0.1".to_owned()]).unwrap()
}

/// A key of ours as the maker of certificates sees it.
struct Ours(SigningKey);

impl rcgen::PublicKeyData for Ours {
    fn der_bytes(&self) -> &[u8] {
        // Behind the algorithm's identifier (RFC 5480, section 2).
        &self.0.public_key_info()[26..]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Ours {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).unwrap())
    }
}

/// Takes connections on one side of TLS, and makes them on the other.
pub struct Tunnel {
    /// Where it listens.
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Tunnel {
    /// Speaks TLS to whoever comes as `client`, and hands on to `to` what is said.
    pub async fn before(to: SocketAddr, own: &Certified, client: &CertificateDer<'static>) -> Self {
        let provider = Arc::new(default_provider());
        let known = WebPkiClientVerifier::builder_with_provider(alone(client), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(known.build().unwrap())
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut near = acceptor.accept(stream).await?;
                copy_bidirectional(&mut near, &mut TcpStream::connect(to).await?).await
            }
        })
        .await
    }

    /// Speaks TLS to whoever comes, and hands on to `to` what is said.
    pub async fn open(to: SocketAddr, own: &Certified) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut near = acceptor.accept(stream).await?;
                copy_bidirectional(&mut near, &mut TcpStream::connect(to).await?).await
            }
        })
        .await
    }

    /// Takes whoever comes, and hands on over TLS to `to`, which must be `server`.
    pub async fn behind(to: SocketAddr, own: &Certified, server: &CertificateDer<'static>) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(alone(server))
            .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())
            .unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Self::start(move |mut near| {
            let connector = connector.clone();
            async move {
                let name = ServerName::from(to.ip());
                let mut far = connector.connect(name, TcpStream::connect(to).await?).await?;
                copy_bidirectional(&mut near, &mut far).await
            }
        })
        .await
    }

    async fn start<F, C>(carry: F) -> Self
    where
        F: Fn(TcpStream) -> C + Send + 'static,
        C: Future<Output = io::Result<(u64, u64)>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.spawn(carry(stream));
            }
        });
        Self { address, serving }
    }
}

fn alone(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut known = RootCertStore::empty();
    known.add(certificate.clone()).unwrap();
    Arc::new(known)
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certified")
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({})", self.address)
    }
}
