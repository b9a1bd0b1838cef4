//! What a security server exports, a stranger verifies: with the file, the anchor and nothing else, when the servers are
//! gone and their clocks are years behind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use trave_proto::proof::{
    CallerContextStory, Completeness, Conclusion, ContentStory, NotProved, Side, Story,
};
use trave_proto::schema::operator::EraseRequest;
use trave_tests::network::{
    CLIENT, Instance, LEGAL_BASIS, METHOD, PURPOSE, Plan, Question, SERVICE, Script, export, judge, operator,
    story,
};
use trave_tests::program::program;

fn contents(story: &Story) -> Vec<&ContentStory> {
    story.requests.iter().chain(&story.responses).map(|message| &message.content).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_prove_the_same_exchange() {
    let mut instance = Instance::start().await;
    let question = Question::new()
        .message(b"wer?")
        .header("x-road-userid", "frau.muster")
        .header("x-road-issue", "GA-1")
        .header("trave-subject", "Anna Beispiel");
    let answer = instance.caller().await.ask(question).await;
    let exchange = answer.exchange();
    let (ours, theirs) =
        (export(&instance.sh, exchange, false).await, export(&instance.mv, exchange, false).await);
    instance.stop().await;

    let (asked, answered) = (story(&instance, &ours), story(&instance, &theirs));
    for (story, side) in [(&asked, Side::Client), (&answered, Side::Provider)] {
        assert_eq!((story.side, story.exchange), (side, exchange));
        assert_eq!((story.client.id.as_str(), story.service.id.as_str()), (CLIENT, SERVICE));
        assert_eq!((story.purpose.code.as_str(), story.legal_basis.code.as_str()), (PURPOSE, LEGAL_BASIS));
        assert_eq!(story.method.as_ref().unwrap().as_str(), METHOD);
        assert_eq!(story.completeness, Completeness::Whole);
        let answer = story.answer.as_ref().unwrap();
        assert_eq!((answer.http_status, answer.grpc_status), (Some(200), Some(0)));
        let CallerContextStory::Included(context) = &story.caller_context else { panic!("{story:?}") };
        assert_eq!((context.user.as_str(), context.subject.as_str()), ("frau.muster", "Anna Beispiel"));
        assert!(contents(story).iter().all(|content| matches!(content, ContentStory::Included(_))));
        assert!(story.sealed.as_ref().unwrap().not_later_than >= story.requests[0].created);
    }
    assert!(answered.grant.is_some() && asked.grant.is_none());
    let created = |story: &Story| -> Vec<_> {
        story
            .requests
            .iter()
            .chain(&story.responses)
            .map(|message| (message.created, message.length))
            .collect()
    };
    assert_eq!(created(&asked), created(&answered), "the same messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_or_left_out_is_still_proved_to_have_been_said() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"wer?").await.exchange();
    let without = story(&instance, &export(&instance.mv, exchange, true).await);
    assert!(contents(&without).iter().all(|content| **content == ContentStory::Withheld));
    let with = export(&instance.mv, exchange, false).await;
    let request = EraseRequest {
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        operator: "Operator Muster".into(),
        reason: "Löschfrist".into(),
    };
    operator(&instance.mv).await.erase(request).await.unwrap();
    let report = judge(&instance, &export(&instance.mv, exchange, false).await);
    assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
    assert!(report.not_proved.contains(&NotProved::ContentNotIncluded));
    let erased = report.story.unwrap();
    assert!(contents(&erased).iter().all(|content| **content == ContentStory::Erased));
    assert_eq!(erased.erased.as_ref().unwrap().reason, "Löschfrist");
    assert!(
        erased.answer.is_none()
            && matches!(
                erased.caller_context,
                CallerContextStory::NotDeclared | CallerContextStory::NotIncluded
            )
    );
    // What somebody exported before is in that file for good, and still holds.
    assert!(story(&instance, &with).answer.is_some());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_the_policy_does_not_keep_are_not_kept() {
    let plan = Plan { keep_at_client: "none", keep_at_provider: "request", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let exchange = instance.ask(b"wer?").await.exchange();
    let ours = story(&instance, &export(&instance.sh, exchange, false).await);
    assert!(contents(&ours).iter().all(|content| **content == ContentStory::NotKept));
    let theirs = story(&instance, &export(&instance.mv, exchange, false).await);
    assert!(theirs.requests.iter().all(|message| matches!(message.content, ContentStory::Included(_))));
    assert!(theirs.responses.iter().all(|message| message.content == ContentStory::NotKept));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_whole_and_a_broken_call_is_not() {
    let mut instance = Instance::start().await;
    let mut open = instance.caller().await.open(Question::new()).await;
    open.send(b"eins").await;
    let head = open.head().await;
    open.next().await.unwrap();
    open.send(b"zwei").await;
    open.next().await.unwrap();
    open.end();
    while open.next().await.is_ok() {}
    let exchange = head["trave-exchange-id"].to_str().unwrap().parse().unwrap();
    for server in [&instance.sh, &instance.mv] {
        let told = story(&instance, &export(server, exchange, false).await);
        assert_eq!(told.completeness, Completeness::Whole);
        assert!(told.requests.len() >= 2 && told.responses.len() >= 2, "{told:?}");
    }
    instance.register.script(Script::Hold);
    let open = instance.caller().await.open(Question::new()).await;
    open.send(b"wer?").await;
    instance.register.called(2).await;
    open.cancel();
    let exchange = instance.register.last().header("trave-exchange-id").unwrap().parse().unwrap();
    let ends = |told: &[String]| told.iter().any(|line| line.starts_with("ended"));
    for server in [&instance.sh, &instance.mv] {
        server.until(ends, exchange).await;
        let told = story(&instance, &export(server, exchange, false).await);
        assert!(matches!(told.completeness, Completeness::BrokenOff { responses: 0, .. }), "{told:?}");
        assert_eq!(told.ended.as_ref().unwrap().outcome, "aborted");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_and_a_refusing_register_are_proved_alike() {
    let mut instance = Instance::start().await;
    let long = vec![7; 3 << 20];
    let exchange = instance.ask(&long).await.exchange();
    instance.advance(Duration::from_secs(1));
    for server in [&instance.sh, &instance.mv] {
        let told = story(&instance, &export(server, exchange, false).await);
        let bytes: u64 = told.responses.iter().map(|message| message.length).sum();
        assert!(told.responses.len() >= 3 && bytes >= 3 << 20, "{} messages", told.responses.len());
    }
    let refusal = vec![("grpc-status", "5".to_owned()), ("grpc-message", "kein Eintrag".to_owned())];
    instance.register.script(Script::TrailersOnly(refusal));
    let exchange = instance.ask(b"wer?").await.exchange();
    for server in [&instance.sh, &instance.mv] {
        let told = story(&instance, &export(server, exchange, false).await);
        let answer = told.answer.unwrap();
        assert_eq!((answer.grpc_status, answer.grpc_message.as_deref()), (Some(5), Some("kein Eintrag")));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_and_openssl_agree() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"wer?").await.exchange();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("anchor"), instance.keys.anchor().bytes()).unwrap();
    std::fs::write(path("proof"), export(&instance.mv, exchange, false).await).unwrap();
    instance.stop().await;
    let (proof, anchor, out) = (path("proof"), path("anchor"), path("out"));
    let arguments = [&proof, Path::new("--anchor"), &anchor, Path::new("--extract"), &out];
    let told = Command::new(program("trave-verify")).args(arguments).output().unwrap();
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("THE PROOF HOLDS\n"));
    let checked = Command::new("sh").arg(out.join("check.sh")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
