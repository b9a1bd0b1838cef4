//! What a log asks of a witness: "you last saw so many records of me; here is the proof that I only added to them, and my
//! checkpoint" (<https://c2sp.org/tlog-witness>, the call `add-checkpoint`).
//!
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
//!
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1M…
//! ```

use base64::Engine as _;

use super::{BASE64, CheckpointError, MAX_NOTE, Note};
use crate::digest::Digest;

/// Most hashes of a consistency proof.
pub const MAX_PROOF_LINES: usize = 63;
/// Longest request that is read, in bytes: the size's line, the proof's lines, the blank line, the checkpoint.
pub const MAX_ADD_CHECKPOINT: usize = 25 + MAX_PROOF_LINES * 45 + 1 + MAX_NOTE;

/// Why a request is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not of the form that C2SP defines.
    #[error("not an add-checkpoint request: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is no signed note.
    #[error("its checkpoint cannot be read")]
    Checkpoint(#[source] CheckpointError),
}

/// A request to cosign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// How many leaves the log had when this witness last cosigned it; 0 for never.
    pub old: u64,
    /// The proof from there to the checkpoint (RFC 6962 section 2.1.2).
    pub proof: Vec<Digest>,
    /// The checkpoint, with the log's signature.
    pub checkpoint: Note,
}

impl AddCheckpoint {
    /// Reads a request strictly. This verifies nothing.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let malformed = RequestError::Malformed;
        if body.len() > MAX_ADD_CHECKPOINT {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(malformed("it has no blank line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(decimal).ok_or(malformed("its first line is not the old size"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MAX_PROOF_LINES {
                return Err(malformed("its proof has more than 63 lines"));
            }
            let hash = BASE64.decode(line).ok().and_then(|bytes| Digest::from_slice(&bytes));
            proof.push(hash.ok_or(malformed("a line of its proof is not a hash in base64"))?);
        }
        let checkpoint = Note::parse(note.as_bytes()).map_err(RequestError::Checkpoint)?;
        Ok(Self { old, proof, checkpoint })
    }

    /// The body of the request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = format!("old {}\n", self.old);
        for hash in &self.proof {
            body.push_str(&BASE64.encode(hash));
            body.push('\n');
        }
        body.push('\n');
        [body.into_bytes(), self.checkpoint.to_bytes()].concat()
    }

    /// The size in the body of the answer "409 Conflict": what the witness last cosigned.
    pub fn parse_conflict(body: &[u8]) -> Option<u64> {
        std::str::from_utf8(body).ok()?.strip_suffix('\n').and_then(decimal)
    }
}

/// A number without leading zeros, and without a sign.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of <https://c2sp.org/tlog-witness>.
    const EXAMPLE: &str = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";

    #[test]
    fn reads_and_writes_c2sps_example() {
        let request = AddCheckpoint::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
        assert!(request.checkpoint.text().starts_with("example.com/behind-the-sofa\n20852163\n"));
        assert_eq!(request.to_bytes(), EXAMPLE.as_bytes());
        let first = AddCheckpoint { old: 0, proof: Vec::new(), ..request };
        assert!(first.to_bytes().starts_with(b"old 0\n\nexample.com/"));
        assert_eq!(AddCheckpoint::parse(&first.to_bytes()), Ok(first));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (head, note) = EXAMPLE.split_once("\n\n").unwrap();
        let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        for (why, body) in [
            ("nothing", String::new()),
            ("no old line", EXAMPLE.replace("old ", "new ")),
            ("leading zero", EXAMPLE.replace("old 2", "old 02")),
            ("plus", EXAMPLE.replace("old 2", "old +2")),
            ("no number", EXAMPLE.replace("old 20852014", "old ")),
            ("two spaces", EXAMPLE.replace("old ", "old  ")),
            ("too large a number", EXAMPLE.replace("old 20852014", "old 18446744073709551616")),
            ("CRLF", EXAMPLE.replace('\n', "\r\n")),
            ("a short hash", EXAMPLE.replace("PlRN", "")),
            ("no blank line", EXAMPLE.replacen("\n\n", "\n", 1)),
            ("no checkpoint", format!("{head}\n\n")),
            ("64 lines", format!("old 1\n{}\n{note}", line.repeat(64))),
            ("too long", format!("{EXAMPLE}{}", " ".repeat(MAX_ADD_CHECKPOINT))),
        ] {
            assert!(AddCheckpoint::parse(body.as_bytes()).is_err(), "{why}");
        }
        assert!(AddCheckpoint::parse(format!("old 1\n{}\n{note}", line.repeat(63)).as_bytes()).is_ok());
    }

    #[test]
    fn the_size_in_a_conflict_has_one_form() {
        assert_eq!(AddCheckpoint::parse_conflict(b"20852014\n"), Some(20_852_014));
        assert_eq!(AddCheckpoint::parse_conflict(b"0\n"), Some(0));
        for bad in [&b"20852014"[..], b"01\n", b"\n", b"-1\n", b"1\n\n", b"\xff\n"] {
            assert_eq!(AddCheckpoint::parse_conflict(bad), None, "{bad:?}");
        }
    }
}
