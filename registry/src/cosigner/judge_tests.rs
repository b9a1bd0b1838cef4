use super::*;
use trave_host::keys::{NoteKey, Sign, SigningKey};
use trave_proto::global_configuration::{AnchorKey, sign_configuration};
use trave_proto::management::Role;
use trave_proto::schema::configuration::{Administrator, Algorithm, CatalogueEntry, Policy, TrustServices};
use trave_proto::schema::management::act::Change;

const NOW: Time = Time::from_millis(1_795_288_440_000);
const HOUR: Duration = Duration::from_secs(3600);

/// An instance with three configuration keys, of which two must sign.
struct Instance {
    keys: [NoteKey; 3],
    people: [SigningKey; 2],
    rules: Rules,
    genesis: GlobalConfiguration,
}

impl Instance {
    fn new() -> Self {
        let keys = std::array::from_fn(|_| NoteKey::generate().unwrap());
        let people = std::array::from_fn(|_| SigningKey::generate().unwrap());
        let key = |i: usize| AnchorKey { name: NAMES[i].into(), public_key: keys[i].public_key() };
        let anchor = Anchor::new("NORD", 1, 2, (0..3).map(key).collect()).unwrap();
        let person = |i: usize| Administrator {
            name: ["Frauke", "Uwe"][i].into(),
            class: ["SH", "MV"][i].into(),
            key: people[i].public_key_digest().to_bytes(),
            public_key: Bytes::copy_from_slice(people[i].public_key_info()),
        };
        let algorithms = vec![Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }];
        let genesis = GlobalConfiguration {
            version: 1,
            instance: "NORD".into(),
            number: 1,
            issued_ms: NOW.as_millis(),
            valid_until_ms: NOW.plus(24 * HOUR).as_millis(),
            trust_services: Some(TrustServices::default()),
            administrators: (0..2).map(person).collect(),
            policy: Some(Policy {
                merge_delay_ms: 1,
                ocsp_max_age_ms: 1,
                approval_by_other_class: true,
                algorithms,
                ..Default::default()
            }),
            ..Default::default()
        };
        let digest = Digest::of(&genesis.encode_to_vec());
        Self { keys, people, rules: Rules { anchor, key_name: "c".into(), genesis: digest }, genesis }
    }

    fn signed(&self, configuration: &GlobalConfiguration, by: &[usize]) -> SignedConfiguration {
        let bytes = Bytes::from(configuration.encode_to_vec());
        let sign = |i: &usize| sign_configuration(&bytes, NAMES[*i], |content| self.keys[*i].sign(content));
        let signatures = by.iter().map(sign).collect();
        SignedConfiguration { configuration: bytes, signatures }
    }

    fn request(
        &self,
        configuration: &GlobalConfiguration,
        by: &[usize],
        acts: &[SignedAct],
    ) -> CosignRequest {
        let proposed = Some(self.signed(configuration, by));
        CosignRequest { proposed, acts: acts.to_vec(), missed: Vec::new() }
    }

    fn act(&self, code: &str) -> SignedAct {
        let text = "Example".to_owned();
        let (text_de, citation) = (text.clone(), text.clone());
        let entry = CatalogueEntry { code: code.into(), text, text_de, citation };
        let act =
            Act::new("NORD", Change::PutPurpose(entry), ActId::from_bytes([7; 16]), NOW, 2 * HOUR).unwrap();
        let sign = |role, key: &SigningKey| {
            Some(act.sign(role, key.public_key_info(), |content| key.sign(content)).unwrap())
        };
        SignedAct {
            act: act.bytes().clone(),
            applicant: sign(Role::Applicant, &self.people[0]),
            approver: sign(Role::Approver, &self.people[1]),
        }
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn after(previous: &GlobalConfiguration, acts: &[SignedAct], issued: Time) -> GlobalConfiguration {
    follow(previous, acts, Validity { issued, until: issued.plus(24 * HOUR) }).unwrap()
}

fn sign(memory: &Memory, instance: &Instance, request: &CosignRequest, now: Time) -> Memory {
    match judge(memory, &instance.rules, request, now) {
        Ok(Verdict::Sign(memory)) => memory,
        other => panic!("not signed: {other:?}"),
    }
}

#[test]
fn a_cosigner_that_was_away_follows_what_the_others_signed_and_derives_it_once_more() {
    let instance = Instance::new();
    let memory = sign(&Memory::default(), &instance, &instance.request(&instance.genesis, &[0], &[]), NOW);
    let acts = [instance.act("ummeldung")];
    let second = after(&instance.genesis, &acts, NOW);
    let third = after(&second, &[], NOW.plus(HOUR));
    let mut request = instance.request(&third, &[0], &[]);
    let now = NOW.plus(HOUR);
    let behind = judge(&memory, &instance.rules, &request, now);
    assert!(matches!(behind, Err(Refusal::Behind { last: 1, proposed: 3 })), "{behind:?}");

    let missed = instance.request(&second, &[0, 1], &acts);
    request.missed = vec![missed.clone()];
    let followed = sign(&memory, &instance, &request, now);
    assert_eq!(followed.last.as_ref().unwrap().configuration, third.encode_to_vec());
    assert_eq!(followed.used.len(), 1, "acts of what was missed are used up too");

    request.missed = vec![instance.request(&second, &[0], &acts)];
    assert!(matches!(judge(&memory, &instance.rules, &request, now), Err(Refusal::Missed { .. })));
    request.missed = vec![instance.request(&second, &[0, 1], &[])];
    let underived = judge(&memory, &instance.rules, &request, now);
    assert!(matches!(underived, Err(Refusal::Differs)), "signatures do not stand for acts: {underived:?}");
}

#[test]
fn an_act_is_remembered_until_it_cannot_come_into_force_any_more() {
    let instance = Instance::new();
    let memory = sign(&Memory::default(), &instance, &instance.request(&instance.genesis, &[0], &[]), NOW);
    let acts = [instance.act("ummeldung")];
    let second = after(&instance.genesis, &acts, NOW);
    let memory = sign(&memory, &instance, &instance.request(&second, &[0], &acts), NOW);
    let again = after(&second, &acts, NOW);
    let refused = judge(&memory, &instance.rules, &instance.request(&again, &[0], &acts), NOW);
    assert!(matches!(refused, Err(Refusal::UsedAct { .. })), "{refused:?}");
    let later = NOW.plus(3 * HOUR);
    let third = after(&second, &[], later);
    let memory = sign(&memory, &instance, &instance.request(&third, &[0], &[]), later);
    assert!(memory.used.is_empty());
}

#[test]
fn an_old_proposal_is_signed_only_where_another_cosigner_saw_it_in_time() {
    let instance = Instance::new();
    let memory = sign(&Memory::default(), &instance, &instance.request(&instance.genesis, &[0], &[]), NOW);
    let second = after(&instance.genesis, &[], NOW);
    let later = NOW.plus(HOUR);
    let alone = judge(&memory, &instance.rules, &instance.request(&second, &[0], &[]), later);
    assert!(matches!(alone, Err(Refusal::Stale { .. })), "{alone:?}");
    sign(&memory, &instance, &instance.request(&second, &[0, 1], &[]), later);
}
