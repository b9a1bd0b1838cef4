//! Every hour is compared with every security server with which there were exchanges in it, some time after its end; what
//! was found is logged, and told to people while nobody has explained it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{Period, Summary};
use trave_proto::schema::log::Reconciliation;
use trave_proto::schema::log::leaf::Entry;

use super::Upkeep;
use super::conditions::Kind;
use super::findings::{PeerStanding, is_open};
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
/// Servers that are asked at a time.
const AT_ONCE: usize = 8;
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

impl ReconcileError {
    /// Whether the other server is not reached, or does not answer at all.
    const fn is_silence(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Compare(CompareError::Call(_) | CompareError::TooLate))
    }
}

impl Upkeep {
    /// What answers other servers' questions about this log.
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// How far each other server's log was compared.
    pub(crate) fn reconciled(&self) -> Vec<PeerStanding> {
        let mut standings = self.findings.standings();
        standings.iter_mut().for_each(|one| one.seen = self.following.size(&one.peer));
        standings
    }

    /// Compares by the civil clock, as long as the server runs: with each server by itself, so that one that is slow to
    /// answer holds up no other.
    pub(super) async fn reconcile_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        self.recall_reconciliations().await;
        let mut settled = BTreeSet::new();
        loop {
            let now = clock.now();
            let hour = Period::of(now);
            let mut open: BTreeMap<_, _> =
                self.findings.peers().into_iter().map(|peer| (peer, Vec::new())).collect();
            for period in due(now) {
                let said = self.desk().take_said(period);
                if !settled.contains(&period) || !said.is_empty() {
                    let with = self.open_with(period, said).await;
                    if with.as_ref().is_some_and(BTreeSet::is_empty) {
                        settled.insert(period);
                    }
                    for peer in with.unwrap_or_default() {
                        open.entry(peer).or_insert_with(Vec::new).push(period);
                    }
                }
            }
            settled.retain(|period| period.end() > now.minus(BACK));
            let mut under_way = JoinSet::new();
            let at_once = Arc::new(Semaphore::new(AT_ONCE));
            for (peer, periods) in open {
                let (upkeep, at_once) = (Arc::clone(&self), Arc::clone(&at_once));
                under_way.spawn(async move {
                    let _one = at_once.acquire().await;
                    upkeep.reconcile_hours(&peer, &periods).await;
                    upkeep.follow_hourly(&peer, hour).await;
                });
            }
            while under_way.join_next().await.is_some() {
                self.tell_of_reconciliations().await;
            }
            self.tell_of_reconciliations().await;
            clock.sleep_until(now.plus(EVERY)).await;
        }
    }

    /// With whom an hour is to be compared: with all who share exchanges in it, and with those who said that it differs, as
    /// far as something is open. None if this log cannot say.
    async fn open_with(
        &self,
        period: Period,
        said: BTreeMap<ServerId, Summary>,
    ) -> Option<BTreeSet<ServerId>> {
        let hours = Arc::clone(self.desk().hours());
        let records = blocking(move || hours.all(period).map_err(ReconcileError::Own)).await;
        let records = records.inspect_err(|error| {
            tracing::warn!(error = with_causes(error), from = %period.begin(), "an hour is not compared");
        });
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let listed = |peer: &ServerId| configuration.security_server(peer).is_some();
        self.findings.forget_failed(listed);
        let mut peers: BTreeSet<_> = records.ok()?.keys().chain(said.keys()).cloned().collect();
        peers.retain(|peer| {
            let last = self.findings.last(peer, period);
            let known = said.get(peer).is_none_or(|said| {
                last.as_ref().is_some_and(|last| last.there == Some(Summary::to_schema(*said)))
            });
            listed(peer) && !last.is_some_and(|last| known && !is_open(&last))
        });
        Some(peers)
    }

    /// Compares hours with one server, one after the other. One that is not reached is not waited for as many times.
    async fn reconcile_hours(&self, peer: &ServerId, periods: &[Period]) {
        let mut silent = None;
        for period in periods {
            let why = match &silent {
                Some(why) => String::clone(why),
                None => match self.reconcile(peer, *period).await {
                    Ok(_) => continue,
                    Err(error) => {
                        let why = with_causes(&error);
                        if error.is_silence() {
                            silent = Some(why.clone());
                        }
                        why
                    }
                },
            };
            self.findings.failed(peer, *period, why);
        }
    }

    /// Compares one hour with one server, and logs what was found, unless the log says the same already.
    pub(crate) async fn reconcile(
        &self,
        peer: &ServerId,
        period: Period,
    ) -> Result<Reconciliation, ReconcileError> {
        let turn = self.findings.turn(peer);
        let _turn = turn.lock().await;
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
        let logged = self.findings.is_to_log(peer, period, found);
        if logged {
            let entry = Entry::Reconciliation(found.clone());
            self.exchanges.recorder.event(entry, Vec::new()).await.map_err(ReconcileError::Log)?;
        }
        self.findings.remember(peer, period, found.clone(), logged);
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
                    self.findings.remember(&peer, period, found, true);
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
        let failed = self.findings.not_compared();
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
