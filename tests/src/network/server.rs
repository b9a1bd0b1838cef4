//! One security server of the instance: its data directory, its configuration file as an operator writes it, and the
//! running server in this process.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::net::TcpSocket;
use trave_gateway::config::Config;
use trave_gateway::custody::Layout;
use trave_gateway::security_server::{SecurityServer, StartError};
use trave_host::config::Secret;
use trave_host::drain::Drain;
use trave_host::files;
use trave_host::keys::{Sign, SigningKey};
use trave_message_log::{Entry, Log, Options, StoredRecord};
use trave_proto::clock::Clock;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::schema::log::{GrantChange, Leaf, leaf::Entry as LeafEntry};

use super::disk::copy;
use super::keys::{Identities, PASSPHRASE};
use super::told::summary;
use super::trust_services::Authorities;
use super::{Instance, LUEBECK};

/// A record of a message log.
pub type Record = StoredRecord;

/// A security server with its directory; it runs, or has been stopped.
#[derive(Debug)]
pub struct Server {
    /// INSTANCE/CLASS/MEMBER/SERVER
    pub id: &'static str,
    /// Where other security servers reach it.
    pub peer: SocketAddr,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    running: Option<(SecurityServer, Drain)>,
    /// Where agency systems reach its first door, if it has one.
    pub door: SocketAddr,
    /// The ports stay this server's own, also while it is stopped.
    _ports: [TcpSocket; 2],
}

/// Two years, as certificates have.
pub(super) const LONG: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

impl Server {
    /// Reserves its address; nothing is there yet.
    pub(super) fn reserve(id: &'static str, directory: PathBuf, clock: Arc<dyn Clock>) -> Self {
        let ((peer_port, peer), (door_port, door)) = (reserve(), reserve());
        Self { id, peer, directory, clock, running: None, door, _ports: [peer_port, door_port] }
    }

    /// Puts into the data directory what enrolment would.
    pub(super) fn furnish(
        &self,
        authorities: &Authorities,
        anchor: &[u8],
        configuration: &SignedConfiguration,
    ) {
        let layout = self.layout();
        for below in ["keys", "certificates", "configurations"] {
            // Of its owner alone: the operator's socket stands in it.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.data().join(below)).unwrap();
        }
        let keys = Identities::get().of(self.id);
        files::create(&self.directory.join("passphrase"), PASSPHRASE.as_bytes()).unwrap();
        let [authentication, signing, log] = &keys.files;
        files::create(&layout.authentication_key(), authentication).unwrap();
        files::create(&layout.signing_key(), signing).unwrap();
        files::create(&layout.log_key(), log).unwrap();
        self.certify(authorities);
        files::create(&layout.anchor(), anchor).unwrap();
        self.put_configuration(configuration);
    }

    /// Gives the server certificates of its keys that are valid from now on, for its next start.
    pub(super) fn certify(&self, authorities: &Authorities) {
        let keys = Identities::get().of(self.id);
        let issued = authorities.authentication(self.id, keys.authentication.as_ref(), LONG);
        write_chain(&self.layout().authentication_certificate(), &issued.chain);
        self.certify_signing_key(authorities, keys.signing.as_ref(), LONG);
    }

    /// Gives the server another signing certificate, for its next start.
    pub fn certify_signing_key(
        &self,
        authorities: &Authorities,
        key: &dyn Sign,
        validity: Duration,
    ) -> trave_certs::authority::Issued {
        let issued = authorities.signing(self.id, key, validity);
        write_chain(&self.layout().signing_certificate(), &issued.chain);
        let _ = std::fs::remove_file(self.layout().signing_status());
        issued
    }

    /// Puts a configuration where adopted ones stand, for the next start.
    pub fn put_configuration(&self, signed: &SignedConfiguration) {
        let number = Instance::number(signed);
        let path = self.layout().configurations().join(format!("{number:010}.conf"));
        files::replace(&path, &signed.encode_to_vec()).unwrap();
    }

    /// Writes its configuration file, as an operator would.
    pub(super) fn configure(&self, (checkpoint_seconds, segment_mib): (u64, u64), more: &str) {
        let (id, peer) = (self.id, self.peer);
        let text = format!(
            "server = \"{id}\"\ndata = \"data\"\npassphrase_file = \"passphrase\"\n\
             [registry]\naddress = \"127.0.0.1:1\"\n[peer]\nlisten = \"{peer}\"\n\
             [log]\nsegment_mib = {segment_mib}\nreserve_mib = 1\ncheckpoint_seconds = {checkpoint_seconds}\n{more}"
        );
        std::fs::write(self.configuration_file(), text).unwrap();
    }

    /// The configuration file.
    pub fn configuration_file(&self) -> PathBuf {
        self.directory.join("gateway.toml")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where things stand in it.
    pub fn layout(&self) -> Layout {
        Layout::new(self.data())
    }

    /// Starts it.
    pub async fn start(&mut self) -> Result<(), StartError> {
        let config = Config::read(&self.configuration_file()).unwrap();
        let drain = Drain::new();
        let server = SecurityServer::start(config, Arc::clone(&self.clock), drain.clone()).await?;
        self.running = Some((server, drain));
        Ok(())
    }

    /// Stops it in order; nothing if it does not run.
    pub async fn stop(&mut self) {
        if let Some((server, drain)) = self.running.take() {
            drain.begin();
            server.finish().await;
        }
    }

    /// The running server.
    ///
    /// # Panics
    /// If it does not run.
    pub fn running(&self) -> &SecurityServer {
        &self.running.as_ref().unwrap().0
    }

    /// The agency door at this place of its configuration.
    pub fn agency(&self, at: usize) -> SocketAddr {
        self.running().agency[at].unwrap()
    }

    /// The records of its log from `from` on, whether it runs or not.
    pub fn records(&self, from: u64) -> Vec<Record> {
        match &self.running {
            Some((server, _)) => server.records(from).map(Result::unwrap).collect(),
            None => {
                let log = self.open_log();
                let records = log.scan(from).map(Result::unwrap).collect();
                log.close();
                records
            }
        }
    }

    /// What its log tells of an exchange, in order.
    pub fn tells(&self, exchange: ExchangeId) -> Vec<String> {
        summary(&self.records(0), exchange)
    }

    /// Waits until its log tells something; nothing announces a record that nobody waits for.
    pub async fn until(&self, what: impl Fn(&[String]) -> bool, exchange: ExchangeId) -> Vec<String> {
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let tells = self.tells(exchange);
                if what(&tells) {
                    return tells;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("{} tells only {:?}", self.id, self.tells(exchange)))
    }

    /// How many records its log has.
    pub fn size(&self) -> u64 {
        self.records(0).len() as u64
    }

    /// Changes its configuration file and starts it again.
    pub async fn reconfigure(&mut self, change: impl FnOnce(String) -> String) {
        self.stop().await;
        let text = std::fs::read_to_string(self.configuration_file()).unwrap();
        std::fs::write(self.configuration_file(), change(text)).unwrap();
        self.start().await.unwrap();
    }

    /// Gives it another TLS key, which `authorities` has certified, and starts it again.
    pub async fn exchange_authentication_key(&mut self, authorities: &Authorities) {
        self.stop().await;
        let layout = self.layout();
        std::fs::remove_file(layout.authentication_key()).unwrap();
        let passphrase = Secret::new(PASSPHRASE.into());
        let key = SigningKey::create(&layout.authentication_key(), &passphrase).unwrap();
        let issued = authorities.authentication(self.id, &key, LONG);
        write_chain(&layout.authentication_certificate(), &issued.chain);
        self.start().await.unwrap();
    }

    /// Bytes that the segment which is written to can still take.
    pub fn left_in_segment(&self) -> usize {
        let names = std::fs::read_dir(self.segments()).unwrap().map(|entry| entry.unwrap().path());
        let segments = names.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let bytes = std::fs::read(segments.max().expect("a log has a segment")).unwrap();
        bytes.len() - bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    /// Copies its data directory as it lies there, while it runs or not.
    pub fn keep_disk(&self) {
        let kept = self.directory.join("kept");
        let _ = std::fs::remove_dir_all(&kept);
        copy(&self.data(), &kept);
    }

    /// Puts the copy back in place of the data directory, while the server does not run.
    pub fn put_disk_back(&self) {
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(self.directory.join("kept"), self.data()).unwrap();
    }

    /// Breaks the disk of its log: the segment that is written to goes on, until it is full; no other can begin.
    pub fn break_disk(&self) {
        std::fs::rename(self.segments(), self.data().join("taken-away")).unwrap();
    }

    /// Mends the disk.
    pub fn mend_disk(&self) {
        std::fs::rename(self.data().join("taken-away"), self.segments()).unwrap();
    }

    fn segments(&self) -> PathBuf {
        self.layout().log().join("segments")
    }

    /// Opens the log of a server that does not run.
    pub fn open_log(&self) -> Log {
        let signer = Identities::get().of(self.id).log.clone();
        let options = Options {
            segment_size: 1 << 20,
            reserve: 0,
            ..Options::new(self.layout().log(), signer, Arc::clone(&self.clock))
        };
        Log::open(options).unwrap().0
    }

    /// Logs a grant while the server does not run.
    pub async fn grant(&self, change: GrantChange) {
        let log = self.open_log();
        let logged_ms = self.clock.now().as_millis();
        let leaf = Leaf { version: 1, logged_ms, entry: Some(LeafEntry::Grant(change)) };
        log.append(Entry::new(leaf), ()).unwrap().await.unwrap();
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    }

    /// Whether this is the agency's server.
    pub fn is_client(&self) -> bool {
        self.id == LUEBECK
    }
}

/// A port that nobody else gets: bound and not listening, so that a server of ours can listen on it.
pub fn reserve() -> (TcpSocket, SocketAddr) {
    let port = TcpSocket::new_v4().unwrap();
    port.set_reuseaddr(true).unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = port.local_addr().unwrap();
    (port, address)
}

fn write_chain(path: &Path, chain: &[bytes::Bytes]) {
    files::replace(path, trave_certs::service::pem(chain).as_bytes()).unwrap();
}
