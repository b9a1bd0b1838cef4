//! Examples of others (C2SP, Go's sumdb/note), and notes that must be refused.

use super::*;
use proptest::prelude::*;

/// Go's golang.org/x/mod/sumdb/note: key, text and signature of its documentation.
const GO_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
/// The example of <https://c2sp.org/tlog-checkpoint>.
const C2SP_CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn signer(name: &str, seed: u8) -> NoteSigner {
    NoteSigner::new(name, Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: "trave.example/log".into(), size: 42, root: Digest::of(b"root") }
}

#[test]
fn agrees_with_gos_notes() {
    let key: NoteVerifier = GO_VERIFIER.parse().unwrap();
    assert_eq!(key.to_string(), GO_VERIFIER);
    let note = Note::parse(GO_NOTE.as_bytes()).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&key)), Ok(vec![&key]));
    assert_eq!(note.to_bytes(), GO_NOTE.as_bytes());
    let pair = Ed25519KeyPair::from_seed_unchecked(&BASE64.decode(GO_SEED).unwrap()[1..]).unwrap();
    let signer = NoteSigner::new("PeterNeumann", pair).unwrap();
    assert_eq!(signer.verifier(), key);
    assert_eq!(Note::sign(note.text().to_owned(), &signer).to_bytes(), GO_NOTE.as_bytes());
}

#[test]
fn reads_c2sps_checkpoint() {
    let note = Note::parse(C2SP_CHECKPOINT.as_bytes()).unwrap();
    let checkpoint = Checkpoint::from_text(note.text()).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.text(), note.text());
    assert_eq!(note.to_bytes(), C2SP_CHECKPOINT.as_bytes());
}

#[test]
fn unknown_keys_are_ignored_and_bad_signatures_of_known_ones_refused() {
    let (log, witness) = (signer("trave.example/log", 1), signer("witness.example", 2));
    let mut note = checkpoint().sign(&log);
    note.merge(Note::sign(checkpoint().text(), &witness)).unwrap();
    let both = [log.verifier(), witness.verifier()];
    assert_eq!(note.verify(&both).unwrap().len(), 2);
    assert_eq!(Checkpoint::verify(&note.to_bytes(), &both[..1]), Ok(checkpoint()));
    assert_eq!(
        Checkpoint::verify(&note.to_bytes(), &both[1..]),
        Err(CheckpointError::NotSignedByLog("trave.example/log".into()))
    );
    let stranger = signer("trave.example/log", 3).verifier();
    assert_eq!(note.verify(&[stranger]), Err(CheckpointError::NoKnownSignature));
    note.signatures[1].value[7] ^= 1;
    assert_eq!(note.verify(&both[..1]).unwrap().len(), 1);
    assert_eq!(note.verify(&both), Err(CheckpointError::BadSignature("witness.example".into())));
}

#[test]
fn what_is_no_note_is_refused() {
    let good = String::from_utf8(checkpoint().sign(&signer("trave.example/log", 1)).to_bytes()).unwrap();
    assert!(Note::parse(good.as_bytes()).is_ok());
    for (why, bad) in [
        ("no blank line", good.replace("\n\n", "\n")),
        ("a tab", good.replacen('4', "\t", 1)),
        ("no final newline", good.trim_end().to_owned()),
        ("a hyphen", good.replace('\u{2014}', "-")),
        ("two spaces", good.replace("log ", "log  ")),
        ("no base64", good.replace("\u{2014} trave.example/log ", "\u{2014} trave.example/log ?")),
        ("short", "a\n\n\u{2014} b AAAAAA==\n".into()),
        ("non-canonical base64", "a\n\n\u{2014} b AAAAAAB=\n".into()),
        ("plus in name", good.replace("\u{2014} trave", "\u{2014} +trave")),
        ("too long", "x".repeat(MAX_NOTE + 1)),
        ("too many", format!("a\n\n{}", "\u{2014} b AAAAAAA=\n".repeat(MAX_SIGNATURES + 1))),
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{why}");
    }
    assert!(Note::parse(b"\xff\n\n").is_err());
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let root = BASE64.encode([0; 32]);
    assert!(Checkpoint::from_text(&format!("o\n0\n{root}\n")).is_ok());
    for bad in [
        format!("\n0\n{root}\n"),
        format!("o\n00\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("o\n1\n{}\n", BASE64.encode([0; 31])),
        format!("o\n1\n{root}\nextension\n"),
        format!("o\n1\n{root}"),
    ] {
        assert!(Checkpoint::from_text(&bad).is_err(), "{bad:?}");
    }
    for bad in ["", "a", "a+b", "a+00000000+AAAA", &GO_VERIFIER.replace("c74f", "c74e")] {
        assert!(bad.parse::<NoteVerifier>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_changed_byte_passes(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let log = signer("trave.example/log", 1);
        let mut note = checkpoint().sign(&log).to_bytes();
        let at = at.index(note.len());
        note[at] ^= flip;
        prop_assert!(Checkpoint::verify(&note, &[log.verifier()]).is_err());
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_bytes(), bytes);
        }
    }
}
