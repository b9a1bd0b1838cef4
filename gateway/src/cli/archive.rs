//! Verbs about the archive of the message log. They read the archive themselves: its secret key never goes to the server.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use trave_host::clock::SystemClock;
use trave_host::files;
use trave_host::moment::Moment;
use trave_message_log::{ArchiveIdentity, ArchiveStore, DirectoryStore, Source, Whole};
use trave_proto::checkpoint::{Checkpoint, MAX_NOTE, NoteVerifier};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::Anchor;

use super::operate::Door;
use super::prunings;
use crate::config::Config;
use crate::custody::Layout;
use crate::object_storage;
use crate::trust::Trust;

// Its comment would take the place of the command's.
#[derive(Debug, Subcommand)]
pub(super) enum ArchiveCommand {
    /// Make a key that opens archives; prints its public key, for `archive.recipients`
    Keygen {
        /// The new file for the secret key; keep it away from the server
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Remove archived records from the running server's disk: whole segments, read back from the archive first
    ///
    /// What proves newer records stays, and holds, schedules and erasures concern what was pruned as before. Where the policy
    /// demands two persons, this applies for it, and `archive approve` does it within 14 days. Prints the act's id.
    Prune {
        /// Segments whose records are all before this time, 2026-11-21 or 2026-11-21T10:30:00Z; none younger than 31 days go
        #[arg(long, value_name = "MOMENT")]
        before: Moment,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Show the prunings that wait for another person: id, since, until when they can be approved, by whom, reason, first and
    /// last record, when these were logged, segments, bytes on this disk, what must stay by now, separated by tabs
    Prunings,
    /// Show the pruning that another person applied for, and approve it: the records are removed from this disk at once
    Approve {
        /// The act's id
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Withdraw a pruning that was applied for
    Drop {
        /// The act's id
        id: String,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Fetch what is damaged or missing of this server's message log again from its archive; exit status 1 if anything is left.
    /// The server must not run
    ///
    /// What was there stays beside it, under a name that ends in `.damaged-1`: remove it when it was looked at, since nothing
    /// is erased in it.
    Repair {
        #[command(flatten)]
        opened: Opened,
    },
    /// Make a lost message log again from its archive, in an empty directory; exit status 1 if anything is missing
    ///
    /// What comes out can be read, not written to: a new generation goes on after it. Contents stay unreadable without the
    /// key files, which are in no archive.
    Restore {
        #[command(flatten)]
        opened: Opened,
        /// The new directory
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

// How an archive is opened and its log verified: no comment that would take the place of the command's.
#[derive(Debug, Args)]
pub(super) struct Opened {
    /// The file with the secret key
    // Where nothing of all this is asked for, as by a plain `check-log`, it is not required.
    #[arg(long, value_name = "FILE", required = false)]
    key: PathBuf,
    /// The directory of the archive, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The log's own key, ORIGIN+ID+KEY, where the data directory with the global configurations is lost
    #[arg(long, value_name = "KEY")]
    log_key: Option<NoteVerifier>,
    /// A checkpoint of the log that a witness or a peer kept: the log should reach it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

pub(super) fn run(door: &Door<'_>, command: ArchiveCommand) -> anyhow::Result<ExitCode> {
    match command {
        ArchiveCommand::Keygen { out } => {
            let identity = ArchiveIdentity::generate();
            files::create(&out, identity.to_text().as_bytes()).context("the key cannot be stored")?;
            println!("{}", identity.recipient());
            eprintln!("the secret key is in {}: keep it away from the server, in two places", out.display());
            eprintln!(
                "hint: without it nobody reads the archive; the line above belongs into archive.recipients"
            );
            Ok(ExitCode::SUCCESS)
        }
        ArchiveCommand::Prune { before, reason } => prunings::prune(door, before, reason),
        ArchiveCommand::Prunings => prunings::list(door),
        ArchiveCommand::Approve { id, yes } => prunings::approve(door, id, yes),
        ArchiveCommand::Drop { id, reason } => prunings::withdraw(door, id, reason),
        ArchiveCommand::Repair { opened } => repair(door.config, &opened),
        ArchiveCommand::Restore { opened, to } => restore(door.config, &opened, &to),
    }
}

/// `check-log --archive`: the log on the disk and its archive together.
pub(super) fn check(config: &Path, opened: &Opened) -> anyhow::Result<ExitCode> {
    let dir = Layout::new(Config::read(config)?.data()).log();
    let whole = opened.with(config, |source| Ok(source.check(&dir, &mut progress())?))?;
    println!(
        "{} records, {} segments on the disk, {} in the archive, {} problems",
        whole.records,
        whole.segments,
        whole.objects,
        whole.problems.len()
    );
    if !whole.not_archived.is_empty() {
        println!("not archived so far: {} closed segments", whole.not_archived.len());
    }
    Ok(tell(&whole))
}

fn restore(config: &Path, opened: &Opened, to: &Path) -> anyhow::Result<ExitCode> {
    let whole = opened.with(config, |source| Ok(source.restore(to, &mut progress())?))?;
    println!("{} records of {} segments are in {}", whole.records, whole.objects, to.display());
    eprintln!(
        "contents are unreadable: their keys are in no archive; key files that are left belong into {}/keys",
        to.display()
    );
    eprintln!("hint: this log is to be read; a new generation goes on after it");
    Ok(tell(&whole))
}

fn repair(config: &Path, opened: &Opened) -> anyhow::Result<ExitCode> {
    let dir = Layout::new(Config::read(config)?.data()).log();
    let done = opened.with(config, |source| Ok(source.repair(&dir, &mut progress())?))?;
    done.mended.iter().for_each(|what| println!("mended: {what}"));
    done.left.iter().for_each(|what| println!("left: {what}"));
    if done.mended.is_empty() && done.left.is_empty() {
        eprintln!("nothing is damaged that an archive could mend");
    }
    let whole = tell(&done.whole);
    Ok(if done.left.is_empty() { whole } else { ExitCode::FAILURE })
}

/// Tells what is missing and what is wrong; exit status 1 if anything is.
fn tell(whole: &Whole) -> ExitCode {
    for range in &whole.missing {
        println!("missing: records {} to {} ({})", range.start, range.end - 1, range.end - range.start);
    }
    match (&whole.checkpoint, whole.agrees) {
        (Some(checkpoint), Some(true)) => {
            println!("the records give the root of the checkpoint of size {}", checkpoint.size);
        }
        (Some(checkpoint), None) => {
            println!("the records do not reach the checkpoint of size {}: it is not proved", checkpoint.size);
        }
        (None, _) => println!("no checkpoint is known: nothing says how long the log should be"),
        (Some(_), Some(false)) => {}
    }
    whole.problems.iter().for_each(|problem| println!("problem: {problem}"));
    if whole.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how far it is, where a person looks on.
fn progress() -> impl FnMut(u64, u64) {
    let shown = std::io::stderr().is_terminal();
    let mut last = 0;
    move |done, all| {
        let percent = (done.min(all) * 100).checked_div(all).unwrap_or(100);
        if shown && percent > last {
            last = percent;
            eprintln!("{percent} % of {all} records");
        }
    }
}

impl Opened {
    fn with<T>(
        &self,
        config: &Path,
        act: impl FnOnce(&Source<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let text = files::read_secret(&self.key).context("the key of the archive cannot be read")?;
        let text = std::str::from_utf8(&text).context("the key of the archive is no text")?;
        let identity = ArchiveIdentity::parse(text).with_context(|| format!("{}", self.key.display()))?;
        let store = self.store(config)?;
        let key = match &self.log_key {
            Some(key) => key.clone(),
            None => known_key(&Config::read(config)?)?,
        };
        let checkpoint = self.checkpoint(&key)?;
        act(&Source { store: &*store, identity: &identity, key: &key, checkpoint: checkpoint.as_ref() })
    }

    fn store(&self, config: &Path) -> anyhow::Result<Box<dyn ArchiveStore>> {
        if let Some(directory) = &self.directory {
            return Ok(Box::new(DirectoryStore::new(directory)));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = object_storage::archive_store(&Config::read(config)?, &clock)?;
        store.context("the configuration names no archive\nhint: --directory names one")
    }

    fn checkpoint(&self, key: &NoteVerifier) -> anyhow::Result<Option<Checkpoint>> {
        let Some(path) = &self.checkpoint else { return Ok(None) };
        let note = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::ensure!(note.len() <= MAX_NOTE, "{} is larger than checkpoints are", path.display());
        let checkpoint = Checkpoint::verify(&note, std::slice::from_ref(key));
        checkpoint.map(Some).with_context(|| format!("{} is no checkpoint of this log", path.display()))
    }
}

/// The key of this server's log, as the last global configuration in the data directory lists it.
pub(super) fn known_key(config: &Config) -> anyhow::Result<NoteVerifier> {
    let hint = "hint: where the data directory is lost, --log-key names the key, ORIGIN+ID+KEY: a proof, a witness or the \
                registry knows it";
    let layout = Layout::new(config.data());
    let known = || -> anyhow::Result<Vec<NoteVerifier>> {
        let anchor = Anchor::parse(&std::fs::read(layout.anchor())?)?;
        let trust = Trust::open(anchor, &layout.configurations(), Arc::new(SystemClock))?;
        let snapshot = trust.snapshot();
        let logs =
            snapshot.configuration.security_server(&config.server.0).map(|server| server.logs().to_vec());
        Ok(logs
            .unwrap_or_default()
            .iter()
            .filter_map(|it| NoteVerifier::new(&it.origin, it.public_key).ok())
            .collect())
    };
    match &known().with_context(|| format!("the key of the log is not known\n{hint}"))?[..] {
        [] => anyhow::bail!("the global configuration lists no log of this server\n{hint}"),
        [one] => Ok(one.clone()),
        several => {
            let keys: Vec<_> = several.iter().map(ToString::to_string).collect();
            anyhow::bail!(
                "the global configuration lists several logs of this server\nhint: --log-key names one of {}",
                keys.join(", ")
            )
        }
    }
}
