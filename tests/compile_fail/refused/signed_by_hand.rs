//! E0451: Only a signature makes a message signed.
use trave_proto::signature::{BatchSignature, Parts, Request, Signed, Unsigned};

fn forge(unsigned: Unsigned<Request>, parts: Parts, signature: BatchSignature) -> Signed<Request> {
    Signed { manifest: unsigned.manifest().clone(), parts, signature, way: std::marker::PhantomData }
}

fn main() {}
