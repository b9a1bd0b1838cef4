//! Granting: who may call what for which purpose, checked against the catalogue, logged, and then in force at once; or,
//! where the policy demands two persons, when another one approves.

use ring::rand::{SecureRandom, SystemRandom};
use tonic::Status;
use trave_message_log::Logged;
use trave_proto::access::{Principal, Subject, Terms};
use trave_proto::global_configuration::{Configuration, ServiceEntry};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{GrantChange, GroupChange, Leaf};
use trave_proto::schema::operator::{
    ApproveResponse, GrantEntry, GrantRequest, GrantResponse, RevokeGrantResponse,
};

use super::persons::Person;
use super::{Desk, log_failed};
use crate::access::{AccessError, Grant, Waiting};

impl Desk {
    /// Makes a grant; it is in force when this returns, or waits for another person's approval.
    pub(super) async fn make_grant(
        &self,
        request: GrantRequest,
        person: Person,
    ) -> Result<GrantResponse, Status> {
        let (id, waiting) = (fresh_id("g")?, self.policy.two_persons());
        let change = GrantChange {
            id: id.clone(),
            client: request.client,
            service: request.service,
            method: request.method,
            purposes: request.purposes,
            in_force: !waiting,
            applied: waiting,
            operator: person.name,
            operator_user: waiting.then_some(person.user),
            legal_bases: request.legal_bases,
            not_before_ms: request.not_before_ms,
            not_after_ms: request.not_after_ms,
            rate_limit: request.rate_limit,
            exchanges: request.exchanges,
            ..GrantChange::default()
        };
        let _turn = self.changes.lock().await;
        self.check(&change)?;
        if let Some(same) = self.same_as(&change) {
            return Err(Status::already_exists(same));
        }
        self.change(LeafEntry::Grant(change)).await?;
        tracing::info!(grant = id, waiting, "granted");
        Ok(GrantResponse { id, waiting })
    }

    /// Withdraws a grant, or what was applied for; no exchange begins with it when this returns.
    pub(super) async fn withdraw_grant(
        &self,
        id: &str,
        person: Person,
    ) -> Result<RevokeGrantResponse, Status> {
        let _turn = self.changes.lock().await;
        let access = &self.exchanges.access;
        let entry = match (access.get(id), access.waits(id)) {
            (Some(grant), _) | (None, Some(Waiting::Grant(grant))) => LeafEntry::Grant(GrantChange {
                in_force: false,
                applied: false,
                operator: person.name,
                operator_user: None,
                approver: String::new(),
                approver_user: None,
                ..grant.change.clone()
            }),
            (None, Some(Waiting::Group(group))) => LeafEntry::Group(GroupChange {
                applied: false,
                dropped: true,
                operator: person.name,
                operator_user: None,
                ..group.change.clone()
            }),
            (None, None) => return Err(Status::not_found(AccessError::Unknown(id.to_owned()).to_string())),
        };
        self.change(entry).await?;
        tracing::info!(grant = id, "grant withdrawn");
        Ok(RevokeGrantResponse {})
    }

    /// Puts into force what another person applied for.
    pub(super) async fn approve_change(&self, id: &str, person: Person) -> Result<ApproveResponse, Status> {
        let _turn = self.changes.lock().await;
        let waits = self.exchanges.access.waits(id);
        let waits = waits.ok_or_else(|| Status::not_found(format!("nothing waits for approval as {id}")))?;
        let (applicant, applicant_user) = match &waits {
            Waiting::Grant(grant) => (&grant.change.operator, grant.change.operator_user),
            Waiting::Group(group) => (&group.change.operator, group.change.operator_user),
        };
        if applicant_user.is_none_or(|user| user == person.user) {
            let why = format!("{applicant} applied for it and cannot approve it: another person must");
            return Err(Status::permission_denied(why));
        }
        if applicant_user.is_some_and(|user| !self.policy.counts(user)) {
            let why = format!("{applicant} applied for it, and is none of operator.users any more");
            let hint = format!("hint: `revoke {id}` drops it; somebody else can apply anew");
            return Err(Status::failed_precondition(format!("{why}\n{hint}")));
        }
        let (approver, approver_user) = (person.name, Some(person.user));
        let entry = match &waits {
            Waiting::Grant(grant) => {
                let change = grant.change.clone();
                self.check(&change)?;
                LeafEntry::Grant(GrantChange {
                    in_force: true,
                    applied: false,
                    approver,
                    approver_user,
                    ..change
                })
            }
            Waiting::Group(group) => {
                self.check_members(&group.members)?;
                self.check_new(&group.code)?;
                LeafEntry::Group(GroupChange {
                    applied: false,
                    approver,
                    approver_user,
                    ..group.change.clone()
                })
            }
        };
        self.change(entry).await?;
        tracing::info!(id, "approved");
        Ok(ApproveResponse::default())
    }

    /// Logs a change durably, then takes it into force.
    pub(super) async fn change(&self, change: LeafEntry) -> Result<(), Status> {
        let logged: Logged<Leaf> =
            self.exchanges.recorder.event(change, Vec::new()).await.map_err(|error| log_failed(&error))?;
        self.exchanges.access.apply(logged.get()).map_err(|error| Status::internal(error.to_string()))
    }

    /// A grant in force, or one that waits, that says the same.
    fn same_as(&self, change: &GrantChange) -> Option<String> {
        let access = &self.exchanges.access;
        if let Some(same) = access.list().iter().find(|other| says_the_same(&other.change, change)) {
            return Some(format!("grant {} says the same and is in force", same.id()));
        }
        access.waiting().iter().find_map(|waits| match waits {
            Waiting::Grant(other) if says_the_same(&other.change, change) => {
                Some(format!("grant {} says the same and waits for approval", other.id()))
            }
            _ => None,
        })
    }

    /// A grant that names what the catalogue does not know, or what is not offered here, could never be used.
    fn check(&self, change: &GrantChange) -> Result<(), Status> {
        let terms = Terms::parse(change).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let refuse = |why: String| Err(Status::failed_precondition(why));
        let snapshot = self.exchanges.trust.snapshot();
        let configuration = &snapshot.configuration;
        self.check_subject(&terms.subject, configuration)?;
        let Some(service) = configuration.service(&terms.service) else {
            return refuse(format!("the catalogue does not know the service {}", terms.service));
        };
        if self.exchanges.service(&terms.service).is_none() {
            let why = "hint: a [[service]] in its configuration offers it";
            return refuse(format!("this security server does not offer {}\n{why}", terms.service));
        }
        if !covers_a_method(&terms.method, service) {
            let hint = match service.is_grpc {
                true => format!("it has {}", service.methods().join(", ")),
                false => "it speaks REST: write /* or an endpoint, as in 'GET /v1/*'".into(),
            };
            return refuse(format!(
                "the catalogue knows no method {} of {}\nhint: {hint}",
                terms.method, terms.service
            ));
        }
        let now = self.exchanges.clock.now();
        if let Some(until) = terms.not_after.filter(|until| *until < now) {
            return refuse(format!("it would have held until {until}, which is over"));
        }
        check_codes(&terms, service, configuration)
    }

    fn check_subject(&self, subject: &Subject, configuration: &Configuration) -> Result<(), Status> {
        let (known, hint) = match subject {
            Subject::Principal(principal) => return check_principal(principal, configuration),
            Subject::LocalGroup(code) => {
                (self.exchanges.access.group(code).is_some(), "`group add` makes one on this security server")
            }
            Subject::GlobalGroup(code) => (
                configuration.group(code.as_str()).is_some(),
                "two of the registry's administrators make one",
            ),
        };
        match known {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!("there is no {subject}\nhint: {hint}"))),
        }
    }
}

/// A member or subsystem of the global configuration.
pub(super) fn check_principal(principal: &Principal, configuration: &Configuration) -> Result<(), Status> {
    let known = match principal {
        Principal::Member(member) => configuration.member(member).is_some(),
        Principal::Subsystem(subsystem) => configuration.subsystem(subsystem).is_some(),
    };
    if known {
        return Ok(());
    }
    let hint = "hint: a registry's administrator registers members and subsystems";
    let why = format!("the global configuration does not know the client {principal}\n{hint}");
    Err(Status::failed_precondition(why))
}

/// A grant, as it is listed.
pub(super) fn listed(grant: &Grant, waiting: bool) -> GrantEntry {
    let change = grant.change.clone();
    GrantEntry {
        id: change.id,
        client: change.client,
        service: change.service,
        method: change.method,
        purposes: change.purposes,
        legal_bases: change.legal_bases,
        not_before_ms: change.not_before_ms,
        not_after_ms: change.not_after_ms,
        rate_limit: change.rate_limit,
        exchanges: change.exchanges,
        waiting,
    }
}

fn check_codes(terms: &Terms, service: &ServiceEntry, configuration: &Configuration) -> Result<(), Status> {
    for purpose in &terms.purposes {
        let code = purpose.as_str();
        if configuration.purpose(code).is_none() || !service.allows_purpose(code) {
            let purposes = service.purposes().join(", ");
            return Err(Status::failed_precondition(format!(
                "{code} is not a purpose for which {} may be called\nhint: the catalogue allows {purposes}",
                terms.service
            )));
        }
    }
    for legal_basis in &terms.legal_bases {
        if configuration.legal_basis(legal_basis.as_str()).is_none() {
            return Err(Status::failed_precondition(format!(
                "the catalogue does not know the legal basis {legal_basis}"
            )));
        }
    }
    Ok(())
}

/// Whether some method of the catalogue can match the pattern.
fn covers_a_method(pattern: &str, service: &ServiceEntry) -> bool {
    let stem = |pattern: &str| pattern.strip_suffix('*').map(str::to_owned);
    let overlap = |method: &String| match (stem(pattern), stem(method)) {
        (None, None) => pattern == method,
        (Some(granted), None) => method.starts_with(&granted),
        (None, Some(known)) => pattern.starts_with(&known),
        (Some(granted), Some(known)) => granted.starts_with(&known) || known.starts_with(&granted),
    };
    match service.is_grpc {
        true => service.methods().iter().any(overlap),
        // What a REST service has is for its register to say: any endpoint may be granted.
        false => pattern == "/*" || pattern.contains(' '),
    }
}

/// Whether two grants are alike in all but their making.
fn says_the_same(one: &GrantChange, other: &GrantChange) -> bool {
    let bare = |change: &GrantChange| GrantChange {
        id: String::new(),
        in_force: true,
        applied: false,
        operator: String::new(),
        operator_user: None,
        approver: String::new(),
        approver_user: None,
        ..change.clone()
    };
    bare(one) == bare(other)
}

/// A new id for a grant or for a change of a group.
pub(super) fn fresh_id(kind: &str) -> Result<String, Status> {
    let mut random = [0; 6];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Status::internal("this server's system gives no random bytes"))?;
    Ok(format!("{kind}-{}", hex::encode(random)))
}
