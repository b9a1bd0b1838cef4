//! Which configuration follows: a pure function of the one before and of signed acts.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;

use super::act::{Act, ActError, ActId};
use super::authority::Authority;
use super::change::{ChangeError, make};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{Contents, FieldError, MAX_CONFIGURATION};
use crate::schema::configuration::GlobalConfiguration;
use crate::schema::management::SignedAct;

/// Most acts that one configuration puts into force.
pub const MAX_ACTS: usize = 1_000;

/// Longest configuration that follows from acts, in bytes: signatures, and what a renewal grows by, must still find room
/// within [`MAX_CONFIGURATION`], or the instance could never publish again.
const MAX_LENGTH: usize = MAX_CONFIGURATION - 64 * 1024;
/// The same without acts: a renewal is never refused for what the acts before it were allowed.
const MAX_RENEWED: usize = MAX_CONFIGURATION - 32 * 1024;

/// Why no configuration follows.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// An act, or a signature on it, is refused.
    #[error("act number {position} of the list is refused")]
    Act {
        /// Its position, from 1.
        position: usize,
        /// Why.
        source: ActError,
    },
    /// An act changes what is not there, or what it may not change.
    #[error("act number {position} of the list cannot be carried out")]
    Change {
        /// Its position, from 1.
        position: usize,
        /// Why.
        source: ChangeError,
    },
    /// An act is in the list twice.
    #[error("act number {position} of the list is there twice")]
    Repeated {
        /// The position of the second, from 1.
        position: usize,
    },
    /// More than [`MAX_ACTS`].
    #[error("{count} acts are more than a configuration takes")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The result would not be a valid configuration.
    #[error("the configuration that would follow does not hold together")]
    Result {
        /// Why.
        source: FieldError,
    },
    /// Longer than can be published.
    #[error(
        "the configuration would have {length} bytes, more than the {limit} that can be published; remove entries"
    )]
    TooLong {
        /// How long it would be, in bytes.
        length: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// After it, nobody could approve anything any more.
    #[error("{problem}: nothing could be approved any more")]
    LockedOut {
        /// What is missing.
        problem: &'static str,
    },
    /// Issued before its predecessor.
    #[error("the configuration would be issued at {issued}, before its predecessor")]
    Earlier {
        /// When it would be issued.
        issued: Time,
    },
}

/// From when and until when a configuration holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When it is issued.
    pub issued: Time,
    /// Until when it may be used.
    pub until: Time,
}

/// The configuration that follows `previous` by `acts`, in that order. Without acts it is the same again, with a new
/// number and validity.
///
/// Acts are judged by the administrators and the policy of `previous`. That no act came into force in an *earlier*
/// configuration already, the caller must remember until it expires: the configurations hold digests only.
pub fn follow(
    previous: &GlobalConfiguration,
    acts: &[SignedAct],
    validity: Validity,
) -> Result<GlobalConfiguration, FollowError> {
    if acts.len() > MAX_ACTS {
        return Err(FollowError::TooMany { count: acts.len() });
    }
    let mut succession = Succession::new(previous, validity)?;
    acts.iter().try_for_each(|act| succession.add(act))?;
    succession.finish()
}

/// The configuration that follows, made act by act. What comes of it in the end is the same as with [`follow`].
#[derive(Debug, Clone)]
pub struct Succession {
    authority: Arc<Authority>,
    issued: Time,
    next: GlobalConfiguration,
    seen: HashSet<ActId>,
}

impl Succession {
    /// The configuration after `previous`, without acts as yet.
    pub fn new(previous: &GlobalConfiguration, validity: Validity) -> Result<Self, FollowError> {
        if validity.issued.as_millis() < previous.issued_ms {
            return Err(FollowError::Earlier { issued: validity.issued });
        }
        let authority = Authority::of(previous).map_err(|source| FollowError::Result { source })?;
        let next = GlobalConfiguration {
            number: previous.number.saturating_add(1),
            previous: Digest::of(&previous.encode_to_vec()).to_bytes(),
            issued_ms: validity.issued.as_millis(),
            valid_until_ms: validity.until.as_millis(),
            acts: Vec::new(),
            ..previous.clone()
        };
        Ok(Self { authority: Arc::new(authority), issued: validity.issued, next, seen: HashSet::new() })
    }

    /// Puts one more act into it. After an error it is as it was before. Whether the result holds together, only
    /// [`Self::check`] and [`Self::finish`] say.
    pub fn add(&mut self, signed: &SignedAct) -> Result<(), FollowError> {
        let position = self.next.acts.len() + 1;
        if position > MAX_ACTS {
            return Err(FollowError::TooMany { count: position });
        }
        let (act, _, _) = self
            .authority
            .verify(signed, self.issued)
            .map_err(|source| FollowError::Act { position, source })?;
        if self.seen.contains(&act.id()) {
            return Err(FollowError::Repeated { position });
        }
        make(&mut self.next, act.change()).map_err(|source| FollowError::Change { position, source })?;
        self.seen.insert(act.id());
        self.next.acts.push(act.digest().to_bytes());
        Ok(())
    }

    /// Whether what it is so far holds together.
    pub fn check(&self) -> Result<(), FollowError> {
        let limit = if self.next.acts.is_empty() { MAX_RENEWED } else { MAX_LENGTH };
        check_result(&self.next, limit)
    }

    /// The configuration.
    pub fn finish(self) -> Result<GlobalConfiguration, FollowError> {
        self.check()?;
        Ok(self.next)
    }
}

/// Tries whether `acts` could follow `previous`, in that order, once they are signed: for telling an applicant at once
/// what cannot be carried out. Signatures are not looked at.
pub fn rehearse(previous: &GlobalConfiguration, acts: &[&Act]) -> Result<(), FollowError> {
    let mut next = previous.clone();
    for (i, act) in acts.iter().enumerate() {
        let position = i + 1;
        make(&mut next, act.change()).map_err(|source| FollowError::Change { position, source })?;
    }
    check_result(&next, MAX_LENGTH)
}

/// Checks the first configuration of an instance. It rests on no act: people make it together, at a ceremony, and
/// compare its digest.
pub fn check_genesis(configuration: &GlobalConfiguration) -> Result<(), FollowError> {
    if configuration.number != 1 || !configuration.acts.is_empty() {
        let source = FieldError::new("number", "the first configuration has number 1 and no acts");
        return Err(FollowError::Result { source });
    }
    check_result(configuration, MAX_LENGTH)
}

fn check_result(configuration: &GlobalConfiguration, limit: usize) -> Result<(), FollowError> {
    let length = configuration.encoded_len();
    if length > limit {
        return Err(FollowError::TooLong { length, limit });
    }
    let contents = Contents::check(configuration).map_err(|source| FollowError::Result { source })?;
    if contents.administrators.len() < 2 {
        return Err(FollowError::LockedOut { problem: "fewer than two administrators would be left" });
    }
    let classes: HashSet<_> = contents.administrators.values().map(|person| &person.class).collect();
    if contents.policy.approval_by_other_class && classes.len() < 2 {
        let problem = "the policy demands an approver of another class, and there would be one class only";
        return Err(FollowError::LockedOut { problem });
    }
    Ok(())
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
