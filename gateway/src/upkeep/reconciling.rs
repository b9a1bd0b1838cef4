//! Every hour is compared with every security server with which there were exchanges in it, some time after its end; what
//! was found is logged, and told to people while nobody has explained it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Time;
use trave_proto::conversation::TOLERANCE;
use trave_proto::fault::plain;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::{Period, Summary};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{
    CommitmentKind, HourNotCompared, PeerCondition, Reconciliation, SummaryCommitted,
};

use super::Upkeep;
use super::alarms::{acknowledgements, unreadable};
use super::conditions::Kind;
use super::findings::PeerStanding;
use crate::reconciliation::{
    CompareError, Desk, Judged, Known, Line, Lost, RecordsError, RecoveryError, Wrong, challenge, compare,
    exchanges, judge, record, too_old,
};
use crate::transport::TransportError;
use crate::turns::Turns;

/// After the end of an hour: what was slow to end is in both logs by then, and clocks may differ.
const AFTER: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether an hour is due, and one that was not settled is compared again.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Hours that ended longer ago are compared when somebody asks for it.
const BACK: Duration = Duration::from_secs(48 * 60 * 60);
/// Servers that are asked at a time.
const AT_ONCE: usize = 32;
/// For all hours that are compared with one server in one round; one that was begun is ended.
const A_ROUND: Duration = Duration::from_secs(5 * 60);
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

impl ReconcileError {
    /// Whether it is no use to ask the other server for anything else now: it refused this message alone where it says that
    /// it does not hold it, and what it gave did not verify by itself.
    pub(super) fn is_silence_of_all(&self) -> bool {
        match self {
            Self::Compare(CompareError::Call(status)) => status.code() != tonic::Code::NotFound,
            Self::Recovery(_) => false,
            _ => true,
        }
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
    /// answer holds up no other, nor the next round.
    pub(super) async fn reconcile_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        self.recall_reconciliations().await;
        let (mut settled, mut under_way) = (BTreeSet::new(), JoinSet::new());
        let (turns, at_once) = (Turns::default(), Arc::new(Semaphore::new(AT_ONCE)));
        loop {
            let now = clock.now();
            let hour = Period::of(now);
            self.forget_unlisted().await;
            for (peer, periods) in self.open_now(now, &mut settled).await {
                // Who still answers what it was asked before is asked again in a later round.
                let Some(turn) = turns.take(&peer) else { continue };
                let (upkeep, at_once) = (Arc::clone(&self), Arc::clone(&at_once));
                under_way.spawn(async move {
                    let _one = at_once.acquire().await;
                    upkeep.reconcile_hours(turn.server(), &periods).await;
                    upkeep.follow_hourly(turn.server(), hour).await;
                });
            }
            self.tell_of_reconciliations().await;
            let mut later = std::pin::pin!(clock.sleep_until(now.plus(EVERY)));
            loop {
                tokio::select! {
                    () = &mut later => break,
                    Some(_) = under_way.join_next() => self.tell_of_reconciliations().await,
                }
            }
        }
    }

    /// What is to be compared now: with whom, and which hours. Whoever was compared with before is in it, also without one.
    async fn open_now(&self, now: Time, settled: &mut BTreeSet<Period>) -> BTreeMap<ServerId, Vec<Period>> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        self.findings.forget(now, |peer| configuration.security_server(peer).is_some());
        let mut open: BTreeMap<_, _> =
            self.findings.peers().into_iter().map(|peer| (peer, Vec::new())).collect();
        for period in due(now) {
            let said = self.desk().said(period);
            if settled.contains(&period) && said.is_empty() {
                continue;
            }
            let with = self.open_with(period, said).await;
            if with.as_ref().is_some_and(BTreeSet::is_empty) {
                settled.insert(period);
            }
            for peer in with.unwrap_or_default() {
                open.entry(peer).or_default().push(period);
            }
        }
        settled.retain(|period| period.end() > now.minus(BACK));
        open
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
        let mut peers: BTreeSet<_> = records.ok()?.keys().chain(said.keys()).cloned().collect();
        peers.retain(|peer| listed(peer) && !self.findings.is_settled(peer, period, said.get(peer)));
        Some(peers)
    }

    /// Compares hours with one server, one after the other. One that is not reached is not waited for as many times, and one
    /// that is slow not for longer than a round may take.
    async fn reconcile_hours(&self, peer: &ServerId, periods: &[Period]) {
        let (mut given_up, begun) = (None, Instant::now());
        for period in periods {
            if given_up.is_none() && begun.elapsed() > A_ROUND {
                given_up = Some("it answers slowly, and other hours took all the time".to_owned());
            }
            let why = match &given_up {
                Some(why) => String::clone(why),
                None => match self.reconcile(peer, *period).await {
                    Ok(_) => continue,
                    Err(error) => {
                        let why = plain(&with_causes(&error));
                        if error.is_silence() {
                            given_up = Some(why.clone());
                        }
                        why
                    }
                },
            };
            self.not_compared(peer, *period, why).await;
        }
    }

    /// That an hour could not be compared is logged once, so that a restart does not forget it.
    async fn not_compared(&self, peer: &ServerId, period: Period, why: String) {
        if self.findings.failed(peer, period, why.clone()) {
            let (peer, from_ms) = (peer.to_string(), period.begin().as_millis());
            let entry = Entry::HourNotCompared(HourNotCompared { peer, from_ms, why });
            self.exchanges.recorder.own(entry).await;
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
        let mut at = None;
        if self.findings.is_to_log(peer, period, found) {
            let entry = Entry::Reconciliation(found.clone());
            let logged = self.exchanges.recorder.event(entry, Vec::new()).await;
            at = Some(logged.map_err(ReconcileError::Log)?.index());
        }
        self.findings.remember(peer, period, found, at);
        self.desk().looked(peer, period);
        Ok(())
    }

    /// What a server answered wrongly is durable before it is told anything: whatever it says or breaks off then, and whatever
    /// it answers another time, it has not known the list.
    async fn keep_wrong(&self, peer: &ServerId, period: Period, wrong: &Wrong) -> Result<(), ReconcileError> {
        if self.findings.is_wrong_to_log(peer, period) {
            let said = SummaryCommitted {
                peer: peer.to_string(),
                from_ms: period.begin().as_millis(),
                there: Some(wrong.there.to_schema()),
                here: Some(wrong.here.to_schema()),
                kind: CommitmentKind::Answer.into(),
            };
            let logged = self.exchanges.recorder.event(Entry::SummaryCommitted(said), Vec::new()).await;
            logged.map_err(ReconcileError::Log)?;
            self.findings.answered_wrongly(peer, period);
        }
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
        let compared = match challenge(&mut line, &own).await.map_err(ReconcileError::Compare)? {
            Ok(agreed) => agreed,
            Err(wrong) => {
                self.keep_wrong(peer, period, &wrong).await?;
                compare(&mut line, &own).await.map_err(ReconcileError::Compare)?
            }
        };
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
        let between = (self.exchanges.own.server.clone(), peer.clone());
        Ok((Line::new(connection.client(), period, between), key.ok_or_else(not_listed)?))
    }

    /// Reads what was found before this start.
    async fn recall_reconciliations(&self) {
        let log = self.exchanges.recorder.log().clone();
        let found = tokio::task::spawn_blocking(move || recalled(&log)).await;
        match found.unwrap_or(Err(LogError::Closed)) {
            Ok(found) => {
                for (at, said) in found {
                    match said {
                        Said::Found(peer, period, found) => {
                            self.findings.remember(&peer, period, &found, Some(at))
                        }
                        Said::NotCompared(peer, period, why) => {
                            let _known = self.findings.failed(&peer, period, why);
                        }
                        Said::AnsweredWrongly(peer, period) => self.findings.answered_wrongly(&peer, period),
                        Said::Acknowledged(said, at) => {
                            self.findings.acknowledge(&said);
                            self.alarms.take(&said, at);
                        }
                    }
                }
            }
            // It is compared again then.
            Err(error) => unreadable(&error),
        }
    }

    /// Tells people what nobody has explained, and whom this log could not be compared with.
    pub(crate) async fn tell_of_reconciliations(&self) {
        self.conditions.set_each(Kind::LogsDisagree, || self.findings.matters().told()).await;
        self.conditions.set_each(Kind::NotCompared, || self.findings.not_compared()).await;
    }
}

/// The hours that are over for long enough and not for too long, the earliest first.
fn due(now: Time) -> impl Iterator<Item = Period> {
    let first = Period::of(now.minus(BACK));
    std::iter::successors(Some(first), |period| Some(period.next()))
        .take_while(move |period| period.end().plus(AFTER) <= now)
}

/// What the log says of an hour.
enum Said {
    Found(ServerId, Period, Reconciliation),
    NotCompared(ServerId, Period, String),
    AnsweredWrongly(ServerId, Period),
    Acknowledged(PeerCondition, Time),
}

/// All that the log says of comparisons, in order.
fn recalled(log: &Log) -> Result<Vec<(u64, Said)>, LogError> {
    let mut found = Vec::new();
    let hour = |from_ms| Period::of(Time::from_millis(from_ms));
    for kind in [kind::RECONCILIATION, kind::HOUR_NOT_COMPARED, kind::SUMMARY_COMMITTED] {
        for record in log.scan_kind(kind, 0) {
            let record = record?;
            let said = match record.leaf.entry {
                Some(Entry::Reconciliation(one)) => {
                    one.peer.parse().ok().map(|peer| Said::Found(peer, hour(one.from_ms), one))
                }
                Some(Entry::HourNotCompared(one)) => {
                    one.peer.parse().ok().map(|peer| Said::NotCompared(peer, hour(one.from_ms), one.why))
                }
                Some(Entry::SummaryCommitted(one)) if one.kind() == CommitmentKind::Answer => {
                    one.peer.parse().ok().map(|peer| Said::AnsweredWrongly(peer, hour(one.from_ms)))
                }
                _ => None,
            };
            found.extend(said.map(|said| (record.index, said)));
        }
    }
    found.extend(acknowledgements(log)?.into_iter().map(|(at, by, said)| (at, Said::Acknowledged(said, by))));
    found.sort_by_key(|(at, _)| *at);
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
