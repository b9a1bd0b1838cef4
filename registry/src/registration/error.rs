//! Why the registry declines what it is asked for, in words for the person who asks.

use trave_proto::management::{ActError, ActId, FollowError};

use crate::state::JournalError;

/// Why the registry declines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    /// The first configuration awaits a cosigner's signature.
    #[error("the registry has not published its first configuration yet; a cosigner's signature is missing")]
    NothingPublished,
    /// The key at the other end is no administrator's.
    #[error("this key is no administrator's in the configuration in force")]
    NoAdministrator,
    /// Signed by another key than the one that signed in.
    #[error("the act is signed with another key than the one you signed in with; sign it yourself")]
    OtherKey,
    /// The act, or the signature on it.
    #[error("the act is refused")]
    Act(#[source] ActError),
    /// The act cannot be carried out.
    #[error("the act cannot be carried out as things stand")]
    Follow(#[source] FollowError),
    /// There is an act with this id already.
    #[error("the act {0} is known already; a new act has a new id")]
    Known(ActId),
    /// Made in the future, as it says.
    #[error("the act says that it was made in the future; compare the clocks")]
    Future,
    /// No such act.
    #[error("there is no act {0}")]
    Unknown(String),
    /// It is not at the stage for this.
    #[error("the act {id} is {stage}, so it cannot be {wanted}")]
    Stage {
        /// The act.
        id: ActId,
        /// Where it stands.
        stage: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// It cannot be taken back any more.
    #[error(
        "the act {0} stands in the configuration that the cosigners are being asked to sign and cannot be rejected any \
         more; apply for an act that undoes it"
    )]
    Proposed(ActId),
    /// Too many acts, or tokens, wait already.
    #[error("too many {0} are open; finish or reject some first")]
    TooMany(&'static str),
    /// What was sent is not as it must be.
    #[error("{0}")]
    Malformed(&'static str),
    /// The security server is not registered.
    #[error("{0} is no registered security server; register it first")]
    UnknownServer(String),
    /// The token or its seal. Which of the two, a stranger is not told.
    #[error("this enrolment token is not known here, or the request is not sealed with it")]
    Token,
    /// The token has expired.
    #[error("this enrolment token has expired; ask an administrator for a new one")]
    TokenExpired,
    /// The token was used, for other keys.
    #[error(
        "this enrolment token was used already, for other keys; if that was not you, tell an administrator at once"
    )]
    TokenUsed,
    /// The registry cannot write to its log: nothing was changed.
    #[error("the registry cannot write to its log; nothing was changed")]
    Journal(#[source] JournalError),
    /// No random numbers.
    #[error("the registry's operating system gives no random numbers")]
    Random,
}
