use super::*;
use trave_host::keys::NoteKey;
use trave_proto::global_configuration::{AnchorKey, sign_configuration};
use trave_proto::schema::management::{ActRejected, ProposalSigned};

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Keys([NoteKey; 3]);

impl Keys {
    fn new() -> Self {
        Self(std::array::from_fn(|_| NoteKey::generate().unwrap()))
    }

    /// An anchor under which these two must sign.
    fn anchor(&self, keys: [usize; 2]) -> Anchor {
        let key = |i: usize| AnchorKey { name: NAMES[i].into(), public_key: self.0[i].public_key() };
        Anchor::new("NORD", 1, 2, keys.map(key).to_vec()).unwrap()
    }

    /// The events that publish a configuration signed by these two.
    fn published(&self, configuration: &GlobalConfiguration, keys: [usize; 2]) -> [Event; 2] {
        let bytes = Bytes::from(configuration.encode_to_vec());
        let sign = |i: usize| sign_configuration(&bytes, NAMES[i], |content| self.0[i].sign(content));
        let signatures = keys.map(sign).to_vec();
        let digest = Digest::of(&bytes).to_bytes();
        [Event::Proposed(bytes), Event::ProposalSigned(ProposalSigned { digest, signatures })]
    }
}

fn configuration(number: u64, previous: Option<&GlobalConfiguration>) -> GlobalConfiguration {
    use trave_proto::schema::configuration::{Algorithm, Policy, TrustServices};
    let previous = previous.map(|previous| Digest::of(&previous.encode_to_vec()).to_bytes());
    GlobalConfiguration {
        version: 1,
        instance: "NORD".into(),
        number,
        previous: previous.unwrap_or_default(),
        issued_ms: 1_000,
        valid_until_ms: 2_000,
        trust_services: Some(TrustServices::default()),
        policy: Some(Policy {
            merge_delay_ms: 1,
            ocsp_max_age_ms: 1,
            approval_by_other_class: true,
            algorithms: vec![Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn replayed(anchor: Anchor, events: impl IntoIterator<Item = Event>) -> Result<State, StateError> {
    let mut state = State::new(anchor);
    for event in events {
        state.replay(event)?;
    }
    state.settle()?;
    Ok(state)
}

#[test]
fn the_keys_of_an_instance_are_exchanged_and_its_history_stays() {
    let keys = Keys::new();
    let first = configuration(1, None);
    let second = configuration(2, Some(&first));
    let events = || [keys.published(&first, [0, 1]), keys.published(&second, [0, 2])].concat();
    let state = replayed(keys.anchor([0, 2]), events()).unwrap();
    assert_eq!(state.latest().unwrap().configuration.number(), 2);
    let old = replayed(keys.anchor([0, 1]), events());
    assert!(matches!(old, Err(StateError::Configuration(_))), "the last one must hold under the anchor");

    let other = configuration(2, Some(&configuration(7, None)));
    let broken = [keys.published(&first, [0, 1]), keys.published(&other, [0, 2])].concat();
    assert!(matches!(replayed(keys.anchor([0, 2]), broken), Err(StateError::Chain(2))));
    let gap = keys.published(&second, [0, 2]);
    assert!(matches!(replayed(keys.anchor([0, 2]), gap), Err(StateError::Chain(2))));
}

#[test]
fn signatures_count_for_the_proposal_that_stands_and_for_no_other() {
    let keys = Keys::new();
    let [proposed, signed] = keys.published(&configuration(1, None), [0, 1]);
    let mut state = State::new(keys.anchor([0, 1]));
    assert!(matches!(state.apply(signed.clone()), Err(StateError::UnknownProposal(_))));
    state.apply(proposed).unwrap();
    assert!(state.proposal().is_some() && state.latest().is_none());
    state.apply(signed).unwrap();
    assert!(state.proposal().is_none() && state.latest().is_some());
    let unknown = ActRejected { id: Bytes::from_static(&[1; 16]), ..Default::default() };
    assert!(matches!(state.apply(Event::Rejected(unknown)), Err(StateError::UnknownAct(_))));
}
