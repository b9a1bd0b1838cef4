//! Erased is erased, on every byte of the disk; and nothing else passes for erased.

use std::path::Path;
use std::sync::Arc;

use super::support::*;
use crate::disk::Disk as _;
use crate::disk::simulated::{Fault, SimulatedDisk};
use crate::{ContentState, Log, LogError};
use trave_proto::schema::log::leaf;

fn holds(bytes: &[Vec<u8>], what: &[u8]) -> bool {
    bytes.iter().any(|file| file.windows(what.len()).any(|window| window == what))
}

fn content(log: &Log, number: u32) -> ContentState {
    log.exchange(exchange(number)).unwrap().remove(0).content
}

#[test]
fn an_erased_content_is_gone_from_the_disk_and_the_rest_stays() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    append_each(&log, 0..40);
    assert!(
        !disk.all_bytes().iter().any(|file| holds(std::slice::from_ref(file), &body(7))),
        "never in the clear"
    );
    let located = crate::tests::support::ciphertext_and_key(&log, 7);
    assert!(holds(&disk.all_bytes(), &located.0) && holds(&disk.all_bytes(), &located.1));
    assert_eq!(block_on(log.erase(exchange(7), "operator", "request of the person")).unwrap(), 1);
    assert!(!holds(&disk.all_bytes(), &located.0), "ciphertext");
    assert!(!holds(&disk.all_bytes(), &located.1), "key");
    assert_eq!(content(&log, 7), ContentState::Erased);
    assert_eq!(content(&log, 8), ContentState::Included(parts(8)));
    let records = log.exchange(exchange(7)).unwrap();
    let Some(leaf::Entry::Erasure(erasure)) = &records[1].leaf.entry else { panic!("{records:?}") };
    assert_eq!((erasure.operator.as_str(), erasure.reason.as_str()), ("operator", "request of the person"));
    append_each(&log, 40..42);
    drop(log);
    let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    assert_eq!((recovered.erasures_redone, recovered.cut_bytes), (1, 0));
    let report = log.check();
    assert_eq!((report.contents, report.erased, report.problems), (41, 1, vec![]));
    // What comes later for the same exchange has a new key, and is not erased.
    block_on(log.append(message(7), ()).unwrap()).unwrap();
    assert_eq!(log.exchange(exchange(7)).unwrap()[2].content, ContentState::Included(parts(7)));
}

#[test]
fn an_interrupted_erasure_is_done_again() {
    for after in 3..8 {
        let disk = SimulatedDisk::new();
        let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        append_each(&log, 0..2);
        let (ciphertext, key) = ciphertext_and_key(&log, 1);
        prepared(&log);
        quiet(&disk);
        disk.fail_after(after, Fault::PowerCut);
        let interrupted = block_on(log.erase(exchange(1), "operator", "request")).is_err();
        assert_eq!(interrupted, after <= 6, "act (2), key (2), bytes (2)");
        drop(log);
        let disk = disk.cut_power(&mut crate::disk::simulated::Dice(after));
        let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        assert_eq!(recovered.erasures_redone, 1);
        assert_eq!(content(&log, 1), ContentState::Erased);
        assert!(!holds(&disk.all_bytes(), &ciphertext) && !holds(&disk.all_bytes(), &key), "after {after}");
    }
}

#[test]
fn a_missing_content_without_a_record_is_a_mismatch() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..3);
    let keys = dir.path().join("keys/keys-0000000000.bin");
    let bytes = std::fs::read(&keys).unwrap();
    // Overwritten as an erasure would, but by nobody who said so.
    let mut erased = bytes.clone();
    erased[64..128].fill(0);
    erased[64] = 2;
    std::fs::write(&keys, &erased).unwrap();
    let ContentState::Mismatch(why) = content(&log, 1) else { panic!() };
    assert!(why.contains("no record says that it was erased"), "{why}");
    // The key of another exchange.
    let mut swapped = bytes.clone();
    swapped.copy_within(0..64, 128);
    std::fs::write(&keys, &swapped).unwrap();
    assert!(matches!(content(&log, 2), ContentState::Mismatch(_)));
    std::fs::remove_file(&keys).unwrap();
    assert!(matches!(content(&log, 0), ContentState::Mismatch(_)));
    assert_eq!(log.check().problems.len(), 3);
    // After the keys were lost, no slot is given out again.
    drop(log);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 3..4);
    assert_eq!(content(&log, 3), ContentState::Included(parts(3)));
    assert!(matches!(content(&log, 0), ContentState::Mismatch(_)));
}

#[test]
fn a_record_without_content_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let entry = crate::Entry { content: None, ..message(1) };
    block_on(log.append(entry, ()).unwrap()).unwrap();
    assert_eq!(content(&log, 1), ContentState::NotKept);
    let entry = crate::Entry { content: Some(parts(2)), ..refusal(2) };
    assert!(matches!(log.append(entry, ()), Err(LogError::Refused(_))));
    assert!(!dir.path().join("keys/keys-0000000000.bin").exists());
}

/// The key of an exchange is not held beyond its last message; what comes after all has a key of its own, and both go.
#[test]
fn what_comes_after_the_last_is_erased_too() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let append = |last| block_on(log.append(crate::Entry { last, ..message(1) }, ()).unwrap()).unwrap();
    append(false);
    append(true);
    append(false);
    // So does one of which nothing is kept.
    let bare = crate::Entry { last: true, content: None, ..message(1) };
    block_on(log.append(bare, ()).unwrap()).unwrap();
    append(false);
    let records = || {
        log.exchange(exchange(1)).unwrap().into_iter().filter(|record| record.attachment.content.is_some())
    };
    let slots: Vec<_> = records().map(|record| record.attachment.content.unwrap().key_slot).collect();
    assert_eq!(slots, [0, 0, 1, 2]);
    assert!(records().all(|record| record.content == ContentState::Included(parts(1))));
    assert_eq!(block_on(log.erase(exchange(1), "operator", "request")).unwrap(), 4);
    assert!(records().all(|record| record.content == ContentState::Erased));
    let keys = std::fs::read(dir.path().join("keys/keys-0000000000.bin")).unwrap();
    assert!(
        keys[..192].chunks(64).all(|key| key[1..].iter().all(|byte| *byte == 0)),
        "all keys are overwritten"
    );
}

#[test]
fn a_damaged_record_does_not_keep_the_others_from_being_erased() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..40);
    block_on(log.append(message(0), ()).unwrap()).unwrap();
    let stored = log.exchange(exchange(0)).unwrap()[0].attachment.content.unwrap();
    let path = dir.path().join("segments").join(format!("segment-{:020}.log", stored.segment));
    let mut bytes = std::fs::read(&path).unwrap();
    // In the leaf, which follows its content.
    bytes[stored.offset as usize + stored.length as usize + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let told = block_on(log.erase(exchange(0), "operator", "request")).unwrap_err();
    assert!(matches!(told, LogError::Damaged { .. }), "{told}");
    assert_eq!(log.record(41).unwrap().content, ContentState::Erased);
    append_each(&log, 41..42);
    drop(log);
    for start in 0..3 {
        let (_, recovered) = Log::open(options(dir.path())).unwrap();
        assert_eq!((recovered.erasures_redone, recovered.warnings.len()), (1, 1), "start {start}");
    }
    // The record is restored from a copy: what was to be erased then is erased now, and the matter is at an end.
    bytes[stored.offset as usize + stored.length as usize + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for redone in [1, 0] {
        let (log, recovered) = Log::open(options(dir.path())).unwrap();
        assert_eq!((recovered.erasures_redone, recovered.warnings.len()), (redone, 0));
        assert_eq!(content(&log, 0), ContentState::Erased);
        let bytes = std::fs::read(&path).unwrap();
        let from = stored.offset as usize + 48;
        assert!(bytes[from..from + stored.length as usize - 36].iter().all(|byte| *byte == 0));
    }
    // Without knowing which erasures are at an end, all are done again.
    std::fs::write(dir.path().join("erasures"), b"no list").unwrap();
    let (_, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!((recovered.erasures_redone, recovered.warnings.len()), (1, 0));
}

#[test]
fn a_key_file_that_does_not_open_is_not_taken_for_one_without_the_key() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    append_each(&log, 0..2);
    let (ciphertext, key) = ciphertext_and_key(&log, 1);
    disk.fail_opens_of(Some("keys-"));
    let told = block_on(log.erase(exchange(1), "operator", "request")).unwrap_err();
    assert!(matches!(told, LogError::Disk { what: "open", .. }), "{told}");
    assert!(matches!(log.record(1), Err(LogError::Disk { what: "open", .. })), "not known is not missing");
    disk.fail_opens_of(None);
    drop(log);
    let (log, recovered) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    assert_eq!(recovered.erasures_redone, 1);
    assert_eq!(content(&log, 1), ContentState::Erased);
    assert!(!holds(&disk.all_bytes(), &ciphertext) && !holds(&disk.all_bytes(), &key));
}

#[test]
fn erasing_a_long_exchange_takes_few_open_files() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    for _ in 0..100 {
        block_on(log.append(message(1), ()).unwrap()).unwrap();
    }
    prepared(&log);
    quiet(&disk);
    disk.limit_open_files(4);
    assert_eq!(block_on(log.erase(exchange(1), "operator", "request")).unwrap(), 100);
    assert!(log.exchange(exchange(1)).unwrap()[..100].iter().all(|one| one.content == ContentState::Erased));
}

#[test]
fn reading_an_erased_exchange_costs_a_few_look_ups_for_each_record() {
    let disk = SimulatedDisk::new();
    let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
    let append = |count| {
        for _ in 0..count {
            block_on(log.append(message(1), ()).unwrap()).unwrap();
        }
    };
    append(200);
    assert_eq!(block_on(log.erase(exchange(1), "operator", "request")).unwrap(), 200);
    quiet(&disk);
    let before = disk.opened();
    for index in log.places(exchange(1)).unwrap().into_iter().take(200) {
        assert_eq!(log.record(index).unwrap().content, ContentState::Erased);
    }
    assert!(disk.opened() - before < 200 * 10, "{} files opened", disk.opened() - before);
    let before = disk.opened();
    assert_eq!(log.check().erased, 200);
    assert!(disk.opened() - before < 200 * 20, "{} files opened", disk.opened() - before);
    // What comes later is found, though it was looked for before.
    append(3);
    let ContentState::Included(_) = log.record(202).unwrap().content else { panic!() };
    assert_eq!(block_on(log.erase(exchange(1), "operator", "request")).unwrap(), 203);
    assert_eq!(log.record(202).unwrap().content, ContentState::Erased);
}

/// A message whose ciphertext spans many sectors, so that a power cut can leave some of them overwritten and others not.
fn large(number: u32) -> crate::Entry {
    let mut large = message(number);
    large.content.as_mut().unwrap().body = vec![number as u8; 10_000].into();
    large
}

#[test]
fn a_content_that_a_power_cut_left_half_overwritten_keeps_no_log_from_opening() {
    let mut half = 0;
    for seed in 0..60 {
        let disk = SimulatedDisk::new();
        let (log, _) = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap();
        for number in 0..3 {
            block_on(log.append(large(number), ()).unwrap()).unwrap();
        }
        // Message 0 is in a closed segment, message 2 in the last, with groups after it. Operations: act, key, bytes.
        let number = if seed % 2 == 0 { 0 } else { 2 };
        let stored = log.exchange(exchange(number)).unwrap()[0].attachment.content.unwrap();
        prepared(&log);
        quiet(&disk);
        disk.fail_after(6, Fault::PowerCut);
        assert!(block_on(log.erase(exchange(number), "operator", "request")).is_err());
        drop(log);
        let disk = disk.cut_power(&mut crate::disk::simulated::Dice(seed));
        if seed % 4 == 0 {
            // Without its index, the closed segment is read from end to end.
            let _ = disk.remove(Path::new("/log/segments/segment-00000000000000000000.index"));
        }
        let path = format!("/log/segments/segment-{:020}.log", stored.segment);
        let mut bytes = vec![0; 10_000];
        disk.open(Path::new(&path)).unwrap().read_exact_at(&mut bytes, stored.offset + 48).unwrap();
        let zeros = bytes.iter().filter(|byte| **byte == 0).count();
        half += u32::from((400..9_500).contains(&zeros));
        let opened = Log::open_on(Arc::new(disk.clone()), options(Path::new("/log")));
        let (log, recovered) = opened.unwrap_or_else(|error| panic!("seed {seed}: {}", error.in_full()));
        assert_eq!((recovered.erasures_redone, &recovered.warnings[..]), (1, &[][..]), "seed {seed}");
        assert_eq!(content(&log, number), ContentState::Erased);
        assert!(matches!(content(&log, 1), ContentState::Included(_)));
        assert_eq!(log.check().problems, Vec::<String>::new(), "seed {seed}");
    }
    assert!(half > 10, "{half} contents were half overwritten");
}
