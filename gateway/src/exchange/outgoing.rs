//! What this side says: made into a message, signed, and in the log's queue before anybody sends it.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use trave_message_log::{Logged, Person};
use trave_proto::conversation::InUse;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::{Content, Ending, Salt};
use trave_proto::signature::{Parts, Signed, Unsigned, Way};

use super::framing::{Cut, Piece, Pieces};
use super::head::Kind;
use super::incoming::Other;
use super::progress::Progress;
use super::{Exchanges, head, permission, random};
use crate::access::Permitted;
use crate::config::KeepContent;
use crate::recorder::{Evidence, Room, log_fault};
use crate::signer::{Enqueued, Recording};
use crate::subject;

/// One direction of an exchange, as its sender.
pub(crate) struct Outgoing<'a> {
    pub(crate) exchanges: &'a Exchanges,
    pub(crate) progress: Arc<Progress>,
    pub(crate) side: Side,
    pub(crate) other: Other<'a>,
    pub(crate) keep: KeepContent,
    /// What permitted the exchange, at its provider: a grant that is withdrawn ends a long answer too.
    pub(crate) permitted: Option<&'a Permitted>,
}

impl Outgoing<'_> {
    /// Signs one message and hands its record to the log; it may be sent when this side needs no durable record first.
    pub(crate) async fn say<W: Way>(
        &self,
        content: Content,
        caller_context: Option<Bytes>,
        ending: Ending,
    ) -> Result<Enqueued<W>, Fault> {
        let snapshot = self.exchanges.trust.valid(self.side)?;
        let (configuration, now) = (&snapshot.configuration, self.exchanges.clock.now());
        self.other.still_trusted(self.exchanges, &snapshot, self.side).await?;
        self.still_permitted()?;
        let signer = self.exchanges.own.signer.load_full();
        signer.check_current(configuration, now).map_err(|error| {
            let why = format!("this security server's own signing certificate: {error}");
            Fault::before_call(Reason::CertValidation, self.side, why)
        })?;
        let persons = self.persons(caller_context.as_ref());
        let parts = self.parts(content, caller_context)?;
        let room = self.exchanges.recorder.room(&parts, self.side).await?;
        let turn = self.progress.turn().await;
        let in_use = InUse { number: configuration.number(), digest: configuration.digest() };
        let evidence = Evidence::of(&signer, configuration.digest(), self.other.tls.clone());
        let fields = self.progress.conversation().next(now, in_use, ending);
        let unsigned = Unsigned::<W>::new(fields, parts).map_err(|error| self.too_large(&error))?;
        let digest = unsigned.manifest().digest();
        let progress = Arc::clone(&self.progress);
        let recording = Recording {
            entry: self.exchanges.recorder.sent(evidence, self.keep, persons),
            enqueued: Box::new(move || {
                progress.conversation().sent(digest, ending);
                progress.logged_sent();
                drop(turn);
            }),
            room,
        };
        self.exchanges.signing.sign(unsigned, recording, self.side).await
    }

    /// Signs one message and waits until its record is durable: only then may an answer leave.
    pub(crate) async fn say_durably<W: Way>(
        &self,
        content: Content,
        ending: Ending,
    ) -> Result<Logged<(Signed<W>, Room)>, Fault> {
        let enqueued = self.say::<W>(content, None, ending).await?;
        enqueued.durable.await.map_err(|error| log_fault(&error, self.side))
    }

    fn still_permitted(&self) -> Result<(), Fault> {
        let (sent, _) = self.progress.counts();
        match self.permitted {
            Some(permitted) if sent > 0 => {
                let topic = self.progress.conversation().topic().clone();
                permission::still(self.exchanges, permitted, &topic)
            }
            _ => Ok(()),
        }
    }

    /// Whom the caller declares that the exchange concerns.
    fn persons(&self, caller_context: Option<&Bytes>) -> Vec<Person> {
        subject::declared(caller_context, |event| self.exchanges.metrics.person("client", event.as_str()))
    }

    fn parts(&self, content: Content, caller_context: Option<Bytes>) -> Result<Parts, Fault> {
        if self.progress.conversation().is_choked() {
            let why = "the other side has acknowledged nothing for too many messages";
            return Err(Fault::before_call(Reason::Aborted, self.side, why));
        }
        let content_salt = Salt::new(random(self.side)?);
        let caller_context = match caller_context {
            None => None,
            Some(encoded) => Some((encoded, Salt::new(random(self.side)?))),
        };
        Ok(Parts { content, content_salt, caller_context })
    }

    fn too_large(&self, error: &trave_proto::signature::SignatureError) -> Fault {
        let why = trave_host::config::with_causes(error);
        Fault::before_call(Reason::TooLarge, self.side, why)
    }
}

/// The content and ending that a piece of a body becomes.
pub(crate) fn content_of(kind: Kind, piece: Piece, head: Option<Bytes>) -> (Content, Ending) {
    let trailers = piece.trailers.as_ref().map(|trailers| head::trailers(kind, trailers));
    let ending = if piece.end { Ending::End } else { Ending::Continue };
    (Content { head, body: piece.body, trailers }, ending)
}

/// The piece that goes with a head: the first if it comes at once, else nothing, so that a head never waits for a body.
pub(crate) async fn first_piece<B: Body<Data = Bytes> + Unpin>(pieces: &mut Pieces<B>) -> Result<Piece, Cut> {
    match tokio::time::timeout(super::framing::WAIT_FOR_FIRST, pieces.next()).await {
        Ok(piece) => Ok(piece?.unwrap_or(Piece { end: true, ..Piece::default() })),
        Err(_) => Ok(Piece::default()),
    }
}
