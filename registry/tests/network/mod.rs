//! An instance for tests: a registry and a cosigner on real sockets and disks, and administrators with keys of their own.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test file uses some of it, and a failure of it is a failure of the test"
)]

pub mod joining;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use trave_host::clock::ManualClock;
use trave_proto::clock::{Clock, Time};
use trave_proto::global_configuration::Configuration;
use trave_proto::schema::configuration as schema;
use trave_proto::schema::management::act::Change;
use trave_registry::administrator::{ActReference, Administrator, AdministratorError};
use trave_registry::ceremony::{Ceremony, Instance};
use trave_registry::config::{AdministratorSettings, CosignerSettings, RegistrySettings};
use trave_registry::{Cosigner, Registry};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const SERVER: &str = "NORD/SH/luebeck/s1";

/// Administrators, in the order of the ceremony.
pub const FRAUKE_SH: usize = 0;
pub const HINNERK_SH: usize = 1;
pub const UWE_MV: usize = 2;

pub struct Network {
    pub directory: tempfile::TempDir,
    pub instance: Instance,
    pub clock: Arc<ManualClock>,
    pub ceremony: Ceremony,
}

impl Network {
    /// Performs the ceremony; nothing runs yet.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Time::from_millis(1_795_288_440_000)));
        let people = [("Frauke Hansen", "SH"), ("Hinnerk Petersen", "SH"), ("Uwe Schulz", "MV")];
        let [trust_services_listen, cosigner_listen, admin_listen] = free_ports();
        let ceremony = Ceremony {
            instance: "NORD".into(),
            registry_key: "registry-sh".into(),
            cosigner_key: "cosigner-mv".into(),
            administrators: people.map(|(name, class)| (name.into(), class.into())).to_vec(),
            public_listen: ([127, 0, 0, 1], 0).into(),
            admin_listen,
            trust_services_listen,
            cosigner_listen,
            validity_minutes: 24 * 60,
        };
        let instance = ceremony.perform(&directory.path().join("nord"), clock.clone()).unwrap();
        Self { directory, instance, clock, ceremony }
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub async fn cosigner(&self) -> Cosigner {
        let settings = CosignerSettings::load(&self.instance.cosigner).unwrap();
        Cosigner::start(settings, self.clock()).await.unwrap()
    }

    pub async fn registry(&self) -> Registry {
        let settings = RegistrySettings::load(&self.instance.registry).unwrap();
        Registry::start(settings, self.clock()).await.unwrap()
    }

    /// Registry and cosigner, with the first configuration published.
    pub async fn start(&self) -> (Registry, Cosigner) {
        let cosigner = self.cosigner().await;
        let registry = self.registry().await;
        assert!(registry.published(1, Duration::from_secs(20)).await);
        (registry, cosigner)
    }

    pub fn settings(&self, who: usize) -> AdministratorSettings {
        AdministratorSettings::load(&self.instance.administrators[who]).unwrap()
    }

    /// The configuration in force, as an administrator verified it.
    pub async fn configuration(&self) -> Configuration {
        self.administrator(FRAUKE_SH).await.configuration(0).await.unwrap().0
    }

    pub async fn administrator(&self, who: usize) -> Administrator {
        Administrator::connect(self.settings(who), self.clock()).await.unwrap()
    }
}

fn free_ports<const N: usize>() -> [SocketAddr; N] {
    // All at once, so that they differ.
    let bound: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|i| bound[i].local_addr().unwrap())
}

/// Applied for by one, approved by the other; the number of the configuration.
pub async fn decide(applicant: &mut Administrator, approver: &mut Administrator, change: Change) -> u64 {
    let id = applicant.apply(change, DAY).await.unwrap();
    approver.approve(id, None).await.unwrap()
}

pub async fn apply(administrator: &mut Administrator, change: Change) -> ActReference {
    administrator.apply(change, DAY).await.unwrap()
}

/// What the registry said when it declined.
pub fn declined<T: std::fmt::Debug>(answer: Result<T, AdministratorError>) -> String {
    match answer {
        Err(AdministratorError::Declined(status)) => status.message().to_owned(),
        other => panic!("not declined: {other:?}"),
    }
}

pub fn purpose(code: &str) -> Change {
    Change::PutPurpose(schema::CatalogueEntry {
        code: code.into(),
        text: "Change of residence of a business".into(),
        text_de: "Gewerbeummeldung".into(),
        citation: "Beispiel, keine Rechtsgrundlage".into(),
    })
}

pub fn luebeck() -> Change {
    let subsystem = schema::Subsystem { id: "NORD/SH/luebeck/gewerbeamt".into(), name: "Gewerbeamt".into() };
    Change::PutMember(schema::Member {
        id: "NORD/SH/luebeck".into(),
        name: "Hansestadt Lübeck (Beispiel)".into(),
        subsystems: vec![subsystem],
    })
}

pub fn server() -> Change {
    Change::PutSecurityServer(schema::SecurityServer {
        id: SERVER.into(),
        address: "127.0.0.1:7101".into(),
        subsystems: vec!["NORD/SH/luebeck/gewerbeamt".into()],
        ..Default::default()
    })
}
