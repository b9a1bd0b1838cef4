//! The visitor's turn: a command for a client of their own, until Ctrl-C.

use std::fs;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::instance::Instance;
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
    scene.saw("every door, and how to sign in:");
    scene.quote(instance.dir.join(crate::endpoints::FILE).display().to_string());
    scene.saw("any server's own command line, for example:");
    scene.quote(format!(
        "{} process gateway status --config {}",
        std::env::current_exe().context("cannot find this program's own file")?.display(),
        instance.dir.join(&instance.endpoints.luebeck.configuration).display(),
    ));
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
        trave_tests::register::FIRMA,
        trave_tests::register::ORT,
    )
}
