//! The auditor's program: reads a proof file, or a container with one, and says, to a person, what it proves, why, and what
//! it does not prove.
//!
//! It needs the proof, the configuration anchor of the instance – received from somebody the reader trusts, not from
//! whoever hands over the proof – and nothing else: no network, no server.

mod extract;
mod json;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use trave_proto::clock::Time;
use trave_proto::container::{self, MAX_CONTAINER};
use trave_proto::global_configuration::Anchor;
use trave_proto::page::{self, Language, safe, words};
use trave_proto::proof::{Conclusion, MAX_PROOF, Proof, verify};

/// Verifies a Trave proof, by itself or in an ASiC-E container, offline.
///
/// Exit status: 0 the proof holds; 1 it does not; 2 it cannot be told, also because a file cannot be read.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The proof file, or a container (.asice) with one
    proof: PathBuf,
    /// The instance's configuration anchor, from somebody you trust: not from whoever gave you the proof
    #[arg(long)]
    anchor: PathBuf,
    /// Language of the report
    #[arg(long, value_enum, default_value_t = Lang::En)]
    lang: Lang,
    /// Write every byte that counts into this new directory, with `check.sh`, which checks them with OpenSSL alone
    #[arg(long, value_name = "DIR")]
    extract: Option<PathBuf>,
    /// Print the report as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// The languages of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// English
    En,
    /// Deutsch
    De,
}

impl From<Lang> for Language {
    fn from(lang: Lang) -> Self {
        match lang {
            Lang::En => Self::En,
            Lang::De => Self::De,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(Conclusion::Holds) => ExitCode::SUCCESS,
        Ok(Conclusion::DoesNotHold) => ExitCode::from(1),
        Ok(Conclusion::CannotTell) => ExitCode::from(2),
        Err(error) => {
            eprintln!("{}: {}", words::cannot_tell(arguments.lang.into()), safe::text(&format!("{error:#}")));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<Conclusion> {
    let lang = Language::from(arguments.lang);
    let anchor = read(&arguments.anchor, 64 << 10)?;
    let anchor = Anchor::parse(&anchor).with_context(|| arguments.anchor.display().to_string())?;
    let file = Bytes::from(read(&arguments.proof, MAX_PROOF.max(MAX_CONTAINER))?);
    let path = || arguments.proof.display().to_string();
    if container::is_container(&file) {
        let report = container::verify(&file, &anchor, now()).with_context(path)?;
        let page = || container::page(&report, &file, &anchor, lang);
        say(&if arguments.json { json::of_container(&report) } else { page() })?;
        return match (&arguments.extract, &report.proof) {
            (Some(directory), Some((proof, _))) => {
                extract::write(directory, proof, &anchor)?;
                extract::write_container(directory, &file)?;
                eprintln!("{}", safe::text(&words::extracted(lang, directory)));
                Ok(report.conclusion)
            }
            (Some(_), None) => {
                anyhow::bail!("the proof in it cannot be read, so there is nothing to extract")
            }
            (None, _) => Ok(report.conclusion),
        };
    }
    let proof = Proof::parse(file).with_context(path)?;
    let report = verify(&proof, &anchor, now());
    say(&if arguments.json { json::of(&report) } else { page::of(&report, &proof, &anchor, lang) })?;
    if let Some(directory) = &arguments.extract {
        extract::write(directory, &proof, &anchor)?;
        eprintln!("{}", safe::text(&words::extracted(lang, directory)));
    }
    Ok(report.conclusion)
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the report")
}

/// The file's bytes, at most `max` of them.
fn read(path: &Path, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(bytes.len() <= max, "{} has more than {max} bytes", path.display());
    Ok(bytes)
}

/// This computer's time.
#[expect(
    clippy::disallowed_methods,
    reason = "no server runs here: the auditor's own clock, and only to doubt what lies in the future"
)]
fn now() -> Option<Time> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Time::from_millis(0).plus(since))
}
