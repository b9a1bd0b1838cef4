//! What a torn write is, and what is damage: the one is cut, the other kept and reported.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::*;
use proptest::prelude::*;
use trave_proto::checkpoint::Checkpoint;
use trave_proto::tree::Tile;

use crate::{ContentState, Log, LogError, Options};

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    found.sort();
    found
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("segments"), ".log")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A directory in memory where there is one: these tests change bytes, and need no disk to be slow.
fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A log of `messages`, as a crash leaves it: without the last marker of a clean end. Returns its directory, and the end
/// of each group in its last segment.
fn crashed(messages: u32) -> (tempfile::TempDir, Vec<u64>) {
    let (whole, crashed) = (memory(), memory());
    let (log, _) = Log::open(options(whole.path())).unwrap();
    let mut ends = vec![512 + log.counters().bytes()];
    for number in 0..messages {
        append_each(&log, number..number + 1);
        ends.push(512 + log.counters().bytes());
    }
    copy(whole.path(), crashed.path());
    (crashed, ends)
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (dir, ends) = crashed(6);
    let path = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let (last, end) = (ends[5] as usize, ends[6] as usize);
    for torn_at in last..end {
        let mut torn = bytes.clone();
        torn[torn_at..].fill(0);
        fs::write(&path, &torn).unwrap();
        let (log, recovered) = Log::open(options(dir.path())).unwrap();
        assert_eq!(recovered.records, 6, "torn at {torn_at}");
        assert!(log.exchange(exchange(5)).unwrap().is_empty());
        assert_eq!(log.exchange(exchange(4)).unwrap().len(), 1);
        drop(log);
    }
    // The other way round: the end reached the disk, the beginning did not.
    for lost_to in last + 1..end {
        let mut torn = bytes.clone();
        torn[last..lost_to].fill(0);
        fs::write(&path, &torn).unwrap();
        let (log, recovered) = Log::open(options(dir.path())).unwrap();
        assert_eq!(recovered.records, 6, "lost to {lost_to}");
        assert_eq!(log.check().problems, Vec::<String>::new());
    }
}

#[test]
fn damage_before_the_last_group_is_kept_and_reported() {
    let (dir, ends) = crashed(6);
    let path = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    for at in (600..ends[5] as usize).step_by(53) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        match Log::open(options(dir.path())) {
            Err(LogError::Damaged { path: said, offset, .. }) => {
                assert_eq!(said, path);
                assert!(offset <= at as u64, "the group at {offset} holds {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing was changed");
    }
}

#[test]
fn damage_in_a_closed_segment_is_found() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..60);
    assert_eq!(log.check().problems, Vec::<String>::new());
    let first = &segments(dir.path())[0];
    let mut bytes = fs::read(first).unwrap();
    bytes[2_000] ^= 1;
    fs::write(first, &bytes).unwrap();
    let problems = log.check().problems;
    assert!(problems[0].contains("segment-00000000000000000000.log is damaged at byte"), "{problems:?}");
    drop(log);
    fs::remove_file(&files(&dir.path().join("segments"), ".index")[0]).unwrap();
    assert!(
        matches!(Log::open(options(dir.path())), Err(LogError::Damaged { .. })),
        "it cannot be indexed again"
    );
    fs::remove_file(first).unwrap();
    assert!(matches!(Log::open(options(dir.path())), Err(LogError::Damaged { .. })), "a segment is missing");
}

#[test]
fn the_hash_of_a_leaf_whose_index_is_damaged_is_in_the_tree() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..60);
    let hashes: Vec<_> = (0..log.size()).map(|index| log.leaf_hash(index).unwrap()).collect();
    let index = files(&dir.path().join("segments"), ".index").swap_remove(0);
    // Each page of leaves of the first segment's index, as a bad sector leaves it, while the log is open.
    let mut bytes = fs::read(&index).unwrap();
    bytes[4_096..].fill(7);
    fs::write(&index, bytes).unwrap();
    assert!(matches!(log.leaf(1), Err(LogError::Damaged { .. })));
    for (at, hash) in hashes.iter().enumerate() {
        assert_eq!(log.leaf_hash(at as u64).unwrap(), *hash, "leaf {at}");
    }
    assert!(log.leaf_hash(log.size()).is_err(), "there is no such leaf");
}

#[test]
fn indexes_and_tree_are_made_again() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..200);
    let signed = block_on(log.checkpoint()).unwrap().checkpoint;
    drop(log);
    let indexes = files(&dir.path().join("segments"), ".index");
    assert!(indexes.len() > 3);
    fs::remove_file(&indexes[2]).unwrap();
    fs::write(&indexes[1], b"no index").unwrap();
    for level in files(&dir.path().join("tree"), "") {
        fs::remove_file(level).unwrap();
    }
    let (log, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!((recovered.indexes_rebuilt, recovered.tree_rebuilt), (2, true));
    assert_eq!(log.root(signed.size).unwrap(), signed.root);
    assert_eq!(log.check().problems, Vec::<String>::new());
    drop(log);
    let level = dir.path().join("tree/level-0");
    let mut hashes = fs::read(&level).unwrap();
    hashes[5 * 32] ^= 1;
    fs::write(&level, &hashes).unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert!(log.inclusion(4, signed.size).is_ok(), "a damaged tree is noticed and made again");
    assert_eq!(log.root(signed.size).unwrap(), signed.root);
}

#[test]
fn a_damaged_tile_is_noticed_and_made_again() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..300);
    let size = block_on(log.checkpoint()).unwrap().checkpoint.size;
    let tile = Tile::parse("/tile/0/000").unwrap();
    let whole = log.tile(&tile, size).unwrap().unwrap();
    drop(log);
    let level = dir.path().join("tree/level-0");
    let mut hashes = fs::read(&level).unwrap();
    hashes[5 * 32] ^= 1;
    fs::write(&level, &hashes).unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert_eq!(log.tile(&tile, size).unwrap().unwrap(), whole);
    assert_eq!(whole[5], log.leaf_hash(5).unwrap());
    // Not beyond the size that is named, nor the log's own.
    assert_eq!(log.tile(&tile, 255).unwrap(), None);
    assert_eq!(log.tile(&Tile::parse("/tile/0/x999/999").unwrap(), size).unwrap(), None);
    assert!(log.tile(&tile, log.size() + 1).is_err());
}

#[test]
fn a_log_that_cannot_continue_its_checkpoint_is_refused() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..5);
    log.close();
    let older = memory();
    copy(dir.path(), older.path());
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 5..9);
    block_on(log.checkpoint()).unwrap();
    drop(log);
    // An old copy of the segments beside the newest checkpoint.
    fs::copy(dir.path().join("checkpoint"), older.path().join("checkpoint")).unwrap();
    let refused = Log::open(options(older.path())).unwrap_err();
    assert!(matches!(refused, LogError::ContradictsCheckpoint { size: 11, .. }), "{refused}");
    // Another history of the same length.
    fs::remove_file(older.path().join("checkpoint")).unwrap();
    let (log, _) = Log::open(options(older.path())).unwrap();
    append_each(&log, 50..60);
    drop(log);
    fs::copy(dir.path().join("checkpoint"), older.path().join("checkpoint")).unwrap();
    let refused = Log::open(Options { reserve: 0, ..options(older.path()) }).unwrap_err();
    assert!(matches!(refused, LogError::ContradictsCheckpoint { size: 11, .. }), "{refused}");
}

#[test]
fn a_tail_below_the_checkpoint_is_refused_and_left_as_it_is() {
    let dir = memory();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..6);
    let note = 512 + log.counters().bytes();
    block_on(log.checkpoint()).unwrap();
    let crashed = memory();
    copy(dir.path(), crashed.path());
    let path = segments(crashed.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // The group before the checkpoint's, and all that follows: what was given away is damaged, not torn.
    bytes[usize::try_from(note).unwrap() - 60] ^= 1;
    bytes[usize::try_from(note).unwrap() + 200..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let refused = Log::open(options(crashed.path())).unwrap_err();
    assert!(matches!(refused, LogError::ContradictsCheckpoint { size: 7, .. }), "{refused}");
    assert!(fs::read(&path).unwrap() == bytes, "nothing was changed");
    // The same when there is no segment left at all: none is begun.
    segments(crashed.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
    let refused = Log::open(options(crashed.path())).unwrap_err();
    assert!(matches!(refused, LogError::ContradictsCheckpoint { size: 7, .. }), "{refused}");
    assert_eq!(segments(crashed.path()), Vec::<PathBuf>::new());
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(all_files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Every file below a directory, with its bytes, and every directory.
fn picture(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = vec![(dir.to_owned(), None)];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(picture(&path))
        } else {
            found.push((path.clone(), fs::read(&path).ok()))
        }
    }
    found.sort();
    found
}

/// A log that others saw further than it goes, or otherwise, stays as it lies there: it is what people will look at.
#[test]
fn a_log_that_cannot_continue_what_others_saw_is_left_as_it_is() {
    // As a crash leaves it: a tail that would be cut, keys that would be overwritten, no index and no tree.
    let (dir, _) = crashed(30);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 20..=last].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert!(segments(dir.path()).len() > 1);
    let seen = {
        let copied = memory();
        copy(dir.path(), copied.path());
        let (log, recovered) = Log::open(options(copied.path())).unwrap();
        assert!(recovered.cut_bytes > 0 && recovered.records == 30, "{recovered:?}");
        append_each(&log, 100..103);
        block_on(log.checkpoint()).unwrap().checkpoint
    };
    let root = |size| {
        let copied = memory();
        copy(dir.path(), copied.path());
        let (log, _) = Log::open(options(copied.path())).unwrap();
        Checkpoint { origin: ORIGIN.into(), size, root: log.root(size).unwrap() }
    };
    let otherwise = |size| Checkpoint { root: root(size - 1).root, ..root(size) };
    for (given, says) in [
        (seen.clone(), "34: it was seen by witnesses, and the log has only 30 whole records"),
        (otherwise(30), "30: it was seen by witnesses, and its records give another root"),
        (otherwise(7), "7: it was seen by witnesses, and its records give another root"),
    ] {
        for bare in [false, true] {
            let lies = memory();
            copy(dir.path(), lies.path());
            if bare {
                fs::remove_dir_all(lies.path().join("tree")).unwrap();
                let indexes = files(&lies.path().join("segments"), ".index");
                indexes.iter().for_each(|path| fs::remove_file(path).unwrap());
            }
            let before = picture(lies.path());
            let must_continue = Some(given.clone());
            let refused = Log::open(Options { must_continue, ..options(lies.path()) }).unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");
            assert!(picture(lies.path()) == before, "{says}: it was changed");
        }
    }
    for size in [1, 7, 29, 30] {
        let copied = memory();
        copy(dir.path(), copied.path());
        let must_continue = Some(root(size));
        Log::open(Options { must_continue, ..options(copied.path()) }).unwrap();
    }
    let gone = memory();
    for place in [gone.path().join("log"), gone.path().to_owned()] {
        let must_continue = Some(seen.clone());
        let refused = Log::open(Options { must_continue, ..options(&place) }).unwrap_err();
        assert!(matches!(refused, LogError::ContradictsCheckpoint { size: 34, .. }), "{refused}");
        assert_eq!(picture(gone.path()).len(), 1, "nothing is begun");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever byte of whatever file is changed: no panic, and never an answer that differs from what was logged.
    #[test]
    fn a_changed_byte_never_gives_a_wrong_answer(
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1_u8..
    ) {
        let dir = memory();
        let (log, _) = Log::open(options(dir.path())).unwrap();
        append_each(&log, 0..40);
        let signed = block_on(log.checkpoint()).unwrap().checkpoint;
        append_each(&log, 40..60);
        drop(log);
        let files = all_files(dir.path());
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        // Within what was written, mostly: the rest is zeros.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            bytes[at.index(used)] ^= flip;
            fs::write(path, &bytes).unwrap();
        }
        let Ok((log, _)) = Log::open(options(dir.path())) else { return Ok(()) };
        prop_assert_eq!(log.root(signed.size).unwrap(), signed.root);
        for number in 0..60 {
            let Ok(record) = log.record(u64::from(number) + 1) else { continue };
            prop_assert_eq!(record.leaf, message(number).leaf);
            if let ContentState::Included(found) = &record.content {
                prop_assert_eq!(found, &parts(number));
            } else {
                prop_assert!(matches!(record.content, ContentState::Mismatch(_)), "{:?}", record.content);
            }
        }
        log.check();
    }
}
