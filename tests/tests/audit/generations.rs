//! A log that was closed is searched, counted and scanned with the one that took its place, in one order.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Code, Status};
use trave_gateway::config::Config;
use trave_gateway::generation::{self, Ask};
use trave_host::config::Secret;
use trave_host::keys::NoteKey;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::audit::{
    AskPersonSearchRequest, CountRequest, Entry, Filter, ListReadsRequest, PageEnd,
    ReleasePersonSearchRequest, ScanRequest, SearchPersonRequest, SearchRequest, WhoAmIRequest,
    search_person_response::Part as PersonPart, search_response::Part,
};
use trave_proto::schema::configuration::LogKey;
use trave_tests::network::{CLIENT, Instance, OTHER_PURPOSE, PASSPHRASE, PURPOSE, Question, export, soon};

use super::{Client, OFFICER, all, audited, ids, raw_scan_of, scanned, search, sign_in};

const CASE: &str = "GA 26/7";
const PERSON: &str = "steuer-id:99 123 456 789";

/// Closes the log of the agency's server, and has another generation of it approved.
async fn close(instance: &mut Instance) {
    instance.sh.stop().await;
    let config = Config::read(&instance.sh.configuration_file()).unwrap();
    let clock = Arc::clone(&instance.clock);
    let ask = Ask { reason: "Platte verloren".into(), operator: "uid 0".into(), ..Ask::default() };
    let begun = tokio::task::spawn_blocking(move || generation::begin(&config, &ask, clock));
    let origin = begun.await.unwrap().unwrap().origin;
    let key = NoteKey::open(&instance.sh.layout().log_key(), &Secret::new(PASSPHRASE.into())).unwrap();
    let public_key = Bytes::copy_from_slice(&key.public_key());
    let server = instance.sh.id;
    instance.configuration = instance.next_configuration(|next| {
        let entry = next.security_servers.iter_mut().find(|entry| entry.id == server).unwrap();
        entry.logs.push(LogKey { origin, public_key });
        entry.logs.sort_by(|a, b| a.origin.cmp(&b.origin));
    });
    instance.mv.stop().await;
    for server in [&instance.sh, &instance.mv] {
        server.put_configuration(&instance.configuration);
    }
    instance.mv.start().await.unwrap();
    instance.sh.start().await.unwrap();
}

/// About the person, for the case, with a message id.
async fn ask(instance: &Instance, id: &str) -> ExchangeId {
    let question = Question::new().header("x-road-issue", CASE).header("x-road-id", id);
    instance.caller().await.ask(question.header("trave-subject", PERSON)).await.exchange()
}

/// Three exchanges and a refusal, a generation, two exchanges: what was asked in each, earliest first; and where the first
/// page of two ended before.
async fn closed(instance: &mut Instance) -> (Vec<ExchangeId>, Vec<ExchangeId>, Bytes) {
    let mut first = Vec::new();
    for number in 0..3 {
        first.push(ask(instance, &format!("m-{number}")).await);
    }
    let refused = instance.caller().await.ask(Question::new().set("trave-purpose", OTHER_PURPOSE)).await;
    first.push(refused.exchange());
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let (page, cursor) = search(&mut client, SearchRequest { page_size: 2, ..all() }).await.unwrap();
    assert_eq!(ids(&page), [first[3], first[2]]);
    // Under a checkpoint with a timestamp.
    export(&instance.sh, first[2], false).await;
    close(instance).await;
    let mut second = vec![ask(instance, "m-0").await];
    second.push(instance.ask(b"ohne").await.exchange());
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    soon("the closed log is indexed", async || search(&mut client.clone(), all()).await.is_ok()).await;
    assert_eq!(search(&mut client, all()).await.unwrap().0.len(), 6);
    (first, second, cursor)
}

fn by(filter: Filter) -> SearchRequest {
    SearchRequest { filter: Some(filter), ..all() }
}

/// All pages of two.
async fn paged(client: &mut Client, request: SearchRequest) -> Result<Vec<(u64, ExchangeId)>, Status> {
    let (mut found, mut cursor) = (Vec::new(), request.cursor.clone());
    loop {
        let (page, next) = search(client, SearchRequest { page_size: 2, cursor, ..request.clone() }).await?;
        found.extend(page.iter().map(|entry| entry.generation).zip(ids(&page)));
        cursor = next;
        if cursor.is_empty() {
            return Ok(found);
        }
    }
}

fn in_generation(number: u64, exchanges: &[ExchangeId]) -> Vec<(u64, ExchangeId)> {
    exchanges.iter().map(|id| (number, *id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_by_anything_reaches_all_generations_in_one_order() {
    let mut instance = audited().await;
    let (first, second, cursor) = closed(&mut instance).await;
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let mut everything = [in_generation(1, &first), in_generation(2, &second)].concat();
    let earliest_first = SearchRequest { oldest_first: true, ..all() };
    assert_eq!(paged(&mut client, earliest_first).await.unwrap(), everything);
    everything.reverse();
    assert_eq!(paged(&mut client, all()).await.unwrap(), everything);
    // A page that ended before the log was closed goes on in the closed one, where it was.
    let on = paged(&mut client, SearchRequest { cursor: cursor.clone(), ..all() }).await.unwrap();
    assert_eq!(on, [(1, first[1]), (1, first[0])]);
    let longer = SearchRequest { cursor: [&cursor[..], &[0]].concat().into(), ..all() };
    assert_eq!(search(&mut client, longer).await.unwrap_err().code(), Code::InvalidArgument);
    // By each thing that is searched for, in both.
    let of_case = [(2, second[0]), (1, first[2]), (1, first[1]), (1, first[0])];
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (Filter { case: text(CASE), ..Filter::default() }, of_case.to_vec()),
        (Filter { message_id: text("m-0"), ..Filter::default() }, vec![of_case[0], of_case[3]]),
        (Filter { message_id: text("m-1"), ..Filter::default() }, vec![of_case[2]]),
        (Filter { client: text(CLIENT), ..Filter::default() }, everything.clone()),
        (Filter { member: text("NORD/SH/luebeck"), ..Filter::default() }, everything.clone()),
        (Filter { outcome: text("failed"), ..Filter::default() }, vec![(1, first[3])]),
        (Filter { purpose: text(OTHER_PURPOSE), ..Filter::default() }, vec![(1, first[3])]),
    ] {
        let found = paged(&mut client, by(filter.clone())).await.unwrap();
        assert_eq!(found, expected, "{filter:?}");
        let mut elsewhere = sign_in(&instance.sh, "kiel").await;
        assert_eq!(paged(&mut elsewhere, by(filter)).await.unwrap(), [], "out of scope");
    }
    for (number, id) in [(1, first[0]), (2, second[1])] {
        let one = SearchRequest { exchange_id: Some(Bytes::copy_from_slice(id.as_bytes())), ..all() };
        let (found, _) = search(&mut client, one).await.unwrap();
        assert_eq!((found.len(), found[0].generation), (1, number));
    }
    for (by, value, count) in [("purpose", PURPOSE, 5), ("outcome", "complete", 5), ("outcome", "failed", 1)]
    {
        let request = CountRequest { filter: None, by: by.into(), reason: "Bericht".into() };
        let counts = client.count(request).await.unwrap().into_inner();
        let counted = counts.counts.iter().find(|it| it.value == value).map(|it| it.exchanges);
        assert_eq!((counted, counts.unreadable_generations), (Some(count), vec![]), "{by} {value}");
    }
    // Who read the log before it was closed is told, too.
    let request =
        ListReadsRequest { reason: "Gegenprobe".into(), limit: 1_000, ..ListReadsRequest::default() };
    let mut listed = client.list_reads(request).await.unwrap().into_inner();
    let mut generations = Vec::new();
    while let Some(read) = listed.message().await.unwrap() {
        generations.push(read.generation);
    }
    assert!(generations.is_sorted_by(|a, b| a >= b) && generations.contains(&2), "{generations:?}");
    // A page of the auditor's, and the operator's proof.
    assert_eq!(generations.iter().filter(|it| **it == 1).count(), 2, "{generations:?}");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_found_in_all_generations_a_page_at_a_time() {
    let mut instance = audited().await;
    let (first, second, _) = closed(&mut instance).await;
    let mut asker = sign_in(&instance.sh, "luebeck").await;
    let mut officer = sign_in(&instance.sh, OFFICER).await;
    let reason = || "Auskunft".to_owned();
    let request = AskPersonSearchRequest { person: PERSON.into(), reason: reason() };
    let id = asker.ask_person_search(request).await.unwrap().into_inner().id;
    let release = ReleasePersonSearchRequest { id: id.clone(), person: PERSON.into(), reason: reason() };
    officer.release_person_search(release).await.unwrap();
    let (mut found, mut cursor) = (Vec::new(), Bytes::new());
    loop {
        let request = SearchPersonRequest { id: id.clone(), page_size: 1, cursor, reason: reason() };
        let mut parts = asker.search_person(request).await.unwrap().into_inner();
        let mut end = None::<PageEnd>;
        while let Some(part) = parts.message().await.unwrap() {
            match part.part.unwrap() {
                PersonPart::Entry(Entry { generation, exchange_id, .. }) => {
                    found.push((generation, ExchangeId::from_slice(&exchange_id).unwrap()));
                }
                PersonPart::End(it) => end = Some(it),
            }
        }
        cursor = end.unwrap().cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(found, [in_generation(1, &first[..3]), in_generation(2, &second[..1])].concat());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_a_closed_generation_is_held_against_its_own_tree() {
    let mut instance = audited().await;
    let (first, second, _) = closed(&mut instance).await;
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let told = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().generations;
    assert_eq!(
        told.iter().map(|it| (it.number, it.unreadable)).collect::<Vec<_>>(),
        [(1, false), (2, false)]
    );
    for (generation, exchanges) in [(1, &first), (2, &second)] {
        let (head, leaves) = raw_scan_of(&mut client, (0, 0), generation).await.unwrap();
        let range = scanned(&instance, head, &leaves).unwrap();
        assert_eq!(range.generation(), generation);
        assert_eq!(range.head().checkpoint.origin, told[generation as usize - 1].log_origin);
        let expected: Vec<_> = range.expected(&Filter::default()).into_iter().filter_map(|it| it.1).collect();
        assert_eq!(expected, *exchanges, "generation {generation}");
        assert_eq!(range.follows().is_some(), generation == 2);
    }
    let (head, leaves) = raw_scan_of(&mut client, (0, 0), 2).await.unwrap();
    let range = scanned(&instance, head, &leaves).unwrap();
    assert_eq!(range.follows().unwrap().previous_origin, told[0].log_origin, "it leads to the one before");
    // The leaves of one are not those of the other.
    let (head, _) = raw_scan_of(&mut client, (0, 4), 2).await.unwrap();
    let (_, others) = raw_scan_of(&mut client, (0, 4), 1).await.unwrap();
    assert!(scanned(&instance, head, &others).is_err());
    for (range, generation, code) in [
        ((0, 0), 3, Code::NotFound),
        ((0, told[0].log_size + 1), 1, Code::OutOfRange),
        ((told[0].log_size, 0), 1, Code::OutOfRange),
        ((5, 4), 1, Code::OutOfRange),
    ] {
        let request = ScanRequest { from: range.0, to: range.1, generation, reason: "Prüfung".into() };
        assert_eq!(client.scan(request).await.unwrap_err().code(), code, "{range:?} of {generation}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_cannot_be_read_is_named_in_every_answer() {
    let mut instance = audited().await;
    let (_, second, _) = closed(&mut instance).await;
    instance.sh.stop().await;
    let closed = instance.sh.layout().generations().join("1").join("log");
    std::fs::rename(closed.join("segments"), closed.join("verlegt")).unwrap();
    instance.sh.start().await.unwrap();
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let mut parts = client.search(all()).await.unwrap().into_inner();
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(part) = parts.message().await.unwrap() {
        match part.part.unwrap() {
            Part::Entry(entry) => found.push(entry),
            Part::End(end) => unreadable = end.unreadable_generations,
        }
    }
    assert_eq!((ids(&found), unreadable), (second.iter().rev().copied().collect(), vec![1]));
    let request = CountRequest { filter: None, by: "purpose".into(), reason: "Bericht".into() };
    let counts = client.count(request).await.unwrap().into_inner();
    assert_eq!((counts.counts[0].exchanges, counts.unreadable_generations), (2, vec![1]));
    let told = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().generations;
    assert_eq!(told.iter().map(|it| (it.number, it.unreadable)).collect::<Vec<_>>(), [(1, true), (2, false)]);
    let request = ScanRequest { generation: 1, reason: "Prüfung".into(), ..ScanRequest::default() };
    assert_eq!(client.scan(request).await.unwrap_err().code(), Code::NotFound);
    instance.stop().await;
}
