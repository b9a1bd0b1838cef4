//! The security server: signs, logs and sends what agency systems ask; verifies, authorises, logs and forwards what others
//! ask of registers behind it.
//!
//! Read `exchange` first: a message's way through the house. The modules stand from the door to the cellar.

pub mod cli;
pub mod generation;
pub mod enrolment;
pub mod security_server;
mod listener;
mod metadata;
mod containers;
mod proof;
mod auditors;
mod audit;
mod journal;
pub mod upkeep;
mod reconciliation;
mod erasures;
mod retention;
mod generations;
mod exchange;
mod services;
mod bridge;
mod relayed;
mod admission;
pub mod access;
pub mod metrics;
mod transport;
mod pool;
mod turns;
mod timestamping;
mod health;
mod signer;
mod recorder;
mod subject;
pub mod trust;
pub mod custody;
mod object_storage;
pub mod config;
