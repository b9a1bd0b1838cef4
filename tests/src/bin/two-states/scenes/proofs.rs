//! Both states export the proof, each from its own log: the same exchange, the same digests. An altered byte is found.

use std::fs;

use anyhow::Context;

use crate::instance::Instance;
use crate::story::{Scene, Story};

/// The name of the altered copy.
const ALTERED: &str = "altered.proof";

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "Two proofs",
        "Lübeck and MV export the proof of the same exchange independently. Both hold, offline, with the same digests. One\n\
         altered byte, and the named check fails.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let exchange = instance.exchange.clone().context("there was no exchange")?;
    let luebeck = instance.luebeck().proof(&exchange, "show the proof to a stranger")?;
    let mv = instance.gewerberegister().proof(&exchange, "show the proof to a stranger")?;
    let verified = instance.verify(&luebeck.path)?;
    scene.saw(format!("Lübeck's proof, {} KiB; trave-verify says:", luebeck.bytes.div_ceil(1024)));
    scene.quote(&verified.stdout);
    scene.check(verified.code == Some(0), "Lübeck's proof holds");
    let verified = instance.verify(&mv.path)?;
    scene.saw(format!(
        "MV's proof, {} KiB; trave-verify says the same from the other side, in short:",
        mv.bytes.div_ceil(1024)
    ));
    scene.quote(some_of(
        &verified.stdout,
        &["THE PROOF", "Permitted by", "Recorded by", "Not later", "Witnessed by"],
    ));
    scene.check(verified.code == Some(0), "MV's proof holds");
    witnessed(scene, instance, &verified.stdout)?;
    let (ours, theirs) = (luebeck.manifests()?, mv.manifests()?);
    for (which, digest) in ["request", "response"].iter().zip(&ours) {
        scene.saw(format!("SHA-256 of the signed {which}: {digest}"));
    }
    scene.check(
        ours.len() == 2 && ours == theirs,
        "both states' proofs hold the same signed request and response",
    );
    alter(scene, instance, &luebeck.path, luebeck.offset_of_the_purpose()?)
}

/// The other state's witness saw Lübeck's log, and MV's: neither can show another story to somebody else.
fn witnessed(scene: &mut Scene, instance: &Instance, of_mv: &str) -> anyhow::Result<()> {
    if instance.endpoints.witnesses.is_empty() {
        return Ok(());
    }
    let by = |told: &str, class: &str| {
        told.lines().any(|line| line.contains("witness.") && line.contains(&format!("({class})")))
    };
    scene.check(by(of_mv, "SH"), "MV's log was cosigned by Schleswig-Holstein's witness");
    let status = instance.luebeck().operate(&["status"])?;
    let line = status.lines().find(|line| line.starts_with("witnessed")).unwrap_or_default().to_owned();
    scene.command("trave-gateway status");
    scene.quote(&line);
    scene.check(by(&line, "MV"), "Lübeck's log was cosigned by Mecklenburg-Vorpommern's witness");
    Ok(())
}

/// Flips one bit of what was signed, and shows what the auditor's program says.
fn alter(
    scene: &mut Scene,
    instance: &Instance,
    proof: &std::path::Path,
    offset: usize,
) -> anyhow::Result<()> {
    let mut bytes = fs::read(proof)?;
    bytes[offset] ^= 1;
    let altered = proof.with_file_name(ALTERED);
    fs::write(&altered, bytes)?;
    let verified = instance.verify(&altered)?;
    scene.saw(format!(
        "one bit of byte {offset} of Lübeck's proof altered, in the purpose; trave-verify says:"
    ));
    scene.quote(some_of(&verified.stdout, &["THE PROOF", "DOES NOT HOLD"]));
    scene.quote(&verified.stderr);
    scene.check(verified.code == Some(1), "the altered proof does not hold: exit code 1");
    Ok(())
}

/// The lines of `text` that hold one of `words`, and what stands under a line that begins with a verdict.
pub(super) fn some_of(text: &str, words: &[&str]) -> String {
    let mut kept = String::new();
    let mut under = false;
    for line in text.lines() {
        let wanted = words.iter().any(|word| line.contains(word));
        let belongs = under && line.starts_with("                ");
        if wanted || belongs {
            kept.push_str(line);
            kept.push('\n');
        }
        under = wanted || belongs;
    }
    kept
}
