//! The registers behind this security server: where each service is, and the connection to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::Mutex;
use trave_host::client::{Channel, ConnectError};
use trave_host::tls::{self, Http, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ServiceId;
use trave_proto::schema::transport::RegisterReached;

use crate::config::{self, KeepContent};
use crate::relayed::Relayed;

/// One service and its register.
#[derive(Debug)]
pub(crate) struct Service {
    id: ServiceId,
    address: String,
    tls: Option<tls::Client>,
    pub(crate) keep: KeepContent,
    pub(crate) time_out: Duration,
    connection: Mutex<Option<Channel<Relayed>>>,
}

/// The services that are offered here.
#[derive(Debug, Default)]
pub(crate) struct Services(HashMap<ServiceId, Arc<Service>>);

impl Services {
    /// From the configuration; `pins` are the digests of the registers' public keys, by service.
    pub(crate) fn new(
        configured: &[config::Service],
        pins: &HashMap<ServiceId, Digest>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let mut services = HashMap::new();
        for service in configured {
            let Ok((_, address)) = service.backend() else { continue };
            let tls = match pins.get(&service.id.0) {
                None => None,
                Some(pin) => {
                    Some(tls::Client::new(None, Arc::new(Pinned::new([*pin])), Http::Two, Arc::clone(clock))?)
                }
            };
            let id = service.id.0.clone();
            let entry = Service {
                id: id.clone(),
                address: address.to_owned(),
                tls,
                keep: service.keep_content,
                time_out: service.time_out(),
                connection: Mutex::default(),
            };
            services.insert(id, Arc::new(entry));
        }
        Ok(Self(services))
    }

    /// The service, if it is offered here.
    pub(crate) fn get(&self, id: &ServiceId) -> Option<Arc<Service>> {
        self.0.get(id).cloned()
    }
}

impl Service {
    /// `http` or `https`, and the register's address: what the request's URI begins with.
    pub(crate) fn origin(&self) -> (http::uri::Scheme, &str) {
        let scheme = if self.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
        (scheme, &self.address)
    }

    /// A connection to the register, made now if there is none. Nothing of a call has gone out when this fails.
    pub(crate) async fn connection(&self) -> Result<Channel<Relayed>, Fault> {
        let mut connection = self.connection.lock().await;
        if let Some(channel) = connection.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let made = match &self.tls {
            Some(tls) => Channel::tls(&self.address, tls).await,
            None => Channel::plain(&self.address).await,
        };
        let channel = made.map_err(|error| self.not_reached(&error))?;
        *connection = Some(channel.clone());
        Ok(channel)
    }

    fn not_reached(&self, error: &ConnectError) -> Fault {
        tracing::warn!(service = %self.id, error = trave_host::config::with_causes(error), "the register is not reached");
        let why = format!("the register of {} cannot be reached from its security server", self.id);
        Fault::before_call(Reason::ServiceFailed, Side::Register, why)
    }
}

/// Sends a request to the register; it is not known afterwards whether a call that failed was begun.
pub(crate) async fn call(
    mut channel: Channel<Relayed>,
    request: Request<Relayed>,
) -> Result<Response<Incoming>, Fault> {
    channel.send(request).await.map_err(|error| {
        let why = format!("the register did not answer: {}", trave_host::config::with_causes(&error));
        Fault::before_call(Reason::ServiceFailed, Side::Register, why).with_register(RegisterReached::Unknown)
    })
}
