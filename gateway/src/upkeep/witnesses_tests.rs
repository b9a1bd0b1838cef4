//! What a witness's answer means, and what of it lasts.

use http::StatusCode;
use trave_host::keys::NoteKey;
use trave_proto::checkpoint::{NoteSigner, WitnessSigner};
use trave_proto::digest::Digest;

use super::asking::{Answer, answered, line};
use super::*;

const NOW: Time = Time::from_millis(1_795_288_440_000);

fn witness(name: &str) -> WitnessSigner {
    WitnessSigner::new(name, NoteKey::generate().unwrap().into_pair()).unwrap()
}

fn note() -> Note {
    let log = NoteSigner::new("NORD/SH/luebeck/s1/1", NoteKey::generate().unwrap().into_pair()).unwrap();
    Checkpoint { origin: log.name().to_owned(), size: 7, root: Digest::of(b"root") }.sign(&log)
}

#[test]
fn each_answer_has_its_meaning() {
    let answer = |status: u16, body: &str, sizes| {
        answered(StatusCode::from_u16(status).unwrap(), body.as_bytes(), sizes)
    };
    assert_eq!(answer(200, "whatever", (0, 7)).unwrap(), Answer::Lines);
    assert_eq!(answer(409, "5\n", (0, 7)).unwrap(), Answer::Elsewhere(5));
    assert_eq!(answer(409, "7\n", (0, 7)).unwrap(), Answer::Elsewhere(7));
    assert!(matches!(answer(409, "8\n", (0, 7)), Err(NoCosignature::Ahead { last: 8, size: 7 })));
    assert!(matches!(answer(409, "7\n", (7, 7)), Err(NoCosignature::Contradiction(_))), "another root");
    assert!(matches!(answer(409, "5\n", (5, 7)), Err(NoCosignature::Refused { .. })), "what was asked from");
    assert!(matches!(answer(409, "five\n", (5, 7)), Err(NoCosignature::Refused { .. })));
    let spoken = |refused: Result<Answer, NoCosignature>| refused.unwrap_err().to_string();
    let told = spoken(answer(422, "no\x1b[2Jproof\n", (5, 7)));
    assert!(told.ends_with("no[2Jproof"), "{told:?}");
    let told = spoken(answer(503, "\x07later\n", (5, 7)));
    assert!(told.ends_with("later") && !told.contains('\x07'), "{told:?}");
}

#[test]
fn a_cosignature_from_the_future_is_none() {
    let (note, signer) = (note(), witness("witness.example/mv"));
    let key = signer.verifier();
    let read = |at: Time| line(&note, signer.cosign(note.text(), at).as_bytes(), &key, latest(NOW));
    assert!(read(NOW.plus(TOLERANCE)).is_ok());
    let ahead = NOW.plus(TOLERANCE + Duration::from_secs(60));
    assert!(matches!(read(ahead), Err(NoCosignature::Future(_))));
    let stranger = witness("witness.example/mv").cosign(note.text(), NOW);
    let refused = line(&note, stranger.as_bytes(), &key, latest(NOW));
    assert!(matches!(refused, Err(NoCosignature::OtherKey)), "{refused:?}");
    // One that was kept while this clock was wrong counts again when its time has come.
    let listed = [WitnessEntry { verifier: key, class: "MV".into(), url: "http://127.0.0.1:1".into() }];
    let checkpoint = Checkpoint { origin: "x".into(), size: 7, root: Digest::of(b"root") };
    let checkpoint = SignedCheckpoint { checkpoint, note: note.to_bytes().into(), timestamp: None };
    let kept = Witnessed { checkpoint, lines: signer.cosign(note.text(), ahead) };
    assert_eq!(kept.by(&listed, NOW).len(), 0);
    assert_eq!(kept.by(&listed, ahead).len(), 1);
}

#[test]
fn a_contradiction_lasts_until_that_witness_cosigns_or_is_no_longer_listed() {
    let (mv, sh) = (witness("witness.example/mv").verifier(), witness("witness.example/sh").verifier());
    let entry = |key: &WitnessVerifier| WitnessEntry {
        verifier: key.clone(),
        class: "MV".into(),
        url: "http://127.0.0.1:1".into(),
    };
    let listed = [entry(&mv), entry(&sh)];
    let mut contradictions = Contradictions::default();
    let contradiction = || Err(NoCosignature::Contradiction("no".into()));
    contradictions.note(&mv, &contradiction());
    contradictions.note(&sh, &Ok(String::new()));
    contradictions.note(&mv, &Err(NoCosignature::OtherKey));
    let told = contradictions.told(&listed).unwrap();
    assert!(told.starts_with("witness.example/mv: ") && !told.contains("witness.example/sh"), "{told}");
    contradictions.note(&mv, &Ok(String::new()));
    assert_eq!(contradictions.told(&listed), None, "it cosigned");
    contradictions.note(&sh, &contradiction());
    let renewed = entry(&witness("witness.example/sh").verifier());
    assert_eq!(contradictions.told(&[renewed]), None, "another key is another witness");
    assert_eq!(contradictions.told(&listed), None);
}
