//! One thing at a time for each other security server: what one of them asks for again and again holds up nobody else, and
//! never piles up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use trave_proto::identifier::ServerId;

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<BTreeSet<ServerId>>>);

/// A server's turn, until it is dropped: it goes with the work, also where nobody waits for that any longer.
#[derive(Debug)]
pub(crate) struct Turn(Turns, ServerId);

impl Turns {
    /// The turn of this server; none while it has one.
    pub(crate) fn take(&self, server: &ServerId) -> Option<Turn> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(server.clone()).then(|| Turn(self.clone(), server.clone()))
    }
}

impl Turn {
    /// Whose it is.
    pub(crate) const fn server(&self) -> &ServerId {
        &self.1
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_one_turn_at_a_time() {
        let (turns, one) = (Turns::default(), "NORD/MV/register/s1".parse().unwrap());
        let first = turns.take(&one).unwrap();
        assert_eq!(first.server(), &one);
        assert!(turns.take(&one).is_none());
        assert!(turns.take(&"NORD/MV/register/s2".parse().unwrap()).is_some());
        drop(first);
        assert!(turns.take(&one).is_some());
    }
}
