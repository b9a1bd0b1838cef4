//! Which generation of a segment was pruned, and what its kept records need: an older copy never takes the place of a newer
//! one, a statement counts for what was pruned by it, and kept records keep their artefacts.

use std::path::{Path, PathBuf};

use trave_proto::schema::log::{ConfigurationAdopted, Leaf, leaf};
use trave_proto::tree::{leaf_hash, root_from_path};

use super::archive::{archive, archive_all, check, disk_with_archive, open, store};
use super::expiry::{Plan, found, run};
use super::pruned::{Until, step};
use super::pruning::{prune, statement};
use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Fault, SimulatedDisk};
use crate::{ArchiveStore as _, Artefact, Entry, Log, LogError, kind};

const SIGNED: &[u8] = b"a signed configuration, as it came";

/// A record that is kept, and rests on bytes that stand beside it.
fn configuration() -> Entry {
    let change = ConfigurationAdopted { number: 7, ..ConfigurationAdopted::default() };
    let leaf = Leaf::of(NOW.as_millis(), leaf::Entry::Configuration(change));
    Entry { artefacts: vec![Artefact::new(SIGNED.into())], ..Entry::new(leaf) }
}

/// A log that begins with such a record, with two segments that may be pruned.
fn begun() -> (SimulatedDisk, Log) {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    block_on(log.append(configuration(), ()).unwrap()).unwrap();
    append_each(&log, 0..40);
    archived_again(&log, &disk);
    (disk, log)
}

/// Archives what is due, and has a checkpoint signed behind it.
fn archived_again(log: &Log, disk: &SimulatedDisk) {
    block_on(log.checkpoint()).unwrap();
    archive_all(log, &archive(disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
}

/// All messages of the first segment expire, and what is left is archived.
fn expired(log: &Log, disk: &SimulatedDisk) {
    let first = log.segments()[0];
    let plan = Until { place: first.count, ..Until::default() };
    assert_eq!(step(log, &plan).unwrap(), (0, first.count - 2, 0));
    archived_again(log, disk);
}

/// The proof of the kept record holds: the leaf, its place under the newest root, and all that it rests on.
fn is_proved(log: &Log, why: &str) {
    let record = log.scan_kind(kind::CONFIGURATION, 0).next().unwrap().unwrap();
    let (size, hash) = (log.size(), leaf_hash(&record.leaf_bytes));
    let path = log.inclusion(record.index, size).unwrap();
    assert_eq!(root_from_path(&hash, record.index, size, &path), Some(log.root(size).unwrap()), "{why}");
    let artefacts: Vec<_> = record.artefacts().into_iter().collect();
    assert_eq!(artefacts.len(), 1, "{why}");
    assert_eq!(log.artefact(&artefacts[0]).unwrap().as_deref(), Some(SIGNED), "{why}");
}

#[test]
fn what_a_kept_record_rests_on_is_kept_with_it_however_often_its_segment_is_pruned() {
    let (disk, log) = begun();
    is_proved(&log, "as it was logged");
    prune(&log, &disk).unwrap().unwrap();
    is_proved(&log, "pruned");
    expired(&log, &disk);
    assert!(!log.segments()[0].pruned);
    is_proved(&log, "made anew");
    prune(&log, &disk).unwrap().unwrap();
    assert!(log.segments()[0].pruned);
    is_proved(&log, "pruned twice");
    assert_eq!(log.check().problems, Vec::<String>::new());
    drop(log);
    let log = open(&disk.restart()).unwrap();
    is_proved(&log, "pruned twice, after a start");
}

#[test]
fn a_statement_does_not_count_for_what_was_made_anew_since() {
    let (disk, log) = begun();
    prune(&log, &disk).unwrap().unwrap();
    expired(&log, &disk);
    // A second pruning is prepared, and nothing says that it was done.
    let state = log.archive_state().unwrap();
    let segments = crate::pruning::prunable(log.shared(), &state, i64::MAX).unwrap();
    assert_eq!(segments[0].first, 0);
    crate::pruning::prepare(log.shared(), &archive(&disk), &state, &segments[..1]).unwrap();
    drop(log);
    let log = open(&disk.restart()).unwrap();
    assert!(!log.segments()[0].pruned, "nobody said that this one goes");
    // Nor is it taken for pruned if somebody removes it.
    let segments = crate::pruning::prunable(log.shared(), &state, i64::MAX).unwrap();
    super::pruning::removed_without_a_statement(&log, &segments[0]);
}

#[test]
fn an_older_segment_that_is_put_back_does_not_take_the_place_of_one_that_was_pruned_since() {
    let disk = disk_with_archive();
    let (log, _) = super::archive::archived(&disk);
    let path = PathBuf::from("/log/segments/segment-00000000000000000000.log");
    let copy = Path::new("/log/segments/copy");
    duplicate(&disk, &path, copy);
    let plan = Plan { records: (0..4).filter(|number| *number != 2).collect(), ..Plan::default() };
    run(&log, &plan).unwrap();
    archived_again(&log, &disk);
    prune(&log, &disk).unwrap().unwrap();
    assert!(log.segments()[0].pruned);
    drop(log);
    let disk = disk.restart();
    disk.rename(copy, &path).unwrap();
    assert!(found(&disk, exchange(1).as_bytes()), "what has expired is there");
    let log = open(&disk).unwrap();
    assert!(log.segments()[0].pruned);
    assert!(log.places(exchange(1)).unwrap().is_empty());
    quiet(&disk);
    assert!(!found(&disk, exchange(1).as_bytes()), "it is overwritten like any that was replaced");
    assert_eq!(log.check().problems, Vec::<String>::new());
}

fn duplicate(disk: &SimulatedDisk, from: &Path, to: &Path) {
    let file = disk.open(from).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let copy = disk.create(to).unwrap();
    copy.write_all_at(&bytes, 0).unwrap();
    copy.sync().unwrap();
    disk.sync_dir(to.parent().unwrap()).unwrap();
}

#[test]
fn an_older_object_that_is_put_in_the_place_of_the_newer_one_is_told() {
    let (disk, log) = begun();
    let old = log.archive_state().unwrap().archived(0).unwrap().name.clone();
    let kept = Path::new("/kept");
    duplicate(&disk, &Path::new("/archive").join(&old), kept);
    prune(&log, &disk).unwrap().unwrap();
    expired(&log, &disk);
    let new = log.archive_state().unwrap().archived(0).unwrap().name.clone();
    assert!(check(&disk).is_whole());
    // Under its own name, and under that of the newer one.
    let newer = Path::new("/archive").join(&new);
    for name in [&old, &new] {
        let disk = disk.copied();
        if *name == old {
            disk.remove(&newer).unwrap();
        }
        duplicate(&disk, kept, &Path::new("/archive").join(name));
        let whole = check(&disk);
        assert!(
            whole.problems.iter().any(|problem| problem.contains(&new)),
            "{name} in the place of {new}: {:?}",
            whole.problems
        );
        assert!(prune(&log_on(&disk), &disk).is_err(), "and nothing is pruned by it");
    }
    assert!(store(&disk).list().unwrap().contains(&new));
}

fn log_on(disk: &SimulatedDisk) -> Log {
    open(&disk.restart()).unwrap()
}

#[test]
fn what_no_checkpoint_covers_is_not_removed_by_a_start() {
    let (disk, log) = begun();
    drop(log);
    let disk = disk.restart();
    // The statement is durable, and the power fails before the checkpoint over it is.
    let mut left = None;
    for after in 1..400 {
        let disk = disk.copied();
        let log = open(&disk).unwrap();
        quiet(&disk);
        disk.fail_after(after, Fault::Failed);
        let done = prune(&log, &disk);
        drop(log);
        let disk = disk.restart();
        let log = open(&disk).unwrap();
        match (statement(&log).map(|(_, covered)| covered), done) {
            (_, Ok(_)) => break,
            (Some(false), Err(LogError::Poisoned(_) | LogError::Disk { .. })) => {
                assert!(!log.segments()[0].pruned, "{after}");
                assert_eq!(log.check().problems, Vec::<String>::new(), "{after}");
                left = Some((disk, log));
            }
            _ => {}
        }
    }
    // Once a checkpoint covers it, the next start does it.
    let (disk, log) = left.expect("a fault between the two");
    block_on(log.checkpoint()).unwrap();
    drop(log);
    let log = open(&disk.restart()).unwrap();
    assert!(log.segments()[0].pruned);
    assert_eq!(log.check().problems, Vec::<String>::new());
}
