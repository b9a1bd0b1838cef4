//! What is not as it should be just now: told in the status, logged when it begins and when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use trave_proto::schema::log::Degradation;
use trave_proto::schema::log::leaf::Entry as LeafEntry;

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
    RetentionOverdue,
    /// Something that was approved is not erased, or another server is not told of it.
    ErasureUnfinished,
    /// Another server told of an erasure, and nobody here has decided.
    ErasureWaits,
    CertificateExpiring,
}

impl Kind {
    /// As it is logged.
    const fn as_str(self) -> &'static str {
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
                | Self::ErasureWaits
        )
    }
}

/// All that is wrong now.
#[derive(Debug)]
pub(super) struct Conditions {
    recorder: Recorder,
    now: Mutex<BTreeMap<Kind, String>>,
}

impl Conditions {
    pub(super) const fn new(recorder: Recorder) -> Self {
        Self { recorder, now: Mutex::new(BTreeMap::new()) }
    }

    /// Says that `kind` is so, in words, or that it is no longer. The log gets the beginning and the end alone.
    pub(super) async fn set(&self, kind: Kind, what: Option<String>) {
        let begins = what.is_some();
        let before = {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            match &what {
                Some(what) => now.insert(kind, what.clone()),
                None => now.remove(&kind),
            }
        };
        let (was, name) = (before.is_some(), kind.as_str());
        if was == begins {
            // One alarm does not mute the next: whoever watches the server's own log hears of each.
            if let Some(what) = what.filter(|what| kind.is_alarm() && before.as_ref() != Some(what)) {
                tracing::error!(kind = name, "{what}");
            }
            return;
        }
        match what {
            Some(what) if kind.is_alarm() => tracing::error!(kind = name, "{what}"),
            Some(what) => tracing::warn!(kind = name, "{what}"),
            None => tracing::info!(kind = name, "no longer so"),
        }
        if kind.is_degradation() {
            self.recorder.own(LeafEntry::Degradation(Degradation { kind: name.into(), begins })).await;
        }
    }

    /// In words, the gravest first.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
