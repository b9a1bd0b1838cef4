//! What a security server's certificate must look like, and what it says.

use super::{AlternativeName, Certificate, ChainError, PublicKey};
use crate::clock::Time;
use crate::digest::Digest;
use crate::identifier::{MemberId, ServerId};

const MEMBER_URI: &str = "urn:trave:member:";
const SERVER_URI: &str = "urn:trave:server:";

/// What a security server's certificate is for. The two never meet in one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// TLS between security servers: key usage digitalSignature; extended key usage clientAuth and serverAuth.
    Authentication,
    /// Messages: key usage digitalSignature and contentCommitment; extended key usage documentSigning (RFC 9336).
    Signing,
}

impl Profile {
    /// Bits of the key usage, bit 0 first (RFC 5280 section 4.2.1.3).
    const fn key_usage(self) -> u16 {
        match self {
            Self::Authentication => 0b01,
            Self::Signing => 0b11,
        }
    }

    /// Extended key usages, sorted.
    const fn purposes(self) -> &'static [&'static str] {
        match self {
            Self::Authentication => &["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"],
            Self::Signing => &["1.3.6.1.5.5.7.3.36"],
        }
    }

    /// Content bytes of the object identifier that every authority on the path must allow.
    pub(super) const fn required(self) -> &'static [u8] {
        match self {
            Self::Authentication => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
            Self::Signing => &[0x2b, 6, 1, 5, 5, 7, 3, 36],
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Authentication => "authentication",
            Self::Signing => "signing",
        })
    }
}

/// What a security server's certificate says. Of [`super::VerifiedChain::subject`] it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityServerCertificate {
    /// The member that it speaks for.
    pub member: MemberId,
    /// The security server that holds the key.
    pub server: ServerId,
    /// What it is for.
    pub profile: Profile,
    /// SHA-256 of its SubjectPublicKeyInfo, as listed in the global configuration.
    pub spki_digest: Digest,
    /// SHA-256 of its DER, as named in manifests.
    pub digest: Digest,
    /// The first moment at which it is valid.
    pub not_before: Time,
    /// The last second in which it is valid.
    pub not_after: Time,
    /// Its key.
    pub public_key: PublicKey,
}

impl SecurityServerCertificate {
    /// Reads it from a certificate whose chain the caller is verifying.
    pub(super) fn of(leaf: &Certificate, profile: Profile) -> Result<Self, ChainError> {
        let purposes = leaf.extended_key_usage().map(|usage| usage.purposes.as_slice()).unwrap_or_default();
        if leaf.key_usage() != Some(profile.key_usage()) || purposes != profile.purposes() {
            return Err(ChainError::Profile(profile));
        }
        let (member, server) = names_of(leaf)?;
        let fits = match profile {
            Profile::Authentication => server.member() == member,
            // A security server may sign for other members of its instance that it hosts.
            Profile::Signing => server.instance() == member.instance(),
        };
        if !fits {
            return Err(ChainError::Foreign);
        }
        Ok(Self {
            member,
            server,
            profile,
            spki_digest: leaf.spki_digest(),
            digest: leaf.digest(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            public_key: leaf.public_key().map_err(ChainError::Key)?,
        })
    }
}

fn names_of(leaf: &Certificate) -> Result<(MemberId, ServerId), ChainError> {
    let mut names = [None, None];
    for name in leaf.alternative_names() {
        let AlternativeName::Uri(uri) = name else { return Err(ChainError::Names) };
        let prefixes = [MEMBER_URI, SERVER_URI];
        let found = prefixes.iter().position(|prefix| uri.starts_with(prefix)).ok_or(ChainError::Names)?;
        if names[found].replace(&uri[prefixes[found].len()..]).is_some() {
            return Err(ChainError::Names);
        }
    }
    match names {
        [Some(member), Some(server)] => Ok((
            member.parse().map_err(ChainError::Identifier)?,
            server.parse().map_err(ChainError::Identifier)?,
        )),
        _ => Err(ChainError::Names),
    }
}
