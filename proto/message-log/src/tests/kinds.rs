//! Records of one kind are found by the indexes alone, in whichever of their forms.

use std::path::Path;
use std::sync::Arc;

use super::support::*;
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{Disk, replace};
use crate::entry::kind;
use crate::index::file::without_kinds;
use crate::{Log, finding};

fn open(disk: &SimulatedDisk) -> Log {
    Log::open_on(Arc::new(disk.clone()), options(Path::new("/log"))).unwrap().0
}

/// Messages, and a refusal at every seventh place.
fn filled(disk: &SimulatedDisk) -> Log {
    let log = open(disk);
    for number in 0..200 {
        let entry = if number % 7 == 3 { refusal(number) } else { message(number) };
        block_on(log.append(entry, ()).unwrap()).unwrap();
    }
    log
}

/// What a look at every leaf finds is what the indexes name, from any place on.
fn agree(log: &Log) {
    let entry = |index| finding::entry(log.shared(), index).unwrap().0;
    let all: Vec<_> = (0..log.size()).map(|index| (entry(index).kind, index)).collect();
    for of in [kind::MESSAGE, kind::REFUSAL, kind::STARTED, kind::GRANT] {
        for from in [0, 1, 37, 199, 200, log.size(), log.size() + 1] {
            let there = all.iter().filter(|(kind, index)| *kind == of && *index >= from);
            let there: Vec<_> = there.map(|(_, index)| *index).collect();
            let found: Vec<_> = log.scan_kind(of, from).map(|record| record.unwrap().index).collect();
            assert_eq!(found, there, "{of} from {from}");
        }
    }
}

#[test]
fn the_indexes_name_the_records_of_a_kind() {
    let disk = SimulatedDisk::new();
    let log = filled(&disk);
    agree(&log);
    drop(log);
    let log = open(&disk.restart());
    let segments = log.shared().catalogue().closed.clone();
    assert!(segments.len() > 2);
    // All are told of by files now.
    assert!(segments.iter().all(|one| one.index().of_kind(kind::MESSAGE).unwrap().is_none()));
    assert!(segments.iter().all(|one| one.index().of_kind(kind::REFUSAL).unwrap().is_some()));
    agree(&log);
}

#[test]
fn an_index_of_an_earlier_release_is_read_whole() {
    let disk = SimulatedDisk::new();
    drop(filled(&disk));
    let disk = disk.restart();
    drop(open(&disk));
    let dir = Path::new("/log/segments");
    let names = disk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(".index"));
    for name in names {
        let file = disk.open(&dir.join(&name)).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        replace(&disk, dir, &name, &without_kinds(&bytes)).unwrap();
    }
    let log = open(&disk.restart());
    let segments = log.shared().catalogue().closed.clone();
    assert!(segments.iter().all(|one| one.index().of_kind(kind::REFUSAL).unwrap().is_none()));
    assert!(!finding::of_kind(log.shared(), kind::REFUSAL, 0).unwrap().is_empty());
    agree(&log);
    assert_eq!(log.check().problems, Vec::<String>::new());
}
