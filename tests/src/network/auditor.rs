//! An auditor at the door of a security server: a key, a certificate that the operator has pinned, and a connection.

use std::path::PathBuf;
use std::sync::Arc;

use trave_host::clock::SystemClock;
use trave_host::config::Secret;
use trave_host::keys::SigningKey;
use trave_host::tls::{self, Http, Identity, Pinned};

use super::keys::PASSPHRASE;
use super::server::Server;
use super::tunnel::certified_by_itself;

impl Server {
    /// The directory of its configuration file, in which auditors' keys stand here too.
    pub fn directory(&self) -> PathBuf {
        self.configuration_file().parent().unwrap().to_owned()
    }

    /// Makes the key and the certificate of an auditor of this name; nothing is configured yet.
    pub fn make_auditor(&self, name: &str) {
        let at = self.directory();
        certified_by_itself(&at.join(format!("{name}.key")), &at.join(format!("{name}.pem")));
    }

    /// How the auditor of this name, whose key was made before, connects.
    pub fn auditors_tls(&self, name: &str, http: Http) -> tls::Client {
        let at = self.directory();
        let passphrase = Secret::new(PASSPHRASE.into());
        let key = SigningKey::open(&at.join(format!("{name}.key")), &passphrase).unwrap();
        let chain = tls::chain_from_pem(&at.join(format!("{name}.pem"))).unwrap();
        let identity = Arc::new(Identity::new(chain, Arc::new(key)).unwrap());
        let shown = tls::chain_from_pem(&self.layout().authentication_certificate()).unwrap();
        let pinned = Pinned::new([tls::public_key_digest(&shown[0]).unwrap()]);
        tls::Client::new(Some(identity), Arc::new(pinned), http, Arc::new(SystemClock)).unwrap()
    }
}
