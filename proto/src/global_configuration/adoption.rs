//! Whether a verified configuration may take the place of the one in use: never an expired one, never an older one,
//! never a second one of the same number.

use super::configuration::Configuration;
use crate::clock::Time;
use crate::digest::Digest;

/// Why a verified configuration is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdoptionError {
    /// Its validity has passed.
    #[error("configuration {number} was valid until {valid_until}; the registry must issue a new one")]
    Expired {
        /// Its number.
        number: u64,
        /// Until when it was valid.
        valid_until: Time,
    },
    /// An older one than the one in use.
    #[error("configuration {number} is older than number {adopted}, which is in use")]
    Rollback {
        /// Its number.
        number: u64,
        /// Number of the one in use.
        adopted: u64,
    },
    /// A second configuration of one number: somebody holds enough configuration keys and deceives. An alarm for
    /// people, never a thing to retry.
    #[error(
        "ALARM: two signed configurations have the number {number}, with the digests {adopted} (in use) and {found}; \
         keep both and tell the administrators of every state"
    )]
    Fork {
        /// The number.
        number: u64,
        /// Digest of the one in use.
        adopted: Digest,
        /// Digest of the other.
        found: Digest,
    },
    /// Not the next one after the one given.
    #[error("configuration {number} does not directly follow number {previous}")]
    NotNext {
        /// Its number.
        number: u64,
        /// Number of the one before.
        previous: u64,
    },
    /// The next one by number, but of another instance, issued earlier, or not built upon the one given. Where both are
    /// signed as the anchor demands, this is a fork too.
    #[error("ALARM: configuration {number} was not built upon the configuration {previous} before it")]
    OtherChain {
        /// Its number.
        number: u64,
        /// Digest of the one before.
        previous: Digest,
    },
}

impl AdoptionError {
    /// Whether people must be told: somebody with enough configuration keys deceives.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Fork { .. } | Self::OtherChain { .. })
    }
}

impl Configuration {
    /// Requires that this configuration directly follows `previous`: its number is one more, and it names its digest.
    pub fn follows(&self, previous: &Self) -> Result<(), AdoptionError> {
        if self.number() != previous.number().saturating_add(1) {
            return Err(AdoptionError::NotNext { number: self.number(), previous: previous.number() });
        }
        let chained = self.previous() == Some(previous.digest())
            && self.instance() == previous.instance()
            && self.issued() >= previous.issued();
        if !chained {
            return Err(AdoptionError::OtherChain { number: self.number(), previous: previous.digest() });
        }
        Ok(())
    }

    /// Requires that this configuration may be used at `now` by whoever uses `adopted` so far: not expired, not older,
    /// and where it has the same number, the same. Where the number is the next one, it must also [follow](Self::follows).
    pub fn check_current(&self, now: Time, adopted: Option<&Self>) -> Result<(), AdoptionError> {
        if let Some(adopted) = adopted {
            self.check_against(adopted)?;
        }
        if now > self.valid_until() {
            let (number, valid_until) = (self.number(), self.valid_until());
            return Err(AdoptionError::Expired { number, valid_until });
        }
        Ok(())
    }

    fn check_against(&self, adopted: &Self) -> Result<(), AdoptionError> {
        let number = self.number();
        if number < adopted.number() {
            return Err(AdoptionError::Rollback { number, adopted: adopted.number() });
        }
        if number == adopted.number() {
            let (ours, found) = (adopted.digest(), self.digest());
            let same = ours == found;
            return if same { Ok(()) } else { Err(AdoptionError::Fork { number, adopted: ours, found }) };
        }
        if number == adopted.number().saturating_add(1) { self.follows(adopted) } else { Ok(()) }
    }
}
