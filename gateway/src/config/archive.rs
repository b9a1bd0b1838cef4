//! Where closed segments of the message log are copied to.

use std::path::PathBuf;

use serde::Deserialize;
use trave_host::config::{Directory, FilePath, Problems};
use trave_message_log::ArchiveRecipient;

use super::{MOST, Parsed};

/// The archive of the message log: in a directory or in an object storage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// A directory, which must be there: best on another machine's disk.
    directory: Option<FilePath>,
    /// A bucket of an object storage.
    pub(super) object_storage: Option<ObjectStorage>,
    /// Public keys to which the archive is encrypted; each of their secret keys opens it. None of them is needed here.
    pub recipients: Vec<Parsed<ArchiveRecipient>>,
    /// Seconds between two looks for closed segments.
    #[serde(default = "minutes")]
    pub every_seconds: u64,
}

/// A bucket of an S3-compatible object storage, addressed by its path: `endpoint/bucket/prefix…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectStorage {
    /// `https://host[:port]`; `http://` on loopback.
    pub endpoint: String,
    /// As requests are signed for it.
    #[serde(default = "region")]
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// With what the names of the objects begin: two servers that share a bucket need two.
    #[serde(default)]
    pub prefix: String,
    /// Two lines, the access key's id and the secret key; readable by this server's user alone.
    pub(super) credentials_file: FilePath,
    /// Certificates (PEM) of the authorities under which the storage stands. Needed for https.
    pub(super) authorities: Option<FilePath>,
}

fn region() -> String {
    "us-east-1".into()
}

impl ObjectStorage {
    fn check(&self, problems: &mut Problems) {
        let key = |field: &str| format!("archive.object_storage.{field}");
        if let Err(why) = super::register::check_scheme(&self.endpoint) {
            problems.add(key("endpoint"), why);
        }
        if self.endpoint.starts_with("https:") && self.authorities.is_none() {
            problems.add(key("authorities"), "is absent, and the endpoint is https").hint(
                "authorities = \"storage-ca.pem\" (the certificates under which the storage's own stands)",
            );
        }
        let plain = |text: &str, others: &[u8]| {
            text.len() <= 200
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
        };
        if self.bucket.is_empty() || !plain(&self.bucket, b"-._") {
            problems.add(key("bucket"), "is not letters, digits, hyphens, dots and underscores");
        }
        if self.region.is_empty() || !plain(&self.region, b"-._") {
            problems.add(key("region"), "is not letters, digits and hyphens");
        }
        if !plain(&self.prefix, b"-._/") || self.prefix.starts_with('/') {
            problems
                .add(key("prefix"), "is not letters, digits, hyphens, dots, underscores and inner slashes")
                .hint("prefix = \"luebeck-s1/\"");
        }
    }
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
        match (&self.directory, &self.object_storage) {
            (Some(_), None) => {}
            (None, Some(storage)) => storage.check(problems),
            (None, None) => {
                problems
                    .add("archive.directory", "is absent, and so is archive.object_storage")
                    .hint("directory = \"/mnt/archive/trave\"");
            }
            (Some(_), Some(_)) => {
                problems
                    .add("archive.object_storage", "stands beside archive.directory: one archive, one place");
            }
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
