//! How the registry's state changes: acts that one administrator applies for and another approves, the configuration
//! that follows from them, and the enrolment of a security server.
//!
//! A configuration is a pure function of the one before and of signed acts ([`follow`]), so whoever holds both — the
//! cosigner of the other state, an auditor — derives the same bytes and needs to believe nobody.

mod follow;
mod change;
mod describe;
mod authority;
mod act;
mod enrolment;
mod token;

pub use act::{Act, ActError, ActId, MAX_ACT, MAX_LIFETIME, Role};
pub use authority::Authority;
pub use change::ChangeError;
pub use describe::{describe, describe_against};
pub use enrolment::{EnrolmentKeys, enrolment_mac, status_mac, verify_enrolment_mac, verify_status_mac};
pub use follow::{FollowError, MAX_ACTS, Succession, Validity, check_genesis, follow, rehearse};
pub use token::{EnrolmentToken, Secret, TokenError};

#[cfg(test)]
mod testing;
