//! What is logged and told of comparisons.

use super::*;
use trave_proto::schema::log::DifferenceCount;

fn peer() -> ServerId {
    "NORD/MV/register/s1".parse().unwrap()
}

fn hour() -> Period {
    Period::of(Time::from_millis(1_795_255_200_000))
}

fn missing(count: u64) -> Reconciliation {
    let counts = vec![DifferenceCount { kind: DifferenceKind::MissingHere.into(), count }];
    Reconciliation { counts, ..Reconciliation::default() }
}

fn acknowledgement(up_to: u64) -> PeerCondition {
    let (peer, kind) = (peer().to_string(), "logs_disagree".into());
    PeerCondition { peer, kind, up_to, ..PeerCondition::default() }
}

#[test]
fn an_hour_that_was_refused_is_told_of_until_that_hour_is_compared() {
    let (findings, first) = (Findings::default(), hour());
    let found = Reconciliation::default();
    assert!(findings.failed(&peer(), first, "it is busy".into()));
    assert!(findings.failed(&peer(), first.next(), "it does not answer".into()));
    findings.remember(&peer(), first.next(), &found, Some(1));
    findings.remember(&peer(), first.next().next(), &found, Some(2));
    let told = findings.not_compared()[peer().as_str()].clone();
    assert!(told.ends_with(&format!("s1, the hour from {}: it is busy", first.begin())), "{told}");
    assert!(!findings.failed(&peer(), first, "it is busy".into()), "that is known");
    assert!(findings.failed(&peer(), first.next(), "it does not answer".into()));
    let told = findings.not_compared()[peer().as_str()].clone();
    assert!(told.contains(&format!("2 hours, the first from {}", first.begin())), "{told}");
    findings.forget(first.end(), |listed| *listed == peer());
    assert_eq!(findings.not_compared().len(), 1);
    findings.remember(&peer(), first, &found, Some(3));
    findings.forget(first.end(), |_| false);
    assert!(findings.not_compared().is_empty());
}

#[test]
fn what_is_found_again_is_not_logged_again_and_never_without_end() {
    let findings = Findings::default();
    let mut logged = 0;
    for n in 0..100 {
        let found = Reconciliation { recovered: n / 2, ..Reconciliation::default() };
        let at = findings.is_to_log(&peer(), hour(), &found).then_some(n);
        findings.remember(&peer(), hour(), &found, at);
        logged += u32::from(at.is_some());
    }
    assert_eq!(logged, LOGGED);
    assert!(findings.is_to_log(&peer(), hour().next(), &Reconciliation::default()), "each hour for itself");
}

#[test]
fn an_open_hour_that_was_refused_once_is_logged_as_compared_again() {
    let (findings, mut logged) = (Findings::default(), 0);
    findings.remember(&peer(), hour(), &missing(1), Some(1));
    assert!(!findings.is_to_log(&peer(), hour(), &missing(1)));
    for _ in 0..100 {
        let is = findings.failed(&peer(), hour(), "it is busy".into());
        logged += u32::from(is);
        assert_eq!(findings.not_compared().len(), 1);
        assert_eq!(findings.is_to_log(&peer(), hour(), &missing(1)), is, "or a start would not know it");
        findings.remember(&peer(), hour(), &missing(1), Some(2));
        assert!(findings.not_compared().is_empty());
        assert!(!findings.is_to_log(&peer(), hour(), &missing(1)));
    }
    assert_eq!(logged, LOGGED, "who goes away again and again does not fill the log");
}

#[test]
fn a_wrong_answer_is_logged_once_until_the_hour_is_agreed_on_and_not_without_end() {
    let (findings, mut logged) = (Findings::default(), 0);
    for _ in 0..100 {
        let is = findings.is_wrong_to_log(&peer(), hour());
        if is {
            findings.answered_wrongly(&peer(), hour());
        }
        logged += u32::from(is);
        findings.remember(&peer(), hour(), &missing(1), None);
        assert!(!findings.is_wrong_to_log(&peer(), hour()), "that is known");
        findings.remember(&peer(), hour(), &Reconciliation::default(), None);
    }
    assert_eq!(logged, LOGGED);
    assert!(findings.is_wrong_to_log(&peer(), hour().next()));
}

#[test]
fn however_much_was_logged_what_is_graver_is_logged() {
    let findings = Findings::default();
    for n in 0..100 {
        let found = Reconciliation { recovered: n, ..Reconciliation::default() };
        let at = findings.is_to_log(&peer(), hour(), &found).then_some(n);
        findings.remember(&peer(), hour(), &found, at);
    }
    let unexplained = Reconciliation { unexplained: true, ..Reconciliation::default() };
    assert!(findings.is_to_log(&peer(), hour(), &unexplained));
    // One message more each time: as many records as there are powers of two.
    let mut logged = 0;
    for count in 1..=16_384 {
        let at = findings.is_to_log(&peer(), hour(), &missing(count)).then_some(count);
        findings.remember(&peer(), hour(), &missing(count), at);
        logged += u32::from(at.is_some());
    }
    assert_eq!(logged, 15);
    assert!(!findings.is_to_log(&peer(), hour(), &missing(3)), "that is no graver");
}

#[test]
fn who_has_looked_into_it_is_told_again_of_what_is_found_later() {
    let findings = Findings::default();
    findings.remember(&peer(), hour(), &missing(1), Some(7));
    let open = findings.matters().open.remove(peer().as_str()).unwrap();
    assert!(open.what.contains("1 messages are missing here") && open.up_to == 7, "{}", open.what);
    findings.acknowledge(&acknowledgement(6));
    assert_eq!(findings.matters().open.len(), 1, "of what came before it");
    findings.acknowledge(&acknowledgement(7));
    let Matters { open, acknowledged } = findings.matters();
    assert_eq!((open.len(), acknowledged.len()), (0, 1));
    assert_eq!(findings.standings()[0].missing_here, 1, "it is so all the same");
    // The same again is nothing new; another hour, and another finding of this one, are.
    findings.remember(&peer(), hour(), &missing(1), None);
    assert!(findings.matters().open.is_empty());
    findings.remember(&peer(), hour().next(), &missing(1), Some(9));
    assert_eq!(findings.matters().open.len(), 1);
    findings.acknowledge(&acknowledgement(9));
    findings.remember(&peer(), hour(), &missing(2), None);
    assert_eq!(findings.matters().open.len(), 1, "also where the log has had enough of that hour");
}

#[test]
fn what_is_long_over_is_forgotten_and_what_is_open_is_not() {
    let findings = Findings::default();
    findings.remember(&peer(), hour(), &Reconciliation::default(), Some(1));
    findings.remember(&peer(), hour().next(), &missing(1), Some(2));
    findings.failed(&peer(), hour(), "it is busy".into());
    let month = hour().end().plus(RECALLED * 2);
    findings.forget(month, |_| true);
    assert_eq!(locked(&findings.found).len(), 1);
    assert_eq!(findings.not_compared().len(), 1, "it can still be compared");
    findings.answered_wrongly(&peer(), hour());
    findings.acknowledge(&acknowledgement(2));
    findings.forget(hour().end().plus(RECALLED * 12), |_| true);
    assert!(locked(&findings.found).is_empty() && findings.not_compared().is_empty());
    assert!(locked(&findings.failed).is_empty() && locked(&findings.wrong).is_empty());
}
