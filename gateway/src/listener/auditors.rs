//! The door for auditors: gRPC, and the log's tiles, over mutual TLS 1.3, each auditor known by a key that the global configuration
//! binds to a role and a scope. Whatever is asked is logged first, with the reason, and shown to the other auditors when they ask what was read.

mod export;
mod guesses;
mod persons;
mod scan;
mod tiles;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trave_host::config::with_causes;
use trave_host::drain::Drain;
use trave_host::listen::{Connection, Counts, Limits, ListenError, Listener, TowerToHyperService};
use trave_host::stubs::audit::audit_service_server::{AuditService, AuditServiceServer};
use trave_host::tls::{self, Clients, Http, Identity, PeerPolicy, TlsError};
use trave_message_log::LogError;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::audit::{
    AskPersonSearchRequest, AskPersonSearchResponse, CountRequest, CountResponse, Counted, ExportRequest,
    ExportResponse, ListReadsRequest, ListReadsResponse, PageEnd, ReleasePersonSearchRequest,
    ReleasePersonSearchResponse, ScanRequest, ScanResponse, SearchPersonRequest, SearchPersonResponse,
    SearchRequest, SearchResponse, WhoAmIRequest, WhoAmIResponse, search_response::Part,
};
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;

use super::agency::{AgencyDoorError, pin};
use crate::audit::{Hit, Question, Records, Scope, counted_by};
use crate::auditors::{Auditor, Auditors, Narrowed};
use crate::config::{self, Config};
use crate::custody::Layout;
use crate::exchange::Exchanges;
use crate::trust::Trust;
use crate::upkeep::Upkeep;

/// Auditors' programs at a time.
const CONNECTIONS: usize = 32;
/// Longest request, in bytes: the ids of as many exchanges as one export may name, and as much again.
const MAX_REQUEST: usize = 512 * 1024;
/// Questions at a time, of all auditors together; more are refused at once.
const QUESTIONS: usize = 4;
/// Parts of an answer that wait for a slow reader.
const WAITING: usize = 16;
/// Longest reason, in characters.
const MAX_WORDS: usize = 500;
/// Most readings that are listed, and how many where nothing is said.
const READS: (u32, u32) = (1_000, 100);

/// With which key somebody signed in, as the connection tells its questions.
#[derive(Debug, Clone, Copy)]
struct SignedIn(Digest);

/// An open door, not yet served.
#[derive(Debug)]
pub(crate) struct AuditorsDoor {
    listener: Listener,
    known: Arc<Auditors>,
    guesses: guesses::Guesses,
}

/// Why the door for auditors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditorsDoorError {
    /// Its address cannot be had.
    #[error("the address cannot be had")]
    Listen(#[source] ListenError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// An auditor's certificate is not usable.
    #[error("the certificate of the auditor {name:?} is not usable")]
    Certificate {
        /// Whose.
        name: String,
        /// What is wrong with it.
        source: AgencyDoorError,
    },
}

impl AuditorsDoor {
    /// Opens the door as configured; `identity` is what the server shows.
    pub(crate) async fn open(
        config: &Config,
        auditors: &config::Auditors,
        (identity, trust): (Arc<Identity>, Arc<Trust>),
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, AuditorsDoorError> {
        let mut narrowed = HashMap::new();
        for auditor in &auditors.auditor {
            let name = auditor.name.trim().to_owned();
            let key = auditor.certificate().map(|certificate| pin(&config.path(certificate))).transpose();
            let key = key.map_err(|source| AuditorsDoorError::Certificate { name: name.clone(), source })?;
            let members = auditor.members.iter().map(|member| member.0.clone()).collect();
            let scope = Scope { classes: auditor.classes.clone(), members };
            narrowed.insert(name, Narrowed { role: auditor.role, key, scope, contents: auditor.contents });
        }
        let known = Arc::new(Auditors::new(trust, narrowed));
        let clients = Clients::Known(Arc::clone(&known) as Arc<dyn PeerPolicy>);
        let server = tls::Server::new(identity, clients, Http::TwoOrOne, Arc::clone(clock));
        let listener = Listener::tls(auditors.listen, server.map_err(AuditorsDoorError::Tls)?).await;
        let limits = config.limits.at_door(Limits { connections: CONNECTIONS, ..Limits::default() });
        let listener = listener.map_err(AuditorsDoorError::Listen)?.with_limits(limits);
        let (most, state) = (auditors.references_per_hour, Layout::new(config.data()).state());
        let guesses = tokio::task::spawn_blocking(move || guesses::Guesses::open(most, &state)).await;
        let guesses = guesses.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        Ok(Self { listener, known, guesses })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr()
    }

    /// What happens at it.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.listener.counts()
    }

    /// Serves until the server drains.
    pub(crate) async fn serve(
        self,
        records: Records,
        (exchanges, upkeep): (Arc<Exchanges>, Arc<Upkeep>),
        drain: Drain,
    ) {
        let Self { listener, known, guesses } = self;
        let guesses = Arc::new(guesses);
        let (questions, exports) = (Arc::new(Semaphore::new(QUESTIONS)), Arc::default());
        let persons = Arc::default();
        let desk = Desk { exchanges, upkeep, records, known, questions, exports, persons, guesses };
        let tiles = tiles::routes(&desk);
        let service = AuditServiceServer::new(desk).max_decoding_message_size(MAX_REQUEST);
        let router = tonic::service::Routes::new(service).into_axum_router().merge(tiles);
        listener
            .serve(drain, move |connection: &mut Connection| {
                let key = connection.chain.first().and_then(|shown| tls::public_key_digest(shown).ok());
                if let Some(key) = key {
                    connection.extensions.insert(SignedIn(key));
                }
                TowerToHyperService::new(router.clone())
            })
            .await;
    }
}

#[derive(Debug, Clone)]
struct Desk {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    records: Records,
    known: Arc<Auditors>,
    questions: Arc<Semaphore>,
    /// One proof at a time: it is put together in memory.
    exports: Arc<tokio::sync::Mutex<()>>,
    persons: Arc<persons::PersonSearches>,
    guesses: Arc<guesses::Guesses>,
}

/// A question that was let in: who asks, and why. It holds its place until the answer has gone.
#[derive(Debug)]
struct Asked {
    auditor: Arc<Auditor>,
    reason: String,
    place: Arc<OwnedSemaphorePermit>,
}

impl Desk {
    fn asked<T>(&self, request: &Request<T>, reason: &str) -> Result<Asked, Status> {
        let auditor = self.auditor(request)?;
        let reason = words(reason)?;
        let place = Arc::clone(&self.questions).try_acquire_owned().map_err(|_| {
            let why =
                format!("{QUESTIONS} questions of auditors are being answered\nhint: ask again in a moment");
            Status::resource_exhausted(why)
        })?;
        Ok(Asked { auditor, reason, place: Arc::new(place) })
    }

    /// Who asks, by the configuration in use now.
    fn auditor<T>(&self, request: &Request<T>) -> Result<Arc<Auditor>, Status> {
        let stranger = || Status::unauthenticated("this certificate is no auditor's here");
        let SignedIn(key) = request.extensions().get::<SignedIn>().ok_or_else(stranger)?;
        self.known.find(key).map(Arc::new).map_err(Status::unauthenticated)
    }

    /// Whether the answer may go on: not if the auditor was withdrawn since, or may see less now.
    fn still(&self, asked: &Asked) -> Result<(), Status> {
        let Auditor { key, scope, contents, .. } = &*asked.auditor;
        let now = self.known.find(key).map_err(Status::unauthenticated)?;
        if now.scope != *scope || (*contents && !now.contents) {
            return Err(Status::aborted("what this auditor may see has changed\nhint: ask again"));
        }
        Ok(())
    }

    /// Logs that an auditor reads, before anything is shown.
    async fn log_read(&self, asked: &Asked, query: String, results: u64) -> Result<(), Status> {
        let read = LogRead { reader: asked.auditor.reader(), reason: asked.reason.clone(), query, results };
        let logged = self.exchanges.recorder.event(LeafEntry::Read(read), Vec::new()).await;
        logged.map(|_| ()).map_err(|error| failed(&error))
    }

    /// How a page ends.
    fn end(&self, entries: usize, cursor: Bytes) -> PageEnd {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        PageEnd { entries, cursor, unreadable_generations: self.records.unreadable() }
    }

    /// Runs what reads the disk where nobody waits for it. It keeps the question's place, also where whoever asked has gone.
    async fn reading<T: Send + 'static>(
        &self,
        asked: &Asked,
        read: impl FnOnce(&Records) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, Status> {
        let records = self.records.clone();
        let place = Arc::clone(&asked.place);
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&records)
        });
        let read = read.await;
        read.map_err(|_| Status::internal("reading the message log failed"))?.map_err(|error| failed(&error))
    }
}

/// A reason that is logged: of one line, not empty, not endless.
fn words(text: &str) -> Result<String, Status> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Status::invalid_argument("the reason is missing: it is logged with the query"));
    }
    if text.chars().count() > MAX_WORDS || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "the reason is not one line of at most {MAX_WORDS} characters"
        )));
    }
    Ok(text.to_owned())
}

fn exchange_id(bytes: &[u8]) -> Result<ExchangeId, Status> {
    ExchangeId::from_slice(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn failed(error: &LogError) -> Status {
    match error {
        LogError::NotIndexed { .. } => Status::unavailable(error.to_string()),
        error => Status::unavailable(format!("the message log failed: {}", with_causes(error))),
    }
}

/// What a record says of a reading, or of a search by person that was asked for or released.
fn read_of(entry: LeafEntry) -> Option<LogRead> {
    let of = |what: &str, id: &[u8], reader, reason| {
        let query = format!("{what} the search by person {}", hex::encode(id));
        LogRead { reader, reason, query, results: 0 }
    };
    match entry {
        LeafEntry::Read(read) => Some(read),
        LeafEntry::PersonSearchAsked(asked) => Some(of("asks for", &asked.id, asked.reader, asked.reason)),
        LeafEntry::PersonSearchReleased(it) => Some(of("releases", &it.id, it.releaser, it.reason)),
        _ => None,
    }
}

/// An answer whose parts are all known; the question's place is kept until they are taken.
fn answer<T: Send + 'static>(parts: Vec<T>, asked: Asked) -> Response<ReceiverStream<Result<T, Status>>> {
    let (sender, answer) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _asked = asked;
        for part in parts {
            // A reader who has gone needs no more.
            if sender.send(Ok(part)).await.is_err() {
                return;
            }
        }
    });
    Response::new(ReceiverStream::new(answer))
}

type Answer<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AuditService for Desk {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let auditor = self.auditor(&request)?;
        let own = &self.exchanges.own;
        Ok(Response::new(WhoAmIResponse {
            name: auditor.name.clone(),
            role: auditor.role.as_str().into(),
            classes: auditor.scope.classes.clone(),
            members: auditor.scope.members.iter().map(ToString::to_string).collect(),
            contents: auditor.contents,
            server: own.server.to_string(),
            log_origin: own.log_origin.clone(),
            log_size: self.records.current().log.size(),
            generations: self.records.told(),
        }))
    }

    type SearchStream = Answer<SearchResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        let request = request.into_inner();
        let (filter, scope) = (request.filter.unwrap_or_default(), asked.auditor.scope.clone());
        let (query, entries, cursor) = if request.exchange_id.is_none() {
            let question = Question::read(filter, &scope).map_err(Status::invalid_argument)?;
            let newest_first = !request.oldest_first;
            let page = question.which(newest_first, request.page_size, &request.cursor);
            let page = page.map_err(Status::invalid_argument)?;
            let order = if newest_first { "" } else { " oldest_first" };
            let next = if request.cursor.is_empty() { "" } else { " (a further page)" };
            let query = format!("search{question}{order}{next}");
            if question.is_by_reference() {
                self.may_guess(&asked, &query).await?;
            }
            let found = self.reading(&asked, move |records| {
                let (hits, cursor) = question.page(records, &page)?;
                let entries = hits.iter().map(|hit| records.entry(hit, &scope));
                let entries = entries.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
                Ok((entries, cursor.unwrap_or_default()))
            });
            let (entries, cursor) = found.await?;
            (query, entries, cursor)
        } else {
            if filter != Default::default() || !request.cursor.is_empty() {
                return Err(Status::invalid_argument(
                    "one exchange is asked for without a filter and a cursor",
                ));
            }
            let id = exchange_id(&request.exchange_id.unwrap_or_default())?;
            let entries = self.reading(&asked, move |records| records.exchange(id, &scope)).await?;
            (format!("search exchange={id}"), entries, Bytes::new())
        };
        self.log_read(&asked, query, entries.len() as u64).await?;
        let end = self.end(entries.len(), cursor);
        let parts = entries.into_iter().map(Part::Entry).chain([Part::End(end)]);
        Ok(answer(parts.map(|part| SearchResponse { part: Some(part) }).collect(), asked))
    }

    async fn count(&self, request: Request<CountRequest>) -> Result<Response<CountResponse>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        let CountRequest { filter, by, .. } = request.into_inner();
        let key = counted_by(&by).map_err(Status::invalid_argument)?;
        let question = Question::read(filter.unwrap_or_default(), &asked.auditor.scope);
        let question = question.map_err(Status::invalid_argument)?;
        let query = format!("count by={by}{question}");
        if question.is_by_reference() {
            self.may_guess(&asked, &query).await?;
        }
        let counts = self.reading(&asked, move |records| question.count(records, key)).await?;
        self.log_read(&asked, query, counts.len() as u64).await?;
        let counts = counts.into_iter().map(|(value, exchanges)| Counted { value, exchanges }).collect();
        let unreadable_generations = self.records.unreadable();
        Ok(Response::new(CountResponse { counts, unreadable_generations }))
    }

    type ExportStream = Answer<ExportResponse>;

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        self.exported(request.into_inner(), asked)
    }

    type ScanStream = Answer<ScanResponse>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        self.scanned(request.into_inner(), asked).await
    }

    async fn ask_person_search(
        &self,
        request: Request<AskPersonSearchRequest>,
    ) -> Result<Response<AskPersonSearchResponse>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        self.asked_for(request.into_inner(), asked).await
    }

    async fn release_person_search(
        &self,
        request: Request<ReleasePersonSearchRequest>,
    ) -> Result<Response<ReleasePersonSearchResponse>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        self.released(request.into_inner(), asked).await
    }

    type SearchPersonStream = Answer<SearchPersonResponse>;

    async fn search_person(
        &self,
        request: Request<SearchPersonRequest>,
    ) -> Result<Response<Self::SearchPersonStream>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        self.by_person(request.into_inner(), asked).await
    }

    type ListReadsStream = Answer<ListReadsResponse>;

    async fn list_reads(
        &self,
        request: Request<ListReadsRequest>,
    ) -> Result<Response<Self::ListReadsStream>, Status> {
        let asked = self.asked(&request, &request.get_ref().reason)?;
        let ListReadsRequest { from_ms, to_ms, limit, .. } = request.into_inner();
        let limit = if limit == 0 { READS.1 } else { limit };
        if limit > READS.0 {
            return Err(Status::invalid_argument(format!("at most {} readings are listed", READS.0)));
        }
        let reads =
            self.reading(&asked, move |records| records.reads(from_ms, to_ms, limit as usize)).await?;
        self.log_read(&asked, "reads".into(), reads.len() as u64).await?;
        let reads = reads.into_iter().filter_map(|(Hit { generation, place: index }, leaf)| {
            let (time_ms, read) = (leaf.logged_ms, read_of(leaf.entry?)?);
            let LogRead { reader, reason, query, results } = read;
            Some(ListReadsResponse { index, time_ms, reader, reason, query, results, generation })
        });
        Ok(answer(reads.collect(), asked))
    }
}
