//! HTTP/1.1 connections to one server: one request at a time on each, kept for the next when its answer was read.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::BoxError;

use super::channel::authority;
use super::{CONNECT_TIME, ConnectError, connect_tcp, in_time};
use crate::tls;

/// How long a connection may wait for its next request. Servers close theirs after some seconds, and a request that meets
/// a closing connection fails.
const IDLE: Duration = Duration::from_secs(4);
/// Connections that wait, at most.
const WAITING: usize = 64;
/// All header fields of one response, in bytes.
const HEADER_LIST: usize = 64 * 1024;

type Idle<B> = Arc<Mutex<Vec<(SendRequest<B>, Instant)>>>;

/// The connections to one server.
pub struct Connections<B> {
    address: String,
    tls: Option<tls::Client>,
    idle: Idle<B>,
}

/// One of them, for one request.
pub struct Connection<B> {
    sender: SendRequest<B>,
    authority: Authority,
    idle: Idle<B>,
}

impl<B> Connections<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Connections to `address`, written host:port; over TLS where `tls` is given. Whether it is right to do without is
    /// for the caller to decide.
    pub fn new(address: String, tls: Option<tls::Client>) -> Self {
        Self { address, tls, idle: Idle::default() }
    }

    /// A connection that waits, or a new one. Nothing of a request has gone out when this fails.
    pub async fn connection(&self) -> Result<Connection<B>, ConnectError> {
        let authority = authority(&self.address)?;
        let sender = match self.waiting() {
            Some(sender) => sender,
            // On the heap: what is rare does not make every call large.
            None => in_time(&self.address, CONNECT_TIME, Box::pin(self.connect(&authority))).await?,
        };
        Ok(Connection { sender, authority, idle: Arc::clone(&self.idle) })
    }

    /// The one that was used last, if it still stands.
    fn waiting(&self) -> Option<SendRequest<B>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| sender.is_ready() && since.elapsed() < IDLE);
        idle.pop().map(|(sender, _)| sender)
    }

    async fn connect(&self, authority: &Authority) -> Result<SendRequest<B>, ConnectError> {
        let stream = connect_tcp(&self.address).await?;
        let Some(tls) = &self.tls else { return handshake(stream, authority).await };
        let stream = tls
            .connect(authority.host().trim_matches(['[', ']']), stream)
            .await
            .map_err(|source| ConnectError::Tls { address: self.address.clone(), source })?;
        handshake(stream, authority).await
    }
}

impl<B> Connection<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Sends `request`, whose `Host` becomes this connection's, and waits for the head of the response. The connection is
    /// kept when the response's body was read to its end. The error gives the request back where nothing of it was sent.
    pub async fn try_send(
        mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<B>>>> {
        self.address(&mut request);
        let response = self.sender.try_send_request(request).await.map_err(Box::new)?;
        let Self { mut sender, idle, .. } = self;
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < WAITING {
                    idle.push((sender, Instant::now()));
                }
            }
        });
        Ok(response)
    }

    /// HTTP/1.1 names the server in `Host`, and the target without it (RFC 9112, section 3.2.1).
    fn address(&self, request: &mut Request<B>) {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
    }
}

async fn handshake<T, B>(stream: T, authority: &Authority) -> Result<SendRequest<B>, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (sender, connection) = Builder::new()
        .max_buf_size(HEADER_LIST)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http { address: authority.to_string(), source })?;
    let to = authority.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%to, error = crate::config::with_causes(&error), "connection broken off");
        }
    });
    Ok(sender)
}

impl<B> fmt::Debug for Connections<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({})", self.address)
    }
}

impl<B> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.authority)
    }
}
