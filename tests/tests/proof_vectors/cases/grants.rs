//! What a proof tells of the grant: for whom, until when, by whom, and for which path.

use prost::Message;
use trave_proto::global_configuration::Configuration;
use trave_proto::schema::configuration::{Group, ServiceKind};
use trave_proto::schema::log::{GroupChange, Leaf};
use trave_proto::schema::message::{Header, RequestHead};

use super::{Cases, Expected};
use crate::exchange::{Keep, Plan, Say, request, response};
use crate::world::{NOW, World, signed};

const MEMBER: &str = "NORD/SH/luebeck";

pub(super) fn add(cases: &mut Cases<'_>) {
    subjects(cases);
    dates_and_persons(cases);
    endpoints(cases);
}

fn fails(why: &'static str) -> Expected {
    Expected::Fails("permission", why)
}

fn subjects(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = || Plan::unary(world, true);
    let to_member = Plan { grant: |g| g.client = MEMBER.into(), ..plan() };
    cases.add("grant-of-member", "the grant is the whole member's", to_member.file(), Expected::Holds);
    let old = Plan { grant_version: 1, ..plan() };
    cases.add("grant-of-before", "the grant's record is of version 1", old.file(), Expected::Holds);
    let newer = Plan { grant_version: Leaf::VERSION + 1, ..plan() };
    let expected = Expected::CannotTell("permission", "use a newer trave-verify");
    cases.add("grant-newer", "the grant's record is of a later version", newer.file(), expected);
    let to_local = |group| Plan { grant: |g| g.client = "local-group:aemter".into(), group, ..plan() };
    let group = |members: &[&str]| GroupChange {
        id: "c1".into(),
        group: "aemter".into(),
        members: members.iter().map(|one| (*one).into()).collect(),
        ..GroupChange::default()
    };
    let about = "the grant is a local group's, whose record is there";
    cases.add("grant-of-local-group", about, to_local(Some(group(&[MEMBER]))).file(), Expected::Holds);
    for (name, about, record, why) in [
        ("local-group-absent", "the record of the group is not named", None, "names no record of the group"),
        (
            "local-group-of-others",
            "the client is not in the group",
            Some(group(&["NORD/SH/kiel"])),
            "does not belong to local-group:aemter",
        ),
        (
            "local-group-of-another-name",
            "the record is of another group",
            Some(GroupChange { group: "andere".into(), ..group(&[MEMBER]) }),
            "does not put this group into force",
        ),
        (
            "local-group-applied",
            "the group was only applied for",
            Some(GroupChange { applied: true, ..group(&[MEMBER]) }),
            "does not put this group into force",
        ),
    ] {
        cases.add(name, about, to_local(record).file(), fails(why));
    }
    let needless = Plan { group: Some(group(&[MEMBER])), ..plan() };
    let why = "names a group that its grant is not for";
    cases.add("local-group-needless", "a group that the grant is not for", needless.file(), fails(why));

    let to_global = |members: &[&str]| {
        let mut raw = world.raw_configuration();
        let members = members.iter().map(|one| (*one).into()).collect();
        raw.groups.push(Group { code: "kommunen".into(), name: "Kommunen".into(), members });
        let configuration = Some(Configuration::verify(&signed(&raw), &world.anchor).unwrap());
        Plan { grant: |g| g.client = "global-group:kommunen".into(), configuration, ..plan() }.file()
    };
    let about = "the grant is a global group's, which the configuration names";
    cases.add("grant-of-global-group", about, to_global(&[MEMBER]), Expected::Holds);
    let why = "does not belong to global-group:kommunen";
    cases.add("global-group-of-others", "the client is not in the group", to_global(&[]), fails(why));
}

fn dates_and_persons(cases: &mut Cases<'_>) {
    let world = cases.world;
    let plan = |grant| Plan { grant, ..Plan::unary(world, true) }.file();
    let dated = plan(|g| {
        (g.not_before_ms, g.not_after_ms) = (Some(NOW.as_millis()), Some(NOW.as_millis() + 60_000));
    });
    cases.add("grant-in-its-time", "a grant with dates, between them", dated, Expected::Holds);
    let early = plan(|g| g.not_before_ms = Some(NOW.as_millis() + 3_600_000));
    cases.add("grant-not-yet", "the grant holds later", early, fails("it holds from"));
    let late = plan(|g| g.not_after_ms = Some(NOW.as_millis() - 3_600_000));
    cases.add("grant-expired", "the grant had expired", late, fails("it held until"));
    let applied = plan(|g| (g.applied, g.in_force) = (true, false));
    cases.add("grant-applied", "nobody had approved the grant", applied, fails("does not put it into force"));
    let two = plan(|g| {
        (g.operator_user, g.approver_user) = (Some(1001), Some(1002));
        g.approver = "user 1002 (Uwe)".into();
    });
    cases.add("grant-by-two", "one applied for the grant, another approved it", two, Expected::Holds);
    let alone = plan(|g| {
        (g.operator_user, g.approver_user) = (Some(1001), Some(1001));
        g.approver = "user 1001 (Uwe)".into();
    });
    cases.add("grant-by-one-twice", "its applicant approved the grant", alone, fails("name two persons"));
}

/// An exchange over HTTP with the grant's pattern.
fn over_http(world: &World, head: RequestHead) -> Plan<'_> {
    let mut raw = world.raw_configuration();
    for service in &mut raw.services {
        (service.kind, service.methods) = (ServiceKind::Rest.into(), Vec::new());
    }
    let asked = request("wer?");
    let content =
        trave_proto::message::Content { head: Some(head.encode_to_vec().into()), ..asked.content.clone() };
    Plan {
        messages: vec![Say { content, ..asked }, response("niemand")],
        fields: |fields| fields.method = None,
        grant: |g| g.method = "GET /v1/*".into(),
        configuration: Some(Configuration::verify(&signed(&raw), &world.anchor).unwrap()),
        ..Plan::unary(world, true)
    }
}

fn head(method: &str, path: &str) -> RequestHead {
    RequestHead { method: method.into(), path: path.into(), query: None, headers: Vec::new() }
}

fn endpoints(cases: &mut Cases<'_>) {
    let world = cases.world;
    let asked = |method, path| over_http(world, head(method, path)).file();
    let about = "the grant covers the HTTP method and path";
    cases.add("endpoint-granted", about, asked("GET", "/v1/4711"), Expected::Holds);
    let withheld = Plan { keep: Keep::Withheld, ..over_http(world, head("POST", "/v2")) };
    let about = "whether the grant covers the path cannot be seen: the content is not there";
    cases.add("endpoint-withheld", about, withheld.file(), Expected::Holds);
    for (name, about, file) in [
        ("endpoint-of-another-method", "the grant is for another HTTP method", asked("POST", "/v1/4711")),
        ("endpoint-of-another-path", "the grant is for another path", asked("GET", "/v2/4711")),
    ] {
        cases.add(name, about, file, fails("it is for GET /v1/* only"));
    }
    let grpc = Plan { grant: |_| {}, ..over_http(world, head("GET", "/v1/4711")) };
    let about = "the grant is for methods of gRPC, and HTTP was spoken";
    cases.add("endpoint-of-grpc-grant", about, grpc.file(), fails("it is for /gewerbe.v1.Register/* only"));
    let about = "a path that two programs read differently";
    cases.add("endpoint-ambiguous", about, asked("GET", "/v1/%2e%2e"), fails("a segment of dots"));
    let moved = |to: &str| {
        let to = Header { name: "destination".into(), value: to.to_owned().into() };
        let head = RequestHead { headers: vec![to], ..head("MOVE", "/v1/1") };
        Plan { grant: |g| g.method = "MOVE /v1/*".into(), ..over_http(world, head) }.file()
    };
    cases.add("destination-granted", "WebDAV: both paths are covered", moved("/v1/2"), Expected::Holds);
    let about = "WebDAV: it moves to where the grant does not reach";
    cases.add("destination-elsewhere", about, moved("/v2/2"), fails("it is for MOVE /v1/* only"));
}
