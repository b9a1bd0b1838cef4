//! The same record over HTTP, as X-Road's clients ask: the service in the path, the answer in JSON.

use anyhow::Context;
use trave_tests::agency;
use trave_tests::register::{FIRMA, ORT};

use super::check_calls;
use crate::instance::{AKTEN, Instance};
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "The same over HTTP",
        "A system that speaks REST asks with X-Road's path and headers. To the two security servers it is an exchange like\n\
         any other: signed, permitted by method and path, logged; and one byte beside the path is refused.",
    )
}

/// The joinery's record, within the service.
pub(crate) fn path() -> String {
    format!("/v1/betriebe/{ORT}/{}", FIRMA.replace(' ', "%20"))
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let before = instance.calls().await?.akten;
    let answer = ask(instance, &path()).await?;
    scene.saw(format!("GET /r1/{AKTEN}{}", path()));
    let record: serde_json::Value = serde_json::from_slice(&answer.body).context("the answer is no JSON")?;
    scene.quote(serde_json::to_string_pretty(&record)?);
    scene.check(answer.status == 200 && record["firma"] == FIRMA, "it is the record that was asked for");
    let header =
        |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let exchange = header("trave-exchange-id").to_owned();
    scene.check(header("x-road-service") == AKTEN, "the answer names the service, as X-Road's do");
    check_calls(scene, before, instance.calls().await?.akten, 1);
    for (place, server) in [("Lübeck's", instance.luebeck()), ("MV's", instance.gewerberegister())] {
        let proof = server.proof(&exchange, "over HTTP")?;
        let ran = instance.verify(&proof.path)?;
        scene.check(ran.code == Some(0), format!("the proof from {place} log holds: exchange {exchange}"));
    }
    let refused = ask(instance, "/v1/loeschen").await?;
    let error: serde_json::Value = serde_json::from_slice(&refused.body).context("the error is no JSON")?;
    scene.saw("a path that no grant names, verbatim:");
    scene.quote(format!("{} {}", refused.status, serde_json::to_string_pretty(&error)?));
    scene.check(error["type"] == "server.serverproxy.access_denied", "it is refused in X-Road's words");
    check_calls(scene, before + 1, instance.calls().await?.akten, 0);
    Ok(())
}

async fn ask(instance: &Instance, path: &str) -> anyhow::Result<agency::Fetched> {
    let (rest, door) = (&instance.endpoints.rest, instance.endpoints.call.address.to_string());
    let target = format!("/r1/{AKTEN}{path}");
    Ok(agency::fetch(
        &door,
        &target,
        rest.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    )
    .await?)
}
