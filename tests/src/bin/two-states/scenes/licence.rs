//! A second service with less to tell: yes or no.

use anyhow::Context;
use trave_tests::agency::origin;
use trave_tests::gewerbe::IstGueltigRequest;
use trave_tests::gewerbe::erlaubnis_client::ErlaubnisClient;
use trave_tests::register::{ERLAUBNIS, FIRMA, ORT};

use super::{check_calls, question};
use crate::instance::{ERLAUBNIS_GUELTIG, Instance};
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "Less to tell",
        "Whether a licence is valid needs a yes or a no, not a record: a service of its own, whose contents nobody keeps.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let before = instance.calls().await?.ist_gueltig;
    let door = instance.endpoints.call.address.to_string();
    let mut client = ErlaubnisClient::with_origin(instance.agency().await?, origin(&door)?);
    let occasion = trave_tests::agency::Occasion { service: ERLAUBNIS_GUELTIG, ..question::occasion() };
    let asked = IstGueltigRequest { firma: FIRMA.into(), ort: ORT.into(), erlaubnis: ERLAUBNIS.into() };
    let answer =
        client.ist_gueltig(occasion.request(asked)?).await.context("the question was not answered")?;
    let gueltig = answer.into_inner().gueltig;
    scene.saw(format!("is the licence \"{ERLAUBNIS}\" valid? {}", if gueltig { "yes" } else { "no" }));
    scene.check(gueltig, "the answer is yes");
    check_calls(scene, before, instance.calls().await?.ist_gueltig, 1);
    Ok(())
}
