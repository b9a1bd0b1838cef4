//! E0308: An answer whose record is only queued does not leave.
use trave_message_log::{Logged, Pending};
use trave_proto::signature::{Response, Signed};

fn answer(_: Logged<Signed<Response>>) {}

fn skip(pending: Pending<Signed<Response>>) {
    answer(pending);
}

fn main() {}
