//! The door for data-protection cockpits, as an operator writes it.

use std::net::SocketAddr;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::MemberId;

use super::Parsed;

/// The door at which a cockpit asks for a person who asked about that person: mutual TLS, pinned certificates. Without this
/// section there is none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cockpit {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// This door's certificate chain (PEM).
    pub certificate: FilePath,
    /// Its key (encrypted PKCS #8, under the same passphrase).
    pub key: FilePath,
    /// Who may come in.
    pub clients: Vec<CockpitClient>,
}

/// A cockpit that signs in with a certificate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CockpitClient {
    /// Its certificate (PEM); its key is what is pinned.
    pub certificate: FilePath,
    /// The authority that runs it, which has made sure who the person is.
    pub authority: Parsed<MemberId>,
}

impl Cockpit {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.clients.is_empty() {
            let hint = "name each cockpit's certificate and authority, or leave the section out";
            problems.add("cockpit.clients", "nobody may come in at this door").hint(hint);
        }
    }
}
