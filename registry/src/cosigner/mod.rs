//! The cosigner: holds one state's configuration key on a machine of that state, and signs only what the administrators
//! themselves have signed.
//!
//! It is a process of its own. The registry asks it over mutual TLS; the registry's word counts for nothing beyond that.

mod judge;
mod keeping;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::{Request, Response, Status};
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::keys::NoteKey;
use trave_host::listen::{ListenError, Listener, TowerToHyperService};
use trave_host::stubs::management::cosigner_service_server::{CosignerService, CosignerServiceServer};
use trave_host::tls::{self, Clients, Http, Pinned, TlsError};
use trave_proto::clock::Clock;
use trave_proto::global_configuration::{MAX_CONFIGURATION, sign_configuration};
use trave_proto::schema::configuration::KeySignature;
use trave_proto::schema::management::{CosignRequest, CosignResponse};

pub use judge::Refusal;
use judge::{Memory, Rules, Verdict, judge};
pub use keeping::KeepingError;
pub(crate) use keeping::begin;
use keeping::{Lock, keep, recall};

use crate::config::CosignerSettings;

/// Metadata of a refusal: "stale", "behind" or "refused".
pub(crate) const REASON: &str = "trave-reason";
/// Metadata of a refusal with the reason "behind": the last number known to the cosigner.
pub(crate) const LAST_NUMBER: &str = "trave-last-number";
/// Longest request that is read, in bytes: a configuration, the acts that lead to it, and a few that were missed.
pub(crate) const MAX_REQUEST: usize = 2 * MAX_CONFIGURATION;

/// Why a cosigner does not start.
#[derive(Debug, thiserror::Error)]
pub enum CosignerError {
    /// Its memory cannot be used.
    #[error("the cosigner's memory cannot be used")]
    Memory(#[source] KeepingError),
    /// Its door cannot be opened.
    #[error("the cosigner cannot listen")]
    Listen(#[source] ListenError),
    /// TLS cannot be set up.
    #[error("the cosigner's TLS cannot be set up")]
    Tls(#[source] TlsError),
}

/// A running cosigner.
#[derive(Debug)]
pub struct Cosigner {
    address: SocketAddr,
    drain: Drain,
    /// Held until the last answer is given.
    _lock: Lock,
}

impl Cosigner {
    /// Writes the memory of a cosigner that never signed anything, where there is none. Nobody but the cosigner's own
    /// administrator knows whether that is so: with a memory that was lost, it could sign one number twice.
    pub fn begin(settings: &CosignerSettings) -> Result<(), CosignerError> {
        begin(&settings.state, &settings.genesis).map_err(CosignerError::Memory)
    }

    /// Opens the door and serves until [`Cosigner::stop`].
    pub async fn start(settings: CosignerSettings, clock: Arc<dyn Clock>) -> Result<Self, CosignerError> {
        let lock = Lock::take(&settings.state).map_err(CosignerError::Memory)?;
        let memory = recall(&settings.state, &settings.genesis).map_err(CosignerError::Memory)?;
        let policy = Clients::Known(Arc::new(Pinned::new([settings.registry_key])));
        let tls = tls::Server::new(settings.identity.clone(), policy, Http::Two, clock.clone())
            .map_err(CosignerError::Tls)?;
        let listener = Listener::tls(settings.listen, tls).await.map_err(CosignerError::Listen)?;
        let address = listener.local_addr().unwrap_or(settings.listen);
        let desk = Arc::new(Desk {
            rules: Rules { anchor: settings.anchor, key_name: settings.key_name, genesis: settings.genesis },
            key: settings.key,
            state: settings.state,
            clock,
            memory: Mutex::new(memory),
        });
        let service = CosignerServiceServer::new(Door(desk)).max_decoding_message_size(MAX_REQUEST);
        let service = tonic::service::Routes::new(service).prepare().into_axum_router();
        let drain = Drain::new();
        let serving = drain.clone();
        drain.spawn(listener.serve(serving, move |_| TowerToHyperService::new(service.clone())));
        tracing::info!(%address, "cosigner serves");
        Ok(Self { address, drain, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its end, for signals.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Finishes what was begun and ends.
    pub async fn stop(self) {
        self.drain.finish(Duration::from_secs(10)).await;
    }
}

/// Where requests are decided, one at a time.
struct Desk {
    rules: Rules,
    key: NoteKey,
    state: PathBuf,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
}

impl Desk {
    fn cosign(&self, request: &CosignRequest) -> Result<KeySignature, Box<Status>> {
        // The memory is replaced as a whole, after the disk has it: also whoever panicked left it consistent.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = judge(&memory, &self.rules, request, self.clock.now()).map_err(|refusal| {
            tracing::warn!(reason = with_causes(&refusal), "refused to sign");
            Box::new(refused(&refusal))
        })?;
        let mut next = match verdict {
            Verdict::Again(signature) => return Ok(signature),
            Verdict::Sign(next) => next,
        };
        let Some(last) = next.last.as_mut() else {
            return Err(Box::new(Status::internal("nothing to sign")));
        };
        let sign = |content: &[u8]| self.key.sign(content);
        let signature = sign_configuration(&last.configuration, &self.rules.key_name, sign);
        last.signatures = vec![signature.clone()];
        keep(&self.state, &next, &self.rules.genesis).map_err(|error| {
            tracing::error!(error = with_causes(&error), "cannot keep what would be signed, so nothing is");
            Box::new(Status::unavailable("the cosigner cannot write to its disk"))
        })?;
        *memory = next;
        Ok(signature)
    }
}

struct Door(Arc<Desk>);

#[tonic::async_trait]
impl CosignerService for Door {
    async fn cosign(&self, request: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        let desk = self.0.clone();
        // Judging is work for the processor and waits for the disk.
        let decided = tokio::task::spawn_blocking(move || desk.cosign(request.get_ref())).await;
        let signature =
            decided.map_err(|_| Status::internal("the cosigner failed"))?.map_err(|status| *status)?;
        Ok(Response::new(CosignResponse { signature: Some(signature) }))
    }
}

fn refused(refusal: &Refusal) -> Status {
    let text = with_causes(refusal);
    let (mut status, reason) = match refusal {
        Refusal::Stale { .. } => (Status::failed_precondition(text), "stale"),
        Refusal::Behind { .. } => (Status::failed_precondition(text), "behind"),
        _ => (Status::permission_denied(text), "refused"),
    };
    status.metadata_mut().insert(REASON, tonic::metadata::MetadataValue::from_static(reason));
    if let Refusal::Behind { last, .. } = refusal {
        status.metadata_mut().insert(LAST_NUMBER, (*last).into());
    }
    status
}
