//! What a log has lost comes back from the other side, as far as its own server signed it or named it, and nothing else does.

use prost::Message;
use trave_message_log::Artefact;
use trave_proto::proof::{Completeness, MessageStory, NotProved};
use trave_proto::schema::operator::{CheckLogRequest, ListLogRequest, ListLogResponse};
use trave_tests::network::hostile::Credentials;
use trave_tests::network::{export, judge};

use super::*;

/// An instance in which the agency's server lost the second of two exchanges: its disk was put back.
async fn lost_at_the_agency() -> (Instance, ExchangeId) {
    let mut instance = Instance::start().await;
    assert_eq!(instance.ask(b"bleibt").await.status(), 0);
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    let lost = instance.ask(b"geht verloren").await.exchange();
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    instance.sh.start().await.unwrap();
    assert!(instance.sh.tells(lost).is_empty());
    (instance, lost)
}

/// How the journal of a server tells of an exchange.
async fn told_of(server: &Server, exchange: ExchangeId) -> ListLogResponse {
    let request = ListLogRequest { reason: "Stichprobe".into(), ..ListLogRequest::default() };
    let mut listed = operator(server).await.list_log(request).await.unwrap().into_inner();
    while let Some(entry) = listed.message().await.unwrap() {
        if entry.exchange_id.as_ref() == exchange.as_bytes() {
            return entry;
        }
    }
    panic!("{} lists no exchange {exchange}", server.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agencys_server_signed_and_lost_comes_back_and_the_answer_does_not() {
    let (mut instance, lost) = lost_at_the_agency().await;
    instance.advance(LATER);
    // The agency's server may be at it by itself already.
    let held = instance.mv.records(0);
    let messages = held.iter().filter_map(manifest_of).filter(|it| it.exchange == lost).count() as u64;
    assert!(messages >= 2, "request and response");
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    let recovered = found.recovered;
    assert!(recovered >= 1, "{found:?}");
    // What is left is the answer, which the other side alone has signed; and the log knows that it knows no end.
    assert_eq!(counts(&found), [(Kind::ClientCrashed, messages - recovered)]);
    assert!(found.differences.iter().all(|one| one.direction() == Direction::Response));
    let [first, second] = &logged(&instance.sh)[..] else {
        panic!("what was missing is logged, and what came back")
    };
    assert_eq!((counts(first), second), (vec![(Kind::MissingHere, messages)], &found));
    let tells = instance.sh.tells(lost);
    let (back, rest) = tells.split_at(recovered as usize);
    assert!(back.iter().all(|told| *told == format!("recovered request from {REGISTER}")), "{tells:?}");
    assert!(matches!(rest, [end] if end.starts_with("ended unknown aborted")), "{tells:?}");
    let told = told_of(&instance.sh, lost).await;
    assert_eq!((told.recovered, told.outcome.as_str(), told.side.as_str()), (recovered, "unknown", "client"));
    // Its proof holds, and says that it came back.
    let report = judge(&instance, &export(&instance.sh, lost, false).await);
    assert!(report.holds(), "{:#?}", report.checks);
    assert!(report.not_proved.contains(&NotProved::LoggedThen), "{:?}", report.not_proved);
    let story = report.story.unwrap();
    assert!(matches!(story.completeness, Completeness::BrokenOff { responses: 0, .. }));
    let from = |message: &MessageStory| message.recovered_from.as_ref().map(ToString::to_string);
    assert!(story.requests.iter().all(|message| from(message).as_deref() == Some(REGISTER)));
    assert!(warned(&instance.sh, "logs do not agree").await.is_none());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_registers_server_lost_comes_back_whole_and_once_also_when_it_is_cut_off_in_between() {
    let mut instance = Instance::start().await;
    assert_eq!(instance.ask(b"bleibt").await.status(), 0);
    instance.mv.stop().await;
    instance.mv.keep_disk();
    instance.mv.start().await.unwrap();
    let lost = instance.ask(b"geht verloren").await.exchange();
    instance.mv.stop().await;
    instance.mv.put_disk_back();
    instance.mv.keep_disk();
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(counts(&found).is_empty() && found.here == found.there, "{found:?}");
    let [first, second] = &logged(&instance.mv)[..] else { panic!("missing, and then not") };
    let [(Kind::MissingHere, messages)] = counts(first)[..] else { panic!("{first:?}") };
    assert_eq!((found.recovered, second), (messages, &found));
    let tells = instance.mv.tells(lost);
    assert_eq!(tells.len() as u64, messages, "{tells:?}");
    assert!(tells.iter().all(|told| told.starts_with("recovered ") && told.ends_with(LUEBECK)), "{tells:?}");
    let told = told_of(&instance.mv, lost).await;
    assert_eq!(
        (told.recovered, told.outcome.as_str(), told.side.as_str()),
        (messages, "answered", "provider")
    );
    let report = judge(&instance, &export(&instance.mv, lost, false).await);
    assert!(report.holds(), "{:#?}", report.checks);
    assert!(report.not_proved.contains(&NotProved::LoggedThen), "{:?}", report.not_proved);
    assert_eq!(report.story.unwrap().completeness, Completeness::Whole);
    let here = compare(&instance.sh, REGISTER).await.unwrap();
    assert!(counts(&here).is_empty() && here.recovered == 0, "{here:?}");
    let problems =
        operator(&instance.mv).await.check_log(CheckLogRequest {}).await.unwrap().into_inner().problems;
    assert!(problems.is_empty(), "{problems:?}");
    // The same, cut off when the first of them had come back.
    let records = instance.mv.records(0);
    let back = records.iter().find(|record| matches!(record.leaf.entry, Some(Entry::Recovered(_)))).unwrap();
    assert_eq!(back.leaf.version, 3, "who knows version 2 alone does not know it");
    instance.mv.stop().await;
    let artefacts = back.attachment.artefacts.iter().map(|digest| {
        let log = instance.mv.open_log();
        let found = log.artefact(&Digest::from_slice(digest).unwrap()).unwrap().unwrap();
        log.close();
        Artefact::new(found)
    });
    let artefacts: Vec<_> = artefacts.collect();
    instance.mv.put_disk_back();
    let log = instance.mv.open_log();
    let entry = Appended {
        signature: back.attachment.signature.clone(),
        artefacts,
        ..Appended::new(back.leaf.clone())
    };
    log.append(entry, ()).unwrap().await.unwrap();
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    instance.mv.start().await.unwrap();
    let found = compare(&instance.mv, LUEBECK).await.unwrap();
    assert!(counts(&found).is_empty() && found.recovered == messages, "{found:?}");
    compare(&instance.mv, LUEBECK).await.unwrap();
    assert_eq!(instance.mv.tells(lost).len() as u64, messages, "none comes back twice");
    assert!(judge(&instance, &export(&instance.mv, lost, false).await).holds());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_never_signed_is_planted_in_its_log_by_nobody() {
    let mut instance = Instance::start().await;
    instance.ask(b"wurde gefragt").await;
    instance.mv.stop().await;
    let records = instance.mv.records(0);
    let genuine = records
        .iter()
        .find(|record| {
            manifest_of(record).is_some_and(|it| it.direction == Direction::Request && it.index == 0)
        })
        .unwrap();
    let Some(Entry::Message(entry)) = &genuine.leaf.entry else { panic!("a message") };
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    // A question that the agency's server never asked, as the register's server says that it received it: unsigned, signed
    // by the register's key, and with a signature that the agency's server gave for another.
    let planted: Vec<_> = (1..=3).map(|n| ExchangeId::new(START, &[n; 10])).collect();
    let own = genuine.attachment.signature.clone().unwrap();
    for (n, exchange) in planted.iter().enumerate() {
        let original = manifest_of(genuine).unwrap();
        let manifest =
            Manifest::new(ManifestFields { exchange: *exchange, ..ManifestFields::clone(&original) });
        let signature = match n {
            0 => None,
            1 => Some(credentials.sign(&manifest).to_schema()),
            _ => Some(own.clone()),
        };
        let signature_digest = Digest::of(&signature.clone().unwrap_or_default().encode_to_vec()).to_bytes();
        let entry = MessageEntry { manifest: manifest.encoded().clone(), signature_digest, ..entry.clone() };
        let leaf = Leaf::of(instance.clock.now().as_millis(), Entry::Message(entry));
        let log = instance.mv.open_log();
        log.append(Appended { signature, ..Appended::new(leaf) }, ()).unwrap().await.unwrap();
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    }
    instance.mv.start().await.unwrap();
    instance.advance(LATER);
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    assert_eq!((counts(&found), found.recovered), (vec![(Kind::MissingHere, 3)], 0), "{found:?}");
    for exchange in planted {
        assert!(instance.sh.tells(exchange).is_empty());
    }
    assert!(warned(&instance.sh, "3 messages are missing here").await.is_some());
    instance.stop().await;
}
