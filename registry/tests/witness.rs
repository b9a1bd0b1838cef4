//! The witness as a process: killed again and again, it never contradicts a cosignature that it gave away; and it learns
//! from the registry which logs there are.

#![allow(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

mod network;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use network::{FRAUKE_SH, Network, UWE_MV, decide};
use trave_host::client::{Fetch, Fetched};
use trave_host::clock::ManualClock;
use trave_host::keys::NoteKey;
use trave_proto::checkpoint::{AddCheckpoint, Checkpoint, NoteSigner, WitnessVerifier};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::management::EnrolmentKeys;
use trave_proto::schema::configuration as schema;
use trave_proto::schema::management::EnrolSecurityServer;
use trave_proto::schema::management::act::Change;
use trave_proto::tree::{consistency, leaf_hash, root};
use trave_registry::Witness;
use trave_registry::config::WitnessSettings;

const ORIGIN: &str = "NORD/SH/luebeck/s1/1";

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trave-registry"));
    command.args(arguments).stdin(Stdio::null()).env_remove("TRAVE_CONFIG");
    command
}

/// Makes a witness; its door and its key.
fn init(directory: &Path, more: &[&str]) -> (String, WitnessVerifier) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let path = directory.display().to_string();
    let arguments = ["init-witness", &path, "--name", "witness.example/mv", "--listen", &address];
    let output = program(&[&arguments, more].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = String::from_utf8(output.stdout).unwrap().lines().next().unwrap().parse().unwrap();
    (address, key)
}

/// A log with a story of its own.
struct Log {
    signer: NoteSigner,
    leaves: Vec<Digest>,
}

impl Log {
    fn new(key: NoteKey, story: &str) -> Self {
        let leaves = (0..2_000_u32).map(|i| leaf_hash(format!("{story} {i}").as_bytes())).collect();
        Self { signer: key.into_signer(ORIGIN).unwrap(), leaves }
    }

    fn request(&self, old: usize, size: usize) -> AddCheckpoint {
        let leaves = &self.leaves[..size];
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size: size as u64, root: root(leaves) };
        let proof = consistency(leaves, old).unwrap();
        AddCheckpoint { old: old as u64, proof, checkpoint: checkpoint.sign(&self.signer) }
    }
}

async fn ask(address: &str, request: &AddCheckpoint) -> Option<(StatusCode, Fetched)> {
    let uri = format!("http://{address}/add-checkpoint").parse().unwrap();
    let fetch = Fetch::new(None).with_time(Duration::from_secs(20));
    fetch.ask(&uri, "text/plain; charset=utf-8", Bytes::from(request.to_bytes())).await.ok()
}

/// Asks until somebody answers: a process takes a while to begin.
async fn answered(address: &str, request: &AddCheckpoint) -> (StatusCode, Fetched) {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask(address, request).await {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the witness does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn start(directory: &Path) -> Child {
    let config = directory.join("witness.toml").display().to_string();
    let mut command = program(&["witness", "--config", &config, "--log", "warn"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Killed at any instant between request and answer: what it gave away it stands by, and no fork is ever cosigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_contradicts_no_cosignature() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("witness");
    let (address, witness) = init(&place, &[]);
    let pair = || NoteKey::generate().unwrap();
    let log = Log::new(pair(), "true");
    let toml = place.join("witness.toml");
    let mut text = std::fs::read_to_string(&toml).unwrap();
    text.push_str(&format!("[[log]]\nkey = \"{}\"\n", log.signer.verifier()));
    std::fs::write(&toml, text).unwrap();
    let fork = Log { signer: log.signer.clone(), leaves: Log::new(pair(), "false").leaves };
    let (mut given, mut sent) = (0_usize, 0_usize);
    for round in 0..25_u64 {
        let mut child = start(&place);
        // Where it stands after the kill: at what it gave away, or at what it was about to.
        let (status, answer) = answered(&address, &log.request(sent + 1, sent + 1)).await;
        assert_eq!(status, StatusCode::CONFLICT);
        let stands = AddCheckpoint::parse_conflict(&answer.body).unwrap() as usize;
        assert!((given..=sent).contains(&stands), "gave {given}, was sent {sent}, stands at {stands}");
        if stands > 0 {
            let (status, answer) = answered(&address, &fork.request(stands, stands)).await;
            let last = AddCheckpoint::parse_conflict(&answer.body);
            let fork = (StatusCode::CONFLICT, Some(stands as u64));
            assert_eq!((status, last), fork, "a fork where it stands is not cosigned");
        }
        (given, sent) = (stands, stands);
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(3 + round * 7 % 90));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        while !killer.is_finished() {
            let request = log.request(sent, sent + 1);
            sent += 1;
            let Some((status, answer)) = ask(&address, &request).await else { break };
            assert_eq!(status, StatusCode::OK);
            let mut note = request.checkpoint;
            note.add_lines(&answer.body).unwrap();
            assert_eq!(note.cosignatures(std::slice::from_ref(&witness)).unwrap().len(), 1);
            given = sent;
        }
        killer.await.unwrap();
    }
    assert!(given > 0, "nothing was ever cosigned, so nothing was tested");
}

/// An instance with one security server; the witness follows its registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_learns_the_logs_from_the_configuration() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let anchor = network.instance.anchor.display().to_string();
    let place = network.directory.path().join("witness");
    let settings = network.settings(FRAUKE_SH);
    let (public, key) = (registry.public_address().to_string(), settings.registry_key.to_string());
    let more = ["--registry", &public, "--registry-key", &key, "--anchor", &anchor];
    let (address, verifier) = init(&place, &more);
    let log = Log::new(NoteKey::generate().unwrap(), "true");
    let clock: Arc<ManualClock> = network.clock.clone();
    let start = || async {
        let settings = WitnessSettings::load(&place.join("witness.toml")).unwrap();
        Witness::start(settings, clock.clone() as Arc<dyn Clock>).await.unwrap()
    };
    let witness = start().await;
    assert_eq!(answered(&address, &log.request(0, 3)).await.0, StatusCode::NOT_FOUND, "not listed yet");

    let (mut frauke, mut uwe) = (network.administrator(FRAUKE_SH).await, network.administrator(UWE_MV).await);
    for change in [network::luebeck(), network::server(), put_witness(&verifier, &address)] {
        decide(&mut frauke, &mut uwe, change).await;
    }
    let enrolment = enrolment(&log);
    let fingerprint = EnrolmentKeys::of(&enrolment).unwrap().fingerprint().to_string();
    let id = frauke.apply(Change::EnrolSecurityServer(enrolment), network::DAY).await.unwrap();
    let number = uwe.approve(id, Some(&fingerprint)).await.unwrap();
    assert!(registry.published(number, Duration::from_secs(20)).await);
    let configuration = network.configuration().await;
    assert_eq!(configuration.witnesses()[0].verifier, verifier, "and the witness itself is registered");
    let begun = Instant::now();
    while witness.configuration_number() < number {
        assert!(begun.elapsed() < Duration::from_secs(60), "the witness does not follow the registry");
        clock.advance(Duration::from_secs(61));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(answered(&address, &log.request(0, 3)).await.0, StatusCode::OK);

    // Without the registry it goes on with what it adopted, over a restart too, and as long as that is valid.
    registry.stop().await;
    cosigner.stop().await;
    witness.stop().await;
    let witness = start().await;
    assert_eq!(answered(&address, &log.request(3, 5)).await.0, StatusCode::OK);
    clock.advance(Duration::from_secs(8 * 24 * 3600));
    assert_eq!(answered(&address, &log.request(5, 6)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    witness.stop().await;
}

fn enrolment(log: &Log) -> EnrolSecurityServer {
    let public_key = Bytes::copy_from_slice(log.signer.verifier().public_key());
    EnrolSecurityServer {
        id: network::SERVER.into(),
        authentication_key: Bytes::from_static(&[1; 32]),
        signing_key: Bytes::from_static(&[2; 32]),
        log: Some(schema::LogKey { origin: ORIGIN.into(), public_key }),
    }
}

fn put_witness(witness: &WitnessVerifier, address: &str) -> Change {
    Change::PutWitness(schema::Witness {
        name: witness.name().into(),
        public_key: Bytes::copy_from_slice(witness.public_key()),
        class: "MV".into(),
        url: format!("http://{address}"),
    })
}
