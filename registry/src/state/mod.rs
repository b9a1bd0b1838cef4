//! The registry's state: what its log says, event by event, and nothing else.

mod store;
mod journal;
mod memory;
mod records;

pub use journal::JournalError;
pub(crate) use memory::State;
pub use records::StateError;
pub(crate) use records::{ActRecord, Enrolment, Published, Stage, TokenRecord};
pub(crate) use store::Store;
pub use store::StoreError;
