//! Granting: who may call what for which purpose, checked against the catalogue, logged, and then in force at once.

use ring::rand::{SecureRandom, SystemRandom};
use tonic::Status;
use trave_message_log::Logged;
use trave_proto::global_configuration::{Configuration, ServiceEntry};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{GrantChange, Leaf};
use trave_proto::schema::operator::{GrantRequest, GrantResponse, RevokeGrantResponse};

use super::{Desk, log_failed};
use crate::access::{Grant, GrantError};

impl Desk {
    /// Makes a grant; it is in force when this returns.
    pub(super) async fn make_grant(
        &self,
        request: GrantRequest,
        operator: String,
    ) -> Result<GrantResponse, Status> {
        let id = fresh_id()?;
        let change = GrantChange {
            id: id.clone(),
            client: request.client,
            service: request.service,
            method: request.method,
            purposes: request.purposes,
            in_force: true,
            operator,
            legal_bases: request.legal_bases,
        };
        let grant = read(&change)?;
        self.check(&grant)?;
        let _turn = self.changes.lock().await;
        if let Some(same) =
            self.exchanges.access.list().into_iter().find(|other| says_the_same(other, &grant))
        {
            return Err(Status::already_exists(format!("grant {} says the same and is in force", same.id)));
        }
        self.change(change).await?;
        tracing::info!(grant = id, client = %grant.client, service = %grant.service, "granted");
        Ok(GrantResponse { id })
    }

    /// Withdraws a grant; no exchange begins with it when this returns.
    pub(super) async fn withdraw_grant(
        &self,
        id: &str,
        operator: String,
    ) -> Result<RevokeGrantResponse, Status> {
        let _turn = self.changes.lock().await;
        let grant = self.exchanges.access.get(id);
        let grant = grant.ok_or_else(|| Status::not_found(GrantError::Unknown(id.to_owned()).to_string()))?;
        let text = |values: &[trave_proto::message::Code]| values.iter().map(ToString::to_string).collect();
        let change = GrantChange {
            id: grant.id.clone(),
            client: grant.client.to_string(),
            service: grant.service.to_string(),
            method: grant.method.clone(),
            purposes: text(&grant.purposes),
            in_force: false,
            operator,
            legal_bases: text(&grant.legal_bases),
        };
        self.change(change).await?;
        tracing::info!(grant = grant.id, "grant withdrawn");
        Ok(RevokeGrantResponse {})
    }

    /// Logs a change durably, then takes it into force.
    async fn change(&self, change: GrantChange) -> Result<(), Status> {
        let logged: Logged<Leaf> = self
            .exchanges
            .recorder
            .event(LeafEntry::Grant(change), Vec::new())
            .await
            .map_err(|error| log_failed(&error))?;
        self.exchanges.access.apply(logged.get()).map_err(|error| Status::internal(error.to_string()))
    }

    /// A grant that names what the catalogue does not know, or what is not offered here, could never be used.
    fn check(&self, grant: &Grant) -> Result<(), Status> {
        let refuse = |why: String| Err(Status::failed_precondition(why));
        let snapshot = self.exchanges.trust.snapshot();
        let configuration = &snapshot.configuration;
        if configuration.subsystem(&grant.client).is_none() {
            let why = "hint: a registry's administrator registers subsystems";
            return refuse(format!(
                "the global configuration does not know the client {}\n{why}",
                grant.client
            ));
        }
        let Some(service) = configuration.service(&grant.service) else {
            return refuse(format!("the catalogue does not know the service {}", grant.service));
        };
        if self.exchanges.services.get(&grant.service).is_none() {
            let why = "hint: a [[service]] in its configuration offers it";
            return refuse(format!("this security server does not offer {}\n{why}", grant.service));
        }
        if !covers_a_method(&grant.method, service) {
            let hint = match service.is_grpc {
                true => format!("it has {}", service.methods().join(", ")),
                false => "it speaks REST: write /* or an endpoint, as in 'GET /v1/*'".into(),
            };
            return refuse(format!(
                "the catalogue knows no method {} of {}\nhint: {hint}",
                grant.method, grant.service
            ));
        }
        check_codes(grant, service, configuration)
    }
}

fn check_codes(grant: &Grant, service: &ServiceEntry, configuration: &Configuration) -> Result<(), Status> {
    for purpose in &grant.purposes {
        let code = purpose.as_str();
        if configuration.purpose(code).is_none() || !service.allows_purpose(code) {
            let purposes = service.purposes().join(", ");
            return Err(Status::failed_precondition(format!(
                "{code} is not a purpose for which {} may be called\nhint: the catalogue allows {purposes}",
                grant.service
            )));
        }
    }
    for legal_basis in &grant.legal_bases {
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

fn says_the_same(one: &Grant, other: &Grant) -> bool {
    (&one.client, &one.service, &one.method, &one.purposes, &one.legal_bases)
        == (&other.client, &other.service, &other.method, &other.purposes, &other.legal_bases)
}

/// The grant that a change would make, each field checked.
fn read(change: &GrantChange) -> Result<Grant, Status> {
    let leaf = Leaf { version: 1, logged_ms: 0, entry: Some(LeafEntry::Grant(change.clone())) };
    let grant = Grant::from_leaf(&leaf).map_err(|error| Status::invalid_argument(error.to_string()))?;
    grant.ok_or_else(|| Status::internal("this is no grant"))
}

fn fresh_id() -> Result<String, Status> {
    let mut random = [0; 6];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Status::internal("this server's system gives no random bytes"))?;
    Ok(format!("g-{}", hex::encode(random)))
}
