//! A connection and what its library runs beside it, as one task.
//!
//! For each request hyper asks its executor for two futures more: one carries the body to the connection, one waits there
//! for the head of the answer. As tasks of their own they would be scheduled, woken on other threads, and wait for each
//! other's locks, only to do a few steps for the connection that woke them. Here they are its company: whoever is woken is
//! polled in the connection's own turn.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where futures join a connection. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Company(Arc<Mutex<Joining>>);

#[derive(Default)]
struct Joining {
    members: Vec<Member>,
    /// Of the task, while nobody in it is being polled.
    waker: Option<Waker>,
    /// The task has ended, or never polls again.
    over: bool,
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joining({})", self.members.len())
    }
}

impl Company {
    fn joining(&self) -> MutexGuard<'_, Joining> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `member` run beside the connection; alone where the connection is over, so that it learns of that.
    pub(crate) fn join(&self, member: Member) {
        let mut joining = self.joining();
        if joining.over {
            drop(joining);
            tokio::spawn(member);
            return;
        }
        joining.members.push(member);
        if let Some(waker) = joining.waker.take() {
            waker.wake();
        }
    }

    /// Runs `connection` and all who join it, to the end of the last.
    pub(crate) async fn run(&self, connection: impl Future<Output = ()>) {
        let _over = Over(self);
        let mut connection = pin!(connection);
        let mut members = FuturesUnordered::<Member>::new();
        let mut over = false;
        poll_fn(|context| {
            self.joining().waker = None;
            over = over || connection.as_mut().poll(context).is_ready();
            loop {
                members.extend(std::mem::take(&mut self.joining().members));
                while let Poll::Ready(Some(())) = members.poll_next_unpin(context) {}
                let mut joining = self.joining();
                if joining.members.is_empty() {
                    // Decided under the lock under which others join: nobody joins what has ended.
                    joining.over = over && members.is_empty();
                    joining.waker = (!joining.over).then(|| context.waker().clone());
                    return if joining.over { Poll::Ready(()) } else { Poll::Pending };
                }
            }
        })
        .await;
    }
}

/// However a company's task ends, nobody joins it any more. Whoever had not been polled is dropped: he may hold this very
/// place, and would hold it for ever.
struct Over<'a>(&'a Company);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let left = {
            let mut joining = self.0.joining();
            joining.over = true;
            std::mem::take(&mut joining.members)
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_joins_is_run_to_the_end_whenever_he_joins() {
        let (company, done) = (Company::default(), Arc::new(AtomicU32::new(0)));
        let (late, waits) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let member = |done: &Arc<AtomicU32>| {
            let done = Arc::clone(done);
            Box::pin(async move {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
            })
        };
        let (inside, first) = (company.clone(), member(&done));
        let running = tokio::spawn({
            let company = company.clone();
            async move {
                company
                    .run(async {
                        // From within the connection's own turn, as hyper does it.
                        inside.join(first);
                        let _ = ended.await;
                    })
                    .await;
            }
        });
        while done.load(Ordering::Relaxed) < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // From elsewhere, while the connection waits.
        company.join(member(&done));
        while done.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Who has not finished keeps the task when the connection is over.
        company.join(Box::pin(async move { drop(waits.await) }));
        end.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!running.is_finished());
        late.send(()).unwrap();
        running.await.unwrap();
        // Who comes when all is over still learns of it.
        let (told, tells) = oneshot::channel();
        company.join(Box::pin(async move { told.send(()).unwrap() }));
        tells.await.unwrap();
    }

    #[tokio::test]
    async fn who_joins_a_task_that_was_broken_off_is_run_alone() {
        let company = Company::default();
        let running = tokio::spawn({
            let company = company.clone();
            async move { company.run(std::future::pending()).await }
        });
        tokio::task::yield_now().await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        let (told, tells) = oneshot::channel();
        company.join(Box::pin(async move { told.send(()).unwrap() }));
        tells.await.unwrap();
    }
}
