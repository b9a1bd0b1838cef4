//! Global groups: those to whom a provider anywhere in the instance can grant something together.

use std::collections::HashMap;

use super::members::{MAX_NAME, Members as Registered};
use super::text::{FieldError, is_code, require, require_text};
use crate::access::{Members, Principal};
use crate::schema::configuration as schema;

const MAX_GROUPS: usize = 1_000;
const MAX_IN_GROUP: usize = 1_000;

/// A global group.
#[derive(Debug, Clone)]
pub struct GroupEntry {
    /// Its code, as grants name it.
    pub code: String,
    /// What those in it have in common, for people.
    pub name: String,
    /// Who belongs to it.
    pub members: Members,
}

pub(super) fn check_groups(
    list: &[schema::Group],
    registered: &Registered,
) -> Result<HashMap<String, GroupEntry>, FieldError> {
    super::text::require_ascending(list, MAX_GROUPS, "groups", |group| group.code.as_str())?;
    let mut groups = HashMap::with_capacity(list.len());
    for (i, group) in list.iter().enumerate() {
        let at = format!("groups[{i}]");
        require(is_code(&group.code), || format!("{at}.code"), "is not a code")?;
        require_text(&group.name, MAX_NAME, || format!("{at}.name"))?;
        let at = format!("{at}.members");
        require(group.members.len() <= MAX_IN_GROUP, || at.clone(), "are more than 1000")?;
        let members =
            Members::parse(&group.members).map_err(|error| FieldError::new(&at, error.to_string()))?;
        for (j, member) in members.iter().enumerate() {
            let known = match member {
                Principal::Member(id) => registered.members.contains_key(id),
                Principal::Subsystem(id) => registered.subsystems.contains_key(id),
            };
            require(known, || format!("{at}[{j}]"), "is not registered")?;
        }
        let schema::Group { code, name, .. } = group.clone();
        groups.insert(code.clone(), GroupEntry { code, name, members });
    }
    Ok(groups)
}
