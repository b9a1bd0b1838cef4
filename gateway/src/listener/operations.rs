//! The door for whoever watches machines: is the server well (`/healthz`, and `grpc.health.v1`), and its figures
//! (`/metrics`).

use std::sync::Arc;

use prometheus_client::registry::Registry as Figures;
use tonic_health::pb::health_server::HealthServer;
use trave_host::drain::Drain;
use trave_host::listen::{Connection, Limits, ListenError, Listener, TowerToHyperService};
use trave_host::metrics;
use trave_host::tls::Http;

use super::health::Told;
use crate::config::Config;
use crate::upkeep::Upkeep;

/// One machine or two ask, every few seconds.
const CONNECTIONS: usize = 32;

/// Opens the door, if one is configured.
pub(crate) async fn open(config: &Config) -> Result<Option<Listener>, ListenError> {
    let Some(operations) = &config.operations else { return Ok(None) };
    let listener = Listener::tcp(operations.listen, Http::TwoOrOne).await?;
    Ok(Some(listener.with_limits(Limits { connections: CONNECTIONS, ..Limits::default() })))
}

/// Serves until the server drains.
pub(crate) async fn serve(listener: Listener, mut figures: Figures, upkeep: Arc<Upkeep>, drain: Drain) {
    upkeep.register(&mut figures);
    let health = HealthServer::new(Told::new(Arc::clone(&upkeep), drain.clone()));
    let health = tonic::service::Routes::new(health).into_axum_router();
    let router = health.merge(metrics::router(Arc::new(figures), move || upkeep.health()));
    listener.serve(drain, move |_: &mut Connection| TowerToHyperService::new(router.clone())).await;
}
