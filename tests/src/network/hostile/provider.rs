//! A hostile security server of a register: it answers with what it should not. No register stands behind it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trave_host::drain::Drain;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::stubs::transport::peer_service_server::{PeerService, PeerServiceServer};
use trave_host::tls::{self, Clients, Http};
use trave_proto::clock::Clock;
use trave_proto::conversation::Party;
use trave_proto::digest::Digest;
use trave_proto::message::{Content, Ending, Manifest, ManifestFields, Salt};
use trave_proto::schema::message::{Direction, Envelope, Header, ResponseHead, Trailers};
use trave_proto::schema::transport::exchange_response::Answer;
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, DescribeServicesRequest, DescribeServicesResponse,
    ExchangeRequest, ExchangeResponse, ExchangeState, Fault, FetchMessageRequest, FetchMessageResponse,
    FollowLogRequest, FollowLogResponse, GetConfigurationRequest, GetConfigurationResponse, GreetRequest,
    GreetResponse, Greeting, ListRecordsRequest, ListRecordsResponse, OfferConfigurationRequest,
    OfferConfigurationResponse, TellErasureRequest, TellErasureResponse, TellExchangesRequest,
    TellExchangesResponse,
};
use trave_proto::signature::{Parts, Response as Answered, Unsigned};

use super::{Credentials, Whoever};
use crate::network::Instance;
use crate::network::caller::frame;

/// How it departs from the rules.
#[derive(Clone, Copy)]
pub enum Alteration {
    /// It keeps to them.
    None,
    /// In its greeting.
    Greeting(fn(&mut Greeting)),
    /// In the fields of its answer, before it signs them.
    Fields(fn(&mut ManifestFields)),
    /// In its answer, after it was signed.
    Envelope(fn(&mut Envelope)),
    /// It answers with a fault of its own making.
    Fault(fn() -> Fault),
    /// It ends the exchange without an answer.
    Silence,
    /// It answers as it should, and ends the stream a moment later.
    LateEnd,
    /// It never answers what its log holds.
    Mute,
    /// It says what it likes of what its log holds.
    Comparing(
        fn(&CompareRecordsRequest) -> CompareRecordsResponse,
        fn(&ListRecordsRequest) -> ListRecordsResponse,
    ),
    /// It shows what it likes of its log's checkpoints.
    Following(fn(&FollowLogRequest) -> FollowLogResponse),
}

impl std::fmt::Debug for Alteration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Greeting(_) => "Greeting",
            Self::Fields(_) => "Fields",
            Self::Envelope(_) => "Envelope",
            Self::Fault(_) => "Fault",
            Self::Silence => "Silence",
            Self::LateEnd => "LateEnd",
            Self::Mute => "Mute",
            Self::Comparing(..) => "Comparing",
            Self::Following(_) => "Following",
        })
    }
}

/// A running hostile security server, where the register's stood.
#[derive(Debug)]
pub struct HostileProvider {
    drain: Drain,
    broken_off: Arc<AtomicUsize>,
}

impl HostileProvider {
    /// Starts in the place of the register's security server, which must have been stopped.
    pub async fn start(instance: &Instance, credentials: Credentials, alteration: Alteration) -> Self {
        let (clock, drain) = (Arc::clone(&instance.clock), Drain::new());
        let clients = Clients::Known(Arc::new(Whoever));
        let server =
            tls::Server::new(credentials.identity(), clients, Http::Two, Arc::clone(&clock)).unwrap();
        let listener = Listener::tls(instance.mv.peer, server).await.unwrap();
        let broken_off = Arc::default();
        let seen = Arc::clone(&broken_off);
        let door = Door { credentials, alteration, clock, peer: Mutex::default(), broken_off };
        let router = tonic::service::Routes::new(PeerServiceServer::new(door)).into_axum_router();
        drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(router.clone())));
        Self { drain, broken_off: seen }
    }

    /// How many of its answers were broken off by the other side before they ended.
    pub fn broken_off(&self) -> usize {
        self.broken_off.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub async fn stop(self) {
        self.drain.finish(Duration::from_secs(1)).await;
    }
}

/// How long after an answer its stream ends, where it ends late.
const LATE: Duration = Duration::from_millis(700);

struct Door {
    credentials: Credentials,
    alteration: Alteration,
    clock: Arc<dyn Clock>,
    peer: Mutex<Option<Party>>,
    broken_off: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl PeerService for Door {
    async fn compare_records(
        &self,
        request: Request<CompareRecordsRequest>,
    ) -> Result<Response<CompareRecordsResponse>, Status> {
        match self.alteration {
            Alteration::Comparing(summaries, _) => Ok(Response::new(summaries(request.get_ref()))),
            Alteration::Mute => std::future::pending().await,
            _ => Err(Status::unimplemented("nobody compares with this one")),
        }
    }

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        match self.alteration {
            Alteration::Comparing(_, list) => Ok(Response::new(list(request.get_ref()))),
            _ => Err(Status::unimplemented("nobody compares with this one")),
        }
    }

    async fn fetch_message(
        &self,
        _: Request<FetchMessageRequest>,
    ) -> Result<Response<FetchMessageResponse>, Status> {
        Err(Status::unimplemented("nobody recovers from this one"))
    }

    async fn follow_log(
        &self,
        request: Request<FollowLogRequest>,
    ) -> Result<Response<FollowLogResponse>, Status> {
        match self.alteration {
            Alteration::Following(show) => Ok(Response::new(show(request.get_ref()))),
            _ => Err(Status::unimplemented("nobody follows this one")),
        }
    }

    async fn tell_exchanges(
        &self,
        request: Request<TellExchangesRequest>,
    ) -> Result<Response<TellExchangesResponse>, Status> {
        let states = request.get_ref().exchange_ids.iter().map(|_| ExchangeState::Answered.into()).collect();
        Ok(Response::new(TellExchangesResponse { states }))
    }

    async fn tell_erasure(
        &self,
        request: Request<TellErasureRequest>,
    ) -> Result<Response<TellErasureResponse>, Status> {
        Ok(Response::new(TellErasureResponse { known: request.get_ref().exchange_ids.len() as u64 }))
    }

    async fn describe_services(
        &self,
        _: Request<DescribeServicesRequest>,
    ) -> Result<Response<DescribeServicesResponse>, Status> {
        Err(Status::unimplemented("nobody asks this one"))
    }

    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let theirs = request.into_inner().greeting.unwrap();
        *self.peer.lock().unwrap() = Some(Party {
            server: theirs.server.parse().unwrap(),
            nonce: theirs.nonce.as_ref().try_into().unwrap(),
            log_origin: theirs.log_origin,
            signing_certificate: Digest::of(&theirs.signing_chain[0]),
        });
        let mut greeting = self.credentials.greeting([9; 32]);
        if let Alteration::Greeting(alter) = self.alteration {
            alter(&mut greeting);
        }
        Ok(Response::new(GreetResponse { greeting: Some(greeting) }))
    }

    type ExchangeStream = ReceiverStream<Result<ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut requests = request.into_inner();
        let mut last: Option<Manifest> = None;
        while let Some(request) = requests.message().await? {
            last = Some(Manifest::parse(request.envelope.unwrap().manifest).unwrap());
            if last.as_ref().is_some_and(|manifest| manifest.ending == Ending::End) {
                break;
            }
        }
        let answer = match self.alteration {
            Alteration::Silence => None,
            Alteration::Fault(fault) => Some(Answer::Fault(fault())),
            _ => Some(Answer::Envelope(self.answer(&last.unwrap()))),
        };
        let (sender, answers) = mpsc::channel(1);
        if let Some(answer) = answer {
            sender.send(Ok(ExchangeResponse { answer: Some(answer) })).await.unwrap();
        }
        if matches!(self.alteration, Alteration::LateEnd) {
            let broken_off = Arc::clone(&self.broken_off);
            tokio::spawn(async move {
                tokio::select! {
                    () = sender.closed() => { broken_off.fetch_add(1, Ordering::Relaxed); }
                    () = tokio::time::sleep(LATE) => {}
                }
            });
        }
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn get_configuration(
        &self,
        _: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        let configuration = Some(self.credentials.configuration.clone());
        Ok(Response::new(GetConfigurationResponse { configuration }))
    }

    async fn offer_configuration(
        &self,
        _: Request<OfferConfigurationRequest>,
    ) -> Result<Response<OfferConfigurationResponse>, Status> {
        Ok(Response::new(OfferConfigurationResponse { number: self.credentials.in_use().0 }))
    }
}

impl Door {
    /// The usual answer to a question that ended with `last`, altered.
    fn answer(&self, last: &Manifest) -> Envelope {
        let peer = self.peer.lock().unwrap().clone().unwrap();
        let (own, (number, digest)) = (self.credentials.party([9; 32]), self.credentials.in_use());
        let mut fields = ManifestFields {
            direction: Direction::Response,
            index: 0,
            previous: None,
            last_received: Some(last.digest()),
            sender: own.server,
            receiver: peer.server,
            log_origin: own.log_origin,
            signing_certificate: own.signing_certificate,
            configuration_number: number,
            configuration_digest: digest,
            nonce: peer.nonce,
            created: self.clock.now(),
            ending: Ending::End,
            ..ManifestFields::clone(last)
        };
        if let Alteration::Fields(alter) = self.alteration {
            alter(&mut fields);
        }
        let parts = Parts { content: content(), content_salt: Salt::new([3; 32]), caller_context: None };
        let unsigned = Unsigned::<Answered>::new(fields, parts).unwrap();
        let signature = self.credentials.sign(unsigned.manifest());
        let mut envelope = unsigned.signed(signature).unwrap().to_envelope();
        if let Alteration::Envelope(alter) = self.alteration {
            alter(&mut envelope);
        }
        envelope
    }
}

fn content() -> Content {
    let header = |name: &str, value: &'static str| Header {
        name: name.into(),
        value: Bytes::from_static(value.as_bytes()),
    };
    let head = ResponseHead { status: 200, headers: vec![header("content-type", "application/grpc")] };
    let trailers = Trailers { headers: vec![header("grpc-status", "0")] };
    Content {
        head: Some(head.encode_to_vec().into()),
        body: frame(b"niemand"),
        trailers: Some(trailers.encode_to_vec().into()),
    }
}
