//! Who asked about me: the answer to a person, given to a data-protection cockpit that has made sure who the person is, or
//! to the operator. Every question is logged before anything is shown, without the person; both cockpits and persons are
//! asked for so often and no more.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trave_host::config::Secret;
use trave_host::drain::Drain;
use trave_host::keys::SigningKey;
use trave_host::listen::{Connection, Counts, Limits, Listener, TowerToHyperService};
use trave_host::stubs::citizen::citizen_service_server::{CitizenService, CitizenServiceServer};
use trave_host::tls::{self, Clients, Http, Identity, Pinned};
use trave_message_log::{Concerned, Log, Person};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::{MemberId, ServiceId, SubsystemId};
use trave_proto::schema::citizen::{WhoAskedRequest, WhoAskedResponse};
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::operator::ListLogResponse;

use super::agency::{AgencyDoorError, pin};
use super::operator::{log_failed, reading, who, words};
use crate::config::{Cockpit, Config};
use crate::exchange::Exchanges;
use crate::journal::{self, Found};
use crate::upkeep::Upkeep;

/// Longest request, in bytes.
pub(super) const MAX_REQUEST: usize = 16 * 1024;
/// Most exchanges in one answer; whoever wants the rest goes on from the last.
const MOST: usize = 1_000;
/// Entries that wait for a slow reader.
const WAITING: usize = 16;
/// Questions of one cockpit in a minute.
const PER_READER: u32 = 60;
/// Questions about one person in an hour, whoever asks.
const PER_PERSON: u32 = 30;
/// Persons whose questions are counted at a time. With more, the oldest are forgotten.
const COUNTED: u64 = 100_000;

/// Who may ask, by what TLS or the door itself says.
#[derive(Debug, Clone)]
enum Readers {
    /// Whoever may come in at the operator's door.
    Operator,
    /// Cockpits, by the SHA-256 of their certificate's public key.
    Cockpits(Arc<HashMap<Digest, MemberId>>),
}

/// How often was asked lately. In memory alone, and of a person no more than a hash with a key of this process.
#[derive(Debug)]
pub(crate) struct Asked {
    key: RandomState,
    readers: Cache<String, Arc<AtomicU32>>,
    persons: Cache<u64, Arc<AtomicU32>>,
}

impl Default for Asked {
    fn default() -> Self {
        let cache = |seconds| Cache::builder().time_to_live(Duration::from_secs(seconds));
        Self {
            key: RandomState::new(),
            readers: cache(60).max_capacity(1_024).build(),
            persons: Cache::builder().time_to_live(Duration::from_secs(3_600)).max_capacity(COUNTED).build(),
        }
    }
}

impl Asked {
    fn count(&self, reader: &str, person: &Person) -> Result<(), Status> {
        let by = self.readers.get_with(reader.to_owned(), Arc::default);
        let about = self.persons.get_with(self.key.hash_one(person), Arc::default);
        let often = |counter: &AtomicU32, most| counter.fetch_add(1, Ordering::Relaxed) >= most;
        if often(&by, PER_READER) {
            let why = format!("more than {PER_READER} questions in a minute\nhint: ask again in a minute");
            return Err(Status::resource_exhausted(why));
        }
        if often(&about, PER_PERSON) {
            let why =
                format!("more than {PER_PERSON} questions about one person in an hour\nhint: ask later");
            return Err(Status::resource_exhausted(why));
        }
        Ok(())
    }
}

/// Answers persons' questions.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    readers: Readers,
    asked: Arc<Asked>,
}

/// The desk at the operator's door.
pub(super) fn for_operator(exchanges: &Arc<Exchanges>, upkeep: &Arc<Upkeep>) -> CitizenServiceServer<Desk> {
    let (exchanges, upkeep) = (Arc::clone(exchanges), Arc::clone(upkeep));
    let desk = Desk { exchanges, upkeep, readers: Readers::Operator, asked: Arc::default() };
    CitizenServiceServer::new(desk).max_decoding_message_size(MAX_REQUEST)
}

/// The person of a request; why it is none, without the identifier.
pub(super) fn person(text: &str) -> Result<Person, Status> {
    Person::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

impl Desk {
    fn reader<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let Readers::Cockpits(known) = &self.readers else { return who(request, "") };
        let connection = request.extensions().get::<Connection>();
        let key = connection.and_then(|connection| tls::public_key_digest(connection.chain.first()?).ok());
        let authority = key.and_then(|key| known.get(&key));
        let authority =
            authority.ok_or_else(|| Status::permission_denied("this certificate may not ask here"))?;
        Ok(format!("cockpit of {authority}"))
    }

    /// The exchanges that concern a person, each once, in the order of the log, and which log that is: first those of earlier
    /// generations, all of them.
    async fn found(&self, person: Person, after: Option<u64>) -> Result<Vec<(Log, Concerned)>, Status> {
        let log = self.exchanges.recorder.log().clone();
        let generations = Arc::clone(self.upkeep.erasing().generations());
        let from = after.map_or(0, |after| after.saturating_add(1));
        reading(move || {
            let earlier = generations.all().iter().filter(|_| after.is_none());
            let earlier = earlier.map(|generation| (generation.log().clone(), usize::MAX));
            let mut all = Vec::new();
            for (log, most) in earlier.chain([(log, MOST)]) {
                let mut found = log.of_person(&person, from, most)?;
                found.dedup_by_key(|one| one.exchange);
                found.truncate(most);
                all.extend(found.into_iter().map(|one| (log.clone(), one)));
            }
            Ok(all)
        })
        .await
    }
}

#[tonic::async_trait]
impl CitizenService for Desk {
    type WhoAskedStream = ReceiverStream<Result<WhoAskedResponse, Status>>;

    async fn who_asked(
        &self,
        request: Request<WhoAskedRequest>,
    ) -> Result<Response<Self::WhoAskedStream>, Status> {
        let reader = self.reader(&request)?;
        let request = request.into_inner();
        let reason = words("the reason for asking", &request.reason)?;
        let person = person(&request.person)?;
        self.asked.count(&reader, &person)?;
        let found = self.found(person, request.after).await?;
        let (query, results) = ("who asked about a person".to_owned(), found.len() as u64);
        let read = LeafEntry::Read(LogRead { reader, reason, query, results });
        let logged = self.exchanges.recorder.event(read, Vec::new()).await;
        logged.map_err(|error| log_failed(&error))?;
        let begun = self.upkeep.begun();
        let own = self.exchanges.recorder.log().verifier().name().to_owned();
        let configuration = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        let (sender, entries) = tokio::sync::mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            for (log, one) in found {
                // Nothing of an earlier generation is under way.
                let begun = if log.verifier().name() == own { begun } else { u64::MAX };
                let entry = journal::entry(&log, Found::Exchange(one.exchange), begun);
                let entry = entry.map_err(|error| log_failed(&error)).transpose();
                let Some(entry) = entry else { continue };
                let told = entry.map(|entry| told(&configuration, &one, entry));
                // A reader who has gone needs no more.
                if sender.blocking_send(told).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(entries)))
    }
}

/// An entry of the log in the words of the global configuration.
fn told(configuration: &Configuration, one: &Concerned, entry: ListLogResponse) -> WhoAskedResponse {
    let service: Option<ServiceId> = entry.service.parse().ok();
    let asking: Option<SubsystemId> = entry.client.parse().ok();
    let providing = service.as_ref().map(ServiceId::subsystem);
    let name = |subsystem: Option<&SubsystemId>| {
        let Some(subsystem) = subsystem else { return String::new() };
        let member = configuration.member(&subsystem.member()).map(|member| member.name.as_str());
        let own = configuration.subsystem(subsystem).map(|subsystem| subsystem.name.as_str());
        let both: Vec<_> = member.into_iter().chain(own).filter(|name| !name.is_empty()).collect();
        both.join(", ")
    };
    let title = service.as_ref().and_then(|service| configuration.service(service));
    let purpose = configuration.purpose(&entry.purpose).cloned();
    let basis = configuration.legal_basis(&entry.legal_basis).cloned();
    let (asking_name, providing_name) = (name(asking.as_ref()), name(providing.as_ref()));
    let mut told = WhoAskedResponse {
        place: one.index,
        exchange_id: Bytes::copy_from_slice(one.exchange.as_bytes()),
        time_ms: entry.time_ms,
        asking: entry.client,
        asking_name,
        providing: providing.map(|providing| providing.to_string()).unwrap_or_default(),
        providing_name,
        service: entry.service,
        kind_of_data: title.map(|service| service.title.clone()).unwrap_or_default(),
        purpose: entry.purpose,
        legal_basis: entry.legal_basis,
        outcome: entry.outcome,
        ..WhoAskedResponse::default()
    };
    if let Some(purpose) = purpose {
        (told.purpose_text, told.purpose_text_de) = (purpose.text, purpose.text_de);
    }
    if let Some(basis) = basis {
        (told.legal_basis_text, told.legal_basis_text_de) = (basis.text, basis.text_de);
        told.citation = basis.citation;
    }
    told
}

/// The open door for cockpits, not yet served.
#[derive(Debug)]
pub(crate) struct CockpitDoor {
    listener: Listener,
    known: HashMap<Digest, MemberId>,
}

impl CockpitDoor {
    /// Opens the door as configured.
    pub(crate) async fn open(
        config: &Config,
        cockpit: &Cockpit,
        passphrase: &Secret,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, AgencyDoorError> {
        let mut known = HashMap::new();
        for client in &cockpit.clients {
            let path = config.path(&client.certificate);
            if known.insert(pin(&path)?, client.authority.0.clone()).is_some() {
                let why = format!("{} stands twice among the cockpits", path.display());
                return Err(AgencyDoorError::Configuration(why));
            }
        }
        let key = SigningKey::open(&config.path(&cockpit.key), passphrase).map_err(AgencyDoorError::Key)?;
        let chain = tls::chain_from_pem(&config.path(&cockpit.certificate)).map_err(AgencyDoorError::Tls)?;
        let identity = Identity::new(chain, Arc::new(key)).map_err(AgencyDoorError::Tls)?;
        let pinned = Clients::Known(Arc::new(Pinned::new(known.keys().copied())));
        let server = tls::Server::new(Arc::new(identity), pinned, Http::Two, Arc::clone(clock));
        let listener = Listener::tls(cockpit.listen, server.map_err(AgencyDoorError::Tls)?).await;
        let limits = config.limits.at_door(Limits::default());
        Ok(Self { listener: listener.map_err(AgencyDoorError::Listen)?.with_limits(limits), known })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// What happens at it.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.listener.counts()
    }

    /// Serves until the server drains.
    pub(crate) async fn serve(self, exchanges: Arc<Exchanges>, upkeep: Arc<Upkeep>, drain: Drain) {
        let readers = Readers::Cockpits(Arc::new(self.known));
        let desk = Desk { exchanges, upkeep, readers, asked: Arc::default() };
        let service = CitizenServiceServer::new(desk).max_decoding_message_size(MAX_REQUEST);
        let router = tonic::service::Routes::new(service).into_axum_router();
        self.listener.serve(drain, move |_: &mut Connection| TowerToHyperService::new(router.clone())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cockpits_and_persons_are_asked_for_so_often() {
        let asked = Asked::default();
        let person = |number: u32| Person::parse(&number.to_string()).unwrap();
        for number in 0..PER_READER {
            assert!(asked.count("one", &person(number)).is_ok(), "{number}");
        }
        assert_eq!(asked.count("one", &person(0)).unwrap_err().code(), tonic::Code::ResourceExhausted);
        for _ in 1..PER_PERSON {
            assert!(asked.count("another", &person(7)).is_ok());
        }
        let refused = asked.count("another", &person(7)).unwrap_err();
        assert!(refused.message().contains("about one person"), "{refused}");
        assert!(asked.count("another", &person(8)).is_ok());
    }
}
