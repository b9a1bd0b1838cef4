//! What administrators can change, alone and together, over real sockets and disks.

mod network;

use std::time::Duration;

use network::{
    DAY, FRAUKE_SH, HINNERK_SH, HOUR, Network, UWE_MV, apply, decide, declined, luebeck, purpose, server,
};
use trave_proto::schema::management::act::Change;
use trave_registry::administrator::{Administrator, AdministratorError};
use trave_registry::config::AdministratorSettings;

#[tokio::test(flavor = "multi_thread")]
async fn what_two_administrators_decide_comes_into_force_and_survives_a_restart() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    assert_eq!(decide(&mut frauke, &mut uwe, purpose("ummeldung")).await, 2);
    let waiting = apply(&mut uwe, purpose("zuzug")).await;
    let (configuration, _) = frauke.configuration(0).await.unwrap();
    assert!(configuration.purpose("ummeldung").is_some() && configuration.purpose("zuzug").is_none());
    assert_eq!(configuration.acts().len(), 1);
    let (first, _) = frauke.configuration(1).await.unwrap();
    assert_eq!(configuration.follows(&first), Ok(()));

    registry.stop().await;
    let registry = network.registry().await;
    assert_eq!(registry.number(), 2);
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let shown = frauke.acts(false).await.unwrap();
    let states: Vec<_> = shown.iter().map(|act| (act.state.as_str(), act.applicant.as_str())).collect();
    assert_eq!(states, [("in_force", "Frauke Hansen"), ("applied", "Uwe Schulz")]);
    assert_eq!(frauke.approve(waiting, None).await.unwrap(), 3);
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_alone_and_one_state_alone_decide_nothing() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut hinnerk = network.administrator(HINNERK_SH).await;
    let id = apply(&mut frauke, purpose("ummeldung")).await;
    let alone = declined(frauke.approve(id, None).await);
    assert!(alone.contains("Frauke Hansen applied for this act and cannot approve it"), "{alone}");
    let one_state = declined(hinnerk.approve(id, None).await);
    assert!(one_state.contains("both act for SH"), "{one_state}");
    assert_eq!(registry.number(), 1);

    hinnerk.reject(id, "not needed").await.unwrap();
    let rejected = network.administrator(UWE_MV).await.approve(id, None).await;
    assert!(matches!(rejected, Err(AdministratorError::UnknownAct(_))));
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_removed_administrators_are_not_let_in() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    // Of the same name, with a certificate of the same form, from an instance that is not this one.
    let elsewhere = Network::new().settings(UWE_MV);
    let settings = AdministratorSettings {
        registry: network.ceremony.admin_listen.to_string(),
        registry_key: network.settings(UWE_MV).registry_key,
        ..elsewhere
    };
    let answer = match Administrator::connect(settings, network.clock()).await {
        Ok(mut stranger) => stranger.acts(false).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(answer.is_err(), "a stranger signed in");

    let mut hinnerk = network.administrator(HINNERK_SH).await;
    hinnerk.acts(true).await.unwrap();
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    let remove = Change::RemoveAdministrator("Hinnerk Petersen".into());
    assert_eq!(decide(&mut frauke, &mut uwe, remove).await, 2);
    let removed = declined(hinnerk.acts(true).await);
    assert!(removed.contains("no administrator's"), "also over a connection that stands: {removed}");
    let removed = declined(hinnerk.apply(purpose("x"), DAY).await);
    assert!(removed.contains("not a listed administrator"), "{removed}");
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_out_is_said_to_the_applicant() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    let early = declined(frauke.apply(server(), DAY).await);
    assert!(early.contains("is of a member that is not registered"), "{early}");
    let member = apply(&mut frauke, luebeck()).await;
    let server = apply(&mut frauke, server()).await;
    let order = declined(uwe.approve(server, None).await);
    assert!(order.contains("is of a member that is not registered"), "{order}");
    assert_eq!(uwe.approve(member, None).await.unwrap(), 2);
    assert_eq!(uwe.approve(server, None).await.unwrap(), 3);
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cosigner_approved_acts_wait_and_are_published_once_it_is_back() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    cosigner.stop().await;
    let id = apply(&mut frauke, purpose("ummeldung")).await;
    assert_eq!(uwe.approve(id, None).await.unwrap(), 0, "approved, not published");
    let shown = frauke.pending(id).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.approver.as_str()), ("approved", "Uwe Schulz"));
    assert_eq!(registry.number(), 1);
    // The registry restarts in between: the proposal stays the same.
    registry.stop().await;
    let registry = network.registry().await;
    let cosigner = network.cosigner().await;
    assert!(registry.published(2, Duration::from_secs(20)).await);
    assert!(network.configuration().await.purpose("ummeldung").is_some());
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_renewed_before_half_of_its_validity_and_expired_acts_never_come_into_force() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let id = frauke.apply(purpose("ummeldung"), HOUR).await.unwrap();
    network.clock.advance(12 * HOUR);
    assert!(registry.published(2, Duration::from_secs(20)).await);
    let renewed = network.configuration().await;
    assert_eq!(renewed.check_current(trave_proto::clock::Clock::now(&*network.clock), None), Ok(()));
    assert!(renewed.acts().is_empty());
    let late = network.administrator(UWE_MV).await.approve(id, None).await;
    assert!(matches!(late, Err(AdministratorError::UnknownAct(_))), "expired: {late:?}");
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_act_is_withdrawn_or_fails_and_holds_up_no_other() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    assert_eq!(decide(&mut frauke, &mut uwe, luebeck()).await, 2);
    cosigner.stop().await;
    let mut approved = Vec::new();
    let remove = Change::RemoveMember("NORD/SH/luebeck".into());
    for change in [purpose("a"), purpose("b"), remove, server(), purpose("c")] {
        let act = apply(&mut frauke, change).await;
        assert_eq!(uwe.approve(act, None).await.unwrap(), 0, "no cosigner is there");
        approved.push(act);
    }
    let late = declined(uwe.reject(approved[0], "too late").await);
    assert!(late.contains("cannot be rejected any more"), "{late}");
    uwe.reject(approved[1], "not needed").await.unwrap();

    let cosigner = network.cosigner().await;
    assert!(registry.published(4, Duration::from_secs(60)).await);
    let shown = frauke.acts(false).await.unwrap();
    let states: Vec<_> = shown[1..].iter().map(|act| act.state.as_str()).collect();
    assert_eq!(states, ["in_force", "rejected", "in_force", "failed", "in_force"]);
    let configuration = network.configuration().await;
    assert!(configuration.purpose("b").is_none() && configuration.purpose("c").is_some());
    registry.stop().await;
    let registry = network.registry().await;
    let again = network.administrator(FRAUKE_SH).await.acts(false).await.unwrap();
    assert_eq!(again[4].state, "failed", "the log says so");
    registry.stop().await;
    cosigner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_administrator_cannot_take_the_room_of_the_others() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    for i in 0..100 {
        apply(&mut frauke, purpose(&format!("p{i}"))).await;
    }
    let full = declined(frauke.apply(purpose("p100"), DAY).await);
    assert!(full.contains("too many acts of yours"), "{full}");
    let mut uwe = network.administrator(UWE_MV).await;
    let act = apply(&mut uwe, purpose("zuzug")).await;
    assert_eq!(frauke.approve(act, None).await.unwrap(), 2);
    registry.stop().await;
    cosigner.stop().await;
}
