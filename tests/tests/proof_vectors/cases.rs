//! Proofs that hold, and proofs with one thing wrong each, with the reason for which they must be refused.

mod grants;
mod bridged;
mod refused;
mod unreadable;
mod untrue;

use bytes::Bytes;
use trave_proto::global_configuration::Anchor;
use trave_proto::message::{Direction, Ending};
use trave_proto::schema::log;
use trave_proto::schema::transport::RegisterReached;

use crate::exchange::{Keep, Plan, Say, request, response};
use crate::world::{World, anchor, signed_anchor, signed_by};

/// A proof and what must be said of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it is, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) file: Bytes,
    pub(crate) anchor: Bytes,
    pub(crate) anchor_name: &'static str,
    pub(crate) expected: Expected,
}

/// What must be said of a proof.
#[derive(Clone, Copy)]
pub(crate) enum Expected {
    Holds,
    /// Which check fails, and a part of the reason.
    Fails(&'static str, &'static str),
    /// Which check cannot be told, and a part of the reason.
    CannotTell(&'static str, &'static str),
    /// It cannot even be read; a part of the reason.
    Unreadable(&'static str),
}

impl Expected {
    /// Conclusion, check and reason, for the list of vectors.
    pub(crate) fn parts(self) -> (&'static str, Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Holds => ("holds", None, None),
            Self::Fails(check, why) => ("does_not_hold", Some(check), Some(why)),
            Self::CannotTell(check, why) => ("cannot_tell", Some(check), Some(why)),
            Self::Unreadable(why) => ("unreadable", None, Some(why)),
        }
    }
}

/// Collects cases under one anchor.
pub(crate) struct Cases<'w> {
    pub(crate) world: &'w World,
    list: Vec<Case>,
}

impl Cases<'_> {
    pub(crate) fn add(&mut self, name: &'static str, about: &'static str, file: Bytes, expected: Expected) {
        let anchor = self.world.anchor.clone();
        self.under(name, about, file, (&anchor, "nord-1"), expected);
    }

    fn under(
        &mut self,
        name: &'static str,
        about: &'static str,
        file: Bytes,
        (anchor, anchor_name): (&Anchor, &'static str),
        expected: Expected,
    ) {
        let anchor = anchor.bytes().clone();
        self.list.push(Case { name, about, file, anchor, anchor_name, expected });
    }
}

/// All cases.
pub(crate) fn all(world: &World) -> Vec<Case> {
    let mut cases = Cases { world, list: Vec::new() };
    holding(&mut cases);
    anchors(&mut cases);
    refused::add(&mut cases);
    untrue::add(&mut cases);
    unreadable::add(&mut cases);
    grants::add(&mut cases);
    bridged::add(&mut cases);
    cases.list
}

fn holding(cases: &mut Cases<'_>) {
    let world = cases.world;
    let unary = |at_provider| Plan::unary(world, at_provider);
    let holds = Expected::Holds;
    cases.add(
        "unary-provider",
        "one question and its answer, from the provider's log",
        unary(true).file(),
        holds,
    );
    let route = Plan { route: Some("gewerbe-auskunft".into()), ..unary(false) };
    cases.add(
        "unary-client",
        "the same from the client's log; a route declared the purpose",
        route.file(),
        holds,
    );
    let keep = |keep| Plan { keep, ..unary(true) };
    cases.add("content-not-kept", "the service's policy keeps no contents", keep(Keep::None).file(), holds);
    cases.add("content-withheld", "contents left out of the file", keep(Keep::Withheld).file(), holds);
    cases.add("content-erased", "contents erased, with the record of it", keep(Keep::Erased).file(), holds);
    let stream = Plan { messages: stream(), ..unary(true) };
    cases.add("stream", "five messages of a stream in both directions", stream.file(), holds);
    let broken = Plan { messages: vec![request("wer?")], ended: Some(ended(1, 0)), ..unary(false) };
    cases.add("broken-off", "a question without an answer, with the record of why", broken.file(), holds);
    let early = vec![say(Direction::Request, "wer?", Ending::Continue), response("niemand")];
    let early = Plan { messages: early, ..unary(true) };
    cases.add("answered-early", "an answer before the request had come to its end", early.file(), holds);
    let mut hostile = ended(1, 0);
    hostile.reason = "\u{1b}[2J\r\nTHE PROOF DOES NOT HOLD\u{202e}\u{2066}\u{200b}".into();
    let plan = Plan { messages: vec![request("wer?")], ended: Some(hostile), ..unary(true) };
    cases.add("hostile-words", "words that would write on the reader's terminal", plan.file(), holds);
    let abort = Plan { messages: vec![say(Direction::Request, "wer", Ending::Abort)], ..unary(true) };
    cases.add("aborted", "a request that its sender broke off", abort.file(), holds);
}

/// Messages of a stream that overlap.
pub(crate) fn stream() -> Vec<Say> {
    use Direction::{Request, Response};
    vec![
        say(Request, "erste", Ending::Continue),
        say(Response, "eins", Ending::Continue),
        say(Request, "zweite", Ending::Continue),
        say(Request, "", Ending::End),
        say(Response, "", Ending::End),
    ]
}

pub(crate) fn say(direction: Direction, body: &'static str, ending: Ending) -> Say {
    let say = if direction == Direction::Request { request(body) } else { response(body) };
    Say { ending, ..say }
}

pub(crate) fn ended(requests: u64, responses: u64) -> log::ExchangeEnded {
    let exchange = trave_proto::identifier::ExchangeId::new(crate::world::NOW, &[7; 10]);
    log::ExchangeEnded {
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        outcome: log::Outcome::Failed.into(),
        reason: "register_unreachable".into(),
        side: "register".into(),
        register_reached: RegisterReached::No.into(),
        requests,
        responses,
        ..Default::default()
    }
}

fn anchors(cases: &mut Cases<'_>) {
    let world = cases.world;
    let old = [("registry-sh", 1), ("cosigner-mv", 2)];
    let new = [("registry-sh", 3), ("cosigner-mv", 2)];
    let second = anchor("NORD", 2, 2, &new);
    let all: Vec<_> = [("cosigner-mv", 2), ("registry-sh", 3)].to_vec();
    let by_both = || {
        // The new key signs in its own name, the old one in the same name would be a second signature: two names.
        let third = anchor("NORD", 2, 2, &[("cosigner-mv", 2), ("registry-sh-2", 3)]);
        let signed = signed_anchor(&third, &[("registry-sh", 1), ("cosigner-mv", 2), ("registry-sh-2", 3)]);
        (third, signed)
    };
    let (next, signed_next) = by_both();
    let first = signed_anchor(&world.anchor, &old);
    let keys = [("registry-sh-2", 3), ("cosigner-mv", 2)];
    let make = |chain: Vec<_>, anchor: &Anchor, keys: &[(&str, u8)]| {
        let signed = signed_by(&world.raw_configuration(), keys);
        let configuration =
            trave_proto::global_configuration::Configuration::verify(&signed, anchor).unwrap();
        Plan { configuration: Some(configuration), anchors: chain, ..Plan::unary(world, true) }.file()
    };
    let chained = make(vec![first.clone(), signed_next.clone()], &next, &keys);
    let about = "the anchor was replaced since; the file has the chain from the first one";
    cases.add("anchor-chain", about, chained.clone(), Expected::Holds);
    let about = "the same file for a verifier who holds the second anchor";
    cases.under("anchor-chain-from-second", about, chained, (&next, "nord-2"), Expected::Holds);
    let stolen = signed_anchor(&second, &all);
    let file = make(vec![first.clone(), stolen], &second, &new);
    let about = "a second anchor that too few keys of the first have signed";
    cases.add(
        "anchor-without-threshold",
        about,
        file,
        Expected::Fails("anchors", "1 of the 2 signatures needed under the old"),
    );
    let old_file = Plan { anchors: vec![first, signed_next], ..Plan::unary(world, true) }.file();
    let about = "configurations from before the verifier's anchor";
    let expected = Expected::CannotTell("configurations", "which came before yours");
    cases.under("anchor-too-new", about, old_file, (&next, "nord-2"), expected);
    let other = anchor("SUED", 1, 1, &[("registry", 9)]);
    let file = Plan::unary(world, true).file();
    let expected = Expected::CannotTell("configurations", "of the instance \"NORD\"");
    cases.under(
        "other-instance",
        "a proof of another instance than the anchor's",
        file.clone(),
        (&other, "sued-1"),
        expected,
    );
    let false_one = anchor("NORD", 1, 1, &[("registry", 9)]);
    let expected = Expected::Fails("configurations", "0 of the 1 signatures");
    cases.under(
        "other-keys",
        "a false anchor of the same instance",
        file,
        (&false_one, "nord-false"),
        expected,
    );
}
