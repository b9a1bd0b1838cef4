//! A citizen asks who asked about her, and has it erased; that it took place stays provable.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use super::disk::{files_below, holds, list};
use super::proofs::some_of;
use super::question;
use crate::instance::Instance;
use crate::story::{Scene, Story};

/// The joiner's number: invented. It is no one's.
const NUMBER: &str = "12345678901";

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "Who asked about me",
        "The joiner asks which authorities asked about her. The server can tell, and its log has her number nowhere. Then\n\
         she is erased: nobody finds her again, and the proof still holds.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let subject = format!("steuer-id:{NUMBER}");
    let (_, exchange) = question::ask(instance, Some(&subject)).await?;
    scene.saw(format!("the trade office named the person its question is about: exchange {exchange}"));
    let file = instance.dir.join("person");
    write_privately(&file, &subject)?;
    let file = file.to_str().context("the directory's name is not UTF-8")?;
    let luebeck = instance.luebeck();
    let who = ["who-asked", "--person-from-file", file, "--reason", "request 7"];
    scene.command("trave-gateway who-asked --person-from-file person --reason \"request 7\"");
    let told = luebeck.operate(&who)?;
    scene.quote(told.replace('\t', " · "));
    let lines: Vec<_> = told.lines().filter(|line| line.contains(&exchange)).collect();
    scene.check(
        lines.len() == 1,
        "she is told of it: when, who, whom, which data, what for, on which legal basis",
    );
    for (place, server) in [("Lübeck", luebeck), ("MV", instance.gewerberegister())] {
        let files = files_below(&server.directory.join("data"))?;
        let clear: Vec<_> = files.iter().filter(|file| holds(file, NUMBER.as_bytes())).collect();
        scene.check(clear.is_empty(), format!("{place}: her number stands in no file{}", list(&clear)));
    }
    erase(scene, instance, &who, &exchange)?;
    fs::remove_file(file)?;
    Ok(())
}

fn erase(scene: &mut Scene, instance: &Instance, who: &[&str], exchange: &str) -> anyhow::Result<()> {
    let luebeck = instance.luebeck();
    scene.command("trave-gateway erase --person-from-file person --reason \"Art. 17 DSGVO\"");
    let said = luebeck.operate(&["erase", "--person-from-file", who[2], "--reason", "Art. 17 DSGVO"])?;
    scene.quote(said);
    let told = luebeck.operate(who)?;
    scene.check(!told.contains(exchange), "after: nobody is found who asked about her");
    let proof = luebeck.proof(exchange, "after erasing the person")?;
    scene.check(proof.contents() == 0, "the contents of her exchange are gone");
    let verified = instance.verify(&proof.path)?;
    scene.quote(some_of(&verified.stdout, &["THE PROOF", "Contents erased"]));
    scene.check(verified.code == Some(0), "that it took place still holds");
    Ok(())
}

/// The identifier goes by a file that its owner alone reads: a command line is seen by others.
fn write_privately(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(opened.write_all(text.as_bytes())?)
}
