//! Searching by person: one auditor asks, a data protection officer releases, and only then the first one sees anything.
//!
//! Whom it is about stands in no record. It is held in memory from the asking to the end of a day, and gone with a restart;
//! the one who releases names the person again, so that nobody releases another search than the one they were asked for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use tonic::{Response, Status};
use trave_message_log::{LogError, Person};
use trave_proto::clock::Time;
use trave_proto::global_configuration::AuditorRole;
use trave_proto::schema::audit::{
    AskPersonSearchRequest, AskPersonSearchResponse, Entry, ReleasePersonSearchRequest,
    ReleasePersonSearchResponse, SearchPersonRequest, SearchPersonResponse, search_person_response::Part,
};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{PersonSearchAsked, PersonSearchReleased};

use super::{Answer, Asked, Desk, answer, failed};
use crate::audit::{Hit, MAX_PAGE, PAGE, Records, Scope};
use crate::auditors::Auditor;

/// How long a search that was asked for can be released and used.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Most searches that are asked for at a time, by all and by one auditor.
const MOST: (usize, usize) = (200, 20);

type Id = [u8; 16];

/// Searches by person that were asked for.
#[derive(Debug, Default)]
pub(super) struct PersonSearches(Mutex<HashMap<Id, PersonSearch>>);

#[derive(Debug, Clone)]
struct PersonSearch {
    person: Person,
    asker: Arc<Auditor>,
    until: Time,
    /// By whom, who must be an officer still when it is used.
    released: Option<Arc<Auditor>>,
}

impl PersonSearches {
    /// Those that are still to be used at this time.
    fn at(&self, now: Time) -> MutexGuard<'_, HashMap<Id, PersonSearch>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, search| search.until > now);
        all
    }
}

fn unknown() -> Status {
    Status::not_found(
        "no such search by person is asked for\nhint: it ends after a day, and with a restart of the server; ask again",
    )
}

fn id_of(bytes: &[u8]) -> Result<Id, Status> {
    bytes.try_into().map_err(|_| Status::invalid_argument("this is no id of a search by person"))
}

fn person_of(text: &str) -> Result<Person, Status> {
    Person::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Whether two that sign in may be one person: a name may get another key, and a key another name.
fn may_be_one(one: &Auditor, other: &Auditor) -> bool {
    one.name == other.name || one.key == other.key
}

impl Desk {
    /// Asks for a search. Nothing is shown.
    pub(super) async fn asked_for(
        &self,
        request: AskPersonSearchRequest,
        asked: Asked,
    ) -> Result<Response<AskPersonSearchResponse>, Status> {
        let person = person_of(&request.person)?;
        self.may_guess(&asked, "a search by person").await?;
        let now = self.exchanges.clock.now();
        let until = now.plus(LIFETIME);
        {
            let all = self.persons.at(now);
            let own = all.values().filter(|search| may_be_one(&search.asker, &asked.auditor)).count();
            if all.len() >= MOST.0 || own >= MOST.1 {
                let why = "too many searches by person are asked for\nhint: they end after a day";
                return Err(Status::resource_exhausted(why));
            }
        }
        let mut id = [0; 16];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| Status::internal("the system gives no random numbers"))?;
        let entry = LeafEntry::PersonSearchAsked(PersonSearchAsked {
            id: Bytes::copy_from_slice(&id),
            reader: asked.auditor.reader(),
            reason: asked.reason.clone(),
        });
        self.log_event(entry).await?;
        let search = PersonSearch { person, asker: Arc::clone(&asked.auditor), until, released: None };
        self.persons.at(now).insert(id, search);
        let (id, until_ms) = (Bytes::copy_from_slice(&id), until.as_millis());
        Ok(Response::new(AskPersonSearchResponse { id, until_ms }))
    }

    /// Releases a search that another asked for.
    pub(super) async fn released(
        &self,
        request: ReleasePersonSearchRequest,
        asked: Asked,
    ) -> Result<Response<ReleasePersonSearchResponse>, Status> {
        let (id, person) = (id_of(&request.id)?, person_of(&request.person)?);
        // Each names a person, and is told whether the search is about this one.
        self.may_guess(&asked, &format!("the release of the search by person {}", hex::encode(id))).await?;
        let now = self.exchanges.clock.now();
        let search = match self.to_release(&asked.auditor, &id, &person) {
            Ok(search) => search,
            // An attempt with one person after the other would tell whom a search is about: each is seen by all.
            Err(refused) => {
                let query = format!("is refused the release of the search by person {}", hex::encode(id));
                self.log_read(&asked, query, 0).await?;
                return Err(refused);
            }
        };
        let entry = LeafEntry::PersonSearchReleased(PersonSearchReleased {
            id: request.id,
            releaser: asked.auditor.reader(),
            reason: asked.reason.clone(),
        });
        self.log_event(entry).await?;
        let mut all = self.persons.at(now);
        all.get_mut(&id).ok_or_else(unknown)?.released = Some(Arc::clone(&asked.auditor));
        Ok(Response::new(ReleasePersonSearchResponse { asked_by: search.asker.reader() }))
    }

    /// The search that this auditor may release, naming this person.
    fn to_release(&self, auditor: &Auditor, id: &Id, person: &Person) -> Result<PersonSearch, Status> {
        if auditor.role != AuditorRole::DataProtectionOfficer {
            return Err(Status::permission_denied("a data protection officer releases searches by person"));
        }
        let search = self.persons.at(self.exchanges.clock.now()).get(id).cloned().ok_or_else(unknown)?;
        if may_be_one(&search.asker, auditor) {
            return Err(Status::permission_denied(
                "a second person releases a search: you asked for this one",
            ));
        }
        if search.person != *person {
            return Err(Status::failed_precondition("this search was asked for about another person"));
        }
        Ok(search)
    }

    /// A page of a search that was released.
    pub(super) async fn by_person(
        &self,
        request: SearchPersonRequest,
        asked: Asked,
    ) -> Result<Response<Answer<SearchPersonResponse>>, Status> {
        let id = id_of(&request.id)?;
        let search = self.persons.at(self.exchanges.clock.now()).get(&id).cloned().ok_or_else(unknown)?;
        if (&search.asker.name, search.asker.key) != (&asked.auditor.name, asked.auditor.key) {
            return Err(unknown());
        }
        let Some(releaser) = search.released else {
            let why = "a data protection officer has not released this search yet";
            return Err(Status::failed_precondition(why));
        };
        if !self.is_officer_still(&releaser) {
            let why =
                "who released this search is no data protection officer any more\nhint: ask for it again";
            return Err(Status::failed_precondition(why));
        }
        let releaser = releaser.reader();
        let none = || Status::invalid_argument("this is no cursor of such a search\nhint: begin without one");
        let from = match &request.cursor[..] {
            [] => Hit { generation: 0, place: 0 },
            cursor => Hit::read(cursor).ok_or_else(none)?,
        };
        let size = if request.page_size == 0 { PAGE } else { request.page_size };
        if size > MAX_PAGE {
            return Err(Status::invalid_argument(format!("a page has at most {MAX_PAGE} entries")));
        }
        let scope = asked.auditor.scope.clone();
        let found = self.reading(&asked, move |records| {
            page_by_person(records, &search.person, &scope, (from, size as usize))
        });
        let (entries, next) = found.await?;
        let query = format!("search by person {}, released by {releaser}", hex::encode(id));
        self.log_read(&asked, query, entries.len() as u64).await?;
        let end = self.end(entries.len(), next.map(|next| next.bytes()).unwrap_or_default());
        let parts = entries.into_iter().map(Part::Entry).chain([Part::End(end)]);
        Ok(answer(parts.map(|part| SearchPersonResponse { part: Some(part) }).collect(), asked))
    }

    /// Whether the configuration in use names this auditor, with this key, as a data protection officer.
    fn is_officer_still(&self, releaser: &Auditor) -> bool {
        self.known
            .find(&releaser.key)
            .is_ok_and(|now| now.name == releaser.name && now.role == AuditorRole::DataProtectionOfficer)
    }

    async fn log_event(&self, entry: LeafEntry) -> Result<(), Status> {
        let logged = self.exchanges.recorder.event(entry, Vec::new()).await;
        logged.map(|_| ()).map_err(|error| failed(&error))
    }
}

/// At most `size` exchanges in scope that concern a person, the earliest generation first, and where the next page begins.
/// Whatever is out of scope leaves no trace: neither in how full a page is, nor in whether another follows, nor in where it
/// begins.
fn page_by_person(
    records: &Records,
    person: &Person,
    scope: &Scope,
    (from, size): (Hit, usize),
) -> Result<(Vec<Entry>, Option<Hit>), LogError> {
    let (mut entries, mut next) = (Vec::new(), from);
    for log in records.in_order(false).filter(|log| log.number() >= from.generation) {
        let (generation, mut seen) = (log.number(), HashSet::new());
        let mut at = if generation == from.generation { from.place } else { 0 };
        loop {
            let concerned = log.log.of_person(person, at, AT_A_TIME)?;
            let Some(end) = concerned.last() else { break };
            at = end.index + 1;
            for one in concerned {
                if !seen.insert(one.exchange) {
                    continue;
                }
                let Some(entry) = log.entry(one.index, scope)? else { continue };
                if entries.len() == size {
                    return Ok((entries, Some(next)));
                }
                next = Hit { generation, place: one.index + 1 };
                entries.push(entry);
            }
        }
    }
    Ok((entries, None))
}

/// Records about a person that are looked up at a time.
const AT_A_TIME: usize = 256;
