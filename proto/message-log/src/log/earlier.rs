//! An earlier generation of a log: closed for good, with another one in its place. It is read and proved from as before, and
//! what a person or the law has go is overwritten in it. It takes no records any more: what says that something went stands in
//! the log that goes on ([`EarlierAct`]), durable before a byte is overwritten, and is carried out again at every opening.

use std::collections::BTreeSet;
use std::ops::Not as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Clock;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::earlier_act::Act;
use trave_proto::schema::log::{EarlierAct, Expiry, PersonsChange, PseudonymPlace};

use super::Log;
use crate::compaction::{self, Installed};
use crate::concerned;
use crate::disk::{Disk, RealDisk};
use crate::erasure;
use crate::error::LogError;
use crate::finding;
use crate::forgetting::{self, Forgetting};
use crate::pruning;
use crate::pseudonyms::{Period, PeriodKeys};
use crate::recovery::{self, KEYS_DIR};
use crate::schedule::{self, Survey};

/// The keys of the periods of a log; none where it has no folder of keys.
fn keys_in(dir: &Path) -> Result<Option<PeriodKeys>, LogError> {
    let (disk, dir): (Arc<dyn Disk>, _) = (Arc::new(RealDisk), dir.join(KEYS_DIR));
    if !dir.is_dir() {
        return Ok(None);
    }
    PeriodKeys::load(&disk, &dir).map(|(keys, _)| Some(keys))
}

/// How often a segment is written anew because something in it was overwritten meanwhile.
const ATTEMPTS: usize = 8;

/// An earlier generation, open for reading, and for what must go.
#[derive(Debug)]
pub struct EarlierLog {
    log: Log,
    /// One thing is overwritten at a time.
    turn: Mutex<()>,
    /// Pseudonyms that acts have had erased, by leaf and place.
    forgotten: Mutex<BTreeSet<(u64, u64)>>,
}

impl EarlierLog {
    /// Opens the log in a directory, which has this key. `acts` are those of the logs after it, in their order. Blocks.
    ///
    /// # Errors
    /// If its records cannot be read whole.
    pub fn open<'a>(
        dir: impl Into<PathBuf>,
        key: &NoteVerifier,
        clock: Arc<dyn Clock>,
        acts: impl IntoIterator<Item = &'a EarlierAct>,
    ) -> Result<Self, LogError> {
        Self::open_on(Arc::new(RealDisk), &dir.into(), (key, clock), acts)
    }

    pub(crate) fn open_on<'a>(
        disk: Arc<dyn Disk>,
        dir: &Path,
        (key, clock): (&NoteVerifier, Arc<dyn Clock>),
        acts: impl IntoIterator<Item = &'a EarlierAct>,
    ) -> Result<Self, LogError> {
        let lock_path = dir.join("lock");
        let lock = disk.lock(&lock_path).map_err(LogError::disk("lock", &lock_path))?;
        let lock = lock.ok_or(LogError::Locked { path: lock_path })?;
        let (shared, doubtful) = recovery::open_earlier(&disk, dir, key)?;
        pruning::settle(&shared, doubtful)?.iter().for_each(|lost| tracing::warn!("{lost}"));
        let earlier = Self {
            log: Log::read_only(shared, key, (clock, lock)),
            turn: Mutex::default(),
            forgotten: Mutex::default(),
        };
        for act in acts.into_iter().filter(|act| act.origin == key.name()) {
            earlier.again(act)?;
        }
        Ok(earlier)
    }

    /// For reading; nothing can be appended to it.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Carries out an act about this log that is durable in the log that goes on; how many contents, pseudonyms or keys it
    /// concerned. Of an [`Expiry`] it only takes note: [`Self::expire`] does it. Blocks.
    pub fn carry_out(&self, act: &EarlierAct) -> Result<u64, LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.log.0.shared;
        match &act.act {
            Some(Act::Erasure(erasure)) => {
                let Ok(exchange) = <[u8; 16]>::try_from(&erasure.exchange_id[..]) else { return Ok(0) };
                shared.note_erased_elsewhere(exchange);
                let contents = erasure::overwrite(shared, &exchange, u64::MAX)?;
                // What its caller called it by goes with it.
                let leaves = finding::of_exchange(shared, &exchange, 0)?;
                let places = concerned::beside(shared, &leaves, true)?;
                forgetting::forget(shared, &Forgetting { places, before: None, again: None })?;
                Ok(contents)
            }
            Some(Act::Persons(change)) => {
                self.note(change);
                forgetting::forget(shared, &Forgetting::of(change))
            }
            Some(Act::Expiry(expiry)) => {
                shared.expiries.note_elsewhere(expiry);
                Ok(0)
            }
            None => Ok(0),
        }
    }

    /// Whether the contents of an exchange were erased here, as the log that goes on says.
    pub fn is_erased(&self, exchange: ExchangeId) -> bool {
        self.log.0.shared.is_erased_elsewhere(exchange.as_bytes())
    }

    /// Whether the pseudonym at this place was erased, as the log that goes on says.
    pub fn is_forgotten(&self, place: &PseudonymPlace) -> bool {
        let forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        forgotten.contains(&(place.leaf, place.offset))
    }

    /// Whether there are keys of periods before this one.
    pub fn has_keys_before(&self, before: Period) -> Result<bool, LogError> {
        Ok(!self.log.0.shared.period_keys.earlier_than(before)?.is_empty())
    }

    /// Whether a log in `dir` that cannot be opened has keys of periods before this one. Blocks.
    pub fn has_keys_in(dir: &Path, before: Period) -> Result<bool, LogError> {
        Ok(keys_in(dir)?.map_or(Ok(Vec::new()), |keys| keys.earlier_than(before))?.is_empty().not())
    }

    /// Destroys the keys of all periods before `before` of a log in `dir` that cannot be opened: how many there were. What is
    /// damaged keeps nobody to be found for longer. The act must be durable in the log that goes on. Blocks.
    pub fn destroy_keys_in(dir: &Path, before: Period) -> Result<u64, LogError> {
        keys_in(dir)?.map_or(Ok(0), |keys| keys.destroy(before))
    }

    fn note(&self, change: &PersonsChange) {
        let places = change.erased.iter().map(|place| (place.leaf, place.offset));
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
    }

    /// The same at an opening: what was overwritten in a segment that was written anew since is not looked for there.
    fn again(&self, act: &EarlierAct) -> Result<(), LogError> {
        let Some(Act::Persons(change)) = &act.act else { return self.carry_out(act).map(|_| ()) };
        self.note(change);
        let again = Forgetting { again: Some(0), ..Forgetting::of(change) };
        forgetting::forget(&self.log.0.shared, &again).map(|_| ())
    }

    /// What must be durable in the log that goes on before this survey is carried out, of contents or of records; none if it
    /// is said already, or nothing is due.
    pub fn act(&self, survey: &Survey, records: bool) -> Result<Option<Expiry>, LogError> {
        schedule::act(&self.log.0.shared, survey, records)
    }

    /// Overwrites what is due by this survey, once that is said; how many contents and records. Blocks.
    pub fn expire(&self, survey: &Survey, coarse: &dyn Fn(i64) -> i64) -> Result<(u64, u64), LogError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (shared, segment) = (&self.log.0.shared, survey.segment);
        let contents = match survey.contents.is_empty() {
            true => 0,
            false => schedule::overwrite_contents(shared, segment, &survey.contents)?,
        };
        if survey.records.is_empty() {
            return Ok((contents, 0));
        }
        schedule::overwrite_contents(shared, segment, &survey.records)?;
        for _ in 0..ATTEMPTS {
            let rewritten = schedule::rewrite(shared, survey, coarse)?;
            let installed = compaction::install(shared, rewritten)?;
            schedule::destroy(shared, segment, &installed)?;
            if let Installed::Replaced(_) = installed {
                return Ok((contents, survey.records()));
            }
        }
        Err(LogError::Busy)
    }
}
