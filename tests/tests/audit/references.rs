//! A search by what the caller calls an exchange: its own message id, and the case for which it asks.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};
use trave_host::client::Channel;
use trave_host::tls::Http;
use trave_proto::schema::audit::{AskPersonSearchRequest, CountRequest, Filter, SearchRequest};
use trave_tests::network::{Instance, Question};

use super::{all, audited, ids, reads, search, sign_in};

/// A case as a clerk types it, and as another does.
const CASE: &str = "GA Müller  7/26";
const SAME_CASE: &str = " GA Mu\u{308}ller 7/26";

fn by_case(case: &str) -> SearchRequest {
    SearchRequest { filter: Some(Filter { case: Some(case.into()), ..Filter::default() }), ..all() }
}

fn by_id(id: &str) -> SearchRequest {
    SearchRequest { filter: Some(Filter { message_id: Some(id.into()), ..Filter::default() }), ..all() }
}

/// Asks for a case, with a message id of the caller's own.
async fn asked(instance: &Instance, case: &str, id: &str) -> trave_proto::identifier::ExchangeId {
    let question = Question::new().header("x-road-issue", case).header("x-road-id", id);
    instance.caller().await.ask(question).await.exchange()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_is_found_by_its_case_and_its_message_id_in_scope_and_by_nothing_near_them() {
    let mut instance = audited().await;
    let mut of_case = Vec::new();
    for number in 0..3 {
        of_case.push(asked(&instance, CASE, &format!("m-{number}")).await);
    }
    let other = asked(&instance, "GA 8/26", "m-0").await;
    let without = instance.ask(b"ohne").await.exchange();
    of_case.reverse();
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(ids(&search(&mut sh, by_case(SAME_CASE)).await.unwrap().0), of_case);
    let (found, _) = search(&mut sh, by_id("m-0")).await.unwrap();
    assert_eq!(ids(&found), [other, of_case[2]], "a message id is not unique by itself");
    assert!(found.iter().all(|entry| entry.outcome == "complete"));
    // Both, and with anything else; a page at a time; counted.
    let both = Filter { message_id: Some("m-0".into()), case: Some(CASE.into()), ..Filter::default() };
    let request = SearchRequest { filter: Some(both.clone()), ..all() };
    assert_eq!(ids(&search(&mut sh, request).await.unwrap().0), of_case[2..]);
    let (first, cursor) = search(&mut sh, SearchRequest { page_size: 2, ..by_case(CASE) }).await.unwrap();
    let next = SearchRequest { page_size: 2, cursor: cursor.clone(), ..by_case(CASE) };
    let (rest, end) = search(&mut sh, next).await.unwrap();
    assert_eq!((ids(&first), ids(&rest), end.len()), (of_case[..2].to_vec(), of_case[2..].to_vec(), 0));
    // A cursor is a place and tells of no case: with another case it goes on from that place, and only a search by case takes it.
    let elsewhere = SearchRequest { cursor: cursor.clone(), ..by_case("GA 8/26") };
    assert_eq!(search(&mut sh, elsewhere).await.unwrap().0, []);
    let elsewhere = SearchRequest { cursor, ..by_id("m-0") };
    assert_eq!(search(&mut sh, elsewhere).await.unwrap_err().code(), Code::InvalidArgument);
    let filter = Some(Filter { case: Some(CASE.into()), ..Filter::default() });
    let count = CountRequest { filter, by: "client".into(), reason: "Bericht".into() };
    assert_eq!(sh.count(count).await.unwrap().into_inner().counts[0].exchanges, 3);
    for near in ["GA Müller 7", "ga müller 7/26", "m-0", "7/26"] {
        assert_eq!(search(&mut sh, by_case(near)).await.unwrap().0, [], "{near}");
    }
    assert_eq!(search(&mut sh, by_id(CASE)).await.unwrap().0, []);
    // Where the caller gave no id, the exchange's own is it.
    assert_eq!(ids(&search(&mut sh, by_id(&without.to_string())).await.unwrap().0), [without]);
    // Who does not see the exchange does not find it; and nothing tells whether there is one.
    let mut kiel = sign_in(&instance.sh, "kiel").await;
    assert_eq!(
        search(&mut kiel, by_case(CASE)).await.unwrap(),
        search(&mut kiel, by_case("nie")).await.unwrap()
    );
    // An outcome stands at another place of the log.
    let filter = Filter { outcome: Some("complete".into()), ..both };
    let refused = search(&mut sh, SearchRequest { filter: Some(filter), ..all() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let too_long = search(&mut sh, by_case(&"x".repeat(1_025))).await.unwrap_err();
    assert_eq!(too_long.code(), Code::InvalidArgument, "{too_long}");
    // After a restart, and nowhere is what was searched for: neither in the log nor in who read it.
    instance.sh.reconfigure(|config| config).await;
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(ids(&search(&mut sh, by_case(CASE)).await.unwrap().0), of_case);
    let queries = reads(&instance.sh);
    assert!(
        queries.iter().any(|read| read.query == "search case=(not kept)" && read.results == 3),
        "{queries:#?}"
    );
    for record in instance.sh.records(0) {
        let text = format!("{:?}", record.leaf);
        assert!(!text.contains("7/26") && !text.contains("m-0"), "{text}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_exchange_is_found_by_its_case_no_more() {
    let mut instance = audited().await;
    let (gone, stays) = (asked(&instance, CASE, "m-1").await, asked(&instance, CASE, "m-2").await);
    instance.sh.stop().await;
    let log = instance.sh.open_log();
    let erase = log.erase(gone, "operator", "Löschung");
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(erase)).unwrap();
    assert_eq!(log.check().problems, Vec::<String>::new());
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    instance.sh.start().await.unwrap();
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(ids(&search(&mut sh, by_case(CASE)).await.unwrap().0), [stays]);
    assert_eq!(search(&mut sh, by_id("m-1")).await.unwrap().0, []);
    // The exchange itself is found as before, by what its manifest says.
    assert!(ids(&search(&mut sh, all()).await.unwrap().0).contains(&gone));
    instance.stop().await;
}

/// What a program of others sends, byte by byte.
#[derive(Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// How many parts come in answer to a question of these bytes.
async fn ask_raw(channel: &Channel, method: &str, question: &[u8]) -> Result<usize, Status> {
    let path = format!("/trave.audit.v1.AuditService/{method}").parse().unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let question = Request::new(tokio_stream::once(Bytes::copy_from_slice(question)));
    let mut parts = client.streaming(question, path, Raw).await?.into_inner();
    let mut count = 0;
    while parts.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_and_empty_is_no_search_for_everything() {
    let mut instance = audited().await;
    asked(&instance, CASE, "m-1").await;
    let address = instance.sh.running().auditors.unwrap().to_string();
    let tls = instance.sh.auditors_tls("rechnungshof-sh", Http::Two);
    let channel = Channel::tls(&address, &tls).await.unwrap();
    // reason = "x", as each kind of question has it: field 6, field 3.
    let (search, count) = ([0x32, 0x01, b'x'], [0x1a, 0x01, b'x']);
    assert_eq!(
        ask_raw(&channel, "Search", &search).await.unwrap(),
        2,
        "without a filter: one hit, and the end"
    );
    assert_eq!(ask_raw(&channel, "Search", &[&[0x0a, 0x00], &search[..]].concat()).await.unwrap(), 2);
    assert_eq!(SearchRequest::decode(&[&[0x0a, 0x00], &search[..]].concat()[..]).unwrap().reason, "x");
    let by = [0x12, 0x07, b'p', b'u', b'r', b'p', b'o', b's', b'e'];
    assert_eq!(ask_raw(&channel, "Count", &[&by[..], &count].concat()).await.unwrap(), 1);
    let before = reads(&instance.sh).len();
    // A filter of one field that is there and has no bytes.
    for (field, name) in [
        (1, "client"),
        (2, "service"),
        (3, "member"),
        (4, "purpose"),
        (5, "legal_basis"),
        (6, "outcome"),
        (9, "message_id"),
        (10, "case"),
    ] {
        let filter = [0x0a, 0x02, (field << 3) | 2, 0x00];
        for (method, rest) in [("Search", search.to_vec()), ("Count", [&by[..], &count].concat())] {
            let refused = ask_raw(&channel, method, &[&filter[..], &rest].concat()).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{method} {name}");
            assert!(refused.message().contains(&format!("`{name}` is there and is empty")), "{refused}");
            assert!(refused.message().contains("hint: leave it out"), "{refused}");
        }
    }
    // And an exchange that is none.
    let refused = ask_raw(&channel, "Search", &[&[0x12, 0x00], &search[..]].concat()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(reads(&instance.sh).len(), before, "nothing was read");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_tries_cases_so_often_and_is_told_when_to_come_back() {
    let mut instance = audited().await;
    asked(&instance, CASE, "m-1").await;
    instance
        .sh
        .reconfigure(|config| config.replace("[auditors]\n", "[auditors]\nreferences_per_hour = 4\n"))
        .await;
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    let mut mv = sign_in(&instance.sh, "rechnungshof-mv").await;
    let person = || AskPersonSearchRequest { person: "steuer-id:1".into(), reason: "Auskunft".into() };
    // Each way in counts: a case, a message id, a count, a person.
    assert_eq!(search(&mut sh, by_case(CASE)).await.unwrap().0.len(), 1);
    assert_eq!(search(&mut sh, by_id("m-1")).await.unwrap().0.len(), 1);
    let filter = Some(Filter { case: Some(CASE.into()), ..Filter::default() });
    let count = CountRequest { filter, by: "client".into(), reason: "Bericht".into() };
    sh.count(count.clone()).await.unwrap();
    sh.ask_person_search(person()).await.unwrap();
    let before = reads(&instance.sh).len();
    let until = instance.clock.now().plus(Duration::from_secs(3_600));
    for _ in 0..3 {
        let refused = search(&mut sh, by_case("GA 1/26")).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains(&format!("answered from {until} on")), "{refused}");
        assert_eq!(sh.count(count.clone()).await.unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(sh.ask_person_search(person()).await.unwrap_err().code(), Code::ResourceExhausted);
    }
    // Said once, and not what was searched for.
    let told = reads(&instance.sh);
    assert_eq!(told.len(), before + 1, "{told:#?}");
    let last = told.last().unwrap();
    let query = "is refused: search case=(not kept), as more than 4 searches by reference in an hour";
    assert_eq!((last.reader.as_str(), last.query.as_str()), ("rechnungshof-sh (auditor)", query));
    // Whatever is not by reference, and whoever else asks, is answered.
    assert_eq!(search(&mut sh, all()).await.unwrap().0.len(), 1);
    assert_eq!(search(&mut mv, by_case(CASE)).await.unwrap().0.len(), 1);
    // Nor does a restart help.
    instance.sh.stop().await;
    instance.sh.start().await.unwrap();
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(search(&mut sh, by_case(CASE)).await.unwrap_err().code(), Code::ResourceExhausted);
    instance.advance(Duration::from_secs(3_599));
    assert_eq!(search(&mut sh, by_case(CASE)).await.unwrap_err().code(), Code::ResourceExhausted);
    instance.advance(Duration::from_secs(1));
    assert_eq!(search(&mut sh, by_case(CASE)).await.unwrap().0.len(), 1);
    instance.stop().await;
}
