//! Keys are prepared in advance, and yet: never two exchanges under one key, never a nonce twice, nothing left of a key
//! that no record names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::support::*;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::disk::{Disk, RealDisk};
use crate::keys::SLOTS_PER_FILE;
use crate::record::{CONTENT_PREFIX, HEADER, Header, Kind};
use crate::segment::DATA;
use crate::{ContentState, Log, LogError, Recovered};

const PREPARED: u8 = 3;

/// Someone who copies the disk again and again, and compares.
#[derive(Default)]
pub(super) struct Thief {
    /// Keys under which something was encrypted, and for which exchange.
    used: HashMap<[u8; 32], [u8; 16]>,
    /// What was encrypted under key and nonce.
    nonces: HashMap<([u8; 32], [u8; 12]), Vec<u8>>,
    /// All keys that ever stood on the disk.
    seen: HashSet<[u8; 32]>,
}

impl Thief {
    /// Looks at everything that stands on the disk: also what was written and never acknowledged.
    pub(super) fn look(&mut self, disk: &dyn Disk, dir: &Path, why: &str) {
        let keys = keys(disk, dir);
        for Content { slot, exchange, nonce, ciphertext } in contents(disk, dir) {
            let Some(key) = keys.get(&slot) else { continue };
            let first = *self.used.entry(*key).or_insert(exchange);
            assert_eq!(first, exchange, "{why}: the key in slot {slot} encrypts for two exchanges");
            let first = self.nonces.entry((*key, nonce)).or_insert_with(|| ciphertext.clone());
            assert!(*first == ciphertext, "{why}: slot {slot}, a nonce twice");
        }
        self.seen.extend(keys.into_values());
    }

    /// Looks at a log that was opened: the keys behind the last one that is named are other ones than ever before.
    pub(super) fn look_at_opened(&mut self, disk: &dyn Disk, dir: &Path, why: &str) {
        let named = contents(disk, dir).iter().map(|content| content.slot + 1).max().unwrap_or(0);
        for (slot, key) in keys(disk, dir).range(named..) {
            assert!(!self.seen.contains(key), "{why}: slot {slot} kept its key");
        }
        self.look(disk, dir, why);
    }

    /// Under how many keys something was encrypted, and how many there were.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.used.len(), self.seen.len())
    }
}

struct Content {
    slot: u64,
    exchange: [u8; 16],
    nonce: [u8; 12],
    ciphertext: Vec<u8>,
}

fn whole(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    disk.list(dir).unwrap_or_default()
}

/// The content records in all segments, as far as records follow one another.
fn contents(disk: &dyn Disk, dir: &Path) -> Vec<Content> {
    let (dir, mut found) = (dir.join("segments"), Vec::new());
    for name in names(disk, &dir).iter().filter(|name| name.ends_with(".log")) {
        let bytes = whole(disk, &dir.join(name));
        let mut rest = bytes.get(DATA as usize..).unwrap_or_default();
        while let Some((header, after)) = rest.split_first_chunk::<HEADER>()
            && let Some(header) = Header::read(header)
            && let Some((payload, after)) = after.split_at_checked(header.len)
        {
            if header.kind == Kind::Content && header.covers(payload) {
                let (prefix, ciphertext) = payload.split_at(CONTENT_PREFIX);
                found.push(Content {
                    slot: u64::from_le_bytes(prefix[..8].try_into().unwrap()),
                    exchange: prefix[8..24].try_into().unwrap(),
                    nonce: prefix[24..].try_into().unwrap(),
                    ciphertext: ciphertext.to_vec(),
                });
            }
            rest = after;
        }
    }
    found
}

/// The keys in the key files, by slot.
fn keys(disk: &dyn Disk, dir: &Path) -> BTreeMap<u64, [u8; 32]> {
    let (dir, mut found) = (dir.join("keys"), BTreeMap::new());
    for name in names(disk, &dir) {
        let number: u64 = name.trim_start_matches("keys-").trim_end_matches(".bin").parse().unwrap();
        for (at, slot) in whole(disk, &dir.join(&name)).chunks_exact(64).enumerate() {
            if slot[0] == PREPARED {
                found.insert(number * SLOTS_PER_FILE + at as u64, slot[24..56].try_into().unwrap());
            }
        }
    }
    found
}

const DIR: &str = "/log";

fn open(disk: &SimulatedDisk, block: u64) -> (Log, Recovered) {
    Log::open_with(Arc::new(disk.clone()), options(Path::new(DIR)), block).unwrap()
}

fn content(log: &Log, number: u32) -> ContentState {
    log.exchange(exchange(number)).unwrap().remove(0).content
}

#[test]
fn a_block_of_keys_costs_one_sync_and_no_group_another() {
    let disk = SimulatedDisk::new();
    let (log, _) = open(&disk, 16);
    let counts = |log: &Log| (log.counters().groups(), log.counters().syncs());
    assert_eq!(counts(&log), (1, 1), "the record that the log was opened, and no keys that nobody needs");
    append_each(&log, 0..1);
    prepared(&log);
    assert_eq!(counts(&log), (2, 4), "the first block, and one in advance");
    // The next one is due with the first exchange of every block.
    append_each(&log, 1..17);
    prepared(&log);
    assert_eq!(counts(&log), (18, 21));
    append_each(&log, 17..49);
    prepared(&log);
    assert_eq!(counts(&log), (50, 55), "50 groups and 5 blocks");
    // More messages of the same exchange have the same key.
    append_each(&log, 48..49);
    let slots: Vec<_> = contents(&disk, Path::new(DIR)).iter().map(|content| content.slot).collect();
    assert_eq!(slots, (0..49).chain([48]).collect::<Vec<_>>());
}

#[test]
fn keys_that_no_record_names_are_replaced_before_anything_is_encrypted() {
    let (disk, dir) = (SimulatedDisk::new(), Path::new(DIR));
    let mut thief = Thief::default();
    for (start, first) in [0, 3, 11].into_iter().enumerate() {
        let why = format!("start {start}");
        let (log, recovered) = open(&disk, 8);
        assert_eq!(recovered.warnings, Vec::<String>::new(), "{why}");
        thief.look_at_opened(&disk, dir, &why);
        append_each(&log, first..first + 5);
        prepared(&log);
        thief.look(&disk, dir, &why);
        for number in first..first + 5 {
            assert_eq!(content(&log, number), ContentState::Included(parts(number)), "{why}");
        }
    }
    let slots: HashSet<_> = contents(&disk, dir).iter().map(|content| content.slot).collect();
    // Messages 3 and 4 came before and after a start: two keys for one exchange, never two exchanges for one key.
    assert_eq!(slots, (0..15).collect());
    assert_eq!(thief.counts().0, 15);
}

#[test]
fn a_key_whose_record_was_lost_serves_nobody_else() {
    for seed in 0..40 {
        let (disk, dir, why) = (SimulatedDisk::new(), Path::new(DIR), format!("seed {seed}"));
        let mut thief = Thief::default();
        let (log, _) = open(&disk, 8);
        append_each(&log, 0..3);
        prepared(&log);
        quiet(&disk);
        // The group is written, and the power fails before it is durable.
        disk.fail_after(2, Fault::PowerCut);
        block_on(log.append(message(3), ()).unwrap()).unwrap_err();
        thief.look(&disk, dir, &why);
        assert_eq!(thief.counts().0, 4, "{why}: what was written is seen");
        drop(log);
        let disk = disk.cut_power(&mut Dice(seed));
        let (log, _) = open(&disk, 8);
        thief.look_at_opened(&disk, dir, &why);
        append_each(&log, 4..6);
        thief.look(&disk, dir, &why);
        assert!(thief.counts().0 >= 6, "{why}");
    }
}

#[test]
fn keys_that_were_written_with_their_exchange_are_read_as_ever() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let (log, _) = Log::open(options(dir)).unwrap();
    append_each(&log, 0..3);
    prepared(&log);
    drop(log);
    // As it was done before keys were prepared: one slot for each exchange and nothing behind them, all with its id.
    let path = dir.join("keys/keys-0000000000.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    for (number, slot) in (0..4).zip(bytes.chunks_exact_mut(64)) {
        slot[0] = 1;
        slot[8..24].copy_from_slice(exchange(number).as_bytes());
        let crc = crc32fast::hash(&slot[8..56]).to_le_bytes();
        slot[4..8].copy_from_slice(&crc);
    }
    bytes[4 * 64..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    std::fs::remove_file(dir.join("keys/keys-0000000001.bin")).unwrap();
    let (log, recovered) = Log::open(options(dir)).unwrap();
    assert_eq!(recovered.warnings, Vec::<String>::new());
    append_each(&log, 3..5);
    assert_eq!(block_on(log.erase(exchange(1), "operator", "request")).unwrap(), 1);
    for number in [0, 2, 3, 4] {
        assert_eq!(content(&log, number), ContentState::Included(parts(number)), "{number}");
    }
    assert_eq!(content(&log, 1), ContentState::Erased);
    let slots: Vec<_> = contents(&RealDisk, dir).iter().map(|content| content.slot).collect();
    assert_eq!(slots, [0, 2, 3, 4], "the fourth slot was written for an exchange that no record names");
    let after = std::fs::read(&path).unwrap();
    assert_ne!(after[3 * 64..4 * 64], bytes[3 * 64..4 * 64]);
    assert_eq!((after[2 * 64], after[3 * 64]), (1, PREPARED));
    assert_eq!(log.check().problems, Vec::<String>::new());
}

#[test]
fn keys_of_segments_that_are_missing_are_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    drop(Log::open(options(dir)).unwrap());
    let path = dir.join("keys/keys-0000000020.bin");
    std::fs::write(&path, vec![1; 64 * 100]).unwrap();
    let (log, recovered) = Log::open(options(dir)).unwrap();
    assert!(recovered.warnings[0].contains("82020 keys"), "{:?}", recovered.warnings);
    append_each(&log, 0..2);
    assert!(std::fs::read(&path).unwrap().starts_with(&[1; 64 * 100]));
    let slots: Vec<_> = contents(&RealDisk, dir).iter().map(|content| content.slot).collect();
    assert_eq!(slots, [82_020, 82_021]);
    drop(log);
    let (log, recovered) = Log::open(options(dir)).unwrap();
    assert_eq!(recovered.warnings, Vec::<String>::new());
    assert_eq!(content(&log, 1), ContentState::Included(parts(1)));
}

#[test]
fn keys_that_cannot_be_prepared_stop_the_log_and_lose_nothing() {
    let disk = SimulatedDisk::new();
    let (log, _) = open(&disk, 8);
    append_each(&log, 0..3);
    prepared(&log);
    disk.fail_writes_of("keys-");
    let mut acknowledged = 3;
    let stopped = loop {
        match log.append(message(acknowledged), ()).map(block_on) {
            Ok(Ok(_)) => acknowledged += 1,
            Ok(Err(error)) | Err(error) => break error,
        }
    };
    assert!(matches!(&stopped, LogError::Poisoned(why) if why.contains("keys-")), "{stopped}");
    // The eighth exchange is served by a key that is ready; the ninth asks for the next block.
    assert!((8..=16).contains(&acknowledged), "{acknowledged}");
    drop(log);
    let disk = disk.restart();
    disk.fail_writes_of("no file");
    let (log, _) = open(&disk, 8);
    for number in 0..acknowledged {
        assert_eq!(content(&log, number), ContentState::Included(parts(number)), "{number}");
    }
}
