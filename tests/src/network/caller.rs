//! An agency's system at the level of bytes: HTTP/2 with gRPC's framing, so that every header, trailer and byte can be
//! sent and seen.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::BoxError;
use trave_host::client::Channel;

use super::{LEGAL_BASIS, METHOD, PURPOSE, SERVICE};
use crate::agency::{ErrorInfo, error_info};

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A message in gRPC's framing (gRPC over HTTP/2, "Length-Prefixed-Message").
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// What is asked: method, metadata, body.
#[derive(Debug, Clone)]
pub struct Question {
    /// The gRPC path.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, framing included.
    pub body: Bytes,
}

impl Default for Question {
    fn default() -> Self {
        Self::new()
    }
}

impl Question {
    /// The usual question, of an empty message.
    pub fn new() -> Self {
        let question = Self { path: METHOD.into(), headers: HeaderMap::new(), body: frame(b"") };
        question
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-road-service", SERVICE)
            .header("trave-purpose", PURPOSE)
            .header("trave-legal-basis", LEGAL_BASIS)
    }

    /// With this one message.
    #[must_use]
    pub fn message(self, message: &[u8]) -> Self {
        Self { body: frame(message), ..self }
    }

    /// To this method.
    #[must_use]
    pub fn method(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// With this header in place of those of its name.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.remove(name);
        self.header(name, value)
    }

    /// Without this header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn request(&self, body: Body) -> Request<Body> {
        let mut request = Request::post(self.path.as_str()).body(body).unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The head's fields.
    pub headers: HeaderMap,
    /// The messages, framing taken off.
    pub messages: Vec<Bytes>,
    /// The trailers; those of the head where there is no body ("Trailers-Only").
    pub trailers: HeaderMap,
    /// Whether there was a head without a body.
    pub trailers_only: bool,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        assert_eq!(response.status(), 200, "gRPC answers with HTTP status 200");
        let (parts, body) = response.into_parts();
        let trailers_only = parts.headers.contains_key("grpc-status");
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        let mut body = collected.to_bytes();
        let mut messages = Vec::new();
        while !body.is_empty() {
            assert_eq!(body.get_u8(), 0, "not compressed");
            let length = body.get_u32() as usize;
            messages.push(body.split_to(length));
        }
        let trailers = trailers.unwrap_or_else(|| parts.headers.clone());
        Ok(Self { headers: parts.headers, messages, trailers, trailers_only })
    }

    /// The gRPC status.
    pub fn status(&self) -> i32 {
        self.trailer("grpc-status").expect("an answer has a status").parse().unwrap()
    }

    /// The gRPC message, its percent-encoding taken off.
    pub fn message(&self) -> String {
        tonic::Status::from_header_map(&self.trailers).unwrap().message().to_owned()
    }

    /// The `google.rpc.ErrorInfo`; none in an answer of the register's own.
    pub fn info(&self) -> Option<ErrorInfo> {
        error_info(&tonic::Status::from_header_map(&self.trailers)?)
    }

    /// What the error says: reason, side, register reached.
    pub fn told(&self) -> Option<(String, String, String)> {
        let info = self.info()?;
        let told = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        Some((info.reason.to_lowercase(), told("side"), told("register_reached")))
    }

    /// A trailer as text.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name)?.to_str().ok()
    }

    /// The exchange id, which every answer and every error carries.
    pub fn exchange(&self) -> trave_proto::identifier::ExchangeId {
        let id = self.headers.get("trave-exchange-id").or_else(|| self.trailers.get("trave-exchange-id"));
        id.expect("an answer carries its exchange id").to_str().unwrap().parse().unwrap()
    }

    /// The one message of a unary answer with status 0.
    pub fn only(&self) -> &Bytes {
        assert_eq!(self.status(), 0, "{self:?}");
        assert_eq!(self.messages.len(), 1, "{self:?}");
        &self.messages[0]
    }
}

/// A connection of an agency's system.
#[derive(Debug, Clone)]
pub struct Caller(Channel<Body>);

impl Caller {
    /// Connects to an agency door.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// Connects, if something listens.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        Channel::plain(&address.to_string()).await.ok().map(Self)
    }

    /// Asks and waits for the whole answer.
    pub async fn ask(&self, question: Question) -> Answer {
        self.try_ask(question).await.expect("the agency door answers")
    }

    /// Asks; the error is the connection's, as when the server was killed.
    pub async fn try_ask(&self, question: Question) -> Result<Answer, hyper::Error> {
        let body = Full::new(question.body.clone()).map_err(|never| match never {}).boxed_unsync();
        let response = self.0.clone().send(question.request(body)).await?;
        Answer::read(response).await
    }

    /// Opens a stream: what is sent into it goes out as it comes, what comes back is read frame by frame.
    pub async fn open(&self, question: Question) -> Open {
        let (sender, frames) = mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream::new(frames)).boxed_unsync();
        let mut channel = self.0.clone();
        let response = tokio::spawn(async move { channel.send(question.request(body)).await });
        Open { sender: Some(sender), response: Some(response), body: None }
    }
}

/// A call whose both directions are open.
#[derive(Debug)]
pub struct Open {
    sender: Option<mpsc::Sender<Result<Frame<Bytes>, BoxError>>>,
    response: Option<tokio::task::JoinHandle<Result<Response<Incoming>, hyper::Error>>>,
    body: Option<Incoming>,
}

impl Open {
    /// The request's direction by itself, for a task of its own. Ending it is then that task's.
    pub fn split(&mut self) -> Sender {
        Sender(self.sender.take().unwrap())
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&self, bytes: Bytes) {
        self.sender.as_ref().unwrap().send(Ok(Frame::data(bytes))).await.unwrap();
    }

    /// Reads messages that were sent one to a frame until so many bytes have come, framing included.
    pub async fn read(&mut self, bytes: usize) {
        let mut read = 0;
        while read < bytes {
            read += self.next().await.expect("more comes").len();
        }
    }

    /// Sends one message.
    pub async fn send(&self, message: &[u8]) {
        self.sender.as_ref().unwrap().send(Ok(Frame::data(frame(message)))).await.unwrap();
    }

    /// Ends the request's direction.
    pub fn end(&mut self) {
        self.sender = None;
    }

    /// Waits for the head of the answer.
    pub async fn head(&mut self) -> HeaderMap {
        let response = self.response.take().unwrap().await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        self.body = Some(body);
        parts.headers
    }

    /// The next bytes of the answer; the trailers at its end.
    pub async fn next(&mut self) -> Result<Bytes, HeaderMap> {
        loop {
            let frame = self.body.as_mut().unwrap().frame().await.expect("the answer has an end").unwrap();
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(data),
                Err(frame) => return Err(frame.into_trailers().unwrap()),
            }
        }
    }

    /// Waits for the end, whatever comes before it: what the trailers tell, or the head where there is nothing else.
    pub async fn finish(&mut self) -> Answer {
        let headers = if self.body.is_none() { self.head().await } else { HeaderMap::new() };
        let trailers_only = headers.contains_key("grpc-status");
        let trailers = match trailers_only {
            true => headers.clone(),
            false => self.trailers().await,
        };
        Answer { headers, messages: Vec::new(), trailers, trailers_only }
    }

    async fn trailers(&mut self) -> HeaderMap {
        loop {
            if let Err(trailers) = self.next().await {
                return trailers;
            }
        }
    }

    /// Breaks the call off (RST_STREAM).
    pub fn cancel(self) {
        if let Some(response) = self.response {
            response.abort();
        }
    }
}

/// The request's direction of a call.
#[derive(Debug)]
pub struct Sender(mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

impl Sender {
    /// Sends one message; false if nobody takes it any more.
    pub async fn try_send(&self, message: &[u8]) -> bool {
        self.0.send(Ok(Frame::data(frame(message)))).await.is_ok()
    }
}

/// gRPC's base64 of "-bin" metadata.
pub fn binary(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}
