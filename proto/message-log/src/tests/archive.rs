//! What is archived is whole, unreadable to whoever has not its key, and gives the log again.

use std::path::Path;
use std::sync::{Arc, Mutex};

use trave_proto::digest::Digest;

use super::support::*;
use crate::disk::Disk;
use crate::disk::simulated::{Dice, Fault, SimulatedDisk};
use crate::{
    Archive, ArchiveIdentity, ArchiveState, ArchiveStore as _, ContentState, DirectoryStore, Entry, Log,
    LogError, Options, Person, Source, Whole,
};

/// Keys cost nothing to make, but one is enough.
pub(super) fn identity() -> &'static ArchiveIdentity {
    static IDENTITY: std::sync::OnceLock<ArchiveIdentity> = std::sync::OnceLock::new();
    IDENTITY.get_or_init(ArchiveIdentity::generate)
}

pub(super) fn open(disk: &SimulatedDisk) -> Result<Log, LogError> {
    let options = Options { segment_size: 6 << 10, ..options(Path::new("/log")) };
    Ok(Log::open_with(Arc::new(disk.clone()), options, 8)?.0)
}

pub(super) fn store(disk: &SimulatedDisk) -> DirectoryStore {
    DirectoryStore::on(Arc::new(disk.clone()), "/archive")
}

pub(super) fn archive(disk: &SimulatedDisk) -> Arc<Archive> {
    let recipients = vec![identity().recipient().clone()];
    Arc::new(Archive { store: Box::new(store(disk)), recipients })
}

/// Archives all that is due; how many segments were.
pub(super) fn archive_all(log: &Log, archive: &Arc<Archive>) -> Result<u64, LogError> {
    let mut state = log.archive_state()?;
    let mut count = 0;
    for first in log.due_for_archive(&state) {
        block_on(log.archive_segment(archive, first, &mut state))?;
        count += 1;
    }
    Ok(count)
}

fn with_source<T>(disk: &SimulatedDisk, act: impl FnOnce(&Source<'_>) -> T) -> T {
    let (store, key) = (store(disk), signer(ORIGIN).verifier());
    act(&Source { store: &store, identity: identity(), key: &key, checkpoint: None })
}

pub(super) fn check(disk: &SimulatedDisk) -> Whole {
    with_source(disk, |source| {
        source.check_on(&(Arc::new(disk.clone()) as _), Path::new("/log"), &mut |_, _| {})
    })
    .unwrap()
}

fn restore(disk: &SimulatedDisk, to: &str) -> Result<Whole, LogError> {
    with_source(disk, |source| {
        source.restore_on(&(Arc::new(disk.clone()) as _), Path::new(to), &mut |_, _| {})
    })
}

pub(super) fn disk_with_archive() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new("/archive")).unwrap();
    disk
}

/// A log of some segments, all archived but the last; how many leaves it has.
pub(super) fn archived(disk: &SimulatedDisk) -> (Log, u64) {
    let log = open(disk).unwrap();
    append_each(&log, 0..48);
    block_on(log.checkpoint()).unwrap();
    assert!(archive_all(&log, &archive(disk)).unwrap() >= 3);
    let size = log.size();
    (log, size)
}

fn change(disk: &SimulatedDisk, path: &Path, at: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn an_archived_log_is_whole_and_its_archive_says_nothing_to_others() {
    let disk = disk_with_archive();
    let (log, size) = archived(&disk);
    let (ciphertext, key) = ciphertext_and_key(&log, 0);
    let whole = check(&disk);
    assert!(whole.is_whole(), "{whole:?}");
    assert_eq!((whole.records, whole.agrees), (size, Some(true)));
    // What was logged of the archive may have filled another segment.
    assert!(whole.not_archived.len() <= 1, "{whole:?}");
    let state = log.archive_state().unwrap();
    assert_eq!((log.due_for_archive(&state).len(), whole.objects), (0, state.all().count() as u64));
    for segment in state.all() {
        let mut stored = Vec::new();
        store(&disk).open(&segment.name).unwrap().read_to_end(&mut stored).unwrap();
        assert_eq!(
            (Digest::of(&stored).to_bytes(), stored.len() as u64),
            (segment.digest.clone(), segment.length)
        );
        // Neither what stands in the segment, encrypted or not, nor what names people.
        for secret in [&ciphertext[..], &key, b"gewerberegister", b"Musterstadt"] {
            assert!(!stored.windows(secret.len()).any(|window| window == secret), "{}", segment.name);
        }
    }
    // Whoever opens an object has the contents encrypted, and no key of any.
    let object =
        crate::archive::object::read(&store(&disk), &state.archived(0).unwrap().name, identity()).unwrap();
    let bytes = object.verify(&signer(ORIGIN).verifier()).unwrap().bytes;
    let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(holds(b"gewerberegister") && holds(&ciphertext) && !holds(&key) && !holds(b"Musterstadt"));
    let other = ArchiveIdentity::generate();
    let refused = crate::archive::object::read(&store(&disk), &state.archived(0).unwrap().name, &other);
    assert!(refused.unwrap_err().to_string().contains("not encrypted to this key"));
}

#[test]
fn an_emptied_archive_is_not_whole_and_no_name_is_used_twice() {
    let disk = disk_with_archive();
    let (log, _) = archived(&disk);
    let mut state = log.archive_state().unwrap();
    let first = state.archived(0).unwrap().name.clone();
    store(&disk).remove(&first).unwrap();
    let again = block_on(log.archive_segment(&archive(&disk), 0, &mut state)).unwrap();
    assert_ne!(again.name, first);
    assert!(store(&disk).list().unwrap().contains(&again.name));
    drop(log);
    for name in store(&disk).list().unwrap() {
        store(&disk).remove(&name).unwrap();
    }
    let whole = restore(&disk, "/nothing").unwrap();
    assert!(whole.records == 0 && !whole.is_whole(), "{whole:?}");
}

#[test]
fn an_archive_finds_no_person() {
    let disk = disk_with_archive();
    let log = open(&disk).unwrap();
    let person = Person::parse("steuer-id:12345678901").unwrap();
    for number in 0..48 {
        let entry = Entry { persons: vec![person.clone()], ..message(number) };
        block_on(log.append(entry, ()).unwrap()).unwrap();
    }
    block_on(log.checkpoint()).unwrap();
    assert!(archive_all(&log, &archive(&disk)).unwrap() >= 3);
    let hashes: Vec<_> = log.shared().period_keys.all_of(&person).into_iter().map(|(_, hash)| hash).collect();
    let names =
        |bytes: &[u8]| hashes.iter().any(|hash| bytes.windows(hash.len()).any(|window| window == hash));
    let state = log.archive_state().unwrap();
    for segment in state.all() {
        let object = crate::archive::object::read(&store(&disk), &segment.name, identity()).unwrap();
        assert!(!names(&object.verify(&signer(ORIGIN).verifier()).unwrap().bytes), "{}", segment.name);
    }
    assert!(disk.all_bytes().iter().any(|bytes| names(bytes)), "on the server the person is found");
    assert_eq!(log.of_person(&person, 0, 100).unwrap().len(), 48);
    assert!(check(&disk).is_whole());
    drop(log);
    // What comes out of the archive finds nobody either, and nothing is wrong with it.
    restore(&disk, "/new").unwrap();
    let key = signer(ORIGIN).verifier();
    let restored =
        Log::open_restored_on(Arc::new(disk.clone()), Path::new("/new"), &key, Arc::new(Still)).unwrap();
    assert_eq!(restored.of_person(&person, 0, 100).unwrap().len(), 0);
    let problems = restored.check().problems;
    assert!(problems.iter().all(|it| !it.contains("pseudonym")), "{problems:?}");
}

use std::io::Read as _;

#[test]
fn what_was_erased_leaves_the_archive_with_the_next_copy() {
    let disk = disk_with_archive();
    let (log, _) = archived(&disk);
    let (ciphertext, _) = ciphertext_and_key(&log, 0);
    assert_eq!(block_on(log.erase(exchange(0), "operator", "request")).unwrap(), 1);
    let mut state = log.archive_state().unwrap();
    let old = state.archived(0).unwrap().clone();
    let new = block_on(log.archive_segment(&archive(&disk), 0, &mut state)).unwrap();
    assert_eq!((new.replaces, state.archived(0).unwrap().digest.clone()), (old.name.clone(), new.digest));
    assert!(!store(&disk).list().unwrap().contains(&old.name));
    let object = crate::archive::object::read(&store(&disk), &new.name, identity()).unwrap();
    let bytes = object.verify(&signer(ORIGIN).verifier()).unwrap().bytes;
    assert!(!bytes.windows(ciphertext.len()).any(|window| window == ciphertext));
    assert!(check(&disk).is_whole(), "{:?}", check(&disk));
    // Expired altogether: the object goes, and the log says so.
    assert!(block_on(log.remove_from_archive(&archive(&disk), (0, "expired"), &mut state)).unwrap());
    assert!(!block_on(log.remove_from_archive(&archive(&disk), (0, "expired"), &mut state)).unwrap());
    assert!(!store(&disk).list().unwrap().contains(&new.name));
    assert!(log.archive_state().unwrap().archived(0).is_none());
    let whole = check(&disk);
    assert!(whole.problems.is_empty() && whole.not_archived.contains(&0), "{whole:?}");
}

#[test]
fn damage_is_told_for_what_it_is() {
    let fresh = || {
        let disk = disk_with_archive();
        let (log, size) = archived(&disk);
        let names: Vec<_> = log.archive_state().unwrap().all().map(|it| it.name.clone()).collect();
        drop(log);
        quiet(&disk);
        (disk, names, size)
    };
    // A damaged object beside a whole segment: told twice, by what it holds and by its digest; nothing is missing.
    let (disk, names, _) = fresh();
    change(&disk, &Path::new("/archive").join(&names[1]), 300);
    let whole = check(&disk);
    assert!(
        whole.problems.iter().any(|it| it.contains("does not decrypt") && it.contains(&names[1])),
        "{whole:?}"
    );
    assert!(whole.problems.iter().any(|it| it.contains("not the one that the log names")), "{whole:?}");
    assert!(whole.missing.is_empty() && !whole.is_whole());
    // An object that is gone.
    store(&disk).remove(&names[1]).unwrap();
    let whole = check(&disk);
    assert!(whole.problems.len() == 1 && whole.problems[0].contains("is not in the archive"), "{whole:?}");
    // One in the place of another.
    let (disk, names, _) = fresh();
    disk.rename(&Path::new("/archive").join(&names[2]), &Path::new("/archive").join(&names[1])).unwrap();
    let whole = check(&disk);
    assert!(whole.problems.iter().any(|it| it.contains("other leaves than its name says")), "{whole:?}");
    // A damaged segment with a whole object: nothing is missing either.
    let (disk, _, _) = fresh();
    change(&disk, Path::new("/log/segments/segment-00000000000000000000.log"), 700);
    let whole = check(&disk);
    assert!(whole.missing.is_empty() && whole.problems.len() == 1, "{whole:?}");
    assert_eq!(whole.agrees, Some(true));
    // Both gone: exactly these leaves are missing.
    let (disk, names, size) = fresh();
    let state = open(&disk).unwrap().archive_state().unwrap();
    let lost = state.all().find(|it| it.name == names[1]).unwrap().clone();
    store(&disk).remove(&names[1]).unwrap();
    let segment = format!("/log/segments/segment-{:020}.log", lost.first);
    disk.remove(Path::new(&segment)).unwrap();
    let whole = check(&disk);
    let missing: Vec<_> = whole.missing.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!(missing, [(lost.first, lost.first + lost.count)], "{whole:?}");
    assert!(whole.records >= size - lost.count && whole.agrees == Some(true), "{whole:?}");
}

#[test]
fn a_lost_log_is_made_again_and_what_is_missing_is_told() {
    let disk = disk_with_archive();
    let (log, _) = archived(&disk);
    let last = block_on(log.checkpoint()).unwrap().checkpoint;
    let archived_to = log.archive_state().unwrap().all().map(|it| it.first + it.count).max().unwrap();
    let original = log.exchange(exchange(2)).unwrap();
    drop(log);
    // Nothing but the archive, and a checkpoint that a witness kept.
    let (store, key) = (store(&disk), signer(ORIGIN).verifier());
    let source = Source { store: &store, identity: identity(), key: &key, checkpoint: Some(&last) };
    let shared_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut told = Vec::new();
    let progress = &mut |done: u64, all: u64| told.push((done, all));
    let whole = source.restore_on(&shared_disk, Path::new("/new"), progress).unwrap();
    let missing: Vec<_> = whole.missing.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!((&missing[..], whole.agrees), (&[(archived_to, last.size)][..], None), "{whole:?}");
    assert_eq!(told.last().unwrap().0, archived_to);
    // It is not to be written to …
    let options = options(Path::new("/new"));
    assert!(matches!(Log::open_on(shared_disk.clone(), options), Err(LogError::Restored { .. })));
    // … but to be read, without contents.
    let clock = Arc::new(Still);
    let log = Log::open_restored_on(shared_disk.clone(), Path::new("/new"), &key, clock.clone()).unwrap();
    let record = &log.exchange(exchange(2)).unwrap()[0];
    assert_eq!((&record.leaf_bytes, record.index), (&original[0].leaf_bytes, original[0].index));
    assert_eq!(record.content, ContentState::NotRestored, "no key is in an archive");
    assert!(log.inclusion(record.index, archived_to).is_ok() && log.size() == archived_to);
    assert!(matches!(block_on(log.checkpoint()), Err(LogError::Closed)));
    drop(log);
    // With the key files beside it, contents are readable again.
    disk.create_dir(Path::new("/new/keys")).unwrap();
    for name in disk.list(Path::new("/log/keys")).unwrap() {
        disk.rename(&Path::new("/log/keys").join(&name), &Path::new("/new/keys").join(&name)).unwrap();
    }
    let log = Log::open_restored_on(shared_disk.clone(), Path::new("/new"), &key, clock).unwrap();
    assert_eq!(log.exchange(exchange(2)).unwrap()[0].content, original[0].content);
    drop(log);
    assert!(restore(&disk, "/new").unwrap_err().to_string().contains("not empty"));
    // An object in the middle is gone: that range, and the end.
    let second = store.list().unwrap().into_iter().filter(|it| it.ends_with("archive")).nth(1).unwrap();
    store.remove(&second).unwrap();
    let whole = source.restore_on(&shared_disk, Path::new("/gap"), &mut |_, _| {}).unwrap();
    assert_eq!(whole.missing.len(), 2, "{whole:?}");
    assert_eq!(whole.missing[1], archived_to..last.size);
    assert!(whole.problems.iter().all(|it| it.contains("is not in the archive")), "{whole:?}");
}

#[test]
fn every_operation_of_archiving_may_fail() {
    /// What the log acknowledged as archived.
    fn work(disk: &SimulatedDisk) -> Vec<String> {
        let Ok(log) = open(disk) else { return Vec::new() };
        let acknowledged = Mutex::new(Vec::new());
        let archive = archive(disk);
        let mut state = log.archive_state().unwrap_or_default();
        for first in log.due_for_archive(&state).into_iter().take(2) {
            if let Ok(segment) = block_on(log.archive_segment(&archive, first, &mut state)) {
                acknowledged.lock().unwrap().push(segment.name);
            }
        }
        if let Ok(segment) = block_on(log.archive_segment(&archive, 0, &mut state)) {
            let mut names = acknowledged.lock().unwrap();
            names.retain(|name| *name != segment.replaces);
            names.push(segment.name);
        }
        acknowledged.into_inner().unwrap()
    }
    let prepared = || {
        let disk = disk_with_archive();
        let log = open(&disk).unwrap();
        append_each(&log, 0..22);
        block_on(log.checkpoint()).unwrap();
        drop(log);
        disk.restart()
    };
    let whole = prepared();
    let before = whole.operations();
    assert_eq!(work(&whole).len(), 2);
    let operations = whole.operations() - before;
    assert!(operations > 30, "{operations}");
    for fault in [Fault::Failed, Fault::FailedButStored, Fault::PowerCut] {
        for after in 1..=operations {
            let why = format!("{fault:?} after {after}");
            let disk = prepared();
            disk.fail_after(after, fault);
            let acknowledged = work(&disk);
            let disk = disk.cut_power(&mut Dice(after));
            let log = open(&disk).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            let state: ArchiveState = log.archive_state().unwrap();
            for name in acknowledged {
                // A newer copy may have been logged, and the error been about what came after.
                let there = store(&disk).list().unwrap().contains(&name);
                assert!(there || state.all().any(|it| it.replaces == name), "{why}: {name} is gone");
            }
            // What the log names is there, whole; what is left is archived now, and the rest is cleared away.
            archive_all(&log, &archive(&disk)).unwrap_or_else(|error| panic!("{why}: {}", error.in_full()));
            log.tidy_archive(&archive(&disk), &log.archive_state().unwrap()).unwrap();
            drop(log);
            let found = check(&disk);
            assert!(found.is_whole() && found.not_archived.len() <= 1, "{why}: {found:?}");
            // At most the one copy that was written when it failed is left beside those that the log names.
            let named = open(&disk).unwrap().archive_state().unwrap().all().count();
            let objects = store(&disk).list().unwrap().iter().filter(|it| it.ends_with("archive")).count();
            assert!(objects <= named + 1, "{why}: {objects} objects, {named} named");
        }
    }
}
