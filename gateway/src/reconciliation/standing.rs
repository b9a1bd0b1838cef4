//! How an exchange stands in this log, as far as it concerns another server.

use trave_message_log::{Log, LogError};
use trave_proto::fault::Reason;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::{Direction, Ending};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ExchangeEnded, Outcome};
use trave_proto::schema::transport::ExchangeState;

use super::records::{message, other};

/// Records at either end of an exchange that are read.
const LOOKED_AT: usize = 256;

/// What the log says of an exchange between this server and `peer`. Reads the disk, one leaf after the other.
pub(super) fn state(
    log: &Log,
    exchange: ExchangeId,
    (own, peer): (&ServerId, &ServerId),
) -> Result<ExchangeState, LogError> {
    let (mut concerned, mut answered, mut refused) = (false, false, false);
    let mut ended = None;
    let places = log.places(exchange)?;
    for at in looked_at(&places) {
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

/// Where it is looked: how an exchange stands is said where it begins and where it ends, and a stream may be endless.
fn looked_at(places: &[u64]) -> impl Iterator<Item = u64> {
    let end = places.len().saturating_sub(LOOKED_AT).max(LOOKED_AT.min(places.len()));
    places.iter().take(LOOKED_AT).chain(&places[end..]).copied()
}

/// Whether it was a start of the server that ended it: whatever else breaks off has an outcome or another reason.
fn crashed(end: &ExchangeEnded) -> bool {
    end.outcome() == Outcome::Unknown && end.reason == Reason::Aborted.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_looked_at_and_nothing_twice() {
        let all: Vec<u64> = (0..10_000).collect();
        for count in [0, 1, LOOKED_AT - 1, LOOKED_AT, LOOKED_AT + 1, 2 * LOOKED_AT, 2 * LOOKED_AT + 1] {
            let looked: Vec<_> = looked_at(&all[..count]).collect();
            assert!(looked.is_sorted_by(|a, b| a < b), "{count}");
            assert_eq!(looked.len(), count.min(2 * LOOKED_AT), "{count}");
            assert_eq!(looked.last().copied(), count.checked_sub(1).map(|last| last as u64));
        }
    }
}
