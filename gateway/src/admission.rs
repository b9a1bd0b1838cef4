//! How much at once: places for exchanges under way, and what each peer and each service may take of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use trave_proto::fault::{Fault, Reason, Side};

/// One peer or one service takes at most this part of all places, so that none shuts the others out.
const SHARE: usize = 2;

/// How many exchanges of one role may be under way; one more is refused at once.
#[derive(Debug)]
pub(crate) struct Admission {
    taken: Arc<Mutex<Taken>>,
    places: usize,
    side: Side,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_name: HashMap<String, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    names: Vec<String>,
}

impl Admission {
    pub(crate) fn new(places: usize, side: Side) -> Self {
        Self { taken: Arc::default(), places, side }
    }

    /// A place for an exchange that counts for each of `names`: its peer, its service.
    pub(crate) fn enter(&self, names: &[&str]) -> Result<Place, Fault> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let share = self.places.div_ceil(SHARE);
        if taken.all >= self.places {
            return Err(self.full("as many exchanges as this security server admits are under way"));
        }
        if names.iter().any(|name| taken.by_name.get(*name).is_some_and(|count| *count >= share)) {
            return Err(self.full(
                "as many exchanges with this peer or service as this security server admits are under way",
            ));
        }
        taken.all += 1;
        for name in names {
            *taken.by_name.entry((*name).to_owned()).or_default() += 1;
        }
        let names = names.iter().map(|name| (*name).to_owned()).collect();
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
        let admission = Admission::new(4, Side::ProviderServer);
        let first = admission.enter(&["greedy", "service"]).unwrap();
        let _second = admission.enter(&["greedy"]).unwrap();
        assert_eq!(admission.enter(&["greedy"]).unwrap_err().reason, Reason::Overloaded);
        let _third = admission.enter(&["modest"]).unwrap();
        let _fourth = admission.enter(&["other"]).unwrap();
        assert!(admission.enter(&["another"]).is_err());
        drop(first);
        assert!(admission.enter(&["greedy", "service"]).is_ok());
        assert!(!admission.taken.lock().unwrap().by_name.contains_key("service"));
    }
}
