//! An exchange, from first to last byte. Read [`client`] and [`provider`]: each is a message's way through this server.
//!
//! Both consist of the same two halves: [`outgoing`] signs what this side says and hands it to the log, [`incoming`]
//! verifies and logs what the other side says before anybody gets it.

mod client;
mod provider;
mod register;
mod incoming;
mod outgoing;
mod asked;
mod patience;
mod permission;
mod progress;
mod reply;
mod replay;
mod request_hash;
mod suspicion;
mod framing;
mod head;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Semaphore;
use trave_message_log::batching::Gauge;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ExchangeId, ServiceId};
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::verification::VerifiedBatches;

use crate::access::Access;
use crate::admission::Admission;
use crate::config::Limits;
use crate::custody::BatchSigner;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::services::{Service, Services};
use crate::signer::SigningThread;
use crate::transport::{Own, Peers};
use crate::trust::{Trust, TrustError};

pub(crate) use asked::{Caller, Route, Routes, who_asks};
pub(crate) use client::{Call, run as ask};
pub(crate) use framing::Bounds;
pub(crate) use head::{Kind, is_grpc};
pub(crate) use provider::{Said, run as answer};
pub(crate) use replay::ReplayGuard;
pub(crate) use reply::refusal;
pub(crate) use request_hash::{Heard, RequestHash};
pub(crate) use suspicion::Suspicion;

/// What all calls together keep of their requests while another security server may have to be asked, in KiB.
pub(crate) const KEPT: usize = 64 << 10;

/// What every exchange of this server uses.
#[derive(Debug)]
pub(crate) struct Exchanges {
    pub(crate) own: Arc<Own>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) signing: SigningThread,
    /// The signing key, for the seals of containers: a few a day, beside the batches.
    pub(crate) sealing: BatchSigner,
    pub(crate) peers: Peers,
    pub(crate) access: Access,
    pub(crate) offers: ArcSwap<Offers>,
    pub(crate) replay: ReplayGuard,
    pub(crate) batches: VerifiedRecently,
    pub(crate) gauge: Gauge,
    pub(crate) asking: Admission,
    pub(crate) answering: Admission,
    pub(crate) times: ArcSwap<Times>,
    pub(crate) suspicion: Suspicion,
    pub(crate) metrics: Metrics,
    /// Room for requests that may have to be said again, in KiB: what finds none is said once.
    pub(crate) kept: Arc<Semaphore>,
}

/// What the configuration file offers, exchanged as a whole when it is read again.
#[derive(Debug)]
pub(crate) struct Offers {
    pub(crate) services: Services,
    pub(crate) routes: Routes,
}

/// How long an exchange may take and how large it may be, exchanged as a whole when the configuration is read again. An
/// exchange keeps what it began with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) longest: Duration,
    pub(crate) idle: Duration,
    pub(crate) bounds: Bounds,
    /// For exchanges under way when the server stops.
    pub(crate) drain: Duration,
}

impl Times {
    /// As configured.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            longest: Duration::from_secs(limits.exchange_seconds),
            idle: Duration::from_secs(limits.idle_seconds),
            bounds: Bounds::of(limits),
            drain: limits.drain(),
        }
    }
}

impl Exchanges {
    /// What holds for an exchange that begins now.
    pub(crate) fn times(&self) -> Times {
        **self.times.load()
    }

    /// Takes other limits into use, for whatever begins from now on.
    pub(crate) fn limit(&self, limits: &Limits) {
        self.times.store(Arc::new(Times::of(limits)));
        self.asking.limit(limits);
        self.answering.limit(limits);
        self.suspicion.limit(limits.bad_signatures);
    }

    /// The service, if it is offered here now.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<Arc<Service>> {
        self.offers.load().services.get(id)
    }

    /// Adopts a configuration that `source` brought, and logs that it came into use.
    pub(crate) async fn adopt(&self, signed: &SignedConfiguration, source: &str) -> Result<(), TrustError> {
        self.recorder.adopt(&self.trust, signed, source).await
    }
}

/// The id of a new exchange.
pub(crate) fn new_id(exchanges: &Exchanges) -> Result<ExchangeId, Fault> {
    Ok(ExchangeId::new(exchanges.clock.now(), &random(Side::ClientServer)?))
}

/// Batches that verified lately. It forgets the oldest when it is full: then a batch is verified once more.
#[derive(Debug)]
pub(crate) struct VerifiedRecently(moka::sync::Cache<Digest, ()>);

impl Default for VerifiedRecently {
    fn default() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(16_384).build())
    }
}

impl VerifiedBatches for VerifiedRecently {
    fn contains(&self, batch: &Digest) -> bool {
        self.0.contains_key(batch)
    }

    fn insert(&self, batch: Digest) {
        self.0.insert(batch, ());
    }
}

/// Fresh random bytes; without them nothing is signed.
fn random<const N: usize>(side: Side) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map(|()| bytes).map_err(|_| {
        Fault::before_call(Reason::InternalError, side, "this security server's system gives no random bytes")
    })
}
