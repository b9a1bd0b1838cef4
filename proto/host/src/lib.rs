//! What every server of ours shares: listening, TLS and its reload, strict configuration, keys at rest, drain, the
//! system's clock, and the generated gRPC stubs.

pub mod stubs;
pub mod metrics;
pub mod logging;
pub mod listen;
pub mod client;
pub mod tls;
pub mod drain;
pub mod keys;
pub mod config;
pub mod files;
pub mod clock;
