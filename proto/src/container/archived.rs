//! Archive timestamps: each proves that everything before it stood as it stands now, when it was made. So certificates and
//! answers about them count although they have ended since, as long as the next one is made before the end of the last one's authority
//! (ETSI EN 319 162-1 section 4.4.5 item 2 and annex A.7).
//!
//! ```text
//! META-INF/configuration002.bin          the global configuration that names the authority, where it is another than before
//! META-INF/ASiCArchiveManifest.xml       the digest of every file before it (the last one's name; earlier ones are …001.xml on)
//! META-INF/timestamp002.tst              the token over that list
//! ```
//!
//! The standard knows a second way: an attribute inside the CAdES signature (archive-time-stamp-v3 with its ATSHashIndexV3,
//! EN 319 122-1 section 5.5). This one was chosen: it covers the files and the whole signature by the same kind of list that the
//! seal is over, written by the same code and understood by reading it; a signature once made is never opened again; and EU DSS
//! accepts it (`tests/interop/dss`). The other would need a second hashing over each certificate, answer and attribute of a
//! signature, and an order for them.

use super::archive::Entry;
use super::parts::{PartName, PartState, Wrong, mismatch};
use super::stamps::{self, StampStory};
use super::verify::configuration_in;
use super::{ContainerError, manifest};
use super::{archive_configuration_name, archive_name, token_name};
use crate::clock::Time;
use crate::conversation::TOLERANCE;
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration};

/// Most archive timestamps of one container: one in a few years is enough.
pub(super) const MAX_ARCHIVED: usize = 99;

/// What an archive timestamp tells, where it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveStory {
    /// Which, from 1.
    pub number: usize,
    /// When, and by whom.
    pub stamp: StampStory,
    /// Number of the configuration that names the authority.
    pub configuration: u64,
    /// How many files it is over.
    pub files: usize,
}

/// An archive timestamp as it stands in a container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archived<'e> {
    number: usize,
    /// Everything that it is over, and the media type.
    before: &'e [Entry],
    configuration: Option<&'e Entry>,
    manifest: &'e Entry,
    token: &'e Entry,
}

/// The archive timestamps of a container, of which `sealed` entries come before them.
pub(super) fn read(entries: &[Entry], sealed: usize) -> Result<Vec<Archived<'_>>, ContainerError> {
    let order = ContainerError::NotAContainer("its files are missing, or in another order");
    let count = entries.iter().skip(sealed).filter(|entry| entry.name.ends_with(".tst")).count();
    let (mut at, mut found) = (sealed, Vec::new());
    let named = |at: usize, name: &str| entries.get(at).filter(|entry| entry.name == name);
    for number in 1..=count.min(MAX_ARCHIVED) {
        let configuration = named(at, &archive_configuration_name(number));
        at += usize::from(configuration.is_some());
        let manifest = named(at, &if number == count { archive_name(0) } else { archive_name(number) });
        let (Some(manifest), Some(token)) = (manifest, named(at + 1, &token_name(number))) else {
            return Err(order);
        };
        found.push(Archived { number, before: &entries[..at], configuration, manifest, token });
        at += 2;
    }
    if at == entries.len() { Ok(found) } else { Err(order) }
}

impl<'e> Archived<'e> {
    pub(super) fn name(&self) -> PartName {
        PartName::ArchiveTimestamp(self.number)
    }

    pub(super) fn manifest(&self) -> &'e Entry {
        self.manifest
    }

    pub(super) fn token(&self) -> &'e Entry {
        self.token
    }

    /// The files that it consists of.
    pub(super) fn files(&self) -> Vec<String> {
        let files = self.configuration.into_iter().chain([self.manifest, self.token]);
        files.map(|entry| entry.name.clone()).collect()
    }

    /// Checks it against what stands before it. `last` is the configuration that counted until then, and the timestamp; the
    /// configuration that counts from here on is given back.
    pub(super) fn check(
        &self,
        (last, stamped): (Option<Configuration>, Option<&StampStory>),
        (anchor, now): (&Anchor, Option<Time>),
    ) -> Result<(ArchiveStory, Configuration), Wrong> {
        let refused = |why: &str| mismatch(self.name(), why);
        let untold = |why: String| (self.name(), PartState::CannotTell, why);
        let configuration = match (self.configuration, last) {
            (Some(entry), last) => {
                let own = configuration_in(&entry.data, anchor).map_err(|why| mismatch(self.name(), why))?;
                if last.is_some_and(|last| last.number() >= own.number()) {
                    return Err(refused("its configuration is not later than the one before"));
                }
                own
            }
            (None, Some(last)) => last,
            (None, None) => {
                return Err(untold("the configuration that names its authority is not known".into()));
            }
        };
        if manifest::of_archive(self.before, self.number) != self.manifest.data {
            return Err(refused("its list is not the one of the files before it"));
        }
        let digest = Digest::of(&self.manifest.data);
        let stamp = stamps::check((&self.name(), &self.token.data), &digest, &configuration, now)?;
        let Some(before) = stamped else {
            return Err(untold("the timestamp before it does not hold".into()));
        };
        if stamp.at < before.at.minus(TOLERANCE) {
            return Err(refused("it is from before the timestamp that it is over"));
        }
        if stamp.at > before.until {
            let end = before.until;
            return Err(untold(format!(
                "it came after {end}, the end of the authority before: there is a gap"
            )));
        }
        let files = self.before.len().saturating_sub(1);
        Ok((
            ArchiveStory { number: self.number, stamp, configuration: configuration.number(), files },
            configuration,
        ))
    }
}
