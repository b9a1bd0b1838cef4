//! A disk that refuses each operation in turn, having done it or not: whatever was acknowledged before survives, the log
//! stops, and opens again.

use std::path::Path;
use std::sync::Arc;

use trave_proto::schema::log::{Leaf, RecoveredMessage, leaf};

use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ContentState, Entry, Log, LogError, Options};

fn open(disk: &SimulatedDisk) -> Result<Log, LogError> {
    let options = Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    Ok(Log::open_with(Arc::new(disk.clone()), options, 8)?.0)
}

/// Opens a log and works: messages over several segments, a checkpoint, an erasure. Returns what was acknowledged.
fn work(disk: &SimulatedDisk) -> (Vec<u32>, Option<u64>, bool) {
    let (mut acknowledged, mut checkpoint, mut erased) = (Vec::new(), None, false);
    let Ok(log) = open(disk) else { return (acknowledged, checkpoint, erased) };
    for number in 0..24 {
        let appended = log.append(message(number), ()).map(block_on);
        if matches!(appended, Ok(Ok(_))) {
            acknowledged.push(number);
        }
        if number == 10 {
            checkpoint = block_on(log.checkpoint()).ok().map(|signed| signed.checkpoint.size);
        }
        if number == 15 {
            erased = block_on(log.erase(exchange(3), "operator", "request")).is_ok();
        }
    }
    (acknowledged, checkpoint, erased)
}

#[test]
fn every_operation_may_fail() {
    let whole = SimulatedDisk::new();
    assert_eq!(work(&whole), ((0..24).collect(), Some(12), true));
    let operations = whole.operations();
    assert!(operations > 80, "{operations}");
    for fault in [Fault::Failed, Fault::FailedButStored] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after}");
            let disk = SimulatedDisk::new();
            disk.fail_after(after, fault);
            let (acknowledged, checkpoint, erased) = work(&disk);
            // The process is started again, and finds in the system's cache what may not be on the disk …
            let disk = disk.restart();
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            let seen = log.size();
            drop(log);
            // … and what it then says is durable must survive a power cut.
            let disk = disk.cut_power(&mut Dice(after));
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            assert!(log.size() > seen, "{why}");
            for number in acknowledged {
                let found = log.exchange(exchange(number)).unwrap();
                assert_eq!(found[0].leaf, message(number).leaf, "{why}");
                match &found[0].content {
                    ContentState::Included(found) => assert_eq!(found, &parts(number), "{why}"),
                    ContentState::Erased => assert_eq!(number, 3, "{why}"),
                    other => panic!("{why}: {other:?}"),
                }
                if number == 3 && erased {
                    assert_eq!(found[0].content, ContentState::Erased, "{why}");
                }
            }
            if let Some(size) = checkpoint {
                assert!(log.latest_checkpoint().unwrap().checkpoint.size >= size, "{why}");
            }
            assert_eq!(log.check().problems, Vec::<String>::new(), "{why}");
        }
    }
}

#[test]
fn a_failed_write_ends_the_log_for_good() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..3);
    prepared(&log);
    quiet(&disk);
    disk.fail_after(1, Fault::Failed);
    let refused = block_on(log.append(message(3), ()).unwrap()).unwrap_err();
    assert!(matches!(&refused, LogError::Poisoned(why) if why.contains("made to fail")), "{refused}");
    assert!(matches!(log.append(message(4), ()), Err(LogError::Poisoned(_))));
    assert!(matches!(block_on(log.checkpoint()), Err(LogError::Poisoned(_))));
    assert!(log.poisoned().is_some());
    drop(log);
    let log = open(&disk.restart()).unwrap();
    append_each(&log, 3..5);
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn a_full_disk_refuses_exchanges_but_still_logs() {
    let disk = SimulatedDisk::new();
    let options = Options { reserve: 1 << 20, ..options(Path::new("/log")) };
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options).unwrap();
    append_each(&log, 0..2);
    disk.set_free(0);
    eventually(|| matches!(log.append(message(2), ()), Err(LogError::DiskFull { reserve: 1_048_576 })));
    let recovered = leaf::Entry::Recovered(RecoveredMessage::default());
    let recovered = Entry::new(Leaf::of(0, recovered));
    assert!(
        matches!(log.append(recovered.clone(), ()), Err(LogError::DiskFull { .. })),
        "a peer fills no reserve"
    );
    block_on(log.append(refusal(2), ()).unwrap()).unwrap();
    disk.set_free(u64::MAX);
    eventually(|| log.append(recovered.clone(), ()).is_ok());
    eventually(|| log.append(message(3), ()).is_ok());
}

#[test]
fn a_spare_segment_is_not_made_of_the_reserve() {
    let spares = |disk: &SimulatedDisk| {
        let names = disk.list(Path::new("/log/segments")).unwrap();
        names.into_iter().filter(|name| name.starts_with("spare-")).collect::<Vec<_>>()
    };
    let enough = (1 << 20) + options(Path::new("/log")).segment_size;
    for (free, expected) in [(0, 0), (enough - 1, 0), (enough, 1)] {
        let disk = SimulatedDisk::new();
        disk.set_free(free);
        let options = Options { reserve: 1 << 20, ..options(Path::new("/log")) };
        let (log, _) = Log::open_on(Arc::new(disk.clone()), options).unwrap();
        quiet(&disk);
        assert_eq!(spares(&disk).len(), expected, "{free} bytes free");
        drop(log);
    }
    // One that could not be made whole does not stay.
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    quiet(&disk);
    assert_eq!(spares(&disk), ["spare-1.tmp"]);
    disk.fail_writes_of("spare-2");
    append_each(&log, 0..60);
    quiet(&disk);
    assert!(!spares(&disk).contains(&"spare-2.tmp".to_owned()), "{:?}", spares(&disk));
    assert!(log.poisoned().is_none());
}

/// Waits for what another thread does within moments.
fn eventually(mut happens: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !happens() {
        assert!(std::time::Instant::now() < end, "it did not happen in 20 s");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
