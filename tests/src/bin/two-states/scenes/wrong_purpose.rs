//! The same clerk with a purpose that no grant allows.

use anyhow::{Context, bail};
use trave_tests::agency::{Occasion, error_info, exchange_id, origin};
use trave_tests::gewerbe::AuskunftRequest;
use trave_tests::gewerbe::register_client::RegisterClient;
use trave_tests::register::{FIRMA, ORT};

use super::{check_calls, question};
use crate::instance::{Instance, OTHER_PURPOSE};
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "A wrong purpose",
        "The same clerk asks for statistics. The catalogue knows that purpose, no grant allows it: refused before the call,\n\
         in words that help, and logged. The register does not notice.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let before = instance.calls().await?.auskunft;
    let door = instance.endpoints.call.address.to_string();
    let mut client = RegisterClient::with_origin(instance.agency().await?, origin(&door)?);
    let occasion = Occasion { purpose: OTHER_PURPOSE, ..question::occasion() };
    let asked = AuskunftRequest { firma: FIRMA.into(), ort: ORT.into() };
    let Err(status) = client.auskunft(occasion.request(asked)?).await else {
        bail!("the register answered a question for {OTHER_PURPOSE}");
    };
    scene.saw("the caller's error, verbatim:");
    scene.quote(format!("status  {:?}\nmessage {}", status.code(), status.message()));
    let info = error_info(&status).context("the error carries no google.rpc.ErrorInfo")?;
    let mut details: Vec<_> = info.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    details.sort();
    scene.quote(format!("reason  {} (domain {})\ndetails {}", info.reason, info.domain, details.join(", ")));
    scene.check(status.code() == tonic::Code::PermissionDenied, "the status is PERMISSION_DENIED");
    scene.check(info.reason == "ACCESS_DENIED", "the reason is ACCESS_DENIED");
    let reached = info.metadata.get("register_reached").map(String::as_str);
    scene.check(reached == Some("no"), "it says that the register was not reached");
    check_calls(scene, before, instance.calls().await?.auskunft, 0);
    let exchange = exchange_id(status.metadata()).context("the error carries no trave-exchange-id")?;
    for (place, server) in [("Lübeck's", instance.luebeck()), ("MV's", instance.gewerberegister())] {
        let entries = server.log("a refusal was reported").await?;
        let entry = entries.iter().find(|entry| entry.exchange == exchange);
        let held = entry.map_or("nothing".into(), |entry| format!("{}, {}", entry.outcome, entry.reason));
        let refused =
            entry.is_some_and(|entry| entry.outcome != "answered" && entry.reason == "access_denied");
        scene.check(refused, format!("{place} log holds exchange {exchange}: {held}"));
    }
    Ok(())
}
