//! What other servers ask about this log and say of theirs: what they say first is logged before they are told more.

use trave_proto::identifier::ServerId;
use trave_proto::schema::log::SummaryCommitted;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::transport::{CompareRecordsRequest, CompareRecordsResponse};

use super::Upkeep;
use crate::reconciliation::AnswerError;

impl Upkeep {
    /// What another server is answered that compares its log with this one. What it said that it holds, where this log holds
    /// something else, is durable by then.
    pub(crate) async fn compared_by(
        &self,
        peer: &ServerId,
        request: CompareRecordsRequest,
    ) -> Result<CompareRecordsResponse, AnswerError> {
        let (answer, committed) = self.desk().compare(peer, request).await?;
        if let Some(committed) = committed {
            if let Some((kind, there, here)) = committed.to_log {
                let said = SummaryCommitted {
                    peer: peer.to_string(),
                    from_ms: committed.period.begin().as_millis(),
                    there: Some(there.to_schema()),
                    here: Some(here.to_schema()),
                    kind: kind.into(),
                };
                let logged = self.exchanges.recorder.event(Entry::SummaryCommitted(said), Vec::new()).await;
                logged.map_err(AnswerError::Log)?;
            }
            self.desk().commit(peer, &committed);
        }
        Ok(answer)
    }
}
