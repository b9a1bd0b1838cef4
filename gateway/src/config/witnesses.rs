//! How witnesses are reached, as an operator writes it. Who they are, the global configuration says.

use serde::Deserialize;
use trave_host::config::FilePath;

/// How the witnesses of the global configuration are reached.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Witnesses {
    /// Certificates (PEM) of the authorities under which those with an `https://` address stand; without it these are not
    /// asked. Whoever holds such an authority's key can keep checkpoints from a witness, and forge nothing: cosignatures are
    /// checked with the keys of the global configuration.
    pub(super) authorities: Option<FilePath>,
}
