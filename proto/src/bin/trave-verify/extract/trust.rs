//! Anchors, configurations, checkpoint and timestamp as files.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use trave_proto::certificate::SignatureAlgorithm::Ed25519;
use trave_proto::checkpoint::{Checkpoint, Note, NoteVerifier};
use trave_proto::digest::{Digest, tag};
use trave_proto::global_configuration::{Anchor, Configuration};
use trave_proto::proof::Proof;
use trave_proto::schema::configuration::KeySignature;
use trave_proto::timestamp::Timestamp;

use super::script::Script;
use super::{Folder, pem};

/// The configurations of the proof that an anchor vouches for, with the number of that anchor.
pub(super) struct Trusted(Vec<Configuration>);

impl Trusted {
    /// The configuration of that digest.
    pub(super) fn get(&self, digest: &[u8]) -> Option<&Configuration> {
        self.0.iter().find(|one| one.digest().as_bytes()[..] == *digest)
    }
}

/// Writes anchors and configurations with their signatures.
pub(super) fn write(
    folder: &mut Folder,
    script: &mut Script,
    proof: &Proof,
    own: &Anchor,
) -> anyhow::Result<Trusted> {
    let anchors = anchors(folder, script, proof, own)?;
    script.part("The global configurations, under the anchor's keys");
    let mut trusted = Vec::new();
    for signed in &proof.raw().configurations {
        let found =
            anchors.iter().find_map(|anchor| Some((anchor, Configuration::verify(signed, anchor).ok()?)));
        let (anchor, configuration) =
            found.context("a configuration of the proof is not signed as your anchor demands")?;
        let name = format!("configurations/{}", configuration.number());
        folder.write(&format!("{name}/configuration.bin"), configuration.bytes())?;
        let what = format!("configuration {}", configuration.number());
        let content = [tag::CONFIGURATION, configuration.bytes()].concat();
        signatures(folder, script, (&name, &what), &content, &signed.signatures, anchor)?;
        trusted.push(configuration);
    }
    Ok(Trusted(trusted))
}

/// The verifier's own anchor and those that follow it.
fn anchors(
    folder: &mut Folder,
    script: &mut Script,
    proof: &Proof,
    own: &Anchor,
) -> anyhow::Result<Vec<Anchor>> {
    let mut anchors = vec![own.clone()];
    folder.write(&format!("anchor/{}.txt", own.number()), own.bytes())?;
    for signed in &proof.raw().anchors {
        let last = anchors[anchors.len() - 1].clone();
        let Ok(next) = last.verify_successor(signed) else { continue };
        script.part("An anchor that follows another, under the keys of both");
        let name = format!("anchor/{}", next.number());
        folder.write(&format!("{name}.txt"), next.bytes())?;
        let content = [tag::ANCHOR, next.bytes()].concat();
        for anchor in [&last, &next] {
            let what = format!("anchor {} by anchor {}", next.number(), anchor.number());
            let name = format!("{name}/by-{}", anchor.number());
            signatures(folder, script, (&name, &what), &content, &signed.signatures, anchor)?;
        }
        anchors.push(next);
    }
    Ok(anchors)
}

/// The signatures of the anchor's keys over `content`. Names of keys are codes, harmless in a file's name.
fn signatures(
    folder: &mut Folder,
    script: &mut Script,
    (name, what): (&str, &str),
    content: &[u8],
    signatures: &[KeySignature],
    anchor: &Anchor,
) -> anyhow::Result<()> {
    let signed = format!("{name}/signed.bin");
    folder.write(&signed, content)?;
    for (at, key) in anchor.keys().iter().enumerate() {
        let Some(signature) = signatures.iter().find(|signature| signature.key == key.name) else { continue };
        let [key_file, value] = [format!("{name}/key-{at}.pem"), format!("{name}/signature-{at}.bin")];
        folder.write(&key_file, pem::ed25519(&key.public_key).as_bytes())?;
        folder.write(&value, &signature.value)?;
        script.signature(&format!("{what}: signed by {}", key.name), Ed25519, [&key_file, &value, &signed]);
    }
    Ok(())
}

/// How many records the log held, as the note says.
pub(super) fn size_of(note: &[u8]) -> Option<u64> {
    let note = Note::parse(note).ok()?;
    Checkpoint::from_text(note.text()).ok().map(|checkpoint| checkpoint.size)
}

/// Writes the checkpoint, its signature, and the timestamp.
pub(super) fn write_checkpoint(
    folder: &mut Folder,
    script: &mut Script,
    proof: &Proof,
    trusted: &Trusted,
) -> anyhow::Result<()> {
    let raw = proof.raw().checkpoint.as_ref().context("there is no checkpoint")?;
    let note = Note::parse(&raw.note).context("the checkpoint cannot be read")?;
    let checkpoint = Checkpoint::from_text(note.text()).context("the checkpoint cannot be read")?;
    script.part("The checkpoint of the log, and its timestamp");
    folder.write("checkpoint/note.txt", &raw.note)?;
    folder.write("checkpoint/text.txt", note.text().as_bytes())?;
    let log = trusted.0.iter().find_map(|one| one.log_key(&checkpoint.origin));
    let log = log.context("no configuration lists the checkpoint's log")?;
    // Others may sign under the same name, with other keys.
    let key =
        NoteVerifier::new(&checkpoint.origin, log.public_key).context("the log's key cannot be used")?;
    let own = note.signed_by(std::slice::from_ref(&key)).to_bytes();
    let signature = signature_of(&own).context("the log has not signed the checkpoint")?;
    folder.write("checkpoint/log-key.pem", pem::ed25519(&log.public_key).as_bytes())?;
    folder.write("checkpoint/signature.bin", &signature)?;
    let files = ["checkpoint/log-key.pem", "checkpoint/signature.bin", "checkpoint/text.txt"];
    script.signature("the checkpoint is signed by the log", Ed25519, files);
    script.run("sed -n 3p checkpoint/text.txt | openssl base64 -d -A >checkpoint/root.bin || exit 2");
    write_cosignatures(folder, script, (&raw.note, &raw.cosignatures), trusted)?;
    if raw.timestamp_token.is_empty() {
        script.part("The checkpoint has no timestamp yet");
        return Ok(());
    }
    folder.write("checkpoint/timestamp.der", &raw.timestamp_token)?;
    let digest = Digest::of(&raw.note);
    for authority in trusted.0.iter().flat_map(Configuration::timestamping_authorities) {
        let der = std::slice::from_ref(&authority.certificate);
        if let Ok(timestamp) = Timestamp::verify(&raw.timestamp_token, &digest, None, der) {
            folder.write("checkpoint/tsa.pem", pem::certificate(&authority.certificate).as_bytes())?;
            script.timestamp(timestamp.time());
            return Ok(());
        }
    }
    anyhow::bail!("the timestamp is not by an authority of the configuration")
}

/// Writes what each witness signed: its own two lines and the checkpoint's text (C2SP tlog-cosignature).
fn write_cosignatures(
    folder: &mut Folder,
    script: &mut Script,
    (note, lines): (&[u8], &[u8]),
    trusted: &Trusted,
) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    folder.write("checkpoint/cosigned.txt", &[note, lines].concat())?;
    let mut cosigned = Note::parse(note).context("the checkpoint cannot be read")?;
    cosigned.add_lines(lines).context("the cosignatures cannot be read")?;
    let mut written = Vec::new();
    for witness in trusted.0.iter().flat_map(Configuration::witnesses) {
        let own = cosigned.cosignature_lines(std::slice::from_ref(&witness.verifier));
        let Some(value) = signature_of(own.as_bytes()) else { continue };
        if written.contains(&&witness.verifier) {
            continue;
        }
        written.push(&witness.verifier);
        let (seconds, signature) = value.split_first_chunk().context("a cosignature is too short")?;
        let time = u64::from_be_bytes(*seconds);
        let signed = format!("cosignature/v1\ntime {time}\n{}", cosigned.text());
        let number = written.len();
        let [key, value, over] =
            ["key.pem", "bin", "txt"].map(|ending| format!("checkpoint/witness-{number}.{ending}"));
        folder.write(&key, pem::ed25519(witness.verifier.public_key()).as_bytes())?;
        folder.write(&value, signature)?;
        folder.write(&over, signed.as_bytes())?;
        let what = format!("witness {number} of the configuration cosigned the checkpoint");
        script.signature(&what, Ed25519, [&key, &value, &over]);
    }
    Ok(())
}

/// The signature of the last line: its base64 holds four bytes that find the key, then it.
fn signature_of(lines: &[u8]) -> Option<Vec<u8>> {
    let line = std::str::from_utf8(lines).ok()?.lines().last()?;
    let (_, value) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    Some(BASE64.decode(value).ok()?.get(4..)?.to_vec())
}
