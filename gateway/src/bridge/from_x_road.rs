//! A door of ours that is a service's backend in an X-Road instance: which of its clients may ask what of ours, and what the
//! bridge says in their place.

use std::collections::HashMap;

use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ServiceId, SubsystemId, XRoadClientId};
use trave_proto::message::Code;

use crate::config;

/// Who may come over the bridge.
#[derive(Debug)]
pub(crate) struct FromXRoad(HashMap<(XRoadClientId, ServiceId), Spoken>);

/// What X-Road does not say, and the bridge does.
#[derive(Debug, Clone)]
struct Spoken {
    subsystem: Option<SubsystemId>,
    purpose: Code,
    legal_basis: Code,
}

/// A client of the other instance that may ask this service of ours. [`FromXRoad::admit`] is its only maker.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Who asks there.
    pub(crate) client: XRoadClientId,
    /// Who asks here: one of the bridge's own subsystems, the door's only one if none is named.
    pub(crate) subsystem: Option<SubsystemId>,
    pub(crate) purpose: Code,
    pub(crate) legal_basis: Code,
}

impl FromXRoad {
    /// As configured.
    pub(crate) fn new(configured: &[config::FromXRoad]) -> Self {
        let mut listed = HashMap::new();
        for one in configured {
            let spoken = Spoken {
                subsystem: one.subsystem.as_ref().map(|subsystem| subsystem.0.clone()),
                purpose: one.purpose.0.clone(),
                legal_basis: one.legal_basis.0.clone(),
            };
            for service in &one.services {
                listed.insert((one.client.0.clone(), service.0.clone()), spoken.clone());
            }
        }
        Self(listed)
    }

    /// Lets a client of the other instance ask a service of ours, if that is listed.
    pub(crate) fn admit(
        &self,
        client: Option<XRoadClientId>,
        service: &ServiceId,
    ) -> Result<Admitted, Fault> {
        let Some(client) = client else {
            let why =
                "the header x-road-client is missing: a security server of X-Road gives it to its services";
            return Err(Fault::before_call(Reason::InvalidClientIdentifier, Side::Client, why));
        };
        let key = (client, service.clone());
        let Some(spoken) = self.0.get(&key) else {
            let why = format!("the bridge lets {} not ask {service}: its operator lists who may", key.0);
            return Err(Fault::before_call(Reason::AccessDenied, Side::ClientServer, why));
        };
        let Spoken { subsystem, purpose, legal_basis } = spoken.clone();
        Ok(Admitted { client: key.0, subsystem, purpose, legal_basis })
    }
}
