//! Who may call what: granted and withdrawn while the server runs, to subsystems, members and groups, for a time, so often,
//! by one person or by two; with a history, and with an explanation for the operator alone.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod groups;
mod two_persons;
mod prunings;

use std::time::Duration;

use tonic::Code;
use trave_host::client::Channel;
use trave_host::stubs::operator::operator_service_client::OperatorServiceClient;
use trave_proto::schema::log::RateLimit;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::operator::list_changes_response::Change;
use trave_proto::schema::operator::{
    ExplainGrantRequest, ExplainGrantResponse, ExplainedGrant, GrantRequest, ListChangesRequest,
    ListChangesResponse, ListGrantsRequest, RevokeGrantRequest,
};
use trave_tests::network::{
    Answer, CLIENT, Ended, Instance, LEGAL_BASIS, METHOD, OTHER_PURPOSE, Open, PURPOSE, Plan, Question,
    SERVICE, START, operator,
};

type Operator = OperatorServiceClient<Channel>;

/// As long as anything may take on a busy machine, and far less than what would end a stream by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instance in which nobody may call anything.
async fn closed() -> Instance {
    Instance::planned(Plan { grants: vec![], ..Plan::default() }).await
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

async fn grant(operator: &mut Operator, request: GrantRequest) -> String {
    let granted = operator.grant(request).await.unwrap().into_inner();
    assert!(!granted.waiting);
    granted.id
}

async fn revoke(operator: &mut Operator, id: &str) {
    let request = RevokeGrantRequest { id: id.into(), operator: "Op".into() };
    operator.revoke_grant(request).await.unwrap();
}

/// A stream that was asked once.
async fn open(instance: &Instance) -> Open {
    let open = instance.caller().await.open(Question::new()).await;
    open.send(b"0").await;
    open
}

/// Why a call was refused; none if it was answered.
fn refused(answer: &Answer) -> Option<String> {
    answer.told().map(|(reason, _, _)| reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_grant_is_withdrawn_though_nobody_says_anything() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let (id, other) = (grant(&mut mv, usual()).await, usual());
    let mut open = open(&instance).await;
    open.head().await;
    open.next().await.unwrap();
    let call = instance.register.last();

    // As long as another grant allows it, it goes on.
    let other = grant(&mut mv, GrantRequest { method: "/*".into(), ..other }).await;
    revoke(&mut mv, &id).await;
    open.send(b"weiter").await;
    open.next().await.unwrap();
    assert_eq!(call.ended_now(), Ended::No);

    revoke(&mut mv, &other).await;
    let ended = tokio::time::timeout(PATIENCE, open.finish()).await.expect("the caller hears of it");
    assert_eq!(refused(&ended).as_deref(), Some("access_denied"));
    assert_eq!(tokio::time::timeout(PATIENCE, call.ended()).await, Ok(Ended::BrokenOff));
    let told = |told: &[String]| told.iter().any(|line| line.contains("access_denied by provider_server"));
    instance.mv.until(told, call.exchange()).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_holds_between_its_dates_and_ends_what_is_under_way() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let at = |seconds: i64| Some(START.as_millis() + seconds * 1_000);
    let over = mv.grant(GrantRequest { not_after_ms: at(-1), ..usual() }).await.unwrap_err();
    assert_eq!(over.code(), Code::FailedPrecondition, "{over}");
    let reversed = GrantRequest { not_before_ms: at(2), not_after_ms: at(1), ..usual() };
    assert_eq!(mv.grant(reversed).await.unwrap_err().code(), Code::InvalidArgument);
    let dated = GrantRequest { not_before_ms: at(60), not_after_ms: at(120), ..usual() };
    let id = grant(&mut mv, dated).await;
    assert_eq!(refused(&instance.ask(b"zu frueh").await).as_deref(), Some("access_denied"));
    instance.advance(Duration::from_secs(60));
    assert_eq!(refused(&instance.ask(b"jetzt").await), None);
    let mut open = open(&instance).await;
    open.head().await;
    open.next().await.unwrap();
    // The clock is moved once the stream waits for it.
    instance.advance(Duration::from_secs(60));
    assert_eq!(refused(&instance.ask(b"gerade noch").await), None);
    instance.advance(Duration::from_millis(1));
    let ended = tokio::time::timeout(PATIENCE, open.finish()).await.expect("the caller hears of it");
    assert_eq!(refused(&ended).as_deref(), Some("access_denied"));
    assert_eq!(refused(&instance.ask(b"zu spaet").await).as_deref(), Some("access_denied"));
    let listed = mv.list_grants(ListGrantsRequest {}).await.unwrap().into_inner().grants;
    assert_eq!((&listed[0].id, listed[0].not_before_ms, listed[0].not_after_ms), (&id, at(60), at(120)));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_another_grant_carries_on_ends_with_that_one() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let until =
        |seconds: i64| GrantRequest { not_after_ms: Some(START.as_millis() + seconds * 1_000), ..usual() };
    grant(&mut mv, until(60)).await;
    let mut open = open(&instance).await;
    open.head().await;
    open.next().await.unwrap();
    grant(&mut mv, until(120)).await;
    instance.advance(Duration::from_secs(61));
    open.send(b"weiter").await;
    open.next().await.unwrap();
    // From here on nobody says anything.
    instance.advance(Duration::from_secs(60));
    let ended = tokio::time::timeout(PATIENCE, open.finish()).await.expect("the caller hears of it");
    assert_eq!(refused(&ended).as_deref(), Some("access_denied"));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_refuses_what_is_too_often_before_the_register() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let rate_limit = Some(RateLimit { calls: 2, period_ms: 3_600_000, burst: 2 });
    let id = grant(&mut mv, GrantRequest { rate_limit, ..usual() }).await;
    for _ in 0..2 {
        assert_eq!(refused(&instance.ask(b"noch").await), None);
    }
    let limited = instance.ask(b"zu oft").await;
    assert_eq!(refused(&limited).as_deref(), Some("rate_limited"));
    let info = limited.info().unwrap();
    let told = |name: &str| info.metadata[name].as_str();
    assert_eq!((told("register_reached"), told("retry_safe"), limited.status()), ("no", "yes", 8));
    assert!(limited.message().contains("try again in "), "{}", limited.message());
    assert_eq!(instance.register.count(), 2);
    let refusal =
        |lines: &[String]| lines.iter().any(|line| line == "refused rate_limited by provider_server");
    instance.mv.until(refusal, limited.exchange()).await;

    // What the operator asks uses nothing up, and tells how it stands.
    let explained = explain(&mut mv, question()).await;
    assert_eq!(explained.allowed_by, id);
    assert!(explained.grants[0].notes[0].contains("used up now"), "{:?}", explained.grants[0].notes);
    revoke(&mut mv, &id).await;
    let exchanges = GrantRequest { exchanges: 1, ..usual() };
    grant(&mut mv, exchanges).await;
    let mut open = open(&instance).await;
    open.head().await;
    let second = instance.ask(b"zugleich").await;
    assert_eq!(refused(&second).as_deref(), Some("rate_limited"));
    open.end();
    open.finish().await;
    let mut again = instance.ask(b"danach").await;
    let begun = std::time::Instant::now();
    while refused(&again).is_some() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        again = instance.ask(b"danach").await;
    }
    assert_eq!(refused(&again), None);
    instance.stop().await;
}

async fn changes(operator: &mut Operator, id: &str) -> Vec<ListChangesResponse> {
    let request = ListChangesRequest {
        id: (!id.is_empty()).then(|| id.into()),
        reader: "Revision".into(),
        reason: "Stichprobe".into(),
    };
    let mut stream = operator.list_changes(request).await.unwrap().into_inner();
    let mut changes = Vec::new();
    while let Some(change) = stream.message().await.unwrap() {
        changes.push(change);
    }
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_stands_in_the_log_and_reading_it_too() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let id = grant(&mut mv, usual()).await;
    instance.advance(Duration::from_secs(1));
    grant(&mut mv, GrantRequest { method: "/*".into(), ..usual() }).await;
    revoke(&mut mv, &id).await;
    // A restart changes nothing of it.
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    let mut mv = operator(&instance.mv).await;
    assert_eq!(mv.list_grants(ListGrantsRequest {}).await.unwrap().into_inner().grants.len(), 1);
    let told: Vec<_> = changes(&mut mv, &id)
        .await
        .into_iter()
        .map(|change| match change.change {
            Some(Change::Grant(grant)) => (change.time_ms - START.as_millis(), grant.in_force, grant.id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(0, true, id.clone()), (1_000, false, id.clone())]);
    assert_eq!(changes(&mut mv, "").await.len(), 3);
    assert_eq!(changes(&mut mv, "g-0").await.len(), 0);
    let empty =
        ListChangesRequest { id: Some(String::new()), reason: "Stichprobe".into(), ..Default::default() };
    let refused = mv.list_changes(empty).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("`id`"), "{refused}");
    let unfounded = ListChangesRequest { reader: "Revision".into(), ..ListChangesRequest::default() };
    assert_eq!(mv.list_changes(unfounded).await.unwrap_err().code(), Code::InvalidArgument);
    let reads: Vec<_> = instance
        .mv
        .records(0)
        .into_iter()
        .filter_map(|record| match record.leaf.entry {
            Some(Entry::Read(read)) => Some((read.query, read.reason, read.results)),
            _ => None,
        })
        .collect();
    let read = |query: String, results| (query, "Stichprobe".to_owned(), results);
    let expected = [
        read(format!("grant history {id:?}"), 2),
        read("grant history".into(), 3),
        read("grant history \"g-0\"".into(), 0),
    ];
    assert_eq!(reads, expected);
    instance.stop().await;
}

fn question() -> ExplainGrantRequest {
    ExplainGrantRequest {
        client: CLIENT.into(),
        service: SERVICE.into(),
        method: METHOD.into(),
        purpose: PURPOSE.into(),
        legal_basis: LEGAL_BASIS.into(),
        ..ExplainGrantRequest::default()
    }
}

async fn explain(operator: &mut Operator, question: ExplainGrantRequest) -> ExplainGrantResponse {
    operator.explain_grant(question).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_is_told_why_and_the_caller_is_not() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let nothing = explain(&mut mv, question()).await;
    assert_eq!((nothing.allowed_by.as_str(), nothing.grants.len()), ("", 0));
    let unlike = instance.ask(b"wer?").await;

    let (soon, later) = (START.as_millis() + 1_000, START.as_millis() + 2_000);
    let dated = GrantRequest { not_before_ms: Some(soon), not_after_ms: Some(later), ..usual() };
    let dated = grant(&mut mv, dated).await;
    let other = grant(&mut mv, GrantRequest { purposes: vec![OTHER_PURPOSE.into()], ..usual() }).await;
    let told = explain(&mut mv, question()).await;
    assert_eq!(told.allowed_by, "");
    let misfits = |told: &ExplainGrantResponse, id: &str| {
        let of = |one: &&ExplainedGrant| one.grant.as_ref().unwrap().id == id;
        told.grants.iter().find(of).unwrap().misfits.clone()
    };
    assert_eq!(misfits(&told, &dated), ["it holds from 2026-11-21T10:00:01.000Z on"]);
    assert_eq!(misfits(&told, &other), [format!("its purposes are {OTHER_PURPOSE}")]);
    let at = |at_ms| ExplainGrantRequest { at_ms: Some(at_ms), ..question() };
    assert_eq!(explain(&mut mv, at(soon)).await.allowed_by, dated);
    let expired = explain(&mut mv, at(later + 1)).await;
    assert_eq!(misfits(&expired, &dated), ["it held until 2026-11-21T10:00:02.000Z"]);

    let nobody = ExplainGrantRequest {
        client: "NORD/SH/husum/bauamt".into(),
        purpose: "neugier".into(),
        legal_basis: "keine".into(),
        ..question()
    };
    assert_eq!(explain(&mut mv, nobody).await.obstacles.len(), 3);
    let both = ExplainGrantRequest { endpoint: "GET /".into(), ..question() };
    assert_eq!(mv.explain_grant(both).await.unwrap_err().code(), Code::InvalidArgument);

    // However near a grant is: the caller's error is the same to the letter.
    let near = instance.ask(b"wer?").await;
    assert_eq!((near.told(), near.message()), (unlike.told(), unlike.message()));
    assert!(!near.message().contains(&dated) && near.message().contains("no grant allows"));
    instance.stop().await;
}
