//! Whom a grant can be for: a subsystem, a member with all its subsystems, or a group of these.

use std::fmt;
use std::str::FromStr;

use crate::identifier::{IdentifierError, MemberId, SubsystemId};
use crate::message::Code;

/// Whoever can belong to a group: a member, with all its subsystems, or one subsystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `INSTANCE/CLASS/MEMBER`
    Member(MemberId),
    /// `INSTANCE/CLASS/MEMBER/SUBSYSTEM`
    Subsystem(SubsystemId),
}

impl Principal {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Member(member) => member.as_str(),
            Self::Subsystem(subsystem) => subsystem.as_str(),
        }
    }

    /// Whether `client` is this subsystem, or one of this member's.
    pub fn covers(&self, client: &SubsystemId) -> bool {
        match self {
            Self::Subsystem(subsystem) => subsystem == client,
            Self::Member(member) => {
                let rest = client.as_str().strip_prefix(member.as_str());
                rest.is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}

impl FromStr for Principal {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        match text.split('/').count() {
            3 => text.parse().map(Self::Member),
            _ => text.parse().map(Self::Subsystem),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Neither a member nor a subsystem.
    #[error(
        "it is neither INSTANCE/CLASS/MEMBER[/SUBSYSTEM] nor local-group:CODE nor global-group:CODE: {0}"
    )]
    Principal(IdentifierError),
    /// The code of a group is none.
    #[error("the code of a group has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Code,
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A member or a subsystem.
    Principal(Principal),
    /// `local-group:CODE`: a group of the provider's security server.
    LocalGroup(Code),
    /// `global-group:CODE`: a group of the global configuration.
    GlobalGroup(Code),
}

const LOCAL: &str = "local-group:";
const GLOBAL: &str = "global-group:";

impl Subject {
    /// Whether `client` is meant.
    pub fn covers(&self, client: &SubsystemId, members: &dyn Membership) -> bool {
        match self {
            Self::Principal(principal) => principal.covers(client),
            Self::LocalGroup(group) => members.local(group).is_some_and(|members| members.contain(client)),
            Self::GlobalGroup(group) => members.global(group).is_some_and(|members| members.contain(client)),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let code = |text: &str| text.parse::<Code>().map_err(|_| SubjectError::Code);
        match (text.strip_prefix(LOCAL), text.strip_prefix(GLOBAL)) {
            (Some(group), _) => code(group).map(Self::LocalGroup),
            (None, Some(group)) => code(group).map(Self::GlobalGroup),
            (None, None) => text.parse().map(Self::Principal).map_err(SubjectError::Principal),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(principal) => write!(f, "{principal}"),
            Self::LocalGroup(group) => write!(f, "{LOCAL}{group}"),
            Self::GlobalGroup(group) => write!(f, "{GLOBAL}{group}"),
        }
    }
}

/// Who belongs to which group.
pub trait Membership: fmt::Debug {
    /// The members of a group of the provider's security server.
    fn local(&self, group: &Code) -> Option<&Members>;
    /// The members of a group of the global configuration.
    fn global(&self, group: &Code) -> Option<&Members>;
}

/// Those who belong to a group: each once, ascending as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(Vec<Principal>);

/// Why a list is none of members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// One is neither a member nor a subsystem.
    #[error("{value:?} is neither a member nor a subsystem: {source}")]
    Principal {
        /// What was given.
        value: String,
        /// Why.
        source: IdentifierError,
    },
    /// They are not in order, or one is there twice.
    #[error("{0:?} is out of order, or there already")]
    Order(String),
}

impl Members {
    /// Reads a list that stands in order.
    pub fn parse(list: &[String]) -> Result<Self, MembersError> {
        if let Some(pair) = list.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(MembersError::Order(pair[1].clone()));
        }
        let read = |text: &String| {
            text.parse().map_err(|source| MembersError::Principal { value: text.clone(), source })
        };
        list.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `client` belongs to the group, itself or by its member.
    pub fn contain(&self, client: &SubsystemId) -> bool {
        let text = client.as_str();
        let member = text.rsplit_once('/').map_or(text, |(member, _)| member);
        let has = |text: &str| self.0.binary_search_by(|one| one.as_str().cmp(text)).is_ok();
        has(text) || has(member)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Principal> {
        self.0.iter()
    }
}
