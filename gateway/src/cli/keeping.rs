//! Verbs about what is kept, for how long, and where: legal holds, and the disk.

use bytes::Bytes;
use clap::{Args, Subcommand};
use trave_host::moment::Moment;
use trave_proto::access::Principal;
use trave_proto::clock::Time;
use trave_proto::identifier::{ExchangeId, ServiceId};
use trave_proto::schema::log;
use trave_proto::schema::operator::{
    ApproveRequest, DiskEntry, DiskReportRequest, HoldEntry, LiftHoldRequest, ListHoldsRequest,
    SetHoldRequest,
};

use super::operate::{Door, said, user};

#[derive(Debug, Subcommand)]
pub(super) enum HoldCommand {
    /// Keep records beyond their time, and their contents from schedules; prints the hold's id
    Set(Set),
    /// End a hold: what it kept goes at the next run, where its time is over
    Lift {
        /// The hold's id
        id: String,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
    /// Approve what another person applied for: a hold, or its end
    Approve {
        /// The hold's id
        id: String,
    },
    /// Show the holds: id, since, state, what, by whom, approved by whom, reason, separated by tabs
    List,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// This exchange; may be repeated
    #[arg(long = "exchange", conflicts_with_all = ["client", "service", "from", "to"])]
    exchanges: Vec<ExchangeId>,
    /// Asked by this subsystem, or by any of this member
    #[arg(long)]
    client: Option<Principal>,
    /// Of this service
    #[arg(long)]
    service: Option<ServiceId>,
    /// Begun at or after this time, 2026-11-21 or 2026-11-21T10:30:00Z
    #[arg(long, value_name = "MOMENT")]
    from: Option<Moment>,
    /// Begun before this time
    #[arg(long, value_name = "MOMENT")]
    to: Option<Moment>,
    /// Why, as a court's file number; it is logged
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    /// Show what lies where: what, path, files, bytes, mode, who can read it, until when, separated by tabs
    Report,
}

pub(super) fn hold(door: &Door<'_>, command: HoldCommand) -> anyhow::Result<()> {
    match command {
        HoldCommand::Set(set) => self::set(door, set),
        HoldCommand::Lift { id, reason } => lift(door, id, reason),
        HoldCommand::Approve { id } => {
            let request = ApproveRequest { id: id.clone(), operator: user() };
            door.with(async |client| client.approve(request).await.map_err(said))?;
            eprintln!("approved: {id}");
            Ok(())
        }
        HoldCommand::List => list(door),
    }
}

fn set(door: &Door<'_>, set: Set) -> anyhow::Result<()> {
    let request = SetHoldRequest {
        exchange_ids: set.exchanges.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        client: set.client.map(|client| client.to_string()),
        service: set.service.map(|service| service.to_string()),
        from_ms: set.from.map(|moment| moment.0.as_millis()),
        to_ms: set.to.map(|moment| moment.0.as_millis()),
        reason: set.reason,
        operator: user(),
    };
    let done = door.with(async |client| client.set_hold(request).await.map_err(said))?.into_inner();
    match done.waiting {
        false => eprintln!("held"),
        true => eprintln!(
            "held for 14 days\nhint: it holds on when another person runs `hold approve {}` before",
            done.id
        ),
    }
    println!("{}", done.id);
    Ok(())
}

fn lift(door: &Door<'_>, id: String, reason: String) -> anyhow::Result<()> {
    let request = LiftHoldRequest { id: id.clone(), reason, operator: user() };
    let done = door.with(async |client| client.lift_hold(request).await.map_err(said))?.into_inner();
    match done.waiting {
        false => eprintln!("{id} holds nothing any more"),
        true => {
            eprintln!("applied for; it holds on\nhint: it ends when another person runs `hold approve {id}`")
        }
    }
    Ok(())
}

fn list(door: &Door<'_>) -> anyhow::Result<()> {
    let listed = door.with(async |client| client.list_holds(ListHoldsRequest {}).await.map_err(said))?;
    let holds = listed.into_inner().holds;
    holds.iter().for_each(|hold| println!("{}", line(hold)));
    if holds.is_empty() {
        eprintln!("nothing is held\nhint: `hold set` keeps records beyond their time");
    }
    Ok(())
}

fn line(entry: &HoldEntry) -> String {
    let hold = entry.hold.clone().unwrap_or_default();
    let since = Time::from_millis(entry.since_ms).to_string();
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let what = concerns(&hold);
    [hold.id, since, entry.state.clone(), what, hold.operator, dash(&hold.approver), hold.reason].join("\t")
}

fn concerns(hold: &log::Hold) -> String {
    let at = |millis: i64| Time::from_millis(millis).to_string();
    let ids =
        hold.exchange_ids.iter().filter_map(|id| ExchangeId::from_slice(id).ok()).map(|id| id.to_string());
    let named = [("client", &hold.client), ("service", &hold.service)];
    let named =
        named.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name} {text}"));
    let times = [("from", hold.from_ms), ("to", hold.to_ms)];
    let times = times.into_iter().filter_map(|(name, time)| Some(format!("{name} {}", at(time?))));
    ids.chain(named).chain(times).collect::<Vec<_>>().join(", ")
}

pub(super) fn disk(door: &Door<'_>, DiskCommand::Report: DiskCommand) -> anyhow::Result<()> {
    let report = door.with(async |client| client.disk_report(DiskReportRequest {}).await.map_err(said))?;
    let report = report.into_inner();
    for DiskEntry { what, path, files, bytes, mode, readable_by, until } in report.entries {
        println!("{what}\t{path}\t{files}\t{bytes}\t{mode:04o}\t{readable_by}\t{until}");
    }
    for held in report.held {
        println!("held\t{}", line(&held));
    }
    Ok(())
}
