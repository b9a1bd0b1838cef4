//! How much at once: places for exchanges under way, and how many of them one client, one peer, one service may take.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use trave_proto::fault::{Fault, Reason, Side};

use crate::config::Limits;

/// Where nothing else is configured, one client, peer or service takes at most this part of all places, so that none shuts
/// the others out.
const SHARE: usize = 2;

/// How many exchanges of one role may be under way; one more is refused at once.
#[derive(Debug)]
pub(crate) struct Admission {
    taken: Arc<Mutex<Taken>>,
    most: ArcSwap<Most>,
    side: Side,
    suspended: ArcSwapOption<Suspended>,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
struct Most {
    places: usize,
    per_client: usize,
    per_peer: usize,
}

impl Most {
    fn of(limits: &Limits) -> Self {
        let share = limits.exchanges.div_ceil(SHARE);
        Self {
            places: limits.exchanges,
            per_client: limits.exchanges_per_client.unwrap_or(share),
            per_peer: limits.exchanges_per_peer.unwrap_or(share),
        }
    }
}

/// Why no exchange is admitted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspended {
    /// The reason that a caller gets.
    pub(crate) reason: Reason,
    /// In words.
    pub(crate) why: String,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_name: HashMap<String, usize>,
}

/// For what an exchange counts beside all, and how many of these there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    /// What it is: "client", "service".
    pub(crate) what: &'static str,
    /// Which one.
    pub(crate) name: &'a str,
    /// The most at a time.
    pub(crate) most: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    names: Vec<String>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, side: Side) -> Self {
        let most = ArcSwap::from_pointee(Most::of(limits));
        Self { taken: Arc::default(), most, side, suspended: ArcSwapOption::empty() }
    }

    /// From now on no new exchange is admitted, for this reason; or they are again.
    pub(crate) fn suspend(&self, suspended: Option<Arc<Suspended>>) {
        self.suspended.store(suspended);
    }

    /// Why no exchange is admitted just now; none if they are.
    pub(crate) fn suspended(&self) -> Option<Arc<Suspended>> {
        self.suspended.load_full()
    }

    /// From now on as many as `limits` say. Who is inside already stays.
    pub(crate) fn limit(&self, limits: &Limits) {
        self.most.store(Arc::new(Most::of(limits)));
    }

    /// An exchange of this client subsystem's.
    pub(crate) fn client<'a>(&self, name: &'a str) -> Counted<'a> {
        Counted { what: "client", name, most: self.most.load().per_client }
    }

    /// An exchange that this security server asks for.
    pub(crate) fn peer<'a>(&self, name: &'a str) -> Counted<'a> {
        Counted { what: "security server", name, most: self.most.load().per_peer }
    }

    /// An exchange with this service.
    pub(crate) fn service<'a>(&self, name: &'a str) -> Counted<'a> {
        Counted { what: "service", name, most: self.most.load().places.div_ceil(SHARE) }
    }

    /// A place for an exchange that counts for each of `counted`.
    pub(crate) fn enter(&self, counted: &[Counted<'_>]) -> Result<Place, Fault> {
        if let Some(suspended) = &*self.suspended.load() {
            return Err(Fault::before_call(suspended.reason, self.side, &suspended.why));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most.load().places {
            return Err(self.full("as many exchanges as this security server admits are under way"));
        }
        let names: Vec<_> =
            counted.iter().map(|Counted { what, name, .. }| format!("{what} {name}")).collect();
        for (name, Counted { most, .. }) in names.iter().zip(counted) {
            if taken.by_name.get(name).is_some_and(|count| count >= most) {
                let why = format!(
                    "as many exchanges with the {name} as this security server admits ({most}) are under way"
                );
                return Err(self.full(&why));
            }
        }
        taken.all += 1;
        for name in &names {
            *taken.by_name.entry(name.clone()).or_default() += 1;
        }
        Ok(Place { taken: Arc::clone(&self.taken), names })
    }

    fn full(&self, why: &str) -> Fault {
        Fault::before_call(Reason::Overloaded, self.side, format!("{why}; try again shortly"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        for name in &self.names {
            match taken.by_name.get_mut(name) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(taken.by_name.remove(name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_its_share_and_all_take_the_places() {
        let limits = Limits { exchanges: 4, ..Limits::default() };
        let admission = Admission::new(&limits, Side::ProviderServer);
        let peer = |name| admission.peer(name);
        let first = admission.enter(&[peer("greedy"), admission.service("service")]).unwrap();
        let _second = admission.enter(&[peer("greedy")]).unwrap();
        assert_eq!(admission.enter(&[peer("greedy")]).unwrap_err().reason, Reason::Overloaded);
        // A client of that name is another thing.
        let _third = admission.enter(&[admission.client("greedy")]).unwrap();
        let _fourth = admission.enter(&[peer("other")]).unwrap();
        assert!(admission.enter(&[peer("another")]).is_err());
        drop(first);
        assert!(admission.enter(&[peer("greedy"), admission.service("service")]).is_ok());
        assert!(!admission.taken.lock().unwrap().by_name.contains_key("service service"));
    }

    #[test]
    fn while_it_is_suspended_nobody_new_comes_in() {
        let admission = Admission::new(&Limits::default(), Side::ProviderServer);
        let place = admission.enter(&[]).unwrap();
        let why = "no timestamp for 73 h".to_owned();
        admission.suspend(Some(Arc::new(Suspended { reason: Reason::TimestamperFailed, why })));
        assert_eq!(admission.enter(&[]).unwrap_err().reason, Reason::TimestamperFailed);
        drop(place);
        admission.suspend(None);
        assert!(admission.enter(&[]).is_ok());
    }

    #[test]
    fn other_limits_hold_for_who_comes_after_them() {
        let limits = |exchanges| Limits { exchanges, ..Limits::default() };
        let admission = Admission::new(&limits(2), Side::ProviderServer);
        let [first, second] = [admission.enter(&[]).unwrap(), admission.enter(&[]).unwrap()];
        assert!(admission.enter(&[]).is_err());
        admission.limit(&limits(3));
        let third = admission.enter(&[]).unwrap();
        admission.limit(&limits(1));
        drop((first, second));
        assert!(admission.enter(&[]).is_err(), "who is inside stays, and counts");
        drop(third);
        assert!(admission.enter(&[]).is_ok());
    }

    #[test]
    fn what_is_configured_holds_and_whatever_is_refused_takes_no_place() {
        let limits = Limits {
            exchanges: 10,
            exchanges_per_client: Some(1),
            exchanges_per_peer: Some(3),
            ..Limits::default()
        };
        let admission = Admission::new(&limits, Side::ClientServer);
        let grant = Counted { what: "grant", name: "g1", most: 2 };
        let enter = |client| admission.enter(&[admission.peer("p"), admission.client(client), grant]);
        let first = enter("a").unwrap();
        let refused = enter("a").unwrap_err();
        assert!(
            refused.message.contains("client a") && refused.message.contains("(1)"),
            "{}",
            refused.message
        );
        let _second = enter("b").unwrap();
        assert!(enter("c").unwrap_err().message.contains("grant g1"));
        drop(first);
        let _third = enter("c").unwrap();
        assert_eq!(admission.taken.lock().unwrap().all, 2);
    }
}
