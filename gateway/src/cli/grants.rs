//! Verbs about access: grant, approve, withdraw, list, history, explain; and local groups.

use std::str::FromStr;

use clap::{Args, Subcommand};
use trave_host::moment::Moment;
use trave_proto::access::{Principal, Subject};
use trave_proto::clock::Time;
use trave_proto::identifier::{Method, ServiceId, SubsystemId};
use trave_proto::message::Code;
use trave_proto::schema::log::{GrantChange, GroupChange, RateLimit};
use trave_proto::schema::operator::list_changes_response::Change;
use trave_proto::schema::operator::{
    ApproveRequest, ChangeGroupRequest, ExplainGrantRequest, GrantEntry, GrantRequest, ListChangesRequest,
    ListChangesResponse, ListGrantsRequest, ListGroupsRequest, RevokeGrantRequest,
};

use super::operate::{Door, said, user};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct GrantCommand {
    #[command(subcommand)]
    verb: Option<GrantVerb>,
    #[command(flatten)]
    grant: Option<Grant>,
}

#[derive(Debug, Subcommand)]
enum GrantVerb {
    /// Put into force what another person applied for: a grant, or a change of a group
    Approve {
        /// The id that `grants` or `group list` shows
        id: String,
    },
    /// Show the changes of grants and groups, the earliest first: time, id, what, by whom, approved by whom, the grant or the
    /// members, separated by tabs
    History {
        /// A grant's id, or local-group:CODE; all changes if absent
        id: Option<String>,
        /// Why the log is read; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Say why a call would be allowed or refused; exit status 1 if it would be refused
    Explain(Explain),
}

#[derive(Debug, Args)]
struct Grant {
    /// Who may call: INSTANCE/CLASS/MEMBER[/SUBSYSTEM], local-group:CODE or global-group:CODE
    #[arg(long)]
    client: Subject,
    /// What may be called, INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE
    #[arg(long)]
    service: ServiceId,
    /// Which methods: /package.Service/Method, /package.Service/* or /*; of REST 'GET /path/*', with ** for the rest
    #[arg(long)]
    method: String,
    /// A purpose of the catalogue; may be repeated
    #[arg(long = "purpose", required = true)]
    purposes: Vec<Code>,
    /// A legal basis of the catalogue; may be repeated
    #[arg(long = "legal-basis", required = true)]
    legal_bases: Vec<Code>,
    /// From this moment on, 2026-11-21 or 2026-11-21T10:30:00Z
    #[arg(long, value_name = "MOMENT")]
    not_before: Option<Moment>,
    /// Until this moment
    #[arg(long, value_name = "MOMENT")]
    not_after: Option<Moment>,
    /// At most so many calls in so much time, as 100/1m; units are ms, s, m, h, d
    #[arg(long, value_name = "CALLS/TIME")]
    rate: Option<Rate>,
    /// So many of them at once after a pause; all if absent
    #[arg(long, requires = "rate", value_name = "CALLS")]
    burst: Option<u32>,
    /// At most so many exchanges at a time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    exchanges: Option<u32>,
}

#[derive(Debug, Args)]
#[group(id = "target", required = false)]
struct Explain {
    /// Who would call, INSTANCE/CLASS/MEMBER/SUBSYSTEM
    #[arg(long)]
    client: SubsystemId,
    /// What would be called
    #[arg(long)]
    service: ServiceId,
    /// Of gRPC: the method, /package.Service/Method
    #[arg(long, required_unless_present = "endpoint", conflicts_with = "endpoint")]
    method: Option<Method>,
    /// Of REST: method and path, 'GET /path'
    #[arg(long)]
    endpoint: Option<String>,
    /// Of WebDAV's COPY and MOVE: the path where it goes
    #[arg(long, value_name = "PATH", requires = "endpoint")]
    destination: Option<String>,
    /// The purpose
    #[arg(long)]
    purpose: Code,
    /// The legal basis
    #[arg(long)]
    legal_basis: Code,
    /// At this moment; now if absent. Grants and groups are those of now
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Take members or subsystems into a local group; it is made if it is not there
    Add {
        /// 1 to 64 characters of A-Z a-z 0-9 . _ -
        group: Code,
        /// INSTANCE/CLASS/MEMBER, with all its subsystems, or INSTANCE/CLASS/MEMBER/SUBSYSTEM
        #[arg(required = true)]
        members: Vec<Principal>,
    },
    /// Take members or subsystems out of a local group, at once
    Remove {
        /// The group's code
        group: Code,
        /// Who goes out
        #[arg(required_unless_present = "all")]
        members: Vec<Principal>,
        /// All of them: the group is no more
        #[arg(long, conflicts_with = "members")]
        all: bool,
    },
    /// Show local and global groups: group, members, id of a change that waits for approval, separated by tabs
    List,
}

/// CALLS/TIME
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    calls: u32,
    period_ms: u64,
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (calls, time) = text.split_once('/')?;
            let unit = time.trim_start_matches(|c: char| c.is_ascii_digit());
            let millis: u64 = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            let count = &time[..time.len() - unit.len()];
            let count: u64 = if count.is_empty() { 1 } else { count.parse().ok()? };
            Some(Self { calls: calls.parse().ok()?, period_ms: count.checked_mul(millis)? })
        };
        read().ok_or("is no rate; write 100/1m for a hundred in a minute")
    }
}

fn text<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Exit status: whether what was asked for is so.
pub(super) fn run(door: &Door<'_>, command: GrantCommand) -> anyhow::Result<bool> {
    match (command.verb, command.grant) {
        (Some(GrantVerb::Approve { id }), _) => approve(door, id)?,
        (Some(GrantVerb::History { id, reason }), _) => history(door, id, reason)?,
        (Some(GrantVerb::Explain(question)), _) => return explain(door, question),
        (None, Some(grant)) => make(door, grant)?,
        (None, None) => anyhow::bail!("nothing is granted\nhint: `grant --help`"),
    }
    Ok(true)
}

fn make(door: &Door<'_>, grant: Grant) -> anyhow::Result<()> {
    let limit = |rate: Rate| RateLimit {
        calls: rate.calls,
        period_ms: rate.period_ms,
        burst: grant.burst.unwrap_or(rate.calls),
    };
    let request = GrantRequest {
        client: grant.client.to_string(),
        service: grant.service.to_string(),
        method: grant.method,
        purposes: text(&grant.purposes),
        legal_bases: text(&grant.legal_bases),
        operator: user(),
        not_before_ms: grant.not_before.map(|moment| moment.0.as_millis()),
        not_after_ms: grant.not_after.map(|moment| moment.0.as_millis()),
        rate_limit: grant.rate.map(limit),
        exchanges: grant.exchanges.unwrap_or(0),
    };
    let granted = door.with(async |client| client.grant(request).await.map_err(said))?.into_inner();
    tell_whether_in_force("granted, and in force", granted.waiting, &granted.id);
    println!("{}", granted.id);
    Ok(())
}

fn tell_whether_in_force(done: &str, waiting: bool, id: &str) {
    match waiting {
        false => eprintln!("{done}"),
        true => eprintln!(
            "applied for, and not in force\nhint: it comes into force when another person runs `grant approve {id}`"
        ),
    }
}

fn approve(door: &Door<'_>, id: String) -> anyhow::Result<()> {
    let request = ApproveRequest { id: id.clone(), operator: user() };
    door.with(async |client| client.approve(request).await.map_err(said))?;
    eprintln!("approved: {id} is in force");
    Ok(())
}

pub(super) fn revoke(door: &Door<'_>, id: String) -> anyhow::Result<()> {
    let request = RevokeGrantRequest { id: id.clone(), operator: user() };
    door.with(async |client| client.revoke_grant(request).await.map_err(said))?;
    eprintln!("withdrawn: {id} allows nothing any more");
    Ok(())
}

pub(super) fn list(door: &Door<'_>) -> anyhow::Result<()> {
    let listed = door.with(async |client| client.list_grants(ListGrantsRequest {}).await.map_err(said))?;
    let grants = listed.into_inner().grants;
    grants.iter().for_each(|grant| println!("{}", line(grant)));
    if grants.iter().all(|grant| grant.waiting) {
        eprintln!(
            "no grant is in force: nobody may call anything here\nhint: `grant` lets a client call a service"
        );
    }
    Ok(())
}

/// A grant in columns.
fn line(grant: &GrantEntry) -> String {
    let (purposes, legal_bases) = (grant.purposes.join(","), grant.legal_bases.join(","));
    let what = [&grant.id, &grant.client, &grant.service, &grant.method, &purposes, &legal_bases];
    let limits = limits(grant.rate_limit.as_ref(), grant.exchanges);
    let state = if grant.waiting { "waits for approval" } else { "in force" };
    let dates = dates(grant.not_before_ms, grant.not_after_ms);
    format!("{}\t{dates}\t{limits}\t{state}", what.map(String::as_str).join("\t"))
}

fn dates(not_before: Option<i64>, not_after: Option<i64>) -> String {
    let at = |millis: Option<i64>| millis.map_or("…".into(), |at| Time::from_millis(at).to_string());
    match (not_before, not_after) {
        (None, None) => "-".into(),
        (from, until) => format!("{}/{}", at(from), at(until)),
    }
}

fn limits(rate: Option<&RateLimit>, exchanges: u32) -> String {
    let mut limits = Vec::new();
    if let Some(RateLimit { calls, period_ms, burst }) = rate {
        limits.push(format!("{calls}/{period_ms}ms burst {burst}"));
    }
    if exchanges > 0 {
        limits.push(format!("{exchanges} at a time"));
    }
    if limits.is_empty() { "-".into() } else { limits.join(", ") }
}

fn history(door: &Door<'_>, id: Option<String>, reason: String) -> anyhow::Result<()> {
    let request = ListChangesRequest { id, reader: user(), reason };
    let count = door.with(async |client| {
        let mut changes = client.list_changes(request).await.map_err(said)?.into_inner();
        let mut count = 0_u64;
        while let Some(change) = changes.message().await.map_err(said)? {
            println!("{}", changed(&change));
            count += 1;
        }
        Ok(count)
    })?;
    if count == 0 {
        eprintln!("the log holds no such change\nhint: `grants` and `group list` show ids");
    }
    Ok(())
}

/// A change in columns.
fn changed(change: &ListChangesResponse) -> String {
    let time = Time::from_millis(change.time_ms);
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    match &change.change {
        Some(Change::Grant(grant)) => {
            let what = match (grant.in_force, grant.applied) {
                (true, _) if !grant.approver.is_empty() => "approved",
                (true, _) => "granted",
                (false, true) => "applied for",
                (false, false) => "withdrawn",
            };
            let persons = format!("{}\t{}", dash(&grant.operator), dash(&grant.approver));
            format!("{time}\t{}\t{what}\t{persons}\t{}", grant.id, said_by(grant))
        }
        Some(Change::Group(group)) => {
            let GroupChange { id, operator, approver, members, .. } = group;
            let what = match (group.applied, group.dropped) {
                (true, _) => "applied for",
                (_, true) => "withdrawn",
                _ if !approver.is_empty() => "approved",
                _ => "changed",
            };
            let persons = format!("{}\t{}", dash(operator), dash(approver));
            let members = dash(&members.join(","));
            format!("{time}\t{id}\t{what}\t{persons}\tlocal-group:{}\t{members}", group.group)
        }
        None => format!("{time}\t-\tunknown to this release"),
    }
}

fn said_by(grant: &GrantChange) -> String {
    let (purposes, legal_bases) = (grant.purposes.join(","), grant.legal_bases.join(","));
    let what = [&grant.client, &grant.service, &grant.method, &purposes, &legal_bases];
    let dates = dates(grant.not_before_ms, grant.not_after_ms);
    let limits = limits(grant.rate_limit.as_ref(), grant.exchanges);
    format!("{}\t{dates}\t{limits}", what.map(String::as_str).join("\t"))
}

fn explain(door: &Door<'_>, question: Explain) -> anyhow::Result<bool> {
    let request = ExplainGrantRequest {
        client: question.client.to_string(),
        service: question.service.to_string(),
        method: question.method.map(|method| method.to_string()).unwrap_or_default(),
        endpoint: question.endpoint.unwrap_or_default(),
        destination: question.destination.unwrap_or_default(),
        purpose: question.purpose.to_string(),
        legal_basis: question.legal_basis.to_string(),
        at_ms: question.at.map(|moment| moment.0.as_millis()),
    };
    let told = door.with(async |client| client.explain_grant(request).await.map_err(said))?.into_inner();
    let allowed = !told.allowed_by.is_empty() && told.obstacles.is_empty();
    match allowed {
        true => println!("allowed by {}", told.allowed_by),
        false => println!("refused"),
    }
    told.obstacles.iter().for_each(|obstacle| println!("  {obstacle}"));
    for explained in &told.grants {
        let Some(grant) = &explained.grant else { continue };
        let verdict = if explained.misfits.is_empty() { "fits" } else { "does not fit" };
        println!("{} for {} {verdict}", grant.id, grant.client);
        explained.misfits.iter().for_each(|misfit| println!("  {misfit}"));
        explained.notes.iter().for_each(|note| println!("  note: {note}"));
    }
    if told.grants.is_empty() {
        println!("  no grant is for {}", question.service);
    }
    Ok(allowed)
}

pub(super) fn group(door: &Door<'_>, command: GroupCommand) -> anyhow::Result<()> {
    let request = match command {
        GroupCommand::List => return groups(door),
        GroupCommand::Add { group, members } => {
            ChangeGroupRequest { group: group.to_string(), add: text(&members), ..Default::default() }
        }
        GroupCommand::Remove { group, members, all } => ChangeGroupRequest {
            group: group.to_string(),
            remove: text(&members),
            dissolve: all,
            ..Default::default()
        },
    };
    let request = ChangeGroupRequest { operator: user(), ..request };
    let done = door.with(async |client| client.change_group(request).await.map_err(said))?.into_inner();
    tell_whether_in_force("changed, and in force", done.waiting, &done.id);
    println!("{}", done.id);
    Ok(())
}

fn groups(door: &Door<'_>) -> anyhow::Result<()> {
    let listed = door.with(async |client| client.list_groups(ListGroupsRequest {}).await.map_err(said))?;
    for group in listed.into_inner().groups {
        let waiting = if group.waiting.is_empty() { "-" } else { &group.waiting };
        println!("{}\t{}\t{waiting}", group.group, group.members.join(","));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, calls, period_ms) in
            [("100/1m", 100, 60_000), ("5/s", 5, 1_000), ("1/250ms", 1, 250), ("1000/2d", 1_000, 172_800_000)]
        {
            assert_eq!(text.parse(), Ok(Rate { calls, period_ms }), "{text}");
        }
        for text in ["", "100", "100/", "100/m1", "/1m", "-1/1m", "1/1w", "1/99999999999999999999d", "1/ m"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
