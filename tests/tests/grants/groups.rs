//! Members and groups: those who belong together are granted together, and the proof says by which group.

use super::*;
use trave_proto::proof::Story;
use trave_proto::schema::configuration::Group;
use trave_proto::schema::operator::{ChangeGroupRequest, ListGroupsRequest};
use trave_tests::network::{OTHER_CLIENT, export, story};

fn to(client: &str) -> GrantRequest {
    GrantRequest { client: client.into(), ..usual() }
}

fn change(add: &[&str], remove: &[&str]) -> ChangeGroupRequest {
    let list = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    ChangeGroupRequest {
        group: "aemter".into(),
        add: list(add),
        remove: list(remove),
        operator: "Op".into(),
        ..ChangeGroupRequest::default()
    }
}

/// Asks, and gives what the provider's proof tells of the grant.
async fn proved(instance: &Instance) -> Story {
    let answer = instance.ask(b"wer?").await;
    assert_eq!(refused(&answer), None);
    story(instance, &export(&instance.mv, answer.exchange(), false).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_granted_for_all_its_subsystems() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let unknown = mv.grant(to("NORD/SH/husum")).await.unwrap_err();
    assert!(unknown.message().contains("does not know the client"), "{unknown}");
    let kiel = grant(&mut mv, to("NORD/SH/kiel")).await;
    assert_eq!(refused(&instance.ask(b"fremd").await).as_deref(), Some("access_denied"));
    revoke(&mut mv, &kiel).await;
    grant(&mut mv, to("NORD/SH/luebeck")).await;
    let told = proved(&instance).await.grant.unwrap();
    assert_eq!((told.subject.as_str(), told.group_at), ("NORD/SH/luebeck", None));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_group_opens_and_closes_the_door_for_whoever_belongs_to_it() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let none = mv.grant(to("local-group:aemter")).await.unwrap_err();
    assert!(none.message().contains("there is no local-group:aemter"), "{none}");
    for (wrong, code) in [
        (change(&["NORD/SH/husum"], &[]), Code::FailedPrecondition),
        (change(&["kein Amt"], &[]), Code::InvalidArgument),
        (change(&[], &[CLIENT]), Code::NotFound),
        (change(&[], &[]), Code::AlreadyExists),
        (ChangeGroupRequest { group: "zwei worte".into(), ..change(&[CLIENT], &[]) }, Code::InvalidArgument),
    ] {
        assert_eq!(mv.change_group(wrong.clone()).await.unwrap_err().code(), code, "{wrong:?}");
    }
    mv.change_group(change(&[OTHER_CLIENT], &[])).await.unwrap();
    grant(&mut mv, to("local-group:aemter")).await;
    assert_eq!(refused(&instance.ask(b"noch nicht").await).as_deref(), Some("access_denied"));
    mv.change_group(change(&[CLIENT, "NORD/SH/kiel"], &[])).await.unwrap();
    let told = proved(&instance).await.grant.unwrap();
    assert_eq!((told.subject.as_str(), told.group_at), ("local-group:aemter", Some(START)));

    // A restart finds the group again, in the order of its changes.
    mv.change_group(change(&[], &[OTHER_CLIENT])).await.unwrap();
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    let mut mv = operator(&instance.mv).await;
    let listed = mv.list_groups(ListGroupsRequest {}).await.unwrap().into_inner().groups;
    let told: Vec<_> = listed.into_iter().map(|group| (group.group, group.members)).collect();
    let members = vec!["NORD/SH/kiel".to_owned(), CLIENT.to_owned()];
    assert_eq!(told, [("local-group:aemter".to_owned(), members)]);
    assert_eq!(changes(&mut mv, "local-group:aemter").await.len(), 3);

    // Whoever goes out is out, in the middle of a stream too.
    let mut open = open(&instance).await;
    open.head().await;
    open.next().await.unwrap();
    mv.change_group(change(&[], &[CLIENT])).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, open.finish()).await.expect("the caller hears of it");
    assert_eq!(refused(&ended).as_deref(), Some("access_denied"));
    assert_eq!(refused(&instance.ask(b"vorbei").await).as_deref(), Some("access_denied"));
    mv.change_group(ChangeGroupRequest { dissolve: true, ..change(&[], &[]) }).await.unwrap();
    let explained = explain(&mut mv, question()).await;
    assert_eq!(explained.grants[0].misfits, ["the client does not belong to local-group:aemter"]);
    assert_eq!(explained.grants[0].notes, ["there is no local-group:aemter"]);

    // Another group of this code does not inherit what was granted to the first.
    let left = mv.change_group(change(&[CLIENT], &[])).await.unwrap_err();
    let id = explained.grants[0].grant.as_ref().unwrap().id.clone();
    assert_eq!(left.code(), Code::FailedPrecondition);
    assert!(left.message().contains(&id) && left.message().contains("revoke"), "{left}");
    assert_eq!(refused(&instance.ask(b"vorbei").await).as_deref(), Some("access_denied"));
    revoke(&mut mv, &id).await;
    mv.change_group(change(&[CLIENT], &[])).await.unwrap();
    assert_eq!(refused(&instance.ask(b"vorbei").await).as_deref(), Some("access_denied"));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_global_group_is_whoever_the_configuration_of_that_time_names() {
    let mut instance = closed().await;
    let mut mv = operator(&instance.mv).await;
    let none = mv.grant(to("global-group:kommunen")).await.unwrap_err();
    assert!(none.message().contains("there is no global-group:kommunen"), "{none}");
    let group = |members: &[&str]| Group {
        code: "kommunen".into(),
        name: "Kommunen".into(),
        members: members.iter().map(|one| (*one).into()).collect(),
    };
    let second = instance.next_configuration(|c| c.groups.push(group(&["NORD/SH/luebeck"])));
    adopt(&mut instance, &second).await;
    let mut mv = operator(&instance.mv).await;
    grant(&mut mv, to("global-group:kommunen")).await;
    let told = proved(&instance).await.grant.unwrap();
    assert_eq!((told.subject.as_str(), told.group_at), ("global-group:kommunen", None));

    instance.configuration = second;
    let third = instance.next_configuration(|c| c.groups = vec![group(&["NORD/SH/kiel"])]);
    adopt(&mut instance, &third).await;
    assert_eq!(refused(&instance.ask(b"vorbei").await).as_deref(), Some("access_denied"));
    instance.stop().await;
}

/// Both servers start with this configuration.
async fn adopt(instance: &mut Instance, signed: &trave_proto::schema::configuration::SignedConfiguration) {
    for server in [&mut instance.sh, &mut instance.mv] {
        server.stop().await;
        server.put_configuration(signed);
        server.start().await.unwrap();
    }
}
