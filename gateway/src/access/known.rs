//! What the message log says of access: the grants in force, the local groups, and what waits for a second person. The log
//! is the truth, this is its view.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message;
use trave_message_log::Artefact;
use trave_proto::access::{Members, MembersError, Terms, TermsError};
use trave_proto::identifier::ServiceId;
use trave_proto::message::Code;
use trave_proto::schema::log::{GrantChange, GroupChange, Leaf, leaf::Entry};

use super::allowance::Allowance;

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A field of a grant is not of its form.
    #[error(transparent)]
    Terms(TermsError),
    /// The code of a group is none.
    #[error("{0:?} is no code of a group: 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Group(String),
    /// The members of a group are none.
    #[error(transparent)]
    Members(MembersError),
    /// Nothing of this id.
    #[error("there is no grant {0}")]
    Unknown(String),
}

/// One grant.
#[derive(Debug)]
pub struct Grant {
    /// Whom it allows what.
    pub terms: Terms,
    /// As it was logged.
    pub change: GrantChange,
    /// The leaf that made it, which proofs carry.
    pub(crate) leaf: Artefact,
    pub(super) allowance: Allowance,
}

impl Grant {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.change.id
    }

    /// The grant that `change`, logged as `leaf`, makes or applies for.
    fn read(change: &GrantChange, leaf: &Leaf) -> Result<Self, AccessError> {
        let terms = Terms::parse(change).map_err(AccessError::Terms)?;
        let leaf = Artefact::new(leaf.encode_to_vec().into());
        Ok(Self { terms, change: change.clone(), leaf, allowance: Allowance::default() })
    }
}

/// One local group.
#[derive(Debug)]
pub struct Group {
    /// Its code.
    pub code: Code,
    /// Who belongs to it.
    pub members: Members,
    /// As it was logged.
    pub change: GroupChange,
    /// The leaf with its members, which proofs carry.
    pub(crate) leaf: Artefact,
}

impl Group {
    fn read(change: &GroupChange, leaf: &Leaf) -> Result<Self, AccessError> {
        let code = change.group.parse().map_err(|_| AccessError::Group(change.group.clone()))?;
        let members = Members::parse(&change.members).map_err(AccessError::Members)?;
        let leaf = Artefact::new(leaf.encode_to_vec().into());
        Ok(Self { code, members, change: change.clone(), leaf })
    }
}

/// What waits for another person's approval.
#[derive(Debug, Clone)]
pub enum Waiting {
    /// A grant.
    Grant(Arc<Grant>),
    /// A change of a local group.
    Group(Arc<Group>),
}

/// All that the log says of access.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub(super) grants: BTreeMap<String, Arc<Grant>>,
    pub(super) groups: BTreeMap<Code, Arc<Group>>,
    pub(super) waiting: BTreeMap<String, Waiting>,
    /// The grants in force again, by what they are for; made by [`Known::indexed`].
    by_service: HashMap<ServiceId, Vec<Arc<Grant>>>,
}

impl Known {
    /// Takes over one record of the log, in the log's order. Others than those about access change nothing.
    pub fn take(&mut self, leaf: &Leaf) -> Result<(), AccessError> {
        match &leaf.entry {
            Some(Entry::Grant(change)) => self.take_grant(change, leaf),
            Some(Entry::Group(change)) => self.take_group(change, leaf),
            _ => Ok(()),
        }
    }

    fn take_grant(&mut self, change: &GrantChange, leaf: &Leaf) -> Result<(), AccessError> {
        let id = change.id.clone();
        if change.in_force || change.applied {
            let grant = Arc::new(Grant::read(change, leaf)?);
            let waited = self.waiting.remove(&id);
            match change.applied {
                true => drop(self.waiting.insert(id, Waiting::Grant(grant))),
                false => drop(self.grants.insert(id, grant)),
            }
            drop(waited);
            return Ok(());
        }
        let known = self.grants.remove(&id).is_some() | self.waiting.remove(&id).is_some();
        if known { Ok(()) } else { Err(AccessError::Unknown(id)) }
    }

    fn take_group(&mut self, change: &GroupChange, leaf: &Leaf) -> Result<(), AccessError> {
        if change.dropped {
            let dropped = self.waiting.remove(&change.id);
            return dropped.map(drop).ok_or_else(|| AccessError::Unknown(change.id.clone()));
        }
        let group = Arc::new(Group::read(change, leaf)?);
        if change.applied {
            self.waiting.insert(change.id.clone(), Waiting::Group(group));
            return Ok(());
        }
        // What was applied for was applied for to the group as it was.
        self.waiting.retain(|_, waits| !matches!(waits, Waiting::Group(other) if other.code == group.code));
        let code = group.code.clone();
        match change.members.is_empty() {
            true => drop(self.groups.remove(&code)),
            false => drop(self.groups.insert(code, group)),
        }
        Ok(())
    }

    /// The same, to be looked up by service.
    pub(super) fn indexed(mut self) -> Self {
        self.by_service.clear();
        for grant in self.grants.values() {
            self.by_service.entry(grant.terms.service.clone()).or_default().push(Arc::clone(grant));
        }
        self
    }

    /// The grants in force for a service.
    pub(super) fn of(&self, service: &ServiceId) -> &[Arc<Grant>] {
        self.by_service.get(service).map_or(&[], Vec::as_slice)
    }
}
