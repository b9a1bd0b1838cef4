//! The registry's own message log: each event is durable there before anything follows from it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use trave_message_log::{Entry, Log, LogError, Options, kind};
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::Clock;
use trave_proto::schema::log::{AdministrativeAct, Leaf, leaf};
use trave_proto::schema::management::{RegistryEvent, registry_event::Event};

use super::records::StateError;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The log itself.
    #[error("the registry's log cannot be used")]
    Log(#[source] LogError),
    /// A record that is none of ours.
    #[error("record {index} of the registry's log is not an event of the registry")]
    Foreign {
        /// Its place in the log.
        index: u64,
    },
    /// A record that does not fit those before it.
    #[error("the registry's log does not make a state, from its record {index} on")]
    State {
        /// Its place in the log.
        index: u64,
        /// Why.
        source: StateError,
    },
}

/// The registry's log, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
    clock: Arc<dyn Clock>,
}

impl Journal {
    /// Opens the log in `directory`, and gives `take` each event that it holds, in order. Blocks.
    pub(super) fn open(
        directory: &Path,
        signer: NoteSigner,
        clock: Arc<dyn Clock>,
        mut take: impl FnMut(Event) -> Result<(), StateError>,
    ) -> Result<Self, JournalError> {
        let mut options = Options::new(directory, signer, clock.clone());
        // Acts are few and small.
        (options.segment_size, options.reserve) = (16 << 20, 16 << 20);
        let (log, recovered) = Log::open(options).map_err(JournalError::Log)?;
        tracing::info!(records = recovered.records, cut = recovered.cut_bytes, "the registry's log is open");
        for record in log.scan_kind(kind::ACT, 0) {
            let record = record.map_err(JournalError::Log)?;
            let index = record.index;
            let foreign = JournalError::Foreign { index };
            let Some(leaf::Entry::Act(act)) = record.leaf.entry else { return Err(foreign) };
            let event = RegistryEvent::decode(act.act).ok().and_then(|event| event.event).ok_or(foreign)?;
            take(event).map_err(|source| JournalError::State { index, source })?;
        }
        Ok(Self { log, clock })
    }

    /// Records an event. When this returns, it is durable.
    pub(super) async fn record(&self, event: &Event) -> Result<(), JournalError> {
        let act = RegistryEvent { event: Some(event.clone()) };
        let act = AdministrativeAct { act: Bytes::from(act.encode_to_vec()), kind: name(event).into() };
        let logged_ms = self.clock.now().as_millis();
        let leaf = Leaf::of(logged_ms, leaf::Entry::Act(act));
        let pending = self.log.append(Entry::new(leaf), ()).map_err(JournalError::Log)?;
        pending.await.map(|_| ()).map_err(JournalError::Log)
    }

    /// Signs a checkpoint over all that is durable: from then on the log cannot take it back unseen.
    pub(super) async fn checkpoint(&self) -> Result<(), JournalError> {
        self.log.checkpoint().await.map(drop).map_err(JournalError::Log)
    }

    /// Ends the log in order.
    pub(super) fn close(&self) {
        self.log.close();
    }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Applied(_) => "applied",
        Event::Approved(_) => "approved",
        Event::Rejected(_) => "rejected",
        Event::TokenIssued(_) => "token_issued",
        Event::EnrolmentRequested(_) => "enrolment_requested",
        Event::Proposed(_) => "proposed",
        Event::Abandoned(_) => "abandoned",
        Event::Published(_) => "published",
        Event::CertificatesIssued(_) => "certificates_issued",
        Event::Failed(_) => "failed",
        Event::ProposalSigned(_) => "proposal_signed",
    }
}
