//! The citizen's view: who asked about me, told by both security servers to whoever may ask, without an identifier of mine
//! being kept; and gone when I am erased, or when the month's key is.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use trave_gateway::config::Config;
use trave_host::client::Channel;
use trave_host::config::Secret;
use trave_host::keys::SigningKey;
use trave_host::stubs::citizen::citizen_service_client::CitizenServiceClient;
use trave_host::tls::{self, Http, Identity, Pinned};
use trave_proto::fault::Reason;
use trave_proto::schema::citizen::{WhoAskedRequest, WhoAskedResponse};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::{CheckLogRequest, ErasePersonRequest};
use trave_tests::network::{
    CLIENT, Instance, LEGAL_BASIS, PASSPHRASE, PURPOSE, Plan, Question, SERVICE, Server, certified_by_itself,
    operator,
};

/// Whom the caller declares.
const DECLARED: &str = "steuer-id:12 345 678 901";
/// Whom the request names.
const NAMED: &str = "steuer-id:98765432109";
const SUBJECT: &str = "[service.subject]\nscheme = \"steuer-id\"\nheader = true\ngrpc_field = \"1.1\"\n";

/// 1: { 1: "98765432109" }
fn names_a_person() -> Vec<u8> {
    [&[0x0a, 13, 0x0a, 11][..], b"98765432109"].concat()
}

async fn door(server: &Server) -> Channel {
    Channel::unix(&Config::read(&server.configuration_file()).unwrap().operator_socket()).await.unwrap()
}

async fn ask(channel: Channel, person: &str, after: Option<u64>) -> Result<Vec<WhoAskedResponse>, Status> {
    let request = WhoAskedRequest { person: person.into(), reason: "Antrag 7".into(), after };
    let mut entries = CitizenServiceClient::new(channel).who_asked(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(entry) = entries.message().await? {
        all.push(entry);
    }
    Ok(all)
}

async fn who_asked(server: &Server, person: &str) -> Vec<WhoAskedResponse> {
    ask(door(server).await, person, None).await.unwrap()
}

/// Whether any file below holds these bytes.
fn holds(directory: &Path, what: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => holds(&entry.path(), what),
            kind if kind.is_file() => {
                let bytes = std::fs::read(entry.path()).unwrap();
                let at = |(at, byte): (usize, &u8)| *byte == what[0] && bytes[at..].starts_with(what);
                bytes.iter().enumerate().any(at)
            }
            _ => false,
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_about_me_is_told_until_i_am_erased() {
    let mut instance = Instance::planned(Plan { at_provider: SUBJECT.into(), ..Plan::default() }).await;
    let caller = instance.caller().await;
    let both = caller.ask(Question::new().header("trave-subject", DECLARED).message(&names_a_person())).await;
    let one = caller.ask(Question::new().message(&names_a_person())).await;
    // Nobody is named, or in no way that can be read: the call is made all the same.
    let deep = [0x0a, 0xff, 0x03].repeat(10_000);
    for body in [&b""[..], b"\xff\xff\xff", &deep, &[0x0a, 2, 0x0a, 0]] {
        let answer = caller.ask(Question::new().message(body)).await;
        assert_eq!(answer.only().as_ref(), body);
    }
    assert_eq!((both.status(), one.status()), (0, 0));
    // What a caller declares of a person makes nobody of the caller, and goes no further.
    assert!(instance.register.calls().iter().all(|call| call.header("trave-subject").is_none()));

    let entries = who_asked(&instance.mv, NAMED).await;
    let exchanges: Vec<_> = entries.iter().map(|entry| entry.exchange_id.to_vec()).collect();
    assert_eq!(exchanges, [&both, &one].map(|answer| answer.exchange().as_bytes().to_vec()));
    let WhoAskedResponse { asking, providing, service, kind_of_data, purpose, legal_basis, .. } = &entries[0];
    assert_eq!(
        [asking, service, purpose, legal_basis].map(String::as_str),
        [CLIENT, SERVICE, PURPOSE, LEGAL_BASIS]
    );
    assert!(SERVICE.starts_with(providing.as_str()) && !kind_of_data.is_empty());
    assert!(!entries[0].citation.is_empty() && !entries[0].purpose_text_de.is_empty());
    assert_eq!(entries[0].outcome, "answered");
    let rest = ask(door(&instance.mv).await, NAMED, Some(entries[0].place)).await.unwrap();
    assert_eq!(rest, entries[1..]);
    assert_eq!(who_asked(&instance.mv, "steuer-id:12345678901").await.len(), 1);
    // The client's side knows whom its caller declares, and looks into no request.
    assert_eq!(
        (who_asked(&instance.sh, DECLARED).await.len(), who_asked(&instance.sh, NAMED).await.len()),
        (1, 0)
    );
    // Who is not known is told as who was never asked about, and each question is in the log, without the person.
    assert_eq!(who_asked(&instance.mv, "steuer-id:1").await, []);
    let reads = |server: &Server| {
        let entries = server.records(0).into_iter().filter_map(|record| record.leaf.entry);
        entries.filter(|entry| matches!(entry, Entry::Read(_))).collect::<Vec<_>>()
    };
    let read = format!("{:?}", reads(&instance.mv));
    assert_eq!(reads(&instance.mv).len(), 4);
    assert!(read.contains("Antrag 7") && !read.contains("98765432109") && !read.contains("12345678901"));
    for server in [&instance.sh, &instance.mv] {
        assert!(!holds(&server.data(), b"98765432109") && !holds(&server.data(), b"345 678"));
    }

    // After a restart it is found again, and erased for good.
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    assert_eq!(who_asked(&instance.mv, NAMED).await, entries);
    let erase =
        ErasePersonRequest { person: NAMED.into(), operator: String::new(), reason: "Art. 17".into() };
    let mut mv = operator(&instance.mv).await;
    let erased = mv.erase_person(erase).await.unwrap().into_inner();
    assert_eq!((erased.exchanges, erased.contents, erased.pseudonyms), (2, 4, 2));
    assert_eq!(who_asked(&instance.mv, NAMED).await, []);
    assert_eq!(who_asked(&instance.mv, DECLARED).await.len(), 1, "the other person's pseudonym stays");
    let report = mv.check_log(CheckLogRequest {}).await.unwrap().into_inner();
    assert_eq!((report.erased, report.problems), (4, vec![]));
    let acts = instance.mv.records(0).into_iter().filter_map(|record| record.leaf.entry);
    let acts: String = acts
        .filter(|it| matches!(it, Entry::Persons(_) | Entry::Erasure(_)))
        .map(|it| format!("{it:?}"))
        .collect();
    assert!(acts.contains("Art. 17") && !acts.contains("98765432109"));
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    assert_eq!(who_asked(&instance.mv, NAMED).await, []);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_month_is_over_for_as_long_as_configured_nobody_is_found_in_it() {
    let mut instance = Instance::planned(Plan { at_provider: SUBJECT.into(), ..Plan::default() }).await;
    instance
        .mv
        .reconfigure(|text| text.replace("reserve_mib = 1\n", "reserve_mib = 1\npersons_months = 1\n"))
        .await;
    instance.ask(&names_a_person()).await.only();
    let key = instance.mv.layout().log().join("keys/persons-2026-11.bin");
    assert!(key.exists());
    instance.advance(Duration::from_secs(30 * 86_400));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(who_asked(&instance.mv, NAMED).await.len(), 1, "the month before is kept");
    instance.advance(Duration::from_secs(32 * 86_400));
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while key.exists() {
        assert!(tokio::time::Instant::now() < end, "the key of the month is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(who_asked(&instance.mv, NAMED).await, []);
    let destroyed = instance.mv.records(0).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::Persons(change)) => Some((record.leaf.version, change.destroyed_before)),
        _ => None,
    });
    assert_eq!(destroyed.collect::<Vec<_>>(), [(3, "2026-12".to_owned())]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_nobody_and_calls_it_by_nothing_has_no_pseudonym_on_either_side() {
    let mut instance = Instance::start().await;
    let keys = |server: &Server| {
        let names = std::fs::read_dir(server.layout().log().join("keys")).unwrap();
        names
            .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("persons-"))
            .count()
    };
    instance.ask(b"ohne").await.only();
    // A month's key is drawn with its first pseudonym.
    assert_eq!((keys(&instance.sh), keys(&instance.mv)), (0, 0));
    let question = Question::new().header("x-road-issue", "GA 7/26").message(b"mit");
    instance.caller().await.ask(question).await.only();
    assert_eq!((keys(&instance.sh), keys(&instance.mv)), (1, 1));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_demand_that_a_request_names_a_person() {
    let at_provider = format!("{SUBJECT}required = true\n");
    let mut instance = Instance::planned(Plan { at_provider, ..Plan::default() }).await;
    for body in [&b""[..], b"\xff", &[0x0a, 2, 0x0a, 0]] {
        let refused = instance.ask(body).await.told().unwrap();
        assert_eq!(
            (refused.0.as_str(), refused.2.as_str()),
            (Reason::InvalidMessage.as_str(), "no"),
            "{refused:?}"
        );
    }
    assert_eq!(instance.register.count(), 0, "the register saw nothing of it");
    assert_eq!(instance.ask(&names_a_person()).await.only().as_ref(), names_a_person());
    let declared = Question::new().header("trave-subject", DECLARED);
    assert_eq!(instance.caller().await.ask(declared).await.status(), 0);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cockpit_asks_at_a_door_of_its_own_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let at = |file: &str| directory.path().join(file);
    let door = certified_by_itself(&at("door.key"), &at("door.pem"));
    certified_by_itself(&at("cockpit.key"), &at("cockpit.pem"));
    certified_by_itself(&at("stranger.key"), &at("stranger.pem"));
    let shown = |file: &str| at(file).display().to_string();
    let cockpit = format!(
        "[cockpit]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
         clients = [{{ certificate = \"{}\", authority = \"NORD/MV/gewerberegister\" }}]\n",
        shown("door.pem"),
        shown("door.key"),
        shown("cockpit.pem")
    );
    let at_provider = format!("{SUBJECT}{cockpit}");
    let mut instance = Instance::planned(Plan { at_provider, ..Plan::default() }).await;
    instance.ask(&names_a_person()).await.only();
    let address = instance.mv.running().cockpits.unwrap().to_string();
    let passphrase = Secret::new(PASSPHRASE.into());
    let client = |name: &str| {
        let key = SigningKey::open(&at(&format!("{name}.key")), &passphrase).unwrap();
        let chain = tls::chain_from_pem(&at(&format!("{name}.pem"))).unwrap();
        let identity = Identity::new(chain, Arc::new(key)).unwrap();
        let pinned = Pinned::new([tls::public_key_digest(&door).unwrap()]);
        tls::Client::new(Some(Arc::new(identity)), Arc::new(pinned), Http::Two, Arc::clone(&instance.clock))
            .unwrap()
    };
    let known = Channel::tls(&address, &client("cockpit")).await.unwrap();
    assert_eq!(ask(known.clone(), NAMED, None).await.unwrap().len(), 1);
    let refused = ask(known, "steuer-id:\u{1}98765432109", None).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(!refused.message().contains("98765432109"), "{refused}");
    // TLS 1.3 tells the client with its first request.
    if let Ok(channel) = Channel::tls(&address, &client("stranger")).await {
        assert!(ask(channel, NAMED, None).await.is_err());
    }
    let readers = instance.mv.records(0).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::Read(read)) => Some((read.reader, read.results)),
        _ => None,
    });
    assert_eq!(readers.collect::<Vec<_>>(), [("cockpit of NORD/MV/gewerberegister".to_owned(), 1)]);
    instance.stop().await;
}
