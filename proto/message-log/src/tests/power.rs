//! Power cuts at any operation: nothing acknowledged is missing, no checkpoint is contradicted, no key serves two
//! exchanges, and the log opens again by itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::keys::Thief;
use super::support::*;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{ContentState, Log, Options, SignedCheckpoint};

/// What was promised before the power went.
#[derive(Default)]
struct Promised {
    /// Leaf index → message number.
    messages: BTreeMap<u64, u32>,
    erased: Vec<u32>,
    /// Erasures that were begun, and may or may not have happened.
    perhaps_erased: Vec<u32>,
    checkpoint: Option<SignedCheckpoint>,
    next: u32,
}

fn open(disk: &SimulatedDisk) -> Result<Log, crate::LogError> {
    let options = Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    Ok(Log::open_with(Arc::new(disk.clone()), options, 8)?.0)
}

/// A message; the content of every fifth spans many sectors, so that it can be overwritten in part.
fn sized(number: u32) -> crate::Entry {
    let mut sized = message(number);
    if number.is_multiple_of(5) {
        sized.content.as_mut().unwrap().body = vec![number as u8; 5_000].into();
    }
    sized
}

/// Works until the disk refuses.
fn work(log: &Log, dice: &mut Dice, promised: &mut Promised) -> Result<(), crate::LogError> {
    loop {
        match dice.below(10) {
            0 => promised.checkpoint = Some(block_on(log.checkpoint())?),
            1 if promised.next > 0 => {
                let number = u32::try_from(dice.below(u64::from(promised.next))).unwrap();
                promised.perhaps_erased.push(number);
                block_on(log.erase(exchange(number), "operator", "request"))?;
                promised.erased.push(number);
            }
            _ => {
                let count = u32::try_from(1 + dice.below(6)).unwrap();
                let numbers = promised.next..promised.next + count;
                promised.next = numbers.end;
                // Every third exchange has two messages, under one key.
                let numbers = numbers.flat_map(|number| [number].repeat(1 + usize::from(number % 3 == 0)));
                let pending: Vec<_> =
                    numbers.map(|number| log.append(sized(number), number)).collect::<Result<_, _>>()?;
                let answers: Vec<_> = pending.into_iter().map(block_on).collect();
                for answer in answers {
                    let logged = answer?;
                    promised.messages.insert(logged.index(), *logged.get());
                }
            }
        }
    }
}

fn verify(log: &Log, promised: &Promised, why: &str) {
    for (index, number) in &promised.messages {
        let record = log.record(*index).unwrap();
        assert_eq!(record.leaf, message(*number).leaf, "{why}: record {index}");
        match record.content {
            ContentState::Included(found) => {
                assert_eq!(Some(found), sized(*number).content, "{why}");
                assert!(!promised.erased.contains(number), "{why}: {number} was erased");
            }
            ContentState::Erased => assert!(promised.perhaps_erased.contains(number), "{why}"),
            other => panic!("{why}: record {index} is {other:?}"),
        }
    }
    if let Some(signed) = &promised.checkpoint {
        assert_eq!(log.root(signed.checkpoint.size).unwrap(), signed.checkpoint.root, "{why}");
        assert!(log.latest_checkpoint().unwrap().checkpoint.size >= signed.checkpoint.size, "{why}");
    }
    let report = log.check();
    assert_eq!(report.problems, Vec::<String>::new(), "{why}");
}

#[test]
fn power_cuts_lose_nothing_that_was_promised() {
    let seeds = std::env::var("TRAVE_POWER_CUTS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let (mut cuts_at_opening, mut counts) = (0, (0, 0));
    for seed in 0..seeds {
        let (mut dice, mut thief, dir) = (Dice(seed), Thief::default(), Path::new("/log"));
        let (mut disk, mut promised) = (SimulatedDisk::new(), Promised::default());
        for round in 0..4 {
            let why = format!("seed {seed}, round {round}");
            disk.fail_after(1 + dice.below(if round == 0 { 60 } else { 150 }), Fault::PowerCut);
            match open(&disk) {
                Ok(log) => {
                    let stopped = work(&log, &mut dice, &mut promised).unwrap_err();
                    assert!(matches!(stopped, crate::LogError::Poisoned(_)), "{why}: {stopped}");
                    assert!(log.append(refusal(0), ()).is_err(), "{why}: a stopped log takes nothing");
                }
                Err(_) => cuts_at_opening += 1,
            }
            thief.look(&disk, dir, &why);
            disk = disk.cut_power(&mut dice);
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            thief.look_at_opened(&disk, dir, &why);
            verify(&log, &promised, &why);
            // The system goes on after the check, and the power goes again.
            drop(log);
            disk = disk.cut_power(&mut dice);
        }
        counts = (counts.0 + thief.counts().0, counts.1 + thief.counts().1);
    }
    println!("{seeds} seeds: {} keys used of {} that stood on the disk, none twice", counts.0, counts.1);
    assert!(counts.0 as u64 > seeds * 20, "{counts:?}: too little was encrypted");
    assert!(cuts_at_opening > 0, "some cuts must fall into opening");
}

#[test]
fn a_power_cut_right_after_the_first_record_leaves_its_directory_and_key() {
    for seed in 0..40 {
        let disk = SimulatedDisk::new();
        let log = open(&disk).unwrap();
        append_each(&log, 0..1);
        disk.fail_after(1, Fault::PowerCut);
        drop(log);
        let log = open(&disk.cut_power(&mut Dice(seed))).unwrap();
        assert_eq!(log.record(1).unwrap().content, ContentState::Included(parts(0)), "seed {seed}");
    }
}
