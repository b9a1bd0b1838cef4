//! The proof: one file with which a stranger verifies an exchange – who asked whom for what, when, on which legal basis,
//! and what was answered – years later, without a network and without asking either of the two states.
//!
//! A proof file is the line `trave proof v1` followed by the canonical encoding of the schema's `Proof`. A [`Proof`] has
//! been read and nothing more: everything in it is a claim until [`verify`] has followed it back to the verifier's own
//! [`Anchor`](crate::global_configuration::Anchor):
//!
//! ```text
//! anchor ─▶ configuration ─▶ log key ─▶ checkpoint ◀─ timestamp
//!                  │                        ▲
//!                  ▼                        │ inclusion
//!            certificates ─▶ signature ─▶ leaf ─▶ manifest ─▶ content
//! ```
//!
//! [`Report`] says what holds, what does not, what cannot be told, and what no proof of this kind can show.

mod verify;
mod exchange;
mod contents;
mod permission;
mod signers;
mod seal;
mod trust;
mod reading;
mod builder;
mod limits;
mod story;
mod report;

use bytes::Bytes;
use prost::Message;

use crate::schema::proof as schema;

pub use builder::{BuildError, Exported, ExportedContent, ExportedMessage, ProofBuilder};
pub use contents::{Said, said};
pub use report::{Check, CheckName, Conclusion, NotProved, Outcome, Report};
pub use story::{
    Acknowledged, Answer, Asked, CallerContextStory, Completeness, ContentStory, Ended, Erased, GrantStory,
    MessageStory, Named, Sealed, Side, Story, Term, WitnessStory,
};
pub use verify::verify;

/// The first line of a proof file.
pub const FIRST_LINE: &[u8] = b"trave proof v1\n";
/// Longest proof file that is read, in bytes.
pub const MAX_PROOF: usize = 256 << 20;

/// What every first line has in common, whatever its version.
const FAMILY: &[u8] = b"trave proof v";
/// The versions of the format read and written here: without and with cosignatures of the checkpoint.
const PLAIN: u32 = 1;
const COSIGNED: u32 = 2;

/// Why bytes are no proof that this release can read.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Longer than [`MAX_PROOF`].
    #[error("the file has {0} bytes; a proof has at most {MAX_PROOF}")]
    TooLong(usize),
    /// The first line is not that of a proof.
    #[error("this is no proof file: it does not begin with \"trave proof v1\"")]
    NotAProof,
    /// A proof of another version.
    #[error("this proof has a version that is not known here: use a newer trave-verify")]
    Version,
    /// More of something than any proof has, or not protobuf.
    #[error("the file is damaged or was never a proof: {0}")]
    Malformed(&'static str),
    /// Protobuf, but not of this type.
    #[error("the file is damaged or was never a proof")]
    Encoding(#[source] prost::DecodeError),
    /// Another way to write the same: unknown fields, or fields out of order.
    #[error("the file is not written in the one canonical form, so it was altered or is of a newer version")]
    NotCanonical,
}

/// A proof that has been read, and not verified in any way.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    raw: schema::Proof,
}

impl Proof {
    /// Reads a proof file: canonical, and with bounds on every count and length before anything is built of it.
    pub fn parse(file: impl Into<Bytes>) -> Result<Self, ProofError> {
        let file: Bytes = file.into();
        if file.len() > MAX_PROOF {
            return Err(ProofError::TooLong(file.len()));
        }
        if !file.starts_with(FIRST_LINE) {
            let other = file.starts_with(FAMILY);
            return Err(if other { ProofError::Version } else { ProofError::NotAProof });
        }
        let body = file.slice(FIRST_LINE.len()..);
        limits::check(&body).map_err(ProofError::Malformed)?;
        let raw = schema::Proof::decode(body.clone()).map_err(ProofError::Encoding)?;
        let cosigned = raw.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.cosignatures.is_empty());
        if raw.version > if cosigned { COSIGNED } else { PLAIN } {
            return Err(ProofError::Version);
        }
        if cosigned && raw.version != COSIGNED {
            return Err(ProofError::NotCanonical);
        }
        if raw.encoded_len() != body.len() || raw.encode_to_vec() != body {
            return Err(ProofError::NotCanonical);
        }
        Ok(Self { raw })
    }

    /// The file.
    pub fn encode(&self) -> Bytes {
        let mut file = FIRST_LINE.to_vec();
        file.reserve(self.raw.encoded_len());
        self.raw.encode_raw(&mut file);
        file.into()
    }

    /// What the file says, unverified.
    pub fn raw(&self) -> &schema::Proof {
        &self.raw
    }
}
