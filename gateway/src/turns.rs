//! One thing at a time for each other security server, or for each of whoever else asks: what one of them asks for again and
//! again holds up nobody else, and never piles up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use trave_proto::identifier::ServerId;

/// Whose turn it is.
#[derive(Debug, Clone)]
pub(crate) struct Turns<K: Ord = ServerId>(Arc<Mutex<BTreeSet<K>>>);

/// A turn, until it is dropped: it goes with the work, also where nobody waits for that any longer.
#[derive(Debug)]
pub(crate) struct Turn<K: Ord = ServerId>(Turns<K>, K);

impl<K: Ord> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// The turn of this one; none while it has one.
    pub(crate) fn take(&self, whose: &K) -> Option<Turn<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(whose.clone()).then(|| Turn(Self(Arc::clone(&self.0)), whose.clone()))
    }
}

impl Turn {
    /// Whose it is.
    pub(crate) const fn server(&self) -> &ServerId {
        &self.1
    }
}

impl<K: Ord> Drop for Turn<K> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_one_turn_at_a_time() {
        let (turns, one) = (Turns::<ServerId>::default(), "NORD/MV/register/s1".parse().unwrap());
        let first = turns.take(&one).unwrap();
        assert_eq!(first.server(), &one);
        assert!(turns.take(&one).is_none());
        assert!(turns.take(&"NORD/MV/register/s2".parse().unwrap()).is_some());
        drop(first);
        assert!(turns.take(&one).is_some());
    }
}
