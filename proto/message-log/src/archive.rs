//! The archive of a log: each closed segment as one object, compressed, encrypted to keys that this server does not hold,
//! and verifiable alone.
//!
//! An object is named by the log's origin and the segment's first leaf. Inside the encryption stands what is needed to read
//! it without the others ([`object`]): a head with the state of the tree before it, a signed checkpoint that covers it and
//! the proof that leads there, then the segment as it stands on the disk. The keys of contents are never in it: erasing a
//! key erases every archived copy. What an archive holds counts only once it was read back, and a record in the log says so.

pub(crate) mod repair;
pub(crate) mod restoring;
pub(crate) mod whole;
pub(crate) mod keys;
pub(crate) mod object;
pub(crate) mod sealed;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod writing;

use trave_proto::digest::Digest;

pub use keys::{ArchiveIdentity, ArchiveRecipient};
pub use repair::Repaired;
pub use restoring::Source;
pub use state::{ArchiveState, PruningApplication};
pub use store::{ArchiveStore, DirectoryStore, Fill};
pub use whole::{Progress, Whole};

/// Where a log is archived to, and for whom.
#[derive(Debug)]
pub struct Archive {
    /// Where objects are kept.
    pub store: Box<dyn ArchiveStore>,
    /// Each of these keys opens every object.
    pub recipients: Vec<ArchiveRecipient>,
}

/// The name of an object: of the segment that begins with leaf `first`, archived for the `serial`-th time, counted from 0.
pub(crate) fn object_name(origin: &str, first: u64, serial: u32) -> String {
    format!("{}-{first:020}-{serial:04}{ENDING}", stem(origin))
}

/// First leaf and serial number of an object of this origin; none if it is not the name of one.
pub(crate) fn parse_name(origin: &str, name: &str) -> Option<(u64, u32)> {
    let numbers = name.strip_prefix(&stem(origin))?.strip_prefix('-')?.strip_suffix(ENDING)?;
    let (first, serial) = numbers.split_once('-')?;
    let parsed = (first.parse().ok()?, serial.parse().ok()?);
    (object_name(origin, parsed.0, parsed.1) == name).then_some(parsed)
}

const ENDING: &str = ".trave-archive";

/// Names of files and of S3 objects take letters, digits, dot and minus alike; what else an origin holds is replaced, and
/// its digest keeps two of them apart.
fn stem(origin: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    let digest = Digest::of(origin.as_bytes());
    let digest: String = digest.as_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{digest}", origin.chars().map(plain).take(120).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_for_their_own_origin_alone() {
        let origin = "trave.example/NORD/SH/luebeck/s1/1";
        let name = object_name(origin, 77, 3);
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{name}");
        assert_eq!(parse_name(origin, &name), Some((77, 3)));
        assert_eq!(parse_name("trave.example/NORD/SH/luebeck/s1_1", &name), None);
        assert_eq!(parse_name(origin, &format!("{name}.tmp")), None);
        assert_eq!(parse_name(origin, &name.replace("0077", "0+77")), None);
    }
}
