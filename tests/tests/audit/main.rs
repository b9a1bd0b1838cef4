//! What auditors meet: a door that knows them by their certificates, a scope that no query leaves, a log that keeps each
//! question before it is answered, pages that stay, and a search whose omissions are found out.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod enrolment;
mod generations;
mod persons;
mod references;
mod scans;

use bytes::Bytes;
use tonic::{Code, Status};
use trave_host::client::Channel;
use trave_host::stubs::audit::audit_service_client::AuditServiceClient;
use trave_host::tls::Http;
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{Conclusion, Proof, verify};
use trave_proto::scan::{Head, Range, ScanError, Scanned};
use trave_proto::schema::audit::{
    CountRequest, Entry, ExportRequest, Filter, ListReadsRequest, ScanHead, ScanRequest, SearchRequest,
    WhoAmIRequest, export_response, scan_response, scanned_leaf::Shown, search_response::Part,
};
use trave_proto::schema::configuration::{Auditor, AuditorRole};
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_tests::network::{CLIENT, Instance, OTHER_PURPOSE, PURPOSE, Question, SERVICE, Server};

type Client = AuditServiceClient<Channel>;

/// Name, classes and members of the scope, and whether contents may be seen.
const AUDITORS: [(&str, &[&str], &[&str], bool); 6] = [
    ("rechnungshof-sh", &["NORD/SH"], &[], true),
    ("rechnungshof-mv", &["NORD/MV"], &[], false),
    ("luebeck", &[], &["NORD/SH/luebeck"], false),
    ("kiel", &[], &["NORD/SH/kiel"], false),
    ("anderswo", &["NORD/HH"], &[], true),
    (OFFICER, &["NORD/SH"], &[], false),
];
/// The only one who is a data protection officer.
const OFFICER: &str = "datenschutz";

/// An instance whose agency's server has a door for these auditors.
async fn audited() -> Instance {
    let mut instance = Instance::start().await;
    instance.sh.make_auditor("fremd");
    let auditors = enrolled(&instance.sh);
    instance.open_for_auditors(auditors, |config| config).await;
    instance
}

/// The auditors, each with a key.
fn enrolled(server: &Server) -> Vec<Auditor> {
    let all = AUDITORS.map(|(name, classes, members, contents)| {
        server.make_auditor(name);
        let role = if name == OFFICER { AuditorRole::DataProtectionOfficer } else { AuditorRole::Auditor };
        Auditor { role: role.into(), contents, ..server.auditor(name, classes, members) }
    });
    all.into()
}

async fn sign_in(server: &Server, name: &str) -> Client {
    let address = server.running().auditors.unwrap().to_string();
    let channel = Channel::tls(&address, &server.auditors_tls(name, Http::Two)).await.unwrap();
    AuditServiceClient::new(channel).max_decoding_message_size(32 << 20)
}

fn all() -> SearchRequest {
    SearchRequest { reason: "Stichprobe".into(), ..SearchRequest::default() }
}

async fn search(client: &mut Client, request: SearchRequest) -> Result<(Vec<Entry>, Bytes), Status> {
    let (mut parts, mut entries) = (client.search(request).await?.into_inner(), Vec::new());
    while let Some(part) = parts.message().await? {
        match part.part.unwrap() {
            Part::Entry(entry) => entries.push(entry),
            Part::End(end) => {
                assert_eq!(end.entries as usize, entries.len());
                return Ok((entries, end.cursor));
            }
        }
    }
    panic!("the answer has no end");
}

fn ids(entries: &[Entry]) -> Vec<ExchangeId> {
    entries.iter().map(|entry| ExchangeId::from_slice(&entry.exchange_id).unwrap()).collect()
}

fn reads(server: &Server) -> Vec<LogRead> {
    let entries = server.records(0).into_iter().filter_map(|record| record.leaf.entry);
    entries.filter_map(|entry| if let LeafEntry::Read(read) = entry { Some(read) } else { None }).collect()
}

/// What a server sends for a range.
async fn raw_scan(client: &mut Client, from: u64, to: u64) -> Result<(ScanHead, Vec<Shown>), Status> {
    raw_scan_of(client, (from, to), 0).await
}

/// The same of a generation of its log.
async fn raw_scan_of(
    client: &mut Client,
    (from, to): (u64, u64),
    generation: u64,
) -> Result<(ScanHead, Vec<Shown>), Status> {
    let request = ScanRequest { from, to, reason: "Vollständigkeit".into(), generation };
    let (mut parts, mut leaves) = (client.scan(request).await?.into_inner(), Vec::new());
    let mut head = None;
    while let Some(part) = parts.message().await? {
        match part.part.unwrap() {
            scan_response::Part::Head(it) => head = Some(it),
            scan_response::Part::Leaf(leaf) => leaves.push(leaf.shown.unwrap()),
        }
    }
    Ok((head.unwrap(), leaves))
}

fn scanned(instance: &Instance, head: ScanHead, leaves: &[Shown]) -> Result<Scanned, ScanError> {
    let mut range = Range::new(Head::verify(head, &instance.keys.anchor())?);
    for leaf in leaves {
        match leaf {
            Shown::Leaf(bytes) => range.add_leaf(bytes),
            Shown::Hash(hash) => range.add_hash(Digest::from_slice(hash).unwrap()),
            Shown::Damaged(leaf) => range.add_damaged(Digest::from_slice(&leaf.hash), &leaf.what),
        }
    }
    range.finish()
}

/// Five exchanges that were answered, and one that was refused.
async fn six(instance: &Instance) -> Vec<ExchangeId> {
    let mut asked = Vec::new();
    for number in 0..5_u8 {
        asked.push(instance.ask(&[number]).await.exchange());
    }
    let refused = instance.caller().await.ask(Question::new().set("trave-purpose", OTHER_PURPOSE)).await;
    assert!(refused.told().is_some(), "the register's operator permits it for one purpose alone");
    asked.push(refused.exchange());
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_leaves_the_scope() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let size = instance.sh.size();
    for (name, scope, sees) in [
        ("rechnungshof-sh", "NORD/SH", true),
        ("rechnungshof-mv", "NORD/MV", true),
        ("luebeck", "NORD/SH/luebeck", true),
        ("kiel", "NORD/SH/kiel", false),
        ("anderswo", "NORD/HH", false),
    ] {
        let mut client = sign_in(&instance.sh, name).await;
        let told = client.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
        let scopes: Vec<_> = told.classes.iter().chain(&told.members).map(String::as_str).collect();
        assert_eq!((told.name.as_str(), scopes), (name, vec![scope]));
        let (found, _) = search(&mut client, all()).await.unwrap();
        let expected: Vec<_> = if sees { asked.iter().rev().copied().collect() } else { vec![] };
        assert_eq!(ids(&found), expected, "{name}");
        // To ask for what is not in scope finds nothing either.
        let filter = Some(Filter { client: Some(CLIENT.into()), ..Filter::default() });
        let (found, _) = search(&mut client, SearchRequest { filter, ..all() }).await.unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let one = SearchRequest { exchange_id: Some(Bytes::copy_from_slice(asked[0].as_bytes())), ..all() };
        let (found, _) = search(&mut client, one).await.unwrap();
        assert_eq!(found.len(), usize::from(sees), "{name}");
        for (by, value, count) in
            [("purpose", PURPOSE, 5), ("service", SERVICE, 6), ("outcome", "complete", 5)]
        {
            let request = CountRequest { filter: None, by: by.into(), reason: "Bericht".into() };
            let counts = client.count(request).await.unwrap().into_inner().counts;
            let counted = counts.iter().find(|it| it.value == value).map(|it| it.exchanges);
            assert_eq!(counted, sees.then_some(count), "{name} by {by}: {counts:?}");
            assert!(sees || counts.is_empty(), "{name}: {counts:?}");
        }
        let (head, leaves) = raw_scan(&mut client, 0, size).await.unwrap();
        let range = scanned(&instance, head, &leaves).unwrap();
        assert_eq!(range.begun(), expected.len(), "{name}");
        assert!(!range.hidden().is_empty(), "what is the server's own is a hash alone");
        let exported = export(&mut client, &asked[..1], false).await.unwrap();
        assert_eq!(exported[0].1.is_ok(), sees, "{name}: {:?}", exported[0].1.as_ref().err());
    }
    instance.stop().await;
}

async fn export(
    client: &mut Client,
    exchanges: &[ExchangeId],
    with_content: bool,
) -> Result<Vec<(ExchangeId, Result<Vec<u8>, String>)>, Status> {
    use export_response::Part;
    let exchange_ids = exchanges.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
    let request = ExportRequest { exchange_ids, with_content, reason: "Widerspruch".into() };
    let (mut parts, mut done) = (client.export(request).await?.into_inner(), Vec::new());
    let mut current = None;
    while let Some(part) = parts.message().await? {
        match part.part.unwrap() {
            Part::Begin(begin) => current = Some((begin.exchange_id, Vec::new())),
            Part::Chunk(chunk) => current.as_mut().unwrap().1.extend_from_slice(&chunk),
            Part::End(end) => {
                let (id, file) = current.take().unwrap();
                assert_eq!(end.bytes, file.len() as u64);
                done.push((ExchangeId::from_slice(&id).unwrap(), Ok(file)));
            }
            Part::None(none) => {
                done.push((ExchangeId::from_slice(&none.exchange_id).unwrap(), Err(none.why)));
            }
        }
    }
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proofs_are_exported_and_contents_only_to_whom_they_are_due() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    let proofs = export(&mut sh, &asked, true).await.unwrap();
    assert_eq!(proofs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), asked);
    for (id, file) in &proofs[..5] {
        let proof = Proof::parse(file.clone().unwrap()).unwrap();
        let report = verify(&proof, &instance.keys.anchor(), None);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert_eq!(report.story.unwrap().exchange, *id);
    }
    let twice = export(&mut sh, &[asked[0], asked[1], asked[0]], false).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument, "{twice}");
    let mut mv = sign_in(&instance.sh, "rechnungshof-mv").await;
    let refused = export(&mut mv, &asked[..1], true).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(export(&mut mv, &asked[..1], false).await.unwrap()[0].1.is_ok());
    let queries: Vec<_> = reads(&instance.sh).into_iter().map(|read| (read.reader, read.query)).collect();
    for id in &asked {
        let logged = ("rechnungshof-sh (auditor)".to_owned(), format!("proof of {id}"));
        assert!(queries.contains(&logged), "{queries:?}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_question_is_logged_before_it_is_answered_and_seen_by_the_others() {
    let mut instance = audited().await;
    six(&instance).await;
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    for reason in ["", "  ", "zwei\nZeilen", &"x".repeat(501)] {
        let refused = search(&mut sh, SearchRequest { reason: reason.into(), ..all() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason:?}");
    }
    assert_eq!(reads(&instance.sh), [], "what was not answered was not read");
    let filter =
        Some(Filter { purpose: Some(PURPOSE.into()), outcome: Some("complete".into()), ..Filter::default() });
    let (found, _) = search(&mut sh, SearchRequest { filter, ..all() }).await.unwrap();
    assert_eq!(found.len(), 5);
    let expected = LogRead {
        reader: "rechnungshof-sh (auditor)".into(),
        reason: "Stichprobe".into(),
        query: format!("search purpose={PURPOSE:?} outcome=\"complete\""),
        results: 5,
    };
    assert_eq!(reads(&instance.sh), std::slice::from_ref(&expected));
    // An auditor of the other state sees that, and that is logged too.
    let mut mv = sign_in(&instance.sh, "rechnungshof-mv").await;
    for seen in 1..3 {
        let request = ListReadsRequest { reason: "Gegenprobe".into(), ..ListReadsRequest::default() };
        let mut listed = mv.list_reads(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(read) = listed.message().await.unwrap() {
            all.push(read);
        }
        assert_eq!(all.len(), seen);
        let first = all.last().unwrap();
        let of = (&first.reader, &first.reason, &first.query, first.results);
        assert_eq!(of, (&expected.reader, &expected.reason, &expected.query, expected.results));
    }
    assert_eq!(reads(&instance.sh).len(), 3);
    // A log that cannot be written to is not read from either.
    instance.sh.break_disk();
    let refused = search(&mut sh, all()).await;
    instance.sh.mend_disk();
    if let Ok((found, _)) = &refused {
        assert_eq!(reads(&instance.sh).len(), 4, "shown without a record: {found:?}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_as_they_are_while_the_log_grows() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let mut client = sign_in(&instance.sh, "luebeck").await;
    let (mut paged, mut cursor) = (Vec::new(), Bytes::new());
    loop {
        let (entries, next) =
            search(&mut client, SearchRequest { page_size: 2, cursor, ..all() }).await.unwrap();
        paged.extend(ids(&entries));
        instance.ask(b"inzwischen").await;
        cursor = next;
        if cursor.is_empty() {
            break;
        }
        let other = SearchRequest { oldest_first: true, cursor: cursor.clone(), ..all() };
        assert_eq!(search(&mut client, other).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(paged, asked.into_iter().rev().collect::<Vec<_>>());
    let refused = search(&mut client, SearchRequest { page_size: 501, ..all() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_registered_is_refused() {
    let mut instance = audited().await;
    let address = instance.sh.running().auditors.unwrap().to_string();
    // TLS 1.3 tells a client that its certificate is refused with the first request.
    if let Ok(channel) = Channel::tls(&address, &instance.sh.auditors_tls("fremd", Http::Two)).await {
        let mut client: Client = AuditServiceClient::new(channel);
        assert!(client.who_am_i(WhoAmIRequest {}).await.is_err());
        assert!(search(&mut client, all()).await.is_err());
    }
    assert_eq!(reads(&instance.sh), []);
    instance.stop().await;
}
