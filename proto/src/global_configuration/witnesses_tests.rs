//! Witnesses and their policy: what holds, what is refused, and when a checkpoint counts as witnessed.

use bytes::Bytes;

use super::*;
use crate::global_configuration::testing::{example, instance, signed};
use crate::global_configuration::{Configuration, ConfigurationError};
use crate::schema::configuration::{GlobalConfiguration, SignedConfiguration};

fn verify(configuration: &GlobalConfiguration) -> Result<Configuration, ConfigurationError> {
    let signed: SignedConfiguration = signed(configuration);
    Configuration::verify(&signed, &instance().2)
}

fn witness(name: &str, class: &str, key: u8) -> schema::Witness {
    let url = "http://127.0.0.1:7490".into();
    schema::Witness { name: name.into(), public_key: Bytes::from(vec![key; 32]), class: class.into(), url }
}

/// One witness in each state.
fn witnessed() -> GlobalConfiguration {
    let witnesses = vec![witness("witness.example/mv", "MV", 80), witness("witness.example/sh", "SH", 81)];
    GlobalConfiguration { version: 2, witnesses, ..example() }
}

fn with_policy(witnessing: schema::Witnessing) -> GlobalConfiguration {
    let mut configuration = witnessed();
    configuration.policy.as_mut().unwrap().witnessing = Some(witnessing);
    configuration
}

fn policy(required: &[&str], of_other_classes: u32) -> schema::Witnessing {
    schema::Witnessing {
        required: required.iter().map(|name| (*name).into()).collect(),
        of_other_classes,
        deadlines: Some(schema::Deadlines { alarm_after_ms: 1_000, refuse_after_ms: 2_000 }),
    }
}

/// Who is missing under a checkpoint of a log in SH that these have cosigned.
fn missing(configuration: &GlobalConfiguration, cosigned: &[&str]) -> Option<String> {
    let verified = verify(configuration).unwrap();
    let server = "NORD/SH/luebeck/s1".parse().unwrap();
    let has = |witness: &WitnessVerifier| cosigned.contains(&witness.name());
    verified.policy().witnessing.missing(verified.witnesses(), &server, has)
}

#[test]
fn without_a_policy_one_witness_of_another_state_is_asked_for_where_there_is_one() {
    assert_eq!(missing(&example(), &[]), None);
    assert!(missing(&witnessed(), &[]).is_some());
    assert!(missing(&witnessed(), &["witness.example/sh"]).is_some(), "the own state's does not count");
    assert_eq!(missing(&witnessed(), &["witness.example/mv"]), None);
    let verified = verify(&witnessed()).unwrap();
    let deadlines = verified.policy().witnessing.deadlines;
    assert_eq!((deadlines.alarm_after, deadlines.refuse_after), (HOUR, None), "alarm, never refusal");
    let timestamping = verified.policy().timestamping;
    assert_eq!((timestamping.alarm_after, timestamping.refuse_after), (HOUR, Some(72 * HOUR)));
}

#[test]
fn the_policy_says_who_must_cosign() {
    let by_name = with_policy(policy(&["witness.example/sh"], 0));
    assert!(missing(&by_name, &["witness.example/mv"]).unwrap().contains("witness.example/sh"));
    assert_eq!(missing(&by_name, &["witness.example/sh"]), None);
    let both = with_policy(policy(&["witness.example/sh"], 1));
    assert!(missing(&both, &["witness.example/sh"]).is_some());
    assert_eq!(missing(&both, &["witness.example/mv", "witness.example/sh"]), None);
    assert_eq!(missing(&with_policy(policy(&[], 0)), &[]), None, "nobody is asked for");
}

#[test]
fn alarm_and_refusal_come_in_time() {
    let deadlines = verify(&with_policy(policy(&[], 1))).unwrap().policy().witnessing.deadlines;
    let at = Time::from_millis;
    let told = |now| (deadlines.alarms(at(0), at(now)), deadlines.refuses(at(0), at(now)));
    assert_eq!(
        [told(1_000), told(1_001), told(2_000), told(2_001)],
        [(false, false), (true, false), (true, false), (true, true)]
    );
    assert_eq!(deadlines.left(at(0), at(500)), Some(Duration::from_millis(1_500)));
    assert_eq!(deadlines.left(at(0), at(9_000)), Some(Duration::ZERO));
}

#[test]
fn every_field_is_checked_though_it_is_signed() {
    type Alter = fn(&mut GlobalConfiguration);
    let table: &[(&str, Alter)] = &[
        ("version", |c| c.version = 1),
        ("version", |c| c.version = 3),
        ("version", |c| c.witnesses.clear()),
        ("witnesses[1]", |c| c.witnesses.reverse()),
        ("witnesses[0].name", |c| c.witnesses[0].name = "a b".into()),
        ("witnesses[0].name", |c| c.witnesses[0].name = "a+b".into()),
        ("witnesses[0].name", |c| c.witnesses[0].name = String::new()),
        ("witnesses[0].public_key", |c| c.witnesses[0].public_key = Bytes::from_static(&[1; 31])),
        ("witnesses[1].public_key", |c| {
            c.witnesses[1].public_key = c.witnesses[0].public_key.clone();
        }),
        ("witnesses[0].public_key", |c| {
            c.witnesses[0].public_key = c.security_servers[0].logs[0].public_key.clone();
        }),
        ("witnesses[0].class", |c| c.witnesses[0].class = "M V".into()),
        ("witnesses[0].url[0]", |c| c.witnesses[0].url = "ftp://witness".into()),
        ("policy.witnessing.required[0]", |c| {
            c.policy.as_mut().unwrap().witnessing = Some(policy(&["nobody"], 0));
        }),
        ("policy.witnessing.of_other_classes", |c| {
            c.policy.as_mut().unwrap().witnessing = Some(policy(&[], 2));
        }),
        ("policy.witnessing.deadlines", |c| {
            c.policy.as_mut().unwrap().witnessing = Some(schema::Witnessing::default());
        }),
        ("policy.timestamping.alarm_after_ms", |c| {
            c.policy.as_mut().unwrap().timestamping = Some(schema::Deadlines::default());
        }),
        ("policy.timestamping.refuse_after_ms", |c| {
            let backwards = schema::Deadlines { alarm_after_ms: 2, refuse_after_ms: 1 };
            c.policy.as_mut().unwrap().timestamping = Some(backwards);
        }),
    ];
    assert!(verify(&witnessed()).is_ok());
    for (field, alter) in table {
        let mut altered = witnessed();
        alter(&mut altered);
        match verify(&altered) {
            Err(ConfigurationError::Field { source }) => assert_eq!(source.at, *field, "{source}"),
            other => panic!("{field}: {other:?}"),
        }
    }
}
