//! The auditor's program. It is not one of our servers and shares no executable with them: `trave-verify` beside this one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::processes::Ran;

/// `trave-verify`, found or built.
pub(crate) struct Verifier {
    path: PathBuf,
}

impl Verifier {
    /// Finds `trave-verify` beside this executable; `cargo run` builds only what it runs, so that it may have to be built.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("cannot find this program's own file")?;
        let folder = executable.parent().context("this program stands nowhere")?;
        let path = folder.join("trave-verify");
        if !path.exists() {
            build(folder)?;
        }
        ensure!(path.exists(), "trave-verify does not stand in {}", folder.display());
        Ok(Self { path })
    }

    /// Runs it as a stranger would, with the proof and the anchor alone.
    pub(crate) fn verify(&self, proof: &Path, anchor: &Path) -> anyhow::Result<Ran> {
        let output = Command::new(&self.path)
            .arg(proof)
            .arg("--anchor")
            .arg(anchor)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        Ok(Ran::of(output))
    }
}

/// Builds it with the cargo that built this program, into the same folder.
fn build(folder: &Path) -> anyhow::Result<()> {
    println!("   building  trave-verify, the auditor's program");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "-p", "trave-proto", "--bin", "trave-verify"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let target = folder.parent().context("this program does not stand in a target directory")?;
    let status = command
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("trave-verify has to be built, and there is no cargo")?;
    ensure!(status.success(), "trave-verify cannot be built");
    Ok(())
}
