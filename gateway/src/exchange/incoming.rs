//! What the other side says: taken apart, authenticated, put in its place, logged; and only then handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trave_message_log::{Artefact, Logged, Person};
use trave_proto::clock::Time;
use trave_proto::conversation::{OrderError, Verified};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::{Content, Direction, Ending, Manifest};
use trave_proto::schema::message::Envelope;
use trave_proto::signature::{SignatureError, Signed, Way};
use trave_proto::verification::{Authentic, VerificationError};

use super::Exchanges;
use super::progress::Progress;
use crate::config::KeepContent;
use crate::recorder::{Evidence, KnownSigner};
use crate::subject::{Event, Seeking};
use crate::transport::{PeerConnection, Session};
use crate::trust::{Snapshot, TlsPeer};

/// The security server on the other side of an exchange, as its connection showed it.
pub(crate) struct Other<'a> {
    peer: &'a TlsPeer,
    pub(crate) signer: &'a KnownSigner,
    pub(crate) tls: Artefact,
    /// At the client: the connection, over which both sides come to one configuration.
    connection: Option<&'a PeerConnection>,
    /// The generation of the snapshot that the other side knows of.
    generation: AtomicU64,
}

impl<'a> Other<'a> {
    /// The client's security server, at the provider.
    pub(crate) fn asking(session: &'a Session, signer: &'a KnownSigner) -> Self {
        let (peer, tls) = (session.peer(), session.tls());
        Self { peer, signer, tls, connection: None, generation: AtomicU64::new(0) }
    }

    /// The provider's security server, at the client.
    pub(crate) fn answering(connection: &'a PeerConnection) -> Self {
        Self {
            peer: &connection.peer,
            signer: &connection.greeted.signer,
            tls: connection.tls.clone(),
            connection: Some(connection),
            generation: AtomicU64::new(connection.generation),
        }
    }

    /// Before each message: the other side is still who it was. After a change of trust the client's side also sees to it
    /// that both use one configuration.
    pub(crate) async fn still_trusted(
        &self,
        exchanges: &Exchanges,
        snapshot: &Snapshot,
        side: Side,
    ) -> Result<(), Fault> {
        let now = exchanges.clock.now();
        recheck(self.peer, snapshot, now, side)?;
        let checked = self.signer.check_current(&snapshot.configuration, now);
        checked.map_err(|error| verification_fault(&error, side))?;
        if let Some(connection) = self.connection
            && self.generation.swap(snapshot.generation, Ordering::Relaxed) != snapshot.generation
        {
            Box::pin(exchanges.peers.offer(connection, &snapshot.configuration)).await;
        }
        Ok(())
    }
}

/// Checks a connection's certificates against the snapshot in use.
pub(crate) fn recheck(peer: &TlsPeer, snapshot: &Snapshot, now: Time, side: Side) -> Result<(), Fault> {
    peer.recheck(snapshot, now).map_err(|why| Fault::before_call(Reason::SslAuthenticationFailed, side, why))
}

/// One direction of an exchange, as its receiver.
pub(crate) struct Incoming<'a> {
    pub(crate) exchanges: &'a Exchanges,
    pub(crate) progress: Arc<Progress>,
    /// Who verifies: the side of this server.
    pub(crate) side: Side,
    pub(crate) other: Other<'a>,
    pub(crate) keep: KeepContent,
    /// At the provider: where the request may still name the person concerned.
    pub(crate) seeking: Option<Seeking>,
}

impl Incoming<'_> {
    /// Verifies the next message, logs it, and gives it out when its record is durable.
    pub(crate) async fn hear<W: Way>(&mut self, envelope: Envelope) -> Result<Logged<Verified<W>>, Fault> {
        self.exchanges.suspicion.check(self.other.peer.server(), self.side)?;
        let signed = receive::<W>(envelope, self.side).inspect_err(|_| self.progress.did_not_verify())?;
        self.catch_up(signed.manifest()).await;
        let snapshot = self.exchanges.trust.valid(self.side)?;
        self.other.still_trusted(self.exchanges, &snapshot, self.side).await?;
        let verified = self.verify(signed, &snapshot).inspect_err(|_| self.progress.did_not_verify())?;
        let evidence =
            Evidence::of(self.other.signer, snapshot.configuration.digest(), self.other.tls.clone());
        let progress = Arc::clone(&self.progress);
        let persons = persons(self.exchanges, self.seeking.as_mut(), &verified)?;
        let recording = (&evidence, self.keep, persons);
        self.exchanges
            .recorder
            .received(verified, recording, self.side, move || progress.logged_received())
            .await
    }

    /// Authentic, in its place, and of its form.
    fn verify<W: Way>(&self, signed: Signed<W>, snapshot: &Snapshot) -> Result<Verified<W>, Fault> {
        let authentic = authenticate(self.exchanges, self.other.signer, snapshot, signed, self.side)?;
        let accepted = self.progress.conversation().accept(authentic, self.exchanges.clock.now());
        let verified = accepted.map_err(|error| order_fault(error, self.side))?;
        check_shape(verified.manifest(), &verified.parts().content, self.side)?;
        Ok(verified)
    }

    /// At the client: a message that names a newer configuration than this server has brings it here, before it is judged.
    async fn catch_up(&self, manifest: &Manifest) {
        let ours = self.exchanges.trust.snapshot().configuration.number();
        if let Some(connection) = self.other.connection.filter(|_| manifest.configuration_number > ours) {
            Box::pin(self.exchanges.peers.fetch(connection)).await;
        }
    }
}

/// The persons that a message of a request names, where its service looks for them.
pub(crate) fn persons<W: Way>(
    exchanges: &Exchanges,
    seeking: Option<&mut Seeking>,
    verified: &Verified<W>,
) -> Result<Vec<Person>, Fault> {
    let Some(seeking) = seeking.filter(|_| W::DIRECTION == Direction::Request) else { return Ok(Vec::new()) };
    let last = verified.manifest().ending == Ending::End;
    let count = |event: Event| exchanges.metrics.person("provider", event.as_str());
    let found = seeking.look(verified.parts(), last, count);
    found.map_err(|missing| {
        Fault::before_call(Reason::InvalidMessage, Side::ProviderServer, missing.to_string())
    })
}

/// Takes an envelope apart: strict, bounded, and with the content that its manifest commits to.
pub(crate) fn receive<W: Way>(envelope: Envelope, side: Side) -> Result<Signed<W>, Fault> {
    Signed::<W>::receive(envelope).map_err(|error| signature_fault(&error, side))
}

/// A head stands in the first message alone, trailers in the last alone: nothing is logged and proved that
/// nobody was given.
pub(crate) fn check_shape(manifest: &Manifest, content: &Content, side: Side) -> Result<(), Fault> {
    let first = manifest.index == 0;
    // Trailers of a request are not part of gRPC.
    let has_trailers = manifest.direction == Direction::Response || manifest.method.is_none();
    let may_trail = has_trailers && manifest.ending == Ending::End;
    let breaks_off = manifest.ending == Ending::Abort;
    if (content.head.is_some() != first && !breaks_off) || (content.trailers.is_some() && !may_trail) {
        let why = "the message has a head or trailers where none belong, or none where one belongs";
        return Err(Fault::before_call(Reason::InvalidMessage, side, why));
    }
    Ok(())
}

/// From a received message to an authentic one.
pub(crate) fn authenticate<W: Way>(
    exchanges: &Exchanges,
    signer: &KnownSigner,
    snapshot: &Snapshot,
    signed: Signed<W>,
    side: Side,
) -> Result<Authentic<W>, Fault> {
    check_configuration(exchanges, signed.manifest(), side)?;
    let (configuration, now) = (&snapshot.configuration, exchanges.clock.now());
    signer.authenticate(signed, configuration, now, &exchanges.batches).map_err(|error| {
        if matches!(error, VerificationError::Signature) {
            exchanges.suspicion.failed(signer.server());
        }
        verification_fault(&error, side)
    })
}

/// The configuration that the sender used must be one that was adopted here, and not have ended.
fn check_configuration(exchanges: &Exchanges, manifest: &Manifest, side: Side) -> Result<(), Fault> {
    let known = exchanges.trust.known(&manifest.configuration_digest);
    let known = known.filter(|known| known.number() == manifest.configuration_number);
    match known {
        Some(known) if known.valid_until() >= exchanges.clock.now() => Ok(()),
        Some(known) => {
            let why = format!("the sender uses global configuration {}, which has ended", known.number());
            Err(Fault::before_call(Reason::GlobalConfOutdated, side, why))
        }
        None => {
            let why = format!(
                "the sender uses a global configuration {} that is not known here",
                manifest.configuration_number
            );
            Err(Fault::before_call(Reason::GlobalConfOutdated, side, why))
        }
    }
}

fn signature_fault(error: &SignatureError, side: Side) -> Fault {
    let reason = match error {
        SignatureError::Commitment(_) => Reason::ContentMismatch,
        SignatureError::Manifest(_) | SignatureError::Direction => Reason::InvalidMessage,
        SignatureError::Content(_) => Reason::TooLarge,
        SignatureError::Missing
        | SignatureError::Malformed(_)
        | SignatureError::Batch(_)
        | SignatureError::Key(_) => Reason::InvalidSignatureValue,
    };
    Fault::before_call(reason, side, trave_host::config::with_causes(error))
}

fn verification_fault(error: &VerificationError, side: Side) -> Fault {
    let reason = match error {
        VerificationError::Signature | VerificationError::Batch(_) => Reason::InvalidSignatureValue,
        VerificationError::NotTheSigner { .. } | VerificationError::NotRegistered { .. } => {
            Reason::SignerNotAllowed
        }
        VerificationError::Chain(_)
        | VerificationError::Status(_)
        | VerificationError::NotListed(_)
        | VerificationError::Algorithm(_)
        | VerificationError::Expired
        | VerificationError::OtherCertificate => Reason::CertValidation,
    };
    Fault::before_call(reason, side, trave_host::config::with_causes(error))
}

/// What the caller is told of a message that may not come here or now.
pub(crate) fn order_fault(error: OrderError, side: Side) -> Fault {
    let reason = match error {
        OrderError::Audience | OrderError::Nonce | OrderError::Time => Reason::Replayed,
        OrderError::Topic | OrderError::LastReceived if side == Side::ClientServer => {
            Reason::InconsistentResponse
        }
        OrderError::Signer => Reason::CertValidation,
        _ => Reason::OutOfOrder,
    };
    Fault::before_call(reason, side, error.to_string())
}
