//! Pruning by two persons: one applies, another sees what would go and approves it, or it is dropped, or it lapses.

use std::path::Path;

use super::two_persons::{FRAUKE, STRANGER, UWE, World};
use super::*;
use trave_message_log::ArchiveIdentity;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{RangePruned, archive_act};
use trave_tests::network::soon;

const DAY: Duration = Duration::from_secs(86_400);
const APPLY: [&str; 6] = ["archive", "prune", "--before", "2030-01-01", "--reason", "Platz"];

/// A server with two segments in its archive that may be pruned, and an exchange in them.
async fn prunable(directory: &Path) -> Option<(World, ExchangeId)> {
    let recipient = ArchiveIdentity::generate().recipient().to_string();
    let to =
        format!("[archive]\ndirectory = {directory:?}\nrecipients = [{recipient:?}]\nevery_seconds = 60\n");
    let mut world = World::granted(&to).await?;
    let exchange = world.instance.ask(&[7; 400_000]).await.exchange();
    for _ in 0..4 {
        assert_eq!(world.instance.ask(&[7; 400_000]).await.status(), 0);
    }
    soon("two segments are archived", async || {
        world.instance.advance(Duration::from_secs(60));
        std::fs::read_dir(directory).unwrap().count() >= 2
    })
    .await;
    later(&mut world, 40 * DAY).await;
    Some((world, exchange))
}

/// Starts again after so much time.
async fn later(world: &mut World, time: Duration) {
    world.instance.sh.stop().await;
    world.instance.mv.stop().await;
    world.instance.advance(time);
    world.instance.renew();
    world.instance.sh.start().await.unwrap();
    world.instance.mv.start().await.unwrap();
}

/// Applies, as soon as there is something to prune: without a checkpoint and a timestamp behind them, no segments go.
async fn applied(world: &World) -> String {
    let mut id = String::new();
    soon("there is something to prune", async || {
        world.instance.advance(Duration::from_secs(60));
        let output = world.as_user(FRAUKE, &APPLY).await;
        id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        output.status.success()
    })
    .await;
    assert!(id.starts_with("p-"), "{id}");
    id
}

/// What was pruned, as the records from `from` on say; what was pruned is read here no more.
fn pruned(world: &World, from: u64) -> Vec<RangePruned> {
    let acts = world.instance.mv.records(from).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::Archive(act)) => act.act,
        _ => None,
    });
    let pruned = acts.filter_map(|act| match act {
        archive_act::Act::Pruned(range) if !range.applied => Some(range),
        _ => None,
    });
    pruned.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_prunes_anything_alone_and_what_is_held_by_then_stays() {
    let archive = tempfile::tempdir().unwrap();
    let Some((mut world, exchange)) = prunable(archive.path()).await else { return };
    let id = applied(&world).await;
    let alone = world.refused(FRAUKE, &["archive", "approve", &id, "--yes"]).await;
    assert!(alone.contains("applied for it and cannot approve it"), "{alone}");
    world.refused(STRANGER, &["archive", "approve", &id, "--yes"]).await;
    // What is held since then stays, whatever was applied for.
    world.done(UWE, &["hold", "set", "--exchange", &exchange.to_string(), "--reason", "Klage"]).await;
    let listed = world.done(UWE, &["hold", "list"]).await;
    let hold = listed.split('\t').next().unwrap().to_owned();
    world.done(FRAUKE, &["hold", "approve", &hold]).await;
    assert!(world.done(UWE, &["archive", "prunings"]).await.contains("something in it is held"));
    let held = world.refused(UWE, &["archive", "approve", &id, "--yes"]).await;
    assert!(held.contains("the range is not pruned") && held.contains("something in it is held"), "{held}");
    assert!(pruned(&world, 0).is_empty());
    world.done(UWE, &["hold", "lift", &hold, "--reason", "erledigt"]).await;
    let still = world.refused(UWE, &["archive", "approve", &id, "--yes"]).await;
    assert!(still.contains("something in it is held"), "a hold is not lifted alone either: {still}");
    world.done(FRAUKE, &["hold", "approve", &hold]).await;
    let before = world.instance.mv.records(0).len() as u64;
    world.done(UWE, &["archive", "approve", &id, "--yes"]).await;
    let [range] = &pruned(&world, before)[..] else { panic!("one range") };
    assert_eq!((range.operator_user, range.approver_user), (Some(FRAUKE), Some(UWE)));
    assert!(world.done(UWE, &["archive", "prunings"]).await.is_empty());
    world.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pruning_that_waits_is_shown_before_it_is_approved_and_is_dropped_or_lapses() {
    let archive = tempfile::tempdir().unwrap();
    let Some((mut world, _)) = prunable(archive.path()).await else { return };
    let id = applied(&world).await;
    let listed = world.done(UWE, &["archive", "prunings"]).await;
    let fields: Vec<_> = listed.split('\t').collect();
    assert_eq!((fields.len(), fields[0], fields[3], fields[4]), (12, &*id, "user 61001 (egal)", "Platz"));
    let (first, last): (u64, u64) = (fields[5].parse().unwrap(), fields[6].parse().unwrap());
    let (segments, bytes): (u64, u64) = (fields[9].parse().unwrap(), fields[10].parse().unwrap());
    assert!(first == 0 && last > 5 && segments >= 2 && bytes > 800_000, "{listed}");
    assert_eq!(fields[11], "-", "nothing of it must stay");

    // What would go is shown, and nothing goes where nobody could say no.
    let asked = world.refused(UWE, &["archive", "approve", &id]).await;
    for shown in [
        format!("the records {first} to {last} ({} records)", last + 1),
        format!("logged from {} to {}", fields[7], fields[8]),
        format!("{segments} segments of {bytes} bytes"),
        "reason: Platz".to_owned(),
        "applied for by user 61001 (egal)".to_owned(),
        "hint: --yes".to_owned(),
    ] {
        assert!(asked.contains(&shown), "{shown}: {asked}");
    }
    assert!(pruned(&world, 0).is_empty());

    // Dropped, with a reason that is on record, also for a start.
    world.done(UWE, &["archive", "drop", &id, "--reason", "Irrtum"]).await;
    let dropped = world.instance.mv.records(0).into_iter().find_map(|record| match record.leaf.entry {
        Some(Entry::Archive(act)) => match act.act {
            Some(archive_act::Act::Dropped(dropped)) => Some(dropped),
            _ => None,
        },
        _ => None,
    });
    let dropped = dropped.unwrap();
    assert_eq!((&*dropped.id, &*dropped.reason, &*dropped.operator), (&*id, "Irrtum", "user 61002 (egal)"));
    for _ in 0..2 {
        let gone = world.refused(UWE, &["archive", "approve", &id, "--yes"]).await;
        assert!(gone.contains("no pruning waits for approval as"), "{gone}");
        world.refused(UWE, &["archive", "drop", &id, "--reason", "noch einmal"]).await;
        later(&mut world, Duration::ZERO).await;
    }

    // What nobody approves within 14 days is not approved any more.
    let id = applied(&world).await;
    later(&mut world, 13 * DAY).await;
    assert!(world.done(UWE, &["archive", "prunings"]).await.starts_with(&id));
    later(&mut world, DAY).await;
    assert!(world.done(UWE, &["archive", "prunings"]).await.is_empty());
    let late = world.refused(UWE, &["archive", "approve", &id, "--yes"]).await;
    assert!(late.contains("lapsed on") && late.contains("hint: apply for it anew"), "{late}");
    assert!(pruned(&world, 0).is_empty());
    world.instance.stop().await;
}
