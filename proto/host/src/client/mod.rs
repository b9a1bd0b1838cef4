//! Calls to others: connections to other servers of ours and to registers, and small downloads.

mod one;
mod channel;
mod fetch;

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

pub use channel::Channel;
pub use fetch::{Fetch, FetchError, Fetched};
pub use one::{Connection, Connections};

/// How long connecting may take: name, TCP, TLS and HTTP together.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address.
    #[error("{address} is not an address (hint: it is written host:port)")]
    Address {
        /// What was to be one.
        address: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Its certificate is not accepted, or it does not accept ours, or it speaks no TLS 1.3.
    #[error("no TLS connection with {address}")]
    Tls {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It does not speak HTTP as it should.
    #[error("{address} does not speak this version of HTTP")]
    Http {
        /// The address.
        address: String,
        /// Why.
        source: hyper::Error,
    },
    /// Too slow.
    #[error("{address} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The address.
        address: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Whether a request failed before the other side took it up: the connection had ended before the request was sent, or the
/// other side says that it did nothing with it (RFC 9113, section 8.7: a stream above the last of GOAWAY, REFUSED_STREAM).
/// It may then be made again without being done twice.
pub fn not_taken_up(error: &(dyn Error + 'static)) -> bool {
    let never_sent = cause::<hyper::Error>(error, hyper::Error::is_canceled).is_some();
    let told_to_go = of_http2(error).is_some_and(|error| error.is_remote() && error.is_go_away());
    never_sent || told_to_go || was_refused(error)
}

/// Whether the other side says of this very request that it did nothing with it (REFUSED_STREAM; RFC 9113, section 8.7).
pub fn was_refused(error: &(dyn Error + 'static)) -> bool {
    of_http2(error)
        .is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the stream of a request ended by itself, and not the connection.
pub fn was_reset(error: &(dyn Error + 'static)) -> bool {
    of_http2(error).is_some_and(h2::Error::is_reset)
}

fn of_http2<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e h2::Error> {
    cause(error, |_| true)
}

/// The first error of this type among `error` and what caused it that is as `wanted`.
fn cause<'e, T: Error + 'static>(
    error: &'e (dyn Error + 'static),
    wanted: impl Fn(&T) -> bool,
) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>().filter(|found| wanted(found)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Connects to `address`, written host:port.
async fn connect_tcp(address: &str) -> Result<TcpStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { address: address.to_owned(), source };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// Ends `step` when the time to connect is over.
async fn in_time<T>(
    address: &str,
    limit: Duration,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(limit, step)
        .await
        .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.to_owned(), limit }))
}
