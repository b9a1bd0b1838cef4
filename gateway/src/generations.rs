//! The generations of the message log before this one: searched and proved from as before, and what must go is overwritten in
//! them. They take no records: what was overwritten stands in the log that goes on, before it is done.
//!
//! One that cannot be read keeps no server from starting. `status` says so, as nothing can be erased in it by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use trave_host::config::with_causes;
use trave_message_log::{EarlierLog, LogError, Period, kind};
use trave_proto::checkpoint::{NoteVerifier, generation_of};
use trave_proto::clock::Clock;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::earlier_act::Act;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{EarlierAct, Erasure, PersonsChange, PseudonymPlace};

use crate::custody::Layout;
use crate::recorder::Recorder;

/// One earlier generation.
#[derive(Debug)]
pub(crate) struct Generation {
    /// The last part of its origin.
    pub(crate) number: u64,
    log: EarlierLog,
    /// What was witnessed of it.
    pub(crate) witnessed: PathBuf,
}

impl Generation {
    /// The log, for reading.
    pub(crate) fn log(&self) -> &trave_message_log::Log {
        self.log.log()
    }

    /// The log, for what must go.
    pub(crate) fn earlier(&self) -> &EarlierLog {
        &self.log
    }
}

/// All earlier generations, the earliest first.
#[derive(Debug)]
pub(crate) struct Generations {
    recorder: Recorder,
    all: Vec<Arc<Generation>>,
    unreadable: Vec<Unreadable>,
}

/// One that cannot be read.
#[derive(Debug)]
struct Unreadable {
    number: u64,
    /// As far as it is known.
    origin: String,
    dir: PathBuf,
    /// Why, in words.
    why: String,
}

impl Generations {
    /// Opens those that lie aside. `listed` are the keys of this server's logs; what the log that goes on says of its own
    /// predecessors is known, too. Blocks.
    pub(crate) fn open(
        recorder: Recorder,
        layout: &Layout,
        listed: &[NoteVerifier],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, LogError> {
        let (mut acts, mut keys) = (Vec::new(), BTreeMap::new());
        for record in recorder.log().scan_kind(kind::EARLIER, 0) {
            if let Some(Entry::Earlier(act)) = record?.leaf.entry {
                acts.push(act);
            }
        }
        listed.iter().for_each(|key| drop(keys.insert(generation_of(key.name()), key.clone())));
        let mut first = recorder.log().leaf(0).ok();
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        for number in numbers(layout).into_iter().rev() {
            if let Some(Entry::Generation(before)) = first.take().and_then(|leaf| leaf.entry)
                && let Ok(key) = <[u8; 32]>::try_from(&before.previous_key[..])
                && let Ok(key) = NoteVerifier::new(&before.previous_origin, key)
            {
                keys.insert(generation_of(key.name()), key);
            }
            let dir = layout.generations().join(number.to_string());
            let opened = match keys.get(&number) {
                Some(key) => EarlierLog::open(dir.join("log"), key, Arc::clone(clock), &acts)
                    .map_err(|error| with_causes(&error)),
                None => Err("its key is not known".to_owned()),
            };
            match opened {
                Ok(log) => {
                    first = log.log().leaf(0).ok();
                    all.push(Arc::new(Generation { number, log, witnessed: dir.join("witnessed") }));
                }
                Err(why) => {
                    tracing::warn!(number, why, "an earlier generation of the message log cannot be read");
                    let told = format!(
                        "generation {number} of the message log cannot be read, so nothing is searched, erased or expires in it: {why}"
                    );
                    let origin = keys.get(&number).map_or_else(String::new, |key| key.name().to_owned());
                    unreadable.push(Unreadable { number, origin, dir: dir.join("log"), why: told });
                }
            }
        }
        all.reverse();
        Ok(Self { recorder, all, unreadable })
    }

    /// All that can be read, the earliest first.
    pub(crate) fn all(&self) -> &[Arc<Generation>] {
        &self.all
    }

    /// Those that cannot be read, and why, in words.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        self.unreadable.iter().map(|one| one.why.clone()).collect()
    }

    /// Their numbers.
    pub(crate) fn unreadable_numbers(&self) -> impl Iterator<Item = u64> {
        self.unreadable.iter().map(|one| one.number)
    }

    /// The generation that holds records of an exchange, the latest if there are several. Reads the disk.
    pub(crate) fn of(&self, exchange: ExchangeId) -> Result<Option<Arc<Generation>>, LogError> {
        for generation in self.all.iter().rev() {
            if !generation.log().places(exchange)?.is_empty() {
                return Ok(Some(Arc::clone(generation)));
            }
        }
        Ok(None)
    }

    /// Whether something of an exchange is left to be erased in any of them. Reads the disk.
    pub(crate) fn are_left(&self, exchange: ExchangeId) -> Result<bool, LogError> {
        for generation in self.all.iter().filter(|generation| !generation.earlier().is_erased(exchange)) {
            if !generation.log().places(exchange)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Erases the contents of an exchange in all generations that hold it: how many; none if none holds it, or it was erased
    /// there before.
    pub(crate) async fn erase(
        &self,
        exchange: ExchangeId,
        by: &str,
        reason: &str,
    ) -> Result<Option<u64>, LogError> {
        let mut contents = None;
        for generation in &self.all {
            let (looking, id) = (Arc::clone(generation), exchange);
            let holds = blocking(move || {
                Ok(!looking.earlier().is_erased(id) && !looking.log().places(id)?.is_empty())
            });
            if !holds.await? {
                continue;
            }
            let erasure = Erasure {
                exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
                operator: by.to_owned(),
                reason: reason.to_owned(),
            };
            let erased = self.act(generation, Act::Erasure(erasure)).await?;
            contents = Some(contents.unwrap_or(0) + erased);
        }
        Ok(contents)
    }

    /// Erases the pseudonyms at these places, each in its generation: how many.
    pub(crate) async fn forget(
        &self,
        places: &[PseudonymPlace],
        by: &str,
        reason: &str,
    ) -> Result<u64, LogError> {
        let mut pseudonyms = 0;
        for generation in &self.all {
            let erased: Vec<_> = places.iter().filter(|place| is_of(place, generation)).copied().collect();
            if erased.is_empty() {
                continue;
            }
            let (operator, reason) = (by.to_owned(), reason.to_owned());
            let change = PersonsChange { operator, reason, erased, ..PersonsChange::default() };
            pseudonyms += self.act(generation, Act::Persons(change)).await?;
        }
        Ok(pseudonyms)
    }

    /// Destroys the keys of all periods before `before`, also in generations that cannot be read; how many there were. One in which
    /// they cannot be destroyed keeps none of the others.
    pub(crate) async fn forget_before(&self, before: Period, reason: &str) -> Result<u64, LogError> {
        let (mut keys, mut failed) = (0, None);
        let act = || {
            let (operator, reason) = ("the server".to_owned(), reason.to_owned());
            let destroyed_before = before.to_string();
            Act::Persons(PersonsChange { operator, reason, destroyed_before, ..PersonsChange::default() })
        };
        for generation in &self.all {
            let destroyed = match generation.earlier().has_keys_before(before) {
                Ok(true) => self.act(generation, act()).await,
                none => none.map(|_| 0),
            };
            destroyed.map_or_else(|error| failed = Some(error), |destroyed| keys += destroyed);
        }
        for one in &self.unreadable {
            let destroyed = self.forget_in(one, before, act()).await;
            destroyed.map_or_else(|error| failed = Some(error), |destroyed| keys += destroyed);
        }
        failed.map_or(Ok(keys), Err)
    }

    async fn forget_in(&self, one: &Unreadable, before: Period, act: Act) -> Result<u64, LogError> {
        let dir = one.dir.clone();
        if !blocking(move || EarlierLog::has_keys_in(&dir, before)).await? {
            return Ok(0);
        }
        let act = EarlierAct { origin: one.origin.clone(), act: Some(act) };
        self.recorder.event(Entry::Earlier(act), Vec::new()).await?;
        let dir = one.dir.clone();
        blocking(move || EarlierLog::destroy_keys_in(&dir, before)).await
    }

    /// Closes them, so that whoever comes next can open them. Blocks.
    pub(crate) fn close(&self) {
        self.all.iter().for_each(|generation| generation.log().close());
    }

    /// Logs an act about a generation, and carries it out when that is durable.
    pub(crate) async fn act(&self, generation: &Arc<Generation>, act: Act) -> Result<u64, LogError> {
        let origin = generation.log().verifier().name().to_owned();
        let act = EarlierAct { origin, act: Some(act) };
        self.recorder.event(Entry::Earlier(act.clone()), Vec::new()).await?;
        let generation = Arc::clone(generation);
        blocking(move || generation.earlier().carry_out(&act)).await
    }
}

fn is_of(place: &PseudonymPlace, generation: &Generation) -> bool {
    place.generation == generation.number && !generation.earlier().is_forgotten(place)
}

/// The numbers of the generations that lie aside, ascending.
fn numbers(layout: &Layout) -> Vec<u64> {
    let entries = std::fs::read_dir(layout.generations()).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Runs what reads or writes the disk where nobody waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(LogError::Closed))
}
