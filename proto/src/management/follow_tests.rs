use super::*;
use crate::global_configuration::testing::{administrator, catalogue_entry};
use crate::management::act::{Act, ActId, Role};
use crate::management::testing::{Instance, sign, signed};
use crate::schema::configuration as schema;
use crate::schema::management::{EnrolSecurityServer, RemoveKey, SuspendSecurityServer, act::Change};
use bytes::Bytes;
use prost::Message;
use std::time::Duration;

const SERVER: &str = "NORD/SH/luebeck/s1";

fn validity(instance: &Instance) -> Validity {
    let issued = instance.issued().plus(Duration::from_secs(60));
    Validity { issued, until: issued.plus(Duration::from_secs(3600)) }
}

fn after(instance: &Instance, acts: &[SignedAct]) -> Result<GlobalConfiguration, FollowError> {
    follow(&instance.configuration, acts, validity(instance))
}

fn purpose(code: &str) -> Change {
    Change::PutPurpose(catalogue_entry(code))
}

#[test]
fn two_administrators_make_a_change() {
    let instance = Instance::new();
    let acts = [instance.approved(1, purpose("zuzug")), instance.approved(2, purpose("auszug"))];
    let next = after(&instance, &acts).unwrap();
    let codes: Vec<_> = next.purposes.iter().map(|entry| entry.code.as_str()).collect();
    assert_eq!(codes, ["auszug", "ummeldung", "zuzug"], "lists stay ascending");
    assert_eq!(next.number, 2);
    assert_eq!(next.previous, Digest::of(&instance.configuration.encode_to_vec()).to_bytes());
    assert_eq!(next.acts, [Digest::of(&acts[0].act).to_bytes(), Digest::of(&acts[1].act).to_bytes()]);
    assert_eq!(after(&instance, &acts).unwrap(), next, "the same input gives the same configuration");
}

#[test]
fn without_acts_only_number_and_validity_change() {
    let instance = Instance::new();
    let mut next = after(&instance, &[]).unwrap();
    assert_eq!(next.number, 2);
    let old = instance.configuration.clone();
    (next.number, next.previous) = (old.number, old.previous.clone());
    (next.issued_ms, next.valid_until_ms) = (old.issued_ms, old.valid_until_ms);
    assert_eq!(next, old);
    let earlier = Validity { issued: Time::from_millis(1), until: Time::from_millis(i64::MAX) };
    assert!(matches!(follow(&old, &[], earlier), Err(FollowError::Earlier { .. })));
}

#[test]
fn one_person_alone_one_state_alone_and_strangers_change_nothing() {
    let instance = Instance::new();
    let act = instance.act(1, purpose("zuzug"));
    let (stranger, _) = administrator("Fremd", "MV");
    let refused = |signed: SignedAct| match after(&instance, &[signed]) {
        Err(FollowError::Act { position: 1, source }) => source,
        other => panic!("{other:?}"),
    };
    let alone = refused(signed(&act, &instance.frauke_sh, &instance.frauke_sh));
    assert!(matches!(alone, ActError::SamePerson { .. }), "{alone}");
    let one_state = refused(signed(&act, &instance.frauke_sh, &instance.hinnerk_sh));
    assert!(matches!(one_state, ActError::SameClass { .. }), "{one_state}");
    let by_stranger = refused(signed(&act, &instance.frauke_sh, &stranger));
    assert!(matches!(by_stranger, ActError::Unlisted { role: Role::Approver }), "{by_stranger}");
    let for_stranger = refused(signed(&act, &stranger, &instance.uwe_mv));
    assert!(matches!(for_stranger, ActError::Unlisted { role: Role::Applicant }), "{for_stranger}");

    let mut unapproved = instance.approved(1, purpose("zuzug"));
    unapproved.approver = None;
    assert!(matches!(refused(unapproved), ActError::Unlisted { role: Role::Approver }));
    let mut crossed = instance.approved(1, purpose("zuzug"));
    crossed.approver = Some(sign(&act, Role::Applicant, &instance.uwe_mv));
    let crossed = refused(crossed);
    assert!(matches!(crossed, ActError::Signature { role: Role::Approver, .. }), "{crossed}");
    let mut altered = instance.approved(1, purpose("zuzug"));
    altered.act = instance.act(1, purpose("anderes")).bytes().clone();
    assert!(matches!(refused(altered), ActError::Signature { role: Role::Applicant, .. }));
}

#[test]
fn where_the_policy_allows_it_one_state_suffices_but_never_one_person() {
    let mut instance = Instance::new();
    instance.configuration.policy.as_mut().unwrap().approval_by_other_class = false;
    let act = instance.act(1, purpose("zuzug"));
    assert!(after(&instance, &[signed(&act, &instance.frauke_sh, &instance.hinnerk_sh)]).is_ok());
    let alone = after(&instance, &[signed(&act, &instance.frauke_sh, &instance.frauke_sh)]);
    assert!(matches!(alone, Err(FollowError::Act { source: ActError::SamePerson { .. }, .. })));
}

#[test]
fn expired_repeated_and_foreign_acts_are_refused() {
    let instance = Instance::new();
    let approved = instance.approved(1, purpose("zuzug"));
    let twice = after(&instance, &[approved.clone(), approved.clone()]);
    assert!(matches!(twice, Err(FollowError::Repeated { position: 2 })));
    let issued = instance.issued().plus(Duration::from_millis(3_600_001));
    let late = Validity { issued, until: issued.plus(Duration::from_secs(1)) };
    let late = follow(&instance.configuration, std::slice::from_ref(&approved), late);
    assert!(matches!(late, Err(FollowError::Act { source: ActError::Expired { .. }, .. })));
    let (id, lifetime) = (ActId::from_bytes([9; 16]), Duration::from_secs(60));
    let elsewhere = Act::new("SUED", purpose("zuzug"), id, instance.issued(), lifetime).unwrap();
    let elsewhere = after(&instance, &[signed(&elsewhere, &instance.frauke_sh, &instance.uwe_mv)]);
    assert!(matches!(elsewhere, Err(FollowError::Act { source: ActError::Instance { .. }, .. })));
    let many = vec![approved; MAX_ACTS + 1];
    assert!(matches!(after(&instance, &many), Err(FollowError::TooMany { .. })));
}

#[test]
fn nobody_locks_the_instance_out() {
    let instance = Instance::new();
    let remove = |name: &str| Change::RemoveAdministrator(name.into());
    let last_of_mv = after(&instance, &[instance.approved(1, remove("Uwe"))]);
    assert!(matches!(last_of_mv, Err(FollowError::LockedOut { .. })), "{last_of_mv:?}");
    assert!(after(&instance, &[instance.approved(1, remove("Hinnerk"))]).is_ok());
}

#[test]
fn a_server_gets_keys_by_enrolment_alone_and_keeps_them() {
    let instance = Instance::new();
    let put = |server: schema::SecurityServer| {
        after(&instance, &[instance.approved(1, Change::PutSecurityServer(server))])
    };
    let registered = schema::SecurityServer {
        id: SERVER.into(),
        address: "s1.luebeck.example:7443".into(),
        subsystems: vec!["NORD/SH/luebeck/gewerbeamt".into()],
        ..Default::default()
    };
    let smuggled =
        schema::SecurityServer { signing_keys: vec![Bytes::from_static(&[9; 32])], ..registered.clone() };
    assert!(matches!(put(smuggled), Err(FollowError::Change { .. })));
    let foreign = vec!["NORD/MV/gewerberegister/register".into()];
    let hosting = schema::SecurityServer { subsystems: foreign, ..registered.clone() };
    assert!(matches!(put(hosting), Err(FollowError::Change { .. })));
    let next = put(registered).unwrap();
    let (old, new) = (&instance.configuration.security_servers[1], &next.security_servers[1]);
    assert_eq!(new.address, "s1.luebeck.example:7443");
    assert_eq!((&new.signing_keys, &new.logs), (&old.signing_keys, &old.logs));

    let enrolment = EnrolSecurityServer {
        id: SERVER.into(),
        authentication_key: Bytes::from_static(&[0; 32]),
        signing_key: Bytes::from_static(&[99; 32]),
        log: Some(schema::LogKey { origin: "log/2".into(), public_key: Bytes::from_static(&[98; 32]) }),
    };
    let enrol = |id, enrolment: &EnrolSecurityServer| {
        instance.approved(id, Change::EnrolSecurityServer(enrolment.clone()))
    };
    let next = after(&instance, &[enrol(1, &enrolment)]).unwrap();
    assert_eq!(next.security_servers[1].authentication_keys.len(), 2);
    let remove = RemoveKey { security_server: SERVER.into(), key: enrolment.signing_key.clone() };
    let acts = [enrol(1, &enrolment), instance.approved(2, Change::RemoveKey(remove.clone()))];
    assert_eq!(after(&instance, &acts).unwrap().security_servers[1].signing_keys.len(), 1);
    let absent = after(&instance, &[instance.approved(2, Change::RemoveKey(remove))]);
    assert!(matches!(absent, Err(FollowError::Change { .. })));

    let stolen = EnrolSecurityServer { signing_key: Bytes::from_static(&[2; 32]), ..enrolment.clone() };
    let other_server = after(&instance, &[enrol(1, &stolen)]);
    assert!(matches!(other_server, Err(FollowError::Result { .. })), "{other_server:?}");
    let without_log = EnrolSecurityServer { log: None, ..enrolment };
    assert!(matches!(after(&instance, &[enrol(1, &without_log)]), Err(FollowError::Change { .. })));
}

#[test]
fn what_is_referred_to_is_not_removed_and_what_is_absent_neither() {
    let instance = Instance::new();
    let result = |change| after(&instance, &[instance.approved(1, change)]);
    let in_use = result(Change::RemoveMember("NORD/SH/luebeck".into()));
    assert!(matches!(in_use, Err(FollowError::Result { .. })), "{in_use:?}");
    let absent = result(Change::RemoveMember("NORD/SH/nirgends".into()));
    assert!(matches!(absent, Err(FollowError::Change { .. })), "{absent:?}");
    let suspend = SuspendSecurityServer { id: SERVER.into(), suspended: true };
    assert!(result(Change::SuspendSecurityServer(suspend)).unwrap().security_servers[1].suspended);
    assert!(result(Change::RemoveService("NORD/MV/gewerberegister/register/auskunft".into())).is_ok());
    let acts = [
        instance.approved(1, Change::RemoveSecurityServer(SERVER.into())),
        instance.approved(2, Change::RemoveMember("NORD/SH/luebeck".into())),
    ];
    assert_eq!(after(&instance, &acts).unwrap().members.len(), 1);
}

#[test]
fn a_group_is_made_changed_and_removed_by_acts_and_holds_whoever_is_in_it() {
    let instance = Instance::new();
    let put = |id, members: &[&str]| {
        let members = members.iter().map(|member| (*member).into()).collect();
        let group = schema::Group { code: "kommunen".into(), name: "Kommunen".into(), members };
        instance.approved(id, Change::PutGroup(group))
    };
    let made = put(1, &["NORD/SH/luebeck", "NORD/MV/gewerberegister/register"]);
    let next = after(&instance, std::slice::from_ref(&made)).unwrap();
    assert_eq!(next.groups[0].members, ["NORD/MV/gewerberegister/register", "NORD/SH/luebeck"], "ascending");
    let changed = after(&instance, &[made.clone(), put(2, &[])]).unwrap();
    assert_eq!((changed.groups.len(), changed.groups[0].members.len()), (1, 0));
    let remove = |id| instance.approved(id, Change::RemoveGroup("kommunen".into()));
    assert_eq!(after(&instance, &[made.clone(), remove(2)]).unwrap().groups, []);
    assert!(matches!(after(&instance, &[remove(2)]), Err(FollowError::Change { .. })));
    let stranger = after(&instance, &[put(1, &["NORD/SH/nirgends"])]);
    assert!(matches!(stranger, Err(FollowError::Result { .. })), "{stranger:?}");
    let twice = after(&instance, &[put(1, &["NORD/SH/luebeck", "NORD/SH/luebeck"])]);
    assert!(matches!(twice, Err(FollowError::Result { .. })), "{twice:?}");
    let acts = [
        made,
        instance.approved(2, Change::RemoveSecurityServer(SERVER.into())),
        instance.approved(3, Change::RemoveMember("NORD/SH/luebeck".into())),
    ];
    let in_group = after(&instance, &acts);
    assert!(matches!(in_group, Err(FollowError::Result { .. })), "{in_group:?}");
}

#[test]
fn a_rehearsal_says_what_would_come_of_unsigned_acts() {
    let instance = Instance::new();
    let remove_server = instance.act(1, Change::RemoveSecurityServer(SERVER.into()));
    let remove_member = instance.act(2, Change::RemoveMember("NORD/SH/luebeck".into()));
    assert!(rehearse(&instance.configuration, &[&remove_server, &remove_member]).is_ok());
    let refused = rehearse(&instance.configuration, &[&remove_member]);
    assert!(matches!(refused, Err(FollowError::Result { .. })));
}

#[test]
fn the_first_configuration_is_checked_like_any_other() {
    let instance = Instance::new();
    assert!(check_genesis(&instance.configuration).is_ok());
    let without = GlobalConfiguration { administrators: Vec::new(), ..instance.configuration.clone() };
    assert!(matches!(check_genesis(&without), Err(FollowError::LockedOut { .. })));
    let second = after(&instance, &[]).unwrap();
    assert!(check_genesis(&second).is_err());
}

#[test]
fn a_configuration_that_could_not_be_published_does_not_follow() {
    let mut instance = Instance::new();
    let long = |code: usize| schema::CatalogueEntry {
        code: format!("zz-{code:05}"),
        text: "x".repeat(2_048),
        text_de: "x".repeat(2_048),
        citation: "x".repeat(2_048),
    };
    let growth = long(0).encoded_len() + 3;
    let room = MAX_LENGTH - instance.configuration.encoded_len();
    instance.configuration.purposes.extend((0..room / growth - 1).map(long));
    let short = schema::CatalogueEntry { code: "zz-a".into(), ..catalogue_entry("x") };
    let fits = instance.approved(1, Change::PutPurpose(short));
    instance.configuration = after(&instance, std::slice::from_ref(&fits)).unwrap();
    let changes = [long(99_998), long(99_999)].map(Change::PutPurpose);
    let over = [instance.approved(2, changes[0].clone()), instance.approved(3, changes[1].clone())];
    assert!(matches!(after(&instance, &over), Err(FollowError::TooLong { .. })));
    let acts = [instance.act(2, changes[0].clone()), instance.act(3, changes[1].clone())];
    let rehearsed = rehearse(&instance.configuration, &[&acts[0], &acts[1]]);
    assert!(matches!(rehearsed, Err(FollowError::TooLong { .. })), "and its applicant is told");
    let renewed = after(&instance, &[]).unwrap();
    assert!(renewed.encoded_len() < MAX_CONFIGURATION - 32 * 1024);
}

#[test]
fn an_act_that_cannot_be_carried_out_leaves_the_succession_as_it_was() {
    let instance = Instance::new();
    let good = [instance.approved(1, purpose("zuzug")), instance.approved(3, purpose("auszug"))];
    let bad = instance.approved(2, Change::RemoveMember("NORD/SH/nirgends".into()));
    let mut succession = Succession::new(&instance.configuration, validity(&instance)).unwrap();
    succession.add(&good[0]).unwrap();
    assert!(succession.add(&bad).is_err());
    assert!(matches!(succession.add(&good[0]), Err(FollowError::Repeated { .. })));
    succession.add(&good[1]).unwrap();
    assert_eq!(succession.finish().unwrap(), after(&instance, &good).unwrap());
}

fn witness(name: &str, class: &str, key: u8) -> schema::Witness {
    let url = "http://127.0.0.1:7490".into();
    schema::Witness { name: name.into(), public_key: Bytes::from(vec![key; 32]), class: class.into(), url }
}

#[test]
fn witnesses_come_and_go_by_two_administrators_and_the_version_follows() {
    let instance = Instance::new();
    assert_eq!(instance.configuration.version, 1);
    let put = |id, key| instance.approved(id, Change::PutWitness(witness("witness.example/mv", "MV", key)));
    let witnessed = after(&instance, &[put(1, 80)]).unwrap();
    assert_eq!((witnessed.version, witnessed.witnesses.len()), (2, 1), "older releases cannot read it");
    let replaced = after(&instance, &[put(1, 80), put(2, 81)]).unwrap();
    assert_eq!(replaced.witnesses, [witness("witness.example/mv", "MV", 81)]);
    let remove = instance.approved(3, Change::RemoveWitness("witness.example/mv".into()));
    let gone = after(&instance, &[put(1, 80), remove.clone()]).unwrap();
    assert_eq!((gone.version, gone.witnesses.len()), (1, 0), "what older releases can read, they get");
    assert!(matches!(after(&instance, &[remove]), Err(FollowError::Change { position: 1, .. })));
}

#[test]
fn no_act_asks_for_a_witness_that_does_not_exist() {
    let instance = Instance::new();
    let mut policy = instance.configuration.policy.clone().unwrap();
    policy.witnessing = Some(schema::Witnessing {
        required: vec!["witness.example/mv".into()],
        of_other_classes: 0,
        deadlines: Some(schema::Deadlines { alarm_after_ms: 1, refuse_after_ms: 0 }),
    });
    let policy = instance.approved(2, Change::PutPolicy(policy));
    let put = instance.approved(1, Change::PutWitness(witness("witness.example/mv", "MV", 80)));
    assert!(matches!(after(&instance, std::slice::from_ref(&policy)), Err(FollowError::Result { .. })));
    assert_eq!(after(&instance, &[put.clone(), policy.clone()]).unwrap().version, 2);
    let remove = instance.approved(3, Change::RemoveWitness("witness.example/mv".into()));
    assert!(matches!(after(&instance, &[put, policy, remove]), Err(FollowError::Result { .. })));
}
