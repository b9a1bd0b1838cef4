//! The security server as a whole: opened from its data directory, its doors, and its end.

mod offers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry as Figures;
use tokio::sync::Semaphore;
use trave_host::config::Secret;
use trave_host::drain::Drain;
use trave_host::keys::KeyError;
use trave_host::listen::{Limits, ListenError, Listener};
use trave_host::tls::{self, Clients, Http, Identity, TlsError};
use trave_message_log::batching::Gauge;
use trave_message_log::{Log, LogError, Options, StoredRecord, kind};
use trave_proto::checkpoint::{CheckpointError, NoteSigner, NoteVerifier};
use trave_proto::clock::Clock;
use trave_proto::conversation::TOLERANCE;
use trave_proto::fault::Side;
use trave_proto::identifier::ServerId;

use crate::access::{Access, AccessError, Known};
use crate::admission::Admission;
use crate::audit::Records;
use crate::config::Config;
use crate::containers::Containers;
use crate::custody::{BatchSigner, Custody, CustodyError, Layout};
use crate::erasures::Erasing;
use crate::exchange::{Exchanges, KEPT, ReplayGuard, Suspicion, Times, VerifiedRecently};
use crate::generations::Generations;
use crate::listener::agency::{AgencyDoor, AgencyDoorError};
use crate::listener::auditors::{AuditorsDoor, AuditorsDoorError};
use crate::listener::citizen::CockpitDoor;
use crate::listener::{operations, operator, peer};
use crate::metrics::{self, Metrics};
use crate::recorder::Recorder;
use crate::signer::{SigningCounters, SigningThread};
use crate::transport::{Own, Peers};
use crate::trust::{SecurityServers, Trust, TrustError};
use crate::upkeep::{self, Archiving, StatusError, Upkeep, Ways};

/// Why a security server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A service's OpenAPI description is not usable.
    #[error("the description {0}")]
    Description(String),
    /// Its keys, certificates or anchor are not usable.
    #[error("the data directory is not usable")]
    Custody(#[source] CustodyError),
    /// It has no global configuration that it can trust.
    #[error("there is no global configuration to trust")]
    Trust(#[source] TrustError),
    /// The configuration does not list this server's log key.
    #[error(
        "the global configuration does not list the key of this server's message log for {0}\nhint: the key of a new \
         generation counts when two administrators have approved it: `trave-gateway enrol` with a token of the registry"
    )]
    LogNotListed(ServerId),
    /// A new generation of the log was begun and interrupted.
    #[error(
        "a new generation of the message log was begun and is not complete\nhint: run `trave-gateway new-generation` again, it \
         goes on where it was"
    )]
    GenerationUnfinished,
    /// The origin of the log is not one of a note.
    #[error("the origin of the message log is not valid")]
    Origin(#[source] CheckpointError),
    /// The message log does not open.
    #[error("the message log cannot be opened")]
    Log(#[source] LogError),
    /// A grant in the log cannot be read.
    #[error("a grant in the message log cannot be read")]
    Grant(#[source] AccessError),
    /// What is known of the own signing certificate does not allow to sign.
    #[error("the status of this server's signing certificate is not known to be good")]
    Status(#[source] StatusError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// The authorities of witnesses are not usable.
    #[error("the certificates of witnesses.authorities are not usable")]
    WitnessAuthorities(#[source] TlsError),
    /// The archive of the message log cannot be used.
    #[error("the archive of the message log cannot be used")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A door cannot be opened.
    #[error("a door cannot be opened")]
    Listen(#[source] ListenError),
    /// A door for agency systems cannot be opened.
    #[error("a door for agency systems cannot be opened")]
    Agency(#[source] AgencyDoorError),
    /// The door for auditors cannot be opened.
    #[error("the door for auditors cannot be opened")]
    Auditors(#[source] AuditorsDoorError),
    /// The door for cockpits cannot be opened.
    #[error("the door for data-protection cockpits cannot be opened")]
    Cockpit(#[source] AgencyDoorError),
    /// The key that a bridge shows is not usable.
    #[error("the key of a bridge to X-Road is not usable")]
    BridgeKey(#[source] KeyError),
    /// A thread cannot be started.
    #[error("the system gives no thread")]
    Thread(#[source] std::io::Error),
}

/// So long after the start nothing that it took is needed any more.
const AT_REST: Duration = Duration::from_secs(3);

/// A security server that serves.
#[derive(Debug)]
pub struct SecurityServer {
    /// Where other security servers reach it.
    pub peer: Option<SocketAddr>,
    /// Where agency systems reach it, in the order of the configuration; none for a Unix socket.
    pub agency: Vec<Option<SocketAddr>>,
    /// Where auditors reach it.
    pub auditors: Option<SocketAddr>,
    /// Where data-protection cockpits ask.
    pub cockpits: Option<SocketAddr>,
    /// Where health and metrics are told.
    pub operations: Option<SocketAddr>,
    exchanges: Arc<Exchanges>,
    generations: Arc<Generations>,
    drain: Drain,
    /// As it was started with.
    config: Config,
}

impl SecurityServer {
    /// Opens everything and begins to serve: first what others rely on, last the doors.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, drain: Drain) -> Result<Self, StartError> {
        let mut figures = Figures::default();
        let opened = Opened::open(&config, &clock).await?;
        let identity = Arc::clone(&opened.custody.identity);
        let passphrase = opened.passphrase.clone();
        let begun = opened.begun;
        let exchanges = Arc::new(assemble(&config, opened, (&clock, &drain), &mut figures).await?);
        let mut doors = Vec::new();
        for agency in &config.agency {
            let door = AgencyDoor::open(&config, agency, &passphrase, &clock).await;
            doors.push(door.map_err(StartError::Agency)?);
        }
        let auditors = open_auditors(&config, (&identity, &exchanges.trust), &clock).await?;
        let ways = Ways::read(&config, &clock).map_err(StartError::WitnessAuthorities)?;
        let archiving =
            Archiving::new(&config, &clock).map_err(|error| StartError::Archive(Box::new(error)))?;
        let policy = SecurityServers { trust: Arc::clone(&exchanges.trust), only: None };
        let own = Arc::clone(&identity);
        let tls = tls::Server::new(own, Clients::Known(Arc::new(policy)), Http::Two, Arc::clone(&clock));
        let listener = Listener::tls(config.peer.listen, tls.map_err(StartError::Tls)?).await;
        let limits = config.limits.at_door(Limits::shared());
        let listener = listener.map_err(StartError::Listen)?.with_limits(limits);
        let peer = listener.local_addr();
        let agency = doors.iter().map(AgencyDoor::local_addr).collect();
        let cockpit = match &config.cockpit {
            Some(cockpit) => {
                let door = CockpitDoor::open(&config, cockpit, &passphrase, &clock).await;
                Some(door.map_err(StartError::Cockpit)?)
            }
            None => None,
        };
        let mut counts = vec![("peer".to_owned(), listener.counts())];
        counts.extend(doors.iter().enumerate().map(|(at, door)| (format!("agency[{at}]"), door.counts())));
        counts.extend(auditors.iter().map(|door| ("auditors".to_owned(), door.counts())));
        counts.extend(cockpit.iter().map(|door| ("cockpit".to_owned(), door.counts())));
        let cockpits = cockpit.as_ref().and_then(CockpitDoor::local_addr);
        metrics::register_doors(&mut figures, counts);
        let told = operations::open(&config).await.map_err(StartError::Listen)?;
        let operations = told.as_ref().and_then(Listener::local_addr);
        let operators = Listener::unix_for(&config.operator_socket(), config.operator_users());
        let (operators, policy) = (operators.map_err(StartError::Listen)?, operator::Policy::of(&config));
        let erasing = {
            let (recorder, own) = (exchanges.recorder.clone(), exchanges.own.server.clone());
            let (layout, listed) = (Layout::new(config.data()), listed_logs(&exchanges));
            let clock = Arc::clone(&clock);
            tokio::task::spawn_blocking(move || {
                let generations = Generations::open(recorder.clone(), &layout, &listed, &clock)?;
                Erasing::read(recorder, own, Arc::new(generations))
            })
        };
        let erasing = erasing.await.unwrap_or(Err(LogError::Closed)).map_err(StartError::Log)?;
        let generations = Arc::clone(erasing.generations());
        let upkeep = Upkeep::start(
            &config,
            &exchanges,
            (identity, ways, archiving),
            (Arc::new(erasing), begun),
            &drain,
        )
        .await;
        if let Some(told) = told {
            drain.spawn(operations::serve(told, figures, Arc::clone(&upkeep), drain.clone()));
        }
        let peers = (Arc::clone(&exchanges), Arc::clone(&upkeep));
        let auditors_at = auditors.as_ref().and_then(AuditorsDoor::local_addr);
        if let Some(door) = auditors {
            let log = exchanges.recorder.log().clone();
            let records = Records::open(log, begun, Arc::clone(&generations)).map_err(StartError::Log)?;
            let drain_of = drain.clone();
            let served = (Arc::clone(&exchanges), Arc::clone(&upkeep));
            drain.spawn(door.serve(records, served, drain_of));
        }
        if let Some(door) = cockpit {
            drain.spawn(door.serve(Arc::clone(&exchanges), Arc::clone(&upkeep), drain.clone()));
        }
        let containers = Arc::new(Containers::new(Arc::clone(&exchanges), Arc::clone(&upkeep)));
        let served = (Arc::clone(&exchanges), upkeep);
        drain.spawn(operator::serve(operators, policy, served, drain.clone()));
        drain.spawn(peer::serve(listener, peers, drain.clone()));
        for door in doors {
            drain.spawn(door.serve(Arc::clone(&exchanges), Arc::clone(&containers), drain.clone()));
        }
        tokio::spawn(async {
            tokio::time::sleep(AT_REST).await;
            if let Err(error) = trave_host::give_memory_back() {
                tracing::warn!(%error, "memory that was freed is not given back: the system gives no thread");
            }
        });
        tracing::info!(server = %exchanges.own.server, "serving");
        let auditors = auditors_at;
        Ok(Self { peer, agency, auditors, cockpits, operations, exchanges, generations, drain, config })
    }

    /// Takes into use what `config` says now of services, routes and limits; exchanges under way go on with what they began
    /// with. What else differs from the start waits for the next one: these sections are named.
    ///
    /// # Errors
    /// If anything that is offered is not usable: then all stays as it was.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>, StartError> {
        let offers = offers::read(config, &self.exchanges.clock)?;
        self.exchanges.offers.store(Arc::new(offers));
        self.exchanges.limit(&config.limits);
        Ok(self.config.differs(config))
    }

    /// The records of the message log from `from` to the last that is durable now, one at a time. Reads the disk. Whoever
    /// runs the server in its own process is its owner; such a read is not logged.
    pub fn records(&self, from: u64) -> impl Iterator<Item = Result<StoredRecord, LogError>> + use<> {
        self.exchanges.recorder.log().scan(from)
    }

    /// Waits until the server is told to stop, lets exchanges under way end, and closes the log.
    pub async fn finish(self) {
        self.drain.begun().await;
        let dropped = self.drain.finish(self.exchanges.times().drain).await;
        if dropped > 0 {
            tracing::warn!(dropped, "exchanges were still under way when the server stopped");
        }
        self.exchanges.signing.close();
        let log = self.exchanges.recorder.log().clone();
        // Writing what is queued blocks for as long as the disk takes.
        let generations = self.generations;
        let closing = tokio::task::spawn_blocking(move || {
            log.close();
            generations.close();
        });
        let _ = closing.await;
        tracing::info!("stopped");
    }
}

/// The keys of this server's logs, of all generations that the configuration lists.
fn listed_logs(exchanges: &Exchanges) -> Vec<NoteVerifier> {
    let configuration = Arc::clone(&exchanges.trust.snapshot().configuration);
    let listed = configuration.security_server(&exchanges.own.server);
    let logs = listed.into_iter().flat_map(|listed| listed.logs());
    logs.filter_map(|log| NoteVerifier::new(&log.origin, log.public_key).ok()).collect()
}

async fn open_auditors(
    config: &Config,
    (identity, trust): (&Arc<Identity>, &Arc<Trust>),
    clock: &Arc<dyn Clock>,
) -> Result<Option<AuditorsDoor>, StartError> {
    let Some(auditors) = &config.auditors else { return Ok(None) };
    let known = (Arc::clone(identity), Arc::clone(trust));
    let door = AuditorsDoor::open(config, auditors, known, clock).await;
    door.map(Some).map_err(StartError::Auditors)
}

/// What was read from the data directory.
struct Opened {
    passphrase: Arc<Secret>,
    custody: Custody,
    trust: Trust,
    log_origin: String,
    log: Log,
    /// Records that the log held when it was opened.
    begun: u64,
    gauge: Gauge,
}

impl Opened {
    async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, StartError> {
        let layout = Layout::new(config.data());
        let (passphrase_file, server, clock) =
            (config.passphrase_file(), config.server.0.clone(), Arc::clone(clock));
        let (segment_size, reserve) = (config.log.segment_mib << 20, config.log.reserve_mib << 20);
        let opening = move || {
            if layout.generation_plan().exists() {
                return Err(StartError::GenerationUnfinished);
            }
            let passphrase = Secret::from_file(&passphrase_file)
                .map_err(|error| StartError::Custody(CustodyError::Passphrase(error)))?;
            let mut custody = Custody::open(&layout, &passphrase).map_err(StartError::Custody)?;
            let trust = Trust::open(custody.anchor.clone(), &layout.configurations(), Arc::clone(&clock))
                .map_err(StartError::Trust)?;
            let snapshot = trust.snapshot();
            let entry = snapshot.configuration.security_server(&server);
            let key = custody.log_public_key;
            let listed = entry.and_then(|entry| entry.logs().iter().find(|log| log.public_key == key));
            let log_origin = listed
                .map(|log| log.origin.clone())
                .ok_or_else(|| StartError::LogNotListed(server.clone()))?;
            let key = custody.take_log_key().ok_or(StartError::LogNotListed(server))?;
            // Where a new generation waited for this, it is approved.
            let _ = std::fs::remove_file(layout.generation_pending());
            let signer = NoteSigner::new(&log_origin, key.into_pair()).map_err(StartError::Origin)?;
            let must_continue = upkeep::last_witnessed(&layout, &signer.verifier());
            let gauge = Gauge::default();
            let release = env!("CARGO_PKG_VERSION").to_owned();
            let options = Options {
                dir: layout.log(),
                signer,
                clock,
                gauge: gauge.clone(),
                segment_size,
                reserve,
                release,
                must_continue,
                begins_with: None,
            };
            let (log, recovered) = Log::open(options).map_err(StartError::Log)?;
            tracing::info!(?recovered, "message log opened");
            let begun = recovered.records;
            Ok(Self { passphrase: Arc::new(passphrase), custody, trust, log_origin, log, begun, gauge })
        };
        // Key derivation and the log's recovery take the time they take.
        tokio::task::spawn_blocking(opening)
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

async fn assemble(
    config: &Config,
    opened: Opened,
    (clock, drain): (&Arc<dyn Clock>, &Drain),
    figures: &mut Figures,
) -> Result<Exchanges, StartError> {
    let Opened { custody, trust, log_origin, log, gauge, .. } = opened;
    let trust = Arc::new(trust);
    let layout = Layout::new(config.data());
    let signer = upkeep::own_signer(&custody.signing_chain, &layout, &trust, clock.as_ref(), drain).await;
    let own = Arc::new(Own {
        server: config.server.0.clone(),
        log_origin,
        signer: ArcSwap::from_pointee(signer.map_err(StartError::Status)?),
    });
    let recorder = Recorder::new(log.clone(), Arc::clone(clock));
    let replay = ReplayGuard::new(config.limits.replay_ids);
    let access = replayed(&log, &replay, &own.server, clock.as_ref())?;
    let counters = Arc::new(SigningCounters::default());
    let metrics = Metrics::register(figures, &log, &counters, &gauge);
    let signing = Box::new(BatchSigner(Arc::clone(&custody.signing_key)));
    let sealing = BatchSigner(Arc::clone(&custody.signing_key));
    let signing = SigningThread::start(signing, recorder.clone(), gauge.clone(), counters)
        .map_err(StartError::Thread)?;
    let (identity, trusted) = (Arc::clone(&custody.identity), Arc::clone(&trust));
    let peers = Peers::new(Arc::clone(&own), identity, trusted, Arc::clone(clock), recorder.clone());
    Ok(Exchanges {
        own,
        trust,
        clock: Arc::clone(clock),
        recorder,
        signing,
        sealing,
        peers,
        access,
        offers: ArcSwap::from_pointee(offers::read(config, clock)?),
        replay,
        batches: VerifiedRecently::default(),
        gauge,
        asking: Admission::new(&config.limits, Side::ClientServer),
        answering: Admission::new(&config.limits, Side::ProviderServer),
        times: ArcSwap::from_pointee(Times::of(&config.limits)),
        suspicion: Suspicion::new(config.limits.bad_signatures),
        metrics,
        kept: Arc::new(Semaphore::new(KEPT)),
    })
}

/// What the log says of the time before this start: grants and groups, and the exchange ids inside the window.
fn replayed(
    log: &Log,
    replay: &ReplayGuard,
    server: &ServerId,
    clock: &dyn Clock,
) -> Result<Access, StartError> {
    let mut known = Known::default();
    for record in log.scan_kind(kind::GRANT, 0).chain(log.scan_kind(kind::GROUP, 0)) {
        let record = record.map_err(StartError::Log)?;
        match known.take(&record.leaf) {
            // What it withdraws has expired.
            Ok(()) | Err(AccessError::Unknown(_)) => {}
            Err(error) => return Err(StartError::Grant(error)),
        }
    }
    let now = clock.now();
    for id in log.tail_ids(now.minus(2 * TOLERANCE)).map_err(StartError::Log)? {
        // What lies outside the window is refused by its time, and what stands twice in the log is in the set already.
        let _ = replay.admit(id, server, now);
    }
    Ok(Access::new(known))
}
