//! The keys of an instance's security servers, made once for each test program: their derivation is slow by design.

use std::sync::{Arc, OnceLock};

use trave_host::config::Secret;
use trave_host::keys::{NoteKey, Sign, SigningKey};
use trave_proto::checkpoint::NoteSigner;

use super::{KIEL, LUEBECK, REGISTER, REGISTER_TOO};

/// Opens the key files of all instances.
pub const PASSPHRASE: &str = "eine Probe, kein Geheimnis";

/// The keys of one security server, as files and opened.
#[derive(Debug)]
pub struct Keys {
    /// TLS.
    pub authentication: Arc<SigningKey>,
    /// Messages.
    pub signing: Arc<SigningKey>,
    /// Signs the log's checkpoints, under its origin.
    pub log: NoteSigner,
    /// The public key of the log.
    pub log_public_key: [u8; 32],
    /// The key files: authentication, signing, log.
    pub files: [Vec<u8>; 3],
}

/// The keys of all security servers of the instance, and of its trust services.
#[derive(Debug)]
pub struct Identities {
    luebeck: Keys,
    register: Keys,
    /// Made where an instance has it.
    register_too: OnceLock<Keys>,
    kiel: Keys,
    /// The trust services' keys: certification authority, OCSP responder, timestamping authority.
    pub trust_services: [Arc<SigningKey>; 3],
}

impl Identities {
    /// Those of this test program.
    pub fn get() -> &'static Self {
        static IDENTITIES: OnceLock<Identities> = OnceLock::new();
        IDENTITIES.get_or_init(|| {
            let (luebeck, register) = std::thread::scope(|scope| {
                let luebeck = scope.spawn(|| Keys::create(LUEBECK));
                let register = Keys::create(REGISTER);
                (luebeck.join().unwrap(), register)
            });
            let in_memory = || Arc::new(SigningKey::generate().unwrap());
            Self {
                luebeck,
                register,
                register_too: OnceLock::new(),
                kiel: Keys::in_memory(KIEL),
                trust_services: [in_memory(), in_memory(), in_memory()],
            }
        })
    }

    /// The keys of `server`.
    pub fn of(&self, server: &str) -> &Keys {
        match server {
            LUEBECK => &self.luebeck,
            REGISTER => &self.register,
            REGISTER_TOO => self.register_too.get_or_init(|| Keys::create(REGISTER_TOO)),
            KIEL => &self.kiel,
            other => panic!("{other} is no security server of the instance"),
        }
    }
}

impl Keys {
    /// The origin of the log of `server`.
    pub fn origin(server: &str) -> String {
        format!("{server}/1")
    }

    fn create(server: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let passphrase = Secret::new(PASSPHRASE.into());
        let path = |name: &str| directory.path().join(name);
        let authentication = SigningKey::create(&path("authentication"), &passphrase).unwrap();
        let signing = SigningKey::create(&path("signing"), &passphrase).unwrap();
        let log = NoteKey::create(&path("log"), &passphrase).unwrap();
        let files = ["authentication", "signing", "log"].map(|name| std::fs::read(path(name)).unwrap());
        Self::of(server, authentication, signing, log, files)
    }

    fn in_memory(server: &str) -> Self {
        let key = || SigningKey::generate().unwrap();
        Self::of(server, key(), key(), NoteKey::generate().unwrap(), Default::default())
    }

    fn of(
        server: &str,
        authentication: SigningKey,
        signing: SigningKey,
        log: NoteKey,
        files: [Vec<u8>; 3],
    ) -> Self {
        let log_public_key = log.public_key();
        Self {
            authentication: Arc::new(authentication),
            signing: Arc::new(signing),
            log: NoteSigner::new(&Self::origin(server), log.into_pair()).unwrap(),
            log_public_key,
            files,
        }
    }

    /// SHA-256 of the public keys, as the global configuration lists them: authentication, signing.
    pub fn digests(&self) -> [bytes::Bytes; 2] {
        [self.authentication.public_key_digest().to_bytes(), self.signing.public_key_digest().to_bytes()]
    }
}
