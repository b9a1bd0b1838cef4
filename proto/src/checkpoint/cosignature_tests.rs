//! The example of C2SP, and cosignatures that must be refused.

use ring::signature::Ed25519KeyPair;

use super::*;
use crate::checkpoint::{Checkpoint, NoteSigner};
use crate::digest::Digest;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn witness(name: &str, seed: u8) -> WitnessSigner {
    WitnessSigner::new(name, pair(seed)).unwrap()
}

fn note() -> Note {
    let checkpoint = Checkpoint { origin: "trave.example/log".into(), size: 42, root: Digest::of(b"root") };
    checkpoint.sign(&NoteSigner::new("trave.example/log", pair(1)).unwrap())
}

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

/// What is signed, byte for byte, is what the specification shows.
#[test]
fn the_signed_text_is_that_of_the_specification() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    assert_eq!(
        signed_text(text, 1_679_315_147),
        "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
         CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    );
}

/// A fixed key, note and time give these bytes: every release makes and reads the same.
#[test]
fn the_bytes_are_fixed() {
    let witness = witness("witness.example/sh", 2);
    assert_eq!(
        witness.verifier().to_string(),
        include_str!("../../vectors/checkpoint/witness.vkey").trim_end()
    );
    let line = witness.cosign(note().text(), at(1_795_288_440));
    assert_eq!(line, include_str!("../../vectors/checkpoint/cosignature.line"));
    assert_eq!(note().to_bytes(), include_bytes!("../../vectors/checkpoint/checkpoint.note"));
}

#[test]
fn a_witness_is_believed_under_its_own_key_and_time() {
    let (sh, mv) = (witness("witness.example/sh", 2), witness("witness.example/mv", 3));
    let mut cosigned = note();
    cosigned.add_lines(sh.cosign(note().text(), at(1_700_000_000)).as_bytes()).unwrap();
    cosigned.add_lines(mv.cosign(note().text(), at(1_700_000_001)).as_bytes()).unwrap();
    let keys = [sh.verifier(), mv.verifier()];
    let found = cosigned.cosignatures(&keys).unwrap();
    let told: Vec<_> = found.iter().map(|one| (one.witness.name(), one.time)).collect();
    assert_eq!(told, [("witness.example/sh", at(1_700_000_000)), ("witness.example/mv", at(1_700_000_001))]);
    assert_eq!(cosigned.cosignatures(&keys[..1]).unwrap().len(), 1, "unknown keys are ignored");
    assert_eq!(cosigned.cosignatures(&[]).unwrap(), []);
    let stranger = witness("witness.example/sh", 4).verifier();
    assert_eq!(cosigned.cosignatures(&[stranger]).unwrap(), [], "the same name is not the same key");
    let log = NoteSigner::new("trave.example/log", pair(1)).unwrap().verifier();
    assert!(Checkpoint::verify(&cosigned.to_bytes(), &[log]).is_ok(), "the log's signature stands as before");
    let lines = cosigned.cosignature_lines(&keys);
    assert_eq!(lines.lines().count(), 2);
    let mut again = note();
    again.add_lines(lines.as_bytes()).unwrap();
    assert_eq!(again, cosigned);
}

#[test]
fn what_a_witness_did_not_sign_is_refused() {
    let sh = witness("witness.example/sh", 2);
    let keys = [sh.verifier()];
    let refused = |change: &dyn Fn(&mut NoteSignature), text: Option<&str>| {
        let mut cosigned = note();
        let over = text.unwrap_or(note().text()).to_owned();
        cosigned.add_lines(sh.cosign(&over, at(1_700_000_000)).as_bytes()).unwrap();
        change(&mut cosigned.signatures[1]);
        assert_eq!(cosigned.cosignature_lines(&keys), "");
        cosigned.cosignatures(&keys)
    };
    let bad = Err(CheckpointError::BadSignature("witness.example/sh".into()));
    assert_eq!(refused(&|_| {}, Some("trave.example/log\n43\nAAAA\n")), bad, "another checkpoint");
    for at in 0..72 {
        assert_eq!(refused(&|line| line.value[at] ^= 1, None), bad, "byte {at}");
    }
    assert_eq!(refused(&|line| line.value.truncate(71), None), bad);
    assert_eq!(refused(&|line| line.value.truncate(5), None), bad);
    assert_eq!(refused(&|line| line.value.push(0), None), bad);
}

#[test]
fn no_time_and_times_beyond_the_calendar_are_refused() {
    let sh = witness("witness.example/sh", 2);
    for seconds in [0, u64::MAX, i64::MAX as u64] {
        let signature = pair(2).sign(signed_text(note().text(), seconds).as_bytes());
        let value = [&seconds.to_be_bytes(), signature.as_ref()].concat();
        let line = NoteSignature { name: "witness.example/sh".into(), id: sh.verifier().id, value }.line();
        let mut cosigned = note();
        cosigned.add_lines(line.as_bytes()).unwrap();
        assert!(cosigned.cosignatures(&[sh.verifier()]).is_err(), "{seconds}");
    }
}

#[test]
fn a_witness_is_counted_once() {
    let sh = witness("witness.example/sh", 2);
    let mut cosigned = note();
    for seconds in [1_700_000_000, 1_700_000_001] {
        cosigned.add_lines(sh.cosign(note().text(), at(seconds)).as_bytes()).unwrap();
    }
    assert!(cosigned.cosignatures(&[sh.verifier()]).is_err());
    assert_eq!(cosigned.cosignature_lines(&[sh.verifier()]).lines().count(), 1);
}

#[test]
fn a_key_is_of_one_type() {
    let sh = witness("witness.example/sh", 2).verifier();
    assert_eq!(sh.to_string().parse(), Ok(sh.clone()));
    let log = NoteSigner::new("witness.example/sh", pair(2)).unwrap().verifier();
    assert!(log.to_string().parse::<WitnessVerifier>().is_err(), "a log's key is no witness's");
    assert!(sh.to_string().parse::<crate::checkpoint::NoteVerifier>().is_err());
    for bad in ["", "a+b", "a+00000000+BAAA", &sh.to_string().replacen("witness", "witnesses", 1)] {
        assert!(bad.parse::<WitnessVerifier>().is_err(), "{bad:?}");
    }
}
