//! Files that are no proof, or none that this release can read.

use bytes::Bytes;

use super::{Cases, Expected};
use crate::exchange::Plan;

pub(super) fn add(cases: &mut Cases<'_>) {
    let good = Plan::unary(cases.world, true).file();
    let mut add = |name, about, file: Vec<u8>, why| {
        cases.add(name, about, Bytes::from(file), Expected::Unreadable(why))
    };
    add("empty", "nothing", Vec::new(), "does not begin with");
    add("truncated", "the end is missing", good[..good.len() - 40].to_vec(), "damaged");
    add(
        "newer",
        "a proof of a later version",
        [b"trave proof v2\n", &good[15..]].concat(),
        "use a newer trave-verify",
    );
    add(
        "crlf",
        "carried through a mail program",
        [b"trave proof v1\r\n", &good[15..]].concat(),
        "use a newer trave-verify",
    );
    add("unknown-field", "a field that no proof has", [&good[..], &[0xf8, 0x01, 1]].concat(), "canonical");
    add("trailing", "something stands behind the proof", [&good[..], b"more"].concat(), "damaged");
}
