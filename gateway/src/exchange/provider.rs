//! The provider's side of an exchange: verify, authorise, log, call. The register hears nothing of what fails before.

mod carrying;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;
use trave_message_log::Logged;
use trave_proto::conversation::{Conversation, Topic, Verified};
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::identifier::{ExchangeId, XRoadClientId, XRoadServiceId};
use trave_proto::message::{CallerContext, Content, Ending};
use trave_proto::schema::message::Envelope;
use trave_proto::schema::transport::{ExchangeRequest, RegisterReached, exchange_response::Answer};
use trave_proto::signature::Request;
use trave_proto::verification::Authentic;

use super::Exchanges;
use super::asked::in_catalogue;
use super::head::Kind;
use super::incoming::{Incoming, Other, authenticate, check_shape, order_fault, persons, receive, recheck};
use super::outgoing::Outgoing;
use super::progress::Progress;
use super::register::{self, RegisterHead, malformed};
use super::replay::ReplayError;
use crate::access::{Circumstances, GrantedPlace, Permitted};
use crate::admission::Place;
use crate::bridge::Crossing;
use crate::recorder::{Evidence, Refused, Went};
use crate::relayed::{Leaving, Left, Relayed};
use crate::services::Service;
use crate::subject::Seeking;
use crate::transport::{Greeted, Session};
use crate::trust::Snapshot;

const SIDE: Side = Side::ProviderServer;
/// How long a peer may take to send the first message of an exchange that it opened.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a peer may take to take why there is no answer, or to end its request after the answer.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Where the answer's messages are put in. On the heap: a channel makes room for 32 of its items at once.
pub(crate) type Wire = mpsc::Sender<Box<Said>>;

/// What is said to the peer: one message, and whether it is the last.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) answer: Answer,
    pub(crate) last: bool,
    /// With the last.
    _leaving: Option<Leaving>,
}

/// Answers an exchange that a peer opened. This is the exchange's own task.
pub(crate) async fn run(
    exchanges: Arc<Exchanges>,
    session: Session,
    mut requests: Streaming<ExchangeRequest>,
    wire: Wire,
) {
    let begun = Instant::now();
    let mut stage = Stage::default();
    let ended = exchange_with(&exchanges, &session, &mut requests, &wire, &mut stage).await;
    let outcome = ended.as_ref().map_or_else(|fault| fault.reason.as_str(), |()| "answered");
    exchanges.metrics.ended("provider", outcome, begun.elapsed());
    let Err(fault) = ended else { return finish(&exchanges, stage, requests, wire).await };
    if stage.exchange.is_none() && fault.reason == Reason::Aborted {
        // The peer opened an exchange and asked nothing: there is nothing to refuse.
        return;
    }
    record(&exchanges, &session, &stage, &fault).await;
    let exchange = stage.exchange.map(|id| id.to_string()).unwrap_or_default();
    tracing::info!(exchange, peer = %session.server(), reason = fault.reason.as_str(), side = fault.side.as_str(),
        register_reached = fault.register_reached_str(), message = fault.message, "exchange failed");
    let said = Said { answer: Answer::Fault(fault.to_wire()), last: true, _leaving: None };
    // If the peer has gone, or reads nothing any more, the record says how the exchange ended here.
    let _ = tokio::time::timeout(LAST_WORD, wire.send(Box::new(said))).await;
}

/// An answer that was complete before the request was leaves a request without end, which is recorded. Else the request's
/// stream is read to its end: dropped instead, it would be reset, and what still comes on such streams ends the connection
/// in the end (RFC 9113, section 5.4.2).
async fn finish(exchanges: &Exchanges, stage: Stage, mut requests: Streaming<ExchangeRequest>, wire: Wire) {
    // The answer has ended, whatever becomes of the request.
    drop(wire);
    let mut complete = true;
    if let (Some(exchange), Some(progress)) = (stage.exchange, &stage.progress)
        && !progress.conversation().is_complete()
    {
        let why = "the answer was complete before the request was";
        let fault =
            Fault::before_call(Reason::Aborted, Side::Register, why).with_register(RegisterReached::Yes);
        let (sent, received) = progress.settled().await;
        exchanges.recorder.ended(exchange, &fault, (received, sent), stage.went()).await;
        complete = false;
    }
    if complete {
        let _ = tokio::time::timeout(LAST_WORD, requests.message()).await;
    }
    if let Some(left) = stage.left {
        left.taken().await;
    }
    drop((stage.place, stage.granted));
}

/// The way to the peer, and what tells that the last message was taken.
struct Wired<'a> {
    wire: &'a Wire,
    left: &'a mut Option<Left>,
}

/// How far an exchange came, for whoever records its end.
#[derive(Default)]
struct Stage {
    exchange: Option<ExchangeId>,
    /// Set when its values are known to be the catalogue's.
    topic: Option<Topic>,
    /// Set when the call may cross a bridge: where to.
    bridged_to: Option<XRoadServiceId>,
    /// Set when the first message is on its way to the log.
    progress: Option<Arc<Progress>>,
    /// Of the last of the answer.
    left: Option<Left>,
    /// Held until that was taken: among all exchanges, and among those of the grant.
    place: Option<Place>,
    granted: Option<GrantedPlace>,
}

impl Stage {
    fn went(&self) -> Went<'_> {
        self.bridged_to.as_ref().map_or(Went::NoFurther, Went::Beyond)
    }
}

async fn record(exchanges: &Exchanges, session: &Session, stage: &Stage, fault: &Fault) {
    let (sent, received) = match &stage.progress {
        Some(progress) => progress.settled().await,
        None => (0, 0),
    };
    match stage.exchange {
        Some(exchange) if received > 0 => {
            exchanges.recorder.ended(exchange, fault, (received, sent), stage.went()).await;
        }
        exchange => {
            let refused =
                Refused { exchange, fault, topic: stage.topic.as_ref(), peer: Some(session.server()) };
            exchanges.recorder.refused(refused).await;
        }
    }
}

async fn exchange_with(
    exchanges: &Exchanges,
    session: &Session,
    requests: &mut Streaming<ExchangeRequest>,
    wire: &Wire,
    stage: &mut Stage,
) -> Result<(), Fault> {
    let greeted = session
        .greeted()
        .ok_or_else(|| refuse(Reason::InvalidMessage, "an exchange came before the greeting"))?;
    let envelope = first_envelope(requests).await?;
    let _in_flight = exchanges.gauge.enter();
    let Admitted { conversation, verified, permitted, service, crossing, snapshot } =
        admit(exchanges, session, &greeted, envelope, stage)?;
    let progress = Progress::new(conversation);
    let evidence = Evidence {
        grant: Some(permitted.grant().leaf.clone()),
        group: permitted.group().cloned(),
        ..Evidence::of(&greeted.signer, snapshot.configuration.digest(), session.tls())
    };
    let mut seeking = service.subject.clone().map(Seeking::new);
    // Before anything of it is logged as taken: what is refused here, the register never saw.
    let persons = persons(exchanges, seeking.as_mut(), &verified)?;
    stage.progress = Some(Arc::clone(&progress));
    let enqueued = || progress.logged_received();
    let recording = (&evidence, service.keep, persons);
    let logged = exchanges.recorder.received(verified, recording, SIDE, enqueued).await?;
    let first = Cleared { logged, permitted, service: Arc::clone(&service), crossing };
    let other = || Other::asking(session, &greeted.signer);
    let outgoing = Outgoing {
        exchanges,
        progress: Arc::clone(&progress),
        side: SIDE,
        other: other(),
        keep: service.keep,
        permitted: Some(&first.permitted),
    };
    let incoming = Incoming {
        exchanges,
        progress: Arc::clone(&progress),
        side: SIDE,
        other: other(),
        keep: service.keep,
        seeking,
    };
    let wire = Wired { wire, left: &mut stage.left };
    carrying::converse(&first, incoming, outgoing, requests, wire).await
}

async fn first_envelope(requests: &mut Streaming<ExchangeRequest>) -> Result<Envelope, Fault> {
    let first = tokio::time::timeout(FIRST_MESSAGE, requests.message()).await;
    let first =
        first.map_err(|_| refuse(Reason::DeadlineExceeded, "the first message did not come in time"))?;
    next_envelope(first)?.ok_or_else(peer_gone)
}

/// What came from the peer: a message, the end of its stream, or something that is none.
fn next_envelope(message: Result<Option<ExchangeRequest>, tonic::Status>) -> Result<Option<Envelope>, Fault> {
    match message {
        Ok(message) => Ok(message.and_then(|request| request.envelope)),
        Err(status) if status.code() == tonic::Code::OutOfRange => {
            Err(refuse(Reason::TooLarge, "a message is larger than any may be on the wire"))
        }
        Err(status) if status.code() == tonic::Code::Internal => Err(refuse(
            Reason::InvalidMessage,
            format!("a message cannot be read: {}", plain(status.message())),
        )),
        Err(_) => Err(peer_gone()),
    }
}

/// An exchange whose first message is verified and permitted, and not yet logged.
struct Admitted {
    conversation: Conversation,
    verified: Verified<Request>,
    permitted: Permitted,
    service: Arc<Service>,
    /// Where the register is beyond a bridge.
    crossing: Option<Crossing>,
    /// Under which all this was decided.
    snapshot: Arc<Snapshot>,
}

/// What the register may be called with: verified, permitted and logged. There is no other way to [`Cleared::request`].
struct Cleared {
    logged: Logged<Verified<Request>>,
    permitted: Permitted,
    service: Arc<Service>,
    crossing: Option<Crossing>,
}

/// Verify, then authorise.
fn admit(
    exchanges: &Exchanges,
    session: &Session,
    greeted: &Greeted,
    envelope: Envelope,
    stage: &mut Stage,
) -> Result<Admitted, Fault> {
    let snapshot = exchanges.trust.valid(SIDE)?;
    let now = exchanges.clock.now();
    recheck(session.peer(), &snapshot, now, SIDE)?;
    let nonce =
        session.nonce(now).ok_or_else(|| refuse(Reason::Replayed, "the connection's nonce has expired"))?;
    exchanges.suspicion.check(session.server(), SIDE)?;
    let signed = receive::<Request>(envelope, SIDE)?;
    let authentic: Authentic<Request> = authenticate(exchanges, &greeted.signer, &snapshot, signed, SIDE)?;
    let exchange = authentic.manifest().exchange;
    stage.exchange = Some(exchange);
    let own = exchanges.own.party(nonce);
    let (conversation, verified) = Conversation::answer(authentic, own, greeted.party.clone(), now)
        .map_err(|error| order_fault(error, SIDE))?;
    check_shape(verified.manifest(), &verified.parts().content, SIDE)?;
    check_head(exchanges, &verified.parts().content)?;
    let topic = conversation.topic().clone();
    in_catalogue(&snapshot.configuration, &topic, SIDE)?;
    stage.topic = Some(topic.clone());
    let service = exchanges.service(&topic.service).ok_or_else(|| {
        let why =
            format!("{} is registered on this security server, which has no register for it", topic.service);
        refuse(Reason::UnknownService, why)
    })?;
    if service.is_grpc() != topic.method.is_some() {
        let why = format!("the register of {} does not speak as the catalogue says", topic.service);
        return Err(refuse(Reason::UnknownMethod, why));
    }
    let endpoint = register::endpoint(topic.method.as_ref(), verified.parts().content.head.as_ref())?;
    let asked = endpoint.as_ref().map(|endpoint| endpoint.method.clone()).unwrap_or_default();
    let circumstances = Circumstances { configuration: &snapshot.configuration, now };
    let mut permitted = exchanges.access.permit(&topic, endpoint, circumstances)?;
    stage.granted = permitted.take_place();
    let bridge = service.bridge();
    let crossing = bridge.map(|bridge| bridge.crossing(&topic.client, &asked)).transpose()?;
    stage.bridged_to = bridge.map(|bridge| bridge.service().clone());
    let conversation = conversation.bridged_to(stage.bridged_to.clone());
    let answering = &exchanges.answering;
    let counted = [
        answering.peer(session.server().as_str()),
        answering.client(topic.client.as_str()),
        answering.service(topic.service.as_str()),
    ];
    stage.place = Some(answering.enter(&counted)?);
    exchanges.replay.admit(exchange, session.server(), now).map_err(replay_fault)?;
    Ok(Admitted { conversation, verified, permitted, service, crossing, snapshot })
}

/// The client's security server may let through longer heads than this one does.
fn check_head(exchanges: &Exchanges, content: &Content) -> Result<(), Fault> {
    let most = exchanges.times().bounds.head;
    if content.head.as_ref().is_some_and(|head| head.len() > most) {
        let why = format!("the head of the request is longer than the {most} bytes that one may have here");
        return Err(refuse(Reason::TooLarge, why));
    }
    Ok(())
}

fn refuse(reason: Reason, why: impl Into<String>) -> Fault {
    Fault::before_call(reason, SIDE, why)
}

fn peer_gone() -> Fault {
    Fault::before_call(
        Reason::Aborted,
        Side::ClientServer,
        "the client's security server broke the exchange off",
    )
}

fn replay_fault(error: ReplayError) -> Fault {
    let reason = match error {
        ReplayError::Seen | ReplayError::Time => Reason::Replayed,
        ReplayError::Full => Reason::Overloaded,
    };
    refuse(reason, error.to_string())
}

impl Cleared {
    fn kind(&self) -> Kind {
        Kind::of(self.logged.get().manifest().method.as_ref())
    }

    /// The register's request: exactly what was permitted, with identities set by us alone.
    fn request(&self, body: Relayed) -> Result<(http::Request<Relayed>, Option<Duration>), Fault> {
        let (manifest, parts) = (self.logged.get().manifest(), self.logged.get().parts());
        let head = RegisterHead::read(&manifest.method, parts.content.head.as_ref(), &self.service)?;
        let context = match &parts.caller_context {
            Some((encoded, _)) => {
                CallerContext::decode(encoded).map_err(|_| malformed("its caller context"))?
            }
            None => CallerContext::default(),
        };
        let (scheme, address) = self.service.origin();
        let uri = http::Uri::builder().scheme(scheme).authority(address).path_and_query(head.target).build();
        let mut request = http::Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri.map_err(|_| malformed("its path"))?;
        *request.headers_mut() = head.headers;
        if let Some(crossing) = &self.crossing {
            request.headers_mut().extend(crossing.headers(&context, manifest.exchange)?);
            return Ok((request, head.timeout));
        }
        let exchange = manifest.exchange.to_string();
        let bridged_from = manifest.bridged_from.as_ref().map(XRoadClientId::as_str).unwrap_or_default();
        for (name, value) in [
            ("te", "trailers"),
            ("x-road-client", manifest.client.as_str()),
            ("x-road-service", manifest.service.as_str()),
            ("x-road-id", context.message_id.as_str()),
            ("x-road-userid", context.user.as_str()),
            ("x-road-issue", context.issue.as_str()),
            ("x-road-represented-party", context.represented_party.as_str()),
            ("trave-purpose", manifest.purpose.as_str()),
            ("trave-legal-basis", manifest.legal_basis.as_str()),
            ("trave-exchange-id", exchange.as_str()),
            ("trave-bridged-from", bridged_from),
        ] {
            if value.is_empty() {
                continue;
            }
            let value =
                HeaderValue::from_bytes(value.as_bytes()).map_err(|_| malformed("its caller context"))?;
            request.headers_mut().insert(http::HeaderName::from_static(name), value);
        }
        if self.kind() == Kind::Rest {
            request.headers_mut().insert(
                "x-road-request-id",
                HeaderValue::from_str(&exchange).map_err(|_| malformed("its id"))?,
            );
        }
        Ok((request, head.timeout))
    }

    /// The request's body where its first message is all of it: then it leaves together with its head.
    fn whole_body(&self) -> Option<Bytes> {
        let verified = self.logged.get();
        let content = &verified.parts().content;
        let whole = verified.manifest().ending == Ending::End && content.trailers.is_none();
        whole.then(|| content.body.clone())
    }
}
