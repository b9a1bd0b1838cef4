//! What this server writes into its message log: messages, refusals, ends of exchanges, and what its operator did.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trave_message_log::{Artefact, ContentParts, Entry, Log, LogError, Logged, Person, Reference};
use trave_proto::clock::Clock;
use trave_proto::conversation::{Topic, Verified};
use trave_proto::digest::Digest;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::{ExchangeId, ServerId, XRoadServiceId};
use trave_proto::message::{CallerContext, Direction, Ending};
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{
    ConfigurationAdopted, Degradation, ExchangeEnded, Leaf, MessageEntry, Outcome, Refusal,
};
use trave_proto::schema::transport::RegisterReached;
use trave_proto::signature::{Parts, Signed, Way};
use trave_proto::verification::TrustedSigner;

use crate::config::KeepContent;
use crate::trust::{Trust, TrustError};

/// Records of refusals of one peer for one reason in one second; more are counted together with the next.
const REFUSALS_PER_SECOND: u64 = 20;

/// Makes the record of a message that was signed.
pub(crate) type MakeEntry<W> = Box<dyn FnOnce(&Signed<W>) -> Entry + Send>;

/// The room that a message takes in memory from before it is signed or logged until its record is durable.
pub(crate) type Room = OwnedSemaphorePermit;

/// Room for messages on their way to the disk, in KiB: more wait, and are not refused once they are admitted.
const ROOM: usize = 64 << 10;

/// What is needed to verify a message years later, beside the message.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub(crate) chain: Artefact,
    pub(crate) ocsp: Artefact,
    /// Digest of the configuration in use; the configuration itself is kept once, when it is adopted.
    pub(crate) configuration: Digest,
    /// TLS certificate of the other side.
    pub(crate) tls: Artefact,
    /// Leaf of the grant that permitted the exchange.
    pub(crate) grant: Option<Artefact>,
    /// Leaf of the local group through which that grant holds for the client, if it is for one.
    pub(crate) group: Option<Artefact>,
}

/// A trusted signer with what shows it, digested once for all its messages.
#[derive(Debug, Clone)]
pub(crate) struct KnownSigner {
    trusted: TrustedSigner,
    chain: Artefact,
    ocsp: Artefact,
}

impl KnownSigner {
    pub(crate) fn new(trusted: TrustedSigner) -> Self {
        let (chain, ocsp) =
            (Artefact::new(trusted.encoded_chain().1), Artefact::new(trusted.ocsp_response().1));
        Self { trusted, chain, ocsp }
    }
}

impl std::ops::Deref for KnownSigner {
    type Target = TrustedSigner;

    fn deref(&self) -> &TrustedSigner {
        &self.trusted
    }
}

impl Evidence {
    /// What shows who `signer` is.
    pub(crate) fn of(signer: &KnownSigner, configuration: Digest, tls: Artefact) -> Self {
        let (chain, ocsp) = (signer.chain.clone(), signer.ocsp.clone());
        Self { chain, ocsp, configuration, tls, grant: None, group: None }
    }

    fn artefacts(&self) -> Vec<Artefact> {
        let always = [&self.chain, &self.ocsp, &self.tls];
        always.into_iter().chain(&self.grant).chain(&self.group).cloned().collect()
    }
}

/// Writes to the message log.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    log: Log,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    room: Arc<Semaphore>,
}

/// So that no peer can fill the log with refusals: each has so many a second for each reason.
#[derive(Debug, Default)]
struct Budget(Mutex<HashMap<(Option<ServerId>, Reason), Spent>>);

/// What a peer had of its budget.
#[derive(Debug, Default)]
struct Spent {
    second: i64,
    used: u64,
    suppressed: u64,
}

impl Recorder {
    pub(crate) fn new(log: Log, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, budget: Arc::default(), room: Arc::new(Semaphore::new(ROOM)) }
    }

    /// The log itself.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for the room that a message of `parts` takes.
    pub(crate) async fn room(&self, parts: &Parts, side: Side) -> Result<Room, Fault> {
        let content = &parts.content;
        let heads =
            content.head.as_ref().map_or(0, Bytes::len) + content.trailers.as_ref().map_or(0, Bytes::len);
        let kib = u32::try_from((content.body.len() + heads) / 1024 + 4).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await;
        room.map_err(|_| {
            Fault::before_call(Reason::MaintenanceMode, side, "this security server is stopping")
        })
    }

    /// How the record of a message that this server signs is made.
    pub(crate) fn sent<W: Way>(
        &self,
        evidence: Evidence,
        keep: KeepContent,
        persons: Vec<Person>,
    ) -> MakeEntry<W> {
        let clock = Arc::clone(&self.clock);
        Box::new(move |signed| {
            let entry = message_entry(clock.as_ref(), signed, &evidence, true, keep);
            Entry { persons, ..entry }
        })
    }

    /// Hands a verified message to the log; it comes back when its record is durable. Told by `enqueued` when the record
    /// stands in the log's queue.
    pub(crate) async fn received<W: Way>(
        &self,
        verified: Verified<W>,
        (evidence, keep, persons): (&Evidence, KeepContent, Vec<Person>),
        side: Side,
        enqueued: impl FnOnce(),
    ) -> Result<Logged<Verified<W>>, Fault> {
        let _room = self.room(verified.parts(), side).await?;
        let entry = message_entry(self.clock.as_ref(), verified.signed(), evidence, false, keep);
        let entry = Entry { persons, ..entry };
        let pending = self.log.append(entry, verified).map_err(|error| log_fault(&error, side))?;
        enqueued();
        pending.await.map_err(|error| log_fault(&error, side))
    }

    /// Logs that a call was refused. What the log itself cannot take is told to the operator.
    pub(crate) async fn refused(&self, refused: Refused<'_>) {
        let now = self.clock.now();
        let Some(count) = self.budget.take(refused.peer, refused.fault.reason, now.as_secs()) else { return };
        let topic = refused.topic;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let entry = LeafEntry::Refusal(Refusal {
            exchange_id: refused.exchange.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
            reason: refused.fault.reason.as_str().into(),
            side: refused.fault.side.as_str().into(),
            client: text(topic.map(|topic| topic.client.as_str())),
            service: text(topic.map(|topic| topic.service.as_str())),
            method: text(topic.and_then(|topic| topic.method.as_ref()).map(|method| method.as_str())),
            purpose: text(topic.map(|topic| topic.purpose.as_str())),
            legal_basis: text(topic.map(|topic| topic.legal_basis.as_str())),
            peer: text(refused.peer.map(ServerId::as_str)),
            count,
        });
        self.own(entry).await;
    }

    /// Logs how an exchange ended that did not end with a complete answer.
    pub(crate) async fn ended(
        &self,
        exchange: ExchangeId,
        fault: &Fault,
        counts: (u64, u64),
        went: Went<'_>,
    ) {
        let (continued_as, bridged_to) = match went {
            Went::NoFurther => (None, None),
            Went::OnAs(exchange) => (Some(exchange), None),
            Went::Beyond(service) => (None, Some(service)),
        };
        let entry = LeafEntry::Ended(ExchangeEnded {
            exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
            outcome: outcome(fault, counts.1).into(),
            reason: fault.reason.as_str().into(),
            side: fault.side.as_str().into(),
            register_reached: fault.register_reached.into(),
            requests: counts.0,
            responses: counts.1,
            continued_as: continued_as.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
            bridged_to: bridged_to.map(ToString::to_string).unwrap_or_default(),
        });
        self.own(entry).await;
    }

    /// Adopts a configuration if it is newer, and logs that it came into use, as it was signed.
    pub(crate) async fn adopt(
        &self,
        trust: &Trust,
        signed: &SignedConfiguration,
        source: &str,
    ) -> Result<(), TrustError> {
        let adopted = trust.adopt(signed);
        if let Err(TrustError::NotAdopted(error)) = &adopted
            && error.is_alarm()
        {
            tracing::error!(%error, source, "the registry, or somebody with its keys, contradicts itself: compare the configurations");
            let kind = "configuration_contradiction".into();
            self.own(LeafEntry::Degradation(Degradation { kind, begins: true })).await;
        }
        let Some(snapshot) = adopted? else { return Ok(()) };
        let configuration = &snapshot.configuration;
        tracing::info!(number = configuration.number(), source, "a global configuration is in use");
        let entry = LeafEntry::Configuration(ConfigurationAdopted {
            number: configuration.number(),
            digest: configuration.digest().to_bytes(),
            source: source.into(),
        });
        let signed = Artefact::new(configuration.signed().encode_to_vec().into());
        if let Err(error) = self.event(entry, vec![signed]).await {
            tracing::error!(error = trave_host::config::with_causes(&error), "a record could not be logged");
        }
        Ok(())
    }

    /// Logs a record of the server's own and waits until it is durable; what fails is told to the operator.
    pub(crate) async fn own(&self, entry: LeafEntry) {
        if let Err(error) = self.event(entry, Vec::new()).await {
            tracing::error!(error = trave_host::config::with_causes(&error), "a record could not be logged");
        }
    }

    /// Logs a message that came back from another server; where it stands.
    pub(crate) async fn recovered(&self, entry: Entry) -> Result<u64, LogError> {
        Ok(self.log.append(entry, ())?.await?.index())
    }

    /// Logs an event with artefacts; the leaf comes back with its place when it is durable.
    pub(crate) async fn event(
        &self,
        entry: LeafEntry,
        artefacts: Vec<Artefact>,
    ) -> Result<Logged<Leaf>, LogError> {
        let leaf = Leaf::of(self.clock.now().as_millis(), entry);
        let entry = Entry { artefacts, ..Entry::new(leaf.clone()) };
        self.log.append(entry, leaf)?.await
    }
}

/// Where the call of an exchange went that has no complete answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Went<'a> {
    /// To the other side, as its messages say.
    NoFurther,
    /// It was made again, as another exchange.
    OnAs(ExchangeId),
    /// Over this server, a bridge, to a service of another instance: no answer may ever have named it.
    Beyond(&'a XRoadServiceId),
}

/// A refusal, with what is known of the call: values of the catalogue alone.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) exchange: Option<ExchangeId>,
    pub(crate) fault: &'a Fault,
    pub(crate) topic: Option<&'a Topic>,
    pub(crate) peer: Option<&'a ServerId>,
}

impl Budget {
    /// How many refusals the next record stands for; none if this second has had its share.
    fn take(&self, peer: Option<&ServerId>, reason: Reason, second: i64) -> Option<u64> {
        // Peers are those of the global configuration, so the map is as small as it is.
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = budgets.entry((peer.cloned(), reason)).or_default();
        if spent.second != second {
            (spent.second, spent.used) = (second, 0);
        }
        if spent.used >= REFUSALS_PER_SECOND {
            spent.suppressed += 1;
            return None;
        }
        spent.used += 1;
        Some(1 + std::mem::take(&mut spent.suppressed))
    }
}

/// How an exchange ended, of whose answer so many messages were said.
fn outcome(fault: &Fault, responses: u64) -> Outcome {
    match (fault.reason, fault.register_reached) {
        (Reason::Aborted, _) => Outcome::Aborted,
        // What was called before the log failed may have been done, and its answer is withheld.
        (Reason::LoggingFailed | Reason::DiskFull, RegisterReached::Yes) => Outcome::Unknown,
        // An answer that began and has no end was broken off, whatever broke it off; the counts say where.
        _ if responses > 0 => Outcome::Aborted,
        (_, RegisterReached::Unknown) => Outcome::Unknown,
        _ => Outcome::Failed,
    }
}

/// The record of a message.
fn message_entry<W: Way>(
    clock: &dyn Clock,
    signed: &Signed<W>,
    evidence: &Evidence,
    sent: bool,
    keep: KeepContent,
) -> Entry {
    let signature = signed.signature().to_schema();
    let digest = |named: Option<&Artefact>| named.map(Artefact::named).unwrap_or_default();
    let entry = MessageEntry {
        manifest: signed.manifest().encoded().clone(),
        signature_digest: Digest::of(&signature.encode_to_vec()).to_bytes(),
        chain_digest: evidence.chain.named(),
        ocsp_digest: evidence.ocsp.named(),
        configuration_digest: evidence.configuration.to_bytes(),
        tls_certificate_digest: evidence.tls.named(),
        grant_digest: digest(evidence.grant.as_ref()),
        group_digest: digest(evidence.group.as_ref()),
        sent,
    };
    let kept = match (keep, W::DIRECTION) {
        (KeepContent::All, _) | (KeepContent::Request, Direction::Request) => {
            Some(parts_to_keep(signed.parts()))
        }
        _ => None,
    };
    Entry {
        leaf: Leaf::of(clock.now().as_millis(), LeafEntry::Message(entry)),
        signature: Some(signature),
        artefacts: evidence.artefacts(),
        content: kept,
        persons: Vec::new(),
        references: references(signed.manifest().exchange, signed.parts()),
        last: W::DIRECTION == Direction::Response && signed.manifest().ending != Ending::Continue,
    }
}

/// What the caller calls the exchange by, as far as it says: its own message id, which is not kept where it is only the
/// exchange's, and the case.
fn references(exchange: ExchangeId, parts: &Parts) -> Vec<Reference> {
    let context = parts.caller_context.as_ref().map(|(context, _)| CallerContext::decode(context));
    let Some(Ok(CallerContext { message_id, issue, .. })) = context else { return Vec::new() };
    let own = Some(message_id).filter(|id| *id != exchange.to_string());
    let message_id = own.and_then(|id| Reference::message_id(&id));
    message_id.into_iter().chain(Reference::case(&issue)).collect()
}

fn parts_to_keep(parts: &Parts) -> ContentParts {
    let (caller_context, salt) = parts.caller_context.clone().unzip();
    ContentParts {
        content_salt: parts.content_salt.to_bytes(),
        head: parts.content.head.clone(),
        body: parts.content.body.clone(),
        trailers: parts.content.trailers.clone(),
        caller_context_salt: salt.map(|salt| salt.to_bytes()).unwrap_or_default(),
        caller_context,
    }
}

/// What a caller is told when the log does not take a record.
pub(crate) fn log_fault(error: &LogError, side: Side) -> Fault {
    match error {
        LogError::DiskFull { .. } => {
            let why = "the disk of this security server's message log is full; its operator must make space";
            Fault::before_call(Reason::DiskFull, side, why)
        }
        LogError::Busy => {
            let why = "this security server's message log is slower than the load";
            Fault::before_call(Reason::Overloaded, side, why)
        }
        error => {
            tracing::error!(error = trave_host::config::with_causes(error), "the message log failed");
            let why = "the message log of this security server cannot be written; its operator must look at the disk";
            Fault::before_call(Reason::LoggingFailed, side, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_register_did_is_not_known_where_its_answer_could_not_be_logged() {
        let fault = |reason, reached| {
            Fault::before_call(reason, Side::ProviderServer, "because").with_register(reached)
        };
        for reason in [Reason::LoggingFailed, Reason::DiskFull] {
            assert_eq!(outcome(&fault(reason, RegisterReached::Yes), 0), Outcome::Unknown, "{reason:?}");
            assert_eq!(outcome(&fault(reason, RegisterReached::No), 0), Outcome::Failed, "{reason:?}");
        }
        let failed = fault(Reason::ServiceFailed, RegisterReached::Yes);
        assert_eq!((outcome(&failed, 0), outcome(&failed, 1)), (Outcome::Failed, Outcome::Aborted));
    }

    #[test]
    fn refusals_beyond_the_budget_are_counted_with_the_next_of_their_kind() {
        let budget = Budget::default();
        let peer: ServerId = "NORD/SH/luebeck/s1".parse().unwrap();
        let take = |second| budget.take(Some(&peer), Reason::AccessDenied, second);
        let taken = (0..REFUSALS_PER_SECOND + 5).filter(|_| take(1) == Some(1)).count() as u64;
        assert_eq!(taken, REFUSALS_PER_SECOND);
        assert_eq!(budget.take(Some(&peer), Reason::Replayed, 1), Some(1), "another reason");
        assert_eq!(budget.take(None, Reason::AccessDenied, 1), Some(1), "another peer");
        assert_eq!(take(2), Some(6));
        assert_eq!(take(2), Some(1));
    }
}
