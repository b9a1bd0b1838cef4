//! A range of a message log, read whole: every leaf or its hash, and what shows that these, in this order and no others,
//! stand in the tree under a signed checkpoint. Whoever has verified a range can tell what a search should have found in it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::checkpoint::{Checkpoint, CheckpointError, Note, NoteVerifier, generation_of};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration, ConfigurationError};
use crate::identifier::{ExchangeId, ServerId};
use crate::schema::audit::{Filter, ScanHead};
use crate::schema::log::leaf::Entry;
use crate::schema::log::{Generation, Leaf, MessageEntry};
use crate::schema::message::Manifest;
use crate::search::{Event, Key, Outcome, Row, Term, Topic};
use crate::timestamp::Timestamp;
use crate::tree::{leaf_hash, root_from_range};

/// Most leaves of one range.
pub const MAX_RANGE: u64 = 1_000_000;

/// Why a range is not what a log holds.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The configuration is not signed as the anchor demands.
    #[error("the configuration that lists the log's key does not hold")]
    Configuration(#[source] ConfigurationError),
    /// There is no configuration.
    #[error("the server sent no configuration")]
    NoConfiguration,
    /// The checkpoint or a cosignature is not signed by whom the configuration names.
    #[error("the checkpoint does not hold")]
    Checkpoint(#[source] CheckpointError),
    /// The configuration lists no log of that origin.
    #[error("the configuration lists no log {0:?}")]
    Origin(String),
    /// The range is none, or too long, or not covered by the checkpoint.
    #[error("the range from {from} to {to} is none, too long, or not under the checkpoint of size {size}")]
    Range {
        /// First leaf.
        from: u64,
        /// Leaf after the last.
        to: u64,
        /// Leaves under the checkpoint.
        size: u64,
    },
    /// More or fewer leaves came than the range has.
    #[error("the range has {expected} leaves, and {found} came")]
    Count {
        /// So many the range has.
        expected: u64,
        /// So many came.
        found: u64,
    },
    /// Of leaves that cannot be read, not even the hash is known.
    #[error(
        "{count} leaves cannot be read, the first at place {first}, and not even their hashes are known: nothing shows that the \
         others are those of the log\nhint: scan what stands before that place and what stands behind it"
    )]
    NoHash {
        /// So many.
        count: usize,
        /// The place of the first.
        first: u64,
    },
    /// The leaves do not lead to the checkpoint's root.
    #[error(
        "the leaves are not those of the log: they do not lead to the root of the checkpoint; one was changed, left out or \
         put in"
    )]
    Root,
}

/// What a range's head says, verified. The leaves are still to come.
#[derive(Debug)]
pub struct Head {
    raw: ScanHead,
    /// The checkpoint under which the range is read.
    pub checkpoint: Checkpoint,
    /// The security server whose log this is.
    pub server: ServerId,
    /// The witnesses who cosigned the checkpoint: name, class, when.
    pub witnesses: Vec<(String, String, Time)>,
    /// When the checkpoint was timestamped by an authority of the configuration; none if there is no token that holds.
    pub stamped: Option<Time>,
    /// The number of the configuration that says so.
    pub configuration: u64,
}

impl Head {
    /// Verifies the head against the auditor's own `anchor`.
    pub fn verify(raw: ScanHead, anchor: &Anchor) -> Result<Self, ScanError> {
        let signed = raw.configuration.as_ref().ok_or(ScanError::NoConfiguration)?;
        let configuration = Configuration::verify(signed, anchor).map_err(ScanError::Configuration)?;
        let mut note = Note::parse(&raw.checkpoint).map_err(ScanError::Checkpoint)?;
        let claimed = Checkpoint::from_text(note.text()).map_err(ScanError::Checkpoint)?;
        let log = configuration.log_key(&claimed.origin).ok_or(ScanError::Origin(claimed.origin))?;
        let key = NoteVerifier::new(&log.origin, log.public_key).map_err(ScanError::Checkpoint)?;
        let checkpoint = Checkpoint::verify(&raw.checkpoint, &[key]).map_err(ScanError::Checkpoint)?;
        let listed = configuration.witnesses();
        let keys: Vec<_> = listed.iter().map(|witness| witness.verifier.clone()).collect();
        note.add_lines(&raw.cosignatures).map_err(ScanError::Checkpoint)?;
        let cosigned = note.cosignatures(&keys).map_err(ScanError::Checkpoint)?;
        let class =
            |name: &str| listed.iter().find(|it| it.verifier.name() == name).map(|it| it.class.clone());
        let named = cosigned.iter().map(|one| (one.witness.name().to_owned(), one.time));
        let witnesses =
            named.map(|(name, at)| (name.clone(), class(&name).unwrap_or_default(), at)).collect();
        let authorities: Vec<_> = configuration
            .timestamping_authorities()
            .iter()
            .map(|authority| authority.certificate.clone())
            .collect();
        let digest = Digest::of(&raw.checkpoint);
        let stamped = Timestamp::verify(&raw.timestamp_token, &digest, None, &authorities).ok();
        let ScanHead { from, to, .. } = raw;
        if from >= to || to - from > MAX_RANGE || to > checkpoint.size {
            return Err(ScanError::Range { from, to, size: checkpoint.size });
        }
        let (server, configuration) = (log.server.clone(), configuration.number());
        let stamped = stamped.map(|stamp| stamp.time());
        Ok(Self { raw, checkpoint, server, witnesses, stamped, configuration })
    }

    /// The first leaf of the range, and the one after the last.
    pub const fn range(&self) -> (u64, u64) {
        (self.raw.from, self.raw.to)
    }

    /// Whether leaves with these hashes are all those of the range.
    fn check(&self, hashes: &[Digest]) -> Result<(), ScanError> {
        let (from, to) = self.range();
        if hashes.len() as u64 != to - from {
            return Err(ScanError::Count { expected: to - from, found: hashes.len() as u64 });
        }
        let path =
            |path: &[Bytes]| path.iter().map(|hash| Digest::from_slice(hash)).collect::<Option<Vec<_>>>();
        let paths = path(&self.raw.first_path).zip(path(&self.raw.last_path));
        let root = paths
            .and_then(|(first, last)| root_from_range(hashes, from, self.checkpoint.size, &first, &last));
        if root == Some(self.checkpoint.root) { Ok(()) } else { Err(ScanError::Root) }
    }
}

/// What an exchange's or a reading's leaf in the range is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its place.
    pub index: u64,
    /// When it was logged, milliseconds since 1970.
    pub time: i64,
    terms: Vec<Term>,
    exchange: Option<ExchangeId>,
}

/// A leaf that the server cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its place.
    pub index: u64,
    /// Its hash in the tree, if that is known.
    pub hash: Option<Digest>,
    /// What is wrong with it, as the server says; at most 200 characters.
    pub what: String,
}

/// Longest description of a damaged leaf that is kept, in characters.
const MAX_WHAT: usize = 200;

/// A range in the making: leaves are added in order.
#[derive(Debug)]
pub struct Range {
    head: Head,
    hashes: Vec<Digest>,
    rows: Vec<Found>,
    topics: BTreeMap<ExchangeId, Topic>,
    answered: BTreeMap<ExchangeId, usize>,
    hidden: Vec<u64>,
    damaged: Vec<Damaged>,
    strays: u64,
    follows: Option<Generation>,
}

impl Range {
    /// Begins after the head.
    pub fn new(head: Head) -> Self {
        let (hashes, rows, hidden, damaged) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (topics, answered) = (BTreeMap::new(), BTreeMap::new());
        Self { head, hashes, rows, topics, answered, hidden, damaged, strays: 0, follows: None }
    }

    /// Adds the next leaf, of which only the hash is shown.
    pub fn add_hash(&mut self, hash: Digest) {
        self.hidden.push(self.head.raw.from + self.hashes.len() as u64);
        self.hashes.push(hash);
    }

    /// Adds the next leaf, which the server cannot read; its hash, if at least that is known.
    pub fn add_damaged(&mut self, hash: Option<Digest>, what: &str) {
        let index = self.head.raw.from + self.hashes.len() as u64;
        self.damaged.push(Damaged { index, hash, what: what.chars().take(MAX_WHAT).collect() });
        self.hashes.push(hash.unwrap_or_else(|| Digest::from_bytes([0; Digest::LEN])));
    }

    /// Adds the next leaf.
    pub fn add_leaf(&mut self, bytes: &Bytes) {
        let index = self.head.raw.from + self.hashes.len() as u64;
        self.hashes.push(leaf_hash(bytes));
        let Ok(leaf) = Leaf::decode(bytes.clone()) else { return };
        if let Some(Entry::Generation(before)) = &leaf.entry {
            self.follows = Some(before.clone());
        }
        let Some(event) = Event::of(&leaf) else { return };
        let exchange = exchange_of(&leaf);
        let known = exchange.and_then(|id| self.topics.get(&id));
        let terms = event.terms(known);
        match (&event, exchange) {
            (Event::Begun(topic), Some(id)) => _ = self.topics.entry(id).or_insert_with(|| topic.clone()),
            (Event::Answered(..), Some(id)) => _ = self.answered.insert(id, self.rows.len()),
            (Event::Ended(_), Some(id)) => {
                self.strays += u64::from(known.is_none());
                // Broken off after its answer was complete: that is what counts.
                if let Some(row) = self.answered.remove(&id).and_then(|at| self.rows.get_mut(at)) {
                    row.terms.retain(|term| term.key != Key::Outcome);
                }
            }
            _ => {}
        }
        self.rows.push(Found { index, time: leaf.logged_ms, terms, exchange });
    }

    /// Checks that what was added is the range, whole.
    pub fn finish(self) -> Result<Scanned, ScanError> {
        let unknown: Vec<_> = self.damaged.iter().filter(|leaf| leaf.hash.is_none()).collect();
        if let Some(first) = unknown.first() {
            return Err(ScanError::NoHash { count: unknown.len(), first: first.index });
        }
        self.head.check(&self.hashes)?;
        let Self { head, rows, hidden, damaged, strays, follows, .. } = self;
        Ok(Scanned { head, rows, hidden, damaged, strays, follows })
    }
}

/// A range that stands so in the log, as far as it can be read: see [`Scanned::damaged`]. [`Range::finish`] is its only maker.
#[derive(Debug)]
pub struct Scanned {
    head: Head,
    rows: Vec<Found>,
    hidden: Vec<u64>,
    damaged: Vec<Damaged>,
    strays: u64,
    follows: Option<Generation>,
}

impl Scanned {
    /// Under what it was verified.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The places of leaves of which only the hash was shown: the server says that they are not in the auditor's scope.
    pub fn hidden(&self) -> &[u64] {
        &self.hidden
    }

    /// The leaves that the server cannot read, ascending. Their hashes are those of the tree. What they said is not known: with any of these
    /// the range is not whole, and what a search should have found in it is known as far as the others tell.
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Whether each leaf of the range was shown, or its hash because it is not for this auditor: none is damaged.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty()
    }

    /// Ends of exchanges that began before the range: what they are about is not known here.
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// The generation of the log that stands in the range.
    pub fn generation(&self) -> u64 {
        generation_of(&self.head.checkpoint.origin)
    }

    /// What the log says, in its first record, of the generation before it; none if that record is not in the range, or it is
    /// the first generation.
    pub const fn follows(&self) -> Option<&Generation> {
        self.follows.as_ref()
    }

    /// Exchanges that begin in the range, as far as shown.
    pub fn begun(&self) -> usize {
        let begun = Term::row(Row::Begun);
        self.rows.iter().filter(|row| row.terms.contains(&begun)).count()
    }

    /// The places that a search for `filter` must have found in this range, ascending, with the exchange.
    pub fn expected(&self, filter: &Filter) -> Vec<(u64, Option<ExchangeId>)> {
        let conditions = conditions(filter);
        let meets = |row: &&Found| {
            conditions.iter().all(|any| any.iter().any(|term| row.terms.contains(term)))
                && filter.from_ms.is_none_or(|from| row.time >= from)
                && filter.to_ms.is_none_or(|to| row.time < to)
        };
        self.rows.iter().filter(meets).map(|row| (row.index, row.exchange)).collect()
    }
}

/// What a filter asks for: conditions that must all be met, each by any of its terms. An unknown outcome is met by nothing.
pub fn conditions(filter: &Filter) -> Vec<Vec<Term>> {
    let mut all = vec![match filter.outcome.as_deref() {
        None => vec![Term::row(Row::Begun)],
        Some(outcome) => Outcome::parse(outcome).map(Term::outcome).into_iter().collect(),
    }];
    let given = [
        (Key::Client, &filter.client),
        (Key::Service, &filter.service),
        (Key::Purpose, &filter.purpose),
        (Key::LegalBasis, &filter.legal_basis),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some(vec![Term::new(key, value.as_deref()?)]));
    all.extend(given);
    if let Some(member) = &filter.member {
        all.push([Key::ClientMember, Key::ServiceMember].map(|key| Term::new(key, &**member)).into());
    }
    all
}

/// The exchange that a leaf is about.
pub fn exchange_of(leaf: &Leaf) -> Option<ExchangeId> {
    let bytes = match leaf.entry.as_ref()? {
        Entry::Message(message) => exchange_in(message)?,
        // It is of the same exchange, wherever its record stands now.
        Entry::Recovered(recovered) => exchange_in(recovered.message.as_ref()?)?,
        Entry::Ended(ended) => ended.exchange_id.clone(),
        Entry::Refusal(refusal) => refusal.exchange_id.clone(),
        Entry::Erasure(erasure) => erasure.exchange_id.clone(),
        _ => return None,
    };
    ExchangeId::from_slice(&bytes).ok()
}

fn exchange_in(message: &MessageEntry) -> Option<Bytes> {
    Manifest::decode(message.manifest.clone()).ok().map(|manifest| manifest.exchange_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::log::RecoveredMessage;

    #[test]
    fn a_message_that_came_back_is_of_its_exchange() {
        let id = ExchangeId::new(Time::from_millis(1_795_288_440_005), &[7; 10]);
        let exchange_id = Bytes::copy_from_slice(id.as_bytes());
        let manifest = Manifest { exchange_id, ..Manifest::default() }.encode_to_vec().into();
        let message = MessageEntry { manifest, ..MessageEntry::default() };
        let recovered = RecoveredMessage { message: Some(message.clone()), ..RecoveredMessage::default() };
        for entry in [Entry::Message(message), Entry::Recovered(recovered)] {
            let leaf = Leaf { entry: Some(entry), ..Leaf::default() };
            assert_eq!(exchange_of(&leaf), Some(id));
        }
    }
}
