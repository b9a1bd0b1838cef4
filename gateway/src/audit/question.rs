//! What an auditor asks for: a filter in the auditor's scope, a page at a time, over all generations of the log.
//!
//! Hits have one order: by generation, and within a generation by their place in it. `oldest first` begins with the earliest
//! generation, otherwise with the log that goes on. A cursor names the generation and the place of the last hit, so that
//! pages go on where they were also where the log was closed meanwhile and another generation took its place.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use trave_message_log::{Count, LogError, MAX_REFERENCE, Reference, Search};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::scan::conditions;
use trave_proto::schema::audit::Filter;
use trave_proto::search::{Key, Outcome, Term, given};

use super::{MAX_PAGE, PAGE, Records, Scope};

/// Longest text in a filter, in bytes: longer than any identifier.
const MAX_TEXT: usize = 400;

/// A question that can be asked of the log, in an auditor's scope.
#[derive(Debug)]
pub(crate) struct Question {
    filter: Filter,
    search: Search,
}

impl Question {
    /// Reads a filter; an error in words if it asks for what there cannot be.
    pub(crate) fn read(filter: Filter, scope: &Scope) -> Result<Self, String> {
        for (name, text) in texts(&filter) {
            let text = given(name, text).map_err(|empty| empty.to_string())?;
            if text.is_some_and(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control)) {
                return Err(format!("`{name}` is not one line of at most {MAX_TEXT} bytes"));
            }
        }
        if let Some(outcome) = filter.outcome.as_deref().filter(|it| Outcome::parse(it).is_none()) {
            let all = Outcome::ALL.map(Outcome::as_str).join(", ");
            return Err(format!("{outcome:?} is no outcome\nhint: there are {all}"));
        }
        let references = references(&filter)?;
        let mut all = conditions(&filter);
        all.push(scope.terms());
        let search = Search { all, references, from: filter.from_ms, to: filter.to_ms, ..Search::default() };
        Ok(Self { filter, search })
    }

    /// Whether it is by what the caller called the exchange by.
    pub(crate) fn is_by_reference(&self) -> bool {
        !self.search.references.is_empty()
    }

    /// What a cursor belongs to: another question, order or scope has another. Of a message id or a case it says only whether
    /// there is one: an auditor keeps cursors, and whoever tries names would find the one that this was made of.
    fn mark(&self, newest_first: bool) -> [u8; 8] {
        let asked = format!("{:?} {newest_first}", self.search.all);
        let by = [&self.filter.message_id, &self.filter.case].map(Option::is_some);
        let others = format!("{:?} {:?} {by:?}", self.search.from, self.search.to);
        let digest = Digest::of_parts(&[b"trave audit cursor v3\n", asked.as_bytes(), others.as_bytes()]);
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.as_bytes()[..8]);
        mark
    }

    /// A page: the hits, and the cursor of the next one if there is one. Reads the disk.
    pub(crate) fn page(&self, records: &Records, page: &Page) -> Result<(Vec<Hit>, Option<Bytes>), LogError> {
        let Page { newest_first, size, .. } = *page;
        let (mut hits, size) = (Vec::new(), size as usize);
        for log in records.in_order(newest_first) {
            let Some(after) = page.after(log.number()) else { continue };
            let left = size - hits.len();
            // Where the page is full, it is only asked whether there is more.
            let search = Search { newest_first, after, limit: left.max(1), ..self.search.clone() };
            let found = log.find(&search)?;
            let generation = log.number();
            hits.extend(found.places.iter().take(left).map(|&place| Hit { generation, place }));
            if found.more || found.places.len() > left {
                let cursor = hits.last().map(|last| self.cursor(newest_first, last));
                return Ok((hits, cursor));
            }
        }
        Ok((hits, None))
    }

    fn cursor(&self, newest_first: bool, last: &Hit) -> Bytes {
        [&self.mark(newest_first)[..], &last.bytes()].concat().into()
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
                let other = "the cursor belongs to another search, order, auditor or release\nhint: begin without one";
                let hit = cursor.strip_prefix(&self.mark(newest_first)).and_then(Hit::read);
                Some(hit.ok_or(other)?)
            }
        };
        Ok(Page { newest_first, size, after })
    }

    /// How many exchanges there are, by the values of a key, in all generations together. Reads the disk.
    pub(crate) fn count(&self, records: &Records, by: Key) -> Result<Count, LogError> {
        let mut search = self.search.clone();
        if by == Key::Outcome && !search.references.is_empty() {
            return Err(LogError::Refused(NOT_WITH_OUTCOME));
        }
        // Each exchange is counted where it began, or, by outcome, where it ended.
        if by == Key::Outcome && self.filter.outcome.is_none() {
            search.all[0] = Outcome::ALL.map(Term::outcome).into();
        }
        let mut counts = Count::new();
        for log in records.in_order(false) {
            for (value, count) in log.count(&search, by)? {
                *counts.entry(value).or_default() += count;
            }
        }
        Ok(counts)
    }
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The number of the generation.
    pub(crate) generation: u64,
    /// The place in it.
    pub(crate) place: u64,
}

impl Hit {
    /// As a cursor holds it: two numbers of eight bytes, big-endian.
    pub(crate) fn bytes(&self) -> Bytes {
        [self.generation.to_be_bytes(), self.place.to_be_bytes()].concat().into()
    }

    /// Reads what [`Hit::bytes`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (generation, place) = bytes.split_first_chunk()?;
        Some(Self {
            generation: u64::from_be_bytes(*generation),
            place: u64::from_be_bytes(place.try_into().ok()?),
        })
    }
}

/// Which page of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    newest_first: bool,
    size: u32,
    after: Option<Hit>,
}

impl Page {
    /// Behind which place of a generation it goes on, if behind any; none if the pages before have passed that generation.
    fn after(&self, generation: u64) -> Option<Option<u64>> {
        let Some(after) = self.after else { return Some(None) };
        let passed = if self.newest_first { Ordering::Greater } else { Ordering::Less };
        match generation.cmp(&after.generation) {
            Ordering::Equal => Some(Some(after.place)),
            other if other == passed => None,
            _ => Some(None),
        }
    }
}

/// As the record of the reading keeps it.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { from_ms, to_ms, .. } = &self.filter;
        for (name, time) in [("from", from_ms), ("to", to_ms)] {
            if let Some(time) = time {
                write!(f, " {name}={}", Time::from_millis(*time))?;
            }
        }
        for (name, text) in texts(&self.filter) {
            if let Some(text) = text {
                write!(f, " {name}={text:?}")?;
            }
        }
        // Either may name a person, and this record is not erased with that person's contents.
        let Filter { message_id, case, .. } = &self.filter;
        for (name, _) in [("message_id", message_id), ("case", case)].iter().filter(|(_, it)| it.is_some()) {
            write!(f, " {name}=(not kept)")?;
        }
        Ok(())
    }
}

/// The texts of a filter that say in clear what is searched for.
fn texts(filter: &Filter) -> [(&'static str, Option<&str>); 6] {
    [
        ("client", filter.client.as_deref()),
        ("service", filter.service.as_deref()),
        ("member", filter.member.as_deref()),
        ("purpose", filter.purpose.as_deref()),
        ("legal_basis", filter.legal_basis.as_deref()),
        ("outcome", filter.outcome.as_deref()),
    ]
}

/// What the caller called the exchange by, as a filter asks for it.
fn references(filter: &Filter) -> Result<Vec<Reference>, String> {
    let mut references = Vec::new();
    for (name, text, read) in [
        ("message_id", &filter.message_id, Reference::message_id as fn(&str) -> Option<Reference>),
        ("case", &filter.case, Reference::case),
    ] {
        let text = given(name, text.as_deref()).map_err(|empty| empty.to_string())?;
        if let Some(text) = text {
            let none = format!("`{name}` is not one line of at most {MAX_REFERENCE} bytes");
            references.push(read(text).ok_or(none)?);
        }
    }
    if !references.is_empty() && filter.outcome.is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_question_order_and_scope() {
        let scope = |class: &str| Scope { classes: vec![class.into()], members: vec![] };
        let question = |purpose: &str, class: &str| {
            Question::read(Filter { purpose: Some(purpose.into()), ..Filter::default() }, &scope(class))
                .unwrap()
        };
        let one = question("a", "NORD/SH");
        let hit = Hit { generation: 2, place: 7 };
        let cursor = one.cursor(true, &hit);
        assert_eq!(one.which(true, 0, &cursor).unwrap().after, Some(hit));
        assert!(one.which(false, 0, &cursor).is_err());
        assert!(one.which(true, 0, &cursor[..cursor.len() - 1]).is_err());
        let longer = [&cursor[..], &[0]].concat();
        assert!(one.which(true, 0, &longer).is_err());
        assert!(question("b", "NORD/SH").which(true, 0, &cursor).is_err());
        // A cursor tells nothing of whom or what was searched for.
        let by = |case: Option<&str>| {
            let case = case.map(str::to_owned);
            Question::read(Filter { case, ..Filter::default() }, &scope("NORD/SH")).unwrap()
        };
        assert_eq!(by(Some("Müller, Hans: Umzug")).mark(true), by(Some("Weber, Ute: Umzug")).mark(true));
        assert_ne!(by(Some("Weber, Ute: Umzug")).mark(true), by(None).mark(true));
        assert!(question("a", "NORD/MV").which(true, 0, &cursor).is_err());
        assert!(one.which(true, MAX_PAGE + 1, &[]).is_err());
        let wrong = Filter { outcome: Some("answered".into()), ..Filter::default() };
        assert!(Question::read(wrong, &Scope::default()).is_err());
    }

    #[test]
    fn pages_go_through_the_generations_in_their_order() {
        let page =
            |newest_first| Page { newest_first, size: 1, after: Some(Hit { generation: 2, place: 7 }) };
        for (newest_first, earlier, later) in [(true, Some(None), None), (false, None, Some(None))] {
            let page = page(newest_first);
            assert_eq!([1, 2, 3].map(|it| page.after(it)), [earlier, Some(Some(7)), later]);
            assert_eq!(Page { after: None, ..page }.after(2), Some(None), "the first page passes nothing");
        }
    }
}
