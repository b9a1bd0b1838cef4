//! What is too much or too large is refused, and says so: at the door, at the peer, in both logs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::time::{Duration, Instant};

use trave_gateway::config::Config;
use trave_proto::fault::{Fault, Reason, Side};
use trave_tests::network::hostile::{Credentials, HostileClient, Outcome};
use trave_tests::network::{Answer, Instance, KIEL, LUEBECK, Plan, Question, Script};

fn limited(at_client: &str, at_provider: &str) -> Plan {
    let limits = |more: &str| format!("[limits]\n{more}\n");
    Plan { at_client: limits(at_client), at_provider: limits(at_provider), ..Plan::default() }
}

/// Reason, side, register reached.
fn told(answer: &Answer) -> (String, String, String) {
    assert!(answer.message().len() > 15, "an error says what happened");
    answer.told().expect("refused, and not by the register")
}

fn refused(reason: &str, side: &str) -> (String, String, String) {
    (reason.into(), side.into(), "no".into())
}

/// Asks once more than may be under way, and is served again when one of those has ended.
async fn one_too_many(plan: Plan, side: &str, names: &str) {
    let mut instance = Instance::planned(plan).await;
    instance.register.script(Script::DeafUntilTold);
    let caller = instance.caller().await;
    let open = [caller.open(Question::new()).await, caller.open(Question::new()).await];
    for one in &open {
        one.send(b"offen").await;
    }
    instance.register.called(2).await;
    let answer = caller.ask(Question::new()).await;
    assert_eq!(told(&answer), refused("overloaded", side));
    assert!(answer.message().contains(names), "{}", answer.message());
    assert_eq!(answer.info().unwrap().metadata["retry_safe"], "yes");
    assert_eq!(instance.register.count(), 2);
    for one in open {
        one.cancel();
    }
    instance.register.script(Script::Echo);
    // When the places are free again, nothing tells.
    let served = async {
        while caller.ask(Question::new()).await.status() != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), served).await.expect("there is room again");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_so_many_exchanges_at_a_time() {
    one_too_many(
        limited("exchanges_per_client = 2", ""),
        "client_server",
        "client NORD/SH/luebeck/gewerbeamt",
    )
    .await;
    one_too_many(
        limited("", "exchanges_per_client = 2"),
        "provider_server",
        "client NORD/SH/luebeck/gewerbeamt",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_server_asks_for_so_many_exchanges_at_a_time() {
    let names = "security server NORD/SH/luebeck/s1";
    one_too_many(limited("", "exchanges_per_peer = 2"), "provider_server", names).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_where_it_is_known() {
    let mut instance = Instance::planned(limited("message_mib = 1\nbody_mib = 2", "head_kib = 8")).await;
    let caller = instance.caller().await;
    let ask = |question: Question| {
        let caller = caller.clone();
        async move { caller.ask(question).await }
    };
    let most = vec![0x5a; 1 << 20];
    assert_eq!(ask(Question::new().message(&most)).await.only().len(), 1 << 20);
    let long = vec![0x5a; (1 << 20) + 1];
    let answer = ask(Question::new().message(&long)).await;
    assert_eq!(told(&answer), refused("too_large", "client"));
    assert!(answer.message().contains("1048576"), "{}", answer.message());

    // Two of them are too much in all; the first was sent by then.
    let two = [trave_tests::network::frame(&most), trave_tests::network::frame(&most)].concat();
    let answer = ask(Question { body: two.into(), ..Question::new() }).await;
    let (reason, side, _) = told(&answer);
    assert_eq!((reason.as_str(), side.as_str()), ("too_large", "client"));

    // A head that this side lets through, and the other does not.
    let mut question = Question::new();
    for at in 0..3 {
        question = question.header(&format!("x-long-{at}"), &"y".repeat(4 << 10));
    }
    let answer = ask(question).await;
    assert_eq!(told(&answer), refused("too_large", "provider_server"));
    // The call before may still reach it.
    let id = answer.exchange().to_string();
    let seen =
        instance.register.calls().iter().any(|call| call.header("trave-exchange-id") == Some(id.as_str()));
    assert!(!seen, "the register never saw it");
    assert_eq!(instance.mv.tells(answer.exchange()), ["refused too_large by provider_server"]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_signatures_do_not_verify_is_not_looked_at_for_a_while() {
    let mut instance = Instance::planned(limited("", "bad_signatures = 3")).await;
    let luebeck = Credentials::of(LUEBECK, &instance.authorities, &instance.configuration);
    let mut client = HostileClient::connect(&instance, luebeck).await.unwrap();
    for _ in 0..3 {
        let fault = fault(forged(&mut client).await);
        assert_eq!((fault.reason, fault.side), (Reason::InvalidSignatureValue, Side::ProviderServer));
    }
    let refused = fault(forged(&mut client).await);
    assert_eq!((refused.reason, refused.side), (Reason::Overloaded, Side::ProviderServer));
    assert!(refused.message.contains(LUEBECK) && refused.retry_safe(), "{}", refused.message);
    // Not even what is right.
    let question = client.question();
    let refused = fault(client.send(vec![client.sign(question)]).await);
    assert_eq!(refused.reason, Reason::Overloaded);
    assert_eq!(instance.register.count(), 0);

    // Others are listened to, unless they do the same.
    let kiel = Credentials::of(KIEL, &instance.authorities, &instance.configuration);
    HostileClient::connect(&instance, kiel.clone()).await.unwrap();
    let unlisted = kiel.clone().with_unlisted_signing(&instance.authorities);
    for _ in 0..3 {
        let status = HostileClient::connect(&instance, unlisted.clone()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    }
    let status = HostileClient::connect(&instance, kiel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    instance.stop().await;
}

/// A question whose signature is another's.
async fn forged(client: &mut HostileClient) -> Outcome {
    let (one, other) = (client.sign(client.question()), client.sign(client.question()));
    client.send(vec![trave_proto::schema::message::Envelope { signature: other.signature, ..one }]).await
}

fn fault(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Fault(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_read_again_and_what_waits_for_a_start_is_named() {
    let mut instance = Instance::planned(limited("message_mib = 2", "")).await;
    let caller = instance.caller().await;
    let long = vec![0x5a; (1 << 20) + 1];
    let ask = async || caller.ask(Question::new().message(&long)).await;
    assert_eq!(ask().await.status(), 0);
    let file = instance.sh.configuration_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace("message_mib = 2", "message_mib = 1\nstreams = 7\nslow_seconds = 61");
    std::fs::write(&file, other).unwrap();
    let waits = instance.sh.running().reload(&Config::read(&file).unwrap()).unwrap();
    assert_eq!(waits, ["limits.streams", "limits.slow_seconds"]);
    assert_eq!(told(&ask().await), refused("too_large", "client"));

    let nobody = text.replace("message_mib = 2", "message_mib = 2\nexchanges = 1");
    std::fs::write(&file, nobody).unwrap();
    assert!(instance.sh.running().reload(&Config::read(&file).unwrap()).unwrap().is_empty());
    instance.register.script(Script::DeafUntilTold);
    let calls = instance.register.count();
    let open = caller.open(Question::new()).await;
    open.send(b"offen").await;
    instance.register.called(calls + 1).await;
    assert_eq!(told(&caller.ask(Question::new()).await), refused("overloaded", "client_server"));
    open.cancel();
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waits_as_long_as_is_configured() {
    let mut instance = Instance::planned(limited("", "drain_seconds = 1")).await;
    instance.register.script(Script::Hold);
    let caller = instance.caller().await;
    let held = tokio::spawn(async move { caller.ask(Question::new()).await });
    instance.register.called(1).await;
    let begun = Instant::now();
    instance.mv.stop().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
    let (reason, _, reached) = held.await.unwrap().told().unwrap();
    assert_eq!((reason.as_str(), reached.as_str()), ("network_error", "unknown"));
    instance.stop().await;
}
