//! Which checkpoint a log is held to, and who is named.

use super::*;

const PEER: &str = "NORD/MV/register/s1";
const ORIGIN: &str = "nord/mv/s1/log";

fn seen(size: u64, branch: u8) -> Seen {
    let root = trave_proto::digest::Digest::of(&[branch]);
    Seen { note: Bytes::copy_from_slice(&[branch]), head: Head { size, root } }
}

fn take(state: &mut State, at: u64, seen: Option<Seen>, contradiction: &str) {
    let shown = PeerCheckpoint {
        peer: PEER.into(),
        origin: ORIGIN.into(),
        contradiction: contradiction.into(),
        ..PeerCheckpoint::default()
    };
    state.take(&shown, seen, ("own", at));
}

fn acknowledged(state: &mut State, up_to: u64) -> Option<Seen> {
    let (peer, kind) = (PEER.into(), "peer_contradicted".into());
    state.acknowledge(&PeerCondition { peer, kind, up_to, ..PeerCondition::default() });
    state.logs[ORIGIN].seen.clone()
}

#[test]
fn who_shows_none_for_once_is_held_to_what_it_showed_before() {
    let mut state = State::default();
    take(&mut state, 1, Some(seen(100, 1)), "");
    take(&mut state, 2, None, "it shows none");
    assert_eq!(acknowledged(&mut state, 2), Some(seen(100, 1)), "or a fork behind it is none");
    let none = Shown { seen: None, cosignatures: Bytes::new(), contradiction: Some("none".into()) };
    let fork = Shown { seen: Some(seen(150, 2)), ..none.clone() };
    assert!(state.is_new(ORIGIN, &fork) && !state.is_new(ORIGIN, &none), "that is known");
    take(&mut state, 3, Some(seen(120, 1)), "");
    assert!(state.is_new(ORIGIN, &none), "there was one in between");
}

#[test]
fn what_is_acknowledged_takes_the_place_of_what_came_before_it_alone() {
    let mut state = State::default();
    take(&mut state, 1, Some(seen(100, 1)), "");
    take(&mut state, 2, Some(seen(50, 2)), "it shows fewer");
    assert_eq!(acknowledged(&mut state.clone(), 2), Some(seen(50, 2)), "it goes on from there");
    take(&mut state, 3, Some(seen(120, 1)), "");
    assert_eq!(acknowledged(&mut state, 2), Some(seen(120, 1)), "it went on as if nothing had been");
    // A fork of what was acknowledged is another alarm.
    let fork =
        Shown { seen: Some(seen(60, 2)), cosignatures: Bytes::new(), contradiction: Some("fork".into()) };
    assert!(state.is_new(ORIGIN, &fork));
    take(&mut state, 4, fork.seen, "fork");
    assert!(!state.logs[ORIGIN].contradiction.as_ref().unwrap().acknowledged);
}

#[test]
fn who_is_listed_no_more_is_no_longer_named() {
    let (following, since) = (Following::default(), Time::from_millis(0));
    let peer: ServerId = PEER.parse().unwrap();
    let why = "its log shows no checkpoint yet".to_owned();
    following.state().silent.insert(peer.clone(), (since, why));
    assert_eq!(following.silent(since.plus(SILENT)).len(), 1);
    following.forget(|it| *it == peer);
    assert_eq!(following.silent(since.plus(SILENT)).len(), 1);
    following.forget(|_| false);
    assert!(following.silent(since.plus(SILENT)).is_empty());
}
