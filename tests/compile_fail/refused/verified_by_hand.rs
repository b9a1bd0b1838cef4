//! E0423: Only a conversation makes a message verified.
use trave_proto::conversation::Verified;
use trave_proto::signature::{Request, Signed};

fn forge(signed: Signed<Request>) -> Verified<Request> {
    Verified(signed)
}

fn main() {}
