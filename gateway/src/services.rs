//! The registers behind this security server: where each service is, and the connection to it.

mod backend;
mod description;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use trave_host::client::{ConnectError, was_refused};
use trave_host::tls::{self, Http, Identity, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ServiceId, SubsystemId};
use trave_proto::schema::operator::BackendStanding;
use trave_proto::schema::transport::{OfferedEndpoint, RegisterReached};

use crate::bridge::ToXRoad;
use crate::config::{self, KeepContent};
use crate::relayed::Relayed;
use crate::subject::Subject;

use backend::{Backends, DESTINATION};
pub(crate) use backend::{Held, Standing, ToRegister};
pub(crate) use description::Description;

/// One service and its register.
#[derive(Debug)]
pub(crate) struct Service {
    id: ServiceId,
    over_tls: bool,
    /// Of REST: the path before all others; none of gRPC.
    base: Option<String>,
    backends: Backends,
    description: Option<Description>,
    /// Where the register is a service of an X-Road instance.
    bridge: Option<ToXRoad>,
    /// Where its requests name the person concerned.
    pub(crate) subject: Option<Arc<Subject>>,
    pub(crate) keep: KeepContent,
    pub(crate) time_out: Duration,
}

/// What the files say that the configuration names, by service.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Digests of the registers' public keys.
    pub(crate) pins: HashMap<ServiceId, Vec<Digest>>,
    /// What is shown to them.
    pub(crate) identities: HashMap<ServiceId, Identity>,
    pub(crate) descriptions: HashMap<ServiceId, Description>,
}

/// The services that are offered here.
#[derive(Debug, Default)]
pub(crate) struct Services(HashMap<ServiceId, Arc<Service>>);

impl Services {
    /// From the configuration, and what was read from the files that it names.
    pub(crate) fn new(
        configured: &[config::Service],
        mut files: Files,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let mut services = HashMap::new();
        for service in configured {
            let Ok(register) = service.register() else { continue };
            let http1 = matches!(register.rest, Some((_, false)));
            let http = if http1 { Http::One } else { Http::Two };
            let pinned = files.pins.get(&service.id.0).map(|pin| Arc::new(Pinned::new(pin.iter().copied())));
            let shown = files.identities.remove(&service.id.0).map(Arc::new);
            let tls = pinned.map(|pin| tls::Client::new(shown, pin, http, Arc::clone(clock))).transpose()?;
            let bridge = service.x_road().map(ToXRoad::new);
            let (id, over_tls) = (service.id.0.clone(), tls.is_some());
            let entry = Service {
                id: id.clone(),
                over_tls,
                base: match &bridge {
                    Some(bridge) => Some(bridge.base()),
                    None => register.rest.map(|(base, _)| base.to_owned()),
                },
                backends: Backends::new(&register.addresses, tls, http1),
                description: files.descriptions.remove(&service.id.0),
                bridge,
                subject: service.subject.as_ref().map(|subject| Arc::new(Subject::new(subject))),
                keep: service.keep_content,
                time_out: service.time_out(),
            };
            services.insert(id, Arc::new(entry));
        }
        Ok(Self(services))
    }

    /// The services of a subsystem.
    pub(crate) fn of(&self, subsystem: &SubsystemId) -> impl Iterator<Item = Arc<Service>> {
        self.0.values().filter(|service| service.id.subsystem() == *subsystem).cloned()
    }

    /// How the registers' servers stand, by service.
    pub(crate) fn standings(&self) -> Vec<(ServiceId, Standing)> {
        let mut services: Vec<_> = self.0.values().collect();
        services.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
        let of = |service: &&Arc<Service>| {
            let id = service.id.clone();
            service.backends.standings().into_iter().map(move |standing| (id.clone(), standing))
        };
        services.iter().flat_map(of).collect()
    }

    /// The same, as the operator is told.
    pub(crate) fn backends(&self) -> Vec<BackendStanding> {
        self.standings().into_iter().map(|(service, standing)| standing.told(&service)).collect()
    }

    /// The service, if it is offered here.
    pub(crate) fn get(&self, id: &ServiceId) -> Option<Arc<Service>> {
        self.0.get(id).cloned()
    }
}

impl Service {
    /// Its identifier.
    pub(crate) fn id(&self) -> &ServiceId {
        &self.id
    }

    /// The bridge that stands in the register's place.
    pub(crate) fn bridge(&self) -> Option<&ToXRoad> {
        self.bridge.as_ref()
    }

    /// Its OpenAPI description, if its provider publishes one.
    pub(crate) fn description(&self) -> Option<&Bytes> {
        self.description.as_ref().map(|description| &description.document)
    }

    /// What the description names.
    pub(crate) fn endpoints(&self) -> &[OfferedEndpoint] {
        self.description.as_ref().map_or(&[], |description| &description.endpoints)
    }

    /// `http` or `https`, and the register's address: what the request's URI begins with.
    pub(crate) fn origin(&self) -> (http::uri::Scheme, &str) {
        let scheme = if self.over_tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
        (scheme, self.backends.first_address())
    }

    /// Whether it speaks gRPC; REST otherwise.
    pub(crate) fn is_grpc(&self) -> bool {
        self.base.is_none()
    }

    /// The path that stands before all others, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        self.base.as_deref().unwrap_or_default()
    }

    /// A connection to the register, made now if there is none. Nothing of a call has gone out when this fails.
    pub(crate) async fn connection(&self, until: Instant) -> Result<ToRegister, Fault> {
        self.backends.connection(until).await.map_err(|error| self.not_reached(&error))
    }

    /// Sends a request to the register. One that was not sent at all, because the connection ended before, is sent over
    /// another one, once; of any other it is not known afterwards whether the call was begun.
    pub(crate) async fn call(
        &self,
        to: ToRegister,
        request: Request<Relayed>,
        until: Instant,
    ) -> Result<(Response<Incoming>, Held), Fault> {
        let named = self.backends.first_address();
        // Each server of the register is told by its own name where something is moved.
        let destination = request.headers().get(DESTINATION).cloned();
        let mut failed = match to.send(request, named).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        if let Some(mut request) = failed.take_message() {
            if let Some(destination) = destination {
                request.headers_mut().insert(DESTINATION, destination);
            }
            match self.connection(until).await?.send(request, named).await {
                Ok(answered) => return Ok(answered),
                Err(again) => failed = again,
            }
        }
        // A connection that is told to go away says nothing of this one request: it may have left all the same.
        let returned = failed.take_message().is_some();
        let error = failed.error();
        let no = returned || was_refused(error);
        let reached = if no { RegisterReached::No } else { RegisterReached::Unknown };
        let why = format!("the register did not answer: {}", trave_host::config::with_causes(error));
        Err(Fault::before_call(Reason::ServiceFailed, Side::Register, why).with_register(reached))
    }

    fn not_reached(&self, error: &ConnectError) -> Fault {
        tracing::warn!(service = %self.id, error = trave_host::config::with_causes(error), "the register is not reached");
        let why = format!("the register of {} cannot be reached from its security server", self.id);
        Fault::before_call(Reason::ServiceFailed, Side::Register, why)
    }
}
