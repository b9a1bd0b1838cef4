//! A smoke figure: 64 callers at a time ask with 1 KiB through two security servers, each a process of its own.
//!
//! `cargo run --release --bin smoke [SECONDS]`; with `--idle-streams N` so many streams are held open for so long instead, on
//! which nothing is said, while others call; with `--exchanges N` so many are answered, and what they left is weighed. One machine, loopback, one disk: a figure to notice regressions by, not a
//! benchmark.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement ends at what it did not expect")]

mod weight;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trave_host::clock::SystemClock;
use trave_tests::agency::get;
use trave_tests::network::{Caller, Instance, Plan, Process, Question, Server, reserve, serve_if_told};

const CALLERS: usize = 64;
const MESSAGE: [u8; 1024] = [b'x'; 1024];

fn main() {
    serve_if_told();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut number = |option: &str| {
        let at = arguments.iter().position(|argument| argument == option)?;
        arguments.remove(at);
        Some(arguments.remove(at).parse::<usize>().expect("N is a number"))
    };
    let (idle, exchanges) = (number("--idle-streams"), number("--exchanges"));
    let seconds = arguments.first().map(|seconds| seconds.parse().expect("SECONDS is a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match (idle, exchanges) {
        (None, Some(exchanges)) => runtime.block_on(weight::weigh(exchanges as u64)),
        (None, None) => runtime.block_on(measure(Duration::from_secs(seconds.unwrap_or(10)))),
        (Some(streams), _) => runtime.block_on(hold(streams, Duration::from_secs(seconds.unwrap_or(60)))),
    }
}

/// Streams of one caller's connection: as many as a door takes.
const STREAMS: usize = 250;

/// Opens `streams` streams, each answered once, and holds them; then each is answered once more.
async fn hold(streams: usize, time: Duration) {
    // One service may take half of all places.
    let limits = format!("[limits]\nexchanges = {}\n", 2 * streams + 1024);
    let plan = Plan { at_client: limits.clone(), at_provider: limits, segment_mib: 64, ..Plan::default() };
    let instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
    let (mut sh, mut mv) = (start(&instance.sh), start(&instance.mv));
    sh.serving().await;
    mv.serving().await;
    println!("resident, idle       SH {:.1} MiB, MV {:.1} MiB", sh.resident(), mv.resident());
    let begun = Instant::now();
    let mut held = Vec::new();
    while held.len() < streams {
        let caller = Caller::connect(instance.sh.door).await;
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..STREAMS.min(streams - held.len()) {
            let caller = caller.clone();
            opening.spawn(async move {
                let mut open = caller.open(Question::new()).await;
                open.send(&MESSAGE).await;
                open.head().await;
                open.read(MESSAGE.len() + 5).await;
                open
            });
        }
        held.extend(opening.join_all().await);
    }
    println!("open                 {streams} streams after {:.1?}", begun.elapsed());
    println!("resident, open       SH {:.1} MiB, MV {:.1} MiB", sh.resident(), mv.resident());
    let (cpu, begun, mut took) = ((sh.cpu(), mv.cpu()), Instant::now(), Vec::new());
    let caller = Caller::connect(instance.sh.door).await;
    while begun.elapsed() < time {
        let asked = Instant::now();
        assert_eq!(caller.ask(Question::new().message(&MESSAGE)).await.only().len(), MESSAGE.len());
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    took.sort_unstable();
    println!(
        "others, meanwhile    {} calls answered, half of them within {:.1?}, all within {:.1?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    println!(
        "CPU, meanwhile       SH {:.1?}, MV {:.1?} in {:.0?}",
        sh.cpu() - cpu.0,
        mv.cpu() - cpu.1,
        begun.elapsed()
    );
    println!("resident, held       SH {:.1} MiB, MV {:.1} MiB", sh.resident(), mv.resident());
    for open in &mut held {
        open.send(&MESSAGE).await;
        open.read(MESSAGE.len() + 5).await;
    }
    println!("alive                all {} answered once more", held.len());
    sh.kill();
    mv.kill();
}

fn start(server: &Server) -> Process {
    Process::start(Command::new(std::env::current_exe().unwrap()), server)
}

/// What a security server at rest may hold, in MiB of resident memory, and how long it may take to give back what its start
/// needed.
const AT_REST: (f64, Duration) = (50.0, Duration::from_secs(10));

/// Waits until both servers hold no more than that.
async fn at_rest(servers: [&Process; 2]) {
    let begun = Instant::now();
    let held = loop {
        let held = servers.map(Process::resident);
        if held.iter().all(|held| *held < AT_REST.0) {
            break held;
        }
        assert!(begun.elapsed() < AT_REST.1, "a server at rest holds more than {} MiB: {held:?}", AT_REST.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let took = begun.elapsed();
    println!("resident, idle       SH {:.1} MiB, MV {:.1} MiB, {took:.1?} after the start", held[0], held[1]);
}

async fn measure(time: Duration) {
    let ((_sh_port, sh_told), (_mv_port, mv_told)) = (reserve(), reserve());
    let operations = |address| format!("[operations]\nlisten = \"{address}\"\n");
    let plan = Plan {
        at_client: operations(sh_told),
        at_provider: operations(mv_told),
        segment_mib: 64,
        ..Plan::default()
    };
    let instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
    let (mut sh, mut mv) = (start(&instance.sh), start(&instance.mv));
    println!("start-up             SH {:.2?}, MV {:.2?}", sh.serving().await, mv.serving().await);
    at_rest([&sh, &mv]).await;
    drive(&instance, Duration::from_secs(2)).await;
    let figures = Figures::read(sh_told, mv_told).await;
    let (cpu, begun) = ((sh.cpu(), mv.cpu()), Instant::now());
    let answered = drive(&instance, time).await;
    let took = begun.elapsed();
    let cpu = (sh.cpu() - cpu.0, mv.cpu() - cpu.1);
    let per = |cpu: Duration| cpu.as_micros() as f64 / answered as f64;
    println!("answered             {answered} in {took:.1?}: {:.0} /s", answered as f64 / took.as_secs_f64());
    println!(
        "CPU per exchange     SH {:.0} µs, MV {:.0} µs, both {:.0} µs",
        per(cpu.0),
        per(cpu.1),
        per(cpu.0 + cpu.1)
    );
    figures.compare(&Figures::read(sh_told, mv_told).await, answered);
    println!("resident, after load SH {:.1} MiB, MV {:.1} MiB", sh.resident(), mv.resident());
    sh.kill();
    mv.kill();
}

/// 64 callers, each on a connection of eight, each asking again as soon as it was answered.
async fn drive(instance: &Instance, time: Duration) -> u64 {
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(Caller::connect(instance.sh.door).await);
    }
    for caller in 0..CALLERS {
        let (caller, answered, stop) =
            (connections[caller % connections.len()].clone(), Arc::clone(&answered), Arc::clone(&stop));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = caller.ask(Question::new().message(&MESSAGE)).await;
                assert_eq!(answer.only().len(), MESSAGE.len());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;
    answered.load(Ordering::Relaxed)
}

/// What both servers count themselves.
struct Figures([String; 2]);

impl Figures {
    async fn read(sh: std::net::SocketAddr, mv: std::net::SocketAddr) -> Self {
        let mut texts = [String::new(), String::new()];
        for (text, address) in texts.iter_mut().zip([sh, mv]) {
            let (status, body) = get(&address.to_string(), "/metrics").await.unwrap();
            assert_eq!(status, 200);
            *text = String::from_utf8(body.to_vec()).unwrap();
        }
        Self(texts)
    }

    fn value(&self, server: usize, name: &str) -> f64 {
        let line = self.0[server].lines().find(|line| line.starts_with(&format!("{name}_total ")));
        line.unwrap_or_else(|| panic!("{name} is not told")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// What was counted between `self` and `later`, while so many exchanges were answered.
    fn compare(&self, later: &Self, answered: u64) {
        let signed = |server| {
            let grown =
                later.value(server, "trave_messages_signed") - self.value(server, "trave_messages_signed");
            grown / answered as f64
        };
        // One where a direction is one message: more where its end came later than a millisecond.
        println!("messages/exchange    SH {:.2}, MV {:.2}", signed(0), signed(1));
        for (what, of, per) in [
            ("messages/signature ", "trave_messages_signed", "trave_signatures"),
            ("records/fdatasync  ", "trave_log_records", "trave_log_syncs"),
        ] {
            let ratio = |server| {
                let grown = |name| later.value(server, name) - self.value(server, name);
                grown(of) / grown(per)
            };
            println!("{what}  SH {:.1}, MV {:.1}", ratio(0), ratio(1));
        }
    }
}
