//! Carries what was permitted: the request's messages to the register, its answer's messages back.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming as HyperBody;
use prost::Message;
use tokio::time::Instant;
use tonic::Streaming;
use trave_proto::conversation::{Topic, Verified};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::{Content, Ending};
use trave_proto::schema::transport::{ExchangeRequest, RegisterReached, exchange_response::Answer};
use trave_proto::signature::{Request, Response};

use super::super::Times;
use super::super::framing::{Bounds, Cut, Framing, Pieces};
use super::super::head::{self, Kind, Length};
use super::super::incoming::Incoming;
use super::super::outgoing::{Outgoing, content_of, first_piece};
use super::super::patience::{Over, Patience};
use super::super::permission;
use super::super::register::malformed;
use super::{Cleared, Said, Wire, Wired, next_envelope, peer_gone, refuse};
use crate::relayed::{Leaving, Relay, Relayed};

/// Calls the register and carries both directions until the answer is complete.
pub(super) async fn converse(
    first: &Cleared,
    incoming: Incoming<'_>,
    outgoing: Outgoing<'_>,
    requests: &mut Streaming<ExchangeRequest>,
    wired: Wired<'_>,
) -> Result<(), Fault> {
    let wire = wired.wire;
    let kind = first.kind();
    let (relay, body) = match (first.whole_body(), kind) {
        (Some(body), Kind::Rest) => (None, Relayed::counted(body)),
        (Some(body), Kind::Grpc) => (None, Relayed::whole(body, None, None)),
        (None, _) => {
            let (relay, body) = Relayed::new();
            (Some(relay), body)
        }
    };
    let (mut request, timeout) = first.request(body)?;
    let length = || Length::said(kind, request.headers()).map_err(malformed);
    if let Some(body) = first.whole_body() {
        length()?.take(body, true).map_err(malformed)?;
    }
    let length = length()?;
    let (now, Times { longest, idle, bounds, .. }) = (Instant::now(), outgoing.exchanges.times());
    let until = now + timeout.unwrap_or(longest).min(longest);
    let patience = Patience { answer: Some(first.service.time_out), idle, until };
    let progress = Arc::clone(&outgoing.progress);
    let over = pin!(patience.over(&progress));
    let connected = until.min(now + first.service.time_out);
    let channel = tokio::time::timeout_at(connected, first.service.connection(connected))
        .await
        .map_err(|_| too_late(RegisterReached::No))??;
    let topic = Topic::of(first.logged.get().manifest());
    // Record and connection took their time: the register is not called on what was withdrawn meanwhile.
    permission::still(outgoing.exchanges, &first.permitted, &topic)?;
    if timeout.is_some() {
        let remaining = head::grpc_timeout(until.saturating_duration_since(Instant::now()));
        if let Ok(value) = HeaderValue::from_str(&remaining) {
            request.headers_mut().insert(head::GRPC_TIMEOUT, value);
        }
    }
    tracing::debug!(exchange = %first.logged.get().manifest().exchange, grant = first.permitted.grant().id(), "calling the register");
    let withdrawn = pin!(permission::withdrawn(outgoing.exchanges, &first.permitted, &topic));
    let asking = pin!(forward(first, incoming, requests, Forwarding { kind, relay, length }));
    let answering = pin!(async {
        // Its place on the connection is held to the end of the answer.
        let asked = first.crossing.as_ref().map(|_| request.headers().clone());
        let (response, _held) = first.service.call(channel, request, until).await?;
        let response = match first.crossing.as_ref().zip(asked) {
            Some((crossing, asked)) => {
                crossing.answered(&asked, first.logged.get().manifest().exchange, response).await?
            }
            None => response,
        };
        answer((kind, bounds), response, outgoing, wired).await
    });
    let ended = pin!(async {
        tokio::select! {
            over = over => Ended::Over(over),
            fault = withdrawn => Ended::Withdrawn(fault),
        }
    });
    both(asking, answering, ended, wire).await
}

/// Why an exchange ends before its answer is complete, though neither side broke it off.
enum Ended {
    Over(Over),
    /// No grant allows it any more.
    Withdrawn(Fault),
}

/// Runs both directions until the answer is complete, one of them fails, or time is up.
async fn both(
    mut asking: std::pin::Pin<&mut impl Future<Output = Result<(), Fault>>>,
    mut answering: std::pin::Pin<&mut impl Future<Output = Result<(), Fault>>>,
    mut broken_off: std::pin::Pin<&mut impl Future<Output = Ended>>,
    wire: &Wire,
) -> Result<(), Fault> {
    let mut asked = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut answering => return ended,
            ended = &mut asking, if !asked => {
                ended.map_err(|fault| fault.with_register(RegisterReached::Unknown))?;
                asked = true;
            }
            () = wire.closed() => return Err(peer_gone().with_register(RegisterReached::Unknown)),
            ended = &mut broken_off => return Err(match ended {
                Ended::Over(Over::Idle) => nothing_said().with_register(RegisterReached::Unknown),
                Ended::Over(Over::Answer | Over::All) => too_late(RegisterReached::Unknown),
                Ended::Withdrawn(fault) => fault.with_register(RegisterReached::Unknown),
            }),
        }
    }
}

fn nothing_said() -> Fault {
    refuse(
        Reason::DeadlineExceeded,
        "nothing was said either way for as long as an exchange may be idle here",
    )
}

fn too_late(reached: RegisterReached) -> Fault {
    let why = "the register did not answer within the time that the call or the service allows";
    Fault::before_call(Reason::DeadlineExceeded, Side::Register, why).with_register(reached)
}

/// Where the request's messages go.
struct Forwarding {
    kind: Kind,
    /// None where the first message was the whole request.
    relay: Option<Relay>,
    length: Length,
}

/// Hands the request's messages to the register, each when it is verified and logged.
async fn forward(
    first: &Cleared,
    mut incoming: Incoming<'_>,
    requests: &mut Streaming<ExchangeRequest>,
    mut to: Forwarding,
) -> Result<(), Fault> {
    let mut ended = to.hand_on(first.logged.get()).await?;
    let topic = Topic::of(first.logged.get().manifest());
    while !ended {
        let envelope = next_envelope(requests.message().await)?.ok_or_else(peer_gone)?;
        permission::still(incoming.exchanges, &first.permitted, &topic)?;
        let logged = incoming.hear::<Request>(envelope).await?;
        ended = to.hand_on(logged.get()).await?;
    }
    Ok(())
}

impl Forwarding {
    /// Hands one message to the register. True when it was the last, or when the register wants no more: its answer says
    /// why.
    async fn hand_on(&mut self, verified: &Verified<Request>) -> Result<bool, Fault> {
        let (content, ending) = (&verified.parts().content, verified.manifest().ending);
        let pieces = self.length.take(content.body.clone(), ending == Ending::End).map_err(malformed)?;
        let Some(relay) = &self.relay else { return Ok(true) };
        let trailers = content.trailers.as_ref().map(|trailers| head::read_trailers(self.kind, trailers));
        let trailers = trailers.transpose().map_err(malformed)?;
        for piece in pieces {
            if relay.data(piece).await.is_err() {
                return Ok(true);
            }
        }
        match (ending, trailers) {
            (Ending::End, Some(trailers)) => {
                let _ = relay.trailers(trailers).await;
                Ok(true)
            }
            (Ending::End, None) => {
                let _ = relay.end().await;
                Ok(true)
            }
            (Ending::Abort, _) => Err(peer_gone()),
            (Ending::Continue | Ending::Unspecified, _) => Ok(false),
        }
    }
}

/// Cuts the register's answer into messages, and sends each when its record is durable.
async fn answer(
    (kind, bounds): (Kind, Bounds),
    response: http::Response<HyperBody>,
    outgoing: Outgoing<'_>,
    wired: Wired<'_>,
) -> Result<(), Fault> {
    let (parts, mut body) = response.into_parts();
    head::check_fields(&parts.headers, Side::Register).map_err(after_call)?;
    let mut pieces = Pieces::new(&mut body, Framing::of(&parts.headers), bounds);
    let mut head: Option<Bytes> = Some(head::response_head(kind, &parts).encode_to_vec().into());
    loop {
        let piece = match &head {
            Some(_) => first_piece(&mut pieces).await.map(Some),
            None => pieces.next().await,
        };
        let cut = |cut: Cut| after_call(cut.fault(Side::Register, register_gone));
        let Some(piece) = piece.map_err(cut)? else { return Ok(()) };
        let (content, ending): (Content, Ending) = content_of(kind, piece, head.take());
        let saying = pin!(outgoing.say_durably::<Response>(content, ending));
        let logged = pieces.gather_while(saying).await.map_err(after_call)?;
        let answer = Answer::Envelope(logged.get().0.to_envelope());
        let last = ending == Ending::End;
        let leaving = last.then(|| {
            let (leaving, left) = Leaving::new();
            *wired.left = Some(left);
            leaving
        });
        let said = Said { answer, last, _leaving: leaving };
        if pieces.gather_while(pin!(wired.wire.send(Box::new(said)))).await.is_err() {
            return Err(peer_gone().with_register(RegisterReached::Yes));
        }
        if last {
            return Ok(());
        }
    }
}

fn register_gone() -> Fault {
    let why = "the register broke its answer off";
    Fault::before_call(Reason::ServiceFailed, Side::Register, why).with_register(RegisterReached::Yes)
}

fn after_call(fault: Fault) -> Fault {
    fault.with_register(RegisterReached::Yes)
}
