//! Who audits is in the global configuration: withdrawn there, an auditor is refused, also on a connection that stands; and
//! the operator of a server narrows it, and lets nobody in.

use tonic::Code;
use trave_proto::schema::audit::WhoAmIRequest;
use trave_proto::schema::configuration::Auditor;
use trave_tests::network::Instance;

use super::{Client, all, audited, ids, raw_scan, search, sign_in, six};

/// Publishes a configuration that the register's server has first; the agency's learns of it when it asks there.
async fn publish(instance: &mut Instance, change: impl FnOnce(&mut Vec<Auditor>)) {
    instance.configuration = instance.next_configuration(|next| {
        change(&mut next.auditors);
        if next.auditors.is_empty() {
            next.version = 1;
        }
    });
    instance.mv.stop().await;
    instance.mv.put_configuration(&instance.configuration);
    instance.mv.start().await.unwrap();
    assert_eq!(instance.ask(b"mit der neuen").await.status(), 0);
}

async fn who_am_i(client: &mut Client) -> Result<(Vec<String>, Vec<String>, bool), Code> {
    let told = client.who_am_i(WhoAmIRequest {}).await.map_err(|status| status.code())?.into_inner();
    Ok((told.classes, told.members, told.contents))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_auditor_is_refused_at_the_next_configuration_and_nobody_else() {
    let mut instance = audited().await;
    let (mut sh, mut mv) =
        (sign_in(&instance.sh, "rechnungshof-sh").await, sign_in(&instance.sh, "rechnungshof-mv").await);
    assert_eq!(search(&mut sh, all()).await.unwrap().0, []);
    publish(&mut instance, |auditors| auditors.retain(|auditor| auditor.name != "rechnungshof-sh")).await;
    // The connection stands, and is of no use any more; a new one comes to nothing.
    let refused = search(&mut sh, all()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert_eq!(who_am_i(&mut sh).await, Err(Code::Unauthenticated));
    assert!(raw_scan(&mut sh, 0, 1).await.is_err());
    let door = instance.sh.running().auditors.unwrap().to_string();
    let tls = instance.sh.auditors_tls("rechnungshof-sh", trave_host::tls::Http::Two);
    if let Ok(channel) = trave_host::client::Channel::tls(&door, &tls).await {
        assert!(search(&mut Client::new(channel), all()).await.is_err());
    }
    assert_eq!(search(&mut mv, all()).await.unwrap().0.len(), 1, "the others go on");
    // Registered anew with another scope: that holds at once, on the connection that stands.
    let back = instance.sh.auditor("rechnungshof-sh", &[], &["NORD/SH/kiel"]);
    publish(&mut instance, |auditors| {
        auditors.push(back);
        auditors.sort_by(|one, other| one.name.cmp(&other.name));
    })
    .await;
    assert_eq!(who_am_i(&mut sh).await, Ok((vec![], vec!["NORD/SH/kiel".into()], false)));
    assert_eq!(search(&mut sh, all()).await.unwrap().0, []);
    assert_eq!(search(&mut mv, all()).await.unwrap().0.len(), 2);
    publish(&mut instance, Vec::clear).await;
    assert_eq!(who_am_i(&mut mv).await, Err(Code::Unauthenticated), "nobody is left");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_narrows_who_audits_and_lets_nobody_in() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let listed = |name: &str, more: &str| format!("[[auditors.auditor]]\nname = \"{name}\"\n{more}\n");
    // The one of before, who was pinned in the file; one with more than was registered; one whom nobody registered.
    let text = listed(
        "rechnungshof-sh",
        "role = \"auditor\"\ncertificate = \"rechnungshof-sh.pem\"\nclasses = [\"NORD/SH\"]",
    ) + &listed("luebeck", "classes = [\"NORD/SH\", \"NORD/MV\"]\ncontents = true")
        + &listed("rechnungshof-mv", "members = [\"NORD/SH/luebeck\"]")
        + &listed("kiel", "certificate = \"fremd.pem\"")
        + &listed("datenschutz", "role = \"auditor\"")
        + &listed("fremd", "certificate = \"fremd.pem\"\nclasses = [\"NORD/SH\"]");
    let auditors = Instance::unsigned(&instance.configuration).auditors;
    instance.open_for_auditors(auditors, |config| config + &text).await;
    let (class, member) = (|class: &str| vec![class.to_owned()], |member: &str| vec![member.to_owned()]);
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(
        who_am_i(&mut sh).await,
        Ok((class("NORD/SH"), vec![], false)),
        "contents were not granted here"
    );
    assert_eq!(ids(&search(&mut sh, all()).await.unwrap().0).len(), asked.len());
    let mut luebeck = sign_in(&instance.sh, "luebeck").await;
    assert_eq!(who_am_i(&mut luebeck).await, Ok((vec![], member("NORD/SH/luebeck"), false)));
    // A member of another class than the registered one: nothing is left.
    let mut mv = sign_in(&instance.sh, "rechnungshof-mv").await;
    assert_eq!(who_am_i(&mut mv).await, Ok((vec![], vec![], false)));
    assert_eq!(search(&mut mv, all()).await.unwrap().0, []);
    for (name, why) in [
        ("anderswo", "not listed here"),
        ("kiel", "another key is pinned here"),
        ("datenschutz", "another role"),
        ("fremd", "nobody registered it"),
    ] {
        let door = instance.sh.running().auditors.unwrap().to_string();
        let tls = instance.sh.auditors_tls(name, trave_host::tls::Http::Two);
        if let Ok(channel) = trave_host::client::Channel::tls(&door, &tls).await {
            let mut client = Client::new(channel);
            assert!(who_am_i(&mut client).await.is_err(), "{name}: {why}");
        }
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_configuration_nobody_audits() {
    let mut instance = audited().await;
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    assert_eq!(search(&mut sh, all()).await.unwrap().0, []);
    instance.advance(std::time::Duration::from_secs(73 * 60 * 60));
    let refused = search(&mut sh, all()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("ended"), "{refused}");
    instance.stop().await;
}
