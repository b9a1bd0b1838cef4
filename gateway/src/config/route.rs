//! What callers need not say: routes.

use serde::Deserialize;
use trave_host::config::Problems;
use trave_proto::identifier::{Method, ServiceId, SubsystemId};
use trave_proto::message::Code;

use super::Parsed;

/// A route fixes for callers what they do not say; the proof tells that it did.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in manifests: printable, no spaces.
    pub name: String,
    /// Calls whose path begins with this take the route.
    pub path: String,
    /// The service called.
    pub service: Parsed<ServiceId>,
    /// The client; where the door speaks for one subsystem it need not be said.
    pub client: Option<Parsed<SubsystemId>>,
    /// The purpose.
    pub purpose: Option<Parsed<Code>>,
    /// The legal basis.
    pub legal_basis: Option<Parsed<Code>>,
}

impl Route {
    pub(super) fn check(&self, key: &str, problems: &mut Problems) {
        let printable = |b: u8| (0x21..0x7f).contains(&b);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(printable) {
            problems.add(format!("{key}.name"), "is not 1 to 64 printable characters without spaces");
        }
        let whole = self.path.parse::<Method>().is_ok();
        if !self.path.starts_with('/') || !(whole || self.path.ends_with('/')) {
            problems.add(
                format!("{key}.path"),
                "is neither /package.Service/Method nor the beginning of a path with a slash at its end",
            );
        }
    }
}
