//! What the configuration file offers: services with their registers, and routes. Read at start, and again when the file
//! has changed.

use std::collections::HashMap;
use std::sync::Arc;

use trave_host::config::Secret;
use trave_host::keys::SigningKey;
use trave_host::tls::{self, Identity};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::identifier::ServiceId;

use super::StartError;
use crate::config::{Config, ToXRoad};
use crate::custody::CustodyError;
use crate::exchange::{Offers, Route, Routes};
use crate::listener::agency::pin;
use crate::services::{Description, Files, Services};

/// All that is offered, or why it cannot be: nothing is half in use.
pub(super) fn read(config: &Config, clock: &Arc<dyn Clock>) -> Result<Offers, StartError> {
    Ok(Offers { services: services(config, clock)?, routes: routes(config) })
}

fn services(config: &Config, clock: &Arc<dyn Clock>) -> Result<Services, StartError> {
    let mut pins: HashMap<ServiceId, Vec<Digest>> = HashMap::new();
    for service in &config.service {
        for certificate in service.register_certificates() {
            let pinned = pin(&config.path(certificate)).map_err(StartError::Agency)?;
            pins.entry(service.id.0.clone()).or_default().push(pinned);
        }
    }
    let files = Files { pins, identities: identities(config)?, descriptions: descriptions(config)? };
    Services::new(&config.service, files, clock).map_err(StartError::Tls)
}

/// What bridges show to the security servers of other instances.
fn identities(config: &Config) -> Result<HashMap<ServiceId, Identity>, StartError> {
    let mut identities = HashMap::new();
    for service in &config.service {
        let Some((chain, key)) = service.x_road().and_then(ToXRoad::identity) else { continue };
        let passphrase = Secret::from_file(&config.passphrase_file())
            .map_err(|error| StartError::Custody(CustodyError::Passphrase(error)))?;
        let key = SigningKey::open(&config.path(key), &passphrase).map_err(StartError::BridgeKey)?;
        let chain = tls::chain_from_pem(&config.path(chain)).map_err(StartError::Tls)?;
        let identity = Identity::new(chain, Arc::new(key)).map_err(StartError::Tls)?;
        identities.insert(service.id.0.clone(), identity);
    }
    Ok(identities)
}

fn descriptions(config: &Config) -> Result<HashMap<ServiceId, Description>, StartError> {
    let mut descriptions = HashMap::new();
    for service in &config.service {
        let Some(file) = service.openapi() else { continue };
        let path = config.path(file);
        let refused = |why: String| StartError::Description(format!("{} {why}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let description = Description::read(&bytes).map_err(|why| refused(why.into()))?;
        descriptions.insert(service.id.0.clone(), description);
    }
    Ok(descriptions)
}

fn routes(config: &Config) -> Routes {
    let routes = config.route.iter().map(|route| Route {
        name: route.name.clone(),
        path: route.path.clone(),
        service: route.service.0.clone(),
        client: route.client.as_ref().map(|client| client.0.clone()),
        purpose: route.purpose.as_ref().map(|purpose| purpose.0.clone()),
        legal_basis: route.legal_basis.as_ref().map(|legal_basis| legal_basis.0.clone()),
    });
    Routes::new(routes.collect())
}
