//! A service of the other instance whose backend is a door of ours.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use http::{HeaderMap, Request, StatusCode};
use trave_gateway::config::{Config, GatewayConfigError};
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, NotProved};
use trave_proto::schema::message::Direction;
use trave_tests::network::{
    CLIENT, HttpRegister, Instance, LEGAL_BASIS, OTHER_CLIENT, OTHER_PURPOSE, PURPOSE, Plan, REST_SERVICE,
    Release, XRoad, export, judge, manifests, rest_grant, told,
};
use trave_tests::program::program;

use super::{ask, echo, nothing};

/// Who asks there, with a letter in its code that a URL must encode, as X-Road allows it.
const THEIRS: &str = "EE/GOV/70000310/õigusamet";
const SPELLED: &str = "EE/GOV/70000310/%C3%B5igusamet";
/// Another client there, which the bridge does not list.
const UNLISTED: &str = "EE/GOV/70000999/muu";
/// Our service, as it is known there.
const SERVICE: &str = "EE/GOV/90000001/bridge/akten";
/// The bridge's own subsystem, which asks in their place.
const BRIDGE: &str = OTHER_CLIENT;

struct World {
    instance: Instance,
    x_road: XRoad,
    register: HttpRegister,
}

impl World {
    async fn start() -> Self {
        let register = HttpRegister::start(false, echo).await;
        let at_provider = format!(
            "[[service]]\nid = \"{REST_SERVICE}\"\nurl = \"http://{}/base\"\nkeep_content = \"all\"\n",
            register.address
        );
        let at_client = format!(
            "[[agency]]\nlisten = \"127.0.0.1:0\"\nsubsystem = \"{BRIDGE}\"\nkeep_content = \"all\"\n\
             [[agency.x_road]]\nclient = \"{SPELLED}\"\nservices = [\"{REST_SERVICE}\"]\n\
             purpose = \"{PURPOSE}\"\nlegal_basis = \"{LEGAL_BASIS}\"\n"
        );
        let mut grant = rest_grant("r1", "/*");
        grant.client = BRIDGE.into();
        let plan = Plan { at_provider, at_client, grants: vec![grant], ..Plan::default() };
        let instance = Instance::planned(plan).await;
        let x_road = XRoad::start(Release::New, &[THEIRS, UNLISTED]).await;
        let world = Self { instance, x_road, register };
        let url = format!("http://{}/r1/{REST_SERVICE}", world.door());
        world.x_road.publish(SERVICE, &url, &[THEIRS, UNLISTED]);
        world
    }

    fn door(&self) -> SocketAddr {
        self.instance.sh.agency(1)
    }

    /// One of their clients asks at their security server.
    async fn ask(&self, client: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, bytes::Bytes) {
        let headers = [&[("x-road-client", client)], headers].concat();
        self.x_road.ask("GET", &format!("/r1/{SERVICE}/v1/akten/7?a=1"), &headers).await
    }

    async fn stop(mut self) {
        self.instance.stop().await;
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// What our program says, on both of its ways.
pub(super) async fn said(arguments: &[&str], config: &Path) -> String {
    let mut command = Command::new(program("trave-gateway"));
    command.args(arguments).args(["--config".as_ref(), config.as_os_str()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_agency_calls_a_service_of_ours() {
    let world = World::start().await;
    let headers = [
        ("x-road-id", "m-1"),
        ("x-road-userid", "EE38001085718"),
        ("x-road-issue", "7/26"),
        ("x-road-security-server", "EE/GOV/90000001/ss1"),
        ("x-road-service", "NORD/MV/gewerberegister/register/auskunft"),
        ("trave-bridged-from", "forged"),
    ];
    // In whichever spelling their client writes itself.
    let (status, answered, _) = world.ask("EE/GOV/70000310/%c3%b5igusame%74", &headers).await;
    assert_eq!(status, 200, "{answered:?}");
    assert_eq!((text(&answered, "x-road-id"), text(&answered, "x-method")), (Some("m-1"), Some("GET")));
    assert_eq!(text(&answered, "x-road-error"), None);
    let exchange: ExchangeId = text(&answered, "trave-exchange-id").unwrap().parse().unwrap();

    let seen = world.register.last();
    assert_eq!(seen.target, "/base/v1/akten/7?a=1");
    for (name, value) in [
        ("x-road-client", BRIDGE),
        ("x-road-service", REST_SERVICE),
        ("x-road-id", "m-1"),
        ("x-road-userid", "EE38001085718"),
        ("x-road-issue", "7/26"),
        ("trave-bridged-from", SPELLED),
        ("trave-purpose", PURPOSE),
        ("trave-legal-basis", LEGAL_BASIS),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    for server in [&world.instance.sh, &world.instance.mv] {
        let records = server.records(0);
        for direction in [Direction::Request, Direction::Response] {
            let manifests = manifests(&records, exchange, direction);
            assert!(!manifests.is_empty());
            for manifest in manifests {
                assert_eq!(manifest.bridged_from.as_ref().unwrap().as_str(), SPELLED);
                assert_eq!((manifest.client.as_str(), &manifest.bridged_to), (BRIDGE, &None));
            }
        }
        let report = judge(&world.instance, &export(server, exchange, false).await);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert!(report.not_proved.contains(&NotProved::BeyondBridge));
        let story = report.story.unwrap();
        assert_eq!((story.bridged_from.unwrap().as_str(), story.client.id.as_str()), (SPELLED, BRIDGE));
        let listed = said(&["log", "list", "--reason", "Probe"], &server.configuration_file()).await;
        assert!(listed.contains(&format!("\tbridged from X-Road: {SPELLED}\n")), "{listed}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_listed_does_not_come_over() {
    let world = World::start().await;
    let (status, answered, body) = world.ask(UNLISTED, &[]).await;
    // To their client that is an error of the service, not of X-Road.
    assert_eq!((status.as_u16(), text(&answered, "x-road-error")), (500, None));
    assert_eq!(text(&answered, "trave-error"), Some("server.clientproxy.access_denied"));
    assert_eq!(text(&answered, "x-road-service"), Some(SERVICE), "their name of it");
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&error["reason"], &error["register_reached"]), (&"access_denied".into(), &"no".into()));
    assert!(error["message"].as_str().unwrap().contains(UNLISTED), "{error}");
    let exchange: ExchangeId = error["exchange_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.instance.sh.tells(exchange), ["refused access_denied by client_server"]);

    // A purpose is the bridge's to name.
    for (name, value, reason) in [
        ("trave-purpose", OTHER_PURPOSE, "unknown_purpose"),
        ("trave-legal-basis", "GewO-11", "unknown_legal_basis"),
    ] {
        let (status, _, body) = world.ask(SPELLED, &[(name, value)]).await;
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), &error["reason"]), (400, &reason.into()));
    }
    assert!(world.register.seen().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_of_a_bridge_is_for_bridged_calls_alone() {
    let world = World::start().await;
    let path = format!("/r1/{REST_SERVICE}/a");
    for client in [
        "",
        CLIENT,
        BRIDGE,
        "EE/GOV/70000310",
        "EE/GOV/70000310/igusamet",
        "EE/GOV/70000310/../70000310/%C3%B5igusamet",
        "EE/GOV/70000310/%C3%B5igusamet%00",
        "EE/GOV/70000310/%C3%B5igusamet/",
        "EE/GOV/70000310/\\",
        "ee/gov/70000310/%C3%B5igusamet",
    ] {
        let mut request = Request::get(&path);
        if !client.is_empty() {
            request = request.header("x-road-client", client);
        }
        let answer = ask(world.door(), request.body(nothing()).unwrap()).await;
        assert!(answer.status == 400 || answer.status == 500, "{client:?}: {}", answer.status);
        let reason = answer.json()["reason"].clone();
        assert!(reason == "invalid_client_identifier" || reason == "access_denied", "{client:?}: {reason}");
        assert_eq!(answer.header("x-road-error"), None);
    }
    // Two are never one.
    let twice = Request::get(&path).header("x-road-client", SPELLED).header("x-road-client", UNLISTED);
    assert_eq!(ask(world.door(), twice.body(nothing()).unwrap()).await.json()["reason"], "invalid_message");
    // Nothing about services, and no other service.
    for path in ["/listClients".to_owned(), "/r1/NORD/MV/gewerberegister/register/listMethods".into()] {
        let request = Request::get(path).header("x-road-client", SPELLED).body(nothing()).unwrap();
        let reason = ask(world.door(), request).await.json()["reason"].clone();
        assert!(reason == "unknown_service" || reason == "access_denied", "{reason}");
    }
    let other = "/r1/NORD/MV/gewerberegister/register/archiv/a";
    let other = Request::get(other).header("x-road-client", SPELLED).body(nothing()).unwrap();
    assert_eq!(ask(world.door(), other).await.json()["reason"], "access_denied");
    assert!(world.register.seen().is_empty());
    let records = world.instance.sh.records(0);
    let refused = records.iter().filter(|record| told(record).starts_with("refused")).count();
    assert!(refused >= 4, "the log holds {refused} refusals, as many as its budget lets it");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_the_door_of_a_bridge_are_told() {
    let world = World::start().await;
    let file = world.instance.sh.configuration_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let listed = &text[text.find("[[agency.x_road]]").unwrap()..];
    let checked = said(&["check-config"], &file).await;
    let line = format!("bridge: {SPELLED} asks {REST_SERVICE} as {BRIDGE} for {PURPOSE}, {LEGAL_BASIS}\n");
    assert!(checked.contains(&line), "{checked}");
    let services = format!("services = [\"{REST_SERVICE}\"]");
    for (from, to, expected) in [
        (listed, "x_road = []\n".to_owned(), "agency[1].x_road"),
        (services.as_str(), "services = []".into(), "agency[1].x_road[0].services"),
        (listed, format!("{listed}{listed}"), "agency[1].x_road[1].services"),
        (&services, format!("{services}\nsubsystem = \"{CLIENT}\""), "agency[1].x_road[0].subsystem"),
        (SPELLED, THEIRS.into(), ""),
        (SPELLED, "EE/GOV".into(), ""),
        (PURPOSE, "um zu fragen".into(), ""),
        (&services, format!("{services}\nmethod = \"GET\""), ""),
    ] {
        std::fs::write(&file, text.replace(from, &to)).unwrap();
        match Config::read(&file) {
            Err(GatewayConfigError::Problems(problems)) => {
                assert!(problems.iter().any(|problem| problem.key == expected), "{to}: {problems}");
            }
            Err(GatewayConfigError::Read(_)) => assert_eq!(expected, "", "{to}"),
            Ok(_) => panic!("{to} was accepted"),
        }
    }
    world.stop().await;
}
