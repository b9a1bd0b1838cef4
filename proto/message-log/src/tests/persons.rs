//! A person is found by the identifier, and erased is found no more: not by whoever has the disk, its keys, and a list of
//! everybody.

use std::path::Path;
use std::sync::Arc;

use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::pseudonyms::PSEUDONYM_LEN;
use crate::record::{HEADER, Kind};
use crate::{ContentState, Entry, Log, LogError, Period, Person};

pub(super) fn person(number: u32) -> Person {
    Person::parse(&format!("steuer-id:{}", 10_000_000_000_u64 + u64::from(number))).unwrap()
}

pub(super) fn about(number: u32, persons: &[u32]) -> Entry {
    Entry { persons: persons.iter().map(|number| person(*number)).collect(), ..message(number) }
}

fn append(log: &Log, entry: Entry) {
    block_on(log.append(entry, ()).unwrap()).unwrap();
}

fn places(log: &Log, number: u32) -> Vec<u64> {
    log.of_person(&person(number), 0, 1_000_000).unwrap().into_iter().map(|one| one.index).collect()
}

fn erase(log: &Log, number: u32) -> Result<crate::ErasedPerson, LogError> {
    let concerned = log.of_person(&person(number), 0, 1_000_000)?;
    block_on(log.erase_person(&concerned, "officer", "request of the person"))
}

/// 60 messages over many segments: person 1 in every tenth, with person 2 in message 20; persons 100 and up in the others.
fn filled(disk: &SimulatedDisk) -> Log {
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    for number in 0..60 {
        let persons = match number {
            20 => vec![1, 2],
            number if number % 10 == 0 => vec![1],
            number => vec![100 + number],
        };
        append(&log, about(number, &persons));
    }
    log
}

const OF_ONE: [u64; 6] = [1, 11, 21, 31, 41, 51];

/// What somebody with all files of the disk finds by trying a list of candidates: the ways in which each was found. A
/// pseudonym wherever it stands, and the checksum of a pseudonym's record.
fn tried(disk: &SimulatedDisk, candidates: impl Iterator<Item = u32>) -> Vec<(u32, &'static str)> {
    let (keys, _) = crate::pseudonyms::PeriodKeys::load(
        &(Arc::new(disk.restart()) as Arc<dyn crate::disk::Disk>),
        Path::new("/log/keys"),
    )
    .unwrap();
    let files = disk.all_bytes();
    let windows: std::collections::HashSet<[u8; 16]> =
        files.iter().flat_map(|file| file.windows(16).map(|window| window.try_into().unwrap())).collect();
    // Headers of pseudonyms: their payload is what a checksum was made of.
    let mut headers = Vec::new();
    for file in &files {
        for at in 0..file.len().saturating_sub(HEADER + PSEUDONYM_LEN) {
            let bytes: &[u8; HEADER] = file[at..at + HEADER].try_into().unwrap();
            if let Some(header) = crate::record::Header::read(bytes)
                && header.kind == Kind::Pseudonym
                && header.len == PSEUDONYM_LEN
            {
                headers.push((header, file[at + HEADER..at + HEADER + PSEUDONYM_LEN].to_vec()));
            }
        }
    }
    let mut found = Vec::new();
    for candidate in candidates {
        for (_, hash) in keys.all_of(&person(candidate)) {
            if windows.contains(&hash) {
                found.push((candidate, "pseudonym"));
            }
            for (header, payload) in &headers {
                let mut guess = payload.clone();
                // Whatever is left of period and salt, with the pseudonym that it would be.
                guess[0] = 1;
                guess[1..5].copy_from_slice(&24_322_u32.to_le_bytes());
                guess[21..].copy_from_slice(&hash);
                if header.covers(&guess) {
                    found.push((candidate, "checksum"));
                }
            }
        }
    }
    found.dedup();
    found
}

#[test]
fn a_person_is_found_wherever_the_index_is_and_page_by_page() {
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    assert_eq!(places(&log, 1), OF_ONE);
    assert_eq!((places(&log, 2), places(&log, 3), places(&log, 105)), (vec![21], vec![], vec![6]));
    let exchange_of = |one: &crate::Concerned| one.exchange;
    let first = log.of_person(&person(1), 0, 1).unwrap();
    assert!(!first.is_empty() && first.len() < 6, "a page: {}", first.len());
    assert_eq!(first.first().map(exchange_of), Some(exchange(0)));
    let rest = log.of_person(&person(1), first.last().unwrap().index + 1, 100).unwrap();
    assert_eq!(first.len() + rest.len(), 6);
    assert_eq!(log.check().problems, Vec::<String>::new());
    quiet(&disk);
    drop(log);
    let mut disk = disk.restart();
    // By the files alone; without them; and with a damaged one.
    let tables: Vec<_> = disk
        .list(Path::new("/log/segments"))
        .unwrap()
        .into_iter()
        .filter(|name| name.ends_with(".persons"))
        .collect();
    assert_eq!(tables.len(), 2, "{tables:?}");
    for damage in ["none", "removed", "damaged", "index removed"] {
        for name in &tables {
            let path = Path::new("/log/segments").join(name);
            match damage {
                "none" => {}
                "removed" => disk.remove(&path).unwrap(),
                "damaged" => disk.open(&path).unwrap().write_all_at(&[1; 9], 5_000).unwrap(),
                _ => disk.remove(&path.with_extension("index")).unwrap(),
            }
        }
        let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        assert_eq!(recovered.warnings, Vec::<String>::new());
        assert_eq!((places(&log, 1), places(&log, 2)), (OF_ONE.to_vec(), vec![21]), "{damage}");
        // In the background the tables are in files again.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while disk
            .list(Path::new("/log/segments"))
            .unwrap()
            .iter()
            .filter(|name| name.ends_with("persons"))
            .count()
            < tables.len()
        {
            assert!(std::time::Instant::now() < end, "no tables were made");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(log.check().problems, Vec::<String>::new(), "{damage}");
        drop(log);
        disk = disk.restart();
    }
}

#[test]
fn an_erased_person_is_found_by_nobody_with_the_disk_the_keys_and_a_list() {
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    quiet(&disk);
    let everybody = || (0..300).chain([7_000]);
    let before = tried(&disk, everybody());
    assert!(before.contains(&(1, "pseudonym")) && before.contains(&(2, "pseudonym")));
    assert!(before.contains(&(1, "checksum")), "the test would see a checksum that tells");
    assert_eq!(before.iter().filter(|(_, how)| *how == "pseudonym").count(), 2 + 54);
    // The disk of before, as the log goes on: what `tried` looked at has taken it over.
    drop(log);
    let disk = disk.restart();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    let erased = erase(&log, 1).unwrap();
    assert_eq!((erased.exchanges, erased.contents, erased.pseudonyms), (6, 6, 6));
    assert_eq!((places(&log, 1), places(&log, 2), places(&log, 105)), (vec![], vec![21], vec![6]));
    assert_eq!(log.exchange(exchange(20)).unwrap()[0].content, ContentState::Erased);
    assert_eq!(log.check().problems, Vec::<String>::new());
    quiet(&disk);
    drop(log);
    let after = tried(&disk, everybody());
    assert!(!after.iter().any(|(who, _)| *who == 1), "{after:?}");
    assert_eq!(after.iter().filter(|(_, how)| *how == "pseudonym").count(), 1 + 54, "the others stay");
    let disk = disk.restart();
    let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    assert_eq!((recovered.erasures_redone, recovered.warnings.len()), (7, 0));
    assert_eq!((places(&log, 1), places(&log, 2)), (vec![], vec![21]));
    // Nor does an index that is made again from the segments bring anything back.
    drop(log);
    let disk = disk.restart();
    for name in disk.list(Path::new("/log/segments")).unwrap() {
        if name.ends_with(".persons") || name.ends_with(".index") {
            disk.remove(&Path::new("/log/segments").join(name)).unwrap();
        }
    }
    let (log, _) = Log::open_on(Arc::new(disk), options(Path::new("/log"))).unwrap();
    assert_eq!((places(&log, 1), places(&log, 2)), (vec![], vec![21]));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn the_checksum_that_outlives_a_pseudonym_tells_nothing_of_it() {
    // For a given checksum there are as many salts that give it to the one pseudonym as to any other: in 4 bytes of
    // the salt each value comes once. Here: for every pseudonym there is a salt with the checksum of another's.
    let payload = |salt: [u8; 4], of: u8| {
        let mut payload = [0; PSEUDONYM_LEN];
        payload[5..9].copy_from_slice(&salt);
        payload[21..].fill(of);
        payload
    };
    let crc = |payload: &[u8]| {
        let mut bytes = Vec::new();
        let header = crate::record::write(&mut bytes, Kind::Pseudonym, &[payload]);
        u32::from_le_bytes(header[8..].try_into().unwrap())
    };
    let seen = crc(&payload(*b"salt", 1));
    for other in 2..20 {
        // CRC-32 is linear: solve for the salt bit by bit.
        let base = crc(&payload([0; 4], other));
        let mut basis: Vec<(u32, u32)> = Vec::new();
        for bit in 0..32 {
            let mut value = (crc(&payload((1_u32 << bit).to_le_bytes(), other)) ^ base, 1_u32 << bit);
            for (image, from) in &basis {
                if value.0 & (1 << (31 - image.leading_zeros())) != 0 {
                    value = (value.0 ^ image, value.1 ^ from);
                }
            }
            assert_ne!(value.0, 0, "the map from salts to checksums is one to one");
            basis.push(value);
            basis.sort_unstable_by_key(|(image, _)| std::cmp::Reverse(*image));
        }
        let (mut rest, mut salt) = (seen ^ base, 0);
        for (image, from) in &basis {
            if rest & (1 << (31 - image.leading_zeros())) != 0 {
                (rest, salt) = (rest ^ image, salt ^ from);
            }
        }
        assert_eq!(crc(&payload(salt.to_le_bytes(), other)), seen);
    }
}

#[test]
fn an_erasing_that_was_interrupted_is_done_again() {
    let mut cut = 0;
    for after in 1..60 {
        let disk = SimulatedDisk::new();
        let log = filled(&disk);
        prepared(&log);
        quiet(&disk);
        let (ciphertext, _) = ciphertext_and_key(&log, 20);
        let concerned = log.of_person(&person(1), 0, 100).unwrap();
        disk.fail_after(after, Fault::PowerCut);
        let told = block_on(log.erase_person(&concerned, "officer", "request"));
        drop(log);
        let disk = disk.cut_power(&mut Dice(after));
        let opened = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log")));
        let (log, recovered) = opened.unwrap_or_else(|error| panic!("after {after}: {}", error.in_full()));
        let left = places(&log, 1);
        // That which forgets the person is logged last: before it the person is found as before.
        if recovered.erasures_redone < 7 {
            assert_eq!(left, OF_ONE, "after {after}");
            assert!(told.is_err());
        } else {
            assert_eq!(left, Vec::<u64>::new(), "after {after}");
            assert!(!disk.all_bytes().iter().any(|file| file.windows(24).any(|bytes| bytes == ciphertext)));
        }
        assert_eq!(recovered.warnings, Vec::<String>::new());
        assert_eq!(log.check().problems, Vec::<String>::new(), "after {after}");
        cut += u32::from(told.is_err());
        if told.is_ok() {
            assert!(cut > 10, "{cut} steps");
            return;
        }
    }
    panic!("never done");
}

/// Whether the record lies in one sector or in two, and whichever of the two was overwritten when the power went.
#[test]
fn a_pseudonym_that_a_power_cut_left_half_overwritten_keeps_no_log_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let mut halves = 0;
    for number in 0..200 {
        append(&log, about(number, &[1]));
    }
    let concerned = log.of_person(&person(1), 0, 1_000).unwrap();
    block_on(log.erase_person(&concerned, "officer", "request")).unwrap();
    drop(log);
    let before = std::fs::read_dir(dir.path().join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let segments: Vec<_> = before.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    for path in segments {
        let mut bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() - HEADER - PSEUDONYM_LEN {
            let header = crate::record::Header::read(bytes[at..at + HEADER].try_into().unwrap());
            let from = at + HEADER;
            let second = from.div_ceil(512) * 512;
            if header.is_some_and(|it| it.kind == Kind::Pseudonym)
                && second < from + PSEUDONYM_LEN
                && second > from
            {
                // One of the two halves is as it was: anything but zeros.
                let rest = if at % 2 == 0 { from..second } else { second..from + PSEUDONYM_LEN };
                bytes[rest].fill(0x55);
                halves += 1;
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let _ = std::fs::remove_file(path.with_extension("index"));
    }
    assert!(halves > 3, "{halves} records lie in two sectors");
    let (log, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!(recovered.warnings, Vec::<String>::new());
    assert_eq!(log.check().problems, Vec::<String>::new());
    drop(log);
    for entry in std::fs::read_dir(dir.path().join("segments")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == [0x55; 8]), "what was left is overwritten");
    }
}

#[test]
fn when_the_key_of_a_period_is_gone_nobody_is_found() {
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    let months_later = |number: u32, months: i64| {
        let mut entry = about(number, &[1]);
        entry.leaf.logged_ms += months * 31 * 86_400_000;
        entry
    };
    append(&log, months_later(60, 1));
    append(&log, months_later(61, 2));
    let size = log.size();
    assert_eq!(places(&log, 1), [&OF_ONE[..], &[size - 2, size - 1]].concat());
    quiet(&disk);
    let now = Period::of(NOW);
    assert_eq!(block_on(log.forget_persons_before(now, "timer", "two years")).unwrap(), 0);
    assert_eq!(log.size(), size, "where there is nothing to do, nothing is logged");
    let key = {
        let file = disk.open(Path::new("/log/keys/persons-2026-11.bin")).unwrap();
        let mut key = vec![0; 32];
        file.read_exact_at(&mut key, 24).unwrap();
        key
    };
    let december = Period::parse("2026-12").unwrap();
    assert_eq!(block_on(log.forget_persons_before(december, "timer", "two years")).unwrap(), 1);
    assert_eq!(places(&log, 1), [size - 2, size - 1]);
    assert!(!disk.all_bytes().iter().any(|file| file.windows(32).any(|bytes| bytes == key)));
    drop(log);
    let disk = disk.restart();
    let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    assert_eq!((recovered.erasures_redone, recovered.warnings.len()), (1, 0));
    assert_eq!(places(&log, 1), [size - 2, size - 1]);
    assert_eq!(log.check().problems, Vec::<String>::new());
    // A key file that is no key: the start says which period it was.
    disk.open(Path::new("/log/keys/persons-2026-12.bin")).unwrap().write_all_at(&[1], 30).unwrap();
    drop(log);
    let (log, recovered) = Log::open_on(Arc::new(disk.restart()), options(Path::new("/log"))).unwrap();
    assert!(recovered.warnings[0].contains("2026-12"), "{:?}", recovered.warnings);
    assert_eq!(places(&log, 1), [size - 1]);
}

#[test]
fn a_key_that_was_being_destroyed_when_the_power_went_is_destroyed() {
    for after in 1..8 {
        let disk = SimulatedDisk::new();
        let log = filled(&disk);
        prepared(&log);
        quiet(&disk);
        disk.fail_after(after, Fault::PowerCut);
        let told = block_on(log.forget_persons_before(Period::parse("2027-01").unwrap(), "timer", "late"));
        drop(log);
        let disk = disk.cut_power(&mut Dice(after));
        let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        assert_eq!(recovered.warnings, Vec::<String>::new(), "after {after}");
        let redone = recovered.erasures_redone == 1;
        assert!(redone || told.is_err());
        assert_eq!(places(&log, 1).is_empty(), redone, "after {after}");
        assert_eq!(
            disk.list(Path::new("/log/keys")).unwrap().iter().any(|name| name.starts_with("persons-")),
            !redone
        );
    }
}

#[test]
fn a_pseudonym_that_nobody_had_erased_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append(&log, about(1, &[1]));
    append(&log, about(2, &[1]));
    let path = dir.path().join("segments/segment-00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == [PSEUDONYM_LEN as u8, 0, 0, 0, 7, 1]).unwrap();
    bytes[at + HEADER..at + HEADER + PSEUDONYM_LEN].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let problems = log.check().problems;
    assert_eq!(problems, ["a pseudonym beside record 1 was overwritten, and no record says so"]);
    // Other damage is damage.
    bytes[at + HEADER + 7] = 1;
    std::fs::write(&path, &bytes).unwrap();
    let problems = log.check().problems;
    assert!(problems[0].contains("checksum"), "{problems:?}");
}

#[test]
fn persons_go_with_messages_and_are_not_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let many: Vec<u32> = (0..=crate::MAX_PERSONS as u32).collect();
    assert!(matches!(log.append(about(1, &many), ()), Err(LogError::Refused(_))));
    let not_a_message = Entry { persons: vec![person(1)], ..refusal(2) };
    assert!(matches!(log.append(not_a_message, ()), Err(LogError::Refused(_))));
    append(&log, about(1, &many[1..]));
    assert_eq!((places(&log, 1), places(&log, 16), places(&log, 0)), (vec![1], vec![1], vec![]));
    // Without persons there are no keys of theirs.
    let other = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(other.path())).unwrap();
    append_each(&log, 0..3);
    assert!(
        !std::fs::read_dir(other.path().join("keys"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("persons") })
    );
}

#[test]
fn a_place_in_a_segment_that_was_written_anew_is_no_place_any_more() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    for number in 0..12 {
        append(&log, about(number, &[1, 2]));
    }
    let places: Vec<_> =
        log.of_person(&person(1), 0, 1_000_000).unwrap().iter().map(crate::Concerned::place).collect();
    let size = log.size();
    let found = log.concerned_at(&places, size).unwrap().unwrap();
    assert_eq!(found.len(), 12);
    // One record expires: what stays of its segment moves up, and other persons' pseudonyms with it.
    let plan = super::expiry::Plan { records: [1].into(), ..super::expiry::Plan::default() };
    block_on(log.close_segment()).unwrap();
    assert_eq!(super::expiry::run(&log, &plan).unwrap().1, 1);
    assert_eq!(log.concerned_at(&places, size).unwrap(), None, "nobody erases by what it was");
    // Found again, the person is erased, and the other one is not.
    let before = super::persons::places(&log, 2).len();
    assert_eq!(erase(&log, 1).unwrap().pseudonyms, 11);
    assert_eq!((super::persons::places(&log, 1).len(), super::persons::places(&log, 2).len()), (0, before));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn what_was_erased_is_known_until_more_of_it_is_logged() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    append(&log, message(1));
    assert!(!log.is_erased(exchange(1)).unwrap() && !log.is_erased(exchange(2)).unwrap());
    block_on(log.erase(exchange(1), "officer", "request")).unwrap();
    assert!(log.is_erased(exchange(1)).unwrap());
    append(&log, message(1));
    assert!(!log.is_erased(exchange(1)).unwrap(), "that is not erased");
}
