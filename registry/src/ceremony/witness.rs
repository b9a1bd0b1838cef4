//! The beginning of a witness: its key, its empty memory and its configuration file, in a directory of its own state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use trave_proto::checkpoint::{WitnessSigner, WitnessVerifier};

use super::{CeremonyError, Place, make_directory};
use crate::witness::begin;

/// What the witness is to be.
#[derive(Debug, Clone)]
pub struct WitnessCeremony {
    /// Name under which it cosigns.
    pub name: String,
    /// Its door.
    pub listen: SocketAddr,
    /// The registry that it follows: `host:port`, and SHA-256 of its TLS key in hexadecimal.
    pub registry: Option<(String, String)>,
    /// The anchor file, received in person.
    pub anchor: Option<PathBuf>,
}

impl WitnessCeremony {
    /// Makes the witness in `directory`, which is made too. Answers `witness.toml` and the key to be registered.
    pub fn perform(&self, directory: &Path) -> Result<(PathBuf, WitnessVerifier), CeremonyError> {
        let place = Place::make(directory.into())?;
        let key = place.note_key("witness")?;
        let signer = WitnessSigner::new(&self.name, key.into_pair());
        let verifier = signer.map_err(CeremonyError::Name)?.verifier();
        if let Some(anchor) = &self.anchor {
            let read = std::fs::read(anchor);
            let read = read.map_err(|source| CeremonyError::Read { path: anchor.clone(), source })?;
            place.write("anchor", &read)?;
        }
        make_directory(&place.0.join("state"))?;
        begin(&place.0.join("state"), &verifier).map_err(CeremonyError::WitnessMemory)?;
        place.write("witness.toml", self.toml().as_bytes())?;
        Ok((place.0.join("witness.toml"), verifier))
    }

    fn toml(&self) -> String {
        let Self { name, listen, .. } = self;
        let registry = match &self.registry {
            Some((address, key)) => format!(
                r#"# The registry whose security servers' logs are witnessed, and its TLS key.
[registry]
address = "{address}"
key = "{key}"
anchor = "anchor"
"#
            ),
            None => {
                "# Logs that are witnessed, by their verifier keys.\n# [[log]]\n# key = \"ORIGIN+ID+KEY\"\n"
                    .into()
            }
        };
        format!(
            r#"# A witness of message logs (C2SP tlog-witness). Paths begin in the directory of this file.

# Cleartext HTTP: what comes in is signed, and so is what is answered. Security servers must reach it.
listen = "{listen}"
# Name under which it cosigns. It and the key are registered together and never change.
name = "{name}"
# What it remembers. Never restore it from a backup: a witness that lost its memory is given up.
state = "state"

# Its holder can say that a log never changed its story.
[witness_key]
key = "witness.key.pem"
passphrase_file = "passphrase"

{registry}"#
        )
    }
}
