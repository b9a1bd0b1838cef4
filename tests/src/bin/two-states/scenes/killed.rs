//! kill -9 of the provider's security server under load: nothing that was answered is missing anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use trave_tests::agency::{Connection, error_info, exchange_id, origin};
use trave_tests::gewerbe::AuskunftRequest;
use trave_tests::gewerbe::register_client::RegisterClient;
use trave_tests::register::{FIRMA, ORT};

use super::question;
use crate::instance::Instance;
use crate::story::{Scene, Story};

/// Callers at a time.
const CALLERS: usize = 64;
/// Load before the kill, and after the server serves again.
const LOAD: Duration = Duration::from_millis(1200);

pub(crate) fn open(story: &Story) -> Scene {
    story.scene(
        "kill -9 under load",
        "MV's security server is killed while 64 callers ask without pause. It starts again by itself; every exchange that\n\
         a caller got an answer for stands in both logs as answered.",
    )
}

pub(crate) async fn play(scene: &mut Scene, instance: &mut Instance) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(ask_until(Arc::clone(&stop), instance.endpoints.call.address.to_string()));
    }
    measure(scene, instance).await?;
    instance.gewerberegister.kill()?;
    let killed = Instant::now();
    instance.start_gewerberegister().await?;
    scene.saw(format!(
        "killed, started again, serving after {} ms, no operator needed",
        killed.elapsed().as_millis()
    ));
    sleep(LOAD).await;
    stop.store(true, Ordering::SeqCst);
    let mut all = Answers::default();
    while let Some(answers) = callers.join_next().await {
        all.add(answers?);
    }
    for (reason, times) in &all.refused {
        scene.saw(format!("not answered, and told so: {times} × {reason}"));
    }
    let interrupted: u64 = all.refused.values().sum();
    scene.check(interrupted > 0, format!("the kill hit work: {interrupted} calls were not answered"));
    compare_with_logs(scene, instance, &all.answered).await
}

/// What the load costs: a figure to smell smoke by, on a machine that also runs the callers and the register.
async fn measure(scene: &mut Scene, instance: &Instance) -> anyhow::Result<()> {
    let used = || -> Option<Duration> {
        Some(instance.luebeck.processor_time()? + instance.gewerberegister.processor_time()?)
    };
    let calls = instance.calls().await?.auskunft;
    let (began, before) = (Instant::now(), used());
    sleep(LOAD).await;
    let (took, after) = (began.elapsed(), used());
    let calls = instance.calls().await?.auskunft - calls;
    if let (Some(before), Some(after)) = (before, after)
        && calls > 0
    {
        scene.saw(format!(
            "{CALLERS} callers: {:.0} exchanges a second, {} µs of processor time each, both servers together",
            calls as f64 / took.as_secs_f64(),
            (after - before).as_micros() / u128::from(calls),
        ));
    }
    Ok(())
}

async fn compare_with_logs(
    scene: &mut Scene,
    instance: &Instance,
    answered: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for server in [instance.luebeck(), instance.gewerberegister()] {
        let log = server.log("count what was answered around a kill").await?;
        let complete: BTreeSet<String> =
            log.into_iter().filter(|entry| entry.outcome == "answered").map(|entry| entry.exchange).collect();
        held.push(answered.intersection(&complete).count());
    }
    let n = answered.len();
    scene.check(
        held.iter().all(|count| *count == n) && n > 0,
        format!("answered {n}; of these in Lübeck's log {}, in MV's log {}", held[0], held[1]),
    );
    Ok(())
}

/// What callers were told.
#[derive(Default)]
struct Answers {
    /// Exchange ids of what was answered.
    answered: BTreeSet<String>,
    /// Reasons of what was not, counted.
    refused: BTreeMap<String, u64>,
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        for (reason, times) in other.refused {
            *self.refused.entry(reason).or_default() += times;
        }
    }
}

/// Asks again and again until it is told to stop.
async fn ask_until(stop: Arc<AtomicBool>, address: String) -> Answers {
    let mut answers = Answers::default();
    while !stop.load(Ordering::SeqCst) {
        let Ok(connection) = Connection::open(&address).await else { break };
        let Ok(origin) = origin(&address) else { break };
        let mut client = RegisterClient::with_origin(connection, origin);
        while !stop.load(Ordering::SeqCst) {
            let question = AuskunftRequest { firma: FIRMA.into(), ort: ORT.into() };
            let Ok(request) = question::occasion().request(question) else { break };
            match client.auskunft(request).await {
                Ok(answer) => answers.answered.extend(exchange_id(answer.metadata())),
                Err(status) => {
                    let reason = error_info(&status).map_or_else(
                        || format!("{:?} without ErrorInfo", status.code()),
                        |info| {
                            let reached = info.metadata.get("register_reached").cloned().unwrap_or_default();
                            format!("{} (register reached: {reached})", info.reason)
                        },
                    );
                    *answers.refused.entry(reason).or_default() += 1;
                    // As a client does that was told to wait.
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    answers
}
