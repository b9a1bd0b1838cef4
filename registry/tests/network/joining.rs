//! A security server that enrols: what a gateway does, step by step.

use std::sync::Arc;

use tonic::Status;
use trave_host::client::Channel;
use trave_host::keys::{NoteKey, Sign, SigningKey, certificate_request};
use trave_host::stubs::management::enrolment_service_client::EnrolmentServiceClient;
use trave_host::tls::{self, Http, Pinned};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::management::{EnrolmentKeys, EnrolmentToken, enrolment_mac, status_mac};
use trave_proto::schema::configuration::LogKey;
use trave_proto::schema::management::{
    EnrolRequest, EnrolResponse, GetEnrolmentRequest, GetEnrolmentResponse,
};

pub struct Joining {
    pub token: EnrolmentToken,
    pub authentication: SigningKey,
    pub signing: SigningKey,
    pub log: NoteKey,
    client: EnrolmentServiceClient<Channel>,
}

impl Joining {
    /// Reads the token, makes the keys, and connects to the registry whose key the token names.
    pub async fn new(token: &str, clock: Arc<dyn Clock>) -> Self {
        let token = EnrolmentToken::parse(token).unwrap();
        let policy = Arc::new(Pinned::new([token.registry_key]));
        let tls = tls::Client::new(None, policy, Http::Two, clock).unwrap();
        let channel = Channel::tls(&token.registry, &tls).await.unwrap();
        Self {
            token,
            authentication: SigningKey::generate().unwrap(),
            signing: SigningKey::generate().unwrap(),
            log: NoteKey::generate().unwrap(),
            client: EnrolmentServiceClient::new(channel),
        }
    }

    fn origin(&self) -> String {
        format!("{}/log/1", self.token.server)
    }

    /// What the server displays for people to compare: made from its own keys alone.
    pub fn fingerprint(&self) -> String {
        let keys = EnrolmentKeys {
            server: self.token.server.to_string(),
            authentication_key: self.authentication.public_key_digest(),
            signing_key: self.signing.public_key_digest(),
            log_origin: self.origin(),
            log_key: self.log.public_key(),
        };
        keys.fingerprint()
    }

    /// The request, sealed.
    pub fn request(&self) -> EnrolRequest {
        let name = self.token.server.to_string();
        let mut request = EnrolRequest {
            token_id: self.token.id_text(),
            security_server: name.clone(),
            authentication_request: certificate_request(&self.authentication, &name).unwrap().into(),
            signing_request: certificate_request(&self.signing, &name).unwrap().into(),
            log: Some(LogKey { origin: self.origin(), public_key: self.log.public_key().to_vec().into() }),
            mac: bytes::Bytes::new(),
        };
        request.mac = enrolment_mac(&self.token.secret, &request);
        request
    }

    pub async fn send(&mut self, request: EnrolRequest) -> Result<EnrolResponse, Status> {
        self.client.enrol(request).await.map(tonic::Response::into_inner)
    }

    pub async fn status(&mut self, id: &bytes::Bytes) -> Result<GetEnrolmentResponse, Status> {
        let mac = status_mac(&self.token.secret, id);
        let request = GetEnrolmentRequest { enrolment_id: id.clone(), mac };
        self.client.get_enrolment(request).await.map(tonic::Response::into_inner)
    }

    pub async fn ask_with(&mut self, request: GetEnrolmentRequest) -> Result<GetEnrolmentResponse, Status> {
        self.client.get_enrolment(request).await.map(tonic::Response::into_inner)
    }

    pub fn keys(&self) -> (Digest, Digest) {
        (self.authentication.public_key_digest(), self.signing.public_key_digest())
    }
}
