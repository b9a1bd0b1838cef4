//! Searching the log: which exchanges there were, by any of the [`Key`]s that an exchange is found by, in any
//! combination, a page at a time.
//!
//! A thread of its own reads what was logged, some moments later, and writes the search index of each segment that was
//! closed. No exchange waits for it, and nothing is lost with it. A search reads what is not yet indexed of the open segment
//! by itself, so that it always finds all that is durable.
//!
//! Whoever takes records out of a closed segment, or rewrites them, calls [`Searcher::remake`], or what it calls, afterwards: the
//! segment's search index is removed and made again from what is then there. Until it has done so, hits still name the places of records that are
//! no more; so the order is: the record first, then its search index, and again at the next start if a crash came between.
//! Whoever removes a segment file removes the file of [`path_of`](crate::search_index::file::path_of) with it.

mod indexing;
mod query;

pub(crate) use indexing::forget;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use trave_proto::identifier::ExchangeId;
use trave_proto::search::{Key, Term};

use crate::error::LogError;
use crate::reference::Reference;
use crate::shared::Shared;

/// How often what was logged since is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// Most hits of one page.
pub(crate) const MAX_PAGE: usize = 1_000;

/// What is searched for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Conditions that must all hold, each by any of its values. At least one condition.
    pub all: Vec<Vec<Term>>,
    /// What the caller calls the exchange by: each must be so. It stands beside the exchange's first message, so together
    /// with an outcome nothing is found.
    pub references: Vec<Reference>,
    /// Logged at this time or later, milliseconds since 1970.
    pub from: Option<i64>,
    /// Logged before this time.
    pub to: Option<i64>,
    /// The latest first; else the earliest.
    pub newest_first: bool,
    /// Only what comes after this place, in the order asked for: where the page before ended. What is logged meanwhile does
    /// not move the pages.
    pub after: Option<u64>,
    /// Most hits, at most 1,000.
    pub limit: usize,
}

/// A page of hits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Places in the log, in the order asked for.
    pub places: Vec<u64>,
    /// Whether there are more.
    pub more: bool,
}

/// How often each value of a key occurs.
pub type Count = BTreeMap<String, u64>;

/// Searches a log. Clones share one thread.
#[derive(Debug, Clone)]
pub struct Searcher(Arc<Worker>);

#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Searcher {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self, LogError> {
        let (stop, stopped) = channel();
        let of = shared.clone();
        let thread = std::thread::Builder::new().name("log-search".into()).spawn(move || work(&of, &stopped));
        let thread = thread.map_err(LogError::disk("start a thread for", &shared.dir))?;
        Ok(Self(Arc::new(Worker { shared, stop: Some(stop), thread: Mutex::new(Some(thread)) })))
    }

    /// A page of what is searched for. Reads the disk.
    pub fn find(&self, search: &Search) -> Result<Found, LogError> {
        query::find(&self.0.shared, search)
    }

    /// How often each value of `by` occurs among what is searched for; `after` and `limit` are not looked at. An exchange
    /// whose end stands in a later segment than a complete answer of it counts as both. Reads the disk.
    pub fn count(&self, search: &Search, by: Key) -> Result<Count, LogError> {
        query::count(&self.0.shared, search, by)
    }

    /// The places of an exchange's messages, refusals and end, ascending: those in segments where they can stand, which
    /// are few however many segments there are. Its erasures, which may come years later, are among them by chance only.
    pub fn course(&self, exchange: ExchangeId) -> Result<Vec<u64>, LogError> {
        query::course(&self.0.shared, exchange)
    }

    /// Has the search index of the closed segment that begins with leaf `first` made again, from what the segment now holds.
    pub fn remake(&self, first: u64) -> Result<(), LogError> {
        indexing::remake(&self.0.shared, first)
    }

    /// Closed segments whose search index is still to be made.
    pub fn left(&self) -> usize {
        indexing::missing(&self.0.shared).len()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there is reported by its thread; nothing depends on what it did.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Arc<Shared>, stopped: &Receiver<()>) {
    let mut failed = None;
    loop {
        // One segment at a time, so that the open one is never far behind.
        let pause = match indexing::step(shared) {
            Ok(true) => Duration::ZERO,
            Ok(false) => {
                failed = None;
                INTERVAL
            }
            Err(error) => {
                let error = error.in_full();
                if failed.as_ref() != Some(&error) {
                    tracing::warn!(%error, "a search index could not be made; it is tried again");
                    failed = Some(error);
                }
                INTERVAL * 50
            }
        };
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
