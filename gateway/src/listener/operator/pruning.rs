//! Pruning: archived records leave this server's disk. One person does it, or, where the policy demands two, one applies and
//! another approves.

use tonic::Status;
use trave_host::config::with_causes;
use trave_proto::clock::Time;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{ArchiveAct, PruningDropped, RangePruned, archive_act};
use trave_proto::schema::operator::{
    ApproveResponse, DropPruningRequest, DropPruningResponse, ListPruningsResponse, PruneRequest,
    PruneResponse, PruningEntry,
};

use super::grants::fresh_id;
use super::persons::Person;
use super::{Desk, log_failed, words};
use crate::upkeep::{Application, PruneError};

impl Desk {
    /// Prunes, or applies for it.
    pub(super) async fn prune_log(
        &self,
        request: PruneRequest,
        person: Person,
    ) -> Result<PruneResponse, Status> {
        let reason = words("the reason for pruning", &request.reason)?;
        let waiting = self.policy.two_persons();
        let found = self.upkeep.prunable(Time::from_millis(request.before_ms)).await;
        let (range, stays) = found.map_err(|error| refused(&error))?;
        let range = RangePruned {
            id: fresh_id("p")?,
            reason,
            applied: waiting,
            operator: person.name,
            operator_user: waiting.then_some(person.user),
            ..range
        };
        let (id, first, count) = (range.id.clone(), range.first, range.count);
        let segments = match waiting {
            true => self.apply_for_pruning(range).await?,
            false => self.prune_range(range).await?,
        };
        Ok(PruneResponse { id, waiting, first, count, segments, stays })
    }

    /// Approves what another person applied for, and does it.
    pub(super) async fn approve_pruning(&self, id: &str, person: Person) -> Result<ApproveResponse, Status> {
        let range = self.upkeep.waiting_pruning(id).await.map_err(|error| refused(&error))?;
        if range.operator_user.is_none_or(|user| user == person.user) {
            let why = format!("{} applied for it and cannot approve it: another person must", range.operator);
            return Err(Status::permission_denied(why));
        }
        if range.operator_user.is_some_and(|user| !self.policy.counts(user)) {
            let why = format!("{} applied for it, and is none of operator.users any more", range.operator);
            return Err(Status::failed_precondition(format!("{why}\nhint: somebody else can apply anew")));
        }
        let (approver, approver_user) = (person.name, Some(person.user));
        self.prune_range(RangePruned { applied: false, approver, approver_user, ..range }).await?;
        Ok(ApproveResponse::default())
    }

    /// Prunings that wait for another person.
    pub(super) async fn prunings(&self) -> Result<ListPruningsResponse, Status> {
        let waiting = self.upkeep.prunings().await.map_err(|error| refused(&error))?;
        Ok(ListPruningsResponse { prunings: waiting.into_iter().map(listed).collect() })
    }

    /// Withdraws what somebody applied for.
    pub(super) async fn drop_pruning(
        &self,
        request: DropPruningRequest,
        person: Person,
    ) -> Result<DropPruningResponse, Status> {
        let reason = words("the reason", &request.reason)?;
        let dropped = PruningDropped { id: request.id.clone(), reason, operator: person.name };
        self.upkeep.drop_pruning(dropped).await.map_err(|error| refused(&error))?;
        tracing::info!(prune = request.id, "a pruning that was applied for was dropped");
        Ok(DropPruningResponse {})
    }

    async fn apply_for_pruning(&self, range: RangePruned) -> Result<u64, Status> {
        let act = ArchiveAct { act: Some(archive_act::Act::Pruned(range)) };
        let logged = self.exchanges.recorder.event(LeafEntry::Archive(act), Vec::new()).await;
        let logged = logged.map_err(|error| log_failed(&error))?;
        self.upkeep.archive_changed(logged.get()).await;
        Ok(0)
    }

    async fn prune_range(&self, range: RangePruned) -> Result<u64, Status> {
        let (id, first, count) = (range.id.clone(), range.first, range.count);
        let segments = self.upkeep.prune(range).await.map_err(|error| refused(&error))?;
        tracing::info!(prune = id, first, count, segments, "pruned");
        Ok(segments)
    }
}

fn listed(application: Application) -> PruningEntry {
    let Application { range, since, lapses, here, stays } = application;
    let (earliest_ms, latest_ms) = here.times.unwrap_or_default();
    PruningEntry {
        id: range.id,
        since_ms: since.as_millis(),
        lapses_ms: lapses.as_millis(),
        operator: range.operator,
        reason: range.reason,
        first: range.first,
        count: range.count,
        earliest_ms,
        latest_ms,
        segments: here.segments,
        bytes: here.bytes,
        place: range.place,
        stays,
    }
}

fn refused(error: &PruneError) -> Status {
    match error {
        PruneError::NoArchive | PruneError::Nothing(_) | PruneError::Stays(_) | PruneError::Lapsed(..) => {
            Status::failed_precondition(error.to_string())
        }
        PruneError::Unknown(_) => Status::not_found(error.to_string()),
        PruneError::Log(_) => Status::unavailable(with_causes(error)),
    }
}
