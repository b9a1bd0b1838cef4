//! Servers keep each other's checkpoints: every hour each asks those whose logs it compares with for the last one, with the
//! proof that it continues the one seen before, and logs it. So a log that is put back or forked is found out by everybody it
//! ever spoke to, also where no witness stands; and its own server is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tonic::Code;
use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::checkpoint::{Checkpoint, Note, NoteVerifier};
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::Period;
use trave_proto::schema::log::PeerCheckpoint;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::transport::{FollowLogRequest, FollowLogResponse};
use trave_proto::tree::Head;

use super::Upkeep;
use super::conditions::Kind;
use crate::reconciliation::{AnswerError, Seen, Shown, shown};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen of logs that other servers showed.
#[derive(Debug, Default)]
pub(super) struct Following {
    state: Mutex<State>,
    /// What the log says of it is read once.
    recalled: OnceCell<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By origin.
    logs: BTreeMap<String, Followed>,
    /// The log that each server showed last.
    current: BTreeMap<String, String>,
    /// Servers that hold a checkpoint of this very log which it does not continue; and how.
    otherwise: BTreeMap<String, String>,
    /// The hour in which each was asked last.
    asked: BTreeMap<ServerId, Period>,
}

/// What was seen of one log.
#[derive(Debug, Clone, Default)]
struct Followed {
    peer: String,
    /// The last checkpoint that continued all before.
    seen: Option<Seen>,
    /// How one that was shown later contradicts it. What both say is signed: that it goes on as if nothing had been does not
    /// take it back.
    contradiction: Option<String>,
}

impl Following {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of the log of `peer` that were seen under a checkpoint.
    pub(super) fn size(&self, peer: &ServerId) -> u64 {
        let state = self.state();
        let followed = state.current.get(peer.as_str()).and_then(|origin| state.logs.get(origin));
        followed.and_then(|followed| followed.seen.as_ref()).map_or(0, |seen| seen.head.size)
    }
}

impl State {
    /// Takes what the log says, or what it has just been given.
    fn take(&mut self, shown: &PeerCheckpoint, head: Head, own: &str) {
        if shown.origin == own {
            self.otherwise.insert(shown.peer.clone(), shown.contradiction.clone());
            return;
        }
        self.current.insert(shown.peer.clone(), shown.origin.clone());
        let followed = self.logs.entry(shown.origin.clone()).or_default();
        followed.peer.clone_from(&shown.peer);
        if !shown.contradiction.is_empty() {
            followed.contradiction = Some(shown.contradiction.clone());
        } else if followed.seen.as_ref().is_none_or(|seen| seen.head.size <= head.size) {
            followed.seen = Some(Seen { note: shown.note.clone(), head });
        }
    }

    /// What the log is to say of it: what is new, and each contradiction once.
    fn is_new(&self, origin: &str, shown: &Shown) -> bool {
        let Some(followed) = self.logs.get(origin) else { return true };
        match shown.contradiction {
            Some(_) => followed.contradiction.is_none(),
            None => followed.seen.as_ref().is_none_or(|seen| seen.head != shown.seen.head),
        }
    }

    fn contradicted(&self) -> Option<String> {
        let told = self.logs.iter().filter_map(|(origin, followed)| {
            Some(format!("{origin} of {}: {}", followed.peer, followed.contradiction.as_ref()?))
        });
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then(|| {
            let told = told.join("; ");
            format!("ALARM: a message log contradicts a checkpoint that its server gave away; this log holds both, tell both states: {told}")
        })
    }

    fn held_otherwise(&self) -> Option<String> {
        let told: Vec<_> = self.otherwise.iter().map(|(peer, why)| format!("{peer}: {why}")).collect();
        (!told.is_empty()).then(|| {
            let told = told.join("; ");
            format!("ALARM: another security server holds a checkpoint of this message log that it does not continue; keep its disk as it is, and tell both states: {told}")
        })
    }
}

impl Upkeep {
    /// What another server is shown of this log. Where it holds a checkpoint that this log does not continue, that is an alarm
    /// here too: the key of this log has signed it.
    pub(crate) async fn shown(
        &self,
        peer: &ServerId,
        request: FollowLogRequest,
    ) -> Result<FollowLogResponse, AnswerError> {
        let mut told = self.desk().show(peer, request).await?;
        if let Some((theirs, why)) = told.otherwise {
            self.held_otherwise(peer, theirs, why, &told.answer.note).await;
        }
        let witnessed = self.witnessed().filter(|witnessed| witnessed.checkpoint.note == told.answer.note);
        told.answer.cosignatures = witnessed.map(|it| Bytes::from(it.lines.clone())).unwrap_or_default();
        Ok(told.answer)
    }

    async fn held_otherwise(&self, peer: &ServerId, theirs: Seen, why: String, own: &Bytes) {
        if self.recall_followed().await.is_err()
            || self.following.state().otherwise.contains_key(peer.as_str())
        {
            return;
        }
        let held = PeerCheckpoint {
            peer: peer.to_string(),
            origin: self.exchanges.own.log_origin.clone(),
            size: theirs.head.size,
            note: theirs.note,
            cosignatures: Bytes::new(),
            contradiction: why,
            before: own.clone(),
        };
        self.keep_followed(held, theirs.head).await;
    }

    /// Asks a server whose log was compared with this one, or should be, once an hour.
    pub(super) async fn follow_hourly(&self, peer: &ServerId, hour: Period) {
        if self.following.state().asked.insert(peer.clone(), hour) != Some(hour) {
            self.follow(peer).await;
        }
    }

    /// Asks another server for the last checkpoint of its log, and logs it. Without an answer nothing is said of its log.
    pub(crate) async fn follow(&self, peer: &ServerId) {
        let turn = self.findings.turn(peer);
        let _turn = turn.lock().await;
        if self.recall_followed().await.is_err() {
            return;
        }
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let Some(entry) = configuration.security_server(peer) else { return };
        let Ok(connection) = self.exchanges.peers.connection(entry).await else { return };
        let origin = connection.greeted.party.log_origin.clone();
        let key = entry.log(&origin).and_then(|log| NoteVerifier::new(&log.origin, log.public_key).ok());
        let Some(key) = key else { return };
        let before = self.following.state().logs.get(&origin).and_then(|followed| followed.seen.clone());
        let seen = before.as_ref().map(|seen| seen.note.clone()).unwrap_or_default();
        let mut client = connection.client();
        let asked = client.follow_log(FollowLogRequest { seen });
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer.into_inner(),
            // Its release does not know the question.
            Ok(Err(status)) if status.code() == Code::Unimplemented => return,
            Ok(Err(error)) => return tracing::warn!(%peer, %error, "a server does not show its checkpoint"),
            Err(_) => return tracing::warn!(%peer, "a server does not show its checkpoint in time"),
        };
        let witnesses: Vec<_> =
            configuration.witnesses().iter().map(|witness| witness.verifier.clone()).collect();
        match shown(&answer, (&key, &witnesses), before.as_ref(), self.exchanges.clock.now()) {
            Ok(Some(shown)) => self.take_shown(peer, origin, before, shown).await,
            Ok(None) => {}
            Err(why) => tracing::warn!(%peer, why, "what a server shows is no checkpoint of its log"),
        }
    }

    async fn take_shown(&self, peer: &ServerId, origin: String, before: Option<Seen>, shown: Shown) {
        if !self.following.state().is_new(&origin, &shown) {
            return;
        }
        let contradicted = before.filter(|_| shown.contradiction.is_some());
        let entry = PeerCheckpoint {
            peer: peer.to_string(),
            origin,
            size: shown.seen.head.size,
            note: shown.seen.note,
            cosignatures: shown.cosignatures,
            contradiction: shown.contradiction.unwrap_or_default(),
            before: contradicted.map(|before| before.note).unwrap_or_default(),
        };
        self.keep_followed(entry, shown.seen.head).await;
    }

    async fn keep_followed(&self, shown: PeerCheckpoint, head: Head) {
        match self.exchanges.recorder.event(Entry::PeerCheckpoint(shown.clone()), Vec::new()).await {
            Ok(_) => self.following.state().take(&shown, head, &self.exchanges.own.log_origin),
            // It is asked for again: what is not logged was not seen.
            Err(error) => tracing::error!(error = with_causes(&error), "a record could not be logged"),
        }
        self.tell_of_followed().await;
    }

    /// Reads what was seen before this start, once.
    pub(super) async fn recall_followed(&self) -> Result<(), LogError> {
        let recalled = self.following.recalled.get_or_try_init(async || {
            let log = self.exchanges.recorder.log().clone();
            let found = tokio::task::spawn_blocking(move || recalled(&log)).await;
            let found = found.unwrap_or(Err(LogError::Closed))?;
            let own = &self.exchanges.own.log_origin;
            let mut state = self.following.state();
            found.iter().for_each(|(shown, head)| state.take(shown, *head, own));
            Ok(())
        });
        let recalled = recalled.await.copied().inspect_err(|error: &LogError| {
            tracing::error!(error = with_causes(error), "other servers' checkpoints cannot be read");
        });
        self.tell_of_followed().await;
        recalled
    }

    async fn tell_of_followed(&self) {
        let (contradicted, otherwise) = {
            let state = self.following.state();
            (state.contradicted(), state.held_otherwise())
        };
        self.conditions.set(Kind::PeerContradicted, contradicted).await;
        self.conditions.set(Kind::HeldOtherwise, otherwise).await;
    }
}

/// All that the log says, in order. It was verified before it was logged.
fn recalled(log: &Log) -> Result<Vec<(PeerCheckpoint, Head)>, LogError> {
    let mut found = Vec::new();
    for record in log.scan_kind(kind::PEER_CHECKPOINT, 0) {
        let Some(Entry::PeerCheckpoint(shown)) = record?.leaf.entry else { continue };
        let text = Note::parse(&shown.note).and_then(|note| Checkpoint::from_text(note.text()));
        if let Ok(Checkpoint { size, root, .. }) = text {
            found.push((shown, Head { size, root }));
        }
    }
    Ok(found)
}
