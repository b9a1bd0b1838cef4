//! Which messages between this server and others the log holds, of the exchanges that began in one hour. Made from the log,
//! held for a few hours at a time, and brought up to date when it is asked for.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry as Slot};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use trave_message_log::{Log, LogError, kind};
use trave_proto::conversation::TOLERANCE;
use trave_proto::digest::Digest;
use trave_proto::identifier::ServerId;
use trave_proto::message::Manifest;
use trave_proto::reconciliation::{Challenge, Name, Period, Summary};
use trave_proto::schema::log::leaf::Entry;

/// Messages of one hour that are held in memory at most, about 120 bytes each.
const MOST: usize = 2_000_000;
/// Hours that are held at a time, if they have not more messages than one may have: all that are compared by themselves, so
/// that who asks for one after the other does not have the log looked through each time.
const HELD: usize = 64;

/// Why the messages of an hour are not known.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RecordsError {
    #[error("the message log cannot be read")]
    Log(#[source] LogError),
    #[error("the hour has more than {MOST} messages, which is more than is compared at once")]
    TooMany,
}

/// A message as this log holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether this server has sent it; else it has received it.
    pub(crate) sent: bool,
    /// Its place in the log.
    pub(crate) at: u64,
    /// Whether it was lost, and came back from the other server.
    pub(crate) recovered: bool,
}

/// From a name on, up to another one that is not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    pub(crate) from: Option<Name>,
    pub(crate) to: Option<Name>,
}

impl Bounds {
    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.from.is_none_or(|from| *name >= from) && self.to.is_none_or(|to| *name < to)
    }
}

/// The messages between this server and one other, of one hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records(BTreeMap<(Name, Digest), Held>);

impl Records {
    /// Those within bounds, in order.
    pub(crate) fn within(&self, bounds: &Bounds) -> impl Iterator<Item = (&(Name, Digest), &Held)> {
        let least = Digest::from_bytes([0; Digest::LEN]);
        let from = bounds.from.map_or(Bound::Unbounded, |from| Bound::Included((from, least)));
        let to = bounds.to.map_or(Bound::Unbounded, |to| Bound::Excluded((to, least)));
        // An empty range is one that nobody asks for in earnest, and a map would not take it.
        let empty = bounds.from.zip(bounds.to).is_some_and(|(from, to)| from >= to);
        let range = (!empty).then(|| self.0.range((from, to)));
        range.into_iter().flatten()
    }

    /// Whether this very message is among them.
    pub(crate) fn holds(&self, record: &(Name, Digest)) -> bool {
        self.0.contains_key(record)
    }

    pub(crate) fn summary(&self, bounds: &Bounds) -> Summary {
        Summary::of(self.within(bounds).map(|(record, _)| record))
    }

    /// Of all of them, as the answer to a challenge.
    pub(crate) fn answering(&self, challenge: &Challenge<'_>) -> Summary {
        Summary::answering(challenge, self.0.keys())
    }

    pub(crate) fn count(&self, bounds: &Bounds) -> usize {
        self.within(bounds).count()
    }

    /// How many of them came back from the other server.
    pub(crate) fn recovered(&self) -> u64 {
        self.0.values().filter(|held| held.recovered).count() as u64
    }

    #[cfg(test)]
    pub(crate) fn of(records: impl IntoIterator<Item = (Name, Digest)>) -> Self {
        Self(
            records
                .into_iter()
                .map(|record| (record, Held { sent: true, at: 0, recovered: false }))
                .collect(),
        )
    }
}

/// All messages of one hour, by the other server.
#[derive(Debug)]
struct Hour {
    period: Period,
    /// Records of the log before this one were looked at.
    looked_to: u64,
    peers: BTreeMap<ServerId, Arc<Records>>,
    count: usize,
}

/// The messages of a few hours. Whatever is asked of it reads the disk.
#[derive(Debug)]
pub(crate) struct Hours {
    log: Log,
    own: ServerId,
    /// The one asked for last stands first. One question is answered at a time, so that nobody who asks for much takes more
    /// than one thread and one disk's time.
    held: Mutex<VecDeque<Hour>>,
}

impl Hours {
    pub(crate) fn new(log: Log, own: ServerId) -> Self {
        Self { log, own, held: Mutex::default() }
    }

    /// What the log holds of this hour's exchanges, by the other server.
    pub(crate) fn all(&self, period: Period) -> Result<BTreeMap<ServerId, Arc<Records>>, RecordsError> {
        self.up_to_date(period, |hour| hour.peers.clone())
    }

    /// What the log holds of this hour's exchanges with `peer`.
    pub(crate) fn with(&self, peer: &ServerId, period: Period) -> Result<Arc<Records>, RecordsError> {
        self.up_to_date(period, |hour| hour.peers.get(peer).cloned().unwrap_or_default())
    }

    /// The log that all is made from.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// This server.
    pub(crate) fn own(&self) -> &ServerId {
        &self.own
    }

    fn up_to_date<T>(&self, period: Period, read: impl FnOnce(&Hour) -> T) -> Result<T, RecordsError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.iter().position(|hour| hour.period == period);
        let mut hour = at.and_then(|at| held.remove(at)).unwrap_or(Hour {
            period,
            looked_to: 0,
            peers: BTreeMap::new(),
            count: 0,
        });
        hour.look(&self.log, &self.own)?;
        let answer = read(&hour);
        held.push_front(hour);
        let mut messages = 0;
        let fit = held.iter().take_while(|hour| {
            messages += hour.count;
            messages <= MOST
        });
        let fit = fit.count().clamp(1, HELD);
        held.truncate(fit);
        Ok(answer)
    }
}

impl Hour {
    /// Takes what was logged since it last looked.
    fn look(&mut self, log: &Log, own: &ServerId) -> Result<(), RecordsError> {
        let size = log.size();
        for found in log.begun_in(self.period.times(), self.looked_to, TOLERANCE) {
            let (at, _, kind) = found.map_err(RecordsError::Log)?;
            if matches!(kind, kind::MESSAGE | kind::RECOVERED) {
                self.take(log, own, (at, kind == kind::RECOVERED))?;
            }
        }
        self.looked_to = size;
        Ok(())
    }

    fn take(&mut self, log: &Log, own: &ServerId, (at, recovered): (u64, bool)) -> Result<(), RecordsError> {
        let Some((manifest, sent)) = message(log, at).map_err(RecordsError::Log)? else { return Ok(()) };
        let Some(peer) = other(&manifest, own) else { return Ok(()) };
        if self.count >= MOST {
            return Err(RecordsError::TooMany);
        }
        let records = Arc::make_mut(self.peers.entry(peer.clone()).or_default());
        let record = (Name::of(&manifest), manifest.digest());
        if let Slot::Vacant(slot) = records.0.entry(record) {
            slot.insert(Held { sent, at, recovered });
            self.count += 1;
        }
        Ok(())
    }
}

/// The message of a record, and whether this server sent it; none if the record is of none.
pub(super) fn message(log: &Log, at: u64) -> Result<Option<(Manifest, bool)>, LogError> {
    let entry = match log.leaf(at)?.entry {
        Some(Entry::Message(entry)) => Some(entry),
        Some(Entry::Recovered(recovered)) => recovered.message,
        _ => None,
    };
    Ok(entry.and_then(|entry| Some((Manifest::parse(entry.manifest).ok()?, entry.sent))))
}

/// The server on the other side of a message.
pub(super) fn other<'m>(manifest: &'m Manifest, own: &ServerId) -> Option<&'m ServerId> {
    match (manifest.sender == *own, manifest.receiver == *own) {
        (true, _) => Some(&manifest.receiver),
        (_, true) => Some(&manifest.sender),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_within_bounds_is_found_and_nothing_else() {
        let name = |n: u8| Name::from_slice(&[n; Name::LEN]).unwrap();
        let records = Records::of((1..=9).map(|n| (name(n), Digest::of(&[n]))));
        let count = |from: Option<u8>, to: Option<u8>| {
            records.count(&Bounds { from: from.map(name), to: to.map(name) })
        };
        assert_eq!(count(None, None), 9);
        assert_eq!(count(Some(3), Some(5)), 2);
        assert_eq!(count(Some(9), None), 1);
        assert_eq!((count(Some(5), Some(5)), count(Some(6), Some(5))), (0, 0), "turned round is empty");
        let whole = records.summary(&Bounds::default());
        assert_eq!(whole.count, 9);
        assert_ne!(whole.digest, records.summary(&Bounds { from: Some(name(2)), to: None }).digest);
    }
}
