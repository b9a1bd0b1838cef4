//! The central registry, its cosigner, and the witness of message logs.
//!
//! The registry keeps who takes part in an instance, and publishes the global configuration that every security server
//! trusts. Nothing in it changes but by an act that one administrator applied for and another approved; no configuration
//! counts but with the signatures of as many configuration keys as the anchor demands. The cosigner holds such a key in
//! another state and derives each configuration itself, so that root on the registry's machine can change nothing.
//!
//! The modules stand from the door to the cellar: each imports only from those below it.

pub mod command_line;
pub mod ceremony;
pub mod administrator;
pub mod central_server;
mod listener;
mod publication;
mod cosigners;
pub mod witness;
pub mod cosigner;
mod registration;
mod trust_services;
mod state;
pub mod config;

pub use central_server::{Registry, RegistryError};
pub use cosigner::{Cosigner, CosignerError};
pub use state::{JournalError, StateError, StoreError};
pub use trust_services::TrustServicesError;
pub use witness::{Witness, WitnessError};
