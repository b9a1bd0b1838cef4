//! Encrypted connections: TLS 1.3 alone (RFC 8446), with one cryptographic profile for all of our servers.
//!
//! No early data and no resumption: each connection shows its certificate anew, so that trust that was withdrawn ends
//! with the connection. This folder alone knows the TLS library.

mod verify;
mod identity;
mod peer;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use trave_proto::clock::Clock;

pub use identity::{Identity, chain_from_pem};
pub use peer::{Authority, PeerPolicy, Pinned, public_key_digest};
pub use tokio_rustls::TlsStream;

use crate::keys::KeyError;
use verify::PeerVerifier;

/// The cryptographic profile of 2026-11: AES-GCM and the NIST curves that BSI TR-02102-2 recommends come first;
/// ChaCha20-Poly1305 and X25519 stand behind them for peers that have nothing else. Signatures are what the library
/// verifies in TLS 1.3: ECDSA, Ed25519, RSA-PSS.
fn profile() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519],
        ..default_provider()
    })
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A chain begins with the certificate of the server itself.
    #[error("the certificate chain is empty (hint: it begins with the server's own certificate)")]
    EmptyChain,
    /// The file holds no certificates in PEM.
    #[error("cannot read certificates from {}", path.display())]
    Chain {
        /// The file.
        path: std::path::PathBuf,
        /// What the reader says.
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate cannot be understood.
    #[error("a certificate cannot be read")]
    Certificate(#[source] webpki::Error),
    /// Key and certificate belong to different pairs.
    #[error(
        "the certificate is for another key (hint: it must have been issued for the request made with this key)"
    )]
    OtherKey,
    /// A key of a kind that TLS here does not use.
    #[error("the key is neither ECDSA P-256 nor Ed25519")]
    KeyKind,
    /// The key did not work.
    #[error("the key cannot be used")]
    Key(#[source] KeyError),
    /// The library refuses its settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Which versions of HTTP are spoken inside (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/2 alone: between our servers, and gRPC.
    Two,
    /// HTTP/2, or HTTP/1.1 for those who do not speak it.
    TwoOrOne,
    /// HTTP/1.1 alone: small downloads.
    One,
}

impl Http {
    fn protocols(self) -> Vec<Vec<u8>> {
        let (two, one) = (b"h2".to_vec(), b"http/1.1".to_vec());
        match self {
            Self::Two => vec![two],
            Self::TwoOrOne => vec![two, one],
            Self::One => vec![one],
        }
    }
}

/// Whom a server lets in.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Anyone, without a certificate: what is served is public or proves itself.
    Anonymous,
    /// Whoever shows a certificate that the policy accepts, and nobody else.
    Known(Arc<dyn PeerPolicy>),
}

/// The answering side of TLS.
#[derive(Clone)]
pub struct Server {
    acceptor: tokio_rustls::TlsAcceptor,
    http: Http,
}

impl Server {
    /// A server that shows `identity` and lets in `clients`. Both are asked at each handshake anew.
    pub fn new(
        identity: Arc<Identity>,
        clients: Clients,
        http: Http,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let builder = rustls::ServerConfig::builder_with_details(profile(), Arc::new(CivilTime(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Setup)?;
        let builder = match clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::Known(policy) => {
                builder.with_client_cert_verifier(Arc::new(PeerVerifier::new(policy, &profile())))
            }
        };
        let mut config = builder.with_cert_resolver(identity);
        config.alpn_protocols = http.protocols();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { acceptor: Arc::new(config).into(), http })
    }

    /// The versions of HTTP that it offers.
    pub fn http(&self) -> Http {
        self.http
    }

    /// Makes the handshake over `stream`.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await.map(TlsStream::Server)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("http", &self.http).finish_non_exhaustive()
    }
}

/// The calling side of TLS.
#[derive(Clone)]
pub struct Client {
    connector: tokio_rustls::TlsConnector,
    http: Http,
}

impl Client {
    /// A client that shows `identity`, if it is asked for a certificate, and accepts what `server` accepts. Both are
    /// asked at each handshake anew.
    pub fn new(
        identity: Option<Arc<Identity>>,
        server: Arc<dyn PeerPolicy>,
        http: Http,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let builder = rustls::ClientConfig::builder_with_details(profile(), Arc::new(CivilTime(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Setup)?
            .dangerous() // the library's word for a verifier of one's own
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(server, &profile())));
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(identity),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = http.protocols();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(Self { connector: Arc::new(config).into(), http })
    }

    /// The versions of HTTP that it asks for.
    pub fn http(&self) -> Http {
        self.http
    }

    /// Makes the handshake over `stream`. `host`, a name or an address, tells a server of many names which one is
    /// meant; whether the certificate is right is for the policy alone to say.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.connector.connect(name, stream).await.map(TlsStream::Client)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("http", &self.http).finish_non_exhaustive()
    }
}

/// The chain that the other side showed, its own certificate first; empty if it showed none.
pub fn peer_chain<S>(stream: &TlsStream<S>) -> Arc<[CertificateDer<'static>]> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect()
}

/// Our clock as the library asks it.
#[derive(Debug)]
struct CivilTime(Arc<dyn Clock>);

impl TimeProvider for CivilTime {
    fn current_time(&self) -> Option<UnixTime> {
        // Before 1970 nothing is valid: none, and the handshake fails.
        let seconds = u64::try_from(self.0.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
