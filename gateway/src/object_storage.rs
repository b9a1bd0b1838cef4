//! Where the message log's archive stands: in a directory, or in S3-compatible object storage, which is asked with requests
//! signed with AWS Signature Version 4, each over an HTTP/1.1 connection of its own.
//!
//! What is put there is sealed already; the storage is trusted with keeping it, not with what it says. An object is put by one
//! request, so that it is there whole or not at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::uri::Scheme;
use http::{Method, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls_pki_types::ServerName;
use rusty_s3::actions::{DeleteObject, GetObject, ListObjectsV2, PutObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use tokio::runtime::{Builder, Runtime};
use trave_host::client::{Fetch, FetchError};
use trave_host::files::{self, FileError};
use trave_host::tls::{self, Authority, Http, TlsError};
use trave_message_log::{ArchiveStore, DirectoryStore, Fill, LogError};
use trave_proto::clock::Clock;

use crate::config::{Config, ObjectStorage as Settings};

/// How long a signed request may be used.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// How long the storage may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slowest line that is waited for, in bytes a second: an upload has so much more time.
const SLOWEST: u64 = 256 << 10;
/// The largest object that is read, in bytes: more than any that is written.
const LARGEST: u64 = 5 << 30;
/// The largest answer that is not an object, in bytes.
const LARGEST_ANSWER: usize = 4 << 20;
/// The most pages of a list, of a thousand names each.
const PAGES: usize = 1_000;
/// The longest name of an object of ours; others are nobody's here.
const LONGEST_NAME: usize = 200;
/// How long a list may take, all its pages together.
const LISTED_WITHIN: Duration = Duration::from_secs(600);
const PIECE: u64 = 64 << 10;

/// Why the object storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("archive.object_storage.credentials_file cannot be read")]
    Credentials(#[source] FileError),
    #[error(
        "archive.object_storage.credentials_file does not hold two lines, the access key's id and the secret key"
    )]
    NoCredentials,
    #[error("archive.object_storage.endpoint is no address of a storage: {0}")]
    Endpoint(String),
    #[error("TLS to the object storage cannot be set up")]
    Tls(#[source] TlsError),
    #[error("this system gives no means to connect")]
    Runtime(#[source] io::Error),
    #[error("the object storage is not reached")]
    Fetch(#[source] FetchError),
    #[error("the object storage said nothing for {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the object storage is slower than {SLOWEST} bytes a second")]
    TooSlow,
    #[error("the object storage answered {status}{said}")]
    Refused { status: StatusCode, said: String },
    #[error("the object storage broke off")]
    Broken(#[source] hyper::Error),
    #[error("the object storage's list of objects cannot be read: {0}")]
    List(String),
    #[error("the object is larger than {LARGEST} bytes")]
    TooLarge,
}

/// Where the archive of this configuration stands; none if there is none.
pub(crate) fn archive_store(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Box<dyn ArchiveStore>>, StorageError> {
    if let Some((settings, credentials, authorities)) = config.archive_storage() {
        let files = (&*credentials, authorities.as_deref());
        let storage = ObjectStorage::new(settings, files, config.data(), Arc::clone(clock))?;
        return Ok(Some(Box::new(storage)));
    }
    let directory = config.archive_directory();
    Ok(directory.map(|directory| Box::new(DirectoryStore::new(directory)) as Box<dyn ArchiveStore>))
}

/// A bucket of an object storage, below a prefix.
pub(crate) struct ObjectStorage {
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    fetch: Fetch,
    /// Where an object stands until it is put: it has a length only then.
    scratch: PathBuf,
}

impl ObjectStorage {
    /// As the configuration says. `scratch` is a directory of this server's own.
    pub(crate) fn new(
        settings: &Settings,
        (credentials, authorities): (&Path, Option<&Path>),
        scratch: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StorageError> {
        let endpoint = settings.endpoint.as_str();
        let wrong = |why: &dyn fmt::Display| StorageError::Endpoint(why.to_string());
        let url = endpoint.parse().map_err(|error| wrong(&error))?;
        let (name, region) = (settings.bucket.clone(), settings.region.clone());
        let bucket = Bucket::new(url, UrlStyle::Path, name, region).map_err(|error| wrong(&error))?;
        let uri: Uri = endpoint.parse().map_err(|error| wrong(&error))?;
        let tls = match uri.scheme() == Some(&Scheme::HTTPS) {
            true => Some(over_tls(&uri, authorities, clock)?),
            false => None,
        };
        let secret = files::read_secret(credentials).map_err(StorageError::Credentials)?;
        let text = std::str::from_utf8(&secret).map_err(|_| StorageError::NoCredentials)?;
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let [key, secret] = lines[..] else { return Err(StorageError::NoCredentials) };
        Ok(Self {
            bucket,
            credentials: Credentials::new(key, secret),
            prefix: settings.prefix.clone(),
            fetch: Fetch::new(tls),
            scratch,
        })
    }

    fn place_of(&self) -> &str {
        self.bucket.base_url().as_str().trim_end_matches('/')
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Asks by a signed address and waits for the head of the answer, on this thread. An answer with another status than one
    /// of those `expected` is an error, in which the storage's own word stands.
    fn ask(
        &self,
        (method, address): (Method, &str),
        body: Upload,
        expected: &[StatusCode],
    ) -> Result<Answer, StorageError> {
        let uri: Uri = address.parse().map_err(|_| StorageError::Endpoint("not a URL".into()))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StorageError::Runtime)?;
        let time = PATIENCE + Duration::from_secs(body.left / SLOWEST);
        let asked = runtime.block_on(async {
            tokio::time::timeout(time, self.fetch.open(method, &uri, body))
                .await
                .map_err(|_| StorageError::Silent)
        });
        let response = asked?.map_err(StorageError::Fetch)?;
        let status = response.status();
        let mut answer = Answer::new(runtime, response);
        if expected.contains(&status) {
            return Ok(answer);
        }
        let said = answer.whole().map(|said| code_of(&said)).unwrap_or_default();
        Err(StorageError::Refused { status, said })
    }

    fn page(&self, after: Option<&str>) -> Result<(Vec<String>, Option<String>), StorageError> {
        let mut list = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
        list.with_prefix(&*self.prefix);
        if let Some(token) = after {
            list.with_continuation_token(token.to_owned());
        }
        let address = list.sign(SIGNED_FOR);
        let mut answer = self.ask((Method::GET, address.as_str()), Upload::nothing(), &[StatusCode::OK])?;
        let text = answer.whole()?;
        let text = std::str::from_utf8(&text).map_err(|error| StorageError::List(error.to_string()))?;
        let page =
            ListObjectsV2::parse_response(text).map_err(|error| StorageError::List(error.to_string()))?;
        let ours = |name: &&str| name.len() <= LONGEST_NAME && !name.contains('/');
        let own = |key: &str| key.strip_prefix(&self.prefix).filter(ours).map(str::to_owned);
        Ok((page.contents.iter().filter_map(|it| own(&it.key)).collect(), page.next_continuation_token))
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        let (mut names, mut after, begun) = (Vec::new(), None, Instant::now());
        for _ in 0..PAGES {
            if begun.elapsed() > LISTED_WITHIN {
                return Err(StorageError::TooSlow);
            }
            let (page, next) = self.page(after.as_deref())?;
            names.extend(page);
            let Some(next) = next else { return Ok(names) };
            after = Some(next);
        }
        Err(StorageError::List("it does not end".into()))
    }

    fn failed(&self, what: &'static str, name: &str) -> impl FnOnce(StorageError) -> LogError {
        let path = PathBuf::from(format!("{}/{}", self.place_of(), self.named(name)));
        move |source| LogError::Disk { what, path, source: Arc::new(io::Error::other(source)) }
    }
}

/// TLS 1.3 under the authorities that the operator names, and no others.
fn over_tls(
    uri: &Uri,
    authorities: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Result<tls::Client, StorageError> {
    let Some(authorities) = authorities else {
        return Err(StorageError::Endpoint("https needs archive.object_storage.authorities".into()));
    };
    let authorities = tls::chain_from_pem(authorities).map_err(StorageError::Tls)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| StorageError::Endpoint(error.to_string()))?;
    let policy = Authority::for_server(&authorities, name).map_err(StorageError::Tls)?;
    tls::Client::new(None, Arc::new(policy), Http::One, clock).map_err(StorageError::Tls)
}

impl ArchiveStore for ObjectStorage {
    fn place(&self) -> String {
        format!("the object storage {}/{}", self.place_of(), self.prefix)
    }

    fn put(&self, name: &str, fill: Fill<'_>) -> Result<(), LogError> {
        let disk = |what| {
            let path = self.scratch.clone();
            move |source| LogError::Disk { what, path, source: Arc::new(source) }
        };
        // Without a name: a crash leaves nothing of it.
        let mut file = tempfile::tempfile_in(&self.scratch).map_err(disk("create a file in"))?;
        let mut written = io::BufWriter::new(&mut file);
        fill(&mut written)?;
        written.flush().map_err(disk("write a file in"))?;
        drop(written);
        let upload = Upload::of(file).map_err(disk("read a file in"))?;
        let key = self.named(name);
        let address = PutObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let answer = self.ask((Method::PUT, address.as_str()), upload, &[StatusCode::OK]);
        answer.map(drop).map_err(self.failed("put", name))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, LogError> {
        let key = self.named(name);
        let address = GetObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let answer = self.ask((Method::GET, address.as_str()), Upload::nothing(), &[StatusCode::OK]);
        Ok(Box::new(answer.map_err(self.failed("get", name))?))
    }

    fn list(&self) -> Result<Vec<String>, LogError> {
        self.names().map_err(self.failed("list", ""))
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        let key = self.named(name);
        let address = DeleteObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let gone = [StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::NOT_FOUND];
        let answer = self.ask((Method::DELETE, address.as_str()), Upload::nothing(), &gone);
        answer.map(drop).map_err(self.failed("remove", name))
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStorage({}/{})", self.place_of(), self.prefix)
    }
}

/// The storage's name for what is wrong, as its errors in XML have it, for a person.
fn code_of(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let plain = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    code.map(|(code, _)| code).filter(plain).map(|code| format!(" ({code})")).unwrap_or_default()
}

/// An answer that is read on this thread.
struct Answer {
    body: Incoming,
    piece: Bytes,
    received: u64,
    /// How long it was waited for; what the reader takes for itself does not count.
    waited: Duration,
    /// Ends after the body, which needs it.
    runtime: Runtime,
}

impl Answer {
    fn new(runtime: Runtime, response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), piece: Bytes::new(), received: 0, waited: Duration::ZERO, runtime }
    }

    /// All of it, if it is no larger than such answers are.
    fn whole(&mut self) -> Result<Bytes, StorageError> {
        let body = Limited::new(&mut self.body, LARGEST_ANSWER);
        let read = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, body.collect()).await });
        let read = read.map_err(|_| StorageError::Silent)?;
        read.map(|body| body.to_bytes()).map_err(|error| StorageError::List(error.to_string()))
    }

    fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let begun = Instant::now();
        let frame = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.body.frame()).await });
        self.waited += begun.elapsed();
        if self.waited > PATIENCE + Duration::from_secs(self.received / SLOWEST) {
            return Err(StorageError::TooSlow);
        }
        match frame.map_err(|_| StorageError::Silent)? {
            None => Ok(None),
            Some(frame) => {
                let data = frame.map_err(StorageError::Broken)?.into_data().unwrap_or_default();
                self.received += data.len() as u64;
                if self.received > LARGEST {
                    return Err(StorageError::TooLarge);
                }
                Ok(Some(data))
            }
        }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.next().map_err(io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(buffer.len().min(self.piece.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// The body of a request: a file from its beginning, or nothing.
struct Upload {
    file: Option<File>,
    left: u64,
}

impl Upload {
    const fn nothing() -> Self {
        Self { file: None, left: 0 }
    }

    fn of(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let left = file.metadata()?.len();
        Ok(Self { file: Some(file), left })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads the file on the thread that waits for the request anyhow.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let len = self.left.min(PIECE);
        let Some(file) = self.file.as_mut().filter(|_| len > 0) else { return Poll::Ready(None) };
        let mut piece = BytesMut::zeroed(usize::try_from(len).unwrap_or_default());
        let read = file.read_exact(&mut piece);
        self.left -= len;
        Poll::Ready(Some(read.map(|()| Frame::data(piece.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_word_of_the_storage_is_told() {
        let said = b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code></Error>";
        assert_eq!(code_of(said), " (SignatureDoesNotMatch)");
        for other in [&b"<Code>a b\x1b[31m</Code>"[..], b"<Code>", b"\xff", &[b'a'; 9000]] {
            assert_eq!(code_of(other), "");
        }
    }
}
