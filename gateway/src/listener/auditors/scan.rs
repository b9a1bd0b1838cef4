//! Reading a range of the log to an auditor, every leaf or its hash, under a checkpoint.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use trave_host::config::with_causes;
use trave_message_log::LogError;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::scan::MAX_RANGE;
use trave_proto::schema::audit::{
    DamagedLeaf, ScanHead, ScanRequest, ScanResponse, ScannedLeaf, scan_response::Part, scanned_leaf::Shown,
};
use trave_proto::schema::log::Leaf;

use super::{Answer, Asked, Desk, WAITING, failed};
use crate::audit::{Scope, SearchedLog, what_is_damaged};
use crate::proof;

/// After so many leaves it is looked again whether the auditor may go on.
const CHECKED_AGAIN: u64 = 64;

impl Desk {
    /// Begins to read the range; the reading is logged first.
    pub(super) async fn scanned(
        &self,
        request: ScanRequest,
        asked: Asked,
    ) -> Result<Response<Answer<ScanResponse>>, Status> {
        let log = self.records.of(request.generation).cloned();
        let none = format!(
            "no generation {} of the log can be read\nhint: `who-am-i` lists them",
            request.generation
        );
        let log = log.ok_or_else(|| Status::not_found(none))?;
        let (seal, from, to) = match log.earlier().cloned() {
            Some(generation) => {
                let sealed = self.reading(&asked, move |_| proof::seal_of(&generation)).await?;
                let covered = sealed.as_ref().map_or(0, |seal| seal.checkpoint.checkpoint.size);
                let why = "under the last timestamped checkpoint of this generation, and nothing is added to it any more";
                let (from, to) = range(&request, covered, why)?;
                let query = format!("scan from={from} to={to} generation={}", log.number());
                self.log_read(&asked, query, to - from).await?;
                (
                    sealed.ok_or_else(|| {
                        Status::out_of_range("no checkpoint of this generation has a timestamp")
                    })?,
                    from,
                    to,
                )
            }
            None => {
                let (from, to) = range(&request, log.log.size(), "in the log")?;
                self.log_read(&asked, format!("scan from={from} to={to}"), to - from).await?;
                let seal = proof::seal(&self.exchanges, &self.upkeep, to - 1).await;
                (seal.map_err(|error| Status::unavailable(with_causes(&error)))?, from, to)
            }
        };
        let configuration = self.exchanges.trust.snapshot().configuration.signed().clone();
        let (note, lines) = (seal.checkpoint.note.clone(), proof::witness_lines(&self.exchanges, &seal));
        let (token, covered) =
            (seal.checkpoint.timestamp.unwrap_or_default(), seal.checkpoint.checkpoint.size);
        let of = log.log.clone();
        let paths = self.reading(&asked, move |_| {
            let path = |index| of.inclusion(index, covered);
            Ok((path(from)?, path(to - 1)?))
        });
        let (first, last) = paths.await?;
        let bytes = |path: Vec<Digest>| path.into_iter().map(Digest::to_bytes).collect();
        let head = ScanHead {
            from,
            to,
            checkpoint: note,
            cosignatures: lines,
            timestamp_token: token,
            first_path: bytes(first),
            last_path: bytes(last),
            configuration: Some(configuration),
        };
        let (parts, answer) = mpsc::channel(WAITING);
        let desk = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut said = 0_u64;
            let told = tell(&log, &asked.auditor.scope, head, |part| {
                said += 1;
                // A range takes long: who is withdrawn meanwhile sees no more of it.
                let part = match said.is_multiple_of(CHECKED_AGAIN).then(|| desk.still(&asked)) {
                    Some(Err(withdrawn)) => Err(withdrawn),
                    _ => Ok(ScanResponse { part: Some(part) }),
                };
                let goes_on = part.is_ok();
                parts.blocking_send(part).is_ok() && goes_on
            });
            if let Err(error) = told {
                let _ = parts.blocking_send(Err(failed(&error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}

/// What is not known to be in scope is not shown.
fn may_show(
    log: &SearchedLog,
    leaf: &Leaf,
    scope: &Scope,
    known: &mut HashMap<ExchangeId, bool>,
) -> Result<bool, LogError> {
    let shown = log.may_show(leaf, scope, known);
    shown.or_else(|error| what_is_damaged(&error).map(|_| false).ok_or(error))
}

/// A leaf that cannot be read keeps none of the others back: what is known of it is its hash.
fn damaged(log: &SearchedLog, index: u64, error: LogError) -> Result<DamagedLeaf, LogError> {
    let what = what_is_damaged(&error).ok_or(error)?;
    tracing::warn!(
        index,
        generation = log.number(),
        what,
        "an auditor is told of a record that cannot be read"
    );
    let hash = log.log.leaf_hash(index).map(|hash| Bytes::copy_from_slice(hash.as_bytes()));
    Ok(DamagedLeaf { hash: hash.unwrap_or_default(), what })
}

/// The range that is asked for, of the `size` leaves that stand as `where_to` says.
fn range(request: &ScanRequest, size: u64, where_to: &str) -> Result<(u64, u64), Status> {
    let ScanRequest { from, to, .. } = *request;
    // Where nothing is said: as far as this log goes now, and one range holds.
    let to = if to == 0 { size.min(from.saturating_add(MAX_RANGE)) } else { to };
    if from >= to || to > size {
        let why = format!("there is no range from {from} to {to}: {size} leaves are {where_to}");
        return Err(Status::out_of_range(why));
    }
    if to - from > MAX_RANGE {
        let why = format!("one range has at most {MAX_RANGE} leaves\nhint: scan one after the other");
        return Err(Status::invalid_argument(why));
    }
    Ok((from, to))
}

/// Tells the head and then the leaves, until nobody listens any more.
fn tell(
    log: &SearchedLog,
    scope: &Scope,
    head: ScanHead,
    mut say: impl FnMut(Part) -> bool,
) -> Result<(), LogError> {
    let (from, to) = (head.from, head.to);
    if !say(Part::Head(head)) {
        return Ok(());
    }
    let mut known = HashMap::new();
    for index in from..to {
        let shown = match log.log.leaf_bytes(index) {
            Ok((leaf, bytes)) if may_show(log, &leaf, scope, &mut known)? => Shown::Leaf(bytes),
            // What is no more has left its hash, and the auditor sees that it is not shown.
            Ok(_) | Err(LogError::Expired { .. } | LogError::Pruned { .. }) => match log.log.leaf_hash(index)
            {
                Ok(hash) => Shown::Hash(Bytes::copy_from_slice(hash.as_bytes())),
                Err(error) => Shown::Damaged(damaged(log, index, error)?),
            },
            Err(error) => Shown::Damaged(damaged(log, index, error)?),
        };
        if !say(Part::Leaf(ScannedLeaf { shown: Some(shown) })) {
            return Ok(());
        }
    }
    Ok(())
}
