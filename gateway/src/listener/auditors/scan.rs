//! Reading a range of the log to an auditor, every leaf or its hash, under a checkpoint.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use trave_host::config::with_causes;
use trave_message_log::LogError;
use trave_proto::digest::Digest;
use trave_proto::scan::MAX_RANGE;
use trave_proto::schema::audit::{
    ScanHead, ScanRequest, ScanResponse, ScannedLeaf, scan_response::Part, scanned_leaf::Shown,
};

use super::{Answer, Asked, Desk, WAITING, failed};
use crate::audit::{Records, Scope};
use crate::proof;

/// After so many leaves it is looked again whether the auditor may go on.
const CHECKED_AGAIN: u64 = 1_000;

impl Desk {
    /// Begins to read the range; the reading is logged first.
    pub(super) async fn scanned(
        &self,
        request: ScanRequest,
        asked: Asked,
    ) -> Result<Response<Answer<ScanResponse>>, Status> {
        let ScanRequest { from, to, .. } = request;
        let size = self.records.log.size();
        // Where nothing is said: as far as this log goes now, and one range holds.
        let to = if to == 0 { size.min(from.saturating_add(MAX_RANGE)) } else { to };
        if from >= to || to > size {
            let why = format!("there is no range from {from} to {to}: the log has {size} leaves");
            return Err(Status::out_of_range(why));
        }
        if to - from > MAX_RANGE {
            let why = format!("one range has at most {MAX_RANGE} leaves\nhint: scan one after the other");
            return Err(Status::invalid_argument(why));
        }
        self.log_read(&asked, format!("scan from={from} to={to}"), to - from).await?;
        let seal = proof::seal(&self.exchanges, &self.upkeep, to - 1).await;
        let seal = seal.map_err(|error| Status::unavailable(with_causes(&error)))?;
        let configuration = self.exchanges.trust.snapshot().configuration.signed().clone();
        let (note, lines) = (seal.checkpoint.note.clone(), proof::witness_lines(&self.exchanges, &seal));
        let (token, covered) =
            (seal.checkpoint.timestamp.unwrap_or_default(), seal.checkpoint.checkpoint.size);
        let paths = self.reading(&asked, move |records| {
            let path = |index| records.log.inclusion(index, covered);
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
            let told = tell(&desk.records, &asked.auditor.scope, head, |part| {
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

/// Tells the head and then the leaves, until nobody listens any more.
fn tell(
    records: &Records,
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
        let shown = match records.log.leaf_bytes(index) {
            Ok((leaf, bytes)) if records.may_show(&leaf, scope, &mut known)? => Shown::Leaf(bytes),
            // What is damaged or no more has left its hash, and the auditor sees that it is not shown.
            Ok(_) | Err(LogError::Damaged { .. } | LogError::Expired { .. } | LogError::Pruned { .. }) => {
                Shown::Hash(Bytes::copy_from_slice(records.log.leaf_hash(index)?.as_bytes()))
            }
            Err(error) => return Err(error),
        };
        if !say(Part::Leaf(ScannedLeaf { shown: Some(shown) })) {
            return Ok(());
        }
    }
    Ok(())
}
