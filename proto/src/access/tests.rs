use super::*;

/// One local group and one global group.
#[derive(Debug, Default)]
struct Groups {
    local: Members,
    global: Members,
}

impl Membership for Groups {
    fn local(&self, group: &Code) -> Option<&Members> {
        (group.as_str() == "aemter").then_some(&self.local)
    }

    fn global(&self, group: &Code) -> Option<&Members> {
        (group.as_str() == "kommunen").then_some(&self.global)
    }
}

fn change() -> GrantChange {
    GrantChange {
        id: "g1".into(),
        client: "NORD/SH/luebeck/gewerbeamt".into(),
        service: "NORD/MV/gewerberegister/register/auskunft".into(),
        method: "/gewerbe.v1.Register/*".into(),
        purposes: vec!["gewerbeummeldung".into()],
        legal_bases: vec!["GewO-14".into()],
        in_force: true,
        operator: "op".into(),
        ..GrantChange::default()
    }
}

struct Asked {
    client: SubsystemId,
    service: ServiceId,
    method: Method,
    purpose: Code,
    legal_basis: Code,
    at: Time,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            client: "NORD/SH/luebeck/gewerbeamt".parse().unwrap(),
            service: "NORD/MV/gewerberegister/register/auskunft".parse().unwrap(),
            method: "/gewerbe.v1.Register/Auskunft".parse().unwrap(),
            purpose: "gewerbeummeldung".parse().unwrap(),
            legal_basis: "GewO-14".parse().unwrap(),
            at: Time::from_millis(1_000),
        }
    }
}

fn misfits(change: &GrantChange, asked: &Asked, groups: &Groups) -> Vec<String> {
    let terms = Terms::parse(change).unwrap();
    let call = Call {
        client: &asked.client,
        service: &asked.service,
        target: Target::Method(&asked.method),
        purpose: &asked.purpose,
        legal_basis: &asked.legal_basis,
        at: asked.at,
        members: groups,
    };
    let found: Vec<_> = terms.misfits(&call).map(|misfit| misfit.to_string()).collect();
    assert_eq!(terms.fit(&call), found.is_empty());
    found
}

#[test]
fn each_part_of_a_call_must_fit_and_what_does_not_is_named() {
    let none = Groups::default();
    assert_eq!(misfits(&change(), &Asked::default(), &none), Vec::<String>::new());
    type Alter = fn(&mut Asked);
    let alter: [(Alter, &str); 5] = [
        (
            |a| a.client = "NORD/SH/luebeck/bauamt".parse().unwrap(),
            "it is for NORD/SH/luebeck/gewerbeamt only",
        ),
        (
            |a| a.service = "NORD/MV/gewerberegister/register/anderes".parse().unwrap(),
            "it is for the service",
        ),
        (
            |a| a.method = "/gewerbe.v1.Anderer/Auskunft".parse().unwrap(),
            "it is for /gewerbe.v1.Register/* only",
        ),
        (|a| a.purpose = "neugier".parse().unwrap(), "its purposes are gewerbeummeldung"),
        (|a| a.legal_basis = "keine".parse().unwrap(), "its legal bases are GewO-14"),
    ];
    for (alter, words) in alter {
        let mut asked = Asked::default();
        alter(&mut asked);
        let found = misfits(&change(), &asked, &none);
        assert!(found.len() == 1 && found[0].starts_with(words), "{found:?}");
    }
}

#[test]
fn a_grant_holds_from_its_first_moment_to_its_last() {
    let dated = GrantChange { not_before_ms: Some(1_000), not_after_ms: Some(2_000), ..change() };
    for (at, words) in [
        (999, Some("it holds from 1970-01-01T00:00:01.000Z on")),
        (1_000, None),
        (2_000, None),
        (2_001, Some("it held until 1970-01-01T00:00:02.000Z")),
    ] {
        let asked = Asked { at: Time::from_millis(at), ..Asked::default() };
        assert_eq!(misfits(&dated, &asked, &Groups::default()).first().map(String::as_str), words, "{at}");
    }
}

#[test]
fn members_and_groups_stand_for_their_subsystems() {
    let members =
        |list: &[&str]| Members::parse(&list.iter().map(|one| (*one).into()).collect::<Vec<_>>()).unwrap();
    let groups = Groups {
        local: members(&["NORD/SH/kiel/bauamt", "NORD/SH/luebeck/gewerbeamt"]),
        global: members(&["NORD/SH/luebeck"]),
    };
    let to = |client: &str| GrantChange { client: client.into(), ..change() };
    for client in ["NORD/SH/luebeck", "local-group:aemter", "global-group:kommunen"] {
        assert!(misfits(&to(client), &Asked::default(), &groups).is_empty(), "{client}");
    }
    for client in ["NORD/SH/lue", "NORD/SH/kiel", "local-group:andere", "global-group:aemter"] {
        assert_eq!(misfits(&to(client), &Asked::default(), &groups).len(), 1, "{client}");
    }
    let other = Asked { client: "NORD/SH/luebeckx/gewerbeamt".parse().unwrap(), ..Asked::default() };
    for client in ["NORD/SH/luebeck", "local-group:aemter", "global-group:kommunen"] {
        assert_eq!(misfits(&to(client), &other, &groups).len(), 1, "{client}");
    }
    let list = |list: &[&str]| Members::parse(&list.iter().map(|one| (*one).into()).collect::<Vec<_>>());
    assert!(matches!(list(&["b/b/b", "a/a/a"]), Err(MembersError::Order(_))));
    assert!(matches!(list(&["a/a/a", "a/a/a"]), Err(MembersError::Order(_))));
    assert!(matches!(list(&["a/a"]), Err(MembersError::Principal { .. })));
}

#[test]
fn what_is_asked_over_http_is_for_http_to_be_granted() {
    let terms = |method: &str| Terms::parse(&GrantChange { method: method.into(), ..change() }).unwrap();
    let (asked, none) = (Asked::default(), Groups::default());
    let call = |target| Call {
        client: &asked.client,
        service: &asked.service,
        target,
        purpose: &asked.purpose,
        legal_basis: &asked.legal_basis,
        at: asked.at,
        members: &none,
    };
    let endpoint =
        Endpoint { method: "POST".into(), path: "/gewerbe.v1.Register/Auskunft".into(), destination: None };
    assert!(!terms("/gewerbe.v1.Register/*").fit(&call(Target::Endpoint(&endpoint))));
    assert!(!terms("/gewerbe.v1.Register/*").fit(&call(Target::SomeEndpoint)));
    assert!(!terms("POST /**").fit(&call(Target::Method(&asked.method))));
    assert!(terms("POST /**").fit(&call(Target::Endpoint(&endpoint))));
    assert!(terms("GET /v1").fit(&call(Target::SomeEndpoint)));
    assert!(
        terms("/*").fit(&call(Target::SomeEndpoint)) && terms("/*").fit(&call(Target::Endpoint(&endpoint)))
    );
}

#[test]
fn what_is_not_of_its_form_is_refused() {
    let rate = |calls, period_ms, burst| Some(RateLimit { calls, period_ms, burst });
    type Alter = fn(&mut GrantChange);
    let alter: [(Alter, &str); 9] = [
        (|c| c.purposes.clear(), "purpose"),
        (|c| c.legal_bases.clear(), "legal basis"),
        (|c| c.method = "*".into(), "method"),
        (|c| c.method = "/gewerbe.v1.Register/Aus*kunft".into(), "method"),
        (|c| c.client = "NORD/SH".into(), "client"),
        (|c| c.client = "local-group:".into(), "client"),
        (|c| c.client = "group:x".into(), "client"),
        (|c| c.not_before_ms = Some(-1), "not_before"),
        (|c| (c.not_before_ms, c.not_after_ms) = (Some(2), Some(1)), "not_after"),
    ];
    for (alter, field) in alter {
        let mut change = change();
        alter(&mut change);
        assert_eq!(Terms::parse(&change).unwrap_err().field, field, "{change:?}");
    }
    for limit in [rate(0, 1, 1), rate(1, 0, 1), rate(1, 1, 0), rate(1_000_001, 1, 1), rate(1, u64::MAX, 1)] {
        let change = GrantChange { rate_limit: limit, ..change() };
        assert_eq!(Terms::parse(&change).unwrap_err().field, "rate", "{change:?}");
    }
    let limited = GrantChange { rate_limit: rate(10, 60_000, 3), exchanges: 2, ..change() };
    let terms = Terms::parse(&limited).unwrap();
    assert_eq!(terms.rate.unwrap().to_string(), "10 calls in 60000 ms, 3 at once");
    assert_eq!(terms.exchanges.map(NonZeroU32::get), Some(2));
}
