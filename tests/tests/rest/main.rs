//! The REST door: an HTTP call as X-Road has it, over HTTP/1.1 and HTTP/2, signed and logged like any other exchange.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod backends;
mod evidence;
mod metadata;
mod refused;
mod request_hash;
mod streamed;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::BoxError;
use trave_host::client::{Channel, Connections};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::operator::ExplainGrantRequest;
use trave_tests::network::{
    CLIENT, HttpBody, HttpRegister, Instance, LEGAL_BASIS, OTHER_PURPOSE, PURPOSE, Plan, REGISTER,
    REST_SERVICE, grant, operator, rest_grant,
};

/// An instance with a REST register behind it.
struct World {
    instance: Instance,
    register: HttpRegister,
}

type Answering = Pin<Box<dyn Future<Output = Response<HttpBody>> + Send>>;
type Handler = fn(Request<Incoming>) -> Answering;

impl World {
    async fn start(handler: Handler) -> Self {
        Self::with(false, handler, &[("r1", "/*")]).await
    }

    async fn with(two: bool, handler: Handler, grants: &[(&str, &str)]) -> Self {
        let register = HttpRegister::start(two, handler).await;
        let at_provider = format!(
            "[[service]]\nid = \"{REST_SERVICE}\"\nurl = \"http://{}/base/\"\nhttp2 = {two}\nkeep_content = \"all\"\n\
             time_out_seconds = 5\n",
            register.address
        );
        let at_client = format!(
            "[[route]]\nname = \"akten\"\npath = \"/akten/\"\nservice = \"{REST_SERVICE}\"\npurpose = \"{PURPOSE}\"\n\
             legal_basis = \"{LEGAL_BASIS}\"\n"
        );
        let mut granted = vec![grant()];
        granted.extend(grants.iter().map(|(id, endpoint)| rest_grant(id, endpoint)));
        let plan = Plan { at_provider, at_client, grants: granted, ..Plan::default() };
        Self { instance: Instance::planned(plan).await, register }
    }

    fn door(&self) -> Connections<HttpBody> {
        Connections::new(self.instance.sh.door.to_string(), None)
    }

    async fn ask(&self, request: Request<HttpBody>) -> Answer {
        Answer::read(self.open(request).await).await
    }

    async fn open(&self, request: Request<HttpBody>) -> Response<Incoming> {
        self.door().connection().await.unwrap().try_send(request).await.unwrap()
    }

    async fn stop(mut self) {
        self.instance.stop().await;
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        Self { status: parts.status, headers: parts.headers, body: collected.to_bytes() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn exchange(&self) -> ExchangeId {
        self.header("trave-exchange-id").unwrap().parse().unwrap()
    }

    /// What X-Road's error says.
    fn error(&self) -> serde_json::Value {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(self.header("x-road-error"), body["type"].as_str());
        assert!(body["message"].as_str().unwrap().len() > 15, "an error says what happened: {body}");
        assert_eq!(body["exchange_id"], self.exchange().to_string());
        body
    }
}

fn full(bytes: impl Into<Bytes>) -> HttpBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn nothing() -> HttpBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn asking(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("/r1/{REST_SERVICE}{path}"))
        .header("x-road-client", CLIENT)
        .header("trave-purpose", PURPOSE)
        .header("trave-legal-basis", LEGAL_BASIS)
}

/// Sends back method and body.
fn echo(request: Request<Incoming>) -> Answering {
    Box::pin(async move {
        let (parts, body) = request.into_parts();
        Response::builder()
            .header("content-type", "text/plain")
            .header("x-method", parts.method.as_str())
            .header("server", "register/1")
            .header("x-road-service", "forged")
            .body(body.map_err(Into::into).boxed_unsync())
            .unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_call_goes_through_two_security_servers_as_x_road_has_it() {
    for two in [false, true] {
        let world = World::with(two, echo, &[("r1", "/*")]).await;
        let request = asking("POST", "/v1/personen/47%31%3a1?felder=a%2Fb&x=..")
            .header("x-road-id", "m-1")
            .header("x-road-userid", "SH1")
            .header("x-road-issue", "4711/26")
            .header("x-road-represented-party", "SH/amt")
            .header("x-road-security-server", REGISTER)
            .header("x-road-request-hash", "forged")
            .header("trave-exchange-id", "forged")
            .header("user-agent", "probe/1")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("x-forwarded-for", "10.0.0.1")
            .header("content-type", "application/json")
            .header("cookie", "a=b");
        let answer = world.ask(request.body(full("{\"wer\":1}")).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"{\"wer\":1}"[..]));
        let id = answer.exchange();
        for (name, value) in [
            ("x-road-client", CLIENT),
            ("x-road-service", REST_SERVICE),
            ("x-road-id", "m-1"),
            ("x-road-request-id", &id.to_string()),
            ("content-type", "text/plain"),
            ("content-length", "9"),
            ("x-method", "POST"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        for name in ["server", "x-road-error", "transfer-encoding"] {
            assert_eq!(answer.header(name), None, "{name}");
        }

        let seen = world.register.last();
        assert_eq!(seen.target, "/base/v1/personen/471%3A1?felder=a%2Fb&x=..");
        for (name, value) in [
            ("x-road-client", CLIENT),
            ("x-road-service", REST_SERVICE),
            ("x-road-id", "m-1"),
            ("x-road-userid", "SH1"),
            ("x-road-issue", "4711/26"),
            ("x-road-represented-party", "SH/amt"),
            ("x-road-request-id", &id.to_string()),
            ("trave-exchange-id", &id.to_string()),
            ("trave-purpose", PURPOSE),
            ("content-type", "application/json"),
            ("content-length", "9"),
            ("cookie", "a=b"),
        ] {
            assert_eq!(seen.all(name), [value], "{name}");
        }
        for name in
            ["user-agent", "x-private", "x-forwarded-for", "x-road-request-hash", "x-road-security-server"]
        {
            assert!(seen.all(name).is_empty(), "{name}");
        }
        assert_eq!(world.instance.sh.tells(id), ["sent request end", "received response end"]);
        assert_eq!(world.instance.mv.tells(id), ["received request end", "sent response end"]);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_passes_and_bodies_are_only_where_they_belong() {
    fn handler(request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let response = Response::builder().header("x-method", request.method().as_str());
            match (request.method().as_str(), request.uri().path()) {
                ("HEAD", _) => response.header("content-length", "1234").body(nothing()),
                (_, "/base/204") => response.status(204).body(nothing()),
                (_, "/base/304") => response.status(304).header("etag", "\"a\"").body(nothing()),
                (_, "/base/404") => response.status(404).body(full("no such")),
                (_, "/base/302") => response.status(302).header("location", "/elsewhere").body(nothing()),
                _ => response.body(full("x")),
            }
            .unwrap()
        })
    }
    let world = World::start(handler).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "LOCK", "REPORT"]
    {
        let answer = world.ask(asking(method, "/a").body(nothing()).unwrap()).await;
        assert_eq!((answer.header("x-method"), answer.body.as_ref()), (Some(method), &b"x"[..]));
        assert_eq!(answer.header("content-length"), Some("1"));
        let seen = world.register.last();
        assert!(seen.all("transfer-encoding").is_empty(), "{method} has no body: {seen:?}");
    }
    let head = world.ask(asking("HEAD", "/a").body(nothing()).unwrap()).await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("1234"), 0));
    for (path, status, length) in [("/204", 204, None), ("/304", 304, None), ("/302", 302, Some("0"))] {
        let answer = world.ask(asking("GET", path).body(nothing()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{path}");
        assert_eq!(answer.header("content-length"), length, "{path}");
        assert_eq!(answer.header("x-road-error"), None, "the register's answer is no error of ours");
    }
    let answer = world.ask(asking("GET", "/404").body(nothing()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_ref(), answer.header("x-road-error")),
        (404, &b"no such"[..], None)
    );
    // The base alone.
    world.ask(asking("GET", "").body(nothing()).unwrap()).await;
    assert_eq!(world.register.last().target, "/base");
    world.ask(asking("GET", "/?a").body(nothing()).unwrap()).await;
    assert_eq!(world.register.last().target, "/base/?a");
    world.stop().await;
}

/// A form with a file, as browsers and curl send it (RFC 7578), and an XML document with its name spaces: neither is looked
/// into, and each byte arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_and_documents_pass_as_they_are() {
    let world = World::start(echo).await;
    let file: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let form = [
        &b"--grenze\r\nContent-Disposition: form-data; name=\"az\"\r\n\r\n4711/26\r\n--grenze\r\nContent-Disposition: \
           form-data; name=\"akte\"; filename=\"M\xc3\xb6ller.pdf\"\r\nContent-Type: application/pdf\r\n\r\n"[..],
        &file,
        b"\r\n--grenze--\r\n",
    ]
    .concat();
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xgewerbe:auskunft xmlns:xgewerbe=\"urn:xoev-de:xgewerbe\">\
               <name>M\u{f6}ller &amp; S\u{f6}hne</name></xgewerbe:auskunft>\n";
    for (kind, sent) in [
        ("multipart/form-data; boundary=grenze", form),
        ("application/xml; charset=UTF-8", xml.as_bytes().to_vec()),
    ] {
        let request =
            asking("POST", "/antrag").header("content-type", kind).body(full(sent.clone())).unwrap();
        let answer = world.ask(request).await;
        assert!(answer.status == 200 && answer.body == sent, "{kind}");
        assert_eq!(world.register.last().all("content-type"), [kind]);
        assert_eq!(world.register.last().all("content-length"), [sent.len().to_string()]);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_says_what_the_caller_does_not() {
    let world = World::start(echo).await;
    let answer = world.ask(Request::get("/akten/v1/1").body(nothing()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-road-service")), (200, Some(REST_SERVICE)));
    // The caller named no id: it is the exchange's, everywhere.
    assert_eq!(answer.header("x-road-id"), answer.header("trave-exchange-id"));
    let seen = world.register.last();
    assert_eq!(
        (seen.target.as_str(), seen.all("x-road-id")),
        ("/base/v1/1", vec![answer.header("x-road-id").unwrap()])
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_are_of_endpoints() {
    let world = World::with(false, echo, &[("r1", "GET /v1/personen/*"), ("r2", "MOVE /akten/**")]).await;
    let status =
        async |method: &str, path: &str| world.ask(asking(method, path).body(nothing()).unwrap()).await;
    assert_eq!(status("GET", "/v1/personen/4711").await.status, 200);
    for (method, path) in [("POST", "/v1/personen/4711"), ("GET", "/v1/personen/4711/akte"), ("GET", "")] {
        let refused = status(method, path).await;
        assert_eq!(refused.status, 500);
        let error = refused.error();
        assert_eq!(error["type"], "server.serverproxy.access_denied", "{method} {path}");
        assert_eq!((&error["side"], &error["register_reached"]), (&"provider_server".into(), &"no".into()));
    }
    // What is moved arrives where the caller sees it, and only where that is granted too.
    let moved = async |to: String| {
        let request = asking("MOVE", "/akten/1").header("destination", to).body(nothing()).unwrap();
        world.ask(request).await
    };
    let here = format!("http://{}/r1/{REST_SERVICE}", world.instance.sh.door);
    assert_eq!(moved(format!("{here}/akten/%41")).await.status, 200);
    assert_eq!(
        world.register.last().all("destination"),
        [format!("http://{}/base/akten/A", world.register.address)]
    );
    assert_eq!(moved(format!("{here}/archiv/1")).await.error()["reason"], "access_denied");
    // The operator's explanation looks at both paths too.
    for (destination, allowed_by) in [("/akten/%41", "r2"), ("/archiv/1", ""), ("", "r2")] {
        let question = ExplainGrantRequest {
            client: CLIENT.into(),
            service: REST_SERVICE.into(),
            endpoint: "MOVE /akten/1".into(),
            destination: destination.into(),
            purpose: PURPOSE.into(),
            legal_basis: LEGAL_BASIS.into(),
            ..ExplainGrantRequest::default()
        };
        let told = operator(&world.instance.mv).await.explain_grant(question).await.unwrap().into_inner();
        assert_eq!(told.allowed_by, allowed_by, "{destination}: {:?}", told.grants);
    }
    for elsewhere in
        ["http://other.example/akten/1".into(), format!("{here}/akten/../../1"), "/elsewhere/1".into()]
    {
        assert_eq!(moved(elsewhere).await.status, 400);
    }
    assert_eq!(world.register.seen().len(), 2);
    world.stop().await;
}
