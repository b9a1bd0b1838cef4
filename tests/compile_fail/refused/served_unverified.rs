//! E0308: What was logged without being verified is not served.
use trave_message_log::Logged;
use trave_proto::conversation::Verified;
use trave_proto::signature::{Request, Signed};

fn serve(_: Logged<Verified<Request>>) {}

fn skip(logged: Logged<Signed<Request>>) {
    serve(logged);
}

fn main() {}
