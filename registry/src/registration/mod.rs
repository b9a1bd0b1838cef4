//! What administrators and enrolling security servers ask of the registry: acts, tokens, enrolments. Whoever asks was
//! identified at the door; whether they may, is decided here.

mod acts;
mod enrolment;
mod error;

use std::sync::Arc;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use trave_host::keys::NoteKey;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::AdministratorEntry;

pub(crate) use error::RegistrationError;

use crate::state::{Published, Store};

/// The registry's decisions on acts and enrolments.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) token_key: NoteKey,
    /// How security servers reach the public door.
    pub(crate) public_address: String,
    /// SHA-256 of the registry's TLS public key.
    pub(crate) identity_key: Digest,
    /// The anchor file.
    pub(crate) anchor: Bytes,
}

impl Registration {
    /// Requires that a configuration was published: before that there is nothing to decide by.
    fn latest(&self) -> Result<Arc<Published>, RegistrationError> {
        self.store.latest().ok_or(RegistrationError::NothingPublished)
    }

    /// The administrator with this key in the configuration in force.
    fn administrator(latest: &Published, key: &Digest) -> Result<AdministratorEntry, RegistrationError> {
        let listed = latest.configuration.administrator(key).cloned();
        listed.ok_or(RegistrationError::NoAdministrator)
    }
}

/// Random bytes of the operating system.
fn random<const N: usize>() -> Result<[u8; N], RegistrationError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RegistrationError::Random)?;
    Ok(bytes)
}
