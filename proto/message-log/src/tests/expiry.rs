//! What a schedule overwrites is gone from the disk, and the log says so; what it keeps, and every proof of it, stays. A
//! crash at any step leaves a log that opens, and whose schedule goes on where it was.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use trave_proto::clock::Time;
use trave_proto::schema::log::Leaf;

use super::support::*;
use crate::compaction::Installed;
use crate::disk::Disk as _;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ContentState, Due, Log, LogError, Options, Schedule, kind};

/// Messages whose contents, and whose records, are due; all by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) contents: BTreeSet<u32>,
    pub(super) records: BTreeSet<u32>,
}

impl Schedule for Plan {
    fn due(&mut self, _: u64, leaf: &Leaf) -> Result<Due, LogError> {
        let number = u32::try_from(leaf.logged_ms - NOW.as_millis()).unwrap();
        let message = crate::segment::describe(leaf).0 == kind::MESSAGE;
        let due = |set: &BTreeSet<u32>| (message && set.contains(&number)).then_some(NOW);
        Ok(Due { record: due(&self.records), content: due(&self.contents) })
    }
}

fn open(disk: &SimulatedDisk) -> Result<Log, LogError> {
    let options = Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    Ok(Log::open_with(Arc::new(disk.clone()), options, 8)?.0)
}

/// Runs the schedule over all segments.
pub(super) fn run(log: &Log, plan: &Plan) -> Result<(u64, u64), LogError> {
    let (mut contents, mut records) = (0, 0);
    for segment in log.segments() {
        let survey = log.survey(segment.first, NOW, &mut plan.clone())?;
        assert_eq!(survey.unreadable(), 0);
        contents += block_on(log.expire_contents(&survey))?;
        if segment.open && survey.records() > 0 {
            block_on(log.close_segment())?;
        }
        records += block_on(log.expire_records(&survey, |_| 0))?;
    }
    Ok((contents, records))
}

pub(super) fn found(disk: &SimulatedDisk, needle: &[u8]) -> bool {
    found_in(&disk.all_bytes(), needle)
}

fn found_in(files: &[Vec<u8>], needle: &[u8]) -> bool {
    // Files end in many zeros, which hold nothing.
    let used = |file: &[u8]| file.chunks(512).rposition(|sector| *sector != [0; 512][..sector.len()]);
    files.iter().any(|file| {
        let end = used(file).map_or(0, |last| file.len().min((last + 1) * 512));
        file[..end].windows(needle.len()).any(|bytes| bytes == needle)
    })
}

#[test]
fn contents_go_and_their_records_stay() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..24);
    let secrets: Vec<_> = (0..24).map(|number| ciphertext_and_key(&log, number)).collect();
    let plan = Plan { contents: (0..24).filter(|number| number % 3 != 0).collect(), ..Plan::default() };
    let size = log.size();
    assert_eq!(run(&log, &plan).unwrap(), (16, 0));
    let acts = log.size() - size;
    assert!(acts > 0 && acts <= log.segments().len() as u64, "one summary for each segment: {acts}");
    let check = |log: &Log| {
        for number in 0..24 {
            let record = log.exchange(exchange(number)).unwrap().remove(0);
            let (ciphertext, key) = &secrets[number as usize];
            match plan.contents.contains(&number) {
                true => {
                    assert_eq!(record.content, ContentState::Expired, "{number}");
                    assert!(!found(&disk, ciphertext) && !found(&disk, key), "{number}");
                }
                false => assert_eq!(record.content, ContentState::Included(parts(number))),
            }
        }
        let report = log.check();
        assert_eq!((report.problems, report.contents, report.erased), (vec![], 8, 16));
    };
    check(&log);
    // Done again, it does nothing and says nothing.
    let size = log.size();
    assert_eq!(run(&log, &plan).unwrap(), (0, 0));
    assert_eq!(log.size(), size);
    drop(log);
    check(&open(&disk.restart()).unwrap());
}

#[test]
fn records_go_and_every_proof_of_what_stays_holds() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..24);
    let checkpoint = block_on(log.checkpoint()).unwrap().checkpoint;
    let roots: Vec<_> = (0..=checkpoint.size).map(|size| log.root(size).unwrap()).collect();
    // One of the first stays, as under a hold; all else of its segment goes.
    let plan = Plan { records: (0..20).filter(|number| *number != 1).collect(), ..Plan::default() };
    let kept = log.exchange(exchange(1)).unwrap().remove(0);
    let secrets: Vec<_> = plan.records.iter().map(|number| ciphertext_and_key(&log, *number)).collect();
    quiet(&disk);
    let before = bytes_of_segments(&disk);
    assert_eq!(run(&log, &plan).unwrap(), (0, 19));
    assert!(bytes_of_segments(&disk) < before, "the disk has its space back");
    let check = |log: &Log, disk: &SimulatedDisk| {
        for (number, (ciphertext, key)) in plan.records.iter().zip(&secrets) {
            assert!(log.places(exchange(*number)).unwrap().is_empty());
            for gone in [&exchange(*number).as_bytes()[..], ciphertext, key] {
                assert!(!found(disk, gone), "{number}");
            }
        }
        let still = log.exchange(exchange(1)).unwrap().remove(0);
        assert_eq!(
            (&still.leaf_bytes, &still.content),
            (&kept.leaf_bytes, &ContentState::Included(parts(1)))
        );
        assert_eq!(still.artefacts().len(), 2);
        for digest in still.artefacts() {
            assert!(log.artefact(&digest).unwrap().is_some(), "what a record needs stays with it");
        }
        assert!(!found(disk, b"OCSP answer 1"), "what no record of the segment needs goes");
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(log.root(size as u64).unwrap(), *root);
        }
        log.inclusion(kept.index, checkpoint.size).unwrap();
        let gone = log.record(1).unwrap_err();
        assert!(matches!(gone, LogError::Expired { index: 1 }), "{gone}");
        let report = log.check();
        assert_eq!((report.problems, report.expired, report.contents), (vec![], 19, 5));
    };
    check(&log, &disk);
    assert_eq!(run(&log, &plan).unwrap(), (0, 0));
    drop(log);
    // The indexes and the tree are made again from what is left.
    let disk = disk.restart();
    for name in disk.list(Path::new("/log/segments")).unwrap() {
        if name.ends_with(".index") {
            disk.remove(&Path::new("/log/segments").join(name)).unwrap();
        }
    }
    disk.remove(Path::new("/log/tree/level-0")).unwrap();
    let log = open(&disk).unwrap();
    check(&log, &disk);
    // What was kept can be erased, and goes itself when its time comes.
    block_on(log.erase(exchange(1), "operator", "request")).unwrap();
    assert_eq!(log.exchange(exchange(1)).unwrap()[0].content, ContentState::Erased);
    let all = Plan { records: (0..24).collect(), ..Plan::default() };
    assert_eq!(run(&log, &all).unwrap(), (0, 5));
    assert_eq!(log.check().problems, Vec::<String>::new());
    append_each(&log, 30..40);
    drop(log);
    assert_eq!(open(&disk.restart()).unwrap().check().problems, Vec::<String>::new());
}

fn bytes_of_segments(disk: &SimulatedDisk) -> u64 {
    let dir = Path::new("/log/segments");
    let names = disk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(".log"));
    names.map(|name| disk.open(&dir.join(name)).unwrap().len().unwrap()).sum()
}

#[test]
fn what_is_missing_without_an_act_is_a_mismatch() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..24);
    quiet(&disk);
    // Somebody with the whole disk overwrites a record as the schedule would, and says nothing.
    let shared = log.shared();
    let plan = Plan { records: [2].into(), ..Plan::default() };
    let survey = log.survey(0, NOW, &mut plan.clone()).unwrap();
    let rewritten = crate::schedule::rewrite(shared, &survey, &|_| 0).unwrap();
    let installed = crate::compaction::install(shared, rewritten).unwrap();
    crate::schedule::destroy(shared, 0, &installed).unwrap();
    let report = log.check();
    let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
    assert!(problem.starts_with("MISMATCH: record 3 is missing"), "{problem}");
    assert_eq!(report.expired, 0);
    // A key that is gone without an act is no less of one.
    let stored = log.exchange(exchange(5)).unwrap()[0].attachment.content.unwrap();
    shared.keys.erase([stored.key_slot]).unwrap();
    assert!(matches!(log.exchange(exchange(5)).unwrap()[0].content, ContentState::Mismatch(_)));
    assert_eq!(log.check().problems.len(), 2);
}

#[test]
fn what_is_erased_while_a_segment_is_written_anew_is_not_in_it() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..24);
    quiet(&disk);
    let shared = log.shared();
    let plan = Plan { records: [2].into(), ..Plan::default() };
    let survey = log.survey(0, NOW, &mut plan.clone()).unwrap();
    let (ciphertext, key) = ciphertext_and_key(&log, 1);
    let early = crate::schedule::rewrite(shared, &survey, &|_| 0).unwrap();
    block_on(log.erase(exchange(1), "operator", "request")).unwrap();
    let installed = crate::compaction::install(shared, early).unwrap();
    assert!(matches!(installed, Installed::Stale(_)));
    crate::schedule::destroy(shared, 0, &installed).unwrap();
    assert_eq!(run(&log, &plan).unwrap(), (0, 1));
    assert!(!found(&disk, &ciphertext) && !found(&disk, &key));
    assert_eq!(log.exchange(exchange(1)).unwrap()[0].content, ContentState::Erased);
    assert_eq!(log.check().problems, Vec::<String>::new());
}

/// Messages, a checkpoint, and a run of the schedule, in which an operation may fail. Returns how many operations the run
/// had; none if it was not carried out.
fn work(disk: &SimulatedDisk, plan: &Plan, fault: Option<(u64, Fault)>) -> Option<u64> {
    let log = open(disk).unwrap();
    append_each(&log, 0..14);
    block_on(log.checkpoint()).unwrap();
    prepared(&log);
    while log.segments().iter().any(|segment| !segment.open && !log.shared().is_indexed(segment.first)) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let before = disk.operations();
    if let Some((after, fault)) = fault {
        disk.fail_after(after, fault);
    }
    let done = run(&log, plan);
    done.ok().map(|_| disk.operations() - before)
}

/// What must hold after a crash: the log opens and is whole, what is kept is kept, and the schedule can be carried out.
fn recovers(disk: &SimulatedDisk, plan: &Plan, why: &str) {
    let log = open(disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
    assert_eq!(log.check().problems, Vec::<String>::new(), "{why}");
    let whole = log.places(exchange(13)).unwrap().len() == 1;
    run(&log, plan).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
    let report = log.check();
    assert_eq!(report.problems, Vec::<String>::new(), "{why}");
    if !whole {
        return;
    }
    let bytes = disk.all_bytes();
    for number in 0..14 {
        let places = log.places(exchange(number)).unwrap();
        if plan.records.contains(&number) {
            assert!(places.is_empty(), "{why}: {number}");
            let gone = !found_in(&bytes, exchange(number).as_bytes());
            assert!(gone, "{why}: {number} is still on the disk");
            continue;
        }
        let record = log.record(places[0]).unwrap();
        match plan.contents.contains(&number) {
            true => assert_eq!(record.content, ContentState::Expired, "{why}: {number}"),
            false => assert_eq!(record.content, ContentState::Included(parts(number)), "{why}: {number}"),
        }
    }
    assert_eq!(report.expired, plan.records.len() as u64, "{why}");
}

fn plan() -> Plan {
    Plan { contents: [1, 9].into(), records: [0, 2, 3, 4, 5, 6, 7].into() }
}

#[test]
fn every_operation_of_a_run_may_fail() {
    let plan = plan();
    let operations = work(&SimulatedDisk::new(), &plan, None).unwrap();
    assert!(operations > 40, "{operations}");
    let mut failed = 0;
    for fault in [Fault::Failed, Fault::FailedButStored] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after} of {operations}");
            let disk = SimulatedDisk::new();
            failed += u64::from(work(&disk, &plan, Some((after, fault))).is_none());
            let disk = disk.restart();
            // What it says of the cut-off run survives a power cut too.
            let disk = if after % 2 == 0 { disk.cut_power(&mut Dice(after)) } else { disk };
            recovers(&disk, &plan, &why);
        }
    }
    assert!(failed > operations, "{failed} of {operations} failures were met");
}

#[test]
fn power_cuts_at_any_step_of_a_run_are_recovered_from() {
    let plan = plan();
    let operations = work(&SimulatedDisk::new(), &plan, None).unwrap();
    for after in 1..=operations {
        let mut disk = SimulatedDisk::new();
        work(&disk, &plan, Some((after, Fault::PowerCut)));
        disk = disk.cut_power(&mut Dice(after * 7));
        recovers(&disk, &plan, &format!("no power after {after} of {operations}"));
    }
}

#[test]
fn the_times_of_what_expired_are_as_coarse_as_the_schedule_makes_them() {
    let disk = SimulatedDisk::new();
    let log = open(&disk).unwrap();
    append_each(&log, 0..60);
    let plan = Plan { records: (0..60).collect(), ..Plan::default() };
    let month = 1_793_491_200_000_i64;
    let segments: Vec<_> = log.segments().into_iter().filter(|it| !it.open && it.first > 0).collect();
    for segment in &segments {
        let survey = log.survey(segment.first, NOW, &mut plan.clone()).unwrap();
        block_on(log.expire_records(&survey, move |_| month)).unwrap();
    }
    assert!(segments.len() > 2);
    for segment in log.segments().into_iter().filter(|it| segments.iter().any(|one| one.first == it.first)) {
        assert_eq!(segment.times, Some((Time::from_millis(month), Time::from_millis(month))));
    }
    assert!(log.tail_ids(NOW).unwrap().len() < 60);
}
