//! What an agency sends is what the register gets, and what the register answers is what the agency gets: through two
//! security servers, each of which holds every message in its log before it goes on.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::time::Duration;

use bytes::Bytes;
use trave_message_log::{ContentState, StoredRecord};
use trave_proto::message::Direction;
use trave_tests::network::{
    Answer, CLIENT, Ended, Instance, LEGAL_BASIS, METHOD, PURPOSE, Plan, Question, REGISTER, SERVICE, Script,
    binary, frame, happened, manifest_of, summary,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_through_two_security_servers_and_back() {
    let mut instance = Instance::start().await;
    let question = Question::new()
        .message("wer ist der Tischler?".as_bytes())
        .header("x-road-client", CLIENT)
        .header("x-road-userid", "Frau Möller")
        .header("x-road-issue", "4711/26")
        .header("x-road-id", "m-1")
        .header("trave-subject", "Tischlerei Nord")
        .header("trave-exchange-id", "mine")
        .header("x-road-security-server", REGISTER);
    let answer = instance.caller().await.ask(question).await;
    assert_eq!(answer.only().as_ref(), "wer ist der Tischler?".as_bytes());

    // The register sees identities from its security server alone, and not what the caller wrote beside them.
    let call = instance.register.last();
    assert_eq!((call.path.as_str(), instance.register.count()), (METHOD, 1));
    let id = answer.exchange();
    for (name, value) in [
        ("x-road-client", CLIENT),
        ("x-road-service", SERVICE),
        ("trave-purpose", PURPOSE),
        ("trave-legal-basis", LEGAL_BASIS),
        ("x-road-userid", "Frau Möller"),
        ("x-road-issue", "4711/26"),
        ("x-road-id", "m-1"),
        ("trave-exchange-id", &id.to_string()),
    ] {
        let seen: Vec<_> = call.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        assert_eq!(seen, [value.as_bytes()], "{name}");
    }
    assert!(!call.headers.contains_key("trave-subject"), "who is meant is between the agency and its proof");
    assert!(!call.headers.contains_key("x-road-security-server"));

    // Both logs hold both messages, and they are the same messages.
    let told = ["sent request end", "received response end"];
    assert_eq!(instance.sh.tells(id), told);
    assert_eq!(instance.mv.tells(id), ["received request end", "sent response end"]);
    let manifests =
        |records: Vec<StoredRecord>| -> Vec<_> { records.iter().filter_map(manifest_of).collect() };
    let (ours, theirs) = (manifests(instance.sh.records(0)), manifests(instance.mv.records(0)));
    assert!(ours.iter().all(|manifest| theirs.contains(manifest)) && ours.len() == theirs.len());
    assert_eq!((ours[0].purpose.as_str(), ours[0].legal_basis.as_str()), (PURPOSE, LEGAL_BASIS));
    let answered = ours.iter().find(|manifest| manifest.direction == Direction::Response).unwrap();
    let question = ours.iter().find(|manifest| Some(manifest.digest()) == answered.last_received).unwrap();
    assert_eq!(question.direction, Direction::Request, "the answer names the question");

    // An ordinary stop and start: the grant, the exchanges and the sequence numbers are still there.
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    assert_eq!(instance.ask(b"noch einmal").await.only().as_ref(), b"noch einmal");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_statuses_and_messages_arrive_as_on_a_direct_connection() {
    let mut instance = Instance::start().await;
    let caller = instance.caller().await;
    let bytes: Vec<u8> = (0..=255).collect();

    instance.register.script(Script::Answer {
        headers: vec![
            ("erste", "a".into()),
            ("erste", "b".into()),
            ("kopf-bin", binary(&bytes)),
            ("trave-exchange-id", "forged".into()),
        ],
        messages: vec![Bytes::from_static(b"ja")],
        trailers: vec![
            ("grpc-status", "0".into()),
            ("fuss-bin", binary(&bytes)),
            ("letzte", "y".into()),
            ("letzte", "z".into()),
        ],
    });
    let question = Question::new()
        .header("frage", "eins")
        .header("frage", "zwei")
        .header("frage-bin", &binary(&bytes))
        .header("user-agent", "grpc-probe/1");
    let answer = caller.ask(question).await;
    assert_eq!(answer.only().as_ref(), b"ja");
    let call = instance.register.last();
    let all = |map: &http::HeaderMap, name: &str| -> Vec<String> {
        map.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(all(&call.headers, "frage"), ["eins", "zwei"]);
    assert_eq!(all(&call.headers, "frage-bin"), [binary(&bytes)]);
    assert_eq!(all(&call.headers, "user-agent"), ["grpc-probe/1"]);
    assert_eq!(all(&answer.headers, "erste"), ["a", "b"]);
    assert_eq!(all(&answer.headers, "kopf-bin"), [binary(&bytes)]);
    assert_eq!(all(&answer.headers, "trave-exchange-id"), [answer.exchange().to_string()]);
    assert_eq!(all(&answer.trailers, "fuss-bin"), [binary(&bytes)]);
    assert_eq!(all(&answer.trailers, "letzte"), ["y", "z"]);

    // A status of the register's is the register's, with its own words and details.
    instance.register.script(Script::TrailersOnly(vec![
        ("grpc-status", "5".into()),
        ("grpc-message", "kein Eintrag f%C3%BCr 100 %25".into()),
        ("grpc-status-details-bin", binary(b"\x08\x05")),
        ("eigenes", "x".into()),
    ]));
    let answer = caller.ask(Question::new()).await;
    assert!(answer.trailers_only);
    assert_eq!((answer.status(), answer.message().as_str()), (5, "kein Eintrag für 100 %"));
    assert_eq!(answer.trailer("eigenes"), Some("x"));
    assert_eq!(answer.trailer("grpc-status-details-bin"), Some(binary(b"\x08\x05").as_str()));
    assert_eq!(instance.sh.tells(answer.exchange()).last().unwrap(), "received response end");

    // A status after messages.
    instance.register.script(Script::Answer {
        headers: Vec::new(),
        messages: vec![Bytes::from_static(b"halb")],
        trailers: vec![("grpc-status", "9".into()), ("grpc-message", "doch nicht".into())],
    });
    let answer = caller.ask(Question::new()).await;
    assert_eq!((answer.status(), answer.message().as_str()), (9, "doch nicht"));
    assert_eq!(answer.messages, [Bytes::from_static(b"halb")]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_goes_with_the_call_and_ends_it() {
    let longest = "[limits]\nexchange_seconds = 3\n".to_owned();
    let plan = Plan { register_seconds: 2, at_provider: longest, ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let caller = instance.caller().await;
    let answer = caller.ask(Question::new().header("grpc-timeout", "30S")).await;
    assert_eq!(answer.status(), 0);
    let passed_on = instance.register.last().header("grpc-timeout").unwrap().to_owned();
    let (value, unit) = passed_on.split_at(passed_on.len() - 1);
    assert_eq!(unit, "u", "microseconds: {passed_on}");
    let left = Duration::from_micros(value.parse().unwrap());
    assert!(left <= Duration::from_secs(3), "the server's own bound is nearer than the caller's: {left:?}");

    instance.register.script(Script::Hold);
    let answer = caller.ask(Question::new().header("grpc-timeout", "300m")).await;
    assert_deadline(&answer);
    assert_eq!(instance.register.last().ended().await, Ended::BrokenOff, "the register need not go on");

    // A caller without a deadline: the service's own bound ends the call.
    let answer = caller.ask(Question::new()).await;
    assert_deadline(&answer);
    let told = answer.told().unwrap();
    assert_eq!((told.1.as_str(), told.2.as_str()), ("register", "unknown"));
    let id = answer.exchange();
    let ended = "ended unknown deadline_exceeded by register, register unknown";
    assert_eq!(instance.sh.tells(id), ["sent request end", ended]);
    assert_eq!(instance.mv.tells(id), ["received request end", ended]);
    instance.stop().await;
}

fn assert_deadline(answer: &Answer) {
    assert_eq!(answer.status(), 4, "DEADLINE_EXCEEDED: {}", answer.message());
    assert_eq!(answer.told().unwrap().0, "deadline_exceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_mebibytes_go_both_ways() {
    let plan = Plan { keep_at_client: "none", keep_at_provider: "none", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let message: Vec<u8> = (0_u32..4 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = instance.ask(&message).await;
    assert!(answer.only().as_ref() == message, "the message came back as it was sent");
    assert!(instance.register.last().body() == frame(&message));
    let manifests: Vec<_> = instance.sh.records(0).iter().filter_map(manifest_of).collect();
    assert!(manifests.len() >= 10, "4 MiB each way are at least five signed messages: {}", manifests.len());
    let largest = manifests.iter().map(|manifest| manifest.content_length).max();
    assert_eq!(largest, Some(1 << 20), "each of at most 1 MiB");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_do_not_wear_a_connection_out() {
    let plan = Plan { keep_at_client: "none", keep_at_provider: "none", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let caller = instance.caller().await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let caller = caller.clone();
        callers.spawn(async move {
            for _ in 0..100 {
                assert_eq!(caller.ask(Question::new()).await.status(), 0);
            }
        });
    }
    callers.join_all().await;
    assert_eq!(instance.register.count(), 3_200);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_at_a_time_are_answered_and_logged_each() {
    let mut instance = Instance::start().await;
    let caller = instance.caller().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let (caller, message) = (caller.clone(), format!("Frage {number}"));
        calls.spawn(async move {
            let answer = caller.ask(Question::new().message(message.as_bytes())).await;
            assert_eq!(answer.only().as_ref(), message.as_bytes());
            answer.exchange()
        });
    }
    let mut exchanges = calls.join_all().await;
    exchanges.sort_unstable();
    exchanges.dedup();
    assert_eq!((exchanges.len(), instance.register.count()), (200, 200));
    for server in [&instance.sh, &instance.mv] {
        let records = server.records(0);
        let told = match server.is_client() {
            true => ["sent request end", "received response end"],
            false => ["received request end", "sent response end"],
        };
        for exchange in &exchanges {
            assert_eq!(summary(&records, *exchange), told, "{}", server.id);
        }
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_ends_the_registers_call_and_both_logs_say_so() {
    let mut instance = Instance::start().await;
    instance.register.script(Script::Hold);
    let mut open = instance.caller().await.open(Question::new()).await;
    open.send(b"wer?").await;
    open.end();
    instance.register.called(1).await;
    open.cancel();
    assert_eq!(instance.register.last().ended().await, Ended::BrokenOff);
    let exchange = instance.register.last().header("trave-exchange-id").unwrap().parse().unwrap();
    let ends = |told: &[String]| told.iter().any(|line| line.starts_with("ended"));
    let ended = "ended aborted aborted by client, register unknown";
    assert_eq!(instance.sh.until(ends, exchange).await.last().unwrap(), ended);
    let ended = "ended aborted aborted by client_server, register unknown";
    assert_eq!(instance.mv.until(ends, exchange).await.last().unwrap(), ended);

    // Nothing of it is left in the way of the next call.
    instance.register.script(Script::Echo);
    assert_eq!(instance.ask(b"und jetzt?").await.only().as_ref(), b"und jetzt?");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_route_a_caller_changes_its_address_alone() {
    let route = format!(
        "[[route]]\nname = \"gewerbeauskunft\"\npath = \"/test.v1.Auskunft/\"\nservice = \"{SERVICE}\"\n\
         purpose = \"{PURPOSE}\"\nlegal_basis = \"{LEGAL_BASIS}\"\n"
    );
    let mut instance = Instance::planned(Plan { at_client: route, ..Plan::default() }).await;
    let bare =
        Question::new().without("x-road-service").without("trave-purpose").without("trave-legal-basis");
    let caller = instance.caller().await;
    let answer = caller.ask(bare.clone().message(b"nur die Adresse")).await;
    assert_eq!(answer.only().as_ref(), b"nur die Adresse");
    let manifests: Vec<_> = instance.mv.records(0).iter().filter_map(manifest_of).collect();
    assert!(manifests.iter().all(|manifest| manifest.route.as_deref() == Some("gewerbeauskunft")));
    assert_eq!(manifests[0].purpose.as_str(), PURPOSE);
    // What a caller says itself may not contradict the route.
    let answer = caller.ask(bare.header("trave-purpose", "gewerbeaufsicht")).await;
    assert_eq!(answer.told().unwrap().0, "unknown_purpose");
    assert_eq!(instance.register.count(), 1);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_are_kept_as_the_policy_says() {
    let plan = Plan { keep_at_client: "request", keep_at_provider: "none", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    assert_eq!(instance.ask(b"geheim").await.status(), 0);
    let contents = |records: Vec<StoredRecord>| -> Vec<_> {
        records
            .into_iter()
            .filter(|record| manifest_of(record).is_some())
            .map(|record| match record.content {
                ContentState::Included(parts) => Some(parts.body),
                ContentState::NotKept => None,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let (ours, theirs) = (contents(instance.sh.records(0)), contents(instance.mv.records(0)));
    let kept: Vec<u8> = ours.iter().flatten().flatten().copied().collect();
    assert_eq!(kept, frame(b"geheim"), "the question, and not the answer");
    assert!(theirs.len() >= 2 && theirs.iter().all(Option::is_none));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_configuration_goes_from_server_to_server() {
    let mut instance = Instance::start().await;
    let second = instance.next_configuration(|configuration| configuration.members[0].name = "Neu".into());
    // The agency's server has it, as if the registry had reached it alone.
    instance.sh.stop().await;
    instance.sh.put_configuration(&second);
    instance.sh.start().await.unwrap();
    assert_eq!(instance.ask(b"mit der neuen").await.status(), 0);
    assert!(happened(&instance.mv.records(0)).contains(&"configuration 2 from peer".to_owned()));

    // And the other way.
    instance.configuration = second;
    let third = instance.next_configuration(|configuration| configuration.members[0].name = "Neuer".into());
    instance.mv.stop().await;
    instance.mv.put_configuration(&third);
    instance.mv.start().await.unwrap();
    let answer = instance.ask(b"mit der neuesten").await;
    assert_eq!(answer.status(), 0);
    assert!(happened(&instance.sh.records(0)).contains(&"configuration 3 from peer".to_owned()));
    let numbers: Vec<_> = instance.mv.records(0).iter().filter_map(manifest_of).collect();
    assert_eq!(numbers.last().unwrap().configuration_number, 3);
    instance.stop().await;
}
