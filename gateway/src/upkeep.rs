//! What a security server does beside exchanges: it keeps its certificate's status fresh, follows the registry, has its
//! checkpoints timestamped and witnessed, archives closed segments, and warns its operator in time.

mod status;
mod registry;
mod persons;
mod checkpoints;
mod pruning;
mod archiving;
mod lapses;
mod witnesses;
mod answering;
mod reconciling;
mod recovering;
mod following;
mod findings;
mod alarms;
mod left_open;
mod earlier;
mod retention;
mod erasing;
mod watch;
mod figures;
mod conditions;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use trave_host::drain::Drain;
use trave_host::metrics::Health;
use trave_host::tls::Identity;
use trave_proto::clock::Time;

use crate::config::Config;
use crate::custody::Layout;
use crate::erasures::Erasing;
use crate::exchange::Exchanges;
use crate::reconciliation::Desk;
use conditions::Conditions;

pub(crate) use alarms::{AcknowledgeError, Alarm};
pub(crate) use archiving::Archiving;
pub(crate) use checkpoints::SealError;
pub(crate) use findings::PeerStanding;
pub(crate) use lapses::Lapse;
pub(crate) use pruning::{Application, PruneError};
pub(crate) use reconciling::ReconcileError;
pub use status::StatusError;
pub(crate) use status::own_signer;
pub(crate) use witnesses::{Ways, Witnessed, last_witnessed, last_witnessed_note, recall};

/// Shortest and longest pause before something that failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Everything that goes on beside exchanges, and what it knows of the server's condition.
#[derive(Debug)]
pub(crate) struct Upkeep {
    exchanges: Arc<Exchanges>,
    identity: Arc<Identity>,
    layout: Layout,
    data: PathBuf,
    reserve: u64,
    checkpoint_every: Duration,
    conditions: Conditions,
    sealing: checkpoints::Sealing,
    witnessing: witnesses::Witnessing,
    ways: Arc<Ways>,
    lapses: lapses::Lapses,
    desk: Arc<Desk>,
    findings: findings::Findings,
    alarms: alarms::Alarms,
    following: following::Following,
    archiving: Option<Archiving>,
    pub(crate) retaining: retention::Retaining,
    erasing: Arc<Erasing>,
    /// Milliseconds since 1970; 0 for never.
    registry_seen: AtomicI64,
    begun: u64,
}

impl Upkeep {
    /// Starts all of it; `ways` lead to the witnesses. `begun` is the place in the log where this run of the server begins.
    pub(crate) async fn start(
        config: &Config,
        exchanges: &Arc<Exchanges>,
        (identity, ways, archiving): (Arc<Identity>, Ways, Option<Archiving>),
        (erasing, begun): (Arc<Erasing>, u64),
        drain: &Drain,
    ) -> Arc<Self> {
        let (log, clock) = (exchanges.recorder.log().clone(), Arc::clone(&exchanges.clock));
        let desk = Arc::new(Desk::new(log, exchanges.own.server.clone(), clock));
        let upkeep = Arc::new(Self {
            exchanges: Arc::clone(exchanges),
            identity,
            layout: Layout::new(config.data()),
            data: config.data(),
            reserve: config.log.reserve_mib << 20,
            checkpoint_every: Duration::from_secs(config.log.checkpoint_seconds),
            conditions: Conditions::new(exchanges.recorder.clone()),
            sealing: checkpoints::Sealing::default(),
            witnessing: witnesses::Witnessing::default(),
            ways: Arc::new(ways),
            lapses: lapses::Lapses::default(),
            desk,
            findings: findings::Findings::default(),
            alarms: alarms::Alarms::default(),
            following: following::Following::default(),
            archiving,
            retaining: retention::Retaining::new(config.retention.clone()),
            erasing,
            registry_seen: AtomicI64::new(0),
            begun,
        });
        upkeep.remember_last_seal().await;
        upkeep.remember_last_witnessed();
        // Before the doors open: what was refused before a restart is refused after it.
        upkeep.judge_lapses().await;
        let follow = registry::Following::new(config);
        upkeep.check_pin(&follow).await;
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let ends = drain.clone();
            drain.spawn(async move {
                tokio::select! {
                    () = ends.begun() => {}
                    () = task => {}
                }
            });
        };
        spawn(Box::pin(Arc::clone(&upkeep).follow_registry(follow)));
        spawn(Box::pin(Arc::clone(&upkeep).keep_status_fresh()));
        spawn(Box::pin(Arc::clone(&upkeep).checkpoint_regularly()));
        spawn(Box::pin(Arc::clone(&upkeep).archive_regularly()));
        spawn(Box::pin(Arc::clone(&upkeep).watch()));
        spawn(Box::pin(Arc::clone(&upkeep).reconcile_regularly()));
        spawn(Box::pin(Arc::clone(&upkeep).forget_persons(config.log.persons_months)));
        // Without them nothing may be overwritten.
        match upkeep.read_holds() {
            Ok(()) => {
                spawn(Box::pin(Arc::clone(&upkeep).retain_regularly()));
                spawn(Box::pin(Arc::clone(&upkeep).erase_regularly()));
            }
            Err(error) => tracing::error!(%error, "holds cannot be read, so nothing is overwritten"),
        }
        spawn(Box::pin(Arc::clone(&upkeep).end_what_was_left_open(config.limits.exchange_seconds)));
        upkeep
    }

    /// Makes its figures known to `registry`.
    pub(crate) fn register(self: &Arc<Self>, registry: &mut prometheus_client::registry::Registry) {
        registry.register_collector(Box::new(figures::Figures(Arc::clone(self))));
    }

    /// When the registry last answered; none if it has not since start.
    pub(crate) fn registry_seen(&self) -> Option<Time> {
        match self.registry_seen.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Time::from_millis(millis)),
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// Where in the log this run of the server begins: what is open before it was cut off by a crash.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// What an operator should look at, in words: first what keeps the server from its work, then what may.
    pub(crate) fn concerns(&self) -> Vec<String> {
        let generations = self.erasing.generations().unreadable();
        [self.failures(), self.conditions.warnings(), generations].concat()
    }

    /// Whether the server can do its work.
    pub(crate) fn health(&self) -> Health {
        let concerns = self.concerns();
        if self.failures().is_empty() { Health::Serving(concerns) } else { Health::Failing(concerns) }
    }

    /// What keeps the server from its work.
    fn failures(&self) -> Vec<String> {
        let (exchanges, now) = (&self.exchanges, self.exchanges.clock.now());
        let configuration = &exchanges.trust.snapshot().configuration;
        let mut reasons = Vec::new();
        if let Some(error) = exchanges.recorder.log().poisoned() {
            reasons.push(error.to_string());
        }
        if now > configuration.valid_until() {
            let (number, until) = (configuration.number(), configuration.valid_until());
            reasons.push(format!(
                "global configuration {number} ended at {until}; the registry must be reached"
            ));
        }
        if let Err(error) = exchanges.own.signer.load().check_current(configuration, now) {
            reasons.push(format!("the signing certificate: {error}"));
        }
        if let Some(suspended) = exchanges.asking.suspended() {
            reasons.push(format!("exchanges are refused: {}", suspended.why));
        }
        reasons
    }
}

/// Pauses between attempts: each twice as long as the one before, up to a minute.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    const fn new() -> Self {
        Self(PAUSES.0)
    }

    /// The next pause.
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut backoff = Backoff::new();
        let seconds: Vec<_> = std::iter::repeat_with(|| backoff.next().as_secs()).take(8).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
