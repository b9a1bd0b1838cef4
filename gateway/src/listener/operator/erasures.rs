//! Erasing what the log keeps of exchanges or of a person: applied for by one, approved by another where the policy demands
//! two, and told to the security servers that hold the other half.

use std::collections::BTreeSet;

use tonic::Status;
use trave_message_log::{Concerned, ErasedPerson};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::PseudonymPlace;
use trave_proto::schema::operator::{
    ApproveResponse, DropErasureRequest, DropErasureResponse, ErasePersonRequest, ErasePersonResponse,
    EraseRequest, EraseResponse, ErasureEntry, ListErasuresResponse,
};

use super::grants::fresh_id;
use super::persons::Person;
use super::{Desk, exchange_id, reading, words};
use crate::erasures::{Decided, Notice};
use crate::listener::citizen;
use crate::proof::ExportError;

/// What became of an application.
struct Applied {
    id: String,
    waiting: bool,
    erased: ErasedPerson,
    telling: Vec<String>,
}

impl Desk {
    /// Erases the contents of an exchange, or applies for that.
    pub(super) async fn erase_exchange(
        &self,
        request: EraseRequest,
        person: Person,
    ) -> Result<EraseResponse, Status> {
        let reason = words("the reason for erasing", &request.reason)?;
        let id = exchange_id(&request.exchange_id)?;
        let (log, generations) = (self.exchanges.recorder.log().clone(), self.generations());
        let known = reading(move || Ok(!log.places(id)?.is_empty() || generations.of(id)?.is_some()));
        if !known.await? {
            return Err(Status::not_found(ExportError::Unknown(id).to_string()));
        }
        let notice = Notice { exchanges: vec![id], reason, ..Notice::default() };
        let still = self.upkeep.retaining.still().await;
        let Applied { id, waiting, erased, telling } = self.apply(notice, person, still).await?;
        Ok(EraseResponse { contents: erased.contents, id, waiting, telling })
    }

    /// Erases what concerns a person, or applies for that.
    pub(super) async fn erase_all_of(
        &self,
        request: ErasePersonRequest,
        operator: Person,
    ) -> Result<ErasePersonResponse, Status> {
        let reason = words("the reason for erasing", &request.reason)?;
        let person = citizen::person(&request.person)?;
        // Until it is applied for, nothing is written anew: a place is one in a file.
        let still = self.upkeep.retaining.still().await;
        let (log, generations) = (self.exchanges.recorder.log().clone(), self.generations());
        let concerned = reading(move || {
            let mut concerned: Vec<_> = log
                .of_person(&person, 0, usize::MAX)?
                .iter()
                .map(|one| (one.exchange, one.place()))
                .collect();
            for earlier in generations.all() {
                let found = earlier.log().of_person(&person, 0, usize::MAX)?;
                let place = |one: &Concerned| PseudonymPlace { generation: earlier.number, ..one.place() };
                concerned.extend(found.iter().map(|one| (one.exchange, place(one))));
            }
            Ok(concerned)
        });
        let concerned = concerned.await?;
        if concerned.is_empty() {
            return Ok(ErasePersonResponse::default());
        }
        let exchanges: BTreeSet<ExchangeId> = concerned.iter().map(|(exchange, _)| *exchange).collect();
        let persons = concerned.iter().map(|(_, place)| *place).collect();
        let exchanges = exchanges.into_iter().collect();
        let notice = Notice { exchanges, persons, reason, ..Notice::default() };
        let Applied { id, waiting, erased, telling } = self.apply(notice, operator, still).await?;
        let ErasedPerson { exchanges, contents, pseudonyms } = erased;
        Ok(ErasePersonResponse { exchanges, contents, pseudonyms, id, waiting, telling })
    }

    /// Nothing is written anew and no hold comes into force meanwhile.
    async fn apply(
        &self,
        notice: Notice,
        person: Person,
        _still: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Applied, Status> {
        self.must_not_be_held(&notice).await?;
        let (id, waiting) = (fresh_id("e")?, self.policy.two_persons());
        let (operator, operator_user) = (person.name.clone(), waiting.then_some(person.user));
        let notice = Notice { id: id.clone(), operator, operator_user, ..notice };
        let erasing = self.upkeep.erasing();
        erasing.apply(&notice).await.map_err(|error| error.refusal())?;
        if waiting {
            tracing::info!(id, "an erasure was applied for");
            return Ok(Applied { id, waiting, erased: ErasedPerson::default(), telling: Vec::new() });
        }
        let decided = Decided { by: String::new(), user: None };
        let (erased, telling) = erasing.approve(&id, decided).await.map_err(|error| error.refusal())?;
        Ok(Applied { id, waiting, erased, telling })
    }

    /// Approves what another person applied for, or what another security server told.
    pub(super) async fn approve_erasure(&self, id: &str, person: Person) -> Result<ApproveResponse, Status> {
        let erasing = self.upkeep.erasing();
        let notice = erasing.waiting(id).map_err(|error| error.refusal())?;
        let (applicant, user) = (&notice.operator, notice.operator_user);
        if user == Some(person.user) {
            let why = format!("{applicant} applied for it and cannot approve it: another person must");
            return Err(Status::permission_denied(why));
        }
        let (told, counts) = (!notice.peer.is_empty(), user.is_some_and(|user| self.policy.counts(user)));
        if told && self.policy.two_persons() && !counts {
            // It takes two, also where another server asks for it: this is the first.
            let supported = erasing.support(id, (person.name, person.user)).await;
            supported.map_err(|error| error.refusal())?;
            tracing::info!(id, "an erasure that another security server told waits for another person");
            return Ok(ApproveResponse { waiting: true });
        }
        if user.is_some_and(|user| !self.policy.counts(user)) {
            let why = format!("{applicant} applied for it, and is none of operator.users any more");
            return Err(Status::failed_precondition(why));
        }
        if self.policy.two_persons() && user.is_none() && notice.peer.is_empty() {
            let why = "it was applied for when one person was enough: withdraw it, and apply for it again";
            return Err(Status::failed_precondition(why));
        }
        let _still = self.upkeep.retaining.still().await;
        self.must_not_be_held(&notice).await?;
        let decided = Decided { by: person.name, user: Some(person.user) };
        let (erased, _) = erasing.approve(id, decided).await.map_err(|error| error.refusal())?;
        tracing::info!(id, contents = erased.contents, "an erasure was approved and carried out");
        Ok(ApproveResponse::default())
    }

    /// Withdraws what was applied for, or declines what another server told.
    pub(super) async fn drop_erasure(
        &self,
        request: DropErasureRequest,
        person: Person,
    ) -> Result<DropErasureResponse, Status> {
        let reason = words("the reason", &request.reason)?;
        let dropped = self.upkeep.erasing().withdraw(&request.id, reason, person.name).await;
        dropped.map_err(|error| error.refusal())?;
        Ok(DropErasureResponse {})
    }

    /// Erasures that are not over.
    pub(super) fn erasures(&self) -> ListErasuresResponse {
        let entry = |notice: &Notice, state: &str| ErasureEntry {
            id: notice.id.clone(),
            state: state.into(),
            since_ms: notice.since.as_millis(),
            server: notice.peer.clone(),
            operator: notice.operator.clone(),
            reason: notice.reason.clone(),
            exchange_ids: notice.exchanges.iter().map(|id| id.as_bytes().to_vec().into()).collect(),
        };
        let erasures = self.upkeep.erasing().look(|all| {
            let waiting = all.all_waiting().map(|notice| match notice.peer.is_empty() {
                true => entry(notice, "waits for another person's approval"),
                false if notice.operator.is_empty() => {
                    entry(notice, "erased at another security server; waits for a decision here")
                }
                false => {
                    entry(notice, "erased at another security server; waits for another person's approval")
                }
            });
            let telling = all.to_tell();
            let telling =
                telling.iter().map(|notice| entry(notice, "erased here; that server is to be told"));
            waiting.chain(telling).collect()
        });
        ListErasuresResponse { erasures }
    }

    async fn must_not_be_held(&self, notice: &Notice) -> Result<(), Status> {
        match self.upkeep.held(notice).await.map_err(|error| error.refusal())? {
            None => Ok(()),
            Some(hold) => Err(Status::failed_precondition(format!(
                "the hold {hold} keeps some of it, and nothing is erased\nhint: `hold list` says why; `hold lift` ends it"
            ))),
        }
    }
}
