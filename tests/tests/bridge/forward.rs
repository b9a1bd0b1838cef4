//! A service of ours whose register is a service of the other instance.

use http::request::Builder;
use http::{Request, Response};
use hyper::body::Incoming;
use trave_gateway::config::{Config, GatewayConfigError};
use trave_proto::proof::{Conclusion, NotProved};
use trave_proto::schema::message::Direction;
use trave_tests::network::{
    CLIENT, HttpRegister, Instance, LEGAL_BASIS, OTHER_CLIENT, PURPOSE, Plan, REST_SERVICE, Release, XRoad,
    export, judge, manifests, rest_grant,
};

use super::reverse::said;
use super::{ask, echo, full, nothing};

/// As whom our client is known there.
const THEIRS: &str = "EE/GOV/90000001/trave bridge";
const SPELLED: &str = "EE/GOV/90000001/trave%20bridge";
const SERVICE: &str = "EE/GOV/70000562/rahvastik/isikud";

struct World {
    instance: Instance,
    x_road: XRoad,
    register: HttpRegister,
}

impl World {
    async fn start(release: Release) -> Self {
        let x_road = XRoad::start(release, &[THEIRS]).await;
        let register = HttpRegister::start(false, echo).await;
        x_road.publish(SERVICE, &format!("http://{}/api", register.address), &[THEIRS]);
        let at_provider = format!(
            "[[service]]\nid = \"{REST_SERVICE}\"\nkeep_content = \"all\"\ntime_out_seconds = 10\n\
             [service.x_road]\nurl = \"http://{}\"\nservice = \"{SERVICE}\"\nclients = {{ \"{CLIENT}\" = \"{SPELLED}\" }}\n",
            x_road.address()
        );
        // The other client is let in by the provider's grants, and by its own door; the bridge does not know it.
        let at_client = format!(
            "[[agency]]\nlisten = \"127.0.0.1:0\"\nsubsystem = \"{OTHER_CLIENT}\"\nkeep_content = \"all\"\n"
        );
        let mut other = rest_grant("r2", "/*");
        other.client = OTHER_CLIENT.into();
        let grants = vec![rest_grant("r1", "/*"), other];
        let plan = Plan { at_provider, at_client, grants, ..Plan::default() };
        Self { instance: Instance::planned(plan).await, x_road, register }
    }

    async fn stop(mut self) {
        self.instance.stop().await;
    }
}

fn asking(method: &str, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(format!("/r1/{REST_SERVICE}{path}"))
        .header("trave-purpose", PURPOSE)
        .header("trave-legal-basis", LEGAL_BASIS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_agency_calls_a_service_of_the_other_instance() {
    let world = World::start(Release::New).await;
    let request = asking("POST", "/v1/isikud/%6eimi?a=1")
        .header("x-road-id", "m-1")
        .header("x-road-userid", "SH1")
        .header("x-road-issue", "4711/26")
        .header("x-road-represented-party", "SH/amt")
        .header("x-road-request-hash", "forged")
        .header("trave-subject", "Anna Beispiel")
        .header("content-type", "text/plain")
        .body(full("kes?"))
        .unwrap();
    let answer = ask(world.instance.sh.door, request).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"kes?"[..]), "{:?}", answer.headers);
    let exchange = answer.exchange();
    // To its caller the service is ours, and the answer says whose it is.
    for (name, value) in [
        ("x-road-client", CLIENT),
        ("x-road-service", REST_SERVICE),
        ("x-road-id", "m-1"),
        ("x-road-request-id", &exchange.to_string()),
        ("trave-bridged-to", SERVICE),
        ("x-method", "POST"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for name in ["x-road-request-hash", "x-road-error", "server"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    // There it is a call as any other.
    let came = world.x_road.seen().pop().unwrap();
    assert_eq!(came.target, format!("/r1/{SERVICE}/v1/isikud/nimi?a=1"));
    for (name, value) in [
        ("x-road-client", SPELLED),
        ("x-road-id", "m-1"),
        ("x-road-userid", "SH1"),
        ("x-road-issue", "4711/26"),
        ("x-road-represented-party", "SH/amt"),
        ("content-length", "4"),
    ] {
        assert_eq!(came.all(name), [value], "{name}");
    }
    let ours = |name: &str| {
        name.starts_with("trave-") || matches!(name, "x-road-service" | "x-road-request-id" | "te")
    };
    assert!(!came.headers.keys().any(|name| ours(name.as_str())), "{came:?}");
    assert_eq!(world.register.last().target, "/api/v1/isikud/nimi?a=1");

    // Both logs hold the mark, signed by the bridge, and the proofs tell it.
    for server in [&world.instance.sh, &world.instance.mv] {
        let records = server.records(0);
        let answered = manifests(&records, exchange, Direction::Response);
        assert!(!answered.is_empty());
        assert!(answered.iter().all(|manifest| manifest.bridged_to.as_ref().unwrap().as_str() == SERVICE));
        let asked = manifests(&records, exchange, Direction::Request);
        assert!(
            asked.iter().all(|manifest| manifest.bridged_from.is_none() && manifest.bridged_to.is_none())
        );
        let report = judge(&world.instance, &export(server, exchange, false).await);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert!(report.not_proved.contains(&NotProved::BeyondBridge));
        let story = report.story.unwrap();
        assert_eq!(story.bridged_to.unwrap().as_str(), SERVICE);
        assert!(story.bridged_from.is_none());
        assert_eq!(story.client.id, CLIENT);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_an_id_is_found_there_by_the_exchange() {
    let world = World::start(Release::New).await;
    let answer = ask(world.instance.sh.door, asking("GET", "").body(nothing()).unwrap()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.x_road.seen()[0].all("x-road-id"), [answer.exchange().to_string()]);
    assert_eq!(world.x_road.seen()[0].target, format!("/r1/{SERVICE}"));
    // What the register beyond says no with is its own answer, signed as any other.
    let answer = ask(world.instance.sh.door, asking("GET", "/404").body(nothing()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-road-error")), (404, None));
    assert_eq!(world.instance.mv.tells(answer.exchange()), ["received request end", "sent response end"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_listed_does_not_cross() {
    let world = World::start(Release::New).await;
    let other = world.instance.sh.agency(1);
    let answer = ask(other, asking("GET", "/a").body(nothing()).unwrap()).await;
    let error = answer.json();
    assert_eq!(error["type"], "server.serverproxy.access_denied");
    assert_eq!((&error["side"], &error["register_reached"]), (&"provider_server".into(), &"no".into()));
    assert!(error["message"].as_str().unwrap().contains(OTHER_CLIENT), "{error}");
    // Nor does a method that there is none of on the other side, or a header that says who somebody is.
    let answer = ask(world.instance.sh.door, asking("PROPFIND", "/a").body(nothing()).unwrap()).await;
    assert_eq!(answer.json()["reason"], "unknown_method");
    let forged = asking("GET", "/a").header("x-road-client", SPELLED);
    let answer = ask(world.instance.sh.door, forged.body(nothing()).unwrap()).await;
    assert_eq!(answer.json()["reason"], "invalid_client_identifier");
    assert!(world.x_road.seen().is_empty());
    let refused = |records: &[trave_tests::network::Record]| {
        records.iter().filter(|record| trave_tests::network::told(record).starts_with("refused")).count()
    };
    assert_eq!(refused(&world.instance.mv.records(0)), 2, "both refusals are in the bridge's log");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_other_instance_are_told_as_such() {
    for release in [Release::Old, Release::New] {
        let world = World::start(release).await;
        let refused = async || {
            let answer = ask(world.instance.sh.door, asking("GET", "/a").body(nothing()).unwrap()).await;
            assert_eq!(answer.status, 500);
            let error = answer.json();
            assert_eq!(answer.header("x-road-error"), error["type"].as_str());
            assert_eq!(error["side"], "register");
            assert!(error["message"].as_str().unwrap().contains("beyond the bridge"), "{error}");
            (answer, error)
        };
        world.x_road.disable(SERVICE, "hooldus");
        let (answer, error) = refused().await;
        assert_eq!((&error["reason"], &error["register_reached"]), (&"service_failed".into(), &"no".into()));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("server.serverproxy.service_disabled: Service "), "{message}");
        assert!(message.ends_with("hooldus"), "{message}");
        let tells = world.instance.mv.tells(answer.exchange());
        assert_eq!(tells, ["received request end", "ended failed service_failed by register, register no"]);
        // No answer was signed that could be marked: the bridge's own log says where the call went.
        let bridge = &world.instance.mv;
        let report = judge(&world.instance, &export(bridge, answer.exchange(), false).await);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert!(report.not_proved.contains(&NotProved::BeyondBridge));
        assert_eq!(report.story.unwrap().bridged_to.unwrap().as_str(), SERVICE);
        let listed = said(&["log", "list", "--reason", "Probe"], &bridge.configuration_file()).await;
        let line = listed.lines().find(|line| line.contains(&answer.exchange().to_string())).unwrap();
        assert!(line.ends_with(&format!("\tbridged to X-Road: {SERVICE}")), "{listed}");

        world.x_road.publish(SERVICE, &format!("http://{}/", world.register.address), &[]);
        let (_, error) = refused().await;
        assert_eq!(error["type"], "server.serverproxy.access_denied");
        assert_eq!((&error["register_reached"], &error["retry_safe"]), (&"no".into(), &"no".into()));
        assert!(error["message"].as_str().unwrap().contains("server.serverproxy.access_denied: Request"));

        // Whether its register had begun is not known here.
        world.x_road.publish(SERVICE, "http://127.0.0.1:1/", &[THEIRS]);
        let (_, error) = refused().await;
        assert_eq!(
            (&error["reason"], &error["register_reached"], &error["retry_safe"]),
            (&"service_failed".into(), &"unknown".into(), &"no".into())
        );
        // X-Road's own sentence may hold what was asked, when there may have been a call.
        assert!(!error["message"].as_str().unwrap().contains("cannot reach"), "{error}");
        assert!(world.register.seen().is_empty());
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_cannot_speak_for_x_road() {
    let world = World::start(Release::New).await;
    let told = |request: Request<Incoming>| async move {
        Response::builder()
            .header("x-road-service", "EE/GOV/1/other/service")
            .header("x-road-error", &request.headers()["code"])
            .header("content-type", "application/json")
            .body(full(r#"{"message":"Anna Beispiel was entered"}"#))
            .unwrap()
    };
    let register = HttpRegister::start(false, told).await;
    world.x_road.publish(SERVICE, &format!("http://{}/", register.address), &[THEIRS]);
    // Were one of them believed, the call would be made again by itself: the register has already done it.
    let codes = [
        "a.network_error.access_denied",
        "server.clientproxy.network_error",
        "server.serverproxy.maintenance_mode",
    ];
    for (before, code) in codes.into_iter().enumerate() {
        let request = asking("POST", "/a").header("code", code).body(full("Anna Beispiel")).unwrap();
        let answer = ask(world.instance.sh.door, request).await;
        let error = answer.json();
        assert_eq!((&error["side"], &error["register_reached"]), (&"register".into(), &"unknown".into()));
        assert_eq!(error["retry_safe"], "no");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("beyond the bridge") && !message.contains("Anna"), "{message}");
        assert_eq!(register.seen().len(), before + 1, "{code}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_name_itself() {
    let world = World::start(Release::New).await;
    let told = |_: Request<Incoming>| async move {
        Response::builder().header("x-road-service", "EE/GOV/1/other/service").body(full("jah")).unwrap()
    };
    let register = HttpRegister::start(false, told).await;
    world.x_road.publish(SERVICE, &format!("http://{}/", register.address), &[THEIRS]);
    let answer = ask(world.instance.sh.door, asking("GET", "/a").body(nothing()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"jah"[..]), "{:?}", answer.headers);
    assert_eq!(answer.header("x-road-service"), Some(REST_SERVICE), "our name of it");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_answer_this_call_is_no_answer() {
    let world = World::start(Release::New).await;
    for (name, value) in [
        ("x-road-id", Some("other")),
        ("x-road-id", None),
        ("x-road-service", Some("EE/GOV/70000562/rahvastik/muu")),
        ("x-road-client", Some("EE/GOV/1/other")),
    ] {
        world.x_road.say(name, value);
        let answer = ask(world.instance.sh.door, asking("GET", "/a").body(nothing()).unwrap()).await;
        let error = answer.json();
        assert_eq!(
            (&error["reason"], &error["register_reached"]),
            (&"inconsistent_response".into(), &"unknown".into()),
            "{name} {value:?}"
        );
        world.x_road.honest();
    }
    let answer = ask(world.instance.sh.door, asking("GET", "/a").body(nothing()).unwrap()).await;
    assert_eq!(answer.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_about_a_bridged_service_is_answered_here() {
    let world = World::start(Release::New).await;
    let subsystem = "/r1/NORD/MV/gewerberegister/register";
    let get =
        async |path: String| ask(world.instance.sh.door, Request::get(path).body(nothing()).unwrap()).await;
    for what in ["listMethods", "allowedMethods"] {
        let listed = get(format!("{subsystem}/{what}")).await.json();
        let mut listed = listed["service"].as_array().unwrap().iter();
        let found = listed.find(|service| service["service_code"] == "akten").unwrap();
        assert_eq!((&found["service_type"], &found["member_class"]), (&"REST".into(), &"MV".into()));
    }
    let answer = get(format!("{subsystem}/getOpenAPI?serviceCode=akten")).await;
    assert_eq!(answer.header("x-road-error"), Some("server.serverproxy.unknown_service"));
    assert!(world.x_road.seen().is_empty(), "the other instance is not asked");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_a_bridge_are_told() {
    let world = World::start(Release::New).await;
    let file = world.instance.mv.configuration_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let port = format!("url = \"http://{}\"", world.x_road.address());
    for (from, to, expected) in [
        (port.as_str(), "url = \"http://192.0.2.1:8080\"", "service[1].x_road.url"),
        (&port, "url = \"http://127.0.0.1:8080/r1\"", "service[1].x_road.url"),
        (&port, "url = \"https://ss.example:8443\"", "service[1].register_certificate"),
        (&port, &format!("{port}\ncertificate = \"a.pem\""), "service[1].x_road.certificate"),
        (&format!("{{ \"{CLIENT}\" = \"{SPELLED}\" }}"), "{}", "service[1].x_road.clients"),
        ("[service.x_road]", "http2 = true\n[service.x_road]", "service[1].x_road.url"),
        ("[service.x_road]", "url = \"http://127.0.0.1:1\"\n[service.x_road]", "service[1].url"),
        (SPELLED, THEIRS, ""),
        (SERVICE, "EE/GOV/70000562/rahvastik", ""),
        (SERVICE, "EE/GOV/70000562/../isikud", ""),
        (&format!("\"{CLIENT}\" = "), "\"NORD/SH\" = ", ""),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
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
