//! The instance while it runs: its processes, and what the scenes ask of its servers.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;
use trave_host::client::Channel;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::schema::operator::v1::{ListLogRequest, StatusRequest};
use trave_tests::agency::{self, Connection};
use trave_tests::register::Calls;

use crate::endpoints::{Endpoints, SecurityServer};
use crate::processes::{Ran, Running, run};
use crate::proof::Proof;
use crate::verifier::Verifier;

/// The trade office that asks.
pub(crate) const CLIENT: &str = "NORD/SH/luebeck/gewerbeamt";
/// The security servers.
pub(crate) const LUEBECK: &str = "NORD/SH/luebeck/s1";
pub(crate) const GEWERBEREGISTER: &str = "NORD/MV/gewerberegister/s1";
/// The services.
pub(crate) const AUSKUNFT: &str = "NORD/MV/gewerberegister/register/auskunft";
pub(crate) const ERLAUBNIS_GUELTIG: &str = "NORD/MV/gewerberegister/register/erlaubnis";
pub(crate) const AKTEN: &str = "NORD/MV/gewerberegister/register/akten";
/// The catalogue: what the grants allow, and a purpose that they do not.
pub(crate) const PURPOSE: &str = "gewerbeummeldung";
pub(crate) const OTHER_PURPOSE: &str = "statistik";
pub(crate) const LEGAL_BASIS: &str = "GewO-14";

/// Everything that runs.
pub(crate) struct Instance {
    pub(crate) dir: PathBuf,
    pub(crate) endpoints: Endpoints,
    /// The exchange that the story is about, once there was one.
    pub(crate) exchange: Option<String>,
    pub(crate) verifier: Verifier,
    pub(crate) registry: Running,
    pub(crate) cosigner: Running,
    pub(crate) witnesses: Vec<Running>,
    pub(crate) luebeck: Running,
    pub(crate) gewerberegister: Running,
    /// The invented register; absent where the visitor's own stands in its place.
    pub(crate) register: Option<Running>,
}

/// One of the two security servers, as its operator meets it.
pub(crate) struct Operated<'a> {
    dir: &'a Path,
    endpoints: &'a SecurityServer,
    pub(crate) directory: PathBuf,
}

/// An exchange in a message log.
pub(crate) struct Logged {
    pub(crate) exchange: String,
    pub(crate) outcome: String,
    /// Why it was not answered; empty if it was.
    pub(crate) reason: String,
}

impl Instance {
    pub(crate) fn luebeck(&self) -> Operated<'_> {
        Operated::of(&self.dir, &self.endpoints.luebeck)
    }

    pub(crate) fn gewerberegister(&self) -> Operated<'_> {
        Operated::of(&self.dir, &self.endpoints.gewerberegister)
    }

    /// A connection as the trade office's system opens it.
    pub(crate) async fn agency(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(&self.endpoints.call.address.to_string()).await?)
    }

    /// How often the invented register was called.
    pub(crate) async fn calls(&self) -> anyhow::Result<Calls> {
        let (_, json) = agency::get(&self.endpoints.register, "/calls").await?;
        serde_json::from_slice(&json).context("the register's counters cannot be read")
    }

    /// Verifies a proof as a stranger does.
    pub(crate) fn verify(&self, proof: &Path) -> anyhow::Result<Ran> {
        self.verifier.verify(proof, &self.dir.join(&self.endpoints.anchor))
    }

    pub(crate) async fn stop_registry(&mut self) -> anyhow::Result<()> {
        self.registry.stop().await?;
        self.cosigner.stop().await
    }

    pub(crate) async fn start_registry(&mut self) -> anyhow::Result<()> {
        self.cosigner.start_again()?;
        self.cosigner.serving(&[self.endpoints.cosigner.address]).await?;
        self.registry.start_again()?;
        self.registry.serving(&[self.endpoints.registry.admin, self.endpoints.registry.public]).await?;
        Ok(())
    }

    /// Starts MV's security server again; returns how long it took to serve.
    pub(crate) async fn start_gewerberegister(&mut self) -> anyhow::Result<Duration> {
        self.gewerberegister.start_again()?;
        self.gewerberegister.serving(&[self.endpoints.gewerberegister.peer]).await
    }

    /// Stops everything, callers first.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let processes = [
            Some(&mut self.luebeck),
            Some(&mut self.gewerberegister),
            Some(&mut self.registry),
            Some(&mut self.cosigner),
        ];
        for process in processes.into_iter().flatten().chain(&mut self.witnesses) {
            process.stop().await?;
        }
        // The invented register has nothing to finish.
        self.register.take().map_or(Ok(()), |mut register| register.kill())
    }
}

impl<'a> Operated<'a> {
    fn of(dir: &'a Path, endpoints: &'a SecurityServer) -> Self {
        let configuration = dir.join(&endpoints.configuration);
        let directory = configuration.parent().unwrap_or(dir).to_owned();
        Self { dir, endpoints, directory }
    }

    /// Its directory, as it is shown.
    pub(crate) fn shown(&self) -> String {
        format!("{}", self.directory.join("data").display())
    }

    /// Runs a verb of `trave-gateway`, and returns what it printed.
    pub(crate) fn operate(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = args.to_vec();
        all.extend(["--config", "gateway.toml"]);
        run("gateway", &self.directory, &all)?.success(&format!("trave-gateway {}", args.join(" ")))
    }

    /// Exports the proof of an exchange.
    pub(crate) fn proof(&self, exchange: &str, reason: &str) -> anyhow::Result<Proof> {
        let folder = self.dir.join("proofs");
        // A proof holds contents in clear: as private as the log that it comes from.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let server = self.endpoints.id.replace('/', "-");
        let number = fs::read_dir(&folder)?.count();
        let path = folder.join(format!("{server}-{exchange}-{number}.proof"));
        let file = path.to_str().context("the directory's name is not UTF-8")?;
        self.operate(&["proof", exchange, "--out", file, "--reason", reason])?;
        Proof::read(path)
    }

    /// Waits until it works with the global configuration of this number, or a later one.
    pub(crate) async fn adopted(&self, number: u64, patience: Duration) -> anyhow::Result<()> {
        let mut client = self.operator().await?;
        let began = Instant::now();
        loop {
            let status = client.status(StatusRequest {}).await?.into_inner();
            if status.configuration_number >= number {
                return Ok(());
            }
            ensure!(
                began.elapsed() < patience,
                "{} still works with configuration {}",
                self.endpoints.id,
                status.configuration_number
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn operator(&self) -> anyhow::Result<OperatorServiceClient<Channel>> {
        let channel = Channel::unix(&self.dir.join(&self.endpoints.operator)).await?;
        Ok(OperatorServiceClient::with_origin(channel, agency::origin("localhost")?))
    }

    /// Everything that its message log lists; reading is itself logged, with the reason.
    pub(crate) async fn log(&self, reason: &str) -> anyhow::Result<Vec<Logged>> {
        let mut client = self.operator().await?;
        let request = ListLogRequest {
            reader: "two-states".into(),
            reason: reason.into(),
            limit: 1_000_000,
            ..ListLogRequest::default()
        };
        let mut stream = client.list_log(request).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(entry) = stream.message().await? {
            let exchange = uuid::Uuid::from_slice(&entry.exchange_id).map(|id| id.to_string());
            entries.push(Logged {
                exchange: exchange.unwrap_or_default(),
                outcome: entry.outcome,
                reason: entry.reason,
            });
        }
        Ok(entries)
    }
}
