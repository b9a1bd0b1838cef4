//! Revocation: why, since when, and the list that says so (RFC 5280 section 5).

use bytes::Bytes;
use rcgen::RevocationReason;
use trave_proto::clock::Time;

/// Why a certificate no longer counts (RFC 5280 section 5.3.1). Revocation is final, so there is no certificateHold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are RFC 5280's own names")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The name in RFC 5280.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    pub(super) const fn in_list(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }

    pub(super) fn from_record(name: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Self::Unspecified)
    }
}

/// What the authority says of a serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Issued here and not revoked.
    Good,
    /// Revoked.
    Revoked {
        /// When.
        at: Time,
        /// Why.
        reason: Reason,
    },
    /// Never issued here.
    Unknown,
}

/// A revocation list as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// DER (RFC 5280 section 5).
    pub der: Bytes,
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub this_update: Time,
    /// Until when it counts.
    pub next_update: Time,
}
