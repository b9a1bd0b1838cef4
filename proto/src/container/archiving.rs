//! How a container gets an archive timestamp: with its seal, and again, years later, before the last one's authority ends.

use bytes::Bytes;
use prost::Message as _;

use super::archive::{self, Entry};
use super::archived::{self, MAX_ARCHIVED};
use super::verify::{ContainerReport, configuration_in, sealed_files, verify};
use super::{
    CONFIGURATION_NAME, ContainerError, archive_configuration_name, archive_name, manifest, token_name,
};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration};
use crate::proof::Conclusion;

/// A container that wants an archive timestamp over all that it holds.
#[derive(Debug)]
pub struct Unarchived {
    /// Everything that it is over.
    entries: Vec<Entry>,
    number: usize,
    manifest: Vec<u8>,
}

impl Unarchived {
    /// A container of before, which is verified first: what does not hold gets no new timestamp. `configuration` is the one in
    /// force at `now`, which names the authority to be asked.
    ///
    /// # Errors
    /// Where it does not hold, has too many archive timestamps, was sealed under a later configuration, or comes too late: the
    /// last timestamp's authority has ended.
    pub fn renewed(
        file: &Bytes,
        (anchor, configuration): (&Anchor, &Configuration),
        now: Time,
    ) -> Result<Self, ContainerError> {
        let report = verify(file, anchor, Some(now))?;
        let last = report.last_stamp().filter(|_| report.conclusion == Conclusion::Holds);
        let last = last.ok_or_else(|| ContainerError::NotRenewed(report.why.join("; ")))?;
        if now > last.until {
            return Err(ContainerError::TooLate(last.until));
        }
        let mut entries = archive::read(file).map_err(ContainerError::Archive)?;
        let before = archived::read(&entries, sealed_files(&entries))?.len();
        if before == MAX_ARCHIVED {
            return Err(ContainerError::NotRenewed(format!("it has {MAX_ARCHIVED} archive timestamps")));
        }
        if let Some(newest) = entries.iter_mut().find(|entry| entry.name == archive_name(0)) {
            newest.name = archive_name(before);
        }
        Self::over(entries, before + 1, (anchor, configuration))
    }

    /// A container that was just sealed.
    pub(super) fn sealed(
        entries: Vec<Entry>,
        trusted: (&Anchor, &Configuration),
    ) -> Result<Self, ContainerError> {
        Self::over(entries, 1, trusted)
    }

    fn over(
        mut entries: Vec<Entry>,
        number: usize,
        (anchor, configuration): (&Anchor, &Configuration),
    ) -> Result<Self, ContainerError> {
        let is_one = |entry: &&Entry| {
            entry.name == CONFIGURATION_NAME
                || (1..number).any(|one| entry.name == archive_configuration_name(one))
        };
        let last = entries.iter().rfind(is_one).map(|entry| configuration_in(&entry.data, anchor));
        let last = last.unwrap_or_else(|| Err("there is none".into())).map_err(ContainerError::NotRenewed)?;
        if last.number() > configuration.number() {
            return Err(ContainerError::Older { own: configuration.number(), found: last.number() });
        }
        if last.digest() != configuration.digest() {
            let encoded = configuration.signed().encode_to_vec();
            entries.push(Entry::new(archive_configuration_name(number), encoded));
        }
        let manifest = manifest::of_archive(&entries, number);
        Ok(Self { entries, number, manifest })
    }

    /// What the archive timestamp is over: the SHA-256 of its list.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The file, with the archive timestamp (TimeStampToken, DER). It is verified against `anchor` before it is given out; `now` is
    /// the maker's time.
    pub fn archived(
        self,
        token: Bytes,
        anchor: &Anchor,
        now: Time,
    ) -> Result<(Bytes, ContainerReport), ContainerError> {
        let Self { mut entries, number, manifest } = self;
        entries.push(Entry::new(archive_name(0), manifest));
        entries.push(Entry::new(token_name(number), token));
        let file = Bytes::from(archive::write(&entries).map_err(ContainerError::Archive)?);
        let report = verify(&file, anchor, Some(now))?;
        if report.conclusion == Conclusion::Holds {
            Ok((file, report))
        } else {
            Err(ContainerError::DoesNotHold(report.why.join("; ")))
        }
    }
}
