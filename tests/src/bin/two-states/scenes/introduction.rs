//! What this is, before anything runs.

use std::path::Path;

use crate::Own;
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    println!(
        "A joinery (Tischlerei) moves from Wismar to Lübeck. Lübeck's trade office (Gewerbeamt) asks the trade register"
    );
    println!(
        "(Gewerberegister) of Mecklenburg-Vorpommern for its record, instead of asking the joiner again."
    );
    story.scene(
        "What this is",
        "Invented people and firms, one machine, legal bases as examples. Not NOOTS, and no replacement for it.",
    )
}

pub(crate) fn play(scene: &mut Scene, dir: &Path, own: &Own) {
    scene.saw(format!("everything stands in {}", dir.display()));
    scene
        .saw("each server is a process of its own, with the configuration file that an operator would write");
    scene.quote(WHO_HOLDS_WHICH_KEY);
    if let Some(register) = &own.rest {
        scene.saw(format!("what stands behind the REST door is yours, at {register}"));
    }
    if let Some(register) = &own.grpc {
        scene.saw(format!(
            "the register is yours, at {register}: the scenes that count its calls are left out"
        ));
    }
}

const WHO_HOLDS_WHICH_KEY: &str = "\
process                 stands at                     holds
security server         Lübeck (SH)                   its authentication, signing and log key
security server         trade register (MV)           its authentication, signing and log key
central registry        data centre in SH             the first configuration key
cosigner                data centre in MV             the second configuration key
trust services          within the registry           the keys for certificates, OCSP answers and timestamps
administrator Anna      SH                            her own key: applies, or approves what others applied for
administrator Bernd     MV                            his own key: the same
trade register (MV)     behind MV's security server   none: an ordinary gRPC and HTTP server";
