//! What has expired leaves the archive, too; and what was written anew without it is archived, pruned and restored like
//! any other segment.

use std::path::Path;
use std::sync::Arc;

use trave_proto::clock::Time;
use trave_proto::schema::log::RangePruned;

use super::archive::{archive, archive_all, archived, check, disk_with_archive, identity, open, store};
use super::expiry::{Plan, found, run};
use super::support::*;
use crate::disk::simulated::SimulatedDisk;
use crate::{ArchiveStore as _, ContentState, Log, LogError, Source};

/// Whether a text stands in any object of the archive, once that is opened with its key.
fn in_archive(disk: &SimulatedDisk, text: &[u8]) -> bool {
    store(disk).list().unwrap().iter().any(|name| {
        let object = crate::archive::object::read(&store(disk), name, identity()).unwrap();
        let bytes = object.verify(&signer(ORIGIN).verifier()).unwrap().bytes;
        bytes.windows(text.len()).any(|window| window == text)
    })
}

/// A log, archived, of which all records below `until` but number 1 have expired.
fn expired(until: u32) -> (SimulatedDisk, Log, Plan) {
    let disk = disk_with_archive();
    let (log, _) = archived(&disk);
    let plan = Plan { records: (0..until).filter(|number| *number != 1).collect(), ..Plan::default() };
    run(&log, &plan).unwrap();
    (disk, log, plan)
}

#[test]
fn what_has_expired_leaves_the_archive_with_the_next_copy() {
    let (disk, log, plan) = expired(20);
    let ids: Vec<_> = plan.records.iter().map(|number| exchange(*number)).collect();
    assert!(ids.iter().all(|id| in_archive(&disk, id.as_bytes())), "it was there");
    let state = log.archive_state().unwrap();
    let due = log.due_for_archive(&state);
    assert!(due.len() >= 2 && due[0] == 0, "{due:?}");
    let old: Vec<_> = due.iter().filter_map(|first| Some(state.archived(*first)?.name.clone())).collect();
    assert!(archive_all(&log, &archive(&disk)).unwrap() >= 2);
    let names = store(&disk).list().unwrap();
    assert!(old.len() >= 2 && !old.iter().any(|name| names.contains(name)), "{old:?} {names:?}");
    assert!(!ids.iter().any(|id| in_archive(&disk, id.as_bytes())));
    assert!(in_archive(&disk, exchange(1).as_bytes()), "what stays is in it");
    assert!(log.due_for_archive(&log.archive_state().unwrap()).is_empty());
    block_on(log.checkpoint()).unwrap();
    let whole = check(&disk);
    assert!(whole.is_whole(), "{whole:?}");
    assert!(log.check().problems.is_empty(), "{:?}", log.check().problems);
    // What comes out of the archive is the log as it is now.
    let root = log.root(40).unwrap();
    drop(log);
    let (store, key) = (store(&disk), signer(ORIGIN).verifier());
    let source = Source { store: &store, identity: identity(), key: &key, checkpoint: None };
    let shared: Arc<dyn crate::disk::Disk> = Arc::new(disk.clone());
    source.restore_on(&shared, Path::new("/new"), &mut |_, _| {}).unwrap();
    let restored = Log::open_restored_on(shared, Path::new("/new"), &key, Arc::new(Still)).unwrap();
    assert_eq!(restored.exchange(exchange(1)).unwrap().len(), 1);
    assert!(restored.exchange(exchange(2)).unwrap().is_empty());
    assert!(matches!(restored.record(1), Err(LogError::Expired { index: 1 })));
    assert_eq!(restored.root(40).unwrap(), root);
}

#[test]
fn what_was_not_archived_as_it_is_now_is_not_pruned() {
    let (disk, log, plan) = expired(20);
    let state = log.archive_state().unwrap();
    let end = Time::from_millis(i64::MAX / 2);
    assert_eq!(
        log.prunable(&state, end, &mut |_| Ok(true)).unwrap(),
        None,
        "the copies hold what has expired"
    );
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    let mut state = log.archive_state().unwrap();
    let range = log.prunable(&state, end, &mut |_| Ok(true)).unwrap().unwrap();
    let statement = RangePruned {
        first: range.first,
        count: range.count,
        root: range.root.to_bytes(),
        ..RangePruned::default()
    };
    block_on(log.prune(&archive(&disk), statement, &mut state)).unwrap();
    let checks = |log: &Log| {
        let report = log.check();
        assert_eq!((report.problems, report.pruned), (Vec::<String>::new(), range.count));
        assert!(matches!(log.exchange(exchange(1)), Err(LogError::Pruned { first: 0, .. })));
        assert!(plan.records.iter().all(|number| log.places(exchange(*number)).unwrap().is_empty()));
        log.inclusion(2, log.size()).unwrap();
    };
    checks(&log);
    drop(log);
    let disk = disk.restart();
    let log = open(&disk).unwrap();
    checks(&log);
    assert!(!found(&disk, exchange(2).as_bytes()));
    block_on(log.erase(exchange(1), "operator", "request")).unwrap();
    // A run over what is pruned finds nothing that it could read, and does no harm.
    assert_eq!(run(&log, &plan).unwrap(), (0, 0));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn an_archive_without_the_act_is_a_mismatch() {
    let disk = disk_with_archive();
    let (log, _) = archived(&disk);
    quiet(&disk);
    let shared = log.shared();
    let plan = Plan { records: [2].into(), ..Plan::default() };
    let survey = log.survey(0, NOW, &mut plan.clone()).unwrap();
    let rewritten = crate::schedule::rewrite(shared, &survey, &|_| 0).unwrap();
    let installed = crate::compaction::install(shared, rewritten).unwrap();
    crate::schedule::destroy(shared, 0, &installed).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    let problems = check(&disk).problems;
    assert!(
        problems.len() == 1 && problems[0].starts_with("MISMATCH: record 3 and 0 after it"),
        "{problems:?}"
    );
    assert!(matches!(log.exchange(exchange(1)).unwrap()[0].content, ContentState::Included(_)));
}
