//! What X-Road's clients fetch as evidence of their own calls: `GET /asic`, the containers of the exchanges of one query id, and
//! `GET /verificationconf`, what is needed to verify them offline. What is read of the log is logged before it is given out.

mod asked;
mod finding;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trave_host::config::with_causes;
use trave_proto::container::{MEDIA_TYPE, bundle};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ExchangeId, SubsystemId};
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;

use crate::exchange::{self, Caller, Exchanges, Kind};
use crate::proof::{self, Contents};
use crate::recorder::Refused;
use crate::relayed::Relayed;
use crate::turns::{Turn, Turns};
use crate::upkeep::Upkeep;
use asked::Asked;
use finding::Found;

/// Most exchanges of one query id whose containers are given out at a time.
const MOST: usize = 16;
/// Most MiB of one answer.
const MOST_MIB: u32 = 128;
/// Most MiB of all answers together, from when they are begun until they have been taken: a slow reader keeps what is its own.
const ALL_MIB: u32 = 256;
const ZIP: &str = "application/zip";

/// Gives containers to those who asked. To each subsystem one answer at a time is made, and all have room until they are taken:
/// they are put together in memory.
#[derive(Debug)]
pub(crate) struct Containers {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    turns: Turns<SubsystemId>,
    room: Arc<Semaphore>,
}

/// That an answer may be made, and room for it. It goes with the work, also where the caller has gone.
#[derive(Debug)]
struct Admitted {
    room: OwnedSemaphorePermit,
    _turn: Turn<SubsystemId>,
}

/// The bytes of an answer, with the room that they take until they have left.
struct Leaving(Bytes, #[expect(dead_code, reason = "its end gives the room back")] OwnedSemaphorePermit);

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why nothing is given out: X-Road's status, and the fault that is told and logged.
struct Refusal(StatusCode, Fault);

/// What is given out.
struct Given {
    media_type: &'static str,
    file_name: String,
    body: Bytes,
}

impl Containers {
    pub(crate) fn new(exchanges: Arc<Exchanges>, upkeep: Arc<Upkeep>) -> Self {
        let room = Arc::new(Semaphore::new(ALL_MIB as usize));
        Self { exchanges, upkeep, turns: Turns::default(), room }
    }

    /// The answer to a request for evidence; none if it is none.
    pub(crate) async fn answer(&self, caller: &Caller, parts: &Parts) -> Option<Response<Relayed>> {
        if parts.method != Method::GET {
            return None;
        }
        let given = match parts.uri.path() {
            // On the heap: what is rare does not make every call large.
            "/asic" => Box::pin(self.containers(caller, parts)).await,
            "/verificationconf" => self.configuration(),
            _ => return None,
        };
        Some(match given {
            Ok(given) => given.response(),
            Err(Refusal(status, fault)) => {
                let refused = Refused { exchange: None, fault: &fault, topic: None, peer: None };
                self.exchanges.recorder.refused(refused).await;
                let mut answer = exchange::refusal(Kind::Rest, &parts.headers, &fault, None, None);
                *answer.status_mut() = status;
                answer
            }
        })
    }

    async fn containers(&self, caller: &Caller, parts: &Parts) -> Result<Given, Refusal> {
        self.exchanges.trust.valid(Side::ClientServer).map_err(Refusal::server)?;
        let asked = Asked::read(&parts.uri).map_err(Refusal::asked)?;
        if !caller.subsystems.contains(&asked.client) {
            let why = format!("whoever signed in at this door does not speak for {}", asked.client);
            let fault = Fault::before_call(Reason::InvalidClientIdentifier, Side::Client, why);
            return Err(Refusal(StatusCode::UNAUTHORIZED, fault));
        }
        let admitted = self.admit(&asked.client)?;
        let (found, admitted) = self.find(&asked, admitted).await?;
        if asked.unique && found.len() > 1 {
            return Err(Refusal::asked(format!(
                "{} exchanges have this id: leave \"unique\" out, or name one by its trave-exchange-id",
                found.len()
            )));
        }
        if found.len() > MOST {
            return Err(Refusal::asked(format!(
                "more than {MOST} exchanges have this id, and so many are given out at a time: name them by their \
                 trave-exchange-id"
            )));
        }
        self.log_read(&asked, &found).await?;
        let mut files = Vec::new();
        for id in found {
            files.push((format!("{id}{}.asice", asked.suffix()), self.container(id, asked.contents).await?));
            if files.iter().map(|(_, file)| file.len()).sum::<usize>() > (MOST_MIB as usize) << 20 {
                let why = format!(
                    "these containers have more than {MOST_MIB} MiB: name one exchange by its trave-exchange-id, or ask the \
                     operator for it"
                );
                return Err(Refusal::asked(why));
            }
        }
        // Checksums of all these bytes: not where others wait.
        let given = tokio::task::spawn_blocking(move || {
            let given = asked.given(files)?;
            Ok(Given { body: admitted.with(given.body), ..given })
        });
        given.await.map_err(|_| Refusal::failed("the containers cannot be put together".into()))?
    }

    /// Lets a subsystem in that has no answer under way, if there is room for one more.
    fn admit(&self, client: &SubsystemId) -> Result<Admitted, Refusal> {
        let busy =
            |why: &str| Refusal::server(Fault::before_call(Reason::Overloaded, Side::ClientServer, why));
        let turn = self.turns.take(client);
        let turn =
            turn.ok_or_else(|| busy("an answer to this subsystem is being made; ask again in a moment"))?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(MOST_MIB);
        let room = room.map_err(|_| busy("containers are being made for others; ask again in a moment"))?;
        Ok(Admitted { room, _turn: turn })
    }

    /// The client's exchanges of that id, oldest first; never none. That it was let in goes with the search, which goes on also
    /// where the caller has gone.
    async fn find(&self, asked: &Asked, admitted: Admitted) -> Result<(Vec<ExchangeId>, Admitted), Refusal> {
        let log = self.exchanges.recorder.log().clone();
        let (client, id) = (asked.client.clone(), asked.query_id.clone());
        let found =
            tokio::task::spawn_blocking(move || (finding::of_client(&log, &client, &id, MOST), admitted))
                .await;
        let (found, admitted) =
            found.map_err(|_| Refusal::failed("reading the message log failed".into()))?;
        let found = match found.map_err(|error| Refusal::failed(with_causes(&error)))? {
            Found::Exchanges(found) => found,
            Found::TooMany => {
                let why = "more calls of all clients have this id than are looked through: name one by its trave-exchange-id";
                return Err(Refusal::asked(why.into()));
            }
        };
        if found.is_empty() {
            let fault = Fault::before_call(Reason::InvalidMessage, Side::Client, NOT_FOUND);
            return Err(Refusal(StatusCode::NOT_FOUND, fault));
        }
        Ok((found, admitted))
    }

    /// Logs who gets which exchanges. The query id is the caller's own words, perhaps about a person: it is in no record.
    async fn log_read(&self, asked: &Asked, found: &[ExchangeId]) -> Result<(), Refusal> {
        let ids: Vec<_> = found.iter().map(ToString::to_string).collect();
        let read = LogRead {
            reader: format!("agency {}", asked.client),
            reason: "evidence of its own calls".into(),
            query: format!("container{} of {}", asked.contents.words(), ids.join(" ")),
            results: found.len() as u64,
        };
        let logged = self.exchanges.recorder.event(LeafEntry::Read(read), Vec::new()).await;
        logged.map(|_| ()).map_err(|error| {
            let why = format!("that this is read cannot be logged: {}", with_causes(&error));
            Refusal::server(Fault::before_call(Reason::LoggingFailed, Side::ClientServer, why))
        })
    }

    async fn container(&self, id: ExchangeId, contents: Contents) -> Result<Bytes, Refusal> {
        let made = proof::export_container(&self.exchanges, &self.upkeep, id, contents).await;
        made.map_err(|error| Refusal::failed(format!("the container of {id}: {}", with_causes(&error))))
    }

    /// The configuration anchor and the global configuration in use: both are public, nothing of the log is read.
    fn configuration(&self) -> Result<Given, Refusal> {
        let snapshot = self.exchanges.trust.valid(Side::ClientServer).map_err(Refusal::server)?;
        let configuration = snapshot.configuration.signed().encode_to_vec();
        let files = vec![
            ("verificationconf/README.txt".to_owned(), Bytes::from_static(README.as_bytes())),
            ("verificationconf/anchor".to_owned(), self.exchanges.trust.anchor().bytes().clone()),
            ("verificationconf/configuration.bin".to_owned(), configuration.into()),
        ];
        let body = bundle(files).map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(Given { media_type: ZIP, file_name: "verificationconf.zip".into(), body })
    }
}

const NOT_FOUND: &str = "no signed documents found: no exchange of this client has this id, among those that this security server \
                         still knows";
const README: &str = "anchor              the configuration anchor, for trave-verify --anchor
configuration.bin   the global configuration in use, signed as the anchor demands

Whoever got this file from the security server whose evidence it is to judge compares the anchor with one from elsewhere:
an anchor is as trustworthy as whoever hands it over.
";

impl Asked {
    fn given(&self, mut files: Vec<(String, Bytes)>) -> Result<Given, Refusal> {
        let name = self.file_name();
        if self.unique && files.len() == 1 {
            let (_, body) = files.remove(0);
            return Ok(Given { media_type: MEDIA_TYPE, file_name: format!("{name}.asice"), body });
        }
        let body = bundle(files).map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(Given { media_type: ZIP, file_name: format!("{name}.zip"), body })
    }
}

impl Admitted {
    /// The bytes that have the room now: what was reserved beyond them is free.
    fn with(mut self, bytes: Bytes) -> Bytes {
        let needed = bytes.len().div_ceil(1 << 20);
        drop(self.room.split((MOST_MIB as usize).saturating_sub(needed)));
        Bytes::from_owner(Leaving(bytes, self.room))
    }
}

impl Given {
    fn response(self) -> Response<Relayed> {
        let mut response = Response::new(Relayed::counted(self.body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        // Letters, digits, dots and hyphens alone.
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", self.file_name)) {
            headers.insert(CONTENT_DISPOSITION, value);
        }
        response
    }
}

impl Refusal {
    /// What was asked for is not as it must be.
    fn asked(why: String) -> Self {
        Self(StatusCode::BAD_REQUEST, Fault::before_call(Reason::InvalidMessage, Side::Client, why))
    }

    fn failed(why: String) -> Self {
        Self::server(Fault::before_call(Reason::InternalError, Side::ClientServer, why))
    }

    fn server(fault: Fault) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, fault)
    }
}
