//! `reconcile`: comparing this log with another security server's, and showing what was found.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Difference, DifferenceKind as Kind, Reconciliation};
use trave_proto::schema::message::Direction;
use trave_proto::schema::operator::{ListReconciliationsRequest, ReconcileRequest};

use super::operate::{Door, said, user};
use super::{Reconcile, ReconcileCommand, ReconcileList};

/// Compares, or shows what was found.
pub(super) fn run(door: &Door<'_>, command: Reconcile) -> anyhow::Result<ExitCode> {
    match command {
        Reconcile { command: Some(ReconcileCommand::List(list)), .. } => {
            shown(door, list).map(|()| ExitCode::SUCCESS)
        }
        Reconcile { peer: Some(peer), from: Some(from), to: Some(to), .. } => {
            let request = ReconcileRequest {
                peer: peer.to_string(),
                from_ms: from.0.as_millis(),
                to_ms: to.0.as_millis(),
            };
            compare(door, request)
        }
        _ => bail!("--peer, --from and --to say what to compare"),
    }
}

fn compare(door: &Door<'_>, request: ReconcileRequest) -> anyhow::Result<ExitCode> {
    let wrong = door.with(async |client| {
        let mut found = client.reconcile(request).await.map_err(said)?.into_inner();
        let mut wrong = false;
        while let Some(answer) = found.message().await.map_err(said)? {
            let one = answer.found.context("the server says nothing of an hour")?;
            wrong |= is_wrong(&one);
            print(&one)?;
        }
        Ok(wrong)
    })?;
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(door: &Door<'_>, list: ReconcileList) -> anyhow::Result<()> {
    let request = ListReconciliationsRequest {
        peer: list.peer.map(|peer| peer.to_string()),
        from_ms: list.from.map_or(0, |from| from.0.as_millis()),
        to_ms: list.to.map_or(0, |to| to.0.as_millis()),
        different: list.different,
        reader: user(),
        reason: list.reason,
    };
    door.with(async |client| {
        let mut found = client.list_reconciliations(request).await.map_err(said)?.into_inner();
        while let Some(entry) = found.message().await.map_err(said)? {
            print(&entry.found.context("the server says nothing of an hour")?)?;
        }
        Ok(())
    })
}

/// Whether somebody must look at it.
fn is_wrong(found: &Reconciliation) -> bool {
    let wrong = [Kind::MissingHere, Kind::MissingThere, Kind::Differing];
    found.unexplained || found.counts.iter().any(|one| wrong.contains(&one.kind()))
}

fn print(found: &Reconciliation) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line(found)).context("cannot write")?;
    found.differences.iter().try_for_each(|one| writeln!(out, "\t{}", message(one)).context("cannot write"))
}

fn line(found: &Reconciliation) -> String {
    let count = |summary: &Option<trave_proto::schema::transport::RecordSummary>| {
        summary.as_ref().map_or(0, |summary| summary.count).to_string()
    };
    let mut told: Vec<_> =
        found.counts.iter().map(|one| format!("{} {}", one.count, name(one.kind()))).collect();
    if found.recovered > 0 {
        told.push(format!("{} recovered here", found.recovered));
    }
    if found.unexplained {
        told.push("unexplained".into());
    }
    let told = if told.is_empty() { "equal".to_owned() } else { told.join(", ") };
    let from = Time::from_millis(found.from_ms).to_string();
    [from, found.peer.clone(), count(&found.here), count(&found.there), told].join("\t")
}

fn message(difference: &Difference) -> String {
    let exchange =
        ExchangeId::from_slice(&difference.exchange_id).map_or_else(|_| "-".into(), |id| id.to_string());
    let direction = match difference.direction() {
        Direction::Request => "request",
        Direction::Response => "response",
        Direction::Unspecified => "-",
    };
    let index = difference.index.to_string();
    [name(difference.kind()), &exchange, direction, &index].join("\t")
}

/// A kind of difference, for people and programs.
const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "of a kind unknown here",
        Kind::InFlight => "in flight",
        Kind::ClientCrashed => "client crashed",
        Kind::NotDelivered => "not delivered",
        Kind::MissingHere => "missing here",
        Kind::MissingThere => "missing there",
        Kind::Differing => "differing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trave_proto::schema::log::DifferenceCount;

    #[test]
    fn an_hour_is_one_line_and_only_what_is_wrong_is_wrong() {
        let mut found = Reconciliation { peer: "NORD/MV/a/s1".into(), ..Reconciliation::default() };
        assert_eq!(line(&found), "1970-01-01T00:00:00.000Z\tNORD/MV/a/s1\t0\t0\tequal");
        assert!(!is_wrong(&found));
        let count = |kind: Kind, count| DifferenceCount { kind: kind.into(), count };
        found.counts = vec![count(Kind::InFlight, 2), count(Kind::ClientCrashed, 1)];
        assert!(line(&found).ends_with("\t2 in flight, 1 client crashed") && !is_wrong(&found));
        found.counts.push(count(Kind::MissingThere, 1));
        assert!(is_wrong(&found));
    }
}
