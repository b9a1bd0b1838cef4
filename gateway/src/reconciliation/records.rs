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

/// An hour that is held, and how many messages it had when it was last looked at.
#[derive(Debug)]
struct Kept {
    period: Period,
    count: usize,
    hour: Arc<Mutex<Hour>>,
}

/// The messages of a few hours. Whatever is asked of it reads the disk.
#[derive(Debug)]
pub(crate) struct Hours {
    log: Log,
    own: ServerId,
    /// The one asked for last stands first. The disk is not read under this lock: each hour has its own, so that an hour for
    /// which the whole log is looked through holds up no other.
    held: Mutex<VecDeque<Kept>>,
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
        let kept = self.kept(period);
        let mut hour = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = hour.look(&self.log, &self.own);
        let count = looked.is_ok().then_some(hour.count);
        let answer = looked.map(|()| read(&hour));
        drop(hour);
        self.looked(&kept, count);
        answer
    }

    /// The hour, in the first place; a new one, if it is not held.
    fn kept(&self, period: Period) -> Arc<Mutex<Hour>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.iter().position(|kept| kept.period == period);
        let kept = at.and_then(|at| held.remove(at)).unwrap_or_else(|| {
            let hour = Hour { period, looked_to: 0, peers: BTreeMap::new(), count: 0 };
            Kept { period, count: 0, hour: Arc::new(Mutex::new(hour)) }
        });
        let hour = Arc::clone(&kept.hour);
        held.push_front(kept);
        held.truncate(HELD);
        hour
    }

    /// Keeps as many hours as fit, after one was looked at. One that could not be is not kept: what is in it is not all.
    fn looked(&self, hour: &Arc<Mutex<Hour>>, count: Option<usize>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match count {
            None => held.retain(|kept| !Arc::ptr_eq(&kept.hour, hour)),
            Some(count) => {
                let of = held.iter_mut().find(|kept| Arc::ptr_eq(&kept.hour, hour));
                of.into_iter().for_each(|kept| kept.count = count);
            }
        }
        let mut messages = 0;
        let fit = held.iter().take_while(|kept| {
            messages += kept.count;
            messages <= MOST
        });
        let fit = fit.count().max(1);
        held.truncate(fit);
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
    use ring::signature::Ed25519KeyPair;
    use trave_host::clock::ManualClock;
    use trave_message_log::Options;
    use trave_proto::checkpoint::NoteSigner;
    use trave_proto::clock::Time;

    use super::*;

    #[test]
    fn an_hour_that_is_looked_at_holds_up_no_other() {
        let (dir, clock) =
            (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(Time::from_millis(1_795_288_440_005))));
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = NoteSigner::new("trave/test/1", pair).unwrap();
        let options = Options { segment_size: 1 << 20, reserve: 0, ..Options::new(dir.path(), key, clock) };
        let hours = Hours::new(Log::open(options).unwrap().0, "NORD/SH/luebeck/s1".parse().unwrap());
        let first = Period::of(Time::from_millis(1_795_288_440_005));
        // Somebody looks through the whole log for this one.
        let kept = hours.kept(first);
        let looking = kept.lock().unwrap();
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (hours, next) = (&hours, first.next());
            scope.spawn(move || done.send(hours.all(next).unwrap().len()));
            assert_eq!(
                waits.recv_timeout(std::time::Duration::from_secs(20)),
                Ok(0),
                "another hour waits for it"
            );
        });
        drop(looking);
        assert_eq!(hours.all(first).unwrap().len(), 0);
        // It is the same one still, and no more are held than fit.
        assert!(Arc::ptr_eq(&kept, &hours.kept(first)));
        let many = std::iter::successors(Some(first), |period| Some(period.next())).take(HELD + 5);
        many.for_each(|period| drop(hours.all(period).unwrap()));
        assert_eq!(hours.held.lock().unwrap().len(), HELD);
        assert!(!Arc::ptr_eq(&kept, &hours.kept(first)));
    }

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
