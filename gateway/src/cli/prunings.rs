//! Verbs about pruning: to prune or to apply for it, and what becomes of an application.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use trave_host::moment::Moment;
use trave_proto::clock::Time;
use trave_proto::schema::operator::{
    ApproveRequest, DropPruningRequest, ListPruningsRequest, PruneRequest, PruningEntry,
};

use super::operate::{Door, said, user};

pub(super) fn prune(door: &Door<'_>, before: Moment, reason: String) -> anyhow::Result<ExitCode> {
    let request = PruneRequest { before_ms: before.0.as_millis(), reason, operator: user() };
    let done = door.with(async |client| client.prune(request).await.map_err(said))?.into_inner();
    println!("{}", done.id);
    done.stays.iter().for_each(|why| eprintln!("{why}"));
    let (first, last) = (done.first, (done.first + done.count).saturating_sub(1));
    if done.waiting {
        eprintln!("the records {first} to {last} are removed when another person approves, within 14 days");
        eprintln!("hint: trave-gateway archive approve {}", done.id);
    } else {
        eprintln!("the records {first} to {last}, {} segments, were removed from this disk", done.segments);
        eprintln!("they are in the archive; what proves newer ones is kept here");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(door: &Door<'_>) -> anyhow::Result<ExitCode> {
    let waiting = waiting(door)?;
    waiting.iter().for_each(|entry| println!("{}", line(entry)));
    if waiting.is_empty() {
        eprintln!("no pruning waits");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is shown here is what is approved: the log holds it under this id, and it never changes.
pub(super) fn approve(door: &Door<'_>, id: String, yes: bool) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(id.starts_with("p-"), "{id} is the id of something else, not of a pruning");
    // One that does not wait is not shown; the server says why it is none.
    if let Some(entry) = waiting(door)?.iter().find(|entry| entry.id == id) {
        tell(entry);
        anyhow::ensure!(yes || is_confirmed()?, "not approved");
    }
    let request = ApproveRequest { id: id.clone(), operator: user() };
    door.with(async |client| client.approve(request).await.map_err(said))?;
    eprintln!("approved, and removed from this disk: {id}");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn withdraw(door: &Door<'_>, id: String, reason: String) -> anyhow::Result<ExitCode> {
    let request = DropPruningRequest { id: id.clone(), reason, operator: user() };
    door.with(async |client| client.drop_pruning(request).await.map_err(said))?;
    eprintln!("dropped: {id}");
    Ok(ExitCode::SUCCESS)
}

fn waiting(door: &Door<'_>) -> anyhow::Result<Vec<PruningEntry>> {
    let listed =
        door.with(async |client| client.list_prunings(ListPruningsRequest {}).await.map_err(said))?;
    Ok(listed.into_inner().prunings)
}

fn last(entry: &PruningEntry) -> u64 {
    entry.first.saturating_add(entry.count).saturating_sub(1)
}

fn line(entry: &PruningEntry) -> String {
    let at = |millis| Time::from_millis(millis).to_string();
    let stays = if entry.stays.is_empty() { "-".to_owned() } else { entry.stays.join("; ") };
    let (since, lapses) = (at(entry.since_ms), at(entry.lapses_ms));
    let (from, to) = (at(entry.earliest_ms), at(entry.latest_ms));
    let numbers = [entry.first, last(entry)].map(|number| number.to_string());
    let sizes = [entry.segments, entry.bytes].map(|number| number.to_string());
    let begin = [entry.id.clone(), since, lapses, entry.operator.clone(), entry.reason.clone()];
    begin
        .into_iter()
        .chain(numbers)
        .chain([from, to])
        .chain(sizes)
        .chain([stays])
        .collect::<Vec<_>>()
        .join("\t")
}

/// What is about to be approved, for a person.
fn tell(entry: &PruningEntry) {
    let at = Time::from_millis;
    let PruningEntry { first, count, segments, bytes, reason, operator, place, .. } = entry;
    eprintln!("removing from this disk: the records {first} to {} ({count} records)", last(entry));
    eprintln!("logged from {} to {}", at(entry.earliest_ms), at(entry.latest_ms));
    eprintln!("{segments} segments of {bytes} bytes; they stay in the archive, {place}");
    eprintln!("reason: {reason}");
    eprintln!("applied for by {operator} on {}, lapses on {}", at(entry.since_ms), at(entry.lapses_ms));
    entry.stays.iter().for_each(|why| eprintln!("{why}"));
}

fn is_confirmed() -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "nobody is there to be asked\nhint: --yes");
    eprint!("approve? type yes: ");
    std::io::stderr().flush().context("nothing can be asked")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("the answer cannot be read")?;
    Ok(line.trim() == "yes")
}
