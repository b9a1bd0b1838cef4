//! Checkpoints that continue what was seen, and those that do not.

use ring::signature::Ed25519KeyPair;
use trave_proto::checkpoint::{NoteSigner, WitnessSigner};
use trave_proto::tree::{consistency, leaf_hash, root};

use super::*;

const ORIGIN: &str = "nord/mv/s1/log";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn signer(seed: u8) -> NoteSigner {
    NoteSigner::new(ORIGIN, pair(seed)).unwrap()
}

/// So many leaves, of which one may be another.
fn leaves(count: u8, odd: Option<u8>) -> Vec<Digest> {
    (0..count).map(|n| leaf_hash(&[n, u8::from(odd == Some(n))])).collect()
}

fn note(leaves: &[Digest], by: u8) -> Vec<u8> {
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: leaves.len() as u64, root: root(leaves) };
    checkpoint.sign(&signer(by)).to_bytes()
}

fn answer(leaves: &[Digest], proof: &[Digest]) -> FollowLogResponse {
    FollowLogResponse {
        note: note(leaves, 1).into(),
        cosignatures: Bytes::new(),
        proof: proof.iter().map(|hash| hash.to_bytes()).collect(),
    }
}

fn after(before: &[Digest], answer: &FollowLogResponse) -> Result<Option<Shown>, &'static str> {
    let key = signer(1).verifier();
    let before = seen(&note(before, 1), &key).unwrap();
    shown(answer, (&key, &[]), Some(&before), Time::from_millis(0))
}

#[test]
fn a_log_only_grows_and_keeps_what_it_was() {
    let (five, nine) = (leaves(5, None), leaves(9, None));
    let proof = consistency(&nine, 5).unwrap();
    for (before, new, proof) in [(&five, &nine, &proof[..]), (&nine, &nine, &[])] {
        let shown = after(before, &answer(new, proof)).unwrap().unwrap();
        assert_eq!((shown.seen.unwrap().head.size, shown.contradiction), (9, None));
    }
    let other = leaves(9, Some(2));
    let forged = consistency(&other, 5).unwrap();
    for (before, new, proof, told) in [
        (&nine, &five, &[][..], "it had 9 records, and now shows 5"),
        (&nine, &other, &[], "another root at 9 records"),
        (&five, &nine, &[], "does not show that its 9 records continue the 5"),
        (&five, &other, &forged, "does not show"),
        (&five, &other, &proof, "does not show"),
    ] {
        let shown = after(before, &answer(new, proof)).unwrap().unwrap();
        let contradiction = shown.contradiction.unwrap();
        assert!(contradiction.contains(told), "{contradiction}");
    }
}

#[test]
fn what_the_key_of_the_log_has_not_signed_says_nothing_of_the_log() {
    let nine = leaves(9, None);
    let good = answer(&nine, &[]);
    assert!(after(&nine, &good).is_ok());
    let none = |before| {
        shown(&FollowLogResponse::default(), (&signer(1).verifier(), &[]), before, Time::from_millis(0))
    };
    assert_eq!(none(None), Ok(None), "there is none yet");
    let had = seen(&note(&nine, 1), &signer(1).verifier()).unwrap();
    let gone = none(Some(&had)).unwrap().unwrap();
    assert_eq!(gone.seen, None);
    assert_eq!(gone.contradiction.unwrap(), "it had 9 records, and now shows no checkpoint");
    let foreign = FollowLogResponse { note: note(&nine, 2).into(), ..good.clone() };
    let not_signed = FollowLogResponse { note: Bytes::from_static(b"nord/mv/s1/log\n9\n"), ..good.clone() };
    let hash = FollowLogResponse { proof: vec![Bytes::from_static(b"short")], ..good.clone() };
    let long = FollowLogResponse { proof: vec![Digest::of(b"").to_bytes(); 66], ..good.clone() };
    let endless = FollowLogResponse { cosignatures: vec![b'x'; MAX_NOTE + 1].into(), ..good };
    for refused in [foreign, not_signed, hash, long, endless] {
        assert!(after(&nine, &refused).is_err());
    }
}

#[test]
fn under_a_note_stands_only_who_is_known() {
    let nine = leaves(9, None);
    let witness = WitnessSigner::new("zeuge-sh", pair(3)).unwrap();
    let stranger = WitnessSigner::new("fremd", pair(4)).unwrap();
    let plain = Note::parse(&note(&nine, 1)).unwrap();
    let at = Time::from_millis(1_795_255_200_000);
    let lines: String = [&witness, &stranger].map(|by| by.cosign(plain.text(), at)).concat();
    let mut full = plain.clone();
    full.add_lines(lines.as_bytes()).unwrap();
    let key = signer(1).verifier();
    let answer = FollowLogResponse {
        note: full.to_bytes().into(),
        cosignatures: lines.into(),
        ..FollowLogResponse::default()
    };
    let shown = shown(&answer, (&key, &[witness.verifier()]), None, at).unwrap().unwrap();
    assert_eq!(shown.seen.unwrap().note, plain.to_bytes(), "the log's own signature, and no other");
    assert_eq!(shown.cosignatures, witness.cosign(plain.text(), at));
}
