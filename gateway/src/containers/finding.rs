//! Which exchanges of a client have a query id. The caller's own id stands in the contents alone, encrypted and in no index, so
//! that nothing of it outlives them: it is looked for record by record, from the newest on, and not for ever.

use std::time::{Duration, Instant};

use trave_message_log::{ContentState, Log, LogError};
use trave_proto::identifier::{ExchangeId, SubsystemId};
use trave_proto::message::{CallerContext, Direction, Manifest};
use trave_proto::schema::log::Leaf;
use trave_proto::schema::log::leaf::Entry as LeafEntry;

/// How many records are looked at, from the newest on. Older exchanges are found by their own id.
const NEWEST: u64 = 50_000;
/// How long they are looked at.
const PATIENCE: Duration = Duration::from_secs(10);

/// The client's exchanges that have this id of their own, or were asked under it; oldest first. Reads the disk.
pub(super) fn of_client(log: &Log, client: &SubsystemId, id: &str) -> Result<Vec<ExchangeId>, LogError> {
    if let Ok(exchange) = id.parse() {
        for place in log.places(exchange)? {
            if kept(log.leaf(place))?.and_then(|leaf| asked_by(&leaf, client)) == Some(exchange) {
                return Ok(vec![exchange]);
            }
        }
    }
    let (mut found, size, began) = (Vec::new(), log.size(), Instant::now());
    for index in (size.saturating_sub(NEWEST)..size).rev() {
        if began.elapsed() > PATIENCE {
            tracing::info!(index, "a query id is looked for no further back");
            break;
        }
        let exchange = kept(log.leaf(index))?.and_then(|leaf| asked_by(&leaf, client));
        if let Some(exchange) = exchange
            && is_under(log, index, id)?
        {
            found.push(exchange);
        }
    }
    found.reverse();
    Ok(found)
}

/// The exchange whose first request this is, if this client asked it here.
fn asked_by(leaf: &Leaf, client: &SubsystemId) -> Option<ExchangeId> {
    let message = match leaf.entry.as_ref()? {
        LeafEntry::Message(message) => message,
        // Lost here, and back from the other side.
        LeafEntry::Recovered(recovered) => recovered.message.as_ref()?,
        _ => return None,
    };
    let manifest = Manifest::parse(message.manifest.clone()).ok()?;
    let first = manifest.direction == Direction::Request && manifest.index == 0;
    (message.sent && first && manifest.client == *client).then_some(manifest.exchange)
}

/// Whether the caller gave this id with the request.
fn is_under(log: &Log, index: u64, id: &str) -> Result<bool, LogError> {
    let Some(record) = kept(log.record(index))? else { return Ok(false) };
    let ContentState::Included(parts) = record.content else { return Ok(false) };
    let context = parts.caller_context.as_ref().and_then(|encoded| CallerContext::decode(encoded).ok());
    Ok(context.is_some_and(|context| context.message_id == id))
}

/// What was read, if it is still kept: a record that has expired or was pruned has no contents either.
fn kept<T>(read: Result<T, LogError>) -> Result<Option<T>, LogError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(LogError::Expired { .. } | LogError::Pruned { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
