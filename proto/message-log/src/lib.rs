//! Message log: segment files, group commit, Merkle tree, checkpoints, contents.
