//! A checkpoint: one signed line of numbers by which a log says "this is all I hold", so that it cannot later say
//! otherwise. The format is C2SP's signed note (<https://c2sp.org/signed-note>) with the body of
//! <https://c2sp.org/tlog-checkpoint>.
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1M…
//! ```

mod cosignature;
mod witness;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::digest::Digest;

pub use cosignature::{Cosignature, WitnessSigner, WitnessVerifier};
pub use witness::{AddCheckpoint, MAX_ADD_CHECKPOINT, MAX_PROOF_LINES, RequestError};

/// Longest note that is read, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;
/// Most signature lines that are read. C2SP asks for at least 16.
pub const MAX_SIGNATURES: usize = 64;

const ED25519_TYPE: u8 = 0x01;
const LINE_START: &str = "\u{2014} ";

/// Why a note or checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than [`MAX_NOTE`].
    #[error("the note has {0} bytes, more than {MAX_NOTE}")]
    TooLong(usize),
    /// Not of the form that C2SP defines.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The body is not that of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Body(&'static str),
    /// A key's text is not a verifier key.
    #[error("not a verifier key of the kind that is meant (name+id+base64): {0}")]
    Key(&'static str),
    /// A signature in the name of a known key does not verify.
    #[error("the signature of {0} does not verify: the note was changed, or its signer is not who it says")]
    BadSignature(String),
    /// Nobody who is known has signed.
    #[error("no known key has signed this note")]
    NoKnownSignature,
    /// The log itself has not signed.
    #[error("the log {0} has not signed this checkpoint")]
    NotSignedByLog(String),
}

/// The number of a log's generation, by its origin: its last part. That of the first generation need not end in a number.
pub fn generation_of(origin: &str) -> u64 {
    origin.rsplit_once('/').and_then(|(_, number)| number.parse().ok()).unwrap_or(1)
}

/// What a checkpoint says: the log, how many leaves it has, and the root over them (RFC 6962).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The note that `signer` signs over this checkpoint.
    pub fn sign(&self, signer: &NoteSigner) -> Note {
        Note::sign(self.text(), signer)
    }

    /// Reads a note as a checkpoint and verifies it: every signature of a known key is valid, and one of them is the
    /// log's own, that is, of a key named as the origin.
    pub fn verify(note: &[u8], keys: &[NoteVerifier]) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let signers = note.verify(keys)?;
        let checkpoint = Self::from_text(&note.text)?;
        if !signers.iter().any(|key| key.name == checkpoint.origin) {
            return Err(CheckpointError::NotSignedByLog(checkpoint.origin));
        }
        Ok(checkpoint)
    }

    /// The body of the note.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Reads the body of a note. Extension lines are refused: nothing of ours writes them, and nobody could audit them.
    pub fn from_text(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Body("no newline"))?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Body("it has not exactly three lines"));
        };
        if origin.is_empty() {
            return Err(CheckpointError::Body("the origin is empty"));
        }
        let decimal = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = decimal.then(|| size.parse().ok()).flatten();
        let root = BASE64.decode(root).ok().and_then(|bytes| Digest::from_slice(&bytes));
        Ok(Self {
            origin: origin.to_owned(),
            size: size.ok_or(CheckpointError::Body("the size is not a number without leading zeros"))?,
            root: root.ok_or(CheckpointError::Body("the root is not 32 bytes in base64"))?,
        })
    }
}

/// A signed note: a text and the signatures under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; 4],
    value: Vec<u8>,
}

impl Note {
    fn sign(text: String, signer: &NoteSigner) -> Self {
        let value = signer.pair.sign(text.as_bytes()).as_ref().to_vec();
        let signature = NoteSignature { name: signer.name.clone(), id: signer.id, value };
        Self { text, signatures: vec![signature] }
    }

    /// Reads a note strictly: UTF-8, no control characters, canonical base64. This verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        if bytes.len() > MAX_NOTE {
            return Err(CheckpointError::TooLong(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| CheckpointError::Malformed("not UTF-8"))?;
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(CheckpointError::Malformed("a control character"));
        }
        let split = note.rfind("\n\n").ok_or(CheckpointError::Malformed("no blank line"))?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(CheckpointError::Malformed("no final newline"))?;
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(at, line)| match at {
                MAX_SIGNATURES => Err(CheckpointError::Malformed("too many signatures")),
                _ => NoteSignature::parse(line),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text that is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who has signed, of `keys`. Signatures of unknown keys are ignored; one bad signature of a known key refuses the
    /// whole note, and so does the absence of any known key.
    pub fn verify<'a>(&self, keys: &'a [NoteVerifier]) -> Result<Vec<&'a NoteVerifier>, CheckpointError> {
        let mut signers = Vec::new();
        for signature in &self.signatures {
            for key in keys.iter().filter(|key| key.name == signature.name && key.id == signature.id) {
                UnparsedPublicKey::new(&ED25519, key.key)
                    .verify(self.text.as_bytes(), &signature.value)
                    .map_err(|_| CheckpointError::BadSignature(signature.name.clone()))?;
                signers.push(key);
            }
        }
        if signers.is_empty() { Err(CheckpointError::NoKnownSignature) } else { Ok(signers) }
    }

    /// The same note with the signatures of these keys alone, of each key the first: whoever copies a note can repeat its
    /// lines until nothing more fits under it. This verifies nothing.
    #[must_use]
    pub fn signed_by(&self, keys: &[NoteVerifier]) -> Self {
        let mut signatures: Vec<NoteSignature> = Vec::new();
        for signature in &self.signatures {
            let same = |name: &str, id: [u8; 4]| name == signature.name && id == signature.id;
            let known = keys.iter().any(|key| same(&key.name, key.id));
            if known && !signatures.iter().any(|other| same(&other.name, other.id)) {
                signatures.push(signature.clone());
            }
        }
        Self { text: self.text.clone(), signatures }
    }

    /// Adds signature lines, each with its newline, as a witness answers them. None twice. This verifies nothing.
    pub fn add_lines(&mut self, lines: &[u8]) -> Result<(), CheckpointError> {
        let lines = std::str::from_utf8(lines).map_err(|_| CheckpointError::Malformed("not UTF-8"))?;
        if lines.is_empty() {
            return Ok(());
        }
        let mut note = format!("{}\n", self.text);
        note.push_str(lines);
        self.merge(Self::parse(note.as_bytes())?)
    }

    /// Adds the signatures of `other`, which must be over the same text; none twice.
    pub fn merge(&mut self, other: Self) -> Result<(), CheckpointError> {
        if other.text != self.text {
            return Err(CheckpointError::Malformed("the signatures are over another text"));
        }
        for signature in other.signatures {
            if self.signatures.contains(&signature) {
                continue;
            }
            if self.signatures.len() == MAX_SIGNATURES {
                return Err(CheckpointError::Malformed("too many signatures"));
            }
            self.signatures.push(signature);
        }
        Ok(())
    }

    /// The note as it is stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut note = format!("{}\n", self.text);
        self.signatures.iter().for_each(|signature| note.push_str(&signature.line()));
        note.into_bytes()
    }
}

impl NoteSignature {
    fn line(&self) -> String {
        let base64 = BASE64.encode([&self.id[..], &self.value].concat());
        format!("{LINE_START}{} {base64}\n", self.name)
    }

    fn parse(line: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let rest =
            line.strip_prefix(LINE_START).ok_or(malformed("a signature line begins with an em dash"))?;
        let (name, base64) =
            rest.split_once(' ').ok_or(malformed("a signature line has a name and a value"))?;
        if !is_name(name) {
            return Err(malformed("a key name is empty or has a space or a plus"));
        }
        let bytes = BASE64.decode(base64).map_err(|_| malformed("a signature is not canonical base64"))?;
        match bytes.split_first_chunk() {
            Some((id, value)) if !value.is_empty() => {
                Ok(Self { name: name.to_owned(), id: *id, value: value.to_vec() })
            }
            _ => Err(malformed("a signature is too short")),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

fn check_name(name: &str) -> Result<(), CheckpointError> {
    let refused = CheckpointError::Key("the name is empty or has a space or a plus");
    if is_name(name) { Ok(()) } else { Err(refused) }
}

fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let digest = Digest::of_parts(&[name.as_bytes(), b"\n", &[kind], key]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}

/// A verifier key in the C2SP form: `name+id in hexadecimal+base64 of type and key`.
fn key_text(name: &str, kind: u8, key: &[u8; 32]) -> String {
    let id = hex::encode(key_id(name, kind, key));
    format!("{name}+{id}+{}", BASE64.encode([&[kind], &key[..]].concat()))
}

/// Name and key of a verifier key of this type.
fn read_key(text: &str, kind: u8) -> Result<(&str, [u8; 32]), CheckpointError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(CheckpointError::Key("it has not three parts"));
    };
    check_name(name)?;
    let key = BASE64.decode(key).map_err(|_| CheckpointError::Key("the key is not base64"))?;
    let key = match key.split_first() {
        Some((found, key)) if *found == kind => key,
        _ => return Err(CheckpointError::Key("the key is of another type")),
    };
    let key: [u8; 32] = key.try_into().map_err(|_| CheckpointError::Key("the key has not 32 bytes"))?;
    if hex::encode(key_id(name, kind, &key)) != id {
        return Err(CheckpointError::Key("the id does not belong to the key"));
    }
    Ok((name, key))
}

/// A key that signs notes. Whoever holds it can make a log say two things at once.
#[derive(Clone)]
pub struct NoteSigner {
    name: String,
    id: [u8; 4],
    pair: Arc<Ed25519KeyPair>,
}

impl NoteSigner {
    /// A signer of this name; a log signs under its origin.
    pub fn new(name: &str, pair: Ed25519KeyPair) -> Result<Self, CheckpointError> {
        check_name(name)?;
        let id = key_id(name, ED25519_TYPE, pair.public_key().as_ref());
        Ok(Self { name: name.to_owned(), id, pair: Arc::new(pair) })
    }

    /// The name under which it signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self) -> NoteVerifier {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        NoteVerifier { name: self.name.clone(), id: self.id, key }
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.verifier())
    }
}

/// A key that verifies notes: name and Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl NoteVerifier {
    /// From a name and a raw Ed25519 public key (RFC 8032).
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, CheckpointError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, ED25519_TYPE, &key), key })
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// The C2SP form: `name+id in hexadecimal+base64 of type and key`.
impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, ED25519_TYPE, &self.key))
    }
}

impl std::str::FromStr for NoteVerifier {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (name, key) = read_key(text, ED25519_TYPE)?;
        Self::new(name, key)
    }
}

#[cfg(test)]
mod tests;
