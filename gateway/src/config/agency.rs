//! The doors for agency systems, as an operator writes them.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::{ServiceId, SubsystemId};

use super::x_road::{self, FromXRoad};
use super::{KeepContent, Parsed};

/// A door for agency systems.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agency {
    /// `host:port`, or `unix:PATH`. Without TLS on loopback or a Unix socket only.
    pub listen: String,
    /// Without TLS: the one subsystem that this door speaks for.
    pub subsystem: Option<Parsed<SubsystemId>>,
    /// With TLS: this door's certificate chain (PEM).
    certificate: Option<FilePath>,
    /// With TLS: its key (encrypted PKCS #8, under the same passphrase).
    key: Option<FilePath>,
    /// With TLS: who may come in, each by the certificate that is pinned.
    #[serde(default)]
    pub clients: Vec<AgencyClient>,
    /// What is kept of the contents of calls made here.
    pub keep_content: KeepContent,
    /// Services whose answers carry X-Road's hash of the request: it has no salt, and tells what was asked to whoever keeps
    /// it, also after an erasure.
    #[serde(default)]
    pub request_hash: Vec<Parsed<ServiceId>>,
    /// This door is the service of an existing X-Road instance, and a bridge from it: which of its clients may ask what of
    /// ours. Nobody else comes in.
    pub x_road: Option<Vec<FromXRoad>>,
}

/// An agency system that signs in with a certificate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgencyClient {
    /// Its certificate (PEM); its key is what is pinned.
    certificate: FilePath,
    /// The subsystems that it may speak for.
    pub subsystems: Vec<Parsed<SubsystemId>>,
}

/// How an agency door is spoken to.
#[derive(Debug)]
pub enum AgencyTransport<'a> {
    /// Cleartext on loopback.
    Loopback(SocketAddr),
    /// A Unix socket.
    Unix(&'a Path),
    /// TLS with pinned client certificates: address, certificate chain, key.
    Tls(SocketAddr, &'a FilePath, &'a FilePath),
}

impl Agency {
    /// The subsystems that anybody at this door may speak for.
    fn subsystems(&self) -> Vec<&SubsystemId> {
        let known = self.clients.iter().flat_map(|client| &client.subsystems);
        let mut all: Vec<_> = self.subsystem.iter().chain(known).map(|subsystem| &subsystem.0).collect();
        all.sort();
        all.dedup();
        all
    }

    /// How this door is spoken to; an error in words if it is not clear or not safe.
    pub fn transport(&self) -> Result<AgencyTransport<'_>, String> {
        if let Some(path) = self.listen.strip_prefix("unix:") {
            return Ok(AgencyTransport::Unix(Path::new(path)));
        }
        let address: SocketAddr = self
            .listen
            .parse()
            .map_err(|_| format!("{:?} is neither host:port nor unix:PATH", self.listen))?;
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Ok(AgencyTransport::Tls(address, certificate, key)),
            (None, None) if address.ip().is_loopback() => Ok(AgencyTransport::Loopback(address)),
            (None, None) => {
                Err("without TLS a door for agency systems listens on loopback or a Unix socket only".into())
            }
            _ => Err("certificate and key come together".into()),
        }
    }

    pub(super) fn check(&self, key: &str, problems: &mut Problems) {
        if let Some(x_road) = &self.x_road {
            x_road::check(&format!("{key}.x_road"), x_road, &self.subsystems(), problems);
        }
        if self.x_road.is_some() && !self.request_hash.is_empty() {
            let what = "beyond a bridge, X-Road's own security server gives the hash of the request";
            problems.add(format!("{key}.request_hash"), what).hint("leave it out");
        }
        let tls = match self.transport() {
            Ok(transport) => matches!(transport, AgencyTransport::Tls(..)),
            Err(what) => {
                let hint = "give certificate, key and clients, or listen on 127.0.0.1";
                problems.add(format!("{key}.listen"), what).hint(hint);
                return;
            }
        };
        match (tls, &self.subsystem, self.clients.is_empty()) {
            (false, Some(_), true) | (true, None, false) => {}
            (false, ..) => problems
                .add(
                    format!("{key}.subsystem"),
                    "a door without TLS speaks for exactly one subsystem, and has no clients",
                )
                .hint("name the subsystem"),
            (true, ..) => problems
                .add(
                    format!("{key}.clients"),
                    "a door with TLS has clients, each with its certificate and subsystems",
                )
                .hint("move the subsystem into clients"),
        }
    }
}

impl AgencyClient {
    /// Path of the certificate, as written.
    pub fn certificate(&self) -> &FilePath {
        &self.certificate
    }
}
