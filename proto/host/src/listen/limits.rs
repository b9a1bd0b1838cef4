//! What holds for whoever knocks at a door.

use std::time::Duration;

/// What holds for whoever knocks. The defaults are for peers that are not trusted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time that have shown who they are and begun to speak HTTP. For one more, that on which nothing has
    /// been asked for the longest time is told to end; if on each something is asked, the new one is closed.
    pub connections: usize,
    /// Connections at a time that have not come so far yet: they take no place of those who have.
    pub handshakes: usize,
    /// Connections at a time from one address, or from one IPv6 network of 64 bits; one more is closed at once, before
    /// anything is read. Those of this machine itself (loopback, Unix sockets) are not counted.
    pub per_address: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub concurrent_streams: u32,
    /// All header fields of one request, in bytes (RFC 9113, section 6.5.2).
    pub header_list: u32,
    /// From the connection to the end of the TLS handshake, again to the first bytes of HTTP, and for the header of an
    /// HTTP/1.1 request.
    pub handshake: Duration,
    /// Whoever takes no byte of what waits for it, or of an HTTP/2 answer not the next 16 KiB, for so long is given up: the
    /// connection, or that answer alone.
    pub untaken: Duration,
    /// A connection of this age is told to end (GOAWAY) and may finish what was begun; when it is twice as old, it is
    /// broken off. For doors that let in strangers; none where whoever comes is known.
    pub age: Option<Duration>,
    /// An HTTP/2 connection without traffic is asked for a sign of life this often, and closed if there is none within
    /// the same time.
    pub keep_alive: Duration,
    /// Bytes of one request that may be under way unread. A connection may have as many as all of its requests together,
    /// so that one that is not read never stops the others.
    pub stream_window: u32,
    /// Requests that the peer has reset before they were begun, waiting at a time; one more counts as an attack
    /// (CVE-2023-44487) and ends the connection. A peer whose callers gave up while the line stood still sends as many at
    /// once as were given up.
    pub pending_resets: usize,
    /// Requests of one connection that this side had to reset for what came on them, in all; one more counts as an attack
    /// (CVE-2025-8671) and ends the connection. Frames that crossed with the end of their request count too.
    pub faulty_requests: usize,
    /// Frames of one HTTP/2 connection in a second that carry nothing of a request (pings, settings, resets, priorities,
    /// windows, unknown ones), beside two for each piece of an answer. Ten seconds' worth may come at once; more is an
    /// attack (RFC 9113, section 10.5) and ends the connection. The reset of a request that stood for a while is paid for
    /// by the request itself: callers give up, and so many at a time as may stand.
    pub control_frames: u32,
    /// For how long a request must have stood for that.
    pub stood: Duration,
    /// Whether a date of ours stands in responses that have none; not where responses are passed on.
    pub date: bool,
    /// Whether heads of HTTP/1.1 that could be read in two ways are refused, as [`super::Refusal`] tells the service:
    /// where requests are passed on.
    pub guarded: bool,
    /// Whether each request of HTTP/1.1 carries its head as it came, as [`super::RawHead`]; where heads are guarded alone.
    pub raw_heads: bool,
}

impl Limits {
    /// For a door at which many share one connection, and whoever comes is known by name: what goes wrong with some of
    /// the requests does not end all others.
    pub fn shared() -> Self {
        let stood = Duration::from_millis(2);
        Self { pending_resets: 4_096, faulty_requests: 65_536, stood, ..Self::default() }
    }

    /// For a door that lets in strangers: no connection stays longer than twice `age`.
    pub fn anonymous(age: Duration) -> Self {
        Self { age: Some(age), ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 512,
            per_address: 64,
            concurrent_streams: 256,
            header_list: 64 * 1024,
            handshake: Duration::from_secs(10),
            untaken: Duration::from_secs(60),
            age: None,
            keep_alive: Duration::from_secs(20),
            stream_window: 256 * 1024,
            pending_resets: 20,
            faulty_requests: 1_024,
            control_frames: 1_000,
            stood: Duration::from_millis(20),
            date: true,
            guarded: false,
            raw_heads: false,
        }
    }
}
