//! The visitor's turn: a command for a client of their own, until Ctrl-C.

use std::fs;

use anyhow::Context;
use prost::Message;
use tokio::signal::unix::{SignalKind, signal};
use trave_tests::gewerbe::AuskunftRequest;
use trave_tests::register::{FIRMA, ORT};

use crate::instance::{AUSKUNFT, Instance, LEGAL_BASIS, PURPOSE};
use crate::story::{Scene, Story};

/// Written when everything serves, removed at the end: scripts wait for it.
pub(crate) const SERVING: &str = "serving";

fn open(story: &Story) -> Scene {
    story.scene("Your turn", "Your own client, until Ctrl-C.")
}

/// Shows how, and waits for Ctrl-C.
pub(crate) async fn play(
    story: &mut Story,
    instance: &mut Instance,
    own_register: bool,
) -> anyhow::Result<()> {
    let mut scene = open(story);
    scene.saw("a grpcurl call, to be copied:");
    scene.quote(grpcurl(instance, own_register));
    scene.saw("and over HTTP, as X-Road's clients call:");
    scene.quote(curl(instance));
    if !own_register {
        scene.saw("the same without a client of your own, through the operator's test call:");
        scene.quote(test_call(instance)?);
    }
    scene.saw("every door, and how to sign in:");
    scene.quote(instance.dir.join(crate::endpoints::FILE).display().to_string());
    scene.saw("any server's own command line, for example:");
    scene.quote(format!("{} status", gateway(instance)?));
    let serving = instance.dir.join(SERVING);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    fs::write(&serving, format!("{}\n", std::process::id()))?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    fs::remove_file(&serving)?;
    story.close(scene, Ok(()));
    Ok(())
}

/// The command line of Lübeck's security server, without its verb.
fn gateway(instance: &Instance) -> anyhow::Result<String> {
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let configuration = instance.dir.join(&instance.endpoints.luebeck.configuration);
    Ok(format!("{} process gateway --config {}", executable.display(), configuration.display()))
}

/// The question once more, by the operator of Lübeck's security server.
fn test_call(instance: &Instance) -> anyhow::Result<String> {
    let question = AuskunftRequest { firma: FIRMA.into(), ort: ORT.into() };
    Ok(format!(
        "{} call --raw --service {AUSKUNFT} --method /gewerbe.v1.Register/Auskunft \\\n  --purpose {PURPOSE} --legal-basis \
         {LEGAL_BASIS} --data {}",
        gateway(instance)?,
        hex::encode(question.encode_to_vec())
    ))
}

/// A call with curl, whole.
fn curl(instance: &Instance) -> String {
    let rest = &instance.endpoints.rest;
    let headers: Vec<String> =
        rest.headers.iter().map(|(name, value)| format!("  -H '{name}: {value}'")).collect();
    format!("curl -i {}{} \\\n{}", rest.base, super::over_http::path(), headers.join(" \\\n"))
}

/// A call with grpcurl, whole.
fn grpcurl(instance: &Instance, own_register: bool) -> String {
    let call = &instance.endpoints.call;
    let headers: Vec<String> =
        call.metadata.iter().map(|(name, value)| format!("  -H '{name}: {value}'")).collect();
    let headers = headers.join(" \\\n");
    let address = call.address;
    if own_register {
        return format!(
            "grpcurl -plaintext -import-path DIR -proto YOUR.proto \\\n{headers} \\\n  -d '{{}}' {address} YOUR.Service/Method"
        );
    }
    format!(
        "grpcurl -plaintext -import-path {} -proto gewerbe.proto \\\n{headers} \\\n  -d '{{\"firma\": \"{}\", \"ort\": \"{}\"}}' \
         {address} gewerbe.v1.Register/Auskunft",
        instance.dir.display(),
        FIRMA,
        ORT,
    )
}
