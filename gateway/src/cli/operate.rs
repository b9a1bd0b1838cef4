//! Verbs that speak to the running server through its operator's socket: how it is reached, and status.

use std::path::Path;

use anyhow::Context;
use tonic::Status;
use trave_host::client::Channel;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::clock::Time;
use trave_proto::schema::operator::{
    BackendStanding, PeerStanding, ReconciledPeer, StatusRequest, StatusResponse,
};

use crate::config::Config;

/// How the running server is found.
#[derive(Debug)]
pub(super) struct Door<'a> {
    pub(super) config: &'a Path,
    pub(super) socket: Option<&'a Path>,
}

/// A client of the running server.
pub(super) type Client = OperatorServiceClient<Channel>;

impl Door<'_> {
    /// Connects, and runs `act` to its end.
    pub(super) fn with<T>(
        &self,
        act: impl AsyncFnOnce(&mut Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.with_channel(async |channel| act(&mut OperatorServiceClient::new(channel)).await)
    }

    /// The same, for what speaks to another service at this door.
    pub(super) fn with_channel<T>(
        &self,
        act: impl AsyncFnOnce(Channel) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let socket = match self.socket {
            Some(socket) => socket.to_owned(),
            None => Config::read(self.config)?.operator_socket(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("the system gives no runtime")?.block_on(async {
            let channel = Channel::unix(&socket).await.with_context(
                || "the security server is not reached\nhint: is it running, and is this its user?",
            )?;
            act(channel).await
        })
    }
}

/// What the server says no with, for a person.
pub(super) fn said(status: Status) -> anyhow::Error {
    anyhow::Error::msg(status.message().to_owned())
}

/// The name of the user who works here, for the record; the server notes the number of the user beside it.
pub(super) fn user() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

pub(super) fn status(door: &Door<'_>) -> anyhow::Result<()> {
    let status = door.with(async |client| client.status(StatusRequest {}).await.map_err(said))?.into_inner();
    for (name, value) in lines(&status) {
        println!("{name:<22}{value}");
    }
    Ok(())
}

fn standing(peer: &PeerStanding) -> String {
    let PeerStanding { server, under_way, failures, ejected_for_ms } = peer;
    format!("{server}, {under_way} exchanges, {}", does(*failures, *ejected_for_ms))
}

fn backend(backend: &BackendStanding) -> String {
    let BackendStanding { service, address, under_way, failures, failing_for_ms, ejected_for_ms, last_error } =
        backend;
    let mut told = format!("{address} of {service}, {under_way} calls, {}", does(*failures, *ejected_for_ms));
    if *failures > 0 {
        told.push_str(&format!("; failing for {} s, last: {last_error}", failing_for_ms.div_ceil(1000)));
    }
    told
}

fn does(failures: u32, ejected_for_ms: u64) -> String {
    match (failures, ejected_for_ms.div_ceil(1000)) {
        (0, _) => "does well".to_owned(),
        (failures, 0) => format!("failed {failures} times, is tried again"),
        (failures, seconds) => format!("failed {failures} times, is left alone for {seconds} s"),
    }
}

/// How far another server's log was compared, and what is open.
fn reconciled(peer: &ReconciledPeer) -> String {
    let until = Time::from_millis(peer.until_ms);
    let open = [
        (peer.missing_here, "missing here"),
        (peer.missing_there, "missing there"),
        (peer.differing, "differing"),
        (peer.unexplained, "hours unexplained"),
    ];
    let open: Vec<_> =
        open.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let open = if open.is_empty() { "nothing missing".to_owned() } else { open.join(", ") };
    format!(
        "{}, until {until}: {open}; {} of its records seen under a checkpoint",
        peer.server, peer.seen_size
    )
}

/// Who witnessed how much of the log, and when.
fn witnessed(status: &StatusResponse) -> String {
    match (status.witnessed_size, status.has_witnesses) {
        (0, false) => "the global configuration names no witness".into(),
        (0, true) => "not yet".into(),
        (size, _) => {
            let (by, at) = (status.witnessed_by.join(", "), Time::from_millis(status.witnessed_ms));
            format!("{size} records by {by}, {at}")
        }
    }
}

/// What is there, and how much time is left to get what is missing.
fn missing(there: String, left_ms: Option<u64>) -> String {
    match left_ms {
        None => there,
        Some(0) => format!("{there}; exchanges are refused"),
        Some(left) => format!("{there}; newer records have {} min left", left.div_ceil(60_000)),
    }
}

fn lines(status: &StatusResponse) -> Vec<(&'static str, String)> {
    let at = |millis: i64, never: &str| match millis {
        0 => never.to_owned(),
        millis => Time::from_millis(millis).to_string(),
    };
    let until = Time::from_millis(status.configuration_valid_until_ms);
    let mut lines = vec![
        ("server", status.server.clone()),
        ("release", status.release.clone()),
        ("global configuration", format!("{}, valid until {until}", status.configuration_number)),
        ("registry seen", at(status.registry_seen_ms, "not since start")),
        ("message log", format!("{}, {} records", status.log_origin, status.log_size)),
        (
            "checkpoint",
            format!("{} records, {}", status.checkpoint_size, at(status.checkpoint_ms, "before start")),
        ),
        ("timestamp", missing(at(status.timestamp_ms, "none yet"), status.unstamped_left_ms)),
        ("witnessed", missing(witnessed(status), status.unwitnessed_left_ms)),
        ("exchanges in flight", status.exchanges_in_flight.to_string()),
    ];
    lines.extend(status.peers.iter().map(|peer| ("security server", standing(peer))));
    lines.extend(status.backends.iter().map(|standing| ("register", backend(standing))));
    lines.extend(status.reconciled.iter().map(|peer| ("log compared", reconciled(peer))));
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines
}
