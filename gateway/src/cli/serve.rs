//! `run` and `check-config`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use trave_host::clock::SystemClock;
use trave_host::config::Secret;
use trave_host::drain::Drain;
use trave_host::logging::{self, Format};

use crate::config::Config;
use crate::custody::Layout;
use crate::security_server::SecurityServer;

/// Serves until told to stop.
pub(super) fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    logging::begin("info", Format::Automatic)?;
    runtime()?.block_on(async {
        let drain = Drain::new();
        let unhandled = "the system does not let signals be handled";
        drain.on_signals().context(unhandled)?;
        let mut changed = signal(SignalKind::hangup()).context(unhandled)?;
        let server = SecurityServer::start(config, Arc::new(SystemClock), drain.clone()).await?;
        loop {
            tokio::select! {
                () = drain.begun() => break,
                _ = changed.recv() => reload(&server, path),
            }
        }
        server.finish().await;
        Ok(())
    })
}

/// Reads the configuration again (SIGHUP). One that is not usable changes nothing.
fn reload(server: &SecurityServer, path: &Path) {
    let read = Config::read(path).map_err(anyhow::Error::from);
    match read.and_then(|config| Ok(server.reload(&config)?)) {
        Ok(waiting) => {
            tracing::info!(
                "the configuration was read again (SIGHUP): its services, routes and limits are in use"
            );
            if !waiting.is_empty() {
                let sections = waiting.join(", ");
                tracing::warn!(sections, "what else has changed comes into use with a restart");
            }
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(error, "the configuration is refused, and the one before stays in use");
        }
    }
}

/// A runtime with a thread for each core.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the system gives no threads")
}

/// Who may pass which bridge, a line each: what an operator compares with what the other instance was told.
fn bridges(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &config.service {
        let Some(bridge) = service.x_road() else { continue };
        let pairs = bridge.clients.iter();
        lines.extend(pairs.map(|(ours, theirs)| {
            format!("{} asks {} as {} at {}", ours.0, service.id.0, theirs.0, bridge.service.0)
        }));
    }
    for agency in &config.agency {
        for one in agency.x_road.iter().flatten() {
            let subsystem = one.subsystem.as_ref().or(agency.subsystem.as_ref());
            let subsystem = subsystem.map_or("the door's subsystem", |subsystem| subsystem.0.as_str());
            lines.extend(one.services.iter().map(|service| {
                let (purpose, basis) = (&one.purpose.0, &one.legal_basis.0);
                format!("{} asks {} as {subsystem} for {purpose}, {basis}", one.client.0, service.0)
            }));
        }
    }
    lines
}

/// Tells what is wrong with the configuration, and whether the server has enrolled.
pub(super) fn check_config(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    eprintln!("{}: the configuration of {} is valid", path.display(), config.server.0);
    bridges(&config).iter().for_each(|line| eprintln!("bridge: {line}"));
    let layout = Layout::new(config.data());
    if !layout.signing_certificate().exists() || !layout.registry_pin().exists() {
        eprintln!("hint: {} has not enrolled yet: `trave-gateway enrol --token-file FILE`", config.server.0);
        return Ok(());
    }
    Secret::from_file(&config.passphrase_file()).context("the passphrase cannot be used")?;
    Ok(())
}
