//! Somebody with full access to a stopped server's disk and keys, who wants another past.
//!
//! What is forged is consistent on that disk: the log is written anew, record by record, by the program itself, so that
//! segments, markers, indexes, tree and checkpoint fit each other. Records before the first that was changed keep their
//! bytes, and so their hashes.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use trave_host::clock::ManualClock;
use trave_message_log::{Artefact, ContentState, Entry, Log, Options};
use trave_proto::checkpoint::{AddCheckpoint, Note, NoteSigner};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;

use super::disk::copy;
use super::server::Server;
use super::{Identities, told};

/// The forger of one server's log.
#[derive(Debug)]
pub struct Forger {
    log: PathBuf,
    witnessed: PathBuf,
    signer: NoteSigner,
}

impl Forger {
    /// At the disk of a server that does not run.
    pub fn of(server: &Server) -> Self {
        let layout = server.layout();
        let signer = Identities::get().of(server.id).log.clone();
        Self { log: layout.log(), witnessed: layout.witnessed(), signer }
    }

    /// Removes what the server remembers of its witnesses.
    pub fn forget_witnesses(&self) {
        std::fs::remove_file(&self.witnessed).unwrap();
    }

    /// Removes the log.
    pub fn remove_log(&self) {
        std::fs::remove_dir_all(&self.log).unwrap();
    }

    /// The records as they stand there, each with what it tells.
    pub fn records(&self) -> Vec<(String, Entry)> {
        let aside = tempfile::tempdir().unwrap();
        let copied = aside.path().join("log");
        copy(&self.log, &copied);
        let log = self.open(copied, Time::from_millis(0));
        // The last one says that it was opened just now.
        let records = log.scan(0).map(Result::unwrap).take(usize::try_from(log.size() - 1).unwrap());
        let records = records.map(|record| {
            let artefact = |digest| Artefact::new(log.artefact(&digest).unwrap().unwrap());
            let artefacts = record.artefacts().into_iter().map(artefact).collect();
            let signature = record.attachment.signature.clone();
            let content = match &record.content {
                ContentState::Included(parts) => Some(parts.clone()),
                _ => None,
            };
            (told(&record), Entry { signature, artefacts, content, ..Entry::new(record.leaf) })
        });
        records.collect()
    }

    /// Writes the log anew with these records, the first of which says that the log was opened, and signs a checkpoint over
    /// them.
    pub async fn write(&self, records: Vec<(String, Entry)>) {
        let mut records = records.into_iter().map(|(_, entry)| entry);
        let begun = Time::from_millis(records.next().unwrap().leaf.logged_ms);
        self.remove_log();
        let log = self.open(self.log.clone(), begun);
        for entry in records {
            log.append(entry, ()).unwrap().await.unwrap();
        }
        log.checkpoint().await.unwrap();
        close(log).await;
    }

    /// What the log says of itself, of whatever it holds.
    pub async fn root(&self, size: u64) -> Option<Digest> {
        let aside = tempfile::tempdir().unwrap();
        let copied = aside.path().join("log");
        copy(&self.log, &copied);
        let log = self.open(copied, Time::from_millis(0));
        let root = log.root(size).ok();
        close(log).await;
        root
    }

    /// The request that has a witness, which saw the log at `old` records, cosign all that is there now.
    pub async fn submission(&self, old: u64) -> Bytes {
        let log = self.open(self.log.clone(), Time::from_millis(0));
        let signed = log.checkpoint().await.unwrap();
        let proof = log.consistency(old, signed.checkpoint.size).unwrap();
        close(log).await;
        AddCheckpoint { old, proof, checkpoint: Note::parse(&signed.note).unwrap() }.to_bytes().into()
    }

    /// Overwrites the keys of contents, and says nothing of it.
    pub fn destroy_keys(&self) {
        for entry in std::fs::read_dir(self.log.join("keys")).unwrap() {
            let path = entry.unwrap().path();
            let zeros = vec![0; std::fs::read(&path).unwrap().len()];
            std::fs::write(path, zeros).unwrap();
        }
    }

    /// Changes one byte in the first segment, where `text` stands, and nothing that follows from it.
    pub fn scratch(&self, text: &[u8]) {
        let path = self.log.join("segments/segment-00000000000000000000.log");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    fn open(&self, dir: PathBuf, now: Time) -> Log {
        let clock = Arc::new(ManualClock::new(now));
        let options =
            Options { segment_size: 1 << 20, reserve: 0, ..Options::new(dir, self.signer.clone(), clock) };
        Log::open(options).unwrap().0
    }
}

async fn close(log: Log) {
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
}
