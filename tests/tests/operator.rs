//! What the operator of a security server does while it runs, and what of it the log keeps: grants in force at once, a log
//! whose reading is logged, proofs that both sides export of the same exchange, contents erased for good.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use tonic::Code;
use trave_gateway::config::Config;
use trave_host::client::Channel;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::fault::Reason;
use trave_proto::global_configuration::Anchor;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::{self, Conclusion, ContentStory, Proof, Report, Side};
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::{
    CheckLogRequest, EraseRequest, GrantRequest, ListGrantsRequest, ListLogRequest, ListLogResponse,
    ProveRequest, RevokeGrantRequest, StatusRequest,
};
use trave_tests::network::{
    CLIENT, EMPTY_SERVICE, Instance, LEGAL_BASIS, METHOD, OTHER_CLIENT, OTHER_PURPOSE, PURPOSE, Plan,
    Question, SERVICE, Server,
};

type Operator = OperatorServiceClient<Channel>;

async fn operator(server: &Server) -> Operator {
    let socket = Config::read(&server.configuration_file()).unwrap().operator_socket();
    OperatorServiceClient::new(Channel::unix(&socket).await.unwrap())
}

fn usual() -> GrantRequest {
    GrantRequest {
        client: CLIENT.into(),
        service: SERVICE.into(),
        method: "/test.v1.Auskunft/*".into(),
        purposes: vec![PURPOSE.into()],
        legal_bases: vec![LEGAL_BASIS.into()],
        operator: "Op".into(),
        ..GrantRequest::default()
    }
}

fn all() -> ListLogRequest {
    ListLogRequest { reader: "Revision".into(), reason: "Stichprobe".into(), ..ListLogRequest::default() }
}

async fn list(operator: &mut Operator, request: ListLogRequest) -> Vec<ListLogResponse> {
    let mut stream = operator.list_log(request).await.unwrap().into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await.unwrap() {
        entries.push(entry);
    }
    entries
}

async fn prove(
    operator: &mut Operator,
    exchange: ExchangeId,
    without_content: bool,
) -> Result<Bytes, tonic::Status> {
    let request = ProveRequest {
        exchange_id: id(exchange),
        without_content,
        reader: "Revision".into(),
        reason: "Widerspruch".into(),
        ..ProveRequest::default()
    };
    let mut stream = operator.prove(request).await?.into_inner();
    let mut file = Vec::new();
    while let Some(piece) = stream.message().await? {
        file.extend_from_slice(&piece.chunk);
    }
    Ok(file.into())
}

fn id(exchange: ExchangeId) -> Bytes {
    Bytes::copy_from_slice(exchange.as_bytes())
}

fn verify(file: &Bytes, anchor: &Anchor) -> Report {
    proof::verify(&Proof::parse(file.clone()).unwrap(), anchor, None)
}

fn entries(server: &Server) -> Vec<Entry> {
    server.records(0).into_iter().filter_map(|record| record.leaf.entry).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_in_force_at_once_and_withdrawn_at_once() {
    let mut instance = Instance::planned(Plan { grants: vec![], ..Plan::default() }).await;
    let mut mv = operator(&instance.mv).await;
    let denied = instance.ask(b"vorher").await;
    assert_eq!(denied.told().unwrap().0, Reason::AccessDenied.as_str());
    assert_eq!(instance.register.count(), 0);

    let granted = mv.grant(usual()).await.unwrap().into_inner().id;
    assert_eq!(instance.ask(b"jetzt").await.only().as_ref(), b"jetzt");
    let listed = mv.list_grants(ListGrantsRequest {}).await.unwrap().into_inner().grants;
    assert_eq!(listed.iter().map(|grant| &grant.id).collect::<Vec<_>>(), [&granted]);
    let again = mv.grant(usual()).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert!(again.message().contains(&granted), "{again}");

    let revoke = RevokeGrantRequest { id: granted.clone(), operator: "Op".into() };
    mv.revoke_grant(revoke.clone()).await.unwrap();
    assert_eq!(instance.ask(b"nachher").await.told().unwrap().0, Reason::AccessDenied.as_str());
    assert_eq!(instance.register.count(), 1);
    assert_eq!(mv.revoke_grant(revoke).await.unwrap_err().code(), Code::NotFound);
    let changes: Vec<_> = entries(&instance.mv)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Grant(change) => Some((change.id, change.in_force, change.operator.contains("(Op)"))),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [(granted.clone(), true, true), (granted, false, true)]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_what_there_is_not_is_refused_and_leaves_no_trace() {
    let mut instance = Instance::start().await;
    let mut mv = operator(&instance.mv).await;
    type Change = fn(&mut GrantRequest);
    let wrong: [(Change, Code, &str); 8] = [
        (|g| g.client = "NORD/SH".into(), Code::InvalidArgument, "client"),
        (|g| g.client = "NORD/SH/husum/bauamt".into(), Code::FailedPrecondition, "does not know the client"),
        (|g| g.service = format!("{SERVICE}x"), Code::FailedPrecondition, "does not know the service"),
        (|g| g.service = EMPTY_SERVICE.into(), Code::FailedPrecondition, "does not offer"),
        (|g| g.method = "/anders.v1.Dienst/*".into(), Code::FailedPrecondition, "knows no method"),
        (|g| g.purposes = vec!["statistik".into()], Code::FailedPrecondition, "is not a purpose for which"),
        (|g| g.purposes.clear(), Code::InvalidArgument, "name at least one"),
        (|g| g.legal_bases = vec!["keine".into()], Code::FailedPrecondition, "does not know the legal basis"),
    ];
    for (change, code, words) in wrong {
        let mut request = usual();
        change(&mut request);
        let refused = mv.grant(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    let grants = entries(&instance.mv).iter().filter(|entry| matches!(entry, Entry::Grant(_))).count();
    assert_eq!(grants, 1, "the instance's own alone");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_log_is_logged_before_anything_is_shown() {
    let mut instance = Instance::start().await;
    let answered = instance.ask(b"eins").await;
    let refused = instance.caller().await.ask(Question::new().set("trave-purpose", "statistik")).await;
    let denied = instance.caller().await.ask(Question::new().set("trave-purpose", OTHER_PURPOSE)).await;
    let mut sh = operator(&instance.sh).await;
    let mut mv = operator(&instance.mv).await;

    let seen: Vec<_> =
        list(&mut sh, all()).await.into_iter().map(|e| (e.exchange_id, e.outcome, e.reason)).collect();
    let expected = [
        (id(answered.exchange()), "answered".to_owned(), String::new()),
        (id(refused.exchange()), "refused".to_owned(), "unknown_purpose".to_owned()),
        (id(denied.exchange()), "failed".to_owned(), "access_denied".to_owned()),
    ];
    assert_eq!(seen, expected);
    let at_mv = list(&mut mv, all()).await;
    let outcomes: Vec<_> =
        at_mv.iter().map(|e| (e.outcome.as_str(), e.side.as_str(), e.purpose.as_str())).collect();
    assert_eq!(outcomes, [("answered", "provider", PURPOSE), ("refused", "provider", OTHER_PURPOSE)]);

    for (request, count) in [
        (ListLogRequest { outcome: Some("answered".into()), ..all() }, 1),
        (ListLogRequest { purpose: Some(OTHER_PURPOSE.into()), ..all() }, 1),
        (ListLogRequest { client: Some(OTHER_CLIENT.into()), ..all() }, 0),
        (ListLogRequest { service: Some(SERVICE.into()), limit: 2, ..all() }, 2),
        (ListLogRequest { from_ms: instance.clock.now().as_millis() + 1, ..all() }, 0),
        (ListLogRequest { to_ms: instance.clock.now().as_millis(), ..all() }, 0),
    ] {
        assert_eq!(list(&mut sh, request.clone()).await.len(), count, "{request:?}");
    }
    let wrong = ListLogRequest { outcome: Some("gut".into()), ..all() };
    assert_eq!(sh.list_log(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let unfounded = ListLogRequest { reason: " ".into(), ..all() };
    assert_eq!(sh.list_log(unfounded).await.unwrap_err().code(), Code::InvalidArgument);

    let reads: Vec<_> = entries(&instance.sh)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Read(read) => Some(read),
            _ => None,
        })
        .collect();
    assert_eq!(reads.iter().map(|read| read.results).collect::<Vec<_>>(), [3, 1, 1, 0, 2, 0, 0]);
    let uid = std::fs::metadata(instance.sh.data()).unwrap().uid();
    assert_eq!(reads[0].reader, format!("user {uid} (Revision)"));
    assert_eq!((reads[0].reason.as_str(), reads[0].query.as_str()), ("Stichprobe", "log list"));
    assert_eq!(reads[1].query, "log list outcome=\"answered\"");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_prove_the_same_exchange_and_erasing_leaves_the_proof() {
    let mut instance = Instance::start().await;
    let anchor = instance.keys.anchor();
    let exchange = instance.ask(b"wer ist der Tischler?").await.exchange();
    let (mut sh, mut mv) = (operator(&instance.sh).await, operator(&instance.mv).await);
    let (at_sh, at_mv) =
        (prove(&mut sh, exchange, false).await.unwrap(), prove(&mut mv, exchange, false).await.unwrap());
    let (told_sh, told_mv) = (verify(&at_sh, &anchor), verify(&at_mv, &anchor));
    assert_eq!(
        (told_sh.conclusion, told_mv.conclusion),
        (Conclusion::Holds, Conclusion::Holds),
        "{told_sh:?}"
    );
    let (sh_story, mv_story) = (told_sh.story.unwrap(), told_mv.story.unwrap());
    assert_eq!((sh_story.side, mv_story.side), (Side::Client, Side::Provider));
    assert_eq!(manifests(&at_sh), manifests(&at_mv), "the same messages, byte for byte");
    // Where the head came by itself, the question is in the message after it.
    let body = |story: &proof::Story| {
        story.requests.iter().find(|message| message.length > 0).unwrap().content.clone()
    };
    let messages = sh_story.requests.len() + sh_story.responses.len();
    let framed = [&[0, 0, 0, 0, 21][..], b"wer ist der Tischler?"].concat();
    for story in [&sh_story, &mv_story] {
        assert_eq!((story.exchange, story.purpose.code.as_str()), (exchange, PURPOSE));
        assert_eq!(story.method.as_ref().unwrap().as_str(), METHOD);
        assert!(
            matches!(body(story), ContentStory::Included(bytes) if bytes == framed || bytes == framed[5..])
        );
    }
    assert_eq!(mv_story.grant.unwrap().id, "g1");

    let withheld = verify(&prove(&mut sh, exchange, true).await.unwrap(), &anchor);
    assert_eq!(withheld.conclusion, Conclusion::Holds);
    assert_eq!(body(&withheld.story.unwrap()), ContentStory::Withheld);

    let erase = EraseRequest { exchange_id: id(exchange), operator: "Op".into(), reason: "Frist".into() };
    assert_eq!(sh.erase(erase).await.unwrap().into_inner().contents, messages as u64);
    let file = prove(&mut sh, exchange, false).await.unwrap();
    let erased = verify(&file, &anchor);
    assert_eq!(erased.conclusion, Conclusion::Holds, "{erased:?}");
    let story = erased.story.unwrap();
    assert_eq!(body(&story), ContentStory::Erased);
    assert_eq!(story.erased.unwrap().reason, "Frist");
    assert!(!file.windows(8).any(|window| window == b"Tischler"));
    let checked = sh.check_log(CheckLogRequest {}).await.unwrap().into_inner();
    assert_eq!((checked.erased, checked.problems), (messages as u64, Vec::<String>::new()));
    instance.stop().await;
}

/// The signed manifests of a proof, in the order of the exchange.
fn manifests(file: &Bytes) -> Vec<Bytes> {
    let proof = Proof::parse(file.clone()).unwrap();
    let leaves = proof.raw().records.iter().map(|record| {
        <trave_proto::schema::log::Leaf as prost::Message>::decode(record.leaf.clone()).unwrap()
    });
    leaves
        .filter_map(|leaf| match leaf.entry {
            Some(Entry::Message(message)) => Some(message.manifest),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_proved_is_said() {
    let mut instance = Instance::start().await;
    let refused = instance.caller().await.ask(Question::new().set("trave-purpose", "statistik")).await;
    let mut sh = operator(&instance.sh).await;
    let nothing = prove(&mut sh, refused.exchange(), false).await.unwrap_err();
    assert_eq!(nothing.code(), Code::FailedPrecondition, "{nothing}");
    let exchange = instance.ask(b"eins").await.exchange();
    let mut mv = operator(&instance.mv).await;
    let unknown = prove(&mut mv, refused.exchange(), false).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    // No authority, no timestamp: the exchange is logged and not yet provable, and the operator is told.
    instance.authorities.stop().await;
    let unstamped = prove(&mut sh, exchange, false).await.unwrap_err();
    assert_eq!(unstamped.code(), Code::Unavailable, "{unstamped}");
    let status = sh.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|warning| warning.contains("no timestamp")), "{:?}", status.warnings);
    assert_eq!((status.configuration_number, status.registry_seen_ms), (1, 0));
    let degraded = entries(&instance.sh).into_iter().any(
        |entry| matches!(entry, Entry::Degradation(d) if d.begins && d.kind == "timestamping_unavailable"),
    );
    assert!(degraded);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_door_opens_to_its_owner_alone() {
    let mut instance = Instance::start().await;
    let socket = Config::read(&instance.sh.configuration_file()).unwrap().operator_socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    instance.sh.stop().await;
    assert!(!socket.exists());
    // Where others could reach the socket, the server does not start.
    std::fs::set_permissions(instance.sh.data(), std::os::unix::fs::PermissionsExt::from_mode(0o750))
        .unwrap();
    let refused = instance.sh.start().await.unwrap_err();
    assert!(trave_host::config::with_causes(&refused).contains("mode 0700"), "{refused:?}");
    instance.stop().await;
}
