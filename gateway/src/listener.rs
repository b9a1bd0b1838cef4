//! The doors of the security server: each decides who has come in, and hands on what that one may do.

pub(crate) mod agency;
pub(crate) mod peer;
pub(crate) mod operations;
mod health;
pub(crate) mod operator;
pub(crate) mod auditors;
pub(crate) mod citizen;
