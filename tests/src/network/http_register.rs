//! A register that speaks HTTP as a test tells it, and remembers what it saw.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tower::BoxError;

/// A body of either direction.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

type Answer = Pin<Box<dyn Future<Output = Response<HttpBody>> + Send>>;
type Handler = dyn Fn(Request<Incoming>) -> Answer + Send + Sync;

/// The head of a request as the register saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub target: String,
    /// All headers, as they came.
    pub headers: HeaderMap,
}

impl Seen {
    /// All values of a header, as text.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// The register.
pub struct HttpRegister {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl HttpRegister {
    /// Starts one that speaks HTTP/1.1, or HTTP/2 alone.
    pub async fn start<F, A>(two: bool, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<HttpBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(move |request| -> Answer { Box::pin(handler(request)) });
        let serving = tokio::spawn(serve(listener, two, Arc::clone(&seen), handler));
        Self { address, seen, serving }
    }

    /// All requests that it saw.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the register was called")
    }
}

impl Drop for HttpRegister {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl fmt::Debug for HttpRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpRegister({})", self.address)
    }
}

async fn serve(listener: TcpListener, two: bool, seen: Arc<Mutex<Vec<Seen>>>, handler: Arc<Handler>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
        let service = service_fn(move |request: Request<Incoming>| {
            let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let (method, headers) = (request.method().clone(), request.headers().clone());
            seen.lock().unwrap().push(Seen { method, target, headers });
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        connections.spawn(async move {
            let io = TokioIo::new(stream);
            if two {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}
