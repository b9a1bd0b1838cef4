//! An act: one change to the registry's state, in the exact bytes that administrators sign.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::clock::Time;
use crate::digest::{Digest, tag};
use crate::encoding::{EncodingError, decode_canonical};
use crate::schema::management::{self as schema, ActSignature, act::Change};

const VERSION: u32 = 1;
/// Longest encoding of an act, in bytes: a member with as many subsystems as it may have.
pub const MAX_ACT: usize = 256 * 1024;
/// Longest time between an act's creation and its expiry: so long must used ids be remembered.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why an act, or a signature on it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Not the one encoding of an act.
    #[error("the act cannot be read")]
    Encoding {
        /// Why.
        source: EncodingError,
    },
    /// A field that is not as it must be.
    #[error("the act is malformed: {problem}")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
    },
    /// An act for another instance.
    #[error("the act is for the instance {found:?}, this one is {expected:?}")]
    Instance {
        /// This instance.
        expected: String,
        /// The act's.
        found: String,
    },
    /// It expired before it came into force.
    #[error("the act {id} expired at {expired}; apply for it again")]
    Expired {
        /// The act.
        id: ActId,
        /// When it expired.
        expired: Time,
    },
    /// Somebody who is no administrator in the configuration before, or nobody at all.
    #[error("the act's {role} is not a listed administrator")]
    Unlisted {
        /// Applicant or approver.
        role: Role,
    },
    /// A signature that the named administrator did not make.
    #[error("the signature of the {role} {name} does not hold")]
    Signature {
        /// Applicant or approver.
        role: Role,
        /// The administrator.
        name: String,
    },
    /// One person may not both apply and approve.
    #[error("{name} applied for this act and cannot approve it; ask another administrator")]
    SamePerson {
        /// The administrator.
        name: String,
    },
    /// The policy demands an approver of another class.
    #[error("applicant and approver both act for {class}; the policy demands an approver of another class")]
    SameClass {
        /// The class of both.
        class: String,
    },
}

/// The id of an act: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActId([u8; 16]);

impl ActId {
    /// From 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it stands in a message; none if it has not 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 32 hexadecimal digits, as it is displayed.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Self(bytes))
    }

    /// The 16 bytes as a message holds them.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for ActId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ActId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActId({self})")
    }
}

/// In which capacity an administrator signs. Each has a tag of its own: an application never passes for an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who wants the change.
    Applicant,
    /// Who agrees.
    Approver,
}

impl Role {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Applicant => tag::ACT_APPLIED,
            Self::Approver => tag::ACT_APPROVED,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applicant => "applicant",
            Self::Approver => "approver",
        })
    }
}

/// An act whose form was checked. Who signed it is another question: see [`super::Authority`].
#[derive(Debug, Clone)]
pub struct Act {
    id: ActId,
    instance: String,
    expires: Time,
    created: Time,
    change: Change,
    bytes: Bytes,
}

impl Act {
    /// A new act: `change`, to be in force at the latest `lifetime` after `created`.
    pub fn new(
        instance: &str,
        change: Change,
        id: ActId,
        created: Time,
        lifetime: Duration,
    ) -> Result<Self, ActError> {
        let act = schema::Act {
            version: VERSION,
            instance: instance.into(),
            id: id.to_bytes(),
            created_ms: created.as_millis(),
            expires_ms: created.plus(lifetime).as_millis(),
            change: Some(change),
        };
        Self::check(act.clone(), Bytes::from(act.encode_to_vec()))
    }

    /// Reads an act in the bytes that are signed.
    pub fn parse(bytes: &Bytes) -> Result<Self, ActError> {
        if bytes.len() > MAX_ACT {
            return Err(ActError::Malformed { problem: "it is longer than 256 KiB" });
        }
        let act = decode_canonical("act", bytes.clone()).map_err(|source| ActError::Encoding { source })?;
        Self::check(act, bytes.clone())
    }

    fn check(act: schema::Act, bytes: Bytes) -> Result<Self, ActError> {
        let malformed = |problem| ActError::Malformed { problem };
        if act.version != VERSION {
            return Err(malformed("its version is not 1, the only one known here"));
        }
        if bytes.len() > MAX_ACT {
            return Err(malformed("it is longer than 256 KiB"));
        }
        let id = ActId::from_slice(&act.id).ok_or(malformed("its id has not 16 bytes"))?;
        let (created, expires) = (Time::from_millis(act.created_ms), Time::from_millis(act.expires_ms));
        if act.created_ms < 0 || expires <= created || expires.since(created) > MAX_LIFETIME {
            return Err(malformed("it does not expire within 30 days of its creation"));
        }
        let change = act.change.ok_or(malformed("it changes nothing known here"))?;
        Ok(Self { id, instance: act.instance, expires, created, change, bytes })
    }

    /// Its id: no act comes into force twice.
    pub fn id(&self) -> ActId {
        self.id
    }

    /// The instance for which it is meant.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// When it was made, as its applicant says.
    pub fn created(&self) -> Time {
        self.created
    }

    /// An act that is not in force by then never will be.
    pub fn expires(&self) -> Time {
        self.expires
    }

    /// What it changes.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The encoding that is signed.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the encoding: how a configuration names it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What an administrator signs in this role.
    pub fn signed_bytes(&self, role: Role) -> Vec<u8> {
        [role.tag(), &self.bytes].concat()
    }

    /// An administrator's signature in this role. `sign` makes an ECDSA P-256 signature over the SHA-256 of what it is
    /// given (ASN.1), with the key of this SubjectPublicKeyInfo (DER).
    pub fn sign<E>(
        &self,
        role: Role,
        public_key_info: &[u8],
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<ActSignature, E> {
        let value = sign(&self.signed_bytes(role))?;
        Ok(ActSignature { key: Digest::of(public_key_info).to_bytes(), value: value.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(lifetime: Duration) -> Result<Act, ActError> {
        let change = Change::RemoveMember("NORD/SH/luebeck".into());
        Act::new("NORD", change, ActId::from_bytes([1; 16]), Time::from_millis(1_000), lifetime)
    }

    #[test]
    fn an_act_reads_back_from_its_bytes() {
        let act = act(Duration::from_secs(60)).unwrap();
        let read = Act::parse(act.bytes()).unwrap();
        assert_eq!((read.id(), read.digest(), read.change()), (act.id(), act.digest(), act.change()));
        assert_eq!(ActId::from_hex(&act.id().to_string()), Some(act.id()));
        assert_ne!(act.signed_bytes(Role::Applicant), act.signed_bytes(Role::Approver));
    }

    #[test]
    fn malformed_acts_are_refused() {
        for lifetime in [Duration::ZERO, MAX_LIFETIME + Duration::from_millis(1)] {
            assert!(matches!(act(lifetime), Err(ActError::Malformed { .. })), "{lifetime:?}");
        }
        let good = act(Duration::from_secs(60)).unwrap();
        let mut doubled = good.bytes().to_vec();
        doubled.extend_from_slice(&[0x08, 1]);
        assert!(matches!(Act::parse(&doubled.into()), Err(ActError::Encoding { .. })));
        let decoded = schema::Act::decode(good.bytes().clone()).unwrap();
        let alter: [fn(&mut schema::Act); 4] = [
            |act| act.version = 2,
            |act| act.id = Bytes::from_static(&[0; 15]),
            |act| act.change = None,
            |act| act.created_ms = -1,
        ];
        for alter in alter {
            let mut altered = decoded.clone();
            alter(&mut altered);
            let refused = Act::parse(&altered.encode_to_vec().into());
            assert!(matches!(refused, Err(ActError::Malformed { .. })), "{refused:?}");
        }
    }
}
