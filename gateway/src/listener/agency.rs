//! The door for agency systems: gRPC over HTTP/2 and REST over HTTP/1.1 and HTTP/2, cleartext on loopback or a Unix socket for exactly one subsystem, elsewhere TLS
//! with pinned client certificates, each bound to subsystems.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::oneshot;
use trave_host::config::Secret;
use trave_host::drain::Drain;
use trave_host::keys::{KeyError, SigningKey};
use trave_host::listen::{Connection, Counts, Limits, ListenError, Listener, Refusal};
use trave_host::tls::{self, Clients, Http, Identity, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ServiceId;
use trave_proto::schema::transport::RegisterReached;

use crate::bridge::FromXRoad;
use crate::config::{Agency, AgencyTransport, Config};
use crate::containers::Containers;
use crate::exchange::{self, Call, Caller, Exchanges, Heard, Kind, RequestHash};
use crate::metadata;
use crate::relayed::Relayed;

/// Why a door for agency systems cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AgencyDoorError {
    /// Its address cannot be had.
    #[error("the door for agency systems cannot be opened")]
    Listen(#[source] ListenError),
    /// Its certificate, or one of its clients', is not usable.
    #[error("the certificates of the door for agency systems are not usable")]
    Tls(#[source] TlsError),
    /// Its key is not usable.
    #[error("the key of the door for agency systems is not usable")]
    Key(#[source] KeyError),
    /// A file holds no certificate.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Configuration(String),
}

/// Who may come in, by what TLS or the door itself says; never by a header.
#[derive(Debug, Clone)]
enum Guests {
    /// Whoever can open the door speaks for one subsystem.
    Anyone(Caller),
    /// By the SHA-256 of the certificate's public key.
    Known(Arc<HashMap<Digest, Caller>>),
}

impl Guests {
    fn admit(&self, connection: &Connection) -> Option<Caller> {
        match self {
            Self::Anyone(caller) => Some(caller.clone()),
            Self::Known(known) => {
                let key = tls::public_key_digest(connection.chain.first()?).ok()?;
                known.get(&key).cloned()
            }
        }
    }
}

/// Whoever came through a door, a bridge's perhaps, and may speak for nobody.
#[derive(Debug, Clone)]
struct Stranger(Option<Arc<FromXRoad>>);

/// An open door, not yet served.
#[derive(Debug)]
pub(crate) struct AgencyDoor {
    listener: Listener,
    guests: Guests,
    /// Where it is a bridge's.
    bridge: Option<Arc<FromXRoad>>,
}

impl AgencyDoor {
    /// Opens the door as configured.
    pub(crate) async fn open(
        config: &Config,
        agency: &Agency,
        passphrase: &Secret,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, AgencyDoorError> {
        let hashed: Arc<[_]> = agency.request_hash.iter().map(|service| service.0.clone()).collect();
        let bridge = agency.x_road.as_deref().map(|listed| Arc::new(FromXRoad::new(listed)));
        let one = |agency: &Agency| {
            let subsystems: Vec<_> = agency.subsystem.iter().map(|subsystem| subsystem.0.clone()).collect();
            let (bridge, hashed) = (bridge.clone(), Arc::clone(&hashed));
            Guests::Anyone(Caller {
                subsystems: subsystems.into(),
                keep: agency.keep_content,
                bridge,
                hashed,
            })
        };
        // Callers see the headers that registers sent, and no date of ours among them.
        let limits = config.limits.at_door(Limits {
            date: false,
            guarded: true,
            raw_heads: !hashed.is_empty(),
            ..Limits::default()
        });
        let transport = agency.transport().map_err(AgencyDoorError::Configuration)?;
        let (listener, guests) = match transport {
            AgencyTransport::Loopback(address) => (Listener::tcp(address, Http::TwoOrOne).await, one(agency)),
            AgencyTransport::Unix(path) => {
                (Listener::unix(path).map(|door| door.speaking(Http::TwoOrOne)), one(agency))
            }
            AgencyTransport::Tls(address, certificate, key) => {
                let guests = known_guests(config, agency, (bridge.as_ref(), &hashed))?;
                let key = SigningKey::open(&config.path(key), passphrase).map_err(AgencyDoorError::Key)?;
                let chain = tls::chain_from_pem(&config.path(certificate)).map_err(AgencyDoorError::Tls)?;
                let identity = Identity::new(chain, Arc::new(key)).map_err(AgencyDoorError::Tls)?;
                let pinned = Clients::Known(Arc::new(Pinned::new(guests.keys().copied())));
                let server = tls::Server::new(Arc::new(identity), pinned, Http::TwoOrOne, Arc::clone(clock));
                let listener = Listener::tls(address, server.map_err(AgencyDoorError::Tls)?).await;
                (listener, Guests::Known(Arc::new(guests)))
            }
        };
        Ok(Self { listener: listener.map_err(AgencyDoorError::Listen)?.with_limits(limits), guests, bridge })
    }

    /// Where it listens; none for a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// What happens at it.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.listener.counts()
    }

    /// Serves until the server drains.
    pub(crate) async fn serve(self, exchanges: Arc<Exchanges>, containers: Arc<Containers>, drain: Drain) {
        let Self { listener, guests, bridge } = self;
        let tasks = drain.clone();
        listener
            .serve(drain, move |connection: &mut Connection| {
                let caller = guests.admit(connection);
                let caller = caller.ok_or_else(|| Stranger(bridge.clone()));
                let (exchanges, tasks) = (Arc::clone(&exchanges), tasks.clone());
                let containers = Arc::clone(&containers);
                service_fn(move |request| {
                    let (caller, exchanges, tasks) = (caller.clone(), Arc::clone(&exchanges), tasks.clone());
                    let containers = Arc::clone(&containers);
                    async move {
                        Ok::<_, Infallible>(answer(caller, (exchanges, containers), &tasks, request).await)
                    }
                })
            })
            .await;
    }
}

fn known_guests(
    config: &Config,
    agency: &Agency,
    (bridge, hashed): (Option<&Arc<FromXRoad>>, &Arc<[ServiceId]>),
) -> Result<HashMap<Digest, Caller>, AgencyDoorError> {
    let mut guests = HashMap::new();
    for client in &agency.clients {
        let key = pin(&config.path(client.certificate()))?;
        let subsystems: Vec<_> = client.subsystems.iter().map(|subsystem| subsystem.0.clone()).collect();
        let (bridge, hashed) = (bridge.cloned(), Arc::clone(hashed));
        let caller = Caller { subsystems: subsystems.into(), keep: agency.keep_content, bridge, hashed };
        if guests.insert(key, caller).is_some() {
            let path = config.path(client.certificate());
            return Err(AgencyDoorError::Configuration(format!(
                "{} stands twice among the clients",
                path.display()
            )));
        }
    }
    Ok(guests)
}

/// SHA-256 of the public key of the first certificate in a PEM file.
pub(crate) fn pin(path: &Path) -> Result<Digest, AgencyDoorError> {
    let chain = tls::chain_from_pem(path).map_err(AgencyDoorError::Tls)?;
    let certificate = chain.first().ok_or_else(|| AgencyDoorError::NoCertificate(path.to_owned()))?;
    tls::public_key_digest(certificate).map_err(AgencyDoorError::Tls)
}

/// Hands a call to its exchange, which runs on a task of its own, and waits for the head of the reply.
async fn answer(
    caller: Result<Caller, Stranger>,
    (exchanges, containers): (Arc<Exchanges>, Arc<Containers>),
    tasks: &Drain,
    request: Request<Incoming>,
) -> Response<Relayed> {
    let (parts, body) = request.into_parts();
    let kind = if exchange::is_grpc(&parts) { Kind::Grpc } else { Kind::Rest };
    let caller = match caller {
        Ok(caller) => caller,
        Err(Stranger(bridge)) => {
            let why = "the certificate that signed in at this door is bound to no subsystem";
            let fault = Fault::before_call(Reason::InvalidClientIdentifier, Side::Client, why);
            return exchange::refusal(kind, &parts.headers, &fault, None, bridge.as_deref());
        }
    };
    let bridge = caller.bridge.clone();
    let refused = parts.extensions.get::<Refusal>().copied();
    // What X-Road's clients ask about services, its own security servers answer.
    if kind == Kind::Rest && refused.is_none() && bridge.is_none() {
        if let Some(answer) = metadata::answer(&exchanges, &caller, &parts).await {
            return answer;
        }
        if let Some(answer) = containers.answer(&caller, &parts).await {
            return answer;
        }
    }
    let id = match exchange::new_id(&exchanges) {
        Ok(id) => id,
        Err(fault) => return exchange::refusal(kind, &parts.headers, &fault, None, bridge.as_deref()),
    };
    let services = Arc::clone(&caller.hashed);
    let hash = if services.is_empty() { None } else { RequestHash::of(&parts, &body) };
    let body = Heard::new(body, hash.as_ref());
    let (reply, answered) = oneshot::channel();
    tasks.spawn(exchange::ask(exchanges, Call { id, kind, refused, caller, parts, body, reply }));
    let mut answer = answered.await.unwrap_or_else(|_| {
        // Its task ended without a word, as when the server stops: what the register did by then is not known.
        let why = "this security server ended before it had an answer";
        let fault = Fault::before_call(Reason::InternalError, Side::ClientServer, why);
        let fault = fault.with_register(RegisterReached::Unknown);
        exchange::refusal(kind, &http::HeaderMap::new(), &fault, Some(id), bridge.as_deref())
    });
    if let Some(hash) = hash {
        hash.label(&services, answer.headers_mut());
    }
    answer
}
