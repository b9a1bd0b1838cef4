//! Erasures on their way: applied for, approved, carried out here, told to the security servers that hold the other half of
//! the exchanges; and what those told this one.
//!
//! | killed after | the log says | the next start |
//! |---|---|---|
//! | it was applied for | that it waits | it waits |
//! | whom to tell is logged | the same | it waits, and nobody is told before it is approved |
//! | the approval is durable | that it is approved | erases what no erasure stands in the log for, and tells |
//! | some exchanges were erased | their erasures | the same, with the others |
//! | the other server was told | that it is to be told | tells it again, which changes nothing there |
//! | there: what was told is logged | that it waits | it waits, or the policy carries it out |
//! | there: one of two persons approved | that, and that it waits | it waits for another |
//! | there: the approval is durable, or some of it is erased | as here | as here |

mod notices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use trave_host::config::with_causes;
use trave_message_log::{Concerned, ErasedPerson, Log, LogError, PrunedRecord, kind};
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::Manifest;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ErasureNotice, ErasureStage};
use trave_proto::schema::transport::TellErasureRequest;

use crate::generations::Generations;
use crate::recorder::Recorder;
use crate::retention::About;
use crate::turns::{Turn, Turns};
pub(crate) use notices::{Notice, Notices};

/// Exchanges in one record and in one call; more stand in several.
pub(crate) const AT_A_TIME: usize = 1_000;
/// What one other server told and nobody has decided; more is refused until somebody does.
const MOST_OPEN: usize = 100;
/// How often an erasure that fails is tried in one run of the server; each time after twice as long.
const MOST_TRIES: u32 = 10;

/// Why an erasure does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErasureError {
    #[error("no erasure {0} waits\nhint: `erasures list` shows those that do")]
    Unknown(String),
    #[error("this is no erasure: {0}")]
    Malformed(&'static str),
    #[error(
        "the part of the log in which the person stands was written anew since it was applied for\nhint: `erasures drop` it, and apply for it again"
    )]
    Moved,
    #[error("too many erasures that this security server told wait for a decision")]
    TooMany,
    #[error("what was told before is still being taken; tell it again in a minute")]
    Busy,
    #[error("the message log failed")]
    Log(#[source] LogError),
    #[error("reading the message log failed")]
    Interrupted,
}

/// Who decided, for the record.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) by: String,
    pub(crate) user: Option<u32>,
}

/// All erasures that are not over, and how they go on.
#[derive(Debug)]
pub(crate) struct Erasing {
    recorder: Recorder,
    own: ServerId,
    generations: Arc<Generations>,
    notices: Mutex<Notices>,
    /// One is approved, dropped or carried out at a time.
    turn: tokio::sync::Mutex<()>,
    /// What one server tells is taken one at a time.
    telling: Turns,
    /// What was approved and failed, how often, and how many turns it is left alone for.
    failing: Mutex<BTreeMap<String, (u32, u32)>>,
    /// One is received at a time.
    receiving: tokio::sync::Mutex<()>,
    news: Notify,
}

impl Erasing {
    /// Those that the log knows of. Reads the disk.
    pub(crate) fn read(
        recorder: Recorder,
        own: ServerId,
        generations: Arc<Generations>,
    ) -> Result<Self, LogError> {
        let mut notices = Notices::default();
        for record in recorder.log().scan_kind(kind::ERASURE_NOTICE, 0) {
            let record = record?;
            notices.take(record.index, &record.leaf);
        }
        Ok(Self {
            recorder,
            own,
            generations,
            notices: Mutex::new(notices),
            turn: tokio::sync::Mutex::default(),
            telling: Turns::default(),
            failing: Mutex::default(),
            receiving: tokio::sync::Mutex::default(),
            news: Notify::new(),
        })
    }

    /// The generations of the log before this one.
    pub(crate) fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// What an exchange is about, and the other server of it, whichever generation of the log holds it.
    pub(crate) fn subject_of(
        (log, generations): (&Log, &Generations),
        own: &ServerId,
        exchange: ExchangeId,
    ) -> Result<Option<(About, ServerId)>, LogError> {
        if let Some(found) = Self::subject(log, own, exchange)? {
            return Ok(Some(found));
        }
        let earlier = generations.of(exchange)?;
        earlier.map_or(Ok(None), |earlier| Self::subject(earlier.log(), own, exchange))
    }

    /// What `look` sees of those that are not over.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Notices) -> T) -> T {
        look(&self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there may be something to be told or to be decided.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// What an exchange is about, and the other server of it; none if there is no message of it.
    fn subject(
        log: &Log,
        own: &ServerId,
        exchange: ExchangeId,
    ) -> Result<Option<(About, ServerId)>, LogError> {
        for place in log.places(exchange)? {
            let leaf = match log.leaf(place) {
                Err(LogError::Expired { .. }) => continue,
                Err(LogError::Pruned { .. }) => {
                    match log.pruned(place)?.as_ref().and_then(|it| pruned(it, own)) {
                        None => continue,
                        found => return Ok(found),
                    }
                }
                other => other?,
            };
            let logged = trave_proto::clock::Time::from_millis(leaf.logged_ms);
            let begun = crate::retention::begun_of(&leaf);
            let message = match leaf.entry {
                Some(Entry::Message(message)) => Some(message),
                Some(Entry::Recovered(recovered)) => recovered.message,
                _ => None,
            };
            if let Some(Ok(manifest)) = message.map(|message| Manifest::parse(message.manifest)) {
                let other = if manifest.sender == *own { &manifest.receiver } else { &manifest.sender };
                let about = About::message(&manifest, begun.unwrap_or(logged));
                return Ok(Some((about, other.clone())));
            }
        }
        Ok(None)
    }

    /// Logs what was applied for; nothing is erased yet.
    pub(crate) async fn apply(&self, notice: &Notice) -> Result<(), ErasureError> {
        self.say(notice, ErasureStage::Applied).await
    }

    /// Takes the word of the first of two persons who decide on what another server told; nothing is erased yet.
    pub(crate) async fn support(&self, id: &str, (by, user): (String, u32)) -> Result<(), ErasureError> {
        let _turn = self.turn.lock().await;
        let notice = self.waiting(id)?;
        let record =
            ErasureNotice { operator: by, operator_user: Some(user), ..notice.record(ErasureStage::Applied) };
        self.log(record).await.map(|_| ())
    }

    /// Approves what waits under this id, and carries it out: says what was erased, and who is told of it.
    pub(crate) async fn approve(
        self: &Arc<Self>,
        id: &str,
        decided: Decided,
    ) -> Result<(ErasedPerson, Vec<String>), ErasureError> {
        let _turn = self.turn.lock().await;
        let notice = self.waiting(id)?;
        // Before it is approved: what is approved is carried out.
        self.concerned(&notice).await?;
        let mut telling = Vec::new();
        if notice.peer.is_empty() {
            for (peer, exchanges) in self.others(notice.exchanges.clone()).await? {
                let peer = peer.to_string();
                let to_tell = Notice { exchanges, persons: Vec::new(), peer: peer.clone(), ..notice.clone() };
                self.say(&to_tell, ErasureStage::ToTell).await?;
                telling.push(peer);
            }
        }
        let approved = ErasureNotice {
            approver: decided.by,
            approver_user: decided.user,
            ..notice.record(ErasureStage::Approved)
        };
        let at = self.log(approved).await?;
        let erased = self.carry_out(&notice, at).await?;
        self.news.notify_one();
        Ok((erased, telling))
    }

    /// Withdraws what was applied for, or declines what another server told.
    pub(crate) async fn withdraw(&self, id: &str, reason: String, by: String) -> Result<(), ErasureError> {
        let _turn = self.turn.lock().await;
        let notice = self.waiting(id)?;
        let dropped = ErasureNotice {
            reason,
            operator: by,
            operator_user: None,
            ..notice.record(ErasureStage::Dropped)
        };
        self.log(dropped).await?;
        self.news.notify_one();
        Ok(())
    }

    /// Does what a crash cut off: erases where an approval stands in the log and no erasure. One that fails holds up no
    /// other; it is tried again ever more rarely, and after [`MOST_TRIES`] only when the server is started again, because
    /// each attempt may stand in the log.
    pub(crate) async fn redo(&self) -> Result<(), ErasureError> {
        let _turn = self.turn.lock().await;
        let mut failed = Ok(());
        for (notice, at) in self.look(Notices::approved) {
            if self.is_left_alone(&notice.id) {
                continue;
            }
            if let Err(error) = self.carry_out(&notice, at).await {
                self.failed(&notice.id);
                failed = failed.and(Err(error));
            }
        }
        failed
    }

    /// Whether an erasure that failed is left alone for this turn.
    fn is_left_alone(&self, id: &str) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((tries, turns)) = failing.get_mut(id) else { return false };
        let wait = *turns > 0 || *tries >= MOST_TRIES;
        *turns = turns.saturating_sub(1);
        wait
    }

    fn failed(&self, id: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (tries, turns) = failing.entry(id.to_owned()).or_default();
        *tries += 1;
        *turns = 1 << (*tries).min(MOST_TRIES);
    }

    /// What waits under this id.
    pub(crate) fn waiting(&self, id: &str) -> Result<Notice, ErasureError> {
        self.look(|notices| notices.waiting(id).cloned()).ok_or_else(|| ErasureError::Unknown(id.to_owned()))
    }

    /// The turn of a server that tells something: without it nothing is begun, so that nothing piles up.
    pub(crate) fn turn(&self, peer: &ServerId) -> Result<Turn, ErasureError> {
        self.telling.take(peer).ok_or(ErasureError::Busy)
    }

    /// Takes what another server told: which of its exchanges with this one should be erased here, too. It is durable when
    /// this returns. Says how many of them are known here.
    pub(crate) async fn receive(&self, turn: Turn, request: TellErasureRequest) -> Result<u64, ErasureError> {
        let named = !request.id.is_empty() && request.id.len() <= 64;
        if !named || !request.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(ErasureError::Malformed("its id is none"));
        }
        if request.exchange_ids.is_empty() || request.exchange_ids.len() > AT_A_TIME {
            return Err(ErasureError::Malformed("it names no exchange, or too many"));
        }
        let exchanges: BTreeSet<_> =
            request.exchange_ids.iter().filter_map(|id| ExchangeId::from_slice(id).ok()).collect();
        if exchanges.len() != request.exchange_ids.len() {
            return Err(ErasureError::Malformed("an exchange is none, or named twice"));
        }
        let _turn = self.receiving.lock().await;
        let peer = turn.server();
        let mut known = self.others(exchanges.into_iter().collect()).await?;
        let known = known.remove(peer).unwrap_or_default();
        let (count, peer) = (known.len() as u64, peer.to_string());
        let id = id_of(&peer, &request.id, &known);
        // What waits already, or is erased already, is nothing to be decided or done again, under whatever name.
        let open = |notices: &Notices| -> Vec<_> {
            let told = |it: &ExchangeId| notices.was_told(&id, *it) || notices.is_open(&peer, *it);
            known.into_iter().filter(|it| !told(it)).collect()
        };
        let exchanges = self.not_erased(self.look(open)).await?;
        if exchanges.is_empty() {
            return Ok(count);
        }
        if self.look(|notices| notices.open_of(&peer)) >= MOST_OPEN {
            return Err(ErasureError::TooMany);
        }
        tracing::info!(id, peer, exchanges = exchanges.len(), "told of an erasure");
        let notice = Notice { id, exchanges, peer, told: request.id, ..Notice::default() };
        self.say(&notice, ErasureStage::Received).await?;
        self.news.notify_one();
        Ok(count)
    }

    /// Logs that another server was told, or will not be.
    pub(crate) async fn told(&self, notice: &Notice, stage: ErasureStage) -> Result<(), ErasureError> {
        self.log(ErasureNotice { exchange_ids: Vec::new(), ..notice.record(stage) }).await.map(|_| ())
    }

    /// Erases what no erasure stands in the log for behind the approval.
    async fn carry_out(&self, notice: &Notice, approved: u64) -> Result<ErasedPerson, ErasureError> {
        let log = self.recorder.log().clone();
        let all = self.concerned(notice).await?;
        let (looking, exchanges) = (log.clone(), notice.exchanges.clone());
        let (concerned, others) = reading(move || {
            let left = |exchange: ExchangeId| looking.is_erased_since(exchange, approved).map(|done| !done);
            // A crash may have come between the erasing of an exchange and the forgetting of the person. A table that cannot
            // be read keeps nothing from being erased.
            let named = looking.still_named(&all);
            let named = named
                .inspect_err(|error| tracing::warn!(error = with_causes(error), "whom the log still names"));
            let named = named.unwrap_or_else(|_| all.clone());
            let mut concerned = Vec::new();
            for one in all {
                if named.contains(&one) || left(one.exchange)? {
                    concerned.push(one);
                }
            }
            let with_person: BTreeSet<_> = concerned.iter().map(|one| one.exchange).collect();
            let mut others = Vec::new();
            for exchange in exchanges.into_iter().filter(|exchange| !with_person.contains(exchange)) {
                if left(exchange)? && !looking.places(exchange)?.is_empty() {
                    others.push(exchange);
                }
            }
            Ok((concerned, others))
        })
        .await?;
        let (by, reason) = (notice.by(), notice.why());
        let of_person = log.erase_person(&concerned, &by, &reason).await;
        // What fails of one exchange keeps no other.
        let (mut of_others, mut failed) = (ErasedPerson::default(), Ok(()));
        for exchange in others {
            match log.erase(exchange, &by, &reason).await {
                Ok(contents) => of_others.contents += contents,
                Err(error) => failed = failed.and(Err(error)),
            }
            of_others.exchanges += 1;
        }
        // The contents first: as long as a pseudonym is there, a person whose erasing failed is found again.
        for exchange in &notice.exchanges {
            match self.generations.erase(*exchange, &by, &reason).await {
                Ok(earlier) => {
                    of_others.exchanges += u64::from(earlier.is_some());
                    of_others.contents += earlier.unwrap_or(0);
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        let mut erased = of_person.and_then(|it| failed.map(|()| it)).map_err(ErasureError::Log)?;
        erased.contents += of_others.contents;
        erased.exchanges += of_others.exchanges;
        let forgotten = self.generations.forget(&notice.persons, &by, &reason).await;
        erased.pseudonyms += forgotten.map_err(ErasureError::Log)?;
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).done(&notice.id);
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&notice.id);
        Ok(erased)
    }

    /// Where the person stands that a notice is about; an error if that cannot be said any more.
    async fn concerned(&self, notice: &Notice) -> Result<Vec<Concerned>, ErasureError> {
        let (log, size) = (self.recorder.log().clone(), notice.at + 1);
        let here = notice.persons.iter().filter(|place| place.generation == 0);
        let persons: Vec<_> = here.copied().collect();
        reading(move || log.concerned_at(&persons, size)).await?.ok_or(ErasureError::Moved)
    }

    /// Those of these exchanges of which something may be left to be erased.
    async fn not_erased(&self, exchanges: Vec<ExchangeId>) -> Result<Vec<ExchangeId>, ErasureError> {
        let (log, generations) = (self.recorder.log().clone(), Arc::clone(&self.generations));
        reading(move || {
            let mut left = Vec::new();
            for exchange in exchanges {
                let here = !log.is_erased(exchange)? && !log.places(exchange)?.is_empty();
                if here || generations.are_left(exchange)? {
                    left.push(exchange);
                }
            }
            Ok(left)
        })
        .await
    }

    /// The other servers of these exchanges, as far as something of them is known here.
    async fn others(
        &self,
        exchanges: Vec<ExchangeId>,
    ) -> Result<BTreeMap<ServerId, Vec<ExchangeId>>, ErasureError> {
        let (log, own) = (self.recorder.log().clone(), self.own.clone());
        let generations = Arc::clone(&self.generations);
        reading(move || {
            let mut others = BTreeMap::<_, Vec<_>>::new();
            for exchange in exchanges {
                if let Some((_, other)) = Self::subject_of((&log, &generations), &own, exchange)?
                    && other != own
                {
                    others.entry(other).or_default().push(exchange);
                }
            }
            Ok(others)
        })
        .await
    }

    /// Logs a notice, in as many records as its exchanges need.
    async fn say(&self, notice: &Notice, stage: ErasureStage) -> Result<(), ErasureError> {
        let record = notice.record(stage);
        let mut persons = notice.persons.chunks(AT_A_TIME);
        for some in notice.exchanges.chunks(AT_A_TIME) {
            let exchange_ids = some.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
            let persons = persons.next().unwrap_or_default().to_vec();
            self.log(ErasureNotice { exchange_ids, persons, ..record.clone() }).await?;
        }
        // A person may stand more often in the log than there are exchanges.
        for some in persons {
            self.log(ErasureNotice { persons: some.to_vec(), ..record.clone() }).await?;
        }
        Ok(())
    }

    async fn log(&self, notice: ErasureNotice) -> Result<u64, ErasureError> {
        let logged = self.recorder.event(Entry::ErasureNotice(notice), Vec::new()).await;
        let logged = logged.map_err(ErasureError::Log)?;
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.take(logged.index(), logged.get());
        Ok(logged.index())
    }
}

/// What an exchange was about, and the other server of it, by what is known of a message that was pruned.
fn pruned(record: &PrunedRecord, own: &ServerId) -> Option<(About, ServerId)> {
    let subject = record.subject.as_ref()?;
    let (sender, receiver): (ServerId, ServerId) =
        (subject.sender.parse().ok()?, subject.receiver.parse().ok()?);
    Some((About::pruned(record)?, if sender == *own { receiver } else { sender }))
}

/// The id of what another server told. It stands for exactly these exchanges: nothing is added to what somebody looks at and
/// decides upon.
fn id_of(peer: &str, told: &str, exchanges: &[ExchangeId]) -> String {
    let mut named = format!("{peer} {told}").into_bytes();
    exchanges.iter().for_each(|exchange| named.extend_from_slice(exchange.as_bytes()));
    format!("n-{}", &Digest::of(&named).to_string()[..12])
}

/// Reads where nobody waits for the disk.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, ErasureError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|_| ErasureError::Interrupted)?.map_err(ErasureError::Log)
}

impl ErasureError {
    /// For another security server: what goes wrong on this one's disk is told to its own operator.
    pub(crate) fn for_peer(&self) -> tonic::Status {
        match self {
            Self::Log(_) | Self::Interrupted => {
                tracing::warn!(error = with_causes(self), "what a peer tells of erasures is not taken");
                let why = "the message log of this security server fails; its operator must look at it";
                tonic::Status::unavailable(why)
            }
            _ => self.refusal(),
        }
    }

    /// For this server's operator.
    pub(crate) fn refusal(&self) -> tonic::Status {
        let why = with_causes(self);
        match self {
            Self::Unknown(_) => tonic::Status::not_found(why),
            Self::Malformed(_) => tonic::Status::invalid_argument(why),
            Self::Moved => tonic::Status::failed_precondition(why),
            Self::TooMany | Self::Busy => tonic::Status::resource_exhausted(why),
            Self::Log(_) | Self::Interrupted => tonic::Status::unavailable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use trave_proto::clock::Time;

    use super::*;

    #[test]
    fn a_peer_is_not_told_where_this_servers_log_lies() {
        let error = ErasureError::Log(LogError::Disk {
            what: "read",
            path: "/srv/trave/data/log/segments/1".into(),
            source: std::io::Error::other("broken").into(),
        });
        assert!(error.refusal().message().contains("/srv/trave"), "the operator is");
        let told = error.for_peer();
        assert!(!told.message().contains("/srv") && told.code() == tonic::Code::Unavailable, "{told}");
        assert_eq!(ErasureError::TooMany.for_peer().code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn what_is_told_later_is_another_matter() {
        let exchange = |number| ExchangeId::new(Time::from_millis(1_795_288_440_000), &[number; 10]);
        let first = id_of("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1)]);
        assert_eq!(first, id_of("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1)]));
        for (peer, told, exchanges) in [
            ("NORD/MV/gewerberegister/s1", "e-1", &[exchange(1), exchange(2)][..]),
            ("NORD/MV/gewerberegister/s1", "e-2", &[exchange(1)]),
            ("NORD/MV/gewerberegister/s2", "e-1", &[exchange(1)]),
        ] {
            assert_ne!(first, id_of(peer, told, exchanges));
        }
    }
}
