//! The doors of a server: sockets on which it listens, with the limits that hold for whoever knocks.
//!
//! All doors share one loop: accept, handshake with a time-out, serve HTTP, and, at the server's end, finish what was
//! begun. What is served is the caller's: a bare hyper service, or tonic and axum routers through [`TowerToHyperService`].

mod connection;
mod frames;
mod guard;
mod taking;
mod idle;
mod writes;
mod chunks;
mod places;
mod limits;
mod body;
mod socket;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Extensions, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use rustls_pki_types::CertificateDer;
use tower::BoxError;

pub use hyper_util::service::TowerToHyperService;

use crate::drain::Drain;
use crate::tls::{self, Http};
pub use body::with_body_deadline;
use connection::Door;
pub use guard::{RawHead, Refusal};
use idle::Idlers;
pub use limits::Limits;
use places::Places;
use socket::{Accepted, Socket};

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address} (hint: is another process there? `ss -ltnp` tells)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others than the owner could reach the socket.
    #[error(
        "{} must belong to the user of this process, with mode 0700 (or 0711, where further users are named): the socket in it opens to nobody else",
        directory.display()
    )]
    NotPrivate {
        /// The directory of the socket.
        directory: PathBuf,
    },
    /// Another process serves there.
    #[error("another process listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file of that name, and it is no socket.
    #[error("{} is there already and is no socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody at this address.
    Tcp(SocketAddr),
    /// A process on this machine, of the user with this numeric id.
    Unix(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(user) => write!(f, "user {user}"),
        }
    }
}

/// One connection. Every request of it carries this among its extensions, and beside it what the caller adds to
/// [`Connection::extensions`] when it makes the service.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Peer,
    /// The certificates that the other end showed, its own first; none without TLS or from anonymous clients.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// What each request of this connection is to carry. Empty in the copy that a request carries.
    pub extensions: Extensions,
}

/// What happened at a door since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    full: AtomicU64,
    refused: AtomicU64,
    broken_off: AtomicU64,
}

impl Counts {
    /// Connections that were accepted, whatever became of them.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once, because there were too many.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Connections that ended before they spoke HTTP: handshake failed, certificate not accepted, too slow, or another
    /// protocol; also those that were not there yet when the server's end began.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// Connections and answers that were broken off: too many frames that carry nothing, or nobody who takes what waits.
    pub fn broken_off(&self) -> u64 {
        self.broken_off.load(Ordering::Relaxed)
    }

    pub(crate) fn breaks_off(&self) {
        self.broken_off.fetch_add(1, Ordering::Relaxed);
    }
}

/// A door: bound, but nobody is let in before [`Listener::serve`].
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: Option<tls::Server>,
    http: Http,
    limits: Limits,
    counts: Arc<Counts>,
}

impl Listener {
    /// Opens a door without encryption. Whether that is right for the address is for the caller to decide.
    pub async fn tcp(address: SocketAddr, http: Http) -> Result<Self, ListenError> {
        Ok(Self::new(Socket::tcp(address).await?, None, http))
    }

    /// Opens a door with TLS.
    pub async fn tls(address: SocketAddr, tls: tls::Server) -> Result<Self, ListenError> {
        let http = tls.http();
        Ok(Self::new(Socket::tcp(address).await?, Some(tls), http))
    }

    /// Opens a door for processes of this user (and root) alone: a Unix socket, mode 0600, in a directory of mode 0700
    /// that is made if it is not there. A socket left by a process that has ended is removed. HTTP/2 alone.
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        Ok(Self::new(Socket::unix(path, &[])?, None, Http::Two))
    }

    /// Opens a door for processes of this user, of root and of these `others`: as [`Self::unix`], but where others are
    /// named, the directory may be entered by anybody (mode 0711) and the socket be reached (mode 0666); who is at the
    /// other end, the system says for each connection.
    pub fn unix_for(path: &Path, others: &[u32]) -> Result<Self, ListenError> {
        Ok(Self::new(Socket::unix(path, others)?, None, Http::Two))
    }

    /// The same door, speaking these versions of HTTP; for one without TLS.
    #[must_use]
    pub fn speaking(self, http: Http) -> Self {
        Self { http, ..self }
    }

    /// The same door with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The address it listens on, with the port that the system chose where it was asked for port 0; none for a Unix
    /// socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr()
    }

    /// What happens at this door, also while it serves.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Serves until `drain` begins. Connections that stand then are told so (GOAWAY) and finish their requests as tasks
    /// of `drain`. `make` gives the service of each connection, after the handshake.
    pub async fn serve<F, S, B>(self, drain: Drain, make: F)
    where
        F: Fn(&mut Connection) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Unpin + Send + 'static,
        B::Data: Unpin + Send,
        B::Error: Into<BoxError>,
    {
        let Self { socket, tls, http, limits, counts } = self;
        let places = Places::new(&limits);
        let full = AtomicBool::new(false);
        let (idlers, drain_of) = (Idlers::default(), drain.clone());
        let door = Arc::new(Door { tls, http, limits, places, idlers, full, counts, drain: drain_of, make });
        while let Some(accepted) = socket.accept(&drain).await {
            door.counts.accepted.fetch_add(1, Ordering::Relaxed);
            let peer = accepted.peer();
            let Some(place) = door.places.begin(peer) else {
                door.turn_away(peer);
                continue;
            };
            let door = Arc::clone(&door);
            drain.spawn(async move {
                match accepted {
                    Accepted::Tcp(stream, _) => door.welcome(stream, peer, place).await,
                    Accepted::Unix(stream, _) => door.welcome(stream, peer, place).await,
                }
            });
        }
    }

    fn new(socket: Socket, tls: Option<tls::Server>, http: Http) -> Self {
        Self { socket, tls, http, limits: Limits::default(), counts: Arc::default() }
    }
}
