//! Servers keep each other's checkpoints: a log that contradicts one that it gave away is found out on both sides.

use trave_proto::checkpoint::Checkpoint;
use trave_proto::schema::log::{Degradation, PeerCheckpoint};
use trave_tests::network::Identities;

use super::*;

/// What a log says that another server showed of its own, or of this one.
pub(super) fn seen(server: &Server) -> Vec<PeerCheckpoint> {
    let found = server.records(0).into_iter().filter_map(|record| match record.leaf.entry {
        Some(Entry::PeerCheckpoint(shown)) => {
            assert_eq!(record.leaf.version, 3, "who knows version 2 alone does not know it");
            Some(shown)
        }
        _ => None,
    });
    found.collect()
}

/// Compares until a log says that more checkpoints were shown: a server gives one of its own in its own time.
pub(super) async fn until_shown(server: &Server, peer: &str, more_than: usize) -> PeerCheckpoint {
    for _ in 0..100 {
        compare(server, peer).await.unwrap();
        // A disk that was put back may have none: then it is asked before it has signed one.
        if let Some(shown) = seen(server).into_iter().skip(more_than).find(|it| !it.note.is_empty()) {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} was shown no further checkpoint of {peer}", server.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_put_back_and_goes_on_elsewhere_is_found_out_by_the_checkpoint_it_gave_away() {
    let mut instance = Instance::start().await;
    instance.ask(b"bleibt").await;
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    for _ in 0..5 {
        assert_eq!(instance.ask(b"danach").await.status(), 0);
    }
    instance.advance(LATER);
    let first = until_shown(&instance.mv, LUEBECK, 0).await;
    assert_eq!((first.peer.as_str(), first.contradiction.as_str()), (LUEBECK, ""));
    let origin = Identities::get().of(LUEBECK).log.verifier();
    let read = Checkpoint::verify(&first.note, std::slice::from_ref(&origin)).unwrap();
    assert_eq!((read.origin.as_str(), read.size), (first.origin.as_str(), first.size));
    assert!(first.size > 10, "{first:?}");
    // It goes on, and shows that it does.
    instance.ask(b"und weiter").await;
    instance.advance(Duration::from_secs(120));
    let second = until_shown(&instance.mv, LUEBECK, 1).await;
    assert!(second.size > first.size && second.contradiction.is_empty(), "{second:?}");
    let compared = status(&instance.mv).await.reconciled;
    assert_eq!(compared[0].seen_size, second.size);
    assert_eq!(warned(&instance.mv, "contradicts a checkpoint").await, None);
    assert_eq!(warned(&instance.sh, "does not continue").await, None);
    // An older disk takes its place. Who saw more remembers, over a start of its own.
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    instance.mv.stop().await;
    instance.mv.start().await.unwrap();
    instance.sh.start().await.unwrap();
    instance.advance(Duration::from_secs(120));
    let third = until_shown(&instance.mv, LUEBECK, 2).await;
    let proofs = seen(&instance.mv).len();
    assert!(third.contradiction.starts_with(&format!("it had {} records", second.size)), "{third:?}");
    assert_eq!(third.before, second.note, "both notes are kept");
    Checkpoint::verify(&third.note, std::slice::from_ref(&origin)).unwrap();
    let told = warned(&instance.mv, "contradicts a checkpoint").await.unwrap();
    assert!(told.starts_with("ALARM") && told.contains(LUEBECK), "{told}");
    // Its own server learns it too, from the note that its own key has signed; its log holds that.
    let told = warned(&instance.sh, "does not continue").await.unwrap();
    assert!(told.starts_with("ALARM") && told.contains(REGISTER), "{told}");
    let held = seen(&instance.sh).into_iter().find(|held| !held.contradiction.is_empty()).unwrap();
    assert_eq!((held.note, held.origin), (second.note.clone(), second.origin.clone()));
    // It grows beyond what was seen, on another branch: neither forgets, and neither logs it again and again.
    for _ in 0..8 {
        assert_eq!(instance.ask(b"anderswo").await.status(), 0);
    }
    instance.advance(Duration::from_secs(120));
    for _ in 0..3 {
        compare(&instance.mv, LUEBECK).await.unwrap();
    }
    assert_eq!(seen(&instance.mv).len(), proofs);
    for (server, of) in
        [(&mut instance.mv, "contradicts a checkpoint"), (&mut instance.sh, "does not continue")]
    {
        server.stop().await;
        server.start().await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(20), async {
            while warned(server, of).await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        told.await.expect("a start forgets nothing");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_with_one_key_are_found_out_where_they_part() {
    let mut instance = Instance::start().await;
    instance.ask(b"gemeinsam").await;
    instance.sh.stop().await;
    instance.sh.keep_disk();
    instance.sh.start().await.unwrap();
    instance.ask(b"die eine").await;
    instance.advance(LATER);
    let seen_of_one = until_shown(&instance.mv, LUEBECK, 0).await;
    // The other one grows longer before it is shown.
    instance.sh.stop().await;
    instance.sh.put_disk_back();
    let leaf = Leaf::of(instance.clock.now().as_millis(), Entry::Degradation(Degradation::default()));
    append(&instance.sh, vec![leaf; 40]).await;
    instance.sh.start().await.unwrap();
    instance.advance(Duration::from_secs(120));
    let other = until_shown(&instance.mv, LUEBECK, 1).await;
    assert!(other.size > seen_of_one.size, "{other:?}");
    assert!(other.contradiction.contains("does not show that"), "{}", other.contradiction);
    assert_eq!(other.before, seen_of_one.note);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sees_the_others_checkpoints_by_itself() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.advance(Duration::from_secs(50 * 60));
    minutes_later(&instance, "both hold a checkpoint of the other", async || {
        !seen(&instance.sh).is_empty() && !seen(&instance.mv).is_empty()
    })
    .await;
    assert_eq!(
        (seen(&instance.sh)[0].peer.as_str(), seen(&instance.mv)[0].peer.as_str()),
        (REGISTER, LUEBECK)
    );
    instance.stop().await;
}
