//! A subsystem on several security servers: each takes its part, one that stops or fails is left alone, and what was not
//! taken up is made again elsewhere, exactly where it is certain that no register was called.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use trave_host::clock::SystemClock;
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::leaf::Entry;
use trave_proto::schema::message::Envelope;
use trave_proto::schema::operator::StatusRequest;
use trave_proto::schema::transport::{Fault as WireFault, RegisterReached};
use trave_tests::network::hostile::{Alteration, Credentials, HostileProvider};
use trave_tests::network::{
    Answer, Caller, Instance, METHOD, Plan, Process, Question, REGISTER, REGISTER_TOO, Record, Register,
    Script, Server, exchange_of, export, frame, manifest_of, operator, serve_if_told, story, summary,
};

/// Not a test by itself: with `TRAVE_SERVE` set, this program is a security server.
#[test]
fn serve() {
    serve_if_told();
}

const PIN: &str = "x-road-security-server";
/// By which the register's calls are told apart, whatever exchange they belong to.
const CALL: &str = "x-call";

fn two() -> Plan {
    Plan { second: true, ..Plan::default() }
}

/// To which security server each exchange was sent, as the agency's log tells.
fn receivers(records: &[Record]) -> BTreeMap<ExchangeId, String> {
    let manifests = records.iter().filter_map(manifest_of);
    manifests
        .filter(|manifest| manifest.index == 0 && manifest.receiver.as_str() != trave_tests::network::LUEBECK)
        .map(|manifest| (manifest.exchange, manifest.receiver.to_string()))
        .collect()
}

/// What calls became that were made again: by the exchange that was not taken up.
fn continued(records: &[Record]) -> BTreeMap<ExchangeId, ExchangeId> {
    let ended = records.iter().filter_map(|record| match record.leaf.entry.as_ref()? {
        Entry::Ended(ended) => ExchangeId::from_slice(&ended.continued_as).ok().map(|id| (record, id)),
        _ => None,
    });
    ended.map(|(record, id)| (exchange_of(record).unwrap(), id)).collect()
}

#[tokio::test]
async fn each_server_takes_its_part_and_one_that_is_named_takes_all() {
    let mut instance = Instance::planned(two()).await;
    let caller = instance.caller().await;
    for _ in 0..20 {
        caller.ask(Question::new().message(b"wer?")).await.only();
    }
    for _ in 0..5 {
        caller.ask(Question::new().message(b"wer?").header(PIN, REGISTER_TOO)).await.only();
    }
    let records = instance.sh.records(0);
    let asked = receivers(&records);
    let of = |server: &str| asked.values().filter(|receiver| *receiver == server).count();
    assert_eq!(of(REGISTER) + of(REGISTER_TOO), 25);
    assert!(
        of(REGISTER) > 0 && of(REGISTER_TOO) > 5,
        "both take part: {} and {}",
        of(REGISTER),
        of(REGISTER_TOO)
    );

    // One that stops is passed over; whoever names it is told that it cannot be reached.
    instance.mv.stop().await;
    for _ in 0..10 {
        caller.ask(Question::new().message(b"wer?")).await.only();
    }
    let standings = operator(&instance.sh).await.status(StatusRequest {}).await.unwrap().into_inner().peers;
    let standing = |server: &str| standings.iter().find(|peer| peer.server == server).unwrap();
    assert!(standing(REGISTER).failures > 0, "{standings:?}");
    assert_eq!((standing(REGISTER_TOO).failures, standing(REGISTER_TOO).ejected_for_ms), (0, 0));
    let pinned = caller.ask(Question::new().message(b"wer?").header(PIN, REGISTER)).await;
    let (reason, _, reached) = pinned.told().unwrap();
    assert_eq!((reason.as_str(), reached.as_str()), ("network_error", "no"));
    let elsewhere = caller.ask(Question::new().header(PIN, "NORD/SH/kiel/s1")).await;
    assert_eq!(elsewhere.told().unwrap().0, "invalid_security_server");

    // When it is back, it is tried again, and takes its part.
    instance.mv.start().await.unwrap();
    let from = instance.mv.size();
    let back = async {
        while instance.mv.records(from).is_empty() {
            caller.ask(Question::new().message(b"wer?")).await.only();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it is asked again");
    instance.stop().await;
}

fn fault(reason: Reason, reached: RegisterReached) -> WireFault {
    Fault::before_call(reason, Side::ProviderServer, "die Probe weist ab").with_register(reached).to_wire()
}

/// A security server of the register refuses what comes to it; the other one answers. Asks until the first was asked.
async fn refused(instance: &mut Instance, alteration: Alteration) -> (Answer, Vec<Record>) {
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let hostile = HostileProvider::start(instance, credentials, alteration).await;
    let (caller, from) = (instance.caller().await, instance.sh.size());
    let asked = async {
        loop {
            let answer = caller.ask(Question::new().message(b"wer?")).await;
            let records = instance.sh.records(from);
            if receivers(&records).values().any(|receiver| receiver == REGISTER) {
                return (answer, records);
            }
            assert_eq!(answer.status(), 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is asked");
    hostile.stop().await;
    instance.mv.start().await.unwrap();
    seen
}

#[tokio::test]
async fn what_was_not_taken_up_is_made_again_elsewhere_as_an_exchange_of_its_own() {
    let mut instance = Instance::planned(two()).await;
    for (fault, reason) in [
        (Alteration::Fault(|| fault(Reason::Overloaded, RegisterReached::No)), "overloaded"),
        (Alteration::Fault(|| fault(Reason::MaintenanceMode, RegisterReached::No)), "maintenance_mode"),
        (Alteration::Fault(|| fault(Reason::ServiceFailed, RegisterReached::No)), "service_failed"),
    ] {
        let calls = instance.register.count();
        let (answer, records) = refused(&mut instance, fault).await;
        answer.only();
        let continued = continued(&records);
        assert_eq!(continued.len(), 1, "{reason}");
        let (first, second) = continued.iter().next().unwrap();
        // The caller is told the exchange that answered; the log tells both, each with its end.
        assert_eq!(answer.exchange(), *second);
        let ended = format!("ended failed {reason} by provider_server, register no");
        assert_eq!(summary(&records, *first), ["sent request end", &ended]);
        assert_eq!(summary(&records, *second), ["sent request end", "received response end"]);
        let asked = receivers(&records);
        assert_eq!((asked[first].as_str(), asked[second].as_str()), (REGISTER, REGISTER_TOO));
        // So does a proof of the first.
        let ended = story(&instance, &export(&instance.sh, *first, false).await).ended.unwrap();
        assert_eq!((ended.reason.as_str(), ended.continued_as), (reason, Some(*second)));
        assert!(ended.by_hearsay, "that no register was called is nobody's signed word");
        let called: Vec<_> = instance.register.calls()[calls..].iter().map(|call| call.exchange()).collect();
        assert!(called.contains(second) && !called.contains(first));
    }
    instance.stop().await;
}

/// An answer whose signature is another's.
fn forged(envelope: &mut Envelope) {
    if let Some(signature) = &mut envelope.signature {
        let mut value = signature.value.to_vec();
        value[40] ^= 1;
        signature.value = value.into();
    }
}

#[tokio::test]
async fn whose_answers_do_not_verify_is_left_alone_and_then_not_asked() {
    let at_client = "[limits]\nbad_signatures = 2\n".to_owned();
    let mut instance = Instance::planned(Plan { at_client, ..two() }).await;
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let hostile = HostileProvider::start(&instance, credentials, Alteration::Envelope(forged)).await;
    let caller = instance.caller().await;
    let asked = async {
        loop {
            let answer = caller.ask(Question::new().message(b"wer?")).await;
            if answer.status() != 0 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is asked once");
    let (reason, side, _) = answer.told().unwrap();
    assert_eq!((reason.as_str(), side.as_str()), ("invalid_signature_value", "client_server"));
    let ended = story(&instance, &export(&instance.sh, answer.exchange(), false).await).ended.unwrap();
    assert!(!ended.by_hearsay, "what this side saw is no hearsay");
    let standings = operator(&instance.sh).await.status(StatusRequest {}).await.unwrap().into_inner().peers;
    let standing = standings.iter().find(|peer| peer.server == REGISTER).unwrap();
    assert_eq!(standing.failures, 1, "{standing:?}");

    // Named, it is asked once more; then nothing of it would be looked at, and nothing is sent to it.
    let named = || Question::new().message(b"wer?").header(PIN, REGISTER);
    assert_eq!(caller.ask(named()).await.told().unwrap().0, "invalid_signature_value");
    let answer = caller.ask(named()).await;
    let told = answer.told().unwrap();
    assert_eq!(told, ("overloaded".into(), "client_server".into(), "no".into()));
    assert_eq!(instance.sh.tells(answer.exchange()), ["refused overloaded by client_server"]);
    // Whoever names nobody is answered by the other one.
    for _ in 0..10 {
        caller.ask(Question::new().message(b"wer?")).await.only();
    }
    hostile.stop().await;
    instance.stop().await;
}

#[tokio::test]
async fn what_may_have_been_called_or_is_forbidden_is_not_made_again() {
    let mut instance = Instance::planned(two()).await;
    for (alteration, told) in [
        (
            Alteration::Fault(|| fault(Reason::Overloaded, RegisterReached::Unknown)),
            ["overloaded", "provider_server", "unknown"],
        ),
        (
            Alteration::Fault(|| fault(Reason::ServiceFailed, RegisterReached::Yes)),
            ["service_failed", "provider_server", "yes"],
        ),
        // Nobody goes from server to server to find one that permits.
        (
            Alteration::Fault(|| fault(Reason::AccessDenied, RegisterReached::No)),
            ["access_denied", "provider_server", "no"],
        ),
        // Nor to use up what each of them grants.
        (
            Alteration::Fault(|| fault(Reason::RateLimited, RegisterReached::No)),
            ["rate_limited", "provider_server", "no"],
        ),
        (Alteration::Silence, ["network_error", "client_server", "unknown"]),
    ] {
        let (answer, records) = refused(&mut instance, alteration).await;
        let (reason, side, reached) = answer.told().expect("the caller is told");
        assert_eq!([reason.as_str(), side.as_str(), reached.as_str()], told);
        assert!(continued(&records).is_empty(), "{told:?}");
    }
    instance.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_not_taken_up_is_said_again_from_its_beginning() {
    let mut instance = Instance::planned(two()).await;
    instance.mv.stop().await;
    let credentials = Credentials::of(REGISTER, &instance.authorities, &instance.configuration);
    let overloaded = Alteration::Fault(|| fault(Reason::Overloaded, RegisterReached::No));
    let hostile = HostileProvider::start(&instance, credentials, overloaded).await;
    let (caller, from) = (instance.caller().await, instance.sh.size());
    let again = async {
        loop {
            let mut stream = caller.open(Question::new()).await;
            for message in [&b"eins"[..], b"zwei", b"drei"] {
                stream.send(message).await;
                // Each a message of its own.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.end();
            let answer = stream.finish().await;
            assert_eq!(answer.status(), 0, "{answer:?}");
            let continued = continued(&instance.sh.records(from));
            if let Some(second) = continued.values().next() {
                return *second;
            }
        }
    };
    let second = tokio::time::timeout(Duration::from_secs(60), again).await.expect("one is made again");
    let calls = instance.register.calls();
    let call = calls.iter().find(|call| call.exchange() == second).expect("the register was called");
    assert_eq!(call.body(), [frame(b"eins"), frame(b"zwei"), frame(b"drei")].concat());
    hostile.stop().await;
    instance.stop().await;
}

#[tokio::test]
async fn a_register_on_several_servers_is_called_where_it_can_be_reached() {
    let mut instance = Instance::start().await;
    let mut too = Register::start().await;
    let (one, both) = (format!("\"http://{}\"", instance.register.address), too.address);
    instance.mv.reconfigure(|text| text.replace(&one, &format!("[{one}, \"http://{both}\"]"))).await;
    let caller = instance.caller().await;
    for _ in 0..20 {
        caller.ask(Question::new().message(b"wer?")).await.only();
    }
    let (first, second) = (instance.register.count(), too.count());
    assert!(first + second == 20 && first > 0 && second > 0, "both take part: {first} and {second}");

    // One that is down is passed over; when it is back, it takes its part again.
    instance.register.stop().await;
    for _ in 0..10 {
        caller.ask(Question::new().message(b"wer?")).await.only();
    }
    assert_eq!((instance.register.count(), too.count()), (first, second + 10));
    instance.register.resume().await;
    let back = async {
        while instance.register.count() == first {
            caller.ask(Question::new().message(b"wer?")).await.only();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("it is called again");

    // What was begun at one is never made again at the other.
    instance.register.stop().await;
    too.script(Script::Hold);
    let count = too.count();
    let held = tokio::spawn(async move { caller.ask(Question::new().message(b"wer?")).await });
    let taken = tokio::time::timeout(Duration::from_secs(20), too.called(count + 1)).await;
    taken.expect("the register has the call");
    let first = instance.register.count();
    instance.register.resume().await;
    too.stop().await;
    let (reason, side, reached) = held.await.unwrap().told().unwrap();
    assert_eq!([reason.as_str(), side.as_str(), reached.as_str()], ["service_failed", "register", "unknown"]);
    assert_eq!(instance.register.count(), first);
    instance.stop().await;
}

fn start(server: &Server) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["serve", "--exact", "--nocapture"]);
    Process::start(command, server)
}

/// What callers met.
#[derive(Default)]
struct Met {
    calls: AtomicU64,
    answered: watch::Sender<usize>,
    failed: Mutex<Vec<Answer>>,
}

impl Met {
    /// Waits for so many more answers.
    async fn more(&self, count: usize) {
        let mut seen = self.answered.subscribe();
        let now = *seen.borrow();
        let reached = seen.wait_for(|answered| *answered >= now + count);
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("calls are answered").unwrap();
    }
}

/// Asks without end, one call after another.
async fn load(door: SocketAddr, met: Arc<Met>, stop: Arc<AtomicBool>) {
    let caller = Caller::connect(door).await;
    while !stop.load(Ordering::Relaxed) {
        let call = met.calls.fetch_add(1, Ordering::Relaxed).to_string();
        let answer = caller.ask(Question::new().message(b"unter Last").header(CALL, &call)).await;
        match answer.status() {
            0 => met.answered.send_modify(|answered| *answered += 1),
            _ => met.failed.lock().unwrap().push(answer),
        }
    }
}

const WORKERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_nothing_and_a_kill_only_what_was_in_flight_there() {
    let mut instance = Instance::prepared(two(), Arc::new(SystemClock)).await;
    instance.register.script(Script::HoldIf("x-hold"));
    let mv_too = instance.mv_too.take().unwrap();
    let servers = [&instance.sh, &instance.mv, &mv_too];
    let [mut sh, mv, too] = servers.map(start);
    let (mut mv, mut too) = (Some(mv), Some(too));
    for process in [Some(&mut sh), mv.as_mut(), too.as_mut()].into_iter().flatten() {
        process.serving().await;
    }
    let (met, stop) = (Arc::new(Met::default()), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(load(instance.sh.door, Arc::clone(&met), Arc::clone(&stop))))
        .collect();

    // A rolling restart, twice round: nobody notices.
    for _ in 0..2 {
        for (process, server) in [(&mut mv, &instance.mv), (&mut too, &mv_too)] {
            met.more(100).await;
            process.take().unwrap().terminate().await;
            process.insert(start(server)).serving().await;
        }
    }
    met.more(100).await;
    let failed = std::mem::take(&mut *met.failed.lock().unwrap());
    assert!(failed.is_empty(), "{} of {:?}: {:?}", failed.len(), met.answered.borrow(), failed.first());

    // A kill: a call that the register has and does not answer, a stream that it began to answer, and the same elsewhere.
    let caller = instance.caller().await;
    let calls = instance.register.count();
    let held = Question::new().header("x-hold", "yes").header(PIN, REGISTER);
    let held = tokio::spawn({
        let caller = caller.clone();
        async move { caller.ask(held).await }
    });
    let has_held = || instance.register.calls()[calls..].iter().any(|call| call.header("x-hold").is_some());
    let taken = async {
        while !has_held() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taken).await.expect("the register has the call");
    let mut streams = Vec::new();
    for server in [REGISTER, REGISTER_TOO] {
        let mut stream = caller.open(Question::new().method(METHOD).header(PIN, server)).await;
        stream.send(b"eins").await;
        stream.head().await;
        stream.read(frame(b"eins").len()).await;
        streams.push(stream);
    }
    mv.unwrap().kill();
    met.more(100).await;
    let held = held.await.unwrap().told().unwrap();
    assert_eq!(held, ("network_error".into(), "client_server".into(), "unknown".into()));
    let mut there = streams.remove(0).finish().await;
    there.headers.clear();
    assert_eq!(there.told().unwrap(), ("network_error".into(), "client_server".into(), "yes".into()));
    let mut elsewhere = streams.remove(0);
    elsewhere.send(b"zwei").await;
    elsewhere.read(frame(b"zwei").len()).await;
    elsewhere.end();
    assert_eq!(elsewhere.finish().await.status(), 0, "what was in flight elsewhere goes on");

    let mut again = start(&instance.mv);
    again.serving().await;
    met.more(100).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    for process in [sh, again, too.unwrap()] {
        process.terminate().await;
    }
    let failed = std::mem::take(&mut *met.failed.lock().unwrap());
    assert!(failed.len() <= WORKERS, "{} failed, each worker has one call in flight", failed.len());
    only_what_was_in_flight(&instance, &failed);
    called_once(&instance);
    instance.register.stop().await;
    instance.authorities.stop().await;
}

/// Each call that failed was in flight at the server that was killed, and was told what is true of the register.
fn only_what_was_in_flight(instance: &Instance, failed: &[Answer]) {
    let records = instance.sh.records(0);
    let asked = receivers(&records);
    let called: BTreeSet<_> = instance.register.calls().iter().map(|call| call.exchange()).collect();
    for answer in failed {
        let (reason, _, reached) = answer.told().expect("it is told why");
        let exchange = answer.exchange();
        assert_eq!(reason, "network_error");
        assert_eq!(asked.get(&exchange).map(String::as_str), Some(REGISTER));
        assert!(
            reached != "no" || !called.contains(&exchange),
            "it is told that the register was not reached"
        );
    }
    for (first, second) in continued(&records) {
        assert!(!called.contains(&first), "{first} was made again as {second}");
    }
}

/// No call reaches the register twice, whichever exchanges it was.
fn called_once(instance: &Instance) {
    let mut seen = BTreeSet::new();
    for call in instance.register.calls() {
        if let Some(number) = call.header(CALL) {
            assert!(seen.insert(number.to_owned()), "call {number} was made twice");
        }
    }
    assert!(seen.len() > 500, "there was load: {}", seen.len());
}
