//! Reads the heads of HTTP/1.1 requests before the HTTP library does: what it would repair in silence, a door that passes
//! requests on must refuse, because the next program could read the same bytes differently (RFC 9112, section 11.2).
//!
//! A head that is refused never reaches the library. In its place stands an empty request, the connection's last, whose
//! extensions say why: so the caller gets an answer in the door's own words. Where messages end is followed from head to
//! head; if this lost count, the library's own reading would still hold.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::chunks::Chunks;
use super::writes::pass_writes;

/// What the library is given in place of a head that is refused.
const IN_ITS_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// The most header fields of one request.
const MAX_FIELDS: usize = 256;
const READ: usize = 16 * 1024;

/// Why the head of a connection's last request was refused.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedHead(Arc<OnceLock<Refusal>>);

/// Why a head is refused; the request that stands in its place carries it among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It could be read in two ways, or in none.
    Ambiguous(&'static str),
    /// It is longer than a head may be.
    TooLarge,
}

impl RefusedHead {
    /// The refusal, if there was one.
    pub(super) fn get(&self) -> Option<Refusal> {
        self.0.get().copied()
    }
}

/// The head of an HTTP/1.1 request as its caller wrote it, from the first line to the empty one; the request carries it
/// among its extensions where [`super::Limits::raw_heads`] says so. The library gives names in lower case only.
#[derive(Clone)]
pub struct RawHead(pub Bytes);

/// Not what stands in it, which may be about a person.
impl fmt::Debug for RawHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawHead({} bytes)", self.0.len())
    }
}

/// The heads that were passed on and whose requests have not come to the service yet: as many as the library reads ahead.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads(Arc<Mutex<VecDeque<RawHead>>>);

impl Heads {
    /// The head of the next request.
    pub(super) fn next(&self) -> Option<RawHead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn passed(&self, head: &[u8]) {
        let head = RawHead(Bytes::copy_from_slice(head));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(head);
    }
}

/// Where in the stream of requests the next byte belongs.
#[derive(Debug)]
enum Place {
    Head,
    /// A body of so many bytes more.
    Body(u64),
    Chunked(Chunks),
    /// Nothing more is read.
    Over,
    /// Not followed any more.
    Lost,
}

/// A stream whose request heads are checked.
pub(super) struct Guarded<T> {
    stream: T,
    max_head: usize,
    refused: RefusedHead,
    /// Where heads are kept as they came.
    heads: Option<Heads>,
    place: Place,
    /// Read and not yet judged.
    input: BytesMut,
    /// Judged and not yet handed on; never beyond the end of one message.
    passed: BytesMut,
}

impl<T> Guarded<T> {
    pub(super) fn new(stream: T, max_head: usize, refused: RefusedHead, heads: Option<Heads>) -> Self {
        let (input, passed) = (BytesMut::new(), BytesMut::new());
        Self { stream, max_head, refused, heads, place: Place::Head, input, passed }
    }

    /// Moves what is judged from input to passed. False if more must be read first.
    fn judge(&mut self) -> bool {
        match &mut self.place {
            // Taken off the connection, so that closing it does not take the answer along.
            Place::Over => self.input.clear(),
            Place::Lost => self.passed = self.input.split(),
            Place::Body(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                *left -= len as u64;
                self.passed = self.input.split_to(len);
                if *left == 0 {
                    self.place = Place::Head;
                }
            }
            Place::Chunked(chunks) => {
                let len = chunks.take(&self.input);
                self.passed = self.input.split_to(len);
                if chunks.is_lost() {
                    self.place = Place::Lost;
                } else if chunks.is_over() {
                    self.place = Place::Head;
                }
            }
            Place::Head => match read_head(&self.input, self.max_head) {
                Ok(None) => {}
                Ok(Some((len, after))) => {
                    self.passed = self.input.split_to(len);
                    self.place = after;
                    if let Some(heads) = &self.heads {
                        heads.passed(&self.passed);
                    }
                }
                Err(refusal) => {
                    let _ = self.refused.0.set(refusal);
                    self.passed = BytesMut::from(IN_ITS_PLACE);
                    self.place = Place::Over;
                }
            },
        }
        !self.passed.is_empty()
    }
}

/// A head's length and what follows it; none while it is incomplete.
fn read_head(input: &[u8], max_head: usize) -> Result<Option<(usize, Place)>, Refusal> {
    // Empty lines before a request are allowed (RFC 9112, section 2.2).
    if input.iter().all(|b| matches!(b, b'\r' | b'\n')) {
        return Ok(None);
    }
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(input) {
        Ok(httparse::Status::Complete(len)) if len <= max_head => len,
        Ok(httparse::Status::Partial) if input.len() <= max_head => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(error) => return Err(Refusal::Ambiguous(words(error))),
    };
    if bare_line_feed(&input[..len]) {
        return Err(Refusal::Ambiguous("a line of the head ends without a carriage return"));
    }
    let mut lengths = request.headers.iter().filter(|field| is(field, "content-length"));
    let mut codings = request.headers.iter().filter(|field| is(field, "transfer-encoding"));
    let after = match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => Place::Head,
        (Some(_), Some(_), ..) => return Err(Refusal::Ambiguous("the request says its length twice")),
        (Some(_), _, Some(_), _) => {
            return Err(Refusal::Ambiguous("the request has a content length and a transfer encoding"));
        }
        (None, _, Some(coding), None) if coding.value.eq_ignore_ascii_case(b"chunked") => {
            Place::Chunked(Chunks::default())
        }
        (None, _, Some(_), _) => {
            return Err(Refusal::Ambiguous("the request has a transfer encoding other than chunked"));
        }
        (Some(length), ..) => Place::Body(digits(length.value)?),
    };
    if request.headers.iter().filter(|field| is(field, "host")).count() > 1 {
        return Err(Refusal::Ambiguous("the request names two hosts"));
    }
    Ok(Some((len, after)))
}

fn is(field: &httparse::Header<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

fn digits(value: &[u8]) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(Refusal::Ambiguous("the content length is no number"))
}

/// Some programs take a bare line feed for the end of a line, and some do not.
fn bare_line_feed(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

fn words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => {
            "the name of a header field is not valid, or a field goes on in a second line"
        }
        httparse::Error::HeaderValue => "the value of a header field has characters that none may have",
        httparse::Error::NewLine => "a line of the head does not end as lines do",
        httparse::Error::Version => "the version of HTTP is not 1.0 or 1.1",
        _ => "the first line is not METHOD, target and version",
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed.is_empty() {
            if !this.input.is_empty() && this.judge() {
                break;
            }
            let mut space = [0; READ];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(read.filled());
        }
        let len = buffer.remaining().min(this.passed.len());
        buffer.put_slice(&this.passed[..len]);
        this.passed.advance(len);
        Poll::Ready(Ok(()))
    }
}

pass_writes!(Guarded);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn read(bytes: &[u8], step: usize) -> (Vec<u8>, Option<Refusal>) {
        let (all, refused, _) = read_with_heads(bytes, step).await;
        (all, refused)
    }

    async fn read_with_heads(bytes: &[u8], step: usize) -> (Vec<u8>, Option<Refusal>, Heads) {
        let (mut near, far) = tokio::io::duplex(step);
        let (refused, heads) = (RefusedHead::default(), Heads::default());
        let mut guarded = Guarded::new(far, 1024, refused.clone(), Some(heads.clone()));
        let bytes = bytes.to_vec();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut near, &bytes).await });
        let mut all = Vec::new();
        guarded.read_to_end(&mut all).await.unwrap();
        (all, refused.get(), heads)
    }

    #[tokio::test]
    async fn requests_pass_as_they_came() {
        let requests = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc\
            POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;x=\"1\"\r\nabc\r\n0\r\nfoot: 1\r\n\r\n\
            \r\nGET /c HTTP/1.0\r\n\r\nGET /d HTTP/1.1\r\nhost: x\r\n\r\n";
        for step in [1, 7, 4096] {
            assert_eq!(read(requests, step).await, (requests.to_vec(), None));
        }
    }

    #[tokio::test]
    async fn heads_are_kept_in_order_as_they_came_and_a_refused_one_is_not() {
        let first = "POST /a HTTP/1.1\r\nHOST: x\r\nContent-Length: 3\r\n\r\n";
        let second = "\r\nGET /b?C=%64 HTTP/1.1\r\nhost:x\r\nX-Case:  Kept \r\n\r\n";
        let refused = "GET /c HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n";
        for step in [1, 4096] {
            let requests = format!("{first}abc{second}{refused}");
            let (_, refused, heads) = read_with_heads(requests.as_bytes(), step).await;
            assert!(refused.is_some());
            for head in [first, second] {
                assert_eq!(heads.next().unwrap().0, head);
            }
            assert!(heads.next().is_none());
        }
        assert_eq!(format!("{:?}", RawHead(Bytes::from_static(b"secret"))), "RawHead(6 bytes)");
    }

    #[tokio::test]
    async fn what_could_be_read_in_two_ways_is_the_last_of_its_connection() {
        let before = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        for head in [
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3, 3\r\n",
            "content-length: +3\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "host: y\r\n",
            "a: b\r\n c\r\n",
            "a : b\r\n",
            "a: b\n",
            "a: b\0\r\n",
        ] {
            let request = format!("{before}POST /a HTTP/1.1\r\nhost: x\r\n{head}\r\nabc");
            let (passed, refused) = read(request.as_bytes(), 4096).await;
            assert_eq!(passed, [before.as_bytes(), IN_ITS_PLACE].concat(), "{head:?}");
            assert!(matches!(refused, Some(Refusal::Ambiguous(_))), "{head:?}: {refused:?}");
        }
        let long = format!("GET /a HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(1024));
        assert_eq!(read(long.as_bytes(), 4096).await.1, Some(Refusal::TooLarge));
        let endless = format!("GET /{}", "b".repeat(2000));
        assert_eq!(read(endless.as_bytes(), 4096).await.1, Some(Refusal::TooLarge));
    }
}
