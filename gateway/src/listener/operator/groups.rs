//! Local groups: who belongs together for the grants of this security server.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Status;
use trave_proto::access::{Members, Subject};
use trave_proto::message::Code;
use trave_proto::schema::log::GroupChange;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::{
    ChangeGroupRequest, ChangeGroupResponse, GroupEntry, ListGroupsResponse,
};

use super::Desk;
use super::grants::{check_principal, fresh_id};
use super::persons::Person;
use crate::access::{Grant, Waiting};

/// Most that belong to one group: its record goes into proofs.
const MOST: usize = 400;

impl Desk {
    /// Changes a group; in force when this returns, or waiting for another person's approval. Whoever only goes out, goes
    /// out at once.
    pub(super) async fn change_group(
        &self,
        request: ChangeGroupRequest,
        person: Person,
    ) -> Result<ChangeGroupResponse, Status> {
        let code: Code = request.group.parse().map_err(|_| {
            Status::invalid_argument("the code of a group has 1 to 64 characters of A-Z a-z 0-9 . _ -")
        })?;
        let _turn = self.changes.lock().await;
        let group = self.exchanges.access.group(&code);
        let before = group.map(|group| group.change.members.clone()).unwrap_or_default();
        let members = changed(&before, &request)?;
        let checked =
            Members::parse(&members).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let widened = !request.add.is_empty();
        if widened {
            self.check_members(&checked)?;
            self.check_new(&code)?;
        }
        let (id, waiting) = (fresh_id("c")?, widened && self.policy.two_persons());
        let change = GroupChange {
            id: id.clone(),
            group: request.group,
            members,
            applied: waiting,
            operator: person.name,
            operator_user: waiting.then_some(person.user),
            ..GroupChange::default()
        };
        self.change(LeafEntry::Group(change)).await?;
        tracing::info!(group = %code, change = id, waiting, "group changed");
        Ok(ChangeGroupResponse { id, waiting })
    }

    /// A group that is made begins without grants: what was granted to one of this code that was dissolved would else come
    /// into force again, for others.
    pub(super) fn check_new(&self, code: &Code) -> Result<(), Status> {
        let access = &self.exchanges.access;
        if access.group(code).is_some() {
            return Ok(());
        }
        let (in_force, waiting) = (access.list(), access.waiting());
        let waits = waiting.iter().filter_map(|waits| match waits {
            Waiting::Grant(grant) => Some(grant),
            Waiting::Group(_) => None,
        });
        let of_it =
            |grant: &&Arc<Grant>| matches!(&grant.terms.subject, Subject::LocalGroup(of) if of == code);
        let left: Vec<_> = in_force.iter().chain(waits).filter(of_it).map(|grant| grant.id()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let why = format!("there was a group {code} before, and {} was granted to it", left.join(", "));
        let hint = "hint: `revoke` each of them first, or choose another code";
        Err(Status::failed_precondition(format!("{why}\n{hint}")))
    }

    /// Whoever is not registered could never call.
    pub(super) fn check_members(&self, members: &Members) -> Result<(), Status> {
        let snapshot = self.exchanges.trust.snapshot();
        members.iter().try_for_each(|member| check_principal(member, &snapshot.configuration))
    }

    /// The groups of this security server and of the instance, and what waits.
    pub(super) fn groups(&self) -> ListGroupsResponse {
        let access = &self.exchanges.access;
        let text = |members: &Members| members.iter().map(ToString::to_string).collect();
        let entry = |code: &Code, members: &Members, waiting: &str| GroupEntry {
            group: Subject::LocalGroup(code.clone()).to_string(),
            members: text(members),
            waiting: waiting.into(),
        };
        let mut groups: Vec<_> =
            access.groups().iter().map(|group| entry(&group.code, &group.members, "")).collect();
        groups.extend(access.waiting().iter().filter_map(|waits| match waits {
            Waiting::Group(group) => Some(entry(&group.code, &group.members, &group.change.id)),
            Waiting::Grant(_) => None,
        }));
        let snapshot = self.exchanges.trust.snapshot();
        groups.extend(snapshot.configuration.groups().map(|group| GroupEntry {
            group: format!("global-group:{}", group.code),
            members: text(&group.members),
            waiting: String::new(),
        }));
        ListGroupsResponse { groups }
    }
}

/// All who belong to it after the change, ascending.
fn changed(before: &[String], request: &ChangeGroupRequest) -> Result<Vec<String>, Status> {
    let mut members: BTreeSet<String> = before.iter().cloned().collect();
    if request.dissolve {
        members.clear();
    }
    for member in &request.remove {
        if !members.remove(member) {
            return Err(Status::not_found(format!("{member} does not belong to {}", request.group)));
        }
    }
    members.extend(request.add.iter().cloned());
    if members.len() > MOST {
        return Err(Status::invalid_argument(format!("a group has at most {MOST} members")));
    }
    let members: Vec<_> = members.into_iter().collect();
    if members == before {
        return Err(Status::already_exists(format!("nothing of {} changes by it", request.group)));
    }
    Ok(members)
}
