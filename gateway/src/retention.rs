//! When what the message log holds must be gone: by the policy of the configuration, unless a hold keeps it.
//!
//! All records of an exchange are due at the same time, counted from its beginning as its id tells it: so both sides' logs
//! let go of an exchange together, and none of it is ever left over.

mod holds;

use std::collections::HashMap;
use std::time::Duration;

use trave_message_log::{Due, Log, LogError, PrunedRecord, Schedule, kind};
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::Manifest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ErasureStage, Leaf, PeerConditionStage, Refusal};

use crate::config::Retention;
pub(crate) use holds::{Hold, HoldError, Holds};

/// How far an exchange id's time may lie from that of its records and still be believed: exchanges are shorter, and what a
/// peer sends with an id of another time is refused.
const BELIEVED: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(32 * 86_400));

/// What an exchange is about, as far as its records tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) exchange: Option<ExchangeId>,
    pub(crate) client: String,
    pub(crate) service: String,
    pub(crate) purpose: String,
    /// When it began.
    pub(crate) begun: Time,
}

impl About {
    /// What a leaf says that holds a message, also one that was lost and came back; none if it holds none.
    fn of(leaf: &Leaf) -> Option<Self> {
        let logged = Time::from_millis(leaf.logged_ms);
        match leaf.entry.as_ref()? {
            Entry::Message(message) => {
                Some(Self::message(&Manifest::parse(message.manifest.clone()).ok()?, logged))
            }
            // However late it came back: its id is signed.
            Entry::Recovered(recovered) => {
                let manifest = Manifest::parse(recovered.message.as_ref()?.manifest.clone()).ok()?;
                let said = manifest.exchange.time().min(logged);
                Some(Self::message(&manifest, said))
            }
            _ => None,
        }
    }

    /// What a message says, which was logged then.
    pub(crate) fn message(manifest: &Manifest, logged: Time) -> Self {
        Self {
            exchange: Some(manifest.exchange),
            client: manifest.client.to_string(),
            service: manifest.service.to_string(),
            purpose: manifest.purpose.to_string(),
            begun: begun(manifest.exchange, logged),
        }
    }

    /// What is known of a message or a refusal that was pruned; none of other records.
    pub(crate) fn pruned(record: &PrunedRecord) -> Option<Self> {
        let subject = record.subject.as_ref()?;
        let logged = record.logged;
        Some(Self {
            exchange: record.exchange,
            client: subject.client.clone(),
            service: subject.service.clone(),
            purpose: subject.purpose.clone(),
            begun: match (record.kind, record.exchange) {
                (kind::MESSAGE, Some(exchange)) => begun(exchange, logged),
                (kind::RECOVERED, Some(exchange)) => begun(exchange, exchange.time().min(logged)),
                _ => logged,
            },
        })
    }

    fn refusal(refusal: &Refusal, logged: Time) -> Self {
        Self {
            exchange: ExchangeId::from_slice(&refusal.exchange_id).ok(),
            client: refusal.client.clone(),
            service: refusal.service.clone(),
            purpose: refusal.purpose.clone(),
            // A refused id may say any time: it may be what was refused.
            begun: logged,
        }
    }
}

/// When the exchange of a message began, also of one that came back long after; none of anything else.
pub(crate) fn begun_of(leaf: &Leaf) -> Option<Time> {
    About::of(leaf).map(|about| about.begun)
}

/// When an exchange began, of which something was logged at `logged`.
fn begun(exchange: ExchangeId, logged: Time) -> Time {
    let said = exchange.time();
    let believed = said <= logged.plus(BELIEVED.0) && said >= logged.minus(BELIEVED.1);
    if believed { said } else { logged }
}

/// How long what is about this is kept.
impl Retention {
    fn records(&self, about: &About) -> u32 {
        let said = self.rule.iter().filter(|rule| fits(rule, about)).find_map(|rule| rule.records_months);
        said.unwrap_or(self.records_months)
    }

    /// Days; none: as long as the record.
    fn contents(&self, about: &About) -> Option<u32> {
        let said = self.rule.iter().filter(|rule| fits(rule, about)).find_map(|rule| rule.contents_days);
        said.or(self.contents_days)
    }

    /// The longest and the shortest time for which some record of an exchange is kept, in months.
    fn bounds(&self) -> (u32, u32) {
        let all = self.rule.iter().filter_map(|rule| rule.records_months).chain([self.records_months]);
        all.fold((0, u32::MAX), |(most, least), months| (most.max(months), least.min(months)))
    }

    /// The shortest time for which some record of an exchange is kept, in months.
    pub(crate) fn shortest(&self) -> u32 {
        self.bounds().1
    }

    /// Before so much time has passed, nothing is due.
    pub(crate) fn earliest(&self, from: Time) -> Time {
        let days = self.rule.iter().filter_map(|rule| rule.contents_days).chain(self.contents_days).min();
        let contents = days.map(|days| from.plus(DAY * days));
        let records = from.plus_months(self.bounds().1.min(self.administration_months));
        contents.map_or(records, |contents| contents.min(records))
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn fits(rule: &crate::config::RetentionRule, about: &About) -> bool {
    rule.service.as_ref().is_none_or(|service| service.0.as_str() == about.service)
        && rule.purpose.as_ref().is_none_or(|purpose| purpose.0.as_str() == about.purpose)
        && rule.client.as_ref().is_none_or(|client| client.0.as_str() == about.client)
}

/// What is due in one run: the policy, the holds, and what of the log's own records is still needed.
#[derive(Debug)]
pub(crate) struct Schedules<'a> {
    log: &'a Log,
    retention: &'a Retention,
    holds: &'a Holds,
    now: Time,
    /// From when on records of administration are not needed any more; those that are missing here still are.
    over: HashMap<u64, Time>,
    /// Of a log in whose place another goes on: since when nothing of its administration is needed any more.
    closed: Option<Time>,
    known: HashMap<ExchangeId, Option<About>>,
}

/// Exchanges whose subject is remembered at a time.
const MOST_KNOWN: usize = 65_536;

impl<'a> Schedules<'a> {
    /// Looks through the log's records of administration. Reads the disk.
    pub(crate) fn read(
        log: &'a Log,
        retention: &'a Retention,
        holds: &'a Holds,
        now: Time,
    ) -> Result<Self, LogError> {
        let mut over = HashMap::new();
        let kinds = [kind::GRANT, kind::GROUP, kind::HOLD, kind::ERASURE_NOTICE, kind::CONFIGURATION];
        for kind in kinds.into_iter().chain([kind::PEER_CHECKPOINT]) {
            superseded(log, kind, &mut over)?;
        }
        Ok(Self { log, retention, holds, now, over, closed: None, known: HashMap::new() })
    }

    /// The same of a log in whose place another goes on since then.
    pub(crate) fn closed(self, since: Time) -> Self {
        Self { closed: Some(since), ..self }
    }

    fn over(&self, index: u64) -> Option<Time> {
        self.over.get(&index).copied().or(self.closed)
    }

    fn exchange(&self, about: &About) -> Due {
        if self.holds.holding(about, self.now).is_some() {
            return Due::default();
        }
        let record = about.begun.plus_months(self.retention.records(about));
        let content = self.retention.contents(about).map(|days| about.begun.plus(DAY * days));
        Due { record: Some(record), content: Some(content.map_or(record, |content| content.min(record))) }
    }

    /// What the messages of an exchange say that it is about; none if there is none any more.
    fn about(&mut self, exchange: ExchangeId) -> Result<Option<About>, LogError> {
        if let Some(known) = self.known.get(&exchange) {
            return Ok(known.clone());
        }
        let mut found = None;
        for place in self.log.places(exchange)? {
            found = match self.log.leaf(place) {
                Err(LogError::Expired { .. }) => continue,
                Err(LogError::Pruned { .. }) => {
                    let record = self.log.pruned(place)?.filter(|record| record.kind != kind::REFUSAL);
                    record.as_ref().and_then(About::pruned)
                }
                leaf => About::of(&leaf?),
            };
            if found.is_some() {
                break;
            }
        }
        self.remember(exchange, found.clone());
        Ok(found)
    }

    fn remember(&mut self, exchange: ExchangeId, about: Option<About>) {
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(exchange, about);
    }

    /// The end of an exchange goes with its messages. One without messages is about nothing that a rule could name, and goes
    /// with the first: its messages, if there were any, are gone.
    fn ended(&mut self, exchange: &[u8], logged: Time) -> Result<Due, LogError> {
        let Ok(exchange) = ExchangeId::from_slice(exchange) else {
            return Ok(record(logged.plus_months(self.retention.records_months)));
        };
        if self.holds.names(exchange, self.now) {
            return Ok(Due::default());
        }
        Ok(match self.about(exchange)? {
            Some(about) => self.exchange(&about),
            None => record(begun(exchange, logged).plus_months(self.retention.bounds().1)),
        })
    }

    fn administration(&self, from: Time) -> Due {
        record(from.plus_months(self.retention.administration_months))
    }
}

fn record(due: Time) -> Due {
    Due { record: Some(due), content: None }
}

impl Schedule for Schedules<'_> {
    fn due(&mut self, index: u64, leaf: &Leaf) -> Result<Due, LogError> {
        let logged = Time::from_millis(leaf.logged_ms);
        let Some(entry) = &leaf.entry else { return Ok(Due::default()) };
        Ok(match entry {
            Entry::Message(_) | Entry::Recovered(_) => match About::of(leaf) {
                Some(about) => {
                    if let Some(exchange) = about.exchange {
                        self.remember(exchange, Some(about.clone()));
                    }
                    self.exchange(&about)
                }
                // Nobody can say what it is about: a check of the log tells it.
                None => Due::default(),
            },
            Entry::Ended(ended) => self.ended(&ended.exchange_id, logged)?,
            Entry::Refusal(refusal) => {
                Due { content: None, ..self.exchange(&About::refusal(refusal, logged)) }
            }
            Entry::Read(_)
            | Entry::PersonSearchAsked(_)
            | Entry::PersonSearchReleased(_)
            | Entry::HourNotCompared(_)
            | Entry::SummaryCommitted(_)
            | Entry::Reconciliation(_) => record(logged.plus_months(self.retention.records_months)),
            Entry::Erasure(erasure) => match ExchangeId::from_slice(&erasure.exchange_id) {
                // It says why contents are missing as long as there are records of them.
                Ok(exchange) if self.about(exchange)?.is_some() => Due::default(),
                _ => self.administration(logged),
            },
            Entry::Degradation(_) | Entry::Started(_) => self.administration(logged),
            // A contradiction stays as long as the log does, and so does that somebody looked into it.
            Entry::PeerCondition(condition)
                if condition.stage() == PeerConditionStage::Acknowledged
                    && condition.kind != "logs_disagree" =>
            {
                Due::default()
            }
            Entry::PeerCondition(_) => self.administration(logged),
            Entry::Grant(_)
            | Entry::Group(_)
            | Entry::Hold(_)
            | Entry::ErasureNotice(_)
            | Entry::PeerCheckpoint(_) => match self.over(index) {
                Some(over) => self.administration(over),
                None => Due::default(),
            },
            // Nobody knows which of them the records name that are held.
            Entry::Configuration(_) if self.holds.any(self.now) => Due::default(),
            Entry::Configuration(_) => match self.over(index) {
                // As long as a record may name it.
                Some(over) => record(
                    over.plus_months(self.retention.bounds().0.max(self.retention.administration_months)),
                ),
                None => Due::default(),
            },
            // What says that something is missing, archived or of an earlier log stays as long as the log does: it names
            // nobody. And what this release does not know the use of stays too.
            _ => Due::default(),
        })
    }

    fn due_pruned(&mut self, pruned: &PrunedRecord) -> Result<Due, LogError> {
        let about = About::pruned(pruned);
        Ok(match (pruned.kind, about) {
            (kind::MESSAGE | kind::RECOVERED, Some(about)) => self.exchange(&about),
            (kind::REFUSAL, Some(about)) => Due { content: None, ..self.exchange(&about) },
            (kind::ENDED, _) => {
                let exchange = pruned.exchange.map(|exchange| exchange.as_bytes().to_vec());
                self.ended(&exchange.unwrap_or_default(), pruned.logged)?
            }
            _ => Due::default(),
        })
    }
}

/// Of records of one kind, from when on each is not needed any more: a later one of the same subject has taken its place, or
/// it says itself that the subject is over.
fn superseded(log: &Log, kind: u8, over: &mut HashMap<u64, Time>) -> Result<(), LogError> {
    let mut last: HashMap<String, Vec<u64>> = HashMap::new();
    for found in log.scan_kind(kind, 0) {
        let found = found?;
        let logged = Time::from_millis(found.leaf.logged_ms);
        // By what it is known, whether it takes the place of all before, and whether the subject is over with it.
        let (subject, replaces, ends) = match &found.leaf.entry {
            Some(Entry::Grant(grant)) => (grant.id.clone(), true, !grant.in_force && !grant.applied),
            Some(Entry::Group(group)) if group.applied => (format!("applied {}", group.id), true, false),
            Some(Entry::Group(group)) => {
                if let Some(before) = last.remove(&format!("applied {}", group.id)) {
                    over.extend(before.into_iter().map(|index| (index, logged)));
                }
                match group.dropped {
                    true => (format!("applied {}", group.id), true, true),
                    false => (format!("group {}", group.group), true, group.members.is_empty()),
                }
            }
            Some(Entry::Hold(hold)) => (hold.id.clone(), false, hold.lifted && !hold.applied),
            Some(Entry::ErasureNotice(notice)) => {
                use ErasureStage::{Approved, Dropped, Told};
                let ends = matches!(notice.stage(), Approved | Dropped | Told);
                // Several records may name the exchanges of one: together they are over.
                (format!("{} {}", notice.id, notice.peer), false, ends)
            }
            Some(Entry::Configuration(_)) => (String::new(), true, false),
            // One that contradicts another is a proof, and stays.
            Some(Entry::PeerCheckpoint(shown)) if shown.contradiction.is_empty() => {
                (format!("{} {}", shown.peer, shown.origin), true, false)
            }
            _ => continue,
        };
        let before = last.entry(subject).or_default();
        if replaces || ends {
            over.extend(before.drain(..).map(|index| (index, logged)));
        }
        match ends {
            true => drop(over.insert(found.index, logged)),
            false => before.push(found.index),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(service: &str, purpose: &str) -> About {
        About {
            exchange: None,
            client: "NORD/SH/luebeck/gewerbeamt".into(),
            service: service.into(),
            purpose: purpose.into(),
            begun: Time::from_millis(1_795_288_440_000),
        }
    }

    #[test]
    fn the_first_rule_counts_that_fits_and_says_something() {
        let retention: Retention = toml::from_str(
            "contents_days = 90\n\
             [[rule]]\npurpose = \"oots\"\ncontents_days = 7\n\
             [[rule]]\nservice = \"NORD/MV/amt/register/auskunft\"\npurpose = \"oots\"\nrecords_months = 12\n\
             [[rule]]\nclient = \"NORD/SH/kiel/amt\"\nrecords_months = 1\n",
        )
        .unwrap();
        let of = |service, purpose| {
            let about = about(service, purpose);
            (retention.records(&about), retention.contents(&about))
        };
        assert_eq!(of("NORD/MV/amt/register/auskunft", "oots"), (12, Some(7)));
        assert_eq!(of("NORD/MV/amt/register/akten", "oots"), (24, Some(7)));
        assert_eq!(of("NORD/MV/amt/register/auskunft", "andere"), (24, Some(90)));
        assert_eq!(retention.bounds(), (24, 1));
        let from = Time::from_millis(1_795_288_440_000);
        assert_eq!(retention.earliest(from), from.plus(DAY * 7));
    }

    #[test]
    fn an_id_is_believed_near_its_records_alone() {
        let logged = Time::from_millis(1_795_288_440_000);
        let id = |at| ExchangeId::new(at, &[7; 10]);
        let near = logged.minus(Duration::from_secs(3_000));
        assert_eq!(begun(id(near), logged), near);
        for strange in [logged.plus(DAY), logged.minus(DAY * 40)] {
            assert_eq!(begun(id(strange), logged), logged);
        }
    }
}
