//! What this server trusts: one immutable snapshot of the global configuration, adopted only if the anchor's keys signed
//! it and it does not go back behind the one before.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prost::Message;
use rustls_pki_types::CertificateDer;
use trave_host::files;
use trave_host::tls::PeerPolicy;
use trave_proto::certificate::{Profile, VerifiedChain};
use trave_proto::clock::{Clock, Time};
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::global_configuration::{AdoptionError, Anchor, Configuration, ConfigurationError};
use trave_proto::identifier::ServerId;
use trave_proto::schema::configuration::SignedConfiguration;

/// How many configurations are kept to verify messages that name one of before.
const KEPT: usize = 64;

/// Why a configuration is not adopted, or none can be had.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It was not signed as the anchor asks, or says what cannot be.
    #[error("the global configuration is refused")]
    Refused(#[source] ConfigurationError),
    /// It is expired, or goes back, or is a second one of its number.
    #[error("the global configuration is not adopted")]
    NotAdopted(#[source] AdoptionError),
    /// The disk does not keep it.
    #[error("the global configuration cannot be stored in {}", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: files::FileError,
    },
    /// The directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is none yet.
    #[error("there is no global configuration in {} (hint: `trave-gateway enrol` fetches the first)", .0.display())]
    None(PathBuf),
}

/// One configuration in use, with a generation that tells it from the one before.
#[derive(Debug)]
pub struct Snapshot {
    /// What it says.
    pub configuration: Arc<Configuration>,
    /// Counts the snapshots of this process.
    pub generation: u64,
}

/// The snapshot in use and those before it.
#[derive(Debug)]
pub struct Trust {
    anchor: Anchor,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    current: ArcSwap<Snapshot>,
    known: Mutex<HashMap<Digest, Arc<Configuration>>>,
    adopting: Mutex<()>,
}

impl Trust {
    /// Opens what was adopted before in `directory`: an absent registry does not keep a server from starting.
    pub fn open(anchor: Anchor, directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, TrustError> {
        let mut stored = stored(directory)?;
        stored.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut known = HashMap::new();
        let mut newest: Option<Arc<Configuration>> = None;
        for (_, path) in stored.iter().take(KEPT) {
            let bytes =
                std::fs::read(path).map_err(|source| TrustError::Read { path: path.clone(), source })?;
            // A file that was torn or altered is passed over: what it held comes again from the registry or a peer.
            match Configuration::verify_encoded(bytes.into(), &anchor) {
                Ok(configuration) => {
                    let configuration = Arc::new(configuration);
                    newest.get_or_insert_with(|| Arc::clone(&configuration));
                    known.insert(configuration.digest(), configuration);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a stored configuration is refused")
                }
            }
        }
        let configuration = newest.ok_or_else(|| TrustError::None(directory.to_owned()))?;
        let current = ArcSwap::from_pointee(Snapshot { configuration, generation: 1 });
        Ok(Self {
            anchor,
            directory: directory.to_owned(),
            clock,
            current,
            known: Mutex::new(known),
            adopting: Mutex::default(),
        })
    }

    /// Stores the first configuration of a server, which enrolment brought.
    pub fn store_first(
        signed: &SignedConfiguration,
        anchor: &Anchor,
        directory: &Path,
        now: Time,
    ) -> Result<Configuration, TrustError> {
        let configuration = Configuration::verify(signed, anchor).map_err(TrustError::Refused)?;
        configuration.check_current(now, None).map_err(TrustError::NotAdopted)?;
        store(directory, &configuration)?;
        Ok(configuration)
    }

    /// The snapshot in use, whether or not it is still valid.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The snapshot in use, if it is valid: no exchange goes on without one.
    pub(crate) fn valid(&self, side: Side) -> Result<Arc<Snapshot>, Fault> {
        let snapshot = self.snapshot();
        let until = snapshot.configuration.valid_until();
        if self.clock.now() > until {
            let why = format!(
                "the global configuration of this server ended at {until}; the registry must be reached"
            );
            return Err(Fault::before_call(Reason::GlobalConfOutdated, side, why));
        }
        Ok(snapshot)
    }

    /// A configuration that was adopted here.
    pub(crate) fn known(&self, digest: &Digest) -> Option<Arc<Configuration>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// A configuration that was ever adopted here, also one that is no longer held in memory. Reads the disk.
    pub(crate) fn find(&self, digest: &Digest) -> Result<Option<Arc<Configuration>>, TrustError> {
        if let Some(known) = self.known(digest) {
            return Ok(Some(known));
        }
        for (_, path) in stored(&self.directory)? {
            let bytes =
                std::fs::read(&path).map_err(|source| TrustError::Read { path: path.clone(), source })?;
            if let Ok(found) = Configuration::verify_encoded(bytes.into(), &self.anchor)
                && found.digest() == *digest
            {
                return Ok(Some(Arc::new(found)));
            }
        }
        Ok(None)
    }

    /// The anchor that everything here leads back to.
    pub(crate) fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// Adopts `signed` if it is newer: verified, current, durable, then in use. `None` if it is already.
    pub fn adopt(&self, signed: &SignedConfiguration) -> Result<Option<Arc<Snapshot>>, TrustError> {
        if Digest::of(&signed.configuration) == self.snapshot().configuration.digest() {
            return Ok(None);
        }
        let configuration = Configuration::verify(signed, &self.anchor).map_err(TrustError::Refused)?;
        // One at a time; messages go on with the snapshot of before while this one is written to the disk.
        let _adopting = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot();
        if configuration.digest() == before.configuration.digest() {
            return Ok(None);
        }
        configuration
            .check_current(self.clock.now(), Some(&before.configuration))
            .map_err(TrustError::NotAdopted)?;
        store(&self.directory, &configuration)?;
        let configuration = Arc::new(configuration);
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            forget_oldest(&mut known);
            known.insert(configuration.digest(), Arc::clone(&configuration));
        }
        let snapshot = Arc::new(Snapshot { configuration, generation: before.generation + 1 });
        self.current.store(Arc::clone(&snapshot));
        Ok(Some(snapshot))
    }
}

/// The other side of a TLS connection: who it is, by which certificates, and until when they hold.
#[derive(Debug)]
pub(crate) struct TlsPeer {
    server: ServerId,
    chain: Vec<CertificateDer<'static>>,
    until: Time,
    /// The generation of the snapshot under which it was checked last.
    generation: AtomicU64,
}

impl TlsPeer {
    /// Verifies a peer's certificates against a snapshot: traced to an authority, for authentication, of a listed server,
    /// with a listed key.
    pub(crate) fn authenticate(
        chain: &[CertificateDer<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<Self, String> {
        let (server, until) = authenticated(chain, &snapshot.configuration, now)?;
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok(Self { server, chain, until, generation: AtomicU64::new(snapshot.generation) })
    }

    /// Checks it again: in full after a change of trust, else that its certificates have not run out.
    pub(crate) fn recheck(&self, snapshot: &Snapshot, now: Time) -> Result<(), String> {
        if now > self.until {
            return Err(format!("the TLS certificate of {} ended at {}", self.server, self.until));
        }
        if self.generation.load(Ordering::Relaxed) == snapshot.generation {
            return Ok(());
        }
        let (found, _) = authenticated(&self.chain, &snapshot.configuration, now)?;
        if found != self.server {
            return Err(format!("the connection's certificate is now {found}'s"));
        }
        self.generation.store(snapshot.generation, Ordering::Relaxed);
        Ok(())
    }

    /// The security server.
    pub(crate) fn server(&self) -> &ServerId {
        &self.server
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }
}

/// Whose certificates these are, and until when they hold.
fn authenticated(
    chain: &[CertificateDer<'_>],
    configuration: &Configuration,
    now: Time,
) -> Result<(ServerId, Time), String> {
    let authorities: Vec<_> =
        configuration.certification_authorities().iter().map(|authority| &authority.certificate).collect();
    let verified = VerifiedChain::verify(chain, &authorities, Profile::Authentication, now)
        .map_err(|error| trave_host::config::with_causes(&error))?;
    let (subject, until) = (verified.subject(), verified.not_after());
    match configuration.security_server(&subject.server) {
        Some(entry) if entry.is_suspended() => Err(format!("{} is suspended", subject.server)),
        Some(entry) if entry.lists_authentication_key(&subject.spki_digest) => {
            Ok((subject.server.clone(), until))
        }
        Some(_) => Err(format!("the global configuration does not list this key for {}", subject.server)),
        None => Err(format!("the global configuration does not know {}", subject.server)),
    }
}

/// Whom a TLS connection may be with: any security server of the snapshot in use, or one of them.
#[derive(Debug)]
pub(crate) struct SecurityServers {
    pub(crate) trust: Arc<Trust>,
    pub(crate) only: Option<ServerId>,
}

impl PeerPolicy for SecurityServers {
    fn check(&self, chain: &[CertificateDer<'_>], now: Time) -> Result<(), String> {
        let (server, _) = authenticated(chain, &self.trust.snapshot().configuration, now)?;
        match &self.only {
            Some(expected) if *expected != server => Err(format!("this is {server}, not {expected}")),
            _ => Ok(()),
        }
    }
}

fn forget_oldest(known: &mut HashMap<Digest, Arc<Configuration>>) {
    if known.len() >= KEPT {
        let oldest =
            known.values().min_by_key(|configuration| configuration.number()).map(|oldest| oldest.digest());
        if let Some(oldest) = oldest {
            known.remove(&oldest);
        }
    }
}

fn stored(directory: &Path) -> Result<Vec<(u64, PathBuf)>, TrustError> {
    let read = |source| TrustError::Read { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("conf")) = (number, path.extension().and_then(|ext| ext.to_str())) {
            found.push((number, path));
        }
    }
    Ok(found)
}

fn store(directory: &Path, configuration: &Configuration) -> Result<(), TrustError> {
    let path = directory.join(format!("{:010}.conf", configuration.number()));
    files::replace(&path, &configuration.signed().encode_to_vec())
        .map_err(|source| TrustError::Store { path, source })
}
