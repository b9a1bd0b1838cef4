//! The promises of Trave, and the demonstration.
//!
//! Here stands what both need from outside the house: an invented trade register, and an agency's client. Neither knows
//! anything of Trave but the metadata that a caller sends. `network` is a whole instance for the tests.

pub mod network;
pub mod program;
pub mod agency;
pub mod register;
pub mod gewerbe;
