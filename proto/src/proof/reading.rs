//! What a proof file says, taken apart: every record read strictly, every reference resolved, nothing twice and nothing
//! that no record names. What is read here is still a claim.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Proof;
use super::report::{Failure, Found};
use super::story::Side;
use crate::clock::Time;
use crate::digest::Digest;
use crate::encoding::decode_canonical;
use crate::identifier::{ExchangeId, ServerId};
use crate::message::{Direction, Manifest, ManifestError};
use crate::schema::log::{Erasure, ExchangeEnded, Leaf, MessageEntry, RecoveredMessage, leaf::Entry};
use crate::schema::proof::Record;
use crate::signature::BatchSignature;

/// A message's record.
#[derive(Debug)]
pub(super) struct Logged<'p> {
    pub(super) record: &'p Record,
    pub(super) manifest: Manifest,
    pub(super) signature: BatchSignature,
    pub(super) signature_digest: Digest,
    pub(super) logged: Time,
    pub(super) sent: bool,
    pub(super) chain: Digest,
    pub(super) ocsp: Digest,
    pub(super) configuration: Digest,
    pub(super) tls_certificate: Option<Digest>,
    pub(super) grant: Option<Digest>,
    pub(super) group: Option<Digest>,
    /// The server from which it came back after this log had lost it; none if it was logged at its time.
    pub(super) recovered_from: Option<ServerId>,
}

impl Logged<'_> {
    /// "request 0": how a person finds it.
    pub(super) fn label(&self) -> String {
        let direction = match self.manifest.direction {
            Direction::Response => "response",
            _ => "request",
        };
        format!("{direction} {}", self.manifest.index)
    }

    /// The time at which the recorder relied on the signer: when it made the message, or when it received it; of what came
    /// back, when it was made.
    pub(super) fn at(&self) -> Time {
        if self.sent || self.recovered_from.is_some() { self.manifest.created } else { self.logged }
    }

    /// The configuration under which its signer is verified: the recorder's; of what came back, the one that its sender used.
    pub(super) fn signed_under(&self) -> Digest {
        if self.recovered_from.is_some() { self.manifest.configuration_digest } else { self.configuration }
    }

    fn side(&self) -> Side {
        if self.sent == (self.manifest.direction == Direction::Request) {
            Side::Client
        } else {
            Side::Provider
        }
    }

    /// The security server that wrote the record.
    pub(super) fn recorder(&self) -> &ServerId {
        if self.sent { &self.manifest.sender } else { &self.manifest.receiver }
    }

    /// The security server at the other end.
    pub(super) fn peer(&self) -> &ServerId {
        if self.sent { &self.manifest.receiver } else { &self.manifest.sender }
    }

    fn artefacts(&self) -> impl Iterator<Item = Digest> {
        [Some(self.chain), Some(self.ocsp), self.tls_certificate, self.grant, self.group]
            .into_iter()
            .flatten()
    }
}

/// A record of something other than a message, with the time at which it was logged and its place.
#[derive(Debug)]
pub(super) struct Noted<T> {
    pub(super) entry: T,
    pub(super) at: Time,
    pub(super) index: u64,
}

/// A proof file, taken apart.
#[derive(Debug)]
pub(super) struct Reading<'p> {
    pub(super) exchange: ExchangeId,
    pub(super) side: Side,
    /// At least one, in the order of the log.
    pub(super) messages: Vec<Logged<'p>>,
    pub(super) ended: Option<Noted<ExchangeEnded>>,
    pub(super) erasure: Option<Noted<Erasure>>,
    pub(super) artefacts: BTreeMap<Digest, &'p Bytes>,
}

impl<'p> Reading<'p> {
    /// Takes `proof` apart.
    pub(super) fn of(proof: &'p Proof) -> Found<Self> {
        let raw = proof.raw();
        let exchange = ExchangeId::from_slice(&raw.exchange_id);
        let exchange = exchange.map_err(|error| Failure::because("the exchange", &error))?;
        if !raw.records.is_sorted_by(|a, b| a.index < b.index) {
            return Err(Failure::fails("the records are not in the log's order, or one is there twice"));
        }
        let mut collected = Collected::default();
        for record in &raw.records {
            collected.add(record, &exchange)?;
        }
        let Collected { mut messages, ended, erasure } = collected;
        if messages.iter().any(|message| message.recovered_from.is_some()) {
            // What came back stands in the log behind what it came before.
            messages.sort_by_key(|message| {
                (message.manifest.direction == Direction::Response, message.manifest.index)
            });
        }
        let side = match messages.first() {
            None => return Err(Failure::fails("the file holds no message")),
            Some(first) => first.side(),
        };
        let recorder = messages[0].recorder();
        if messages.iter().any(|message| message.side() != side || message.recorder() != recorder) {
            return Err(Failure::fails("the records are not all by one security server, on one side"));
        }
        let artefacts = artefacts(&raw.artefacts, &messages)?;
        check_configurations(proof, &messages)?;
        let detail = format!(
            "{} records, {} artefacts, {} configurations",
            raw.records.len(),
            artefacts.len(),
            raw.configurations.len()
        );
        Ok((Self { exchange, side, messages, ended, erasure, artefacts }, detail))
    }

    /// The artefact that a record names. That it is there was seen to.
    pub(super) fn artefact(&self, digest: &Digest) -> Result<&'p Bytes, Failure> {
        self.artefacts.get(digest).copied().ok_or_else(|| Failure::fails(format!("{digest} is missing")))
    }

    /// The configurations that the recorder used, each once.
    pub(super) fn recorders_configurations(&self) -> BTreeSet<Digest> {
        self.messages.iter().map(|message| message.configuration).collect()
    }
}

#[derive(Default)]
struct Collected<'p> {
    messages: Vec<Logged<'p>>,
    ended: Option<Noted<ExchangeEnded>>,
    erasure: Option<Noted<Erasure>>,
}

impl<'p> Collected<'p> {
    fn add(&mut self, record: &'p Record, exchange: &ExchangeId) -> Result<(), Failure> {
        let (entry, at) = read_leaf(&record.leaf)?;
        let (index, is_message) = (record.index, matches!(entry, Entry::Message(_) | Entry::Recovered(_)));
        let (about, twice) = match entry {
            Entry::Recovered(recovered) => {
                let message = read_recovered(record, recovered, at)?;
                let about = message.manifest.exchange == *exchange;
                self.messages.push(message);
                (about, false)
            }
            Entry::Message(entry) => {
                let message = read_message(record, &entry, at)?;
                let about = message.manifest.exchange == *exchange;
                self.messages.push(message);
                (about, false)
            }
            Entry::Ended(entry) => {
                let about = entry.exchange_id == exchange.as_bytes()[..];
                (about, self.ended.replace(Noted { entry, at, index }).is_some())
            }
            Entry::Erasure(entry) => {
                let about = entry.exchange_id == exchange.as_bytes()[..];
                (about, self.erasure.replace(Noted { entry, at, index }).is_some())
            }
            _ => (false, false),
        };
        if !about {
            return Err(Failure::fails(format!("record {index} is not about this exchange")));
        }
        if twice {
            return Err(Failure::fails(format!("record {index} says a second time what can happen once")));
        }
        // What belongs to a message stands with a message alone.
        let bare =
            Record { leaf: record.leaf.clone(), index, path: record.path.clone(), ..Record::default() };
        if !is_message && *record != bare {
            return Err(Failure::fails(format!("record {index} has parts of a message and is none")));
        }
        Ok(())
    }
}

/// The entry of an encoded leaf, and its time.
pub(super) fn read_leaf(leaf: &[u8]) -> Result<(Entry, Time), Failure> {
    let refused = |error: &dyn std::error::Error| Failure::because("a record cannot be read", error);
    let decoded: Leaf = decode_canonical("leaf", leaf).map_err(|error| match version_of(leaf) {
        Some(version) if version > Leaf::VERSION => newer("records", version),
        _ => refused(&error),
    })?;
    if decoded.version > Leaf::VERSION {
        return Err(newer("records", decoded.version));
    }
    match decoded.entry {
        Some(entry) if decoded.version > 0 => Ok((entry, Time::from_millis(decoded.logged_ms))),
        _ => Err(Failure::fails("a record says nothing, or has no version")),
    }
}

/// The version that a message of ours begins with.
fn version_of(message: &[u8]) -> Option<u32> {
    match super::limits::find(message, 1)? {
        [version @ 0..=0x7f] => Some(u32::from(*version)),
        _ => None,
    }
}

fn newer(what: &str, version: u32) -> Failure {
    Failure::cannot_tell(format!("{what} of version {version} are not known here: use a newer trave-verify"))
}

fn read_message<'p>(record: &'p Record, entry: &MessageEntry, logged: Time) -> Result<Logged<'p>, Failure> {
    let at = |what: &str| format!("record {}: {what}", record.index);
    let manifest = Manifest::parse(entry.manifest.clone()).map_err(|error| match error {
        ManifestError::Version(version) if version > Manifest::VERSION => newer("messages", version),
        error => Failure::because(&at("its manifest"), &error),
    })?;
    let raw = record.signature.as_ref().ok_or_else(|| Failure::fails(at("its signature is missing")))?;
    let signature =
        BatchSignature::parse(raw).map_err(|error| Failure::because(&at("its signature"), &error))?;
    let digest = |bytes: &[u8], what: &str| {
        Digest::from_slice(bytes).ok_or_else(|| Failure::fails(at(&format!("its {what} is no digest"))))
    };
    let optional =
        |bytes: &[u8], what| if bytes.is_empty() { Ok(None) } else { digest(bytes, what).map(Some) };
    Ok(Logged {
        record,
        manifest,
        signature,
        signature_digest: digest(&entry.signature_digest, "signature_digest")?,
        logged,
        sent: entry.sent,
        chain: digest(&entry.chain_digest, "chain_digest")?,
        ocsp: digest(&entry.ocsp_digest, "ocsp_digest")?,
        configuration: digest(&entry.configuration_digest, "configuration_digest")?,
        tls_certificate: optional(&entry.tls_certificate_digest, "tls_certificate_digest")?,
        grant: optional(&entry.grant_digest, "grant_digest")?,
        group: optional(&entry.group_digest, "group_digest")?,
        recovered_from: None,
    })
}

/// A message that came back: its record says from whom, and nothing that only its time could have shown.
fn read_recovered(record: &Record, recovered: RecoveredMessage, logged: Time) -> Result<Logged<'_>, Failure> {
    let refused = |why: &str| Failure::fails(format!("record {}: {why}", record.index));
    let entry = recovered.message.ok_or_else(|| refused("it recovers no message"))?;
    let peer: ServerId = recovered.peer.parse().map_err(|_| refused("it names no security server"))?;
    let message = Logged { recovered_from: Some(peer), ..read_message(record, &entry, logged)? };
    if message.recovered_from.as_ref() != Some(message.peer()) {
        return Err(refused("the message came back from another server than the other side of its exchange"));
    }
    if message.tls_certificate.is_some() || message.grant.is_some() || message.group.is_some() {
        return Err(refused("what came back names a connection or a grant of its time"));
    }
    Ok(message)
}

/// The artefacts by digest: exactly those that the records name, in one order.
fn artefacts<'p>(list: &'p [Bytes], messages: &[Logged<'_>]) -> Result<BTreeMap<Digest, &'p Bytes>, Failure> {
    let digests: Vec<_> = list.iter().map(|artefact| Digest::of(artefact)).collect();
    if !digests.is_sorted_by(|a, b| a < b) {
        return Err(Failure::fails("the artefacts are not in order of their digests, or one is there twice"));
    }
    let named: BTreeSet<Digest> = messages.iter().flat_map(Logged::artefacts).collect();
    let given: BTreeSet<Digest> = digests.iter().copied().collect();
    same(&named, &given, "artefact")?;
    Ok(digests.into_iter().zip(list).collect())
}

/// Exactly the configurations that the records and manifests name.
fn check_configurations(proof: &Proof, messages: &[Logged<'_>]) -> Result<(), Failure> {
    let digests = proof.raw().configurations.iter().map(|signed| Digest::of(&signed.configuration));
    let given: BTreeSet<Digest> = digests.collect();
    if given.len() != proof.raw().configurations.len() {
        return Err(Failure::fails("a configuration is there twice"));
    }
    let named = messages.iter().flat_map(|m| [m.configuration, m.manifest.configuration_digest]).collect();
    same(&named, &given, "configuration")
}

fn same(named: &BTreeSet<Digest>, given: &BTreeSet<Digest>, what: &str) -> Result<(), Failure> {
    if let Some(missing) = named.difference(given).next() {
        return Err(Failure::fails(format!("the {what} {missing} that a record names is missing")));
    }
    match given.difference(named).next() {
        Some(extra) => Err(Failure::fails(format!("no record names the {what} {extra}"))),
        None => Ok(()),
    }
}
