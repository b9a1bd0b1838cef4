//! What all parts of Trave agree on, byte for byte.
//!
//! Pure: no network, no disk, no async runtime; time is an argument. Whoever verifies a proof needs this crate alone.
//! The modules stand from the door to the cellar: each imports only from those below it.

pub mod container;
pub mod page;
pub mod proof;
pub mod conversation;
pub mod verification;
pub mod scan;
pub mod management;
pub mod global_configuration;
pub mod access;
pub mod signature;
pub mod reconciliation;
pub mod message;
pub mod fault;
pub mod search;
pub mod timestamp;
pub mod certificate;
pub mod checkpoint;
pub mod tree;
pub mod identifier;
pub mod path;
pub mod clock;
pub mod digest;
pub mod encoding;
mod der;
pub mod schema;
