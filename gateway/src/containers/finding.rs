//! Which exchanges of a client have a query id: its own message id, by the pseudonym that the log keeps of it, or the id of the
//! exchange itself. However long ago they were: the log's tables name them, and nothing is passed over unsaid.

use trave_message_log::{Log, LogError, Reference};
use trave_proto::identifier::{ExchangeId, SubsystemId};
use trave_proto::message::{Direction, Manifest};
use trave_proto::schema::log::Leaf;
use trave_proto::schema::log::leaf::Entry as LeafEntry;

/// Exchanges of one message id that are looked at, of all clients together: each costs a look at the disk.
pub(super) const MOST_LOOKED_AT: usize = 10_000;
/// Looked up at a time.
const AT_A_TIME: usize = 500;

/// What was found of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These exchanges, the oldest first; one more than was asked for, if there are more.
    Exchanges(Vec<ExchangeId>),
    /// More clients' exchanges have this id than are looked at.
    TooMany,
}

/// The client's exchanges that have this id of their own, or were asked under it; more than `most` are not looked for. Reads
/// the disk.
pub(super) fn of_client(log: &Log, client: &SubsystemId, id: &str, most: usize) -> Result<Found, LogError> {
    if let Ok(exchange) = id.parse() {
        for place in log.places(exchange)? {
            if kept(log.leaf(place))?.and_then(|leaf| asked_by(&leaf, client)) == Some(exchange) {
                return Ok(Found::Exchanges(vec![exchange]));
            }
        }
    }
    let (mut found, mut from, mut looked) = (Vec::new(), 0, 0);
    let Some(reference) = Reference::message_id(id) else { return Ok(Found::Exchanges(found)) };
    loop {
        let places = log.called(&reference, from, AT_A_TIME)?;
        let Some(last) = places.last() else { return Ok(Found::Exchanges(found)) };
        from = last + 1;
        for place in places {
            looked += 1;
            if looked > MOST_LOOKED_AT {
                return Ok(Found::TooMany);
            }
            let asked = kept(log.leaf(place))?.and_then(|leaf| asked_by(&leaf, client));
            found.extend(asked.filter(|exchange| !found.contains(exchange)));
            if found.len() > most {
                return Ok(Found::Exchanges(found));
            }
        }
    }
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

/// What was read, if it is still kept: a record that has expired or was pruned has no contents either.
fn kept<T>(read: Result<T, LogError>) -> Result<Option<T>, LogError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(LogError::Expired { .. } | LogError::Pruned { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
