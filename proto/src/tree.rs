//! The Merkle tree of RFC 6962 section 2.1: roots, inclusion paths and consistency proofs, and how they are verified.

mod consistency;
mod tile;

use crate::digest::Digest;

pub use consistency::{Head, consistency, is_consistent};
pub use tile::Tile;

/// The hash of a leaf (RFC 6962 section 2.1: `SHA-256(0x00 || leaf)`).
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], leaf])
}

/// The hash of an inner node (`SHA-256(0x01 || left || right)`).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// The root over `leaves`, given as leaf hashes; SHA-256 of nothing for none.
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The audit path of leaf `index` in the tree over `leaves` (RFC 6962 section 2.1.1), nearest sibling first; none if
/// there is no such leaf.
pub fn path(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    if index >= leaves.len() {
        return None;
    }
    let mut siblings = Vec::new();
    let (mut rest, mut index) = (leaves, index);
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split(rest.len()));
        if index < left.len() {
            siblings.push(root(right));
            rest = left;
        } else {
            siblings.push(root(left));
            index -= left.len();
            rest = right;
        }
    }
    siblings.reverse();
    Some(siblings)
}

/// The root over `leaves` and the audit path of each, at one hash for each node of the tree. No leaves, no paths.
pub fn root_and_paths(leaves: &[Digest]) -> (Digest, Vec<Vec<Digest>>) {
    let mut paths = vec![Vec::new(); leaves.len()];
    let root = fill(leaves, &mut paths);
    (root, paths)
}

/// Adds to each path the siblings that it passes below the root of `leaves`, which comes back.
fn fill(leaves: &[Digest], paths: &mut [Vec<Digest>]) -> Digest {
    if leaves.len() < 2 {
        return root(leaves);
    }
    let at = split(leaves.len());
    let (left_paths, right_paths) = paths.split_at_mut(at);
    let (left, right) = (fill(&leaves[..at], left_paths), fill(&leaves[at..], right_paths));
    left_paths.iter_mut().for_each(|path| path.push(right));
    right_paths.iter_mut().for_each(|path| path.push(left));
    node_hash(&left, &right)
}

/// The root that `path` leads to from `leaf` at `index` in a tree of `size` (RFC 9162 section 2.1.3.2); none if index,
/// size and length of the path do not fit each other.
pub fn root_from_path(leaf: &Digest, index: u64, size: u64, path: &[Digest]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// The root over a tree of `size`, of whose leaves those from `from` on are given, at least one, and the audit paths of the
/// first and the last of them; none if these do not fit each other. It depends on every leaf given.
pub fn root_from_range(
    leaves: &[Digest],
    from: u64,
    size: u64,
    first_path: &[Digest],
    last_path: &[Digest],
) -> Option<Digest> {
    let to = from.checked_add(leaves.len() as u64)?;
    let beside = |index: u64, path: &[Digest], left: bool| {
        let sides = sides(index, size).filter(|sides| sides.len() == path.len())?;
        let beside = sides.iter().zip(path).filter(|(side, _)| **side == left).map(|(_, hash)| *hash);
        Some(beside.collect::<Vec<_>>())
    };
    // What stands before the range is beside the way to its first leaf, the largest part first; what stands behind it is
    // beside the way to its last leaf, the nearest part first.
    let mut before = beside(from, first_path, true)?;
    before.reverse();
    let behind = beside(to.checked_sub(1)?, last_path, false)?;
    let mut outside = (before.into_iter(), behind.into_iter());
    let root = over((0, size), (from, leaves), &mut outside)?;
    (outside.0.next().is_none() && outside.1.next().is_none()).then_some(root)
}

type Outside = (std::vec::IntoIter<Digest>, std::vec::IntoIter<Digest>);

/// The root over the leaves from `first` to `end`, of which some are given.
fn over((first, end): (u64, u64), (from, leaves): (u64, &[Digest]), outside: &mut Outside) -> Option<Digest> {
    let to = from + leaves.len() as u64;
    if end <= from {
        return outside.0.next();
    }
    if first >= to {
        return outside.1.next();
    }
    if from <= first && end <= to {
        let at = |place: u64| usize::try_from(place - from).ok();
        return leaves.get(at(first)?..at(end)?).map(root);
    }
    let middle = first + (1_u64 << (end - first - 1).ilog2());
    let left = over((first, middle), (from, leaves), outside)?;
    let right = over((middle, end), (from, leaves), outside)?;
    Some(node_hash(&left, &right))
}

/// On which side each hash of the audit path of leaf `index` stands in a tree of `size`, nearest sibling first: true on
/// the left. None if there is no such leaf.
pub fn sides(index: u64, size: u64) -> Option<Vec<bool>> {
    if index >= size {
        return None;
    }
    let (mut first, mut end, mut sides) = (0, size, Vec::new());
    while end - first > 1 {
        let middle = first + (1_u64 << (end - first - 1).ilog2());
        let is_right = index >= middle;
        sides.push(is_right);
        if is_right { first = middle } else { end = middle }
    }
    sides.reverse();
    Some(sides)
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: usize) -> usize {
    1 << (usize::BITS - 1 - (len - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_leads_to_the_root_and_no_other_range_does() {
        let leaves: Vec<_> = (0..33_u8).map(|n| leaf_hash(&[n])).collect();
        for size in 1..=leaves.len() {
            let (root, paths) = root_and_paths(&leaves[..size]);
            for from in 0..size {
                for to in from + 1..=size {
                    let whole = |given: &[Digest], from: usize| {
                        root_from_range(given, from as u64, size as u64, &paths[from], &paths[to - 1])
                    };
                    assert_eq!(whole(&leaves[from..to], from), Some(root), "{from}..{to} of {size}");
                    let mut changed = leaves[from..to].to_vec();
                    changed[(to - from) / 2] = leaf_hash(b"another");
                    assert_ne!(whole(&changed, from), Some(root), "a changed leaf in {from}..{to} of {size}");
                    let mut fewer = leaves[from..to].to_vec();
                    fewer.remove((to - from) / 2);
                    assert_ne!(whole(&fewer, from), Some(root), "a leaf left out of {from}..{to} of {size}");
                }
            }
        }
        assert_eq!(root_from_range(&[], 0, 0, &[], &[]), None);
        assert_eq!(root_from_range(&leaves, u64::MAX, 40, &[], &[]), None);
    }

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn agrees_with_the_reference_tree() {
        // The test tree of certificate-transparency's own implementations.
        let inputs: [&[u8]; 8] = [
            b"",
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let hashes: Vec<_> = inputs.iter().map(|input| leaf_hash(input)).collect();
        let expected = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
        assert_eq!(root(&hashes).to_string(), expected);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(root(&[]).to_string(), empty);
    }

    proptest! {
        #[test]
        fn every_path_leads_to_the_root_and_no_other_does(count in 1_usize..80, pick in any::<prop::sample::Index>()) {
            let leaves = leaves(count);
            let index = pick.index(count);
            let path = path(&leaves, index).unwrap();
            let from = |index: usize, size: usize, path: &[Digest]| {
                root_from_path(&leaves[pick.index(count)], index as u64, size as u64, path)
            };
            prop_assert_eq!(from(index, count, &path), Some(root(&leaves)));
            let (together, mut paths) = root_and_paths(&leaves);
            prop_assert_eq!((together, &paths.swap_remove(index)), (root(&leaves), &path));
            for other in (0..count).filter(|other| *other != index) {
                prop_assert_ne!(from(other, count, &path), Some(root(&leaves)));
            }
            let by_sides = path.iter().zip(sides(index as u64, count as u64).unwrap()).fold(
                leaves[index],
                |hash, (sibling, left)| if left { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) },
            );
            prop_assert_eq!(by_sides, root(&leaves));
            let mut longer = path.clone();
            longer.push(leaves[0]);
            prop_assert_eq!(from(index, count, &longer), None);
            if let Some((_, shorter)) = path.split_last() {
                prop_assert_eq!(from(index, count, shorter), None);
            }
        }
    }
}
