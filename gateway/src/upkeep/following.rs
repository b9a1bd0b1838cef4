//! Servers keep each other's checkpoints: every hour each asks those whose logs it compares with for the last one, with the
//! proof that it continues the one seen before, and logs it. So a log that is put back or forked is found out by everybody it
//! ever spoke to, also where no witness stands; and its own server is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tonic::Code;
use trave_host::config::with_causes;
use trave_message_log::{Log, LogError, kind};
use trave_proto::checkpoint::{Checkpoint, Note, NoteVerifier};
use trave_proto::clock::Time;
use trave_proto::fault::plain;
use trave_proto::identifier::ServerId;
use trave_proto::reconciliation::Period;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{PeerCheckpoint, PeerCondition};
use trave_proto::schema::transport::{FollowLogRequest, FollowLogResponse};
use trave_proto::tree::Head;

use super::Upkeep;
use super::alarms::{Matters, acknowledgements, unreadable};
use super::conditions::Kind;
use crate::reconciliation::{AnswerError, Seen, Shown, shown};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long a server may show nothing before people are told: it is asked every hour.
const SILENT: Duration = Duration::from_secs(6 * 60 * 60);

/// What was seen of logs that other servers showed.
#[derive(Debug, Default)]
pub(super) struct Following {
    state: Mutex<State>,
    /// What the log says of it is read once.
    recalled: OnceCell<()>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// By origin.
    logs: BTreeMap<String, Followed>,
    /// The log that each server showed last.
    current: BTreeMap<String, String>,
    /// Servers that hold a checkpoint of this very log which it does not continue.
    otherwise: BTreeMap<String, Contradiction>,
    /// The hour in which each was asked last.
    asked: BTreeMap<ServerId, Period>,
    /// Since when servers show nothing, and why.
    silent: BTreeMap<ServerId, (Time, String)>,
}

/// What was seen of one log.
#[derive(Debug, Clone, Default)]
struct Followed {
    peer: String,
    /// The last checkpoint that continued all before, or that somebody has looked into.
    seen: Option<Seen>,
    /// The place of that in this log.
    seen_at: u64,
    /// How one that was shown later contradicts it. What both say is signed: that it goes on as if nothing had been does not
    /// take it back.
    contradiction: Option<Contradiction>,
}

/// A checkpoint that contradicts another.
#[derive(Debug, Clone)]
struct Contradiction {
    why: String,
    /// None where none was shown any more.
    seen: Option<Seen>,
    /// Its place in this log.
    at: u64,
    /// Whether somebody has looked into it.
    acknowledged: bool,
}

impl Following {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of the log of `peer` that were seen under a checkpoint.
    pub(super) fn size(&self, peer: &ServerId) -> u64 {
        let state = self.state();
        let followed = state.current.get(peer.as_str()).and_then(|origin| state.logs.get(origin));
        followed.and_then(|followed| followed.seen.as_ref()).map_or(0, |seen| seen.head.size)
    }

    /// Takes that somebody has looked into what the log says so far.
    pub(super) fn acknowledge(&self, said: &PeerCondition) {
        self.state().acknowledge(said);
    }

    /// Servers whose log contradicts a checkpoint that it gave away.
    pub(super) fn contradicted(&self) -> Matters {
        let state = self.state();
        let all = state.logs.iter().filter_map(|(origin, followed)| {
            Some((followed.peer.as_str(), origin.as_str(), followed.contradiction.as_ref()?))
        });
        matters(all, |origin, why| {
            format!(
                "a message log contradicts a checkpoint that its server gave away; this log holds both, tell both states: {origin}: {why}"
            )
        })
    }

    /// Servers that hold a checkpoint of this log which it does not continue.
    pub(super) fn held_otherwise(&self) -> Matters {
        let state = self.state();
        let all = state.otherwise.iter().map(|(peer, held)| (peer.as_str(), "", held));
        matters(all, |_, why| {
            format!(
                "another security server holds a checkpoint of this message log that it does not continue; keep its disk as it is, and tell both states: {why}"
            )
        })
    }

    /// Forgets since when servers are silent that are listed no more.
    fn forget(&self, listed: impl Fn(&ServerId) -> bool) {
        self.state().silent.retain(|peer, _| listed(peer));
    }

    /// Servers that have shown nothing for long, in words.
    fn silent(&self, now: Time) -> BTreeMap<String, String> {
        let state = self.state();
        let silent = state.silent.iter().filter(|(_, (since, _))| now.since(*since) >= SILENT);
        let told = silent.map(|(peer, (since, why))| {
            (peer.to_string(), format!("{peer} has not shown a checkpoint of its log since {since}: {why}"))
        });
        told.collect()
    }
}

/// By the other server, in words that name it.
fn matters<'a>(
    all: impl Iterator<Item = (&'a str, &'a str, &'a Contradiction)>,
    words: impl Fn(&str, &str) -> String,
) -> Matters {
    let mut matters = Matters::default();
    for (peer, origin, contradiction) in all {
        let of = if contradiction.acknowledged { &mut matters.acknowledged } else { &mut matters.open };
        let matter = of.entry(peer.to_owned()).or_default();
        let what = format!("{peer}: {}", words(origin, &contradiction.why));
        matter.what = if matter.what.is_empty() { what } else { format!("{}; {what}", matter.what) };
        matter.up_to = matter.up_to.max(contradiction.at);
        matter.found.extend(contradiction.at.to_be_bytes());
    }
    matters
}

impl State {
    /// Takes what the log says, or what it has just been given at this place.
    fn take(&mut self, shown: &PeerCheckpoint, seen: Option<Seen>, (own, at): (&str, u64)) {
        let why = shown.contradiction.clone();
        let contradiction = |seen| Contradiction { why, seen, at, acknowledged: false };
        if shown.origin == own {
            self.otherwise.insert(shown.peer.clone(), contradiction(seen));
            return;
        }
        self.current.insert(shown.peer.clone(), shown.origin.clone());
        let followed = self.logs.entry(shown.origin.clone()).or_default();
        followed.peer.clone_from(&shown.peer);
        if !shown.contradiction.is_empty() {
            followed.contradiction = Some(contradiction(seen));
        } else if let Some(seen) = seen
            && followed.seen.as_ref().is_none_or(|before| before.head.size <= seen.head.size)
        {
            (followed.seen, followed.seen_at) = (Some(seen), at);
        }
    }

    /// Somebody has looked into it: from now on the one that contradicted is to be continued, unless none was shown, or the
    /// log went on since as if nothing had been.
    fn acknowledge(&mut self, said: &PeerCondition) {
        if said.kind == Kind::HeldOtherwise.as_str()
            && let Some(held) = self.otherwise.get_mut(&said.peer)
        {
            held.acknowledged |= held.at <= said.up_to;
        }
        if said.kind == Kind::PeerContradicted.as_str() {
            for followed in self.logs.values_mut().filter(|followed| followed.peer == said.peer) {
                if let Some(found) = followed.contradiction.as_mut()
                    && !found.acknowledged
                    && found.at <= said.up_to
                {
                    found.acknowledged = true;
                    // What continued the one before after this was found is held to all the same.
                    if found.seen.is_some() && followed.seen_at < found.at {
                        followed.seen.clone_from(&found.seen);
                        followed.seen_at = found.at;
                    }
                }
            }
        }
    }

    /// What the log is to say of it: what is new, and each contradiction once, until somebody has looked into it.
    fn is_new(&self, origin: &str, shown: &Shown) -> bool {
        let Some(followed) = self.logs.get(origin) else { return true };
        match shown.contradiction {
            // That none was shown is signed by nobody, and takes the place of no proof. Whoever has looked into that is told
            // again once there was one in between.
            Some(_) => followed.contradiction.as_ref().is_none_or(|known| {
                match (known.seen.is_none(), shown.seen.is_none()) {
                    (true, true) => known.acknowledged && followed.seen_at > known.at,
                    (none_before, _) => known.acknowledged || none_before,
                }
            }),
            None => followed.seen != shown.seen,
        }
    }

    /// Whether a checkpoint of this log that another server holds is to be logged: the first, and another than the one that
    /// somebody has looked into.
    fn is_held_anew(&self, peer: &ServerId, theirs: &Seen) -> bool {
        let known = self.otherwise.get(peer.as_str());
        known.is_none_or(|known| known.acknowledged && known.seen.as_ref() != Some(theirs))
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
        if self.recall_followed().await.is_err() || !self.following.state().is_held_anew(peer, &theirs) {
            return;
        }
        let held = PeerCheckpoint {
            peer: peer.to_string(),
            origin: self.exchanges.own.log_origin.clone(),
            size: theirs.head.size,
            note: theirs.note.clone(),
            cosignatures: Bytes::new(),
            contradiction: why,
            before: own.clone(),
        };
        self.keep_followed(held, Some(theirs)).await;
    }

    /// Asks a server whose log was compared with this one, or should be, once an hour.
    pub(super) async fn follow_hourly(&self, peer: &ServerId, hour: Period) {
        if self.following.state().asked.insert(peer.clone(), hour) != Some(hour) {
            self.follow(peer).await;
        }
    }

    /// Forgets who is silent and is listed no more: nobody asks it again.
    pub(super) async fn forget_unlisted(&self) {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let (following, now) = (&self.following, self.exchanges.clock.now());
        following.forget(|peer| configuration.security_server(peer).is_some());
        self.conditions.set_each(Kind::NotFollowed, || following.silent(now)).await;
    }

    /// Asks another server for the last checkpoint of its log, and logs it. Without an answer nothing is said of its log; if
    /// that goes on, people are told.
    pub(crate) async fn follow(&self, peer: &ServerId) {
        let turn = self.findings.turn(peer);
        let _turn = turn.lock().await;
        if self.recall_followed().await.is_err() {
            return;
        }
        let followed = self.followed(peer).await;
        {
            let (mut state, now) = (self.following.state(), self.exchanges.clock.now());
            match &followed {
                Ok(()) => drop(state.silent.remove(peer)),
                Err(why) => {
                    let (_, last) = state.silent.entry(peer.clone()).or_insert_with(|| (now, String::new()));
                    last.clone_from(why);
                }
            }
        }
        if let Err(why) = followed {
            tracing::info!(%peer, why, "a server does not show its checkpoint");
        }
        let now = self.exchanges.clock.now();
        self.conditions.set_each(Kind::NotFollowed, || self.following.silent(now)).await;
    }

    /// Why another server has not shown its last checkpoint, in words; nothing if it has, or is none any longer.
    async fn followed(&self, peer: &ServerId) -> Result<(), String> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let Some(entry) = configuration.security_server(peer) else { return Ok(()) };
        let connection = self.exchanges.peers.connection(entry).await;
        let connection = connection.map_err(|error| plain(&with_causes(&error)))?;
        let origin = connection.greeted.party.log_origin.clone();
        let key = entry.log(&origin).and_then(|log| NoteVerifier::new(&log.origin, log.public_key).ok());
        let key = key.ok_or("the configuration does not list its log")?;
        let before = self.following.state().logs.get(&origin).and_then(|followed| followed.seen.clone());
        let seen = before.as_ref().map(|seen| seen.note.clone()).unwrap_or_default();
        let mut client = connection.client();
        let asked = client.follow_log(FollowLogRequest { seen });
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return Err("its release does not show checkpoints".into());
            }
            Ok(Err(status)) => return Err(plain(status.message())),
            Err(_) => return Err("it does not answer in time".into()),
        };
        let witnesses: Vec<_> =
            configuration.witnesses().iter().map(|witness| witness.verifier.clone()).collect();
        let shown = shown(&answer, (&key, &witnesses), before.as_ref(), self.exchanges.clock.now());
        let shown = shown.map_err(|why| format!("what it shows is no checkpoint of its log: {why}"))?;
        let shown = shown.ok_or("its log shows no checkpoint yet")?;
        let silent = shown.seen.is_none().then(|| "its log shows no checkpoint any more".to_owned());
        self.take_shown(peer, origin, before, shown).await;
        silent.map_or(Ok(()), Err)
    }

    async fn take_shown(&self, peer: &ServerId, origin: String, before: Option<Seen>, shown: Shown) {
        if !self.following.state().is_new(&origin, &shown) {
            return;
        }
        let contradicted = before.filter(|_| shown.contradiction.is_some());
        let entry = PeerCheckpoint {
            peer: peer.to_string(),
            origin,
            size: shown.seen.as_ref().map_or(0, |seen| seen.head.size),
            note: shown.seen.as_ref().map(|seen| seen.note.clone()).unwrap_or_default(),
            cosignatures: shown.cosignatures,
            contradiction: shown.contradiction.unwrap_or_default(),
            before: contradicted.map(|before| before.note).unwrap_or_default(),
        };
        self.keep_followed(entry, shown.seen).await;
    }

    async fn keep_followed(&self, shown: PeerCheckpoint, seen: Option<Seen>) {
        match self.exchanges.recorder.event(Entry::PeerCheckpoint(shown.clone()), Vec::new()).await {
            Ok(logged) => {
                let place = (self.exchanges.own.log_origin.as_str(), logged.index());
                self.following.state().take(&shown, seen, place);
            }
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
            let own = self.exchanges.own.log_origin.as_str();
            let mut state = self.following.state();
            for (at, said) in found {
                match said {
                    Said::Shown(shown, seen) => state.take(&shown, seen, (own, at)),
                    Said::Acknowledged(said) => state.acknowledge(&said),
                }
            }
            Ok(())
        });
        let recalled = recalled.await.copied().inspect_err(|error: &LogError| unreadable(error));
        self.tell_of_followed().await;
        recalled
    }

    pub(super) async fn tell_of_followed(&self) {
        self.conditions.set_each(Kind::PeerContradicted, || self.following.contradicted().told()).await;
        self.conditions.set_each(Kind::HeldOtherwise, || self.following.held_otherwise().told()).await;
    }
}

/// What the log says of checkpoints.
enum Said {
    Shown(PeerCheckpoint, Option<Seen>),
    Acknowledged(PeerCondition),
}

/// All that the log says, in order. It was verified before it was logged.
fn recalled(log: &Log) -> Result<Vec<(u64, Said)>, LogError> {
    let mut found = Vec::new();
    for record in log.scan_kind(kind::PEER_CHECKPOINT, 0) {
        let record = record?;
        let Some(Entry::PeerCheckpoint(shown)) = record.leaf.entry else { continue };
        let text = Note::parse(&shown.note).and_then(|note| Checkpoint::from_text(note.text()));
        let head = text.ok().map(|Checkpoint { size, root, .. }| Head { size, root });
        if head.is_some() || !shown.contradiction.is_empty() {
            let seen = head.map(|head| Seen { note: shown.note.clone(), head });
            found.push((record.index, Said::Shown(shown, seen)));
        }
    }
    let said = acknowledgements(log)?.into_iter().map(|(at, _, said)| (at, Said::Acknowledged(said)));
    found.extend(said);
    found.sort_by_key(|(at, _)| *at);
    Ok(found)
}

#[cfg(test)]
#[path = "following_tests.rs"]
mod tests;
