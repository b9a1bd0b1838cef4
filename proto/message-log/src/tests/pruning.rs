//! What was pruned is not here, and nothing else has changed: proofs hold, erasures work, a start finds its state, and no
//! crash leaves less than archive and statement say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trave_proto::clock::Time;
use trave_proto::schema::log::archive_act::Act;
use trave_proto::schema::log::{GrantChange, Leaf, RangePruned, leaf};
use trave_proto::tree::root_from_path;

use super::archive::{archive, archive_all, check, disk_with_archive, identity, open, store};
use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ArchiveStore as _, ContentState, Entry, Log, LogError, Source, kind};

const END: Time = Time::from_millis(i64::MAX / 2);

pub(super) fn grant() -> Entry {
    let grant = GrantChange { id: "g1".into(), in_force: true, ..GrantChange::default() };
    Entry::new(Leaf::of(NOW.as_millis(), leaf::Entry::Grant(grant)))
}

/// A log with a grant at its beginning, archived.
fn prepared() -> SimulatedDisk {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    block_on(log.append(grant(), ()).unwrap()).unwrap();
    append_each(&log, 0..24);
    block_on(log.append(refusal(900), ()).unwrap()).unwrap();
    append_each(&log, 24..48);
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    drop(log);
    disk.restart()
}

/// Prunes all that may be; the range, if there was one.
pub(super) fn prune(log: &Log, disk: &SimulatedDisk) -> Result<Option<(u64, u64)>, LogError> {
    let mut state = log.archive_state()?;
    let Some(range) = log.prunable(&state, END, &mut |_| Ok(true))? else { return Ok(None) };
    let statement = RangePruned {
        id: "p1".into(),
        first: range.first,
        count: range.count,
        root: range.root.to_bytes(),
        place: store(disk).place(),
        ..RangePruned::default()
    };
    block_on(log.prune(&archive(disk), statement, &mut state))?;
    Ok(Some((range.first, range.count)))
}

/// The last statement that a range was pruned, and whether the last checkpoint covers it.
pub(super) fn statement(log: &Log) -> Option<(RangePruned, bool)> {
    let covered = log.latest_checkpoint().map_or(0, |signed| signed.checkpoint.size);
    let records = log.scan_kind(kind::ARCHIVE, 0).map(Result::unwrap);
    let stated = records.filter_map(|record| match record.leaf.entry? {
        leaf::Entry::Archive(act) => match act.act? {
            Act::Pruned(range) => Some((range, record.index < covered)),
            _ => None,
        },
        _ => None,
    });
    stated.last()
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.list(Path::new("/log/segments")).unwrap();
    names.retain(|name| name.ends_with(".log"));
    names
}

#[test]
fn what_was_pruned_is_proved_erased_and_started_with_as_before() {
    let disk = prepared();
    let log = open(&disk).unwrap();
    let (before, size) = (segments(&disk).len(), log.size());
    let (ciphertext, key) = ciphertext_and_key(&log, 2);
    let place = log.places(exchange(2)).unwrap()[0];
    let hash = log.record(place).unwrap().leaf_hash;
    let (first, count) = prune(&log, &disk).unwrap().unwrap();
    assert!(first == 0 && count > 20 && segments(&disk).len() < before, "{first} {count}");
    let looks = |log: &Log| {
        // Proofs of what is not here, and of what is.
        for (index, of) in [(place, Some(hash)), (size - 1, None)] {
            let path = log.inclusion(index, size).unwrap();
            let leaf = of.unwrap_or_else(|| log.record(index).unwrap().leaf_hash);
            assert_eq!(root_from_path(&leaf, index, size, &path), Some(log.root(size).unwrap()));
        }
        assert!(log.consistency(3, size).is_ok());
        // The record says where it is, and is no damage.
        assert!(
            matches!(log.record(place), Err(LogError::Pruned { first: 0, .. })),
            "{:?}",
            log.record(place)
        );
        assert_eq!(log.places(exchange(2)).unwrap()[0], place);
        assert!(log.tail_ids(NOW).unwrap().contains(&exchange(2)));
        assert_eq!(
            log.scan_kind(kind::GRANT, 0).map(|it| it.unwrap().leaf).collect::<Vec<_>>(),
            [grant().leaf]
        );
        assert_eq!(log.scan_kind(kind::REFUSAL, 0).filter(Result::is_err).count(), 0);
        let report = log.check();
        assert_eq!((report.problems, report.pruned), (Vec::<String>::new(), count));
        let state = log.archive_state().unwrap();
        let gone = log.segments().into_iter().filter(|segment| segment.first < first + count);
        assert!(gone.map(|segment| segment.first).all(|segment| state.is_pruned(segment, 0)));
    };
    looks(&log);
    drop(log);
    // Nothing of its bytes is left but in the archive; after a restart, too, it is no damage.
    let log = open(&disk.restart()).unwrap();
    looks(&log);
    // Erased although it is not here: the key is gone, so the archived bytes are nobody's.
    assert_eq!(block_on(log.erase(exchange(2), "operator", "request")).unwrap(), 1);
    drop(log);
    let disk = disk.restart();
    drop(open(&disk).unwrap());
    let keys = disk.open(Path::new("/log/keys/keys-0000000000.bin")).unwrap();
    let mut bytes = vec![0; usize::try_from(keys.len().unwrap()).unwrap()];
    keys.read_exact_at(&mut bytes, 0).unwrap();
    assert!(!bytes.windows(32).any(|window| window == key));
    assert!(!ciphertext.is_empty());
    let whole = check(&disk);
    assert!(whole.is_whole(), "{whole:?}");
    // From the archive the record comes back, and its content does not: not even with the key files that are left.
    let (store, verifier) = (store(&disk), signer(ORIGIN).verifier());
    let source = Source { store: &store, identity: identity(), key: &verifier, checkpoint: None };
    let shared: Arc<dyn crate::disk::Disk> = Arc::new(disk.clone());
    source.restore_on(&shared, Path::new("/new"), &mut |_, _| {}).unwrap();
    disk.create_dir(Path::new("/new/keys")).unwrap();
    disk.rename(Path::new("/log/keys/keys-0000000000.bin"), Path::new("/new/keys/keys-0000000000.bin"))
        .unwrap();
    let restored = Log::open_restored_on(shared, Path::new("/new"), &verifier, Arc::new(Still)).unwrap();
    assert!(!matches!(restored.exchange(exchange(2)).unwrap()[0].content, ContentState::Included(_)));
    assert!(matches!(restored.exchange(exchange(3)).unwrap()[0].content, ContentState::Included(_)));
}

#[test]
fn nothing_is_pruned_that_is_not_in_the_archive() {
    let disk = prepared();
    let log = open(&disk).unwrap();
    let state = log.archive_state().unwrap();
    let name = state.archived(0).unwrap().name.clone();
    let path = PathBuf::from("/archive").join(name);
    let file = disk.open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 500).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 500).unwrap();
    let before = segments(&disk);
    let refused = prune(&log, &disk).unwrap_err();
    assert!(refused.to_string().contains("nothing is pruned"), "{refused}");
    assert!(log.archive_state().unwrap().pruned().is_empty() && segments(&disk) == before);
    // Nor what is younger, nor a range of somebody's own making.
    assert_eq!(log.prunable(&state, NOW, &mut |_| Ok(true)).unwrap(), None);
    let statement = RangePruned { first: 1, count: 3, ..RangePruned::default() };
    assert!(block_on(log.prune(&archive(&disk), statement, &mut state.clone())).is_err());
    let statement = RangePruned { first: 0, count: log.size(), ..RangePruned::default() };
    assert!(block_on(log.prune(&archive(&disk), statement, &mut state.clone())).is_err());
    assert_eq!(segments(&disk), before);
}

#[test]
fn a_segment_that_somebody_removed_is_not_taken_for_pruned() {
    let disk = prepared();
    let log = open(&disk).unwrap();
    prune(&log, &disk).unwrap().unwrap();
    append_each(&log, 60..90);
    quiet(&disk);
    drop(log);
    let disk = disk.restart();
    assert!(segments(&disk).len() > 1);
    // Another one goes, with what was kept of a pruned one in its place.
    let gone = PathBuf::from("/log/segments").join(&segments(&disk)[0]);
    disk.remove(&gone).unwrap();
    let refused = open(&disk).unwrap_err();
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    disk.rename(
        Path::new("/log/segments/segment-00000000000000000000.pruned"),
        &crate::remnant::path_of(&gone),
    )
    .unwrap();
    assert!(matches!(open(&disk.restart()), Err(LogError::Damaged { .. })));
}

#[test]
fn a_pruned_range_without_a_statement_is_told() {
    let disk = prepared();
    let log = open(&disk).unwrap();
    let state = log.archive_state().unwrap();
    let segments: Vec<_> = crate::pruning::prunable(log.shared(), &state, i64::MAX).unwrap();
    crate::pruning::prepare(log.shared(), &archive(&disk), &state, &segments[..1]).unwrap();
    removed_without_a_statement(&log, &segments[0]);
}

/// Removes a segment though nothing says that it was pruned: that is told.
pub(super) fn removed_without_a_statement(log: &Log, segment: &Arc<crate::shared::Closed>) {
    crate::pruning::remove(log.shared(), std::slice::from_ref(segment)).unwrap();
    let problems = log.check().problems;
    assert!(
        problems.len() == 1 && problems[0].contains("no statement says that they were pruned"),
        "{problems:?}"
    );
}

#[test]
fn every_operation_of_pruning_may_fail() {
    let work = |disk: &SimulatedDisk| {
        let log = open(disk).ok()?;
        prune(&log, disk).ok().flatten()
    };
    let whole = prepared();
    let before = whole.operations();
    assert!(work(&whole).is_some());
    let operations = whole.operations() - before;
    assert!(operations > 25, "{operations}");
    for fault in [Fault::Failed, Fault::FailedButStored, Fault::PowerCut] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after}");
            let disk = prepared();
            disk.fail_after(after, fault);
            let done = work(&disk);
            let disk = disk.cut_power(&mut Dice(after));
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            // A statement that no checkpoint covers is not carried out.
            let stated = statement(&log).filter(|(_, covered)| *covered);
            let stated = stated.map(|(range, _)| (range.first, range.count));
            assert!(done.is_none() || stated == done, "{why}");
            let report = log.check();
            assert_eq!(report.problems, Vec::<String>::new(), "{why}");
            // What a statement names is gone, and nothing else.
            assert_eq!(report.pruned, stated.map_or(0, |(_, count)| count), "{why}");
            for number in 0..48 {
                let found = log.places(exchange(number)).unwrap()[0];
                let gone = stated.is_some_and(|(first, count)| (first..first + count).contains(&found));
                let record = log.record(found);
                assert_eq!(matches!(record, Err(LogError::Pruned { .. })), gone, "{why}: {record:?}");
            }
            // It goes on.
            append_each(&log, 60..62);
            prune(&log, &disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            drop(log);
            let found = check(&disk);
            assert!(found.is_whole(), "{why}: {found:?}");
        }
    }
}
