//! Imports flow downward, between crates and inside each: whoever reads a module needs to read only what stands below it.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate with the crates of ours that it may import.
const CRATES: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("proto/message-log", &["trave-proto"]),
    ("proto/host", &["trave-proto"]),
    ("certs", &["trave-proto", "trave-message-log", "trave-host"]),
    ("registry", &["trave-proto", "trave-message-log", "trave-host", "trave-certs"]),
    ("gateway", &["trave-proto", "trave-message-log", "trave-host"]),
    (
        "tests",
        &["trave-proto", "trave-message-log", "trave-host", "trave-certs", "trave-registry", "trave-gateway"],
    ),
];

/// What the auditor's verifier must not need.
const NOT_IN_PROTO: [&str; 8] =
    ["tokio", "tonic", "hyper", "h2", "sled", "rustls", "axum", "trave-message-log"];

#[test]
fn crates_import_downward() {
    for (folder, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let tables = ["dependencies", "build-dependencies", "dev-dependencies"];
        let ours = tables
            .iter()
            .filter_map(|table| manifest.get(*table)?.as_table())
            .flat_map(|table| table.keys())
            .filter(|name| name.starts_with("trave-"));
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{folder} must not import {name}");
        }
    }
}

#[test]
fn the_verifier_needs_no_network_and_no_database() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "trave-proto", "-e", "normal", "--prefix", "none"])
        .args(["--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("ring"), "this is not the tree of trave-proto: {tree}");
    for name in NOT_IN_PROTO {
        assert!(!crates.contains(name), "trave-proto depends on {name}");
    }
}

#[test]
fn modules_import_downward() {
    let violations: Vec<String> =
        CRATES.iter().flat_map(|(folder, _)| upward_imports(&root().join(folder).join("src"))).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn an_upward_import_is_found() {
    let order = ["door".to_owned(), "middle".to_owned(), "cellar".to_owned()];
    let check = |source: &str| violations_in(&order, 1, 1, source);
    assert_eq!(check("use crate::cellar::X;\nuse crate::middle::part;\n"), Vec::<String>::new());
    assert_eq!(check("use crate::door::X;"), ["door"]);
    assert_eq!(check("use crate::{\n    cellar::{A, B},\n    door,\n};"), ["door"]);
    assert_eq!(check("fn f() { crate::door::open(); }"), ["door"]);
    assert_eq!(check("use super::door::X;"), ["super::door"]);
    assert_eq!(check("/// See [`crate::door`].\nuse crate::cellar;"), Vec::<String>::new());
    assert_eq!(check("fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::door;\n}"), Vec::<String>::new());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every import of a crate that goes up, as "file: name".
fn upward_imports(src: &Path) -> Vec<String> {
    let order = modules(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut found = Vec::new();
    for (position, module) in order.iter().enumerate() {
        let mut files = Vec::new();
        let file = src.join(format!("{module}.rs"));
        if file.exists() {
            files.push((file, 1));
        }
        collect(&src.join(module), 2, &mut files);
        assert!(!files.is_empty(), "module {module} of {} has no file", src.display());
        for (file, depth) in files {
            let source = fs::read_to_string(&file).unwrap();
            let names = violations_in(&order, position, depth, &source);
            found.extend(
                names
                    .into_iter()
                    .map(|name| format!("{}: {name} stands above {module} in lib.rs", file.display())),
            );
        }
    }
    found
}

/// The names of the modules in the order of `lib.rs`, without those that only tests see.
fn modules(lib: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut for_tests = false;
    for line in lib.lines() {
        let declared = ["mod ", "pub mod ", "pub(crate) mod "]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix)?.strip_suffix(';'));
        match declared {
            Some(name) if !for_tests => names.push(name.to_owned()),
            _ => {}
        }
        for_tests = line.starts_with("#[cfg(test)]");
    }
    names
}

/// The Rust files under `folder`, with their depth below the crate's root.
fn collect(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, usize)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let for_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() {
            collect(&path, depth + 1, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !for_tests {
            let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
            files.push((path, if is_mod { depth - 1 } else { depth }));
        }
    }
}

/// The names that `source`, a file of the module at `position`, imports from above it.
fn violations_in(order: &[String], position: usize, depth: usize, source: &str) -> Vec<String> {
    let source = without_comments_and_tests(source);
    let above = |name: &String| order[..position].contains(name);
    let mut found: Vec<String> = imports(&source, "crate::").into_iter().filter(above).collect();
    // As many "super"s as the file is deep reach the crate's root: `crate::` must be written there.
    let to_the_root = format!("use {}", "super::".repeat(depth));
    for line in source.lines().filter(|line| line.starts_with(&to_the_root)) {
        found.push(line.trim_start_matches("use ").trim_end_matches("::X;").to_owned());
    }
    found
}

/// The first segment of everything that follows `prefix`, groups in braces taken apart.
fn imports(source: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in source.match_indices(prefix) {
        let before = source[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &source[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.push(head(rest)),
        }
    }
    names
}

/// The first segments of the members of a group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut begins) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && c.is_alphabetic() => {
                heads.push(head(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    heads
}

fn head(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Tests stand last in a file, in a module of their own, and may look anywhere.
fn without_comments_and_tests(source: &str) -> String {
    let product = source.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}
