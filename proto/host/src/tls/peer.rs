//! Who is believed on the other side of a connection.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use webpki::{EndEntityCert, KeyUsage};

use super::TlsError;

/// Decides at each handshake whether the other side is who it should be. That it holds the private key of the first
/// certificate is checked beside this, always.
pub trait PeerPolicy: fmt::Debug + Send + Sync {
    /// Accepts `chain`, the peer's own certificate first and never empty, at the time `now`; or says, for a person and
    /// the log, why not.
    fn check(&self, chain: &[CertificateDer<'_>], now: Time) -> Result<(), String>;
}

/// Accepts exactly the certificates with the listed public keys, whoever issued them.
///
/// The list is the authority: validity periods are not looked at, and a key is withdrawn by striking it off.
#[derive(Clone, Debug, Default)]
pub struct Pinned(BTreeSet<Digest>);

impl Pinned {
    /// Accepts the keys whose SubjectPublicKeyInfo has one of these SHA-256 digests.
    pub fn new(keys: impl IntoIterator<Item = Digest>) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl PeerPolicy for Pinned {
    fn check(&self, chain: &[CertificateDer<'_>], _now: Time) -> Result<(), String> {
        check_listed(&self.0, chain)
    }
}

/// Accepts what a certification authority issued for the purpose, while it is valid (RFC 5280), optionally for one
/// name and with one of the listed keys alone.
pub struct Authority {
    anchors: Vec<TrustAnchor<'static>>,
    purpose: KeyUsage,
    name: Option<ServerName<'static>>,
    keys: Option<BTreeSet<Digest>>,
}

impl Authority {
    /// Accepts servers called `name`, a host name or an address, with certificates under one of `authorities`.
    pub fn for_server(
        authorities: &[CertificateDer<'_>],
        name: ServerName<'static>,
    ) -> Result<Self, TlsError> {
        let anchors = anchors(authorities)?;
        Ok(Self { anchors, purpose: KeyUsage::server_auth(), name: Some(name), keys: None })
    }

    /// Accepts clients with certificates under one of `authorities`.
    pub fn for_clients(authorities: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        Ok(Self { anchors: anchors(authorities)?, purpose: KeyUsage::client_auth(), name: None, keys: None })
    }

    /// Accepts of these only those whose SubjectPublicKeyInfo has one of these SHA-256 digests.
    #[must_use]
    pub fn with_keys(self, keys: impl IntoIterator<Item = Digest>) -> Self {
        Self { keys: Some(keys.into_iter().collect()), ..self }
    }
}

impl PeerPolicy for Authority {
    fn check(&self, chain: &[CertificateDer<'_>], now: Time) -> Result<(), String> {
        let (own, intermediates) = chain.split_first().ok_or("no certificate was shown")?;
        let certificate = EndEntityCert::try_from(own).map_err(unreadable)?;
        let seconds = u64::try_from(now.as_secs()).map_err(|_| "the clock stands before 1970")?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        certificate
            .verify_for_usage(algorithms, &self.anchors, intermediates, time, self.purpose, None, None)
            .map_err(|error| {
                format!("the certificate does not hold under the trusted authorities: {error}")
            })?;
        if let Some(name) = &self.name {
            certificate
                .verify_is_valid_for_subject_name(name)
                .map_err(|_| format!("the certificate is not for {}", name.to_str()))?;
        }
        self.keys.as_ref().map_or(Ok(()), |keys| check_listed(keys, chain))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("authorities", &self.anchors.len())
            .field("name", &self.name)
            .field("keys", &self.keys)
            .finish()
    }
}

/// The SHA-256 of a certificate's SubjectPublicKeyInfo, as the global configuration and [`Pinned`] list it.
pub fn public_key_digest(certificate: &CertificateDer<'_>) -> Result<Digest, TlsError> {
    let certificate = EndEntityCert::try_from(certificate).map_err(TlsError::Certificate)?;
    Ok(Digest::of(&certificate.subject_public_key_info()))
}

fn check_listed(keys: &BTreeSet<Digest>, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let own = chain.first().ok_or("no certificate was shown")?;
    let digest = public_key_digest(own).map_err(|error| error.to_string())?;
    if keys.contains(&digest) {
        return Ok(());
    }
    Err(format!("the certificate's key {digest} is not among those listed"))
}

fn anchors(authorities: &[CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'static>>, TlsError> {
    authorities
        .iter()
        .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificate)
}

fn unreadable(error: webpki::Error) -> String {
    format!("the certificate cannot be read: {error}")
}
