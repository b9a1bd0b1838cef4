//! The witness: remembers of each message log how far it saw it, and cosigns only what continues that
//! (<https://c2sp.org/tlog-witness>). So no log can show two stories, or take back what it held, without being found out.
//!
//! It is a process of its own, one in each state; any other program that speaks the protocol can take its place. It has no
//! power over anybody: it sees numbers and digests, and never a message.

mod judge;
mod logs;
mod memory;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::listen::{Limits, ListenError, Listener, TowerToHyperService, with_body_deadline};
use trave_host::tls::Http;
use trave_proto::checkpoint::{AddCheckpoint, MAX_ADD_CHECKPOINT, WitnessSigner, WitnessVerifier};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::tree::Head;

use crate::config::WitnessSettings;
use judge::{claimed, judge};
use logs::{Following, Logs, NoKey};
use memory::{Evidence, Memory, Remembered};

pub use judge::Refusal;
pub use logs::FollowingError;
pub use memory::MemoryError;
pub(crate) use memory::begin;

/// How long a stranger's connection stands before it is told to end.
const STRANGERS: Duration = Duration::from_secs(120);
/// Within this time the body of a request must have arrived.
const BODY: Duration = Duration::from_secs(20);
/// The answer "409 Conflict" holds the size that was cosigned last.
const SIZE: &str = "text/x.tlog.size";
/// Most requests whose bodies are held at a time: one more is turned away, so that strangers cannot fill the memory.
const BODIES: usize = 64;
const TEXT: &str = "text/plain; charset=utf-8";

/// Why a witness does not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its memory cannot be used.
    #[error("the witness's memory cannot be used")]
    Memory(#[source] MemoryError),
    /// Its door cannot be opened.
    #[error("the witness cannot listen")]
    Listen(#[source] ListenError),
    /// The registry cannot be followed.
    #[error("the registry cannot be followed")]
    Following(#[source] FollowingError),
}

/// A running witness.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    verifier: WitnessVerifier,
    desk: Arc<Desk>,
    drain: Drain,
}

impl Witness {
    /// Opens the door and serves until [`Witness::stop`].
    pub async fn start(settings: WitnessSettings, clock: Arc<dyn Clock>) -> Result<Self, WitnessError> {
        let WitnessSettings { listen, signer, state, registry, logs } = settings;
        let verifier = signer.verifier();
        let memory = Memory::recall(&state, &verifier).map_err(WitnessError::Memory)?;
        let stored = registry.as_ref().and_then(|followed| logs::stored(&state, followed));
        let known = Arc::new(Logs::new(logs, stored));
        let following = registry.map(|followed| Following::new(followed, &state, clock.clone()));
        let following = following.transpose().map_err(WitnessError::Following)?;
        let door = Listener::tcp(listen, Http::TwoOrOne).await.map_err(WitnessError::Listen)?;
        let door = door.with_limits(Limits::anonymous(STRANGERS));
        let address = door.local_addr().unwrap_or(listen);
        let drain = Drain::new();
        if let Some(following) = following {
            let (ends, known) = (drain.clone(), known.clone());
            drain.spawn(async move {
                tokio::select! {
                    () = ends.begun() => {}
                    () = following.run(known) => {}
                }
            });
        }
        let bodies = Semaphore::new(BODIES);
        let desk = Arc::new(Desk { signer, logs: known, clock, memory: Mutex::new(memory), bodies });
        let routes = with_body_deadline(routes(desk.clone()), BODY, &[]);
        drain.spawn(door.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));
        tracing::info!(%address, key = %verifier, "witness serves");
        Ok(Self { address, verifier, desk, drain })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key of its cosignatures.
    pub fn verifier(&self) -> &WitnessVerifier {
        &self.verifier
    }

    /// Number of the global configuration whose logs it knows; 0 for none yet.
    pub fn configuration_number(&self) -> u64 {
        self.desk.logs.number()
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

/// Where requests are decided, one at a time: looking up, checking and keeping are one step.
#[derive(Debug)]
struct Desk {
    signer: WitnessSigner,
    logs: Arc<Logs>,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    bodies: Semaphore,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
enum NoCosignature {
    #[error(transparent)]
    Refused(Refusal),
    #[error("the global configuration that names this log ended at {0}; the registry must be reached")]
    Ended(trave_proto::clock::Time),
    #[error("the witness cannot write to its disk")]
    Memory(#[source] MemoryError),
}

impl Desk {
    /// The cosignature's line.
    fn cosign(&self, body: &[u8]) -> Result<String, NoCosignature> {
        let request =
            AddCheckpoint::parse(body).map_err(Refusal::Malformed).map_err(NoCosignature::Refused)?;
        let claimed = claimed(&request).map_err(NoCosignature::Refused)?;
        let key = self.logs.key(&claimed.origin, self.clock.now()).map_err(|none| match none {
            NoKey::Unknown => NoCosignature::Refused(Refusal::Unknown(claimed.origin.clone())),
            NoKey::Ended(at) => NoCosignature::Ended(at),
        })?;
        let origin = Digest::of(claimed.origin.as_bytes());
        // The memory changes only after the disk has it: also whoever panicked left it consistent.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let last = memory.last(&origin).cloned();
        let checkpoint = judge(&request, &key, last.as_ref().map(|last| last.head)).map_err(|refusal| {
            tell_of(&refusal, &memory, &origin, &request);
            NoCosignature::Refused(refusal)
        })?;
        // "As of this time": a clock that went back makes no older statement than the last.
        let time = last.as_ref().map_or(self.clock.now(), |last| self.clock.now().max(last.time));
        let line = self.signer.cosign(request.checkpoint.text(), time);
        let head = Head { size: checkpoint.size, root: checkpoint.root };
        let newer = |last: Remembered| last.head != head || last.time.as_secs() < time.as_secs();
        if last.is_none_or(newer) {
            let mut note = request.checkpoint.signed_by(std::slice::from_ref(&key));
            let added = note.add_lines(line.as_bytes());
            added.map_err(Refusal::NotACheckpoint).map_err(NoCosignature::Refused)?;
            let remembered = Remembered { head, time, note: note.to_bytes() };
            memory.keep(origin, remembered).map_err(NoCosignature::Memory)?;
        }
        memory.healthy().map_err(NoCosignature::Memory)?;
        Ok(line)
    }

    /// The last checkpoint that was cosigned of the log with this SHA-256 of its origin.
    fn checkpoint(&self, origin: &str) -> Option<Vec<u8>> {
        let mut bytes = [0; Digest::LEN];
        let lower_case = origin.bytes().all(|b| !b.is_ascii_uppercase());
        hex::decode_to_slice(origin, &mut bytes).ok().filter(|()| lower_case)?;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.last(&Digest::from_bytes(bytes)).map(|last| last.note.clone())
    }
}

/// Tells people of what a log has signed and was not cosigned, and keeps it for them. Anybody can put a wrong proof before a
/// checkpoint that the log did sign: only another root for the same size shows two stories.
fn tell_of(refusal: &Refusal, memory: &Memory, origin: &Digest, request: &AddCheckpoint) {
    match refusal {
        Refusal::TwoStories { .. } => {
            let refusal = with_causes(refusal);
            tracing::error!(refusal, "ALARM: a log tells two stories; tell both states");
            memory.keep_evidence(Evidence::TwoStories, origin, request);
        }
        Refusal::NotProved { .. } => {
            tracing::warn!(refusal = with_causes(refusal), "a proof does not verify");
            memory.keep_evidence(Evidence::NotProved, origin, request);
        }
        _ => {}
    }
}

/// `POST /add-checkpoint` and `GET /{SHA-256 of the origin}/checkpoint`.
fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(checkpoint))
        .with_state(desk)
}

async fn add_checkpoint(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let Ok(_held) = desk.bodies.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again\n").into_response();
    };
    let Ok(body) = to_bytes(body, MAX_ADD_CHECKPOINT).await else {
        return (StatusCode::BAD_REQUEST, "the request is too long, too slow or broke off\n").into_response();
    };
    // Signatures are work for the processor, and the disk is waited for.
    let cosigning = Arc::clone(&desk);
    match tokio::task::spawn_blocking(move || cosigning.cosign(&body)).await {
        Ok(Ok(line)) => ([(header::CONTENT_TYPE, HeaderValue::from_static(TEXT))], line).into_response(),
        Ok(Err(error)) => refused(&error),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n").into_response(),
    }
}

async fn checkpoint(State(desk): State<Arc<Desk>>, Path(origin): Path<String>) -> Response {
    // The memory is held while the disk is waited for.
    match tokio::task::spawn_blocking(move || desk.checkpoint(&origin)).await.ok().flatten() {
        Some(note) => ([(header::CONTENT_TYPE, HeaderValue::from_static(TEXT))], note).into_response(),
        None => (StatusCode::NOT_FOUND, "nothing was cosigned of that log\n").into_response(),
    }
}

/// The answers that the specification lays down, each with a sentence for people but the one that holds a size.
fn refused(error: &NoCosignature) -> Response {
    let status = match error {
        NoCosignature::Refused(refusal) => match refusal {
            Refusal::Malformed(_) | Refusal::NotACheckpoint(_) | Refusal::Backwards { .. } => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::NotSigned(_) => StatusCode::FORBIDDEN,
            Refusal::NotProved { .. } | Refusal::Needless => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Conflict { last } | Refusal::TwoStories { size: last, .. } => {
                let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(SIZE))];
                return (StatusCode::CONFLICT, kind, format!("{last}\n")).into_response();
            }
        },
        NoCosignature::Ended(_) | NoCosignature::Memory(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(error = with_causes(error), "the witness cannot work");
    }
    (status, format!("{}\n", with_causes(error))).into_response()
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
