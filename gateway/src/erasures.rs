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

mod carrying_out;
mod error;
mod notices;
mod receiving;
mod subjects;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use trave_message_log::{ErasedPerson, LogError, kind};
use trave_proto::identifier::ServerId;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::log::{ErasureNotice, ErasureStage};

use crate::generations::Generations;
use crate::recorder::Recorder;
use crate::turns::Turns;
pub(crate) use error::ErasureError;
pub(crate) use notices::{Notice, Notices};

/// Exchanges in one record and in one call; more stand in several.
pub(crate) const AT_A_TIME: usize = 1_000;

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

    /// What `look` sees of those that are not over.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Notices) -> T) -> T {
        look(&self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there may be something to be told or to be decided.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
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

    /// What waits under this id.
    pub(crate) fn waiting(&self, id: &str) -> Result<Notice, ErasureError> {
        self.look(|notices| notices.waiting(id).cloned()).ok_or_else(|| ErasureError::Unknown(id.to_owned()))
    }

    /// Logs that another server was told, or will not be.
    pub(crate) async fn told(&self, notice: &Notice, stage: ErasureStage) -> Result<(), ErasureError> {
        self.log(ErasureNotice { exchange_ids: Vec::new(), ..notice.record(stage) }).await.map(|_| ())
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

/// Reads where nobody waits for the disk.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, ErasureError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|_| ErasureError::Interrupted)?.map_err(ErasureError::Log)
}
