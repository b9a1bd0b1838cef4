//! Exporting a proof: everything that a stranger needs to verify one exchange, in one file, checked before it is given out.

use std::sync::Arc;

use bytes::Bytes;
use trave_message_log::{ContentParts, ContentState, Log, LogError, SignedCheckpoint, StoredRecord};
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Content, Salt};
use trave_proto::proof::{
    self, BuildError, Conclusion, Exported, ExportedContent, ExportedMessage, Outcome, ProofBuilder,
};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::message::Signature;

use crate::exchange::Exchanges;
use crate::trust::{Trust, TrustError};
use crate::upkeep::{SealError, Upkeep};

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
    #[error("reading the message log failed")]
    Interrupted,
}

/// The proof file of an exchange, with its contents as far as they are kept, or without them.
pub(crate) async fn export(
    exchanges: &Arc<Exchanges>,
    upkeep: &Upkeep,
    id: ExchangeId,
    with_content: bool,
) -> Result<Bytes, ExportError> {
    let log = exchanges.recorder.log().clone();
    let records = {
        let log = log.clone();
        blocking(move || chosen(log.exchange(id).map_err(ExportError::Log)?, id)).await?
    };
    let last = records.last().map_or(0, |record| record.index);
    let seal = match log.latest_checkpoint() {
        Some(seal) if seal.timestamp.is_some() && seal.checkpoint.size > last => seal,
        _ => upkeep.seal().await.map_err(ExportError::Seal)?,
    };
    let (trust, now) = (Arc::clone(&exchanges.trust), exchanges.clock.now());
    blocking(move || {
        let proof = assemble(&log, &trust, id, (records, with_content), seal)?;
        let report = proof::verify(&proof, trust.anchor(), Some(now));
        if report.conclusion == Conclusion::DoesNotHold {
            return Err(ExportError::DoesNotHold(failures(&report)));
        }
        Ok(proof.encode())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ExportError::Interrupted))
}

/// The records that a proof holds: all messages, the first record of the end, and the last erasure, if it erased something.
fn chosen(records: Vec<StoredRecord>, id: ExchangeId) -> Result<Vec<StoredRecord>, ExportError> {
    if records.is_empty() {
        return Err(ExportError::Unknown(id));
    }
    let position = |wanted: fn(&LeafEntry) -> bool| {
        move |record: &StoredRecord| record.leaf.entry.as_ref().is_some_and(wanted)
    };
    let end = records.iter().find(|record| position(|e| matches!(e, LeafEntry::Ended(_)))(record));
    let end = end.map(|record| record.index);
    let erased = records.iter().any(|record| record.content == ContentState::Erased);
    let erasure = records.iter().rfind(|record| position(|e| matches!(e, LeafEntry::Erasure(_)))(record));
    let erasure = erasure.map(|record| record.index).filter(|_| erased);
    let kept = records.into_iter().filter(|record| match &record.leaf.entry {
        Some(LeafEntry::Message(_)) => true,
        _ => Some(record.index) == end || Some(record.index) == erasure,
    });
    let kept: Vec<_> = kept.collect();
    if kept.iter().any(position(|e| matches!(e, LeafEntry::Message(_)))) {
        Ok(kept)
    } else {
        Err(ExportError::NoMessages(id))
    }
}

fn assemble(
    log: &Log,
    trust: &Trust,
    id: ExchangeId,
    (records, with_content): (Vec<StoredRecord>, bool),
    seal: SignedCheckpoint,
) -> Result<proof::Proof, ExportError> {
    // No anchor has a successor yet, so the chain of anchors is empty.
    let mut builder = ProofBuilder::new(id, Vec::new());
    for record in records {
        let path = log.inclusion(record.index, seal.checkpoint.size).map_err(ExportError::Log)?;
        let message = match &record.leaf.entry {
            Some(LeafEntry::Message(_)) => Some(message(&record, with_content)?),
            _ => None,
        };
        let exported = Exported { leaf: record.leaf_bytes, index: record.index, path, message };
        builder.record(exported).map_err(ExportError::Build)?;
    }
    for digest in builder.needed_artefacts().collect::<Vec<_>>() {
        let found = log.artefact(&digest).map_err(ExportError::Log)?;
        builder.artefact(found.ok_or(ExportError::Missing { what: "artefact", digest })?);
    }
    for digest in builder.needed_configurations().collect::<Vec<_>>() {
        let found = trust.find(&digest).map_err(ExportError::Trust)?;
        builder.configuration(&*found.ok_or(ExportError::Missing { what: "configuration", digest })?);
    }
    builder.build(seal.note, seal.timestamp.unwrap_or_default()).map_err(ExportError::Build)
}

fn message(record: &StoredRecord, with_content: bool) -> Result<ExportedMessage, ExportError> {
    let index = record.index;
    let signature: Signature = record.attachment.signature.clone().ok_or(ExportError::Record(index))?;
    let (content, caller_context) = match &record.content {
        ContentState::NotKept => (ExportedContent::NotKept, None),
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
