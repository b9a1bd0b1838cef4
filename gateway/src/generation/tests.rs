//! Interrupted after any step, a new generation goes on where it was.

use std::collections::BTreeMap;

use trave_host::clock::SystemClock;
use trave_proto::schema::log::{Generation, Leaf, leaf};

use super::*;

fn passphrase() -> Secret {
    Secret::new("eine Probe, kein Geheimnis".to_owned().into())
}

/// A data directory with an old log and what belongs to it, and the plan to leave it behind.
fn furnished(data: &Path) -> Layout {
    let layout = Layout::new(data);
    DirBuilder::new().recursive(true).mode(0o700).create(data.join("keys")).unwrap();
    let key = NoteKey::create(&layout.log_key(), &passphrase()).unwrap();
    let signer = NoteSigner::new("trave/NORD/SH/luebeck/s1/1", key.into_pair()).unwrap();
    let options =
        Options { segment_size: 64 << 10, ..Options::new(layout.log(), signer, Arc::new(SystemClock)) };
    Log::open(options).unwrap().0.close();
    fs::write(layout.witnessed(), b"what was witnessed").unwrap();
    let generation = Generation {
        previous_origin: "trave/NORD/SH/luebeck/s1/1".into(),
        reason: "Probe".into(),
        ..Default::default()
    };
    let leaf = Leaf::of(1_795_255_200_000, leaf::Entry::Generation(generation));
    Plan { number: 1, origin: "trave/NORD/SH/luebeck/s1/2".into(), leaf }.store(&layout).unwrap();
    layout
}

fn work(layout: &Layout) -> Option<Work> {
    let plan = Plan::read(layout).unwrap()?;
    let (layout, clock) = (layout.clone(), Arc::new(SystemClock));
    let lock = held(&layout, Some(&plan)).unwrap();
    Some(Work { layout, plan, passphrase: passphrase(), clock, _lock: lock })
}

fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn interrupted_after_any_step_it_goes_on() {
    for done in 0..=STEPS.len() {
        let directory = tempfile::tempdir().unwrap();
        let layout = furnished(&directory.path().join("data"));
        let (old, old_key) = (files_below(&layout.log()), fs::read(layout.log_key()).unwrap());
        let first = work(&layout).unwrap();
        STEPS[..done].iter().for_each(|step| step(&first).unwrap());
        drop(first);
        if let Some(again) = work(&layout) {
            STEPS.iter().for_each(|step| step(&again).unwrap());
        }
        let aside = layout.generations().join("1");
        assert!(
            files_below(&aside.join("log")) == old,
            "after {done} steps: the old log lies there as it was"
        );
        assert_eq!(fs::read(aside.join("log.key")).unwrap(), old_key);
        assert_eq!(fs::read(aside.join("witnessed")).unwrap(), b"what was witnessed");
        assert!(!layout.witnessed().exists() && !layout.generation_plan().exists());
        assert!(layout.generation_pending().exists());
        assert_eq!(layout.log_origin().unwrap(), "trave/NORD/SH/luebeck/s1/2");
        let key = NoteKey::open(&layout.log_key(), &passphrase()).unwrap();
        let signer = NoteSigner::new("trave/NORD/SH/luebeck/s1/2", key.into_pair()).unwrap();
        let options = Options::new(layout.log(), signer, Arc::new(SystemClock));
        let (log, _) = Log::open(options).unwrap();
        let generations: Vec<_> = log
            .scan(0)
            .map(Result::unwrap)
            .filter(|record| matches!(record.leaf.entry, Some(leaf::Entry::Generation(_))))
            .map(|record| record.index)
            .collect();
        assert_eq!(generations, [0], "after {done} steps: it is the first record, and stands there once");
        log.close();
    }
}

#[test]
fn a_log_that_is_open_is_not_moved() {
    let directory = tempfile::tempdir().unwrap();
    let layout = furnished(&directory.path().join("data"));
    let held = lock(&layout.log()).unwrap().unwrap();
    assert!(matches!(lock(&layout.log()), Err(GenerationError::Running)));
    drop(held);
    assert!(lock(&layout.log()).unwrap().is_some());
    assert!(lock(directory.path()).unwrap().is_none(), "where no log is, nobody holds it");
}
