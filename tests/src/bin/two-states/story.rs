//! The story as it is told: for each scene what is expected, what was seen, how long it took, and whether it held.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

/// All scenes that have been played.
#[derive(Serialize)]
pub(crate) struct Story {
    /// Version of this program.
    release: &'static str,
    /// Whether every scene held.
    holds: bool,
    scenes: Vec<Scene>,
    #[serde(skip)]
    began: Option<Instant>,
}

/// One scene.
#[derive(Serialize)]
pub(crate) struct Scene {
    title: &'static str,
    expected: &'static str,
    seen: Vec<String>,
    checks: Vec<Check>,
    milliseconds: u128,
    holds: bool,
    /// Why the scene broke off, if it did.
    error: Option<String>,
    #[serde(skip)]
    began: Option<Instant>,
}

/// Something that had to be so.
#[derive(Serialize)]
struct Check {
    what: String,
    holds: bool,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION"),
            holds: true,
            scenes: Vec::new(),
            began: Some(Instant::now()),
        }
    }

    /// Opens a scene and prints what is expected of it.
    pub(crate) fn scene(&self, title: &'static str, expected: &'static str) -> Scene {
        println!("\n━━ {} · {title}", self.scenes.len() + 1);
        println!("   expected  {}", indented(expected));
        Scene {
            title,
            expected,
            seen: Vec::new(),
            checks: Vec::new(),
            milliseconds: 0,
            holds: true,
            error: None,
            began: Some(Instant::now()),
        }
    }

    /// Closes a scene: with an error, it did not hold.
    pub(crate) fn close(&mut self, mut scene: Scene, result: anyhow::Result<()>) {
        if let Err(error) = result {
            let error = format!("{error:#}");
            println!("   FAIL      {}", indented(&error));
            scene.error = Some(error);
        }
        scene.holds = scene.error.is_none() && scene.checks.iter().all(|check| check.holds);
        scene.milliseconds = scene.began.map_or(0, |began| began.elapsed().as_millis());
        let verdict = if scene.holds { "as expected" } else { "NOT AS EXPECTED" };
        println!("   {verdict}, {} ms", scene.milliseconds);
        self.holds &= scene.holds;
        self.scenes.push(scene);
    }

    pub(crate) fn holds(&self) -> bool {
        self.holds
    }

    /// One line for the end.
    pub(crate) fn summary(&self) -> String {
        let held = self.scenes.iter().filter(|scene| scene.holds).count();
        let seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        format!("{held} of {} scenes as expected, {seconds:.1} s", self.scenes.len())
    }

    /// Writes `story.json`.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Scene {
    /// Something that was seen.
    pub(crate) fn saw(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("   seen      {}", indented(&text));
        self.seen.push(text);
    }

    /// Something that must be so.
    pub(crate) fn check(&mut self, holds: bool, what: impl Into<String>) {
        let what = what.into();
        println!("   {}      {}", if holds { "ok  " } else { "FAIL" }, indented(&what));
        self.checks.push(Check { what, holds });
    }

    /// A command line, as it was run.
    pub(crate) fn command(&mut self, line: &str) {
        self.quote(format!("$ {line}"));
    }

    /// Lines that a reader may copy, or that another program printed.
    pub(crate) fn quote(&mut self, text: impl AsRef<str>) {
        for line in text.as_ref().trim_end().lines() {
            println!("      │ {line}");
            self.seen.push(line.to_owned());
        }
    }
}

/// Further lines stand under the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n             ")
}
