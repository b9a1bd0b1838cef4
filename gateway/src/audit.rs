//! What auditors may see of the message log, and how their questions are asked of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use trave_message_log::{
    Count, Log, LogError, MAX_REFERENCE, PrunedRecord, Reference, Search, Searcher, kind,
};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, MemberId};
use trave_proto::scan::{conditions, exchange_of};
use trave_proto::schema::audit::{Entry, Filter};
use trave_proto::schema::log::Leaf;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::ListLogResponse;
use trave_proto::search::{Event, Key, Outcome, Term, Topic};

use crate::generations::Generations;
use crate::journal;

/// Most entries of a page.
pub(crate) const MAX_PAGE: u32 = 500;
/// Entries of a page where nothing is said.
pub(crate) const PAGE: u32 = 50;
/// Longest text in a filter, in bytes: longer than any identifier.
const MAX_TEXT: usize = 400;

/// What an auditor may see: exchanges whose client or service belongs to one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope {
    /// INSTANCE/CLASS: all members of a class.
    pub(crate) classes: Vec<String>,
    pub(crate) members: Vec<MemberId>,
}

impl Scope {
    /// By what an exchange in scope is found.
    fn terms(&self) -> Vec<Term> {
        let of = |keys: [Key; 2], value: &str| keys.map(|key| Term::new(key, value));
        let classes = self.classes.iter().flat_map(|it| of([Key::ClientClass, Key::ServiceClass], it));
        let members =
            self.members.iter().flat_map(|it| of([Key::ClientMember, Key::ServiceMember], it.as_str()));
        classes.chain(members).collect()
    }

    /// What both see.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let has = |scope: &Self, member: &MemberId| {
            let class = member.as_str().rsplit_once('/').map_or("", |(class, _)| class);
            scope.members.contains(member) || scope.classes.iter().any(|it| it == class)
        };
        let classes = self.classes.iter().filter(|class| other.classes.contains(class)).cloned().collect();
        let mut members: Vec<_> = self.members.iter().filter(|member| has(other, member)).cloned().collect();
        let others = other.members.iter().filter(|member| has(self, member) && !members.contains(member));
        let others: Vec<_> = others.cloned().collect();
        members.extend(others);
        Self { classes, members }
    }

    /// Whether an exchange about this is in scope.
    pub(crate) fn sees(&self, topic: &Topic) -> bool {
        let scope = self.terms();
        topic.terms().any(|term| scope.contains(&term))
    }
}

/// A question that can be asked of the log, in an auditor's scope.
#[derive(Debug)]
pub(crate) struct Question {
    filter: Filter,
    search: Search,
}

impl Question {
    /// Reads a filter; an error in words if it asks for what there cannot be.
    pub(crate) fn read(filter: Filter, scope: &Scope) -> Result<Self, String> {
        let texts = [&filter.client, &filter.service, &filter.member, &filter.purpose, &filter.legal_basis];
        if texts.iter().any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control)) {
            return Err(format!("a text of the filter is not one line of at most {MAX_TEXT} bytes"));
        }
        if !filter.outcome.is_empty() && Outcome::parse(&filter.outcome).is_none() {
            let all = Outcome::ALL.map(Outcome::as_str).join(", ");
            return Err(format!("{:?} is no outcome\nhint: there are {all}", filter.outcome));
        }
        let references = references(&filter)?;
        let mut all = conditions(&filter);
        all.push(scope.terms());
        let search = Search { all, references, from: filter.from_ms, to: filter.to_ms, ..Search::default() };
        Ok(Self { filter, search })
    }

    /// What a cursor belongs to: another question, order or scope has another. Of a message id or a case it says only whether
    /// there is one: an auditor keeps cursors, and whoever tries names would find the one that this was made of.
    fn mark(&self, newest_first: bool) -> [u8; 8] {
        let asked = format!("{:?} {newest_first}", self.search.all);
        let by = [&self.filter.message_id, &self.filter.case].map(|reference| !reference.is_empty());
        let others = format!("{:?} {:?} {by:?}", self.search.from, self.search.to);
        let digest = Digest::of_parts(&[b"trave audit cursor v2\n", asked.as_bytes(), others.as_bytes()]);
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.as_bytes()[..8]);
        mark
    }

    /// A page: the places, and the cursor of the next one if there is one. Reads the disk.
    pub(crate) fn page(
        &self,
        searcher: &Searcher,
        page: &Page,
    ) -> Result<(Vec<u64>, Option<Bytes>), LogError> {
        let Page { newest_first, size, after } = *page;
        let search = Search { newest_first, after, limit: size as usize, ..self.search.clone() };
        let found = searcher.find(&search)?;
        let last = found.places.last().filter(|_| found.more);
        let cursor = last.map(|last| [&self.mark(newest_first)[..], &last.to_be_bytes()].concat().into());
        Ok((found.places, cursor))
    }

    /// How a page is asked for; an error in words if its cursor is none of this question.
    pub(crate) fn which(&self, newest_first: bool, size: u32, cursor: &[u8]) -> Result<Page, String> {
        let size = if size == 0 { PAGE } else { size };
        if size > MAX_PAGE {
            return Err(format!("a page has at most {MAX_PAGE} entries"));
        }
        let after = match cursor {
            [] => None,
            cursor => {
                let place =
                    cursor.strip_prefix(&self.mark(newest_first)).and_then(|rest| rest.try_into().ok());
                let other = "the cursor belongs to another search, order or auditor\nhint: begin without one";
                Some(u64::from_be_bytes(place.ok_or(other)?))
            }
        };
        Ok(Page { newest_first, size, after })
    }

    /// How many exchanges there are, by the values of a key. Reads the disk.
    pub(crate) fn count(&self, searcher: &Searcher, by: Key) -> Result<Count, LogError> {
        let mut search = self.search.clone();
        if by == Key::Outcome && !search.references.is_empty() {
            return Err(LogError::Refused(NOT_WITH_OUTCOME));
        }
        // Each exchange is counted where it began, or, by outcome, where it ended.
        if by == Key::Outcome && self.filter.outcome.is_empty() {
            search.all[0] = Outcome::ALL.map(Term::outcome).into();
        }
        searcher.count(&search, by)
    }
}

/// Which page of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    newest_first: bool,
    size: u32,
    after: Option<u64>,
}

/// As the record of the reading keeps it.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { client, service, member, purpose, legal_basis, outcome, from_ms, to_ms, .. } =
            &self.filter;
        for (name, time) in [("from", from_ms), ("to", to_ms)] {
            if let Some(time) = time {
                write!(f, " {name}={}", Time::from_millis(*time))?;
            }
        }
        let names = ["client", "service", "member", "purpose", "legal_basis", "outcome"];
        let texts = [client, service, member, purpose, legal_basis, outcome];
        for (name, text) in names.into_iter().zip(texts).filter(|(_, text)| !text.is_empty()) {
            write!(f, " {name}={text:?}")?;
        }
        // Either may name a person, and this record is not erased with that person's contents.
        let Filter { message_id, case, .. } = &self.filter;
        for (name, _) in [("message_id", message_id), ("case", case)].iter().filter(|(_, it)| !it.is_empty())
        {
            write!(f, " {name}=(not kept)")?;
        }
        Ok(())
    }
}

/// What the caller called the exchange by, as a filter asks for it.
fn references(filter: &Filter) -> Result<Vec<Reference>, String> {
    let mut references = Vec::new();
    for (name, text, read) in [
        ("message id", &filter.message_id, Reference::message_id as fn(&str) -> Option<Reference>),
        ("case", &filter.case, Reference::case),
    ] {
        if !text.is_empty() {
            let none = format!("the {name} is not one line of at most {MAX_REFERENCE} bytes");
            references.push(read(text).ok_or(none)?);
        }
    }
    if !references.is_empty() && !filter.outcome.is_empty() {
        return Err(NOT_WITH_OUTCOME.into());
    }
    Ok(references)
}

const NOT_WITH_OUTCOME: &str = "a message id or a case is not searched for together with an outcome\nhint: leave the outcome out: it is shown of each exchange";

/// The key of that name by which exchanges can be counted.
pub(crate) fn counted_by(name: &str) -> Result<Key, String> {
    let keys = [
        ("client", Key::Client),
        ("client_member", Key::ClientMember),
        ("service", Key::Service),
        ("service_member", Key::ServiceMember),
        ("purpose", Key::Purpose),
        ("legal_basis", Key::LegalBasis),
        ("outcome", Key::Outcome),
    ];
    let found = keys.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
    found.ok_or_else(|| {
        let names: Vec<_> = keys.iter().map(|(name, _)| *name).collect();
        format!("exchanges are not counted by {name:?}\nhint: there are {}", names.join(", "))
    })
}

/// Where an auditor looks: the log, its searches, and the place where this run of the server begins.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    pub(crate) log: Log,
    pub(crate) searcher: Searcher,
    pub(crate) begun: u64,
    pub(crate) generations: Arc<Generations>,
}

impl Records {
    /// What is told of the exchange or refusal at a place; none if it is not in scope, or is no more. Reads the disk.
    pub(crate) fn entry(&self, place: u64, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let leaf = match self.log.leaf(place) {
            Err(LogError::Expired { .. }) => return Ok(None),
            Err(LogError::Pruned { .. }) => return self.pruned(place, scope),
            leaf => leaf?,
        };
        if let Some(LeafEntry::Refusal(refusal)) = &leaf.entry {
            let told = journal::of_refusal(refusal, leaf.logged_ms);
            return Ok(shown(told, place, vec![place], scope));
        }
        let Some(id) = exchange_of(&leaf) else { return Ok(None) };
        let records = self.searcher.course(id)?;
        let told = journal::of_exchange(&self.log, id, &records, self.begun)?;
        Ok(told.and_then(|told| shown(told, place, records, scope)))
    }

    /// The same of what was pruned: an exchange of which other records are here is told by these.
    fn pruned(&self, place: u64, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let Some(record) = self.log.pruned(place)? else { return Ok(None) };
        let (mut told, mut records) = (journal::of_pruned(&record), vec![place]);
        if let (Some(id), true) = (record.exchange, record.kind != kind::REFUSAL) {
            records = self.searcher.course(id)?;
            told = journal::of_exchange(&self.log, id, &records, self.begun)?;
        }
        Ok(told.and_then(|told| shown(told, place, records, scope)))
    }

    /// What is told of one exchange: mostly one entry; refusals under its id have their own. Reads the disk.
    pub(crate) fn exchange(&self, id: ExchangeId, scope: &Scope) -> Result<Vec<Entry>, LogError> {
        let (mut entries, mut told) = (Vec::new(), false);
        for place in self.log.places(id)? {
            let (refused, message) = match self.log.leaf(place) {
                Err(LogError::Expired { .. }) => continue,
                Err(LogError::Pruned { .. }) => {
                    let of = self.log.pruned(place)?.map(|record| record.kind);
                    (of == Some(kind::REFUSAL), of == Some(kind::MESSAGE))
                }
                leaf => {
                    let entry = leaf?.entry;
                    let refused = matches!(entry, Some(LeafEntry::Refusal(_)));
                    (refused, matches!(entry, Some(LeafEntry::Message(_))))
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
        if entries.is_empty() {
            entries.extend(self.exchange_before(id, scope)?);
        }
        Ok(entries)
    }

    /// The same of an exchange that stands in an earlier generation of the log; the places are those there.
    fn exchange_before(&self, id: ExchangeId, scope: &Scope) -> Result<Option<Entry>, LogError> {
        let Some(generation) = self.generations.of(id)? else { return Ok(None) };
        let places = generation.log().places(id)?;
        let told = journal::of_exchange(generation.log(), id, &places, u64::MAX)?;
        let first = places.first().copied().unwrap_or_default();
        Ok(told.and_then(|told| shown(told, first, places, scope)))
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
                Err(LogError::Expired { .. }) => continue,
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

    /// The places of the latest readings, latest first.
    pub(crate) fn reads(
        &self,
        from: Option<i64>,
        to: Option<i64>,
        limit: usize,
    ) -> Result<Vec<u64>, LogError> {
        let all = vec![vec![Term::row(trave_proto::search::Row::Read)]];
        let search = Search { all, from, to, newest_first: true, limit, ..Search::default() };
        Ok(self.searcher.find(&search)?.places)
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

fn shown(told: ListLogResponse, index: u64, records: Vec<u64>, scope: &Scope) -> Option<Entry> {
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
        outcome: if told.outcome == "answered" { Outcome::Complete.as_str().into() } else { told.outcome },
        reason: told.reason,
        side: told.side,
        requests: told.requests,
        responses: told.responses,
        records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(client: &str, service: &str) -> Topic {
        Topic { client: client.into(), service: service.into(), ..Topic::default() }
    }

    #[test]
    fn a_scope_sees_what_its_classes_and_members_ask_or_are_asked() {
        let class = Scope { classes: vec!["NORD/SH".into()], members: vec![] };
        let member = Scope { classes: vec![], members: vec!["NORD/MV/register".parse().unwrap()] };
        for (client, service, by_class, by_member) in [
            ("NORD/SH/luebeck/amt", "NORD/MV/register/fach/a", true, true),
            ("NORD/MV/wismar/amt", "NORD/SH/kiel/fach/a", true, false),
            ("NORD/MV/wismar/amt", "NORD/MV/register/fach/a", false, true),
            ("NORD/MV/wismar/amt", "NORD/MV/register-2/fach/a", false, false),
            ("NORD/SHX/wismar/amt", "NORD/MV/wismar/fach/a", false, false),
            ("", "", false, false),
        ] {
            let topic = topic(client, service);
            assert_eq!((class.sees(&topic), member.sees(&topic)), (by_class, by_member), "{topic:?}");
            assert!(!Scope::default().sees(&topic), "no scope sees nothing");
        }
    }

    #[test]
    fn two_scopes_see_together_what_each_sees() {
        let of = |classes: &[&str], members: &[&str]| Scope {
            classes: classes.iter().map(|&class| class.into()).collect(),
            members: members.iter().map(|member| member.parse().unwrap()).collect(),
        };
        let scopes = [
            of(&["NORD/SH"], &[]),
            of(&["NORD/SH", "NORD/MV"], &[]),
            of(&["NORD/MV"], &["NORD/SH/kiel"]),
            of(&[], &["NORD/SH/kiel", "NORD/MV/wismar"]),
            of(&[], &["NORD/SH/luebeck"]),
            of(&[], &[]),
        ];
        let members =
            ["NORD/SH/kiel", "NORD/SH/luebeck", "NORD/MV/wismar", "NORD/MV/rostock", "NORD/HH/hamburg"];
        for (one, other) in scopes.iter().flat_map(|one| scopes.iter().map(move |other| (one, other))) {
            for member in members {
                let topic = topic(&format!("{member}/amt"), "");
                let both = one.sees(&topic) && other.sees(&topic);
                assert_eq!(one.and(other).sees(&topic), both, "{one:?} {other:?} {member}");
            }
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_question_order_and_scope() {
        let scope = |class: &str| Scope { classes: vec![class.into()], members: vec![] };
        let question = |purpose: &str, class: &str| {
            Question::read(Filter { purpose: purpose.into(), ..Filter::default() }, &scope(class)).unwrap()
        };
        let one = question("a", "NORD/SH");
        let cursor = [&one.mark(true)[..], &7_u64.to_be_bytes()].concat();
        assert_eq!(one.which(true, 0, &cursor).unwrap().after, Some(7));
        assert!(one.which(false, 0, &cursor).is_err());
        assert!(one.which(true, 0, &cursor[..15]).is_err());
        assert!(question("b", "NORD/SH").which(true, 0, &cursor).is_err());
        // A cursor tells nothing of whom or what was searched for.
        let by = |case: &str| {
            Question::read(Filter { case: case.into(), ..Filter::default() }, &scope("NORD/SH")).unwrap()
        };
        assert_eq!(by("Müller, Hans: Umzug").mark(true), by("Weber, Ute: Umzug").mark(true));
        assert_ne!(by("Weber, Ute: Umzug").mark(true), by("").mark(true));
        assert!(question("a", "NORD/MV").which(true, 0, &cursor).is_err());
        assert!(one.which(true, MAX_PAGE + 1, &[]).is_err());
        let wrong = Filter { outcome: "answered".into(), ..Filter::default() };
        assert!(Question::read(wrong, &Scope::default()).is_err());
    }
}
