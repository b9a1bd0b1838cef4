//! What goes on beside exchanges: the status of the own certificate, timestamps, the registry's configurations, and what a
//! crash left open.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prost::Message;
use trave_gateway::config::Config;
use trave_host::client::Channel;
use trave_host::drain::Drain;
use trave_host::keys::Sign;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_host::tls::{Clients, Http, Identity, Server as Tls};
use trave_proto::schema::configuration::{SignedConfiguration, TimestampingAuthority};
use trave_proto::schema::log::Outcome;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::{ListLogRequest, StatusRequest, StatusResponse};
use trave_tests::network::{Identities, Instance, KIEL, Plan, Question, Script, Server};

const HOUR: Duration = Duration::from_secs(3600);

fn operator_socket(server: &Server) -> std::path::PathBuf {
    Config::read(&server.configuration_file()).unwrap().operator_socket()
}

async fn operator(server: &Server) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(Channel::unix(&operator_socket(server)).await.unwrap())
}

async fn status(server: &Server) -> StatusResponse {
    operator(server).await.status(StatusRequest {}).await.unwrap().into_inner()
}

/// Waits until `holds`, for 10 s at most.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in 10 s: {what}");
}

/// Lets minutes pass until `holds`: a task that begins to wait just after one has passed waits for the next.
async fn minutes_later(instance: &Instance, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    soon(what, async || {
        instance.advance(Duration::from_secs(60));
        holds().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_the_signing_certificate_is_renewed_in_time() {
    let mut instance = Instance::start().await;
    // Much longer than one answer counts (2 h), in steps that a running server would see.
    for _ in 0..5 {
        let files = [&instance.sh, &instance.mv].map(|server| server.layout().signing_status());
        let before = files.clone().map(|file| std::fs::read(file).unwrap());
        instance.advance(HOUR);
        soon("both servers have one", async || {
            let now = files.clone().map(|file| std::fs::read(file).unwrap());
            now[0] != before[0] && now[1] != before[1]
        })
        .await;
    }
    assert_eq!(instance.ask(b"noch da").await.only().as_ref(), b"noch da");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_responder_a_server_waits_with_its_doors_closed() {
    let mut instance = Instance::start().await;
    instance.sh.stop().await;
    std::fs::remove_file(instance.sh.layout().signing_status()).unwrap();
    instance.authorities.stop().await;
    let started = tokio::time::timeout(Duration::from_millis(2500), instance.sh.start()).await;
    assert!(started.is_err(), "it neither serves nor gives up: {started:?}");
    assert!(tokio::net::TcpStream::connect(instance.sh.peer).await.is_err());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamping_authority_that_fails_is_passed_over() {
    let mut instance = Instance::start().await;
    let next = instance.next_configuration(|next| {
        let services = next.trust_services.as_mut().unwrap();
        let working = services.timestamping_authorities[0].clone();
        let dead = TimestampingAuthority {
            name: "A dead one".into(),
            url: "http://127.0.0.1:1/tsa".into(),
            ..working
        };
        services.timestamping_authorities.insert(0, dead);
    });
    instance.sh.stop().await;
    instance.sh.put_configuration(&next);
    instance.sh.start().await.unwrap();
    // What the run before left without a checkpoint gets one at once.
    soon("a timestamp", async || status(&instance.sh).await.timestamp_ms != 0).await;
    let now = status(&instance.sh).await;
    assert!(now.checkpoint_size > 0 && !now.warnings.iter().any(|w| w.contains("timestamp")), "{now:?}");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_figures_tell_when_a_server_can_no_longer_work() {
    let at_client = "[operations]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let mut instance = Instance::planned(Plan { at_client, ..Plan::default() }).await;
    let address = instance.sh.running().operations.unwrap();
    let get = async |path: &str| trave_tests::agency::get(&address.to_string(), path).await.unwrap();
    let (status, health) = get("/healthz").await;
    assert!(status == 200 && health.starts_with(b"serving\n"), "{health:?}");
    instance.ask(b"eins").await.only();
    let (_, figures) = get("/metrics").await;
    let figures = String::from_utf8(figures.to_vec()).unwrap();
    for line in [
        "trave_configuration_number 1\n",
        "trave_registry_seen_seconds 0\n",
        "trave_exchanges_total{role=\"client\",outcome=\"answered\"} 1\n",
        "trave_connections_total{door=\"agency[0]\",event=\"accepted\"} 1\n",
        "trave_connections_total{door=\"peer\",event=\"broken_off\"} 0\n",
    ] {
        assert!(figures.contains(line), "{line} is not in {figures}");
    }
    // The configuration ends, and no registry brings the next.
    instance.advance(25 * HOUR);
    let (status, health) = get("/healthz").await;
    let health = String::from_utf8(health.to_vec()).unwrap();
    assert!(status == 503 && health.contains("global configuration 1 ended"), "{health}");
    assert_eq!(instance.ask(b"zwei").await.told().unwrap().0, "global_conf_outdated");
    instance.stop().await;
}

/// A registry's distribution door that serves whatever a test puts there.
struct Distribution {
    latest: Arc<Mutex<SignedConfiguration>>,
    drain: Drain,
}

impl Distribution {
    /// Opens the door, and has `server` look there every minute.
    async fn open(instance: &Instance, server: &Server) -> Self {
        let key = Arc::clone(&Identities::get().of(KIEL).authentication);
        let issued = instance.authorities.authentication(KIEL, key.as_ref(), 1000 * HOUR);
        let chain = issued.chain.iter().map(|der| der.to_vec().into()).collect();
        let pin = hex::encode(key.public_key_digest().as_bytes());
        let identity = Arc::new(Identity::new(chain, key).unwrap());
        let tls =
            Tls::new(identity, Clients::Anonymous, Http::TwoOrOne, Arc::clone(&instance.clock)).unwrap();
        let listener = Listener::tls("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
        let address = listener.local_addr().unwrap();
        let latest = Arc::new(Mutex::new(instance.configuration.clone()));
        let served = Arc::clone(&latest);
        let answer = move || std::future::ready(served.lock().unwrap().encode_to_vec());
        let router: Router = Router::new().route("/configuration/latest", get(answer));
        let drain = Drain::new();
        drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(router.clone())));
        std::fs::write(server.layout().registry_pin(), pin).unwrap();
        let path = server.configuration_file();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(
            "[registry]\naddress = \"127.0.0.1:1\"",
            &format!("[registry]\naddress = \"{address}\""),
        );
        std::fs::write(&path, text).unwrap();
        Self { latest, drain }
    }

    fn put(&self, configuration: SignedConfiguration) {
        *self.latest.lock().unwrap() = configuration;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_configurations_of_one_number_are_an_alarm_and_change_nothing() {
    let mut instance = Instance::start().await;
    instance.sh.stop().await;
    let registry = Distribution::open(&instance, &instance.sh).await;
    instance.sh.start().await.unwrap();
    soon("the registry is seen", async || status(&instance.sh).await.registry_seen_ms != 0).await;
    assert_eq!(status(&instance.sh).await.warnings, Vec::<String>::new());
    let second = instance.next_configuration(|next| next.purposes[0].text = "Another text".into());
    let forked = instance.next_configuration(|next| next.purposes[0].text = "Yet another text".into());
    registry.put(second);
    let in_use = async || status(&instance.sh).await.configuration_number == 2;
    minutes_later(&instance, "number 2 is in use", in_use).await;

    registry.put(forked);
    let alarmed =
        async || status(&instance.sh).await.warnings.iter().any(|w| w.contains("ALARM: two signed"));
    minutes_later(&instance, "the alarm", alarmed).await;
    // An older one, below which the server has been, is no better; and one without the keys is nothing.
    for put in [instance.configuration.clone(), SignedConfiguration::default()] {
        registry.put(put);
        instance.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(status(&instance.sh).await.configuration_number, 2);
    }
    assert_eq!(instance.ask(b"weiter").await.only().as_ref(), b"weiter");
    registry.drain.finish(Duration::from_secs(5)).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_open_is_recorded_as_unknown() {
    let mut instance = Instance::planned(Plan { register_seconds: 5, ..Plan::default() }).await;
    let answered = instance.ask(b"ganz").await.exchange();
    instance.register.script(Script::Hold);
    let open = instance.caller().await;
    let asking = tokio::spawn(async move { open.ask(Question::new().message(b"halb")).await });
    soon("the register is called", async || instance.register.count() == 2).await;
    // What stands on the disk now is what a power cut would leave.
    let (log, kept) = (instance.mv.layout().log(), tempfile::tempdir().unwrap());
    copy(&log, &kept.path().join("log"));
    let cut = asking.await.unwrap().exchange();
    instance.mv.stop().await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(&kept.path().join("log"), &log);
    instance.mv.start().await.unwrap();

    let ended = || -> Vec<_> {
        let entries = instance.mv.records(0).into_iter().filter_map(|record| record.leaf.entry);
        entries.filter_map(|entry| if let Entry::Ended(ended) = entry { Some(ended) } else { None }).collect()
    };
    soon("the end is recorded", async || !ended().is_empty()).await;
    let ended = ended();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].exchange_id, cut.as_bytes().as_slice());
    assert_eq!((ended[0].outcome(), ended[0].responses), (Outcome::Unknown, 0));
    assert!(ended[0].requests >= 1);
    assert_eq!(ended[0].side, "provider_server");
    let request = ListLogRequest { reason: "nach dem Absturz".into(), ..ListLogRequest::default() };
    let mut listed = operator(&instance.mv).await.list_log(request).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(entry) = listed.message().await.unwrap() {
        outcomes.push((entry.exchange_id, entry.outcome));
    }
    let of = |id: trave_proto::identifier::ExchangeId| bytes::Bytes::copy_from_slice(id.as_bytes());
    assert_eq!(outcomes, [(of(answered), "answered".to_owned()), (of(cut), "unknown".to_owned())]);
    instance.stop().await;
}

/// Copies a directory with all that is below it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(std::fs::copy(&path, &target).is_ok()) }
    }
}
