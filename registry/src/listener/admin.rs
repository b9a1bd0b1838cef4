//! The door for administrators: mutual TLS, and only keys that the configuration in force lists.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use trave_host::listen::Connection;
use trave_host::stubs::management::administration_service_server::{
    AdministrationService, AdministrationServiceServer,
};
use trave_host::tls::{PeerPolicy, public_key_digest};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::management::{ActId, MAX_ACT};
use trave_proto::schema::configuration::SignedConfiguration;
use trave_proto::schema::management::{
    ApplyRequest, ApplyResponse, ApproveRequest, ApproveResponse, CreateEnrolmentTokenRequest,
    CreateEnrolmentTokenResponse, GetConfigurationRequest, GetConfigurationResponse, ListActsRequest,
    ListActsResponse, RejectRequest, RejectResponse,
};

use super::whole;
use crate::registration::Registration;
use crate::state::{Stage, Store};

/// How long an approval waits for its publication before it answers that it is not published yet.
const PUBLICATION: Duration = Duration::from_secs(5);

/// Lets in whoever shows a key that the configuration in force lists as an administrator's.
#[derive(Debug)]
pub(crate) struct AdministratorsOnly(pub(crate) Arc<Store>);

impl PeerPolicy for AdministratorsOnly {
    fn check(&self, chain: &[CertificateDer<'_>], _now: Time) -> Result<(), String> {
        let own = chain.first().ok_or("no certificate was shown")?;
        let key = public_key_digest(own).map_err(|error| error.to_string())?;
        let latest = self.0.latest().ok_or("no configuration is published yet")?;
        match latest.configuration.administrator(&key) {
            Some(_) => Ok(()),
            None => Err(format!("the key {key} is no administrator's")),
        }
    }
}

/// The routes of this door. `wake` rouses the publication.
pub(crate) fn admin_routes(registration: Arc<Registration>, wake: Arc<Notify>) -> Routes {
    let service = AdministrationServiceServer::new(Desk { registration, wake });
    Routes::new(service.max_decoding_message_size(2 * MAX_ACT))
}

struct Desk {
    registration: Arc<Registration>,
    wake: Arc<Notify>,
}

impl Desk {
    /// Waits until the act is in force, at most [`PUBLICATION`]; 0 if it is not by then.
    async fn number_of(&self, id: ActId) -> u64 {
        let store = &self.registration.store;
        let mut published = store.watch();
        let in_force = async {
            loop {
                // First, so that no publication between the look and the wait is missed.
                published.borrow_and_update();
                if let Some(Stage::InForce(number)) = store.lock().await.act(&id).map(|act| act.stage.clone())
                {
                    return number;
                }
                if published.changed().await.is_err() {
                    return 0;
                }
            }
        };
        tokio::time::timeout(PUBLICATION, in_force).await.unwrap_or(0)
    }
}

/// The key at the other end of the connection. The connection may be older than the configuration, so that each request
/// is judged by what is listed now.
fn caller<T>(request: &Request<T>) -> Result<Digest, Status> {
    let connection = request.extensions().get::<Connection>();
    let own = connection.and_then(|connection| connection.chain.first());
    let own = own.ok_or_else(|| Status::unauthenticated("sign in with a certificate"))?;
    public_key_digest(own).map_err(|_| Status::unauthenticated("the certificate cannot be read"))
}

#[tonic::async_trait]
impl AdministrationService for Desk {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let who = caller(&request)?;
        let act = request.into_inner().act.unwrap_or_default();
        let registration = self.registration.clone();
        let id = whole(async move { registration.apply(&who, act).await }).await?;
        Ok(Response::new(ApplyResponse { id: id.to_bytes() }))
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<ApproveResponse>, Status> {
        let who = caller(&request)?;
        let ApproveRequest { id, approver } = request.into_inner();
        let registration = self.registration.clone();
        let id = whole(async move { registration.approve(&who, &id, approver).await }).await?;
        self.wake.notify_one();
        let configuration_number = self.number_of(id).await;
        Ok(Response::new(ApproveResponse { configuration_number }))
    }

    async fn reject(&self, request: Request<RejectRequest>) -> Result<Response<RejectResponse>, Status> {
        let who = caller(&request)?;
        let RejectRequest { id, reason } = request.into_inner();
        let registration = self.registration.clone();
        whole(async move { registration.reject(&who, &id, &reason).await }).await?;
        Ok(Response::new(RejectResponse {}))
    }

    async fn list_acts(
        &self,
        request: Request<ListActsRequest>,
    ) -> Result<Response<ListActsResponse>, Status> {
        self.require_listed(&caller(&request)?)?;
        let ListActsRequest { pending_only, id } = request.into_inner();
        let registration = self.registration.clone();
        let acts = whole(async move { registration.acts(pending_only, &id).await }).await?;
        Ok(Response::new(ListActsResponse { acts }))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        self.require_listed(&caller(&request)?)?;
        let store = &self.registration.store;
        let encoded = match request.get_ref().number {
            0 => store.latest().map(|latest| latest.encoded.clone()),
            number => store.configuration(number).await,
        };
        let configuration =
            encoded.and_then(|bytes| <SignedConfiguration as prost::Message>::decode(bytes).ok());
        let configuration =
            configuration.ok_or_else(|| Status::not_found("there is no such configuration"))?;
        Ok(Response::new(GetConfigurationResponse { configuration: Some(configuration) }))
    }

    async fn create_enrolment_token(
        &self,
        request: Request<CreateEnrolmentTokenRequest>,
    ) -> Result<Response<CreateEnrolmentTokenResponse>, Status> {
        let who = caller(&request)?;
        let CreateEnrolmentTokenRequest { security_server, lifetime_ms } = request.into_inner();
        let lifetime = Duration::from_millis(lifetime_ms);
        let registration = self.registration.clone();
        let token =
            whole(async move { registration.create_token(&who, &security_server, lifetime).await }).await?;
        Ok(Response::new(CreateEnrolmentTokenResponse { token: token.as_str().to_owned() }))
    }
}

impl Desk {
    fn require_listed(&self, key: &Digest) -> Result<(), Status> {
        let latest = self.registration.store.latest();
        match latest.as_ref().and_then(|latest| latest.configuration.administrator(key)) {
            Some(_) => Ok(()),
            None => Err(Status::permission_denied("this key is no administrator's")),
        }
    }
}
