//! Consistency proofs: that a larger tree holds a smaller one unchanged, and only adds to it (RFC 6962 section 2.1.2).

use super::{node_hash, root, split};
use crate::digest::Digest;

/// The proof that the tree over `leaves` continues the one over the first `old` of them; none if there are not so many.
/// It is empty where there is nothing to prove: from the empty tree, and from the tree to itself.
pub fn consistency(leaves: &[Digest], old: usize) -> Option<Vec<Digest>> {
    if old > leaves.len() {
        return None;
    }
    if old == 0 || old == leaves.len() {
        return Some(Vec::new());
    }
    let (mut rest, mut old, mut is_known, mut proof) = (leaves, old, true, Vec::new());
    while old < rest.len() {
        let (left, right) = rest.split_at(split(rest.len()));
        if old <= left.len() {
            proof.push(root(right));
            rest = left;
        } else {
            proof.push(root(left));
            (rest, old, is_known) = (right, old - left.len(), false);
        }
    }
    // The root of the whole old tree is what the verifier has; of a part of it, it is not.
    if !is_known {
        proof.push(root(rest));
    }
    proof.reverse();
    Some(proof)
}

/// A tree as a checkpoint tells it: number of leaves and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

/// Whether `proof` shows that the tree `new` continues the tree `old` (RFC 9162 section 2.1.4.2). From the empty tree and
/// from a tree to itself the proof must be empty; the root of the empty tree is SHA-256 of nothing.
pub fn is_consistent(old: &Head, new: &Head, proof: &[Digest]) -> bool {
    if [old, new].iter().any(|head| head.size == 0 && head.root != root(&[])) {
        return false;
    }
    if old.size == 0 || old.size == new.size {
        return proof.is_empty() && (old.size == 0 || old.root == new.root);
    }
    old.size < new.size && roots(old, new.size, proof) == Some((old.root, new.root))
}

/// The roots of the old and the new tree to which `proof` leads; none if sizes and length of the proof do not fit.
fn roots(old: &Head, new_size: u64, proof: &[Digest]) -> Option<(Digest, Digest)> {
    let (mut node, mut last) = (old.size - 1, new_size - 1);
    // Up to the largest complete subtree that ends with the old tree.
    let up = node.trailing_ones();
    node = node.checked_shr(up).unwrap_or(0);
    last = last.checked_shr(up).unwrap_or(0);
    let (first, rest) = if old.size.is_power_of_two() {
        (old.root, proof)
    } else {
        proof.split_first().map(|(f, r)| (*f, r))?
    };
    let (mut old_root, mut new_root) = (first, first);
    for hash in rest {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            (old_root, new_root) = (node_hash(hash, &old_root), node_hash(hash, &new_root));
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_root = node_hash(&new_root, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some((old_root, new_root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::leaf_hash;

    const MOST: usize = 40;

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf_hash(&[u8::try_from(i).unwrap()])).collect()
    }

    fn head(leaves: &[Digest]) -> Head {
        Head { size: leaves.len() as u64, root: root(leaves) }
    }

    #[test]
    fn every_pair_of_sizes_is_proved() {
        let all = leaves(MOST);
        for new in 0..=MOST {
            for old in 0..=new {
                let proof = consistency(&all[..new], old).unwrap();
                assert!(is_consistent(&head(&all[..old]), &head(&all[..new]), &proof), "{old} to {new}");
                assert!(proof.len() <= 63);
            }
            assert_eq!(consistency(&all[..new], new + 1), None);
        }
    }

    #[test]
    fn no_other_tree_size_or_proof_passes_for_any_pair() {
        let all = leaves(MOST);
        let stranger = leaf_hash(b"stranger");
        for new in 1..=MOST {
            for old in 1..=new {
                let (small, large) = (head(&all[..old]), head(&all[..new]));
                let proof = consistency(&all[..new], old).unwrap();
                for at in 0..proof.len() {
                    let mut altered = proof.clone();
                    altered[at] = stranger;
                    assert!(!is_consistent(&small, &large, &altered), "{old} to {new}, hash {at}");
                }
                let mut longer = proof.clone();
                longer.push(stranger);
                assert!(!is_consistent(&small, &large, &longer), "{old} to {new}, longer");
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!is_consistent(&small, &large, shorter), "{old} to {new}, shorter");
                }
                let other = |head: &Head| Head { root: stranger, ..*head };
                assert!(!is_consistent(&other(&small), &large, &proof), "{old} to {new}, old root");
                assert!(!is_consistent(&small, &other(&large), &proof), "{old} to {new}, new root");
                if old != new {
                    assert!(!is_consistent(&large, &small, &proof), "{new} back to {old}");
                }
            }
        }
    }

    /// A leaf changed, dropped or put in before the old size leaves no proof, whoever makes it.
    #[test]
    fn a_history_that_was_rewritten_has_no_proof() {
        let all = leaves(MOST);
        for old in 1..MOST {
            for at in 0..old {
                let small = head(&all[..old]);
                let mut changed = all.clone();
                changed[at] = leaf_hash(b"other");
                let mut dropped = all.clone();
                dropped.remove(at);
                for forged in [changed, dropped] {
                    let proof = consistency(&forged, old).unwrap();
                    assert!(!is_consistent(&small, &head(&forged), &proof), "{old}, record {at}");
                }
            }
        }
    }

    #[test]
    fn the_empty_tree_has_one_root() {
        let all = leaves(3);
        let empty = head(&[]);
        assert!(is_consistent(&empty, &head(&all), &[]) && is_consistent(&empty, &empty, &[]));
        let false_empty = Head { size: 0, root: all[0] };
        assert!(!is_consistent(&false_empty, &head(&all), &[]));
        assert!(!is_consistent(&empty, &false_empty, &[]));
        assert!(!is_consistent(&empty, &head(&all), &[all[0]]), "nothing to prove, so no proof");
    }

    /// The examples of RFC 6962 section 2.1.3: from 3, 4 and 6 leaves to 7.
    #[test]
    fn agrees_with_the_examples_of_the_rfc() {
        let d = leaves(7);
        let node = |range: std::ops::Range<usize>| root(&d[range]);
        assert_eq!(consistency(&d, 3).unwrap(), [node(2..3), node(3..4), node(0..2), node(4..7)]);
        assert_eq!(consistency(&d, 4).unwrap(), [node(4..7)]);
        assert_eq!(consistency(&d, 6).unwrap(), [node(4..6), node(6..7), node(0..4)]);
    }

    #[test]
    fn sizes_at_the_end_of_the_numbers_do_not_overflow() {
        let some = leaves(3);
        let huge = Head { size: u64::MAX, root: some[0] };
        assert!(!is_consistent(&Head { size: u64::MAX - 1, root: some[1] }, &huge, &some));
        assert!(!is_consistent(&Head { size: 1 << 63, root: some[1] }, &huge, &some));
    }
}
