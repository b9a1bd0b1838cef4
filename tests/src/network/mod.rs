//! A whole instance in one process: two security servers, trust services, a register and its caller, with real sockets,
//! disks and certificates, and the civil clock in the test's hand.
//!
//! What an administrator and an operator would do is done here directly: keys and certificates lie where enrolment puts
//! them, the global configuration is signed by both configuration keys. Nothing else is different from a real instance.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

pub mod hostile;
mod forger;
mod disk;
mod auditor;
mod proving;
mod instance;
mod process;
mod saboteur;
mod server;
mod trust_services;
mod witness;
mod configuration;
mod keys;
mod caller;
mod register;
mod http_register;
mod told;
mod tunnel;
mod waiting;
mod x_road;

pub use caller::{Answer, Caller, Open, Question, Sender, binary, frame};
pub use configuration::{ConfigurationKeys, grant, rest_grant};
pub use disk::{copy, picture};
pub use forger::Forger;
pub use http_register::{HttpBody, HttpRegister, Seen};
pub use instance::{Instance, Plan};
pub use keys::{Identities, Keys, PASSPHRASE};
pub use process::{Process, serve_if_told};
pub use proving::{asked_about, export, export_as, judge, operator, status, story, try_export};
pub use register::{Ended, Register, RegisterCall, Script};
pub use saboteur::{Harm, Saboteur, Way};
pub use server::{Record, Server, reserve};
pub use told::{ended_after, exchange_of, happened, manifest_of, manifests, summary, told};
pub use trust_services::Authorities;
pub use tunnel::{Certified, Tunnel, certified_by_itself};
pub use waiting::soon;
pub use witness::{Witness, witnessed};
pub use x_road::{Release, XRoad};

/// The time at which every instance begins: 2026-11-21, 10:00 UTC.
pub const START: trave_proto::clock::Time = trave_proto::clock::Time::from_millis(1_795_255_200_000);

/// The agency's security server in Schleswig-Holstein.
pub const LUEBECK: &str = "NORD/SH/luebeck/s1";
/// The register's security server in Mecklenburg-Vorpommern.
pub const REGISTER: &str = "NORD/MV/gewerberegister/s1";
/// Another security server of the register, where an instance is planned with it.
pub const REGISTER_TOO: &str = "NORD/MV/gewerberegister/s2";
/// A security server that is registered, and whose keys a test uses as it likes; it does not run.
pub const KIEL: &str = "NORD/SH/kiel/s1";

/// Who asks.
pub const CLIENT: &str = "NORD/SH/luebeck/gewerbeamt";
/// Another subsystem of the same member on the same security server.
pub const OTHER_CLIENT: &str = "NORD/SH/luebeck/bauamt";
/// What is asked.
pub const SERVICE: &str = "NORD/MV/gewerberegister/register/auskunft";
/// What is asked over HTTP.
pub const REST_SERVICE: &str = "NORD/MV/gewerberegister/register/akten";
/// A service of the catalogue that no register stands behind.
pub const EMPTY_SERVICE: &str = "NORD/MV/gewerberegister/register/archiv";
/// The method that tests call; no schema of it exists anywhere.
pub const METHOD: &str = "/test.v1.Auskunft/Frage";
/// The purpose that is granted.
pub const PURPOSE: &str = "gewerbeummeldung";
/// A purpose of the catalogue and of the service that is not granted.
pub const OTHER_PURPOSE: &str = "gewerbeaufsicht";
/// The legal basis that is granted.
pub const LEGAL_BASIS: &str = "GewO-14";
/// A legal basis of the catalogue that is not granted.
pub const OTHER_LEGAL_BASIS: &str = "GewO-11";
