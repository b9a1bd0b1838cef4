//! What a call is about: what the caller declares, what its route fixes, and how it came in, brought together or refused.

mod rest;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::time::Instant;
use trave_proto::conversation::Topic;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::{ExchangeId, Method, ServerId, ServiceId, SubsystemId};
use trave_proto::message::Code;
use trave_proto::schema::message::RequestHead;

use super::client::Call;
use super::head::{self, Declared, Kind};
use crate::bridge::FromXRoad;
use crate::config::KeepContent;
use rest::Target;

/// Whom a door lets speak, as it was authenticated: never from a header.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The subsystems that it may speak for.
    pub(crate) subsystems: Arc<[SubsystemId]>,
    /// What is kept of its calls.
    pub(crate) keep: KeepContent,
    /// Where it is the security server of an X-Road instance: who may come over the bridge.
    pub(crate) bridge: Option<Arc<FromXRoad>>,
    /// Services of whose answers it wants X-Road's hash of the request.
    pub(crate) hashed: Arc<[ServiceId]>,
}

/// What callers on a route need not say themselves.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) service: ServiceId,
    pub(crate) client: Option<SubsystemId>,
    pub(crate) purpose: Option<Code>,
    pub(crate) legal_basis: Option<Code>,
}

/// The routes, the longest path first.
#[derive(Debug, Default)]
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    pub(crate) fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Self(routes)
    }

    fn of(&self, path: &str) -> Option<&Route> {
        let leads = |route: &&Route| {
            path == route.path || (route.path.ends_with('/') && path.starts_with(&route.path))
        };
        self.0.iter().find(leads)
    }
}

/// A call that may be made: what it is about, and its head as it is signed.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) topic: Topic,
    pub(super) head: RequestHead,
    /// The one security server that is to answer.
    pub(super) security_server: Option<ServerId>,
}

impl Asked {
    /// What the call is about: declared by the caller or its route, and checked against how it came in.
    pub(super) fn of(
        routes: &Routes,
        exchange: ExchangeId,
        call: &Call,
        declared: Declared,
    ) -> Result<Self, Fault> {
        let (caller, parts) = (&call.caller, &call.parts);
        head::check_fields(&parts.headers, Side::Client)?;
        let security_server = declared.security_server.clone();
        match call.kind {
            Kind::Grpc if caller.bridge.is_some() => {
                let why = "this door is a bridge from X-Road, which speaks REST alone";
                Err(Fault::before_call(Reason::InvalidMessage, Side::Client, why))
            }
            Kind::Grpc => {
                let route = routes.of(parts.uri.path());
                let topic = topic(exchange, caller, declared, route)?;
                let topic = Topic { method: Some(method(parts)?), ..topic };
                Ok(Self { topic, head: head::request_head(parts), security_server })
            }
            Kind::Rest => {
                let target = Target::of(routes, parts)?;
                let service = settle(declared.service.clone(), Some(&target.service)).ok_or_else(|| {
                    let why = "the header x-road-service contradicts the path";
                    Fault::before_call(Reason::UnknownService, Side::Client, why)
                })?;
                let declared = Declared { service: Some(service), ..declared };
                let declared = over_bridge(caller, declared, &target.service)?;
                let topic = topic(exchange, caller, declared, target.route)?;
                Ok(Self { topic, head: target.head(routes, parts)?, security_server })
            }
        }
    }
}

/// At a bridge: what X-Road does not say, the bridge declares for those that it lists.
fn over_bridge(caller: &Caller, declared: Declared, service: &ServiceId) -> Result<Declared, Fault> {
    let Some(bridge) = &caller.bridge else { return Ok(declared) };
    let admitted = bridge.admit(declared.bridged_from.clone(), service)?;
    let contradicts = |reason, what: &str| {
        let why = format!("the {what} is not the one for which the bridge asks in this client's place");
        Fault::before_call(reason, Side::Client, why)
    };
    let purpose = settle(declared.purpose, Some(&admitted.purpose))
        .ok_or_else(|| contradicts(Reason::UnknownPurpose, "purpose"))?;
    let legal_basis = settle(declared.legal_basis, Some(&admitted.legal_basis))
        .ok_or_else(|| contradicts(Reason::UnknownLegalBasis, "legal basis"))?;
    Ok(Declared {
        client: admitted.subsystem,
        bridged_from: Some(admitted.client),
        purpose: Some(purpose),
        legal_basis: Some(legal_basis),
        ..declared
    })
}

fn topic(
    exchange: ExchangeId,
    caller: &Caller,
    declared: Declared,
    route: Option<&Route>,
) -> Result<Topic, Fault> {
    let refuse = |reason, why: String| Err(Fault::before_call(reason, Side::Client, why));
    let name = if route.is_some() { "named by the route" } else { "missing" };
    let Some(service) = settle(declared.service, route.map(|route| &route.service)) else {
        return refuse(
            Reason::UnknownService,
            format!("the header x-road-service is {name} or contradicts the route"),
        );
    };
    let client = client(caller, declared.client, route.and_then(|route| route.client.as_ref()))?;
    let Some(purpose) = settle(declared.purpose, route.and_then(|route| route.purpose.as_ref())) else {
        let why = "the purpose is missing, or contradicts the route: give the header trave-purpose";
        return refuse(Reason::UnknownPurpose, why.into());
    };
    let Some(legal_basis) = settle(declared.legal_basis, route.and_then(|route| route.legal_basis.as_ref()))
    else {
        let why = "the legal basis is missing, or contradicts the route: give the header trave-legal-basis";
        return refuse(Reason::UnknownLegalBasis, why.into());
    };
    let route = route.map(|route| route.name.clone());
    let bridged_from = declared.bridged_from;
    Ok(Topic { exchange, client, service, method: None, purpose, legal_basis, route, bridged_from })
}

/// The gRPC method that a path names.
fn method(parts: &Parts) -> Result<Method, Fault> {
    match (parts.uri.path().parse(), parts.uri.query()) {
        (Ok(method), None) => Ok(method),
        _ => {
            let why = "the path is not a gRPC method, /package.Service/Method";
            Err(Fault::before_call(Reason::UnknownMethod, Side::Client, why))
        }
    }
}

/// What the caller and the route say, if they do not contradict each other.
fn settle<T: Clone + PartialEq>(declared: Option<T>, fixed: Option<&T>) -> Option<T> {
    match (declared, fixed) {
        (Some(declared), Some(fixed)) => (declared == *fixed).then_some(declared),
        (declared, fixed) => declared.or_else(|| fixed.cloned()),
    }
}

/// The client of a question that is no exchange, and the one security server that it is for.
pub(crate) fn who_asks(
    caller: &Caller,
    headers: &http::HeaderMap,
) -> Result<(SubsystemId, Option<ServerId>), Fault> {
    let declared = Declared::read(headers)?;
    Ok((client(caller, declared.client, None)?, declared.security_server))
}

/// The client: one that the door lets this caller speak for.
fn client(
    caller: &Caller,
    declared: Option<SubsystemId>,
    fixed: Option<&SubsystemId>,
) -> Result<SubsystemId, Fault> {
    let refuse = |why: String| Err(Fault::before_call(Reason::InvalidClientIdentifier, Side::Client, why));
    let client = match (declared, fixed, &*caller.subsystems) {
        (Some(declared), Some(fixed), _) if declared != *fixed => {
            return refuse(format!("the route is for {fixed}, not for {declared}"));
        }
        (Some(client), ..) => client,
        (None, Some(fixed), _) => fixed.clone(),
        (None, None, [only]) => only.clone(),
        (None, None, _) => return refuse("name the subsystem that asks in the header x-road-client".into()),
    };
    if caller.subsystems.contains(&client) {
        Ok(client)
    } else {
        refuse(format!("whoever signed in at this door does not speak for {client}"))
    }
}

/// The time by which the caller wants its answer; at most `longest` from now.
pub(super) fn deadline(longest: Duration, call: &Call) -> Result<Option<Instant>, Fault> {
    let value = call.parts.headers.get(head::GRPC_TIMEOUT).filter(|_| call.kind == Kind::Grpc);
    let Some(value) = value else { return Ok(None) };
    match head::parse_grpc_timeout(value) {
        Some(timeout) => Ok(Some(Instant::now() + timeout.min(longest))),
        None => Err(Fault::before_call(
            Reason::InvalidMessage,
            Side::Client,
            "the header grpc-timeout is not valid",
        )),
    }
}

/// Client, service, method, purpose and legal basis are values of the catalogue, or the call goes nowhere. Both sides
/// ask this.
pub(super) fn in_catalogue(configuration: &Configuration, topic: &Topic, side: Side) -> Result<(), Fault> {
    let refuse = |reason, why: String| Err(Fault::before_call(reason, side, why));
    if configuration.subsystem(&topic.client).is_none() {
        return refuse(
            Reason::UnknownMember,
            format!("the global configuration does not know {}", topic.client),
        );
    }
    let Some(service) = configuration.service(&topic.service) else {
        return refuse(
            Reason::UnknownService,
            format!("the catalogue does not know the service {}", topic.service),
        );
    };
    if service.is_grpc != topic.method.is_some() {
        let speaks = if service.is_grpc { "speaks gRPC" } else { "speaks REST" };
        return refuse(Reason::UnknownMethod, format!("{} {speaks}, not as this call does", topic.service));
    }
    if let Some(method) = topic.method.as_ref().filter(|method| !service.has_method(method)) {
        return refuse(
            Reason::UnknownMethod,
            format!("the catalogue does not know the method {method} of {}", topic.service),
        );
    }
    if configuration.purpose(topic.purpose.as_str()).is_none()
        || !service.allows_purpose(topic.purpose.as_str())
    {
        let why = format!("{} is not a purpose for which {} may be called", topic.purpose, topic.service);
        return refuse(Reason::UnknownPurpose, why);
    }
    if configuration.legal_basis(topic.legal_basis.as_str()).is_none() {
        return refuse(
            Reason::UnknownLegalBasis,
            format!("the catalogue does not know the legal basis {}", topic.legal_basis),
        );
    }
    Ok(())
}
