//! Exporting a proof: everything that a stranger needs to verify one exchange, in one file, checked before it is given out.

mod container;
mod earlier;

use std::sync::Arc;

use bytes::Bytes;
use trave_message_log::{ContentParts, ContentState, Log, LogError, SignedCheckpoint, StoredRecord};
use trave_proto::checkpoint::{Note, WitnessVerifier};
use trave_proto::clock::Time;
use trave_proto::container::ContainerError;
use trave_proto::conversation::TOLERANCE;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Content, Direction, Manifest, Salt};
use trave_proto::proof::{
    self, BuildError, Conclusion, Exported, ExportedContent, ExportedMessage, Outcome, ProofBuilder,
};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::message::Signature;

pub(crate) use container::{export_container, is_mismatch};
pub(crate) use earlier::{export_restored, seal_of};

use crate::exchange::Exchanges;
use crate::timestamping::StampError;
use crate::trust::{Trust, TrustError};
use crate::upkeep::{SealError, Upkeep, Witnessed};

/// The most that one proof holds of records and contents, in bytes: it is put together in memory.
const MOST: usize = 128 << 20;

/// Which contents go with a proof, of those that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    All,
    /// What was asked.
    Requests,
    /// What was answered.
    Responses,
    None,
}

impl Contents {
    /// All or none.
    pub(crate) const fn all_if(all: bool) -> Self {
        if all { Self::All } else { Self::None }
    }

    fn has(self, direction: Direction) -> bool {
        match self {
            Self::All => true,
            Self::Requests => direction == Direction::Request,
            Self::Responses => direction == Direction::Response,
            Self::None => false,
        }
    }

    /// As a record of the reading has it, behind what was read.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Requests => " with requests alone",
            Self::Responses => " with responses alone",
            Self::None => " without contents",
        }
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(
        "the message log of this security server knows no exchange {0}\nhint: `log list` shows what it knows"
    )]
    Unknown(ExchangeId),
    #[error(
        "exchange {0} was refused before any message was signed: `log list` says why, and there is nothing to prove"
    )]
    NoMessages(ExchangeId),
    #[error(
        "the message log of this security server knows no exchange {0}: the records of that time, kept for {1} months, have \
         expired\nhint: a proof that was exported before still holds"
    )]
    Expired(ExchangeId, u32),
    #[error(
        "exchange {0} stands in the log {1} behind the last timestamped checkpoint of that, and nothing is added to it any more: it \
         cannot be proved from here\nhint: the other security server of the exchange may prove it"
    )]
    NeverSealed(ExchangeId, String),
    #[error("the message log cannot be read")]
    Log(#[source] LogError),
    #[error(
        "the exchange is logged, and its place in the log has no timestamp yet\nhint: try again when a timestamping \
         authority answers"
    )]
    Seal(#[source] SealError),
    #[error(
        "MISMATCH at record {index}: {why}\nhint: `check-log` looks for more; somebody or something changed this log"
    )]
    Mismatch { index: u64, why: String },
    #[error("record {0} of the log is not whole")]
    Record(u64),
    #[error("the {what} {digest}, which a record names, is not kept here")]
    Missing { what: &'static str, digest: Digest },
    #[error("a stored configuration cannot be read")]
    Trust(#[source] TrustError),
    #[error("the proof cannot be put together")]
    Build(#[source] BuildError),
    #[error("the proof does not hold, so it is not given out: {0}\nhint: `check-log` looks for more")]
    DoesNotHold(String),
    #[error(
        "the contents of the exchange are more than the {} MiB that one proof holds\nhint: `--without-content` proves \
         the exchange by its commitments",
        MOST >> 20
    )]
    TooLarge,
    #[error("reading the message log failed")]
    Interrupted,
    #[error("the container cannot be made")]
    Container(#[source] ContainerError),
    #[error("the container cannot be sealed: the signing key does not answer")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the container gets no timestamp, and without one it is no proof of its time\nhint: try again when a timestamping \
         authority answers, or export the proof without `--asice`"
    )]
    Stamp(#[source] StampError),
}

impl ExportError {
    /// The same, unless nothing is known of an exchange whose records have expired after so many months.
    pub(crate) fn or_expired(self, id: ExchangeId, months: Option<u32>) -> Self {
        match (self, months) {
            (Self::Unknown(_) | Self::NoMessages(_), Some(months)) => Self::Expired(id, months),
            (other, _) => other,
        }
    }
}

/// The proof file of an exchange, with its contents as far as they are kept, or without them.
pub(crate) async fn export(
    exchanges: &Arc<Exchanges>,
    upkeep: &Upkeep,
    id: ExchangeId,
    contents: Contents,
) -> Result<Bytes, ExportError> {
    let log = exchanges.recorder.log().clone();
    let gathered = {
        let log = log.clone();
        blocking(move || chosen(gather(&log, id, contents)?, id)).await
    };
    let (log, pieces, seal) = match gathered {
        Ok(pieces) => {
            let last = pieces.last().map_or(0, |piece| piece.index);
            let seal = seal(exchanges, upkeep, last).await?;
            (log, pieces, seal)
        }
        Err(error @ (ExportError::Unknown(_) | ExportError::NoMessages(_))) => {
            let generations = Arc::clone(upkeep.erasing().generations());
            let found = blocking(move || generations.of(id).map_err(ExportError::Log)).await?;
            let generation = found.ok_or(error)?;
            blocking(move || earlier::gathered(&generation, id, contents)).await?
        }
        Err(error) => return Err(error),
    };
    let (trust, now) = (Arc::clone(&exchanges.trust), exchanges.clock.now());
    blocking(move || verified((&log, &trust, now), id, pieces, seal)).await
}

/// The proof file, verified before it is given out.
fn verified(
    (log, trust, now): (&Log, &Trust, Time),
    id: ExchangeId,
    pieces: Vec<Piece>,
    seal: Witnessed,
) -> Result<Bytes, ExportError> {
    let proof = assemble((log, trust, now), id, pieces, seal)?;
    let report = proof::verify(&proof, trust.anchor(), Some(now));
    if report.conclusion == Conclusion::DoesNotHold {
        return Err(ExportError::DoesNotHold(failures(&report)));
    }
    Ok(proof.encode())
}

/// The checkpoint under which record `last` is proved: a witnessed one, if there is any or the witnesses cosign one now.
pub(crate) async fn seal(
    exchanges: &Exchanges,
    upkeep: &Upkeep,
    last: u64,
) -> Result<Witnessed, ExportError> {
    let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
    let proves = |seal: &SignedCheckpoint| seal.timestamp.is_some() && seal.checkpoint.size > last;
    let witnessed = || {
        let kept = upkeep.witnessed()?;
        let serves = proves(&kept.checkpoint) && upkeep.is_witnessed(&kept, &configuration);
        serves.then(|| Witnessed::clone(&kept))
    };
    if let Some(witnessed) = witnessed() {
        return Ok(witnessed);
    }
    let latest = exchanges.recorder.log().latest_checkpoint().filter(proves);
    let seal = match latest {
        // Nobody is there to cosign it, or nobody who has answered lately.
        Some(latest) if !upkeep.may_be_cosigned(&latest) => latest,
        // The witnesses are asked once more. Without them it is still a proof, and says so.
        latest => match (upkeep.seal_for_proof().await, latest) {
            (Ok(new), _) => new,
            (Err(_), Some(latest)) => latest,
            (Err(error), None) => return Err(ExportError::Seal(error)),
        },
    };
    Ok(witnessed().unwrap_or_else(|| {
        let kept = upkeep.witnessed().filter(|kept| kept.checkpoint.note == seal.note);
        let lines = kept.map(|kept| kept.lines.clone()).unwrap_or_default();
        Witnessed { checkpoint: seal, lines }
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ExportError::Interrupted))
}

/// A record of the exchange, as far as it is exported.
struct Piece {
    index: u64,
    leaf: Bytes,
    kind: Kind,
    message: Option<ExportedMessage>,
}

impl Piece {
    fn is_erased(&self) -> bool {
        self.message.as_ref().is_some_and(|message| matches!(message.content, ExportedContent::Erased))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Ended,
    Erasure,
}

/// Reads the records of the exchange. A content that is erased meanwhile has its erasure logged before it goes: read once
/// more, the record of it is there too.
fn gather(log: &Log, id: ExchangeId, contents: Contents) -> Result<Vec<Piece>, ExportError> {
    let pieces = gather_once(log, id, contents)?;
    let explained = pieces.iter().any(|piece| piece.kind == Kind::Erasure);
    if explained || !pieces.iter().any(Piece::is_erased) {
        Ok(pieces)
    } else {
        gather_once(log, id, contents)
    }
}

/// Reads the records of the exchange, one after the other.
fn gather_once(log: &Log, id: ExchangeId, contents: Contents) -> Result<Vec<Piece>, ExportError> {
    let places = log.places(id).map_err(ExportError::Log)?;
    if places.is_empty() {
        return Err(ExportError::Unknown(id));
    }
    let (mut pieces, mut bytes) = (Vec::new(), 0_usize);
    for index in places {
        let record = log.record(index).map_err(ExportError::Log)?;
        let (kind, message) = match &record.leaf.entry {
            Some(LeafEntry::Message(_) | LeafEntry::Recovered(_)) => {
                let with_content = contents.has(direction(&record)?);
                (Kind::Message, Some(message(&record, with_content)?))
            }
            Some(LeafEntry::Ended(_)) => (Kind::Ended, None),
            Some(LeafEntry::Erasure(_)) => (Kind::Erasure, None),
            _ => continue,
        };
        bytes += record.leaf_bytes.len() + message.as_ref().map_or(0, size);
        if bytes > MOST {
            return Err(ExportError::TooLarge);
        }
        pieces.push(Piece { index, leaf: record.leaf_bytes, kind, message });
    }
    Ok(pieces)
}

fn size(message: &ExportedMessage) -> usize {
    match &message.content {
        ExportedContent::Included(content, _) => {
            let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            content.body.len() + optional(&content.head) + optional(&content.trailers)
        }
        _ => 0,
    }
}

/// What a proof holds: all messages, the first record of the end, and the last erasure, if it erased something.
fn chosen(mut pieces: Vec<Piece>, id: ExchangeId) -> Result<Vec<Piece>, ExportError> {
    if pieces.iter().all(|piece| piece.kind != Kind::Message) {
        return Err(ExportError::NoMessages(id));
    }
    let is = |kind: Kind| move |piece: &&Piece| piece.kind == kind;
    let end = pieces.iter().find(is(Kind::Ended)).map(|piece| piece.index);
    let erased = pieces.iter().any(Piece::is_erased);
    let erasure = pieces.iter().rfind(is(Kind::Erasure)).map(|piece| piece.index).filter(|_| erased);
    pieces.retain(|piece| match piece.kind {
        Kind::Message => true,
        Kind::Ended => Some(piece.index) == end,
        Kind::Erasure => Some(piece.index) == erasure,
    });
    Ok(pieces)
}

fn assemble(
    (log, trust, now): (&Log, &Trust, Time),
    id: ExchangeId,
    pieces: Vec<Piece>,
    seal: Witnessed,
) -> Result<proof::Proof, ExportError> {
    let Witnessed { checkpoint: seal, lines } = seal;
    // No anchor has a successor yet, so the chain of anchors is empty.
    let mut builder = ProofBuilder::new(id, Vec::new());
    for Piece { index, leaf, message, .. } in pieces {
        let path = log.inclusion(index, seal.checkpoint.size).map_err(ExportError::Log)?;
        builder.record(Exported { leaf, index, path, message }).map_err(ExportError::Build)?;
    }
    for digest in builder.needed_artefacts().collect::<Vec<_>>() {
        let found = log.artefact(&digest).map_err(ExportError::Log)?;
        builder.artefact(found.ok_or(ExportError::Missing { what: "artefact", digest })?);
    }
    let mut witnesses = Vec::new();
    for digest in builder.needed_configurations().collect::<Vec<_>>() {
        let found = trust.find(&digest).map_err(ExportError::Trust)?;
        let found = found.ok_or(ExportError::Missing { what: "configuration", digest })?;
        builder.configuration(&found);
        if builder.recorders_configurations().any(|of| *of == digest) {
            witnesses.extend(found.witnesses().iter().map(|witness| witness.verifier.clone()));
        }
    }
    let lines = lines_of(&seal, &lines, &witnesses, now);
    builder.build(seal.note, seal.timestamp.unwrap_or_default(), lines).map_err(ExportError::Build)
}

/// The note of the last checkpoint that is witnessed as the policy asks, with the lines of the witnesses; where none is, that
/// of the last checkpoint. Nobody is asked for it.
pub(crate) fn published(exchanges: &Exchanges, upkeep: &Upkeep) -> Option<Bytes> {
    let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
    let kept = upkeep.witnessed().filter(|kept| upkeep.is_witnessed(kept, &configuration));
    let seal = match kept {
        Some(kept) => Witnessed::clone(&kept),
        None => Witnessed { checkpoint: exchanges.recorder.log().latest_checkpoint()?, lines: String::new() },
    };
    Some([seal.checkpoint.note.clone(), witness_lines(exchanges, &seal)].concat().into())
}

/// The lines of those witnesses of the configuration in force who cosigned the checkpoint.
pub(crate) fn witness_lines(exchanges: &Exchanges, seal: &Witnessed) -> Bytes {
    let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
    let witnesses: Vec<_> =
        configuration.witnesses().iter().map(|witness| witness.verifier.clone()).collect();
    lines_of(&seal.checkpoint, &seal.lines, &witnesses, exchanges.clock.now())
}

/// The lines of those witnesses whom a stranger will find in the proof's configurations. One from the future would keep the
/// verifier from telling anything.
fn lines_of(seal: &SignedCheckpoint, lines: &str, witnesses: &[WitnessVerifier], now: Time) -> Bytes {
    let note = Note::parse(&seal.note).and_then(|mut note| note.add_lines(lines.as_bytes()).map(|()| note));
    note.map(|note| note.cosignature_lines_until(witnesses, now.plus(TOLERANCE)).into()).unwrap_or_default()
}

/// Which way a message went.
fn direction(record: &StoredRecord) -> Result<Direction, ExportError> {
    let entry = match &record.leaf.entry {
        Some(LeafEntry::Message(entry)) => Some(entry),
        Some(LeafEntry::Recovered(recovered)) => recovered.message.as_ref(),
        _ => None,
    };
    let manifest = entry.and_then(|entry| Manifest::parse(entry.manifest.clone()).ok());
    manifest.map(|manifest| manifest.direction).ok_or(ExportError::Record(record.index))
}

fn message(record: &StoredRecord, with_content: bool) -> Result<ExportedMessage, ExportError> {
    let index = record.index;
    let signature: Signature = record.attachment.signature.clone().ok_or(ExportError::Record(index))?;
    let (content, caller_context) = match &record.content {
        // The format has one word for what the exporter never kept, and for what it does not keep any longer.
        ContentState::NotKept | ContentState::Expired | ContentState::NotRestored => {
            (ExportedContent::NotKept, None)
        }
        ContentState::Erased => (ExportedContent::Erased, None),
        ContentState::Mismatch(why) => return Err(ExportError::Mismatch { index, why: why.clone() }),
        ContentState::Included(_) if !with_content => (ExportedContent::Withheld, None),
        ContentState::Included(parts) => included(parts, index)?,
    };
    Ok(ExportedMessage { signature, content, caller_context })
}

type Included = (ExportedContent, Option<(Bytes, Salt)>);

fn included(parts: &ContentParts, index: u64) -> Result<Included, ExportError> {
    let salt = |bytes: &Bytes| Salt::from_slice(bytes).map_err(|_| ExportError::Record(index));
    let content =
        Content { head: parts.head.clone(), body: parts.body.clone(), trailers: parts.trailers.clone() };
    let context = match &parts.caller_context {
        Some(encoded) => Some((encoded.clone(), salt(&parts.caller_context_salt)?)),
        None => None,
    };
    Ok((ExportedContent::Included(content, salt(&parts.content_salt)?), context))
}

fn failures(report: &proof::Report) -> String {
    let failed = report.checks.iter().filter_map(|check| match &check.outcome {
        Outcome::Fails(why) => Some(format!("{}: {why}", check.name.as_str())),
        _ => None,
    });
    failed.collect::<Vec<_>>().join("; ")
}
