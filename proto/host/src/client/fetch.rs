//! Small downloads over HTTP/1.1: certificate status, timestamps, configurations. Bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::BoxError;

use super::{ConnectError, connect_tcp};
use crate::tls;

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address to download from.
    #[error("{uri} cannot be downloaded from: {why}")]
    Address {
        /// The address.
        uri: String,
        /// What is missing.
        why: &'static str,
    },
    /// There is no connection.
    #[error("cannot download {uri}")]
    Connect {
        /// The address.
        uri: String,
        /// Why.
        source: ConnectError,
    },
    /// The connection broke, or it is no HTTP.
    #[error("the download of {uri} broke off")]
    Broken {
        /// The address.
        uri: String,
        /// Why.
        source: BoxError,
    },
    /// The server says no.
    #[error("{uri} answered {status}")]
    Status {
        /// The address.
        uri: String,
        /// What it answered. Redirections are not followed.
        status: StatusCode,
    },
    /// More than was asked for.
    #[error("the answer of {uri} is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        uri: String,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// Too slow.
    #[error("{uri} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The address.
        uri: String,
        /// How long it had.
        limit: Duration,
    },
}

/// What was downloaded.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What the server calls it.
    pub content_type: Option<String>,
    /// The entity tag that stands for these bytes (RFC 9110, section 8.8.3).
    pub entity_tag: Option<String>,
    /// The bytes.
    pub body: Bytes,
}

/// How downloads are made: each over a connection of its own.
#[derive(Clone, Debug)]
pub struct Fetch {
    tls: Option<tls::Client>,
    limit: usize,
    time: Duration,
}

impl Fetch {
    /// Downloads of at most 1 MiB within 10 s; from https addresses only with `tls`, which must be for HTTP/1.1.
    pub fn new(tls: Option<tls::Client>) -> Self {
        Self { tls, limit: 1024 * 1024, time: Duration::from_secs(10) }
    }

    /// The same with another most, in bytes.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The same with another time for all of it, from name to last byte.
    #[must_use]
    pub fn with_time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Downloads what is at `uri`. Only the status 200 is success.
    pub async fn get(&self, uri: &Uri) -> Result<Fetched, FetchError> {
        self.in_time(uri, request(Method::GET, uri, None, Full::default())).await
    }

    /// Downloads what is at `uri` unless it is still what the entity tag `known` stands for (RFC 9110, section 13.1.2);
    /// none if it is.
    pub async fn get_unless(&self, uri: &Uri, known: Option<&str>) -> Result<Option<Fetched>, FetchError> {
        let mut asked = request(Method::GET, uri, None, Full::default());
        if let (Ok(request), Some(Ok(known))) = (&mut asked, known.map(HeaderValue::from_str)) {
            request.headers_mut().insert(IF_NONE_MATCH, known);
        }
        match self.in_time(uri, asked).await {
            Err(FetchError::Status { status: StatusCode::NOT_MODIFIED, .. }) if known.is_some() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Sends `body` to `uri` and downloads the answer. Only the status 200 is success.
    pub async fn post(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Fetched, FetchError> {
        self.in_time(uri, request(Method::POST, uri, Some(content_type), Full::new(body))).await
    }

    /// Sends `body` to `uri` and downloads the answer, whatever its status: for protocols in which others say something too.
    pub async fn ask(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Fetched), FetchError> {
        self.answered(uri, request(Method::POST, uri, Some(content_type), Full::new(body)), |_| true).await
    }

    /// Sends `body` to `uri` and waits for the head of the answer, whose body follows. Neither is bounded in size or time: that
    /// is for the caller to do.
    pub async fn open<B>(&self, method: Method, uri: &Uri, body: B) -> Result<Response<Incoming>, FetchError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let request = request(method, uri, None, body)?;
        let mut sender = self.connect(uri).await?;
        let sent = sender.send_request(request).await;
        sent.map_err(|error| FetchError::Broken { uri: shown(uri), source: error.into() })
    }

    async fn in_time(
        &self,
        uri: &Uri,
        request: Result<Request<Full<Bytes>>, FetchError>,
    ) -> Result<Fetched, FetchError> {
        let answered = self.answered(uri, request, |status| status == StatusCode::OK).await;
        answered.map(|(_, fetched)| fetched)
    }

    /// The answer, if its status is one of those that are `taken`.
    async fn answered(
        &self,
        uri: &Uri,
        request: Result<Request<Full<Bytes>>, FetchError>,
        taken: fn(StatusCode) -> bool,
    ) -> Result<(StatusCode, Fetched), FetchError> {
        let request = request?;
        tokio::time::timeout(self.time, self.exchange(uri, request, taken))
            .await
            .unwrap_or_else(|_| Err(FetchError::TimedOut { uri: shown(uri), limit: self.time }))
    }

    async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
        taken: fn(StatusCode) -> bool,
    ) -> Result<(StatusCode, Fetched), FetchError> {
        let broken = |source: BoxError| FetchError::Broken { uri: shown(uri), source };
        let mut sender = self.connect(uri).await?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        let (head, body) = response.into_parts();
        if !taken(head.status) {
            return Err(FetchError::Status { uri: shown(uri), status: head.status });
        }
        let text = |name: HeaderName| head.headers.get(name)?.to_str().ok().map(str::to_owned);
        let (content_type, entity_tag) = (text(CONTENT_TYPE), text(ETAG));
        let body = Limited::new(body, self.limit).collect().await.map_err(|source| match source
            .downcast_ref::<LengthLimitError>(
        ) {
            Some(_) => FetchError::TooLarge { uri: shown(uri), limit: self.limit },
            None => broken(source),
        })?;
        Ok((head.status, Fetched { content_type, entity_tag, body: body.to_bytes() }))
    }

    async fn connect<B>(&self, uri: &Uri) -> Result<SendRequest<B>, FetchError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let refused = |why| FetchError::Address { uri: shown(uri), why };
        let host = uri.host().ok_or_else(|| refused("it names no host"))?;
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let address = format!("{host}:{port}");
        let failed = |source| FetchError::Connect { uri: shown(uri), source };
        let stream = connect_tcp(&address).await.map_err(failed)?;
        if !encrypted {
            return handshake(uri, stream).await;
        }
        let tls = self.tls.as_ref().ok_or_else(|| refused("https was not set up for it"))?;
        let stream = tls
            .connect(host.trim_matches(['[', ']']), stream)
            .await
            .map_err(|source| failed(ConnectError::Tls { address, source }))?;
        handshake(uri, stream).await
    }
}

/// An address as errors show it: without its query, in which a signature may stand.
fn shown(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

fn request<B>(
    method: Method,
    uri: &Uri,
    content_type: Option<&'static str>,
    body: B,
) -> Result<Request<B>, FetchError> {
    let refused = |why| FetchError::Address { uri: shown(uri), why };
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(refused("it is neither http nor https"));
    }
    let host = uri.authority().ok_or_else(|| refused("it names no host"))?.as_str();
    if host.contains('@') {
        return Err(refused("it holds a user name"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    request.body(body).map_err(|_| refused("it does not fit into a request"))
}

async fn handshake<T, B>(uri: &Uri, stream: T) -> Result<SendRequest<B>, FetchError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (sender, connection) = Builder::new()
        .max_header_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| FetchError::Broken { uri: shown(uri), source: error.into() })?;
    // Ends with the sender. How it ended, the sender has been told.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::with_causes;

    #[tokio::test]
    async fn no_error_shows_what_signs_a_request() {
        for address in [
            "http://127.0.0.1:1/b/o?X-Amz-Signature=secret",
            "https://127.0.0.1:1/b/o?secret",
            "ftp://a/?secret",
        ] {
            let uri = address.parse().unwrap();
            let failed =
                Fetch::new(None).open(Method::GET, &uri, Full::<Bytes>::default()).await.unwrap_err();
            let said = with_causes(&failed);
            assert!(!said.contains("secret") && !format!("{failed:?}").contains("secret"), "{said}");
        }
    }
}
