//! Erasures that go on by themselves: what a crash cut off, what other security servers are to be told, and what these told,
//! where the policy says that it is carried out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_host::config::with_causes;
use trave_proto::fault::plain;
use trave_proto::identifier::ServerId;
use trave_proto::schema::log::ErasureStage;
use trave_proto::schema::transport::TellErasureRequest;

use super::Upkeep;
use super::conditions::Kind;
use crate::config::OnNotice;
use crate::erasures::{AT_A_TIME, Decided, Erasing, ErasureError, Notice};

/// How often it is looked whether something is left, if nothing new comes.
const EVERY: Duration = Duration::from_secs(3_600);
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// For one answer: the other server has to look for the exchanges.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a telling ended that did not fail.
enum Telling {
    Told,
    /// The configuration lists that server no more: nobody is left to be told.
    Nobody,
}

impl Upkeep {
    /// Erasures that are not over.
    pub(crate) fn erasing(&self) -> &Arc<Erasing> {
        &self.erasing
    }

    /// Goes on, as long as the server runs.
    pub(super) async fn erase_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        loop {
            let mut failed = Vec::new();
            if let Err(error) = self.erasing.redo().await {
                failed.push(format!("what was approved is not erased: {}", with_causes(&error)));
            }
            failed.extend(self.tell_erasures().await);
            failed.extend(self.carry_out_what_was_told().await);
            let again = !failed.is_empty();
            let what = again.then(|| format!("{}; it is tried again every minute", failed.join("; ")));
            self.conditions.set(Kind::ErasureUnfinished, what).await;
            let open = self.erasing.look(|all| all.all_waiting().filter(|it| !it.peer.is_empty()).count());
            let what = (open > 0).then(|| {
                format!(
                    "{open} erasures that other security servers told wait for a decision: `trave-gateway erasures list`"
                )
            });
            self.conditions.set(Kind::ErasureWaits, what).await;
            let later = clock.sleep_until(clock.now().plus(if again { AGAIN } else { EVERY }));
            tokio::select! {
                () = later => {}
                () = self.erasing.news() => {}
            }
        }
    }

    /// Tells other servers what they are to be told; why not all were.
    async fn tell_erasures(&self) -> Vec<String> {
        let mut failed = Vec::new();
        for notice in self.erasing.look(|all| all.to_tell()) {
            let told = match self.tell_erasure(&notice).await {
                Ok(Telling::Told) => self.erasing.told(&notice, ErasureStage::Told).await,
                Ok(Telling::Nobody) => self.erasing.told(&notice, ErasureStage::Dropped).await,
                Err(why) => {
                    failed.push(format!("{} is not told of the erasure {}: {why}", notice.peer, notice.id));
                    continue;
                }
            };
            match told {
                Ok(()) => tracing::info!(id = notice.id, peer = notice.peer, "told of an erasure"),
                Err(error) => failed.push(with_causes(&error)),
            }
        }
        failed
    }

    async fn tell_erasure(&self, notice: &Notice) -> Result<Telling, String> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let peer = notice.peer.parse::<ServerId>().map_err(|error| error.to_string())?;
        let Some(listed) = configuration.security_server(&peer) else { return Ok(Telling::Nobody) };
        let silent = |_| "it does not answer in time".to_owned();
        let connection = tokio::time::timeout(PATIENCE, self.exchanges.peers.connection(listed)).await;
        let connection = connection.map_err(silent)?.map_err(|error| with_causes(&error))?;
        let mut client = connection.client();
        for some in notice.exchanges.chunks(AT_A_TIME) {
            let exchange_ids = some.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
            let request = TellErasureRequest { id: notice.id.clone(), exchange_ids };
            let answer = tokio::time::timeout(PATIENCE, client.tell_erasure(request)).await;
            answer.map_err(silent)?.map_err(|status| plain(status.message()))?;
        }
        Ok(Telling::Told)
    }

    /// Erases what other servers told, where the policy says so and no hold keeps it; why not all.
    async fn carry_out_what_was_told(&self) -> Vec<String> {
        if self.retaining.policy().erasure_notices == OnNotice::Show {
            return Vec::new();
        }
        let told: Vec<_> = self
            .erasing
            .look(|all| all.all_waiting().filter(|notice| !notice.peer.is_empty()).cloned().collect());
        let mut failed = Vec::new();
        for notice in told {
            match self.erase_as_told(&notice).await {
                Ok(()) | Err(ErasureError::Unknown(_)) => {}
                Err(error) => failed.push(format!("{}: {}", notice.id, with_causes(&error))),
            }
        }
        failed
    }

    async fn erase_as_told(&self, notice: &Notice) -> Result<(), ErasureError> {
        let _still = self.retaining.still().await;
        // What is held waits for people to decide.
        if self.held(notice).await?.is_some() {
            return Ok(());
        }
        let by = "the policy of this security server, retention.erasure_notices = \"carry_out\"";
        let decided = Decided { by: by.into(), user: None };
        self.erasing.approve(&notice.id, decided).await.map(|_| ())
    }

    /// The hold that keeps something of this, if there is one.
    pub(crate) async fn held(&self, notice: &Notice) -> Result<Option<String>, ErasureError> {
        let holds = self.retaining.holds();
        if !holds.any(self.exchanges.clock.now()) {
            return Ok(None);
        }
        let (log, own) = (self.exchanges.recorder.log().clone(), self.exchanges.own.server.clone());
        let generations = Arc::clone(self.erasing.generations());
        let (exchanges, now) = (notice.exchanges.clone(), self.exchanges.clock.now());
        let looked = tokio::task::spawn_blocking(move || {
            for exchange in exchanges {
                let held = match Erasing::subject_of((&log, &generations), &own, exchange)? {
                    Some((about, _)) => holds.holding(&about, now).map(|hold| hold.set.id.clone()),
                    None => None,
                };
                if held.is_some() {
                    return Ok(held);
                }
            }
            Ok(None)
        });
        looked.await.map_err(|_| ErasureError::Interrupted)?.map_err(ErasureError::Log)
    }
}
