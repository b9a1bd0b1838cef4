//! A hostile security server of a client: it asks a register's security server what it should not.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use trave_host::client::Channel;
use trave_host::stubs::transport::peer_service_client::PeerServiceClient;
use trave_proto::clock::Time;
use trave_proto::conversation::{Conversation, InUse, Party, Topic};
use trave_proto::fault::Fault;
use trave_proto::identifier::ExchangeId;
use trave_proto::message::{CallerContext, Content, Ending, ManifestFields, Salt};
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::schema::message::{Envelope, Header, RequestHead};
use trave_proto::schema::transport::exchange_response::Answer;
use trave_proto::schema::transport::{
    CompareRecordsRequest, CompareRecordsResponse, ExchangeRequest, ExchangeResponse, FetchMessageRequest,
    FetchMessageResponse, GreetRequest, ListRecordsRequest, ListRecordsResponse, OfferConfigurationRequest,
    TellErasureRequest, TellExchangesRequest,
};
use trave_proto::signature::{Parts, Request, Unsigned};

use super::Credentials;
use crate::network::caller::frame;
use crate::network::{CLIENT, Instance, LEGAL_BASIS, METHOD, PURPOSE, SERVICE};

/// What came of an exchange.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered to the end.
    Answered,
    /// It was refused, or failed.
    Fault(Fault),
    /// The connection or the call was ended without a word about the exchange.
    Closed(tonic::Status),
}

/// A message as it is about to be made: alter what you like before it is signed.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// The manifest's fields; direction, commitments and length follow from the content.
    pub fields: ManifestFields,
    /// Head, body, trailers.
    pub content: Content,
}

/// A connection to a security server, greeted.
#[derive(Debug, Clone)]
pub struct HostileClient {
    /// What it shows and signs with.
    pub credentials: Credentials,
    client: PeerServiceClient<Channel>,
    own: Party,
    peer: Party,
    now: Time,
}

impl HostileClient {
    /// Connects to the register's security server of `instance`, and greets it.
    ///
    /// # Errors
    /// What the other side, or TLS, says no with.
    pub async fn connect(instance: &Instance, credentials: Credentials) -> Result<Self, tonic::Status> {
        Self::connect_to(instance, instance.way_to_register(), credentials).await
    }

    /// Connects to the security server of `instance` that has this address, and greets it.
    ///
    /// # Errors
    /// What the other side, or TLS, says no with.
    pub async fn connect_to(
        instance: &Instance,
        address: SocketAddr,
        credentials: Credentials,
    ) -> Result<Self, tonic::Status> {
        let tls = credentials.tls(&instance.clock);
        let channel = Channel::tls(&address.to_string(), &tls).await;
        let channel = channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut client = PeerServiceClient::new(channel);
        let nonce = [7; 32];
        let greeting = Some(credentials.greeting(nonce));
        let answer = client.greet(GreetRequest { greeting }).await?.into_inner().greeting.unwrap();
        let peer = Party {
            server: answer.server.parse().unwrap(),
            nonce: answer.nonce.as_ref().try_into().unwrap(),
            log_origin: answer.log_origin,
            signing_certificate: trave_proto::digest::Digest::of(&answer.signing_chain[0]),
        };
        let own = credentials.party(nonce);
        Ok(Self { credentials, client, own, peer, now: instance.clock.now() })
    }

    /// The usual question, as an honest server would put it.
    pub fn question(&self) -> Spoken {
        let mut random = [0; 10];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).unwrap();
        let topic = Topic {
            exchange: ExchangeId::new(self.now, &random),
            client: CLIENT.parse().unwrap(),
            service: SERVICE.parse().unwrap(),
            method: Some(METHOD.parse().unwrap()),
            purpose: PURPOSE.parse().unwrap(),
            legal_basis: LEGAL_BASIS.parse().unwrap(),
            route: None,
            bridged_from: None,
        };
        let (number, digest) = self.credentials.in_use();
        let conversation = Conversation::ask(topic, self.own.clone(), self.peer.clone());
        let fields = conversation.next(self.now, InUse { number, digest }, Ending::End);
        let header =
            |name: &str, value: &'static [u8]| Header { name: name.into(), value: Bytes::from_static(value) };
        let head = RequestHead {
            method: "POST".into(),
            path: METHOD.into(),
            query: None,
            headers: vec![header("content-type", b"application/grpc")],
        };
        let content =
            Content { head: Some(head.encode_to_vec().into()), body: frame(b"wer?"), trailers: None };
        Spoken { fields, content }
    }

    /// Signs a message as it stands.
    pub fn sign(&self, spoken: Spoken) -> Envelope {
        let parts = Parts {
            content: spoken.content,
            content_salt: Salt::new([1; 32]),
            caller_context: Some((CallerContext::default().encode(), Salt::new([2; 32]))),
        };
        let unsigned = Unsigned::<Request>::new(spoken.fields, parts).unwrap();
        let signature = self.credentials.sign(unsigned.manifest());
        unsigned.signed(signature).unwrap().to_envelope()
    }

    /// Sends messages as one exchange, and reads to its end.
    pub async fn send(&mut self, envelopes: Vec<Envelope>) -> Outcome {
        let requests = envelopes.into_iter().map(|envelope| ExchangeRequest { envelope: Some(envelope) });
        outcome(self.client.exchange(tokio_stream::iter(requests)).await).await
    }

    /// Sends a message as one exchange, whose stream it ends when told to, and reads to the end.
    pub async fn linger(&self, envelope: Envelope, mut end: watch::Receiver<bool>) -> Outcome {
        let (sender, requests) = mpsc::channel(1);
        sender.send(ExchangeRequest { envelope: Some(envelope) }).await.unwrap();
        tokio::spawn(async move {
            let _ = end.wait_for(|end| *end).await;
            drop(sender);
        });
        outcome(self.client.clone().exchange(ReceiverStream::new(requests)).await).await
    }

    /// Offers a configuration; the number that the other side uses then.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn offer(&mut self, configuration: &SignedConfiguration) -> Result<u64, tonic::Status> {
        let request = OfferConfigurationRequest { configuration: Some(configuration.clone()) };
        Ok(self.client.offer_configuration(request).await?.into_inner().number)
    }

    /// Asks what the other side's log holds of some ranges.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn compare(
        &mut self,
        request: CompareRecordsRequest,
    ) -> Result<CompareRecordsResponse, tonic::Status> {
        self.client.compare_records(request).await.map(tonic::Response::into_inner)
    }

    /// Asks what the other side's log holds of one range.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn list(&mut self, request: ListRecordsRequest) -> Result<ListRecordsResponse, tonic::Status> {
        self.client.list_records(request).await.map(tonic::Response::into_inner)
    }

    /// Asks how exchanges stand in the other side's log.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn tell(&mut self, exchange_ids: Vec<Bytes>) -> Result<Vec<i32>, tonic::Status> {
        let request = TellExchangesRequest { exchange_ids };
        self.client.tell_exchanges(request).await.map(|answer| answer.into_inner().states)
    }

    /// Asks for one message.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn fetch(
        &mut self,
        request: FetchMessageRequest,
    ) -> Result<FetchMessageResponse, tonic::Status> {
        self.client.fetch_message(request).await.map(tonic::Response::into_inner)
    }

    /// Tells that exchanges were erased; how many the other side says it knows.
    ///
    /// # Errors
    /// What the other side says no with.
    pub async fn tell_erasure(&mut self, id: &str, exchange_ids: Vec<Bytes>) -> Result<u64, tonic::Status> {
        let request = TellErasureRequest { id: id.into(), exchange_ids };
        self.client.tell_erasure(request).await.map(|answer| answer.into_inner().known)
    }
}

/// Reads an answer to its end.
async fn outcome(
    opened: Result<tonic::Response<tonic::Streaming<ExchangeResponse>>, tonic::Status>,
) -> Outcome {
    let mut answers = match opened {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Outcome::Closed(status),
    };
    loop {
        match answers.message().await {
            Err(status) => return Outcome::Closed(status),
            Ok(None) => return Outcome::Answered,
            Ok(Some(answer)) => {
                if let Some(Answer::Fault(fault)) = answer.answer {
                    return Outcome::Fault(Fault::from_wire(fault));
                }
            }
        }
    }
}
