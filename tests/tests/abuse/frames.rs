//! An HTTP/2 client that says whatever it is told to, frame by frame (RFC 9113), and sees how the other side takes it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The first bytes of every connection (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITIZED: u8 = 0x20;

/// Error codes (section 7).
pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const CANCEL: u32 = 8;
pub(super) const COMPRESSION_ERROR: u32 = 9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// Longer than anything takes on a machine that has much to do.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A frame as it is sent or came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame { kind, flags, stream, payload: payload.into() }
}

impl Frame {
    /// Its bytes (section 4.1).
    pub(super) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// One setting (section 6.5.1).
pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Header fields, each a literal that is not indexed and not compressed (RFC 7541, section 6.2.2).
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    let mut left = value - 127;
    while left >= 128 {
        block.push(u8::try_from(left % 128 + 128).unwrap());
        left /= 128;
    }
    block.push(u8::try_from(left).unwrap());
}

/// How the other side took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The connection was ended with this code.
    Connection(u32),
    /// The connection was closed without a word.
    Closed,
    /// This stream was reset with this code.
    Stream(u32, u32),
    /// This stream was answered.
    Answered(u32),
}

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection.
pub(super) struct Line {
    io: Box<dyn Io>,
    read: Vec<u8>,
    /// Whether the other side's settings are acknowledged, as they must be.
    polite: bool,
}

impl Line {
    /// Over this; nothing is said yet.
    pub(super) fn over(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), read: Vec::new(), polite: true }
    }

    /// Says the preface and these settings.
    pub(super) async fn greet(&mut self, settings: Vec<u8>) {
        self.say(&[PREFACE, &frame(SETTINGS, 0, 0, settings).bytes()].concat()).await;
    }

    /// Acknowledges no settings from now on.
    pub(super) fn impolite(&mut self) {
        self.polite = false;
    }

    /// Sends bytes. That the other side reads no more, it tells by itself.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> bool {
        let said = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        tokio::time::timeout(LONG, said).await.is_ok_and(|said| said.is_ok())
    }

    /// Sends a frame.
    pub(super) async fn send(&mut self, frame: Frame) -> bool {
        self.say(&frame.bytes()).await
    }

    /// The next frame; none when the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.taken() {
                if frame.kind == SETTINGS && frame.flags & ACK == 0 && self.polite {
                    self.send(self::frame(SETTINGS, ACK, 0, [])).await;
                }
                return Some(frame);
            }
            let mut space = [0; 16 << 10];
            let count = tokio::time::timeout(LONG, self.io.read(&mut space)).await;
            match count.expect("the other side says something, or ends") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&space[..count]),
            }
        }
    }

    fn taken(&mut self) -> Option<Frame> {
        let head = self.read.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let (kind, flags) = (head[3], head[4]);
        let payload = self.read.get(9..9 + length)?.to_vec();
        self.read.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }

    /// Reads until something has an end: the connection, or a stream.
    pub(super) async fn end(&mut self) -> End {
        while let Some(frame) = self.next().await {
            match frame.kind {
                // hyper says so to a connection that it ends in order; what follows tells why.
                GOAWAY if frame.code() == NO_ERROR => {}
                GOAWAY => return End::Connection(frame.code()),
                RST_STREAM => return End::Stream(frame.stream, frame.code()),
                HEADERS | DATA if frame.flags & END_STREAM != 0 => return End::Answered(frame.stream),
                _ => {}
            }
        }
        End::Closed
    }

    /// Reads until the connection has ended; how.
    pub(super) async fn closed(&mut self) -> End {
        loop {
            match self.end().await {
                end @ End::Connection(_) => {
                    // After the word comes the deed.
                    while self.next().await.is_some() {}
                    return end;
                }
                End::Closed => return End::Closed,
                End::Stream(..) | End::Answered(_) => {}
            }
        }
    }

    /// Reads until a connection has ended that may be answered in words of HTTP/1.1 first.
    pub(super) async fn first_end(&mut self) -> End {
        let begins_as_two = async {
            let mut first = [0; 5];
            self.io.read_exact(&mut first).await.is_ok_and(|_| {
                self.read.extend_from_slice(&first);
                &first != b"HTTP/"
            })
        };
        if tokio::time::timeout(LONG, begins_as_two).await.expect("it is ended in time") {
            return self.closed().await;
        }
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(LONG, self.io.read_to_end(&mut rest)).await;
        closed.expect("it is closed in time").map_or(End::Closed, |_| End::Closed)
    }

    /// Waits until something is acknowledged: what was said before has been heard then.
    pub(super) async fn heard(&mut self) -> bool {
        if !self.send(frame(PING, 0, 0, *b"hoerst_d")).await {
            return false;
        }
        loop {
            match self.next().await {
                None => return false,
                Some(frame) if frame.kind == PING && frame.flags & ACK != 0 => return true,
                Some(_) => {}
            }
        }
    }
}

impl Line {
    /// Reads until a stream is answered; with the bytes of the head.
    pub(super) async fn head(&mut self) -> (End, Vec<u8>) {
        while let Some(frame) = self.next().await {
            if frame.kind == HEADERS {
                return (End::Answered(frame.stream), frame.payload);
            }
        }
        (End::Closed, Vec::new())
    }
}
