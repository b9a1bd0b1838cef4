//! The persons concerned: what concerns one, erasing one, and letting go of what is too old to be asked for.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::sync::oneshot;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Erasure, Leaf, PersonsChange, PseudonymPlace, leaf};

use super::Log;
use crate::committer::Command;
use crate::concerned;
use crate::entry::{Entry, kind};
use crate::error::LogError;
use crate::finding;
use crate::forgetting::{self, Forgetting};
use crate::pending::Pending;
use crate::person::Person;
use crate::pseudonyms::Period;
use crate::reference::Reference;

/// A leaf that concerns a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concerned {
    /// The place of the leaf in the log.
    pub index: u64,
    /// The exchange that it is of.
    pub exchange: ExchangeId,
    /// Where the pseudonym stands.
    offset: u64,
}

impl Concerned {
    /// Where the pseudonym stands, for the record.
    pub fn place(&self) -> PseudonymPlace {
        PseudonymPlace { leaf: self.index, offset: self.offset, generation: 0 }
    }
}

/// What was erased of a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedPerson {
    /// Exchanges.
    pub exchanges: u64,
    /// Contents of messages in them, in both directions, with their caller contexts.
    pub contents: u64,
    /// Pseudonyms of the person.
    pub pseudonyms: u64,
}

/// Acts that are logged, and pseudonyms that one of them names, at a time.
const AT_A_TIME: usize = 1_000;

impl Log {
    /// The leaves from `from` on that concern a person, the earliest first, as far as keys of their periods are there; at
    /// least `enough`, if there are so many. To go on, ask from behind the last. Reads the disk.
    pub fn of_person(&self, person: &Person, from: u64, enough: usize) -> Result<Vec<Concerned>, LogError> {
        let shared = &self.0.shared;
        let rows = shared.steady(|| concerned::of_person(shared, person, from, enough.max(1)))?;
        let concerned = |row: crate::index::PersonRow| {
            let (entry, path) = finding::entry(shared, row.leaf)?;
            let exchange = ExchangeId::from_slice(&entry.exchange)
                .map_err(|_| LogError::damaged(&path, entry.offset, "a person without an exchange"))?;
            Ok(Concerned { index: row.leaf, exchange, offset: row.offset })
        };
        rows.into_iter().map(concerned).collect()
    }

    /// The places from `from` on of the first messages of exchanges that their callers call so, the earliest first; at least
    /// `enough`, if there are so many. To go on, ask from behind the last. Where a caller gave no message id, the exchange id
    /// stands for it and is not looked for here. Reads the disk.
    pub fn called(&self, reference: &Reference, from: u64, enough: usize) -> Result<Vec<u64>, LogError> {
        let shared = &self.0.shared;
        let rows = shared.steady(|| concerned::called(shared, reference, from, enough.max(1)))?;
        Ok(rows.into_iter().map(|row| row.leaf).collect())
    }

    /// The same leaves by their [places](Concerned::place), as they were found when the log had `size` leaves; without those
    /// that have expired since. Of what was pruned, keys and pseudonyms are here: it is erased like the others. None if one of them stands in a segment that was written anew meanwhile: what
    /// stands at its place now may be nothing, or another person's. Reads the indexes, and segments' headers.
    pub fn concerned_at(
        &self,
        places: &[PseudonymPlace],
        size: u64,
    ) -> Result<Option<Vec<Concerned>>, LogError> {
        let shared = &self.0.shared;
        let mut found = Vec::with_capacity(places.len());
        let mut looked_at = HashMap::new();
        for place in places {
            let (entry, path) = shared.steady(|| finding::entry(shared, place.leaf))?;
            let Ok(exchange) = ExchangeId::from_slice(&entry.exchange) else { continue };
            let moved = match looked_at.get(&path) {
                Some(moved) => *moved,
                None => shared.steady(|| {
                    let (_, path) = finding::entry(shared, place.leaf)?;
                    forgetting::is_rewritten_since(shared, &path, size)
                })?,
            };
            looked_at.insert(path, moved);
            if moved {
                return Ok(None);
            }
            found.push(Concerned { index: place.leaf, exchange, offset: place.offset });
        }
        Ok(Some(found))
    }

    /// Whether nothing of this exchange was logged since its contents were erased. Reads the indexes alone.
    pub fn is_erased(&self, exchange: ExchangeId) -> Result<bool, LogError> {
        let shared = &self.0.shared;
        for place in self.places(exchange)?.into_iter().rev() {
            match shared.steady(|| finding::entry(shared, place))?.0.kind {
                kind::ERASURE => return Ok(true),
                kind::MESSAGE | kind::RECOVERED => return Ok(false),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Whether an erasure of this exchange stands in the log at or behind leaf `from`. Reads the indexes alone.
    pub fn is_erased_since(&self, exchange: ExchangeId, from: u64) -> Result<bool, LogError> {
        let shared = &self.0.shared;
        for place in self.places(exchange)?.into_iter().filter(|place| *place >= from) {
            if shared.steady(|| finding::entry(shared, place))?.0.kind == kind::ERASURE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Erases what concerns a person, as [`Log::of_person`] found it: logs the acts, then overwrites the contents of the
    /// exchanges and the pseudonyms of the person. Those of other persons in the same exchanges stay. Neither the acts nor
    /// anything else names the person.
    pub async fn erase_person(
        &self,
        concerned: &[Concerned],
        operator: &str,
        reason: &str,
    ) -> Result<ErasedPerson, LogError> {
        let (mut erased, mut failed) = (ErasedPerson::default(), Ok(()));
        for some in concerned.chunks(AT_A_TIME) {
            // What cannot be erased of some keeps nothing of the others.
            failed = failed.and(self.erase_some(some, (operator, reason), &mut erased).await);
        }
        failed.map(|()| erased)
    }

    async fn erase_some(
        &self,
        some: &[Concerned],
        (operator, reason): (&str, &str),
        erased: &mut ErasedPerson,
    ) -> Result<(), LogError> {
        let mut exchanges: Vec<_> = some.iter().map(|one| one.exchange).collect();
        exchanges.sort_unstable_by_key(|exchange| *exchange.as_bytes());
        exchanges.dedup();
        let change = PersonsChange {
            operator: operator.to_owned(),
            reason: reason.to_owned(),
            erased: some.iter().map(Concerned::place).collect(),
            destroyed_before: String::new(),
        };
        // What a caller calls an exchange by may name the person as well.
        let references = self.log_references(&exchanges, operator, reason);
        let contents = self.log_erasures(&exchanges, (operator, reason)).await?;
        let references = Self::durable(references).await;
        // All acts are durable before a byte is overwritten, so that a restart does all of it. That which forgets the person
        // comes last: as long as anything else may be left, the person is found again.
        if references.is_ok() {
            self.log_change(&change)?.await?;
        }
        for (exchange, index) in contents {
            let (done, answer) = oneshot::channel();
            self.push(Command::Erase(*exchange.as_bytes(), index, done), 64)?;
            erased.contents += answer.await.unwrap_or(Err(LogError::Closed))?;
        }
        erased.exchanges += exchanges.len() as u64;
        self.forget_references(references?).await?;
        erased.pseudonyms += self.forget(&change).await?;
        Ok(())
    }

    /// Those of these whose pseudonym is in the log still. Reads the disk.
    pub fn still_named(&self, concerned: &[Concerned]) -> Result<Vec<Concerned>, LogError> {
        let mut leaves: Vec<_> = concerned.iter().map(|one| one.index).collect();
        leaves.sort_unstable();
        let shared = &self.0.shared;
        let places = shared.steady(|| concerned::beside(shared, &leaves, false))?;
        let places: HashSet<_> = places.into_iter().collect();
        Ok(concerned.iter().filter(|one| places.contains(&(one.index, one.offset))).copied().collect())
    }

    /// Destroys the keys of all periods before `before`: no identifier can be held against what was logged in them any
    /// more. Logs that first; without such keys it does nothing. Returns how many there were.
    pub async fn forget_persons_before(
        &self,
        before: Period,
        operator: &str,
        reason: &str,
    ) -> Result<u64, LogError> {
        if self.0.shared.period_keys.earlier_than(before)?.is_empty() {
            return Ok(0);
        }
        let (operator, reason) = (operator.to_owned(), reason.to_owned());
        let destroyed_before = before.to_string();
        let change = PersonsChange { operator, reason, destroyed_before, erased: Vec::new() };
        self.log_change(&change)?.await?;
        self.forget(&change).await
    }

    fn log_change(&self, change: &PersonsChange) -> Result<Pending<()>, LogError> {
        let leaf = Leaf::of(self.0.clock.now().as_millis(), leaf::Entry::Persons(change.clone()));
        self.append(Entry::new(leaf), ())
    }

    /// Logs that what their callers call these exchanges by is erased; nothing where there is nothing. Reads the disk.
    pub(super) fn log_references(
        &self,
        exchanges: &[ExchangeId],
        operator: &str,
        reason: &str,
    ) -> Result<Vec<(PersonsChange, Pending<()>)>, LogError> {
        let shared = &self.0.shared;
        let mut leaves = Vec::new();
        for exchange in exchanges {
            leaves.extend(self.places(*exchange)?);
        }
        leaves.sort_unstable();
        let places = shared.steady(|| concerned::beside(shared, &leaves, true))?;
        let mut acts = Vec::new();
        for some in places.chunks(AT_A_TIME) {
            let erased =
                some.iter().map(|&(leaf, offset)| PseudonymPlace { leaf, offset, generation: 0 }).collect();
            let (operator, reason) = (operator.to_owned(), reason.to_owned());
            let change = PersonsChange { operator, reason, erased, destroyed_before: String::new() };
            let act = self.log_change(&change)?;
            acts.push((change, act));
        }
        Ok(acts)
    }

    /// Returns when these acts are on disk.
    pub(super) async fn durable(
        acts: Result<Vec<(PersonsChange, Pending<()>)>, LogError>,
    ) -> Result<Vec<PersonsChange>, LogError> {
        let mut logged = Vec::new();
        for (change, act) in acts? {
            act.await?;
            logged.push(change);
        }
        Ok(logged)
    }

    /// Overwrites what was logged as erased so.
    pub(super) async fn forget_references(&self, acts: Vec<PersonsChange>) -> Result<(), LogError> {
        for change in acts {
            self.forget(&change).await?;
        }
        Ok(())
    }

    async fn forget(&self, change: &PersonsChange) -> Result<u64, LogError> {
        let forgetting = Forgetting::of(change);
        let (done, answer) = oneshot::channel();
        self.push(Command::Forget(forgetting, done), 64)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    /// Logs the erasures of exchanges together; returns where each stands.
    async fn log_erasures(
        &self,
        exchanges: &[ExchangeId],
        (operator, reason): (&str, &str),
    ) -> Result<Vec<(ExchangeId, u64)>, LogError> {
        let mut pending = Vec::with_capacity(exchanges.len());
        for exchange in exchanges {
            // First, so that nothing more is encrypted under the key that will be gone.
            self.0.shared.key_ring.forget(exchange.as_bytes());
            let entry = leaf::Entry::Erasure(Erasure {
                exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
                operator: operator.to_owned(),
                reason: reason.to_owned(),
            });
            let leaf = Leaf::of(self.0.clock.now().as_millis(), entry);
            pending.push(self.append(Entry::new(leaf), *exchange)?);
        }
        let mut logged = Vec::with_capacity(pending.len());
        for one in pending {
            let one = one.await?;
            logged.push((*one.get(), one.index()));
        }
        Ok(logged)
    }
}
