//! E0308: What was verified without being logged is not served.
use trave_message_log::Logged;
use trave_proto::conversation::Verified;
use trave_proto::signature::Request;

fn serve(_: Logged<Verified<Request>>) {}

fn skip(verified: Verified<Request>) {
    serve(verified);
}

fn main() {}
