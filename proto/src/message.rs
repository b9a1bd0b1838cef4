//! The message: its manifest, its content, and the commitments that tie the two together.
//!
//! What is signed is the encoded [`Manifest`], exactly as sent. It binds the content and the caller context by salted
//! commitments alone, so that these can be erased while the signature stays provable.

mod manifest;
mod content;

pub use content::{CallerContext, Content, ContentError, Salt, commit_to_caller_context};
pub use manifest::{Code, Direction, Ending, Manifest, ManifestError, ManifestFields};

#[cfg(test)]
pub(crate) use manifest::tests::sample as tests_sample;

/// Longest body of one message, in bytes; a longer one becomes several messages.
pub const MAX_BODY: usize = 1 << 20;
/// Longest encoded head or trailers of one message, in bytes.
pub const MAX_HEAD: usize = 64 << 10;
/// Longest encoded caller context, in bytes.
pub const MAX_CALLER_CONTEXT: usize = 4 << 10;
/// Longest encoded manifest, in bytes.
pub const MAX_MANIFEST: usize = 4 << 10;
