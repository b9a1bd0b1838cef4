//! Services of registers behind this security server: where each is, and what is kept of its calls.

use std::time::Duration;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::ServiceId;

use super::{MOST, OneOrMore, Parsed, RegisterAddress, Subject, ToXRoad};

/// Which contents the message log keeps. What is not kept is proved by its commitment alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepContent {
    /// Neither requests nor answers.
    None,
    /// Requests.
    Request,
    /// Requests and answers.
    All,
}

/// A service that a register behind this security server offers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The service.
    pub id: Parsed<ServiceId>,
    /// Of gRPC: `http://host:port` of the register; on loopback, else `https://` with `register_certificate`. Several in a
    /// list, if several servers answer the same: calls go to those that can be reached.
    backend: Option<OneOrMore<String>>,
    /// Of REST: `http://host:port/base` of the register, in the same way.
    url: Option<OneOrMore<String>>,
    /// Of REST: the register speaks HTTP/2, not HTTP/1.1.
    #[serde(default)]
    http2: bool,
    /// Of REST: the register is a service of an existing X-Road instance, and this one bridges to it.
    x_road: Option<ToXRoad>,
    /// Of REST: its OpenAPI description (JSON), which callers may read.
    openapi: Option<FilePath>,
    /// Whom its calls concern.
    pub subject: Option<Subject>,
    /// The register's certificate (PEM) that is pinned; several in a list.
    register_certificate: Option<OneOrMore<FilePath>>,
    /// What is kept of the contents.
    pub keep_content: KeepContent,
    /// How long the register may take to begin an answer once it has the whole request, in seconds. Streams have the
    /// limits of all exchanges beside it.
    #[serde(default = "thirty")]
    pub time_out_seconds: u64,
}

impl Service {
    /// Where the register is; an error in words if it is not clear or not safe.
    pub fn register(&self) -> Result<RegisterAddress<'_>, String> {
        match (&self.backend, &self.url, &self.x_road) {
            (Some(_), None, None) if self.http2 => Err("http2 is for REST: gRPC is HTTP/2 always".into()),
            (None, None, Some(_)) if self.http2 => Err("X-Road speaks HTTP/1.1".into()),
            (Some(backend), None, None) => RegisterAddress::grpc(backend),
            (None, Some(url), None) => RegisterAddress::rest(url, self.http2),
            (None, None, Some(x_road)) => x_road.register(),
            _ => Err("a service has one of backend (gRPC), url (REST) and x_road (a bridge)".into()),
        }
    }

    /// The bridge that stands in the register's place.
    pub fn x_road(&self) -> Option<&ToXRoad> {
        self.x_road.as_ref()
    }

    /// The file with its OpenAPI description.
    pub fn openapi(&self) -> Option<&FilePath> {
        self.openapi.as_ref()
    }

    /// The register's pinned certificates.
    pub fn register_certificates(&self) -> &[FilePath] {
        self.register_certificate.as_deref().unwrap_or_default()
    }

    /// How long the register may take.
    pub fn time_out(&self) -> Duration {
        Duration::from_secs(self.time_out_seconds)
    }

    pub(super) fn check(&self, key: &str, problems: &mut Problems) {
        match self.register() {
            Err(what) => {
                let (field, hint) = match (&self.url, &self.x_road) {
                    (None, Some(_)) => ("x_road.url", "write http://127.0.0.1:8080"),
                    (Some(_), _) => ("url", "write http://127.0.0.1:50051"),
                    _ => ("backend", "write http://127.0.0.1:50051"),
                };
                problems.add(format!("{key}.{field}"), what).hint(hint);
            }
            Ok(register) if register.tls && self.register_certificate.is_none() => {
                let what = "a register over TLS needs the certificate that is pinned";
                problems.add(format!("{key}.register_certificate"), what);
            }
            Ok(_) => {}
        }
        if let Some(subject) = &self.subject {
            subject.check(&format!("{key}.subject"), self.backend.is_some(), problems);
        }
        if let Some(x_road) = &self.x_road {
            x_road.check(&format!("{key}.x_road"), problems);
        }
        if self.time_out_seconds == 0 || self.time_out_seconds > MOST {
            problems.add(format!("{key}.time_out_seconds"), format!("is not between 1 and {MOST}"));
        }
    }
}

const fn thirty() -> u64 {
    30
}
