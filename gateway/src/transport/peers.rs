//! Connections to the security servers of services: made when needed, shared by exchanges, replaced before what they
//! rest on runs out.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trave_host::client::Channel;
use trave_host::stubs::transport::peer_service_client::PeerServiceClient;
use trave_host::tls::{self, Http, Identity};
use trave_message_log::Artefact;
use trave_proto::clock::Clock;
use trave_proto::conversation::Party;
use trave_proto::global_configuration::{Configuration, SecurityServerEntry};
use trave_proto::identifier::ServerId;
use trave_proto::schema::operator::PeerStanding;
use trave_proto::schema::transport::{
    GetConfigurationRequest, GreetRequest, Greeting, OfferConfigurationRequest,
};

use super::greeting::{Greeted, Own, TransportError, artefact, fresh_nonce};
use crate::health::Health;
use crate::pool::{Pool, Taken};
use crate::recorder::Recorder;
use crate::trust::{SecurityServers, TlsPeer, Trust};

/// One connection to another security server, greeted both ways.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    pub(crate) channel: Channel,
    /// Whom TLS has authenticated.
    pub(crate) peer: TlsPeer,
    pub(crate) greeted: Greeted,
    /// This side, with the nonce that it gave.
    pub(crate) own: Party,
    pub(crate) tls: Artefact,
    pub(crate) generation: u64,
}

impl PeerConnection {
    /// A client of the service on the other side.
    pub(crate) fn client(&self) -> PeerServiceClient<Channel> {
        // Manifest and bodies are bounded by themselves; this bounds what is read before that can be checked.
        PeerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_WIRE)
    }
}

/// The largest protobuf message on the wire: a body of 1 MiB, heads, manifest, signature.
pub(crate) const MAX_WIRE: usize = 2 << 20;

/// Exchanges at a time on one connection: fewer than the other side's door takes ([`trave_host::listen::Limits`]), so that
/// one whose stream is not quite closed yet, or a configuration that is fetched, never waits.
const STREAMS: usize = 200;

/// All connections, to each security server as many as its exchanges need.
#[derive(Debug)]
pub(crate) struct Peers {
    own: Arc<Own>,
    identity: Arc<Identity>,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    others: Mutex<HashMap<ServerId, Arc<Other>>>,
    /// How often servers were ranked: whoever is equal takes turns.
    turns: AtomicUsize,
}

/// One other security server: the connections to it, and how it has done of late.
#[derive(Debug)]
struct Other {
    lines: Pool<Arc<PeerConnection>>,
    health: Health,
}

/// How another security server stands, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) server: ServerId,
    /// Exchanges that it is asked now.
    pub(crate) under_way: usize,
    /// How often it failed since it last answered.
    pub(crate) failures: u32,
    /// For how long it is still left alone.
    pub(crate) ejected_for: Duration,
}

impl From<Standing> for PeerStanding {
    fn from(standing: Standing) -> Self {
        Self {
            server: standing.server.to_string(),
            under_way: standing.under_way as u64,
            failures: standing.failures,
            ejected_for_ms: u64::try_from(standing.ejected_for.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Peers {
    pub(crate) fn new(
        own: Arc<Own>,
        identity: Arc<Identity>,
        trust: Arc<Trust>,
        clock: Arc<dyn Clock>,
        recorder: Recorder,
    ) -> Self {
        Self { own, identity, trust, clock, recorder, others: Mutex::default(), turns: AtomicUsize::new(0) }
    }

    /// `servers` in the order in which to ask them: those that do well first, and of these the one with the fewest
    /// exchanges under way; last those that failed of late, so that they are asked where nobody else is left.
    pub(crate) fn ranked<'a>(
        &self,
        servers: impl Iterator<Item = &'a SecurityServerEntry>,
    ) -> Vec<&'a SecurityServerEntry> {
        let mut servers: Vec<_> = servers.collect();
        if servers.len() < 2 {
            return servers;
        }
        let (now, turn) = (Instant::now(), self.turns.fetch_add(1, Relaxed) % servers.len());
        servers.rotate_left(turn);
        servers.sort_by_cached_key(|server| {
            let other = self.other(server.id());
            (other.health.ejected_for(now), other.lines.taken())
        });
        servers
    }

    /// A place on a connection to `server` that is still good, else on a new one. One is made at a time.
    pub(crate) async fn connection(
        &self,
        server: &SecurityServerEntry,
    ) -> Result<Taken<Arc<PeerConnection>>, TransportError> {
        let other = self.other(server.id());
        other.health.chosen(Instant::now());
        let good = |connection: &Arc<PeerConnection>| self.is_good(connection);
        let taken = other.lines.take(good, async || self.connect(server).await.map(Arc::new)).await;
        match &taken {
            Ok(_) => other.health.reached(),
            Err(_) => other.health.failed(Instant::now()),
        }
        taken
    }

    /// Tells that a security server answered as it should.
    pub(crate) fn did_well(&self, server: &ServerId) {
        self.other(server).health.did_well();
    }

    /// Tells that a security server failed in what is its own to do.
    pub(crate) fn failed(&self, server: &ServerId) {
        self.other(server).health.failed(Instant::now());
    }

    /// How those stand that were asked since start, by name.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let (now, others) = (Instant::now(), self.others.lock().unwrap_or_else(PoisonError::into_inner));
        let mut standings: Vec<_> = others
            .iter()
            .map(|(server, other)| Standing {
                server: server.clone(),
                under_way: other.lines.taken(),
                failures: other.health.failures(),
                ejected_for: other.health.ejected_for(now),
            })
            .collect();
        drop(others);
        standings.sort_by(|one, other| one.server.cmp(&other.server));
        standings
    }

    fn other(&self, server: &ServerId) -> Arc<Other> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = others.get(server) {
            return Arc::clone(other);
        }
        let other = Arc::new(Other { lines: Pool::new(STREAMS), health: Health::default() });
        others.insert(server.clone(), Arc::clone(&other));
        other
    }

    /// Whether exchanges may still begin on it. After a change of trust a connection is made anew: its certificates
    /// are checked again, and both sides show the configuration that they use.
    fn is_good(&self, connection: &PeerConnection) -> bool {
        !connection.channel.is_closed()
            && self.clock.now() < connection.greeted.good_until
            && connection.generation == self.trust.snapshot().generation
            && connection.own.signing_certificate == self.own.signer.load().certificate()
    }

    async fn connect(&self, server: &SecurityServerEntry) -> Result<PeerConnection, TransportError> {
        let (id, address) = (server.id().clone(), server.address().to_owned());
        let channel = self.open(&id, &address).await?;
        let tls = channel
            .peer_chain()
            .first()
            .map(artefact)
            .ok_or(TransportError::Malformed("no TLS certificate"))?;
        let nonce = fresh_nonce().ok_or(TransportError::Malformed("no randomness here"))?;
        let mut client =
            PeerServiceClient::new(channel.clone()).max_decoding_message_size(MAX_CONFIGURATION_WIRE);
        let call =
            |source: tonic::Status| TransportError::Call { server: id.clone(), source: Box::new(source) };
        let snapshot = self.trust.snapshot();
        let greeting = Some(self.own.greeting(nonce, &snapshot.configuration));
        let answer = client.greet(GreetRequest { greeting }).await.map_err(call)?.into_inner().greeting;
        let answer = answer.ok_or(TransportError::Malformed("it is empty"))?;
        self.agree(&mut client, &answer).await.map_err(call)?;
        // Both may have come to a newer configuration: who is connected is judged by the one that counts from now.
        let (snapshot, now) = (self.trust.snapshot(), self.clock.now());
        let peer =
            TlsPeer::authenticate(channel.peer_chain(), &snapshot, now).map_err(TransportError::NotListed)?;
        if *peer.server() != id {
            let found = peer.server().to_string();
            return Err(TransportError::OtherServer { expected: id, found });
        }
        let mut greeted = Greeted::verify(answer, &id, &snapshot.configuration, now)?;
        // What this side showed of its own certificate's status runs out too.
        greeted.good_until = greeted.good_until.min(self.own.signer.load().status_until());
        let own = self.own.party(nonce);
        Ok(PeerConnection { channel, peer, greeted, own, tls, generation: snapshot.generation })
    }

    async fn open(&self, server: &ServerId, address: &str) -> Result<Channel, TransportError> {
        let policy = SecurityServers { trust: Arc::clone(&self.trust), only: Some(server.clone()) };
        let identity = Some(Arc::clone(&self.identity));
        let connect =
            |source| TransportError::Connect { server: server.clone(), address: address.to_owned(), source };
        let client = tls::Client::new(identity, Arc::new(policy), Http::Two, Arc::clone(&self.clock));
        let client = client.map_err(|error| {
            tracing::error!(error = trave_host::config::with_causes(&error), "TLS cannot be set up");
            TransportError::Malformed("TLS cannot be set up here")
        })?;
        Channel::tls(address, &client).await.map_err(connect)
    }

    /// Brings both sides to the newer of their two configurations. A peer is believed only as far as the configuration
    /// keys have signed; two configurations of one number are an alarm.
    async fn agree(
        &self,
        client: &mut PeerServiceClient<Channel>,
        theirs: &Greeting,
    ) -> Result<(), tonic::Status> {
        let ours = Arc::clone(&self.trust.snapshot().configuration);
        let same = theirs.configuration_digest == ours.digest().as_bytes()[..];
        match theirs.configuration_number.cmp(&ours.number()) {
            Ordering::Equal if same => Ok(()),
            Ordering::Less => self.offer_to(client, &ours).await,
            Ordering::Equal | Ordering::Greater => self.fetch_from(client).await,
        }
    }

    /// Fetches the configuration that the other side of `connection` uses, and adopts it if it is newer.
    pub(crate) async fn fetch(&self, connection: &PeerConnection) {
        let mut client = PeerServiceClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_CONFIGURATION_WIRE);
        if let Err(status) = self.fetch_from(&mut client).await {
            tracing::warn!(error = %status, "a peer's newer configuration cannot be fetched");
        }
    }

    /// Offers the other side of `connection` the configuration that is used here.
    pub(crate) async fn offer(&self, connection: &PeerConnection, configuration: &Configuration) {
        if let Err(status) = self.offer_to(&mut connection.client(), configuration).await {
            tracing::warn!(error = %status, "a peer does not take the newer configuration");
        }
    }

    async fn fetch_from(&self, client: &mut PeerServiceClient<Channel>) -> Result<(), tonic::Status> {
        let answer = client.get_configuration(GetConfigurationRequest { number: 0 }).await?;
        if let Some(signed) = answer.into_inner().configuration
            && let Err(error) = self.recorder.adopt(&self.trust, &signed, "peer").await
        {
            tracing::warn!(
                error = trave_host::config::with_causes(&error),
                "a peer's configuration is refused"
            );
        }
        Ok(())
    }

    async fn offer_to(
        &self,
        client: &mut PeerServiceClient<Channel>,
        configuration: &Configuration,
    ) -> Result<(), tonic::Status> {
        let configuration = Some(configuration.signed().clone());
        client.offer_configuration(OfferConfigurationRequest { configuration }).await.map(|_| ())
    }
}

/// The largest answer to a request for a configuration.
pub(crate) const MAX_CONFIGURATION_WIRE: usize = 17 << 20;
