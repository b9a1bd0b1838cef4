//! One connection from its handshake to its end.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tower::BoxError;

use super::frames::Followed;
use super::guard::{Guarded, Heads, RefusedHead};
use super::idle::{Idlers, Standing};
use super::places::{Place, Places, Waiting};
use super::taking::{Taken, Unblocked, Watching};
use super::writes::pass_writes;
use super::{Connection, Counts, Limits, Peer};
use crate::drain::Drain;
use crate::gathered::gather;
use crate::tls::{self, Http};

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4). No request of HTTP/1.1 begins like this.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection may take to leave that was told to, and on which nothing is asked.
const LEAVING: Duration = Duration::from_millis(500);

/// How many are told to leave for one who comes.
const TOLD_TO_LEAVE: usize = 3;

/// What all connections of one door share.
pub(super) struct Door<F> {
    pub(super) tls: Option<tls::Server>,
    pub(super) http: Http,
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) idlers: Idlers,
    /// Whether it was said already that there are too many.
    pub(super) full: AtomicBool,
    pub(super) counts: Arc<Counts>,
    pub(super) drain: Drain,
    pub(super) make: F,
}

impl<F> Door<F> {
    /// Counts a connection for which there is no place.
    pub(super) fn turn_away(&self, peer: Peer) {
        self.counts.full.fetch_add(1, Ordering::Relaxed);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(%peer, "too many connections, in all or from one address: closing new ones");
        }
    }

    /// Serves one connection to its end.
    pub(super) async fn welcome<T, S, B>(&self, stream: T, peer: Peer, waiting: Waiting)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(&mut Connection) -> S,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Unpin + Send + 'static,
        B::Data: Unpin + Send,
        B::Error: Into<BoxError>,
    {
        let served = match &self.tls {
            None => self.serve(stream, peer, Arc::new([]), waiting).await,
            Some(tls) => match self.in_time(tls.accept(stream)).await {
                Ok(stream) => {
                    let chain = tls::peer_chain(&stream);
                    self.serve(stream, peer, chain, waiting).await
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%peer, %error, "connection refused before its first request");
        }
    }

    /// Serves HTTP. An error says that it did not come to that.
    async fn serve<T, S, B>(
        &self,
        mut stream: T,
        peer: Peer,
        chain: Arc<[rustls_pki_types::CertificateDer<'static>]>,
        waiting: Waiting,
    ) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(&mut Connection) -> S,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Unpin + Send + 'static,
        B::Data: Unpin + Send,
        B::Error: Into<BoxError>,
    {
        let first = self.in_time(read_first(&mut stream)).await?;
        let two = first == PREFACE;
        match self.http {
            Http::Two if !two => return Err(io::Error::other("HTTP/2 is spoken here, and nothing else")),
            Http::One if two => return Err(io::Error::other("HTTP/1.1 is spoken here, and nothing else")),
            _ => {}
        }
        // From here on it takes a place among those who have shown who they are.
        let Some(_place) = self.place(waiting).await else {
            self.turn_away(peer);
            return Ok(());
        };
        self.full.store(false, Ordering::Relaxed);
        let standing = self.idlers.stand();
        let mut connection = Connection { peer, chain, extensions: Extensions::new() };
        let refused = RefusedHead::default();
        let heads = (self.limits.raw_heads && self.limits.guarded && !two).then(Heads::default);
        let service = (self.make)(&mut connection);
        let (extensions, asked) = (stamp(connection), Arc::clone(&standing));
        let service =
            Stamped { service, extensions, refused: refused.clone(), heads: heads.clone(), standing: asked };
        let driven = (peer, &*standing);
        let stream =
            Unblocked::new(Replayed { first, at: 0, stream }, self.limits.untaken, Arc::clone(&self.counts));
        let one = http1_settings(&self.limits);
        if two {
            let (io, gathered) =
                gather(Followed::new(stream, (peer, Arc::clone(&self.counts)), PREFACE.len(), &self.limits));
            let settings = http2_settings(&self.limits, self.http, &self.counts);
            let connection = settings.serve_connection(TokioIo::new(io), service);
            gathered.drive(self.drive(driven, connection)).await;
        } else if self.limits.guarded {
            let max_head = usize::try_from(self.limits.header_list).unwrap_or(usize::MAX);
            let io = TokioIo::new(Guarded::new(stream, max_head, refused, heads));
            self.drive(driven, one.serve_connection(io, service)).await;
        } else {
            self.drive(driven, one.serve_connection(TokioIo::new(stream), service)).await;
        }
        Ok(())
    }

    async fn drive<C: GracefulConnection<Error = hyper::Error>>(
        &self,
        (peer, standing): (Peer, &Standing),
        connection: C,
    ) {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.drain.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = standing.sent_away() => {
                connection.as_mut().graceful_shutdown();
                let mut aged = pin!(self.aged());
                loop {
                    tokio::select! {
                        ended = connection.as_mut() => break ended,
                        // What was asked before the word to leave came is answered first.
                        () = tokio::time::sleep(LEAVING) => if !standing.is_asked() {
                            return;
                        },
                        () = aged.as_mut() => return,
                    }
                }
            }
            () = self.aged() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.aged() => {
                        tracing::info!(%peer, "connection broken off: it did not end when it was told to");
                        return;
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error = crate::config::with_causes(&error), "connection broken off");
        }
    }

    /// A place among those who speak; if there is none, one who asks nothing leaves his.
    async fn place(&self, waiting: Waiting) -> Option<Place> {
        let waiting = match self.places.establish(waiting) {
            Ok(place) => return Some(place),
            Err(waiting) => waiting,
        };
        let mut left = pin!(self.places.left(waiting));
        for told in 0..TOLD_TO_LEAVE {
            // Whoever is asked something before he has gone stays, and the next leaves instead, if there is one.
            if !self.idlers.send_one_away() && told == 0 {
                return None;
            }
            if let Ok(place) = tokio::time::timeout(2 * LEAVING, left.as_mut()).await {
                return Some(place);
            }
        }
        None
    }

    /// Waits as long as a connection may stand, for ever if that is not limited.
    async fn aged(&self) {
        match self.limits.age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    }

    /// A step before the first request: bounded in time, and given up when the server ends, as nothing was begun.
    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            done = tokio::time::timeout(self.limits.handshake, step) => done
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "too slow to begin"))),
            () = self.drain.begun() => Err(io::Error::other("the server is stopping")),
        }
    }
}

/// As much as all streams of a connection together may have under way, at most what HTTP/2 can say (RFC 9113, section
/// 6.9.1).
fn connection_window(stream_window: u32, streams: u32) -> u32 {
    stream_window.saturating_mul(streams).min(i32::MAX.unsigned_abs())
}

fn http2_settings(limits: &Limits, http: Http, counts: &Arc<Counts>) -> http2::Builder<Watching> {
    let mut settings = http2::Builder::new(Watching { patience: limits.untaken, counts: Arc::clone(counts) });
    settings
        .timer(TokioTimer::new())
        // A gRPC caller shall see the metadata that was sent, and no date among it.
        .auto_date_header(limits.date && !matches!(http, Http::Two))
        .max_concurrent_streams(limits.concurrent_streams)
        .max_header_list_size(limits.header_list)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(connection_window(limits.stream_window, limits.concurrent_streams))
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.faulty_requests)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive);
    settings
}

fn http1_settings(limits: &Limits) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .auto_date_header(limits.date)
        .header_read_timeout(limits.handshake)
        .max_header_size(usize::try_from(limits.header_list).unwrap_or(usize::MAX));
    settings
}

/// What each request of the connection carries: the connection, and what its maker added.
fn stamp(connection: Connection) -> Extensions {
    let Connection { peer, chain, mut extensions } = connection;
    extensions.insert(Connection { peer, chain, extensions: Extensions::new() });
    extensions
}

/// Hands each request to a service with the connection's extensions.
struct Stamped<S> {
    service: S,
    extensions: Extensions,
    refused: RefusedHead,
    heads: Option<Heads>,
    standing: Arc<Standing>,
}

impl<S, B> Service<Request<Incoming>> for Stamped<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body,
{
    type Response = Response<Taken<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().extend(self.extensions.clone());
        if let Some(head) = self.heads.as_ref().and_then(Heads::next) {
            request.extensions_mut().insert(head);
        }
        // Asked at once: the library calls for each head before it reads the next.
        if let Some(refusal) = self.refused.get() {
            request.extensions_mut().insert(refusal);
        }
        let answering = self.service.call(request);
        let asked = self.standing.ask();
        Box::pin(async move { Ok(answering.await?.map(|body| Taken::new(body, asked))) })
    }
}

/// Reads until it is clear which HTTP is spoken, at most the 24 bytes of HTTP/2's preface.
async fn read_first<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<Vec<u8>> {
    let mut first = vec![0; PREFACE.len()];
    let mut filled = 0;
    while filled < first.len() && first[..filled] == PREFACE[..filled] {
        match stream.read(&mut first[filled..]).await? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a request")),
            count => filled += count,
        }
    }
    first.truncate(filled);
    Ok(first)
}

/// A stream whose first bytes were read already, and are read once more.
struct Replayed<T> {
    first: Vec<u8>,
    at: usize,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Replayed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.first.len() {
            let count = buffer.remaining().min(self.first.len() - self.at);
            buffer.put_slice(&self.first[self.at..self.at + count]);
            self.at += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

pass_writes!(Replayed);
