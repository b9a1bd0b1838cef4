//! The instance is founded, and both security servers enrol: applied for in one state, approved in the other.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;
use trave_registry::administrator::AdministratorError;

use super::count;
use crate::Own;
use crate::endpoints::{Endpoints, SecurityServer};
use crate::founding::{self, ANNA, Administrators, BERND, explained};
use crate::instance::{AKTEN, AUSKUNFT, CLIENT, ERLAUBNIS_GUELTIG, Instance, LEGAL_BASIS, PURPOSE};
use crate::processes::{Running, run};
use crate::story::{Scene, Story};
use crate::verifier::Verifier;

/// How long a token may be used.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long the story waits for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "Enrolment",
        "Members, services, purposes and both security servers: each act applied for by one state's administrator and\n\
         approved by the other's. No file is copied by hand but a one-time token. Seconds, not forms.",
    )
}

/// Founds an instance in `dir` and starts everything.
pub(crate) async fn found(scene: &mut Scene, dir: &Path, own: &Own) -> anyhow::Result<Instance> {
    let verifier = Verifier::find()?;
    let endpoints = founding::prepare(dir, own)?;
    scene.saw(format!(
        "the ceremony made keys, anchor and configuration files; administrators: {} ({}), {} ({})",
        ANNA.0, ANNA.1, BERND.0, BERND.1
    ));
    let (registry, cosigner) = central(dir, &endpoints).await?;
    let mut administrators = Administrators::sign_in(dir, &endpoints).await?;
    decide(scene, &mut administrators, &endpoints, own.grpc.is_some()).await?;
    let mut number = 0;
    for server in [&endpoints.luebeck, &endpoints.gewerberegister] {
        number = enrol(scene, &mut administrators, dir, server).await?;
    }
    let instance = start(scene, dir, endpoints, (registry, cosigner), verifier, own).await?;
    for server in [instance.luebeck(), instance.gewerberegister()] {
        server.adopted(number, PATIENCE).await?;
    }
    scene.saw(format!("both work with configuration {number}, which lists the keys of both"));
    if own.grpc.is_none() {
        refused_without_grant(scene, &instance).await?;
    }
    grant(scene, &instance, own)?;
    instance.endpoints.write(dir)?;
    Ok(instance)
}

/// Starts what was founded before in `dir`.
pub(crate) async fn start_again(scene: &mut Scene, dir: &Path, own: &Own) -> anyhow::Result<Instance> {
    let endpoints = Endpoints::read(dir)?;
    for (own, founded) in [(&own.grpc, &endpoints.register), (&own.rest, &endpoints.rest.register)] {
        ensure!(
            own.as_ref().is_none_or(|own| own == founded),
            "this instance was founded for the register at {founded}: give another --dir"
        );
    }
    scene.saw("founded before: nothing is enrolled again");
    let verifier = Verifier::find()?;
    let central = central(dir, &endpoints).await?;
    start(scene, dir, endpoints, central, verifier, own).await
}

async fn central(dir: &Path, endpoints: &Endpoints) -> anyhow::Result<(Running, Running)> {
    let place = |configuration: &str| dir.join(configuration).parent().map(Path::to_owned);
    let directory = place(&endpoints.cosigner.configuration).context("no directory")?;
    let args = ["cosigner", "--config", "cosigner.toml"];
    let mut cosigner = Running::start("cosigner", "registry", &directory, &args)?;
    cosigner.serving(&[endpoints.cosigner.address]).await?;
    let directory = place(&endpoints.registry.configuration).context("no directory")?;
    let mut registry =
        Running::start("registry", "registry", &directory, &["run", "--config", "registry.toml"])?;
    let doors = &endpoints.registry;
    registry.serving(&[doors.admin, doors.public, doors.trust_services]).await?;
    Ok((registry, cosigner))
}

/// Everything that two administrators decide, and what one alone cannot.
async fn decide(
    scene: &mut Scene,
    administrators: &mut Administrators,
    endpoints: &Endpoints,
    own_register: bool,
) -> anyhow::Result<()> {
    let changes = founding::changes(endpoints, own_register);
    let first = changes.first().context("nothing to decide")?.clone();
    match administrators.alone(first).await? {
        Err(AdministratorError::Declined(status)) => {
            scene.check(true, "what one administrator applied for, the same one cannot approve:");
            scene.quote(status.message());
        }
        Err(other) => return Err(explained(other)),
        Ok(_) => scene.check(false, "one administrator alone changed the configuration"),
    }
    let began = Instant::now();
    let (mut number, acts) = (0, changes.len());
    for change in changes {
        number = administrators.decide(change).await?;
    }
    scene.saw(format!(
        "{} applied for in one state, approved in the other, each signed by both configuration keys: configuration {number} \
         after {:.1} s",
        count(acts, "act"),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// One security server enrols with a one-time token; answers the number of the configuration that lists its keys.
async fn enrol(
    scene: &mut Scene,
    administrators: &mut Administrators,
    dir: &Path,
    server: &SecurityServer,
) -> anyhow::Result<u64> {
    let began = Instant::now();
    let token = administrators.anna.token(&server.id, TOKEN_LIFETIME).await.map_err(explained)?;
    let directory = dir.join(&server.configuration).parent().context("no directory")?.to_owned();
    founding::secret(&directory.join("token"), &token)?;
    let checked = run("gateway", &directory, &["check-config", "--config", "gateway.toml"])?;
    checked.success("trave-gateway check-config")?;
    let args = ["enrol", "--config", "gateway.toml", "--token-file", "token"];
    let mut enrolment = Running::start("enrol", "gateway", &directory, &args)?;
    let (act, fingerprint) = await_request(administrators, &server.id, &mut enrolment).await?;
    scene.check(
        enrolment.said().contains(&fingerprint),
        format!("{} and the registry show the same fingerprint: {fingerprint}", server.id),
    );
    administrators.anna.apply_for_enrolment(act, &fingerprint).await.map_err(explained)?;
    let number = administrators.bernd.approve(act, Some(&fingerprint)).await.map_err(explained)?;
    let code = enrolment.ended(PATIENCE).await?;
    ensure!(code == Some(0), "trave-gateway enrol: {}", enrolment.said());
    // It has done its one service.
    fs::remove_file(directory.join("token"))?;
    scene.check(true, format!("{} enrolled in {:.1} s", server.id, began.elapsed().as_secs_f64()));
    Ok(number)
}

/// Waits until the server's request stands at the registry, and its own fingerprint on its display.
async fn await_request(
    administrators: &mut Administrators,
    server: &str,
    enrolment: &mut Running,
) -> anyhow::Result<(trave_proto::management::ActId, String)> {
    let began = Instant::now();
    loop {
        if let Some((act, fingerprint)) = administrators.requested_enrolment(server).await?
            && enrolment.said().contains(&fingerprint)
        {
            return Ok((act, fingerprint));
        }
        ensure!(began.elapsed() < PATIENCE, "{server} did not ask to enrol: {}", enrolment.said());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts the register and both security servers.
async fn start(
    scene: &mut Scene,
    dir: &Path,
    endpoints: Endpoints,
    (registry, cosigner): (Running, Running),
    verifier: Verifier,
    own: &Own,
) -> anyhow::Result<Instance> {
    let register = match own.grpc {
        Some(_) => None,
        None => {
            let mut register =
                Running::start("register", "register", &dir.join("register"), &[&endpoints.register])?;
            register.serving(&[endpoints.register.parse()?]).await?;
            Some(register)
        }
    };
    let witnesses = witnesses(dir, &endpoints).await?;
    let gateway = |folder: &str| {
        Running::start("gateway", "gateway", &dir.join(folder), &["run", "--config", "gateway.toml"])
    };
    let (mut luebeck, mut gewerberegister) = (gateway("luebeck")?, gateway("gewerberegister")?);
    let took = gewerberegister.serving(&[endpoints.gewerberegister.peer]).await?;
    let took = took + luebeck.serving(&[endpoints.luebeck.peer, endpoints.call.address]).await?;
    scene.check(
        took < Duration::from_secs(2),
        format!("both security servers serve {} ms after their start", took.as_millis()),
    );
    let memory = [&luebeck, &gewerberegister].map(|server| server.resident_kib().unwrap_or(0) / 1024);
    scene.saw(format!("resident memory just after: {} MiB and {} MiB", memory[0], memory[1]));
    let dir = dir.to_owned();
    Ok(Instance {
        dir,
        endpoints,
        exchange: None,
        verifier,
        registry,
        cosigner,
        witnesses,
        luebeck,
        gewerberegister,
        register,
    })
}

/// Starts the witness of each state.
async fn witnesses(dir: &Path, endpoints: &Endpoints) -> anyhow::Result<Vec<Running>> {
    let mut started = Vec::new();
    for witness in &endpoints.witnesses {
        let directory = dir.join(&witness.configuration).parent().context("no directory")?.to_owned();
        let args = ["witness", "--config", "witness.toml"];
        let mut running = Running::start("witness", "registry", &directory, &args)?;
        running.serving(&[witness.address]).await?;
        started.push(running);
    }
    Ok(started)
}

/// Deny by default: the catalogue knows the service, and still nobody may call it.
async fn refused_without_grant(scene: &mut Scene, instance: &Instance) -> anyhow::Result<()> {
    let before = instance.calls().await?.auskunft;
    let refused = match super::question::ask(instance, None).await {
        Ok(_) => "answered".to_owned(),
        Err(error) => error
            .downcast_ref::<tonic::Status>()
            .and_then(trave_tests::agency::error_info)
            .map_or_else(|| format!("{error:#}"), |info| info.reason),
    };
    scene.check(refused == "ACCESS_DENIED", format!("before any grant the question is refused: {refused}"));
    super::check_calls(scene, before, instance.calls().await?.auskunft, 0);
    Ok(())
}

/// MV's operator allows what Lübeck's trade office may ask, and for what.
fn grant(scene: &mut Scene, instance: &Instance, own: &Own) -> anyhow::Result<()> {
    scene.saw("MV's operator allows what the trade office may ask, and for what:");
    let grants = [
        (AUSKUNFT, "/gewerbe.v1.Register/Auskunft"),
        (ERLAUBNIS_GUELTIG, "/gewerbe.v1.Erlaubnis/IstGueltig"),
        (AKTEN, "GET /v1/betriebe/**"),
    ];
    for (service, method) in grants {
        let own = if service == AKTEN { own.rest.is_some() } else { own.grpc.is_some() };
        let method = if own { "/*" } else { method };
        let args = [
            "grant",
            "--client",
            CLIENT,
            "--service",
            service,
            "--method",
            method,
            "--purpose",
            PURPOSE,
            "--legal-basis",
            LEGAL_BASIS,
        ];
        scene.command(&format!("trave-gateway {}", args.join(" ")));
        let id = instance.gewerberegister().operate(&args)?;
        scene.quote(id);
    }
    Ok(())
}
