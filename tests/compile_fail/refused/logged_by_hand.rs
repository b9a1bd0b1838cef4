//! E0451: Only the log makes something logged.
use trave_message_log::Logged;
use trave_proto::conversation::Verified;
use trave_proto::digest::Digest;
use trave_proto::signature::Request;

fn forge(verified: Verified<Request>) -> Logged<Verified<Request>> {
    Logged { index: 0, leaf_hash: Digest::of(b""), carried: verified }
}

fn main() {}
