//! The programs as an operator has them: built as the tests were.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test ends at what it did not expect")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program of this name: `trave-gateway`, `trave-verify` or `trave-audit`.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--offline",
            "--bin",
            "trave-gateway",
            "--bin",
            "trave-verify",
            "--bin",
            "trave-audit",
            // With a test among what is built, the libraries are those of the tests: without, cargo builds them anew with the
            // features that no test needs.
            "--test",
            "layering",
        ]);
        build.arg("--workspace");
        // What cargo tells this test of its package would tell ring's build script that it is another one: ring and all that
        // rests on it would be built anew, here and at the next build outside.
        let told = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
        for name in told.filter(|name| of_package.iter().any(|begins| name.starts_with(begins))) {
            build.env_remove(name);
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(build.current_dir(workspace).status().unwrap().success());
        // target/PROFILE/deps/program-HASH
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
    });
    directory.join(name)
}
