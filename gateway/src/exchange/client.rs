//! The client's side of an exchange: an agency system asks; this server signs, logs and sends, and gives out the answer
//! only when it is verified and logged.

mod answering;
mod elsewhere;
mod in_hand;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use trave_host::listen::Refusal;
use trave_message_log::Pending;
use trave_proto::conversation::{Conversation, Topic};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{CallerContext, Ending};
use trave_proto::schema::message::RequestHead;
use trave_proto::schema::transport::{ExchangeRequest, RegisterReached};
use trave_proto::signature::Request;

use super::asked::{Asked, Caller, deadline, in_catalogue};
use super::framing::Framing;
use super::head::{self, Declared, Kind, Length};
use super::incoming::{Incoming, Other};
use super::outgoing::{Outgoing, content_of};
use super::patience::{Over, Patience};
use super::progress::Progress;
use super::request_hash::Heard;
use super::{Exchanges, reply};
use crate::admission::Place;
use crate::config::KeepContent;
use crate::recorder::{Refused, Went, log_fault};
use crate::relayed::{Left, Relay, Relayed};
use crate::transport::PeerConnection;
use answering::Answering;
use elsewhere::Candidates;
use in_hand::{InHand, Kept};

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
    pub(crate) body: Heard,
    pub(crate) reply: oneshot::Sender<http::Response<Relayed>>,
}

/// Answers a call. This is the exchange's own task: if the caller goes away, that is an event here.
pub(crate) async fn run(exchanges: Arc<Exchanges>, mut call: Call) {
    let begun = Instant::now();
    let mut stage = Stage::of(call.id);
    let ended = exchange_with(&exchanges, &mut call, &mut stage).await;
    let outcome = ended.as_ref().map_or_else(|fault| fault.reason.as_str(), |()| "answered");
    exchanges.metrics.ended("client", outcome, begun.elapsed());
    let Err(fault) = ended else { return finish(&exchanges, stage).await };
    record(&exchanges, &stage, &fault).await;
    let exchange = stage.exchange;
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
            let (headers, bridge) = (&call.parts.headers, call.caller.bridge.as_deref());
            let mut refusal = reply::refusal(call.kind, headers, &fault, Some(exchange), bridge);
            refusal.headers_mut().extend(stage.labels);
            drop(call.reply.send(refusal));
        }
    }
}

/// How far an exchange came, for whoever tells its end.
struct Stage {
    /// The exchange that the call is now: where it is made again elsewhere, that is another one.
    exchange: ExchangeId,
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

impl Stage {
    fn of(exchange: ExchangeId) -> Self {
        let labels = http::HeaderMap::new();
        Self { exchange, topic: None, progress: None, relay: None, labels, left: None, place: None }
    }
}

/// After a complete answer: its place is free when the caller has taken it. An answer that was complete before the request
/// was leaves a request without end, which is recorded.
async fn finish(exchanges: &Exchanges, stage: Stage) {
    if let Some(progress) = &stage.progress
        && !progress.conversation().is_complete()
    {
        let why = "the answer was complete before the request was";
        let fault =
            Fault::before_call(Reason::Aborted, Side::Register, why).with_register(RegisterReached::Yes);
        exchanges.recorder.ended(stage.exchange, &fault, progress.settled().await, Went::NoFurther).await;
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
async fn record(exchanges: &Exchanges, stage: &Stage, fault: &Fault) {
    let counts = match &stage.progress {
        Some(progress) => progress.settled().await,
        None => (0, 0),
    };
    if counts.0 > 0 {
        exchanges.recorder.ended(stage.exchange, fault, counts, Went::NoFurther).await;
    } else {
        let (exchange, topic) = (Some(stage.exchange), stage.topic.as_ref());
        exchanges.recorder.refused(Refused { exchange, fault, topic, peer: None }).await;
    }
}

async fn exchange_with(exchanges: &Exchanges, call: &mut Call, stage: &mut Stage) -> Result<(), Fault> {
    let id = call.id;
    stage.labels = reply::labels(call.kind, None, "", id);
    check_head(call.refused)?;
    let declared = match call.caller.bridge {
        None => Declared::read(&call.parts.headers)?,
        Some(_) => Declared::read_at_bridge(&call.parts.headers)?,
    };
    let mut context = declared.context.clone();
    let Asked { topic, head, security_server } =
        Asked::of(&exchanges.offers.load().routes, id, call, declared)?;
    let times = exchanges.times();
    let deadline = deadline(times.longest, call)?;
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
    admit(exchanges, id)?;
    let question = Question {
        exchanges,
        kind: call.kind,
        keep: call.caller.keep,
        bodiless: call.parts.method == http::Method::HEAD,
        topic,
        head,
        context,
        deadline,
        until: deadline.unwrap_or_else(|| Instant::now() + times.longest),
        idle: times.idle,
        kept: Kept::new(Arc::clone(&exchanges.kept)),
    };
    let request = InHand::new(&mut call.body, Framing::of(&call.parts.headers), times.bounds);
    question.ask(Candidates::new(security_server), request, &mut call.reply, stage).await
}

/// An id of our own counts as seen: no peer can bring it back as one of its exchanges.
fn admit(exchanges: &Exchanges, id: ExchangeId) -> Result<(), Fault> {
    let admitted = exchanges.replay.admit(id, &exchanges.own.server, exchanges.clock.now());
    admitted.map_err(|error| Fault::before_call(Reason::Overloaded, SIDE, error.to_string()))
}

/// A call that may be made, of whichever security server takes it up.
struct Question<'a> {
    exchanges: &'a Exchanges,
    kind: Kind,
    keep: KeepContent,
    /// Whether its answer has no body, whatever its head says.
    bodiless: bool,
    topic: Topic,
    head: RequestHead,
    context: CallerContext,
    /// The caller's.
    deadline: Option<Instant>,
    until: Instant,
    /// From one message to the next.
    idle: Duration,
    kept: Kept,
}

/// Where the head of an answer goes.
type Reply = oneshot::Sender<http::Response<Relayed>>;

impl Question<'_> {
    /// Asks one security server; another one where the first did not take the call up.
    async fn ask(
        mut self,
        mut candidates: Candidates,
        mut request: InHand<&mut Heard>,
        reply: &mut Reply,
        stage: &mut Stage,
    ) -> Result<(), Fault> {
        let exchanges = self.exchanges;
        let mut connection = candidates.connection(exchanges, &self.topic, self.deadline).await?;
        loop {
            let ended = self.attempt(&connection, &mut request, reply, stage).await;
            let verified = stage.progress.as_ref().is_none_or(|progress| progress.has_verified());
            elsewhere::judge(exchanges, &connection, &ended, verified);
            let Err(fault) = ended else { return Ok(()) };
            if !candidates.leaves_another(&fault, connection.peer.server())
                || !self.kept.is_whole()
                || Instant::now() >= self.until
            {
                return Err(fault);
            }
            // On the heap: what is rare does not make every exchange large.
            let next = Box::pin(candidates.connection(exchanges, &self.topic, self.deadline)).await;
            let Ok(next) = next else { return Err(fault) };
            connection = next;
            Box::pin(self.begin_again(stage, &fault)).await?;
        }
    }

    /// Makes another exchange of a call that was not taken up. It has an id of its own: its first message goes to another
    /// server, over a connection with another nonce, and two different first messages under one id would look as if this
    /// server had signed two stories of one exchange. The record of the first exchange's end names the second.
    async fn begin_again(&mut self, stage: &mut Stage, fault: &Fault) -> Result<(), Fault> {
        let (exchanges, before) = (self.exchanges, stage.exchange);
        let again = super::new_id(exchanges).and_then(|id| admit(exchanges, id).map(|()| id));
        let Ok(id) = again else { return Err(fault.clone()) };
        if let Some(progress) = stage.progress.take() {
            let counts = progress.settled().await;
            exchanges.recorder.ended(before, fault, counts, Went::OnAs(id)).await;
        }
        tracing::info!(exchange = %before, continued_as = %id, reason = fault.reason.as_str(), message = fault.message,
            "a call that was not taken up is made again");
        exchanges.metrics.made_again();
        self.topic.exchange = id;
        self.kept.again();
        stage.exchange = id;
        stage.topic = Some(self.topic.clone());
        stage.labels = reply::labels(self.kind, Some(&self.topic), &self.context.message_id, id);
        Ok(())
    }

    /// Asks the security server at the other end of `connection`.
    async fn attempt(
        &self,
        connection: &PeerConnection,
        request: &mut InHand<&mut Heard>,
        reply: &mut Reply,
        stage: &mut Stage,
    ) -> Result<(), Fault> {
        let exchanges = self.exchanges;
        let (own, other) = (connection.own.clone(), connection.greeted.party.clone());
        let progress = Progress::new(Conversation::ask(self.topic.clone(), own, other));
        stage.progress = Some(Arc::clone(&progress));
        let outgoing = Outgoing {
            exchanges,
            progress: Arc::clone(&progress),
            side: SIDE,
            other: Other::answering(connection),
            keep: self.keep,
            permitted: None,
        };
        let incoming = Incoming {
            exchanges,
            progress: Arc::clone(&progress),
            side: SIDE,
            other: Other::answering(connection),
            keep: self.keep,
            seeking: None,
        };
        let (wire, requests) = mpsc::channel(ON_THE_WIRE);
        let asking = Asking { kind: self.kind, kept: &self.kept, first: self.first(), wire };
        let sending = pin!(asking.send(outgoing, request));
        let Stage { relay, left, labels, .. } = stage;
        let mut answer = Answering {
            kind: self.kind,
            labels,
            kept: &self.kept,
            reply,
            relay,
            left,
            length: Length::of(0),
            bodiless: self.bodiless,
        };
        let receiving = pin!(answer.receive(incoming, connection, requests));
        let patience = Patience { answer: None, idle: self.idle, until: self.until };
        let over = pin!(patience.over(&progress));
        let ended = both(sending, receiving, over).await;
        ended.map_err(|fault| with_what_is_known(fault, &progress))
    }

    /// What goes with the first message of the request.
    fn first(&self) -> First {
        let head = match self.deadline {
            None => self.head.encode_to_vec(),
            Some(_) => {
                let mut head = self.head.clone();
                head::set_deadline(&mut head, self.until.saturating_duration_since(Instant::now()));
                head.encode_to_vec()
            }
        };
        First { head: head.into(), context: self.context.encode() }
    }
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

/// What goes with the first message of a request.
struct First {
    head: bytes::Bytes,
    context: bytes::Bytes,
}

/// The request's direction.
struct Asking<'a> {
    kind: Kind,
    kept: &'a Kept,
    first: First,
    /// On the heap: a channel makes room for 32 of its items at once.
    wire: mpsc::Sender<Box<ExchangeRequest>>,
}

impl Asking<'_> {
    /// Makes the caller's body into messages, and sends each when it is signed and in the log's queue.
    async fn send(self, outgoing: Outgoing<'_>, request: &mut InHand<&mut Heard>) -> Result<(), Fault> {
        let mut first = Some(self.first);
        let mut last: Option<Pending<_>> = None;
        loop {
            if let Some(last) = last.take() {
                // At most two messages of a direction are on their way to the disk.
                request.gather_while(pin!(last)).await.map_err(|error| log_fault(&error, SIDE))?;
            }
            let piece = request.next(self.kept).await.map_err(|cut| cut.fault(Side::Client, caller_gone))?;
            let Some(piece) = piece else { return Ok(()) };
            let (head, context) = first.take().map(|first| (first.head, first.context)).unzip();
            let (mut content, ending) = content_of(self.kind, piece, head);
            if self.kind == Kind::Grpc {
                // Trailers of a request are not part of it.
                content.trailers = None;
            }
            let saying = pin!(outgoing.say::<Request>(content, context, ending));
            let enqueued = request.gather_while(saying).await?;
            last = Some(enqueued.durable);
            let message = Box::new(ExchangeRequest { envelope: Some(enqueued.envelope) });
            if request.gather_while(pin!(self.wire.send(message))).await.is_err() {
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
