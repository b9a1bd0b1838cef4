//! What every server of ours shares: listening, TLS and its reload, strict configuration, keys at rest, drain, the
//! system's clock, and the generated gRPC stubs.

pub mod stubs;
