//! E0423: Only a trusted signer makes a message authentic.
use trave_proto::signature::{Request, Signed};
use trave_proto::verification::Authentic;

fn forge(signed: Signed<Request>) -> Authentic<Request> {
    Authentic(signed)
}

fn main() {}
