//! Bridges to existing X-Road instances, as an operator writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::{ServiceId, SubsystemId, XRoadClientId, XRoadServerId, XRoadServiceId};
use trave_proto::message::Code;

use super::{OneOrMore, Parsed, RegisterAddress};

/// The register is a service of an X-Road instance, reached through the client port of a security server there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToXRoad {
    /// `https://host:port` of that port, with `register_certificate`; `http://` on loopback. No path. Several in a list, if
    /// several security servers serve the same clients.
    url: OneOrMore<String>,
    /// The service there, `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    pub service: Parsed<XRoadServiceId>,
    /// Who of our clients may cross, and as whom each is registered there. Nobody else crosses.
    pub clients: BTreeMap<Parsed<SubsystemId>, Parsed<XRoadClientId>>,
    /// The one security server there that is to answer, where not any may.
    pub security_server: Option<Parsed<XRoadServerId>>,
    /// The certificate chain (PEM) that is shown there, and its key (encrypted PKCS #8, under the same passphrase): for the
    /// connection type HTTPS with authentication.
    certificate: Option<FilePath>,
    key: Option<FilePath>,
}

impl ToXRoad {
    /// Where the security server there is; an error in words if it is not clear or not safe.
    pub(super) fn register(&self) -> Result<RegisterAddress<'_>, String> {
        let register = RegisterAddress::rest(&self.url, false)?;
        match register.rest {
            Some(("", _)) => Ok(register),
            _ => Err("the client port of a security server has no path: the service says it".into()),
        }
    }

    /// Certificate chain and key that are shown, if any are.
    pub fn identity(&self) -> Option<(&FilePath, &FilePath)> {
        self.certificate.as_ref().zip(self.key.as_ref())
    }

    pub(super) fn check(&self, key: &str, problems: &mut Problems) {
        if self.clients.is_empty() {
            problems
                .add(format!("{key}.clients"), "is empty: nobody could cross this bridge")
                .hint("\"NORD/SH/luebeck/gewerbeamt\" = \"EE/GOV/90000001/trave\"");
        }
        if self.certificate.is_some() != self.key.is_some() {
            problems.add(format!("{key}.certificate"), "certificate and key come together");
        }
        if self.certificate.is_some() && self.register().is_ok_and(|register| !register.tls) {
            problems.add(format!("{key}.certificate"), "is shown over TLS alone, and the url is http://");
        }
    }
}

/// A client of an X-Road instance that may ask here, and for what the bridge asks in its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromXRoad {
    /// The client there, `INSTANCE/CLASS/MEMBER[/SUBSYSTEM]`.
    pub client: Parsed<XRoadClientId>,
    /// The services of ours that it may ask. What it may ask of each, the provider's grants say.
    pub services: Vec<Parsed<ServiceId>>,
    /// The purpose: X-Road knows none.
    pub purpose: Parsed<Code>,
    /// The legal basis: X-Road knows none.
    pub legal_basis: Parsed<Code>,
    /// The subsystem of the bridge's that stands for it, and that grants are for; where the door speaks for one it need not
    /// be said.
    pub subsystem: Option<Parsed<SubsystemId>>,
}

/// Each client and service stands there once, for one purpose, behind one subsystem that the door speaks for.
pub(super) fn check(key: &str, listed: &[FromXRoad], door: &[&SubsystemId], problems: &mut Problems) {
    if listed.is_empty() {
        problems
            .add(key, "is empty: nobody could come in at this door")
            .hint("list the clients of the X-Road instance that may ask, or leave x_road out");
    }
    let mut seen = BTreeSet::new();
    for (at, one) in listed.iter().enumerate() {
        let key = format!("{key}[{at}]");
        if one.services.is_empty() {
            problems.add(format!("{key}.services"), "is empty: the client could ask nothing");
        }
        for service in &one.services {
            if !seen.insert((&one.client, service)) {
                let what = format!("{} stands here twice for {}", service.0, one.client.0);
                problems.add(format!("{key}.services"), what).hint("give each purpose a door of its own");
            }
        }
        match &one.subsystem {
            Some(subsystem) if !door.contains(&&subsystem.0) => {
                problems.add(format!("{key}.subsystem"), "is none that this door speaks for");
            }
            None if door.len() > 1 => {
                problems.add(format!("{key}.subsystem"), "is missing, and the door speaks for several");
            }
            _ => {}
        }
    }
}
