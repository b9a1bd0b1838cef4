//! Both ways over TLS, with certificates that the operators handed to each other.

use std::path::Path;

use http::{Request, StatusCode};
use trave_tests::network::{
    CLIENT, Certified, HttpRegister, Instance, LEGAL_BASIS, OTHER_CLIENT, PURPOSE, Plan, REST_SERVICE,
    Release, Tunnel, XRoad, certified_by_itself, rest_grant,
};

use super::{Answer, ask, echo, nothing};

/// Who asks there, or as whom we are known there.
const THEIRS: &str = "EE/GOV/90000001/sild";
const SERVICE: &str = "EE/GOV/70000562/rahvastik/isikud";

fn named(directory: &Path, file: &str) -> String {
    directory.join(file).display().to_string()
}

async fn call(instance: &Instance) -> Answer {
    let request = Request::get(format!("/r1/{REST_SERVICE}/v1"))
        .header("trave-purpose", PURPOSE)
        .header("trave-legal-basis", LEGAL_BASIS);
    ask(instance.sh.door, request.body(nothing()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_port_and_a_bridge_know_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    let bridge = certified_by_itself(&at("bridge.key"), &at("bridge.pem"));
    let theirs = Certified::new(&at("theirs.pem"));
    Certified::new(&at("other.pem"));
    let x_road = XRoad::start(Release::New, &[THEIRS]).await;
    let register = HttpRegister::start(false, echo).await;
    x_road.publish(SERVICE, &format!("http://{}/api", register.address), &[THEIRS]);
    let port = Tunnel::before(x_road.address(), &theirs, &bridge).await;
    let shown = format!(
        "certificate = \"{}\"\nkey = \"{}\"\n",
        named(directory.path(), "bridge.pem"),
        named(directory.path(), "bridge.key")
    );
    let at_provider = format!(
        "[[service]]\nid = \"{REST_SERVICE}\"\nkeep_content = \"none\"\ntime_out_seconds = 10\n\
         register_certificate = \"{}\"\n[service.x_road]\nurl = \"https://{}\"\nservice = \"{SERVICE}\"\n\
         {shown}clients = {{ \"{CLIENT}\" = \"{THEIRS}\" }}\n",
        named(directory.path(), "theirs.pem"),
        port.address
    );
    let plan = Plan { at_provider, grants: vec![rest_grant("r1", "/*")], ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let answer = call(&instance).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.headers);
    assert_eq!(x_road.seen().pop().unwrap().all("x-road-client"), [THEIRS]);

    // A server that shows another certificate than the one that was handed over is not spoken to.
    instance.mv.reconfigure(|text| text.replace("theirs.pem", "other.pem")).await;
    let answer = call(&instance).await;
    assert_ne!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["register_reached"], "no", "{}", answer.json());
    // Nor does theirs speak to who shows none.
    instance.mv.reconfigure(|text| text.replace("other.pem", "theirs.pem").replace(&shown, "")).await;
    assert_ne!(call(&instance).await.status, StatusCode::OK);
    assert_eq!((x_road.seen().len(), register.seen().len()), (1, 1));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_is_open_to_the_certificate_that_is_pinned_there() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    let bridge = certified_by_itself(&at("bridge.key"), &at("bridge.pem"));
    let (theirs, stranger) = (Certified::new(&at("theirs.pem")), Certified::new(&at("stranger.pem")));
    let register = HttpRegister::start(false, echo).await;
    let at_provider = format!(
        "[[service]]\nid = \"{REST_SERVICE}\"\nurl = \"http://{}\"\nkeep_content = \"none\"\n",
        register.address
    );
    let at_client = format!(
        "[[agency]]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\nkeep_content = \"none\"\n\
         clients = [{{ certificate = \"{}\", subsystems = [\"{OTHER_CLIENT}\"] }}]\n\
         [[agency.x_road]]\nclient = \"{THEIRS}\"\nservices = [\"{REST_SERVICE}\"]\n\
         purpose = \"{PURPOSE}\"\nlegal_basis = \"{LEGAL_BASIS}\"\n",
        named(directory.path(), "bridge.pem"),
        named(directory.path(), "bridge.key"),
        named(directory.path(), "theirs.pem")
    );
    let mut grant = rest_grant("r1", "/*");
    grant.client = OTHER_CLIENT.into();
    let plan = Plan { at_provider, at_client, grants: vec![grant], ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let door = instance.sh.agency(1);
    let x_road = XRoad::start(Release::New, &[THEIRS]).await;
    let publish =
        |address| x_road.publish(SERVICE, &format!("http://{address}/r1/{REST_SERVICE}"), &[THEIRS]);
    let (path, headers) = (format!("/r1/{SERVICE}/v1"), [("x-road-client", THEIRS)]);
    let asked = || x_road.ask("GET", &path, &headers);

    let known = Tunnel::behind(door, &theirs, &bridge).await;
    publish(known.address);
    let (status, headers, _) = asked().await;
    assert_eq!(status, StatusCode::OK, "{headers:?}");
    assert_eq!(register.last().all("trave-bridged-from"), [THEIRS]);

    let unknown = Tunnel::behind(door, &stranger, &bridge).await;
    // Who speaks no TLS does not come in either.
    for address in [unknown.address, door] {
        publish(address);
        let (status, headers, _) = asked().await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{headers:?}");
        assert_eq!(headers["x-road-error"], "server.serverproxy.service_failed");
    }
    assert_eq!(register.seen().len(), 1);
    instance.stop().await;
}
