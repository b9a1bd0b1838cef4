//! What the other side says: taken apart, authenticated, put in its place, logged; and only then handed on.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use trave_message_log::{Artefact, Logged};
use trave_proto::clock::Time;
use trave_proto::conversation::{OrderError, Verified};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::Manifest;
use trave_proto::schema::message::Envelope;
use trave_proto::signature::{SignatureError, Signed, Way};
use trave_proto::verification::{Authentic, TrustedSigner, VerificationError};

use super::{Exchanges, Shared, lock};
use crate::config::KeepContent;
use crate::recorder::{Evidence, KnownSigner};
use crate::trust::Snapshot;

/// One direction of an exchange, as its receiver.
pub(crate) struct Incoming<'a> {
    pub(crate) exchanges: &'a Exchanges,
    pub(crate) conversation: Shared,
    /// Who verifies: the side of this server.
    pub(crate) side: Side,
    pub(crate) signer: &'a KnownSigner,
    /// The TLS certificates of the connection: checked again when trust has changed.
    pub(crate) chain: &'a [CertificateDer<'static>],
    pub(crate) tls: Artefact,
    pub(crate) keep: KeepContent,
    pub(crate) generation: u64,
}

impl Incoming<'_> {
    /// Verifies the next message, logs it, and gives it out when its record is durable.
    pub(crate) async fn hear<W: Way>(&mut self, envelope: Envelope) -> Result<Logged<Verified<W>>, Fault> {
        let snapshot = self.exchanges.trust.valid(self.side)?;
        let now = self.exchanges.clock.now();
        if snapshot.generation != self.generation {
            still_trusted(self.exchanges, self.chain, now, self.side)?;
            self.generation = snapshot.generation;
        }
        let authentic = authenticate::<W>(self.exchanges, self.signer, &snapshot, envelope, self.side)?;
        let verified =
            lock(&self.conversation).accept(authentic, now).map_err(|error| order_fault(error, self.side))?;
        let evidence = Evidence::of(self.signer, snapshot.configuration.digest(), self.tls.clone());
        self.exchanges.recorder.received(verified, &evidence, self.keep, self.side).await
    }
}

/// Checks a connection's certificates against the snapshot in use.
pub(crate) fn still_trusted(
    exchanges: &Exchanges,
    chain: &[CertificateDer<'static>],
    now: Time,
    side: Side,
) -> Result<(), Fault> {
    let checked = exchanges.trust.authenticate(chain, now);
    checked.map(|_| ()).map_err(|why| Fault::before_call(Reason::SslAuthenticationFailed, side, why))
}

/// From an envelope to an authentic message.
pub(crate) fn authenticate<W: Way>(
    exchanges: &Exchanges,
    signer: &TrustedSigner,
    snapshot: &Arc<Snapshot>,
    envelope: Envelope,
    side: Side,
) -> Result<Authentic<W>, Fault> {
    let signed = Signed::<W>::receive(envelope).map_err(|error| signature_fault(&error, side))?;
    check_configuration(exchanges, signed.manifest(), side)?;
    let (configuration, now) = (&snapshot.configuration, exchanges.clock.now());
    signer
        .authenticate(signed, configuration, now, &exchanges.batches)
        .map_err(|error| verification_fault(&error, side))
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
