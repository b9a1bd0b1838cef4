//! An agency's system (Fachverfahren): an ordinary gRPC client over cleartext HTTP/2 that sets a few metadata fields.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Why a call could not even be made.
#[derive(Debug, thiserror::Error)]
pub enum AgencyError {
    /// The door cannot be reached.
    #[error("cannot connect to {address}")]
    Connect {
        /// host:port
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// What listens there does not speak HTTP/2, or broke off.
    #[error("{address} does not speak HTTP as expected")]
    Http {
        /// host:port
        address: String,
        /// Why.
        source: hyper::Error,
    },
    /// `address` or a metadata value is not of its form.
    #[error("{what} cannot be sent")]
    Malformed {
        /// Which.
        what: String,
    },
}

/// One HTTP/2 connection, as a tonic client takes it.
#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
}

impl Connection {
    /// Connects to `address` (host:port).
    ///
    /// # Errors
    /// If nothing listens there, or no HTTP/2.
    pub async fn open(address: &str) -> Result<Self, AgencyError> {
        let stream = connect(address).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|source| AgencyError::Http { address: address.into(), source })?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// The origin that a generated client needs.
///
/// # Errors
/// If `address` is no host:port.
pub fn origin(address: &str) -> Result<Uri, AgencyError> {
    format!("http://{address}").parse().map_err(|_| AgencyError::Malformed { what: format!("{address:?}") })
}

/// Who asks what for, as the caller's metadata says it.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// Service, `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    pub service: &'a str,
    /// A purpose of the catalogue.
    pub purpose: &'a str,
    /// A legal basis of the catalogue.
    pub legal_basis: &'a str,
    /// The clerk.
    pub user: &'a str,
    /// The case.
    pub issue: &'a str,
}

impl Occasion<'_> {
    /// `message` with this occasion in its metadata.
    ///
    /// # Errors
    /// If a value is not printable ASCII.
    pub fn request<M>(&self, message: M) -> Result<tonic::Request<M>, AgencyError> {
        let mut request = tonic::Request::new(message);
        for (name, value) in [
            ("x-road-service", self.service),
            ("trave-purpose", self.purpose),
            ("trave-legal-basis", self.legal_basis),
            ("x-road-userid", self.user),
            ("x-road-issue", self.issue),
        ] {
            let value =
                MetadataValue::try_from(value).map_err(|_| AgencyError::Malformed { what: name.into() })?;
            request.metadata_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// The exchange id that every answer and every error carries.
pub fn exchange_id(metadata: &MetadataMap) -> Option<String> {
    Some(metadata.get("trave-exchange-id")?.to_str().ok()?.to_owned())
}

/// The `google.rpc.ErrorInfo` of an error.
pub fn error_info(status: &Status) -> Option<ErrorInfo> {
    let details: RpcStatus = prost::Message::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|any| any.type_url.ends_with("google.rpc.ErrorInfo"))?;
    prost::Message::decode(any.value.as_slice()).ok()
}

/// `google.rpc.ErrorInfo`: what a program reads of an error.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ErrorInfo {
    /// A reason of `docs/faults.md`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// "trave"
    #[prost(string, tag = "2")]
    pub domain: String,
    /// `side`, `register_reached`, `retry_safe`, `exchange_id`
    #[prost(map = "string, string", tag = "3")]
    pub metadata: std::collections::HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Fetches `path` from `address` by HTTP/1.1: the register's counters, a server's health.
///
/// # Errors
/// If nothing listens there, or no HTTP.
pub async fn get(address: &str, path: &str) -> Result<(u16, Bytes), AgencyError> {
    fetch(address, path, []).await.map(|fetched| (fetched.status, fetched.body))
}

/// What an HTTP server answered.
#[derive(Debug)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Fetches `path` from `address` by HTTP/1.1 with these headers.
///
/// # Errors
/// If nothing listens there, or no HTTP.
pub async fn fetch<'a>(
    address: &str,
    path: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Fetched, AgencyError> {
    let http = |source| AgencyError::Http { address: address.into(), source };
    let stream = connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", address);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|_| AgencyError::Malformed { what: path.into() })?;
    let response = sender.send_request(request).await.map_err(http)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(http)?.to_bytes();
    Ok(Fetched { status: parts.status.as_u16(), headers: parts.headers, body })
}

async fn connect(address: &str) -> Result<TcpStream, AgencyError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AgencyError::Connect { address: address.into(), source })?;
    stream.set_nodelay(true).map_err(|source| AgencyError::Connect { address: address.into(), source })?;
    Ok(stream)
}
