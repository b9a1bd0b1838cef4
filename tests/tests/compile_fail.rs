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
    assert!(refused.len() >= 10, "the cases are there: {refused:?}");
    let crates = Crates::find(&cases.join("twins.rs"));
    for (name, path) in refused {
        let source = fs::read_to_string(&path).unwrap();
        let expected = source.strip_prefix("//! ").and_then(|rest| rest.split(':').next()).unwrap();
        assert_eq!(crates.errors(&path), BTreeSet::from([expected.to_owned()]), "{name}");
    }
}

/// The crates as they were compiled for this test.
struct Crates {
    folder: PathBuf,
    proto: PathBuf,
    message_log: PathBuf,
    gateway: PathBuf,
}

impl Crates {
    /// Finds those against which `twins` compiles: beside this program, the newest first. Others are left over from
    /// before, and fit neither each other nor the twins.
    fn find(twins: &Path) -> Self {
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let of = |name| newest(&folder, name);
        let (protos, logs) = (of("libtrave_proto-"), of("libtrave_message_log-"));
        let gateways = of("libtrave_gateway-");
        let mut last = BTreeSet::new();
        for gateway in &gateways {
            for (message_log, proto) in logs.iter().flat_map(|log| protos.iter().map(move |one| (log, one))) {
                let (proto, message_log) = (proto.clone(), message_log.clone());
                let crates = Self { folder: folder.clone(), proto, message_log, gateway: gateway.clone() };
                last = crates.errors(twins);
                if last.is_empty() {
                    return crates;
                }
            }
        }
        panic!("what takes every stage does not compile: {last:?}");
    }

    /// The codes of the errors with which a program does not compile.
    fn errors(&self, program: &Path) -> BTreeSet<String> {
        let scratch = tempfile::tempdir().unwrap();
        let with = |name: &str, path: &Path| format!("--extern={name}={}", path.display());
        let output = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
            .args(["--edition=2024", "--emit=metadata", "--error-format=json", "--out-dir"])
            .arg(scratch.path())
            .arg(format!("-Ldependency={}", self.folder.display()))
            .arg(with("trave_proto", &self.proto))
            .arg(with("trave_message_log", &self.message_log))
            .arg(with("trave_gateway", &self.gateway))
            .arg(program)
            .output()
            .unwrap();
        let mut codes = BTreeSet::new();
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            let said: serde_json::Value = serde_json::from_str(line).unwrap();
            if said["level"] == "error" {
                codes.extend(said["code"]["code"].as_str().map(str::to_owned));
            }
        }
        assert_eq!(output.status.success(), codes.is_empty(), "{}: {codes:?}", program.display());
        codes
    }
}

/// The libraries in `folder` whose name begins so, the newest first.
fn newest(folder: &Path, begins: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(begins) && name.ends_with(".rlib")
        })
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().modified().unwrap()));
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
