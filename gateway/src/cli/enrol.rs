//! `enrol`: the token in, and talk about how it goes.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use trave_host::clock::SystemClock;
use trave_host::config::Secret;
use trave_proto::management::EnrolmentToken;
use zeroize::Zeroizing;

use super::Enrol;
use crate::config::Config;
use crate::enrolment::{self, Enrolled, Progress};

pub(super) fn run(path: &Path, arguments: &Enrol) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let token = EnrolmentToken::parse(&text(arguments)?)?;
    if token.registry != config.registry.address {
        eprintln!(
            "the token is of the registry at {}, the configuration names {}",
            token.registry, config.registry.address
        );
        eprintln!("hint: both may be right if the registry has several addresses; else correct [registry]");
    }
    let server = &config.server.0;
    let tell = |progress: Progress| match progress {
        Progress::Keys { passphrase_made: true } => {
            eprintln!("made the passphrase file {}", config.passphrase_file().display());
            eprintln!("hint: back it up apart from {}", config.data().display());
        }
        Progress::Keys { passphrase_made: false } => {}
        Progress::Requested { fingerprint } => {
            eprintln!("the keys of {server} have this fingerprint, which two administrators must compare:");
            println!("{fingerprint}");
        }
        Progress::State(state) => eprintln!("the enrolment is {state}{}", waiting_for(&state)),
        Progress::Waiting(why) => eprintln!("waiting for the registry: {why}"),
    };
    let runtime = super::serve::runtime()?;
    match runtime.block_on(enrolment::enrol(&config, &token, Arc::new(SystemClock), tell))? {
        Enrolled::Now => eprintln!("{server} is enrolled\nhint: start it with `trave-gateway run`"),
        Enrolled::Before => eprintln!("{server} was enrolled before; nothing was changed"),
    }
    Ok(())
}

fn waiting_for(state: &str) -> &'static str {
    match state {
        "requested" => ": waiting for an administrator to apply for it",
        "applied" => ": waiting for a second administrator to approve it",
        "approved" => ": waiting for the configuration and the certificates",
        _ => "",
    }
}

/// The token as it was handed over.
fn text(arguments: &Enrol) -> anyhow::Result<Zeroizing<String>> {
    if let Some(token) = &arguments.token {
        return Ok(Zeroizing::new(token.clone()));
    }
    let path = arguments.token_file.as_deref().unwrap_or(Path::new("-"));
    let secret = Secret::from_file(path).context("the token cannot be read")?;
    let text = std::str::from_utf8(secret.expose()).context("the token file is not text")?;
    Ok(Zeroizing::new(text.to_owned()))
}
