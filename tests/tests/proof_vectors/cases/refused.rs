//! Proofs whose frame does not hold: structure, configurations, checkpoint, timestamp, places in the log.

use bytes::Bytes;
use prost::Message;
use std::time::Duration;
use trave_proto::checkpoint::{Checkpoint, Note};
use trave_proto::digest::Digest;
use trave_proto::schema::configuration::GlobalConfiguration;
use trave_proto::schema::proof::Proof;
use trave_proto::schema::{log, message};

use super::{Cases, Expected};
use crate::exchange::{Plan, file};
use crate::world::{LATER, NOW, World, signed, signed_by};

pub(super) fn add(cases: &mut Cases<'_>) {
    structure(cases);
    configurations(cases);
    seal(cases);
}

/// The provider's proof with something changed in the file.
pub(super) fn altered(world: &World, change: impl FnOnce(&mut Proof)) -> Bytes {
    let mut raw = Plan::unary(world, true).raw();
    change(&mut raw);
    file(&raw)
}

fn structure(cases: &mut Cases<'_>) {
    let world = cases.world;
    let fails = |why| Expected::Fails("structure", why);
    let mut add = |name, about, file, why| cases.add(name, about, file, fails(why));
    let f = altered(world, |p| p.records.push(p.records[0].clone()));
    add("record-twice", "a record is there twice", f, "not in the log's order");
    let f = altered(world, |p| p.records.swap(0, 1));
    add("records-swapped", "the records are in another order", f, "not in the log's order");
    let f = altered(world, |p| p.artefacts.push(Bytes::from_static(b"more")));
    let about = "an artefact that no record names";
    let f2 = altered(world, |p| {
        p.artefacts.push(Bytes::from_static(b"more"));
        p.artefacts.sort_by_key(|artefact| Digest::of(artefact));
    });
    add("artefacts-unordered", "artefacts out of order", f, "not in order of their digests");
    add("artefact-unnamed", about, f2, "no record names the artefact");
    let f = altered(world, |p| drop(p.artefacts.remove(0)));
    add("artefact-missing", "an artefact is missing", f, "that a record names is missing");
    let f = altered(world, |p| {
        let mut other = world.raw_configuration();
        other.number = 2;
        other.previous = world.configuration.digest().to_bytes();
        p.configurations.push(signed(&other));
    });
    add(
        "configuration-unnamed",
        "a configuration that no record names",
        f,
        "no record names the configuration",
    );
    let f = altered(world, |p| p.exchange_id = Bytes::copy_from_slice(&other_exchange()));
    add("other-exchange", "the records are of another exchange", f, "not about this exchange");
    let f = altered(world, |p| {
        let entry = log::leaf::Entry::Read(log::LogRead::default());
        let leaf = log::Leaf { version: 1, logged_ms: 1, entry: Some(entry) };
        p.records[0].leaf = leaf.encode_to_vec().into();
        p.records[0].signature = None;
    });
    add("other-record", "a record that has no place in a proof", f, "not about this exchange");
    let f = altered(world, |p| p.records[0].signature = None);
    add("signature-missing", "a message without its signature", f, "its signature is missing");
    let f = altered(world, |p| p.records.clear());
    add("no-records", "no records at all", f, "holds no message");
    let f = altered(world, |p| {
        let mut leaf = log::Leaf::decode(p.records[0].leaf.clone()).unwrap();
        leaf.version = log::Leaf::VERSION + 1;
        p.records[0].leaf = leaf.encode_to_vec().into();
    });
    let expected = Expected::CannotTell("structure", "use a newer trave-verify");
    cases.add("newer-record", "a record of a later version", f, expected);
}

fn other_exchange() -> [u8; 16] {
    *trave_proto::identifier::ExchangeId::new(NOW, &[8; 10]).as_bytes()
}

fn configurations(cases: &mut Cases<'_>) {
    let world = cases.world;
    let mut add =
        |name, about, file, why| cases.add(name, about, file, Expected::Fails("configurations", why));
    let f = altered(world, |p| drop(p.configurations[0].signatures.pop()));
    add("one-state-alone", "a configuration that one state alone has signed", f, "1 of the 2 signatures");
    let f = altered(world, |p| {
        let raw = world.raw_configuration();
        p.configurations[0] = signed_by(&raw, &[("registry-sh", 1), ("cosigner-mv", 9)]);
    });
    add("forged-cosignature", "a cosignature by another key", f, "\"cosigner-mv\" does not hold");
    let plan = Plan { fields: |f| f.configuration_number = 7, ..Plan::unary(world, true) };
    add(
        "wrong-number",
        "a message names another number than its digest",
        plan.file(),
        "by the digest of number 1",
    );
    let mut newer = world.raw_configuration();
    newer.version = 2;
    let f = altered(world, |p| retell(p, &newer));
    let expected = Expected::CannotTell("configurations", "version 2 are not known");
    cases.add("newer-configuration", "a configuration of a later version", f, expected);
}

/// Puts another configuration, properly signed, in the place of the one that the records name.
fn retell(proof: &mut Proof, configuration: &GlobalConfiguration) {
    let signed = signed(configuration);
    let digest = Digest::of(&signed.configuration).to_bytes();
    proof.configurations = vec![signed];
    for record in &mut proof.records {
        let mut leaf = log::Leaf::decode(record.leaf.clone()).unwrap();
        if let Some(log::leaf::Entry::Message(entry)) = &mut leaf.entry {
            let mut manifest = message::Manifest::decode(entry.manifest.clone()).unwrap();
            manifest.configuration_digest = digest.clone();
            entry.manifest = manifest.encode_to_vec().into();
            entry.configuration_digest = digest.clone();
        }
        record.leaf = leaf.encode_to_vec().into();
    }
}

fn seal(cases: &mut Cases<'_>) {
    let world = cases.world;
    let checkpoint = |p: &Proof| Checkpoint::from_text(Note::parse(&note(p)).unwrap().text()).unwrap();
    let reseal = |p: &mut Proof, origin: &str, seed: u8| {
        let Checkpoint { size, root, .. } = checkpoint(p);
        let signer = trave_proto::checkpoint::NoteSigner::new(origin, crate::world::ed25519(seed)).unwrap();
        let (note, token) = world.seal(&signer, root, size, NOW.plus(Duration::from_secs(5)));
        p.checkpoint = Some(trave_proto::schema::proof::Checkpoint {
            note,
            timestamp_token: token,
            ..Default::default()
        });
    };
    let (own, other) = (&world.provider.origin, &world.client.origin);
    let f = altered(world, |p| reseal(p, own, 99));
    let expected = Expected::Fails("checkpoint", "no known key has signed");
    cases.add("checkpoint-by-another-key", "another key signed in the log's name", f, expected);
    let f = altered(world, |p| reseal(p, other, 11));
    let about = "the checkpoint of another server's log";
    cases.add("checkpoint-of-another-log", about, f, Expected::Fails("checkpoint", "lists no log"));
    let f = altered(world, |p| p.checkpoint = None);
    cases.add("no-checkpoint", "no checkpoint", f, Expected::Fails("checkpoint", "there is no checkpoint"));
    let f = altered(world, |p| {
        let (note, _) = (note(p), ());
        reseal(p, own, 12);
        p.checkpoint.as_mut().unwrap().note =
            [&note[..], b"\xe2\x80\x94 witness.example AAAAAAAA\n"].concat().into();
    });
    let about = "the timestamp is over the checkpoint before a signature was added";
    cases.add("timestamp-of-another-note", about, f, Expected::Fails("timestamp", "about another digest"));
    let f = altered(world, |p| p.checkpoint.as_mut().unwrap().timestamp_token = Bytes::new());
    let expected = Expected::CannotTell("timestamp", "no timestamp yet");
    cases.add("not-yet-stamped", "the checkpoint has no timestamp yet", f, expected);
    let future = (LATER.as_millis() - NOW.as_millis()) / 1000 + 3600;
    let plan = Plan { stamped_after: future, ..Plan::unary(world, true) };
    let expected = Expected::CannotTell("timestamp", "lies in the future");
    cases.add(
        "stamped-in-the-future",
        "the timestamp is later than the verifier's clock",
        plan.file(),
        expected,
    );
    let f = altered(world, |p| {
        let mut hash = p.records[1].path[0].to_vec();
        hash[0] ^= 1;
        p.records[1].path[0] = hash.into();
    });
    let expected = Expected::Fails("inclusion", "is not in the log");
    cases.add("path-altered", "a hash of a path is another", f, expected);
    let f = altered(world, |p| p.records[1].index += 1);
    cases.add("other-place", "a record says that it stands elsewhere", f, expected);
    let f = altered(world, |p| {
        let mut leaf = log::Leaf::decode(p.records[1].leaf.clone()).unwrap();
        leaf.logged_ms += 1;
        p.records[1].leaf = leaf.encode_to_vec().into();
    });
    cases.add("leaf-altered", "a record was altered by a millisecond", f, expected);
}

fn note(proof: &Proof) -> Bytes {
    proof.checkpoint.as_ref().unwrap().note.clone()
}
