//! Connections between servers over real sockets on 127.0.0.1: who is let in, who is not, and how they end.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;
mod tls;
mod untaken;
mod doors;
mod ending;
mod fetching;
