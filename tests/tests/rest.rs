//! The REST door: an HTTP call as X-Road has it, over HTTP/1.1 and HTTP/2, signed and logged like any other exchange.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

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
use trave_tests::network::{
    CLIENT, HttpBody, HttpRegister, Instance, LEGAL_BASIS, OTHER_PURPOSE, PURPOSE, Plan, REGISTER,
    REST_SERVICE, grant, rest_grant,
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

/// A body of frames that come when they are sent.
fn open_body() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, HttpBody) {
    let (sender, frames) = mpsc::channel(1);
    (sender, StreamBody::new(ReceiverStream::new(frames)).boxed_unsync())
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_clients_are_listed_as_x_road_lists_them() {
    let mut world = World::with(false, echo, &[("r1", "GET /v1/**")]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("akten.json");
    let document =
        r#"{"openapi":"3.1.0","servers":[{"url":"http://10.0.0.1"}],"paths":{"/v1/{nr}":{"get":{}}}}"#;
    std::fs::write(&file, document).unwrap();
    let with = format!("http2 = false\nopenapi = \"{}\"", file.display());
    world.instance.mv.reconfigure(|text| text.replace("http2 = false", &with)).await;
    let get = async |path: &str, client: &str| {
        let request = Request::get(path).header("x-road-client", client).body(nothing()).unwrap();
        let answer = world.ask(request).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), body)
    };
    let (status, listed) = get("/listClients?xRoadInstance=NORD", CLIENT).await;
    let clients = listed["member"].as_array().unwrap();
    assert_eq!((status, clients.len()), (200, 7));
    let amt = clients.iter().find(|member| member["id"]["subsystem_code"] == "gewerbeamt").unwrap();
    assert_eq!(amt["id"]["object_type"], "SUBSYSTEM");
    assert_eq!(get("/listClients?xRoadInstance=SUED", CLIENT).await.0, 400);

    let subsystem = "/r1/NORD/MV/gewerberegister/register";
    let codes = |listed: &serde_json::Value| -> Vec<String> {
        let services = listed["service"].as_array().unwrap();
        services
            .iter()
            .map(|service| format!("{} {}", service["service_code"], service["endpoint_list"]))
            .collect()
    };
    let (status, listed) = get(&format!("{subsystem}/listMethods"), CLIENT).await;
    assert_eq!(status, 200);
    assert_eq!(codes(&listed), [r#""akten" [{"method":"GET","path":"/v1/*"}]"#, r#""auskunft" []"#]);
    assert_eq!(listed["service"][0]["service_type"], "OPENAPI");
    let (_, listed) = get(&format!("{subsystem}/allowedMethods"), CLIENT).await;
    assert_eq!(codes(&listed)[0], r#""akten" [{"method":"GET","path":"/v1/**"}]"#);
    let (status, described) = get(&format!("{subsystem}/getOpenAPI?serviceCode=akten"), CLIENT).await;
    assert_eq!(
        (status, described["servers"][0]["url"].as_str()),
        (200, Some("http://example.org/xroad-example"))
    );
    assert!(described["paths"]["/v1/{nr}"].is_object());
    // Nobody asks in another's name, of a service without description, or of a subsystem that nobody offers.
    for (path, client, code) in [
        ("listMethods", "NORD/SH/luebeck/bauamt", "client.invalid_client_identifier"),
        ("getOpenAPI", CLIENT, "client.invalid_message"),
        ("getOpenAPI?serviceCode=auskunft", CLIENT, "server.serverproxy.unknown_service"),
        ("/r1/NORD/MV/niemand/nirgends/listMethods", CLIENT, "client.unknown_member"),
    ] {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{subsystem}/{path}") };
        assert_eq!(get(&path, client).await.1["type"], code, "{path}");
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
    for elsewhere in
        ["http://other.example/akten/1".into(), format!("{here}/akten/../../1"), "/elsewhere/1".into()]
    {
        assert_eq!(moved(elsewhere).await.status, 400);
    }
    assert_eq!(world.register.seen().len(), 2);
    world.stop().await;
}

/// Answers as it is asked: `/up` tells how much came, `/down/N` gives N bytes, `/events` gives what comes in.
fn streams(request: Request<Incoming>) -> Answering {
    Box::pin(async move {
        let (parts, mut body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches("/base").to_owned();
        let (sender, answer) = open_body();
        let response = Response::builder();
        if path == "/up" {
            let (mut count, mut trailers) = (0, None);
            while let Some(Ok(frame)) = body.frame().await {
                match frame.into_data() {
                    Ok(data) => count += data.len(),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            let foot =
                trailers.and_then(|trailers| Some(trailers.get("x-foot")?.to_str().unwrap().to_owned()));
            return response.body(full(format!("{count} {}", foot.unwrap_or_default()))).unwrap();
        }
        let mut response = response;
        if let Some(len) = path.strip_prefix("/down/") {
            let len: usize = len.parse().unwrap();
            response = response.header("content-length", len).header("accept-ranges", "bytes");
            tokio::spawn(async move {
                let mut left = len;
                while left > 0 {
                    let part = left.min(64 << 10);
                    left -= part;
                    let _ = sender.send(Ok(Frame::data(vec![7; part].into()))).await;
                }
            });
        } else if path == "/broken" || path == "/broken/length" {
            if path == "/broken/length" {
                response = response.header("content-length", "1000");
            }
            tokio::spawn(async move {
                let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = sender.send(Err("the script breaks off".into())).await;
            });
        } else {
            response = response.header("content-type", "text/event-stream").header("trailer", "x-foot");
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    if let Ok(data) = frame.into_data() {
                        let _ = sender.send(Ok(Frame::data(data))).await;
                    }
                }
                let foot = HeaderMap::from_iter([("x-foot".parse().unwrap(), "end".parse().unwrap())]);
                let _ = sender.send(Ok(Frame::trailers(foot))).await;
            });
        }
        response.body(answer).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_stream_at_once_and_events_come_as_they_are_sent() {
    for two in [false, true] {
        let world = World::with(two, streams, &[("r1", "/*")]).await;
        let (sender, body) = open_body();
        let request = asking("POST", "/events").header("te", "trailers").body(body).unwrap();
        let mut answer = world.open(request).await.into_body();
        for event in ["data: eins\n\n", "data: zwei\n\n", "data: drei\n\n"] {
            sender.send(Ok(Frame::data(event.into()))).await.unwrap();
            // Nothing follows until this one has come back.
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await.unwrap();
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
        }
        drop(sender);
        let foot = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(foot["x-foot"], "end");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_pass_with_their_length_and_trailers() {
    const LEN: usize = 20 << 20;
    let world = World::start(streams).await;
    let answer = world.ask(asking("GET", &format!("/down/{LEN}")).body(nothing()).unwrap()).await;
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("20971520"), LEN));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.body.iter().all(|byte| *byte == 7));
    let tells = world.instance.sh.tells(answer.exchange());
    assert_eq!(tells, ["sent request end", "received response end"]);
    let answer = world.ask(asking("PUT", "/up").body(full(vec![7; LEN])).unwrap()).await;
    assert_eq!(answer.body, format!("{LEN} "));
    assert_eq!(world.register.last().all("content-length"), ["20971520"]);
    let (sender, body) = open_body();
    tokio::spawn(async move {
        for _ in 0..100 {
            sender.send(Ok(Frame::data(vec![7; 10_000].into()))).await.unwrap();
        }
        let foot = HeaderMap::from_iter([("x-foot".parse().unwrap(), "sum".parse().unwrap())]);
        sender.send(Ok(Frame::trailers(foot))).await.unwrap();
    });
    let answer = world.ask(asking("POST", "/up").header("trailer", "x-foot").body(body).unwrap()).await;
    assert_eq!(answer.body, "1000000 sum");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registers_time_begins_when_all_was_asked() {
    let world = World::start(streams).await;
    let (sender, body) = open_body();
    tokio::spawn(async move {
        // Longer than the five seconds that the service allows.
        for _ in 0..13 {
            sender.send(Ok(Frame::data(Bytes::from_static(b"langsam")))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let answer = world.ask(asking("POST", "/up").body(body).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"91 "[..]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_off_never_looks_whole() {
    for two in [false, true] {
        let world = World::with(two, streams, &[("r1", "/*")]).await;
        for path in ["/broken", "/broken/length"] {
            let response = world.open(asking("GET", path).body(nothing()).unwrap()).await;
            let id: ExchangeId = response.headers()["trave-exchange-id"].to_str().unwrap().parse().unwrap();
            assert!(response.into_body().collect().await.is_err(), "HTTP/1.1 {path}");
            let channel: Channel<HttpBody> =
                Channel::plain(&world.instance.sh.door.to_string()).await.unwrap();
            let response = channel.clone().send(asking("GET", path).body(nothing()).unwrap()).await.unwrap();
            assert!(response.into_body().collect().await.is_err(), "HTTP/2 {path}");
            let tells = world.instance.sh.until(|tells| tells.len() > 2, id).await;
            assert!(tells[2].starts_with("ended") && tells[2].ends_with("register yes"), "{tells:?}");
        }
        // And a caller who breaks off is told to the register.
        let (sender, body) = open_body();
        let response = world.open(asking("POST", "/events").body(body).unwrap()).await;
        let id: ExchangeId = response.headers()["trave-exchange-id"].to_str().unwrap().parse().unwrap();
        sender.send(Err("gone".into())).await.unwrap();
        let ended = |tells: &[String]| tells.last().is_some_and(|last| last.starts_with("ended aborted"));
        world.instance.sh.until(ended, id).await;
        world.instance.mv.until(ended, id).await;
        world.stop().await;
    }
}

/// Sends bytes as they are, and reads until the connection is closed or an answer has come.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.instance.sh.door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection stays open after {request:?}");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_programs_could_read_in_two_ways_is_refused() {
    let world = World::start(echo).await;
    let path = format!("/r1/{REST_SERVICE}");
    let long = "x".repeat(70_000);
    let fields: String = (0..300).map(|at| format!("a{at}: b\r\n")).collect();
    for (what, line, head, code) in [
        (
            "two framings",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "client.invalid_message",
        ),
        (
            "the other order",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "client.invalid_message",
        ),
        (
            "two lengths",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ncontent-length: 4\r\n",
            "client.invalid_message",
        ),
        (
            "the same length twice",
            "POST PATH/a HTTP/1.1",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "client.invalid_message",
        ),
        (
            "a length that is none",
            "POST PATH/a HTTP/1.1",
            "content-length: 0x3\r\n",
            "client.invalid_message",
        ),
        (
            "another coding",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: gzip, chunked\r\n",
            "client.invalid_message",
        ),
        (
            "a coding disguised",
            "POST PATH/a HTTP/1.1",
            "transfer-encoding: xchunked\r\n",
            "client.invalid_message",
        ),
        ("two hosts", "GET PATH/a HTTP/1.1", "host: y\r\n", "client.invalid_message"),
        ("a folded field", "GET PATH/a HTTP/1.1", "a: b\r\n c\r\n", "client.invalid_message"),
        (
            "a space before the colon",
            "GET PATH/a HTTP/1.1",
            "content-length : 3\r\n",
            "client.invalid_message",
        ),
        ("a bare line feed", "GET PATH/a HTTP/1.1", "a: b\nc: d\r\n", "client.invalid_message"),
        ("an oversize head", "GET PATH/a HTTP/1.1", &format!("a: {long}\r\n"), "client.too_large"),
        ("too many fields", "GET PATH/a HTTP/1.1", &fields, "client.too_large"),
        ("a tunnel", "CONNECT PATH/a HTTP/1.1", "", "client.invalid_message"),
        ("a tunnel to a host", "CONNECT register:443 HTTP/1.1", "", "client.invalid_message"),
        ("no path", "OPTIONS * HTTP/1.1", "", "client.invalid_message"),
        ("another path", "GET PATH/../b HTTP/1.1", "", "client.invalid_message"),
        ("another path, encoded", "GET PATH/%2e%2E/b HTTP/1.1", "", "client.invalid_message"),
        ("a path in disguise", "GET PATH/..;/b HTTP/1.1", "", "client.invalid_message"),
        ("an encoded slash", "GET PATH/a%2Fb HTTP/1.1", "", "client.invalid_message"),
        ("a backslash", "GET PATH/a\\b HTTP/1.1", "", "client.invalid_message"),
        ("an encoded backslash", "GET PATH/a%5cb HTTP/1.1", "", "client.invalid_message"),
        ("two slashes", "GET PATH//a HTTP/1.1", "", "client.invalid_message"),
        ("an encoding of nothing", "GET PATH/%zz HTTP/1.1", "", "client.invalid_message"),
        ("bytes that are no UTF-8", "GET PATH/%ff HTTP/1.1", "", "client.invalid_message"),
        ("an overlong encoding", "GET PATH/%c0%ae%c0%ae/b HTTP/1.1", "", "client.invalid_message"),
        ("a zero byte", "GET PATH/a%00 HTTP/1.1", "", "client.invalid_message"),
        (
            "a slash in an identifier",
            "GET /r1/NORD%2FMV/gewerberegister/register/akten/a/b HTTP/1.1",
            "",
            "client.unknown_service",
        ),
    ] {
        let line = line.replace("PATH", &path);
        let request = format!(
            "{line}\r\nhost: x\r\nconnection: close\r\ntrave-purpose: {PURPOSE}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n{head}\r\n0\r\n\r\n"
        );
        let answer = raw(&world, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        assert!(answer.contains(&format!("x-road-error: {code}\r\n")), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
    assert_eq!(world.register.seen().len(), 0, "the register saw nothing of it");
    // What is refused does not take an answer that came before it.
    let good = format!(
        "POST {path}/a HTTP/1.1\r\nhost: x\r\ntrave-purpose: {PURPOSE}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n\
         expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let answer = raw(&world, &format!("{good}GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n{good}")).await;
    let statuses = answer.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]);
    let statuses: Vec<&str> = statuses.filter(|status| *status != "100").collect();
    assert_eq!(statuses, ["200", "400"], "{answer}");
    assert!(world.register.last().all("expect").is_empty());
    // A body that is expected to be refused is not even asked for; one that is wanted is.
    let waiting = |purpose: &str| {
        format!(
            "POST {path}/a HTTP/1.1\r\nhost: x\r\ntrave-purpose: {purpose}\r\ntrave-legal-basis: {LEGAL_BASIS}\r\n\
             expect: 100-continue\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
        )
    };
    assert!(raw(&world, &waiting("neugier")).await.starts_with("HTTP/1.1 500"));
    let answer = raw(&world, &format!("{}abc", waiting(PURPOSE))).await;
    assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("abc"), "{answer}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_in_json_and_in_xml() {
    let world = World::start(echo).await;
    let without = |name: &str| {
        let mut request = asking("GET", "/a").body(nothing()).unwrap();
        request.headers_mut().remove(name);
        request
    };
    let to = |path: &str| {
        let mut request = asking("GET", "").body(nothing()).unwrap();
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    let with = |name: &str, value: &str| asking("GET", "/a").header(name, value).body(nothing()).unwrap();
    let forged = "NORD/SH/luebeck/bauamt";
    for (request, status, code) in [
        (without("trave-purpose"), 400, "client.unknown_purpose"),
        (without("trave-legal-basis"), 400, "client.unknown_legal_basis"),
        (with("trave-purpose", OTHER_PURPOSE), 400, "client.invalid_message"),
        (with("x-road-client", forged), 400, "client.invalid_message"),
        (with("x-road-security-server", "NORD/SH/kiel/s1"), 400, "client.invalid_security_server"),
        (with("x-road-service", "NORD/MV/gewerberegister/register/archiv"), 400, "client.unknown_service"),
        (to("/"), 400, "client.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister"), 400, "client.unknown_service"),
        (to("/r2/NORD/MV/gewerberegister/register/akten/a"), 400, "client.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister/register/nichts/a"), 500, "server.clientproxy.unknown_service"),
        (to("/r1/NORD/MV/gewerberegister/register/auskunft/a"), 500, "server.clientproxy.unknown_method"),
        (to(&format!("/r1/{REST_SERVICE}/a/../b")), 400, "client.invalid_message"),
        (to(&format!("/r1/{REST_SERVICE}/a%2fb")), 400, "client.invalid_message"),
    ] {
        let uri = request.uri().clone();
        let answer = world.ask(request).await;
        let error = answer.error();
        assert_eq!((answer.status.as_u16(), error["type"].as_str().unwrap()), (status, code), "{uri}");
        assert_eq!(error["register_reached"], "no", "{uri}");
        let refused = world.instance.sh.tells(answer.exchange());
        assert!(refused.len() == 1 && refused[0].starts_with("refused"), "{uri}: {refused:?}");
    }
    let mut request = without("trave-purpose");
    request.headers_mut().insert("accept", "application/xml".parse().unwrap());
    let answer = world.ask(request).await;
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(body.contains("<error><type>client.unknown_purpose</type><message>"), "{body}");
    assert_eq!(world.register.seen().len(), 0, "the register saw nothing of it");
    world.stop().await;
}
