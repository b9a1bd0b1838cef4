//! Whatever is wrong with a proof, the verifier says so, and says what. The same proofs are the fixed examples of
//! `proto/vectors`, which this test writes when asked to: `cargo test -p trave-tests --test proof_vectors -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod cases;
mod containers;
mod exchange;
mod openssl;
mod plain;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use trave_proto::global_configuration::Anchor;
use trave_proto::proof::{Conclusion, Outcome, Proof, Report, verify};

use cases::{Case, Expected};
use containers::Containers;
use world::World;

fn judge(case: &Case) -> Result<Report, String> {
    let proof = Proof::parse(case.file.clone()).map_err(|error| error.to_string())?;
    Ok(verify(&proof, &Anchor::parse(&case.anchor).unwrap(), Some(world::LATER)))
}

/// What is otherwise than expected.
fn check(case: &Case) -> Result<(), String> {
    let report = match (judge(case), &case.expected) {
        (Err(error), Expected::Unreadable(why)) if error.contains(why) => return Ok(()),
        (Err(error), _) => return Err(format!("cannot be read: {error}")),
        (Ok(report), _) => report,
    };
    let (conclusion, check, why) = match &case.expected {
        Expected::Holds if report.conclusion == Conclusion::Holds => return Ok(()),
        Expected::Fails(check, why) => (Conclusion::DoesNotHold, *check, *why),
        Expected::CannotTell(check, why) => (Conclusion::CannotTell, *check, *why),
        Expected::Unreadable(_) | Expected::Holds => return Err(format!("{:#?}", report.checks)),
    };
    let found = report.checks.iter().find(|found| found.name.as_str() == check);
    match found.map(|found| &found.outcome) {
        Some(Outcome::Fails(text) | Outcome::CannotTell(text))
            if report.conclusion == conclusion && text.contains(why) =>
        {
            Ok(())
        }
        _ => Err(format!("{:?} {:#?}", report.conclusion, report.checks)),
    }
}

#[test]
fn every_proof_is_judged_for_its_own_reason() {
    let cases = cases::all(&World::new());
    let wrong = cases.iter().filter_map(|case| Some((case.name, check(case).err()?)));
    let wrong: String = wrong.map(|(name, why)| format!("{name}: {why}\n")).collect();
    assert!(wrong.is_empty(), "{wrong}");
    let holding = cases.iter().filter(|case| matches!(case.expected, Expected::Holds)).count();
    assert!(holding >= 8 && cases.len() - holding >= 40, "{holding} of {}", cases.len());
}

#[test]
fn openssl_agrees_with_what_was_extracted() {
    let world = World::new();
    let names = ["unary-provider", "unary-client", "stream", "content-erased", "broken-off", "anchor-chain"];
    let cases = cases::all(&world);
    for name in names {
        openssl::check(cases.iter().find(|case| case.name == name).unwrap());
    }
}

#[test]
fn every_container_is_judged_for_its_own_reason() {
    let world = World::new();
    let cases = containers::all(&Containers::new(&world));
    let wrong = cases.iter().filter_map(|case| Some((case.name, containers::check(&world, case).err()?)));
    let wrong: String = wrong.map(|(name, why)| format!("{name}: {why}\n")).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

/// Writes the containers anew.
#[test]
#[ignore = "writes proto/vectors/container"]
fn write_containers() {
    let (world, folder) = (World::new(), vectors());
    let _ = fs::remove_dir_all(folder.join("container"));
    fs::create_dir_all(folder.join("container")).unwrap();
    let containers = Containers::new(&world);
    let mut index = Vec::new();
    for case in containers::all(&containers) {
        containers::check(&world, &case).unwrap();
        let file = format!("container/{}.asice", case.name);
        fs::write(folder.join(&file), &case.file).unwrap();
        let (conclusion, part, why) = case.expected.parts();
        index.push(json!({
            "file": file, "anchor": "anchor/nord-1.txt", "about": case.about, "now_ms": case.now.as_millis(),
            "conclusion": conclusion, "part": part, "why": why,
        }));
    }
    for (name, certificate) in containers.trusted() {
        fs::write(folder.join("container").join(name), certificate).unwrap();
    }
    let list = json!({ "sealed_ms": containers::sealing().as_millis(), "containers": index });
    let list = serde_json::to_string_pretty(&list).unwrap();
    fs::write(folder.join("containers.json"), list + "\n").unwrap();
}

/// Writes the vectors anew. Keys of the servers and authorities are made for it and thrown away.
#[test]
#[ignore = "writes proto/vectors"]
fn write_vectors() {
    let folder = vectors();
    let _ = fs::remove_dir_all(folder.join("proof"));
    fs::create_dir_all(folder.join("proof")).unwrap();
    let world = World::new();
    let mut index = Vec::new();
    for case in cases::all(&world) {
        check(&case).unwrap();
        let file = format!("proof/{}.trave", case.name);
        fs::write(folder.join(&file), &case.file).unwrap();
        let anchor = format!("anchor/{}.txt", case.anchor_name);
        fs::create_dir_all(folder.join("anchor")).unwrap();
        fs::write(folder.join(&anchor), &case.anchor).unwrap();
        let (conclusion, check, why) = case.expected.parts();
        index.push(json!({
            "file": file, "anchor": anchor, "about": case.about,
            "conclusion": conclusion, "check": check, "why": why,
        }));
    }
    let proofs =
        serde_json::to_string_pretty(&json!({ "now_ms": world::LATER.as_millis(), "proofs": index }))
            .unwrap();
    fs::write(folder.join("proofs.json"), proofs + "\n").unwrap();
    plain::write(&folder, &world);
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("proto/vectors")
}
