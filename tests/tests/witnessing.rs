//! Killed, or failing, at every step between a checkpoint and its cosignature: the server starts again by itself, and a
//! witness that forgets nothing never sees two stories.
//!
//! The steps: the checkpoint is signed and made durable (the message log's own tests fail every write and sync of that,
//! with and without effect) → it is submitted → the witness stores it → its answer is read → the cosignature is kept. Here the
//! witness is the test's: it plays each step as *failed*, *failed but stored* or *killed*.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use trave_gateway::custody::Layout;
use trave_host::clock::SystemClock;
use trave_host::keys::NoteKey;
use trave_proto::checkpoint::{AddCheckpoint, Checkpoint, NoteVerifier, WitnessSigner};
use trave_proto::clock::Clock;
use trave_proto::schema::configuration as schema;
use trave_proto::schema::proof::Checkpoint as Stored;
use trave_proto::tree::{Head, is_consistent};
use trave_tests::network::{Identities, Instance, Plan, Process, Server, serve_if_told, status};

/// Not a test by itself: with `TRAVE_SERVE` set, this program is a security server.
#[test]
fn serve() {
    serve_if_told();
}

/// What becomes of the next submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails: the witness refuses, and has stored nothing.
    Failed,
    /// It fails, but is stored: the server does not learn that it was cosigned.
    FailedButStored,
    /// The server is killed while it waits; the witness has stored nothing.
    KilledUnstored,
    /// The server is killed while it waits; the witness has stored it.
    KilledStored,
    /// The server is killed when it has the answer, about when it keeps the cosignature.
    KilledAnswered,
    /// The cosignature cannot be kept.
    NotKept,
}

const FAULTS: [Fault; 6] = [
    Fault::Failed,
    Fault::FailedButStored,
    Fault::KilledUnstored,
    Fault::KilledStored,
    Fault::KilledAnswered,
    Fault::NotKept,
];

/// A witness that remembers all that it was ever shown.
struct Memory {
    signer: WitnessSigner,
    log: NoteVerifier,
    shown: Vec<Checkpoint>,
    last: Option<Checkpoint>,
    cosigned: u64,
    fault: Option<Fault>,
    /// The server, until it is killed.
    server: Option<Process>,
    running: bool,
}

impl Memory {
    /// The answer to a submission, and whom to kill when it has left.
    fn judge(&mut self, body: &[u8]) -> ((StatusCode, String), Option<Process>) {
        let request = AddCheckpoint::parse(body).unwrap();
        let note = request.checkpoint.to_bytes();
        let new = Checkpoint::verify(&note, std::slice::from_ref(&self.log)).unwrap();
        self.shown.push(new.clone());
        let (size, root) = self.last.as_ref().map_or((0, None), |last| (last.size, Some(last.root)));
        if request.old != size {
            return ((StatusCode::CONFLICT, format!("{size}\n")), None);
        }
        if let Some(root) = root {
            let (old, new) = (Head { size, root }, Head { size: new.size, root: new.root });
            assert!(is_consistent(&old, &new, &request.proof), "two stories: {old:?}, {new:?}");
        }
        let fault = self.fault.take();
        let refused = (StatusCode::INTERNAL_SERVER_ERROR, String::new());
        if matches!(fault, Some(Fault::Failed | Fault::KilledUnstored)) {
            if fault == Some(Fault::KilledUnstored) {
                self.kill();
            }
            return (refused, None);
        }
        self.last = Some(new);
        match fault {
            Some(Fault::FailedButStored) => (refused, None),
            Some(Fault::KilledStored) => {
                self.kill();
                (refused, None)
            }
            _ => {
                self.cosigned += 1;
                let line = self.signer.cosign(request.checkpoint.text(), SystemClock.now());
                let killed = if fault == Some(Fault::KilledAnswered) { self.server.take() } else { None };
                ((StatusCode::OK, line), killed)
            }
        }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
        self.running = false;
    }
}

type Shared = Arc<Mutex<Memory>>;

async fn add_checkpoint(State(memory): State<Shared>, body: Bytes) -> (StatusCode, String) {
    let judging = Arc::clone(&memory);
    let judged = tokio::task::spawn_blocking(move || judging.lock().unwrap().judge(&body));
    let (answer, killed) = judged.await.unwrap();
    if let Some(process) = killed {
        // The answer leaves first; the kill falls before, into or after what follows from it.
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(some_millis()));
            process.kill();
            memory.lock().unwrap().running = false;
        });
    }
    answer
}

/// A few milliseconds, another number each time.
fn some_millis() -> u64 {
    static ROUND: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    ROUND.fetch_add(3, std::sync::atomic::Ordering::Relaxed) % 17
}

fn start(server: &Server) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["serve", "--exact", "--nocapture"]);
    Process::start(command, server)
}

/// What a server kept of its cosignatures.
fn kept(layout: &Layout, log: &NoteVerifier) -> Option<Checkpoint> {
    let stored = Stored::decode(std::fs::read(layout.witnessed()).ok()?.as_slice()).unwrap();
    Some(Checkpoint::verify(&stored.note, std::slice::from_ref(log)).unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let reached = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(90), reached).await.is_ok(), "not in 90 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_between_checkpoint_and_cosignature_no_checkpoint_is_contradicted() {
    let rounds = std::env::var("TRAVE_CRASH_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let plan = Plan { checkpoint_seconds: 1, ..Plan::default() };
    let mut instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
    let log = Identities::get().of(instance.mv.id).log.verifier();
    let signer =
        WitnessSigner::new("witness.sh.example/w1", NoteKey::generate().unwrap().into_pair()).unwrap();
    let verifier = signer.verifier();
    let memory = Memory {
        signer,
        log: log.clone(),
        shown: Vec::new(),
        last: None,
        cosigned: 0,
        fault: None,
        server: None,
        running: false,
    };
    let memory: Shared = Arc::new(Mutex::new(memory));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/add-checkpoint", post(add_checkpoint)).with_state(Arc::clone(&memory));
    let witness = tokio::spawn(async move { axum::serve(listener, router).await });
    let next = instance.next_configuration(|next| {
        next.version = 2;
        next.witnesses = vec![schema::Witness {
            name: verifier.name().into(),
            public_key: Bytes::copy_from_slice(verifier.public_key()),
            class: "SH".into(),
            url: format!("http://{address}"),
        }];
    });
    instance.mv.put_configuration(&next);
    let layout = instance.mv.layout();
    let mut published = Vec::new();
    for fault in std::iter::repeat_n(FAULTS, rounds).flatten() {
        // `witnessed` cannot be replaced while a directory stands in its place.
        if fault == Fault::NotKept {
            let _ = std::fs::remove_file(layout.witnessed());
            std::fs::create_dir(layout.witnessed()).unwrap();
        }
        {
            let mut memory = memory.lock().unwrap();
            let server = Some(start(&instance.mv));
            (memory.fault, memory.server, memory.running) = (Some(fault), server, true);
        }
        until(&format!("{fault:?} takes effect"), || memory.lock().unwrap().fault.is_none()).await;
        if matches!(fault, Fault::Failed | Fault::FailedButStored | Fault::NotKept) {
            let before = memory.lock().unwrap().cosigned;
            let told = instance.mv.configuration_file().with_extension("told");
            let goes_on = || match fault {
                Fault::NotKept => {
                    std::fs::read_to_string(&told).unwrap().contains("cosignatures cannot be kept")
                }
                _ => memory.lock().unwrap().cosigned > before,
            };
            until(&format!("{fault:?}: it goes on"), goes_on).await;
            memory.lock().unwrap().kill();
        }
        until("it is killed", || !memory.lock().unwrap().running).await;
        if fault == Fault::NotKept {
            std::fs::remove_dir(layout.witnessed()).unwrap();
        }
        published.push(std::fs::read(layout.log().join("checkpoint")).unwrap());
        if let Some(kept) = kept(&layout, &log) {
            assert!(memory.lock().unwrap().shown.contains(&kept), "{fault:?}: {kept:?} was never submitted");
        }
    }
    instance.mv.start().await.unwrap();
    let reached = async {
        while status(&instance.mv).await.witnessed_size < instance.mv.size() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), reached).await.is_ok(), "all is witnessed");
    let warnings = status(&instance.mv).await.warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("witness")), "{warnings:?}");
    instance.mv.stop().await;
    continues(&instance.mv, &memory.lock().unwrap(), &published, rounds);
    instance.stop().await;
    witness.abort();
}

/// Every checkpoint that was ever shown to the witness, or published, is one of the log as it is now.
fn continues(server: &Server, memory: &Memory, published: &[Vec<u8>], rounds: usize) {
    assert_eq!(kept(&server.layout(), &memory.log), memory.last);
    let key = std::slice::from_ref(&memory.log);
    let published = published.iter().map(|note| Checkpoint::verify(note, key).unwrap());
    let given_away: Vec<_> = memory.shown.iter().cloned().chain(published).collect();
    assert!(given_away.len() > 2 * FAULTS.len() * rounds, "{}", given_away.len());
    let now = server.open_log();
    for checkpoint in given_away {
        assert_eq!(now.root(checkpoint.size).unwrap(), checkpoint.root, "at {}", checkpoint.size);
    }
    now.close();
}
