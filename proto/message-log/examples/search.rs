//! How long the first page of a search takes over a log of so many records, by each key; cold-ish (the indexes' pages
//! dropped from the system's cache as far as it lets us) and warm.
//!
//! The records go through the log itself: requests, answers and ends with the manifest of a real exchange and no content,
//! no signature and no certificates beside it. Index and search index are those that a server writes.
//!
//! `cargo run --release -p trave-message-log --example search -- DIRECTORY [records] [rounds]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use ring::signature::Ed25519KeyPair;
use trave_message_log::{Entry, Log, LogError, Options, Person, Reference, Search, Searcher};
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::{Clock, Sleep, Time};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{ExchangeEnded, Leaf, MessageEntry, leaf};
use trave_proto::schema::message::{Direction, Ending, Manifest};
use trave_proto::search::{Key, Outcome, Row, Term};

const NOW: Time = Time::from_millis(1_795_288_440_000);
/// Exchanges that are under way at a time.
const APART: u64 = 64;

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
    let dir = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (records, rounds) = (number(10_000_000)?, number(200)?);
    let key = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).map_err(|_| "no key")?;
    let signer = NoteSigner::new("trave.example/search", key)?;
    let begun = Instant::now();
    let (log, _) = Log::open(Options { reserve: 0, ..Options::new(&dir, signer, Arc::new(Still)) })?;
    println!("opened {} records in {:?}", log.size(), begun.elapsed());
    let begun = Instant::now();
    let from = log.size() / 2;
    fill(&log, from, records / 2).await?;
    if log.size() / 2 > from {
        println!("appended up to {} records in {:?}", log.size(), begun.elapsed());
    }
    log.checkpoint().await?;
    let begun = Instant::now();
    let rare = log.scan_kind(trave_message_log::kind::GRANT, 0).count();
    println!("{rare} records of a kind that is seldom found in {:?}", begun.elapsed());
    let begun = Instant::now();
    let searcher = log.searcher()?;
    while searcher.left() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("indexed for searching in {:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    sizes(&dir, log.size())?;
    println!(
        "{:<44} {:>9} {:>9} {:>9} {:>9}  hits",
        "first page of 50", "cold", "warm p50", "warm p99", "max"
    );
    for (name, search) in searches(records / 2) {
        measure(&dir, &searcher, name, &search, rounds)?;
    }
    measure_person(&dir, &log, "person, some exchanges", "4711", rounds)?;
    measure_person(&dir, &log, "person, unknown", "x", rounds)?;
    measure_exchange(&dir, &log, &searcher, records / 2, rounds)?;
    let begun = Instant::now();
    let all = Search { all: vec![vec![Term::row(Row::Begun)]], ..Search::default() };
    let counts = searcher.count(&all, Key::Purpose)?;
    println!(
        "counts by purpose: {} values, {} exchanges, {:?}",
        counts.len(),
        counts.values().sum::<u64>(),
        begun.elapsed()
    );
    Ok(())
}

/// 40 exchanges a second.
fn time(number: u64) -> Time {
    NOW.plus(Duration::from_millis(number * 25))
}

fn id(number: u64) -> ExchangeId {
    let mut random = [0x5a; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    ExchangeId::new(time(number), &random)
}

/// Few ask often and many seldom: of 400 clients, the last one is met once in 5,000 exchanges, and one service alone at the
/// beginning.
fn topic(number: u64) -> (String, String, String) {
    let mixed = number.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 33;
    let skewed = |of: u64| (mixed % (of * 64)).isqrt() * of / (of * 64).isqrt().max(1);
    let client = skewed(400).min(399);
    let service = if number == 1_000 { 60 } else { mixed / 7 % 60 };
    let purpose = if number.is_multiple_of(1_000_003) { 40 } else { mixed / 11 % 40 };
    (
        format!("NORD/SH/gemeinde-{:03}/amt-{}", client / 2, client % 2),
        format!("NORD/MV/register-{:02}/fach/dienst-{service:02}", service / 4),
        format!("zweck-{purpose:02}"),
    )
}

fn message(number: u64, direction: Direction) -> Entry {
    let (client, service, purpose) = topic(number);
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(id(number).as_bytes()),
        direction: direction.into(),
        client,
        service,
        purpose,
        method: "/gewerbe.v1.Register/Auskunft".into(),
        sender: "NORD/SH/luebeck/s1".into(),
        receiver: "NORD/MV/gewerberegister/s1".into(),
        log_origin: "trave.example/NORD/SH/luebeck/s1/1".into(),
        legal_basis: "GewO-14".into(),
        ending: Ending::End.into(),
        previous: vec![1; 32].into(),
        content_commitment: vec![2; 32].into(),
        nonce: vec![3; 32].into(),
        signing_certificate: vec![4; 32].into(),
        configuration_digest: vec![5; 32].into(),
        ..Manifest::default()
    };
    let digest = Bytes::from_static(&[6; 32]);
    let entry = MessageEntry {
        manifest: manifest.encode_to_vec().into(),
        signature_digest: digest.clone(),
        chain_digest: digest.clone(),
        ocsp_digest: digest,
        ..MessageEntry::default()
    };
    let leaf = Leaf::of(time(number).as_millis(), leaf::Entry::Message(entry));
    if direction == Direction::Response {
        return Entry::new(leaf);
    }
    let persons = person(&format!("{}", number % PERSONS)).into_iter().collect();
    Entry { references: references(number), persons, ..Entry::new(leaf) }
}

/// A message id of its own, and one of so many cases; one case is met in every second exchange.
fn references(number: u64) -> Vec<Reference> {
    let case = if number.is_multiple_of(2) { "häufig".to_owned() } else { format!("GA-{}", number % CASES) };
    [Reference::message_id(&format!("m-{number}")), Reference::case(&case)].into_iter().flatten().collect()
}

/// Persons that the exchanges concern, each about ten in ten million records.
const PERSONS: u64 = 500_009;

fn person(value: &str) -> Option<Person> {
    Person::new("example", value).ok()
}

/// Cases beside the frequent one: about 20 exchanges for each in ten million records.
const CASES: u64 = 250_001;

/// One in 50 fails, one in 500 is broken off, one in 20,000 is unknown.
fn end(number: u64) -> Entry {
    let outcome = match number {
        number if number.is_multiple_of(20_000) => 3,
        number if number.is_multiple_of(500) => 2,
        number if number.is_multiple_of(50) => 1,
        _ => return message(number, Direction::Response),
    };
    let exchange_id = Bytes::copy_from_slice(id(number).as_bytes());
    let ended = ExchangeEnded { exchange_id, outcome, ..ExchangeEnded::default() };
    Entry::new(Leaf::of(time(number).as_millis(), leaf::Entry::Ended(ended)))
}

async fn fill(log: &Log, from: u64, to: u64) -> Result<(), Failure> {
    let mut last = None;
    for number in from..to {
        let mut entries = vec![message(number, Direction::Request)];
        entries.extend((number >= APART).then(|| end(number - APART)));
        for mut entry in entries {
            last = Some(loop {
                match log.append(entry.clone(), ()) {
                    Ok(pending) => break pending,
                    Err(LogError::Busy) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(error) => return Err(error.into()),
                }
                entry.last = false;
            });
        }
    }
    if let Some(last) = last {
        last.await?;
    }
    Ok(())
}

fn sizes(dir: &Path, records: u64) -> Result<(), Failure> {
    let mut sums = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for entry in std::fs::read_dir(dir.join("segments"))? {
        let entry = entry?;
        let kind =
            entry.path().extension().map(|kind| kind.to_string_lossy().into_owned()).unwrap_or_default();
        let (files, bytes) = sums.entry(kind).or_default();
        (*files, *bytes) = (*files + 1, *bytes + entry.metadata()?.len());
    }
    for (kind, (files, bytes)) in sums {
        println!(
            "{kind:>8}: {files} files, {} MiB, {:.2} bytes a record",
            bytes >> 20,
            bytes as f64 / records as f64
        );
    }
    Ok(())
}

fn searches(exchanges: u64) -> Vec<(&'static str, Search)> {
    let begun = || vec![Term::row(Row::Begun)];
    let one = |key, value: &str| vec![Term::new(key, value)];
    let search = |all: Vec<Vec<Term>>| Search { all, newest_first: true, limit: 50, ..Search::default() };
    let oldest = |all| Search { newest_first: false, ..search(all) };
    let middle = time(exchanges / 2).as_millis();
    let named = |reference: Option<Reference>| Search {
        references: reference.into_iter().collect(),
        ..search(vec![begun()])
    };
    vec![
        ("message id, one exchange", named(Reference::message_id(&format!("m-{}", exchanges / 3)))),
        ("message id, unknown", named(Reference::message_id("m-x"))),
        ("case, some exchanges", named(Reference::case("GA-777"))),
        ("case, every second exchange", named(Reference::case("häufig"))),
        ("case, unknown", named(Reference::case("GA-x"))),
        ("everything, newest first", search(vec![begun()])),
        ("client, frequent", search(vec![begun(), one(Key::Client, "NORD/SH/gemeinde-198/amt-1")])),
        ("client, rare", search(vec![begun(), one(Key::Client, "NORD/SH/gemeinde-000/amt-0")])),
        ("client, unknown", search(vec![begun(), one(Key::Client, "NORD/SH/gemeinde-999/amt-0")])),
        (
            "member (as client or service)",
            search(vec![
                begun(),
                vec![
                    Term::new(Key::ClientMember, "NORD/SH/gemeinde-001"),
                    Term::new(Key::ServiceMember, "NORD/SH/gemeinde-001"),
                ],
            ]),
        ),
        ("service", search(vec![begun(), one(Key::Service, "NORD/MV/register-03/fach/dienst-13")])),
        (
            "service, once in the first segment",
            search(vec![begun(), one(Key::Service, "NORD/MV/register-15/fach/dienst-60")]),
        ),
        ("purpose", search(vec![begun(), one(Key::Purpose, "zweck-17")])),
        ("purpose, five times in all", search(vec![begun(), one(Key::Purpose, "zweck-40")])),
        ("outcome complete", search(vec![vec![Term::outcome(Outcome::Complete)]])),
        ("outcome failed", search(vec![vec![Term::outcome(Outcome::Failed)]])),
        ("outcome unknown", search(vec![vec![Term::outcome(Outcome::Unknown)]])),
        ("outcome refused, none", search(vec![vec![Term::outcome(Outcome::Refused)]])),
        (
            "time range of a minute in the middle",
            Search { from: Some(middle), to: Some(middle + 60_000), ..search(vec![begun()]) },
        ),
        (
            "time range and rare client",
            Search {
                from: Some(middle),
                to: Some(middle + 86_400_000),
                ..search(vec![begun(), one(Key::Client, "NORD/SH/gemeinde-000/amt-0")])
            },
        ),
        (
            "client, service and outcome unknown",
            search(vec![
                vec![Term::outcome(Outcome::Unknown)],
                one(Key::ClientMember, "NORD/SH/gemeinde-150"),
                one(Key::Service, "NORD/MV/register-03/fach/dienst-13"),
            ]),
        ),
        (
            "two frequent values that never meet",
            search(vec![
                begun(),
                one(Key::Client, "NORD/SH/gemeinde-198/amt-1"),
                one(Key::ClientMember, "NORD/SH/gemeinde-197"),
            ]),
        ),
        ("purpose, oldest first", oldest(vec![begun(), one(Key::Purpose, "zweck-17")])),
        ("purpose, five times, oldest first", oldest(vec![begun(), one(Key::Purpose, "zweck-40")])),
    ]
}

/// Has the system forget what it has read of these files. It may not obey, which is why the figures are cold-ish.
fn drop_cached(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir.join("segments"))? {
        let file = std::fs::File::open(entry?.path())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn told(name: &str, cold: Duration, warm: &mut [Duration], hits: &str) {
    warm.sort_unstable();
    let at = |share: usize| warm.get(warm.len() * share / 100).copied().unwrap_or_default();
    let ms = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let max = warm.last().copied().unwrap_or_default();
    println!("{name:<44} {:>9} {:>9} {:>9} {:>9}  {hits}", ms(cold), ms(at(50)), ms(at(99)), ms(max));
}

fn measure(dir: &Path, searcher: &Searcher, name: &str, search: &Search, rounds: u64) -> Result<(), Failure> {
    drop_cached(dir)?;
    let begun = Instant::now();
    let found = searcher.find(search)?;
    let cold = begun.elapsed();
    let mut warm = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        assert_eq!(searcher.find(search)?, found);
        warm.push(begun.elapsed());
    }
    let hits = format!("{}{}", found.places.len(), if found.more { " and more" } else { "" });
    told(name, cold, &mut warm, &hits);
    Ok(())
}

fn measure_person(dir: &Path, log: &Log, name: &str, value: &str, rounds: u64) -> Result<(), Failure> {
    let person = person(value).ok_or("no person")?;
    drop_cached(dir)?;
    let begun = Instant::now();
    let found = log.of_person(&person, 0, 50)?;
    let cold = begun.elapsed();
    let mut warm = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        assert_eq!(log.of_person(&person, 0, 50)?.len(), found.len());
        warm.push(begun.elapsed());
    }
    told(name, cold, &mut warm, &found.len().to_string());
    Ok(())
}

fn measure_exchange(
    dir: &Path,
    log: &Log,
    searcher: &Searcher,
    exchanges: u64,
    rounds: u64,
) -> Result<(), Failure> {
    drop_cached(dir)?;
    let some = |round: u64| id(round.wrapping_mul(0x2545_f491_4f6c_dd1d) % (exchanges - APART));
    let begun = Instant::now();
    let mut all = log.places(some(1))?.len();
    let cold = begun.elapsed();
    drop_cached(dir)?;
    let begun = Instant::now();
    searcher.course(some(1))?;
    let cold_course = begun.elapsed();
    let (mut warm, mut warm_course) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        all += log.places(some(round))?.len();
        warm.push(begun.elapsed());
        let begun = Instant::now();
        searcher.course(some(round))?;
        warm_course.push(begun.elapsed());
    }
    told("exchange id, all segments", cold, &mut warm, &all.to_string());
    told("exchange id, its messages and end", cold_course, &mut warm_course, "");
    Ok(())
}
