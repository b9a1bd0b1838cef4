//! Alarms about other servers' logs: each server's by itself, acknowledged with a reason, and raised again by what is found
//! later; and what could not be compared, over a restart.

use trave_proto::schema::log::{HourNotCompared, PeerCondition, PeerConditionStage as Stage};
use trave_proto::schema::operator::{AcknowledgeAlarmRequest, AlarmEntry, ListAlarmsRequest};
use trave_proto::schema::transport::{FollowLogRequest, FollowLogResponse};
use trave_tests::network::hostile::{Alteration, Credentials, HostileProvider};

use super::following::{seen, until_shown};
use super::*;

async fn alarms(server: &Server) -> Vec<AlarmEntry> {
    operator(server).await.list_alarms(ListAlarmsRequest {}).await.unwrap().into_inner().alarms
}

async fn acknowledge(server: &Server, id: &str, reason: &str) -> Result<(), tonic::Status> {
    let request = AcknowledgeAlarmRequest { id: id.into(), reason: reason.into(), operator: "Muster".into() };
    operator(server).await.acknowledge_alarm(request).await.map(|_| ())
}

/// What the log says of alarms about other servers.
fn conditions(server: &Server) -> Vec<PeerCondition> {
    let records = server.records(0).into_iter();
    let found = records.filter_map(|record| match record.leaf.entry {
        Some(Entry::PeerCondition(condition)) => Some(condition),
        _ => None,
    });
    found.collect()
}

fn not_compared(server: &Server) -> Vec<HourNotCompared> {
    let records = server.records(0).into_iter();
    let found = records.filter_map(|record| match record.leaf.entry {
        Some(Entry::HourNotCompared(hour)) => Some(hour),
        _ => None,
    });
    found.collect()
}

/// Waits until a server's operator is told this of a peer, or is told it no longer.
async fn until(server: &Server, of: &str, peer: &str, is: bool) {
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        let of_it =
            async || status(server).await.warnings.iter().any(|it| it.contains(of) && it.contains(peer));
        while of_it().await != is {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    told.await.unwrap_or_else(|_| panic!("told of {of:?} at {peer}: {}", !is));
}

const DISAGREE: &str = "ALARM: logs do not agree";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_servers_alarm_mutes_no_others_and_who_looked_into_it_says_why() {
    let mut instance = Instance::planned(Plan { second: true, ..Plan::default() }).await;
    ask_both(&instance).await;
    let now = instance.clock.now();
    instance.mv.stop().await;
    plant(&instance.mv, 9, now).await;
    instance.mv.start().await.unwrap();
    let other = instance.mv_too.as_mut().unwrap();
    other.stop().await;
    plant(other, 8, now).await;
    other.start().await.unwrap();
    instance.advance(LATER);
    compare(&instance.sh, REGISTER).await.unwrap();
    until(&instance.sh, DISAGREE, REGISTER, true).await;
    compare(&instance.sh, REGISTER_TOO).await.unwrap();
    until(&instance.sh, DISAGREE, REGISTER_TOO, true).await;
    for peer in [REGISTER, REGISTER_TOO] {
        let begun = |it: &&PeerCondition| {
            (it.peer.as_str(), it.kind.as_str(), it.stage()) == (peer, "logs_disagree", Stage::Begun)
        };
        // It is logged just after it is told.
        for _ in 0..100 {
            if conditions(&instance.sh).iter().any(|it| begun(&it)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(conditions(&instance.sh).iter().filter(begun).count(), 1, "{peer}");
    }
    // Somebody has looked into one of them.
    let all = alarms(&instance.sh).await;
    let of = |all: &[AlarmEntry], peer| all.iter().find(|alarm| alarm.peer == peer).unwrap().clone();
    let (one, two) = (of(&all, REGISTER), of(&all, REGISTER_TOO));
    assert!(one.what.contains("1 messages are missing here") && one.acknowledged_by.is_empty(), "{one:?}");
    assert!(acknowledge(&instance.sh, &one.id, " ").await.is_err(), "without a reason");
    assert!(acknowledge(&instance.sh, "a-000000000000", "warum auch immer").await.is_err());
    acknowledge(&instance.sh, &one.id, "Platte getauscht, siehe Vorgang 17").await.unwrap();
    assert!(acknowledge(&instance.sh, &one.id, "noch einmal").await.is_err(), "it is not open any more");
    until(&instance.sh, DISAGREE, REGISTER, false).await;
    until(&instance.sh, DISAGREE, REGISTER_TOO, true).await;
    let said = conditions(&instance.sh).into_iter().find(|it| it.stage() == Stage::Acknowledged).unwrap();
    assert_eq!((said.peer.as_str(), said.reason.as_str()), (REGISTER, "Platte getauscht, siehe Vorgang 17"));
    assert!(said.operator.contains("Muster") && said.operator_user.is_some() && said.what == one.what);
    // A restart forgets neither the one nor the other.
    instance.sh.stop().await;
    instance.sh.start().await.unwrap();
    until(&instance.sh, DISAGREE, REGISTER_TOO, true).await;
    compare(&instance.sh, REGISTER).await.unwrap();
    until(&instance.sh, DISAGREE, REGISTER, false).await;
    let told = of(&alarms(&instance.sh).await, REGISTER);
    assert!(told.acknowledged_by.contains("Muster") && told.acknowledged_ms > 0, "{told:?}");
    assert_eq!(of(&alarms(&instance.sh).await, REGISTER_TOO).id, two.id);
    // What is found later is another matter.
    instance.mv.stop().await;
    plant(&instance.mv, 7, now).await;
    instance.mv.start().await.unwrap();
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    assert_eq!(counts(&found), [(Kind::MissingHere, 2)]);
    until(&instance.sh, DISAGREE, REGISTER, true).await;
    let again = of(&alarms(&instance.sh).await, REGISTER);
    assert!(again.id != one.id && again.acknowledged_by.is_empty(), "{again:?}");
    instance.stop().await;
}

fn no_checkpoint(_: &FollowLogRequest) -> FollowLogResponse {
    FollowLogResponse::default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_shows_no_checkpoint_any_more_is_an_alarm_until_somebody_looks_into_it() {
    const GONE: &str = "now shows no checkpoint";
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.advance(LATER);
    let shown = until_shown(&instance.sh, REGISTER, 0).await;
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let empty = HostileProvider::start(&instance, credentials, Alteration::Following(no_checkpoint)).await;
    // It is asked for its checkpoint before anything is compared.
    let follow = async || {
        let (from_ms, to_ms) = (START.as_millis(), START.as_millis() + 1);
        let request = ReconcileRequest { peer: REGISTER.into(), from_ms, to_ms };
        let mut found = operator(&instance.sh).await.reconcile(request).await.unwrap().into_inner();
        while let Ok(Some(_)) = found.message().await {}
    };
    for _ in 0..100 {
        follow().await;
        if warned(&instance.sh, GONE).await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until(&instance.sh, GONE, REGISTER, true).await;
    let held = seen(&instance.sh).into_iter().find(|held| !held.contradiction.is_empty()).unwrap();
    assert!(held.note.is_empty() && held.before == shown.note, "{held:?}");
    let [alarm] = &alarms(&instance.sh).await[..] else { panic!("one alarm") };
    assert_eq!((alarm.kind.as_str(), alarm.peer.as_str()), ("peer_contradicted", REGISTER));
    acknowledge(&instance.sh, &alarm.id, "neu aufgesetzt").await.unwrap();
    until(&instance.sh, GONE, REGISTER, false).await;
    follow().await;
    until(&instance.sh, GONE, REGISTER, false).await;
    empty.stop().await;
    // What it shows now is where it goes on from.
    let count = seen(&instance.sh).len();
    instance.mv.start().await.unwrap();
    let next = until_shown(&instance.sh, REGISTER, count).await;
    assert!(next.contradiction.is_empty() && next.size >= shown.size, "{next:?}");
    assert_eq!(warned(&instance.sh, "ALARM").await, None);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_that_could_not_be_compared_is_told_of_over_a_restart_days_later() {
    let mut instance = Instance::start().await;
    instance.ask(b"eine Frage").await;
    instance.mv.stop().await;
    instance.advance(Duration::from_secs(50 * 60));
    minutes_later(&instance, "the hour is not compared", async || {
        warned(&instance.sh, "is not compared with").await.is_some()
    })
    .await;
    // Tried again, it is not logged again.
    for _ in 0..3 {
        instance.advance(Duration::from_secs(600));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let hours = not_compared(&instance.sh);
    let [hour] = &hours[..] else { panic!("{hours:?}") };
    assert_eq!((hour.peer.as_str(), hour.from_ms), (REGISTER, START.as_millis()));
    assert!(!hour.why.is_empty());
    // By itself it is not compared any more.
    instance.sh.stop().await;
    instance.advance(Duration::from_secs(72 * 3_600));
    instance.sh.start().await.unwrap();
    until(&instance.sh, "is not compared with", REGISTER, true).await;
    instance.mv.start().await.unwrap();
    let found = compare(&instance.sh, REGISTER).await.unwrap();
    assert!(counts(&found).is_empty(), "{found:?}");
    until(&instance.sh, "is not compared with", REGISTER, false).await;
    instance.stop().await;
}
