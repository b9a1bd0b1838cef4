//! What the operator is told of comparisons with other servers' logs, and those that the operator asks for.

use tokio::sync::mpsc;
use tonic::Status;
use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::clock::Time;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::Period;
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::{
    AcknowledgeAlarmRequest, AcknowledgeAlarmResponse, AlarmEntry, ListAlarmsResponse,
    ListReconciliationsRequest, ListReconciliationsResponse, ReconcileRequest, ReconcileResponse,
    ReconciledPeer,
};
use trave_proto::search::given;

use super::persons::Person;
use super::{Desk, WAITING, log_failed, reading, words};
use crate::upkeep::{AcknowledgeError, Alarm, PeerStanding, ReconcileError};

/// Hours that are compared at one request: those of a month.
const HOURS: usize = 31 * 24;

type Answers<T> = mpsc::Receiver<Result<T, Status>>;

/// A standing, as the status tells it.
pub(super) fn told(standing: PeerStanding) -> ReconciledPeer {
    ReconciledPeer {
        server: standing.peer.to_string(),
        until_ms: standing.until.as_millis(),
        missing_here: standing.missing_here,
        missing_there: standing.missing_there,
        differing: standing.differing,
        unexplained: standing.unexplained,
        seen_size: standing.seen,
    }
}

impl Desk {
    /// Compares the hours asked for, one after the other, until one cannot be compared or nobody waits for it.
    pub(super) fn compare(&self, request: &ReconcileRequest) -> Result<Answers<ReconcileResponse>, Status> {
        let peer = server(&request.peer)?;
        let periods = periods(request.from_ms, request.to_ms).map_err(Status::invalid_argument)?;
        let (sender, found) = mpsc::channel(WAITING);
        let upkeep = self.upkeep.clone();
        self.tasks.spawn(async move {
            upkeep.follow(&peer).await;
            for period in periods {
                let one = upkeep.reconcile(&peer, period).await;
                let failed = one.is_err();
                let one = one.map(|found| ReconcileResponse { found: Some(found) });
                let told = sender.send(one.map_err(|error| not_compared(&error))).await;
                if failed || told.is_err() {
                    break;
                }
            }
            upkeep.tell_of_reconciliations().await;
        });
        Ok(found)
    }

    /// Alarms about other servers' logs.
    pub(super) fn alarms(&self) -> ListAlarmsResponse {
        let entry = |Alarm { id, kind, peer, what, acknowledged, .. }| {
            let by = acknowledged.unwrap_or_default();
            let (kind, acknowledged_ms) = (String::from(kind), by.at.as_millis());
            AlarmEntry { id, kind, peer, what, acknowledged_by: by.by, acknowledged_ms, reason: by.reason }
        };
        ListAlarmsResponse { alarms: self.upkeep.alarms().into_iter().map(entry).collect() }
    }

    /// Takes an alarm off the status.
    pub(super) async fn acknowledge_alarm(
        &self,
        request: AcknowledgeAlarmRequest,
        person: Person,
    ) -> Result<AcknowledgeAlarmResponse, Status> {
        let reason = words("the reason for acknowledging", &request.reason)?;
        let by = (person.name, person.user);
        let done = self.upkeep.acknowledge(&request.id, reason, by).await;
        done.map(|()| AcknowledgeAlarmResponse {}).map_err(|error| match error {
            AcknowledgeError::Unknown(_) => Status::not_found(error.to_string()),
            AcknowledgeError::Log(error) => log_failed(&error),
        })
    }

    /// What comparisons found, in the order in which it was logged. That somebody reads it is logged before anything is shown.
    pub(super) async fn compared(
        &self,
        request: ListReconciliationsRequest,
        reader: String,
    ) -> Result<Answers<ListReconciliationsResponse>, Status> {
        let reason = words("the reason for reading the log", &request.reason)?;
        let peer = given("peer", request.peer.as_deref());
        if let Some(peer) = peer.map_err(|empty| Status::invalid_argument(empty.to_string()))? {
            server(peer)?;
        }
        let (log, query) = (self.exchanges.recorder.log().clone(), query(&request));
        let found = reading({
            let log = log.clone();
            move || places(&log, &request)
        });
        let found = found.await?;
        self.log_read(LogRead { reader, reason, query, results: found.len() as u64 }).await?;
        let (sender, entries) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            for index in found {
                let entry = entry(&log, index).map_err(|error| log_failed(&error));
                // A reader who has gone needs no more.
                if sender.blocking_send(entry).is_err() {
                    return;
                }
            }
        });
        Ok(entries)
    }
}

fn server(text: &str) -> Result<ServerId, Status> {
    text.parse().map_err(|why| Status::invalid_argument(format!("the security server is not valid: {why}")))
}

/// The hours that begin in a time.
fn periods(from_ms: i64, to_ms: i64) -> Result<Vec<Period>, String> {
    let (from, to) = (Time::from_millis(from_ms), Time::from_millis(to_ms));
    let mut first = Period::of(from);
    if first.begin() < from {
        first = first.next();
    }
    let periods = std::iter::successors(Some(first), |period| Some(period.next()));
    let periods: Vec<_> = periods.take_while(|period| period.begin() < to).take(HOURS + 1).collect();
    match periods.len() {
        0 => Err("no hour begins in that time\nhint: whole hours of UTC are compared".into()),
        count if count > HOURS => Err(format!("at most {HOURS} hours are compared at once")),
        _ => Ok(periods),
    }
}

fn not_compared(error: &ReconcileError) -> Status {
    let why = with_causes(error);
    match error {
        ReconcileError::NotOver(_) => Status::failed_precondition(format!("{why}\nhint: ten minutes later")),
        ReconcileError::TooOld(_) | ReconcileError::NotListed(_) => Status::failed_precondition(why),
        _ => Status::unavailable(why),
    }
}

/// As the record of the reading keeps it.
fn query(request: &ListReconciliationsRequest) -> String {
    let mut query = String::from("reconcile list");
    if let Some(peer) = &request.peer {
        query.push_str(&format!(" peer={peer}"));
    }
    for (name, time) in [("from", request.from_ms), ("to", request.to_ms)] {
        if time != 0 {
            query.push_str(&format!(" {name}={}", Time::from_millis(time)));
        }
    }
    if request.different { query + " different" } else { query }
}

fn places(log: &Log, request: &ListReconciliationsRequest) -> Result<Vec<u64>, LogError> {
    let mut places = Vec::new();
    for record in log.scan_kind(kind::RECONCILIATION, 0) {
        let record = record?;
        let Some(LeafEntry::Reconciliation(found)) = &record.leaf.entry else { continue };
        let differs = !found.counts.is_empty() || found.unexplained;
        if request.peer.as_ref().is_none_or(|peer| *peer == found.peer)
            && found.from_ms >= request.from_ms
            && (request.to_ms == 0 || found.from_ms < request.to_ms)
            && (differs || !request.different)
        {
            places.push(record.index);
        }
    }
    Ok(places)
}

fn entry(log: &Log, index: u64) -> Result<ListReconciliationsResponse, LogError> {
    let leaf = log.leaf(index)?;
    let found = match leaf.entry {
        Some(LeafEntry::Reconciliation(found)) => Some(found),
        _ => None,
    };
    Ok(ListReconciliationsResponse { time_ms: leaf.logged_ms, index, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_those_that_begin_in_the_time() {
        const HOUR: i64 = 3_600_000;
        let count = |from, to| periods(from, to).map(|periods| periods.len());
        assert_eq!(count(0, 3 * HOUR), Ok(3));
        assert_eq!(count(1, 3 * HOUR), Ok(2));
        assert_eq!(count(0, 2 * HOUR + 1), Ok(3));
        assert!(count(1, HOUR).is_err() && count(5 * HOUR, HOUR).is_err());
        assert!(count(0, 800 * HOUR).is_err() && count(i64::MIN, i64::MAX).is_err());
    }
}
