//! What so many exchanges weigh: bytes on the disk of each side, timestamps, the time of a checkpoint and of a proof.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trave_host::clock::SystemClock;
use trave_message_log::Entry;
use trave_proto::clock::Time;
use trave_proto::schema::log::{Leaf, LogRead, leaf};
use trave_tests::network::{Instance, Plan, Process, Server, export};

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
    let empty = [Weight::of(&instance.sh), Weight::of(&instance.mv)];
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
    start_again(&instance.mv, "after a clean stop").await.kill();
    start_again(&instance.mv, "after kill -9").await.terminate().await;
    answered += some.len() as u64;
    for (server, empty) in [&instance.sh, &instance.mv].into_iter().zip(empty) {
        tell(server, &empty, answered, instance.clock.now()).await;
    }
}

/// How long it takes until a server serves that has all this in its log.
async fn start_again(server: &Server, stopped: &str) -> Process {
    let mut process = start(server);
    println!("serving again        in {:.2?} {stopped}", process.serving().await);
    process
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

/// Bytes of the files of a data directory, holes not counted.
#[derive(Debug, Default)]
struct Weight {
    /// Segments, as far as they are written.
    segments: u64,
    /// What is set aside for the records that come: zeros at the end of segments, and the next one. It does not grow with
    /// the log.
    set_aside: u64,
    /// Indexes of records and of what is searched for.
    indexes: u64,
    /// Hashes of the tree.
    tree: u64,
    /// Keys of contents, state, and all else.
    other: u64,
}

impl Weight {
    fn of(server: &Server) -> Self {
        let mut weight = Self::default();
        weight.add(&server.data());
        weight
    }

    fn add(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let facts = path.metadata().expect("a file's facts");
            let bytes = std::os::unix::fs::MetadataExt::blocks(&facts) * 512;
            let is = |part: &str| path.components().any(|here| here.as_os_str() == part);
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if facts.is_dir() => self.add(&path),
                Some("log" | "tmp") if is("segments") => {
                    let aside = zeros_at_the_end(&path).min(bytes);
                    self.segments += bytes - aside;
                    self.set_aside += aside;
                }
                _ if is("segments") => self.indexes += bytes,
                _ if is("tree") => self.tree += bytes,
                _ => self.other += bytes,
            }
        }
    }

    fn all(&self) -> u64 {
        self.segments + self.indexes + self.tree + self.other
    }
}

fn zeros_at_the_end(path: &Path) -> u64 {
    use std::os::unix::fs::FileExt as _;
    const STEP: u64 = 1 << 20;
    let file = std::fs::File::open(path).expect("a segment");
    let len = file.metadata().expect("a file's facts").len();
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = vec![0; usize::try_from(end - start).expect("a step")];
        file.read_exact_at(&mut bytes, start).expect("a disk");
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return len - start - last as u64 - 1;
        }
        end = start;
    }
    len
}

async fn tell(server: &Server, empty: &Weight, answered: u64, now: Time) {
    let full = Weight::of(server);
    let each = |full: u64, empty: u64| full.saturating_sub(empty) as f64 / answered as f64;
    let (all, kept) = (each(full.all(), empty.all()), 2 * (MESSAGE.len() as u64 + 5));
    println!("{}", server.id);
    println!(
        "  on disk            {all:.0} bytes/exchange, {:.0} beside its content, and {} MiB set aside",
        all - kept as f64,
        full.set_aside >> 20
    );
    println!(
        "  of these           {:.0} in segments, {:.0} in indexes, {:.0} in the tree, {:.0} elsewhere",
        each(full.segments, empty.segments),
        each(full.indexes, empty.indexes),
        each(full.tree, empty.tree),
        each(full.other, empty.other)
    );
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
