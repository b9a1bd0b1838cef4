//! The places of a door: how many connections stand at a time, and how many of them come from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Limits, Peer};

/// The places of one door.
#[derive(Debug)]
pub(super) struct Places {
    established: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    sources: Arc<Sources>,
}

/// The place of a connection in its handshake, and among those from its address.
#[derive(Debug)]
pub(super) struct Waiting {
    _handshake: OwnedSemaphorePermit,
    source: Option<Source>,
}

/// The place of a connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Place {
    _established: OwnedSemaphorePermit,
    _source: Option<Source>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            established: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            sources: Arc::new(Sources { most: limits.per_address, counts: Mutex::default() }),
        }
    }

    /// A place to begin; none if there are too many already.
    pub(super) fn begin(&self, peer: Peer) -> Option<Waiting> {
        let source = match counted(peer) {
            Some(network) => Some(Sources::take(&self.sources, network)?),
            None => None,
        };
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned().ok()?;
        Some(Waiting { _handshake: handshake, source })
    }

    /// The place of a connection whose handshake is done; it waits on if there are too many already.
    pub(super) fn establish(&self, waiting: Waiting) -> Result<Place, Waiting> {
        match Arc::clone(&self.established).try_acquire_owned() {
            Ok(established) => Ok(Place { _established: established, _source: waiting.source }),
            Err(_) => Err(waiting),
        }
    }

    /// The place that somebody leaves.
    pub(super) async fn left(&self, waiting: Waiting) -> Place {
        let Ok(established) = Arc::clone(&self.established).acquire_owned().await else {
            // Nobody closes it.
            return std::future::pending().await;
        };
        Place { _established: established, _source: waiting.source }
    }
}

/// How many connections there are from each network that has any.
#[derive(Debug)]
struct Sources {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection from a network, until it is dropped.
#[derive(Debug)]
struct Source {
    sources: Arc<Sources>,
    network: IpAddr,
}

impl Sources {
    fn take(sources: &Arc<Self>, network: IpAddr) -> Option<Source> {
        let mut counts = sources.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= sources.most {
            return None;
        }
        *count += 1;
        Some(Source { sources: Arc::clone(sources), network })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = self.sources.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.network) {
            match entry.get() {
                0 | 1 => drop(entry.remove()),
                _ => *entry.get_mut() -= 1,
            }
        }
    }
}

/// Under what a connection is counted: its address, or the IPv6 network of 64 bits in which one machine can have as many
/// addresses as it likes. Who is on this machine already needs no connections to do harm.
fn counted(peer: Peer) -> Option<IpAddr> {
    let Peer::Tcp(address) = peer else { return None };
    match address.ip().to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Some(IpAddr::V6(Ipv6Addr::from(network)))
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp((address.parse::<IpAddr>().unwrap(), 40_000).into())
    }

    #[test]
    fn one_address_takes_its_own_places_alone() {
        let limits = Limits { per_address: 2, handshakes: 16, connections: 16, ..Limits::default() };
        let places = Places::new(&limits);
        let first = places.begin(peer("192.0.2.1")).unwrap();
        let first = places.establish(first).unwrap();
        let second = places.begin(peer("192.0.2.1")).unwrap();
        assert!(places.begin(peer("192.0.2.1")).is_none());
        assert!(places.begin(peer("::ffff:192.0.2.1")).is_none(), "the same, written as IPv6");
        let other = places.begin(peer("192.0.2.2")).unwrap();
        drop(second);
        let again = places.begin(peer("192.0.2.1")).unwrap();
        drop((first, again, other));
        assert!(places.sources.counts.lock().unwrap().is_empty(), "nobody who left is remembered");

        let v6: Vec<_> = (1..4).map(|i| places.begin(peer(&format!("2001:db8::{i}")))).collect();
        assert_eq!(v6.iter().flatten().count(), 2, "one network of 64 bits");
        assert!(places.begin(peer("2001:db8:0:1::1")).is_some());
        let own: Vec<_> = (0..4).map(|_| places.begin(peer("127.0.0.1"))).collect();
        assert_eq!(own.iter().flatten().count(), 4, "this machine itself is not counted");
    }

    #[test]
    fn whoever_has_not_begun_to_speak_takes_no_place_of_those_who_have() {
        let limits = Limits { handshakes: 2, connections: 1, ..Limits::default() };
        let places = Places::new(&limits);
        let silent = [places.begin(peer("192.0.2.1")).unwrap(), places.begin(peer("192.0.2.2")).unwrap()];
        assert!(places.begin(peer("192.0.2.3")).is_none());
        let [one, other] = silent;
        let one = places.establish(one).unwrap();
        let third = places.begin(peer("192.0.2.3")).unwrap();
        drop(places.establish(other).unwrap_err());
        drop(one);
        assert!(places.establish(third).is_ok());
    }
}
