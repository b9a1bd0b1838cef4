//! Which security servers send what does not verify: after too much of it, nothing of theirs is looked at for a while.
//!
//! To verify costs more than to send rubbish. What verifies is bounded by what may be under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ServerId;

/// What each security server may still get wrong. One that has got nothing wrong for a minute is not remembered.
#[derive(Debug)]
pub(crate) struct Suspicion {
    per_minute: AtomicU32,
    left: Mutex<HashMap<ServerId, Left>>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    count: f64,
    at: Instant,
}

impl Suspicion {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute: AtomicU32::new(per_minute), left: Mutex::default() }
    }

    /// From now on so many in a minute.
    pub(crate) fn limit(&self, per_minute: u32) {
        self.per_minute.store(per_minute, Ordering::Relaxed);
    }

    /// Whether something that `server` signed is looked at now.
    pub(crate) fn check(&self, server: &ServerId, side: Side) -> Result<(), Fault> {
        if self.left(server, Instant::now()) >= 1.0 {
            return Ok(());
        }
        let why = format!(
            "more of what the security server {server} signed did not verify than may in a minute ({}): nothing of it is looked at for a while",
            self.per_minute.load(Ordering::Relaxed)
        );
        Err(Fault::before_call(Reason::Overloaded, side, why))
    }

    /// Something of `server` was looked at and did not verify.
    pub(crate) fn failed(&self, server: &ServerId) {
        let now = Instant::now();
        let count = self.left(server, now) - 1.0;
        self.lock().insert(server.clone(), Left { count, at: now });
    }

    fn left(&self, server: &ServerId, now: Instant) -> f64 {
        let most = f64::from(self.per_minute.load(Ordering::Relaxed));
        let mut all = self.lock();
        let Some(left) = all.get(server) else { return most };
        let count = left.count + now.saturating_duration_since(left.at).as_secs_f64() * most / 60.0;
        if count >= most {
            all.remove(server);
        }
        count.min(most)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerId, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn so_much_may_be_wrong_in_a_minute_and_it_is_forgiven() {
        let suspicion = Suspicion::new(6);
        let [one, other]: [ServerId; 2] =
            ["NORD/SH/kiel/s1", "NORD/SH/luebeck/s1"].map(|server| server.parse().unwrap());
        for _ in 0..6 {
            suspicion.check(&one, Side::ProviderServer).unwrap();
            suspicion.failed(&one);
        }
        assert_eq!(suspicion.check(&one, Side::ProviderServer).unwrap_err().reason, Reason::Overloaded);
        suspicion.check(&other, Side::ProviderServer).unwrap();
        assert!(suspicion.left(&one, Instant::now() + Duration::from_secs(11)) >= 1.0);
        assert!(suspicion.left(&one, Instant::now() + Duration::from_secs(61)) >= 6.0);
        assert!(suspicion.lock().is_empty(), "nobody who behaves is remembered");
    }
}
