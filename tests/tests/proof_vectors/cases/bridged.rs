//! Proofs of exchanges that went over a bridge to an existing X-Road instance, and of some whose mark was tampered with.

use trave_proto::message::{Direction, Ending, ManifestFields};
use trave_proto::schema::log;

use super::{Cases, Expected, ended, say, stream};
use crate::exchange::{Plan, request};

fn from(fields: &mut ManifestFields) {
    fields.bridged_from = Some("EE/GOV/70000310/amet".parse().unwrap());
}

fn to(fields: &mut ManifestFields) {
    if fields.direction == Direction::Response {
        fields.bridged_to = Some("EE/GOV/70000562/rahvastik/isikud".parse().unwrap());
    }
}

pub(super) fn add(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan =
        |fields: fn(&mut ManifestFields)| Plan { fields, messages: stream(), ..Plan::unary(world, true) };
    let mut add = |name, about, fields, expected| cases.add(name, about, plan(fields).file(), expected);
    add("bridged-from", "a bridge asked for a client of an X-Road instance", from, Expected::Holds);
    add("bridged-to", "a service of an X-Road instance answered through a bridge", to, Expected::Holds);
    let both = |fields: &mut ManifestFields| {
        from(fields);
        to(fields);
    };
    add("bridged-both", "from one X-Road instance through ours into another", both, Expected::Holds);
    let unanswered = |fields: &mut ManifestFields| {
        if fields.direction == Direction::Request {
            from(fields);
        }
    };
    let other = Expected::Fails("order", "something else than the first message");
    add("bridge-not-answered", "the answer does not know who asked beyond the bridge", unanswered, other);
    let dropped = |fields: &mut ManifestFields| {
        if fields.index == 0 {
            to(fields);
        }
    };
    let elsewhere = Expected::Fails("order", "from elsewhere beyond the bridge");
    add("bridge-mark-dropped", "the mark of the bridge is not in every message", dropped, elsewhere);
    unanswered_there(cases);
}

/// The record of the end alone says that the call crossed.
fn unanswered_there(cases: &mut Cases<'_>) {
    let world = cases.world;
    let recorded = |there: &str| log::ExchangeEnded { bridged_to: there.into(), ..ended(1, 0) };
    let plan = |there| Plan {
        messages: vec![request("wer?")],
        ended: Some(recorded(there)),
        ..Plan::unary(world, true)
    };
    let there = "EE/GOV/70000562/rahvastik/isikud";
    let about = "a call crossed a bridge to an X-Road instance, and no answer came";
    cases.add("bridge-unanswered", about, plan(there).file(), Expected::Holds);
    let about = "the record of the end names something beyond a bridge that no service can be";
    let none = Expected::Fails("completeness", "names no service beyond a bridge");
    cases.add("bridge-end-unreadable", about, plan("EE/GOV/../isikud").file(), none);
    let begun = vec![request("wer?"), say(Direction::Response, "eins", Ending::Continue)];
    let end = log::ExchangeEnded { bridged_to: "EE/GOV/70000562/rahvastik/muu".into(), ..ended(1, 1) };
    let plan = Plan { messages: begun, ended: Some(end), fields: to, ..Plan::unary(world, true) };
    let about = "the record of the end names another service beyond the bridge than the answer";
    let other = Expected::Fails("completeness", "another service beyond the bridge");
    cases.add("bridge-end-elsewhere", about, plan.file(), other);
}
