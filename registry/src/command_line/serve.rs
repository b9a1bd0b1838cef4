//! Running a registry, a cosigner or a witness until the process is told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use trave_host::logging::{Format, begin};
use trave_proto::clock::Clock;

use super::Failure;
use crate::config::{CosignerSettings, RegistrySettings, WitnessSettings};
use crate::{Cosigner, Registry, Witness};

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The configuration file
    #[arg(long, env = "TRAVE_CONFIG")]
    config: PathBuf,
    /// What is logged: error, warn, info, debug, or a filter
    #[arg(long, default_value = "info")]
    log: String,
    /// Log in JSON also at a terminal, one object per line
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CosignerArguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// Begin with the memory of a cosigner that never signed anything; never after a loss
    #[arg(long)]
    begin: bool,
}

impl ServeArguments {
    fn begin_log(&self) -> Result<(), Failure> {
        let format = if self.log_json { Format::Json } else { Format::Automatic };
        Ok(begin(&self.log, format)?)
    }
}

pub(super) async fn registry(arguments: ServeArguments, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    arguments.begin_log()?;
    let settings = RegistrySettings::load(&arguments.config)?;
    let registry = Registry::start(settings, clock).await?;
    registry.drain().on_signals()?;
    registry.drain().begun().await;
    registry.stop().await;
    Ok(())
}

pub(super) async fn cosigner(arguments: CosignerArguments, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    arguments.serve.begin_log()?;
    let settings = CosignerSettings::load(&arguments.serve.config)?;
    if arguments.begin {
        Cosigner::begin(&settings)?;
    }
    let cosigner = Cosigner::start(settings, clock).await?;
    cosigner.drain().on_signals()?;
    cosigner.drain().begun().await;
    cosigner.stop().await;
    Ok(())
}

pub(super) async fn witness(arguments: ServeArguments, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    arguments.begin_log()?;
    let settings = WitnessSettings::load(&arguments.config)?;
    let witness = Witness::start(settings, clock).await?;
    witness.drain().on_signals()?;
    witness.drain().begun().await;
    witness.stop().await;
    Ok(())
}
