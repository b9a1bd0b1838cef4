//! What must go from a log that takes no records any more goes, and what says so stands elsewhere: whatever fails, and whenever
//! the power goes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use trave_proto::schema::log::earlier_act::Act;
use trave_proto::schema::log::{EarlierAct, Erasure, PersonsChange};

use super::expiry::{Plan, found};
use super::persons::{about, person};
use super::support::*;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{Concerned, ContentState, EarlierLog, Log, LogError, Options};

/// A log of several segments with a person in each tenth message, stopped for good.
fn stopped() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    let (log, _) = Log::open_with(Arc::new(disk.clone()), options, 8).unwrap();
    for number in 0..24 {
        let persons = if number % 10 == 0 { vec![1] } else { vec![100 + number] };
        block_on(log.append(about(number, &persons), ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    quiet(&disk);
    drop(log);
    disk.restart()
}

fn open(disk: &SimulatedDisk, acts: &[EarlierAct]) -> Result<EarlierLog, LogError> {
    let key = signer(ORIGIN).verifier();
    EarlierLog::open_on(Arc::new(disk.clone()), Path::new("/log"), (&key, Arc::new(Still)), acts)
}

/// Says it, as the log that goes on would, and does it.
fn act(earlier: &EarlierLog, acts: &mut Vec<EarlierAct>, act: Act) -> Result<u64, LogError> {
    let act = EarlierAct { origin: ORIGIN.into(), act: Some(act) };
    acts.push(act.clone());
    earlier.carry_out(&act)
}

fn erase(earlier: &EarlierLog, acts: &mut Vec<EarlierAct>, number: u32) -> Result<u64, LogError> {
    let exchange_id = Bytes::copy_from_slice(exchange(number).as_bytes());
    act(earlier, acts, Act::Erasure(Erasure { exchange_id, ..Erasure::default() }))
}

fn forget(earlier: &EarlierLog, acts: &mut Vec<EarlierAct>) -> Result<u64, LogError> {
    let erased: Vec<_> = earlier.log().of_person(&person(1), 0, 100)?.iter().map(Concerned::place).collect();
    if erased.is_empty() {
        return Ok(0);
    }
    act(earlier, acts, Act::Persons(PersonsChange { erased, ..PersonsChange::default() }))
}

fn expire(earlier: &EarlierLog, acts: &mut Vec<EarlierAct>, plan: &Plan) -> Result<(u64, u64), LogError> {
    let mut gone = (0, 0);
    for segment in earlier.log().segments().into_iter().filter(|segment| segment.count > 0) {
        let survey = earlier.log().survey(segment.first, NOW, &mut plan.clone())?;
        for records in [false, true] {
            if let Some(expiry) = earlier.act(&survey, records)? {
                act(earlier, acts, Act::Expiry(expiry))?;
            }
        }
        let (contents, records) = earlier.expire(&survey, &|_| 0)?;
        gone = (gone.0 + contents, gone.1 + records);
    }
    Ok(gone)
}

/// The last segment, too, which nobody had closed.
fn plan() -> Plan {
    Plan { contents: [4, 5].into(), records: [0, 1, 3, 22, 23].into() }
}

fn work(disk: &SimulatedDisk, acts: &mut Vec<EarlierAct>) -> Result<(), LogError> {
    let earlier = open(disk, acts)?;
    erase(&earlier, acts, 2)?;
    forget(&earlier, acts)?;
    expire(&earlier, acts, &plan()).map(|_| ())
}

/// That all of it is gone, and the rest is there.
fn checks(disk: &SimulatedDisk, earlier: &EarlierLog, why: &str) {
    let report = earlier.log().check();
    assert_eq!(report.problems, Vec::<String>::new(), "{why}");
    assert_eq!(report.expired, 5, "{why}");
    for number in plan().records {
        assert!(earlier.log().places(exchange(number)).unwrap().is_empty(), "{why}");
        assert!(!found(disk, exchange(number).as_bytes()), "{why}: {number} is still on the disk");
    }
    let content = |number| earlier.log().exchange(exchange(number)).unwrap().remove(0).content;
    assert_eq!((content(2), content(4)), (ContentState::Erased, ContentState::Expired), "{why}");
    assert_eq!(content(7), ContentState::Included(parts(7)), "{why}");
    assert!(earlier.log().of_person(&person(1), 0, 100).unwrap().is_empty(), "{why}");
    assert_eq!(earlier.log().of_person(&person(107), 0, 100).unwrap().len(), 1, "{why}");
    assert!(earlier.log().inclusion(3, earlier.log().size()).is_ok(), "{why}");
}

#[test]
fn what_must_go_goes_and_nothing_is_added() {
    let disk = stopped();
    let mut acts = Vec::new();
    let size = open(&disk, &acts).unwrap().log().size();
    let disk = disk.restart();
    work(&disk, &mut acts).unwrap();
    for _ in 0..2 {
        let disk = disk.restart();
        let earlier = open(&disk, &acts).unwrap();
        checks(&disk, &earlier, "reopened");
        assert_eq!(earlier.log().size(), size);
        assert!(matches!(earlier.log().append(message(50), ()), Err(LogError::Closed)));
        let said = acts.len();
        assert_eq!(expire(&earlier, &mut acts, &plan()).unwrap(), (0, 0), "once");
        assert_eq!(acts.len(), said);
    }
    // Without the acts it is a mismatch: nothing is missing that nobody says.
    let problems = open(&disk.restart(), &[]).unwrap().log().check().problems;
    assert!(problems.iter().any(|problem| problem.starts_with("MISMATCH")), "{problems:?}");
    let other = EarlierAct { origin: "trave.example/NORD/SH/luebeck/s1/2".into(), ..acts[0].clone() };
    let earlier = open(&disk.restart(), &[other]).unwrap();
    assert!(!earlier.is_erased(exchange(2)), "what is said of another log is not of this one");
}

#[test]
fn every_operation_may_fail() {
    let start = stopped();
    let whole = start.copied();
    let before = whole.operations();
    work(&whole, &mut Vec::new()).unwrap();
    let operations = whole.operations() - before;
    assert!(operations > 40, "{operations}");
    for fault in [Fault::Failed, Fault::FailedButStored, Fault::PowerCut] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after} of {operations}");
            let (disk, mut acts) = (start.copied(), Vec::new());
            disk.fail_after(after, fault);
            let _ = work(&disk, &mut acts);
            let disk = disk.cut_power(&mut Dice(after * 5));
            let earlier = open(&disk, &acts).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            assert_eq!(earlier.log().check().problems, Vec::<String>::new(), "{why}");
            let again = (|| {
                erase(&earlier, &mut acts, 2)?;
                forget(&earlier, &mut acts)?;
                expire(&earlier, &mut acts, &plan())
            })();
            again.unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            checks(&disk, &earlier, &why);
        }
    }
}
