//! Between two honest security servers: somebody who has the TLS keys of both, reads and relays what they say, and does
//! one thing to one message of a stream. The signing keys are not theirs.

use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trave_host::client::Channel;
use trave_host::drain::Drain;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::stubs::transport::peer_service_client::PeerServiceClient;
use trave_host::stubs::transport::peer_service_server::{PeerService, PeerServiceServer};
use trave_host::tls::{self, Clients, Http};
use trave_proto::schema::message::Envelope;
use trave_proto::schema::transport::exchange_response::Answer;
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, DescribeServicesRequest, DescribeServicesResponse,
    ExchangeRequest, ExchangeResponse, FetchMessageRequest, FetchMessageResponse, FollowLogRequest,
    FollowLogResponse, GetConfigurationRequest, GetConfigurationResponse, GreetRequest, GreetResponse,
    ListRecordsRequest, ListRecordsResponse, OfferConfigurationRequest, OfferConfigurationResponse,
    TellErasureRequest, TellErasureResponse, TellExchangesRequest, TellExchangesResponse,
};

use super::{Credentials, Whoever};
use crate::network::server::reserve;
use crate::network::{Instance, LUEBECK, REGISTER};

/// What is done to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// A bit of its content is flipped.
    Altered,
    /// It does not arrive.
    Dropped,
    /// It arrives after the one that follows it.
    Reordered,
    /// The one before it arrives once more in its place, and then it.
    Replayed,
    /// It arrives twice.
    Doubled,
    /// Half of its content arrives.
    Truncated,
    /// That of the exchange before arrives in its place.
    Foreign,
    /// The stream ends in its place.
    BrokenOff,
}

/// In which direction, and at which index.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Whether it is a message of the request.
    pub request: bool,
    /// Its index, from 0.
    pub index: u64,
    /// What is done to it.
    pub tampering: Tampering,
}

/// A running relay that stands where the register's security server is looked for.
#[derive(Debug)]
pub struct Between {
    drain: Drain,
    target: Arc<StdMutex<Option<Target>>>,
    passing: watch::Sender<Passing>,
}

/// How far the exchange is that passes: messages of its request and of its answer that have come by, and whether harm was
/// done to one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passing {
    /// Messages of the request.
    pub requests: u64,
    /// Messages of the answer.
    pub answers: u64,
    /// Whether one of them was harmed.
    pub harmed: bool,
}

impl Between {
    /// Puts itself between the two security servers of `instance`, before they have spoken to each other.
    pub async fn start(instance: &mut Instance, target: Option<Target>) -> Self {
        let (_port, elsewhere) = reserve();
        let here = instance.mv.peer;
        instance.mv.reconfigure(|text| text.replace(&here.to_string(), &elsewhere.to_string())).await;
        let credentials =
            |server| Credentials::of(server, &instance.authorities, &instance.configuration).identity();
        let clock = Arc::clone(&instance.clock);
        let client =
            tls::Client::new(Some(credentials(LUEBECK)), Arc::new(Whoever), Http::Two, Arc::clone(&clock));
        let channel = Channel::tls(&elsewhere.to_string(), &client.unwrap()).await.unwrap();
        let clients = Clients::Known(Arc::new(Whoever));
        let server = tls::Server::new(credentials(REGISTER), clients, Http::Two, clock).unwrap();
        let listener = Listener::tls(here, server).await.unwrap();
        let (target, passing) = (Arc::new(StdMutex::new(target)), watch::Sender::default());
        let door = Door {
            register: PeerServiceClient::new(channel),
            greeted: Mutex::default(),
            target: Arc::clone(&target),
            passing: passing.clone(),
            earlier: Arc::default(),
        };
        let router = tonic::service::Routes::new(PeerServiceServer::new(door)).into_axum_router();
        let drain = Drain::new();
        drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(router.clone())));
        Self { drain, target, passing }
    }

    /// Does this to exchanges that begin from now on; nothing to them, if there is none.
    pub fn aim(&self, target: Option<Target>) {
        *self.target.lock().unwrap() = target;
        self.passing.send_replace(Passing::default());
    }

    /// How far the exchange is that began after [`Self::aim`].
    pub fn passing(&self) -> watch::Receiver<Passing> {
        self.passing.subscribe()
    }

    /// Ends it.
    pub async fn stop(self) {
        self.drain.finish(Duration::from_secs(1)).await;
    }
}

struct Door {
    register: PeerServiceClient<Channel>,
    /// One connection to the register's server: its greeting cannot be had twice.
    greeted: Mutex<Option<GreetResponse>>,
    target: Arc<StdMutex<Option<Target>>>,
    passing: watch::Sender<Passing>,
    /// What the exchange before said: its requests, its answers.
    earlier: Arc<[Earlier; 2]>,
}

type Earlier = StdMutex<Vec<Envelope>>;

#[tonic::async_trait]
impl PeerService for Door {
    async fn compare_records(
        &self,
        _: Request<CompareRecordsRequest>,
    ) -> Result<Response<CompareRecordsResponse>, Status> {
        Err(Status::unimplemented("nobody compares with this one"))
    }

    async fn list_records(
        &self,
        _: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        Err(Status::unimplemented("nobody compares with this one"))
    }

    async fn fetch_message(
        &self,
        _: Request<FetchMessageRequest>,
    ) -> Result<Response<FetchMessageResponse>, Status> {
        Err(Status::unimplemented("nobody recovers from this one"))
    }

    async fn follow_log(&self, _: Request<FollowLogRequest>) -> Result<Response<FollowLogResponse>, Status> {
        Err(Status::unimplemented("nobody follows this one"))
    }

    async fn tell_exchanges(
        &self,
        _: Request<TellExchangesRequest>,
    ) -> Result<Response<TellExchangesResponse>, Status> {
        Err(Status::unimplemented("nobody compares with this one"))
    }

    async fn tell_erasure(
        &self,
        _: Request<TellErasureRequest>,
    ) -> Result<Response<TellErasureResponse>, Status> {
        Err(Status::unimplemented("nobody tells this one"))
    }

    async fn describe_services(
        &self,
        _: Request<DescribeServicesRequest>,
    ) -> Result<Response<DescribeServicesResponse>, Status> {
        Err(Status::unimplemented("nobody asks this one"))
    }

    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let mut greeted = self.greeted.lock().await;
        assert!(greeted.is_none(), "the client's server connects once");
        let answer = self.register.clone().greet(request.into_inner()).await?.into_inner();
        *greeted = Some(answer.clone());
        Ok(Response::new(answer))
    }

    type ExchangeStream = ReceiverStream<Result<ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (to_register, requests) = mpsc::channel(1);
        let mut asked = request.into_inner();
        let target = *self.target.lock().unwrap();
        let (earlier, passing) = (Arc::clone(&self.earlier), self.passing.clone());
        tokio::spawn(async move {
            let mut tamper = Tamper::new(target, true, (&earlier[0], passing));
            while let Ok(Some(request)) = asked.message().await {
                let envelope = request.envelope.unwrap();
                earlier[0].lock().unwrap().push(envelope.clone());
                let Some(passed) = tamper.pass(envelope) else { return };
                for envelope in passed {
                    if to_register.send(ExchangeRequest { envelope: Some(envelope) }).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut answers = self.register.clone().exchange(ReceiverStream::new(requests)).await?.into_inner();
        let (to_client, relayed) = mpsc::channel(1);
        let (earlier, passing) = (Arc::clone(&self.earlier), self.passing.clone());
        tokio::spawn(async move {
            let mut tamper = Tamper::new(target, false, (&earlier[1], passing));
            loop {
                let next = tokio::select! {
                    next = answers.message() => next,
                    () = to_client.closed() => return,
                };
                let passed = match next {
                    Ok(Some(ExchangeResponse { answer: Some(Answer::Envelope(envelope)) })) => {
                        earlier[1].lock().unwrap().push(envelope.clone());
                        let Some(passed) = tamper.pass(envelope) else { return };
                        let answers = passed.into_iter().map(Answer::Envelope);
                        answers.map(|answer| Ok(ExchangeResponse { answer: Some(answer) })).collect()
                    }
                    Ok(Some(fault)) => vec![Ok(fault)],
                    Ok(None) => return,
                    Err(status) => vec![Err(status)],
                };
                for answer in passed {
                    if to_client.send(answer).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(relayed)))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        self.register.clone().get_configuration(request.into_inner()).await
    }

    async fn offer_configuration(
        &self,
        request: Request<OfferConfigurationRequest>,
    ) -> Result<Response<OfferConfigurationResponse>, Status> {
        self.register.clone().offer_configuration(request.into_inner()).await
    }
}

/// What passes in one direction.
struct Tamper {
    request: bool,
    target: Option<Target>,
    passing: watch::Sender<Passing>,
    /// What the exchange before said in this direction, and what this one says.
    earlier: Vec<Envelope>,
    said: Vec<Envelope>,
    held: Option<Envelope>,
}

impl Tamper {
    fn new(
        target: Option<Target>,
        request: bool,
        (earlier, passing): (&Earlier, watch::Sender<Passing>),
    ) -> Self {
        let target = target.filter(|target| target.request == request);
        let earlier = std::mem::take(&mut *earlier.lock().unwrap());
        Self { request, target, passing, earlier, said: Vec::new(), held: None }
    }

    /// Tells that a message has come by.
    fn comes_by(&self, harmed: bool) {
        self.passing.send_modify(|passing| {
            match self.request {
                true => passing.requests += 1,
                false => passing.answers += 1,
            }
            passing.harmed |= harmed;
        });
    }

    /// What goes on instead of this message; none if the stream ends here.
    fn pass(&mut self, envelope: Envelope) -> Option<Vec<Envelope>> {
        let at = self.said.len();
        self.said.push(envelope.clone());
        let aimed_at = self.target.filter(|target| target.index == at as u64);
        self.comes_by(aimed_at.is_some());
        let Some(target) = aimed_at else {
            let held = self.held.take();
            return Some(std::iter::once(envelope).chain(held).collect());
        };
        Some(match target.tampering {
            Tampering::Altered => vec![with_part(envelope, |part| *part.last_mut().unwrap() ^= 1)],
            Tampering::Truncated => vec![with_part(envelope, |part| part.truncate(part.len() / 2))],
            Tampering::Dropped => Vec::new(),
            Tampering::Reordered => {
                self.held = Some(envelope);
                Vec::new()
            }
            Tampering::Replayed => {
                let before = at.checked_sub(1).map(|before| self.said[before].clone());
                before.into_iter().chain([envelope]).collect()
            }
            Tampering::Doubled => vec![envelope.clone(), envelope],
            // How many messages the one before had depends on what was there within a moment.
            Tampering::Foreign => vec![self.earlier[at.min(self.earlier.len() - 1)].clone()],
            Tampering::BrokenOff => return None,
        })
    }
}

/// With the first part of its content that there is changed; with its manifest changed, if there is none.
fn with_part(mut envelope: Envelope, change: impl FnOnce(&mut Vec<u8>)) -> Envelope {
    let Envelope { body, trailers, head, manifest, .. } = &mut envelope;
    let there = |part: &&mut Bytes| !part.is_empty();
    let parts = [Some(body), trailers.as_mut(), head.as_mut(), Some(manifest)];
    let part = parts.into_iter().flatten().find(there).unwrap();
    let mut bytes = part.to_vec();
    change(&mut bytes);
    *part = bytes.into();
    envelope
}
