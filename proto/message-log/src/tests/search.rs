//! A search finds exactly what reading the whole log finds, whatever became of the search indexes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{ExchangeEnded, Leaf, LogRead, MessageEntry, Refusal, leaf};
use trave_proto::schema::message::{Direction, Ending, Manifest};
use trave_proto::search::{Event, Key, Outcome, Row, Term};

use super::support::*;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::search_index::file::path_of;
use crate::{Entry, Found, Log, Search, Searcher};

const CLIENTS: [&str; 4] =
    ["NORD/SH/luebeck/gewerbe", "NORD/SH/luebeck/ordnung", "NORD/SH/kiel/gewerbe", "NORD/MV/wismar/x"];
const SERVICES: [&str; 3] = ["NORD/MV/register/gewerbe/a", "NORD/MV/register/melde/b", "NORD/SH/kiel/bau/c"];
const PURPOSES: [&str; 3] = ["ummeldung", "auskunft", "selten"];

/// Every number of exchange has its own story; every 50 ms another begins.
fn id(number: u32) -> ExchangeId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    ExchangeId::new(NOW.plus(Duration::from_millis(u64::from(number) * 50)), &random)
}

fn time(number: u32) -> i64 {
    // Not quite in order, as with several threads.
    NOW.as_millis() + i64::from(number) * 50 - i64::from(number % 3) * 40
}

fn of(number: u32, entry: leaf::Entry) -> Entry {
    Entry::new(Leaf::of(time(number), entry))
}

fn message_of(number: u32, direction: Direction, ending: Ending) -> Entry {
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(id(number).as_bytes()),
        direction: direction.into(),
        client: CLIENTS[number as usize % 4].into(),
        service: SERVICES[number as usize / 3 % 3].into(),
        purpose: PURPOSES[usize::from(number.is_multiple_of(7)) + usize::from(number.is_multiple_of(97))]
            .into(),
        legal_basis: "GewO-14".into(),
        ending: ending.into(),
        ..Manifest::default()
    };
    let manifest = manifest.encode_to_vec().into();
    of(number, leaf::Entry::Message(MessageEntry { manifest, sent: true, ..MessageEntry::default() }))
}

fn ended(number: u32, outcome: i32) -> Entry {
    let exchange_id = Bytes::copy_from_slice(id(number).as_bytes());
    of(number, leaf::Entry::Ended(ExchangeEnded { exchange_id, outcome, ..ExchangeEnded::default() }))
}

/// What is logged when exchange `number` begins, and what some exchanges later.
fn story(number: u32) -> (Entry, Option<Entry>) {
    if number.is_multiple_of(11) {
        let refusal = Refusal {
            exchange_id: Bytes::copy_from_slice(id(number).as_bytes()),
            client: CLIENTS[number as usize % 4].into(),
            purpose: "auskunft".into(),
            count: 1,
            ..Refusal::default()
        };
        return (of(number, leaf::Entry::Refusal(refusal)), None);
    }
    let end = match number % 10 {
        1 => Some(ended(number, 1)),
        2 => Some(ended(number, 2)),
        3 => Some(ended(number, 3)),
        4 => None,
        5 => Some(message_of(number, Direction::Response, Ending::Abort)),
        _ => Some(message_of(number, Direction::Response, Ending::End)),
    };
    (message_of(number, Direction::Request, Ending::End), end)
}

fn append(log: &Log, entry: Entry) {
    block_on(log.append(entry, ()).unwrap()).unwrap();
}

/// Tells the stories of these exchanges; what ends one is logged when 40 more have begun.
fn tell(log: &Log, numbers: std::ops::Range<u32>) {
    for number in numbers {
        append(log, story(number).0);
        if let Some(end) = number.checked_sub(40).and_then(|earlier| story(earlier).1) {
            append(log, end);
        }
        if number.is_multiple_of(50) {
            let read = LogRead { reader: "pruefer".into(), ..LogRead::default() };
            append(log, of(number, leaf::Entry::Read(read)));
        }
        // Broken off after its answer was complete.
        if number > 100 && number.is_multiple_of(60) {
            append(log, ended(number - 54, 2));
        }
    }
}

/// By reading every leaf: place, time and what it is found by.
fn read_all(log: &Log) -> Vec<(u64, i64, Vec<Term>)> {
    let (mut topics, mut all) = (HashMap::new(), Vec::<(u64, i64, Vec<Term>)>::new());
    let mut answered = HashMap::new();
    for record in log.scan(0) {
        let record = record.unwrap();
        let Some(event) = Event::of(&record.leaf) else { continue };
        let exchange = crate::segment::describe(&record.leaf).1;
        let mut terms = event.terms(topics.get(&exchange));
        match &event {
            Event::Begun(topic) => _ = topics.insert(exchange, topic.clone()),
            Event::Answered(..) => _ = answered.insert(exchange, all.len()),
            Event::Ended(_) => {
                if let Some(earlier) = answered.remove(&exchange) {
                    all[earlier].2.clear();
                }
            }
            _ => {}
        }
        terms.sort();
        all.push((record.index, record.leaf.logged_ms, terms));
    }
    all
}

fn expected(all: &[(u64, i64, Vec<Term>)], search: &Search) -> Vec<u64> {
    let meets = |terms: &Vec<Term>| {
        search.all.iter().all(|condition| condition.iter().any(|term| terms.contains(term)))
    };
    let within =
        |time: i64| search.from.is_none_or(|from| time >= from) && search.to.is_none_or(|to| time < to);
    let hits = all.iter().filter(|(_, time, terms)| within(*time) && meets(terms)).map(|(place, ..)| *place);
    let mut hits: Vec<_> = hits.collect();
    if search.newest_first {
        hits.reverse();
    }
    hits
}

fn searches() -> Vec<Search> {
    let begun = || vec![Term::row(Row::Begun)];
    let one = |key, value: &str| vec![Term::new(key, value)];
    let mut all = vec![vec![begun()], vec![vec![Term::row(Row::Read)]], vec![one(Key::Reader, "pruefer")]];
    all.extend(CLIENTS.map(|client| vec![begun(), one(Key::Client, client)]));
    all.extend(SERVICES.map(|service| vec![begun(), one(Key::Service, service)]));
    all.extend(PURPOSES.map(|purpose| vec![begun(), one(Key::Purpose, purpose)]));
    all.extend(Outcome::ALL.map(|outcome| vec![vec![Term::outcome(outcome)]]));
    all.extend(Outcome::ALL.map(|outcome| vec![vec![Term::outcome(outcome)], one(Key::Client, CLIENTS[1])]));
    all.push(vec![
        begun(),
        vec![Term::new(Key::ClientClass, "NORD/MV"), Term::new(Key::ServiceMember, "NORD/SH/kiel")],
    ]);
    all.push(vec![
        begun(),
        one(Key::Client, CLIENTS[0]),
        one(Key::Purpose, "selten"),
        one(Key::ServiceClass, "NORD/MV"),
    ]);
    all.push(vec![begun(), one(Key::Client, "NORD/SH/nobody/x")]);
    let times =
        [(None, None), (Some(time(300)), Some(time(420))), (Some(time(899)), None), (None, Some(time(1)))];
    let every = |all: Vec<Vec<Term>>| {
        times.map(|(from, to)| {
            [true, false].map(|newest_first| Search {
                all: all.clone(),
                from,
                to,
                newest_first,
                limit: 1_000,
                ..Search::default()
            })
        })
    };
    all.into_iter().flat_map(every).flatten().collect()
}

fn agrees(log: &Log, searcher: &Searcher) {
    let all = read_all(log);
    let mut nothing = 0;
    for search in searches() {
        let hits = expected(&all, &search);
        nothing += usize::from(hits.is_empty());
        let found = searcher.find(&search).unwrap();
        assert_eq!(found.places, hits.iter().copied().take(1_000).collect::<Vec<_>>(), "{search:?}");
        assert_eq!(found.more, hits.len() > 1_000, "{search:?}");
        // Pages give the same, one after the other.
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let Found { places, more } =
                searcher.find(&Search { after, limit: 37, ..search.clone() }).unwrap();
            after = places.last().copied();
            paged.extend(places);
            if !more {
                break;
            }
        }
        assert_eq!(paged, hits, "{search:?}");
    }
    assert!(nothing < searches().len() / 2, "most searches find something");
}

fn indexed(searcher: &Searcher, log: &Log) {
    let end = Instant::now() + Duration::from_secs(60);
    let written = || {
        let kept = log.shared().search.closed();
        kept.len() == log.shared().catalogue().closed.len()
            && kept.values().all(|kept| kept.unwritten.is_none())
    };
    while searcher.left() > 0 || !written() {
        assert!(Instant::now() < end, "no search indexes were made in 60 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|it| it == "search")).collect()
}

#[test]
fn a_search_finds_what_reading_everything_finds() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    tell(&log, 0..900);
    agrees(&log, &searcher);
    indexed(&searcher, &log);
    let segments = log.shared().catalogue().closed.len();
    assert!(segments > 5 && files(dir.path()).len() == segments, "{segments} segments");
    agrees(&log, &searcher);
    drop(searcher);
    log.close();
    // Lost, damaged and torn files are made again.
    for (at, path) in files(dir.path()).into_iter().enumerate() {
        let bytes = std::fs::read(&path).unwrap();
        match at % 4 {
            0 => std::fs::remove_file(&path).unwrap(),
            1 => std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap(),
            2 => std::fs::write(&path, [&bytes[..40], &[!bytes[40]], &bytes[41..]].concat()).unwrap(),
            _ => {}
        }
    }
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    indexed(&searcher, &log);
    agrees(&log, &searcher);
}

#[test]
fn every_changed_byte_of_a_search_index_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    tell(&log, 0..100);
    indexed(&searcher, &log);
    let segment = log.shared().catalogue().closed[0].clone();
    let path = path_of(&segment.path);
    let whole = std::fs::read(&path).unwrap();
    let shared = log.shared();
    let open =
        || crate::search_index::file::SearchFile::open(&shared.disk, &path, segment.first, segment.count);
    let terms: Vec<_> = Key::ALL
        .into_iter()
        .flat_map(|key| {
            crate::search_index::SearchIndex::values(&open().unwrap(), key)
                .into_iter()
                .map(move |value| Term::new(key, value))
        })
        .collect();
    let read = || -> Result<(), crate::LogError> {
        let file = open()?;
        terms.iter().try_for_each(|term| crate::search_index::SearchIndex::leaves(&file, term).map(|_| ()))
    };
    read().unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        std::fs::write(&path, &changed).unwrap();
        assert!(read().is_err(), "byte {at}");
    }
}

#[test]
fn counts_are_those_of_the_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    tell(&log, 0..600);
    let all = read_all(&log);
    for (key, row) in [(Key::Purpose, Row::Begun), (Key::Client, Row::Begun), (Key::Reader, Row::Read)] {
        for (from, to) in [(None, None), (Some(time(100)), Some(time(333)))] {
            let search = Search { all: vec![vec![Term::row(row)]], from, to, ..Search::default() };
            let mut counts = BTreeMap::new();
            let hits: HashSet<_> = expected(&all, &search).into_iter().collect();
            for term in all.iter().filter(|it| hits.contains(&it.0)).flat_map(|it| &it.2) {
                if term.key == key {
                    *counts.entry(term.value.clone()).or_insert(0) += 1;
                }
            }
            assert!(!counts.is_empty());
            assert_eq!(searcher.count(&search, key).unwrap(), counts, "{key:?}");
        }
    }
}

#[test]
fn pages_do_not_move_while_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    tell(&log, 0..300);
    let search =
        Search { all: vec![vec![Term::row(Row::Begun)]], newest_first: true, limit: 20, ..Search::default() };
    let before = expected(&read_all(&log), &search);
    let (mut paged, mut after, mut next) = (Vec::new(), None, 300);
    loop {
        let Found { places, more } = searcher.find(&Search { after, ..search.clone() }).unwrap();
        after = places.last().copied();
        paged.extend(places);
        tell(&log, next..next + 20);
        next += 20;
        if !more {
            break;
        }
    }
    assert_eq!(paged, before);
}

#[test]
fn the_course_of_an_exchange_is_what_the_index_names() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let searcher = log.searcher().unwrap();
    tell(&log, 0..500);
    indexed(&searcher, &log);
    // A refusal under an invented id is found as itself; the course is that of messages and ends.
    for number in (0..500).filter(|number| number % 11 != 0) {
        assert_eq!(searcher.course(id(number)).unwrap(), log.places(id(number)).unwrap(), "{number}");
    }
}

#[test]
fn a_power_cut_leaves_a_search_index_whole_or_none() {
    let begin = |disk: &SimulatedDisk| {
        let opened = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log")));
        opened.and_then(|(log, _)| log.searcher().map(|searcher| (log, searcher)))
    };
    let mut cut = 0;
    for seed in 0..60 {
        let (disk, mut dice) = (SimulatedDisk::new(), Dice(seed));
        disk.fail_after(20 + dice.below(400), Fault::PowerCut);
        if let Ok((log, searcher)) = begin(&disk) {
            let mut entries = (0..400).flat_map(|number| [Some(story(number).0), story(number).1]).flatten();
            let durable = |entry| log.append(entry, ()).is_ok_and(|pending| block_on(pending).is_ok());
            cut += usize::from(!entries.all(durable));
            drop(searcher);
            log.close();
        }
        let (log, searcher) = begin(&disk.cut_power(&mut dice)).unwrap();
        indexed(&searcher, &log);
        let search = Search { all: vec![vec![Term::row(Row::Begun)]], limit: 1_000, ..Search::default() };
        assert_eq!(searcher.find(&search).unwrap().places, expected(&read_all(&log), &search), "seed {seed}");
        drop(searcher);
        log.close();
    }
    assert!(cut > 40, "the power was cut in {cut} runs");
}
