//! Alarms about other servers' logs: each server's by itself, until it is explained, or until somebody who has looked into it
//! says so, with a reason that the log keeps.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{PeerCondition, PeerConditionStage};

use super::Upkeep;
use super::conditions::Kind;

/// What is wrong with another server's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Matter {
    /// In words.
    pub(super) what: String,
    /// What it stands for, byte for byte: what is found later is another matter.
    pub(super) found: Vec<u8>,
    /// The last place in this log that says something of it.
    pub(super) up_to: u64,
}

/// What is wrong, by the other server: what is open, and what somebody has looked into.
#[derive(Debug, Default)]
pub(super) struct Matters {
    pub(super) open: BTreeMap<String, Matter>,
    pub(super) acknowledged: BTreeMap<String, Matter>,
}

impl Matters {
    /// What is open, in words.
    pub(super) fn told(self) -> BTreeMap<String, String> {
        self.open.into_iter().map(|(peer, matter)| (peer, format!("ALARM: {}", matter.what))).collect()
    }
}

/// An alarm, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) peer: String,
    pub(crate) what: String,
    /// Who has looked into it; none while nobody has.
    pub(crate) acknowledged: Option<Acknowledged>,
    up_to: u64,
}

/// Who has looked into an alarm, when and with what reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) by: String,
    pub(crate) at: Time,
    pub(crate) reason: String,
}

/// Why an alarm is not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcknowledgeError {
    #[error(
        "no alarm {0} is open: it has ended, or something else was found since\nhint: `alarms list` shows those that are"
    )]
    Unknown(String),
    #[error("the message log failed")]
    Log(#[source] LogError),
}

/// Who has looked into what.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    acknowledged: Mutex<BTreeMap<(String, String), Acknowledged>>,
    /// One is acknowledged at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Alarms {
    /// Takes what the log says.
    pub(super) fn take(&self, condition: &PeerCondition, at: Time) {
        let PeerCondition { kind, peer, reason, operator, .. } = condition;
        let said = Acknowledged { by: operator.clone(), at, reason: reason.clone() };
        self.locked().insert((kind.clone(), peer.clone()), said);
    }

    fn of(&self, kind: Kind, peer: &str) -> Acknowledged {
        self.locked().get(&(kind.as_str().to_owned(), peer.to_owned())).cloned().unwrap_or_default()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(String, String), Acknowledged>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The acknowledgements that the log holds, with their places, in order.
pub(super) fn acknowledgements(log: &Log) -> Result<Vec<(u64, Time, PeerCondition)>, LogError> {
    let mut found = Vec::new();
    for record in log.scan_kind(kind::PEER_CONDITION, 0) {
        let record = record?;
        if let Some(Entry::PeerCondition(condition)) = record.leaf.entry
            && condition.stage() == PeerConditionStage::Acknowledged
        {
            found.push((record.index, Time::from_millis(record.leaf.logged_ms), condition));
        }
    }
    Ok(found)
}

impl Upkeep {
    /// All alarms about other servers' logs, open or acknowledged.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let kinds = [
            (Kind::LogsDisagree, self.findings.matters()),
            (Kind::PeerContradicted, self.following.contradicted()),
            (Kind::HeldOtherwise, self.following.held_otherwise()),
        ];
        let mut alarms = Vec::new();
        for (kind, Matters { open, acknowledged }) in kinds {
            alarms.extend(open.into_iter().map(|(peer, matter)| alarm(kind, peer, matter, None)));
            alarms.extend(acknowledged.into_iter().map(|(peer, matter)| {
                let by = self.alarms.of(kind, &peer);
                alarm(kind, peer, matter, Some(by))
            }));
        }
        alarms
    }

    /// Takes an open alarm off the status: somebody has looked into it. What is found later raises it again.
    pub(crate) async fn acknowledge(
        &self,
        id: &str,
        reason: String,
        (operator, user): (String, u32),
    ) -> Result<(), AcknowledgeError> {
        let _turn = self.alarms.turn.lock().await;
        let alarm = self.alarms().into_iter().find(|alarm| alarm.id == id && alarm.acknowledged.is_none());
        let alarm = alarm.ok_or_else(|| AcknowledgeError::Unknown(id.to_owned()))?;
        let condition = PeerCondition {
            peer: alarm.peer,
            kind: alarm.kind.into(),
            stage: PeerConditionStage::Acknowledged.into(),
            what: alarm.what,
            up_to: alarm.up_to,
            reason,
            operator,
            operator_user: Some(user),
        };
        let entry = Entry::PeerCondition(condition.clone());
        let logged = self.exchanges.recorder.event(entry, Vec::new()).await;
        let at = Time::from_millis(logged.map_err(AcknowledgeError::Log)?.get().logged_ms);
        self.alarms.take(&condition, at);
        self.findings.acknowledge(&condition);
        self.following.acknowledge(&condition);
        self.tell_of_reconciliations().await;
        self.tell_of_followed().await;
        Ok(())
    }
}

fn alarm(kind: Kind, peer: String, matter: Matter, acknowledged: Option<Acknowledged>) -> Alarm {
    let Matter { what, found, up_to } = matter;
    let named = Digest::of(&[kind.as_str().as_bytes(), b" ", peer.as_bytes(), b" ", &found].concat());
    // The other server writes part of what is digested: as many digits as nobody finds two alarms with one id for.
    let id = format!("a-{}", &named.to_string()[..32]);
    Alarm { id, kind: kind.as_str(), peer, what, acknowledged, up_to }
}

/// A failure to read what the log says of alarms, for whoever watches the server.
pub(super) fn unreadable(error: &LogError) {
    tracing::error!(error = with_causes(error), "what the log says of other servers' logs cannot be read");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_one_alarm_and_too_long_to_be_hit() {
        let id = |found: &[u8]| {
            let matter = Matter { found: found.to_vec(), ..Matter::default() };
            alarm(Kind::LogsDisagree, "NORD/MV/register/s1".into(), matter, None).id
        };
        assert_eq!((id(b"one").len(), id(b"one")), (2 + 32, id(b"one")));
        assert_ne!(id(b"one"), id(b"two"));
    }
}
