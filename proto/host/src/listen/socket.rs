//! Sockets: TCP, and Unix sockets that their owner alone can reach.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{ListenError, Peer};
use crate::drain::Drain;
use crate::files::user_id;

/// How long accepting rests after an error such as too many open files, which the next call would meet again.
const REST: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(PrivateSocket),
}

/// A connection just accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    /// With the numeric id of the user at the other end.
    Unix(UnixStream, u32),
}

impl Accepted {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, address) => Peer::Tcp(*address),
            Self::Unix(_, user) => Peer::Unix(*user),
        }
    }
}

impl Socket {
    pub(super) async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self::Tcp).map_err(|source| ListenError::Bind { address, source })
    }

    pub(super) fn unix(path: &Path, others: &[u32]) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Unix { path: path.to_owned(), source };
        make_directory(path, !others.is_empty())?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = PrivateSocket { listener, path: path.to_owned(), others: others.into() };
        let mode = if others.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self::Unix(socket))
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The next connection; none once `drain` has begun.
    pub(super) async fn accept(&self, drain: &Drain) -> Option<Accepted> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.begun() => return None,
                accepted = self.accept_one() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for now");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                if user != user_id() && user != 0 && !socket.others.contains(&user) {
                    tracing::warn!(user, "another user's connection to the operator's socket is refused");
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(Accepted::Unix(stream, user))
            }
        }
    }
}

/// A Unix socket, whose name in the file system is removed with it.
#[derive(Debug)]
pub(super) struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Users who may come in beside this one and root.
    others: Box<[u32]>,
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // A socket that stays behind is removed by the next process that listens there.
        let _: io::Result<()> = fs::remove_file(&self.path);
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

/// A directory that nobody else can write to; or, if it is not `shared`, enter.
fn make_directory(path: &Path, shared: bool) -> Result<(), ListenError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match DirBuilder::new().mode(if shared { 0o711 } else { 0o700 }).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = fs::metadata(directory).map_err(failed)?;
    let closed = if shared { 0o022 } else { 0o077 };
    if !metadata.is_dir() || metadata.mode() & closed != 0 || metadata.uid() != user_id() {
        return Err(ListenError::NotPrivate { directory: directory.to_owned() });
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    // Nobody answers on a socket whose process has ended.
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
    }
}
