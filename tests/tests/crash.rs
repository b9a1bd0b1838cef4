//! Killed at any instant under load: nothing was answered that a log does not hold, no log contradicts a checkpoint that it
//! gave away, and the server starts again by itself.
//!
//! `TRAVE_CRASH_ROUNDS=200` kills more often than usual. Power cuts are simulated in the message log's own tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use trave_host::clock::SystemClock;
use trave_proto::checkpoint::Checkpoint;
use trave_proto::identifier::ExchangeId;
use trave_tests::network::{
    Caller, Identities, Instance, Plan, Process, Question, Record, Server, exchange_of, serve_if_told,
    summary, told,
};

/// Not a test by itself: with `TRAVE_SERVE` set, this program is a security server.
#[test]
fn serve() {
    serve_if_told();
}

fn start(server: &Server) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["serve", "--exact", "--nocapture"]);
    Process::start(command, server)
}

#[tokio::test]
async fn a_server_that_a_test_started_ends_with_it() {
    let mut instance = Instance::prepared(Plan::default(), Arc::new(SystemClock)).await;
    let mut process = start(&instance.mv);
    process.serving().await;
    process.abandon().await;
    instance.stop().await;
}

/// What callers were answered.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<Vec<ExchangeId>>>, Arc<watch::Sender<usize>>);

impl Answered {
    fn add(&self, exchange: ExchangeId) {
        self.0.lock().unwrap().push(exchange);
        self.1.send_modify(|count| *count += 1);
    }

    /// Waits for so many more.
    async fn more(&self, count: usize) {
        let now = *self.1.borrow();
        let reached =
            async { self.1.subscribe().wait_for(|answered| *answered >= now + count).await.map(|_| ()) };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("calls are answered again")
            .unwrap();
    }
}

/// Asks without end. A connection that broke is made anew; what is answered with an error is asked again.
async fn load(door: std::net::SocketAddr, answered: Answered, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Some(caller) = Caller::try_connect(door).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            match caller.try_ask(Question::new().message(b"unter Last")).await {
                Err(_) => break,
                Ok(answer) if answer.status() == 0 => answered.add(answer.exchange()),
                // The other server is down: let it come back.
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_no_answer_is_missing_in_either_log() {
    let rounds = std::env::var("TRAVE_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let plan = Plan { checkpoint_seconds: 1, ..Plan::default() };
    let mut instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
    let (mut sh, mut mv) = (Some(start(&instance.sh)), Some(start(&instance.mv)));
    for process in [&mut sh, &mut mv] {
        process.as_mut().unwrap().serving().await;
    }
    let (answered, stop) = (Answered::default(), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(instance.sh.door, answered.clone(), Arc::clone(&stop)))).collect();
    let mut given_away: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for round in 0..rounds {
        answered.more(20 + round * 7 % 40).await;
        let (process, server) = match round % 2 {
            0 => (&mut mv, &instance.mv),
            _ => (&mut sh, &instance.sh),
        };
        // Its first round goes on until it gave a checkpoint away; the others end whatever it is doing.
        if round < 2 {
            gave_one_away(server).await;
        }
        process.take().unwrap().kill();
        given_away.entry(server.id).or_default().extend(std::fs::read(checkpoint_file(server)).ok());
        let mut again = start(server);
        again.serving().await;
        *process = Some(again);
    }
    answered.more(20).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    for process in [sh, mv] {
        process.unwrap().kill();
    }
    let answered = answered.0.lock().unwrap().clone();
    instance.sh.start().await.unwrap();
    instance.mv.start().await.unwrap();
    for server in [&instance.sh, &instance.mv] {
        holds_what_was_answered(server, &answered);
        tells_how_each_ended(server).await;
    }
    called_once(&instance);
    instance.sh.stop().await;
    instance.mv.stop().await;
    for (server, checkpoints) in given_away {
        let server = if server == instance.sh.id { &instance.sh } else { &instance.mv };
        continues(server, &checkpoints);
    }
    instance.stop().await;
}

/// What a log gave away last, as it lies beside it.
fn checkpoint_file(server: &Server) -> std::path::PathBuf {
    server.layout().log().join("checkpoint")
}

async fn gave_one_away(server: &Server) {
    let given = async {
        while !checkpoint_file(server).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let given = tokio::time::timeout(Duration::from_secs(60), given).await;
    assert!(given.is_ok(), "{} gives a checkpoint away", server.id);
}

fn holds_what_was_answered(server: &Server, answered: &[ExchangeId]) {
    assert!(answered.len() > 100, "there was load: {}", answered.len());
    let mut by_exchange: HashMap<ExchangeId, Vec<Record>> = HashMap::new();
    for record in server.records(0) {
        if let Some(exchange) = exchange_of(&record) {
            by_exchange.entry(exchange).or_default().push(record);
        }
    }
    let told = match server.is_client() {
        true => ["sent request end", "received response end"],
        false => ["received request end", "sent response end"],
    };
    for exchange in answered {
        let records = by_exchange.get(exchange).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(summary(records, *exchange), told, "{} after all that it answered", server.id);
    }
}

/// Exchanges that were cut off have an end: after a restart their outcome is unknown, and says so.
async fn tells_how_each_ended(server: &Server) {
    let open = || {
        let mut open = BTreeSet::new();
        for record in server.records(0) {
            let Some(exchange) = exchange_of(&record) else { continue };
            match told(&record).split(' ').collect::<Vec<_>>()[..] {
                [_, "response", _, "end"] | ["ended", ..] | ["refused", ..] => open.remove(&exchange),
                _ => open.insert(exchange),
            };
        }
        open
    };
    let closed = async {
        while !open().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
    assert!(closed.is_ok(), "{} does not tell how these ended: {:?}", server.id, open());
    let unknown = server.records(0).iter().filter(|record| told(record).starts_with("ended unknown")).count();
    assert!(unknown > 0, "{}: a kill under load cuts exchanges off", server.id);
}

/// A call of the register is never made twice, however it ended.
fn called_once(instance: &Instance) {
    let mut seen = BTreeSet::new();
    for call in instance.register.calls() {
        let exchange = call.header("trave-exchange-id").unwrap().to_owned();
        assert!(seen.insert(exchange.clone()), "the register was called twice for {exchange}");
    }
}

/// Each checkpoint that was given away is one of the log as it is now.
fn continues(server: &Server, checkpoints: &[Vec<u8>]) {
    assert!(!checkpoints.is_empty(), "{} gave checkpoints away", server.id);
    let verifier = Identities::get().of(server.id).log.verifier();
    let log = server.open_log();
    for note in checkpoints {
        let checkpoint = Checkpoint::verify(note, std::slice::from_ref(&verifier)).unwrap();
        assert_eq!(log.root(checkpoint.size).unwrap(), checkpoint.root, "at {}", checkpoint.size);
    }
    log.close();
}
