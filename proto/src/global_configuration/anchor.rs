//! The anchor: the small file that each operator receives in person, and that says whose signatures make a
//! configuration.
//!
//! A whole example, for two states that trust each other's administrators only together:
//!
//! ```text
//! trave configuration anchor v1
//! instance NORD
//! number 1
//! threshold 2
//! key cosigner-mv 9c1185a5c5e9fc54612808977ee8f548b2258d31ddfbdd1ae2b8d8f27a3b7a15
//! key registry-sh 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
//! ```
//!
//! Every line ends with one line feed. Keys are Ed25519 public keys (RFC 8032) in lower-case hexadecimal, 1 to 16 of
//! them, ascending by name; the threshold says how many must have signed. `number` counts an instance's anchors. There
//! is one way to write an anchor: another spelling of the same is refused, so its SHA-256 identifies it.

use std::fmt::Write as _;

use bytes::Bytes;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::text::is_code;
use crate::digest::{Digest, tag};
use crate::schema::configuration::{KeySignature, SignedAnchor, SignedConfiguration};

const FIRST_LINE: &str = "trave configuration anchor v1";
const MAX_BYTES: usize = 4096;
const MAX_KEYS: usize = 16;
/// Signatures by keys that the anchor does not know are ignored, but not without end.
pub(super) const MAX_SIGNATURES: usize = 64;

/// Why an anchor, or a signature that should make one, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Not an anchor file.
    #[error("not a configuration anchor: {problem}; ask for the file again, from whoever runs the instance")]
    Malformed {
        /// What is wrong.
        problem: &'static str,
    },
    /// An anchor of another instance, or not the next one.
    #[error("the anchor does not follow: expected {expected}, found {found}")]
    DoesNotFollow {
        /// Instance and number that were expected.
        expected: String,
        /// Instance and number that stand there.
        found: String,
    },
    /// Too few keys have signed.
    #[error("{found} of the {needed} signatures needed under the {whose} anchor")]
    Threshold {
        /// `old` or `new`.
        whose: &'static str,
        /// How many must have signed.
        needed: usize,
        /// How many have.
        found: usize,
    },
    /// A signature in the name of a known key that this key did not make, or a name twice, or too many.
    #[error("the signature in the name of the configuration key {key:?} does not hold")]
    Signature {
        /// The key's name.
        key: String,
    },
}

/// A configuration key as the anchor names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorKey {
    /// Its name: a code.
    pub name: String,
    /// Ed25519 public key (RFC 8032).
    pub public_key: [u8; 32],
}

/// Which configuration keys there are, and how many must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    instance: String,
    number: u64,
    threshold: usize,
    keys: Vec<AnchorKey>,
    bytes: Bytes,
}

impl Anchor {
    /// Makes the anchor of `instance`; the keys may come in any order.
    pub fn new(
        instance: &str,
        number: u64,
        threshold: usize,
        mut keys: Vec<AnchorKey>,
    ) -> Result<Self, AnchorError> {
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        check(instance, number, threshold, &keys)?;
        let bytes = Bytes::from(write(instance, number, threshold, &keys));
        Ok(Self { instance: instance.into(), number, threshold, keys, bytes })
    }

    /// Reads an anchor file. Only the one canonical form is accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnchorError> {
        let malformed = |problem| AnchorError::Malformed { problem };
        if bytes.len() > MAX_BYTES {
            return Err(malformed("it is longer than 4096 bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("its first line is not \"trave configuration anchor v1\""));
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let instance = field("instance").ok_or(malformed("its second line is not \"instance NAME\""))?;
        let number = field("number").and_then(|text| text.parse().ok());
        let number = number.ok_or(malformed("its third line is not \"number N\""))?;
        let threshold = field("threshold").and_then(|text| text.parse().ok());
        let threshold = threshold.ok_or(malformed("its fourth line is not \"threshold N\""))?;
        let keys: Option<Vec<_>> = lines.map(parse_key).collect();
        let keys = keys.ok_or(malformed("a line is not \"key NAME 64-HEXADECIMAL-DIGITS\""))?;
        let anchor = Self::new(instance, number, threshold, keys)?;
        if anchor.bytes != bytes {
            return Err(malformed("it is not written in the one canonical form"));
        }
        Ok(anchor)
    }

    /// The instance that it speaks for.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Counts the instance's anchors from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many keys must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The configuration keys, ascending by name.
    pub fn keys(&self) -> &[AnchorKey] {
        &self.keys
    }

    /// The file, byte for byte.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The anchor that follows this one: signed by as many keys as this one asks for, and as many as it asks for
    /// itself.
    pub fn verify_successor(&self, signed: &SignedAnchor) -> Result<Self, AnchorError> {
        let next = Self::parse(&signed.anchor)?;
        let expected = format!("{} {}", self.instance, self.number.saturating_add(1));
        let found = format!("{} {}", next.instance, next.number);
        if expected != found {
            return Err(AnchorError::DoesNotFollow { expected, found });
        }
        let content = [tag::ANCHOR, &signed.anchor].concat();
        check_names(&signed.signatures)?;
        let by_old = self.valid_signatures(&content, &signed.signatures);
        let by_new = next.valid_signatures(&content, &signed.signatures);
        for signature in &signed.signatures {
            let known = self.key(&signature.key).is_some() || next.key(&signature.key).is_some();
            let name = signature.key.as_str();
            if known && !by_old.contains(&name) && !by_new.contains(&name) {
                return Err(AnchorError::Signature { key: printable(name) });
            }
        }
        for (whose, needed, found) in
            [("old", self.threshold, by_old.len()), ("new", next.threshold, by_new.len())]
        {
            if found < needed {
                return Err(AnchorError::Threshold { whose, needed, found });
            }
        }
        Ok(next)
    }

    /// The anchor at the end of a chain of successors; this one if the chain is empty.
    pub fn verify_chain(&self, chain: &[SignedAnchor]) -> Result<Self, AnchorError> {
        chain.iter().try_fold(self.clone(), |anchor, signed| anchor.verify_successor(signed))
    }

    /// The public key of that name.
    pub fn key(&self, name: &str) -> Option<&[u8; 32]> {
        self.keys.iter().find(|key| key.name == name).map(|key| &key.public_key)
    }

    /// How many of this anchor's keys have signed the configuration; 0 if a name is there twice.
    pub fn count_valid(&self, signed: &SignedConfiguration) -> usize {
        let content = [tag::CONFIGURATION, &signed.configuration].concat();
        match check_names(&signed.signatures) {
            Ok(()) => self.valid_signatures(&content, &signed.signatures).len(),
            Err(_) => 0,
        }
    }

    /// Names of this anchor's keys whose signatures over `content` are valid.
    fn valid_signatures<'s>(&self, content: &[u8], signatures: &'s [KeySignature]) -> Vec<&'s str> {
        let valid = |signature: &&KeySignature| {
            self.key(&signature.key).is_some_and(|key| verifies(key, content, &signature.value))
        };
        signatures.iter().filter(valid).map(|signature| signature.key.as_str()).collect()
    }

    /// Requires that enough of this anchor's keys signed `content`. Unknown keys are ignored; an invalid signature in
    /// the name of a known one is refused, for somebody tampers or a key is broken.
    pub(super) fn require_threshold(
        &self,
        content: &[u8],
        signatures: &[KeySignature],
    ) -> Result<(), AnchorError> {
        check_names(signatures)?;
        let valid = self.valid_signatures(content, signatures);
        let refused = signatures
            .iter()
            .find(|signature| self.key(&signature.key).is_some() && !valid.contains(&signature.key.as_str()));
        if let Some(signature) = refused {
            return Err(AnchorError::Signature { key: printable(&signature.key) });
        }
        if valid.len() < self.threshold {
            return Err(AnchorError::Threshold { whose: "own", needed: self.threshold, found: valid.len() });
        }
        Ok(())
    }
}

/// The signature of the configuration key `name` over an anchor; `key` signs what it is given (Ed25519, RFC 8032).
pub fn sign_anchor(anchor: &Anchor, name: &str, key: impl FnOnce(&[u8]) -> [u8; 64]) -> KeySignature {
    sign(tag::ANCHOR, anchor.bytes(), name, key)
}

pub(super) fn sign(
    tag: &[u8],
    content: &[u8],
    name: &str,
    key: impl FnOnce(&[u8]) -> [u8; 64],
) -> KeySignature {
    let value = key(&[tag, content].concat());
    KeySignature { key: name.into(), value: Bytes::copy_from_slice(&value) }
}

fn verifies(key: &[u8; 32], content: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(content, signature).is_ok()
}

/// No name twice, and not too many: a key counts once.
fn check_names(signatures: &[KeySignature]) -> Result<(), AnchorError> {
    let mut names: Vec<_> = signatures.iter().take(MAX_SIGNATURES).map(|s| s.key.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    let beyond = signatures.get(MAX_SIGNATURES).map(|signature| signature.key.as_str());
    match twice.or(beyond) {
        Some(name) => Err(AnchorError::Signature { key: printable(name) }),
        None => Ok(()),
    }
}

/// A name from outside, for an error.
fn printable(name: &str) -> String {
    name.chars().take(64).collect()
}

fn check(instance: &str, number: u64, threshold: usize, keys: &[AnchorKey]) -> Result<(), AnchorError> {
    let malformed = |problem| Err(AnchorError::Malformed { problem });
    // An instance is the first part of an identifier, so it keeps to the grammar of one.
    if format!("{instance}/x/x").parse::<crate::identifier::MemberId>().is_err() {
        return malformed("the instance is not the first part of an identifier");
    }
    if number == 0 {
        return malformed("anchors are counted from 1");
    }
    if keys.is_empty() || keys.len() > MAX_KEYS || threshold == 0 || threshold > keys.len() {
        return malformed("it needs 1 to 16 keys and a threshold of at least 1 and at most their number");
    }
    if !keys.iter().all(|key| is_code(&key.name)) {
        return malformed("a key's name is not 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    let twice = |(i, key): (usize, &AnchorKey)| {
        keys[..i].iter().any(|other| other.name == key.name || other.public_key == key.public_key)
    };
    if keys.iter().enumerate().any(twice) {
        return malformed("a key is named twice");
    }
    Ok(())
}

fn write(instance: &str, number: u64, threshold: usize, keys: &[AnchorKey]) -> String {
    let mut text = format!("{FIRST_LINE}\ninstance {instance}\nnumber {number}\nthreshold {threshold}\n");
    for key in keys {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "key {} {}", key.name, hex::encode(key.public_key));
    }
    text
}

fn parse_key(line: &str) -> Option<AnchorKey> {
    let (name, key) = line.strip_prefix("key ")?.split_once(' ')?;
    let mut public_key = [0; 32];
    hex::decode_to_slice(key, &mut public_key).ok()?;
    Some(AnchorKey { name: name.into(), public_key })
}

#[cfg(test)]
#[path = "anchor_tests.rs"]
mod tests;
