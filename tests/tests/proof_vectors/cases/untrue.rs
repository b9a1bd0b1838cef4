//! Proofs whose frame holds and whose messages do not: signers, order, contents, permission, times.

use bytes::Bytes;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::message::{Direction, Ending};
use trave_proto::schema::configuration::GlobalConfiguration;
use trave_proto::schema::message;
use trave_proto::schema::proof::{ContentState, Proof};

use super::refused::altered;
use super::{Cases, Expected, ended, say, stream};
use crate::exchange::{Keep, Plan, file, request};
use crate::world::{NOW, signed};

pub(super) fn add(cases: &mut Cases<'_>) {
    signers(cases);
    status_and_connection(cases);
    course(cases);
    contents(cases);
    permission(cases);
    times(cases);
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

fn status_and_connection(cases: &mut Cases<'_>) {
    let world = cases.world;
    let revoked = Plan { ocsp: Some(world.client.revoked.clone()), ..Plan::unary(world, true) };
    let expected = Expected::Fails("signatures", "was revoked at");
    cases.add("revoked", "the signing certificate had been revoked", revoked.file(), expected);
    let other = Plan { ocsp: Some(world.stranger.ocsp.clone()), ..Plan::unary(world, true) };
    let expected = Expected::Fails("signatures", "not about this certificate");
    cases.add("status-of-another", "the status of another certificate", other.file(), expected);
    let foreign = Plan { tls: Some(world.stranger.tls.clone()), ..Plan::unary(world, true) };
    let expected = Expected::Fails("connections", "is not listed for NORD/SH/luebeck/s1");
    cases.add("connection-of-another", "the connection was with another server", foreign.file(), expected);
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
