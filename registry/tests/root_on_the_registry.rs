//! What somebody can do who has taken over the registry's machine, with every key that lies there: nothing that a
//! security server would adopt.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure of the helpers is a failure of the test"
)]

mod network;

use std::time::Duration;

use bytes::Bytes;
use network::{DAY, FRAUKE_SH, Network, UWE_MV, decide, purpose};
use prost::Message;
use tonic::{Code, Status};
use trave_host::client::Channel;
use trave_host::keys::{Sign, SigningKey};
use trave_host::stubs::management::cosigner_service_client::CosignerServiceClient;
use trave_host::tls::{self, Http, Pinned};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Configuration, sign_configuration};
use trave_proto::management::{Act, ActId, Role, Validity, follow};
use trave_proto::schema::configuration::{
    Administrator, Auditor, AuditorRole, GlobalConfiguration, SignedConfiguration,
};
use trave_proto::schema::management::{CosignRequest, SignedAct, act::Change};
use trave_registry::config::{CosignerSettings, RegistrySettings};
use trave_registry::cosigner::{Cosigner, CosignerError, KeepingError};

/// Root on the registry's machine: its keys, its TLS identity, its log.
struct Root<'n> {
    network: &'n Network,
    settings: RegistrySettings,
    client: CosignerServiceClient<Channel>,
}

impl<'n> Root<'n> {
    async fn new(network: &'n Network) -> Self {
        let settings = RegistrySettings::load(&network.instance.registry).unwrap();
        let cosigner = settings.cosigners[0].clone();
        let policy = std::sync::Arc::new(Pinned::new([cosigner.key]));
        let identity = Some(settings.identity.clone());
        let tls = tls::Client::new(identity, policy, Http::Two, network.clock()).unwrap();
        let channel = Channel::tls(&cosigner.address, &tls).await.unwrap();
        Self { network, settings, client: CosignerServiceClient::new(channel) }
    }

    fn sign(&self, configuration: &GlobalConfiguration) -> SignedConfiguration {
        let bytes = Bytes::from(configuration.encode_to_vec());
        let own =
            sign_configuration(&bytes, &self.settings.key_name, |content| self.settings.key.sign(content));
        SignedConfiguration { configuration: bytes, signatures: vec![own] }
    }

    /// Asks the cosigner, as the registry would.
    async fn ask(&mut self, configuration: &GlobalConfiguration, acts: &[SignedAct]) -> Result<(), Status> {
        let proposed = Some(self.sign(configuration));
        let request = CosignRequest { proposed, acts: acts.to_vec(), missed: Vec::new() };
        let answer = self.client.cosign(request).await?.into_inner();
        assert!(answer.signature.is_some());
        Ok(())
    }

    async fn refused(&mut self, configuration: &GlobalConfiguration, acts: &[SignedAct]) -> String {
        let status = self.ask(configuration, acts).await.expect_err("the cosigner signed");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        status.message().to_owned()
    }

    /// What would follow without any act.
    fn next(&self, previous: &GlobalConfiguration) -> GlobalConfiguration {
        follow(previous, &[], self.validity()).unwrap()
    }

    fn validity(&self) -> Validity {
        let issued = self.network.clock.now();
        Validity { issued, until: issued.plus(DAY) }
    }
}

/// What root would like to be signed.
type Forgery<'f> = &'f dyn Fn(&mut GlobalConfiguration);

fn mallory() -> (SigningKey, Administrator) {
    let key = SigningKey::generate().unwrap();
    let public_key = Bytes::copy_from_slice(key.public_key_info());
    let digest = key.public_key_digest().to_bytes();
    (key, Administrator { name: "Mallory".into(), class: "MV".into(), key: digest, public_key })
}

#[tokio::test(flavor = "multi_thread")]
async fn root_on_the_registry_alone_cannot_make_a_configuration_nor_have_one_signed() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    decide(&mut frauke, &mut uwe, purpose("ummeldung")).await;
    let (_, current) = frauke.configuration(0).await.unwrap();
    let used = frauke.acts(false).await.unwrap().remove(0).signed;
    let mut root = Root::new(&network).await;

    // With its own key alone: no security server adopts that.
    let mut forged = root.next(&current);
    forged.administrators.insert(0, mallory().1);
    forged.administrators.sort_by(|a, b| a.name.cmp(&b.name));
    let signed = root.sign(&forged);
    assert!(Configuration::verify(&signed, &root.settings.anchor).is_err());
    let mut twice = signed.clone();
    twice.signatures.push(twice.signatures[0].clone());
    twice.signatures[1].key = "cosigner-mv".into();
    assert!(Configuration::verify(&twice, &root.settings.anchor).is_err());

    // A change without an act.
    let text = root.refused(&forged, &[]).await;
    assert!(text.contains("not what follows"), "{text}");
    let mut hidden = root.next(&current);
    hidden.acts.push(Digest::of(b"an act that is not shown").to_bytes());
    assert!(root.refused(&hidden, &[]).await.contains("not what follows"));

    // Acts that one administrator signed, or nobody who is one.
    let (key, mallory) = mallory();
    let id = |byte| ActId::from_bytes([byte; 16]);
    let act = Act::new("NORD", Change::PutAdministrator(mallory), id(1), network.clock.now(), DAY).unwrap();
    let by_root = |role| Some(act.sign(role, key.public_key_info(), |content| key.sign(content)).unwrap());
    let both = SignedAct {
        act: act.bytes().clone(),
        applicant: by_root(Role::Applicant),
        approver: by_root(Role::Approver),
    };
    assert!(root.refused(&forged, std::slice::from_ref(&both)).await.contains("not a listed administrator"));
    let applied = frauke.apply(purpose("neugier"), DAY).await.unwrap();
    let applied = frauke.pending(applied).await.unwrap().signed;
    let half = SignedAct { approver: by_root(Role::Approver), ..applied.clone() };
    assert!(root.refused(&root.next(&current), &[half]).await.contains("not a listed administrator"));
    let reused = SignedAct { approver: applied.applicant.clone(), ..applied };
    let text = root.refused(&root.next(&current), &[reused]).await;
    assert!(text.contains("does not hold"), "an application is no approval: {text}");

    // An act that came into force before: to undo what was decided since.
    let again = follow(&current, std::slice::from_ref(&used), root.validity()).unwrap();
    assert!(root.refused(&again, &[used]).await.contains("came into force already"));

    // A second configuration of a number, an older one, a far future, an endless validity.
    let mut twin = current.clone();
    twin.valid_until_ms += 1;
    assert!(root.refused(&twin, &[]).await.contains("was signed already"));
    let mut endless = root.next(&current);
    endless.valid_until_ms += 8 * 24 * 3_600_000;
    assert!(root.refused(&endless, &[]).await.contains("valid until"));
    let mut future = root.next(&current);
    (future.issued_ms, future.valid_until_ms) = (future.issued_ms + 3_600_000, future.valid_until_ms + 1);
    assert!(root.refused(&future, &[]).await.contains("issued at"));

    // All of that changed nothing: the next honest one is signed.
    let honest = root.next(&current);
    root.ask(&honest, &[]).await.unwrap();
    root.ask(&honest, &[]).await.expect("the same again is the same answer");
    let mut twin = honest;
    twin.valid_until_ms -= 1;
    assert!(root.refused(&twin, &[]).await.contains("was signed already"));
    registry.stop().await;
    cosigner.stop().await;
}

/// An auditor sees exchanges: root on the registry's machine makes none, and gives none more than was decided.
#[tokio::test(flavor = "multi_thread")]
async fn root_on_the_registry_alone_adds_no_auditor_and_widens_no_scope() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    let auditor = |name: &str, key: u8| Auditor {
        name: name.into(),
        role: AuditorRole::Auditor.into(),
        key: Bytes::from(vec![key; 32]),
        classes: vec!["NORD/SH".into()],
        ..Auditor::default()
    };
    decide(&mut frauke, &mut uwe, Change::PutAuditor(auditor("LRH SH", 1))).await;
    let (_, current) = frauke.configuration(0).await.unwrap();
    let mut root = Root::new(&network).await;
    let changes: [(&str, Forgery<'_>); 4] = [
        ("added", &|next| next.auditors.push(auditor("Mallory", 9))),
        ("widened", &|next| next.auditors[0].classes.insert(0, "NORD/MV".into())),
        ("given contents", &|next| next.auditors[0].contents = true),
        ("given another key", &|next| next.auditors[0].key = Bytes::from(vec![9; 32])),
    ];
    for (what, change) in changes {
        let mut forged = root.next(&current);
        change(&mut forged);
        let signed = root.sign(&forged);
        assert!(Configuration::verify(&signed, &root.settings.anchor).is_err(), "{what}");
        let text = root.refused(&forged, &[]).await;
        assert!(text.contains("not what follows"), "{what}: {text}");
        // With an act that root alone signed, in both roles.
        let key = SigningKey::generate().unwrap();
        let change = Change::PutAuditor(forged.auditors.last().unwrap().clone());
        let act = Act::new("NORD", change, ActId::from_bytes([7; 16]), network.clock.now(), DAY).unwrap();
        let by_root =
            |role| Some(act.sign(role, key.public_key_info(), |content| key.sign(content)).unwrap());
        let (applicant, approver) = (by_root(Role::Applicant), by_root(Role::Approver));
        let signed = SignedAct { act: act.bytes().clone(), applicant, approver };
        let text = root.refused(&forged, std::slice::from_ref(&signed)).await;
        assert!(text.contains("not a listed administrator"), "{what}: {text}");
    }
    assert_eq!(network.configuration().await.auditors().count(), 1);
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigner_that_restarts_still_signs_no_number_twice() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let (_, current) = network.administrator(FRAUKE_SH).await.configuration(0).await.unwrap();
    registry.stop().await;
    let mut root = Root::new(&network).await;
    let next = root.next(&current);
    root.ask(&next, &[]).await.unwrap();
    cosigner.stop().await;
    let cosigner = network.cosigner().await;
    let mut root = Root::new(&network).await;
    root.ask(&next, &[]).await.expect("the answer was lost and is given again");
    let mut twin = next;
    twin.valid_until_ms -= 1;
    assert!(root.refused(&twin, &[]).await.contains("was signed already"));
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigner_begins_with_no_other_configuration_than_the_one_of_the_ceremony() {
    let network = Network::new();
    let cosigner = network.cosigner().await;
    let mut root = Root::new(&network).await;
    let mut genesis = GlobalConfiguration::decode(root.settings.genesis.clone()).unwrap();
    genesis.administrators.push(mallory().1);
    genesis.administrators.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(root.refused(&genesis, &[]).await.contains("agreed on at the ceremony"));
    let (genesis, second) = {
        let genesis = GlobalConfiguration::decode(root.settings.genesis.clone()).unwrap();
        (genesis.clone(), root.next(&genesis))
    };
    let behind = root.ask(&second, &[]).await.unwrap_err();
    assert_eq!(behind.code(), Code::FailedPrecondition, "{behind}");
    root.ask(&genesis, &[]).await.unwrap();
    root.ask(&second, &[]).await.unwrap();
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_grew_old_is_replaced_by_a_new_one() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    cosigner.stop().await;
    let id = frauke.apply(purpose("ummeldung"), DAY).await.unwrap();
    assert_eq!(uwe.approve(id, None).await.unwrap(), 0);
    network.clock.advance(Duration::from_secs(3600));
    let cosigner = network.cosigner().await;
    assert!(registry.published(2, Duration::from_secs(60)).await);
    let configuration = network.configuration().await;
    assert_eq!(configuration.issued(), network.clock.now(), "proposed anew");
    assert!(configuration.purpose("ummeldung").is_some());
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_registry_reaches_the_cosigner() {
    let network = Network::new();
    let cosigner = network.cosigner().await;
    let stranger = network.settings(FRAUKE_SH).identity;
    let key = RegistrySettings::load(&network.instance.registry).unwrap().cosigners[0].key;
    let policy = std::sync::Arc::new(Pinned::new([key]));
    let tls = tls::Client::new(Some(stranger), policy, Http::Two, network.clock()).unwrap();
    let answer = match Channel::tls(&cosigner.address().to_string(), &tls).await {
        Ok(channel) => CosignerServiceClient::new(channel).cosign(CosignRequest::default()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answer, "a stranger was answered");
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigner_that_lost_its_memory_does_not_start_as_if_it_had_signed_nothing() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    registry.stop().await;
    let settings = || CosignerSettings::load(&network.instance.cosigner).unwrap();
    let second = Cosigner::start(settings(), network.clock()).await.map(|_| ()).unwrap_err();
    assert!(matches!(second, CosignerError::Memory(KeepingError::InUse { .. })), "{second:?}");
    cosigner.stop().await;
    let state = settings().state;
    assert!(Cosigner::begin(&settings()).is_err(), "a memory that is there stays");
    std::fs::remove_file(&state).unwrap();
    let lost = Cosigner::start(settings(), network.clock()).await.map(|_| ()).unwrap_err();
    assert!(matches!(lost, CosignerError::Memory(KeepingError::Missing { .. })), "{lost:?}");
    Cosigner::begin(&settings()).unwrap();
    network.cosigner().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigner_that_fell_behind_is_shown_what_it_missed() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    let state = CosignerSettings::load(&network.instance.cosigner).unwrap().state;
    let backup = std::fs::read(&state).unwrap();
    assert_eq!(decide(&mut frauke, &mut uwe, purpose("ummeldung")).await, 2);
    assert_eq!(decide(&mut frauke, &mut uwe, purpose("zuzug")).await, 3);
    cosigner.stop().await;
    std::fs::write(&state, backup).unwrap();
    let cosigner = network.cosigner().await;
    assert_eq!(decide(&mut frauke, &mut uwe, purpose("auszug")).await, 4);
    registry.stop().await;
    cosigner.stop().await;
}
