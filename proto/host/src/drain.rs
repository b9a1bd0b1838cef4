//! The orderly end of a server: nothing new is begun, what was begun is finished, within a bound.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One server's end, shared by all of its parts. Clones are the same end.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    forced: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// An end that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the end when the process is told to stop (SIGTERM, SIGINT).
    ///
    /// # Errors
    /// If the system does not let signals be handled.
    pub fn on_signals(&self) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let drain = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("told to stop (SIGTERM): finishing what was begun"),
                _ = interrupt.recv() => tracing::info!("told to stop (SIGINT): finishing what was begun"),
                () = drain.begun() => {}
            }
            drain.begin();
        });
        Ok(())
    }

    /// Begins the end: listeners stop accepting, connections announce it.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether the end has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits for the end to begin.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Runs `task` as part of the server, which waits for it at its end. The task sees to it that it finishes soon
    /// after [`Drain::begun`]; if it does not, it is dropped at its next wait when the bound is over.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let forced = self.forced.clone();
        // On the heap at once: a large task would be copied by each of the layers below.
        let task = Box::pin(task);
        self.tasks.spawn(async move { forced.run_until_cancelled(task).await })
    }

    /// Begins the end, if it has not begun, and waits for all tasks, at most `bound`. Returns how many had to be
    /// dropped.
    pub async fn finish(&self, bound: Duration) -> usize {
        self.begin();
        self.tasks.close();
        if tokio::time::timeout(bound, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        tracing::warn!(left, "the time to finish is over: dropping what is left");
        self.forced.cancel();
        self.tasks.wait().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_finished() {
        let drain = Drain::new();
        let done = Arc::new(AtomicBool::new(false));
        let (task, flag) = (drain.clone(), Arc::clone(&done));
        drain.spawn(async move {
            task.begun().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            flag.store(true, Ordering::SeqCst);
        });
        assert!(!drain.has_begun());
        assert_eq!(drain.finish(Duration::from_secs(10)).await, 0);
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_does_not_finish_is_dropped_after_the_bound() {
        let drain = Drain::new();
        let stuck = drain.spawn(std::future::pending::<()>());
        assert_eq!(drain.finish(Duration::from_millis(20)).await, 1);
        assert_eq!(stuck.await.unwrap(), None);
    }
}
