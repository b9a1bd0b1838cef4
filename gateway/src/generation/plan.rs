//! What a new generation will be: decided once, before anything is moved, and kept until it is done.

use bytes::Bytes;
use prost::Message;
use trave_host::config::{Secret, with_causes};
use trave_host::files;
use trave_host::keys::NoteKey;
use trave_message_log::{Left, what_is_left};
use trave_proto::checkpoint::{Checkpoint, Note, NoteVerifier};
use trave_proto::clock::Time;
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::ServerId;
use trave_proto::schema::log::{Generation, Leaf, leaf};

use super::{Ask, GenerationError};
use crate::custody::Layout;
use crate::upkeep::last_witnessed_note;

/// The origin of the new log, and its first record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The number of the generation before.
    pub(super) number: u64,
    pub(super) origin: String,
    pub(super) leaf: Leaf,
}

impl Plan {
    /// Looks at what is left of the old log, without changing anything, and at what is known of it elsewhere.
    pub(super) fn make(
        (layout, passphrase): (&Layout, &Secret),
        server: &ServerId,
        configuration: &Configuration,
        (ask, now): (&Ask, Time),
    ) -> Result<Self, GenerationError> {
        let no_log = || GenerationError::NoLog(server.clone());
        let listed = configuration.security_server(server).ok_or_else(no_log)?.logs();
        // A key that is there and does not open is not lost: the passphrase may be the wrong one.
        let here = match layout.log_key().exists() {
            true => {
                Some(NoteKey::open(&layout.log_key(), passphrase).map_err(GenerationError::Key)?.public_key())
            }
            false => None,
        };
        let is_listed = here.is_some_and(|key| listed.iter().any(|log| log.public_key == key));
        if layout.generation_pending().exists() && here.is_some() && !is_listed {
            return Err(GenerationError::Waiting);
        }
        // The log of the key that lies here; where that is lost too, the newest one.
        let newest = listed.iter().max_by_key(|log| split(&log.origin).1);
        let old = listed.iter().find(|log| Some(log.public_key) == here).or(newest).ok_or_else(no_log)?;
        let (stem, number) = split(&old.origin);
        let last =
            listed.iter().filter(|log| split(&log.origin).0 == stem).map(|log| split(&log.origin).1).max();
        let origin = format!("{stem}/{}", last.unwrap_or(number).max(number) + 1);
        let key = NoteVerifier::new(&old.origin, old.public_key).map_err(GenerationError::Origin)?;
        let witnessed = witnessed(layout, &key, configuration, ask)?;
        let size = witnessed.as_ref().map(|(checkpoint, _)| checkpoint.size);
        let left = what_is_left(&layout.log(), &key, size);
        if let (Some((seen, _)), Ok(left), false) = (&witnessed, &left, ask.although_whole)
            && left.root_at == Some(seen.root)
        {
            return Err(GenerationError::Whole(old.origin.clone(), seen.size));
        }
        let missing = missing(witnessed.as_ref().map(|(checkpoint, _)| checkpoint), &left);
        let left = left.unwrap_or_default();
        let generation = Generation {
            previous_origin: old.origin.clone(),
            previous_key: Bytes::copy_from_slice(&old.public_key),
            witnessed_size: size.unwrap_or(0),
            witnessed: witnessed.map(|(_, note)| note).unwrap_or_default(),
            left: left.records,
            left_root: left.root.map(|root| root.to_bytes()).unwrap_or_default(),
            missing,
            operator: ask.operator.clone(),
            reason: ask.reason.clone(),
        };
        let leaf = Leaf::of(now.as_millis(), leaf::Entry::Generation(generation));
        Ok(Self { number, origin, leaf })
    }

    /// A plan that was made before and is not done.
    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, GenerationError> {
        let path = layout.generation_plan();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(GenerationError::Disk { what: "read", path, source }),
            Ok(bytes) => bytes,
        };
        let parse = || {
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let origin = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
            let leaf = Leaf::decode(&bytes[end + 1..]).ok()?;
            let Some(leaf::Entry::Generation(generation)) = &leaf.entry else { return None };
            Some(Self { number: split(&generation.previous_origin).1, origin, leaf })
        };
        parse().map(Some).ok_or(GenerationError::Plan(path))
    }

    pub(super) fn store(&self, layout: &Layout) -> Result<(), GenerationError> {
        let bytes = [self.origin.as_bytes(), b"\n", &self.leaf.encode_to_vec()].concat();
        files::replace(&layout.generation_plan(), &bytes).map_err(GenerationError::File)
    }

    /// What the first record says.
    pub(super) fn generation(&self) -> Generation {
        match &self.leaf.entry {
            Some(leaf::Entry::Generation(generation)) => generation.clone(),
            _ => Generation::default(),
        }
    }
}

/// The last part of an origin, where it is a number, and what stands before it.
fn split(origin: &str) -> (&str, u64) {
    let parts = origin.rsplit_once('/').and_then(|(stem, number)| Some((stem, number.parse().ok()?)));
    parts.unwrap_or((origin, 1))
}

/// The last checkpoint of the old log that witnesses cosigned, with their lines: of what is known here and what was brought,
/// the larger.
fn witnessed(
    layout: &Layout,
    key: &NoteVerifier,
    configuration: &Configuration,
    ask: &Ask,
) -> Result<Option<(Checkpoint, Bytes)>, GenerationError> {
    let here = last_witnessed_note(layout, key);
    let Some(brought) = &ask.checkpoint else { return Ok(here) };
    let refused = || GenerationError::Checkpoint(key.name().to_owned());
    let checkpoint = Checkpoint::verify(brought, std::slice::from_ref(key)).map_err(|_| refused())?;
    let witnesses: Vec<_> = configuration.witnesses().iter().map(|one| one.verifier.clone()).collect();
    let note = Note::parse(brought).map_err(|_| refused())?;
    if note.cosignatures(&witnesses).map_or(true, |found| found.is_empty()) {
        return Err(refused());
    }
    let brought = (checkpoint, Bytes::copy_from_slice(brought));
    Ok(Some(match here {
        Some(here) if here.0.size >= brought.0.size => here,
        _ => brought,
    }))
}

/// What is missing of the old log, as far as anybody can know.
fn missing(witnessed: Option<&Checkpoint>, left: &Result<Left, trave_message_log::LogError>) -> String {
    let left = match left {
        Err(error) => return format!("its records cannot be read whole: {}", with_causes(error)),
        Ok(left) => left,
    };
    let records = left.records;
    match witnessed {
        None => format!("{records} records are left; how many there were, no witness has told"),
        Some(seen) if seen.size > records => format!(
            "of the {} records that witnesses saw, those from {records} on are missing; what came after them is not known",
            seen.size
        ),
        Some(seen) if left.root_at != Some(seen.root) => {
            format!("the {records} records that are left are not those of which witnesses saw {}", seen.size)
        }
        Some(seen) => format!(
            "nothing of the {} records that witnesses saw; {records} are left, and whether more came after them is not known",
            seen.size
        ),
    }
}
