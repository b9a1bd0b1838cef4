use super::*;
use std::num::NonZeroU32;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{GrantChange, GroupChange, RateLimit, leaf::Entry};

fn grant(id: &str) -> GrantChange {
    GrantChange {
        id: id.into(),
        client: "NORD/SH/luebeck/gewerbeamt".into(),
        service: "NORD/MV/gewerberegister/register/auskunft".into(),
        method: "/gewerbe.v1.Register/*".into(),
        purposes: vec!["gewerbeummeldung".into()],
        in_force: true,
        operator: "op".into(),
        legal_bases: vec!["GewO-14".into()],
        ..GrantChange::default()
    }
}

fn group(id: &str, members: &[&str]) -> GroupChange {
    let members = members.iter().map(|id| (*id).into()).collect();
    GroupChange { id: id.into(), group: "aemter".into(), members, ..GroupChange::default() }
}

fn logged(entry: impl Into<Change>) -> Leaf {
    let entry = match entry.into() {
        Change::Grant(change) => Entry::Grant(change),
        Change::Group(change) => Entry::Group(change),
    };
    Leaf { version: 1, logged_ms: 1, entry: Some(entry) }
}

enum Change {
    Grant(GrantChange),
    Group(GroupChange),
}

impl From<GrantChange> for Change {
    fn from(change: GrantChange) -> Self {
        Self::Grant(change)
    }
}

impl From<GroupChange> for Change {
    fn from(change: GroupChange) -> Self {
        Self::Group(change)
    }
}

fn topic() -> Topic {
    Topic {
        exchange: ExchangeId::new(Time::from_millis(1), &[0; 10]),
        client: "NORD/SH/luebeck/gewerbeamt".parse().unwrap(),
        service: "NORD/MV/gewerberegister/register/auskunft".parse().unwrap(),
        method: Some("/gewerbe.v1.Register/Auskunft".parse().unwrap()),
        purpose: "gewerbeummeldung".parse().unwrap(),
        legal_basis: "GewO-14".parse().unwrap(),
        route: None,
        bridged_from: None,
    }
}

/// A configuration that was verified, from the vectors.
fn configuration() -> Configuration {
    let anchor = include_bytes!("../../../proto/vectors/global_configuration/anchor");
    let text = include_str!("../../../proto/vectors/global_configuration/signed-configuration.hex");
    let anchor = trave_proto::global_configuration::Anchor::parse(anchor).unwrap();
    let bytes = hex::decode(text.split_whitespace().collect::<String>()).unwrap();
    Configuration::verify_encoded(bytes.into(), &anchor).unwrap()
}

struct Bench {
    access: Access,
    configuration: Configuration,
}

impl Bench {
    fn new() -> Self {
        Self { access: Access::default(), configuration: configuration() }
    }

    fn log(&self, change: impl Into<Change>) {
        self.access.apply(&logged(change)).unwrap();
    }

    fn at(&self, millis: i64) -> Circumstances<'_> {
        Circumstances { configuration: &self.configuration, now: Time::from_millis(millis) }
    }

    fn permit(&self, topic: &Topic) -> Result<Permitted, Fault> {
        self.access.permit(topic, None, self.at(1_000))
    }
}

#[test]
fn only_what_is_granted_is_permitted() {
    let bench = Bench::new();
    assert_eq!(bench.permit(&topic()).unwrap_err().reason, Reason::AccessDenied);
    bench.log(grant("g1"));
    assert_eq!(bench.permit(&topic()).unwrap().grant().id(), "g1");
    let changes: [fn(&mut Topic); 5] = [
        |t| t.client = "NORD/SH/luebeck/bauamt".parse().unwrap(),
        |t| t.service = "NORD/MV/gewerberegister/register/anderes".parse().unwrap(),
        |t| t.method = Some("/gewerbe.v1.Anderer/Auskunft".parse().unwrap()),
        |t| t.purpose = "neugier".parse().unwrap(),
        |t| t.legal_basis = "keine".parse().unwrap(),
    ];
    for change in changes {
        let mut other = topic();
        change(&mut other);
        assert!(bench.permit(&other).is_err(), "{other:?}");
    }
    let over_http = Topic { method: None, ..topic() };
    let endpoint =
        Endpoint { method: "POST".into(), path: "/gewerbe.v1.Register/Auskunft".into(), destination: None };
    let denied = bench.access.permit(&over_http, Some(endpoint), bench.at(1));
    assert!(denied.is_err(), "a grant of gRPC methods is none for HTTP");
    assert!(bench.permit(&over_http).is_err());
    bench.log(GrantChange { in_force: false, ..grant("g1") });
    assert!(bench.permit(&topic()).is_err());
    let again = bench.access.apply(&logged(GrantChange { in_force: false, ..grant("g1") }));
    assert!(matches!(again, Err(AccessError::Unknown(_))));
}

#[test]
fn a_broken_change_changes_nothing() {
    let bench = Bench::new();
    bench.log(grant("g1"));
    let broken = GrantChange { purposes: vec![], ..grant("g1") };
    assert!(matches!(bench.access.apply(&logged(broken)), Err(AccessError::Terms(_))));
    let broken = GroupChange { group: "zwei worte".into(), ..group("c1", &[]) };
    assert!(matches!(bench.access.apply(&logged(broken)), Err(AccessError::Group(_))));
    let broken = bench.access.apply(&logged(group("c1", &["b/b/b", "a/a/a"])));
    assert!(matches!(broken, Err(AccessError::Members(_))));
    assert!(bench.permit(&topic()).is_ok() && bench.access.groups().is_empty());
}

#[test]
fn what_was_only_applied_for_allows_nothing() {
    let bench = Bench::new();
    let applied = GrantChange { in_force: false, applied: true, ..grant("g1") };
    bench.log(applied.clone());
    assert!(bench.permit(&topic()).is_err());
    assert!(matches!(bench.access.waits("g1"), Some(Waiting::Grant(_))));
    bench.log(grant("g1"));
    assert!(bench.permit(&topic()).is_ok() && bench.access.waiting().is_empty());
    bench.log(GrantChange { id: "g2".into(), ..applied });
    bench.log(GrantChange { in_force: false, ..grant("g2") });
    assert!(bench.access.waiting().is_empty(), "an application can be withdrawn");
}

#[test]
fn a_local_group_is_known_by_its_last_change_and_its_record_goes_with_the_permission() {
    let bench = Bench::new();
    bench.log(GrantChange { client: "local-group:aemter".into(), ..grant("g1") });
    assert!(bench.permit(&topic()).is_err(), "there is no such group");
    bench.log(group("c1", &["NORD/SH/luebeck"]));
    let permitted = bench.permit(&topic()).unwrap();
    let leaf = bench.access.group(&"aemter".parse().unwrap()).unwrap().leaf.clone();
    assert_eq!(permitted.group(), Some(&leaf));
    bench.log(GroupChange { applied: true, ..group("c2", &["NORD/SH/luebeck", "NORD/SH/luebeck/bauamt"]) });
    assert_eq!(bench.access.waiting().len(), 1);
    bench.log(group("c3", &["NORD/SH/kiel"]));
    assert!(permitted.still(&bench.access, &topic(), bench.at(1)).is_err());
    assert!(bench.permit(&topic()).is_err());
    assert!(bench.access.waiting().is_empty(), "what was applied for was for the group as it was");
    bench.log(group("c4", &[]));
    assert!(bench.access.groups().is_empty());
    let unknown = GroupChange { dropped: true, ..group("c9", &[]) };
    assert!(matches!(bench.access.apply(&logged(unknown)), Err(AccessError::Unknown(_))));
}

#[test]
fn dates_hold_for_the_first_message_and_for_those_after_it() {
    let bench = Bench::new();
    bench.log(GrantChange { not_before_ms: Some(10), not_after_ms: Some(20), ..grant("g1") });
    let at = |millis| bench.access.permit(&topic(), None, bench.at(millis));
    assert!(at(9).is_err() && at(21).is_err());
    let permitted = at(10).unwrap();
    assert!(permitted.still(&bench.access, &topic(), bench.at(20)).is_ok());
    assert!(permitted.still(&bench.access, &topic(), bench.at(21)).is_err());
    let patterns = |millis| {
        let topic = topic();
        bench.access.patterns(&topic.client, &topic.service, bench.at(millis))
    };
    assert_eq!((patterns(9).len(), patterns(20)), (0, vec!["/gewerbe.v1.Register/*".to_owned()]));
}

#[test]
fn a_rate_is_used_up_by_calls_and_not_by_looking() {
    let bench = Bench::new();
    let rate_limit = Some(RateLimit { calls: 1, period_ms: 3_600_000, burst: 2 });
    bench.log(GrantChange { rate_limit, ..grant("g1") });
    let first = bench.permit(&topic()).unwrap();
    for _ in 0..10 {
        first.still(&bench.access, &topic(), bench.at(1)).unwrap();
    }
    bench.log(group("c1", &["NORD/SH/kiel"]));
    assert!(bench.permit(&topic()).is_ok(), "a change of something else fills nothing up");
    let limited = bench.permit(&topic()).unwrap_err();
    assert_eq!(limited.reason, Reason::RateLimited);
    assert!(limited.retry_safe() && limited.message.contains("try again in 3"), "{limited}");
    // Another grant for the same goes on where this one is used up.
    bench.log(grant("g2"));
    assert_eq!(bench.permit(&topic()).unwrap().grant().id(), "g2");
}

#[test]
fn a_grant_has_so_many_exchanges_at_a_time() {
    let bench = Bench::new();
    bench.log(GrantChange { exchanges: 1, ..grant("g1") });
    let first = bench.permit(&topic()).unwrap();
    assert_eq!(first.grant().terms.exchanges, NonZeroU32::new(1));
    let refused = bench.permit(&topic()).unwrap_err();
    assert!(refused.reason == Reason::RateLimited && refused.retry_safe(), "{refused:?}");
    drop(first);
    assert!(bench.permit(&topic()).is_ok());
}

#[test]
fn an_explanation_names_what_does_not_fit() {
    let bench = Bench::new();
    let rate_limit = Some(RateLimit { calls: 1, period_ms: 3_600_000, burst: 1 });
    bench.log(GrantChange { client: "local-group:aemter".into(), ..grant("g1") });
    bench.log(GrantChange { purposes: vec!["statistik".into()], not_after_ms: Some(5), ..grant("g2") });
    bench.log(GrantChange { in_force: false, applied: true, ..grant("g3") });
    bench.log(GrantChange { rate_limit, ..grant("g4") });
    bench.permit(&topic()).unwrap();
    let Topic { client, service, method, purpose, legal_basis, .. } = topic();
    let at = Time::from_millis(10);
    let question = Question { client, service, method, endpoint: None, purpose, legal_basis, at };
    let explained = bench.access.explain(&question, &bench.configuration);
    let told: Vec<_> = explained.iter().map(|one| (one.grant.id(), one.misfits.join("; "))).collect();
    let waits = "it is not in force: it waits for another person's approval";
    let expected = [
        ("g4", String::new()),
        ("g1", "the client does not belong to local-group:aemter".into()),
        ("g3", waits.into()),
        ("g2", "its purposes are statistik; it held until 1970-01-01T00:00:00.005Z".into()),
    ];
    assert_eq!(told, expected);
    assert!(explained[0].notes[0].contains("used up now, for 3"), "{:?}", explained[0].notes);
    assert_eq!(explained[1].notes, ["there is no local-group:aemter"]);
}
