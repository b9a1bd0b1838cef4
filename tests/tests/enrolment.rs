//! From an empty directory to a security server that serves: enrolled by token at a real registry, decided on by two
//! administrators, and then following what the registry publishes.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trave_gateway::config::Config;
use trave_gateway::custody::Layout;
use trave_gateway::enrolment::{self, Enrolled, EnrolmentError, Progress};
use trave_gateway::generation::{self, Ask};
use trave_gateway::security_server::{SecurityServer, StartError};
use trave_host::client::Channel;
use trave_host::clock::ManualClock;
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::management::{ActId, EnrolmentToken};
use trave_proto::schema::configuration as schema;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::management::act::Change;
use trave_proto::schema::operator::{StatusRequest, StatusResponse};
use trave_registry::administrator::Administrator;
use trave_registry::ceremony::{Ceremony, Instance};
use trave_registry::config::{AdministratorSettings, CosignerSettings, RegistrySettings};
use trave_registry::{Cosigner, Registry};
use trave_tests::network::START;

const SERVER: &str = "NORD/SH/luebeck/s1";
const HOUR: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_secs(60);

/// A registry with its cosigner and one administrator of each state.
struct Nord {
    directory: tempfile::TempDir,
    instance: Instance,
    clock: ManualClock,
    registry: Option<Registry>,
    cosigner: Option<Cosigner>,
    frauke: Administrator,
    uwe: Administrator,
}

impl Nord {
    /// Founds the instance, and registers the security server.
    async fn found() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(START);
        let [public_listen, admin_listen, trust_services_listen, cosigner_listen] = free_ports();
        let people = [("Frauke Hansen", "SH"), ("Uwe Schulz", "MV")];
        let ceremony = Ceremony {
            instance: "NORD".into(),
            registry_key: "registry-sh".into(),
            cosigner_key: "cosigner-mv".into(),
            administrators: people.map(|(name, class)| (name.into(), class.into())).to_vec(),
            public_listen,
            admin_listen,
            trust_services_listen,
            cosigner_listen,
            validity_minutes: 24 * 60,
        };
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let instance = ceremony.perform(&directory.path().join("nord"), Arc::clone(&shared)).unwrap();
        let cosigner = start_cosigner(&instance, &shared).await;
        let registry = start_registry(&instance, &shared).await;
        let [frauke, uwe] =
            [0, 1].map(|who| AdministratorSettings::load(&instance.administrators[who]).unwrap());
        let frauke = Administrator::connect(frauke, Arc::clone(&shared)).await.unwrap();
        let uwe = Administrator::connect(uwe, shared).await.unwrap();
        let (registry, cosigner) = (Some(registry), Some(cosigner));
        let mut nord = Self { directory, instance, clock, registry, cosigner, frauke, uwe };
        nord.decide(Change::PutMember(schema::Member {
            id: "NORD/SH/luebeck".into(),
            name: "Hansestadt Lübeck (Beispiel)".into(),
            subsystems: vec![schema::Subsystem {
                id: "NORD/SH/luebeck/gewerbeamt".into(),
                name: "Gewerbeamt".into(),
            }],
        }))
        .await;
        nord.decide(Change::PutSecurityServer(schema::SecurityServer {
            id: SERVER.into(),
            address: "127.0.0.1:7101".into(),
            subsystems: vec!["NORD/SH/luebeck/gewerbeamt".into()],
            ..Default::default()
        }))
        .await;
        nord
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    async fn decide(&mut self, change: Change) -> u64 {
        let id = self.frauke.apply(change, HOUR).await.unwrap();
        self.uwe.approve(id, None).await.unwrap()
    }

    async fn token(&mut self) -> EnrolmentToken {
        EnrolmentToken::parse(&self.frauke.token(SERVER, HOUR).await.unwrap()).unwrap()
    }

    /// Both administrators compare the fingerprint, and decide.
    async fn approve(&mut self, fingerprint: &str) {
        let requested = self.frauke.acts(true).await.unwrap();
        let requested =
            requested.iter().find(|act| act.fingerprint().as_deref() == Some(fingerprint)).unwrap();
        let id: ActId = requested.act.id();
        self.frauke.apply_for_enrolment(id, fingerprint).await.unwrap();
        self.uwe.approve(id, Some(fingerprint)).await.unwrap();
    }

    /// The configuration file of a security server that has nothing else yet.
    fn gateway(&self) -> Config {
        let path = self.gateway_file();
        let text = format!(
            "server = \"{SERVER}\"\ndata = \"data\"\npassphrase_file = \"passphrase\"\n\
             [registry]\naddress = \"{}\"\npoll_seconds = {}\n[peer]\nlisten = \"127.0.0.1:0\"\n\
             [operations]\nlisten = \"127.0.0.1:0\"\n[log]\nsegment_mib = 8\nreserve_mib = 1\n",
            self.registry.as_ref().unwrap().public_address(),
            POLL.as_secs(),
        );
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        Config::read(&path).unwrap()
    }

    fn gateway_file(&self) -> PathBuf {
        self.directory.path().join("luebeck/gateway.toml")
    }

    async fn stop(self) {
        if let Some(registry) = self.registry {
            registry.stop().await;
        }
        if let Some(cosigner) = self.cosigner {
            cosigner.stop().await;
        }
    }
}

async fn start_registry(instance: &Instance, clock: &Arc<dyn Clock>) -> Registry {
    let settings = RegistrySettings::load(&instance.registry).unwrap();
    let registry = Registry::start(settings, Arc::clone(clock)).await.unwrap();
    assert!(registry.published(1, Duration::from_secs(20)).await);
    registry
}

async fn start_cosigner(instance: &Instance, clock: &Arc<dyn Clock>) -> Cosigner {
    let settings = CosignerSettings::load(&instance.cosigner).unwrap();
    Cosigner::start(settings, Arc::clone(clock)).await.unwrap()
}

fn free_ports<const N: usize>() -> [SocketAddr; N] {
    // All at once, so that they differ.
    let bound: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|i| bound[i].local_addr().unwrap())
}

/// Enrols until the registry has the request, and gives up there; the fingerprint that was shown.
async fn interrupted(config: &Config, token: &EnrolmentToken, clock: Arc<dyn Clock>) -> String {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let enrolling = enrolment::enrol(config, token, clock, move |progress| drop(tell.send(progress)));
    tokio::pin!(enrolling);
    loop {
        tokio::select! {
            ended = &mut enrolling => panic!("enrolled before anybody decided: {ended:?}"),
            progress = told.recv() => if let Some(Progress::Requested { fingerprint }) = progress {
                return fingerprint;
            },
        }
    }
}

async fn status(config: &Config) -> StatusResponse {
    let channel = Channel::unix(&config.operator_socket()).await.unwrap();
    let mut operator = OperatorServiceClient::new(channel);
    operator.status(StatusRequest {}).await.unwrap().into_inner()
}

/// Waits until the status is as expected.
async fn becomes(config: &Config, expected: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
    for _ in 0..200 {
        let status = status(config).await;
        if expected(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in 10 s: {:?}", status(config).await);
}

/// What the message log holds of one kind.
fn logged<T>(server: &SecurityServer, wanted: impl Fn(&Entry) -> Option<T>) -> Vec<T> {
    let entries = server.records(0).filter_map(|record| record.unwrap().leaf.entry);
    entries.filter_map(|entry| wanted(&entry)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_enrols_serves_and_follows_the_registry() {
    let mut nord = Nord::found().await;
    let (config, token) = (nord.gateway(), nord.token().await);
    let fingerprint = interrupted(&config, &token, nord.clock()).await;
    let again = interrupted(&config, &token, nord.clock()).await;
    assert_eq!(again, fingerprint, "the same keys and the same request");
    nord.approve(&fingerprint).await;
    let mut told = Vec::new();
    let enrolled = enrolment::enrol(&config, &token, nord.clock(), |progress| told.push(progress)).await;
    assert_eq!(enrolled.unwrap(), Enrolled::Now);
    assert_eq!(told, [Progress::Keys { passphrase_made: false }, Progress::Requested { fingerprint }]);
    let before = enrolment::enrol(&config, &token, nord.clock(), |_| ()).await.unwrap();
    assert_eq!(before, Enrolled::Before);
    let layout = Layout::new(config.data());
    for secret in
        [layout.signing_key(), layout.authentication_key(), layout.log_key(), config.passphrase_file()]
    {
        assert_eq!(std::fs::metadata(&secret).unwrap().mode() & 0o777, 0o600, "{}", secret.display());
    }

    let drain = Drain::new();
    let server =
        SecurityServer::start(Config::read(&nord.gateway_file()).unwrap(), nord.clock(), drain.clone());
    let server = server.await.unwrap();
    becomes(&config, |status| status.configuration_number == 4 && status.registry_seen_ms != 0).await;
    let purpose = Change::PutPurpose(schema::CatalogueEntry {
        code: "gewerbeummeldung".into(),
        text: "Change of residence of a business".into(),
        text_de: "Gewerbeummeldung".into(),
        citation: "Beispiel, keine Rechtsgrundlage".into(),
    });
    assert_eq!(nord.decide(purpose).await, 5);
    nord.clock.advance(POLL);
    let sealed =
        becomes(&config, |status| status.configuration_number == 5 && status.timestamp_ms != 0).await;
    assert_eq!(sealed.warnings, Vec::<String>::new());

    // The registry goes away and comes back: exchanges could go on, and the log says when it was so.
    nord.registry.take().unwrap().stop().await;
    nord.clock.advance(POLL);
    let alone = becomes(&config, |status| status.warnings.iter().any(|w| w.contains("valid until"))).await;
    assert_eq!(alone.configuration_number, 5);
    nord.registry = Some(start_registry(&nord.instance, &nord.clock()).await);
    nord.clock.advance(POLL);
    becomes(&config, |status| status.warnings.iter().all(|w| !w.contains("valid until"))).await;
    let adopted = |entry: &Entry| match entry {
        Entry::Configuration(adopted) => Some((adopted.number, adopted.source.clone())),
        _ => None,
    };
    assert_eq!(logged(&server, adopted), [(5, "registry".to_owned())]);
    let absent = |entry: &Entry| match entry {
        Entry::Degradation(degradation) if degradation.kind == "registry_unavailable" => {
            Some(degradation.begins)
        }
        _ => None,
    };
    // The end is logged just after the status says it.
    for _ in 0..100 {
        if logged(&server, absent).len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(logged(&server, absent), [true, false]);
    drain.begin();
    server.finish().await;
    nord.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_registry_of_the_token_is_believed() {
    let mut nord = Nord::found().await;
    let (config, token) = (nord.gateway(), nord.token().await);
    let elsewhere = EnrolmentToken { server: "NORD/SH/luebeck/s2".parse().unwrap(), ..token.clone() };
    let refused = enrolment::enrol(&config, &elsewhere, nord.clock(), |_| ()).await.unwrap_err();
    assert!(matches!(refused, EnrolmentError::OtherServer { .. }), "{refused:?}");
    let pinned = EnrolmentToken { registry_key: Digest::of(b"another"), ..token.clone() };
    let refused = enrolment::enrol(&config, &pinned, nord.clock(), |_| ()).await.unwrap_err();
    assert!(matches!(refused, EnrolmentError::Connect(_)), "{refused:?}");

    let fingerprint = interrupted(&config, &token, nord.clock()).await;
    nord.approve(&fingerprint).await;
    let anchored = EnrolmentToken { anchor: Digest::of(b"another"), ..token.clone() };
    let refused = enrolment::enrol(&config, &anchored, nord.clock(), |_| ()).await.unwrap_err();
    assert!(matches!(refused, EnrolmentError::OtherAnchor), "{refused:?}");
    assert!(!Layout::new(config.data()).anchor().exists(), "nothing is stored of what was not verified");

    // Whoever copied the token comes too late: it was used, for other keys.
    let thief = nord.directory.path().join("dieb");
    std::fs::create_dir_all(&thief).unwrap();
    std::fs::copy(nord.gateway_file(), thief.join("gateway.toml")).unwrap();
    let stolen = Config::read(&thief.join("gateway.toml")).unwrap();
    let refused = enrolment::enrol(&stolen, &token, nord.clock(), |_| ()).await.unwrap_err();
    assert!(with_causes(&refused).contains("declined"), "{refused:?}");
    nord.stop().await;
}

/// The disk of the log was lost: a new generation is approved as a new server's keys are, and the old key stays listed, so that
/// proofs from before hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_new_generation_is_approved_by_two_administrators() {
    let mut nord = Nord::found().await;
    let (config, token) = (nord.gateway(), nord.token().await);
    let fingerprint = interrupted(&config, &token, nord.clock()).await;
    nord.approve(&fingerprint).await;
    enrolment::enrol(&config, &token, nord.clock(), |_| ()).await.unwrap();
    let layout = Layout::new(config.data());
    let started = async |nord: &Nord| {
        let drain = Drain::new();
        let config = Config::read(&nord.gateway_file()).unwrap();
        SecurityServer::start(config, nord.clock(), drain.clone()).await.map(|server| (server, drain))
    };
    let (server, drain) = started(&nord).await.unwrap();
    drain.begin();
    server.finish().await;
    std::fs::remove_dir_all(layout.log()).unwrap();

    let (asked, clock) = (Config::read(&nord.gateway_file()).unwrap(), nord.clock());
    let begun = tokio::task::spawn_blocking(move || {
        let ask = Ask {
            reason: "Platte verloren".into(),
            operator: "uid 0".into(),
            checkpoint: None,
            ..Ask::default()
        };
        generation::begin(&asked, &ask, clock).unwrap()
    });
    let begun = begun.await.unwrap();
    assert_eq!(
        (begun.previous, begun.origin.clone()),
        (format!("trave/{SERVER}/1"), format!("trave/{SERVER}/2"))
    );
    assert_eq!(begun.missing, "0 records are left; how many there were, no witness has told");
    assert!(matches!(started(&nord).await, Err(StartError::LogNotListed(_))), "it waits for approval");
    let old = enrolment::enrol(&config, &token, nord.clock(), |_| ()).await.unwrap_err();
    assert!(with_causes(&old).contains("declined"), "the first token was used: {old:?}");
    let token = nord.token().await;
    let next = interrupted(&config, &token, nord.clock()).await;
    assert_ne!(next, fingerprint, "another key");
    assert!(started(&nord).await.is_err(), "nobody has decided yet");
    nord.approve(&next).await;
    let enrolled = enrolment::enrol(&config, &token, nord.clock(), |_| ()).await.unwrap();
    assert_eq!(enrolled, Enrolled::Now);
    let (server, drain) = started(&nord).await.unwrap();
    let now = becomes(&config, |status| status.timestamp_ms != 0 || status.log_size > 1).await;
    assert_eq!(now.log_origin, begun.origin);
    let generation = |entry: &Entry| match entry {
        Entry::Generation(generation) => Some(generation.previous_origin.clone()),
        _ => None,
    };
    assert_eq!(logged(&server, generation), [format!("trave/{SERVER}/1")]);
    assert_eq!(enrolment::enrol(&config, &token, nord.clock(), |_| ()).await.unwrap(), Enrolled::Before);
    drain.begin();
    server.finish().await;
    nord.stop().await;
}
