//! A witness's word on a checkpoint: "at this time, this was the largest state of this log that I had seen, and it continues
//! all that I saw of it before" (<https://c2sp.org/tlog-cosignature>, the Ed25519 form).
//!
//! What is signed is a line that says what it is, a line with the time, and the checkpoint's text:
//!
//! ```text
//! cosignature/v1
//! time 1679315147
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! ```

use std::fmt;
use std::sync::Arc;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::{CheckpointError, Note, NoteSignature, check_name, key_id, key_text, read_key};
use crate::clock::Time;

const COSIGNATURE_TYPE: u8 = 0x04;

/// A cosignature that verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosignature<'k> {
    /// Whose.
    pub witness: &'k WitnessVerifier,
    /// When it was made, by the witness's clock, in whole seconds.
    pub time: Time,
}

impl Note {
    /// Who has cosigned, of `witnesses`, in the order of the lines. Lines of unknown keys are ignored; one bad cosignature
    /// of a known key refuses the whole note, and so does a second one of the same key.
    pub fn cosignatures<'k>(
        &self,
        witnesses: &'k [WitnessVerifier],
    ) -> Result<Vec<Cosignature<'k>>, CheckpointError> {
        let mut found: Vec<Cosignature<'k>> = Vec::new();
        for (signature, witness) in self.by_witnesses(witnesses) {
            if found.iter().any(|other| other.witness == witness) {
                return Err(CheckpointError::Malformed("a witness has cosigned twice"));
            }
            found.push(Cosignature { witness, time: witness.verify(&self.text, signature)? });
        }
        Ok(found)
    }

    /// The cosignature lines of these witnesses that verify, each with its newline; of each witness the first.
    pub fn cosignature_lines(&self, witnesses: &[WitnessVerifier]) -> String {
        self.lines_where(witnesses, |_| true)
    }

    /// As [`Note::cosignature_lines`], without those that were made after `latest`, as they say themselves.
    pub fn cosignature_lines_until(&self, witnesses: &[WitnessVerifier], latest: Time) -> String {
        self.lines_where(witnesses, |time| time <= latest)
    }

    fn lines_where(&self, witnesses: &[WitnessVerifier], counts: impl Fn(Time) -> bool) -> String {
        let mut lines = String::new();
        let mut seen: Vec<&WitnessVerifier> = Vec::new();
        for (signature, witness) in self.by_witnesses(witnesses) {
            if !seen.contains(&witness) && witness.verify(&self.text, signature).is_ok_and(&counts) {
                seen.push(witness);
                lines.push_str(&signature.line());
            }
        }
        lines
    }

    fn by_witnesses<'n, 'k: 'n>(
        &'n self,
        witnesses: &'k [WitnessVerifier],
    ) -> impl Iterator<Item = (&'n NoteSignature, &'k WitnessVerifier)> {
        self.signatures.iter().filter_map(move |signature| {
            let by = |key: &&WitnessVerifier| key.name == signature.name && key.id == signature.id;
            witnesses.iter().find(by).map(|witness| (signature, witness))
        })
    }
}

fn signed_text(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// A witness's key. Whoever holds it can say that a log never changed its story.
#[derive(Clone)]
pub struct WitnessSigner {
    name: String,
    pair: Arc<Ed25519KeyPair>,
}

impl WitnessSigner {
    /// A witness of this name.
    pub fn new(name: &str, pair: Ed25519KeyPair) -> Result<Self, CheckpointError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), pair: Arc::new(pair) })
    }

    /// The line, with its newline, by which this witness cosigns the text of a note at `time`, in whole seconds.
    pub fn cosign(&self, text: &str, time: Time) -> String {
        let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
        let signature = self.pair.sign(signed_text(text, seconds).as_bytes());
        let value = [&seconds.to_be_bytes(), signature.as_ref()].concat();
        let id = self.verifier().id;
        NoteSignature { name: self.name.clone(), id, value }.line()
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self) -> WitnessVerifier {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        WitnessVerifier { name: self.name.clone(), id: key_id(&self.name, COSIGNATURE_TYPE, &key), key }
    }
}

impl fmt::Debug for WitnessSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessSigner({})", self.verifier())
    }
}

/// A key that verifies cosignatures: name and Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessVerifier {
    name: String,
    id: [u8; 4],
    key: [u8; 32],
}

impl WitnessVerifier {
    /// From a name and a raw Ed25519 public key (RFC 8032).
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, CheckpointError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, COSIGNATURE_TYPE, &key), key })
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.key
    }

    /// When this witness cosigned `text`.
    fn verify(&self, text: &str, signature: &NoteSignature) -> Result<Time, CheckpointError> {
        let bad = || CheckpointError::BadSignature(self.name.clone());
        let (seconds, value) = signature.value.split_first_chunk().ok_or_else(bad)?;
        let seconds = u64::from_be_bytes(*seconds);
        // Zero says "at no time", which only a form that is not used here may say.
        let millis = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
        let millis = millis.filter(|millis| *millis > 0).ok_or_else(bad)?;
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(signed_text(text, seconds).as_bytes(), value)
            .map_err(|_| bad())?;
        Ok(Time::from_millis(millis))
    }
}

/// The C2SP form: `name+id in hexadecimal+base64 of type and key`.
impl fmt::Display for WitnessVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, COSIGNATURE_TYPE, &self.key))
    }
}

impl std::str::FromStr for WitnessVerifier {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (name, key) = read_key(text, COSIGNATURE_TYPE)?;
        Self::new(name, key)
    }
}

#[cfg(test)]
#[path = "cosignature_tests.rs"]
mod tests;
