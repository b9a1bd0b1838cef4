//! Damage to what is kept of a pruned segment: the log opens, names the file, and refuses only what needs it; and what the
//! archive has is fetched again.

use std::path::{Path, PathBuf};

use super::archive::{archive, archive_all, disk_with_archive, open};
use super::persons::{about, person};
use super::pruning::{grant, prune};
use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::SimulatedDisk;
use crate::{Log, LogError, kind};

/// A log with a grant at its beginning, of which the first segments are pruned.
pub(super) fn pruned() -> SimulatedDisk {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    block_on(log.append(grant(), ()).unwrap()).unwrap();
    append_each(&log, 0..48);
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    prune(&log, &disk).unwrap().unwrap();
    drop(log);
    disk.restart()
}

pub(super) fn change(disk: &SimulatedDisk, path: &Path, at: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.sync().unwrap();
}

fn opened(disk: &SimulatedDisk) -> (Log, Vec<String>) {
    let options = crate::Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    let (log, recovered) = Log::open_with(std::sync::Arc::new(disk.clone()), options, 8).unwrap();
    (log, recovered.warnings)
}

#[test]
fn a_log_opens_though_what_is_kept_of_a_pruned_segment_is_damaged() {
    let first = PathBuf::from("/log/segments/segment-00000000000000000000.pruned");
    for at in [3, 100] {
        let disk = pruned();
        change(&disk, &first, at);
        let (log, warnings) = opened(&disk);
        let told = warnings
            .iter()
            .any(|why| why.contains(&*first.to_string_lossy()) && why.contains("`archive repair`"));
        assert!(told, "{warnings:?}");
        let problems = log.check().problems;
        assert!(problems.iter().any(|problem| problem.contains(&*first.to_string_lossy())), "{problems:?}");
        // What needs it is refused, and says why.
        let grants: Vec<_> = log.scan_kind(kind::GRANT, 0).collect();
        assert!(matches!(&grants[..], [Err(LogError::Damaged { .. })]), "{grants:?}");
        let refused = block_on(log.erase(exchange(2), "officer", "request")).unwrap_err();
        assert!(refused.to_string().contains(".pruned"), "{refused}");
        // What does not need it goes on.
        let newest = log.places(exchange(47)).unwrap()[0];
        log.record(newest).unwrap();
        log.inclusion(1, log.size()).unwrap();
        append_each(&log, 100..104);
        block_on(log.checkpoint()).unwrap();
        assert_eq!(block_on(log.erase(exchange(47), "officer", "request")).unwrap(), 1);
    }
}

#[test]
fn a_log_opens_though_the_persons_of_a_pruned_segment_cannot_be_read() {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    for number in 0..48 {
        block_on(log.append(about(number, &[1]), ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    prune(&log, &disk).unwrap().unwrap();
    drop(log);
    let disk = disk.restart();
    let persons = PathBuf::from("/log/segments/segment-00000000000000000000.persons");
    change(&disk, &persons, 40);
    let (log, _) = opened(&disk);
    let refused = log.of_person(&person(1), 0, 100).unwrap_err();
    assert!(refused.to_string().contains(&*persons.to_string_lossy()), "{refused}");
    // What is no search by person goes on. Contents there are erased all the same, and what was not reached is told.
    log.record(log.places(exchange(47)).unwrap()[0]).unwrap();
    append_each(&log, 100..104);
    block_on(log.checkpoint()).unwrap();
    assert_eq!(block_on(log.erase(exchange(47), "officer", "request")).unwrap(), 1);
    let live = |log: &Log| (0..48).filter(|slot| log.shared().keys.is_live(*slot).unwrap()).count();
    let before = live(&log);
    let told = block_on(log.erase(exchange(2), "officer", "request")).unwrap_err();
    assert!(told.to_string().contains(&*persons.to_string_lossy()), "{told}");
    assert_eq!(live(&log), before - 1);
}
