//! The ceremony: makes the keys, certificates, anchor and first configuration of a new instance, and writes the files
//! with which registry, cosigner and administrators begin.
//!
//! ```text
//! DIR/registry/       registry.toml  anchor  genesis.configuration  *.key.pem  *.pem  passphrase  trust-services/
//! DIR/cosigner/       cosigner.toml  cosigner.state  anchor  configuration.key.pem  tls.key.pem  tls.pem  passphrase
//! DIR/administrators/NAME/   admin.toml  anchor  administrator.key.pem  administrator.pem  passphrase
//! ```
//!
//! Each directory belongs on another machine, in other hands; where one state holds all of them, the protection that two
//! states give each other does not exist.

mod files;
mod genesis;
mod witness;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use trave_certs::authority::AuthorityError;
use trave_certs::profile::Profile;
use trave_certs::service::{TrustServices, pem};
use trave_host::config::Secret;
use trave_host::files::{FileError, create};
use trave_host::keys::{KeyError, NoteKey, Sign, SigningKey, certificate_request};
use trave_proto::checkpoint::CheckpointError;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, AnchorError, AnchorKey};
use trave_proto::management::FollowError;

use crate::cosigner::{KeepingError, begin};
use crate::trust_services::{self, TrustServicesError};
use crate::witness::MemoryError;

pub use witness::WitnessCeremony;

/// What the instance is to be.
#[derive(Debug, Clone)]
pub struct Ceremony {
    /// Name of the instance, as `NORD`.
    pub instance: String,
    /// Name of the registry's configuration key, as `registry-sh`.
    pub registry_key: String,
    /// Name of the cosigner's configuration key, as `cosigner-mv`.
    pub cosigner_key: String,
    /// The administrators: name and member class. At least two, of two classes.
    pub administrators: Vec<(String, String)>,
    /// Door for security servers.
    pub public_listen: SocketAddr,
    /// Door for administrators.
    pub admin_listen: SocketAddr,
    /// Cleartext door of the trust services. Its address is written into certificates, so its port must not be 0.
    pub trust_services_listen: SocketAddr,
    /// The cosigner's door.
    pub cosigner_listen: SocketAddr,
    /// Validity of a configuration, in minutes.
    pub validity_minutes: u32,
}

/// Why the ceremony failed. What was made until then is no instance: begin again in an empty directory.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A directory.
    #[error("cannot make the directory {}; it must not be there yet", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A witness's name.
    #[error("the witness cannot have this name")]
    Name(#[source] CheckpointError),
    /// A witness's memory.
    #[error("the witness's memory cannot be written")]
    WitnessMemory(#[source] MemoryError),
    /// A file that was named.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The cosigner's memory.
    #[error("the cosigner's memory cannot be written")]
    Memory(#[source] KeepingError),
    /// A file.
    #[error("a file cannot be written")]
    File(#[source] FileError),
    /// A key.
    #[error("a key cannot be made")]
    Key(#[source] KeyError),
    /// The anchor.
    #[error("the anchor cannot be made")]
    Anchor(#[source] AnchorError),
    /// The trust services.
    #[error("the trust services cannot be made")]
    TrustServices(#[source] TrustServicesError),
    /// A certificate.
    #[error("a certificate cannot be issued")]
    Certificate(#[source] AuthorityError),
    /// The first configuration.
    #[error("the first configuration would not hold")]
    Genesis(#[source] FollowError),
    /// Not what an instance can be made of.
    #[error("{0}")]
    Input(&'static str),
    /// No random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Where the files of a new instance are.
#[derive(Debug, Clone)]
pub struct Instance {
    /// `registry.toml`.
    pub registry: PathBuf,
    /// `cosigner.toml`.
    pub cosigner: PathBuf,
    /// `admin.toml` of each administrator, in the order of the input.
    pub administrators: Vec<PathBuf>,
    /// The anchor file, as every operator gets it.
    pub anchor: PathBuf,
    /// SHA-256 of the anchor, which people read to each other.
    pub anchor_digest: Digest,
    /// SHA-256 of the first configuration, which the cosigner's administrator enters.
    pub genesis_digest: Digest,
}

impl Ceremony {
    /// Makes the instance in `directory`, which is made too.
    pub fn perform(&self, directory: &Path, clock: Arc<dyn Clock>) -> Result<Instance, CeremonyError> {
        self.check()?;
        make_directory(directory)?;
        let registry = Place::make(directory.join("registry"))?;
        let cosigner = Place::make(directory.join("cosigner"))?;
        let keys = ConfigurationKeys::make(&registry, &cosigner)?;
        let anchor = self.anchor(&keys)?;
        let services = self.trust_services(&registry, clock.clone())?;
        let registry_tls =
            registry.tls("tls", &self.tls_profile("registry", self.public_listen), &services)?;
        let cosigner_tls =
            cosigner.tls("tls", &self.tls_profile("cosigner", self.cosigner_listen), &services)?;
        make_directory(&directory.join("administrators"))?;
        let people = self.make_administrators(&directory.join("administrators"), &services)?;
        let genesis = self.genesis(&services, &people, clock.now())?.encode_to_vec();
        let genesis_digest = Digest::of(&genesis);
        registry.write("genesis.configuration", &genesis)?;
        registry.write("registry.toml", self.registry_toml(&cosigner_tls).as_bytes())?;
        cosigner.write("cosigner.toml", self.cosigner_toml(&genesis_digest, &registry_tls).as_bytes())?;
        begin(&cosigner.0.join("cosigner.state"), &genesis_digest).map_err(CeremonyError::Memory)?;
        for place in [&registry, &cosigner].into_iter().chain(people.iter().map(|person| &person.place)) {
            place.write("anchor", anchor.bytes())?;
        }
        for person in &people {
            person.place.write("admin.toml", self.admin_toml(&registry_tls).as_bytes())?;
        }
        Ok(Instance {
            registry: registry.0.join("registry.toml"),
            cosigner: cosigner.0.join("cosigner.toml"),
            administrators: people.iter().map(|person| person.place.0.join("admin.toml")).collect(),
            anchor: registry.0.join("anchor"),
            anchor_digest: anchor.digest(),
            genesis_digest,
        })
    }

    fn check(&self) -> Result<(), CeremonyError> {
        if self.trust_services_listen.port() == 0 {
            return Err(CeremonyError::Input("the trust services need a fixed port: certificates name it"));
        }
        if self.cosigner_listen.port() == 0 || self.admin_listen.port() == 0 {
            return Err(CeremonyError::Input(
                "cosigner and administrators' door need a fixed port: others are told it",
            ));
        }
        if self.administrators.iter().any(|(name, _)| directory_name(name).is_empty()) {
            return Err(CeremonyError::Input("an administrator's name has no letter or digit"));
        }
        Ok(())
    }

    fn anchor(&self, keys: &ConfigurationKeys) -> Result<Anchor, CeremonyError> {
        let key =
            |name: &String, key: &NoteKey| AnchorKey { name: name.clone(), public_key: key.public_key() };
        let keys = vec![key(&self.registry_key, &keys.registry), key(&self.cosigner_key, &keys.cosigner)];
        Anchor::new(&self.instance, 1, 2, keys).map_err(CeremonyError::Anchor)
    }

    fn trust_services(
        &self,
        registry: &Place,
        clock: Arc<dyn Clock>,
    ) -> Result<TrustServices, CeremonyError> {
        let place = Place::make(registry.0.join("trust-services"))?;
        let address = self.trust_services_listen.to_string();
        trust_services::create(&place.0, &place.passphrase()?, &self.instance, &address, clock)
            .map_err(CeremonyError::TrustServices)
    }

    fn tls_profile(&self, what: &str, listen: SocketAddr) -> Profile {
        Profile::TlsServer {
            name: format!("{} {what}", self.instance),
            hosts: vec!["localhost".into()],
            addresses: vec![listen.ip()],
        }
    }

    fn make_administrators(
        &self,
        directory: &Path,
        services: &TrustServices,
    ) -> Result<Vec<Person>, CeremonyError> {
        let make = |(name, class): &(String, String)| {
            let place = Place::make(directory.join(directory_name(name)))?;
            let profile = Profile::Administrator { name: name.clone() };
            let public_key = place.tls("administrator", &profile, services)?;
            Ok(Person { name: name.clone(), class: class.clone(), public_key, place })
        };
        self.administrators.iter().map(make).collect()
    }
}

/// The configuration keys, and in the registry's directory the keys that only the registry uses.
struct ConfigurationKeys {
    registry: NoteKey,
    cosigner: NoteKey,
}

impl ConfigurationKeys {
    fn make(registry: &Place, cosigner: &Place) -> Result<Self, CeremonyError> {
        for name in ["log", "token"] {
            registry.note_key(name)?;
        }
        Ok(Self {
            registry: registry.note_key("configuration")?,
            cosigner: cosigner.note_key("configuration")?,
        })
    }
}

/// An administrator.
struct Person {
    name: String,
    class: String,
    /// SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
    place: Place,
}

/// A directory that belongs into one hand, with a passphrase of its own.
struct Place(PathBuf);

impl Place {
    fn make(path: PathBuf) -> Result<Self, CeremonyError> {
        make_directory(&path)?;
        let mut secret = zeroize::Zeroizing::new([0; 24]);
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut *secret)
            .map_err(|_| CeremonyError::Random)?;
        let place = Self(path);
        place.write("passphrase", zeroize::Zeroizing::new(hex::encode(*secret)).as_bytes())?;
        Ok(place)
    }

    fn passphrase(&self) -> Result<Secret, CeremonyError> {
        Secret::from_file(&self.0.join("passphrase")).map_err(CeremonyError::File)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CeremonyError> {
        create(&self.0.join(name), bytes).map_err(CeremonyError::File)
    }

    fn note_key(&self, name: &str) -> Result<NoteKey, CeremonyError> {
        let path = self.0.join(format!("{name}.key.pem"));
        NoteKey::create(&path, &self.passphrase()?).map_err(CeremonyError::Key)
    }

    /// Makes a key and has it certified; answers its SubjectPublicKeyInfo.
    fn tls(&self, name: &str, profile: &Profile, services: &TrustServices) -> Result<Vec<u8>, CeremonyError> {
        let path = self.0.join(format!("{name}.key.pem"));
        let key = SigningKey::create(&path, &self.passphrase()?).map_err(CeremonyError::Key)?;
        let request = certificate_request(&key, name).map_err(CeremonyError::Key)?;
        let issued = services.authority.issue_for(profile, &request, Duration::from_secs(2 * 365 * 86_400));
        let issued = issued.map_err(CeremonyError::Certificate)?;
        self.write(&format!("{name}.pem"), pem(&issued.chain).as_bytes())?;
        Ok(key.public_key_info().to_vec())
    }
}

/// A new directory, its owner's alone.
fn make_directory(path: &Path) -> Result<(), CeremonyError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| CeremonyError::Directory { path: path.into(), source })
}

/// A person's name as a directory: lower case, hyphens.
fn directory_name(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(kept).collect::<String>().trim_matches('-').to_owned()
}
