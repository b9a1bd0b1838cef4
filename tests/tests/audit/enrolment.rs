//! Who audits is in the global configuration: withdrawn there, an auditor is refused, also on a connection that stands; and
//! the operator of a server narrows it, and lets nobody in.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tonic::Code;
use trave_message_log::Entry as Record;
use trave_proto::schema::audit::{ExportRequest, ScanRequest, WhoAmIRequest};
use trave_proto::schema::configuration::Auditor;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::schema::log::{Leaf, LogRead};
use trave_tests::network::{Instance, START};

use super::{Client, all, audited, ids, raw_scan, reads, search, sign_in, six};

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
    instance.advance(Duration::from_secs(73 * 60 * 60));
    let refused = search(&mut sh, all()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("ended"), "{refused}");
    instance.stop().await;
}

/// What an auditor may see of any log, and as large as a usual record: so many that no buffer between holds them all.
const LEAVES: u64 = 30_000;

async fn fill(instance: &mut Instance) {
    instance.sh.stop().await;
    let log = instance.sh.open_log();
    let mut left = LEAVES;
    while left > 0 {
        let (some, mut last) = (left.min(4_000), None);
        for _ in 0..some {
            let read =
                LogRead { reader: "hof (auditor)".into(), reason: "x".repeat(400), ..LogRead::default() };
            let leaf = Leaf::of(START.as_millis(), LeafEntry::Read(read));
            last = Some(log.append(Record::new(leaf), ()).unwrap());
        }
        last.unwrap().await.unwrap();
        left -= some;
    }
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    instance.sh.start().await.unwrap();
}

/// Withdraws the auditor of the agency's state.
async fn withdraw(instance: &mut Instance) {
    publish(instance, |auditors| auditors.retain(|auditor| auditor.name != "rechnungshof-sh")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_auditor_is_cut_off_in_the_midst_of_a_scan() {
    let mut instance = audited().await;
    fill(&mut instance).await;
    let request = |to| ScanRequest { to, reason: "Vollständigkeit".into(), ..ScanRequest::default() };
    let size = instance.sh.size();
    assert!(size > LEAVES);
    let (mut sh, mut mv) =
        (sign_in(&instance.sh, "rechnungshof-sh").await, sign_in(&instance.sh, "rechnungshof-mv").await);
    let mut cut_off = sh.scan(request(size)).await.unwrap().into_inner();
    let mut goes_on = mv.scan(request(size)).await.unwrap().into_inner();
    for _ in 0..100 {
        assert!(cut_off.message().await.unwrap().is_some() && goes_on.message().await.unwrap().is_some());
    }
    withdraw(&mut instance).await;
    // What had left the server by then arrives; nothing else does.
    let (since, mut leaves, mut bytes) = (Instant::now(), 0, 0);
    let refused = loop {
        match cut_off.message().await {
            Ok(Some(part)) => (leaves, bytes) = (leaves + 1, bytes + part.encoded_len()),
            Ok(None) => panic!("the scan went on to its end"),
            Err(refused) => break refused,
        }
    };
    eprintln!("after the withdrawal: {leaves} leaves, {bytes} bytes, {:?}", since.elapsed());
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(bytes < 1 << 20 && leaves < LEAVES / 10, "{leaves} leaves of {bytes} bytes came");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let mut rest = 99;
    while goes_on.message().await.unwrap().is_some() {
        rest += 1;
    }
    assert_eq!(rest, size, "nobody else is disturbed");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_auditor_is_cut_off_in_the_midst_of_an_export() {
    let mut instance = audited().await;
    let mut exchange_ids = Vec::new();
    for number in 0..120_u8 {
        exchange_ids.push(Bytes::copy_from_slice(instance.ask(&[number]).await.exchange().as_bytes()));
    }
    let mut sh = sign_in(&instance.sh, "rechnungshof-sh").await;
    let request = ExportRequest { exchange_ids, with_content: false, reason: "Widerspruch".into() };
    let mut parts = sh.export(request).await.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some());
    withdraw(&mut instance).await;
    let told_before = proofs(&instance);
    let (since, mut bytes) = (Instant::now(), 0);
    let refused = loop {
        match parts.message().await {
            Ok(Some(part)) => bytes += part.encoded_len(),
            Ok(None) => panic!("the export went on to its end"),
            Err(refused) => break refused,
        }
    };
    let told = proofs(&instance);
    eprintln!("after the withdrawal: {bytes} bytes, {} proofs of 120 were made, {:?}", told, since.elapsed());
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    // The one that was being made when the configuration came into use.
    assert!(told <= told_before + 1 && told < 120, "{told_before} {told}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    instance.stop().await;
}

/// How many proofs were exported, as the log says.
fn proofs(instance: &Instance) -> usize {
    reads(&instance.sh).iter().filter(|read| read.query.starts_with("proof without contents of")).count()
}
