//! Servers and certificates for the tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use trave_host::client::{Channel, ConnectError};
use trave_host::clock::ManualClock;
use trave_host::drain::Drain;
use trave_host::keys::{Sign, SigningKey};
use trave_host::listen::{Connection, Listener};
use trave_host::tls::{self, Clients, Http, Identity, PeerPolicy, Pinned};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;

/// 2026-11-21T00:00:00Z
pub(crate) const NOW: Time = Time::from_millis(1_795_219_200_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

/// A key of ours as rcgen sees it.
struct Ours<'a>(&'a SigningKey);

impl rcgen::PublicKeyData for Ours<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.public_key_info()[26..]
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Ours<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).unwrap())
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 11, 20);
    params.not_after = rcgen::date_time_ymd(2027, 11, 20);
    params
}

/// A certificate of its own making, and what it is listed by.
pub(crate) fn self_signed(name: &str) -> (Vec<CertificateDer<'static>>, Arc<SigningKey>, Digest) {
    let key = Arc::new(SigningKey::generate().unwrap());
    let certificate = params(name).self_signed(&Ours(&key)).unwrap();
    let digest = key.public_key_digest();
    (vec![certificate.der().clone()], key, digest)
}

/// An identity of its own making, and what it is listed by.
pub(crate) fn identity(name: &str) -> (Arc<Identity>, Digest) {
    let (chain, key, digest) = self_signed(name);
    (Arc::new(Identity::new(chain, key).unwrap()), digest)
}

/// A certification authority.
pub(crate) struct TestAuthority {
    key: rcgen::KeyPair,
    certificate: CertificateDer<'static>,
    params: CertificateParams,
}

impl TestAuthority {
    pub(crate) fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { key, certificate, params }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// A certificate for a server called `name`, valid until [`after_their_end`].
    pub(crate) fn server(&self, name: &str) -> (Arc<Identity>, Digest) {
        let key = Arc::new(SigningKey::generate().unwrap());
        let mut params = params(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&Ours(&key), &issuer).unwrap();
        let digest = key.public_key_digest();
        (Arc::new(Identity::new(vec![certificate.der().clone()], key).unwrap()), digest)
    }
}

/// When the certificates made here have ended.
pub(crate) fn after_their_end() -> Time {
    NOW.plus(YEAR)
}

pub(crate) fn pinned<const N: usize>(keys: [Digest; N]) -> Arc<dyn PeerPolicy> {
    Arc::new(Pinned::new(keys))
}

/// A TLS server for clients with the listed keys.
pub(crate) fn server_tls(identity: &Arc<Identity>, clients: Arc<dyn PeerPolicy>) -> tls::Server {
    tls::Server::new(Arc::clone(identity), Clients::Known(clients), Http::Two, clock()).unwrap()
}

pub(crate) fn client_tls(identity: &Arc<Identity>, server: Arc<dyn PeerPolicy>) -> tls::Client {
    tls::Client::new(Some(Arc::clone(identity)), server, Http::Two, clock()).unwrap()
}

pub(crate) const ANYWHERE: &str = "127.0.0.1:0";

pub(crate) async fn tls_listener(tls: tls::Server) -> (Listener, SocketAddr) {
    let listener = Listener::tls(ANYWHERE.parse().unwrap(), tls).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Serves what it learnt of the caller: the other end, and the digest of its certificate's key.
pub(crate) fn serve_mirror(listener: Listener, drain: &Drain) {
    let serving = listener.serve(drain.clone(), |connection: &mut Connection| {
        connection.extensions.insert("what the maker added");
        service_fn(mirror)
    });
    drain.spawn(serving);
}

async fn mirror(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let connection = request.extensions().get::<Connection>().unwrap();
    let key = connection.chain.first().map(|own| tls::public_key_digest(own).unwrap().to_string());
    let added = request.extensions().get::<&str>().unwrap();
    let text = format!("{} {} {added}", connection.peer, key.unwrap_or_else(|| "nobody".to_owned()));
    Ok(Response::new(Full::from(text)))
}

pub(crate) type Plain = Channel<Empty<Bytes>>;

pub(crate) async fn connect(address: SocketAddr, tls: &tls::Client) -> Result<Plain, ConnectError> {
    Channel::tls(&address.to_string(), tls).await
}

/// One request; the body of its answer.
pub(crate) async fn ask(channel: &mut Plain) -> Result<String, hyper::Error> {
    let response = channel.send(Request::get("/").body(Empty::new()).unwrap()).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// An error with its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    trave_host::config::with_causes(error)
}

/// An HTTP/2 connection whose frames are written by hand (RFC 9113).
pub(crate) struct Raw(TcpStream);

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;

    /// Connects with these settings, and waits until the other side has said its own and taken these.
    pub(crate) async fn connect(address: impl ToSocketAddrs, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut raw = Self(stream);
        raw.send(Self::SETTINGS, 0, 0, settings).await;
        while raw.next().await.is_some_and(|came| (came.kind, came.flags) != (Self::SETTINGS, 1)) {}
        raw
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// GET / on this stream (the fields stand in the table of RFC 7541, appendix A).
    pub(crate) async fn get(&mut self, stream: u32) {
        self.send(Self::HEADERS, 5, stream, &[0x82, 0x86, 0x84]).await;
    }

    /// The next frame; none when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Came> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]).try_into().unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Came { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}
