//! Who audits, two administrators of both states decide, and both configuration keys sign. What root on the registry's machine cannot
//! do, `root_on_the_registry.rs` tells.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod network;

use bytes::Bytes;
use network::{DAY, FRAUKE_SH, HINNERK_SH, Network, UWE_MV, decide, declined};
use trave_proto::digest::Digest;
use trave_proto::global_configuration::AuditorRole;
use trave_proto::schema::configuration as schema;
use trave_proto::schema::management::act::Change;

fn auditor(name: &str, key: u8) -> schema::Auditor {
    schema::Auditor {
        name: name.into(),
        role: schema::AuditorRole::Auditor.into(),
        key: Bytes::from(vec![key; 32]),
        // Not in order: the change puts it in order.
        classes: vec!["NORD/SH".into(), "NORD/MV".into()],
        members: Vec::new(),
        contents: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_is_registered_and_withdrawn_by_two_administrators() {
    let network = Network::new();
    let (registry, cosigner) = network.start().await;
    let mut frauke = network.administrator(FRAUKE_SH).await;
    let mut uwe = network.administrator(UWE_MV).await;
    let change = Change::PutAuditor(auditor("LRH SH", 1));
    // One alone decides nothing; nor two of the same state.
    let applied = frauke.apply(change.clone(), DAY).await.unwrap();
    assert!(declined(frauke.approve(applied, None).await).contains("applied for this act"));
    let mut hinnerk = network.administrator(HINNERK_SH).await;
    assert!(declined(hinnerk.approve(applied, None).await).contains("another class"));
    assert_eq!(network.configuration().await.auditors().count(), 0);
    let number = uwe.approve(applied, None).await.unwrap();
    let configuration = network.configuration().await;
    assert_eq!(configuration.number(), number);
    let entry = configuration.auditor(&Digest::from_slice(&[1; 32]).unwrap()).unwrap();
    assert_eq!((entry.name.as_str(), entry.role, entry.contents), ("LRH SH", AuditorRole::Auditor, true));
    assert_eq!(entry.classes, ["NORD/MV", "NORD/SH"]);
    assert_eq!(configuration.signed().signatures.len(), 2, "both states signed it");
    // Nobody else gets the same key, and what sees nothing is no auditor.
    let twin = Change::PutAuditor(auditor("LRH MV", 1));
    assert!(declined(frauke.apply(twin, DAY).await).contains("auditors"));
    let blind = schema::Auditor { classes: Vec::new(), ..auditor("LRH MV", 2) };
    assert!(declined(frauke.apply(Change::PutAuditor(blind), DAY).await).contains("would see nothing"));
    decide(&mut frauke, &mut uwe, Change::RemoveAuditor("LRH SH".into())).await;
    let configuration = network.configuration().await;
    assert_eq!((configuration.auditors().count(), configuration.number()), (0, number + 1));
    registry.stop().await;
    cosigner.stop().await;
}
