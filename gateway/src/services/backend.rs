//! The servers of a register: connections to each, and how each has done of late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;
use trave_host::client::{CONNECT_TIME, Channel, ConnectError, Connection, Connections, was_reset};
use trave_host::tls;
use trave_proto::identifier::ServiceId;
use trave_proto::schema::operator::BackendStanding;

use crate::health::Health;
use crate::pool::{Pool, Taken};
use crate::relayed::Relayed;

/// Calls at a time on one HTTP/2 connection to a register: what every server should take (RFC 9113, section 6.5.2).
const STREAMS: usize = 100;
/// How long connecting to one of several may take: then the next has its turn.
const SHARE: Duration = Duration::from_secs(3);
/// Who says nothing for so long is not well.
const TELLING: Duration = Duration::from_secs(1);
/// Where WebDAV's COPY and MOVE go (RFC 4918, section 10.3): it names the server that is called.
pub(super) const DESTINATION: HeaderName = HeaderName::from_static("destination");

/// The servers of one register: each answers the same.
#[derive(Debug)]
pub(super) struct Backends {
    all: Vec<Arc<Backend>>,
    /// How often they were ranked: whoever is equal takes turns.
    turns: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
struct Backend {
    address: String,
    line: Line,
    health: Health,
    /// Calls that it has not answered to the end.
    under_way: AtomicUsize,
    /// What went wrong last.
    last_error: Mutex<Option<&'static str>>,
}

/// How one of them stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) address: String,
    /// Calls that it has not answered to the end.
    pub(crate) under_way: usize,
    /// How often it failed since it last answered.
    pub(crate) failures: u32,
    /// Since the first of these.
    pub(crate) failing_for: Duration,
    /// For how long it is still left alone.
    pub(crate) ejected_for: Duration,
    /// What went wrong last.
    pub(crate) last_error: Option<&'static str>,
}

impl Standing {
    /// As the operator is told.
    pub(super) fn told(self, service: &ServiceId) -> BackendStanding {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        BackendStanding {
            service: service.to_string(),
            address: self.address,
            under_way: self.under_way as u64,
            failures: self.failures,
            failing_for_ms: millis(self.failing_for),
            ejected_for_ms: millis(self.ejected_for),
            last_error: self.last_error.unwrap_or_default().into(),
        }
    }
}

/// How it is spoken to.
#[derive(Debug)]
enum Line {
    /// HTTP/1.1: a connection for each exchange under way.
    One(Connections<Relayed>),
    /// HTTP/2: shared, as many as there are streams for.
    Two(Option<tls::Client>, Pool<Channel<Relayed>>),
}

/// A connection to a register, for one call.
#[derive(Debug)]
pub(crate) struct ToRegister {
    connection: Either,
    under_way: UnderWay,
}

#[derive(Debug)]
enum Either {
    One(Connection<Relayed>),
    Two(Taken<Channel<Relayed>>),
}

/// What a call has of a server of the register, until its answer is complete.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its place on a shared connection.
    _place: Option<Taken<Channel<Relayed>>>,
    _under_way: UnderWay,
}

/// Counts a call, until it is dropped.
#[derive(Debug)]
struct UnderWay(Arc<Backend>);

impl UnderWay {
    fn at(backend: &Arc<Backend>) -> Self {
        backend.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(backend))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backends {
    /// Those at `addresses`, over TLS where `tls` is given.
    pub(super) fn new(addresses: &[&str], tls: Option<tls::Client>, http1: bool) -> Self {
        let backend = |address: &&str| {
            let line = match http1 {
                true => Line::One(Connections::new((*address).to_owned(), tls.clone())),
                false => Line::Two(tls.clone(), Pool::new(STREAMS)),
            };
            let address = (*address).to_owned();
            let (health, under_way) = (Health::default(), AtomicUsize::new(0));
            Arc::new(Backend { address, line, health, under_way, last_error: Mutex::default() })
        };
        Self { all: addresses.iter().map(backend).collect(), turns: AtomicUsize::new(0) }
    }

    /// The address that requests name until it is known which one is called.
    pub(super) fn first_address(&self) -> &str {
        self.all.first().map_or("", |backend| &backend.address)
    }

    /// How each stands, in the order of the configuration.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let now = Instant::now();
        let standing = |backend: &Arc<Backend>| Standing {
            address: backend.address.clone(),
            under_way: backend.under_way.load(Ordering::Relaxed),
            failures: backend.health.failures(),
            failing_for: backend.health.failing_for(now),
            ejected_for: backend.health.ejected_for(now),
            last_error: *backend.last_error.lock().unwrap_or_else(PoisonError::into_inner),
        };
        self.all.iter().map(standing).collect()
    }

    /// A connection to one that can be reached: first to those that do well, and of these to the one with the fewest calls.
    pub(super) async fn connection(&self, until: Instant) -> Result<ToRegister, ConnectError> {
        let longest = if self.all.len() > 1 { SHARE } else { CONNECT_TIME };
        let mut last = ConnectError::Address { address: String::new() };
        let ranked = self.ranked();
        for (at, backend) in ranked.iter().enumerate() {
            // What time is left is for all of them.
            let left = until.saturating_duration_since(Instant::now());
            let share = longest.min(left.div_f64((ranked.len() - at) as f64));
            backend.health.chosen(Instant::now());
            let reached = tokio::time::timeout(share, backend.connect()).await.unwrap_or_else(|_| {
                Err(ConnectError::TimedOut { address: backend.address.clone(), limit: share })
            });
            match reached {
                Ok(connection) => {
                    backend.health.reached();
                    return Ok(ToRegister { connection, under_way: UnderWay::at(backend) });
                }
                Err(error) => {
                    // What a caller's short deadline leaves says nothing of the server.
                    if share >= TELLING || !matches!(error, ConnectError::TimedOut { .. }) {
                        backend.failed(kind(&error));
                    }
                    if self.all.len() > 1 {
                        let error = trave_host::config::with_causes(&error);
                        tracing::warn!(
                            backend = backend.address.as_str(),
                            error,
                            "one server of a register is not reached"
                        );
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn ranked(&self) -> Vec<Arc<Backend>> {
        let mut ranked = self.all.clone();
        if ranked.len() > 1 {
            let now = Instant::now();
            let turn = self.turns.fetch_add(1, Ordering::Relaxed) % ranked.len();
            ranked.rotate_left(turn);
            ranked.sort_by_cached_key(|backend| {
                (backend.health.ejected_for(now), backend.under_way.load(Ordering::Relaxed))
            });
        }
        ranked
    }
}

impl Backend {
    fn failed(&self, why: &'static str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.health.failed(Instant::now());
    }

    async fn connect(&self) -> Result<Either, ConnectError> {
        match &self.line {
            Line::One(connections) => connections.connection().await.map(Either::One),
            Line::Two(tls, lines) => {
                let make = async || match tls {
                    Some(tls) => Channel::tls(&self.address, tls).await,
                    None => Channel::plain(&self.address).await,
                };
                lines.take(|channel| !channel.is_closed(), make).await.map(Either::Two)
            }
        }
    }
}

/// In one word, for figures and those who watch them.
fn kind(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Address { .. } => "no_address",
        ConnectError::Unreachable { .. } => "unreachable",
        ConnectError::Tls { .. } => "tls",
        ConnectError::Http { .. } => "http",
        ConnectError::TimedOut { .. } => "timed_out",
    }
}

/// A call that failed: why, and the request where nothing of it was sent.
pub(super) type NotAnswered = Box<TrySendError<Request<Relayed>>>;

impl ToRegister {
    /// Sends a request that was made for `named`.
    pub(super) async fn send(
        self,
        mut request: Request<Relayed>,
        named: &str,
    ) -> Result<(Response<Incoming>, Held), NotAnswered> {
        let Self { connection, under_way } = self;
        let address = &under_way.0.address;
        if address != named {
            name(&mut request, named, address);
        }
        let sent = match connection {
            Either::One(connection) => connection.try_send(request).await.map(|response| (response, None)),
            Either::Two(mut channel) => match channel.try_send(request).await {
                Ok(response) => Ok((response, Some(channel))),
                Err(failed) => Err(failed),
            },
        };
        let (response, place) = sent.inspect_err(|failed| {
            // A stream may be reset, and a kept connection may have ended; but one that breaks under a call is a failure.
            if failed.message().is_none() && !was_reset(failed.error()) {
                under_way.0.failed("broken_off");
            }
        })?;
        under_way.0.health.did_well();
        Ok((response, Held { _place: place, _under_way: under_way }))
    }
}

/// Names the server that is called where the request names another one of the register.
fn name(request: &mut Request<Relayed>, before: &str, now: &str) {
    let Some(destination) = request.headers().get(DESTINATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Some((scheme, rest)) = destination.split_once("://") else { return };
    if let Some(path) = rest.strip_prefix(before)
        && let Ok(renamed) = HeaderValue::from_str(&format!("{scheme}://{now}{path}"))
    {
        request.headers_mut().insert(DESTINATION, renamed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_names_the_server_that_is_called() {
        let renamed = |destination: &str| {
            let mut request = Request::new(Relayed::counted(bytes::Bytes::new()));
            request.headers_mut().insert(DESTINATION, destination.parse().unwrap());
            name(&mut request, "127.0.0.1:1", "127.0.0.1:2");
            request.headers()[DESTINATION].to_str().unwrap().to_owned()
        };
        assert_eq!(renamed("http://127.0.0.1:1/a/b%20c"), "http://127.0.0.1:2/a/b%20c");
        for other in ["http://127.0.0.1:3/a", "/a"] {
            assert_eq!(renamed(other), other);
        }
    }
}
