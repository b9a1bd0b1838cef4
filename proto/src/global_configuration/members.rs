//! Who takes part: the organisations of the instance and their subsystems.

use std::collections::HashMap;

use super::text::{FieldError, identifier, require, require_ascending, require_text};
use crate::identifier::{MemberId, SubsystemId};
use crate::schema::configuration as schema;

pub(super) const MAX_MEMBERS: usize = 10_000;
const MAX_SUBSYSTEMS: usize = 256;
pub(super) const MAX_NAME: usize = 256;

/// An organisation of the instance.
#[derive(Debug, Clone)]
pub struct MemberEntry {
    /// Its identifier.
    pub id: MemberId,
    /// Its name, for people.
    pub name: String,
    /// Its subsystems, ascending.
    pub subsystems: Vec<SubsystemId>,
}

/// A part of a member that calls or offers services.
#[derive(Debug, Clone)]
pub struct SubsystemEntry {
    /// Its identifier.
    pub id: SubsystemId,
    /// Its name, for people.
    pub name: String,
}

/// The members and subsystems of a configuration.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) members: HashMap<MemberId, MemberEntry>,
    pub(super) subsystems: HashMap<SubsystemId, SubsystemEntry>,
}

impl Members {
    pub(super) fn check(list: &[schema::Member], instance: &str) -> Result<Self, FieldError> {
        require_ascending(list, MAX_MEMBERS, "members", |member| member.id.as_str())?;
        let mut checked = Self::default();
        for (i, member) in list.iter().enumerate() {
            checked.add(member, instance, &format!("members[{i}]"))?;
        }
        Ok(checked)
    }

    fn add(&mut self, member: &schema::Member, instance: &str, at: &str) -> Result<(), FieldError> {
        let id: MemberId = identifier(&member.id, instance, || format!("{at}.id"))?;
        require_text(&member.name, MAX_NAME, || format!("{at}.name"))?;
        let at = format!("{at}.subsystems");
        require_ascending(&member.subsystems, MAX_SUBSYSTEMS, &at, |subsystem| subsystem.id.as_str())?;
        let mut subsystems = Vec::with_capacity(member.subsystems.len());
        for (i, subsystem) in member.subsystems.iter().enumerate() {
            let subsystem_id: SubsystemId = identifier(&subsystem.id, instance, || format!("{at}[{i}].id"))?;
            require(subsystem_id.member() == id, || format!("{at}[{i}].id"), "is not of this member")?;
            require_text(&subsystem.name, MAX_NAME, || format!("{at}[{i}].name"))?;
            subsystems.push(subsystem_id.clone());
            let entry = SubsystemEntry { id: subsystem_id.clone(), name: subsystem.name.clone() };
            self.subsystems.insert(subsystem_id, entry);
        }
        let entry = MemberEntry { id: id.clone(), name: member.name.clone(), subsystems };
        self.members.insert(id, entry);
        Ok(())
    }
}
