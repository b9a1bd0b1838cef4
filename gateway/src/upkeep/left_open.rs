//! After a crash: exchanges that the log holds without their end get one that says that nobody knows how they ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_message_log::{Log, LogError};
use trave_proto::clock::Time;
use trave_proto::fault::{Reason, Side};
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Direction, Ending, Manifest};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ExchangeEnded, Leaf, Outcome};
use trave_proto::schema::transport::RegisterReached;

use super::Upkeep;

/// Added to the longest exchange, for clocks and for the end of what was slow to end.
const MARGIN: Duration = Duration::from_secs(60);

impl Upkeep {
    /// Looks at what the log held when this run of the server began, as far back as an exchange may take.
    pub(super) async fn end_what_was_left_open(self: Arc<Self>, longest_seconds: u64) {
        let (log, begun) = (self.exchanges.recorder.log().clone(), self.begun);
        let window = Duration::from_secs(longest_seconds) + MARGIN;
        let found = tokio::task::spawn_blocking(move || left_open(&log, begun, window)).await;
        let ends = match found {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => {
                tracing::error!(%error, "exchanges that a crash cut off cannot be looked for");
                return;
            }
            Err(_) => return,
        };
        if !ends.is_empty() {
            tracing::warn!(exchanges = ends.len(), "exchanges were cut off: their outcome is not known");
        }
        for end in ends {
            self.exchanges.recorder.own(Entry::Ended(end)).await;
        }
    }
}

/// The ends to be logged of what is open before record `begun`. What is remembered is what is open at a time, however long
/// the window.
fn left_open(log: &Log, begun: u64, window: Duration) -> Result<Vec<ExchangeEnded>, LogError> {
    let mut open = HashMap::<Bytes, Side>::new();
    for index in first_within(log, begun, window)?..begun {
        let Some((exchange, side, ends)) = kept(log, index)?.as_ref().and_then(about) else { continue };
        if ends {
            open.remove(&exchange);
        } else {
            open.entry(exchange).or_insert(side);
        }
    }
    open.into_iter().map(|(exchange, side)| end(log, exchange, side)).collect()
}

/// The leaf at `index`; none if it has expired or was pruned: then whatever it was about is long over.
fn kept(log: &Log, index: u64) -> Result<Option<Leaf>, LogError> {
    match log.leaf(index) {
        Ok(leaf) => Ok(Some(leaf)),
        Err(LogError::Expired { .. } | LogError::Pruned { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first record that is at most `window` older than the last before `begun`: records stand in the order of their times.
fn first_within(log: &Log, begun: u64, window: Duration) -> Result<u64, LogError> {
    let Some(last) = begun.checked_sub(1) else { return Ok(0) };
    let Some(newest) = kept(log, last)? else { return Ok(begun) };
    let since = Time::from_millis(newest.logged_ms).minus(window);
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if kept(log, middle)?.is_none_or(|leaf| Time::from_millis(leaf.logged_ms) < since) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The exchange that a record is about, the side that this server is on, and whether the record ends it.
fn about(leaf: &Leaf) -> Option<(Bytes, Side, bool)> {
    match leaf.entry.as_ref()? {
        Entry::Message(entry) => {
            let manifest = Manifest::parse(entry.manifest.clone()).ok()?;
            let response = manifest.direction == Direction::Response;
            let side = if entry.sent == response { Side::ProviderServer } else { Side::ClientServer };
            let ends = response && manifest.ending != Ending::Continue;
            Some((Bytes::copy_from_slice(manifest.exchange.as_bytes()), side, ends))
        }
        Entry::Ended(ended) => Some((ended.exchange_id.clone(), Side::ClientServer, true)),
        _ => None,
    }
}

/// The record that says that nobody knows how an exchange ended. Reads the disk.
pub(super) fn end(log: &Log, exchange: Bytes, side: Side) -> Result<ExchangeEnded, LogError> {
    let (mut requests, mut responses) = (0, 0);
    let id = ExchangeId::from_slice(&exchange);
    for index in id.map_or_else(|_| Ok(Vec::new()), |id| log.places(id))? {
        let Some(Entry::Message(entry)) = kept(log, index)?.and_then(|leaf| leaf.entry) else { continue };
        match Manifest::parse(entry.manifest).map(|manifest| manifest.direction) {
            Ok(Direction::Response) => responses += 1,
            _ => requests += 1,
        }
    }
    Ok(ExchangeEnded {
        exchange_id: exchange,
        outcome: Outcome::Unknown.into(),
        reason: Reason::Aborted.as_str().into(),
        side: side.as_str().into(),
        register_reached: RegisterReached::Unknown.into(),
        requests,
        responses,
        continued_as: Bytes::new(),
        bridged_to: String::new(),
    })
}
