//! What so many exchanges weigh: bytes on the disk of each side, timestamps, the time of a checkpoint and of a proof.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trave_host::clock::SystemClock;
use trave_message_log::Entry;
use trave_proto::clock::Time;
use trave_proto::schema::log::{Leaf, LogRead, leaf};
use trave_tests::network::{Instance, Plan, Server, export};

use crate::{MESSAGE, drive, start};

/// Proofs and checkpoints that are timed.
const ROUNDS: usize = 101;

/// Has `exchanges` answered, with contents kept on both sides, and weighs what that left.
pub(crate) async fn weigh(exchanges: u64) {
    let instance =
        Instance::prepared(Plan { segment_mib: 256, ..Plan::default() }, Arc::new(SystemClock)).await;
    let (mut sh, mut mv) = (start(&instance.sh), start(&instance.mv));
    sh.serving().await;
    mv.serving().await;
    let empty = [weight(&instance.sh), weight(&instance.mv)];
    let (begun, mut answered, mut some) = (Instant::now(), 0, Vec::new());
    while answered < exchanges {
        answered += drive(&instance, Duration::from_secs(10)).await;
        let one = instance.ask(&MESSAGE).await;
        some.push(one.exchange());
        println!("answered             {answered} after {:.0?}", begun.elapsed());
    }
    prove(&instance, &some).await;
    println!("resident             SH {:.1} MiB, MV {:.1} MiB", sh.resident(), mv.resident());
    sh.terminate().await;
    mv.terminate().await;
    answered += some.len() as u64;
    for (server, empty) in [&instance.sh, &instance.mv].into_iter().zip(empty) {
        tell(server, empty, answered, instance.clock.now()).await;
    }
}

/// How long a proof takes of an exchange that stands in a checkpoint already.
async fn prove(instance: &Instance, some: &[trave_proto::identifier::ExchangeId]) {
    let server = &instance.mv;
    // Makes the checkpoint, if the last exchange needs one.
    export(server, some[some.len() - 1], false).await;
    let mut took = Vec::new();
    let mut size = 0;
    for round in 0..ROUNDS {
        let begun = Instant::now();
        size = export(server, some[round * some.len() / (ROUNDS + 1)], false).await.len();
        took.push(begun.elapsed());
    }
    println!("proof of one         {}, {size} bytes", spread(took));
}

fn spread(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    format!("half within {:.2?}, all within {:.2?}", took[took.len() / 2], took[took.len() - 1])
}

/// Bytes of all files below a data directory, holes not counted.
fn weight(server: &Server) -> u64 {
    fn below(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry"));
        entries
            .map(|entry| {
                let facts = entry.metadata().expect("a file's facts");
                match facts.is_dir() {
                    true => below(&entry.path()),
                    false => std::os::unix::fs::MetadataExt::blocks(&facts) * 512,
                }
            })
            .sum()
    }
    below(&server.data())
}

async fn tell(server: &Server, empty: u64, answered: u64, now: Time) {
    let kept = 2 * (MESSAGE.len() as u64 + 5);
    let each = (weight(server) - empty) as f64 / answered as f64;
    println!("{}", server.id);
    println!("  on disk            {each:.0} bytes/exchange, {:.0} beside its content", each - kept as f64);
    let begun = Instant::now();
    let log = server.open_log();
    println!("  opened             {} leaves in {:.1?}", log.size(), begun.elapsed());
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let read = Leaf::of(now.as_millis(), leaf::Entry::Read(LogRead::default()));
        log.append(Entry::new(read), ()).expect("room").await.expect("a disk");
        let begun = Instant::now();
        log.checkpoint().await.expect("a checkpoint");
        took.push(begun.elapsed());
    }
    println!("  checkpoint         {}", spread(took));
    let (begun, report) = (Instant::now(), log.check());
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    // Those of above stand in none: nobody stamps here.
    println!(
        "  checked            in {:.1?}: {} segments, {} checkpoints signed before, {:.0} exchanges for each",
        begun.elapsed(),
        report.segments,
        report.checkpoints - ROUNDS as u64,
        answered as f64 / (report.checkpoints - ROUNDS as u64) as f64
    );
    log.close();
}
