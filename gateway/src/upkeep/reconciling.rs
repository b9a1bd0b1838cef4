//! Every hour is compared with every security server with which there were exchanges in it, some time after its end; what
//! was found is logged, and told to people while nobody has explained it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{Period, Summary};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{DifferenceKind, Reconciliation};

use super::Upkeep;
use super::conditions::Kind;
use crate::reconciliation::{
    CompareError, Desk, Judged, Known, Line, Lost, RecordsError, RecoveryError, compare, exchanges, judge,
    record, too_old,
};
use crate::transport::TransportError;

/// After the end of an hour: what was slow to end is in both logs by then, and clocks may differ.
const AFTER: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether an hour is due, and one that was not settled is compared again.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Hours that ended longer ago are compared when somebody asks for it.
const BACK: Duration = Duration::from_secs(48 * 60 * 60);
/// Findings of so long ago are told of after a start.
const RECALLED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Beyond the longest exchange of this server's: the other may take longer.
const MARGIN: Duration = Duration::from_secs(60 * 60);

/// Why an hour was not compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error("{0} is not over, or not for long: messages may still come")]
    NotOver(Time),
    #[error("records of {0} expire on either side, so that they are not compared")]
    TooOld(Time),
    #[error("the global configuration lists no security server {0} beside this one")]
    NotListed(ServerId),
    #[error("the security server is not reached")]
    Transport(#[source] TransportError),
    #[error("its log was not compared")]
    Compare(#[source] CompareError),
    #[error("this server's own records are not known")]
    Own(#[source] RecordsError),
    #[error("a lost message does not come back")]
    Recovery(#[source] RecoveryError),
    #[error("what was found cannot be logged")]
    Log(#[source] LogError),
    #[error("reading the message log failed")]
    Interrupted,
}

/// What is known of comparisons.
#[derive(Debug)]
pub(super) struct Reconciling {
    desk: Arc<Desk>,
    /// One hour is compared at a time.
    turn: tokio::sync::Mutex<()>,
    /// What was found last of each hour: those of the last days, and those that somebody asked for.
    found: Mutex<BTreeMap<(ServerId, Period), Reconciliation>>,
    /// Why servers could not be compared with.
    failed: Mutex<BTreeMap<ServerId, String>>,
}

/// How far another server's log was compared, and what is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerStanding {
    pub(crate) peer: ServerId,
    /// End of the last hour that was compared.
    pub(crate) until: Time,
    pub(crate) missing_here: u64,
    pub(crate) missing_there: u64,
    pub(crate) differing: u64,
    /// Hours whose difference nothing explains.
    pub(crate) unexplained: u64,
    /// Records of its log that were seen under a checkpoint.
    pub(crate) seen: u64,
}

impl Reconciling {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, turn: tokio::sync::Mutex::default(), found: Mutex::default(), failed: Mutex::default() }
    }

    fn last(&self, peer: &ServerId, period: Period) -> Option<Reconciliation> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&(peer.clone(), period)).cloned()
    }

    fn remember(&self, peer: &ServerId, period: Period, found: Reconciliation) {
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((peer.clone(), period), found);
    }

    /// Servers with which this log was compared, or should have been.
    pub(super) fn peers(&self) -> BTreeSet<ServerId> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        found.keys().map(|(peer, _)| peer).chain(failed.keys()).cloned().collect()
    }

    fn standings(&self) -> Vec<PeerStanding> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standings = BTreeMap::<&ServerId, PeerStanding>::new();
        for ((peer, period), found) in found.iter() {
            let standing = standings.entry(peer).or_insert_with(|| PeerStanding {
                peer: peer.clone(),
                until: period.end(),
                missing_here: 0,
                missing_there: 0,
                differing: 0,
                unexplained: 0,
                seen: 0,
            });
            standing.until = standing.until.max(period.end());
            standing.missing_here += count(found, DifferenceKind::MissingHere);
            standing.missing_there += count(found, DifferenceKind::MissingThere);
            standing.differing += count(found, DifferenceKind::Differing);
            standing.unexplained += u64::from(found.unexplained);
        }
        standings.into_values().collect()
    }
}

/// Differences of one kind.
fn count(found: &Reconciliation, kind: DifferenceKind) -> u64 {
    found.counts.iter().filter(|one| one.kind() == kind).map(|one| one.count).sum()
}

/// Whether a later comparison may find something else.
fn is_open(found: &Reconciliation) -> bool {
    let open = [
        DifferenceKind::InFlight,
        DifferenceKind::MissingHere,
        DifferenceKind::MissingThere,
        DifferenceKind::Differing,
    ];
    found.unexplained || open.into_iter().any(|kind| count(found, kind) > 0)
}

impl Upkeep {
    /// What answers other servers' questions about this log.
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.reconciling.desk
    }

    /// How far each other server's log was compared.
    pub(crate) fn reconciled(&self) -> Vec<PeerStanding> {
        let mut standings = self.reconciling.standings();
        standings.iter_mut().for_each(|one| one.seen = self.following.size(&one.peer));
        standings
    }

    /// Compares by the civil clock, as long as the server runs.
    pub(super) async fn reconcile_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        self.recall_reconciliations().await;
        let mut settled = BTreeSet::new();
        loop {
            let now = clock.now();
            for period in due(now) {
                let said = self.desk().take_said(period);
                if (!settled.contains(&period) || !said.is_empty()) && self.reconcile_all(period, said).await
                {
                    settled.insert(period);
                }
            }
            settled.retain(|period| period.end() > now.minus(BACK));
            self.follow_all().await;
            self.tell_of_reconciliations().await;
            clock.sleep_until(now.plus(EVERY)).await;
        }
    }

    /// Compares one hour with all who share exchanges in it, and with those who said that it differs; whether nothing is
    /// open then.
    async fn reconcile_all(&self, period: Period, said: BTreeMap<ServerId, Summary>) -> bool {
        let hours = Arc::clone(self.desk().hours());
        let records = match blocking(move || hours.all(period).map_err(ReconcileError::Own)).await {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), from = %period.begin(), "an hour is not compared");
                return false;
            }
        };
        let mut settled = true;
        let peers: BTreeSet<_> = records.keys().chain(said.keys()).cloned().collect();
        for peer in peers {
            let last = self.reconciling.last(&peer, period);
            let known = said.get(&peer).is_none_or(|said| {
                last.as_ref().is_some_and(|last| last.there == Some(Summary::to_schema(*said)))
            });
            if last.as_ref().is_some_and(|last| known && !is_open(last)) {
                continue;
            }
            let compared = self.reconcile(&peer, period).await;
            let mut failed = self.reconciling.failed.lock().unwrap_or_else(PoisonError::into_inner);
            match compared {
                Ok(found) => {
                    failed.remove(&peer);
                    settled &= !is_open(&found);
                }
                // It is a security server no longer: nobody is left to compare with.
                Err(ReconcileError::NotListed(_)) => {
                    failed.remove(&peer);
                }
                Err(error) => {
                    failed.insert(peer, format!("the hour from {}: {}", period.begin(), with_causes(&error)));
                    settled = false;
                }
            }
        }
        settled
    }

    /// Compares one hour with one server, and logs what was found, unless the log says the same already.
    pub(crate) async fn reconcile(
        &self,
        peer: &ServerId,
        period: Period,
    ) -> Result<Reconciliation, ReconcileError> {
        let _turn = self.reconciling.turn.lock().await;
        let now = self.exchanges.clock.now();
        if period.end().plus(TOLERANCE) > now {
            return Err(ReconcileError::NotOver(period.end()));
        }
        if too_old(period, now) {
            return Err(ReconcileError::TooOld(period.begin()));
        }
        let (mut found, lost) = self.compared(peer, period, now).await?;
        self.log_found(peer, period, &found).await?;
        if !lost.is_empty() {
            let line = self.line(peer, period).await?;
            if self.recover(peer, line, lost).await? > 0 {
                (found, _) = self.compared(peer, period, now).await?;
                self.log_found(peer, period, &found).await?;
            }
        }
        Ok(found)
    }

    /// Logs what was found, unless the log says the same already.
    async fn log_found(
        &self,
        peer: &ServerId,
        period: Period,
        found: &Reconciliation,
    ) -> Result<(), ReconcileError> {
        if self.reconciling.last(peer, period).as_ref() != Some(found) {
            let logged =
                self.exchanges.recorder.event(Entry::Reconciliation(found.clone()), Vec::new()).await;
            logged.map_err(ReconcileError::Log)?;
        }
        self.reconciling.remember(peer, period, found.clone());
        Ok(())
    }

    async fn compared(
        &self,
        peer: &ServerId,
        period: Period,
        now: Time,
    ) -> Result<(Reconciliation, Vec<Lost>), ReconcileError> {
        let (hours, of) = (Arc::clone(self.desk().hours()), peer.clone());
        let own = blocking(move || hours.with(&of, period).map_err(ReconcileError::Own)).await?;
        let (mut line, _) = self.line(peer, period).await?;
        let compared = compare(&mut line, &own).await.map_err(ReconcileError::Compare)?;
        let ids: Vec<_> = exchanges(&compared.differences).into_iter().collect();
        let states = line.states(&ids).await.map_err(ReconcileError::Compare)?;
        let (hours, of, differences) =
            (Arc::clone(self.desk().hours()), peer.clone(), compared.differences.clone());
        let known = blocking(move || {
            let known = Known::read(&hours, &of, &differences).map_err(RecordsError::Log);
            known.map_err(ReconcileError::Own)
        });
        let longest = self.exchanges.times().longest + MARGIN;
        let judged = judge(&compared, &known.await?, &states, (now, longest));
        let found = record(peer, period, &compared, &judged, own.recovered());
        Ok((found, judged.iter().filter_map(Judged::lost).collect()))
    }

    /// A line to another server, and the key of the log that it has now.
    async fn line(&self, peer: &ServerId, period: Period) -> Result<(Line, NoteVerifier), ReconcileError> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let not_listed = || ReconcileError::NotListed(peer.clone());
        let listed = configuration.security_server(peer).filter(|_| *peer != self.exchanges.own.server);
        let listed = listed.ok_or_else(not_listed)?;
        let connection = self.exchanges.peers.connection(listed).await.map_err(ReconcileError::Transport)?;
        let log = listed.log(&connection.greeted.party.log_origin);
        let key = log.and_then(|log| NoteVerifier::new(&log.origin, log.public_key).ok());
        Ok((Line::new(connection.client(), period), key.ok_or_else(not_listed)?))
    }

    /// Reads what was found before this start.
    async fn recall_reconciliations(&self) {
        let (log, since) =
            (self.exchanges.recorder.log().clone(), self.exchanges.clock.now().minus(RECALLED));
        let found = tokio::task::spawn_blocking(move || recalled(&log, since)).await;
        match found.unwrap_or(Err(LogError::Closed)) {
            Ok(found) => {
                for (peer, period, found) in found {
                    self.reconciling.remember(&peer, period, found);
                }
            }
            // It is compared again then.
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "earlier comparisons of logs cannot be read");
            }
        }
    }

    /// Tells people what nobody has explained, and whom this log could not be compared with.
    pub(crate) async fn tell_of_reconciliations(&self) {
        let alarms: Vec<_> = self.reconciled().iter().filter_map(alarm).collect();
        let alarm = (!alarms.is_empty()).then(|| {
            let all = alarms.join("; ");
            format!("ALARM: logs do not agree: {all}; `reconcile list` shows which messages, docs/reconciliation.md what to do")
        });
        self.conditions.set(Kind::LogsDisagree, alarm).await;
        let failed = {
            let failed = self.reconciling.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.iter().map(|(peer, why)| format!("{peer}, {why}")).collect::<Vec<_>>()
        };
        let failed = (!failed.is_empty())
            .then(|| format!("the log is not compared with that of {}", failed.join("; ")));
        self.conditions.set(Kind::NotCompared, failed).await;
    }
}

/// The hours that are over for long enough and not for too long, the earliest first.
fn due(now: Time) -> impl Iterator<Item = Period> {
    let first = Period::of(now.minus(BACK));
    std::iter::successors(Some(first), |period| Some(period.next()))
        .take_while(move |period| period.end().plus(AFTER) <= now)
}

fn alarm(standing: &PeerStanding) -> Option<String> {
    let PeerStanding { peer, missing_here, missing_there, differing, unexplained, .. } = standing;
    let told: Vec<_> = [
        (*differing, "messages differ"),
        (*missing_here, "messages are missing here"),
        (*missing_there, "messages are missing there"),
        (*unexplained, "hours differ, and nothing explains it"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    (!told.is_empty()).then(|| format!("{peer}: {}", told.join(", ")))
}

/// The last finding of each hour that the log holds since `since`.
fn recalled(log: &Log, since: Time) -> Result<Vec<(ServerId, Period, Reconciliation)>, LogError> {
    let mut found = Vec::new();
    for record in log.scan_kind(kind::RECONCILIATION, 0) {
        let record = record?;
        let Some(Entry::Reconciliation(one)) = record.leaf.entry else { continue };
        if record.leaf.logged_ms >= since.as_millis()
            && let Ok(peer) = one.peer.parse()
        {
            found.push((peer, Period::of(Time::from_millis(one.from_ms)), one));
        }
    }
    Ok(found)
}

/// Runs what reads the disk where nobody waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReconcileError> + Send + 'static,
) -> Result<T, ReconcileError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ReconcileError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_due_ten_minutes_after_its_end() {
        let hour = Period::of(Time::from_millis(1_795_255_200_000));
        let minutes = |minutes: u64| hour.end().plus(Duration::from_secs(60 * minutes));
        assert!(!due(minutes(9)).any(|period| period == hour));
        assert_eq!(due(minutes(10)).last(), Some(hour));
        assert_eq!(due(minutes(10)).count(), 48);
    }
}
