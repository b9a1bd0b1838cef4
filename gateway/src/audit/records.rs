//! Where an auditor looks: each generation of the log, and what is told of its records.

use std::collections::HashMap;
use std::sync::Arc;

use trave_message_log::{Count, Found, Log, LogError, PrunedRecord, Search, Searcher, kind};
use trave_proto::checkpoint::generation_of;
use trave_proto::identifier::ExchangeId;
use trave_proto::scan::exchange_of;
use trave_proto::schema::audit::{Entry, Generation as ToldGeneration};
use trave_proto::schema::log::Leaf;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::ListLogResponse;
use trave_proto::search::{Event, Key, Outcome, Row, Term, Topic};

use super::question::Hit;
use super::{MAX_PAGE, Scope};
use crate::generations::{Generation, Generations};
use crate::journal;

/// All generations of the log that can be read, and which cannot.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    current: SearchedLog,
    /// The earliest first.
    earlier: Arc<[SearchedLog]>,
    generations: Arc<Generations>,
}

impl Records {
    /// Has all generations indexed for searching. `begun` is the place where this run of the server begins.
    pub(crate) fn open(log: Log, begun: u64, generations: Arc<Generations>) -> Result<Self, LogError> {
        let earlier = generations.all().iter().map(|generation| {
            let log = generation.log().clone();
            // Nothing of it is under way.
            SearchedLog::open(log, u64::MAX, Some(Arc::clone(generation)))
        });
        let earlier = earlier.collect::<Result<_, _>>()?;
        Ok(Self { current: SearchedLog::open(log, begun, None)?, earlier, generations })
    }

    /// The log that goes on.
    pub(crate) const fn current(&self) -> &SearchedLog {
        &self.current
    }

    /// The generation with this number, 0 for the log that goes on; none if there is none that can be read.
    pub(crate) fn of(&self, generation: u64) -> Option<&SearchedLog> {
        match generation {
            0 => Some(&self.current),
            number => self.in_order(true).find(|log| log.number() == number),
        }
    }

    /// All generations that can be read, the earliest first or the latest.
    pub(crate) fn in_order(&self, newest_first: bool) -> impl Iterator<Item = &SearchedLog> {
        let last = self.earlier.len();
        (0..=last).filter_map(move |at| match if newest_first { last - at } else { at } {
            at if at == last => Some(&self.current),
            at => self.earlier.get(at),
        })
    }

    /// The numbers of the generations that cannot be read: nothing is found in them.
    pub(crate) fn unreadable(&self) -> Vec<u64> {
        self.generations.unreadable_numbers().collect()
    }

    /// What is told of each generation.
    pub(crate) fn told(&self) -> Vec<ToldGeneration> {
        let readable = self.in_order(false).map(|log| ToldGeneration {
            number: log.number(),
            log_origin: log.log.verifier().name().to_owned(),
            log_size: log.log.size(),
            unreadable: false,
        });
        let unreadable = self.unreadable().into_iter();
        let unreadable =
            unreadable.map(|number| ToldGeneration { number, unreadable: true, ..ToldGeneration::default() });
        let mut told: Vec<_> = readable.chain(unreadable).collect();
        told.sort_by_key(|generation| generation.number);
        told
    }

    /// What is told of what was found; none if it is not in scope, or is no more. Reads the disk.
    pub(crate) fn entry(&self, hit: &Hit, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let Some(log) = self.of(hit.generation) else { return Ok(None) };
        match log.entry(hit.place, scope) {
            // It was found, so it is in scope; and one record that cannot be read hides no others.
            Err(error) => what_is_damaged(&error).map(|what| Some(log.damaged(hit.place, what))).ok_or(error),
            entry => entry,
        }
    }

    /// What is told of one exchange, in each generation in which it stands, the earliest first: mostly one entry; refusals
    /// under its id have their own. Reads the disk.
    pub(crate) fn exchange(&self, id: ExchangeId, scope: &Scope) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        for log in self.in_order(false) {
            entries.extend(log.exchange(id, scope)?);
        }
        entries.truncate(MAX_PAGE as usize);
        Ok(entries)
    }

    /// The latest readings, latest first, with their leaves; without those that were pruned or have expired: who read these
    /// is told from the archive. Reads the disk.
    pub(crate) fn reads(
        &self,
        from: Option<i64>,
        to: Option<i64>,
        limit: usize,
    ) -> Result<Vec<(Hit, Leaf)>, LogError> {
        let all = vec![vec![Term::row(Row::Read)]];
        let search = Search { all, from, to, newest_first: true, ..Search::default() };
        let mut reads = Vec::new();
        for log in self.in_order(true).filter(|_| limit > 0) {
            let search = Search { limit: limit - reads.len(), ..search.clone() };
            for place in log.find(&search)?.places {
                match log.log.leaf(place) {
                    Err(LogError::Expired { .. } | LogError::Pruned { .. }) => {}
                    leaf => reads.push((Hit { generation: log.number(), place }, leaf?)),
                }
            }
            if reads.len() >= limit {
                break;
            }
        }
        Ok(reads)
    }
}

/// One generation of the log, as auditors search and read it.
#[derive(Debug, Clone)]
pub(crate) struct SearchedLog {
    number: u64,
    pub(crate) log: Log,
    searcher: Searcher,
    /// What is open at an earlier place was cut off.
    begun: u64,
    /// The same generation, where it is an earlier one.
    earlier: Option<Arc<Generation>>,
}

impl SearchedLog {
    fn open(log: Log, begun: u64, earlier: Option<Arc<Generation>>) -> Result<Self, LogError> {
        let number = earlier.as_ref().map_or_else(|| generation_of(log.verifier().name()), |it| it.number);
        let searcher = log.searcher()?;
        Ok(Self { number, log, searcher, begun, earlier })
    }

    /// Its number, the last part of its origin.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Where it is an earlier generation, this.
    pub(crate) const fn earlier(&self) -> Option<&Arc<Generation>> {
        self.earlier.as_ref()
    }

    /// A page of what is searched for here. Reads the disk.
    pub(super) fn find(&self, search: &Search) -> Result<Found, LogError> {
        self.searcher.find(search)
    }

    /// How often each value of `by` occurs among what is searched for here. Reads the disk.
    pub(super) fn count(&self, search: &Search, by: Key) -> Result<Count, LogError> {
        self.searcher.count(search, by)
    }

    /// What is told of the exchange or refusal at a place; none if it is not in scope, or is no more. Reads the disk.
    pub(crate) fn entry(&self, place: u64, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let leaf = match self.log.leaf(place) {
            Err(LogError::Expired { .. }) => return Ok(None),
            Err(LogError::Pruned { .. }) => return self.pruned(place, scope),
            leaf => leaf?,
        };
        if let Some(LeafEntry::Refusal(refusal)) = &leaf.entry {
            let told = journal::of_refusal(refusal, leaf.logged_ms);
            return Ok(self.shown(told, (place, vec![place]), scope));
        }
        let Some(id) = exchange_of(&leaf) else { return Ok(None) };
        let records = self.searcher.course(id)?;
        let told = journal::of_exchange(&self.log, id, &records, self.begun)?;
        Ok(told.and_then(|told| self.shown(told, (place, records), scope)))
    }

    /// The same of what was pruned: an exchange of which other records are here is told by these.
    fn pruned(&self, place: u64, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let Some(record) = self.log.pruned(place)? else { return Ok(None) };
        let (mut told, mut records) = (journal::of_pruned(&record), vec![place]);
        if let (Some(id), true) = (record.exchange, record.kind != kind::REFUSAL) {
            records = self.searcher.course(id)?;
            told = journal::of_exchange(&self.log, id, &records, self.begun)?;
        }
        Ok(told.and_then(|told| self.shown(told, (place, records), scope)))
    }

    /// What is told of one exchange here. Reads the disk.
    fn exchange(&self, id: ExchangeId, scope: &Scope) -> Result<Vec<Entry>, LogError> {
        let (mut entries, mut told) = (Vec::new(), false);
        for place in self.log.places(id)? {
            let (refused, message) = match self.log.leaf(place) {
                Err(LogError::Expired { .. }) => continue,
                Err(LogError::Pruned { .. }) => {
                    let of = self.log.pruned(place)?.map(|record| record.kind);
                    (of == Some(kind::REFUSAL), matches!(of, Some(kind::MESSAGE | kind::RECOVERED)))
                }
                leaf => {
                    let entry = leaf?.entry;
                    let refused = matches!(entry, Some(LeafEntry::Refusal(_)));
                    (refused, matches!(entry, Some(LeafEntry::Message(_) | LeafEntry::Recovered(_))))
                }
            };
            if refused || (message && !told) {
                entries.extend(self.entry(place, scope)?);
                told |= message;
            }
            if entries.len() >= MAX_PAGE as usize {
                break;
            }
        }
        Ok(entries)
    }

    fn shown(
        &self,
        told: ListLogResponse,
        (index, records): (u64, Vec<u64>),
        scope: &Scope,
    ) -> Option<Entry> {
        let topic = Topic {
            client: told.client.clone(),
            service: told.service.clone(),
            purpose: told.purpose.clone(),
            legal_basis: told.legal_basis.clone(),
        };
        scope.sees(&topic).then(|| Entry {
            index,
            exchange_id: told.exchange_id,
            time_ms: told.time_ms,
            client: told.client,
            service: told.service,
            method: told.method,
            purpose: told.purpose,
            legal_basis: told.legal_basis,
            outcome: if told.outcome == "answered" {
                Outcome::Complete.as_str().into()
            } else {
                told.outcome
            },
            reason: told.reason,
            side: told.side,
            requests: told.requests,
            responses: told.responses,
            records,
            generation: self.number,
        })
    }

    fn damaged(&self, index: u64, what: String) -> Entry {
        let (generation, records) = (self.number, vec![index]);
        Entry { index, generation, records, outcome: DAMAGED.into(), reason: what, ..Entry::default() }
    }

    /// Whether the leaf at a place may be shown as it is, as far as `known` tells of exchanges; it learns. Reads the disk.
    pub(crate) fn may_show(
        &self,
        leaf: &Leaf,
        scope: &Scope,
        known: &mut HashMap<ExchangeId, bool>,
    ) -> Result<bool, LogError> {
        if matches!(
            leaf.entry,
            Some(
                LeafEntry::Read(_)
                    | LeafEntry::PersonSearchAsked(_)
                    | LeafEntry::PersonSearchReleased(_)
                    | LeafEntry::Configuration(_)
                    | LeafEntry::Started(_)
                    | LeafEntry::Generation(_)
                    | LeafEntry::PeerCondition(_)
                    | LeafEntry::HourNotCompared(_)
                    | LeafEntry::SummaryCommitted(_)
            )
        ) {
            return Ok(true);
        }
        if let Some(Event::Refused(topic)) = Event::of(leaf) {
            return Ok(scope.sees(&topic));
        }
        let Some(id) = exchange_of(leaf) else { return Ok(false) };
        if let Some(seen) = known.get(&id) {
            return Ok(*seen);
        }
        // An erasure may come years after its exchange.
        let mut seen = false;
        for place in self.log.places(id)? {
            let topic = match self.log.leaf(place) {
                // Another record of the exchange says what it was about.
                Err(LogError::Expired { .. } | LogError::Damaged { .. } | LogError::Disk { .. }) => continue,
                Err(LogError::Pruned { .. }) => self.log.pruned(place)?.as_ref().and_then(topic_of_pruned),
                leaf => match Event::of(&leaf?) {
                    Some(Event::Begun(topic) | Event::Answered(topic, _)) => Some(topic),
                    _ => None,
                },
            };
            if let Some(topic) = topic {
                seen = scope.sees(&topic);
                break;
            }
        }
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(id, seen);
        Ok(seen)
    }
}

/// The outcome of an exchange of which a record cannot be read.
const DAMAGED: &str = "damaged";

/// What is wrong, without the paths of this server, where one record cannot be read and others can.
pub(crate) fn what_is_damaged(error: &LogError) -> Option<String> {
    match error {
        LogError::Damaged { what, .. } => Some(what.clone()),
        LogError::Disk { .. } => Some("the disk does not give it".into()),
        _ => None,
    }
}

/// Most exchanges of which is remembered whether they are in scope, while a range is read.
const MOST_KNOWN: usize = 100_000;

/// What an exchange was about, by a message of it that was pruned.
fn topic_of_pruned(record: &PrunedRecord) -> Option<Topic> {
    let told = journal::of_pruned(record).filter(|_| record.kind != kind::REFUSAL)?;
    let ListLogResponse { client, service, purpose, legal_basis, .. } = told;
    Some(Topic { client, service, purpose, legal_basis })
}
