//! The types of the schema in `proto/schema`, generated with cargo alone. Checked types of the other modules are made
//! from these; a value of a type in here has been parsed, and nothing more.

#![allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the documentation stands in the schema"
)]

/// Messages, envelopes and contents.
pub mod message {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.message.v1.rs"));
    }
}
/// The global configuration and the anchor's signatures.
pub mod configuration {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.configuration.v1.rs"));
    }
}
/// The wire between two security servers.
pub mod transport {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.transport.v1.rs"));
    }
}
/// The leaves of a message log and what stands beside them.
pub mod log {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.log.v1.rs"));
    }
}
/// The proof file.
pub mod proof {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.proof.v1.rs"));
    }
}
/// The operator door.
pub mod operator {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.operator.v1.rs"));
    }
}
/// The auditors' door.
pub mod audit {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.audit.v1.rs"));
    }
}
/// What a person may know.
pub mod citizen {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.citizen.v1.rs"));
    }
}
/// The registry's acts, enrolment and cosigning.
pub mod management {
    pub use v1::*;

    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/trave.management.v1.rs"));
    }
}

impl log::Leaf {
    /// The highest version that is known. Every earlier one is read too: version 2 says more of grants, knows groups, and
    /// names what an exchange became; version 3 has the entries beyond 20.
    pub const VERSION: u32 = 3;

    /// What is logged at this time, in milliseconds since 1970. The version is the lowest that knows the entry, so that
    /// verifiers of before go on reading what they know.
    pub fn of(logged_ms: i64, entry: log::leaf::Entry) -> Self {
        use log::leaf::Entry;
        let version = match entry {
            Entry::Message(_)
            | Entry::Ended(_)
            | Entry::Refusal(_)
            | Entry::Grant(_)
            | Entry::Erasure(_)
            | Entry::Configuration(_)
            | Entry::Degradation(_)
            | Entry::Read(_)
            | Entry::Act(_)
            | Entry::Started(_)
            | Entry::Group(_) => 2,
            _ => 3,
        };
        Self { version, logged_ms, entry: Some(entry) }
    }
}
