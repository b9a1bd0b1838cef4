//! Getting lost messages back: what the other server gives is verified as strictly as what it sends, and is logged as what
//! it is, recovered, never as if it had been sent or received now.
//!
//! What this server signed itself comes back by its own signature. What the other one signed comes back only where this
//! server's own signed messages name it: a signature alone could be made today, over what was never sent. And the other log
//! must hold it, under a checkpoint that its key has signed.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry as Slot};

use bytes::Bytes;
use prost::Message as _;
use trave_message_log::{Artefact, Entry, Log, LogError};
use trave_proto::checkpoint::NoteVerifier;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::{Direction, Manifest, ManifestError};
use trave_proto::reconciliation::Name;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{CertificateChain, Leaf, MessageEntry, RecoveredMessage};
use trave_proto::schema::message::Signature;
use trave_proto::schema::transport::FetchMessageResponse;
use trave_proto::signature::{BatchSignature, SignatureError};
use trave_proto::tree::{Head, leaf_hash, root_from_path};
use trave_proto::verification::{NoMemory, TrustedSigner, VerificationError};

use super::following::seen;
use super::judge::Lost;
use super::records::{Hours, message, other};
use crate::trust::{Trust, TrustError};

/// The audit path in a tree of 2^64 leaves is not longer than this.
const LONGEST_PATH: usize = 64;

/// Why a message does not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("it gives another message than the one asked for")]
    Another,
    #[error("its record cannot be read")]
    Leaf(#[source] prost::DecodeError),
    #[error("its manifest is refused")]
    Manifest(#[source] ManifestError),
    #[error("no checkpoint signed by the key of its log shows that the log holds it")]
    NotIncluded,
    #[error("its signature is refused")]
    Signature(#[source] SignatureError),
    #[error("its signature is not the one that its record names")]
    OtherSignature,
    #[error("its certificate chain cannot be read")]
    Chain(#[source] prost::DecodeError),
    #[error("its sender used a global configuration that was never in use here")]
    Configuration,
    #[error("a stored configuration cannot be read")]
    Trust(#[source] TrustError),
    #[error("its signer is refused")]
    Signer(#[source] VerificationError),
    #[error("this server's own records cannot be read")]
    Log(#[source] LogError),
}

/// A message that the other server gave back, verified. [`Fetched::verify`] is its only maker.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    manifest: Manifest,
    signature: Signature,
    chain: Artefact,
    ocsp: Artefact,
    held: Place,
}

/// Where the other server's log holds it.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: u64,
    logged_ms: i64,
    head: Head,
}

impl Fetched {
    /// Verifies that this is the message asked for, between these two servers, that the log with `key` holds it, and that it
    /// was signed by whoever might sign it at its time, under the configuration that it names, which must have been in use
    /// here too. Reads the disk.
    pub(crate) fn verify(
        answer: FetchMessageResponse,
        (name, digest): (Name, Digest),
        (own, peer, key): (&ServerId, &ServerId, &NoteVerifier),
        trust: &Trust,
    ) -> Result<Self, RecoveryError> {
        let held = Place::verify(&answer, key)?;
        // Decoded from slices, and so copied: what is kept must not keep the whole answer, with whatever stood beside it.
        let leaf = Leaf::decode(&*answer.leaf).map_err(RecoveryError::Leaf)?;
        let entry = entry_of(leaf.entry).ok_or(RecoveryError::Another)?;
        let manifest = Manifest::parse(entry.manifest).map_err(RecoveryError::Manifest)?;
        if manifest.digest() != digest || Name::of(&manifest) != name || other(&manifest, own) != Some(peer) {
            return Err(RecoveryError::Another);
        }
        let signature = answer.signature.unwrap_or_default().encode_to_vec();
        if Digest::of(&signature).to_bytes() != entry.signature_digest {
            return Err(RecoveryError::OtherSignature);
        }
        let signature = Signature::decode(&*signature).map_err(|_| RecoveryError::OtherSignature)?;
        let batch = BatchSignature::parse(&signature).map_err(RecoveryError::Signature)?;
        let configuration = trust.find(&manifest.configuration_digest).map_err(RecoveryError::Trust)?;
        let configuration = configuration.ok_or(RecoveryError::Configuration)?;
        let chain = CertificateChain::decode(&*answer.chain).map_err(RecoveryError::Chain)?.certificates;
        let at = manifest.created;
        let signer =
            TrustedSigner::verify(&chain, Bytes::copy_from_slice(&answer.ocsp_response), &configuration, at)
                .map_err(RecoveryError::Signer)?;
        signer
            .verify_manifest((&manifest, &batch), &configuration, at, &NoMemory)
            .map_err(RecoveryError::Signer)?;
        let (chain, ocsp) = (signer.encoded_chain().1, signer.ocsp_response().1);
        let (chain, ocsp) = (Artefact::new(chain), Artefact::new(ocsp));
        let held = Place { logged_ms: leaf.logged_ms, ..held };
        Ok(Self { manifest, signature, chain, ocsp, held })
    }

    /// When its exchange began.
    pub(crate) fn begun(&self) -> Time {
        self.manifest.exchange.time()
    }

    /// Takes chain and OCSP answer from those that are held already: most messages have the same.
    pub(crate) fn share(&mut self, held: &mut BTreeMap<Digest, Artefact>) {
        for one in [&mut self.chain, &mut self.ocsp] {
            *one = held.entry(one.digest()).or_insert_with(|| one.clone()).clone();
        }
    }

    /// The record that says that it came back, while a configuration with this digest is in use here.
    pub(crate) fn entry(self, own: &ServerId, peer: &ServerId, configuration: Digest, now: Time) -> Entry {
        let message = MessageEntry {
            manifest: self.manifest.encoded().clone(),
            signature_digest: Digest::of(&self.signature.encode_to_vec()).to_bytes(),
            chain_digest: self.chain.named(),
            ocsp_digest: self.ocsp.named(),
            configuration_digest: configuration.to_bytes(),
            sent: self.manifest.sender == *own,
            ..MessageEntry::default()
        };
        let recovered = RecoveredMessage {
            peer: peer.to_string(),
            message: Some(message),
            peer_index: self.held.index,
            peer_logged_ms: self.held.logged_ms,
            peer_size: self.held.head.size,
            peer_root: self.held.head.root.to_bytes(),
        };
        let leaf = Leaf::of(now.as_millis(), LeafEntry::Recovered(recovered));
        Entry { signature: Some(self.signature), artefacts: vec![self.chain, self.ocsp], ..Entry::new(leaf) }
    }
}

impl Place {
    fn verify(answer: &FetchMessageResponse, key: &NoteVerifier) -> Result<Self, RecoveryError> {
        let seen = seen(&answer.note, key).ok_or(RecoveryError::NotIncluded)?;
        let path: Option<Vec<_>> = answer.path.iter().map(|hash| Digest::from_slice(hash)).collect();
        let path = path.filter(|path| path.len() <= LONGEST_PATH).ok_or(RecoveryError::NotIncluded)?;
        let (leaf, index) = (leaf_hash(&answer.leaf), answer.index);
        let root = root_from_path(&leaf, index, seen.head.size, &path);
        let held = Self { index, logged_ms: 0, head: seen.head };
        if root == Some(seen.head.root) { Ok(held) } else { Err(RecoveryError::NotIncluded) }
    }
}

/// The message of a record, be it of its time or one that came back itself.
fn entry_of(entry: Option<LeafEntry>) -> Option<MessageEntry> {
    match entry? {
        LeafEntry::Message(entry) => Some(entry),
        LeafEntry::Recovered(recovered) => recovered.message,
        _ => None,
    }
}

/// Of what the other server sent, that for which this server may have signed that it came: the ones that its messages name,
/// and those before them. What nothing names is not asked for. Reads the disk.
pub(crate) fn named_by_own(
    hours: &Hours,
    fetched: &[Fetched],
    theirs: &[Lost],
) -> Result<Vec<Lost>, RecoveryError> {
    let mut up_to = BTreeMap::<(ExchangeId, Direction), u64>::new();
    let mut named = BTreeMap::new();
    for one in theirs {
        let Ok(exchange) = one.name.exchange() else { continue };
        let named = match named.entry(exchange) {
            Slot::Occupied(named) => named.into_mut(),
            Slot::Vacant(slot) => {
                let fetched = fetched.iter().map(|one| &one.manifest).filter(|it| it.exchange == exchange);
                let all: Vec<_> = known(hours, exchange)?.into_iter().chain(fetched.cloned()).collect();
                slot.insert(rests_on(hours.own(), &all))
            }
        };
        if named.contains(&one.digest) {
            let up_to = up_to.entry((exchange, one.name.direction())).or_default();
            *up_to = one.name.index().max(*up_to);
        }
    }
    let covers = |one: &&Lost| {
        let key = one.name.exchange().ok().map(|exchange| (exchange, one.name.direction()));
        key.and_then(|key| up_to.get(&key)).is_some_and(|up_to| one.name.index() <= *up_to)
    };
    Ok(theirs.iter().filter(covers).copied().collect())
}

/// The messages of an exchange that this log holds.
fn known(hours: &Hours, exchange: ExchangeId) -> Result<Vec<Manifest>, RecoveryError> {
    let mut known = Vec::new();
    for at in hours.log().places(exchange).map_err(RecoveryError::Log)? {
        known.extend(message(hours.log(), at).map_err(RecoveryError::Log)?.map(|(manifest, _)| manifest));
    }
    Ok(known)
}

/// Of these messages those that may come back, in the order of their names, and how many may not. Reads the disk.
pub(crate) fn justified(
    hours: &Hours,
    fetched: Vec<Fetched>,
) -> Result<(Vec<Fetched>, usize), RecoveryError> {
    let mut exchanges = BTreeMap::<ExchangeId, Vec<Fetched>>::new();
    for one in fetched {
        exchanges.entry(one.manifest.exchange).or_default().push(one);
    }
    let (mut taken, mut refused) = (Vec::new(), 0);
    for (exchange, mut some) in exchanges {
        some.sort_by_key(|one| Name::of(&one.manifest));
        let known = known(hours, exchange)?;
        let all: Vec<_> = known.iter().chain(some.iter().map(|one| &one.manifest)).cloned().collect();
        let named = rests_on(hours.own(), &all);
        let mut held: BTreeSet<_> = known.iter().map(Manifest::digest).collect();
        for one in some {
            // Without the one before it nothing would follow from it.
            let follows = one.manifest.previous.is_none_or(|previous| held.contains(&previous));
            if follows && named.contains(&one.manifest.digest()) {
                held.insert(one.manifest.digest());
                taken.push(one);
            } else {
                refused += 1;
            }
        }
    }
    Ok((taken, refused))
}

/// The messages of an exchange that rest on signatures of `own`: those that it signed, and all that these name, as the ones
/// before them and the ones that they answer.
fn rests_on(own: &ServerId, manifests: &[Manifest]) -> BTreeSet<Digest> {
    let by_digest: BTreeMap<_, _> = manifests.iter().map(|manifest| (manifest.digest(), manifest)).collect();
    let ours = manifests.iter().filter(|manifest| manifest.sender == *own);
    let mut open: Vec<_> = ours.map(Manifest::digest).collect();
    let mut named = BTreeSet::new();
    while let Some(digest) = open.pop() {
        if named.insert(digest)
            && let Some(manifest) = by_digest.get(&digest)
        {
            open.extend(manifest.previous.into_iter().chain(manifest.last_received));
        }
    }
    named
}

/// What of a record is given to a server that has lost it: none if there is no such record, or no checkpoint above it yet.
/// Reads the disk.
pub(super) fn give(
    hours: &Hours,
    peer: &ServerId,
    (name, digest): (Name, Digest),
) -> Result<Option<FetchMessageResponse>, LogError> {
    let Ok(exchange) = name.exchange() else { return Ok(None) };
    let log = hours.log();
    let Some(checkpoint) = log.latest_checkpoint() else { return Ok(None) };
    for index in log.places(exchange)? {
        let Some((manifest, _)) = message(log, index)? else { continue };
        let asked = manifest.digest() == digest && Name::of(&manifest) == name;
        let size = checkpoint.checkpoint.size;
        if asked && other(&manifest, hours.own()) == Some(peer) && index < size {
            let path = log.inclusion(index, size)?.into_iter().map(Digest::to_bytes).collect();
            return Ok(Some(FetchMessageResponse { note: checkpoint.note, path, ..record(log, index)? }));
        }
    }
    Ok(None)
}

fn record(log: &Log, index: u64) -> Result<FetchMessageResponse, LogError> {
    // Without the content: it is not given, and so it is not decrypted.
    let (leaf, leaf_bytes, attachment) = log.signed(index)?;
    let entry = entry_of(leaf.entry).unwrap_or_default();
    let artefact = |named: &Bytes| match Digest::from_slice(named) {
        Some(digest) => log.artefact(&digest).map(Option::unwrap_or_default),
        None => Ok(Bytes::new()),
    };
    Ok(FetchMessageResponse {
        leaf: leaf_bytes,
        signature: attachment.signature,
        chain: artefact(&entry.chain_digest)?,
        ocsp_response: artefact(&entry.ocsp_digest)?,
        index,
        ..FetchMessageResponse::default()
    })
}
