//! What it means that a message stands in one log and not in the other: what is usual is told apart from what nobody can
//! explain, and what is a proof of two stories from both.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use trave_message_log::LogError;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::Direction;
use trave_proto::reconciliation::{Name, Period, Summary};
use trave_proto::schema::log::{
    Difference as Logged, DifferenceCount, DifferenceKind as Kind, Reconciliation,
};
use trave_proto::schema::transport::ExchangeState as State;

use super::compare::{Compared, Difference};
use super::records::{Hours, message};
use super::standing::state;

/// Differences that one record of the log names one by one.
const NAMED: usize = 256;

/// A difference, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) difference: Difference,
    pub(crate) kind: Kind,
}

/// A message that the other log holds, and this one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) name: Name,
    pub(crate) digest: Digest,
    /// Whether the other server says that it has sent it.
    pub(crate) theirs: bool,
}

/// What this log says of the exchanges that differ.
#[derive(Debug, Default)]
pub(crate) struct Known {
    states: BTreeMap<ExchangeId, State>,
    acknowledged: HashMap<ExchangeId, Acknowledged>,
}

/// What the receiver of a direction has signed that it received.
#[derive(Debug, Default)]
struct Acknowledged {
    digests: HashSet<Digest>,
    /// By direction: the last message of this log that was acknowledged; all before it were too.
    up_to: HashMap<Direction, u64>,
}

impl Acknowledged {
    fn covers(&self, difference: &Difference) -> bool {
        let name = &difference.name;
        let digest = difference.here.map(|(digest, _)| digest).or(difference.there.map(|(digest, _)| digest));
        digest.is_some_and(|digest| self.digests.contains(&digest))
            || self.up_to.get(&name.direction()).is_some_and(|up_to| name.index() <= *up_to)
    }
}

impl Known {
    /// Reads what this log holds of the exchanges in `differences`. Reads the disk.
    pub(crate) fn read(hours: &Hours, peer: &ServerId, differences: &[Difference]) -> Result<Self, LogError> {
        let mut known = Self::default();
        for exchange in exchanges(differences) {
            let state = state(hours.log(), exchange, (hours.own(), peer))?;
            known.states.insert(exchange, state);
            known.acknowledged.insert(exchange, acknowledged(hours, exchange)?);
        }
        Ok(known)
    }
}

impl Judged {
    /// What this log has lost, as the other server says.
    pub(crate) fn lost(&self) -> Option<Lost> {
        let Difference { name, here: None, there: Some((digest, theirs)) } = self.difference else {
            return None;
        };
        (self.kind == Kind::MissingHere).then_some(Lost { name, digest, theirs })
    }
}

/// The exchanges that differ, each once, ascending.
pub(crate) fn exchanges(differences: &[Difference]) -> BTreeSet<ExchangeId> {
    differences.iter().filter_map(|difference| difference.name.exchange().ok()).collect()
}

fn acknowledged(hours: &Hours, exchange: ExchangeId) -> Result<Acknowledged, LogError> {
    let mut acknowledged = Acknowledged::default();
    let mut held = Vec::new();
    for at in hours.log().places(exchange)? {
        let Some((manifest, _)) = message(hours.log(), at)? else { continue };
        acknowledged.digests.extend(manifest.last_received);
        held.push((manifest.direction, manifest.index, manifest.digest()));
    }
    for (direction, index, digest) in held {
        if acknowledged.digests.contains(&digest) {
            let up_to = acknowledged.up_to.entry(direction).or_insert(index);
            *up_to = index.max(*up_to);
        }
    }
    Ok(acknowledged)
}

/// Says what each difference means. `theirs` is what the other server says of the exchanges: its word, which it can be held
/// to. An exchange that began less than `longest` before `now` may still have no end.
pub(crate) fn judge(
    compared: &Compared,
    known: &Known,
    theirs: &BTreeMap<ExchangeId, State>,
    (now, longest): (Time, Duration),
) -> Vec<Judged> {
    let judge = |difference: &Difference| {
        let exchange = difference.name.exchange().ok();
        let state = |states: &BTreeMap<ExchangeId, State>| {
            exchange.and_then(|id| states.get(&id).copied()).unwrap_or(State::Nothing)
        };
        let case = Case {
            here: state(&known.states),
            there: state(theirs),
            acknowledged: exchange
                .and_then(|id| known.acknowledged.get(&id))
                .is_some_and(|acknowledged| acknowledged.covers(difference)),
            may_be_open: exchange.is_some_and(|id| now.since(id.time()) < longest),
        };
        Judged { difference: *difference, kind: case.kind(difference) }
    };
    compared.differences.iter().map(judge).collect()
}

/// What is known of the exchange of a difference.
#[derive(Debug, Clone, Copy)]
struct Case {
    here: State,
    there: State,
    acknowledged: bool,
    may_be_open: bool,
}

impl Case {
    fn kind(self, difference: &Difference) -> Kind {
        let (missing, holder_sent, lacks, holds) = match (difference.here, difference.there) {
            (Some((_, held)), None) => (Kind::MissingThere, held.sent, self.there, self.here),
            (None, Some((_, sent))) => (Kind::MissingHere, sent, self.here, self.there),
            _ => return Kind::Differing,
        };
        // Its sender lacks it, or its receiver has signed that it came: whatever else is said explains nothing.
        if !holder_sent || self.acknowledged {
            return missing;
        }
        let ended = |state| matches!(state, State::Failed | State::Refused | State::Crashed);
        match (lacks, holds) {
            (State::Crashed, _) if difference.name.direction() == Direction::Response => Kind::ClientCrashed,
            (State::Answered, _) => missing,
            (lacks, holds) if ended(lacks) || ended(holds) => Kind::NotDelivered,
            (State::Open, _) | (_, State::Open) if self.may_be_open => Kind::InFlight,
            _ => missing,
        }
    }
}

/// What was found, as the log holds it.
pub(crate) fn record(
    peer: &ServerId,
    period: Period,
    compared: &Compared,
    judged: &[Judged],
    recovered: u64,
) -> Reconciliation {
    let mut counts = BTreeMap::<i32, u64>::new();
    for one in judged {
        *counts.entry(one.kind.into()).or_default() += 1;
    }
    // The gravest first: where not all are named, these are.
    let mut gravest: Vec<_> = judged.iter().collect();
    gravest.sort_by_key(|one| (std::cmp::Reverse(i32::from(one.kind)), one.difference.name));
    Reconciliation {
        peer: peer.to_string(),
        from_ms: period.begin().as_millis(),
        to_ms: period.end().as_millis(),
        here: Some(Summary::to_schema(compared.here)),
        there: Some(Summary::to_schema(compared.there)),
        counts: counts.into_iter().map(|(kind, count)| DifferenceCount { kind, count }).collect(),
        differences: gravest.into_iter().take(NAMED).map(logged).collect(),
        unexplained: !compared.agree && (!compared.whole || judged.is_empty() || compared.repeats),
        recovered,
    }
}

fn logged(judged: &Judged) -> Logged {
    let Difference { name, here, there } = judged.difference;
    let digest = |digest: Option<Digest>| digest.map_or_else(Bytes::new, Digest::to_bytes);
    Logged {
        kind: judged.kind.into(),
        exchange_id: Bytes::copy_from_slice(&Name::as_bytes(&name)[..16]),
        direction: name.direction().into(),
        index: name.index(),
        here: digest(here.map(|(digest, _)| digest)),
        there: digest(there.map(|(digest, _)| digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Held;
    use super::*;

    fn difference(direction: u8, here: Option<bool>, there: Option<bool>) -> Difference {
        let mut name = [1; Name::LEN];
        name[16] = direction;
        Difference {
            name: Name::from_slice(&name).unwrap(),
            here: here.map(|sent| (Digest::of(b"here"), Held { sent, at: 0, recovered: false })),
            there: there.map(|sent| (Digest::of(b"there"), sent)),
        }
    }

    #[test]
    fn what_is_usual_is_told_apart_from_what_nobody_explains() {
        use State::{Answered, Crashed, Failed, Nothing, Open, Refused};
        let (request, response) = (1, 2);
        let case = |here, there| Case { here, there, acknowledged: false, may_be_open: true };
        let (sent, received) = (Some(true), Some(false));
        for (direction, here, there, states, kind) in [
            // The client's log holds a request that was refused, or never arrived.
            (request, sent, None, (Failed, Refused), Kind::NotDelivered),
            (request, sent, None, (Failed, Nothing), Kind::NotDelivered),
            (request, sent, None, (Open, Nothing), Kind::InFlight),
            (request, sent, None, (Answered, Nothing), Kind::MissingThere),
            (request, sent, None, (Open, Answered), Kind::MissingThere),
            // The provider's log holds a response that the client's lacks, seen from the provider and from the client.
            (response, sent, None, (Answered, Crashed), Kind::ClientCrashed),
            (response, None, sent, (Crashed, Answered), Kind::ClientCrashed),
            (response, None, sent, (Failed, Answered), Kind::NotDelivered),
            (response, sent, None, (Answered, Open), Kind::InFlight),
            (response, sent, None, (Answered, Nothing), Kind::MissingThere),
            (response, None, sent, (Nothing, Answered), Kind::MissingHere),
            // Received there, and its sender has nothing of it.
            (request, None, received, (Nothing, Answered), Kind::MissingHere),
            (request, None, received, (Failed, Answered), Kind::MissingHere),
            (response, received, None, (Answered, Crashed), Kind::MissingThere),
            (request, sent, received, (Answered, Answered), Kind::Differing),
        ] {
            let found = case(states.0, states.1).kind(&difference(direction, here, there));
            assert_eq!(found, kind, "{direction} {here:?} {there:?} {states:?}");
        }
    }

    #[test]
    fn nothing_stays_in_flight_and_nothing_acknowledged_was_not_delivered() {
        let lost = difference(1, Some(true), None);
        let old = Case { here: State::Open, there: State::Nothing, acknowledged: false, may_be_open: false };
        assert_eq!(old.kind(&lost), Kind::MissingThere);
        let signed =
            Case { here: State::Failed, there: State::Failed, acknowledged: true, may_be_open: true };
        assert_eq!(signed.kind(&lost), Kind::MissingThere);
    }
}
