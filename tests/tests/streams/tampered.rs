//! Somebody between the two servers, with the TLS keys of both, does one thing to one message of a thousand: it is refused
//! at that index, and nothing after it is believed. The log of the server that refused it ends there; the log of the other
//! holds what it sent beyond, and its proof says how far the receiver had acknowledged it.

use super::*;
use std::process::Command;
use trave_proto::identifier::ExchangeId;
use trave_proto::proof::Story;
use trave_tests::network::hostile::{Between, Tampering, Target};
use trave_tests::program::program;

const MESSAGES: usize = 1_000;
const INDEX: u64 = 500;

/// What was refused, as the caller is told, and what both logs tell.
struct Seen {
    told: (String, String),
    message: String,
    sh: Story,
    mv: Story,
}

/// A stream of a thousand questions, each echoed; the caller sends whether it was answered or not.
async fn stream(request: bool, tampering: Tampering, also: impl AsyncFnOnce(&Instance, ExchangeId)) -> Seen {
    let mut instance = Instance::planned(Plan { segment_mib: 8, ..Plan::default() }).await;
    let between = Between::start(&mut instance, Some(Target { request, index: INDEX, tampering })).await;
    let mut open = open(&instance, b"0").await;
    let exchange_of = |head: &http::HeaderMap| head["trave-exchange-id"].to_str().unwrap().parse().unwrap();
    let sender = open.split();
    let sending = tokio::spawn(async move {
        for number in 1..MESSAGES {
            if !sender.try_send(number.to_string().as_bytes()).await {
                return;
            }
        }
    });
    let exchange = exchange_of(&open.head().await);
    let trailers = loop {
        match tokio::time::timeout(10 * PROMPT, open.next()).await.expect("the caller is told") {
            Ok(_) => {}
            Err(trailers) => break trailers,
        }
    };
    sending.abort();
    let told = trave_tests::agency::error_info(&tonic::Status::from_header_map(&trailers).unwrap()).unwrap();
    let message = tonic::Status::from_header_map(&trailers).unwrap().message().to_owned();
    let sh = ending::broken_off(&instance, &instance.sh, exchange).await;
    let mv = ending::broken_off(&instance, &instance.mv, exchange).await;
    also(&instance, exchange).await;
    between.stop().await;
    instance.stop().await;
    Seen { told: (told.reason.to_lowercase(), told.metadata["side"].clone()), message, sh, mv }
}

/// Asserts that the message was refused by its receiver at its index, and that both logs and proofs say so.
async fn refused(request: bool, tampering: Tampering) {
    let seen = stream(request, tampering, async |_, _| ()).await;
    let side = if request { "provider_server" } else { "client_server" };
    let reason = if tampering == Tampering::Altered { "content_mismatch" } else { "out_of_order" };
    assert_eq!(seen.told, (reason.to_owned(), side.to_owned()), "{}", seen.message);
    if tampering != Tampering::Altered {
        let found = if tampering == Tampering::Replayed { INDEX - 1 } else { INDEX + 1 };
        let says = format!("message {found} came where message {INDEX} must follow");
        assert!(seen.message.contains(&says), "{}", seen.message);
    }
    let (receiver, sender) = if request { (&seen.mv, &seen.sh) } else { (&seen.sh, &seen.mv) };
    let of = |story: &Story| if request { story.requests.len() as u64 } else { story.responses.len() as u64 };
    let ended = receiver.ended.as_ref().unwrap();
    assert_eq!((ended.reason.as_str(), ended.side.as_str()), (reason, side));
    assert_eq!(of(receiver), INDEX, "the receiver's log holds what came before, and no more");
    // The sender had sent it, and more; its receiver never said that it had it. How far it had come with saying so depends
    // on what was under way when the stream was broken off.
    assert!(of(sender) > INDEX);
    let acknowledged = sender.acknowledged.unwrap();
    let acknowledged = if request { acknowledged.requests } else { acknowledged.responses };
    assert!((1..=INDEX).contains(&acknowledged), "{acknowledged}");
    let ended = sender.ended.as_ref().unwrap();
    if request {
        // What the receiver refused it tells the sender, whose log says who refused and why.
        assert_eq!((ended.reason.as_str(), ended.side.as_str()), (reason, side));
    } else {
        assert_eq!((ended.reason.as_str(), ended.side.as_str()), ("aborted", "client_server"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_message_is_refused_at_its_index() {
    refused(true, Tampering::Altered).await;
    refused(false, Tampering::Altered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_message_is_refused_at_its_index() {
    refused(true, Tampering::Dropped).await;
    refused(false, Tampering::Dropped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reordered_message_is_refused_at_its_index() {
    refused(true, Tampering::Reordered).await;
    refused(false, Tampering::Reordered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_message_is_refused_at_its_index() {
    refused(true, Tampering::Replayed).await;
    refused(false, Tampering::Replayed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_auditors_program_names_the_index() {
    let page = |instance: &Instance, file: &Bytes| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("anchor"), instance.keys.anchor().bytes()).unwrap();
        std::fs::write(path("proof"), file).unwrap();
        let told = Command::new(program("trave-verify"))
            .arg(path("proof"))
            .arg("--anchor")
            .arg(path("anchor"))
            .output()
            .unwrap();
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    };
    stream(true, Tampering::Altered, async |instance, exchange| {
        let theirs = page(instance, &export(&instance.mv, exchange, true).await);
        assert!(
            theirs.contains(&format!("INCOMPLETE, broken off: {INDEX} messages of the request")),
            "{theirs}"
        );
        assert!(theirs.contains("content_mismatch (provider_server)"), "{theirs}");
        let ours = page(instance, &export(&instance.sh, exchange, true).await);
        assert!(ours.contains("INCOMPLETE, broken off"), "{ours}");
        let acknowledged = ours.split("acknowledged by their receiver: ").nth(1).unwrap();
        let acknowledged: u64 = acknowledged.split(' ').next().unwrap().parse().unwrap();
        assert!((1..=INDEX).contains(&acknowledged), "{ours}");
    })
    .await;
}
