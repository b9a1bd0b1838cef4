//! Every door of the demonstration, with what a script needs to come in: `DIR/endpoints.json`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The name of the file.
pub(crate) const FILE: &str = "endpoints.json";

/// All doors. Paths are relative to the demonstration's directory.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// How an agency calls: the door, and the metadata of a call that is granted.
    pub(crate) call: Call,
    /// The register's own address; behind the security server, not for agencies.
    pub(crate) register: String,
    /// How an agency calls over HTTP.
    pub(crate) rest: Rest,
    /// The schema of the register's services, if it is the invented one.
    pub(crate) schema: Option<String>,
    /// The configuration anchor: what an auditor begins with.
    pub(crate) anchor: String,
    pub(crate) luebeck: SecurityServer,
    pub(crate) gewerberegister: SecurityServer,
    pub(crate) registry: Registry,
    pub(crate) cosigner: Cosigner,
    /// One in each state; none where the instance was founded before there were any.
    #[serde(default)]
    pub(crate) witnesses: Vec<Witness>,
    /// How the two administrators sign in.
    pub(crate) administrators: BTreeMap<String, Administrator>,
}

/// A call that is granted.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) address: SocketAddr,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An HTTP call that is granted: what stands before the path, and the headers.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub(crate) base: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// The register's own URL; behind the security server, not for agencies.
    pub(crate) register: String,
}

/// A security server's doors.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SecurityServer {
    pub(crate) id: String,
    /// For `trave-gateway VERB --config`.
    pub(crate) configuration: String,
    /// For other security servers: mutual TLS.
    pub(crate) peer: SocketAddr,
    /// /healthz and /metrics
    pub(crate) operations: SocketAddr,
    /// The operator door, a Unix socket.
    pub(crate) operator: String,
}

/// The registry's doors.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Registry {
    pub(crate) configuration: String,
    /// gRPC over mutual TLS, for administrators.
    pub(crate) admin: SocketAddr,
    /// The global configuration and enrolment, over HTTPS, for security servers.
    pub(crate) public: SocketAddr,
    /// Base URL of OCSP, revocation list and timestamps: cleartext HTTP, what is answered is signed.
    pub(crate) trust_services: SocketAddr,
}

/// The cosigner's door.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Cosigner {
    pub(crate) configuration: String,
    /// gRPC over mutual TLS, for the registry.
    pub(crate) address: SocketAddr,
}

/// A witness of message logs.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Witness {
    /// The member class of its state.
    pub(crate) class: String,
    pub(crate) configuration: String,
    /// Cleartext HTTP (C2SP tlog-witness): what comes in and what is answered prove themselves.
    pub(crate) address: SocketAddr,
    /// Its verifier key.
    pub(crate) key: String,
}

/// An administrator's files.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Administrator {
    pub(crate) name: String,
    /// For `trave-registry admin --config`.
    pub(crate) configuration: String,
}

impl Endpoints {
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Addresses on this machine that nobody uses now, all different.
pub(crate) fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    // All are held until the last is found, so that none is given twice.
    let mut held = Vec::with_capacity(N);
    for _ in 0..N {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?);
    }
    let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("no free port"))
}
