//! How often an auditor may search by what a person can be named with, and what can be guessed: cases, message ids, persons.
//! Whoever may ask without end finds out, one case number after the other, which there are.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::Status;
use trave_host::config::with_causes;
use trave_message_log::store::{MAX_VALUE, Namespace, Store, StoreError};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;

use super::{Asked, Desk};

/// The time over which is counted.
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// Most times of one auditor that outlast a restart.
const KEPT: usize = MAX_VALUE / size_of::<i64>();

/// What each auditor asked for in the last hour, by the digest of its name. A restart goes on from there; a power cut may lose the
/// last second.
#[derive(Debug)]
pub(super) struct Guesses {
    most: usize,
    asked: Mutex<HashMap<Digest, Lately>>,
    /// None where the database cannot be had: then the counts are in memory alone.
    kept: Option<Namespace>,
}

/// When one auditor asked, the earliest first.
#[derive(Debug, Default)]
struct Lately {
    times: VecDeque<Time>,
    /// Whether it was said since that it asks too often.
    told: bool,
}

/// That an auditor asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TooOften {
    /// From then on it may ask again.
    until: Time,
    /// For the first time since it was last answered.
    first: bool,
}

impl Guesses {
    /// At most so many in an hour. What was asked before stands in the database in the directory `state`; no auditor is kept
    /// out because it cannot be had. Blocks.
    pub(super) fn open(most: u32, state: &Path) -> Self {
        let (asked, kept) = match Self::recall(state) {
            Ok((asked, kept)) => (asked, Some(kept)),
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "how often auditors asked before is not known");
                (HashMap::new(), None)
            }
        };
        Self { most: most as usize, asked: Mutex::new(asked), kept }
    }

    fn recall(state: &Path) -> Result<(HashMap<Digest, Lately>, Namespace), StoreError> {
        // One that is damaged is set aside, and said to be: then all begin anew.
        let (store, _) = Store::open(state)?;
        let kept = store.namespace("guesses")?;
        let mut asked = HashMap::new();
        for entry in kept.entries() {
            let (auditor, times) = entry?;
            if let Some(auditor) = Digest::from_slice(&auditor) {
                asked.insert(auditor, Lately::read(&times));
            }
        }
        Ok((asked, kept))
    }

    /// What cannot be kept is counted in memory.
    fn outlast(&self, keep: impl FnOnce(&Namespace) -> Result<(), StoreError>) {
        if let Some(Err(error)) = self.kept.as_ref().map(keep) {
            tracing::warn!(
                error = with_causes(&error),
                "how often auditors asked does not outlast a restart"
            );
        }
    }

    fn count(&self, auditor: &str, now: Time) -> Result<(), TooOften> {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for lately in all.values_mut() {
            lately.pass(now);
        }
        // As many as ask within an hour: those of the global configuration.
        for (gone, _) in all.extract_if(|_, lately| lately.times.is_empty()) {
            self.outlast(|kept| kept.remove(gone.as_ref()));
        }
        let auditor = Digest::of(auditor.as_bytes());
        let lately = all.entry(auditor).or_default();
        match lately.times.front() {
            Some(first) if lately.times.len() >= self.most => {
                let first_time = !std::mem::replace(&mut lately.told, true);
                Err(TooOften { until: first.plus(WINDOW), first: first_time })
            }
            _ => {
                lately.times.push_back(now);
                lately.told = false;
                self.outlast(|kept| kept.put(auditor.as_ref(), &lately.to_bytes()));
                Ok(())
            }
        }
    }
}

impl Lately {
    fn read(bytes: &[u8]) -> Self {
        let times = bytes.as_chunks().0.iter().map(|time| Time::from_millis(i64::from_be_bytes(*time)));
        Self { times: times.collect(), told: false }
    }

    /// The latest times.
    fn to_bytes(&self) -> Vec<u8> {
        let latest = self.times.iter().skip(self.times.len().saturating_sub(KEPT));
        latest.flat_map(|time| time.as_millis().to_be_bytes()).collect()
    }

    fn pass(&mut self, now: Time) {
        // A clock that was set back frees nobody, and binds nobody for longer than an hour.
        self.times.iter_mut().for_each(|time| *time = (*time).min(now));
        while self.times.front().is_some_and(|time| now.since(*time) >= WINDOW) {
            self.times.pop_front();
        }
    }
}

impl Desk {
    /// Lets an auditor search by a case, a message id or a person, if it did not do so too often. That it did is logged once
    /// until it is answered again: refusals must not fill the log.
    pub(super) async fn may_guess(&self, asked: &Asked, what: &str) -> Result<(), Status> {
        let Err(TooOften { until, first }) =
            self.guesses.count(&asked.auditor.name, self.exchanges.clock.now())
        else {
            return Ok(());
        };
        let most = self.guesses.most;
        if first {
            tracing::warn!(auditor = asked.auditor.name, most, "an auditor searches by reference too often");
            let query = format!("is refused: {what}, as more than {most} searches by reference in an hour");
            self.log_read(asked, query, 0).await?;
        }
        let why = format!(
            "more than {most} searches by message id, case or person in an hour: the next one is answered from {until} on\n\
             hint: its operator sets the limit (auditors.references_per_hour); one exchange is asked for by its id without it"
        );
        Err(Status::resource_exhausted(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(1_795_288_440_005).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn each_auditor_asks_so_often_in_an_hour_and_is_told_from_when_on_again() {
        let state = tempfile::tempdir().unwrap();
        let guesses = Guesses::open(3, state.path());
        for second in [0, 10, 20] {
            assert_eq!(guesses.count("sh", at(second)), Ok(()));
        }
        assert_eq!(guesses.count("sh", at(30)), Err(TooOften { until: at(3_600), first: true }));
        assert_eq!(guesses.count("sh", at(3_599)), Err(TooOften { until: at(3_600), first: false }));
        assert_eq!(guesses.count("mv", at(3_599)), Ok(()), "another auditor");
        assert_eq!(guesses.count("sh", at(3_600)), Ok(()), "one has fallen out of the hour");
        assert_eq!(guesses.count("sh", at(3_601)), Err(TooOften { until: at(3_610), first: true }));
        assert_eq!(guesses.count("sh", at(20_000)), Ok(()));
        assert_eq!(guesses.asked.lock().unwrap().len(), 1, "who has not asked for an hour is forgotten");
    }

    #[test]
    fn a_clock_that_was_set_back_frees_nobody_and_binds_nobody_for_longer() {
        let state = tempfile::tempdir().unwrap();
        let guesses = Guesses::open(1, state.path());
        assert_eq!(guesses.count("sh", at(100_000)), Ok(()));
        assert_eq!(guesses.count("sh", at(0)), Err(TooOften { until: at(3_600), first: true }));
        assert_eq!(guesses.count("sh", at(3_600)), Ok(()));
    }

    #[test]
    fn a_restart_begins_nothing_anew() {
        let state = tempfile::tempdir().unwrap();
        let open = |most| Guesses::open(most, state.path());
        let guesses = open(600);
        for number in 0..600 {
            assert_eq!(guesses.count("sh", at(number)), Ok(()));
        }
        assert_eq!(guesses.count("mv", at(600)), Ok(()));
        drop(guesses);
        // The latest 512 are what it goes on from.
        let guesses = open(513);
        assert_eq!(guesses.count("sh", at(600)), Ok(()));
        assert_eq!(guesses.count("sh", at(600)), Err(TooOften { until: at(3_600 + 88), first: true }));
        assert_eq!(guesses.count("mv", at(600)), Ok(()));
        drop(guesses);
        // What is over is forgotten there, too.
        let guesses = open(1);
        assert_eq!(guesses.count("mv", at(9_000)), Ok(()));
        drop(guesses);
        assert_eq!(open(1).asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn where_nothing_can_be_kept_it_is_counted_all_the_same() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let guesses = Guesses::open(1, &place.path().join("below a file"));
        assert_eq!(guesses.count("sh", at(0)), Ok(()));
        assert_eq!(guesses.count("sh", at(1)), Err(TooOften { until: at(3_600), first: true }));
    }
}
