//! The keys of a new security server: made here, kept encrypted, and never leaving this machine.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use trave_host::config::Secret;
use trave_host::files;
use trave_host::keys::{KeyError, NoteKey, Sign, SigningKey, certificate_request};
use trave_proto::identifier::ServerId;
use trave_proto::management::{EnrolmentKeys, EnrolmentToken};
use trave_proto::schema::configuration::LogKey;
use trave_proto::schema::management::EnrolRequest;
use zeroize::Zeroizing;

use super::EnrolmentError;
use crate::config::Config;
use crate::custody::Layout;

/// The three keys of a security server.
pub(super) struct Keys {
    authentication: SigningKey,
    signing: SigningKey,
    log: NoteKey,
    log_origin: String,
}

/// Where the request stands that was sent.
pub(super) fn request_file(layout: &Layout) -> PathBuf {
    layout.anchor().with_file_name("enrolment.request")
}

/// The origin of the log of a security server: of its first, where no new generation has begun.
fn log_origin(layout: &Layout, server: &ServerId) -> String {
    layout.log_origin().unwrap_or_else(|| format!("trave/{server}/1"))
}

impl Keys {
    /// Makes what is not there yet: directories, passphrase, keys. Whether the passphrase was made is told.
    pub(super) async fn make_or_open(config: &Config) -> Result<(Self, bool), EnrolmentError> {
        let (data, passphrase_file) = (config.data(), config.passphrase_file());
        let server = config.server.0.clone();
        let made = tokio::task::spawn_blocking(move || {
            make_directories(&data)?;
            let passphrase_made = make_passphrase(&passphrase_file)?;
            let passphrase = Secret::from_file(&passphrase_file).map_err(EnrolmentError::File)?;
            Ok((Self::in_directory(&Layout::new(data), &passphrase, &server)?, passphrase_made))
        });
        made.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn in_directory(layout: &Layout, passphrase: &Secret, server: &ServerId) -> Result<Self, EnrolmentError> {
        let log_origin = log_origin(layout, server);
        // Key derivation is slow by design: all three at once.
        let keys = std::thread::scope(|scope| {
            let authentication = scope.spawn(|| signing_key(&layout.authentication_key(), passphrase));
            let signing = scope.spawn(|| signing_key(&layout.signing_key(), passphrase));
            let path = layout.log_key();
            let log = match path.exists() {
                true => NoteKey::open(&path, passphrase),
                false => NoteKey::create(&path, passphrase),
            };
            let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok(Self {
                authentication: joined(authentication)?,
                signing: joined(signing)?,
                log: log?,
                log_origin,
            })
        });
        keys.map_err(EnrolmentError::Key)
    }

    /// What the registry lists, and what people compare.
    pub(super) fn names(&self, server: &ServerId) -> EnrolmentKeys {
        EnrolmentKeys {
            server: server.to_string(),
            authentication_key: self.authentication.public_key_digest(),
            signing_key: self.signing.public_key_digest(),
            log_origin: self.log_origin.clone(),
            log_key: self.log.public_key(),
        }
    }

    /// The request for certificates, not yet sealed.
    pub(super) fn request(&self, token: &EnrolmentToken) -> Result<EnrolRequest, EnrolmentError> {
        let name = token.server.as_str();
        let certify = |key: &SigningKey| certificate_request(key, name).map(Bytes::from);
        let public_key = Bytes::copy_from_slice(&self.log.public_key());
        Ok(EnrolRequest {
            token_id: token.id_text(),
            security_server: name.to_owned(),
            authentication_request: certify(&self.authentication).map_err(EnrolmentError::Key)?,
            signing_request: certify(&self.signing).map_err(EnrolmentError::Key)?,
            log: Some(LogKey { origin: self.log_origin.clone(), public_key }),
            mac: Bytes::new(),
        })
    }
}

fn signing_key(path: &Path, passphrase: &Secret) -> Result<SigningKey, KeyError> {
    match path.exists() {
        true => SigningKey::open(path, passphrase),
        false => SigningKey::create(path, passphrase),
    }
}

/// The data directory opens to its owner alone: the operator's socket stands in it.
fn make_directories(data: &Path) -> Result<(), EnrolmentError> {
    for path in [data.to_owned(), data.join("keys"), data.join("certificates"), data.join("configurations")] {
        let failed = |source| EnrolmentError::Directory { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Makes a passphrase that nobody can guess, if there is none.
fn make_passphrase(path: &Path) -> Result<bool, EnrolmentError> {
    if path.exists() {
        return Ok(false);
    }
    let mut random = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(random.as_mut()).map_err(|_| EnrolmentError::Random)?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(*random)));
    files::create(path, text.as_bytes()).map_err(EnrolmentError::File)?;
    Ok(true)
}
