//! What lies on disk, readable by whom, until when; and what erasing leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use trave_tests::register::FIRMA;

use super::count;
use super::proofs::some_of;
use crate::instance::Instance;
use crate::story::{Scene, Story};

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "What lies on disk",
        "Contents lie encrypted, under a key of their own for each exchange, as long as the service's policy says. Erased,\n\
         they are gone; the proof of who asked whom for what, when and why still holds.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let exchange = instance.exchange.clone().context("there was no exchange")?;
    scene.quote(WHAT_LIES_WHERE);
    for (place, server) in [("Lübeck", instance.luebeck()), ("MV", instance.gewerberegister())] {
        let files = files_below(&server.directory.join("data"))?;
        let bytes: u64 = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        scene.saw(format!(
            "{place}: {}, {} MiB in {}",
            count(files.len(), "file"),
            bytes >> 20,
            server.shown()
        ));
        let open: Vec<_> = files.iter().filter(|file| is_open_to_others(file)).collect();
        scene.check(
            open.is_empty(),
            format!("{place}: no file can be read by anybody but the server's own user{}", list(&open)),
        );
        let clear: Vec<_> = files.iter().filter(|file| holds(file, FIRMA.as_bytes())).collect();
        scene.check(
            clear.is_empty(),
            format!("{place}: the joinery's name stands in none of them in clear{}", list(&clear)),
        );
    }
    erase(scene, instance, &exchange)
}

const WHAT_LIES_WHERE: &str = "\
what                                        where, below data/   readable by                        until
private keys                                keys                 the server, with its passphrase    they are replaced
who asked whom for what, when and why       log/segments         the server's own user              24 months, unless held
contents and caller context, encrypted      log/segments         the server, with the key beside    erased
the keys of the contents, one an exchange   log/keys             the server's own user              overwritten at erasing
certificates, anchor, configurations        the rest             public knowledge                   superseded";

fn erase(scene: &mut Scene, instance: &Instance, exchange: &str) -> anyhow::Result<()> {
    let luebeck = instance.luebeck();
    let before = luebeck.proof(exchange, "before erasing")?;
    scene.check(before.contents() > 0, "before: Lübeck's proof holds the contents");
    scene.command(&format!("trave-gateway erase {exchange} --reason \"case closed\""));
    let said = luebeck.operate(&["erase", exchange, "--reason", "case closed"])?;
    scene.quote(said);
    let after = luebeck.proof(exchange, "after erasing")?;
    scene.check(after.contents() == 0, "after: it holds none");
    let verified = instance.verify(&after.path)?;
    scene.saw("trave-verify on the proof from after, in short:");
    scene.quote(some_of(&verified.stdout, &["THE PROOF", "Contents erased", "Request  ", "Response  "]));
    scene.check(verified.code == Some(0), "the proof still holds");
    scene.command("trave-gateway check-log");
    let checked = luebeck.operate(&["check-log"])?;
    scene.quote(checked);
    Ok(())
}

/// Every file below `directory`, however deep.
pub(super) fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn is_open_to_others(file: &Path) -> bool {
    let of_file = fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    // A directory that nobody else may enter protects what lies in it.
    let directory = file.ancestors().skip(1).take_while(|path| !path.ends_with("..")).take(4);
    let protected = directory
        .filter_map(|path| fs::metadata(path).ok())
        .any(|metadata| metadata.permissions().mode() & 0o077 == 0);
    of_file && !protected
}

pub(super) fn holds(file: &Path, needle: &[u8]) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

pub(super) fn list(files: &[&PathBuf]) -> String {
    files.iter().map(|file| format!("\n{}", file.display())).collect()
}
