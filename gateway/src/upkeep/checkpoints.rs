//! Checkpoints with their timestamps: from then on the log cannot take back what it holds, nor say that it was otherwise
//! at that time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use trave_host::config::with_causes;
use trave_message_log::{LogError, SignedCheckpoint};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::timestamp::Timestamp;

use super::Upkeep;
use super::conditions::Kind;
use super::witnesses::Whom;
use crate::timestamping::{self, StampError};

/// How far this clock may differ from a timestamping authority's, beyond the accuracy that it states.
const SKEW: Duration = Duration::from_secs(10);

/// Why there is no timestamped checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("the message log gives no checkpoint")]
    Log(#[source] LogError),
    #[error(transparent)]
    Stamp(StampError),
}

/// A checkpoint and when it was stamped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    /// Records that it covers.
    pub(crate) size: u64,
    /// The timestamping authority's time.
    pub(crate) at: Time,
}

/// One checkpoint is sealed at a time.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<Sealed>>,
    /// When the last checkpoint was signed here: milliseconds since 1970; 0 for never.
    signed: AtomicI64,
}

impl Upkeep {
    /// The last checkpoint that has a timestamp.
    pub(crate) fn sealed(&self) -> Option<Sealed> {
        *self.sealing.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last checkpoint was signed in this run of the server.
    pub(crate) fn checkpointed(&self) -> Option<Time> {
        let millis = self.sealing.signed.load(Ordering::Relaxed);
        (millis != 0).then(|| Time::from_millis(millis))
    }

    /// A checkpoint over everything durable now, with a timestamp, and submitted to the witnesses. That these have not signed
    /// is told elsewhere, and does not keep it from being one.
    pub(super) async fn seal(&self) -> Result<SignedCheckpoint, SealError> {
        self.seal_asking(Whom::All).await
    }

    /// The same where somebody waits for a proof: witnesses that were silent a moment ago are not waited for again.
    pub(crate) async fn seal_for_proof(&self) -> Result<SignedCheckpoint, SealError> {
        self.seal_asking(Whom::WhoAnswers).await
    }

    async fn seal_asking(&self, whom: Whom) -> Result<SignedCheckpoint, SealError> {
        let _turn = self.sealing.turn.lock().await;
        let log = self.exchanges.recorder.log();
        let checkpoint = log.checkpoint().await.map_err(SealError::Log)?;
        // Durable here, before anybody else gets it.
        let (stamped, lines) = tokio::join!(self.stamped(&checkpoint), self.submit(&checkpoint, whom));
        let timestamp = stamped.as_ref().ok().cloned();
        self.keep_witnessed(SignedCheckpoint { timestamp, ..checkpoint.clone() }, lines).await;
        stamped.map(|token| SignedCheckpoint { timestamp: Some(token), ..checkpoint })
    }

    /// The token over a checkpoint, which the log keeps.
    async fn stamped(&self, checkpoint: &SignedCheckpoint) -> Result<Bytes, SealError> {
        if let Some(token) = &checkpoint.timestamp {
            return Ok(token.clone());
        }
        self.sealing.signed.store(self.exchanges.clock.now().as_millis(), Ordering::Relaxed);
        let stamped = self.stamp(&Digest::of(&checkpoint.note)).await;
        let problem = stamped.as_ref().err().map(|error| {
            format!(
                "checkpoints get no timestamp: {}; they are stamped when an authority answers",
                with_causes(error)
            )
        });
        self.conditions.set(Kind::TimestampingUnavailable, problem).await;
        let (token, stamp) = stamped?;
        let size = checkpoint.checkpoint.size;
        let log = self.exchanges.recorder.log();
        log.attach_timestamp(size, token.clone()).await.map_err(SealError::Log)?;
        self.remember_seal(Sealed { size, at: stamp.time() });
        Ok(token)
    }

    /// Seals by the civil clock, as long as the server runs. What the run before left without a checkpoint gets one at
    /// once: a server that is restarted again and again within the interval would else never give one.
    pub(super) async fn checkpoint_regularly(self: Arc<Self>) {
        let clock = Arc::clone(&self.exchanges.clock);
        let mut due = self.left_behind();
        loop {
            if !std::mem::take(&mut due) {
                clock.sleep_until(clock.now().plus(self.checkpoint_every)).await;
            }
            if let Err(error) = self.seal().await {
                tracing::debug!(error = with_causes(&error), "no timestamped checkpoint this time");
            }
            self.judge_lapses().await;
        }
    }

    /// Whether the log holds records of an earlier run that no checkpoint covers.
    fn left_behind(&self) -> bool {
        let last = self.exchanges.recorder.log().latest_checkpoint();
        self.begun > last.map_or(0, |last| last.checkpoint.size)
    }

    /// Reads what was stamped last before this start: while no authority answers, checkpoints without a token follow it.
    pub(super) async fn remember_last_seal(&self) {
        let authorities = certificates(&self.exchanges.trust.snapshot().configuration);
        let log = self.exchanges.recorder.log().clone();
        let found = tokio::task::spawn_blocking(move || log.last_stamped()).await;
        let last = match found.unwrap_or(Err(LogError::Closed)) {
            Ok(Some(last)) => last,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the last timestamp cannot be read");
                return;
            }
        };
        let Some(token) = last.timestamp else { return };
        if let Ok(stamp) = Timestamp::verify(&token, &Digest::of(&last.note), None, &authorities) {
            self.remember_seal(Sealed { size: last.checkpoint.size, at: stamp.time() });
        }
    }

    fn remember_seal(&self, sealed: Sealed) {
        *self.sealing.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(sealed);
    }

    /// Asks one authority after the other, and compares the clocks.
    async fn stamp(&self, digest: &Digest) -> Result<(Bytes, Timestamp), SealError> {
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let stamped = timestamping::stamp(digest, &configuration).await.map_err(SealError::Stamp)?;
        self.compare_clocks(&stamped.stamp, &stamped.authority).await;
        Ok((stamped.token, stamped.stamp))
    }

    /// The authority's time is signed, so it shows whether this clock is right. Peers refuse what is minutes away.
    async fn compare_clocks(&self, stamp: &Timestamp, authority: &str) {
        let (ours, theirs) = (self.exchanges.clock.now(), stamp.time());
        let apart = ours.since(theirs).max(theirs.since(ours));
        // Most authorities count whole seconds.
        let allowed = SKEW + stamp.accuracy().unwrap_or_default() + Duration::from_secs(1);
        let what = (apart > allowed).then(|| {
            let seconds = apart.as_secs();
            format!("the clock of this server is {seconds} s away from that of {authority}; check its time service")
        });
        self.conditions.set(Kind::ClockSkew, what).await;
    }
}

fn certificates(configuration: &Configuration) -> Vec<Bytes> {
    configuration.timestamping_authorities().iter().map(|authority| authority.certificate.clone()).collect()
}
