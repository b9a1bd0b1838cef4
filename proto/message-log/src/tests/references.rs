//! An exchange is found by what its caller calls it, wherever the index is; erased, it is found so no more, by nobody who has
//! the disk, its keys and a list.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use trave_proto::schema::log::{Leaf, MessageEntry, leaf};
use trave_proto::schema::message::{Direction, Manifest};
use trave_proto::search::{Row, Term};

use super::archive::{archive, archive_all, disk_with_archive, open};
use super::expiry::{Plan, run};
use super::pruning::prune;
use super::support::*;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{Entry, Log, Person, Reference, Search};

fn person() -> Person {
    Person::parse("steuer-id:12345678901").unwrap()
}

/// Three cases by turns, a message id each; every tenth concerns a person.
fn request(number: u32) -> Entry {
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(exchange(number).as_bytes()),
        direction: Direction::Request.into(),
        client: "NORD/SH/luebeck/gewerbe".into(),
        ..Manifest::default()
    };
    let manifest = manifest.encode_to_vec().into();
    let entry = leaf::Entry::Message(MessageEntry { manifest, sent: true, ..MessageEntry::default() });
    let references =
        [Reference::message_id(&format!("m-{number}")), Reference::case(&format!("case {}", number % 3))];
    Entry {
        references: references.into_iter().flatten().collect(),
        persons: if number.is_multiple_of(10) { vec![person()] } else { Vec::new() },
        ..Entry { leaf: Leaf::of(NOW.as_millis() + i64::from(number), entry), ..message(number) }
    }
}

fn filled(disk: &SimulatedDisk) -> Log {
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    for number in 0..60 {
        block_on(log.append(request(number), ()).unwrap()).unwrap();
    }
    log
}

fn find(log: &Log, references: Vec<Option<Reference>>) -> Vec<u64> {
    let all = vec![vec![Term::row(Row::Begun)]];
    let references = references.into_iter().map(Option::unwrap).collect();
    let search = Search { all, references, limit: 1_000, ..Search::default() };
    let searcher = log.searcher().unwrap();
    loop {
        match searcher.find(&search) {
            Err(crate::LogError::NotIndexed { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            found => return found.unwrap().places,
        }
    }
}

fn case(number: u32) -> Option<Reference> {
    Reference::case(&format!("case {number}"))
}

fn id(number: u32) -> Option<Reference> {
    Reference::message_id(&format!("m-{number}"))
}

/// Record 0 says that the log was opened.
fn of_case(number: u64) -> Vec<u64> {
    (1..=60).filter(|place| (place - 1) % 3 == number).collect()
}

#[test]
fn an_exchange_is_found_by_what_its_caller_calls_it() {
    let disk = SimulatedDisk::new();
    let mut log = filled(&disk);
    for opened in ["as it was written", "again"] {
        for number in 0..3 {
            assert_eq!(find(&log, vec![case(number)]), of_case(number.into()), "{opened}");
        }
        assert_eq!((find(&log, vec![id(7)]), find(&log, vec![id(60)])), (vec![8], vec![]), "{opened}");
        assert_eq!(find(&log, vec![id(7), case(1)]), [8]);
        assert_eq!(find(&log, vec![id(7), case(2)]), Vec::<u64>::new());
        // Where a caller gave no id, the exchange's own stands for it.
        assert_eq!(find(&log, vec![Reference::message_id(&exchange(9).to_string())]), [10]);
        // Nobody is found by a case, and no case by a person.
        let looks_like = Person::parse("case 1").unwrap();
        assert_eq!(log.of_person(&looks_like, 0, 10).unwrap(), []);
        assert_eq!(find(&log, vec![Reference::case("steuer-id:12345678901")]), Vec::<u64>::new());
        assert_eq!(log.check().problems, Vec::<String>::new());
        quiet(&disk);
        drop(log);
        log = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap().0;
    }
}

#[test]
fn what_has_expired_is_found_so_no_more_and_keeps_nothing_else_from_being_found() {
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    let plan = Plan { records: (0..30).collect(), ..Plan::default() };
    let (_, records) = run(&log, &plan).unwrap();
    assert_eq!(records, 30);
    let check = |log: &Log| {
        let of_case: Vec<_> = of_case(1).into_iter().filter(|place| *place > 30).collect();
        assert_eq!(log.called(&case(1).unwrap(), 0, 1_000).unwrap(), of_case);
        assert_eq!(find(log, vec![case(1)]), of_case);
        assert_eq!(log.called(&id(7).unwrap(), 0, 1_000).unwrap(), Vec::<u64>::new());
        assert_eq!(log.called(&id(40).unwrap(), 0, 1_000).unwrap(), [41]);
        assert_eq!(log.called(&id(40).unwrap(), 42, 1_000).unwrap(), Vec::<u64>::new());
        assert_eq!(log.check().problems, Vec::<String>::new());
    };
    check(&log);
    drop(log);
    check(&Log::open_on(Arc::new(disk.restart()), options(Path::new("/log"))).unwrap().0);
}

/// Whether the pseudonym of a reference stands anywhere on the disk, by the keys that are there.
fn stands(disk: &SimulatedDisk, reference: Option<Reference>) -> bool {
    let on = Arc::new(disk.restart()) as Arc<dyn crate::disk::Disk>;
    let (keys, _) = crate::pseudonyms::PeriodKeys::load(&on, Path::new("/log/keys")).unwrap();
    let hashes = keys.all_of_reference(&reference.unwrap());
    let files = disk.all_bytes();
    hashes.iter().any(|(_, hash)| files.iter().any(|file| file.windows(16).any(|bytes| bytes == hash)))
}

#[test]
fn what_names_an_erased_exchange_is_gone_and_so_is_what_names_an_erased_persons() {
    let disk = SimulatedDisk::new();
    drop(filled(&disk));
    assert!(stands(&disk, id(7)) && stands(&disk, id(20)), "the test would see one that is left");
    // What looked at that disk has taken it over.
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    assert_eq!(block_on(log.erase(exchange(7), "officer", "request")).unwrap(), 1);
    assert_eq!((find(&log, vec![id(7)]), find(&log, vec![case(1)]).contains(&8)), (vec![], false));
    let concerned = log.of_person(&person(), 0, 100).unwrap();
    let erased = block_on(log.erase_person(&concerned, "officer", "request")).unwrap();
    assert_eq!((erased.exchanges, erased.contents, erased.pseudonyms), (6, 6, 6));
    quiet(&disk);
    drop(log);
    for number in 0..60 {
        let gone = number == 7 || number % 10 == 0;
        assert_eq!(stands(&disk, id(number)), !gone, "message {number}");
    }
    let opened = Log::open_on(Arc::new(disk.restart()), options(Path::new("/log")));
    let (log, recovered) = opened.unwrap();
    assert_eq!(recovered.warnings, Vec::<String>::new());
    assert_eq!((find(&log, vec![id(20)]), find(&log, vec![id(21)])), (vec![], vec![22]));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn an_erasing_that_was_interrupted_leaves_no_reference_once_it_was_logged() {
    for after in 1..40 {
        let disk = SimulatedDisk::new();
        let log = filled(&disk);
        prepared(&log);
        quiet(&disk);
        disk.fail_after(after, Fault::PowerCut);
        let told = block_on(log.erase(exchange(7), "officer", "request"));
        drop(log);
        let disk = disk.cut_power(&mut Dice(after));
        let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        assert_eq!(recovered.warnings, Vec::<String>::new(), "after {after}");
        assert_eq!(log.check().problems, Vec::<String>::new(), "after {after}");
        let (logged, found) = (recovered.erasures_redone, find(&log, vec![id(7)]));
        assert_eq!(found.is_empty(), logged > 0, "after {after}: {logged} acts, {found:?}");
        assert!(told.is_err() || logged == 2, "after {after}");
        if told.is_ok() {
            assert!(after > 5, "{after} steps");
            return;
        }
    }
    panic!("never done");
}

#[test]
fn what_was_pruned_is_found_by_what_its_caller_called_it_and_erased() {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    for number in 0..48 {
        block_on(log.append(request(number), ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    let range = prune(&log, &disk).unwrap().unwrap();
    assert!(range.0 == 0 && range.1 > 30, "{range:?}");
    let called = |log: &Log, reference: Option<Reference>| {
        let (reference, segments) = (reference.unwrap(), log.segments());
        let of = |first| crate::concerned::of_reference(log.shared(), &reference, first).unwrap();
        segments.into_iter().flat_map(|segment| of(segment.first)).collect::<Vec<_>>()
    };
    assert_eq!((called(&log, id(7)), called(&log, id(10))), (vec![8], vec![11]));
    block_on(log.erase(exchange(7), "officer", "request")).unwrap();
    let concerned = log.of_person(&person(), 0, 100).unwrap();
    block_on(log.erase_person(&concerned, "officer", "request")).unwrap();
    assert_eq!((called(&log, id(7)), called(&log, id(10)), called(&log, id(8))), (vec![], vec![], vec![9]));
    drop(log);
    let log = open(&disk.restart()).unwrap();
    assert_eq!((called(&log, id(7)), called(&log, id(10)), called(&log, id(8))), (vec![], vec![], vec![9]));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn a_damaged_table_keeps_no_contents_from_being_erased() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    for number in 0..200 {
        block_on(log.append(request(number), ()).unwrap()).unwrap();
    }
    let tables = || {
        let files = std::fs::read_dir(dir.path().join("segments")).unwrap().map(|it| it.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|it| it == "persons")).collect::<Vec<_>>()
    };
    let begun = std::time::Instant::now();
    while tables().is_empty() && begun.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(log);
    assert!(!tables().is_empty());
    for path in tables() {
        let mut bytes = std::fs::read(&path).unwrap();
        // The first page of rows; the head stays, so that a start sees nothing.
        let from = bytes.len().min(4096);
        bytes[from..].fill(0x55);
        std::fs::write(&path, &bytes).unwrap();
    }
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert_eq!(block_on(log.erase(exchange(0), "officer", "request")).unwrap(), 1);
    assert_eq!(find(&log, vec![id(0)]), Vec::<u64>::new());
    assert_eq!(log.check().problems, Vec::<String>::new());
}
