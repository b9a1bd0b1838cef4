//! A search by person: two persons are needed, and nothing anywhere says whom it is about.

use bytes::Bytes;
use tonic::Code;
use trave_message_log::{Entry as Record, Log, Person};
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{Direction, Manifest, ManifestFields};
use trave_proto::schema::audit::{
    AskPersonSearchRequest, ListReadsRequest, ReleasePersonSearchRequest, SearchPersonRequest,
    search_person_response::Part as PersonPart,
};
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{Leaf, MessageEntry};
use trave_tests::network::{START, manifests};

use super::{OFFICER, audited, ids, sign_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_by_person_shows_nothing_before_a_second_person_releases_it() {
    const PERSON: &str = "steuer-id:99 123 456 789";
    let mut instance = audited().await;
    // What concerns the person, as a server writes it that knows of persons.
    let asked = instance.ask(b"wie diese").await.exchange();
    let like = manifests(&instance.sh.records(0), asked, Direction::Request).remove(0);
    instance.sh.stop().await;
    let log = instance.sh.open_log();
    let exchanges: Vec<_> = (1..=3).map(|number| concerning(&log, &like, PERSON, number)).collect();
    concerning(&log, &like, "steuer-id:99 123 456 788", 9);
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    instance.sh.start().await.unwrap();
    let mut asker = sign_in(&instance.sh, "luebeck").await;
    let mut officer = sign_in(&instance.sh, OFFICER).await;
    let reason = || "Auskunft nach Art. 15".to_owned();
    let ask = AskPersonSearchRequest { person: PERSON.into(), reason: reason() };
    let id = asker.ask_person_search(ask).await.unwrap().into_inner().id;
    let search = |id: &Bytes| SearchPersonRequest { id: id.clone(), reason: reason(), ..Default::default() };
    let refused = asker.search_person(search(&id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let release =
        |person: &str| ReleasePersonSearchRequest { id: id.clone(), person: person.into(), reason: reason() };
    assert_eq!(
        asker.release_person_search(release(PERSON)).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let other = officer.release_person_search(release("steuer-id:99123456788")).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    // A data protection officer does not release what they asked for themselves.
    let ask = AskPersonSearchRequest { person: PERSON.into(), reason: reason() };
    let own = officer.ask_person_search(ask).await.unwrap().into_inner().id;
    let release_own = ReleasePersonSearchRequest { id: own, ..release(PERSON) };
    assert_eq!(officer.release_person_search(release_own).await.unwrap_err().code(), Code::PermissionDenied);
    let by =
        officer.release_person_search(release("steuer-id:99123456789")).await.unwrap().into_inner().asked_by;
    assert_eq!(by, "luebeck (auditor)");
    // It is for whoever asked, and nobody else.
    assert_eq!(officer.search_person(search(&id)).await.unwrap_err().code(), Code::NotFound);
    let (mut cursor, mut found) = (Bytes::new(), Vec::new());
    loop {
        let page = SearchPersonRequest { page_size: 2, cursor: cursor.clone(), ..search(&id) };
        let mut parts = asker.search_person(page).await.unwrap().into_inner();
        while let Some(part) = parts.message().await.unwrap() {
            match part.part.unwrap() {
                PersonPart::Entry(entry) => found.push(entry),
                PersonPart::End(end) => cursor = end.cursor,
            }
        }
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(ids(&found), exchanges);
    // Everybody sees that it was done, and nothing anywhere says about whom.
    let request = ListReadsRequest { reason: reason(), ..ListReadsRequest::default() };
    let mut listed = sign_in(&instance.sh, "kiel").await.list_reads(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(read) = listed.message().await.unwrap() {
        told.push(format!("{} {}", read.reader, read.query));
    }
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    // Who tried to release and was refused is told as well: three did.
    let refused =
        told.iter().filter(|it| it.contains("is refused the release of the search by person")).count();
    assert_eq!(refused, 3, "{told:#?}");
    for expected in [
        format!("{OFFICER} (data_protection_officer) is refused the release of the search by person {hex}"),
        format!("luebeck (auditor) is refused the release of the search by person {hex}"),
        format!("luebeck (auditor) asks for the search by person {hex}"),
        format!("{OFFICER} (data_protection_officer) releases the search by person {hex}"),
        format!("luebeck (auditor) search by person {hex}, released by {OFFICER} (data_protection_officer)"),
    ] {
        assert!(told.contains(&expected), "{told:#?}");
    }
    for record in instance.sh.records(0) {
        let text = format!("{:?}", record.leaf);
        assert!(!text.contains("99123456789") && !text.contains("123 456 789"), "{text}");
    }
    instance.advance(std::time::Duration::from_secs(25 * 60 * 60));
    assert_eq!(
        asker.search_person(search(&id)).await.unwrap_err().code(),
        Code::NotFound,
        "it ends after a day"
    );
    instance.stop().await;
}

/// Logs the request of an exchange that concerns a person.
fn concerning(log: &Log, like: &Manifest, person: &str, number: u8) -> ExchangeId {
    let id = ExchangeId::new(START, &[number; 10]);
    let fields = ManifestFields { exchange: id, ..ManifestFields::clone(like) };
    let entry = LeafEntry::Message(MessageEntry {
        manifest: Manifest::new(fields).encoded().clone(),
        sent: true,
        ..MessageEntry::default()
    });
    let leaf = Leaf::of(START.as_millis(), entry);
    let persons = vec![Person::parse(person).unwrap()];
    let entry = Record { persons, ..Record::new(leaf) };
    let pending = log.append(entry, ()).unwrap();
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(pending)).unwrap();
    id
}
