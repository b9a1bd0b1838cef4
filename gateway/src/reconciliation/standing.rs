//! How an exchange stands in this log, as far as it concerns another server.

use trave_message_log::{Log, LogError};
use trave_proto::fault::Reason;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::{Direction, Ending};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ExchangeEnded, Outcome};
use trave_proto::schema::transport::ExchangeState;

use super::records::{message, other};

/// What the log says of an exchange between this server and `peer`. Reads the disk, one leaf after the other.
pub(super) fn state(
    log: &Log,
    exchange: ExchangeId,
    (own, peer): (&ServerId, &ServerId),
) -> Result<ExchangeState, LogError> {
    let (mut concerned, mut answered, mut refused) = (false, false, false);
    let mut ended = None;
    for at in log.places(exchange)? {
        if let Some((manifest, _)) = message(log, at)? {
            concerned |= other(&manifest, own) == Some(peer);
            answered |= manifest.direction == Direction::Response && manifest.ending == Ending::End;
            continue;
        }
        match log.leaf(at)?.entry {
            Some(Entry::Ended(end)) => ended = ended.or(Some(end)),
            Some(Entry::Refusal(refusal)) => refused |= refusal.peer == peer.as_str(),
            _ => {}
        }
    }
    Ok(match ended {
        _ if !concerned && refused => ExchangeState::Refused,
        _ if !concerned => ExchangeState::Nothing,
        _ if answered => ExchangeState::Answered,
        Some(end) if crashed(&end) => ExchangeState::Crashed,
        Some(_) => ExchangeState::Failed,
        None if refused => ExchangeState::Refused,
        None => ExchangeState::Open,
    })
}

/// Whether it was a start of the server that ended it: whatever else breaks off has an outcome or another reason.
fn crashed(end: &ExchangeEnded) -> bool {
    end.outcome() == Outcome::Unknown && end.reason == Reason::Aborted.as_str()
}
