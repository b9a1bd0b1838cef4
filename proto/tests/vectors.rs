//! The fixed examples: what they say is what this release understands, and each that must be refused is refused for its
//! own reason. Whoever implements the formats anew can begin here.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod common;

use prost::Message;
use serde_json::Value;
use trave_proto::checkpoint::Checkpoint;
use trave_proto::clock::Time;
use trave_proto::container;
use trave_proto::encoding::decode_canonical;
use trave_proto::global_configuration::{Anchor, Configuration};
use trave_proto::message::Manifest;
use trave_proto::proof::{Conclusion, Outcome, Proof, verify};
use trave_proto::schema::log::Leaf;
use trave_proto::schema::message::Envelope;
use trave_proto::signature::{Request, Signed};

#[test]
fn every_proof_is_judged_as_the_list_says() {
    let (proofs, now) = list("proofs.json", "proofs");
    assert!(proofs.len() > 60, "{} proofs", proofs.len());
    for entry in &proofs {
        let name = text(entry, "file");
        let anchor = Anchor::parse(&common::bytes(text(entry, "anchor"))).unwrap();
        match Proof::parse(common::bytes(name)) {
            Err(error) => {
                assert_eq!(text(entry, "conclusion"), "unreadable", "{name}: {error}");
                assert!(error.to_string().contains(text(entry, "why")), "{name}: {error}");
            }
            Ok(proof) => {
                assert_eq!(proof.encode(), common::bytes(name), "{name}");
                judge(entry, &verify(&proof, &anchor, Some(Time::from_millis(now))));
            }
        }
    }
}

fn said(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Holds => "holds",
        Conclusion::DoesNotHold => "does_not_hold",
        Conclusion::CannotTell => "cannot_tell",
    }
}

fn judge(entry: &Value, report: &trave_proto::proof::Report) {
    let name = text(entry, "file");
    assert_eq!(said(report.conclusion), text(entry, "conclusion"), "{name}: {:#?}", report.checks);
    let Some(check) = entry["check"].as_str() else { return };
    let found = report.checks.iter().find(|found| found.name.as_str() == check).unwrap();
    match &found.outcome {
        Outcome::Holds => panic!("{name}: {check} holds"),
        Outcome::Fails(why) | Outcome::CannotTell(why) => {
            assert!(why.contains(text(entry, "why")), "{name}: {why}");
        }
    }
}

#[test]
fn every_container_is_judged_as_the_list_says() {
    let list: Value = serde_json::from_slice(&common::bytes("containers.json")).unwrap();
    let containers = list["containers"].as_array().unwrap();
    assert!(containers.len() > 20, "{} containers", containers.len());
    for entry in containers {
        let (name, why) = (text(entry, "file"), text(entry, "why"));
        let anchor = Anchor::parse(&common::bytes(text(entry, "anchor"))).unwrap();
        let now = Time::from_millis(entry["now_ms"].as_i64().unwrap());
        let report = match container::verify(&common::bytes(name).into(), &anchor, Some(now)) {
            Ok(report) => report,
            Err(error) => {
                assert_eq!(text(entry, "conclusion"), "unreadable", "{name}: {error}");
                assert!(error.to_string().contains(why), "{name}: {error}");
                continue;
            }
        };
        assert_eq!(said(report.conclusion), text(entry, "conclusion"), "{name}: {:#?}", report.why);
        let Some(part) = entry["part"].as_str() else { continue };
        let found = report.why.iter().any(|one| one.starts_with(part) && one.contains(why));
        assert!(found, "{name}: {:#?}", report.why);
    }
}

#[test]
fn no_byte_of_a_renewed_container_tells_another_story() {
    let file = common::bytes("container/renewed.asice");
    let list: Value = serde_json::from_slice(&common::bytes("containers.json")).unwrap();
    let is_it = |entry: &&Value| text(entry, "file") == "container/renewed.asice";
    let now = list["containers"].as_array().unwrap().iter().find(is_it).unwrap()["now_ms"].as_i64().unwrap();
    let anchor = Anchor::parse(&common::bytes("anchor/nord-1.txt")).unwrap();
    let judge = |file: Vec<u8>| container::verify(&file.into(), &anchor, Some(Time::from_millis(now)));
    let told = judge(file.clone()).unwrap();
    assert_eq!((told.conclusion, told.archived.len()), (Conclusion::Holds, 2));
    // The last token is the one that nothing is over: each of its bytes, and some of all others.
    let name = b"META-INF/timestamp002.tst";
    let is_entry = |at: usize| file[at..].starts_with(name) && file[at - 30..].starts_with(b"PK\x03\x04");
    let token = (30..file.len()).find(|at| is_entry(*at)).unwrap() + name.len();
    let token = token..token + u32::from_le_bytes(file[token - 33..token - 29].try_into().unwrap()) as usize;
    let places = (0..file.len()).step_by(97).filter(|at| !token.contains(at)).chain(token.clone());
    for at in places {
        let mut altered = file.clone();
        altered[at] ^= 1;
        if token.contains(&at) {
            // With the checksum that belongs to it, in both headers.
            let crc = crc32fast::hash(&altered[token.clone()]).to_le_bytes();
            let local = token.start - name.len() - 16;
            let central = file.windows(name.len()).rposition(|there| there == name).unwrap() - 30;
            altered[local..local + 4].copy_from_slice(&crc);
            altered[central..central + 4].copy_from_slice(&crc);
        }
        let Ok(report) = judge(altered) else { continue };
        if report.conclusion == Conclusion::Holds {
            assert!(token.contains(&at), "byte {at} altered, and nobody notices");
            assert_eq!(report, told, "byte {at} altered, and another story holds");
        }
    }
}

#[test]
fn every_part_is_read_or_refused_as_the_list_says() {
    let (parts, _) = list("parts.json", "parts");
    assert!(parts.len() > 25, "{} parts", parts.len());
    for entry in &parts {
        let name = text(entry, "file");
        match (read(entry, common::bytes(name)), entry["refused"].as_str()) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) => assert!(error.contains(why), "{name}: {error}"),
            (Ok(()), Some(why)) => panic!("{name} was read; it must be refused: {why}"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
    }
}

/// Reads a part as its kind demands; the whole chain of causes if it is refused.
fn read(entry: &Value, bytes: Vec<u8>) -> Result<(), String> {
    let anchor = || Anchor::parse(&common::bytes("anchor/nord-1.txt")).unwrap();
    match text(entry, "kind") {
        "manifest" => Manifest::parse(bytes.into()).map(drop).map_err(|error| causes(&error)),
        "envelope" => {
            let envelope = Envelope::decode(&bytes[..]).unwrap();
            Signed::<Request>::receive(envelope).map(drop).map_err(|error| causes(&error))
        }
        "leaf" => decode_canonical::<Leaf>("leaf", &bytes[..]).map(drop).map_err(|error| causes(&error)),
        "configuration" => {
            let verified = Configuration::verify_encoded(bytes.into(), &anchor());
            verified.map(drop).map_err(|error| causes(&error))
        }
        "anchor" => Anchor::parse(&bytes).map(drop).map_err(|error| causes(&error)),
        "checkpoint" => {
            let key = text(entry, "key").parse().unwrap();
            Checkpoint::verify(&bytes, &[key]).map(drop).map_err(|error| causes(&error))
        }
        kind => panic!("unknown kind {kind}"),
    }
}

/// The entries of a list, and the time at which the verifier looks.
fn list(name: &str, entries: &str) -> (Vec<Value>, i64) {
    let list: Value = serde_json::from_slice(&common::bytes(name)).unwrap();
    (list[entries].as_array().unwrap().clone(), list["now_ms"].as_i64().unwrap())
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn text<'v>(entry: &'v Value, field: &str) -> &'v str {
    entry[field].as_str().unwrap_or_default()
}
