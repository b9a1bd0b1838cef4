//! `trave-verify` as its reader meets it: exit statuses, both languages, and a page that no proof can write on.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use serde_json::Value;
use trave_proto::digest::Digest;
use trave_proto::schema::proof as schema;

/// The line with which a proof begins.
const HEAD: &[u8] = b"trave proof v1\n";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trave-verify")).args(arguments).output().unwrap()
}

fn vector(name: &str) -> String {
    common::path(name).to_str().unwrap().to_owned()
}

fn verify(proof: &str, more: &[&str]) -> (i32, String, String) {
    let (proof, anchor) = (vector(proof), vector("anchor/nord-1.txt"));
    let output = run(&[&[proof.as_str(), "--anchor", &anchor], more].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_status_says_what_the_first_line_says() {
    for (proof, status, line) in [
        ("proof/unary-provider.trave", 0, "THE PROOF HOLDS"),
        ("proof/content-altered.trave", 1, "THE PROOF DOES NOT HOLD"),
        ("proof/not-yet-stamped.trave", 2, "IT CANNOT BE TOLD WHETHER THE PROOF HOLDS"),
    ] {
        let (found, page, _) = verify(proof, &[]);
        assert_eq!((found, page.lines().next().unwrap()), (status, line), "{proof}");
        assert_eq!(page.contains("NOT PROVED"), status != 0, "{proof}");
    }
    for proof in ["proof/truncated.trave", "proof/newer.trave", "no-such-file"] {
        let (found, page, error) = verify(proof, &[]);
        assert_eq!((found, page.as_str()), (2, ""), "{proof}");
        assert!(error.starts_with("cannot tell: "), "{error}");
    }
    assert_eq!(run(&["--wrong"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn the_story_is_told_in_both_languages() {
    let (_, english, _) = verify("proof/unary-provider.trave", &[]);
    for words in [
        "Gewerbeamt, Hansestadt Lübeck (Beispiel)",
        "gewerbeummeldung – Change of a business registration",
        "GewO-14 – Duty to notify",
        "HTTP 200, gRPC 0 OK",
        "person concerned: Anna Beispiel",
        "2026-11-21 19:14:00.005 UTC",
        "What this proof does not prove",
        "That the register's data are true",
    ] {
        assert!(english.contains(words), "{words}\n{english}");
    }
    let digest = Digest::of(&common::bytes("proof/unary-provider.trave")).to_string();
    assert!(english.contains(&digest), "{english}");
    let (status, german, _) = verify("proof/unary-provider.trave", &["--lang", "de"]);
    assert_eq!(status, 0);
    for words in [
        "DIE BEWEISDATEI HÄLT DER PRÜFUNG STAND",
        "gewerbeummeldung – Gewerbeummeldung",
        "Rechtsgrundlage",
        "betroffene Person: Anna Beispiel",
        "21.11.2026, 19:14:00,005 Uhr (UTC)",
        "Was diese Beweisdatei nicht beweist",
        "Prüfstand",
    ] {
        assert!(german.contains(words), "{words}\n{german}");
    }
}

#[test]
fn a_bridge_is_told_and_what_lies_beyond_is_not_claimed() {
    let told = |lang: &str, words: &[&str]| {
        let (status, page, _) = verify("proof/bridged-both.trave", &["--lang", lang]);
        assert_eq!(status, 0);
        for words in words {
            assert!(page.contains(words), "{words}\n{page}");
        }
    };
    told(
        "en",
        &[
            "Bridged from X-Road   EE/GOV/70000310/amet",
            "Bridged to X-Road     EE/GOV/70000562/rahvastik/isikud",
            "(what lies beyond the bridge is not proved by this file)",
            "What lies beyond the bridge to X-Road: that the client named there asked",
        ],
    );
    told(
        "de",
        &[
            "Brücke von X-Road     EE/GOV/70000310/amet",
            "Brücke zu X-Road      EE/GOV/70000562/rahvastik/isikud",
            "(was jenseits der Brücke liegt, beweist diese Datei nicht)",
            "Was jenseits der Brücke zu X-Road liegt",
        ],
    );
    let (_, json, _) = verify("proof/bridged-to.trave", &["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["story"]["bridged_to"], "EE/GOV/70000562/rahvastik/isikud");
    assert_eq!(report["story"]["bridged_from"], Value::Null);
    assert!(report["not_proved"].to_string().contains("beyond_bridge"));
    let (_, page, _) = verify("proof/unary-provider.trave", &[]);
    assert!(!page.to_lowercase().contains("bridge"), "{page}");
}

#[test]
fn an_incomplete_exchange_is_called_so() {
    let (status, page, _) = verify("proof/broken-off.trave", &["--lang", "de"]);
    assert_eq!(status, 0);
    assert!(page.contains("UNVOLLSTÄNDIG, abgebrochen: 1 Nachrichten der Anfrage, 0 der Antwort"), "{page}");
    assert!(page.contains("vom Empfänger bestätigt: 0 der Anfrage, 0 der Antwort"), "{page}");
    assert!(page.contains("register_unreachable"), "{page}");
}

#[test]
fn programs_read_json() {
    let (status, json, _) = verify("proof/content-altered.trave", &["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &report["conclusion"]), (1, &Value::from("does_not_hold")));
    assert_eq!(report["story"]["responses"][0]["content"], "mismatch");
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 16);
    let failed: Vec<_> = checks.iter().filter(|check| check["outcome"] == "fails").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["name"], "contents");
}

#[test]
fn nothing_in_a_proof_writes_on_the_page() {
    for more in [&[][..], &["--lang", "de"], &["--json"]] {
        let (status, page, _) = verify("proof/hostile-words.trave", more);
        assert_eq!(status, 0);
        let hidden =
            |c: &char| (c.is_control() && *c != '\n') || matches!(c, '\u{202e}' | '\u{2066}' | '\u{200b}');
        assert_eq!(page.chars().find(hidden), None, "{page}");
        assert!(!page.contains("\nTHE PROOF"), "{page}");
    }
}

#[test]
fn nothing_is_overwritten_when_it_is_taken_apart() {
    let folder = std::env::temp_dir().join(format!("trave-verify-{}", std::process::id()));
    let folder_text = folder.to_str().unwrap();
    std::fs::create_dir(&folder).unwrap();
    let (status, _, error) = verify("proof/unary-provider.trave", &["--extract", folder_text]);
    let left = std::fs::read_dir(&folder).unwrap().count();
    std::fs::remove_dir(&folder).unwrap();
    assert_eq!((status, left), (2, 0), "{error}");
    assert!(error.contains("it must be a new directory"), "{error}");
    let (status, _, _) = verify("proof/unary-provider.trave", &["--extract", folder_text]);
    let written: Vec<PathBuf> =
        ["check.sh", "messages/response-0/body.bin", "checkpoint/tsa.pem"].map(|f| folder.join(f)).into();
    let all_there = written.iter().all(|file| Path::is_file(file));
    let body = std::fs::read(folder.join("messages/response-0/body.bin"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((status, all_there), (0, true));
    assert_eq!(body.unwrap(), "Anna Beispiel, Bäckerei".as_bytes());
}

/// Others may sign a checkpoint under the log's name, with other keys: what is taken out is the log's own signature.
#[test]
fn a_signature_is_found_by_its_key_not_by_its_name() {
    let file = common::bytes("proof/unary-provider.trave");
    let mut proof = schema::Proof::decode(&file[HEAD.len()..]).unwrap();
    let checkpoint = proof.checkpoint.as_mut().unwrap();
    let note = String::from_utf8(checkpoint.note.to_vec()).unwrap();
    let (text, own) = note.split_at(note.rfind("\n\n").unwrap() + 2);
    let (name, value) = own.trim_end().rsplit_once(' ').unwrap();
    let own_signature = BASE64.decode(value).unwrap().split_off(4);
    let strange = BASE64.encode([7; 68]);
    checkpoint.note = format!("{text}{name} {strange}\n{own}").into();
    let folder = std::env::temp_dir().join(format!("trave-verify-by-key-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let altered = folder.join("altered.trave");
    std::fs::write(&altered, [HEAD, &proof.encode_to_vec()].concat()).unwrap();
    let out = folder.join("out");
    let anchor = vector("anchor/nord-1.txt");
    // The timestamp is over another note then, and it says so; what was read before lies there.
    run(&[altered.to_str().unwrap(), "--anchor", &anchor, "--extract", out.to_str().unwrap()]);
    let taken = std::fs::read(out.join("checkpoint/signature.bin"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(taken.unwrap(), own_signature);
}
