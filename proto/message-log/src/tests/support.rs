//! A log with small segments, and entries to put into it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use ring::signature::Ed25519KeyPair;
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::{Clock, Sleep, Time};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Leaf, MessageEntry, Refusal, leaf};
use trave_proto::schema::message::{Manifest, Signature};

use crate::disk::simulated::SimulatedDisk;
use crate::{Artefact, ContentParts, Entry, Log, Options};

/// 2026-11-21T19:14:00Z
pub(super) const NOW: Time = Time::from_millis(1_795_288_440_000);
pub(super) const ORIGIN: &str = "trave.example/NORD/SH/luebeck/s1/1";

#[derive(Debug)]
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        NOW
    }

    fn sleep_until(&self, _: Time) -> Sleep {
        Box::pin(std::future::pending())
    }
}

pub(super) fn signer(origin: &str) -> NoteSigner {
    NoteSigner::new(origin, Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()).unwrap()
}

/// Options with segments so small that a test crosses many.
pub(super) fn options(dir: &Path) -> Options {
    Options { segment_size: 12 << 10, reserve: 0, ..Options::new(dir, signer(ORIGIN), Arc::new(Still)) }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) fn exchange(number: u32) -> ExchangeId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    ExchangeId::new(NOW, &random)
}

pub(super) fn body(number: u32) -> Bytes {
    Bytes::from(format!("plaintext of {number}: Max Mustermann, Musterstadt"))
}

pub(super) fn parts(number: u32) -> ContentParts {
    ContentParts {
        content_salt: Bytes::copy_from_slice(&[number.to_le_bytes()[0]; 32]),
        head: Some(Bytes::from_static(b"head")),
        body: body(number),
        trailers: None,
        caller_context_salt: Bytes::from_static(&[3; 32]),
        caller_context: Some(Bytes::from_static(b"context")),
    }
}

/// A message of exchange `number`, with a signature, two artefacts, one of which the leaf names itself, and its content.
pub(super) fn message(number: u32) -> Entry {
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(exchange(number).as_bytes()),
        service: "NORD/MV/gewerberegister/auskunft/register".into(),
        ..Manifest::default()
    };
    let manifest = manifest.encode_to_vec().into();
    let chain = Artefact::new(Bytes::from_static(b"certificate chain"));
    let entry = MessageEntry { manifest, chain_digest: chain.named(), sent: true, ..MessageEntry::default() };
    let entry = leaf::Entry::Message(entry);
    Entry {
        leaf: Leaf { version: 1, logged_ms: NOW.as_millis() + i64::from(number), entry: Some(entry) },
        signature: Some(Signature { value: vec![7; 64].into(), batch_size: 1, ..Signature::default() }),
        artefacts: vec![chain, Artefact::new(format!("OCSP answer {}", number / 8).into())],
        content: Some(parts(number)),
        persons: Vec::new(),
        references: Vec::new(),
        last: false,
    }
}

/// A small record of the server's own.
pub(super) fn refusal(number: u32) -> Entry {
    let entry = leaf::Entry::Refusal(Refusal {
        exchange_id: Bytes::copy_from_slice(exchange(number).as_bytes()),
        reason: "not_permitted".into(),
        ..Refusal::default()
    });
    Entry::new(Leaf { version: 1, logged_ms: NOW.as_millis(), entry: Some(entry) })
}

/// Appends messages one after the other, each durable before the next.
pub(super) fn append_each(log: &Log, numbers: std::ops::Range<u32>) {
    for number in numbers {
        block_on(log.append(message(number), ()).unwrap()).unwrap();
    }
}

/// Some bytes of the ciphertext and of the key of message `number`, as they stand on the disk.
pub(super) fn ciphertext_and_key(log: &Log, number: u32) -> (Vec<u8>, Vec<u8>) {
    let shared = log.shared();
    let stored = log.exchange(exchange(number)).unwrap()[0].attachment.content.unwrap();
    let path = std::path::PathBuf::from(format!("/log/segments/segment-{:020}.log", stored.segment));
    let mut ciphertext = vec![0; 24];
    shared.disk.open(&path).unwrap().read_exact_at(&mut ciphertext, stored.offset + 60).unwrap();
    let mut key = vec![0; 32];
    let keys = shared.disk.open(Path::new("/log/keys/keys-0000000000.bin")).unwrap();
    keys.read_exact_at(&mut key, stored.key_slot * 64 + 24).unwrap();
    assert_ne!(key, [0; 32]);
    (ciphertext, key)
}

/// Waits until nothing is written any more behind the committer's back.
pub(super) fn quiet(disk: &SimulatedDisk) {
    let mut before = None;
    while before.replace(disk.operations()) != Some(disk.operations()) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Waits until as many keys are ready as should be.
pub(super) fn prepared(log: &Log) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while log.shared().key_ring.due().is_some() {
        assert!(std::time::Instant::now() < end, "no keys were prepared in 20 s");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
