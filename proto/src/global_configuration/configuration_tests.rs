use super::*;
use crate::global_configuration::AdoptionError;
use crate::global_configuration::testing::{administrator, by, example, instance, signed};
use crate::schema::configuration as schema;

fn verify(configuration: &GlobalConfiguration) -> Result<Configuration, ConfigurationError> {
    Configuration::verify(&signed(configuration), &instance().2)
}

#[test]
fn what_was_signed_can_be_looked_up() {
    let configuration = verify(&example()).unwrap();
    let server: ServerId = "NORD/SH/luebeck/s1".parse().unwrap();
    let subsystem: SubsystemId = "NORD/SH/luebeck/gewerbeamt".parse().unwrap();
    let other: SubsystemId = "NORD/MV/gewerberegister/register".parse().unwrap();
    assert!(configuration.hosts(&server, &subsystem) && !configuration.hosts(&server, &other));
    let entry = configuration.security_server(&server).unwrap();
    assert!(entry.lists_authentication_key(&Digest::from_bytes([4; 32])));
    assert!(!entry.lists_signing_key(&Digest::from_bytes([4; 32])));
    assert_eq!(configuration.servers_of(&other).count(), 1);
    assert_eq!(configuration.log_key("NORD/SH/luebeck/s1/1").unwrap().server, server);
    let service = configuration.service(&"NORD/MV/gewerberegister/register/auskunft".parse().unwrap());
    let service = service.unwrap();
    assert!(service.has_method(&"/gewerbe.v1.Register/Auskunft".parse().unwrap()));
    assert!(!service.has_method(&"/gewerbe.v2.Register/Auskunft".parse().unwrap()));
    assert!(service.allows_purpose("ummeldung") && !service.allows_purpose("neugier"));
    assert!(configuration.purpose("neugier").is_none());
}

#[test]
fn algorithms_end_when_the_policy_says() {
    let mut text = example();
    text.policy.as_mut().unwrap().algorithms[0].not_after_ms = 1_000;
    let configuration = verify(&text).unwrap();
    let allows = |name, at| configuration.policy().allows_algorithm(name, Time::from_millis(at));
    assert!(allows("ecdsa-p256-sha256", 1_000));
    assert!(!allows("ecdsa-p256-sha256", 1_001));
    assert!(!allows("ed25519", 0));
}

#[test]
fn signatures_below_the_threshold_are_refused() {
    let anchor = instance().2;
    let whole = signed(&example());
    for keep in [0, 1] {
        let mut some = whole.clone();
        some.signatures.truncate(keep);
        let refused = Configuration::verify(&some, &anchor).unwrap_err();
        assert!(matches!(
            refused,
            ConfigurationError::Signatures { source: AnchorError::Threshold { needed: 2, found, .. } } if found == keep
        ));
    }
    let mut doubled = whole.clone();
    doubled.signatures[1] = doubled.signatures[0].clone();
    let mut renamed = whole.clone();
    renamed.signatures[1].key = "nobody".into();
    let mut crossed = whole.clone();
    crossed.signatures[1].value = crossed.signatures[0].value.clone();
    let mut altered = whole.clone();
    altered.configuration = altered.configuration.iter().copied().chain([0x20, 1]).collect();
    for refused in [doubled, renamed, crossed, altered] {
        assert!(matches!(
            Configuration::verify(&refused, &anchor),
            Err(ConfigurationError::Signatures { .. })
        ));
    }
    let mut with_stranger = whole;
    with_stranger.signatures.push(KeySignature { key: "stranger".into(), value: Bytes::new() });
    assert!(Configuration::verify(&with_stranger, &anchor).is_ok(), "unknown keys are ignored");
}

#[test]
fn a_signed_anchor_never_passes_for_a_configuration() {
    let (registry, cosigner, anchor) = instance();
    let bytes = signed(&example()).configuration;
    let sign_as_anchor = |name, key| sign(tag::ANCHOR, &bytes, name, by(key));
    let signatures = vec![sign_as_anchor("registry-sh", &registry), sign_as_anchor("cosigner-mv", &cosigner)];
    let crossed = SignedConfiguration { configuration: bytes.clone(), signatures };
    assert!(Configuration::verify(&crossed, &anchor).is_err());
}

fn group(code: &str, members: &[&str]) -> schema::Group {
    let members = members.iter().map(|id| (*id).into()).collect();
    schema::Group { code: code.into(), name: "Beispiel".into(), members }
}

#[test]
fn a_group_holds_members_and_subsystems_that_are_registered() {
    let mut grouped = example();
    grouped.groups.push(group("kommunen", &["NORD/MV/gewerberegister/register", "NORD/SH/luebeck"]));
    let verified = verify(&grouped).unwrap();
    let contains =
        |client: &str| verified.group("kommunen").unwrap().members.contain(&client.parse().unwrap());
    assert!(contains("NORD/SH/luebeck/gewerbeamt") && contains("NORD/MV/gewerberegister/register"));
    assert!(!contains("NORD/MV/gewerberegister/andere") && verified.group("andere").is_none());
}

/// Each alteration, and the field that must be named.
#[test]
fn every_field_is_checked_though_it_is_signed() {
    type Alter = fn(&mut GlobalConfiguration);
    let table: &[(&str, Alter)] = &[
        ("version", |c| c.version = 2),
        ("number", |c| c.number = 0),
        ("previous", |c| c.number = 2),
        ("previous", |c| c.previous = Bytes::from_static(&[1; 32])),
        ("valid_until_ms", |c| c.valid_until_ms = c.issued_ms),
        ("acts[0]", |c| c.acts.push(Bytes::from_static(b"short"))),
        ("members[1]", |c| c.members.reverse()),
        ("members[2]", |c| c.members.push(c.members[1].clone())),
        ("members[0].id", |c| c.members[0].id = "SUED/MV/gewerberegister".replace("SUED", "ANDERE")),
        ("members[0].name", |c| c.members[0].name = "a\u{7}".into()),
        ("members[0].subsystems[0].id", |c| c.members[0].subsystems[0].id = "NORD/SH/x/y".into()),
        ("security_servers[0].id", |c| c.security_servers[0].id = "NORD/MV/fremd/s1".into()),
        ("security_servers[0].address", |c| c.security_servers[0].address = "nowhere".into()),
        ("security_servers[0].subsystems[0]", |c| {
            c.security_servers[0].subsystems[0] = "NORD/SH/luebeck/x".into();
        }),
        ("security_servers[0].signing_keys[0]", |c| {
            c.security_servers[0].signing_keys[0] = Bytes::from_static(&[1; 31]);
        }),
        ("security_servers[1].signing_keys[0]", |c| {
            c.security_servers[1].signing_keys[0] = c.security_servers[0].authentication_keys[0].clone();
        }),
        ("security_servers[1].logs[0]", |c| {
            c.security_servers[1].logs[0].origin = c.security_servers[0].logs[0].origin.clone();
        }),
        ("security_servers[0].logs[0]", |c| c.security_servers[0].logs[0].origin = "two words".into()),
        ("services[0].id", |c| c.services[0].id = "NORD/MV/gewerberegister/fremd/auskunft".into()),
        ("services[0].kind", |c| c.services[0].kind = 0),
        ("services[0].kind", |c| c.services[0].kind = 77),
        ("services[0].methods[0]", |c| c.services[0].methods[0] = "/gewerbe*".into()),
        ("services[0].methods", |c| c.services[0].kind = schema::ServiceKind::Rest.into()),
        ("services[0].purposes[0]", |c| c.services[0].purposes[0] = "neugier".into()),
        ("purposes[0].code", |c| c.purposes[0].code = "zwei worte".into()),
        ("legal_bases[0].citation", |c| c.legal_bases[0].citation.clear()),
        ("trust_services", |c| c.trust_services = None),
        ("trust_services.timestamping_authorities[0].certificate", |c| {
            let name = "TSA".into();
            let tsa = schema::TimestampingAuthority { name, ..Default::default() };
            c.trust_services.as_mut().unwrap().timestamping_authorities.push(tsa);
        }),
        ("administrators[0].key", |c| {
            let (_, mut person) = administrator("Frauke", "SH");
            person.key = Bytes::from_static(&[9; 32]);
            c.administrators.push(person);
        }),
        ("administrators[1].key", |c| {
            let (_, person) = administrator("Frauke", "SH");
            let twin = schema::Administrator { name: "Uwe".into(), ..person.clone() };
            c.administrators.extend([person, twin]);
        }),
        ("groups[0].code", |c| c.groups.push(group("zwei worte", &[]))),
        ("groups[0].name", |c| c.groups.push(schema::Group { name: String::new(), ..group("g", &[]) })),
        ("groups[1]", |c| c.groups.extend([group("b", &[]), group("a", &[])])),
        ("groups[0].members", |c| c.groups.push(group("g", &["NORD/SH"]))),
        ("groups[0].members", |c| {
            c.groups.push(group("g", &["NORD/SH/luebeck", "NORD/MV/gewerberegister"]));
        }),
        ("groups[0].members[0]", |c| c.groups.push(group("g", &["NORD/SH/nirgends"]))),
        ("groups[0].members[0]", |c| c.groups.push(group("g", &["NORD/SH/luebeck/nirgends"]))),
        ("policy", |c| c.policy = None),
        ("policy.merge_delay_ms", |c| c.policy.as_mut().unwrap().merge_delay_ms = 0),
        ("policy.algorithms[0]", |c| c.policy.as_mut().unwrap().algorithms[0].name = "md5".into()),
    ];
    for (field, alter) in table {
        let mut altered = example();
        alter(&mut altered);
        match verify(&altered) {
            Err(ConfigurationError::Field { source }) => assert_eq!(source.at, *field, "{source}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    let mut elsewhere = example();
    elsewhere.instance = "ANDERE".into();
    assert!(matches!(verify(&elsewhere), Err(ConfigurationError::Instance { .. })));
}

#[test]
fn expired_older_and_forked_configurations_are_not_used() {
    let first = verify(&example()).unwrap();
    let next = |alter: &dyn Fn(&mut GlobalConfiguration)| {
        let mut text = example();
        (text.number, text.previous) = (2, first.digest().to_bytes());
        alter(&mut text);
        verify(&text).unwrap()
    };
    let second = next(&|_| {});
    let now = first.issued();
    assert_eq!(second.follows(&first), Ok(()));
    assert_eq!(second.check_current(now, Some(&first)), Ok(()));
    assert_eq!(second.check_current(now, Some(&second)), Ok(()));
    assert_eq!(
        first.check_current(now, Some(&second)),
        Err(AdoptionError::Rollback { number: 1, adopted: 2 })
    );
    let after = second.valid_until().plus(std::time::Duration::from_millis(1));
    assert!(matches!(second.check_current(after, None), Err(AdoptionError::Expired { number: 2, .. })));

    let twin = next(&|text| text.valid_until_ms += 1);
    let fork = twin.check_current(now, Some(&second)).unwrap_err();
    assert!(matches!(fork, AdoptionError::Fork { number: 2, .. }) && fork.is_alarm());
    let elsewhere = next(&|text| text.previous = Bytes::from_static(&[7; 32]));
    let fork = elsewhere.check_current(now, Some(&first)).unwrap_err();
    assert!(matches!(fork, AdoptionError::OtherChain { number: 2, .. }) && fork.is_alarm());
    let later = next(&|text| text.number = 5);
    assert_eq!(later.check_current(now, Some(&first)), Ok(()), "numbers in between may have been missed");
    assert_eq!(later.follows(&first), Err(AdoptionError::NotNext { number: 5, previous: 1 }));
}

/// The bytes stand in `proto/vectors/global_configuration`: what one release signed, every later one must verify.
#[test]
fn the_vectors_verify_and_nothing_about_them_has_changed() {
    let anchor_file = include_bytes!("../../vectors/global_configuration/anchor");
    let hex_file = include_str!("../../vectors/global_configuration/signed-configuration.hex");
    let anchor = Anchor::parse(anchor_file).unwrap();
    assert_eq!(anchor, instance().2);
    let bytes = Bytes::from(hex::decode(hex_file.split_whitespace().collect::<String>()).unwrap());
    assert_eq!(bytes, signed(&example()).encode_to_vec(), "the encoding or the signature has changed");
    let configuration = Configuration::verify_encoded(bytes.clone(), &anchor).unwrap();
    assert_eq!(configuration.number(), 1);
    assert!(configuration.legal_basis("GewO-14").is_some());
    // Whatever byte is altered: never another configuration. (Names of keys may change to unknown ones: then the
    // threshold is not met.)
    for at in 0..bytes.len() {
        let mut altered = bytes.to_vec();
        altered[at] ^= 1;
        let verified = Configuration::verify_encoded(altered.into(), &anchor);
        assert!(verified.is_err(), "byte {at}");
    }
}
