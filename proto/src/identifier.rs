//! X-Road's identifiers, parsed once at the door and trusted inside, and the id of an exchange.
//!
//! `INSTANCE/CLASS/MEMBER[/SUBSYSTEM]`, a service `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`, a security server
//! `INSTANCE/CLASS/MEMBER/SERVER`. A part has 1 to 64 characters of `A–Z a–z 0–9 . _ -`, begins with a letter or digit,
//! and upper and lower case differ.

/// Shows an identifier as it is written.
macro_rules! shown_as_written {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

mod x_road;

use std::fmt;
use std::str::FromStr;

use crate::clock::Time;

pub use x_road::{XRoadClientId, XRoadServerId, XRoadServiceId};

/// Longest part of an identifier, in characters.
pub const MAX_PART: usize = 64;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Too few or too many parts.
    #[error("a {what} has {expected} parts between slashes, this has {found}")]
    Parts {
        /// Which identifier was expected.
        what: &'static str,
        /// How many parts it has.
        expected: usize,
        /// How many were found.
        found: usize,
    },
    /// A part is empty, too long, or has a character that is not allowed.
    #[error(
        "part {position} of this {what} is not 1 to 64 characters of A-Z a-z 0-9 . _ - beginning with a letter or digit"
    )]
    Part {
        /// Which identifier was expected.
        what: &'static str,
        /// Which part, from 1.
        position: usize,
    },
    /// A part is not one that X-Road could have.
    #[error(
        "part {position} of this {what} is not 1 to 255 bytes of characters that an X-Road identifier may have, percent-encoded where a URL asks for it"
    )]
    XRoadPart {
        /// Which identifier was expected.
        what: &'static str,
        /// Which part, from 1.
        position: usize,
    },
    /// Not the one spelling that it has here, or too long.
    #[error("this {what} is too long, or not percent-encoded as it must be and no more than that")]
    Spelling {
        /// Which identifier was expected.
        what: &'static str,
    },
    /// Not a UUIDv7.
    #[error("an exchange id is a UUID of version 7 (RFC 9562)")]
    ExchangeId,
    /// Not a gRPC method.
    #[error("a gRPC method reads /package.Service/Method")]
    Method,
}

fn is_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=MAX_PART).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn check(what: &'static str, expected: usize, text: &str) -> Result<(), IdentifierError> {
    // Counted before anything is kept: a hostile text of a million slashes costs one pass.
    let found = text.split('/').count();
    if found != expected {
        return Err(IdentifierError::Parts { what, expected, found });
    }
    match text.split('/').position(|part| !is_part(part)) {
        Some(at) => Err(IdentifierError::Part { what, position: at + 1 }),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $parts:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The identifier as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The instance, its first part.
            pub fn instance(&self) -> &str {
                self.part(0)
            }

            /// The member class, its second part.
            pub fn class(&self) -> &str {
                self.part(1)
            }

            fn part(&self, index: usize) -> &str {
                self.0.split('/').nth(index).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;

            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                check($what, $parts, text)?;
                Ok(Self(text.into()))
            }
        }

        shown_as_written!($name);
    };
}

identifier!(
    /// A member: `INSTANCE/CLASS/MEMBER`.
    MemberId, "member", 3
);
identifier!(
    /// A subsystem: `INSTANCE/CLASS/MEMBER/SUBSYSTEM`.
    SubsystemId, "subsystem", 4
);
identifier!(
    /// A service: `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    ServiceId, "service", 5
);
identifier!(
    /// A security server: `INSTANCE/CLASS/MEMBER/SERVER`.
    ServerId, "security server", 4
);

/// The prefix of an identifier up to its `parts`-th slash. Only for identifiers that were checked.
fn prefix(text: &str, parts: usize) -> &str {
    text.match_indices('/').nth(parts - 1).map_or(text, |(at, _)| &text[..at])
}

impl MemberId {
    /// The member code, its last part.
    pub fn code(&self) -> &str {
        self.part(2)
    }
}

impl SubsystemId {
    /// The subsystem code, its last part.
    pub fn code(&self) -> &str {
        self.part(3)
    }

    /// The member that the subsystem belongs to.
    pub fn member(&self) -> MemberId {
        MemberId(prefix(&self.0, 3).into())
    }
}

impl ServiceId {
    /// The subsystem that offers the service.
    pub fn subsystem(&self) -> SubsystemId {
        SubsystemId(prefix(&self.0, 4).into())
    }

    /// The service code, its last part.
    pub fn code(&self) -> &str {
        self.part(4)
    }
}

impl ServerId {
    /// The member that runs the security server.
    pub fn member(&self) -> MemberId {
        MemberId(prefix(&self.0, 3).into())
    }
}

/// The id of an exchange: a UUIDv7 (RFC 9562 section 5.7), made by the client's security server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(uuid::Uuid);

impl ExchangeId {
    /// A new id from the time and ten random bytes.
    pub fn new(now: Time, random: &[u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
    }

    /// An id as it stands in a manifest: 16 bytes of a UUIDv7.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdentifierError> {
        let id = uuid::Uuid::from_slice(bytes).map_err(|_| IdentifierError::ExchangeId)?;
        Self::checked(id)
    }

    fn checked(id: uuid::Uuid) -> Result<Self, IdentifierError> {
        let v7 = id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122;
        v7.then_some(Self(id)).ok_or(IdentifierError::ExchangeId)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The time at which the id says it was made.
    pub fn time(&self) -> Time {
        let bytes = self.0.as_bytes();
        let millis = bytes[..6].iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        Time::from_millis(millis)
    }
}

impl FromStr for ExchangeId {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        // The form with hyphens alone: one id, one spelling.
        let id = (text.len() == 36).then(|| uuid::Uuid::parse_str(text).ok()).flatten();
        Self::checked(id.ok_or(IdentifierError::ExchangeId)?)
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

impl fmt::Debug for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExchangeId({self})")
    }
}

/// A gRPC method: `/package.Service/Method`, at most 256 characters of `A–Z a–z 0–9 _ .`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Method(std::sync::Arc<str>);

impl Method {
    /// The method as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `pattern` names this method: itself, `/package.Service/*`, or `/*`.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some("/") => true,
            Some(prefix) => prefix.ends_with('/') && self.0.starts_with(prefix),
            None => *self.0 == *pattern,
        }
    }
}

impl FromStr for Method {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        // Names as protobuf has them: no part is empty or made of dots, so no path means something else to a proxy.
        let named = |part: &str| {
            !part.is_empty()
                && !part.as_bytes()[0].is_ascii_digit()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let parts = text.strip_prefix('/').and_then(|rest| rest.split_once('/'));
        match parts {
            Some((service, method))
                if text.len() <= 256 && service.split('.').all(named) && named(method) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(IdentifierError::Method),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whose_and_which() {
        let service: ServiceId = "NORD/MV/gewerberegister/register/auskunft".parse().unwrap();
        assert_eq!(service.subsystem().as_str(), "NORD/MV/gewerberegister/register");
        assert_eq!(service.subsystem().member().as_str(), "NORD/MV/gewerberegister");
        assert_eq!((service.instance(), service.class(), service.code()), ("NORD", "MV", "auskunft"));
    }

    #[test]
    fn what_is_no_identifier_is_refused_with_the_reason() {
        for text in ["", "NORD/SH", "NORD/SH/luebeck/a/b", "a/b/c/d/e/f"] {
            assert!(matches!(text.parse::<SubsystemId>(), Err(IdentifierError::Parts { .. })), "{text}");
        }
        let long = format!("NORD/SH/luebeck/{}", "x".repeat(65));
        for text in ["NORD/SH//amt", "NORD/SH/lübeck/amt", "NORD/SH/luebeck/a b", "NORD/SH/.x/amt", &long] {
            assert!(matches!(text.parse::<SubsystemId>(), Err(IdentifierError::Part { .. })), "{text}");
        }
    }

    #[test]
    fn an_exchange_id_carries_its_time() {
        let id = ExchangeId::new(Time::from_millis(1_795_288_440_005), &[7; 10]);
        assert_eq!(id.time().as_millis(), 1_795_288_440_005);
        assert_eq!(id.to_string().parse::<ExchangeId>(), Ok(id));
        assert_eq!(ExchangeId::from_slice(id.as_bytes()), Ok(id));
        let v4 = "0b0c3b6e-6d0e-4b1b-9d53-0f5a3d3b8a11";
        assert_eq!(v4.parse::<ExchangeId>(), Err(IdentifierError::ExchangeId));
        assert!(id.to_string().replace('-', "").parse::<ExchangeId>().is_err());
    }

    #[test]
    fn methods_match_their_patterns_only() {
        let method: Method = "/gewerbe.v1.Register/Auskunft".parse().unwrap();
        for yes in ["/gewerbe.v1.Register/Auskunft", "/gewerbe.v1.Register/*", "/*"] {
            assert!(method.matches(yes), "{yes}");
        }
        for no in ["*", "", "/gewerbe.v1.Reg*", "/gewerbe.v1.Register/Ausk*", "/gewerbe.v1.Register/Auskunf"]
        {
            assert!(!method.matches(no), "{no}");
        }
        for text in [
            "", "/", "//x", "/a/", "/a/b/c", "a/b", "/a/b%2f", "/a b/c", "/../..", "/a.B/..", "/a..B/c",
            "/.a/b",
        ] {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }
}
