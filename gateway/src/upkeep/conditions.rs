//! What is not as it should be just now: told in the status, logged when it begins and when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{Degradation, PeerCondition, PeerConditionStage};

use crate::recorder::Recorder;

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Somebody with enough configuration keys deceives, or the registry goes back. For people to look into.
    ConfigurationRefused,
    /// A witness saw another story of this log, or more of it than there is. For people to look into.
    LogContradicted,
    /// Another server's log and this one do not hold the same messages, and nothing explains it. For people to look into.
    LogsDisagree,
    /// Another server's log contradicts a checkpoint that it gave away. For people to look into.
    PeerContradicted,
    /// Another server holds a checkpoint of this log that this log does not continue. For people to look into.
    HeldOtherwise,
    RegistryUnavailable,
    CertificateStatusUnavailable,
    TimestampingUnavailable,
    WitnessUnavailable,
    ClockSkew,
    DiskFilling,
    /// Closed segments stay on this server's disk alone.
    ArchiveUnavailable,
    TimestampOld,
    NotWitnessed,
    /// Another server's log could not be compared with this one.
    NotCompared,
    /// Another server has not shown its log's checkpoints for long.
    NotFollowed,
    RetentionOverdue,
    /// Something that was approved is not erased, or another server is not told of it.
    ErasureUnfinished,
    /// Another server told of an erasure, and nobody here has decided.
    ErasureWaits,
    CertificateExpiring,
}

impl Kind {
    /// As it is logged.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigurationRefused => "configuration_refused",
            Self::LogContradicted => "log_contradicted",
            Self::LogsDisagree => "logs_disagree",
            Self::PeerContradicted => "peer_contradicted",
            Self::HeldOtherwise => "log_held_otherwise",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::CertificateStatusUnavailable => "certificate_status_unavailable",
            Self::TimestampingUnavailable => "timestamping_unavailable",
            Self::WitnessUnavailable => "witness_unavailable",
            Self::ClockSkew => "clock_skew",
            Self::DiskFilling => "disk_filling",
            Self::ArchiveUnavailable => "archive_unavailable",
            Self::TimestampOld => "timestamp_old",
            Self::NotWitnessed => "not_witnessed",
            Self::NotCompared => "not_compared",
            Self::NotFollowed => "not_followed",
            Self::RetentionOverdue => "retention_overdue",
            Self::ErasureUnfinished => "erasure_unfinished",
            Self::ErasureWaits => "erasure_waits",
            Self::CertificateExpiring => "certificate_expiring",
        }
    }

    /// Whether it is an alarm: somebody deceives, or something was lost.
    const fn is_alarm(self) -> bool {
        matches!(
            self,
            Self::ConfigurationRefused
                | Self::LogContradicted
                | Self::LogsDisagree
                | Self::PeerContradicted
                | Self::HeldOtherwise
        )
    }

    /// Whether the server works with less than it should have meanwhile, which the log then says.
    const fn is_degradation(self) -> bool {
        !matches!(
            self,
            Self::CertificateExpiring
                | Self::TimestampOld
                | Self::NotWitnessed
                | Self::NotCompared
                | Self::NotFollowed
                | Self::ErasureWaits
        )
    }
}

/// All that is wrong now.
#[derive(Debug)]
pub(super) struct Conditions {
    recorder: Recorder,
    /// In words, by what it is and the other server that it is about; that is empty where it is about none.
    now: Mutex<BTreeMap<(Kind, String), String>>,
    /// One change at a time, so that what is said last, here and in the log, is what is so.
    turn: tokio::sync::Mutex<()>,
}

impl Conditions {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, now: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Says that `kind` is so, in words, or that it is no longer. The log gets the beginning and the end alone.
    pub(super) async fn set(&self, kind: Kind, what: Option<String>) {
        let _turn = self.turn.lock().await;
        self.change(kind, String::new(), what).await;
    }

    /// Says about which other servers `kind` is so, in words, and about no others: one mutes no other. `told` is asked when it
    /// is its turn, so that what it says is not older than what was said before.
    pub(super) async fn set_each(&self, kind: Kind, told: impl FnOnce() -> BTreeMap<String, String>) {
        let _turn = self.turn.lock().await;
        let told = told();
        let before: Vec<_> = self.locked().keys().filter(|(of, _)| *of == kind).cloned().collect();
        for (_, peer) in before.into_iter().filter(|(_, peer)| !told.contains_key(peer)) {
            self.change(kind, peer, None).await;
        }
        for (peer, what) in told {
            self.change(kind, peer, Some(what)).await;
        }
    }

    async fn change(&self, kind: Kind, peer: String, what: Option<String>) {
        let begins = what.is_some();
        let before = match &what {
            Some(what) => self.locked().insert((kind, peer.clone()), what.clone()),
            None => self.locked().remove(&(kind, peer.clone())),
        };
        let (was, name) = (before.is_some(), kind.as_str());
        if was == begins {
            // One alarm does not mute the next: whoever watches the server's own log hears of each.
            if let Some(what) = what.filter(|what| kind.is_alarm() && before.as_ref() != Some(what)) {
                tracing::error!(kind = name, peer, "{what}");
            }
            return;
        }
        match &what {
            Some(what) if kind.is_alarm() => tracing::error!(kind = name, peer, "{what}"),
            Some(what) => tracing::warn!(kind = name, peer, "{what}"),
            None => tracing::info!(kind = name, peer, "no longer so"),
        }
        if !peer.is_empty() && kind.is_alarm() {
            let stage = if begins { PeerConditionStage::Begun } else { PeerConditionStage::Ended };
            let (kind, stage, what) = (name.into(), stage.into(), what.unwrap_or_default());
            let condition = PeerCondition { peer, kind, stage, what, ..PeerCondition::default() };
            self.recorder.own(LeafEntry::PeerCondition(condition)).await;
        } else if peer.is_empty() && kind.is_degradation() {
            self.recorder.own(LeafEntry::Degradation(Degradation { kind: name.into(), begins })).await;
        }
    }

    /// In words, the gravest first.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.locked().values().cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(Kind, String), String>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
