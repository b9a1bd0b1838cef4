//! An auditor at the door of a security server: a key, a certificate that the global configuration names, and a connection.

use std::path::PathBuf;
use std::sync::Arc;

use trave_host::clock::SystemClock;
use trave_host::config::Secret;
use trave_host::keys::SigningKey;
use trave_host::tls::{self, Http, Identity, Pinned};
use trave_proto::schema::configuration::{Auditor, AuditorRole};

use super::instance::Instance;
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

    /// The auditor of this name, whose key was made before, as the global configuration names one.
    pub fn auditor(&self, name: &str, classes: &[&str], members: &[&str]) -> Auditor {
        let chain = tls::chain_from_pem(&self.directory().join(format!("{name}.pem"))).unwrap();
        Auditor {
            name: name.into(),
            role: AuditorRole::Auditor.into(),
            key: tls::public_key_digest(&chain[0]).unwrap().to_bytes(),
            classes: classes.iter().map(|&class| class.into()).collect(),
            members: members.iter().map(|&member| member.into()).collect(),
            contents: false,
        }
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

impl Instance {
    /// Publishes a configuration with these auditors, and has the agency's server, which begins anew with what `change`
    /// makes of its configuration file, open a door for them. The other server learns of it from its peer.
    pub async fn open_for_auditors(
        &mut self,
        mut auditors: Vec<Auditor>,
        change: impl FnOnce(String) -> String,
    ) {
        auditors.sort_by(|one, other| one.name.cmp(&other.name));
        self.configuration = self.next_configuration(|next| {
            next.version = if auditors.is_empty() { next.version } else { 3 };
            next.auditors = auditors;
            // Longer than a search by person lasts.
            next.valid_until_ms = next.issued_ms + 3 * 24 * 60 * 60 * 1000;
        });
        self.sh.stop().await;
        self.sh.put_configuration(&self.configuration);
        self.sh
            .reconfigure(|config| {
                let door = "\n[auditors]\nlisten = \"127.0.0.1:0\"\n";
                change(if config.contains(door) { config } else { config + door })
            })
            .await;
    }
}
