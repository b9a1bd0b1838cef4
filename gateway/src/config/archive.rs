//! Where closed segments of the message log are copied to.

use std::path::PathBuf;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_message_log::ArchiveRecipient;

use super::{MOST, Parsed};

/// The archive of the message log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// A directory, which must be there: best on another machine's disk.
    directory: Option<FilePath>,
    /// Public keys to which the archive is encrypted; each of their secret keys opens it. None of them is needed here.
    pub recipients: Vec<Parsed<ArchiveRecipient>>,
    /// Seconds between two looks for closed segments.
    #[serde(default = "minutes")]
    pub every_seconds: u64,
}

const fn minutes() -> u64 {
    300
}

impl Archive {
    /// The directory, if it is one.
    pub(super) fn directory(&self, from: &Directory) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.within(from))
    }

    pub(super) fn check(&self, segment_mib: u64, problems: &mut Problems) {
        if self.directory.is_none() {
            problems.add("archive.directory", "is absent").hint("directory = \"/mnt/archive/trave\"");
        }
        if !(1..=16).contains(&self.recipients.len()) {
            problems.add("archive.recipients", "are not between 1 and 16 public keys").hint(
                "`trave-gateway archive keygen --out archive.key` makes a key and prints its public one",
            );
        }
        if self.every_seconds == 0 || self.every_seconds > MOST {
            problems.add("archive.every_seconds", format!("is not between 1 and {MOST}"));
        }
        if segment_mib > 1_000 {
            problems.add("log.segment_mib", "is more than 1000, and larger segments are not archived");
        }
    }
}
