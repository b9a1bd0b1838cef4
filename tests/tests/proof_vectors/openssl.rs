//! `trave-verify --extract`, and what OpenSSL says of the files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use trave_tests::program::program;

use crate::cases::Case;

/// Extracts the proof with the program itself and runs the script that it writes; then alters each kind of file, and
/// the script must notice.
pub(crate) fn check(case: &Case) {
    let directory = tempfile::tempdir().unwrap();
    let (proof, anchor, out) =
        (directory.path().join("proof"), directory.path().join("anchor"), directory.path().join("out"));
    fs::write(&proof, &case.file).unwrap();
    fs::write(&anchor, &case.anchor).unwrap();
    let output = Command::new(program("trave-verify"))
        .args([&proof, Path::new("--anchor"), &anchor, Path::new("--extract"), &out])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}: {output:?}", case.name);
    let checked = run(&out);
    assert!(checked.status.success(), "{}:\n{}", case.name, String::from_utf8_lossy(&checked.stdout));
    if case.name == "unary-provider" {
        for file in [
            "configurations/1/signed.bin",
            "checkpoint/text.txt",
            "checkpoint/note.txt",
            "records/3/leaf.bin",
            "messages/request-0/manifest.bin",
            "messages/request-0/signature.der",
            "messages/response-0/signed.bin",
            "messages/response-0/content-committed.bin",
            "messages/request-0/caller-context-committed.bin",
            "messages/request-0/grant.bin",
            "messages/request-0/ocsp.der",
        ] {
            notices(&out, file);
        }
    }
}

fn notices(out: &Path, file: &str) {
    let path = out.join(file);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&path, bad).unwrap();
    let checked = run(out);
    assert_eq!(checked.status.code(), Some(1), "{file}: {}", String::from_utf8_lossy(&checked.stdout));
    fs::write(&path, good).unwrap();
}

fn run(out: &Path) -> Output {
    Command::new("sh").arg(out.join("check.sh")).output().unwrap()
}
