//! What every security server trusts: the global configuration, signed by several keys that one small file, the anchor,
//! names.
//!
//! A [`Configuration`] has one maker, [`Configuration::verify`]: whoever holds one holds a list of members, servers,
//! services and keys that enough configuration keys of the [`Anchor`] have signed and whose every entry was checked.
//! Whether it is also the one to use now is asked with [`Configuration::check_current`].

mod configuration;
mod adoption;
mod contents;
mod people;
mod offerings;
mod groups;
mod witnesses;
mod auditors;
mod servers;
mod members;
mod anchor;
mod text;

pub use adoption::AdoptionError;
pub use anchor::{Anchor, AnchorError, AnchorKey, sign_anchor};
pub use auditors::{AuditorEntry, AuditorRole};
pub use configuration::{Configuration, ConfigurationError, MAX_CONFIGURATION, sign_configuration};
pub use groups::GroupEntry;
pub use members::{MemberEntry, SubsystemEntry};
pub use offerings::{
    ALGORITHMS, CatalogueEntry, CertificationAuthorityEntry, PolicyEntry, ServiceEntry,
    TimestampingAuthorityEntry,
};
pub use people::AdministratorEntry;
pub use servers::{LogEntry, SecurityServerEntry};
pub use text::{FieldError, is_code};
pub use witnesses::{Deadlines, WitnessEntry, Witnessing};

pub(crate) use contents::{Contents, version_of};

#[cfg(test)]
pub(crate) mod testing;
