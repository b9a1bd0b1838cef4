//! What this server tells another one about the exchanges between the two, and about no others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use trave_message_log::{Log, LogError};
use trave_proto::checkpoint::MAX_NOTE;
use trave_proto::clock::{Clock, Time};
use trave_proto::conversation::TOLERANCE;
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::reconciliation::{Challenge, NONCE, Name, Period, Summary};
use trave_proto::schema::log::CommitmentKind;
use trave_proto::schema::transport as wire;
use trave_proto::tree::Head;

use super::commitments::{Commitments, ToLog};
use super::compare::RANGES;
use super::following::{Seen, contradiction, seen};
use super::records::{Bounds, Hours, RecordsError};
use super::recovery::give;
use super::standing::state;
use crate::turns::Turns;

/// Messages in one page.
pub(super) const PAGE: usize = 512;
/// Exchanges in one question.
pub(super) const EXCHANGES: usize = 256;
/// Older hours are not compared: records expire by law, on either side when its own rules say so, the earliest after twelve
/// months.
pub(crate) const OLDEST: Duration = Duration::from_secs(330 * 24 * 60 * 60);
/// Questions of other servers for which the disk is read at a time; others wait in the order in which they came. As each server
/// has one question at a time, who asks for what takes long delays nobody by more than that.
const READING: usize = 3;
/// Hours that one other server says differ, held until this server looks itself: the latest.
const SAID: usize = 64;

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("this is no question about an hour: {0}")]
    Malformed(&'static str),
    #[error("records of that time expire, so that they are not compared")]
    TooOld,
    #[error("the hour is not over, or not for long: messages may still come")]
    NotOver,
    #[error("the last question of this security server is not answered yet")]
    Busy,
    #[error("it must say first what its log holds of the hour, in this very comparison, and once")]
    NotCommitted,
    #[error("this server's system gives no random bytes")]
    NoRandom,
    #[error("too much of what this security server said that it holds was logged in this hour")]
    TooMany,
    #[error("what it said that it holds cannot be logged")]
    Log(#[source] LogError),
    #[error("this log holds no such message between the two under a checkpoint")]
    NotHeld,
    #[error("the records are not known")]
    Records(#[source] RecordsError),
    #[error("reading the message log failed")]
    Interrupted,
}

/// Answers the questions of other security servers.
#[derive(Debug)]
pub(crate) struct Desk {
    hours: Arc<Hours>,
    clock: Arc<dyn Clock>,
    /// Who is being answered: one question of each at a time.
    answering: Turns,
    reading: Arc<Semaphore>,
    /// What others say that they hold, where that is not what this log holds.
    said: Mutex<BTreeMap<ServerId, BTreeMap<Period, Summary>>>,
    commitments: Commitments,
}

/// What another server says that it holds of an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) period: Period,
    claim: Claim,
    /// What this log is to say of it before anything is answered: what that server said, and what this log holds.
    pub(crate) to_log: Option<(CommitmentKind, Summary, Summary)>,
}

/// What another server claims, and how far it holds.
#[derive(Debug, Clone, Copy)]
struct Claim {
    nonce: [u8; NONCE],
    there: Summary,
    here: Summary,
    /// Its proof, and what it should be.
    proofs: (Summary, Summary),
}

impl Claim {
    fn proven(&self) -> bool {
        self.proofs.0 == self.proofs.1
    }

    /// What is not so in it; none if it holds just what this log holds, and knows it.
    fn other(&self) -> Option<(CommitmentKind, Summary, Summary)> {
        match (self.there == self.here, self.proven()) {
            (true, true) => None,
            (true, false) => Some((CommitmentKind::Proof, self.proofs.0, self.proofs.1)),
            (false, _) => Some((CommitmentKind::Summary, self.there, self.here)),
        }
    }
}

/// What is asked of an hour.
enum Asked {
    /// What this log holds of the whole, before this server is told anything.
    Challenge([u8; NONCE]),
    /// More, and the asker says what it holds, with the digest that proves it.
    Commit(Summary, Digest),
    /// More, and the asker has said what it holds.
    More,
}

impl Desk {
    pub(crate) fn new(log: Log, own: ServerId, clock: Arc<dyn Clock>) -> Self {
        let hours = Arc::new(Hours::new(log, own));
        let (said, commitments) = (Mutex::default(), Commitments::default());
        let reading = Arc::new(Semaphore::new(READING));
        Self { hours, clock, answering: Turns::default(), reading, said, commitments }
    }

    /// The messages of single hours.
    pub(crate) fn hours(&self) -> &Arc<Hours> {
        &self.hours
    }

    /// What other servers said that they hold of an hour, where this log holds something else.
    pub(crate) fn said(&self, period: Period) -> BTreeMap<ServerId, Summary> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().filter_map(|(peer, said)| Some((peer.clone(), *said.get(&period)?))).collect()
    }

    /// This server has looked itself.
    pub(crate) fn looked(&self, peer: &ServerId, period: Period) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_mut(peer).map(|said| said.remove(&period));
    }

    /// What this log holds of some ranges; and what the asker says that it holds, if it does. That is to be
    /// [committed](Self::commit) before the answer is given.
    pub(crate) async fn compare(
        &self,
        peer: &ServerId,
        request: wire::CompareRecordsRequest,
    ) -> Result<(wire::CompareRecordsResponse, Option<Committed>), AnswerError> {
        let period = self.period(request.period.as_ref())?;
        let ranges = ranges(&request)?;
        let asked = asked(&request, &ranges)?;
        let nonce = self.nonce(peer, period, &asked)?;
        let begins = matches!(asked, Asked::Challenge(_));
        // Hashing a whole hour takes long, and is done where nobody waits for it.
        let read = self.read(peer, move |hours, peer| {
            let records = hours.with(peer, period)?;
            let here = |range: &Bounds| records.summary(range);
            let answering = |nonce: &[u8; NONCE], asker: &ServerId, answerer: &ServerId| {
                records.answering(&Challenge { nonce, asker, answerer, period })
            };
            Ok(match asked {
                Asked::Challenge(theirs) => (vec![answering(&theirs, peer, hours.own())], None),
                Asked::Commit(there, proof) => {
                    let proofs = (Summary { digest: proof, ..there }, answering(&nonce, hours.own(), peer));
                    let claim = Claim { nonce, there, here: here(&Bounds::default()), proofs };
                    (ranges.iter().map(here).collect(), Some(claim))
                }
                Asked::More => (ranges.iter().map(here).collect(), None),
            })
        });
        let (summaries, claim) = read.await?;
        let committed = claim.map(|claim| self.committed(peer, period, claim)).transpose()?;
        let summaries = summaries.into_iter().map(Summary::to_schema).collect();
        let nonce = if begins { Bytes::copy_from_slice(&nonce) } else { Bytes::new() };
        Ok((wire::CompareRecordsResponse { summaries, nonce }, committed))
    }

    /// The nonce of the comparison that a question begins or goes on with, if it may.
    fn nonce(&self, peer: &ServerId, period: Period, asked: &Asked) -> Result<[u8; NONCE], AnswerError> {
        let now = Instant::now();
        match asked {
            Asked::Challenge(_) => {
                let mut nonce = [0; NONCE];
                SystemRandom::new().fill(&mut nonce).map_err(|_| AnswerError::NoRandom)?;
                self.commitments.begin(peer, period, (nonce, now));
                Ok(nonce)
            }
            Asked::Commit(..) => self.commitments.nonce(peer, period, now).ok_or(AnswerError::NotCommitted),
            Asked::More if self.commitments.has(peer, period, now) => Ok([0; NONCE]),
            Asked::More => Err(AnswerError::NotCommitted),
        }
    }

    /// Nobody is told anything of an hour who has not said, in the comparison that runs, what it holds of it.
    fn must_have_committed(&self, peer: &ServerId, period: Period) -> Result<(), AnswerError> {
        let has = self.commitments.has(peer, period, Instant::now());
        if has { Ok(()) } else { Err(AnswerError::NotCommitted) }
    }

    fn committed(&self, peer: &ServerId, period: Period, claim: Claim) -> Result<Committed, AnswerError> {
        let mut to_log = claim.other();
        if let Some((_, there, _)) = to_log {
            let said = (period, claim.there, claim.proven());
            match self.commitments.is_to_log(peer, said, Period::of(self.clock.now())) {
                ToLog::Yes => {}
                ToLog::Known => to_log = None,
                ToLog::TooMany => return Err(AnswerError::TooMany),
            }
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let said = said.entry(peer.clone()).or_default();
            said.insert(period, there);
            if said.len() > SAID {
                said.pop_first();
            }
        }
        Ok(Committed { period, claim, to_log })
    }

    /// What another server said counts from now on, for this comparison: it may be told more of the hour.
    pub(crate) fn commit(&self, peer: &ServerId, Committed { period, claim, to_log }: &Committed) {
        if to_log.is_some() {
            self.commitments.logged(peer, (*period, claim.there, claim.proven()));
        }
        self.commitments.take(peer, &claim.nonce);
    }

    /// The first messages of a range.
    pub(crate) async fn list(
        &self,
        peer: &ServerId,
        request: wire::ListRecordsRequest,
    ) -> Result<wire::ListRecordsResponse, AnswerError> {
        let period = self.period(request.period.as_ref())?;
        let range = bounds(&request.range.unwrap_or_default())?;
        self.must_have_committed(peer, period)?;
        let records = self.read(peer, move |hours, peer| hours.with(peer, period)).await?;
        let (mut listed, mut more) = (Vec::with_capacity(PAGE), false);
        let mut last = None;
        for ((name, digest), held) in records.within(&range) {
            // What has one name stays on one page.
            if listed.len() >= PAGE && last != Some(*name) {
                more = true;
                break;
            }
            last = Some(*name);
            listed.push(wire::ListedRecord {
                name: name.to_bytes(),
                manifest_digest: digest.to_bytes(),
                sent: held.sent,
            });
        }
        Ok(wire::ListRecordsResponse { records: listed, more })
    }

    /// How exchanges of one hour stand.
    pub(crate) async fn tell(
        &self,
        peer: &ServerId,
        request: wire::TellExchangesRequest,
    ) -> Result<wire::TellExchangesResponse, AnswerError> {
        if request.exchange_ids.len() > EXCHANGES {
            return Err(AnswerError::Malformed("it has too many exchanges"));
        }
        let ids = request.exchange_ids.iter().map(|id| ExchangeId::from_slice(id));
        let ids: Result<Vec<_>, _> = ids.collect();
        let ids = ids.map_err(|_| AnswerError::Malformed("an exchange id is none"))?;
        if ids.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(AnswerError::Malformed("the exchanges are not in order"));
        }
        let now = self.clock.now();
        let periods: Vec<_> = ids.iter().map(|id| Period::of(id.time())).collect();
        if periods.iter().any(|period| too_old(*period, now)) {
            return Err(AnswerError::TooOld);
        }
        for period in periods {
            self.must_have_committed(peer, period)?;
        }
        let states = self.read(peer, move |hours, peer| {
            let state = |id: ExchangeId| state(hours.log(), id, (hours.own(), peer)).map(i32::from);
            ids.into_iter().map(state).collect::<Result<Vec<_>, _>>().map_err(RecordsError::Log)
        });
        Ok(wire::TellExchangesResponse { states: states.await? })
    }

    /// One message of the hour that is compared, without its content.
    pub(crate) async fn fetch(
        &self,
        peer: &ServerId,
        request: wire::FetchMessageRequest,
    ) -> Result<wire::FetchMessageResponse, AnswerError> {
        let asked = Name::from_slice(&request.name).zip(Digest::from_slice(&request.manifest_digest));
        let asked = asked.ok_or(AnswerError::Malformed("a name or digest has another length"))?;
        let exchange = asked.0.exchange().map_err(|_| AnswerError::Malformed("an exchange id is none"))?;
        // A message names the digests of those before it: one that is given leads to all others of its exchange.
        self.must_have_committed(peer, Period::of(exchange.time()))?;
        let read = self.read(peer, move |hours, peer| give(hours, peer, asked).map_err(RecordsError::Log));
        read.await?.ok_or(AnswerError::NotHeld)
    }

    /// The last checkpoint of this log, and that it continues the one that `peer` saw.
    pub(crate) async fn show(
        &self,
        peer: &ServerId,
        request: wire::FollowLogRequest,
    ) -> Result<Told, AnswerError> {
        if request.seen.len() > MAX_NOTE {
            return Err(AnswerError::Malformed("its note is too long"));
        }
        self.read(peer, move |hours, _| show(hours.log(), &request.seen).map_err(RecordsError::Log)).await
    }

    fn period(&self, period: Option<&wire::Period>) -> Result<Period, AnswerError> {
        let period = period.and_then(Period::read).ok_or(AnswerError::Malformed("its hour is none"))?;
        let now = self.clock.now();
        if too_old(period, now) {
            return Err(AnswerError::TooOld);
        }
        // What may still come is compared with nobody.
        if period.end().plus(TOLERANCE) > now { Err(AnswerError::NotOver) } else { Ok(period) }
    }

    /// Reads where nobody waits for the disk, one question of `peer` at a time.
    async fn read<T: Send + 'static>(
        &self,
        peer: &ServerId,
        read: impl FnOnce(&Hours, &ServerId) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, AnswerError> {
        let turn = self.answering.take(peer).ok_or(AnswerError::Busy)?;
        let place = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| AnswerError::Interrupted)?;
        let hours = Arc::clone(&self.hours);
        let answer = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&hours, turn.server())
        });
        let answer = answer.await;
        answer.map_err(|_| AnswerError::Interrupted)?.map_err(AnswerError::Records)
    }
}

/// What another server is told of this log.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The last checkpoint, with the proof; the lines of witnesses are not in it yet.
    pub(crate) answer: wire::FollowLogResponse,
    /// What that server holds of this log, signed by its key, where this log does not continue it; and in words.
    pub(crate) otherwise: Option<(Seen, String)>,
}

/// Reads the disk.
fn show(log: &Log, theirs: &[u8]) -> Result<Told, LogError> {
    let Some(latest) = log.latest_checkpoint() else { return Ok(Told::default()) };
    let head = Head { size: latest.checkpoint.size, root: latest.checkpoint.root };
    // A note of an earlier generation, or of nobody's, is none of this log.
    let theirs = seen(theirs, log.verifier());
    let proof = match &theirs {
        Some(seen) if seen.head.size <= head.size => log.consistency(seen.head.size, head.size)?,
        _ => Vec::new(),
    };
    let otherwise = theirs.and_then(|seen| {
        let why = contradiction(&seen.head, &head, &proof)?;
        Some((seen, why))
    });
    let proof = proof.into_iter().map(Digest::to_bytes).collect();
    let answer = wire::FollowLogResponse { note: latest.note, cosignatures: Bytes::new(), proof };
    Ok(Told { answer, otherwise })
}

/// Whether records of that hour may have expired, here or there.
pub(crate) fn too_old(period: Period, now: Time) -> bool {
    period.begin() < now.minus(OLDEST)
}

fn ranges(request: &wire::CompareRecordsRequest) -> Result<Vec<Bounds>, AnswerError> {
    if request.ranges.is_empty() || request.ranges.len() > RANGES {
        return Err(AnswerError::Malformed("it has no ranges, or too many"));
    }
    let ranges = request.ranges.iter().map(bounds).collect::<Result<Vec<_>, _>>()?;
    let beyond = |pair: &[Bounds]| pair[0].to.is_none_or(|to| pair[1].from.is_none_or(|from| from < to));
    match ranges.windows(2).any(beyond) {
        true => Err(AnswerError::Malformed("its ranges are not in order")),
        false => Ok(ranges),
    }
}

fn asked(request: &wire::CompareRecordsRequest, ranges: &[Bounds]) -> Result<Asked, AnswerError> {
    let claim = match &request.own {
        Some(own) => {
            let own = Summary::read(own).zip(Digest::from_slice(&request.proof));
            Some(own.ok_or(AnswerError::Malformed("a digest has not 32 bytes"))?)
        }
        None if !request.proof.is_empty() => {
            return Err(AnswerError::Malformed("a proof stands beside what is proven"));
        }
        None => None,
    };
    match (<[u8; NONCE]>::try_from(&request.nonce[..]), claim) {
        (Ok(nonce), None) if *ranges == [Bounds::default()] => Ok(Asked::Challenge(nonce)),
        (Err(_), Some((own, proof))) if request.nonce.is_empty() => Ok(Asked::Commit(own, proof)),
        (Err(_), None) if request.nonce.is_empty() => Ok(Asked::More),
        _ => Err(AnswerError::Malformed(
            "a nonce of 32 bytes stands beside one range, the whole, and nothing else",
        )),
    }
}

fn bounds(range: &wire::RecordRange) -> Result<Bounds, AnswerError> {
    let name = |bytes: &[u8]| match bytes {
        [] => Ok(None),
        bytes => Name::from_slice(bytes).map(Some).ok_or(AnswerError::Malformed("a name has not 25 bytes")),
    };
    Ok(Bounds { from: name(&range.from)?, to: name(&range.to)? })
}
