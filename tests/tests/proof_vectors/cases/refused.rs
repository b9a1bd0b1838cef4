//! Proofs that can be read and do not hold, or of which it cannot be told.

use bytes::Bytes;
use prost::Message;
use std::time::Duration;
use trave_proto::checkpoint::{Checkpoint, Note};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::message::{Direction, Ending};
use trave_proto::schema::configuration::GlobalConfiguration;
use trave_proto::schema::proof::{ContentState, Proof};
use trave_proto::schema::{log, message};

use super::{Cases, Expected, ended, say, stream};
use crate::exchange::{Keep, Plan, file, request};
use crate::world::{LATER, NOW, World, signed, signed_by};

pub(super) fn add(cases: &mut Cases<'_>) {
    structure(cases);
    configurations(cases);
    seal(cases);
    signers(cases);
    course(cases);
    contents(cases);
    permission(cases);
    times(cases);
}

/// The provider's proof with something changed in the file.
fn altered(world: &World, change: impl FnOnce(&mut Proof)) -> Bytes {
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
        leaf.version = 2;
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
        p.checkpoint = Some(trave_proto::schema::proof::Checkpoint { note, timestamp_token: token });
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

fn signers(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = || Plan::unary(world, true);
    let mut add = |name, about, plan: Plan<'_>, check, why| {
        cases.add(name, about, plan.file(), Expected::Fails(check, why))
    };
    let by_stranger = Plan { signer: |w, _| &w.stranger, ..plan() };
    add(
        "unlisted-signer",
        "a certified server that the configuration does not know",
        by_stranger,
        "signatures",
        "does not list this signing key",
    );
    let by_provider = Plan { signer: |w, _| &w.provider, ..plan() };
    add(
        "other-signer",
        "the provider signed the request itself",
        by_provider,
        "signatures",
        "may not sign this",
    );
    let other_certificate = Plan { fields: |f| f.signing_certificate = Digest::of(b"other"), ..plan() };
    add(
        "other-certificate",
        "a message names another certificate",
        other_certificate,
        "signatures",
        "names another signing certificate",
    );
    let with = |change: fn(&mut GlobalConfiguration)| {
        let mut raw = world.raw_configuration();
        change(&mut raw);
        let configuration = Configuration::verify(&signed(&raw), &world.anchor).unwrap();
        Plan { configuration: Some(configuration), ..plan() }
    };
    let old_answer = with(|c| c.policy.as_mut().unwrap().ocsp_max_age_ms = 1);
    add(
        "stale-status",
        "the certificate's status was older than the policy allows",
        old_answer,
        "signatures",
        "had expired",
    );
    let suspended = with(|c| c.security_servers[1].suspended = true);
    add(
        "suspended-server",
        "a suspended security server signed",
        suspended,
        "signatures",
        "does not list this signing key",
    );
    let moved = with(|c| c.security_servers[1].subsystems.clear());
    add(
        "unregistered-subsystem",
        "the client is not registered on its server",
        moved,
        "signatures",
        "does not register",
    );
    let ended = with(|c| c.policy.as_mut().unwrap().algorithms[0].not_after_ms = NOW.as_millis() - 1);
    add(
        "algorithm-ended",
        "the signature algorithm was no longer in force",
        ended,
        "signatures",
        "are not in force",
    );
    let elsewhere = Plan { fields: |f| f.log_origin = "log.example/elsewhere".into(), ..plan() };
    add(
        "other-log",
        "a message promised to a log that nobody lists",
        elsewhere,
        "bindings",
        "is not its sender's",
    );
    let bare = Plan { entry: |e| e.tls_certificate_digest = Bytes::new(), ..plan() };
    add(
        "no-connection",
        "a received message without the connection's certificate",
        bare,
        "connections",
        "no TLS certificate",
    );
    let f = altered(world, |p| {
        // Signed anew by the same key: another signature of the same manifest, as valid as the first.
        p.records[0].signature = Some(plan().say().remove(0).signature);
    });
    let expected = Expected::Fails("bindings", "not the one that was recorded");
    cases.add("other-signature", "another valid signature than the recorded one", f, expected);
}

fn course(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = || Plan::unary(world, true);
    let fails = |why| Expected::Fails("order", why);
    let mut raw = Plan { messages: stream(), ..plan() }.raw();
    raw.records.remove(2);
    cases.add(
        "message-dropped",
        "a message of a stream is missing",
        file(&raw),
        fails("does not follow the message before it"),
    );
    let twice = vec![request("wer?"), say(Direction::Request, "noch?", Ending::End)];
    let after_end = Plan { messages: twice, ..plan() };
    cases.add(
        "after-the-end",
        "a message after the last one",
        after_end.file(),
        fails("after the last message"),
    );
    let only_responses = |f: &mut trave_proto::message::ManifestFields| {
        if f.direction == Direction::Response {
            f.last_received = Some(Digest::of(b"other"));
        }
    };
    let answer = Plan { fields: only_responses, ..plan() };
    cases.add(
        "answers-another",
        "an answer to a question that was not asked",
        answer.file(),
        fails("answers a message that is not in the file"),
    );
    let topic = Plan {
        fields: |f| {
            if f.direction == Direction::Response {
                f.method = Some("/gewerbe.v1.Register/Loeschen".parse().unwrap());
            }
        },
        ..plan()
    };
    cases.add(
        "other-topic",
        "the answer names another method than the question",
        topic.file(),
        fails("about something else"),
    );
    let nonce = Plan { messages: stream(), fields: |f| f.nonce = [f.index as u8; 32], ..plan() };
    cases.add(
        "other-connection",
        "the messages of a direction are of two connections",
        nonce.file(),
        fails("another connection"),
    );
    let open = Plan { messages: vec![request("wer?")], ..plan() };
    let expected = Expected::CannotTell("completeness", "no end in this file");
    cases.add("open", "a question without an answer and without a record of why", open.file(), expected);
    let counted = Plan { messages: vec![request("wer?")], ended: Some(ended(1, 1)), ..plan() };
    let expected = Expected::CannotTell("completeness", "recorded after 1 and 1 messages");
    cases.add(
        "answer-withheld",
        "the record of the end counts more messages than the file",
        counted.file(),
        expected,
    );
}

fn contents(cases: &mut Cases<'_>) {
    let world = cases.world;
    let mut add = |name, about, file, why| cases.add(name, about, file, Expected::Fails("contents", why));
    let content =
        |p: &mut Proof, change: fn(&mut message::Content)| change(p.records[1].content.as_mut().unwrap());
    let f = altered(world, |p| content(p, |c| c.body = "Anna Beispiel, Metzgerei".into()));
    add(
        "content-altered",
        "another answer than the one that was signed",
        f,
        "MISMATCH: response 0: the content is not the one",
    );
    let f = altered(world, |p| p.records[1].content_salt = Bytes::from_static(&[9; 32]));
    add("salt-altered", "another salt", f, "MISMATCH");
    let f = altered(world, |p| content(p, |c| c.trailers = None));
    add("trailers-cut", "the trailers are missing from a content", f, "MISMATCH");
    let f = altered(world, |p| {
        p.records[1].content = None;
        p.records[1].content_salt = Bytes::new();
        p.records[1].content_state = ContentState::Erased.into();
    });
    add(
        "erased-without-record",
        "a content is missing, and no record says that it was erased",
        f,
        "no later record says",
    );
    let f = altered(world, |p| p.records[1].content_state = ContentState::NotKept.into());
    add(
        "kept-after-all",
        "the file holds a content and says that it was not kept",
        f,
        "says that it does not",
    );
    let f = altered(world, |p| p.records[1].content_state = 0);
    add("content-unsaid", "the file does not say what became of a content", f, "does not say");
    let mut raw = Plan { keep: Keep::Erased, ..Plan::unary(world, true) }.raw();
    for record in &mut raw.records[..2] {
        record.content_state = ContentState::Withheld.into();
    }
    add(
        "erasure-of-nothing",
        "an erasure is recorded, and nothing is missing because of it",
        file(&raw),
        "no content is missing",
    );
    let f = altered(world, |p| p.records[0].caller_context = Some(Bytes::from_static(b"\n\x05Boris")));
    let expected = Expected::Fails("caller_context", "not the one that was signed");
    cases.add("caller-altered", "another person than the one that was declared", f, expected);
}

fn permission(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = || Plan::unary(world, true);
    let mut add = |name, about, plan: Plan<'_>, why| {
        cases.add(name, about, plan.file(), Expected::Fails("permission", why))
    };
    let grant = |grant| Plan { grant, ..plan() };
    let why = "does not allow it";
    add(
        "grant-of-another",
        "the grant is another client's",
        grant(|g| g.client = "NORD/SH/luebeck/bauamt".into()),
        why,
    );
    add("grant-withdrawn", "the record named withdraws a grant", grant(|g| g.in_force = false), why);
    add(
        "grant-for-another-method",
        "the grant is for another method",
        grant(|g| g.method = "/gewerbe.v1.Register/X".into()),
        why,
    );
    add(
        "grant-for-another-purpose",
        "the grant is for another purpose",
        grant(|g| g.purposes = vec!["x".into()]),
        why,
    );
    add(
        "grant-on-another-basis",
        "the grant is on another legal basis",
        grant(|g| g.legal_bases.clear()),
        why,
    );
    add(
        "no-grant",
        "the provider recorded no grant",
        Plan { entry: |e| e.grant_digest = Bytes::new(), ..plan() },
        "names no grant",
    );
    let expected = |why| Expected::Fails("catalogue", why);
    let purpose = Plan { fields: |f| f.purpose = "neugier".parse().unwrap(), ..plan() };
    cases.add(
        "unknown-purpose",
        "a purpose that the catalogue does not know",
        purpose.file(),
        expected("no purpose for this service neugier"),
    );
    let basis = Plan { fields: |f| f.legal_basis = "keine".parse().unwrap(), ..plan() };
    cases.add(
        "unknown-basis",
        "a legal basis that the catalogue does not know",
        basis.file(),
        expected("no legal basis keine"),
    );
    let method = Plan { fields: |f| f.method = Some("/andere.v1.Dienst/X".parse().unwrap()), ..plan() };
    cases.add(
        "unknown-method",
        "a method that the service does not have",
        method.file(),
        expected("no method"),
    );
}

fn times(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = || Plan::unary(world, true);
    let mut add =
        |name, about, plan: Plan<'_>, why| cases.add(name, about, plan.file(), Expected::Fails("times", why));
    let early = Plan { stamped_after: -3600, ..plan() };
    add("stamped-before", "the timestamp is from before the exchange", early, "after the timestamp");
    let dated: fn(&mut trave_proto::message::ManifestFields) = |f| {
        if f.direction == Direction::Request {
            f.created = Time::from_millis(f.created.as_millis() - 600_000);
        }
    };
    add(
        "backdated",
        "a message says that it was made ten minutes before it came",
        Plan { fields: dated, ..plan() },
        "id is of another time",
    );
    let mut raw = world.raw_configuration();
    raw.issued_ms -= 7_200_000;
    raw.valid_until_ms = NOW.as_millis() - 600_000;
    let configuration = Configuration::verify(&signed(&raw), &world.anchor).unwrap();
    add(
        "expired-configuration",
        "a configuration that had expired",
        Plan { configuration: Some(configuration), ..plan() },
        "is outside configuration 1",
    );
}
