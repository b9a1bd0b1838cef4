//! Letting go of persons: when a month lies as far back as the configuration says, its key is destroyed, and nobody can be
//! found in what was logged then.

use std::sync::Arc;
use std::time::Duration;

use trave_message_log::{LogError, Period};

use super::Upkeep;

/// How often it is looked whether a month is over.
const EVERY: Duration = Duration::from_secs(3_600);

impl Upkeep {
    /// Looks now, and every hour by the civil clock. `months`: whole months that are kept beside the one that runs.
    pub(super) async fn forget_persons(self: Arc<Self>, months: u32) {
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let now = clock.now();
            let before = Period::of(now).earlier(months);
            let log = self.exchanges.recorder.log();
            let reason = format!("log.persons_months = {months}");
            // Each by itself: a log whose keys cannot be destroyed keeps none of the others'.
            let here = log.forget_persons_before(before, "the server", &reason).await;
            told(here, before);
            told(self.erasing.generations().forget_before(before, &reason).await, before);
            clock.sleep_until(now.plus(EVERY)).await;
        }
    }
}

fn told(destroyed: Result<u64, LogError>, before: Period) {
    match destroyed {
        Ok(0) => {}
        Ok(keys) => {
            tracing::info!(keys, %before, "the keys of earlier months were destroyed: nobody is found in them");
        }
        Err(error) => {
            let error = trave_host::config::with_causes(&error);
            tracing::warn!(error, "the keys of months that are over could not be destroyed");
        }
    }
}
