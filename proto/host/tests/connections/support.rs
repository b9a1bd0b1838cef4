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
