//! A new generation of the message log: where a log cannot continue what it gave away, because its disk was lost or an older
//! one put back, it is closed, and another log begins under another origin and key. Its first record names the one before,
//! the last checkpoint of it that witnesses cosigned, and what is missing.
//!
//! Nothing is thrown away: the old log is moved aside as it lies there. The new key counts when two administrators of the
//! registry have approved it, as they approve the keys of a new server; until then the server does not start.
//!
//! What a crash leaves: the plan is durable before anything is moved, each step is done only if it is not done yet, and the
//! command, run again, goes on with the same plan. A server does not start while a plan is there.

mod plan;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trave_host::config::Secret;
use trave_host::files::{self, FileError};
use trave_host::keys::{KeyError, NoteKey};
use trave_message_log::{Log, LogError, Options};
use trave_proto::checkpoint::{CheckpointError, NoteSigner};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::{Anchor, AnchorError};
use trave_proto::identifier::ServerId;

use crate::config::Config;
use crate::custody::{CustodyError, Layout, read};
use crate::trust::{Trust, TrustError};
use plan::Plan;

/// Why no new generation begins.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum GenerationError {
    #[error("the security server runs, or another program has its log open: stop it first")]
    Running,
    #[error(
        "the last new generation has not been approved yet\nhint: `trave-gateway enrol` with a token of the registry has \
         its key approved"
    )]
    Waiting,
    #[error("the data directory is not usable")]
    Custody(#[source] CustodyError),
    #[error("the anchor is not valid")]
    Anchor(#[source] AnchorError),
    #[error("there is no global configuration that says which logs this server had")]
    Trust(#[source] TrustError),
    #[error(
        "the global configuration lists no message log of {0}, so there is none that a new one could follow"
    )]
    NoLog(ServerId),
    #[error("a key cannot be made or opened")]
    Key(#[source] KeyError),
    #[error("a file cannot be read or written")]
    File(#[source] FileError),
    #[error("cannot {what} {path}", path = path.display())]
    Disk { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the plan in {path} cannot be read", path = .0.display())]
    Plan(PathBuf),
    #[error(
        "the checkpoint is not one of the log {0}, or nobody whom the configuration lists has cosigned it"
    )]
    Checkpoint(String),
    #[error(
        "the log {0} is whole: none of the {1} records that witnesses saw is missing, so it can go on\nhint: start the security \
         server; where the log must be closed all the same, as when its key was stolen, say `--although-whole`"
    )]
    Whole(String, u64),
    #[error("the new origin is not one of a note")]
    Origin(#[source] CheckpointError),
    #[error("the new log cannot begin")]
    Log(#[source] LogError),
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Why, for the record.
    pub reason: String,
    /// Who, for the record.
    pub operator: String,
    /// The last checkpoint of the old log with its cosignatures, as a witness shows it, where it is known better than here.
    pub checkpoint: Option<Vec<u8>>,
    /// Close the log although nothing is missing of it.
    pub although_whole: bool,
}

/// What has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The origin of the new log.
    pub origin: String,
    /// The log before.
    pub previous: String,
    /// Records of it that witnesses saw; 0 if that is not known.
    pub witnessed: u64,
    /// Whole records of it that are left.
    pub left: u64,
    /// What is missing, in words.
    pub missing: String,
    /// Where the old log lies now.
    pub aside: PathBuf,
}

/// Begins a new generation, or goes on where this was interrupted. Blocks.
pub fn begin(config: &Config, ask: &Ask, clock: Arc<dyn Clock>) -> Result<Begun, GenerationError> {
    let work = Work::prepare(config, ask, clock)?;
    STEPS.iter().try_for_each(|step| step(&work))?;
    Ok(work.begun())
}

type Step = fn(&Work) -> Result<(), GenerationError>;

/// Each does nothing where it was done before.
const STEPS: [Step; 5] = [Work::move_aside, Work::make_key, Work::name_log, Work::begin_log, Work::finish];

struct Work {
    layout: Layout,
    plan: Plan,
    passphrase: Secret,
    clock: Arc<dyn Clock>,
    /// Held, so that no server starts meanwhile.
    _lock: Option<File>,
}

impl Work {
    fn prepare(config: &Config, ask: &Ask, clock: Arc<dyn Clock>) -> Result<Self, GenerationError> {
        let layout = Layout::new(config.data());
        let begun = Plan::read(&layout)?;
        let lock = held(&layout, begun.as_ref())?;
        let passphrase = Secret::from_file(&config.passphrase_file()).map_err(GenerationError::File)?;
        let plan = match begun {
            Some(plan) => plan,
            None => {
                let anchor = read(&layout.anchor()).map_err(GenerationError::Custody)?;
                let anchor = Anchor::parse(&anchor).map_err(GenerationError::Anchor)?;
                let trust = Trust::open(anchor, &layout.configurations(), Arc::clone(&clock))
                    .map_err(GenerationError::Trust)?;
                let configuration = Arc::clone(&trust.snapshot().configuration);
                let plan =
                    Plan::make((&layout, &passphrase), &config.server.0, &configuration, (ask, clock.now()))?;
                plan.store(&layout)?;
                plan
            }
        };
        Ok(Self { layout, plan, passphrase, clock, _lock: lock })
    }

    fn aside(&self) -> PathBuf {
        self.layout.generations().join(self.plan.number.to_string())
    }

    fn is_named(&self) -> bool {
        is_named(&self.layout, &self.plan)
    }

    fn move_aside(&self) -> Result<(), GenerationError> {
        if self.is_named() {
            return Ok(());
        }
        let aside = self.aside();
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| GenerationError::Disk { what, path, source }
        };
        let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir));
        DirBuilder::new().recursive(true).mode(0o700).create(&aside).map_err(failed("make", &aside))?;
        // What is moved there must not be lost with a directory that is not on the disk yet.
        aside.ancestors().skip(1).take(2).try_for_each(sync)?;
        let moved = [
            (self.layout.log(), "log"),
            (self.layout.witnessed(), "witnessed"),
            (self.layout.log_key(), "log.key"),
        ];
        for (from, name) in moved {
            let to = aside.join(name);
            if from.exists() && !to.exists() {
                fs::rename(&from, &to).map_err(failed("move", &from))?;
            }
            // Where it is going first: it must be found in one place at least.
            for dir in [Some(aside.as_path()), from.parent()].into_iter().flatten() {
                sync(dir)?;
            }
        }
        Ok(())
    }

    fn make_key(&self) -> Result<(), GenerationError> {
        let path = self.layout.log_key();
        if path.exists() {
            return Ok(());
        }
        NoteKey::create(&path, &self.passphrase).map(|_| ()).map_err(GenerationError::Key)
    }

    fn name_log(&self) -> Result<(), GenerationError> {
        if self.is_named() {
            return Ok(());
        }
        let text = format!("{}\n", self.plan.origin);
        files::replace(&self.layout.log_origin_file(), text.as_bytes()).map_err(GenerationError::File)
    }

    /// The new log with its first record. One that holds it already is left as it is.
    fn begin_log(&self) -> Result<(), GenerationError> {
        let key = NoteKey::open(&self.layout.log_key(), &self.passphrase).map_err(GenerationError::Key)?;
        let signer = NoteSigner::new(&self.plan.origin, key.into_pair()).map_err(GenerationError::Origin)?;
        let begins_with = Some(self.plan.leaf.clone());
        let options =
            Options { begins_with, ..Options::new(self.layout.log(), signer, Arc::clone(&self.clock)) };
        let (log, _) = Log::open(options).map_err(GenerationError::Log)?;
        log.close();
        Ok(())
    }

    /// From here on it is the registry's administrators who decide.
    fn finish(&self) -> Result<(), GenerationError> {
        let (from, to) = (self.layout.generation_plan(), self.layout.generation_pending());
        let failed = |source| GenerationError::Disk { what: "move", path: from.clone(), source };
        fs::rename(&from, &to).map_err(failed)
    }

    fn begun(&self) -> Begun {
        let generation = self.plan.generation();
        Begun {
            origin: self.plan.origin.clone(),
            previous: generation.previous_origin,
            witnessed: generation.witnessed_size,
            left: generation.left,
            missing: generation.missing,
            aside: self.aside(),
        }
    }
}

/// Whether the log's name is the new one already: then what stands in the place of the old is new.
fn is_named(layout: &Layout, plan: &Plan) -> bool {
    layout.log_origin().is_some_and(|origin| origin == plan.origin)
}

/// The old log's lock, as long as that log stands in its place. The new one is locked by whoever opens it; no server does
/// while there is a plan.
fn held(layout: &Layout, begun: Option<&Plan>) -> Result<Option<File>, GenerationError> {
    if begun.is_some_and(|plan| is_named(layout, plan)) { Ok(None) } else { lock(&layout.log()) }
}

/// Takes the old log's lock, where there is a log.
fn lock(log: &Path) -> Result<Option<File>, GenerationError> {
    let path = log.join("lock");
    let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(GenerationError::Running),
        Err(fs::TryLockError::Error(source)) => Err(GenerationError::Disk { what: "lock", path, source }),
    }
}

#[cfg(test)]
#[path = "generation/tests.rs"]
mod tests;
