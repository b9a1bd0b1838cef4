//! A process that is killed while it writes has lost nothing of what it said was durable, and the next one gives none of
//! its keys to anybody.
//!
//! `TRAVE_CRASH_ROUNDS` sets how often (20 unless set).

#![expect(clippy::unwrap_used, reason = "a test: whatever goes wrong here must end it")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use ring::signature::Ed25519KeyPair;
use trave_message_log::{Artefact, ContentParts, ContentState, Entry, Log, Options};
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::{Clock, Sleep, Time};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Leaf, MessageEntry, leaf};
use trave_proto::schema::message::Manifest;

const CHILD: &str = "TRAVE_CRASH_CHILD";
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

fn open(dir: &Path) -> Log {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let signer = NoteSigner::new("trave.example/crash", pair).unwrap();
    let options = Options { segment_size: 256 << 10, ..Options::new(dir, signer, Arc::new(Still)) };
    Log::open(options).unwrap().0
}

fn exchange(number: u32) -> ExchangeId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    ExchangeId::new(NOW, &random)
}

fn parts(number: u32) -> ContentParts {
    ContentParts { body: vec![number.to_le_bytes()[0]; 700].into(), ..ContentParts::default() }
}

fn message(number: u32) -> Entry {
    let id = Bytes::copy_from_slice(exchange(number).as_bytes());
    let manifest = Manifest { version: 1, exchange_id: id, ..Manifest::default() }.encode_to_vec().into();
    let entry = leaf::Entry::Message(MessageEntry { manifest, ..MessageEntry::default() });
    Entry {
        leaf: Leaf { version: 1, logged_ms: NOW.as_millis(), entry: Some(entry) },
        signature: None,
        artefacts: vec![Artefact::new(Bytes::from_static(&[1; 2_000]))],
        content: Some(parts(number)),
        persons: Vec::new(),
        references: Vec::new(),
        last: false,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Writes until it is killed, and says so of each record after it is durable.
fn child(dir: &Path, first: u32) -> ! {
    let log = open(dir);
    let next = AtomicU32::new(first);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let runtime = runtime();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let logged = runtime.block_on(log.append(message(number), ()).unwrap()).unwrap();
                    say(&format!("record {number} {}", logged.index()));
                    if number.is_multiple_of(50) {
                        let signed = runtime.block_on(log.checkpoint()).unwrap().checkpoint;
                        say(&format!("checkpoint {} {}", signed.size, signed.root));
                    }
                }
            });
        }
    });
    unreachable!("its threads never end")
}

fn say(line: &str) {
    // One write, so that no line is mixed with another.
    std::io::stdout().lock().write_all(format!("\n{line} .\n").as_bytes()).unwrap();
}

#[test]
fn killed_at_any_moment_nothing_said_is_lost() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let first = std::env::var("TRAVE_CRASH_FIRST").unwrap().parse().unwrap();
        child(Path::new(&dir), first);
    }
    let rounds =
        std::env::var("TRAVE_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().unwrap();
    let (mut said, mut first, mut seen) = (Vec::new(), 0, HashSet::new());
    for round in 0..rounds {
        let lines = run_and_kill(dir.path(), first, Duration::from_millis(30 + round * 37 % 120));
        // Also what was written and not acknowledged.
        holders(dir.path());
        seen.extend(keys(dir.path()).into_values());
        let log = open(dir.path());
        let named = holders(dir.path()).keys().max().map_or(0, |last| last + 1);
        for (slot, key) in keys(dir.path()).range(named..) {
            assert!(!seen.contains(key), "round {round}: slot {slot} kept its key, and no record names it");
        }
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["record", number, index, "."] => {
                    let (number, index): (u32, u64) = (number.parse().unwrap(), index.parse().unwrap());
                    let record = log.record(index).unwrap();
                    assert_eq!(record.leaf, message(number).leaf, "round {round}");
                    assert_eq!(record.content, ContentState::Included(parts(number)), "round {round}");
                    first = first.max(number + 100);
                    said.push(number);
                }
                ["checkpoint", size, root, "."] => {
                    assert_eq!(log.root(size.parse().unwrap()).unwrap().to_string(), root, "round {round}");
                }
                // What libtest prints, or a line that was cut off.
                _ => {}
            }
        }
    }
    let report = open(dir.path()).check();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.records >= said.len() as u64 && said.len() as u64 > rounds, "{} records", said.len());
    let (holders, keys) = (holders(dir.path()), keys(dir.path()));
    let used: HashSet<_> = holders.keys().map(|slot| keys[slot]).collect();
    assert_eq!(used.len(), holders.len(), "two slots with one key");
    println!("{rounds} kills, {} keys used of {}", used.len(), seen.len());
    println!("{rounds} kills, {} records acknowledged, {} in the log, none lost", said.len(), report.records);
}

/// The key slots that content records name, each with its exchange: read as the format says, from all segment files.
fn holders(dir: &Path) -> HashMap<u64, [u8; 16]> {
    let mut holders = HashMap::new();
    for bytes in files(&dir.join("segments"), ".log").into_values() {
        let mut at = 512;
        // Length (4), kind (1); then the payload, after a header of 12 bytes. A content (3) begins with slot and exchange.
        while bytes.len() >= at + 36 && bytes[at + 4] != 0 {
            if bytes[at + 4] == 3 {
                let slot = u64::from_le_bytes(bytes[at + 12..at + 20].try_into().unwrap());
                let exchange = bytes[at + 20..at + 36].try_into().unwrap();
                assert_eq!(
                    *holders.entry(slot).or_insert(exchange),
                    exchange,
                    "slot {slot} has two exchanges"
                );
            }
            at += 12 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
    }
    holders
}

/// The keys in the key files, by slot.
fn keys(dir: &Path) -> BTreeMap<u64, [u8; 32]> {
    let files = files(&dir.join("keys"), ".bin").into_values();
    let slots = files.flat_map(|bytes| bytes.chunks(64).map(<[u8]>::to_vec).collect::<Vec<_>>()).enumerate();
    let keys = slots.filter(|(_, slot)| slot[0] != 0);
    keys.map(|(slot, bytes)| (slot as u64, bytes[24..56].try_into().unwrap())).collect()
}

/// The files in a directory whose names end so, in the order of their names.
fn files(dir: &Path, end: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = files.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    files
        .filter(|(name, _)| name.ends_with(end))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

/// Runs a child for a while and kills it; the lines that it printed.
fn run_and_kill(dir: &Path, first: u32, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_at_any_moment_nothing_said_is_lost", "--nocapture"])
        .env(CHILD, dir)
        .env("TRAVE_CRASH_FIRST", first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (began, begins) = channel();
    let reader = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        // Only the first is waited for; later there is nobody to tell.
        lines.inspect(|line| _ = line.starts_with("record").then(|| began.send(()))).collect()
    });
    begins.recv_timeout(Duration::from_secs(30)).unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}
