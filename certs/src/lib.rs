//! The trust services of a small instance: who certifies keys, says whether certificates still count, and states the time.
//!
//! Any authority that speaks the standards can take their place: X.509 (RFC 5280), OCSP (RFC 6960 in the profile of RFC
//! 5019), RFC 3161. They run by themselves (`trave-certs`) or inside another server, as [`service::TrustServices`].

pub mod service;
pub mod timestamping;
pub mod responder;
pub mod authority;
pub mod profile;
mod ledger;
mod signer;
mod der;
