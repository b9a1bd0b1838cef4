//! A log that cannot continue what it gave away is closed, and a new generation takes its place: approved by the registry,
//! it begins by naming what is missing, and every proof from before holds.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::sync::Arc;

use bytes::Bytes;
use trave_gateway::config::Config;
use trave_gateway::generation::{self, Ask, Begun, GenerationError};
use trave_gateway::security_server::StartError;
use trave_host::client::Fetch;
use trave_host::config::Secret;
use trave_host::keys::NoteKey;
use trave_message_log::LogError;
use trave_proto::checkpoint::{Checkpoint, Note};
use trave_proto::digest::Digest;
use trave_proto::proof::{Conclusion, NotProved};
use trave_proto::schema::configuration::LogKey;
use trave_proto::schema::log::{GrantChange, leaf::Entry};
use trave_proto::schema::operator::GrantRequest;
use trave_tests::network::{
    Identities, Instance, PASSPHRASE, Witness, copy, export, grant, judge, operator, picture, status,
    witnessed,
};

fn ask(checkpoint: Option<Vec<u8>>) -> Ask {
    Ask { reason: "Platte verloren".into(), operator: "uid 0".into(), checkpoint }
}

async fn begin(instance: &Instance, ask: Ask) -> Result<Begun, GenerationError> {
    let config = Config::read(&instance.mv.configuration_file()).unwrap();
    let clock = Arc::clone(&instance.clock);
    tokio::task::spawn_blocking(move || generation::begin(&config, &ask, clock)).await.unwrap()
}

/// What the registry publishes when two administrators have approved the key that lies there now.
async fn approve(instance: &mut Instance, witnesses: &mut [Witness; 2], origin: &str) {
    let key = NoteKey::open(&instance.mv.layout().log_key(), &Secret::new(PASSPHRASE.into())).unwrap();
    let public_key = Bytes::copy_from_slice(&key.public_key());
    let server = instance.mv.id;
    let next = instance.next_configuration(|next| {
        let entry = next.security_servers.iter_mut().find(|entry| entry.id == server).unwrap();
        entry.logs.push(LogKey { origin: origin.into(), public_key });
        entry.logs.sort_by(|a, b| a.origin.cmp(&b.origin));
    });
    instance.sh.stop().await;
    for server in [&instance.sh, &instance.mv] {
        server.put_configuration(&next);
    }
    instance.configuration = next;
    instance.sh.start().await.unwrap();
    let verifier = key.into_signer(origin).unwrap().verifier();
    for witness in witnesses {
        witness.stop().await;
        witness.learn(&verifier);
        witness.start().await;
    }
}

/// The operator's usual grant.
async fn allow(instance: &Instance) {
    let GrantChange { client, service, method, purposes, legal_bases, operator: who, .. } = grant();
    let request = GrantRequest {
        client,
        service,
        method,
        purposes,
        legal_bases,
        operator: who,
        ..GrantRequest::default()
    };
    operator(&instance.mv).await.grant(request).await.unwrap();
}

/// The last checkpoint of a log as a witness shows it to anybody.
async fn shown(witness: &Witness, origin: &str) -> Vec<u8> {
    let place = hex::encode(Digest::of(origin.as_bytes()).as_bytes());
    let url = format!("{}/{place}/checkpoint", witness.listed().url).parse().unwrap();
    Fetch::new(None).get(&url).await.unwrap().body.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_generation_names_what_is_missing_and_every_proof_from_before_holds() {
    let (mut instance, sh, mv) = witnessed(|_| {}).await;
    let mut witnesses = [sh, mv];
    let old_key = Identities::get().of(instance.mv.id).log.verifier();
    // An old copy of the log, from before anything was asked, takes the place of the one that witnesses saw.
    instance.mv.stop().await;
    let kept = tempfile::tempdir().unwrap();
    let log = instance.mv.layout().log();
    copy(&log, kept.path());
    instance.mv.start().await.unwrap();
    let exchange = instance.ask(b"vorher").await.exchange();
    let proofs = [export(&instance.mv, exchange, false).await, export(&instance.sh, exchange, false).await];
    let seen = status(&instance.mv).await.witnessed_size;
    assert!(matches!(begin(&instance, ask(None)).await, Err(GenerationError::Running)));
    instance.mv.stop().await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(kept.path(), &log);
    let lies = picture(&log);
    let refused = instance.mv.start().await.unwrap_err();
    assert!(matches!(refused, StartError::Log(LogError::ContradictsCheckpoint { .. })), "{refused}");

    let begun = begin(&instance, ask(None)).await.unwrap();
    assert_eq!((begun.previous.as_str(), begun.witnessed), (old_key.name(), seen));
    assert!(begun.origin.ends_with("/2") && begun.left < seen, "{begun:?}");
    let missing =
        format!("of the {seen} records that witnesses saw, those from {} on are missing", begun.left);
    assert!(begun.missing.starts_with(&missing), "{}", begun.missing);
    let moved = picture(&begun.aside.join("log"));
    assert!(moved.values().eq(lies.values()), "the old log lies aside as it was");
    assert!(matches!(begin(&instance, ask(None)).await, Err(GenerationError::Waiting)));
    let refused = instance.mv.start().await.unwrap_err();
    assert!(matches!(refused, StartError::LogNotListed(_)), "{refused}");
    assert!(refused.to_string().contains("hint: the key of a new generation"), "{refused}");

    approve(&mut instance, &mut witnesses, &begun.origin).await;
    instance.mv.start().await.unwrap();
    let records = instance.mv.records(0);
    let Some(Entry::Generation(said)) = &records[0].leaf.entry else { panic!("{:?}", records[0]) };
    assert_eq!(records[0].leaf.version, 3);
    assert_eq!((said.previous_origin.as_str(), said.witnessed_size), (old_key.name(), seen));
    assert_eq!((said.reason.as_str(), said.missing.as_str()), ("Platte verloren", begun.missing.as_str()));
    let checkpoint = Checkpoint::verify(&said.witnessed, std::slice::from_ref(&old_key)).unwrap();
    assert_eq!(checkpoint.size, seen);
    let keys: Vec<_> = witnesses.iter().map(|witness| witness.verifier.clone()).collect();
    assert_eq!(Note::parse(&said.witnessed).unwrap().cosignatures(&keys).unwrap().len(), 2);

    let denied = instance.ask(b"ohne Erlaubnis").await.told().unwrap();
    assert_eq!(denied.0, "access_denied", "grants stood in the log: they are given again");
    allow(&instance).await;
    let exchange = instance.ask(b"nachher").await.exchange();
    for server in [&instance.mv, &instance.sh] {
        let report = judge(&instance, &export(server, exchange, false).await);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
        assert!(!report.not_proved.contains(&NotProved::Witness), "{:?}", report.not_proved);
    }
    for proof in &proofs {
        assert_eq!(judge(&instance, proof).conclusion, Conclusion::Holds, "proofs from before hold");
    }
    assert_eq!(status(&instance.mv).await.log_origin, begun.origin);
    // And once more, when all is lost but keys and configuration: what witnesses saw is brought from one of them.
    let witnessed = status(&instance.mv).await.witnessed_size;
    instance.mv.stop().await;
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::remove_file(instance.mv.layout().witnessed()).unwrap();
    let other = shown(&witnesses[0], Identities::get().of(instance.sh.id).log.verifier().name()).await;
    let refused = begin(&instance, ask(Some(other))).await;
    assert!(matches!(refused, Err(GenerationError::Checkpoint(_))), "that is another log's: {refused:?}");
    let shown = shown(&witnesses[0], &begun.origin).await;
    let again = begin(&instance, ask(Some(shown))).await.unwrap();
    assert_eq!((again.previous.as_str(), again.witnessed, again.left), (begun.origin.as_str(), witnessed, 0));
    assert!(again.origin.ends_with("/3"), "{again:?}");
    approve(&mut instance, &mut witnesses, &again.origin).await;
    instance.mv.start().await.unwrap();
    allow(&instance).await;
    let exchange = instance.ask(b"wieder").await.exchange();
    let report = judge(&instance, &export(&instance.mv, exchange, false).await);
    assert_eq!(report.conclusion, Conclusion::Holds);
    assert!(!report.not_proved.contains(&NotProved::Witness));
    instance.stop().await;
}
