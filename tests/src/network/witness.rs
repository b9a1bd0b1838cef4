//! A witness of the instance's message logs, as its own state would run it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use trave_proto::checkpoint::{NoteVerifier, WitnessVerifier};
use trave_proto::clock::Clock;
use trave_proto::schema::configuration::{self as schema, GlobalConfiguration};
use trave_registry::Witness as Running;
use trave_registry::ceremony::WitnessCeremony;
use trave_registry::config::WitnessSettings;

use super::instance::{Instance, Plan};
use super::keys::Identities;
use super::server::reserve;
use super::{LUEBECK, REGISTER};

/// An instance with a witness in each state, both running, and what `change` makes of the configuration's policy: the
/// instance, the witness of Schleswig-Holstein, that of Mecklenburg-Vorpommern.
pub async fn witnessed(change: impl FnOnce(&mut GlobalConfiguration)) -> (Instance, Witness, Witness) {
    let at_client = "[operations]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let mut instance = Instance::planned(Plan { at_client, ..Plan::default() }).await;
    let mut mv = Witness::make("MV", &instance.clock).await;
    let mut sh = Witness::make("SH", &instance.clock).await;
    mv.start().await;
    sh.start().await;
    let next = instance.next_configuration(|next| {
        (next.version, next.witnesses) = (2, vec![mv.listed(), sh.listed()]);
        change(next);
    });
    for server in [&mut instance.sh, &mut instance.mv] {
        server.stop().await;
        server.put_configuration(&next);
        server.start().await.unwrap();
    }
    instance.configuration = next;
    (instance, sh, mv)
}

/// A witness with its directory; it runs, or has been stopped.
#[derive(Debug)]
pub struct Witness {
    /// The key of its cosignatures.
    pub verifier: WitnessVerifier,
    class: &'static str,
    address: SocketAddr,
    configuration: PathBuf,
    clock: Arc<dyn Clock>,
    running: Option<Running>,
    _directory: TempDir,
    /// The port stays its own, also while it is stopped.
    _port: TcpSocket,
}

impl Witness {
    /// Makes one of the state of this member class, which knows the logs of both security servers. It does not run.
    pub async fn make(class: &'static str, clock: &Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, address) = reserve();
        let name = format!("witness.{}.example/w1", class.to_lowercase());
        let ceremony = WitnessCeremony { name, listen: address, registry: None, anchor: None };
        let place = directory.path().join("witness");
        // A key's passphrase is slow by design.
        let made = tokio::task::spawn_blocking(move || ceremony.perform(&place).unwrap()).await;
        let (configuration, verifier) = made.unwrap();
        let mut text = std::fs::read_to_string(&configuration).unwrap();
        for server in [LUEBECK, REGISTER] {
            let key = Identities::get().of(server).log.verifier();
            text.push_str(&format!("[[log]]\nkey = \"{key}\"\n"));
        }
        std::fs::write(&configuration, text).unwrap();
        let clock = Arc::clone(clock);
        Self {
            verifier,
            class,
            address,
            configuration,
            clock,
            running: None,
            _directory: directory,
            _port: port,
        }
    }

    /// Starts it.
    pub async fn start(&mut self) {
        let path = self.configuration.clone();
        let settings = tokio::task::spawn_blocking(move || WitnessSettings::load(&path).unwrap()).await;
        self.running = Some(Running::start(settings.unwrap(), Arc::clone(&self.clock)).await.unwrap());
    }

    /// Stops it; nothing if it does not run.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Lets it know another log, from its next start on.
    pub fn learn(&self, key: &NoteVerifier) {
        let text = std::fs::read_to_string(&self.configuration).unwrap();
        std::fs::write(&self.configuration, format!("{text}[[log]]\nkey = \"{key}\"\n")).unwrap();
    }

    /// Where it remembers what it cosigned.
    pub fn state(&self) -> PathBuf {
        self.configuration.with_file_name("state")
    }

    /// Where it listens, in cleartext.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the global configuration lists it.
    pub fn listed(&self) -> schema::Witness {
        schema::Witness {
            name: self.verifier.name().into(),
            public_key: Bytes::copy_from_slice(self.verifier.public_key()),
            class: self.class.into(),
            url: format!("http://{}", self.address),
        }
    }
}
