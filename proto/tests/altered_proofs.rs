//! A proof that was altered never tells another story and holds; no bytes whatever make the verifier panic.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod common;

use std::ops::Range;
use std::thread;

use proptest::prelude::*;
use trave_proto::clock::Time;
use trave_proto::global_configuration::Anchor;
use trave_proto::proof::{Conclusion, FIRST_LINE, Proof, Report, verify};

const LATER: Time = Time::from_millis(1_795_300_000_000);

fn anchor() -> Anchor {
    Anchor::parse(&common::bytes("anchor/nord-1.txt")).unwrap()
}

fn judge(file: Vec<u8>, anchor: &Anchor) -> Option<Report> {
    Some(verify(&Proof::parse(file).ok()?, anchor, Some(LATER)))
}

/// Alters each byte in turn. Gives how many of the altered files could be read, and how many still hold.
fn alter_each(name: &str, changes: &[fn(u8) -> u8]) -> (usize, usize) {
    let original = common::bytes(name);
    let anchor = anchor();
    let told = judge(original.clone(), &anchor).unwrap();
    assert_eq!(told.conclusion, Conclusion::Holds);
    let token = token_in(&original);
    let each = |part: usize, parts: usize| {
        let (mut read, mut holding) = (0, 0);
        for at in (part..original.len()).step_by(parts) {
            for change in changes {
                let mut altered = original.clone();
                altered[at] = change(altered[at]);
                if altered == original {
                    continue;
                }
                let Some(report) = judge(altered, &anchor) else { continue };
                read += 1;
                if report.conclusion == Conclusion::Holds {
                    holding += 1;
                    assert_eq!(
                        report.story, told.story,
                        "{name}: byte {at} altered, and another story holds"
                    );
                    // What may change are the parts of the timestamp token that nobody signs and that say nothing here.
                    assert!(token.contains(&at), "{name}: byte {at} altered, and nobody notices");
                }
            }
        }
        (read, holding)
    };
    let parts = 4;
    let each = &each;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..parts).map(|part| scope.spawn(move || each(part, parts))).collect();
        let sums = threads.into_iter().map(|thread| thread.join().unwrap());
        sums.fold((0, 0), |(read, holding), (r, h)| (read + r, holding + h))
    })
}

/// Where the timestamp token stands in the file.
fn token_in(file: &[u8]) -> Range<usize> {
    let proof = Proof::parse(file.to_vec()).unwrap();
    let token = &proof.raw().checkpoint.as_ref().unwrap().timestamp_token;
    let start = file.windows(token.len()).position(|window| window == token).unwrap();
    start..start + token.len()
}

#[test]
fn no_altered_byte_tells_another_story() {
    let name = "proof/unary-provider.trave";
    let (read, holding) = alter_each(name, &[|byte| byte ^ 1, |byte| byte.wrapping_add(0x87)]);
    assert!(read > 1000 && holding * 10 < read, "{name}: {read} could be read, {holding} hold");
}

#[test]
fn a_proof_that_is_cut_short_is_never_read() {
    let original = common::bytes("proof/unary-provider.trave");
    for length in 0..original.len() {
        let report = judge(original[..length].to_vec(), &anchor());
        assert!(report.is_none_or(|report| report.conclusion != Conclusion::Holds), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), headed: bool) {
        let file = if headed { [FIRST_LINE, &bytes].concat() } else { bytes };
        let report = judge(file, &anchor());
        prop_assert!(report.is_none_or(|report| report.conclusion != Conclusion::Holds));
    }

    #[test]
    fn no_splice_of_two_proofs_tells_a_third_story(at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), length in 1_usize..200) {
        let (mut spliced, other) = (common::bytes("proof/unary-provider.trave"), common::bytes("proof/stream.trave"));
        let told = judge(spliced.clone(), &anchor()).unwrap();
        let (at, to) = (at.index(other.len()), to.index(spliced.len()));
        for (target, source) in spliced[to..].iter_mut().zip(&other[at..]).take(length) {
            *target = *source;
        }
        if let Some(report) = judge(spliced, &anchor()) {
            prop_assert!(report.conclusion != Conclusion::Holds || report.story == told.story);
        }
    }
}
