//! What the law says of a record holds after it was pruned, too: its content goes when it is due, its person is found and
//! erased, and it goes itself, from the archive as from here.

use std::collections::BTreeSet;
use std::path::Path;

use trave_proto::schema::log::Leaf;

use super::archive::{archive, archive_all, check, disk_with_archive, identity, open, store};
use super::expiry::{found, run};
use super::persons::{about, person};
use super::pruning::{grant, prune};
use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ArchiveStore as _, ContentState, Due, Log, LogError, PrunedRecord, Schedule, kind};

/// Messages and refusals that are due, here or pruned: all before this place; and the contents of these.
#[derive(Debug, Clone, Default)]
pub(super) struct Until {
    pub(super) place: u64,
    pub(super) contents: BTreeSet<u64>,
    /// Grants are due.
    pub(super) grants: bool,
}

impl Schedule for Until {
    fn due(&mut self, index: u64, leaf: &Leaf) -> Result<Due, LogError> {
        let of = crate::segment::describe(leaf).0;
        Ok(self.of(index, of))
    }

    fn due_pruned(&mut self, record: &PrunedRecord) -> Result<Due, LogError> {
        Ok(self.of(record.index, record.kind))
    }
}

impl Until {
    fn of(&self, index: u64, of: u8) -> Due {
        let due = |it: bool| (it && matches!(of, kind::MESSAGE | kind::REFUSAL)).then_some(NOW);
        match of {
            kind::GRANT => Due { record: self.grants.then_some(NOW), content: None },
            _ => Due { record: due(index < self.place), content: due(self.contents.contains(&index)) },
        }
    }
}

/// A log with a grant and a person in every tenth message, archived and pruned; the range that was.
fn pruned() -> (SimulatedDisk, Log, (u64, u64)) {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    block_on(log.append(grant(), ()).unwrap()).unwrap();
    for number in 0..48 {
        let persons = if number % 10 == 0 { vec![1] } else { vec![100 + number] };
        block_on(log.append(about(number, &persons), ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    let range = prune(&log, &disk).unwrap().unwrap();
    assert!(range.0 == 0 && range.1 > 30, "{range:?}");
    (disk, log, range)
}

pub(super) fn step(log: &Log, plan: &Until) -> Result<(u64, u64, u64), LogError> {
    let (mut contents, mut records, mut stuck) = (0, 0, 0);
    for segment in log.segments().into_iter().filter(|segment| !segment.open) {
        let survey = log.survey(segment.first, NOW, &mut plan.clone())?;
        stuck += survey.stuck();
        contents += block_on(log.expire_contents(&survey))?;
        records += block_on(log.expire_records(&survey, |_| 0))?;
    }
    Ok((contents, records, stuck))
}

/// Whether a text stands in any object of the archive.
fn in_archive(disk: &SimulatedDisk, text: &[u8]) -> bool {
    store(disk).list().unwrap().iter().any(|name| {
        let object = crate::archive::object::read(&store(disk), name, identity()).unwrap();
        let bytes = object.verify(&signer(ORIGIN).verifier()).unwrap().bytes;
        bytes.windows(text.len()).any(|window| window == text)
    })
}

#[test]
fn a_person_in_what_was_pruned_is_found_and_erased() {
    let (disk, log, (_, count)) = pruned();
    let concerned = log.of_person(&person(1), 0, 100).unwrap();
    let places: Vec<_> = concerned.iter().map(|one| one.index).collect();
    assert_eq!(concerned.len(), 5);
    assert!(places.iter().filter(|place| **place < count).count() >= 3, "{places:?} {count}");
    // Found again by their places, as an erasure that waited for approval has them.
    let waited: Vec<_> = concerned.iter().map(crate::Concerned::place).collect();
    assert_eq!(log.concerned_at(&waited, log.size()).unwrap().as_ref(), Some(&concerned));
    drop(log);
    let disk = disk.restart();
    let log = open(&disk).unwrap();
    assert_eq!(log.of_person(&person(1), 0, 100).unwrap(), concerned, "after a start, too");
    let other = log.of_person(&person(101), 0, 100).unwrap();
    let erased = block_on(log.erase_person(&concerned, "officer", "request")).unwrap();
    assert_eq!((erased.exchanges, erased.contents, erased.pseudonyms), (5, 5, 5));
    drop(log);
    let log = open(&disk.restart()).unwrap();
    assert!(log.of_person(&person(1), 0, 100).unwrap().is_empty());
    assert_eq!(log.of_person(&person(101), 0, 100).unwrap(), other, "the others stay");
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn contents_of_what_was_pruned_go_when_they_are_due() {
    let (disk, log, (_, count)) = pruned();
    let contents = (0..count).filter(|place| place % 2 == 0).collect();
    let plan = Until { contents, ..Until::default() };
    let (contents, records, stuck) = step(&log, &plan).unwrap();
    assert!(contents > 10 && (records, stuck) == (0, 0), "{contents} {records} {stuck}");
    assert_eq!(step(&log, &plan).unwrap(), (0, 0, 0), "once");
    assert_eq!(log.check().problems, Vec::<String>::new());
    drop(log);
    // Whoever has archive and key files opens those that were not due, and no other.
    let keys: Vec<_> = disk.list(Path::new("/log/keys")).unwrap();
    let verifier = signer(ORIGIN).verifier();
    let (store, shared) =
        (store(&disk), std::sync::Arc::new(disk.clone()) as std::sync::Arc<dyn crate::disk::Disk>);
    let source = crate::Source { store: &store, identity: identity(), key: &verifier, checkpoint: None };
    source.restore_on(&shared, Path::new("/new"), &mut |_, _| {}).unwrap();
    disk.create_dir(Path::new("/new/keys")).unwrap();
    for name in keys {
        disk.rename(&Path::new("/log/keys").join(&name), &Path::new("/new/keys").join(&name)).unwrap();
    }
    let restored =
        Log::open_restored_on(shared, Path::new("/new"), &verifier, std::sync::Arc::new(Still)).unwrap();
    let mut opened = 0;
    for number in 0..30 {
        let record = restored.exchange(exchange(number)).unwrap().remove(0);
        let due = record.index.is_multiple_of(2);
        assert_eq!(
            matches!(record.content, ContentState::Included(_)),
            !due,
            "{number}: {:?}",
            record.content
        );
        opened += u32::from(!due);
    }
    assert!(opened > 10, "{opened}");
}

#[test]
fn a_pruned_segment_expires_as_a_whole_and_leaves_the_archive_too() {
    let (disk, log, (_, count)) = pruned();
    let second = log.segments()[1];
    let gone = log.of_person(&person(1), 0, 1).unwrap()[0].exchange;
    assert!(in_archive(&disk, gone.as_bytes()));
    // All but the last record of the second segment: of that, nothing goes, and it is said.
    let plan = Until { place: second.first + second.count - 1, ..Until::default() };
    let (contents, records, stuck) = step(&log, &plan).unwrap();
    assert_eq!((contents, stuck), (0, second.count - 1));
    // The first leaf of the log says that it was opened, the second is the grant: they stay.
    assert_eq!(records, second.first - 2);
    let checks = |log: &Log, disk: &SimulatedDisk| {
        let report = log.check();
        assert_eq!((report.problems, report.expired), (Vec::<String>::new(), second.first - 2));
        assert_eq!(report.pruned, count - second.first, "the first segment is here again, without them");
        assert!(log.places(gone).unwrap().is_empty() && !found(disk, gone.as_bytes()));
        let grants: Vec<_> = log.scan_kind(kind::GRANT, 0).map(|it| it.unwrap().leaf).collect();
        assert_eq!(grants, [grant().leaf]);
        assert!(matches!(log.record(3), Err(LogError::Expired { .. })));
        log.inclusion(3, log.size()).unwrap();
    };
    quiet(&disk);
    checks(&log, &disk);
    drop(log);
    let disk = disk.restart();
    let log = open(&disk).unwrap();
    checks(&log, &disk);
    // The next copy takes the place of the one that holds what has expired.
    assert_eq!(log.due_for_archive(&log.archive_state().unwrap())[0], 0);
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    assert!(!in_archive(&disk, gone.as_bytes()));
    let whole = check(&disk);
    assert!(whole.is_whole(), "{whole:?}");
    assert_eq!(step(&log, &plan).unwrap().1, 0, "once");
    // When the last is due, the rest goes.
    let all = Until { place: second.first + second.count, ..Until::default() };
    assert_eq!(step(&log, &all).unwrap(), (0, second.count, 0));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn what_is_kept_of_a_pruned_segment_goes_when_it_is_due() {
    let (disk, log, _) = pruned();
    let first = log.segments()[0];
    // As long as messages of it stay in the archive, the grant stands in one object with them; and that is said.
    let early = Until { grants: true, ..Until::default() };
    assert_eq!(step(&log, &early).unwrap(), (0, 0, 1));
    // A segment of which nothing but the grant was left when it was pruned.
    let plan = Until { place: first.count, ..Until::default() };
    assert_eq!(step(&log, &plan).unwrap(), (0, first.count - 2, 0));
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    prune(&log, &disk).unwrap().unwrap();
    assert!(log.segments()[0].pruned);
    let plan = Until { grants: true, ..plan };
    assert_eq!(step(&log, &plan).unwrap(), (0, 1, 0));
    assert_eq!(step(&log, &plan).unwrap(), (0, 0, 0), "once");
    assert_eq!(log.scan_kind(kind::GRANT, 0).count(), 0);
    assert!(matches!(log.record(1), Err(LogError::Expired { .. })));
    assert_eq!(log.check().problems, Vec::<String>::new());
    archive_all(&log, &archive(&disk)).unwrap();
    assert!(check(&disk).is_whole());
    drop(log);
    assert_eq!(open(&disk.restart()).unwrap().check().problems, Vec::<String>::new());
}

#[test]
fn what_was_expired_before_it_was_pruned_is_no_other_record() {
    let disk = disk_with_archive();
    let (log, _) = super::archive::archived(&disk);
    let plan =
        super::expiry::Plan { records: (0..4).filter(|number| *number != 2).collect(), ..Default::default() };
    run(&log, &plan).unwrap();
    archive_all(&log, &archive(&disk)).unwrap();
    block_on(log.checkpoint()).unwrap();
    let key = key_of(&log, 2);
    prune(&log, &disk).unwrap().unwrap();
    let place = log.places(exchange(2)).unwrap()[0];
    assert!(matches!(log.record(place), Err(LogError::Pruned { .. })), "nothing of it is here");
    assert!(found(&disk, &key));
    assert_eq!(block_on(log.erase(exchange(2), "officer", "request")).unwrap(), 1);
    assert!(!found(&disk, &key), "its key is gone");
}

/// The key of a message, wherever its segment is now.
fn key_of(log: &Log, number: u32) -> Vec<u8> {
    let slot = log.exchange(exchange(number)).unwrap()[0].attachment.content.unwrap().key_slot;
    let keys = log.shared().disk.open(Path::new("/log/keys/keys-0000000000.bin")).unwrap();
    let mut key = vec![0; 32];
    keys.read_exact_at(&mut key, slot * 64 + 24).unwrap();
    assert_ne!(key, [0; 32]);
    key
}

#[test]
fn every_operation_of_expiring_what_was_pruned_may_fail() {
    let work = |disk: &SimulatedDisk, fault: Option<(u64, Fault)>| {
        let log = open(disk).unwrap();
        let second = log.segments()[1];
        let plan = Until { place: second.first, ..Until::default() };
        quiet(disk);
        let before = disk.operations();
        if let Some((after, fault)) = fault {
            disk.fail_after(after, fault);
        }
        step(&log, &plan).ok().map(|_| (disk.operations() - before, plan))
    };
    let (disk, log, _) = pruned();
    drop(log);
    let start = disk.restart();
    let (operations, plan) = work(&start.copied(), None).unwrap();
    assert!(operations > 25, "{operations}");
    for fault in [Fault::Failed, Fault::FailedButStored, Fault::PowerCut] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after} of {operations}");
            let disk = start.copied();
            work(&disk, Some((after, fault)));
            let disk = disk.cut_power(&mut Dice(after * 3));
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            assert_eq!(log.check().problems, Vec::<String>::new(), "{why}");
            step(&log, &plan).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            let report = log.check();
            assert_eq!((report.problems, report.expired), (vec![], plan.place - 2), "{why}");
            assert!(log.places(exchange(0)).unwrap().is_empty(), "{why}");
            quiet(&disk);
            assert!(!found(&disk, exchange(0).as_bytes()), "{why}");
        }
    }
}
