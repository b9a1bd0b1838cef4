//! Overwriting what a schedule says is due. Each call does one segment; what is slow happens where no exchange waits.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use trave_proto::clock::Time;
use trave_proto::schema::log::{Expiry, Leaf, leaf};

use super::Log;
use crate::committer::Command;
use crate::compaction::Installed;
use crate::entry::Entry;
use crate::error::LogError;
use crate::schedule::{self, Schedule, SegmentSpan, Survey};

/// How often a segment is written anew because something in it was overwritten meanwhile.
const ATTEMPTS: usize = 8;
/// How long the index of a segment that was closed just now may take to be written.
const INDEX_WAIT: Duration = Duration::from_secs(30);

impl Log {
    /// The segments of the log, the earliest first.
    pub fn segments(&self) -> Vec<SegmentSpan> {
        schedule::segments(&self.0.shared)
    }

    /// Looks what is due at `now` in the segment that begins with leaf `segment`. Reads the disk, all records of the segment.
    pub fn survey(&self, segment: u64, now: Time, schedule: &mut dyn Schedule) -> Result<Survey, LogError> {
        schedule::survey(&self.0.shared, segment, now, schedule)
    }

    /// Closes the segment that is written to, so that its records can expire.
    pub async fn close_segment(&self) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        self.push(Command::Roll(done), 64)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    /// Makes unreadable the contents that are due: logs the act, then overwrites keys and bytes. Returns how many.
    pub async fn expire_contents(&self, survey: &Survey) -> Result<u64, LogError> {
        self.say(survey, false).await?;
        let (log, segment, due) = (self.clone(), survey.segment, survey.contents.clone());
        if due.is_empty() {
            return Ok(0);
        }
        blocking(move || schedule::overwrite_contents(&log.0.shared, segment, &due)).await
    }

    /// Overwrites the records that are due, with their contents, and what only they needed: logs the act, then overwrites the
    /// keys, then writes the segment anew. Their leaves' hashes stay, with their time as `coarse` makes it. Returns how many.
    pub async fn expire_records(
        &self,
        survey: &Survey,
        coarse: impl Fn(i64) -> i64 + Clone + Send + 'static,
    ) -> Result<u64, LogError> {
        if survey.records.is_empty() {
            return Ok(0);
        }
        self.say(survey, true).await?;
        let (log, due) = (self.clone(), survey.clone());
        blocking(move || {
            log.index_is_written(due.segment)?;
            schedule::overwrite_contents(&log.0.shared, due.segment, &due.records)
        })
        .await?;
        for _ in 0..ATTEMPTS {
            let (log, due, coarse) = (self.clone(), survey.clone(), coarse.clone());
            let rewritten = blocking(move || schedule::rewrite(&log.0.shared, &due, &coarse)).await?;
            let (done, answer) = oneshot::channel();
            self.push(Command::Install(Box::new(rewritten), done), 64)?;
            let installed = answer.await.unwrap_or(Err(LogError::Closed))?;
            let (log, done) = (self.clone(), matches!(installed, Installed::Replaced(_)));
            let segment = survey.segment;
            blocking(move || schedule::destroy(&log.0.shared, segment, &installed)).await?;
            if done {
                return Ok(survey.records());
            }
        }
        Err(LogError::Busy)
    }

    /// Logs what will be overwritten, if the log does not say it yet.
    async fn say(&self, survey: &Survey, records: bool) -> Result<(), LogError> {
        let (log, due) = (self.clone(), survey.clone());
        let act = blocking(move || schedule::act(&log.0.shared, &due, records)).await?;
        let Some(act) = act else { return Ok(()) };
        let entry = leaf::Entry::Expiry(Expiry::clone(&act));
        let leaf = Leaf::of(self.0.clock.now().as_millis(), entry);
        let logged = self.append(Entry::new(leaf), ())?.await?;
        self.0.shared.expiries.note(logged.index(), &act);
        Ok(())
    }

    /// Waits until the keeper has written the index of a closed segment: else it might come after the segment is gone.
    fn index_is_written(&self, segment: u64) -> Result<(), LogError> {
        let begun = Instant::now();
        loop {
            let closed = {
                let catalogue = self.0.shared.catalogue();
                catalogue.closed.iter().find(|closed| closed.first == segment).cloned()
            };
            let Some(closed) = closed else {
                return Err(LogError::OutOfRange { asked: segment, size: self.size() });
            };
            if closed.is_indexed() {
                return Ok(());
            }
            if begun.elapsed() > INDEX_WAIT {
                return Err(LogError::damaged(&closed.path, 0, "its index is not written yet"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let (done, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("log-schedule".into()).spawn(move || {
        // Whoever no longer waits does not need to know.
        let _ = done.send(work());
    });
    thread.map_err(LogError::disk("start a thread for", std::path::Path::new("the log's schedule")))?;
    answer.await.unwrap_or(Err(LogError::Closed))
}
