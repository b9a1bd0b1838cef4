//! The keys of an archive: the server knows the public one alone, and so writes what it cannot read. Whoever holds the
//! secret one reads all archived records; contents only together with the key files of the log.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::kem::{Kem as _, X25519HkdfSha256};
use hpke::{Deserializable as _, Serializable as _};
use zeroize::Zeroizing;

/// Key encapsulation of RFC 9180: DHKEM(X25519, HKDF-SHA256).
pub(crate) type Kem = X25519HkdfSha256;

/// Bytes of either key.
pub(crate) const KEY: usize = 32;
const PUBLIC: &str = "trave-archive-1:";
const SECRET: &str = "trave-archive-secret-1:";

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not {0}")]
pub struct NotAKey(&'static str);

/// The public key to which archives are encrypted: `trave-archive-1:` and 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct ArchiveRecipient(pub(crate) [u8; KEY]);

impl FromStr for ArchiveRecipient {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let wrong = NotAKey("the public key of an archive (trave-archive-1:…)");
        let bytes =
            text.trim().strip_prefix(PUBLIC).and_then(|key| STANDARD.decode(key).ok()).ok_or(wrong)?;
        let key: [u8; KEY] = bytes.try_into().map_err(|_| wrong)?;
        <Kem as hpke::Kem>::PublicKey::from_bytes(&key).map_err(|_| wrong)?;
        Ok(Self(key))
    }
}

impl fmt::Display for ArchiveRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ArchiveRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret key that opens archives. It belongs to people, away from the server.
pub struct ArchiveIdentity {
    pub(crate) secret: Zeroizing<[u8; KEY]>,
    recipient: ArchiveRecipient,
}

impl ArchiveIdentity {
    /// Makes a key from the system's random numbers.
    pub fn generate() -> Self {
        let (secret, public) = Kem::gen_keypair();
        let secret = Zeroizing::new(secret.to_bytes().into());
        Self { secret, recipient: ArchiveRecipient(public.to_bytes().into()) }
    }

    /// Reads a key file: one secret key, and lines that begin with `#`.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let wrong = NotAKey("a file with the secret key of an archive (trave-archive-secret-1:…)");
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(wrong) };
        let bytes = line.strip_prefix(SECRET).and_then(|key| STANDARD.decode(key).ok()).map(Zeroizing::new);
        let bytes = bytes.filter(|bytes| bytes.len() == KEY).ok_or(wrong)?;
        let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes).map_err(|_| wrong)?;
        let recipient = ArchiveRecipient(Kem::sk_to_pk(&secret).to_bytes().into());
        let mut kept = Zeroizing::new([0; KEY]);
        kept.copy_from_slice(&bytes);
        Ok(Self { secret: kept, recipient })
    }

    /// The key file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(STANDARD.encode(*self.secret));
        Zeroizing::new(format!(
            "# Opens the archive of a message log. Keep it away from the server, in two places.\n# Public key: {}\n{SECRET}{}\n",
            self.recipient, *secret
        ))
    }

    /// The public key that belongs to it.
    pub const fn recipient(&self) -> &ArchiveRecipient {
        &self.recipient
    }
}

impl fmt::Debug for ArchiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveIdentity(of {})", self.recipient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_other_texts_are_refused() {
        let identity = ArchiveIdentity::generate();
        let read = ArchiveIdentity::parse(&identity.to_text()).unwrap();
        assert_eq!((read.recipient(), *read.secret), (identity.recipient(), *identity.secret));
        let public = identity.recipient().to_string();
        assert_eq!(public.parse::<ArchiveRecipient>().as_ref(), Ok(identity.recipient()));
        assert!(!format!("{identity:?}").contains(&STANDARD.encode(*identity.secret)));
        for text in ["", "trave-archive-1:", "trave-archive-1:AAAA", "age1xyz", &public[1..]] {
            assert!(text.parse::<ArchiveRecipient>().is_err(), "{text}");
            assert!(ArchiveIdentity::parse(text).is_err(), "{text}");
        }
        assert!(ArchiveIdentity::parse(&identity.to_text().repeat(2)).is_err());
    }
}
