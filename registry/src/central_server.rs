//! The central registry as a whole: its state, its doors, and the publication of configurations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use tokio::sync::Notify;
use trave_certs::service::TrustServices;
use trave_host::drain::Drain;
use trave_host::listen::{Limits, ListenError, Listener, TowerToHyperService, with_body_deadline};
use trave_host::tls::{self, Clients, Http, TlsError};
use trave_proto::checkpoint::{CheckpointError, NoteSigner};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::Anchor;

use crate::config::{RegistrySettings, TrustServicesSettings};
use crate::cosigners::Cosigners;
use crate::listener::{AdministratorsOnly, admin_routes, distribution_routes, management_routes};
use crate::publication::Publication;
use crate::registration::Registration;
use crate::state::{Store, StoreError};
use crate::trust_services::{TrustServicesError, open};

/// How long the end waits for what was begun.
const END: Duration = Duration::from_secs(10);
/// How long a stranger's connection stands before it is told to end: long enough for a configuration of any size.
const STRANGERS: Duration = Duration::from_secs(120);
/// Within this time the body of a request must have arrived.
const BODY: Duration = Duration::from_secs(20);

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its state.
    #[error("the registry's state cannot be opened")]
    Store(#[source] StoreError),
    /// Opening the state was broken off.
    #[error("opening the registry's state was broken off")]
    Task(#[source] tokio::task::JoinError),
    /// The name of its log.
    #[error("the registry's log cannot be named after the instance")]
    Log(#[source] CheckpointError),
    /// A door.
    #[error("the registry cannot listen")]
    Listen(#[source] ListenError),
    /// TLS.
    #[error("the registry's TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// The trust services.
    #[error("the registry's trust services cannot begin")]
    TrustServices(#[source] TrustServicesError),
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    public: SocketAddr,
    admin: SocketAddr,
    trust_services: Option<SocketAddr>,
    store: Arc<Store>,
    drain: Drain,
}

impl Registry {
    /// Opens the state and the doors, and serves until [`Registry::stop`]. The first configuration is published as soon
    /// as enough cosigners have signed it.
    pub async fn start(settings: RegistrySettings, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let drain = Drain::new();
        let trust = settings.trust_services.as_ref();
        let trust =
            trust.map(|it| open_trust_services(it, settings.anchor.instance(), &clock)).transpose()?;
        let doors = Doors::open(&settings, &clock).await?;
        let (public, admin) = (address(&doors.public), settings.admin_listen);
        let cosigners = Cosigners::new(&settings.cosigners, &settings.identity, &clock);
        let cosigners = cosigners.map_err(RegistryError::Tls)?;
        let signer = settings.log_key.into_signer(&format!("{}/registry", settings.anchor.instance()));
        let signer = signer.map_err(RegistryError::Log)?;
        let store = open_store(settings.data, signer, settings.anchor.clone(), clock.clone()).await?;
        let wake = Arc::new(Notify::new());
        let registration = Arc::new(Registration {
            store: store.clone(),
            clock: clock.clone(),
            token_key: settings.token_key,
            public_address: settings.public_address.unwrap_or_else(|| public.to_string()),
            identity_key: settings.identity_key,
            anchor: settings.anchor.bytes().clone(),
        });
        let publication = Publication {
            store: store.clone(),
            clock: clock.clone(),
            anchor: settings.anchor,
            genesis: settings.genesis,
            key_name: settings.key_name,
            key: settings.key,
            validity: settings.validity,
            cosigners,
            authority: trust.as_ref().map(|services| services.authority.clone()),
            wake: wake.clone(),
        };
        let admin_door = admin_door(admin, settings.identity, &store, clock).await?;
        let admin = address(&admin_door);
        let trust_services = doors.trust_services.as_ref().map(address);
        drain.spawn(publication.run(drain.clone()));
        serve(&drain, admin_door, admin_routes(registration.clone(), wake).into_axum_router());
        let public_routes = distribution_routes(store.clone(), registration.anchor.clone());
        let public_routes = management_routes(registration).into_axum_router().merge(public_routes);
        serve(&drain, doors.public, public_routes.fallback(nothing_here));
        if let Some((door, services)) = doors.trust_services.zip(trust) {
            serve(&drain, door, services.router());
        }
        tracing::info!(%public, %admin, "registry serves");
        Ok(Self { public, admin, trust_services, store, drain })
    }

    /// Door for security servers: `https://…/configuration/latest`, and enrolment.
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Door for administrators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Cleartext door of the trust services, if they run here.
    pub fn trust_services_address(&self) -> Option<SocketAddr> {
        self.trust_services
    }

    /// Number of the configuration in force; 0 before the first is published.
    pub fn number(&self) -> u64 {
        self.store.latest().map_or(0, |latest| latest.configuration.number())
    }

    /// Waits until the configuration `number`, or a later one, is published; false if it is not within `limit`.
    pub async fn published(&self, number: u64, limit: Duration) -> bool {
        let mut published = self.store.watch();
        let reached = published.wait_for(|latest| *latest >= number);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Its end, for signals.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Finishes what was begun, ends the log in order, and ends.
    pub async fn stop(self) {
        self.drain.finish(END).await;
        let store = self.store;
        // It waits for the disk.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

/// The doors that strangers reach.
struct Doors {
    public: Listener,
    trust_services: Option<Listener>,
}

impl Doors {
    async fn open(settings: &RegistrySettings, clock: &Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let tls =
            tls::Server::new(settings.identity.clone(), Clients::Anonymous, Http::TwoOrOne, clock.clone());
        let public = Listener::tls(settings.public_listen, tls.map_err(RegistryError::Tls)?).await;
        let trust_services = match &settings.trust_services {
            Some(trust) => {
                let door = Listener::tcp(trust.listen, Http::TwoOrOne).await;
                Some(door.map_err(RegistryError::Listen)?.with_limits(Limits::anonymous(STRANGERS)))
            }
            None => None,
        };
        let public = public.map_err(RegistryError::Listen)?.with_limits(Limits::anonymous(STRANGERS));
        Ok(Self { public, trust_services })
    }
}

async fn open_store(
    data: PathBuf,
    signer: NoteSigner,
    anchor: Anchor,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Store>, RegistryError> {
    // It reads the whole log.
    let opened = tokio::task::spawn_blocking(move || Store::open(&data, signer, &anchor, clock)).await;
    opened.map_err(RegistryError::Task)?.map(Arc::new).map_err(RegistryError::Store)
}

async fn admin_door(
    listen: SocketAddr,
    identity: Arc<tls::Identity>,
    store: &Arc<Store>,
    clock: Arc<dyn Clock>,
) -> Result<Listener, RegistryError> {
    let policy = Clients::Known(Arc::new(AdministratorsOnly(store.clone())));
    let tls = tls::Server::new(identity, policy, Http::Two, clock).map_err(RegistryError::Tls)?;
    let limits = Limits { connections: 128, ..Limits::default() };
    let door = Listener::tls(listen, tls).await.map_err(RegistryError::Listen)?;
    Ok(door.with_limits(limits))
}

fn open_trust_services(
    settings: &TrustServicesSettings,
    instance: &str,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<TrustServices>, RegistryError> {
    let address = settings.listen.to_string();
    let services = open(&settings.directory, &settings.passphrase, instance, &address, clock.clone());
    services.map(Arc::new).map_err(RegistryError::TrustServices)
}

fn serve(drain: &Drain, door: Listener, routes: Router) {
    let routes = with_body_deadline(routes, BODY, &[]);
    drain.spawn(door.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));
}

async fn nothing_here() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "here are /configuration/latest, /configuration/NUMBER, /anchor and enrolment\n")
}

fn address(door: &Listener) -> SocketAddr {
    // A door of ours always has one; Unix sockets are not opened here.
    door.local_addr().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
}
