//! Message log: what was asked, answered, refused, changed and read, in an order that nobody can alter unseen.
//!
//! Words of durability, and what a crash leaves at each: a record is *queued* (a crash loses it; nobody was told
//! anything), *durable* ([`Logged`]: it and all before it survive a power cut), *checkpointed* ([`SignedCheckpoint`]: it
//! can no longer be taken back without contradiction), *timestamped*. A content may be *erased*; its record stays.
//!
//! On the disk: `segments/` holds the truth and, beside each closed segment, its index and its search index (and of a pruned one these, and what is kept of it), `tree/` the hashes of the Merkle
//! tree, `keys/` the keys of the contents (leave it out of archives and ordinary backups: whoever has it and the segments
//! reads everything, and whoever keeps it un-erases), `checkpoint` what was last given away, `erasures` which erasures could
//! not be finished so far, `restored` that it came out of an archive. Modules stand from the door to the
//! cellar. [`store`] is a small database for what may be lost, in a directory of its own.

mod log;
mod pending;
mod prepare;
mod check;
mod pruning;
mod archive;
mod schedule;
mod recovery;
mod committer;
mod continuity;
mod keeper;
mod search;
mod compaction;
mod gathering;
mod erasure;
mod forgetting;
mod concerned;
mod reading;
mod finding;
mod shared;
mod remnant;
mod expiry;
mod group;
mod open_segment;
mod scan;
mod search_index;
mod index;
mod tree;
mod key_ring;
mod keys;
mod segment;
mod entry;
mod contents;
mod packing;
mod record;
mod pseudonyms;
mod person;
mod reference;
pub mod store;
pub mod batching;
mod error;
mod disk;

pub use archive::{
    Archive, ArchiveIdentity, ArchiveRecipient, ArchiveState, ArchiveStore, DirectoryStore, Fill, Progress,
    PruningApplication, Repaired, Source, Whole,
};
pub use check::Report;
pub use contents::ContentParts;
pub use entry::{Artefact, Entry, MAX_PERSONS, kind};
pub use error::LogError;
pub use log::archiving::{Prunable, RangeHere};
pub use log::earlier::EarlierLog;
pub use log::{Concerned, ErasedPerson, Log, Options};
pub use pending::{Logged, Pending};
pub use person::{PLAIN_SCHEME, Person, PersonError, is_scheme};
pub use pseudonyms::Period;
pub use reading::{ContentState, StoredRecord};
pub use recovery::{Left, what_is_left};
pub use reference::{MAX_REFERENCE, Reference};
pub use schedule::{Due, PrunedRecord, Schedule, SegmentSpan, Survey};
pub use search::{Count, Found, Search, Searcher};
pub use shared::{Counters, Recovered, SignedCheckpoint};

#[cfg(test)]
mod tests;
