//! The client's side of an exchange: an agency system asks; this server signs, logs and sends, and gives out the answer
//! only when it is verified and logged.

mod answering;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming as HyperBody;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use trave_host::listen::Refusal;
use trave_message_log::Pending;
use trave_proto::conversation::{Conversation, Topic};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::global_configuration::SecurityServerEntry;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::message::Ending;
use trave_proto::schema::transport::{ExchangeRequest, RegisterReached};
use trave_proto::signature::Request;

use super::asked::{Asked, Caller, deadline, in_catalogue};
use super::framing::{Framing, Pieces};
use super::head::{self, Declared, Kind, Length};
use super::incoming::{Incoming, Other};
use super::outgoing::{Outgoing, content_of, first_piece};
use super::patience::{Over, Patience};
use super::progress::Progress;
use super::replay::ReplayError;
use super::{Exchanges, reply};
use crate::admission::Place;
use crate::pool::Taken;
use crate::recorder::{Refused, log_fault};
use crate::relayed::{Left, Relay, Relayed};
use crate::transport::PeerConnection;
use answering::Answering;

/// Messages that wait on the wire's stream; with the one in hand that is two.
const ON_THE_WIRE: usize = 1;
const SIDE: Side = Side::ClientServer;
/// How long a caller may take to read why its call failed.
const LAST_WORD: Duration = Duration::from_secs(10);

/// A call as it came in at a door.
pub(crate) struct Call {
    pub(crate) id: ExchangeId,
    pub(crate) kind: Kind,
    /// Why the head, which was not a clear one, is not here.
    pub(crate) refused: Option<Refusal>,
    pub(crate) caller: Caller,
    pub(crate) parts: http::request::Parts,
    pub(crate) body: HyperBody,
    pub(crate) reply: oneshot::Sender<http::Response<Relayed>>,
}

/// Answers a call. This is the exchange's own task: if the caller goes away, that is an event here.
pub(crate) async fn run(exchanges: Arc<Exchanges>, mut call: Call) {
    let (begun, exchange) = (Instant::now(), call.id);
    let mut stage = Stage::default();
    let ended = exchange_with(&exchanges, &mut call, &mut stage).await;
    let outcome = ended.as_ref().map_or_else(|fault| fault.reason.as_str(), |()| "answered");
    exchanges.metrics.ended("client", outcome, begun.elapsed());
    let Err(fault) = ended else { return finish(&exchanges, exchange, stage).await };
    record(&exchanges, exchange, &stage, &fault).await;
    tracing::info!(%exchange, reason = fault.reason.as_str(), side = fault.side.as_str(),
        register_reached = fault.register_reached_str(), message = fault.message, "exchange failed");
    match stage.relay {
        // The head went out before: the error follows as trailers.
        Some(relay) if call.kind == Kind::Grpc => {
            let trailers = relay.trailers(reply::trailers(&fault, Some(exchange)));
            // Whoever reads nothing any more does not hold a place for ever.
            let _ = tokio::time::timeout(LAST_WORD, trailers).await;
        }
        // HTTP has no other word for it than to break off: what has no end is never taken for the whole.
        Some(relay) => drop(relay),
        None => {
            let mut refusal = reply::refusal(call.kind, &call.parts.headers, &fault, Some(exchange));
            refusal.headers_mut().extend(stage.labels);
            drop(call.reply.send(refusal));
        }
    }
}

/// How far an exchange came, for whoever tells its end.
#[derive(Default)]
struct Stage {
    topic: Option<Topic>,
    progress: Option<Arc<Progress>>,
    relay: Option<Relay>,
    /// What the head of any answer says.
    labels: http::HeaderMap,
    /// Of an answer that went out whole.
    left: Option<Left>,
    /// Held until the last of the answer was taken.
    place: Option<Place>,
}

/// After a complete answer: its place is free when the caller has taken it. An answer that was complete before the request
/// was leaves a request without end, which is recorded.
async fn finish(exchanges: &Exchanges, exchange: ExchangeId, stage: Stage) {
    if let Some(progress) = &stage.progress
        && !progress.conversation().is_complete()
    {
        let why = "the answer was complete before the request was";
        let fault =
            Fault::before_call(Reason::Aborted, Side::Register, why).with_register(RegisterReached::Yes);
        exchanges.recorder.ended(exchange, &fault, progress.settled().await).await;
    }
    if let Some(relay) = stage.relay {
        relay.taken().await;
    }
    if let Some(left) = stage.left {
        left.taken().await;
    }
    drop(stage.place);
}

/// Everything refused before the first message was signed is a refusal; after it, an end of the exchange.
async fn record(exchanges: &Exchanges, exchange: ExchangeId, stage: &Stage, fault: &Fault) {
    let counts = match &stage.progress {
        Some(progress) => progress.settled().await,
        None => (0, 0),
    };
    if counts.0 > 0 {
        exchanges.recorder.ended(exchange, fault, counts).await;
    } else {
        let topic = stage.topic.as_ref();
        exchanges.recorder.refused(Refused { exchange: Some(exchange), fault, topic, peer: None }).await;
    }
}

async fn exchange_with(exchanges: &Exchanges, call: &mut Call, stage: &mut Stage) -> Result<(), Fault> {
    let id = call.id;
    stage.labels = reply::labels(call.kind, None, "", id);
    check_head(call.refused)?;
    let declared = Declared::read(&call.parts.headers)?;
    let mut context = declared.context.clone();
    let Asked { topic, mut head, security_server } = Asked::of(&exchanges.routes, id, call, declared)?;
    let deadline = deadline(exchanges.longest, call)?;
    in_catalogue(&exchanges.trust.valid(SIDE)?.configuration, &topic, SIDE)?;
    stage.topic = Some(topic.clone());
    if context.message_id.is_empty() && call.kind == Kind::Rest {
        context.message_id = id.to_string();
    }
    stage.labels = reply::labels(call.kind, Some(&topic), &context.message_id, id);
    let asking = &exchanges.asking;
    let counted = [asking.client(topic.client.as_str()), asking.service(topic.service.as_str())];
    stage.place = Some(asking.enter(&counted)?);
    let _in_flight = exchanges.gauge.enter();
    // An id of our own counts as seen: no peer can bring it back as one of its exchanges.
    exchanges.replay.admit(id, &exchanges.own.server, exchanges.clock.now()).map_err(id_fault)?;
    let connection = connection(exchanges, &topic, security_server.as_ref(), deadline).await?;
    let conversation = Conversation::ask(topic, connection.own.clone(), connection.greeted.party.clone());
    let progress = Progress::new(conversation);
    stage.progress = Some(Arc::clone(&progress));
    let until = deadline.unwrap_or_else(|| Instant::now() + exchanges.longest);
    let outgoing = Outgoing {
        exchanges,
        progress: Arc::clone(&progress),
        side: SIDE,
        other: Other::answering(&connection),
        keep: call.caller.keep,
        permitted: None,
    };
    let incoming = Incoming {
        exchanges,
        progress: Arc::clone(&progress),
        side: SIDE,
        other: Other::answering(&connection),
        keep: call.caller.keep,
    };
    let (wire, requests) = mpsc::channel(ON_THE_WIRE);
    if deadline.is_some() {
        head::set_deadline(&mut head, until.saturating_duration_since(Instant::now()));
    }
    let first = First { head: head.encode_to_vec().into(), context: context.encode() };
    let asking = Asking { kind: call.kind, framing: Framing::of(&call.parts.headers), first, wire };
    let sending = pin!(asking.send(outgoing, &mut call.body));
    let Stage { relay, left, labels, .. } = stage;
    let mut answer = Answering {
        kind: call.kind,
        labels,
        reply: &mut call.reply,
        relay,
        left,
        length: Length::of(0),
        bodiless: call.parts.method == http::Method::HEAD,
    };
    let receiving = pin!(answer.receive(incoming, &connection, requests));
    let patience = Patience { answer: None, idle: exchanges.idle, until };
    let over = pin!(patience.over(&progress));
    let ended = both(sending, receiving, over).await;
    ended.map_err(|fault| with_what_is_known(fault, &progress))
}

/// What could be read in two ways was never read.
fn check_head(refused: Option<Refusal>) -> Result<(), Fault> {
    let (reason, why) = match refused {
        None => return Ok(()),
        Some(Refusal::Ambiguous(why)) => (Reason::InvalidMessage, why),
        Some(Refusal::TooLarge) => (Reason::TooLarge, "the head of the request is longer than any may be"),
    };
    Err(Fault::before_call(reason, Side::Client, why))
}

fn id_fault(error: ReplayError) -> Fault {
    Fault::before_call(Reason::Overloaded, SIDE, error.to_string())
}

/// Runs both directions until the answer is complete, one of them fails, or time is up.
async fn both(
    mut sending: std::pin::Pin<&mut impl Future<Output = Result<(), Fault>>>,
    mut receiving: std::pin::Pin<&mut impl Future<Output = Result<(), Fault>>>,
    mut over: std::pin::Pin<&mut impl Future<Output = Over>>,
) -> Result<(), Fault> {
    let mut sent = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut receiving => return ended,
            ended = &mut sending, if !sent => {
                ended?;
                sent = true;
            }
            over = &mut over => {
                let why = match over {
                    Over::Idle => "nothing was said either way for as long as an exchange may be idle here",
                    Over::Answer | Over::All => "the deadline of the call passed before its answer was complete",
                };
                return Err(Fault::before_call(Reason::DeadlineExceeded, SIDE, why).with_register(RegisterReached::Unknown));
            }
        }
    }
}

/// What was seen here outweighs what anybody says: after a signed answer the register was reached, whoever failed then;
/// and a fault of this side's after something was sent cannot say that it was not.
fn with_what_is_known(fault: Fault, progress: &Progress) -> Fault {
    let (sent, received) = progress.counts();
    match (fault.register_reached, fault.side) {
        _ if received > 0 => fault.with_register(RegisterReached::Yes),
        // Nothing was signed that could have reached it.
        _ if sent == 0 => fault.with_register(RegisterReached::No),
        (RegisterReached::No, SIDE | Side::Client) if sent > 0 => {
            fault.with_register(RegisterReached::Unknown)
        }
        _ => fault,
    }
}

/// A connection to a security server that offers the service.
async fn connection(
    exchanges: &Exchanges,
    topic: &Topic,
    only: Option<&ServerId>,
    deadline: Option<Instant>,
) -> Result<Taken<Arc<PeerConnection>>, Fault> {
    let snapshot = exchanges.trust.valid(SIDE)?;
    let own = snapshot.configuration.hosts(&exchanges.own.server, &topic.client);
    if !own {
        let why =
            format!("the global configuration does not register {} on this security server", topic.client);
        return Err(Fault::before_call(Reason::SignerNotAllowed, SIDE, why));
    }
    let until = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(20));
    // One that accepts connections and never greets leaves time for the next.
    let share = || until.min(Instant::now() + Duration::from_secs(8));
    let mut last = None;
    let wanted = |server: &&SecurityServerEntry| is_wanted(server, only);
    for server in snapshot.configuration.servers_of(&topic.service.subsystem()).filter(wanted) {
        match tokio::time::timeout_at(share(), exchanges.peers.connection(server)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = Some(error.fault(SIDE)),
            Err(_) => {
                let why = format!("the security server {} did not answer in time", server.id());
                last = Some(Fault::before_call(Reason::NetworkError, SIDE, why));
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        if let Some(only) = only {
            let why = format!("the security server {only} does not offer {}", topic.service);
            return Fault::before_call(Reason::InvalidSecurityServer, Side::Client, why);
        }
        let why = format!("no security server offers {}", topic.service);
        Fault::before_call(Reason::UnknownMember, SIDE, why)
    }))
}

/// Whether a call may go to this server: not if it is suspended, and if the caller names one, to that one alone.
fn is_wanted(server: &SecurityServerEntry, only: Option<&ServerId>) -> bool {
    !server.is_suspended() && only.is_none_or(|only| server.id() == only)
}

/// What goes with the first message of a request.
struct First {
    head: bytes::Bytes,
    context: bytes::Bytes,
}

/// The request's direction.
struct Asking {
    kind: Kind,
    framing: Framing,
    first: First,
    wire: mpsc::Sender<ExchangeRequest>,
}

impl Asking {
    /// Cuts the caller's body into messages, and sends each when it is signed and in the log's queue.
    async fn send(self, outgoing: Outgoing<'_>, body: &mut HyperBody) -> Result<(), Fault> {
        let mut pieces = Pieces::new(body, self.framing, outgoing.exchanges.bounds);
        let mut first = Some(self.first);
        let mut last: Option<Pending<_>> = None;
        loop {
            if let Some(last) = last.take() {
                // At most two messages of a direction are on their way to the disk.
                pieces.gather_while(last).await.map_err(|error| log_fault(&error, SIDE))?;
            }
            let piece = match &first {
                Some(_) => first_piece(&mut pieces).await.map(Some),
                None => pieces.next().await,
            };
            let Some(piece) = piece.map_err(|cut| cut.fault(Side::Client, caller_gone))? else {
                return Ok(());
            };
            let (head, context) = first.take().map(|first| (first.head, first.context)).unzip();
            let (mut content, ending) = content_of(self.kind, piece, head);
            if self.kind == Kind::Grpc {
                // Trailers of a request are not part of it.
                content.trailers = None;
            }
            let enqueued = pieces.gather_while(outgoing.say::<Request>(content, context, ending)).await?;
            last = Some(enqueued.durable);
            let request = ExchangeRequest { envelope: Some(enqueued.envelope) };
            if pieces.gather_while(self.wire.send(request)).await.is_err() {
                // The other side has ended the exchange; its answer says why.
                return std::future::pending().await;
            }
            if ending == Ending::End {
                return Ok(());
            }
        }
    }
}

fn caller_gone() -> Fault {
    Fault::before_call(
        Reason::Aborted,
        Side::Client,
        "the caller broke the call off, or took nothing of its answer for too long",
    )
}
