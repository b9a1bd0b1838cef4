//! How many records a log makes durable in a second, and how many share one fdatasync.
//!
//! `cargo run --release -p trave-message-log --example throughput -- [directory] [appenders] [seconds] [body bytes]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use trave_message_log::{Artefact, ContentParts, Entry, Log, LogError, Options};
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::{Clock, Sleep, Time};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Leaf, MessageEntry, leaf};
use trave_proto::schema::message::Manifest;

const NOW: Time = Time::from_millis(1_795_288_440_000);

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        NOW
    }

    fn sleep_until(&self, _: Time) -> Sleep {
        Box::pin(std::future::pending())
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "throughput-log".into()));
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (appenders, seconds, body) = (number(64)?, number(5)?, number(1_024)?);
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no random numbers")?;
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|_| "no key")?;
    let signer = NoteSigner::new("trave.example/throughput", key)?;
    let (log, _) = Log::open(Options::new(&dir, signer, Arc::new(Still)))?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let content = Bytes::from(vec![b'x'; usize::try_from(body)?]);
    let tasks =
        (0..appenders).map(|task| tokio::spawn(append_until(log.clone(), task, end, content.clone())));
    let mut waits = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        waits.extend(task.await??);
    }
    waits.sort_unstable();
    let at = |share: usize| waits.get(waits.len() * share / 1_000).copied().unwrap_or_default();
    let counters = log.counters();
    let records = counters.records();
    println!("{appenders} appenders, {body} bytes of body, {seconds} s");
    println!("records/s           {}", records / seconds.max(1));
    println!("records per group   {:.1}", records as f64 / counters.groups() as f64);
    println!("records per fdatasync {:.1}", records as f64 / counters.syncs() as f64);
    println!("bytes per record    {}", counters.bytes() / records.max(1));
    println!("wait p50 {:?}, p99 {:?}, most {:?}", at(500), at(990), at(1_000 - 1).max(at(999)));
    log.close();
    Ok(())
}

/// Appends the two messages of one exchange after the other, each durable before the next.
async fn append_until(log: Log, task: u64, end: Instant, body: Bytes) -> Result<Vec<Duration>, LogError> {
    let chain = Artefact::new(Bytes::from(vec![1; 2_000]));
    let (mut waits, mut count) = (Vec::new(), 0_u32);
    while Instant::now() < end {
        let mut random = [0; 10];
        random[2..6].copy_from_slice(&u32::try_from(task).unwrap_or(0).to_be_bytes());
        random[6..].copy_from_slice(&count.to_be_bytes());
        let exchange = ExchangeId::new(NOW, &random);
        let _in_flight = log.gauge().enter();
        for _ in 0..2 {
            let start = Instant::now();
            let _logged = log.append(message(&exchange, chain.clone(), body.clone()), ())?.await?;
            waits.push(start.elapsed());
        }
        count += 1;
    }
    Ok(waits)
}

fn message(exchange: &ExchangeId, chain: Artefact, body: Bytes) -> Entry {
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        client: "NORD/SH/luebeck/gewerbeamt".into(),
        service: "NORD/MV/gewerberegister/auskunft/register".into(),
        nonce: vec![1; 32].into(),
        configuration_digest: vec![2; 32].into(),
        content_commitment: vec![3; 32].into(),
        ..Manifest::default()
    };
    let entry = MessageEntry { manifest: manifest.encode_to_vec().into(), ..MessageEntry::default() };
    let entry = Some(leaf::Entry::Message(entry));
    Entry {
        leaf: Leaf { version: 1, logged_ms: NOW.as_millis(), entry },
        signature: None,
        artefacts: vec![chain],
        content: Some(ContentParts { body, ..ContentParts::default() }),
        persons: Vec::new(),
        references: Vec::new(),
        last: false,
    }
}
