//! Reading a log that came out of an archive, without a server: what stands in it, and proofs from it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use trave_host::clock::SystemClock;
use trave_message_log::Log;
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Clock as _;
use trave_proto::global_configuration::Anchor;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::operator::{ListLogRequest, ListLogResponse};

use super::archive::known_key;
use crate::config::Config;
use crate::custody::Layout;
use crate::journal::{self, Query};
use crate::proof::{self, Contents};
use crate::trust::Trust;

/// A restored log, open, and the configuration of the server that it was of.
pub(super) struct Restored {
    log: Log,
    config: Config,
}

impl Restored {
    pub(super) fn open(config: &Path, dir: &Path, key: Option<&NoteVerifier>) -> anyhow::Result<Self> {
        let config = Config::read(config)?;
        let key = key.cloned().map_or_else(|| known_key(&config), Ok)?;
        let log = Log::open_restored(dir, &key, Arc::new(SystemClock))
            .with_context(|| format!("{} cannot be read", dir.display()))?;
        Ok(Self { log, config })
    }

    /// The exchanges and refusals that are asked for, the earliest first.
    pub(super) fn list(&self, request: &ListLogRequest) -> anyhow::Result<Vec<ListLogResponse>> {
        let query = Query::read(request).map_err(anyhow::Error::msg)?;
        // Nothing of it is under way.
        let found = journal::find(&self.log, &query, u64::MAX)?;
        let entries = found.into_iter().map(|one| journal::entry(&self.log, one, u64::MAX));
        Ok(entries.filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    /// The proof file of an exchange, with the contents whose keys are there, or without.
    pub(super) fn prove(&self, exchange: ExchangeId, contents: Contents) -> anyhow::Result<Bytes> {
        let (layout, clock) = (Layout::new(self.config.data()), Arc::new(SystemClock));
        let anchor = std::fs::read(layout.anchor()).context("the anchor cannot be read")?;
        let anchor = Anchor::parse(&anchor).context("the anchor is not valid")?;
        let now = clock.now();
        let trust = Trust::open(anchor, &layout.configurations(), clock)?;
        Ok(proof::export_restored((&self.log, &trust, now), exchange, contents)?)
    }
}
