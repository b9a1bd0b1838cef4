//! A stage of a message cannot be skipped: what would skip one does not compile.
//!
//! Not signed, not sent. Not verified and logged, not served. Not logged, not answered: each stage is a type with one
//! maker. The programs in `compile_fail/refused` make one by hand or pass one on too early, and each must fail with the
//! error that its first line names; their twin takes every stage, and compiles.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_stage_is_neither_made_by_hand_nor_skipped() {
    let cases = root().join("tests/compile_fail");
    let refused: BTreeMap<String, PathBuf> = fs::read_dir(cases.join("refused"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    assert!(refused.len() >= 9, "the cases are there: {refused:?}");
    let mut programs = refused.clone();
    programs.insert("twins".into(), cases.join("twins.rs"));
    let (errors, compiled) = check(&programs);
    assert!(compiled.contains("twins"), "what takes every stage compiles: {:?}", errors.get("twins"));
    for (name, path) in refused {
        let source = fs::read_to_string(path).unwrap();
        let expected = source.strip_prefix("//! ").and_then(|rest| rest.split(':').next()).unwrap();
        let seen = errors.get(&name).cloned().unwrap_or_default();
        assert_eq!(seen, BTreeSet::from([expected.to_owned()]), "{name}");
    }
}

/// Compiles programs against the crates of this workspace: the codes of the errors of each, and which compiled.
fn check(programs: &BTreeMap<String, PathBuf>) -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let package = tempfile::tempdir().unwrap();
    let crate_at = |path: &str| root().join(path).display().to_string();
    let mut manifest = format!(
        "[package]\nname = \"cases\"\nversion = \"0.0.0\"\nedition = \"2024\"\nautobins = false\n[workspace]\n\
         [dependencies]\ntrave-proto = {{ path = {:?} }}\ntrave-message-log = {{ path = {:?} }}\n",
        crate_at("proto"),
        crate_at("proto/message-log"),
    );
    for (name, path) in programs {
        manifest += &format!("[[bin]]\nname = {name:?}\npath = {:?}\n", path.display().to_string());
    }
    fs::write(package.path().join("Cargo.toml"), manifest).unwrap();
    // The same versions as everywhere: what they need is on this machine already.
    fs::copy(root().join("Cargo.lock"), package.path().join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--keep-going", "--bins", "--message-format=json", "--target-dir"])
        .arg(root().join("target/compile_fail"))
        .current_dir(package.path())
        .output()
        .unwrap();
    let (mut errors, mut compiled) = (BTreeMap::<String, BTreeSet<String>>::new(), BTreeSet::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let said: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = said["target"]["name"].as_str().unwrap_or_default().to_owned();
        match said["reason"].as_str() {
            Some("compiler-artifact") => {
                compiled.insert(name);
            }
            Some("compiler-message") if said["message"]["level"] == "error" => {
                let code = said["message"]["code"]["code"].as_str();
                errors.entry(name).or_default().extend(code.map(str::to_owned));
            }
            _ => {}
        }
    }
    assert!(!compiled.is_empty(), "cargo says: {}", String::from_utf8_lossy(&output.stderr));
    (errors, compiled)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
