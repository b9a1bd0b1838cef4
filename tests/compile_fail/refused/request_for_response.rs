//! E0308: A request never stands where a response must.
use trave_message_log::Logged;
use trave_proto::signature::{Request, Response, Signed};

fn answer(_: Logged<Signed<Response>>) {}

fn skip(request: Logged<Signed<Request>>) {
    answer(request);
}

fn main() {}
