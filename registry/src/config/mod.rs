//! What an operator writes down for a registry, a cosigner, a witness and an administrator, and the checks that tell every mistake
//! in one run.

mod administrator;
mod cosigner;
mod files;
mod registry;
mod witness;

use std::path::Path;

use serde::de::DeserializeOwned;
use trave_host::config::{ConfigError, Directory, Problems, read};

pub use administrator::{AdministratorConfig, AdministratorSettings};
pub use cosigner::{CosignerConfig, CosignerSettings};
pub use files::{KeyFile, TlsFiles};
pub use registry::{
    Cosigner, CosignerAddress, PublicationConfig, RegistryConfig, RegistrySettings, TrustServicesConfig,
    TrustServicesSettings,
};

pub use witness::{FollowedRegistry, FollowedSettings, ListedLog, WitnessConfig, WitnessSettings};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read as it is written.
    #[error(transparent)]
    Read(ConfigError),
    /// It can be read, but what it says does not hold.
    #[error("{0}")]
    Problems(Problems),
}

/// Reads a file and opens all that it names.
fn load<C: DeserializeOwned, S>(
    path: &Path,
    open: impl FnOnce(&C, &Directory, &mut Problems) -> Option<S>,
) -> Result<S, SettingsError> {
    let configuration = read::<C>(path).map_err(SettingsError::Read)?;
    let mut problems = Problems::of(path);
    let settings = open(&configuration.value, &configuration.directory, &mut problems);
    match (settings, problems.finish(())) {
        (Some(settings), Ok(())) => Ok(settings),
        (_, Err(problems)) => Err(SettingsError::Problems(problems)),
        (None, Ok(())) => {
            let mut problems = Problems::of(path);
            problems.add("", "something that it names cannot be used");
            Err(SettingsError::Problems(problems))
        }
    }
}
