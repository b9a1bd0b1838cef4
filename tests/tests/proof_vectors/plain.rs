//! The parts of a proof by themselves, as vectors: each with those forms that must be refused.

use std::fs;
use std::path::Path;

use prost::Message;
use serde_json::{Value, json};
use trave_proto::schema::message as schema;
use trave_proto::schema::proof::Proof;

use crate::exchange::Plan;
use crate::world::{NOW, World, signed};

/// Writes `parts.json` and its files.
pub(crate) fn write(folder: &Path, world: &World) {
    let _ = fs::remove_dir_all(folder.join("part"));
    fs::create_dir_all(folder.join("part")).unwrap();
    let mut parts = Parts { folder, list: Vec::new() };
    let plan = Plan::unary(world, true);
    let (said, raw) = (plan.say(), plan.raw());
    manifests(&mut parts, said[0].manifest.encoded());
    envelopes(&mut parts, &raw, said[0].manifest.encoded(), &said[0].signature);
    leaves(&mut parts, &raw);
    configurations(&mut parts, world);
    anchors(&mut parts, world);
    checkpoints(&mut parts, &raw, world);
    let index =
        serde_json::to_string_pretty(&json!({ "now_ms": NOW.as_millis(), "parts": parts.list })).unwrap();
    fs::write(folder.join("parts.json"), index + "\n").unwrap();
}

struct Parts<'f> {
    folder: &'f Path,
    list: Vec<Value>,
}

impl Parts<'_> {
    /// A file of this kind; `refused` holds a part of the reason if it must be refused.
    fn add(&mut self, kind: &str, name: &str, about: &str, bytes: &[u8], refused: Option<&str>) {
        let file = format!("part/{kind}-{name}.bin");
        fs::write(self.folder.join(&file), bytes).unwrap();
        self.list.push(json!({ "file": file, "kind": kind, "about": about, "refused": refused }));
    }

    /// The same with `key`, by which a kind is verified.
    fn keyed(&mut self, name: &str, about: &str, bytes: &[u8], refused: Option<&str>, key: &str) {
        self.add("checkpoint", name, about, bytes, refused);
        let last = self.list.last_mut().unwrap();
        last["key"] = json!(key);
    }
}

fn manifests(parts: &mut Parts<'_>, good: &[u8]) {
    let mut add = |name, about, bytes: &[u8], refused| parts.add("manifest", name, about, bytes, refused);
    add("request", "the first message of a request", good, None);
    add(
        "unknown-field",
        "a field that no manifest has",
        &[good, &[0xf8, 0x01, 1]].concat(),
        Some("not canonical"),
    );
    add("cut", "the last byte is missing", &good[..good.len() - 1], Some("cannot be read"));
    let with = |change: fn(&mut schema::Manifest)| {
        let mut raw = schema::Manifest::decode(good).unwrap();
        change(&mut raw);
        raw.encode_to_vec()
    };
    add("version", "a later version", &with(|m| m.version = 3), Some("version 3 is not known"));
    add(
        "client",
        "a client that is no identifier",
        &with(|m| m.client = "NORD/SH".into()),
        Some("client is no identifier"),
    );
    add("nonce", "a nonce of 16 bytes", &with(|m| m.nonce = vec![0; 16].into()), Some("nonce is not valid"));
    add(
        "previous",
        "a first message that follows another",
        &with(|m| m.previous = vec![0; 32].into()),
        Some("previous is not valid"),
    );
    add(
        "uuid",
        "an exchange id that is no UUIDv7",
        &with(|m| m.exchange_id = vec![0; 16].into()),
        Some("exchange_id is no identifier"),
    );
    let bridged = with(|m| (m.version, m.bridged_from) = (2, "EE/GOV/%C3%B5igus".into()));
    add("bridged", "a bridge asks for a client of an X-Road instance", &bridged, None);
    add(
        "bridged-spelling",
        "the same client, spelled in another way",
        &with(|m| (m.version, m.bridged_from) = (2, "EE/GOV/%c3%b5igus".into())),
        Some("bridged_from is no identifier"),
    );
    add(
        "bridged-to",
        "a request that claims to know where it will be answered",
        &with(|m| (m.version, m.bridged_to) = (2, "EE/GOV/1/sub/rr".into())),
        Some("bridged_to is not valid"),
    );
    add(
        "bridged-version",
        "a bridge is named, in the version that knows none",
        &with(|m| m.bridged_from = "EE/GOV/1".into()),
        Some("version is not valid"),
    );
}

fn envelopes(parts: &mut Parts<'_>, raw: &Proof, manifest: &[u8], signature: &schema::Signature) {
    let record = &raw.records[0];
    let schema::Content { head, body, trailers } = record.content.clone().unwrap();
    let good = schema::Envelope {
        manifest: bytes::Bytes::copy_from_slice(manifest),
        signature: Some(signature.clone()),
        content_salt: record.content_salt.clone(),
        head,
        body,
        trailers,
        caller_context_salt: record.caller_context_salt.clone(),
        caller_context: record.caller_context.clone(),
    };
    let with = |change: fn(&mut schema::Envelope)| {
        let mut altered = good.clone();
        change(&mut altered);
        altered.encode_to_vec()
    };
    let mut add = |name, about, bytes: Vec<u8>, refused| parts.add("envelope", name, about, &bytes, refused);
    add("request", "the first message of a request as it travels", with(|_| {}), None);
    add("body", "another body", with(|e| e.body = "wen?".into()), Some("content is not the one"));
    add("head", "no head", with(|e| e.head = None), Some("content is not the one"));
    add(
        "caller",
        "no caller context",
        with(|e| {
            e.caller_context = None;
            e.caller_context_salt.clear();
        }),
        Some("caller context is not the one"),
    );
    add("unsigned", "no signature", with(|e| e.signature = None), Some("has no signature"));
    add(
        "batch",
        "a place outside its batch",
        with(|e| e.signature.as_mut().unwrap().batch_index = 3),
        Some("out of bounds"),
    );
    add(
        "salt",
        "a salt of 31 bytes",
        with(|e| e.content_salt = vec![0; 31].into()),
        Some("the content is refused"),
    );
}

fn leaves(parts: &mut Parts<'_>, raw: &Proof) {
    let good = &raw.records[0].leaf;
    parts.add("leaf", "message", "the record of a received message", good, None);
    parts.add(
        "leaf",
        "unknown-field",
        "a field that no leaf has",
        &[&good[..], &[0xa0, 0x1f, 1]].concat(),
        Some("not canonical"),
    );
}

fn configurations(parts: &mut Parts<'_>, world: &World) {
    let good = world.configuration.signed();
    let mut add =
        |name, about, bytes: Vec<u8>, refused| parts.add("configuration", name, about, &bytes, refused);
    add("signed", "a global configuration signed by both states", good.encode_to_vec(), None);
    let mut one = good.clone();
    one.signatures.truncate(1);
    add("one-state", "signed by one state alone", one.encode_to_vec(), Some("1 of the 2 signatures"));
    let mut twice = good.clone();
    twice.signatures[1] = twice.signatures[0].clone();
    add("one-state-twice", "signed by one state, twice", twice.encode_to_vec(), Some("does not hold"));
    let mut raw = world.raw_configuration();
    raw.members.reverse();
    add("order", "members out of order", signed(&raw).encode_to_vec(), Some("out of order"));
    let mut raw = world.raw_configuration();
    raw.instance = "SUED".into();
    add("instance", "of another instance", signed(&raw).encode_to_vec(), Some("of the instance \"SUED\""));
}

fn anchors(parts: &mut Parts<'_>, world: &World) {
    let good = world.anchor.bytes();
    let text = std::str::from_utf8(good).unwrap();
    let mut add =
        |name, about, text: String, refused| parts.add("anchor", name, about, text.as_bytes(), refused);
    add("two-keys", "two keys of which both must sign", text.into(), None);
    add(
        "crlf",
        "lines that end as on Windows",
        text.replace('\n', "\r\n"),
        Some("not a configuration anchor"),
    );
    add(
        "threshold",
        "more signatures than keys",
        text.replace("threshold 2", "threshold 3"),
        Some("threshold"),
    );
    add(
        "upper-case",
        "hexadecimal digits in upper case",
        text.replace("key cosigner-mv ", "key cosigner-mv A").replacen("A8", "A", 1),
        Some("not a configuration anchor"),
    );
}

fn checkpoints(parts: &mut Parts<'_>, raw: &Proof, world: &World) {
    let key = world.provider.log_key().verifier().to_string();
    let note = raw.checkpoint.as_ref().unwrap().note.clone();
    parts.keyed("signed", "a checkpoint that its log signed", &note, None, &key);
    let text = String::from_utf8(note.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let larger = text.replacen(&format!("\n{}\n", lines[1]), "\n8\n", 1);
    parts.keyed("larger", "another number of records", larger.as_bytes(), Some("does not verify"), &key);
    let extended = text.replacen("\n\n", "\nextension\n\n", 1);
    parts.keyed(
        "extension",
        "a line more than a checkpoint has",
        extended.as_bytes(),
        Some("does not verify"),
        &key,
    );
    let other = world.client.log_key().verifier().to_string();
    parts.keyed("other-key", "the same under another log's key", &note, Some("no known key"), &other);
}
