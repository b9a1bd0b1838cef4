//! The door for other security servers: mutual TLS 1.3 with certificates that the global configuration lists.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use trave_host::drain::Drain;
use trave_host::listen::{Connection, Listener, TowerToHyperService, with_body_deadline};
use trave_host::stubs::transport::peer_service_server::{PeerService, PeerServiceServer};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::SubsystemId;
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, DescribeServicesRequest, DescribeServicesResponse,
    ExchangeRequest, ExchangeResponse, FetchMessageRequest, FetchMessageResponse, FollowLogRequest,
    FollowLogResponse, GetConfigurationRequest, GetConfigurationResponse, GreetRequest, GreetResponse,
    ListRecordsRequest, ListRecordsResponse, OfferConfigurationRequest, OfferConfigurationResponse,
    TellErasureRequest, TellErasureResponse, TellExchangesRequest, TellExchangesResponse,
};

use crate::exchange::{self, Exchanges, Said};
use crate::metadata;
use crate::reconciliation::AnswerError;
use crate::recorder::Refused;
use crate::transport::{Greeted, MAX_WIRE, Session, refused_greeting};
use crate::trust::{TlsPeer, TrustError};
use crate::upkeep::Upkeep;

/// Answers that wait on the wire; with the one in hand that is two.
const ON_THE_WIRE: usize = 1;

/// Where streams come, which have limits of their own.
const EXCHANGES: &[&str] = &["/trave.transport.v1.PeerService/Exchange"];

/// Serves until the server drains.
pub(crate) async fn serve(
    listener: Listener,
    (exchanges, upkeep): (Arc<Exchanges>, Arc<Upkeep>),
    drain: Drain,
) {
    let (tasks, offers) = (drain.clone(), Semaphore::new(1));
    let door = Door { exchanges: Arc::clone(&exchanges), upkeep, tasks, offers };
    // A configuration larger than this is not taken from peers: the registry has it.
    let service = PeerServiceServer::new(door).max_decoding_message_size(MAX_WIRE);
    let router = tonic::service::Routes::new(service).into_axum_router();
    let router = with_body_deadline(router, exchanges.times().bounds.slow, EXCHANGES);
    listener
        .serve(drain, move |connection: &mut Connection| {
            let now = exchanges.clock.now();
            let peer = TlsPeer::authenticate(&connection.chain, &exchanges.trust.snapshot(), now).ok();
            let session = peer.and_then(|peer| Session::new(peer, now));
            if let Some(session) = session {
                connection.extensions.insert(session);
            }
            TowerToHyperService::new(router.clone())
        })
        .await;
}

#[derive(Debug)]
struct Door {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    tasks: Drain,
    /// Configurations are large: one at a time is given or taken.
    offers: Semaphore,
}

impl Door {
    /// The session of a peer that has greeted, and is still who it was by the configuration in use.
    fn still_trusted<T>(&self, request: &Request<T>) -> Result<Session, Status> {
        let session = session(request)?;
        self.looked_at(&session)?;
        let (snapshot, now) = (self.exchanges.trust.snapshot(), self.exchanges.clock.now());
        session.peer().recheck(&snapshot, now).map_err(Status::permission_denied)?;
        match session.greeted() {
            Some(_) => Ok(session),
            None => Err(Status::failed_precondition("this connection has not been greeted")),
        }
    }

    /// Refuses a peer too much of which did not verify.
    fn looked_at(&self, session: &Session) -> Result<(), Status> {
        let checked = self.exchanges.suspicion.check(session.server(), Side::ProviderServer);
        checked.map_err(|fault| Status::resource_exhausted(fault.message))
    }

    /// What a peer is refused beside exchanges is logged like a refused exchange.
    async fn refused(&self, session: &Session, fault: &Fault) {
        tracing::warn!(peer = %session.server(), reason = fault.reason.as_str(), message = fault.message, "a peer is refused");
        let refused = Refused { exchange: None, fault, topic: None, peer: Some(session.server()) };
        self.exchanges.recorder.refused(refused).await;
    }
}

/// What an exchange says to the peer, until the last message: with it the stream ends at once.
#[derive(Debug)]
struct Answers {
    first: Option<Box<Said>>,
    answers: mpsc::Receiver<Box<Said>>,
    ended: bool,
}

impl Stream for Answers {
    type Item = Result<ExchangeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let said = match self.first.take() {
            Some(first) => Some(first),
            None if self.ended => None,
            None => ready!(self.answers.poll_recv(context)),
        };
        self.ended = said.as_ref().is_none_or(|said| said.last);
        Poll::Ready(said.map(|said| Ok(ExchangeResponse { answer: Some(said.answer) })))
    }
}

/// The session of the connection that a request came on.
fn session<T>(request: &Request<T>) -> Result<Session, Status> {
    let none =
        || Status::permission_denied("the global configuration does not list this connection's certificate");
    request.extensions().get::<Session>().cloned().ok_or_else(none)
}

/// What a peer is told that asks about the records between the two.
fn answered<T>(answer: Result<T, AnswerError>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| {
        let why = trave_host::config::with_causes(&error);
        match error {
            AnswerError::Malformed(_) => Status::invalid_argument(why),
            AnswerError::TooOld | AnswerError::NotOver | AnswerError::NotCommitted => {
                Status::failed_precondition(why)
            }
            AnswerError::NotHeld => Status::not_found(why),
            AnswerError::Busy | AnswerError::TooMany => Status::resource_exhausted(why),
            AnswerError::Records(_)
            | AnswerError::Log(_)
            | AnswerError::NoRandom
            | AnswerError::Interrupted => {
                tracing::warn!(error = why, "a peer's question about records is not answered");
                Status::unavailable("the message log of this security server fails; its operator must look")
            }
        }
    })
}

#[tonic::async_trait]
impl PeerService for Door {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let session = session(&request)?;
        let exchanges = &self.exchanges;
        let now = exchanges.clock.now();
        let snapshot = exchanges.trust.snapshot();
        let greeting =
            request.into_inner().greeting.ok_or_else(|| Status::invalid_argument("the greeting is empty"))?;
        if session.greeted().is_some() {
            return Err(Status::failed_precondition("this connection was greeted before"));
        }
        self.looked_at(&session)?;
        let greeted = match Greeted::verify(greeting, session.server(), &snapshot.configuration, now) {
            Ok(greeted) => greeted,
            Err(error) => {
                exchanges.suspicion.failed(session.server());
                self.refused(&session, &error.fault(Side::ProviderServer)).await;
                return Err(refused_greeting(&error));
            }
        };
        let nonce =
            session.nonce(now).ok_or_else(|| Status::failed_precondition("this connection is too old"))?;
        if !session.greet(greeted) {
            return Err(Status::failed_precondition("this connection was greeted before"));
        }
        let greeting = Some(exchanges.own.greeting(nonce, &snapshot.configuration));
        Ok(Response::new(GreetResponse { greeting }))
    }

    type ExchangeStream = Answers;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let session = session(&request)?;
        let (wire, mut answers) = mpsc::channel(ON_THE_WIRE);
        let exchanges = Arc::clone(&self.exchanges);
        self.tasks.spawn(exchange::answer(exchanges, session, request.into_inner(), wire));
        // The head waits for the first message, and is one write with it.
        let first = answers.recv().await;
        Ok(Response::new(Answers { ended: first.is_none(), first, answers }))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        session(&request)?;
        let _alone =
            self.offers.acquire().await.map_err(|_| Status::unavailable("this server is stopping"))?;
        let wanted = request.into_inner().number;
        let current = Arc::clone(&self.exchanges.trust.snapshot().configuration);
        if wanted != 0 && wanted != current.number() {
            return Err(Status::not_found(format!("this server uses configuration {}", current.number())));
        }
        Ok(Response::new(GetConfigurationResponse { configuration: Some(current.signed().clone()) }))
    }

    async fn offer_configuration(
        &self,
        request: Request<OfferConfigurationRequest>,
    ) -> Result<Response<OfferConfigurationResponse>, Status> {
        let session = session(&request)?;
        let signed = request
            .into_inner()
            .configuration
            .ok_or_else(|| Status::invalid_argument("nothing is offered"))?;
        self.looked_at(&session)?;
        match self.exchanges.adopt(&signed, "peer").await {
            Ok(()) => {}
            Err(error) => {
                let why = trave_host::config::with_causes(&error);
                let reason = match error {
                    TrustError::Refused(_) => {
                        self.exchanges.suspicion.failed(session.server());
                        Reason::InvalidSignatureValue
                    }
                    TrustError::NotAdopted(_) => Reason::GlobalConfOutdated,
                    _ => Reason::InternalError,
                };
                self.refused(&session, &Fault::before_call(reason, Side::ProviderServer, &why)).await;
                return Err(Status::invalid_argument(why));
            }
        }
        let number = self.exchanges.trust.snapshot().configuration.number();
        Ok(Response::new(OfferConfigurationResponse { number }))
    }

    async fn compare_records(
        &self,
        request: Request<CompareRecordsRequest>,
    ) -> Result<Response<CompareRecordsResponse>, Status> {
        let session = self.still_trusted(&request)?;
        answered(self.upkeep.compared_by(session.server(), request.into_inner()).await)
    }

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let session = self.still_trusted(&request)?;
        answered(self.upkeep.desk().list(session.server(), request.into_inner()).await)
    }

    async fn tell_exchanges(
        &self,
        request: Request<TellExchangesRequest>,
    ) -> Result<Response<TellExchangesResponse>, Status> {
        let session = self.still_trusted(&request)?;
        answered(self.upkeep.desk().tell(session.server(), request.into_inner()).await)
    }

    async fn fetch_message(
        &self,
        request: Request<FetchMessageRequest>,
    ) -> Result<Response<FetchMessageResponse>, Status> {
        let session = self.still_trusted(&request)?;
        answered(self.upkeep.desk().fetch(session.server(), request.into_inner()).await)
    }

    async fn follow_log(
        &self,
        request: Request<FollowLogRequest>,
    ) -> Result<Response<FollowLogResponse>, Status> {
        let session = self.still_trusted(&request)?;
        answered(self.upkeep.shown(session.server(), request.into_inner()).await)
    }

    async fn tell_erasure(
        &self,
        request: Request<TellErasureRequest>,
    ) -> Result<Response<TellErasureResponse>, Status> {
        let session = self.still_trusted(&request)?;
        let (erasing, request) = (Arc::clone(self.upkeep.erasing()), request.into_inner());
        let turn = erasing.turn(session.server()).map_err(|error| error.for_peer())?;
        // To its end, also if the other server goes away meanwhile.
        let received = self.tasks.spawn(async move { erasing.receive(turn, request).await }).await;
        match received.ok().flatten() {
            Some(Ok(known)) => Ok(Response::new(TellErasureResponse { known })),
            Some(Err(error)) => Err(error.for_peer()),
            None => Err(Status::unavailable("this security server is stopping")),
        }
    }

    async fn describe_services(
        &self,
        request: Request<DescribeServicesRequest>,
    ) -> Result<Response<DescribeServicesResponse>, Status> {
        let session = session(&request)?;
        let asked = request.into_inner();
        let identifier = |text: &str| {
            text.parse::<SubsystemId>().map_err(|_| Status::invalid_argument("this is no subsystem"))
        };
        let (client, subsystem) = (identifier(&asked.client)?, identifier(&asked.subsystem)?);
        if !self.exchanges.trust.snapshot().configuration.hosts(session.server(), &client) {
            return Err(Status::permission_denied("the client is not registered on the server that asks"));
        }
        Ok(Response::new(metadata::offered(&self.exchanges, &client, &subsystem, &asked.service_code)))
    }
}
