//! Proofs of exchanges that went over a bridge to an existing X-Road instance, and of some whose mark was tampered with.

use trave_proto::message::{Direction, ManifestFields};

use super::{Cases, Expected, stream};
use crate::exchange::Plan;

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
}
