//! SHA-256 digests, and the tags with which every hash and signature of ours begins.

use std::fmt;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// A SHA-256 digest (FIPS 180-4), 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; SHA256_OUTPUT_LEN]);

impl Digest {
    /// Bytes of a digest.
    pub const LEN: usize = SHA256_OUTPUT_LEN;

    /// The digest of `bytes`, without a tag: for what a standard or a file defines byte for byte.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// The digest of the concatenation of `parts`. The caller sees to it that the concatenation is unambiguous.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// The digest of the concatenation of `parts`, however many they are. As with [`Self::of_parts`].
    pub fn of_each<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part.as_ref());
        }
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// A digest as it stands in a message; none if it has not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A digest from its bytes.
    pub const fn from_bytes(bytes: [u8; SHA256_OUTPUT_LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; SHA256_OUTPUT_LEN] {
        &self.0
    }

    /// The 32 bytes as a message holds them.
    pub fn to_bytes(self) -> bytes::Bytes {
        // Of an owner: whatever encodes it clones it, and the first clone of copied bytes allocates once more.
        bytes::Bytes::from_owner(self.0)
    }

    /// The first 16 hexadecimal digits, in groups of four: what people compare by eye.
    pub fn short(&self) -> String {
        let hex = hex::encode(&self.0[..8]);
        [&hex[0..4], &hex[4..8], &hex[8..12], &hex[12..16]].join(" ")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Versioned tags. Two things that are hashed or signed for different ends never have the same bytes.
pub mod tag {
    /// A batch signature over manifests.
    pub const BATCH_SIGNATURE: &[u8] = b"trave batch signature v1\n";
    /// What two message logs are compared by.
    pub const RECONCILIATION: &[u8] = b"trave reconciliation v1\n";
    /// What one log holds, as the answer to a challenge of another server.
    pub const RECONCILIATION_ANSWER: &[u8] = b"trave reconciliation answer v2\n";
    /// The commitment to a content.
    pub const CONTENT: &[u8] = b"trave content v1\n";
    /// The commitment to a caller context.
    pub const CALLER_CONTEXT: &[u8] = b"trave caller context v1\n";
    /// A configuration key's signature over a global configuration.
    pub const CONFIGURATION: &[u8] = b"trave global configuration v1\n";
    /// A configuration key's signature over an anchor.
    pub const ANCHOR: &[u8] = b"trave anchor signature v1\n";
    /// An administrator's application for an act.
    pub const ACT_APPLIED: &[u8] = b"trave act applied v1\n";
    /// An administrator's approval of an act.
    pub const ACT_APPROVED: &[u8] = b"trave act approved v1\n";
    /// The keys of an enrolling security server.
    pub const ENROLMENT: &[u8] = b"trave enrolment v1\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_fips_180_4() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        assert_eq!(Digest::of_parts(&[b"a", b"", b"bc"]), Digest::of(b"abc"));
        assert_eq!(Digest::of(b"abc").short(), "ba78 16bf 8f01 cfea");
        assert_eq!(Digest::from_slice(&[0; 31]), None);
    }
}
