//! What is damaged or missing is fetched again from the archive: only what the log names, and what was there is kept aside;
//! whatever step fails, the old or the new is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{archive, archive_all, disk_with_archive, identity, open, store};
use super::damaged::{change, pruned};
use super::persons::{about, person};
use super::pruned::{Until, step};
use super::pruning::grant;
use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ContentState, LogError, Repaired, Source, kind};

fn repair(disk: &SimulatedDisk) -> Result<Repaired, LogError> {
    let (store, key) = (store(disk), signer(ORIGIN).verifier());
    let source = Source { store: &store, identity: identity(), key: &key, checkpoint: None };
    source.repair_on(&(Arc::new(disk.clone()) as _), Path::new("/log"), &mut |_, _| {})
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(format!("/log/segments/segment-00000000000000000000.{name}"))
}

/// A log with persons beside its records, archived, nothing pruned.
fn archived() -> SimulatedDisk {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    block_on(log.append(grant(), ()).unwrap()).unwrap();
    for number in 0..40 {
        block_on(log.append(about(number, &[1]), ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    drop(log);
    disk.restart()
}

fn aside(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.list(Path::new("/log/segments")).unwrap();
    names.retain(|name| name.contains(".damaged-"));
    names
}

/// The log opens, and nothing is wrong with it.
fn is_whole(disk: &SimulatedDisk, why: &str) {
    let log = open(disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
    assert_eq!(log.check().problems, Vec::<String>::new(), "{why}");
    let grants: Vec<_> = log.scan_kind(kind::GRANT, 0).map(|it| it.unwrap().leaf).collect();
    assert_eq!(grants, [grant().leaf], "{why}");
}

#[test]
fn a_damaged_segment_is_fetched_again_with_its_contents_and_pseudonyms() {
    let disk = archived();
    // In the grant, which stands before the pseudonyms.
    change(&disk, &file("log"), 700);
    assert!(open(&disk).unwrap().check().problems.iter().any(|problem| problem.contains("checksum")));
    let disk = disk.restart();
    let done = repair(&disk).unwrap();
    assert!(done.whole.is_whole() && done.left.is_empty(), "{done:?}");
    assert!(done.mended.len() == 1 && done.mended[0].contains("segment of the records 0 to "), "{done:?}");
    assert_eq!(aside(&disk).len(), 1);
    let log = open(&disk.restart()).unwrap();
    assert_eq!(log.check().problems, Vec::<String>::new());
    assert!(matches!(log.exchange(exchange(0)).unwrap()[0].content, ContentState::Included(_)));
    assert_eq!(
        log.of_person(&person(1), 0, 100).unwrap().len(),
        40,
        "pseudonyms are in no archive, and here still"
    );
    drop(log);
    assert_eq!(repair(&disk.restart()).unwrap().mended, Vec::<String>::new(), "once");
}

#[test]
fn a_missing_segment_is_fetched_again_and_what_no_archive_has_is_said() {
    let disk = archived();
    disk.remove(&file("log")).unwrap();
    assert!(matches!(open(&disk), Err(LogError::Damaged { .. })));
    let disk = disk.restart();
    let done = repair(&disk).unwrap();
    assert!(done.mended.len() == 1 && done.mended[0].contains("nothing was there"), "{done:?}");
    assert!(done.left.len() == 1 && done.left[0].contains("pseudonyms"), "{done:?}");
    assert!(done.whole.is_whole(), "{done:?}");
    let log = open(&disk.restart()).unwrap();
    assert!(matches!(log.exchange(exchange(0)).unwrap()[0].content, ContentState::Included(_)));
}

/// What is damaged, and how.
type Damage<'a> = (&'a str, &'a dyn Fn(&SimulatedDisk));

#[test]
fn what_is_kept_of_a_pruned_segment_is_made_again() {
    let damages: [Damage<'_>; 5] = [
        ("its table", &|disk| change(disk, &file("pruned"), 100)),
        ("its index", &|disk| change(disk, &file("index"), 5_000)),
        ("the head of its index", &|disk| change(disk, &file("index"), 30)),
        ("no index", &|disk| disk.remove(&file("index")).unwrap()),
        ("nothing", &|disk| {
            disk.remove(&file("index")).unwrap();
            disk.remove(&file("pruned")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let disk = pruned();
        let before = disk.list(Path::new("/log/segments")).unwrap().len();
        damage(&disk);
        let disk = disk.restart();
        let done = repair(&disk).unwrap();
        assert!(done.mended.len() == 1 && done.left.is_empty() && done.whole.is_whole(), "{what}: {done:?}");
        assert!(done.mended[0].starts_with("what is kept of the records 0 to "), "{what}: {done:?}");
        assert_eq!(
            disk.list(Path::new("/log/segments")).unwrap().len(),
            before + aside(&disk).len(),
            "{what}"
        );
        is_whole(&disk, what);
        let log = open(&disk.restart()).unwrap();
        assert!(log.segments()[0].pruned, "{what}");
        // Its contents are still erased by their keys.
        assert_eq!(block_on(log.erase(exchange(2), "officer", "request")).unwrap(), 1, "{what}");
    }
}

#[test]
fn nothing_is_put_in_place_that_the_log_does_not_name() {
    // An object that is another than was logged.
    let disk = archived();
    let log = open(&disk).unwrap();
    let name = log.archive_state().unwrap().archived(0).unwrap().name.clone();
    assert!(matches!(repair(&disk), Err(LogError::Locked { .. })), "a server runs");
    drop(log);
    let disk = disk.restart();
    change(&disk, &file("log"), 700);
    let damaged = disk.copied();
    change(&damaged, &Path::new("/archive").join(&name), 500);
    let done = repair(&damaged).unwrap();
    assert!(done.mended.is_empty() && done.left[0].contains("not the one that the log names"), "{done:?}");
    assert!(aside(&damaged).is_empty());
    // A copy of an earlier generation: what has expired since stays gone.
    let disk = archived();
    let log = open(&disk).unwrap();
    let first = log.segments()[0];
    step(&log, &Until { place: first.count - 1, ..Until::default() }).unwrap();
    drop(log);
    let disk = disk.restart();
    change(&disk, &PathBuf::from("/log/segments/segment-00000000000000000000.c000001.log"), 700);
    let done = repair(&disk).unwrap();
    assert!(done.mended.is_empty() && done.left[0].contains("would come back"), "{done:?}");
    // The segment that was written to is in no archive.
    let disk = archived();
    let last = disk.list(Path::new("/log/segments")).unwrap();
    let last = last.into_iter().filter(|name| name.ends_with(".log")).max().unwrap();
    change(&disk, &Path::new("/log/segments").join(last), 10);
    let done = repair(&disk).unwrap();
    assert!(done.mended.is_empty() && done.left[0].contains("is in no archive"), "{done:?}");
}

#[test]
fn every_operation_of_a_repair_may_fail() {
    let starts: [(&str, SimulatedDisk); 2] = [("a segment", archived()), ("a pruned one", pruned())];
    for (what, start) in starts {
        match what {
            "a segment" => change(&start, &file("log"), 700),
            _ => {
                change(&start, &file("index"), 5_000);
                change(&start, &file("pruned"), 100);
            }
        }
        let start = start.restart();
        let whole = start.copied();
        let before = whole.operations();
        repair(&whole).unwrap();
        let operations = whole.operations() - before;
        assert!(operations >= 8, "{what}: {operations}");
        for fault in [Fault::Failed, Fault::FailedButStored, Fault::PowerCut] {
            for after in 1..=operations {
                let why = format!("{what}: {fault:?} after {after} of {operations}");
                let disk = start.copied();
                disk.fail_after(after, fault);
                let failed = repair(&disk);
                assert!(failed.is_err() || fault != Fault::PowerCut, "{why}: {failed:?}");
                let disk = disk.cut_power(&mut Dice(after));
                // Every file is the old or the new: either way it can be mended, and is.
                let done = repair(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
                assert!(done.left.is_empty() && done.whole.is_whole(), "{why}: {done:?}");
                is_whole(&disk, &why);
            }
        }
    }
}
