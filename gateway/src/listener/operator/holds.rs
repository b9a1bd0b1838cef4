//! Holding: what no schedule overwrites, and why. A hold holds from the moment that it is applied for; ending it needs two
//! persons where the policy demands two.

use bytes::Bytes;
use tonic::Status;
use trave_proto::access::Principal;
use trave_proto::clock::Time;
use trave_proto::identifier::{ExchangeId, ServiceId};
use trave_proto::schema::log::Hold;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::{
    ApproveResponse, HoldEntry, LiftHoldRequest, LiftHoldResponse, ListHoldsResponse, SetHoldRequest,
    SetHoldResponse,
};
use trave_proto::search::given;

use super::grants::fresh_id;
use super::persons::Person;
use super::{Desk, exchange_id, log_failed, reading, words};
use crate::proof::ExportError;
use crate::retention::{Hold as Standing, HoldError};

/// Most exchanges that one hold names.
const MOST: usize = 1_000;

impl Desk {
    /// Sets a hold; everything that it concerns and that is still there is held when this returns.
    pub(super) async fn set_hold(
        &self,
        request: SetHoldRequest,
        person: Person,
    ) -> Result<SetHoldResponse, Status> {
        let reason = words("the reason for the hold", &request.reason)?;
        self.check_hold(&request).await?;
        let (id, waiting) = (fresh_id("h")?, self.policy.two_persons());
        let hold = Hold {
            id: id.clone(),
            exchange_ids: request.exchange_ids,
            client: request.client.unwrap_or_default(),
            service: request.service.unwrap_or_default(),
            from_ms: request.from_ms,
            to_ms: request.to_ms,
            reason,
            applied: waiting,
            operator: person.name,
            operator_user: waiting.then_some(person.user),
            ..Hold::default()
        };
        let _turn = self.changes.lock().await;
        self.change_hold(hold).await?;
        tracing::info!(hold = id, waiting, "held");
        Ok(SetHoldResponse { id, waiting })
    }

    /// Ends a hold, or applies for that.
    pub(super) async fn lift_hold(
        &self,
        request: LiftHoldRequest,
        person: Person,
    ) -> Result<LiftHoldResponse, Status> {
        let reason = words("the reason for ending the hold", &request.reason)?;
        let _turn = self.changes.lock().await;
        let standing = self.hold(&request.id)?;
        // What nobody has approved needs nobody to go.
        let waiting = self.policy.two_persons() && !standing.set.applied;
        let lifted = Hold {
            id: request.id.clone(),
            reason,
            lifted: true,
            applied: waiting,
            operator: person.name,
            operator_user: waiting.then_some(person.user),
            ..Hold::default()
        };
        self.change_hold(lifted).await?;
        tracing::info!(hold = request.id, waiting, "hold ended");
        Ok(LiftHoldResponse { waiting })
    }

    /// Approves what another person applied for: the hold, or its end.
    pub(super) async fn approve_hold(&self, id: &str, person: Person) -> Result<ApproveResponse, Status> {
        let _turn = self.changes.lock().await;
        let standing = self.hold(id)?;
        let waits = match standing.lifting {
            Some(lifting) => lifting,
            None if standing.set.applied => standing.set,
            None => {
                return Err(Status::failed_precondition(HoldError::NothingWaits(id.to_owned()).to_string()));
            }
        };
        let applicant = &waits.operator;
        if waits.operator_user.is_none_or(|user| user == person.user) {
            let why = format!("{applicant} applied for it and cannot approve it: another person must");
            return Err(Status::permission_denied(why));
        }
        if waits.operator_user.is_some_and(|user| !self.policy.counts(user)) {
            let why = format!("{applicant} applied for it, and is none of operator.users any more");
            return Err(Status::failed_precondition(why));
        }
        let (approver, approver_user) = (person.name, Some(person.user));
        self.change_hold(Hold { applied: false, approver, approver_user, ..waits }).await?;
        tracing::info!(hold = id, "approved");
        Ok(ApproveResponse::default())
    }

    /// The holds that have not ended.
    pub(super) fn holds(&self) -> ListHoldsResponse {
        let (holds, now) = (self.upkeep.retaining.holds(), self.exchanges.clock.now());
        let entry = |hold: &Standing| HoldEntry {
            hold: Some(hold.set.clone()),
            since_ms: hold.since.as_millis(),
            state: state(hold, now).into(),
        };
        ListHoldsResponse { holds: holds.all().map(entry).collect() }
    }

    fn hold(&self, id: &str) -> Result<Standing, Status> {
        let holds = self.upkeep.retaining.holds();
        holds.get(id).cloned().map_err(|error| Status::not_found(error.to_string()))
    }

    async fn change_hold(&self, hold: Hold) -> Result<(), Status> {
        let logged = self.exchanges.recorder.event(LeafEntry::Hold(hold), Vec::new()).await;
        let logged = logged.map_err(|error| log_failed(&error))?;
        self.upkeep.retaining.apply(logged.get()).await;
        Ok(())
    }

    async fn check_hold(&self, request: &SetHoldRequest) -> Result<(), Status> {
        let refuse = |why: &str| Err(Status::invalid_argument(why.to_owned()));
        let text =
            |name, text| given(name, text).map_err(|empty| Status::invalid_argument(empty.to_string()));
        let client = text("client", request.client.as_deref())?;
        let service = text("service", request.service.as_deref())?;
        let others =
            client.is_some() || service.is_some() || request.from_ms.is_some() || request.to_ms.is_some();
        match (request.exchange_ids.len(), others) {
            (0, false) => {
                return refuse(
                    "a hold of everything is none\nhint: name exchanges, a client, a service or a time",
                );
            }
            (1.., true) => return refuse("a hold names exchanges, or what else they have in common"),
            (count, _) if count > MOST => return refuse("a hold names at most 1,000 exchanges"),
            _ => {}
        }
        if request.from_ms.zip(request.to_ms).is_some_and(|(from, to)| from >= to) {
            return refuse("the hold ends before it begins");
        }
        if client.is_some_and(|client| client.parse::<Principal>().is_err()) {
            return refuse("the client is neither a member nor a subsystem");
        }
        if service.is_some_and(|service| service.parse::<ServiceId>().is_err()) {
            return refuse("the service is not one");
        }
        let ids: Vec<ExchangeId> =
            request.exchange_ids.iter().map(|id: &Bytes| exchange_id(id)).collect::<Result<_, _>>()?;
        let log = self.exchanges.recorder.log().clone();
        let unknown = reading(move || {
            for id in ids {
                if log.places(id)?.is_empty() {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        });
        match unknown.await? {
            Some(id) => Err(Status::not_found(ExportError::Unknown(id).to_string())),
            None => Ok(()),
        }
    }
}

fn state(hold: &Standing, now: Time) -> &'static str {
    match (hold.set.applied, hold.holds(now), hold.lifting.is_some()) {
        (_, true, true) => "holds; its end waits for approval",
        (false, ..) => "holds",
        (true, true, _) => "holds for 14 days; waits for approval",
        (true, false, _) => "holds no longer: nobody approved it in 14 days",
    }
}
