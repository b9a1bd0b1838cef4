//! What goes in comes out, in order, also after closing and opening again.

use super::support::*;
use crate::{ContentState, Log, LogError, kind};
use trave_proto::checkpoint::Checkpoint;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::tree::{leaf_hash, root, root_from_path};

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!(recovered, crate::Recovered::default());
    let pending: Vec<_> = (0..200).map(|n| log.append(message(n), n).unwrap()).collect();
    for (at, pending) in pending.into_iter().enumerate() {
        let logged = block_on(pending).unwrap();
        assert_eq!(logged.index(), at as u64 + 1, "after the record that says that the log was opened");
        let stored = log.record(logged.index()).unwrap();
        assert_eq!(stored.leaf, message(at as u32).leaf);
        assert_eq!(
            (stored.leaf_hash, leaf_hash(&stored.leaf_bytes)),
            (logged.leaf_hash(), logged.leaf_hash())
        );
        assert_eq!(stored.attachment.signature, message(at as u32).signature);
        assert_eq!(stored.content, ContentState::Included(parts(at as u32)));
        assert_eq!(logged.into_inner(), at as u32);
    }
    let names = std::fs::read_dir(dir.path().join("segments")).unwrap().count();
    assert!(names > 5, "several segments");
    let signed = block_on(log.checkpoint()).unwrap();
    block_on(log.attach_timestamp(signed.checkpoint.size, "token".into())).unwrap();
    drop(log);
    let (log, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!((recovered.records, recovered.cut_bytes, recovered.indexes_rebuilt), (201, 0, 0));
    let latest = log.latest_checkpoint().unwrap();
    assert_eq!((latest.note, latest.timestamp), (signed.note, Some("token".into())));
    for n in [0, 77, 199] {
        let stored = log.exchange(exchange(n)).unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].content, ContentState::Included(parts(n)));
        assert_eq!(stored[0].attachment.artefacts.len(), 1, "the leaf names the other itself");
        assert_eq!(stored[0].artefacts().len(), 2);
        for digest in stored[0].artefacts() {
            assert_eq!(Digest::of(&log.artefact(&digest).unwrap().unwrap()), digest);
        }
    }
    assert!(log.exchange(exchange(999)).unwrap().is_empty());
    assert!(log.record(202).is_err());
}

#[test]
fn roots_checkpoints_and_paths_are_those_of_the_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..60);
    let first = block_on(log.checkpoint()).unwrap();
    assert_eq!(block_on(log.checkpoint()).unwrap(), first, "nothing was added");
    append_each(&log, 60..90);
    let second = block_on(log.checkpoint()).unwrap();
    let leaves: Vec<_> = log.scan(0).map(|record| leaf_hash(&record.unwrap().leaf_bytes)).collect();
    for signed in [first, second] {
        let keys = [signer(ORIGIN).verifier()];
        assert_eq!(Checkpoint::verify(&signed.note, &keys).unwrap(), signed.checkpoint);
        let Checkpoint { size, root: signed_root, .. } = signed.checkpoint;
        assert_eq!(root(&leaves[..size as usize]), signed_root);
        for index in 0..size {
            let path = log.inclusion(index, size).unwrap();
            assert_eq!(root_from_path(&leaves[index as usize], index, size, &path), Some(signed_root));
        }
        assert!(log.inclusion(size, size).is_err());
    }
}

#[test]
fn kinds_times_and_ends_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    append_each(&log, 0..50);
    for n in [3, 4] {
        block_on(log.append(refusal(n), ()).unwrap()).unwrap();
    }
    append_each(&log, 50..100);
    let kinds = |kind| log.scan_kind(kind, 0).map(|found| found.unwrap().index).collect::<Vec<_>>();
    assert_eq!((kinds(kind::STARTED), kinds(kind::REFUSAL)), (vec![0], vec![51, 52]));
    assert_eq!(kinds(kind::MESSAGE).len(), 100);
    assert_eq!(log.exchange(exchange(4)).unwrap().len(), 2);
    let since = |after: i64| log.tail_ids(Time::from_millis(NOW.as_millis() + after)).unwrap();
    assert_eq!(since(0).len(), 100);
    assert_eq!(since(97), [exchange(97), exchange(98), exchange(99)]);
    assert!(since(100).is_empty());
}

#[test]
fn one_process_at_a_time_and_one_origin_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert!(matches!(Log::open(options(dir.path())), Err(crate::LogError::Locked { .. })));
    log.close();
    assert!(matches!(log.append(refusal(1), ()), Err(crate::LogError::Closed)));
    let other = crate::Options { signer: signer("trave.example/other"), ..options(dir.path()) };
    assert!(matches!(Log::open(other), Err(crate::LogError::OtherOrigin { .. })));
    assert!(Log::open(options(dir.path())).is_ok());
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    for n in 0..3 {
        let mut large = message(n);
        large.content.as_mut().unwrap().body = vec![n as u8; 100_000].into();
        block_on(log.append(large, ()).unwrap()).unwrap();
    }
    log.close();
    let (log, recovered) = Log::open(options(dir.path())).unwrap();
    assert_eq!((recovered.records, recovered.indexes_rebuilt), (4, 0));
    let ContentState::Included(parts) = &log.exchange(exchange(2)).unwrap()[0].content else { panic!() };
    assert_eq!(parts.body, vec![2; 100_000]);
    let mut too_large = message(9);
    too_large.content.as_mut().unwrap().body = vec![0; 33 << 20].into();
    assert!(matches!(log.append(too_large, ()), Err(crate::LogError::TooLarge { .. })));
}

/// What messages have in common is written again at times: damage to it costs few of them.
#[test]
fn a_form_is_written_once_in_a_while_and_not_with_every_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(crate::Options { segment_size: 8 << 20, ..options(dir.path()) }).unwrap();
    append_each(&log, 0..2_500);
    let path = dir.path().join("segments").join(crate::segment::file_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    let (mut at, mut packed, mut forms) = (512, 0, Vec::new());
    while bytes[at + 4] != 0 {
        match bytes[at + 4] {
            9 => forms.push(at),
            10 => packed += 1,
            _ => {}
        }
        at += 12 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    assert_eq!(packed, 2_500);
    assert!(at > 1 << 20 && forms.len() == at / (1 << 20) + 1, "{at} {forms:?}");
    bytes[forms[0] + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(log.record(1), Err(LogError::Damaged { .. })));
    let last = log.record(2_500).unwrap();
    assert_eq!(last.leaf, message(2_499).leaf);
    assert!(log.check().problems.iter().any(|problem| problem.contains("checksum is wrong")));
}
