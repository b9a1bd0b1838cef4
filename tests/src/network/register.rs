//! A register that does as it is told and remembers what it saw: any gRPC method, at the level of bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tower::BoxError;
use trave_proto::identifier::ExchangeId;

use super::caller::frame;
use super::server::reserve;

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What the register does with a call.
#[derive(Debug, Clone, Default)]
pub enum Script {
    /// Sends back what comes, as it comes, with status 0.
    #[default]
    Echo,
    /// Answers with these headers, messages and trailers.
    Answer {
        /// Beside the content type.
        headers: Vec<(&'static str, String)>,
        /// The messages, without framing.
        messages: Vec<Bytes>,
        /// All trailers, the status too.
        trailers: Vec<(&'static str, String)>,
    },
    /// Answers with a head alone ("Trailers-Only").
    TrailersOnly(Vec<(&'static str, String)>),
    /// Takes the call and does not answer.
    Hold,
    /// Takes calls that carry this header and does not answer them, and echoes the others.
    HoldIf(&'static str),
    /// Breaks off without a word (RST_STREAM).
    Abort,
    /// Sends a message, and breaks off when told to (RST_STREAM).
    AbortWhenTold,
    /// Answers at once, whatever of the request is still to come, and reads none of it.
    Early(Vec<(&'static str, String)>),
    /// Answers with messages of so many bytes, without end, as fast as they are taken.
    Flood(usize),
    /// Takes the call, says nothing until it is told to, not even a head, and then echoes.
    MuteUntilTold,
    /// Takes the call, reads nothing until it is told to, and then echoes.
    DeafUntilTold,
}

/// How a call ended, as the register saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Not yet.
    No,
    /// It was answered to the end.
    Complete,
    /// It was broken off from outside, or by the script.
    BrokenOff,
}

/// A call as the register saw it.
#[derive(Debug)]
pub struct RegisterCall {
    /// The gRPC path.
    pub path: String,
    /// All headers, as they came.
    pub headers: HeaderMap,
    body: Mutex<BytesMut>,
    sent: AtomicU64,
    ended: watch::Sender<Ended>,
}

impl RegisterCall {
    /// What came so far, framing included.
    pub fn body(&self) -> Bytes {
        self.body.lock().unwrap().clone().freeze()
    }

    /// Bytes of a flood that were taken from the register.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The exchange that it belongs to, as the register was told.
    pub fn exchange(&self) -> ExchangeId {
        self.header("trave-exchange-id").expect("a register is told the exchange").parse().unwrap()
    }

    /// How it stands now.
    pub fn ended_now(&self) -> Ended {
        *self.ended.borrow()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Ended {
        *self.ended.subscribe().wait_for(|ended| *ended != Ended::No).await.unwrap()
    }
}

/// Whatever becomes of a call, its end is noted.
struct Ending(Arc<RegisterCall>);

impl Ending {
    fn complete(&self) {
        self.0.ended.send_replace(Ended::Complete);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.send_if_modified(|ended| {
            let open = *ended == Ended::No;
            if open {
                *ended = Ended::BrokenOff;
            }
            open
        });
    }
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    told: Notify,
    calls: watch::Sender<Vec<Arc<RegisterCall>>>,
}

/// The register.
#[derive(Debug)]
pub struct Register {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
    /// Bound and not listening: the port stays the register's own while it is down.
    _port: TcpSocket,
}

impl Register {
    /// Starts it.
    pub async fn start() -> Self {
        let (port, address) = reserve();
        let shared =
            Shared { script: Mutex::default(), told: Notify::new(), calls: watch::Sender::default() };
        let mut register = Self { address, shared: Arc::new(shared), serving: None, _port: port };
        register.resume().await;
        register
    }

    /// Serves again, at the same address.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// Takes it down: nothing listens, all connections are closed.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// What it does with calls from now on.
    pub fn script(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// Tells the script to go on.
    pub fn tell(&self) {
        self.shared.told.notify_one();
    }

    /// How many calls it saw.
    pub fn count(&self) -> usize {
        self.shared.calls.borrow().len()
    }

    /// All calls that it saw.
    pub fn calls(&self) -> Vec<Arc<RegisterCall>> {
        self.shared.calls.borrow().clone()
    }

    /// The last call.
    pub fn last(&self) -> Arc<RegisterCall> {
        Arc::clone(self.shared.calls.borrow().last().expect("the register was called"))
    }

    /// Waits until it has seen so many calls.
    pub async fn called(&self, count: usize) {
        let _ = self.shared.calls.subscribe().wait_for(|calls| calls.len() >= count).await.unwrap();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // A call that is not read holds up its own stream, and not the connection that it shares.
            builder.initial_stream_window_size(1 << 20).initial_connection_window_size(64 << 20);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
    let (parts, body) = request.into_parts();
    let call = Arc::new(RegisterCall {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: Mutex::default(),
        sent: AtomicU64::default(),
        ended: watch::Sender::new(Ended::No),
    });
    let ending = Ending(Arc::clone(&call));
    shared.calls.send_modify(|calls| calls.push(Arc::clone(&call)));
    let script = shared.script.lock().unwrap().clone();
    let (sender, frames) = mpsc::channel(1);
    let stream = StreamBody::new(ReceiverStream::new(frames));
    let mut response = Response::new(stream.boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    match script {
        Script::HoldIf(header) if call.headers.contains_key(header) => std::future::pending().await,
        Script::Echo | Script::HoldIf(_) => {
            tokio::spawn(echo(call, ending, body, sender));
        }
        Script::Answer { headers, messages, trailers } => {
            append(response.headers_mut(), headers);
            tokio::spawn(async move {
                read(&call, body).await;
                for message in messages {
                    let _ = sender.send(Ok(Frame::data(frame(&message)))).await;
                }
                let mut map = HeaderMap::new();
                append(&mut map, trailers);
                if sender.send(Ok(Frame::trailers(map))).await.is_ok() {
                    ending.complete();
                }
            });
        }
        Script::TrailersOnly(headers) => {
            read(&call, body).await;
            append(response.headers_mut(), headers);
            *response.body_mut() =
                http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
            ending.complete();
        }
        Script::Hold => {
            read(&call, body).await;
            std::future::pending::<()>().await;
        }
        Script::Abort => {
            read(&call, body).await;
            return Err("the script breaks off");
        }
        Script::AbortWhenTold => {
            tokio::spawn(async move {
                read(&call, body).await;
                let _ = sender.send(Ok(Frame::data(frame(b"halb")))).await;
                shared.told.notified().await;
                let _ = sender.send(Err("the script breaks off".into())).await;
                drop(ending);
            });
        }
        Script::Early(trailers) => {
            tokio::spawn(async move {
                let mut map = HeaderMap::new();
                append(&mut map, trailers);
                // The request is held unread until the answer is complete.
                let _body = body;
                if sender.send(Ok(Frame::trailers(map))).await.is_ok() {
                    sender.closed().await;
                    ending.complete();
                }
            });
        }
        Script::Flood(size) => {
            tokio::spawn(flood(call, ending, size, sender));
        }
        Script::MuteUntilTold => {
            shared.told.notified().await;
            tokio::spawn(echo(call, ending, body, sender));
        }
        Script::DeafUntilTold => {
            tokio::spawn(async move {
                shared.told.notified().await;
                echo(call, ending, body, sender).await;
            });
        }
    }
    Ok(response)
}

async fn flood(
    call: Arc<RegisterCall>,
    ending: Ending,
    size: usize,
    sender: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
) {
    let message = frame(&vec![0x5a; size]);
    while sender.send(Ok(Frame::data(message.clone()))).await.is_ok() {
        call.sent.fetch_add(message.len() as u64, Ordering::Relaxed);
    }
    drop(ending);
}

async fn echo(
    call: Arc<RegisterCall>,
    ending: Ending,
    mut body: Incoming,
    sender: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            // HTTP/2 implementations count empty frames as an attack.
            continue;
        }
        call.body.lock().unwrap().extend_from_slice(&data);
        if sender.send(Ok(Frame::data(data))).await.is_err() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    if sender.send(Ok(Frame::trailers(trailers))).await.is_ok() {
        ending.complete();
    }
}

async fn read(call: &RegisterCall, mut body: Incoming) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            call.body.lock().unwrap().extend_from_slice(&data);
        }
    }
}

fn append(map: &mut HeaderMap, fields: Vec<(&'static str, String)>) {
    for (name, value) in fields {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
}
