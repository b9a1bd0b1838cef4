//! The registry's state: what its log says, event by event, and nothing else.

mod journal;
mod memory;
mod store;

pub use journal::JournalError;
pub use memory::StateError;
pub(crate) use memory::{ActRecord, Enrolment, Published, Stage, State, TokenRecord};
pub(crate) use store::Store;
pub use store::StoreError;
