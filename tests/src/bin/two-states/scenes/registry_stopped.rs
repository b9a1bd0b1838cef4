//! The registry is not on the path of an exchange.

use super::question;
use crate::instance::Instance;
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "The registry is gone",
        "Registry and cosigner stop. Exchanges go on with the configuration that both servers hold, as long as it is valid.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    instance.stop_registry().await?;
    scene.saw("registry and cosigner are stopped");
    let before = instance.calls().await?.auskunft;
    let answered = question::ask(instance, None).await;
    scene.check(answered.is_ok(), "the question is answered all the same");
    super::check_calls(scene, before, instance.calls().await?.auskunft, 1);
    let status = instance.luebeck().operate(&["status"])?;
    scene.saw("what Lübeck's operator sees:");
    scene.quote(&status);
    scene.check(status.contains("valid until"), "the status says until when the configuration is valid");
    instance.start_registry().await?;
    scene.saw("registry and cosigner run again");
    answered.map(|_| ())
}
