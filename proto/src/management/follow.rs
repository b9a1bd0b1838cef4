//! Which configuration follows: a pure function of the one before and of signed acts.

use std::collections::HashSet;

use prost::Message;

use super::act::{Act, ActError};
use super::authority::Authority;
use super::change::{ChangeError, make};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{Contents, FieldError};
use crate::schema::configuration::GlobalConfiguration;
use crate::schema::management::SignedAct;

/// Most acts that one configuration puts into force.
pub const MAX_ACTS: usize = 1_000;

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
    if validity.issued.as_millis() < previous.issued_ms {
        return Err(FollowError::Earlier { issued: validity.issued });
    }
    let authority = Authority::of(previous).map_err(|source| FollowError::Result { source })?;
    let mut next = GlobalConfiguration {
        number: previous.number.saturating_add(1),
        previous: Digest::of(&previous.encode_to_vec()).to_bytes(),
        issued_ms: validity.issued.as_millis(),
        valid_until_ms: validity.until.as_millis(),
        acts: Vec::with_capacity(acts.len()),
        ..previous.clone()
    };
    let mut seen = HashSet::with_capacity(acts.len());
    for (i, signed) in acts.iter().enumerate() {
        let position = i + 1;
        let (act, _, _) = authority
            .verify(signed, validity.issued)
            .map_err(|source| FollowError::Act { position, source })?;
        if !seen.insert(act.id()) {
            return Err(FollowError::Repeated { position });
        }
        make(&mut next, act.change()).map_err(|source| FollowError::Change { position, source })?;
        next.acts.push(act.digest().to_bytes());
    }
    check_result(&next)?;
    Ok(next)
}

/// Tries whether `acts` could follow `previous`, in that order, once they are signed: for telling an applicant at once
/// what cannot be carried out. Signatures are not looked at.
pub fn rehearse(previous: &GlobalConfiguration, acts: &[&Act]) -> Result<(), FollowError> {
    let mut next = previous.clone();
    for (i, act) in acts.iter().enumerate() {
        let position = i + 1;
        make(&mut next, act.change()).map_err(|source| FollowError::Change { position, source })?;
    }
    check_result(&next)
}

/// Checks the first configuration of an instance. It rests on no act: people make it together, at a ceremony, and
/// compare its digest.
pub fn check_genesis(configuration: &GlobalConfiguration) -> Result<(), FollowError> {
    if configuration.number != 1 || !configuration.acts.is_empty() {
        let source = FieldError::new("number", "the first configuration has number 1 and no acts");
        return Err(FollowError::Result { source });
    }
    check_result(configuration)
}

fn check_result(configuration: &GlobalConfiguration) -> Result<(), FollowError> {
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
