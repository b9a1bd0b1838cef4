//! Exporting the proofs of many exchanges, one after the other.

use std::collections::HashSet;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use trave_host::config::with_causes;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::audit::{
    ExportRequest, ExportResponse, NoProof, ProofBegin, ProofEnd, export_response::Part,
};

use super::{Answer, Asked, Desk, WAITING, exchange_id};
use crate::proof::{self, Contents};

/// Most exchanges of one export.
const MOST: usize = 10_000;
/// Bytes of a proof in one part.
const PIECE: usize = 256 * 1024;

type Parts = mpsc::Sender<Result<ExportResponse, Status>>;

impl Desk {
    /// Begins to export; what comes is logged proof by proof.
    pub(super) fn exported(
        &self,
        request: ExportRequest,
        asked: Asked,
    ) -> Result<Response<Answer<ExportResponse>>, Status> {
        let ExportRequest { exchange_ids, with_content, .. } = request;
        if exchange_ids.is_empty() || exchange_ids.len() > MOST {
            return Err(Status::invalid_argument(format!("an export is of 1 to {MOST} exchanges")));
        }
        if with_content && !asked.auditor.contents {
            let why = "this auditor may not see contents\nhint: without them a proof still proves the exchange; two \
                       administrators of the registry grant `contents`, and the operator can narrow that";
            return Err(Status::permission_denied(why));
        }
        let ids = exchange_ids.iter().map(|id| exchange_id(id)).collect::<Result<Vec<_>, _>>()?;
        let different: HashSet<_> = ids.iter().collect();
        if different.len() < ids.len() {
            return Err(Status::invalid_argument("an exchange stands there twice: each is exported once"));
        }
        let (parts, answer) = mpsc::channel(WAITING);
        let desk = self.clone();
        tokio::spawn(async move {
            for id in ids {
                let done = match desk.still(&asked) {
                    Ok(()) => desk.export_one(id, with_content, &asked, &parts).await,
                    Err(withdrawn) => Err(Some(withdrawn)),
                };
                // A reader who has gone needs no more; and what cannot be logged is not shown.
                if let Err(stopped) = done {
                    if let Some(status) = stopped {
                        let _ = parts.send(Err(status)).await;
                    }
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }

    /// One proof, or why there is none. An error ends the export; none where nobody reads any more.
    async fn export_one(
        &self,
        id: ExchangeId,
        with_content: bool,
        asked: &Asked,
        parts: &Parts,
    ) -> Result<(), Option<Status>> {
        let scope = asked.auditor.scope.clone();
        let entries = self.reading(asked, move |records| records.exchange(id, &scope)).await?;
        let what = if with_content { "proof of" } else { "proof without contents of" };
        let shown = entries.iter().map(|entry| entry.records.len() as u64).sum();
        self.log_read(asked, format!("{what} {id}"), shown).await?;
        let exchange = Bytes::copy_from_slice(id.as_bytes());
        let none = |why: String| Part::None(NoProof { exchange_id: exchange.clone(), why });
        // A refusal in scope says nothing of messages under the same id, which may be another member's.
        if entries.iter().all(|entry| entry.outcome == "refused") {
            // The same words for what is not there and for what this auditor may not see.
            return send(parts, none("this server knows no such exchange in this auditor's scope".into()))
                .await;
        }
        let file = {
            let _turn = self.exports.lock().await;
            proof::export(&self.exchanges, &self.upkeep, id, Contents::all_if(with_content)).await
        };
        let mut file = match file {
            Ok(file) => file,
            Err(error) => return send(parts, none(with_causes(&error))).await,
        };
        let bytes = file.len() as u64;
        send(parts, Part::Begin(ProofBegin { exchange_id: exchange.clone() })).await?;
        while !file.is_empty() {
            send(parts, Part::Chunk(file.split_to(file.len().min(PIECE)))).await?;
        }
        send(parts, Part::End(ProofEnd { bytes })).await
    }
}

async fn send(parts: &Parts, part: Part) -> Result<(), Option<Status>> {
    parts.send(Ok(ExportResponse { part: Some(part) })).await.map_err(|_| None)
}
