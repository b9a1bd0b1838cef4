//! Encoding and encrypting what is appended, in the thread of its caller: the committer only lays out and writes.

use prost::Message as _;
use trave_proto::clock::Time;
use trave_proto::schema::log::{Attachment, Leaf, LogStarted, leaf};
use trave_proto::tree::leaf_hash;

use crate::entry::{Artefact, Entry, MAX_PERSONS, kind, named_by};
use crate::error::LogError;
use crate::group::Prepared;
use crate::packing;
use crate::person::Person;
use crate::pseudonyms::Pseudonym;
use crate::record::MAX_PAYLOAD;
use crate::reference::{MAX_REFERENCES, Reference};
use crate::segment;
use crate::shared::Shared;

/// Refuses what is too large for a record.
pub(crate) fn check_size(bytes: usize) -> Result<(), LogError> {
    // Room for prefix, tag and place beside the payload itself.
    let limit = MAX_PAYLOAD - 1_024;
    if bytes > limit { Err(LogError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Encodes and encrypts an entry, in the thread of its caller.
pub(crate) fn prepare(shared: &Shared, entry: Entry) -> Result<Prepared, LogError> {
    let Entry { leaf, signature, artefacts, content, persons, references, last } = entry;
    let (kind, exchange) = segment::describe(&leaf);
    if kind == 0 {
        return Err(LogError::Refused("a leaf without an entry"));
    }
    let time = leaf.logged_ms;
    let bytes = leaf.encode_to_vec();
    let unnamed = |artefact: &&Artefact| named_by(&leaf).all(|named| named != artefact.digest());
    let attachment = Attachment {
        signature,
        artefacts: artefacts.iter().filter(unnamed).map(Artefact::named).collect(),
        content: None,
        content_kept: content.is_some(),
    };
    let attachment = attachment.encode_to_vec();
    check_size(bytes.len() + attachment.len())?;
    artefacts.iter().try_for_each(|artefact| check_size(artefact.bytes().len()))?;
    let content = match (content, &leaf.entry) {
        (None, _) => None,
        (Some(parts), Some(leaf::Entry::Message(message))) => {
            Some(shared.key_ring.seal(exchange, &message.manifest, &parts)?)
        }
        (Some(_), _) => return Err(LogError::Refused("a content without a message")),
    };
    let pseudonyms = pseudonyms(shared, (kind, time), &persons, &references)?;
    if last {
        shared.key_ring.finished(&exchange);
    }
    check_size(content.as_ref().map_or(0, |content| content.payload.len()))?;
    let hash = leaf_hash(&bytes);
    let (packed, leaf, done) = (packing::split(&bytes), bytes, None);
    Ok(Prepared {
        leaf,
        packed,
        hash,
        kind,
        exchange,
        time,
        attachment,
        artefacts,
        content,
        pseudonyms,
        done,
    })
}

/// What stands in the log for the persons that a message concerns, and for what its caller calls it by.
fn pseudonyms(
    shared: &Shared,
    (kind, time): (u8, i64),
    persons: &[Person],
    references: &[Reference],
) -> Result<Vec<Pseudonym>, LogError> {
    if persons.is_empty() && references.is_empty() {
        return Ok(Vec::new());
    }
    if kind != kind::MESSAGE {
        return Err(LogError::Refused("persons or references without a message"));
    }
    if persons.len() > MAX_PERSONS || references.len() > MAX_REFERENCES {
        return Err(LogError::Refused("more persons or references than one message may have"));
    }
    let (keys, time) = (&shared.period_keys, Time::from_millis(time));
    let of_persons = persons.iter().map(|person| keys.pseudonym(time, person));
    of_persons.chain(references.iter().map(|reference| keys.of_reference(time, reference))).collect()
}

/// The record that says that the log was opened.
pub(crate) fn started(origin: &str, release: &str, size: u64, now: Time) -> Prepared {
    let (origin, release) = (origin.to_owned(), release.to_owned());
    let entry = leaf::Entry::Started(LogStarted { origin, release, size });
    let leaf = Leaf::of(now.as_millis(), entry);
    let (bytes, kind) = (leaf.encode_to_vec(), kind::STARTED);
    Prepared {
        hash: leaf_hash(&bytes),
        leaf: bytes,
        packed: None,
        kind,
        exchange: [0; 16],
        time: leaf.logged_ms,
        attachment: Attachment::default().encode_to_vec(),
        artefacts: Vec::new(),
        content: None,
        pseudonyms: Vec::new(),
        done: None,
    }
}
