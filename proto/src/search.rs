//! What an exchange is found by in a message log: by whom it was begun, about what, and how it ended.
//!
//! It is reckoned from the leaves alone, so that an auditor's program finds in a range of leaves exactly what a server's
//! search should have found there.

use prost::Message as _;

use crate::schema::log::leaf::Entry;
use crate::schema::log::{self, Leaf, Refusal};
use crate::schema::message::{Direction, Ending, Manifest};

/// A text by which is searched is there, and is empty. It asks for nothing; answered with everything, the mistake of a program
/// would show what nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is there and is empty, which asks for nothing\nhint: leave it out to ask for everything")]
pub struct EmptyText(
    /// The name of the field.
    pub &'static str,
);

/// What a request searches for by a text; none where it is absent.
///
/// # Errors
/// If it is there and empty.
pub fn given<'a>(name: &'static str, text: Option<&'a str>) -> Result<Option<&'a str>, EmptyText> {
    if text == Some("") { Err(EmptyText(name)) } else { Ok(text) }
}

/// By what something is found. The numbers stand in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Key {
    /// What kind of place it is: see [`Row`].
    Row = 0,
    /// How the exchange ended: see [`Outcome`].
    Outcome = 1,
    /// The subsystem that asked, `INSTANCE/CLASS/MEMBER/SUBSYSTEM`.
    Client = 2,
    /// Its member, `INSTANCE/CLASS/MEMBER`.
    ClientMember = 3,
    /// The class of its member, `INSTANCE/CLASS`.
    ClientClass = 4,
    /// The service that was asked, `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    Service = 5,
    /// Its member.
    ServiceMember = 6,
    /// The class of its member.
    ServiceClass = 7,
    /// The purpose's code.
    Purpose = 8,
    /// The legal basis's code.
    LegalBasis = 9,
    /// Who read the log.
    Reader = 10,
}

impl Key {
    /// All there are, by their numbers.
    pub const ALL: [Self; 11] = [
        Self::Row,
        Self::Outcome,
        Self::Client,
        Self::ClientMember,
        Self::ClientClass,
        Self::Service,
        Self::ServiceMember,
        Self::ServiceClass,
        Self::Purpose,
        Self::LegalBasis,
        Self::Reader,
    ];

    /// Whether it is about the exchange itself: what its end shares with its beginning.
    pub const fn of_topic(self) -> bool {
        !matches!(self, Self::Row | Self::Outcome | Self::Reader)
    }
}

/// The places in a log that a search can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// An exchange begins: its first message, or the refusal of a call before any message.
    Begun,
    /// Somebody read the log, or asked for or released a search by person.
    Read,
}

impl Row {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Read => "read",
        }
    }
}

/// How an exchange ended, as the log of one side tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Answered, to the last message.
    Complete,
    /// Failed, with a known outcome.
    Failed,
    /// Broken off.
    Aborted,
    /// It is not known how it ended, as after a crash.
    Unknown,
    /// Refused before the register was called.
    Refused,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Complete, Self::Failed, Self::Aborted, Self::Unknown, Self::Refused];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }

    /// Reads what [`Outcome::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// By what.
    pub key: Key,
    /// Which one.
    pub value: String,
}

impl Term {
    /// The value of a key.
    pub fn new(key: Key, value: impl Into<String>) -> Self {
        Self { key, value: value.into() }
    }

    /// A kind of place.
    pub fn row(row: Row) -> Self {
        Self::new(Key::Row, row.as_str())
    }

    /// An outcome.
    pub fn outcome(outcome: Outcome) -> Self {
        Self::new(Key::Outcome, outcome.as_str())
    }
}

/// What a leaf says that can be searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first message of an exchange.
    Begun(Topic),
    /// The last message of an answer.
    Answered(Topic, Outcome),
    /// The end of an exchange otherwise. The exchange's first message says what it was about; and if an answer was complete
    /// before, this is what counts.
    Ended(Outcome),
    /// A refusal: beginning and end in one.
    Refused(Topic),
    /// Somebody read the log.
    Read {
        /// Who.
        reader: String,
    },
}

/// What an exchange is about. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are those of the manifest, documented there")]
pub struct Topic {
    pub client: String,
    pub service: String,
    pub purpose: String,
    pub legal_basis: String,
}

impl Topic {
    /// What it is found by.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        let client = [(Key::Client, 4), (Key::ClientMember, 3), (Key::ClientClass, 2)];
        let service = [(Key::Service, 5), (Key::ServiceMember, 3), (Key::ServiceClass, 2)];
        let parts = |keys: [(Key, usize); 3], identifier: &str| {
            keys.map(|(key, parts)| Term::new(key, beginning(identifier, parts)))
        };
        let codes = [Term::new(Key::Purpose, &*self.purpose), Term::new(Key::LegalBasis, &*self.legal_basis)];
        let all = parts(client, &self.client).into_iter().chain(parts(service, &self.service)).chain(codes);
        all.filter(|term| !term.value.is_empty())
    }
}

/// The first so many parts of an identifier; nothing if it has fewer.
fn beginning(identifier: &str, parts: usize) -> &str {
    let ends = identifier.match_indices('/').map(|(at, _)| at).chain(Some(identifier.len()));
    ends.take(parts)
        .enumerate()
        .last()
        .filter(|(at, _)| at + 1 == parts)
        .map_or("", |(_, end)| &identifier[..end])
}

impl Event {
    /// Reads it from a leaf; none if the leaf is about something else, or cannot be read.
    pub fn of(leaf: &Leaf) -> Option<Self> {
        match leaf.entry.as_ref()? {
            Entry::Message(message) => Self::of_message(&Manifest::decode(message.manifest.clone()).ok()?),
            // It is what it was, wherever its record stands now.
            Entry::Recovered(recovered) => {
                let message = recovered.message.as_ref()?;
                Self::of_message(&Manifest::decode(message.manifest.clone()).ok()?)
            }
            Entry::Ended(ended) => Some(Self::Ended(match ended.outcome() {
                log::Outcome::Failed => Outcome::Failed,
                log::Outcome::Aborted => Outcome::Aborted,
                log::Outcome::Unknown | log::Outcome::Unspecified => Outcome::Unknown,
            })),
            Entry::Refusal(refusal) => Some(Self::Refused(of_refusal(refusal))),
            Entry::Read(read) => Some(Self::Read { reader: read.reader.clone() }),
            Entry::PersonSearchAsked(asked) => Some(Self::Read { reader: asked.reader.clone() }),
            Entry::PersonSearchReleased(released) => Some(Self::Read { reader: released.releaser.clone() }),
            _ => None,
        }
    }

    fn of_message(manifest: &Manifest) -> Option<Self> {
        let topic = || Topic {
            client: manifest.client.clone(),
            service: manifest.service.clone(),
            purpose: manifest.purpose.clone(),
            legal_basis: manifest.legal_basis.clone(),
        };
        match (manifest.direction(), manifest.ending()) {
            (Direction::Request, _) if manifest.index == 0 => Some(Self::Begun(topic())),
            (Direction::Response, Ending::End) => Some(Self::Answered(topic(), Outcome::Complete)),
            (Direction::Response, Ending::Abort) => Some(Self::Answered(topic(), Outcome::Aborted)),
            _ => None,
        }
    }

    /// What the place of the leaf is found by; of an end, `topic` is that of the exchange's beginning, if it is known.
    pub fn terms(&self, topic: Option<&Topic>) -> Vec<Term> {
        let with = |first: &[Term], topic: Option<&Topic>| {
            first.iter().cloned().chain(topic.into_iter().flat_map(Topic::terms)).collect()
        };
        match self {
            Self::Begun(topic) => with(&[Term::row(Row::Begun)], Some(topic)),
            Self::Answered(topic, outcome) => with(&[Term::outcome(*outcome)], Some(topic)),
            Self::Ended(outcome) => with(&[Term::outcome(*outcome)], topic),
            Self::Refused(topic) => {
                with(&[Term::row(Row::Begun), Term::outcome(Outcome::Refused)], Some(topic))
            }
            Self::Read { reader } => vec![Term::row(Row::Read), Term::new(Key::Reader, reader)],
        }
    }
}

fn of_refusal(refusal: &Refusal) -> Topic {
    Topic {
        client: refusal.client.clone(),
        service: refusal.service.clone(),
        purpose: refusal.purpose.clone(),
        legal_basis: refusal.legal_basis.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(topic: &Topic) -> Vec<(Key, String)> {
        topic.terms().map(|term| (term.key, term.value)).collect()
    }

    #[test]
    fn a_topic_is_found_by_itself_its_members_and_their_classes() {
        let topic = Topic {
            client: "NORD/SH/luebeck/gewerbeamt".into(),
            service: "NORD/MV/register/gewerbe/auskunft".into(),
            purpose: "gewerbeummeldung".into(),
            legal_basis: String::new(),
        };
        let expected = [
            (Key::Client, "NORD/SH/luebeck/gewerbeamt"),
            (Key::ClientMember, "NORD/SH/luebeck"),
            (Key::ClientClass, "NORD/SH"),
            (Key::Service, "NORD/MV/register/gewerbe/auskunft"),
            (Key::ServiceMember, "NORD/MV/register"),
            (Key::ServiceClass, "NORD/MV"),
            (Key::Purpose, "gewerbeummeldung"),
        ];
        assert_eq!(values(&topic), expected.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(values(&Topic { client: "NORD".into(), ..Topic::default() }), []);
    }

    #[test]
    fn keys_have_the_numbers_of_their_places() {
        assert!(Key::ALL.iter().enumerate().all(|(at, key)| *key as usize == at));
        assert!(Outcome::ALL.iter().all(|outcome| Outcome::parse(outcome.as_str()) == Some(*outcome)));
    }
}
