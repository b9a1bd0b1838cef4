//! The configuration files of the two security servers, as their operators would write them.

use std::net::SocketAddr;

use crate::endpoints::Endpoints;
use crate::instance::{AKTEN, AUSKUNFT, CLIENT, ERLAUBNIS_GUELTIG, GEWERBEREGISTER, LUEBECK};

/// Lübeck's: agencies call here.
pub(crate) fn luebeck(endpoints: &Endpoints) -> String {
    let agency = endpoints.call.address;
    format!(
        r#"{}
# The trade office's system calls here. Without TLS on loopback only; whoever comes in speaks for exactly this subsystem.
[[agency]]
listen = "{agency}"
subsystem = "{CLIENT}"
keep_content = "all"               # this office keeps what it asked and what it was told, encrypted, until erased
"#,
        common(LUEBECK, endpoints, endpoints.luebeck.peer, endpoints.luebeck.operations),
    )
}

/// The trade register's: what it offers.
pub(crate) fn gewerberegister(endpoints: &Endpoints) -> String {
    let (register, rest) = (&endpoints.register, &endpoints.rest.register);
    format!(
        r#"{}
# The record of a business (Auskunft). TLS to the register would be needed if it did not stand on this machine.
[[service]]
id = "{AUSKUNFT}"
backend = "http://{register}"
keep_content = "request"           # MV keeps what was asked; the answers stand in the register anyway
time_out_seconds = 30

# Whether a licence is valid: yes or no.
[[service]]
id = "{ERLAUBNIS_GUELTIG}"
backend = "http://{register}"
keep_content = "none"              # the proof holds without it
time_out_seconds = 30

# The same records over HTTP, for systems that speak REST.
[[service]]
id = "{AKTEN}"
url = "{rest}"
keep_content = "request"
time_out_seconds = 30
"#,
        common(
            GEWERBEREGISTER,
            endpoints,
            endpoints.gewerberegister.peer,
            endpoints.gewerberegister.operations
        ),
    )
}

/// What every security server has.
fn common(id: &str, endpoints: &Endpoints, peer: SocketAddr, operations: SocketAddr) -> String {
    let registry = endpoints.registry.public;
    format!(
        r#"# Security server {id}. Paths begin where this file stands. Check it: trave-gateway check-config --config gateway.toml
server = "{id}"
data = "data"                      # keys, certificates, configurations, message log
passphrase_file = "passphrase"     # opens the private keys; readable by this server's user alone

# Where the global configuration is published. Whom to believe was fixed at enrolment.
[registry]
address = "{registry}"
poll_seconds = 2                   # the demonstration does not wait a minute for a change

# Other security servers call here: mutual TLS 1.3.
[peer]
listen = "{peer}"

# /healthz and /metrics
[operations]
listen = "{operations}"

[log]
segment_mib = 16                   # small, for a demonstration
checkpoint_seconds = 2             # 60 by default
"#
    )
}
