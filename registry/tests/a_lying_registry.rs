//! What somebody can do who has taken over the registry's machine, against honest administrators: show them whatever
//! there is, and never have them sign anything but what they were shown.

#![allow(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

mod network;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use network::{DAY, FRAUKE_SH, HOUR, Network, SERVER, UWE_MV, luebeck, purpose};
use tonic::{Request, Response, Status};
use trave_host::drain::Drain;
use trave_host::keys::Sign;
use trave_host::listen::{Listener, TowerToHyperService};
use trave_host::stubs::management::administration_service_server::{
    AdministrationService, AdministrationServiceServer,
};
use trave_host::tls::{self, Clients, Http};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::management::{Act, ActId, EnrolmentKeys, Role};
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::management::{
    ActEntry, ApplyRequest, ApplyResponse, ApproveRequest, ApproveResponse, CreateEnrolmentTokenRequest,
    CreateEnrolmentTokenResponse, GetConfigurationRequest, GetConfigurationResponse, ListActsRequest,
    ListActsResponse, RejectRequest, RejectResponse, SignedAct, act::Change,
};
use trave_registry::administrator::{ActReference, Administrator, AdministratorError};
use trave_registry::config::{AdministratorSettings, RegistrySettings};

/// What the liar shows, and what it was given.
#[derive(Default)]
struct Lies {
    act: Mutex<SignedAct>,
    configuration: Mutex<SignedConfiguration>,
    applied: Mutex<Vec<SignedAct>>,
    approved: Mutex<Vec<ApproveRequest>>,
}

impl Lies {
    fn show(&self, act: &SignedAct) {
        *self.act.lock().unwrap() = act.clone();
    }

    fn nothing_was_signed(&self) -> bool {
        self.applied.lock().unwrap().is_empty() && self.approved.lock().unwrap().is_empty()
    }
}

struct Liar(Arc<Lies>);

#[tonic::async_trait]
impl AdministrationService for Liar {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        self.0.applied.lock().unwrap().push(request.into_inner().act.unwrap());
        Ok(Response::new(ApplyResponse::default()))
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Result<Response<ApproveResponse>, Status> {
        self.0.approved.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ApproveResponse { configuration_number: 2 }))
    }

    async fn reject(&self, _: Request<RejectRequest>) -> Result<Response<RejectResponse>, Status> {
        Ok(Response::new(RejectResponse {}))
    }

    async fn list_acts(&self, _: Request<ListActsRequest>) -> Result<Response<ListActsResponse>, Status> {
        let act = Some(self.0.act.lock().unwrap().clone());
        let applicant = "Frauke Hansen".into();
        let entry = ActEntry { act, state: "applied".into(), applicant, ..Default::default() };
        Ok(Response::new(ListActsResponse { acts: vec![entry] }))
    }

    async fn get_configuration(
        &self,
        _: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        let configuration = Some(self.0.configuration.lock().unwrap().clone());
        Ok(Response::new(GetConfigurationResponse { configuration }))
    }

    async fn create_enrolment_token(
        &self,
        _: Request<CreateEnrolmentTokenRequest>,
    ) -> Result<Response<CreateEnrolmentTokenResponse>, Status> {
        Err(Status::unimplemented("there are no tokens here"))
    }
}

/// An instance whose registry was replaced by a liar with the registry's own keys, and its second administrator.
struct Scene {
    network: Network,
    lies: Arc<Lies>,
    uwe: Administrator,
    frauke: AdministratorSettings,
    _drain: Drain,
}

impl Scene {
    async fn new() -> Self {
        let network = Network::new();
        let (registry, cosigner) = network.start().await;
        let (honest, _) = network.administrator(FRAUKE_SH).await.configuration(0).await.unwrap();
        registry.stop().await;
        cosigner.stop().await;
        let lies = Arc::new(Lies::default());
        *lies.configuration.lock().unwrap() = honest.signed().clone();
        let identity = RegistrySettings::load(&network.instance.registry).unwrap().identity;
        let tls = tls::Server::new(identity, Clients::Anonymous, Http::Two, network.clock()).unwrap();
        let listener = Listener::tls(network.ceremony.admin_listen, tls).await.unwrap();
        let routes = tonic::service::Routes::new(AdministrationServiceServer::new(Liar(lies.clone())));
        let drain = Drain::new();
        drain.spawn(listener.serve(drain.clone(), move |_| TowerToHyperService::new(routes.clone())));
        let uwe = network.administrator(UWE_MV).await;
        let frauke = network.settings(FRAUKE_SH);
        Self { network, lies, uwe, frauke, _drain: drain }
    }

    fn act(&self, id: u8, change: Change) -> Act {
        let id = ActId::from_bytes([id; 16]);
        Act::new("NORD", change, id, self.network.clock.now(), DAY).unwrap()
    }

    /// As Frauke applied for it.
    fn applied(&self, act: &Act) -> SignedAct {
        let key = &self.frauke.key;
        let applicant =
            act.sign(Role::Applicant, key.public_key_info(), |content| key.sign(content)).unwrap();
        SignedAct { act: act.bytes().clone(), applicant: Some(applicant), approver: None }
    }

    /// Whether the only approval that was given is one of this act.
    fn approved_alone(&self, act: &Act) -> bool {
        let mut given = self.lies.approved.lock().unwrap();
        let [given] = &std::mem::take(&mut *given)[..] else { return false };
        let configuration = &self.lies.configuration.lock().unwrap().configuration;
        let configuration = <GlobalConfiguration as prost::Message>::decode(configuration.clone()).unwrap();
        let signed = SignedAct { approver: given.approver.clone(), ..self.applied(act) };
        let authority = trave_proto::management::Authority::of(&configuration).unwrap();
        authority.verify(&signed, self.network.clock.now()).is_ok()
    }
}

fn enrolment(byte: u8) -> (Change, String) {
    let keys = EnrolmentKeys {
        server: SERVER.into(),
        authentication_key: Digest::of(&[byte]),
        signing_key: Digest::of(&[byte, 1]),
        log_origin: format!("{SERVER}/log/1"),
        log_key: [byte; 32],
    };
    (Change::EnrolSecurityServer(keys.to_change()), keys.fingerprint())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_displayed_is_signed_and_never_what_stands_there_afterwards() {
    let mut scene = Scene::new().await;
    let (harmless, harmful) = (scene.act(1, purpose("ummeldung")), scene.act(1, luebeck()));
    scene.lies.show(&scene.applied(&harmless));
    let shown = scene.uwe.pending(harmless.id()).await.unwrap();
    assert_eq!((shown.act.digest(), shown.applicant.as_str()), (harmless.digest(), "Frauke Hansen"));
    scene.lies.show(&scene.applied(&harmful));
    assert_eq!(scene.uwe.approve(&shown, None).await.unwrap(), 2);
    assert!(scene.approved_alone(&harmless), "another act was signed than the one displayed");

    let exchanged = scene.uwe.approve(ActReference::from(&harmless), None).await;
    assert!(matches!(exchanged, Err(AdministratorError::Exchanged { .. })), "{exchanged:?}");
    let unseen = scene.uwe.approve(harmless.id(), None).await;
    assert!(matches!(unseen, Err(AdministratorError::Unseen(_))), "{unseen:?}");
    assert!(scene.lies.nothing_was_signed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_signs_the_enrolment_of_those_keys_and_nothing_else() {
    let mut scene = Scene::new().await;
    let (change, fingerprint) = enrolment(7);
    let (wanted, other) = (scene.act(1, change), scene.act(1, enrolment(8).0));
    let harmful = scene.act(1, luebeck());
    for lie in [&harmful, &other] {
        scene.lies.show(&scene.applied(lie));
        let shown = scene.uwe.pending(wanted.id()).await.unwrap();
        assert!(scene.uwe.approve(wanted.id(), Some(&fingerprint)).await.is_err());
        assert!(scene.uwe.approve(&shown, Some(&fingerprint)).await.is_err());
        assert!(scene.uwe.apply_for_enrolment(wanted.id(), &fingerprint).await.is_err());
        assert!(scene.uwe.apply_for_enrolment(&shown, &fingerprint).await.is_err());
        assert!(scene.lies.nothing_was_signed(), "{:?}", lie.change());
    }
    let mut malformed = enrolment(7).0;
    if let Change::EnrolSecurityServer(enrolment) = &mut malformed {
        enrolment.log = None;
    }
    scene.lies.show(&scene.applied(&scene.act(1, malformed)));
    let shown = scene.uwe.pending(wanted.id()).await.unwrap();
    let refused = scene.uwe.approve(&shown, None).await;
    assert!(matches!(refused, Err(AdministratorError::MalformedEnrolment(_))), "{refused:?}");
    assert!(scene.lies.nothing_was_signed());

    scene.lies.show(&scene.applied(&wanted));
    scene.uwe.approve(wanted.id(), Some(&fingerprint)).await.unwrap();
    assert!(scene.approved_alone(&wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applicant_counts_only_with_a_signature_that_the_configuration_knows() {
    let mut scene = Scene::new().await;
    let act = scene.act(1, purpose("ummeldung"));
    let applied = scene.applied(&act);
    let reference = ActReference::from(&act);
    let mut forged = applied.clone();
    forged.applicant.as_mut().unwrap().value = Bytes::from_static(b"not hers");
    scene.lies.show(&forged);
    assert!(matches!(scene.uwe.pending(reference).await, Err(AdministratorError::Act(_))));
    assert!(matches!(scene.uwe.approve(reference, None).await, Err(AdministratorError::Act(_))));
    scene.lies.show(&SignedAct { applicant: None, ..applied.clone() });
    assert_eq!(scene.uwe.pending(reference).await.unwrap().applicant, "", "the registry's word is not shown");
    assert!(matches!(scene.uwe.approve(reference, None).await, Err(AdministratorError::NotApplied(_))));

    // By a configuration that was in force a day ago, nobody is an administrator.
    scene.lies.show(&applied);
    scene.network.clock.advance(24 * HOUR + HOUR / 60);
    let act = scene.act(1, purpose("ummeldung"));
    scene.lies.show(&scene.applied(&act));
    let expired = scene.uwe.approve(ActReference::from(&act), None).await;
    assert!(matches!(expired, Err(AdministratorError::NotCurrent(_))), "{expired:?}");
    assert!(scene.lies.nothing_was_signed());
}
