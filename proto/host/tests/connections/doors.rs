//! Doors and their limits.

use std::convert::Infallible;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tonic::Status;
use trave_host::client::Channel;
use trave_host::drain::Drain;
use trave_host::listen::{
    Connection, Limits, ListenError, Listener, TowerToHyperService, with_body_deadline,
};
use trave_host::stubs::transport::peer_service_client::PeerServiceClient;
use trave_host::stubs::transport::peer_service_server::{PeerService, PeerServiceServer};
use trave_host::tls::Http;
use trave_proto::schema::transport as schema;

use crate::support::*;

async fn plain(http: Http, limits: Limits) -> (Listener, String) {
    let listener = Listener::tcp(ANYWHERE.parse().unwrap(), http).await.unwrap().with_limits(limits);
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Greets with what it knows of the connection.
struct Greeter;

#[tonic::async_trait]
impl PeerService for Greeter {
    async fn fetch_message(
        &self,
        _: tonic::Request<schema::FetchMessageRequest>,
    ) -> Result<tonic::Response<schema::FetchMessageResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn follow_log(
        &self,
        _: tonic::Request<schema::FollowLogRequest>,
    ) -> Result<tonic::Response<schema::FollowLogResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn compare_records(
        &self,
        _: tonic::Request<schema::CompareRecordsRequest>,
    ) -> Result<tonic::Response<schema::CompareRecordsResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_records(
        &self,
        _: tonic::Request<schema::ListRecordsRequest>,
    ) -> Result<tonic::Response<schema::ListRecordsResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn tell_exchanges(
        &self,
        _: tonic::Request<schema::TellExchangesRequest>,
    ) -> Result<tonic::Response<schema::TellExchangesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn tell_erasure(
        &self,
        _: tonic::Request<schema::TellErasureRequest>,
    ) -> Result<tonic::Response<schema::TellErasureResponse>, Status> {
        Err(Status::unimplemented("not told here"))
    }

    async fn describe_services(
        &self,
        _: tonic::Request<schema::DescribeServicesRequest>,
    ) -> Result<tonic::Response<schema::DescribeServicesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type ExchangeStream = tokio_stream::Empty<Result<schema::ExchangeResponse, Status>>;

    async fn greet(
        &self,
        request: tonic::Request<schema::GreetRequest>,
    ) -> Result<tonic::Response<schema::GreetResponse>, Status> {
        let chain = &request.extensions().get::<Connection>().unwrap().chain;
        let greeting = schema::Greeting {
            signing_chain: chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            ..request.get_ref().greeting.clone().unwrap()
        };
        Ok(tonic::Response::new(schema::GreetResponse { greeting: Some(greeting) }))
    }

    async fn exchange(
        &self,
        _request: tonic::Request<tonic::Streaming<schema::ExchangeRequest>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }

    async fn get_configuration(
        &self,
        _request: tonic::Request<schema::GetConfigurationRequest>,
    ) -> Result<tonic::Response<schema::GetConfigurationResponse>, Status> {
        Err(Status::not_found("no configuration"))
    }

    async fn offer_configuration(
        &self,
        _request: tonic::Request<schema::OfferConfigurationRequest>,
    ) -> Result<tonic::Response<schema::OfferConfigurationResponse>, Status> {
        Err(Status::invalid_argument("nothing is taken"))
    }
}

#[tokio::test]
async fn generated_clients_and_servers_speak_over_our_connections() {
    let (server, server_key) = identity("server.example");
    let (client, client_key) = identity("client.example");
    let drain = Drain::new();
    let (listener, address) = tls_listener(server_tls(&server, pinned([client_key]))).await;
    let routes = tonic::service::Routes::new(PeerServiceServer::new(Greeter));
    drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));

    let tls = client_tls(&client, pinned([server_key]));
    let channel: Channel = Channel::tls(&address.to_string(), &tls).await.unwrap();
    let mut peer = PeerServiceClient::new(channel);
    let greeting = schema::Greeting { server: "NORD/SH/luebeck/s1".to_owned(), ..Default::default() };
    let answer = peer.greet(schema::GreetRequest { greeting: Some(greeting) }).await.unwrap();
    let answer = answer.into_inner().greeting.unwrap();
    assert_eq!(answer.server, "NORD/SH/luebeck/s1");
    assert_eq!(answer.signing_chain, [client.chain()[0].to_vec()]);
    let missing = peer.get_configuration(schema::GetConfigurationRequest { number: 1 }).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (tonic::Code::NotFound, "no configuration"));
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let drain = Drain::new();
    let limits = Limits { handshake: Duration::from_millis(100), ..Limits::default() };
    let (listener, address) = plain(Http::TwoOrOne, limits).await;
    let counts = listener.counts();
    serve_mirror(listener, &drain);
    for said in [&b""[..], b"PRI * HTT", b"GET / HTTP/1.1\r\nHost: a\r\n"] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
        assert!(begun.elapsed() >= Duration::from_millis(90), "it had its time");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(counts.refused(), 2, "the third began to speak HTTP");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let drain = Drain::new();
    let (listener, address) = plain(Http::Two, Limits { connections: 1, ..Limits::default() }).await;
    let counts = listener.counts();
    let held = Arc::new(Notify::new());
    let holds = Arc::clone(&held);
    drain.spawn(listener.serve(drain.clone(), move |_: &mut Connection| {
        let holds = Arc::clone(&holds);
        service_fn(move |request: Request<Incoming>| {
            let holds = Arc::clone(&holds);
            async move {
                if request.uri().path() == "/hold" {
                    holds.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        })
    }));
    let first: Plain = Channel::plain(&address).await.unwrap();
    let mut holding = first.clone();
    let holding =
        tokio::spawn(async move { holding.send(Request::get("/hold").body(Empty::new()).unwrap()).await });
    held.notified().await;
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let mut second = TcpStream::connect(&address).await.unwrap();
    second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(counts.full(), 1, "whoever says nothing takes no place");
    let waits = tokio::time::timeout(Duration::from_millis(50), silent.read(&mut [0; 1])).await;
    assert!(waits.is_err(), "and has its time: {waits:?}");
    drop(silent);
    drop(first);
    holding.abort();
    // The place is free again as soon as the first connection's end was noticed.
    for _ in 0..100 {
        let third: Result<Plain, _> = Channel::plain(&address).await;
        if let Ok(mut third) = third
            && ask(&mut third).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no place became free");
}

#[tokio::test]
async fn whoever_asks_nothing_makes_room_for_who_does() {
    let drain = Drain::new();
    let (listener, address) = plain(Http::TwoOrOne, Limits { connections: 1, ..Limits::default() }).await;
    let counts = listener.counts();
    serve_mirror(listener, &drain);
    let mut stay = Vec::new();
    for _ in 0..3 {
        let mut newcomer: Plain = Channel::plain(&address).await.unwrap();
        ask(&mut newcomer).await.unwrap();
        // It stays, and is told to end when the next one comes.
        stay.push(newcomer);
    }
    assert_eq!(counts.full(), 0);
}

#[tokio::test]
async fn what_was_asked_before_the_word_to_leave_came_is_answered() {
    let drain = Drain::new();
    let (listener, address) = plain(Http::Two, Limits { connections: 1, ..Limits::default() }).await;
    let counts = listener.counts();
    drain.spawn(listener.serve(drain.clone(), |_: &mut Connection| {
        service_fn(|_: Request<Incoming>| async {
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        })
    }));
    let mut first = Raw::connect(&address, &[]).await;
    let newcomer = tokio::spawn(async move {
        let mut second: Plain = Channel::plain(&address).await.unwrap();
        let asked = second.send(Request::get("/").body(Empty::new()).unwrap()).await;
        asked.is_ok()
    });
    // It is told to leave, and asks something before that has come to it.
    while first.next().await.expect("it is told first").kind != Raw::GOAWAY {}
    first.get(1).await;
    let answered = async {
        while let Some(came) = first.next().await {
            match came.kind {
                Raw::PING if came.flags == 0 => first.send(Raw::PING, 1, 0, &came.payload).await,
                Raw::HEADERS => return came.stream == 1,
                _ => {}
            }
        }
        false
    };
    assert!(answered.await, "what was begun is answered");
    drop(first);
    assert!(newcomer.await.unwrap(), "and the newcomer has the place afterwards");
    assert_eq!(counts.full(), 0);
}

#[tokio::test]
async fn who_says_nothing_is_counted_apart() {
    let drain = Drain::new();
    let limits = Limits { handshakes: 2, ..Limits::default() };
    let (listener, address) = plain(Http::Two, limits).await;
    let counts = listener.counts();
    serve_mirror(listener, &drain);
    let mut known: Plain = Channel::plain(&address).await.unwrap();
    ask(&mut known).await.unwrap();
    let _silent = [TcpStream::connect(&address).await.unwrap(), TcpStream::connect(&address).await.unwrap()];
    let mut third = TcpStream::connect(&address).await.unwrap();
    assert_eq!(third.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(counts.full(), 1);
    ask(&mut known).await.unwrap();
}

#[tokio::test]
async fn strangers_do_not_stay_nor_keep_a_request_waiting_for_its_body() {
    let drain = Drain::new();
    let limits = Limits::anonymous(Duration::from_millis(300));
    let (listener, address) = plain(Http::TwoOrOne, limits).await;
    let routes = axum::Router::new().route("/", axum::routing::post(|body: Bytes| async move { body }));
    let routes = with_body_deadline(routes, Duration::from_millis(100), &[]);
    drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));
    let speak = async |said: &[u8]| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Where something unread is left, the system resets the connection.
        let _ = stream.read_to_end(&mut answer).await;
        (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
    let (answer, _) = speak(format!("{head}four").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("four"), "{answer}");
    let (answer, took) = speak(format!("{head}thr").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(took >= Duration::from_millis(90), "it had its time");
    // HTTP/2 that says nothing more, though its keep-alive would let it stay.
    let (_, took) = speak(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn each_door_speaks_its_http_alone() {
    let drain = Drain::new();
    let (listener, address) = plain(Http::Two, Limits::default()).await;
    serve_mirror(listener, &drain);
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The unread request makes the system reset the connection.
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");

    let (listener, address) = plain(Http::TwoOrOne, Limits::default()).await;
    serve_mirror(listener, &drain);
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("nobody what the maker added"));
    ask(&mut Channel::plain(&address).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn responses_that_nobody_reads_do_not_stop_the_others() {
    let drain = Drain::new();
    let listener = Listener::tcp(ANYWHERE.parse().unwrap(), Http::Two).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let large = Bytes::from(vec![0; 4 * 1024 * 1024]);
    drain.spawn(listener.serve(drain.clone(), move |_| {
        let large = large.clone();
        service_fn(move |request: Request<Incoming>| {
            let body = if request.uri().path() == "/large" { large.clone() } else { Bytes::from("small") };
            async { Ok::<_, Infallible>(Response::new(Full::new(body))) }
        })
    }));
    let mut channel: Plain = Channel::plain(&address).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..200 {
        unread.push(channel.send(Request::get("/large").body(Empty::new()).unwrap()).await.unwrap());
    }
    // Time for all of them to send what they may.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = tokio::time::timeout(Duration::from_secs(10), ask(&mut channel)).await;
    assert_eq!(answer.expect("the small answer was held up").unwrap(), "small");
    let last = unread.pop().unwrap().into_body().collect().await.unwrap();
    assert_eq!(last.to_bytes().len(), 4 * 1024 * 1024, "and what waits is not lost");
}

#[tokio::test]
async fn an_oversized_header_is_refused_and_the_connection_goes_on() {
    let drain = Drain::new();
    let (listener, address) = plain(Http::Two, Limits { header_list: 4096, ..Limits::default() }).await;
    serve_mirror(listener, &drain);
    let mut channel: Plain = Channel::plain(&address).await.unwrap();
    let request = Request::get("/").header("large", "x".repeat(8192)).body(Empty::new()).unwrap();
    let answer = channel.send(request).await.map(|response| response.status());
    assert!(matches!(answer, Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) | Err(_)), "{answer:?}");
    ask(&mut channel).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/operator.sock");
    let drain = Drain::new();
    let listener = Listener::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
    serve_mirror(listener, &drain);
    let mut channel: Plain = Channel::unix(&path).await.unwrap();
    let answer = ask(&mut channel).await.unwrap();
    let own = std::fs::metadata(&path).unwrap().uid();
    assert_eq!(answer, format!("user {own} nobody what the maker added"));

    assert!(matches!(Listener::unix(&path), Err(ListenError::InUse { .. })));
    drop(channel);
    assert_eq!(drain.finish(Duration::from_secs(10)).await, 0);
    assert!(!path.exists(), "the socket goes with its server");
}

#[tokio::test]
async fn a_unix_socket_for_others_stands_where_nobody_else_can_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/operator.sock");
    drop(Listener::unix_for(&path, &[61_001]).unwrap());
    let folder = path.parent().unwrap();
    assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o7777, 0o711);
    let listener = Listener::unix_for(&path, &[61_001]).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
    drop(listener);
    assert!(matches!(Listener::unix(&path), Err(ListenError::NotPrivate { .. })), "for its owner alone");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o731)).unwrap();
    assert!(matches!(Listener::unix_for(&path, &[61_001]), Err(ListenError::NotPrivate { .. })));
}

#[tokio::test]
async fn a_unix_socket_left_behind_is_replaced_and_other_files_are_not() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = directory.path().join("operator.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    drop(Listener::unix(&path).unwrap());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::unix(&path), Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Listener::unix(&path), Err(ListenError::NotPrivate { .. })));
}
