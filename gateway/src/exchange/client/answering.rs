//! The answer's direction at the client: each message is verified and logged before the caller gets it.

use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;
use trave_host::client::not_taken_up;
use trave_message_log::Logged;
use trave_proto::conversation::Verified;
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::message::Ending;
use trave_proto::schema::transport::{
    ExchangeRequest, ExchangeResponse, RegisterReached, exchange_response::Answer,
};
use trave_proto::signature::Response;

use super::super::head::{self, Kind, Length};
use super::super::incoming::Incoming;
use super::in_hand::Kept;
use super::{LAST_WORD, caller_gone};
use crate::relayed::{Leaving, Left, Relay, Relayed};
use crate::transport::PeerConnection;

const SIDE: Side = Side::ClientServer;
/// Says to the caller that the answer is from beyond a bridge: of which service there.
const BRIDGED_TO: HeaderName = HeaderName::from_static("trave-bridged-to");

/// The answer's direction.
pub(super) struct Answering<'a> {
    pub(super) kind: Kind,
    pub(super) labels: &'a http::HeaderMap,
    pub(super) kept: &'a Kept,
    pub(super) reply: &'a mut oneshot::Sender<http::Response<Relayed>>,
    pub(super) relay: &'a mut Option<Relay>,
    pub(super) left: &'a mut Option<Left>,
    /// What is still to come of the body.
    pub(super) length: Length,
    /// Whether the answer has no body, whatever its head says.
    pub(super) bodiless: bool,
}

impl Answering<'_> {
    /// Receives the answer, message by message, and gives each out when it is verified and logged.
    pub(super) async fn receive(
        &mut self,
        mut incoming: Incoming<'_>,
        connection: &PeerConnection,
        mut requests: mpsc::Receiver<Box<ExchangeRequest>>,
    ) -> Result<(), Fault> {
        // The stream is opened when there is something to say: its head and the first message are one write, and one
        // whose first message is the last is opened and ended at once.
        let first = tokio::select! {
            first = requests.recv() => first,
            () = self.reply.closed() => return Err(caller_gone()),
        };
        // Without a first message the request's direction has failed, and says how.
        let Some(first) = first else { return std::future::pending().await };
        let said = tokio_stream::once(first).chain(ReceiverStream::new(requests)).map(|said| *said);
        let mut client = connection.client();
        let asked = tokio::select! {
            asked = client.exchange(said) => asked,
            () = self.reply.closed() => return Err(caller_gone()),
        };
        let mut answers = asked.map_err(|status| not_opened(&status))?.into_inner();
        loop {
            let answer: Option<ExchangeResponse> = tokio::select! {
                answer = answers.message() => answer.map_err(|status| broken(&status))?,
                () = gone(self.reply, self.relay.as_ref()) => return Err(caller_gone()),
            };
            let envelope = match answer.and_then(|answer| answer.answer) {
                Some(Answer::Envelope(envelope)) => envelope,
                Some(Answer::Fault(fault)) => {
                    hang_up(answers);
                    return Err(Fault::from_wire(fault));
                }
                None => {
                    return Err(broken(&tonic::Status::unavailable(
                        "it ended before the answer was complete",
                    )));
                }
            };
            let logged = incoming.hear::<Response>(envelope).await?;
            self.kept.let_go();
            match logged.get().manifest().ending {
                Ending::Continue | Ending::Unspecified => self.give_out(logged).await?,
                Ending::End => {
                    hang_up(answers);
                    return self.give_out(logged).await;
                }
                // Nothing of it is given out: what it holds could look like a complete answer.
                Ending::Abort => {
                    let why = "the register broke its answer off";
                    return Err(Fault::before_call(Reason::Aborted, Side::Register, why)
                        .with_register(RegisterReached::Yes));
                }
            }
        }
    }

    /// Gives a message to the caller: it is verified, and its record is durable.
    async fn give_out(&mut self, logged: Logged<Verified<Response>>) -> Result<(), Fault> {
        let verified = logged.into_inner();
        let content = verified.parts().content.clone();
        let ends = verified.manifest().ending == Ending::End;
        let trailers = content.trailers.as_ref();
        let trailers = trailers.map(|trailers| head::read_trailers(self.kind, trailers));
        let trailers = trailers.transpose().map_err(malformed)?;
        let only = (ends && trailers.is_none()).then_some(content.body.len());
        let mut begun = content.head.as_ref().map(|head| self.head(head, only)).transpose()?;
        if let (Some(head), Some(service)) = (&mut begun, &verified.manifest().bridged_to) {
            let service = HeaderValue::from_str(service.as_str());
            head.headers_mut().extend(service.ok().map(|service| (BRIDGED_TO, service)));
        }
        let pieces = self.length.take(content.body, ends).map_err(malformed)?;
        match begun {
            // All of it at once: head, body and trailers are one write.
            Some(head) if ends => {
                let [first, last] = pieces;
                let body = if first.is_empty() { last } else { first };
                let (leaving, left) = Leaving::new();
                *self.left = Some(left);
                let body = Relayed::whole(body, trailers, Some(leaving));
                return self.begin(head.map(|()| body));
            }
            Some(head) => {
                let (relay, body) = Relayed::new();
                self.begin(head.map(|()| body))?;
                *self.relay = Some(relay);
            }
            None => {}
        }
        // The stage keeps it too: whoever tells a fault while this waits can end the body with it.
        let Some(relay) = self.relay.clone() else { return Ok(()) };
        for piece in pieces {
            relay.data(piece).await.map_err(|_| caller_gone())?;
        }
        match trailers {
            Some(trailers) => relay.trailers(trailers).await.map_err(|_| caller_gone()),
            // Whoever knows the length reads no further.
            None if ends && self.length.is_known() => {
                let _ = relay.end().await;
                Ok(())
            }
            None if ends => relay.end().await.map_err(|_| caller_gone()),
            None => Ok(()),
        }
    }

    /// The head of an answer; `only` is the length of the body where the first message is the whole answer.
    fn head(&mut self, head: &Bytes, only: Option<usize>) -> Result<http::Response<()>, Fault> {
        let (status, mut headers) = head::read_response_head(self.kind, head).map_err(malformed)?;
        let bodiless = self.bodiless || status == http::StatusCode::NOT_MODIFIED;
        self.length = match bodiless {
            true => Length::of(0),
            false => Length::said(self.kind, &headers).map_err(malformed)?,
        };
        if let (Kind::Rest, Some(len @ 1..), false) = (self.kind, only, self.length.is_known()) {
            headers.insert(http::header::CONTENT_LENGTH, len.into());
            self.length = Length::of(len as u64);
        }
        headers.extend(self.labels.clone());
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn begin(&mut self, response: http::Response<Relayed>) -> Result<(), Fault> {
        let (spent, _) = oneshot::channel();
        std::mem::replace(self.reply, spent).send(response).map_err(|_| caller_gone())
    }
}

/// Reads the end of a stream whose last message was received. Dropped instead, each stream would be reset, and a
/// connection on which very many streams were reset is closed by HTTP/2's protection against floods (RFC 9113, section
/// 10.5).
fn hang_up(mut answers: Streaming<ExchangeResponse>) {
    // Most often the end came with the last message.
    let mut unwaited = Context::from_waker(Waker::noop());
    if Pin::new(&mut answers).poll_next(&mut unwaited).is_ready() {
        return;
    }
    tokio::spawn(async move {
        let _ = tokio::time::timeout(LAST_WORD, answers.message()).await;
    });
}

/// Ends when the caller has gone: before the head it waits for the reply, afterwards it reads the body.
async fn gone(reply: &mut oneshot::Sender<http::Response<Relayed>>, relay: Option<&Relay>) {
    match relay {
        Some(relay) => relay.reader_gone().await,
        None => reply.closed().await,
    }
}

fn malformed(why: &str) -> Fault {
    let why = format!("the answer is signed and cannot be read: {why}");
    Fault::before_call(Reason::InconsistentResponse, SIDE, why).with_register(RegisterReached::Yes)
}

/// The other side did not open the exchange: by its own word, or because the connection broke.
fn not_opened(status: &tonic::Status) -> Fault {
    if not_taken_up(status) {
        let why = "the connection to the provider's security server ended before the exchange was taken up";
        return Fault::before_call(Reason::NetworkError, Side::ProviderServer, why);
    }
    if status.code() != tonic::Code::PermissionDenied {
        return broken(status);
    }
    let why = format!(
        "the provider's security server does not accept this connection: {}",
        plain(status.message())
    );
    Fault::before_call(Reason::SslAuthenticationFailed, Side::ProviderServer, why)
}

fn broken(status: &tonic::Status) -> Fault {
    let why = format!("the connection to the provider's security server broke: {}", plain(status.message()));
    Fault::before_call(Reason::NetworkError, SIDE, why).with_register(RegisterReached::Unknown)
}
