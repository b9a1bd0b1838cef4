//! How long an exchange may take: until its answer begins, from one message to the next, and in all.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::progress::Progress;

/// What an exchange is given, in monotonic time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the last message of the request to the first of the answer; none at the client, whose other side keeps it.
    pub(super) answer: Option<Duration>,
    /// From one message to the next, whichever way: a stream may be long, and is not forgotten.
    pub(super) idle: Duration,
    /// For all of it.
    pub(super) until: Instant,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The request was complete, and no answer began.
    Answer,
    /// Nothing was said either way.
    Idle,
    /// The whole time.
    All,
}

impl Patience {
    /// Ends when the first of them is over.
    pub(super) async fn over(self, progress: &Progress) -> Over {
        // What is waited for can change at any message, and is then due no earlier than this after it.
        let look = self.answer.map_or(self.idle, |answer| answer.min(self.idle));
        loop {
            let (limit, over) = match self.answer {
                Some(answer) if progress.awaits_answer() => (answer, Over::Answer),
                _ => (self.idle, Over::Idle),
            };
            let (now, due) = (Instant::now(), progress.moved() + limit);
            if now >= self.until {
                return Over::All;
            }
            if now >= due {
                return over;
            }
            sleep_until(due.min(now + look).min(self.until)).await;
        }
    }
}
