//! The kept tree gives the roots, paths, proofs and tiles of the definition, and none where its files were changed.

use super::*;
use crate::disk::RealDisk;
use trave_proto::tree;

#[test]
fn roots_and_paths_agree_with_the_definition_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let leaves: Vec<_> = (0..1_500_u32).map(|i| tree::leaf_hash(&i.to_be_bytes())).collect();
    let mut grown = Tree::create(&disk, dir.path()).unwrap();
    for (at, leaf) in leaves.iter().enumerate() {
        grown.append(*leaf).unwrap();
        if at == 700 {
            grown.persist().unwrap();
            grown = Tree::load(&disk, dir.path(), 701).unwrap().unwrap();
        }
    }
    for size in [0, 1, 2, 3, 255, 256, 257, 511, 513, 700, 701, 1_024, 1_300, 1_499, 1_500] {
        let root = tree::root(&leaves[..size]);
        assert_eq!(grown.root(size as u64).unwrap(), root, "size {size}");
        for index in (0..size).step_by(37) {
            let path = grown.path(index as u64, size as u64).unwrap();
            assert_eq!(Some(&path), tree::path(&leaves[..size], index).as_ref());
        }
    }
    for size in [1, 2, 255, 256, 257, 513, 701, 1_300, 1_500] {
        for old in (0..=size).filter(|old| old % 37 == 0 || [1, 2, 255, 256, 257, 512, size].contains(old)) {
            let proof = grown.consistency(old as u64, size as u64).unwrap();
            assert_eq!(Some(proof), tree::consistency(&leaves[..size], old), "{old} to {size}");
        }
    }
    assert!(grown.consistency(4, 3).is_err() && grown.consistency(3, 1_501).is_err());
    assert!(grown.root(1_501).is_err() && grown.path(3, 3).is_err() && grown.leaf(1_500).is_err());
    assert_eq!(grown.leaf(3).unwrap(), leaves[3]);
}

#[test]
fn tiles_are_those_of_the_definition_and_lead_to_every_root() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let leaves: Vec<_> = (0..66_000_u32).map(|i| tree::leaf_hash(&i.to_be_bytes())).collect();
    let mut grown = Tree::create(&disk, dir.path()).unwrap();
    leaves.iter().for_each(|leaf| grown.append(*leaf).unwrap());
    for path in [
        "/tile/0/000",
        "/tile/0/000.p/1",
        "/tile/0/003.p/17",
        "/tile/0/256",
        "/tile/0/257.p/208",
        "/tile/1/000",
        "/tile/1/000.p/9",
        "/tile/1/001.p/1",
        "/tile/2/000.p/1",
    ] {
        let tile = Tile::parse(path).unwrap();
        let under = tile.leaves().unwrap();
        let one = (under.end - under.start) / u64::from(tile.width());
        let hashes = grown.tile(&tile).unwrap();
        assert_eq!(hashes.len(), usize::from(tile.width()));
        for (hash, start) in hashes.iter().zip((under.start..).step_by(one as usize)) {
            let defined = tree::root(&leaves[start as usize..(start + one) as usize]);
            assert_eq!(*hash, defined, "{path} at leaf {start}");
        }
        for size in [under.end, under.end + 1, 65_536, 65_537, 65_999, 66_000] {
            if size < under.end || size > leaves.len() as u64 {
                continue;
            }
            let root = tree::root(&leaves[..size as usize]);
            assert_eq!(grown.through((&under, &hashes), 0, size).unwrap(), root, "{path} in {size}");
            let mut wrong = hashes.clone();
            wrong[hashes.len() / 2] = tree::leaf_hash(b"another");
            assert_ne!(grown.through((&under, &wrong), 0, size).unwrap(), root, "{path} in {size}");
        }
    }
    assert!(grown.tile(&Tile::parse("/tile/3/000.p/1").unwrap()).is_err());
}

#[test]
fn a_changed_hash_gives_no_root() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut grown = Tree::create(&disk, dir.path()).unwrap();
    for i in 0..700_u32 {
        grown.append(tree::leaf_hash(&i.to_be_bytes())).unwrap();
    }
    grown.persist().unwrap();
    assert!(grown.root(100).is_ok());
    let level = dir.path().join("level-0");
    let mut hashes = std::fs::read(&level).unwrap();
    hashes[3 * 32] ^= 1;
    std::fs::write(&level, &hashes).unwrap();
    assert!(grown.root(100).is_err(), "read from the file, and proved wrong");
    assert!(grown.root(700).is_ok(), "from memory");
}

#[test]
fn what_the_files_do_not_hold_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut grown = Tree::create(&disk, dir.path()).unwrap();
    for i in 0..300_u32 {
        grown.append(tree::leaf_hash(&i.to_be_bytes())).unwrap();
    }
    grown.persist().unwrap();
    assert!(Tree::load(&disk, dir.path(), 300).unwrap().is_some());
    assert_eq!(grown.root(300).unwrap(), grown.head());
    assert!(Tree::load(&disk, dir.path(), 301).unwrap().is_none());
    std::fs::remove_file(dir.path().join("level-1")).unwrap();
    assert!(Tree::load(&disk, dir.path(), 300).unwrap().is_none());
}
