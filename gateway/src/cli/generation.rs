//! `new-generation`: what was found of the old log, and what has to follow.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use trave_host::clock::SystemClock;
use trave_host::files;
use trave_proto::checkpoint::MAX_NOTE;

use super::NewGeneration;
use crate::config::Config;
use crate::generation::{self, Ask};

pub(super) fn run(path: &Path, arguments: &NewGeneration) -> anyhow::Result<()> {
    ensure!(!arguments.reason.trim().is_empty(), "a reason is needed: it stands in the new log for good");
    let config = Config::read(path)?;
    let checkpoint = arguments.checkpoint.as_deref().map(read).transpose()?;
    let operator = format!("uid {}", files::user_id());
    let although_whole = arguments.although_whole;
    let ask = Ask { reason: arguments.reason.clone(), operator, checkpoint, although_whole };
    eprintln!("reading what is left of the message log; a large one takes minutes");
    let begun = generation::begin(&config, &ask, Arc::new(SystemClock))?;
    eprintln!("the log {} is closed, and lies in {}", begun.previous, begun.aside.display());
    eprintln!("missing: {}", begun.missing);
    println!("{}", begun.origin);
    eprintln!(
        "grants and local groups stood in the old log: nobody may call anything here until they are given again"
    );
    eprintln!(
        "hint: keep what was moved aside, it is still read, erased and let go of; an administrator of the registry makes a token, `trave-gateway enrol` shows the new \
         key's fingerprint, and two administrators approve it"
    );
    Ok(())
}

/// A checkpoint as a witness shows it.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_NOTE as u64 + 1).read_to_end(&mut bytes).with_context(failed)?;
    ensure!(bytes.len() <= MAX_NOTE, "{} is longer than a checkpoint can be", path.display());
    Ok(bytes)
}
