//! Bridges to existing X-Road instances, as an operator writes them.

use std::collections::BTreeMap;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};
use trave_proto::identifier::{SubsystemId, XRoadClientId, XRoadServerId, XRoadServiceId};

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
