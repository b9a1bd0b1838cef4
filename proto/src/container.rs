//! The proof in a form that other people's programs know: an ASiC-E container (ETSI EN 319 162-1) with the native proof, its
//! contents as files, and a report, under the seal of whoever exported it (CAdES, EN 319 122-1, with a timestamp).
//!
//! ```text
//! mimetype                        application/vnd.etsi.asic-e+zip
//! README.txt  report.*.txt        for people, in German and English
//! parts.txt                       which part is here and which is not, for programs
//! configuration.bin               the global configuration that names the exporter's key and the timestamping authority
//! exchange.proof                  the native proof
//! request/…  response/…           head, body, trailers, made of the proof
//! META-INF/ASiCManifest001.xml    the digest of each of these
//! META-INF/signature001.p7s       the seal over that list
//! META-INF/ASiCArchiveManifest.xml  META-INF/timestamp001.tst
//!                                 the digest of each of all these, and the archive timestamp over that list
//! ```
//!
//! The two say different things. The seal says: this security server gave out these files at this time, and they are unaltered;
//! every validator of eIDAS signatures can check that. What was asked and answered, the proof says, and [`verify`] checks both
//! and that the files beside the proof are the very ones that it commits to. The seal is no qualified one.
//!
//! [`Unsealed`] is signed to become [`Unstamped`], which is stamped to become [`Unarchived`], which is stamped once more, over
//! everything, to become a file; the last step verifies what it made. Years later a file becomes [`Unarchived`] again
//! ([`Unarchived::renewed`]), to prove as much after the certificates in it have ended.

mod page;
mod sealing;
mod archiving;
mod verify;
mod archived;
mod stamps;
mod parts;
mod cades;
mod manifest;
mod archive;

use archive::Entry;
pub use archive::{ArchiveError, MAX_CONTAINER};
pub use archived::ArchiveStory;
pub use archiving::Unarchived;
use bytes::Bytes;
pub use page::of as page;
pub use parts::{Part, PartName, PartState};
pub use sealing::{Unsealed, Unstamped};
pub use stamps::{StampStory, StampingAuthority};
pub use verify::{ContainerReport, SealPieces, SealStory, seal_of, verify};

use crate::clock::Time;

/// The media type of a container.
pub const MEDIA_TYPE: &str = "application/vnd.etsi.asic-e+zip";

const MIMETYPE_NAME: &str = "mimetype";
const README_NAME: &str = "README.txt";
const GERMAN_NAME: &str = "report.de.txt";
const ENGLISH_NAME: &str = "report.en.txt";
const PARTS_NAME: &str = "parts.txt";
const CONFIGURATION_NAME: &str = "configuration.bin";
const PROOF_NAME: &str = "exchange.proof";
const MANIFEST_NAME: &str = "META-INF/ASiCManifest001.xml";
const SIGNATURE_NAME: &str = "META-INF/signature001.p7s";

/// What stands before the contents, in this order.
const BEFORE: [&str; 7] =
    [MIMETYPE_NAME, README_NAME, GERMAN_NAME, ENGLISH_NAME, PARTS_NAME, CONFIGURATION_NAME, PROOF_NAME];
/// What stands after them.
const AFTER: [&str; 2] = [MANIFEST_NAME, SIGNATURE_NAME];

/// The list of archive timestamp `number`; of the last one, 0 (annex A.7: with the next one it gets its number).
fn archive_name(number: usize) -> String {
    if number == 0 {
        "META-INF/ASiCArchiveManifest.xml".into()
    } else {
        format!("META-INF/ASiCArchiveManifest{number:03}.xml")
    }
}

fn token_name(number: usize) -> String {
    format!("META-INF/timestamp{number:03}.tst")
}

fn archive_configuration_name(number: usize) -> String {
    format!("META-INF/configuration{number:03}.bin")
}

/// Why there is no container, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Not an archive as containers are.
    #[error("{0}")]
    Archive(#[source] ArchiveError),
    /// An archive, and not of the files of a container.
    #[error("this is no container of a Trave proof: {0}")]
    NotAContainer(&'static str),
    /// The proof does not hold, or cannot be told, so it is not sealed.
    #[error("the proof does not hold, so it is not sealed: {0}")]
    Proof(String),
    /// The contents cannot be written as files.
    #[error("the contents of the exchange cannot be written as files: {0}")]
    Contents(&'static str),
    /// The signature is not by the exporter's key.
    #[error("the signing key made a signature that does not verify")]
    Signature,
    /// The container gets no archive timestamp: it does not hold as it is.
    #[error("the container does not hold, so it gets no archive timestamp: {0}")]
    NotRenewed(String),
    /// The authority of its last timestamp has ended.
    #[error(
        "it is too late: the certificate of the authority of its last timestamp ended at {0}, and a new timestamp cannot say what \
         was before it (an archive timestamp is renewed in time)"
    )]
    TooLate(Time),
    /// The configuration in use is older than the container's.
    #[error(
        "the global configuration in use here, number {own}, is older than the container's, number {found}: run this where a \
         newer one is known"
    )]
    Older {
        /// Here.
        own: u64,
        /// In the container.
        found: u64,
    },
    /// What was made does not verify.
    #[error("the container does not hold, so it is not given out: {0}")]
    DoesNotHold(String),
}

/// Several files in one archive, written as containers are, and sealed by nobody.
///
/// # Errors
/// If a name is not of letters, digits, dots and hyphens, or the whole is too large.
pub fn bundle(files: impl IntoIterator<Item = (String, Bytes)>) -> Result<Bytes, ContainerError> {
    let entries: Vec<_> = files.into_iter().map(|(name, data)| Entry::new(name, data)).collect();
    archive::write(&entries).map(Bytes::from).map_err(ContainerError::Archive)
}

/// Whether a file begins as containers do and proofs do not.
pub fn is_container(file: &[u8]) -> bool {
    archive::is_archive(file)
}
