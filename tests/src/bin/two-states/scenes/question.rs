//! The question with clerk, case, purpose and legal basis; the answer; what each stage took.

use std::time::Instant;

use anyhow::Context;
use trave_tests::agency::{Occasion, exchange_id, origin};
use trave_tests::gewerbe::register_client::RegisterClient;
use trave_tests::gewerbe::{AuskunftRequest, AuskunftResponse};
use trave_tests::register::{FIRMA, ORT};

use super::check_calls;
use crate::instance::{AUSKUNFT, Instance, LEGAL_BASIS, PURPOSE};
use crate::story::{Scene, Story};

/// The clerk and the case: declared by the trade office's system.
pub(crate) const CLERK: &str = "k.moeller";
pub(crate) const CASE: &str = "GA-2026-1187";

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "The question",
        "Lübeck's trade office asks for the joinery's record. The register answers once; both security servers signed and\n\
         logged request and response before the clerk saw anything.",
    )
}

/// What the clerk's system sends with the question.
pub(crate) const fn occasion() -> Occasion<'static> {
    Occasion { service: AUSKUNFT, purpose: PURPOSE, legal_basis: LEGAL_BASIS, user: CLERK, issue: CASE }
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    scene.saw(format!(
        "clerk {CLERK}, case {CASE}, purpose {PURPOSE}, legal basis {LEGAL_BASIS} (an example)"
    ));
    let before = instance.calls().await?.auskunft;
    let began = Instant::now();
    let (record, exchange) = ask(instance, None).await?;
    let took = began.elapsed();
    scene.saw(format!(
        "answer: {}, {}, owner {}, {}, registered {}",
        record.firma, record.rechtsform, record.inhaberin, record.taetigkeit, record.angemeldet_am
    ));
    scene.check(record.firma == FIRMA, "it is the record that was asked for");
    check_calls(scene, before, instance.calls().await?.auskunft, 1);
    scene.saw(format!("exchange {exchange}, {:.1} ms as the clerk saw it", took.as_secs_f64() * 1000.0));
    stages(scene, instance, &exchange)?;
    instance.exchange = Some(exchange);
    Ok(())
}

/// Asks for the joinery's record, naming whom the question concerns or nobody; the answer and the exchange id.
pub(crate) async fn ask(
    instance: &Instance,
    subject: Option<&str>,
) -> anyhow::Result<(AuskunftResponse, String)> {
    let door = origin(&instance.endpoints.call.address.to_string())?;
    let mut client = RegisterClient::with_origin(instance.agency().await?, door);
    let question = AuskunftRequest { firma: FIRMA.into(), ort: ORT.into() };
    let mut request = occasion().request(question)?;
    if let Some(subject) = subject {
        request.metadata_mut().insert("trave-subject", subject.parse()?);
    }
    let answer = client.auskunft(request).await.context("the question was not answered")?;
    let exchange = exchange_id(answer.metadata()).context("the answer carries no trave-exchange-id")?;
    Ok((answer.into_inner(), exchange))
}

/// One line for each stage, from what both logs say.
fn stages(scene: &mut Scene, instance: &Instance, exchange: &str) -> anyhow::Result<()> {
    let at_client = instance.luebeck().proof(exchange, "stages")?;
    let at_provider = instance.gewerberegister().proof(exchange, "stages")?;
    let stages = [
        ("Lübeck's server signed the request", at_client.created(true)?),
        ("    and logged it", at_client.logged(true)?),
        ("MV's server verified, authorised and logged it", at_provider.logged(true)?),
        ("    called the register, signed its answer", at_provider.created(false)?),
        ("    and logged it, durable before it was sent", at_provider.logged(false)?),
        ("Lübeck's server verified it, logged it, released it", at_client.logged(false)?),
    ];
    let began = stages[0].1;
    for (stage, time) in stages {
        scene.saw(format!("{:>4} ms  {stage}", time - began));
    }
    let in_order = stages.windows(2).all(|pair| pair[0].1 <= pair[1].1);
    scene.check(in_order, "both logs tell the stages in this order");
    Ok(())
}
