//! One HTTP/2 connection to another server, for bare requests and for the generated gRPC clients.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tower::BoxError;

use super::{CONNECT_TIME, ConnectError, connect_tcp, in_time};
use crate::gathered::{Driver, gather};
use crate::tls;

/// A connection without traffic is asked for a sign of life this often, and given up if there is none in that time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes of one response that may be under way unread, and of all responses together: as much as 256 requests at a time
/// can have, so that a response that is not read never stops the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;
/// How many requests that were given up are remembered for how long: what still comes for them is passed over. What comes
/// for forgotten ones counts as an error of the other side, and after some of those HTTP/2 ends the connection.
const GIVEN_UP: usize = 4_096;
const GIVEN_UP_TIME: Duration = Duration::from_secs(30);
/// All header fields of one response, in bytes.
const HEADER_LIST: u32 = 64 * 1024;

/// One HTTP/2 connection. Clones use the same one; it closes when the last of them is dropped. It does not connect
/// again: whoever needs that makes a new one, and checks the other side anew.
pub struct Channel<B = tonic::body::Body> {
    sender: SendRequest<B>,
    scheme: Scheme,
    authority: Authority,
    chain: Arc<[CertificateDer<'static>]>,
}

impl<B> Channel<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Connects to `address`, written host:port, with TLS.
    ///
    /// # Errors
    /// [`ConnectError`]; but if the other side does not accept our certificate, TLS 1.3 tells so only with the first
    /// request, which then fails.
    pub async fn tls(address: &str, tls: &tls::Client) -> Result<Self, ConnectError> {
        in_time(address, CONNECT_TIME, async {
            let authority = authority(address)?;
            let stream = connect_tcp(address).await?;
            let stream = tls
                .connect(authority.host().trim_matches(['[', ']']), stream)
                .await
                .map_err(|source| ConnectError::Tls { address: address.to_owned(), source })?;
            let chain = tls::peer_chain(&stream);
            Self::handshake(stream, Scheme::HTTPS, authority, chain).await
        })
        .await
    }

    /// Connects to `address`, written host:port, without encryption. Whether that is right is for the caller to decide.
    pub async fn plain(address: &str) -> Result<Self, ConnectError> {
        in_time(address, CONNECT_TIME, async {
            let authority = authority(address)?;
            let stream = connect_tcp(address).await?;
            Self::handshake(stream, Scheme::HTTP, authority, Arc::new([])).await
        })
        .await
    }

    /// Connects to the Unix socket `path`.
    pub async fn unix(path: &Path) -> Result<Self, ConnectError> {
        let address = path.display().to_string();
        in_time(&address, CONNECT_TIME, async {
            let stream = UnixStream::connect(path)
                .await
                .map_err(|source| ConnectError::Unreachable { address: address.clone(), source })?;
            let authority = Authority::from_static("localhost");
            Self::handshake(stream, Scheme::HTTP, authority, Arc::new([])).await
        })
        .await
    }

    /// The certificates that the other side showed, its own first; none without TLS.
    pub fn peer_chain(&self) -> &Arc<[CertificateDer<'static>]> {
        &self.chain
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends `request`, whose scheme and authority become this connection's, and waits for the head of the response.
    pub async fn send(&mut self, mut request: Request<B>) -> Result<Response<Incoming>, hyper::Error> {
        self.address(&mut request);
        self.sender.send_request(request).await
    }

    /// The same; the error gives the request back where nothing of it was sent.
    pub async fn try_send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<B>>>> {
        self.address(&mut request);
        self.sender.try_send_request(request).await.map_err(Box::new)
    }

    async fn handshake<T>(
        stream: T,
        scheme: Scheme,
        authority: Authority,
        chain: Arc<[CertificateDer<'static>]>,
    ) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, gathered) = gather(stream);
        let (sender, connection) = Builder::new(Driver::new(gathered))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_concurrent_reset_streams(GIVEN_UP)
            .reset_stream_duration(GIVEN_UP_TIME)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|source| ConnectError::Http { address: authority.to_string(), source })?;
        let to = authority.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%to, error = crate::config::with_causes(&error), "connection broken off");
            }
        });
        Ok(Self { sender, scheme, authority, chain })
    }

    /// HTTP/2 names scheme and authority in every request (RFC 9113, section 8.3.1).
    fn address(&self, request: &mut Request<B>) {
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

impl<B> tower::Service<Request<B>> for Channel<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    /// Always: a connection that has ended is told of by the request, whose error says that it was not sent.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.address(&mut request);
        Box::pin(self.sender.send_request(request))
    }
}

impl<B> Clone for Channel<B> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            chain: Arc::clone(&self.chain),
        }
    }
}

impl<B> fmt::Debug for Channel<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({}://{})", self.scheme, self.authority)
    }
}

pub(super) fn authority(address: &str) -> Result<Authority, ConnectError> {
    let authority: Option<Authority> = address.parse().ok();
    authority
        .filter(|authority| authority.port().is_some())
        .ok_or_else(|| ConnectError::Address { address: address.to_owned() })
}
