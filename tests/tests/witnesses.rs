//! Checkpoints of both states' logs are cosigned by both states' witnesses, a proof says so, and what happens without them is
//! what the configuration's policy says. A log that takes back what it gave away is found out.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::time::Duration;

use prost::Message;
use trave_gateway::security_server::StartError;
use trave_message_log::LogError;
use trave_proto::clock::Time;
use trave_proto::proof::{CheckName, Conclusion, NotProved, Outcome, Proof, verify};
use trave_proto::schema::configuration::{Deadlines, GlobalConfiguration, SignedConfiguration, Witnessing};
use trave_proto::schema::proof as schema;
use trave_tests::network::{
    Certified, Instance, Server, Tunnel, Witness, copy, export, judge, picture, status, story, witnessed,
};

const MINUTE: Duration = Duration::from_secs(60);

/// What an operator is told of witnesses; of the registry, which none of these instances has, nothing.
async fn warnings(server: &Server) -> Vec<String> {
    let mut warnings = status(server).await.warnings;
    warnings.retain(|warning| warning.contains("witness") || warning.contains("cosigned"));
    warnings
}

/// Lets minutes pass until `holds`.
async fn minutes_later(instance: &Instance, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        instance.advance(MINUTE);
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in 10 s: {what}");
}

fn deadlines(next: &mut GlobalConfiguration, alarm_after_ms: u64, refuse_after_ms: u64) {
    let deadlines = Some(Deadlines { alarm_after_ms, refuse_after_ms });
    let witnessing = Witnessing { required: Vec::new(), of_other_classes: 1, deadlines };
    next.policy.as_mut().unwrap().witnessing = Some(witnessing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_says_who_witnessed_it_and_when() {
    let (mut instance, mut sh, mut mv) = witnessed(|_| {}).await;
    let exchange = instance.ask(b"bezeugt").await.exchange();
    for (server, other) in [(&instance.sh, "MV"), (&instance.mv, "SH")] {
        let file = export(server, exchange, false).await;
        let found = story(&instance, &file);
        let by: Vec<_> = found.witnesses.iter().map(|it| (it.class.as_str(), it.foreign)).collect();
        assert!(by.len() == 2 && by.contains(&(other, true)), "{by:?}");
        assert!(found.witnesses.iter().all(|it| it.at == Time::from_millis(it.at.as_secs() * 1000)));
        let report = judge(&instance, &file);
        assert!(!report.not_proved.contains(&NotProved::Witness), "{:?}", report.not_proved);
        assert!(report.not_proved.contains(&NotProved::Collusion));
        assert!(report.checks.iter().any(|check| check.name == CheckName::Cosignatures));
        let now = status(server).await;
        assert!(now.witnessed_size > 0 && now.witnessed_by.len() == 2, "{now:?}");
        forgeries(&instance, &file);
    }
    // Restarted, server and witnesses go on from where they were: the witness tells where that is.
    instance.sh.stop().await;
    sh.stop().await;
    mv.stop().await;
    sh.start().await;
    mv.start().await;
    instance.sh.start().await.unwrap();
    let before = status(&instance.sh).await.witnessed_size;
    assert!(before > 0, "what was witnessed is kept");
    instance.ask(b"weiter").await.only();
    let more = async || status(&instance.sh).await.witnessed_size > before;
    minutes_later(&instance, "a checkpoint beyond it is witnessed", more).await;
    assert_eq!(warnings(&instance.sh).await, Vec::<String>::new());
    instance.stop().await;
}

/// What somebody could do to the cosignatures of a proof, and what the verifier says.
fn forgeries(instance: &Instance, file: &bytes::Bytes) {
    let body = &file[b"trave proof v1\n".len()..];
    let raw = schema::Proof::decode(body).unwrap();
    assert_eq!(raw.version, 2, "older verifiers are told that they cannot read it");
    let judged = |change: &dyn Fn(&mut schema::Checkpoint, &mut u32)| {
        let mut altered = raw.clone();
        let mut version = altered.version;
        change(altered.checkpoint.as_mut().unwrap(), &mut version);
        altered.version = version;
        let file = [b"trave proof v1\n", &altered.encode_to_vec()[..]].concat();
        let proof = Proof::parse(file).ok()?;
        Some(verify(&proof, &instance.keys.anchor(), None))
    };
    let lines = String::from_utf8(raw.checkpoint.as_ref().unwrap().cosignatures.to_vec()).unwrap();
    let (first, second) = lines.split_at(lines.find('\n').unwrap() + 1);
    let stranger = trave_proto::checkpoint::WitnessSigner::new(
        "witness.example/stranger",
        trave_host::keys::NoteKey::generate().unwrap().into_pair(),
    );
    let note = trave_proto::checkpoint::Note::parse(&raw.checkpoint.as_ref().unwrap().note).unwrap();
    let strange = stranger.unwrap().cosign(note.text(), instance.clock.now());
    let mut flipped = lines.clone().into_bytes();
    let at = lines.find("= ").or(lines.rfind('=')).unwrap() - 20;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    for (what, bad) in [
        ("a byte", flipped),
        ("twice", format!("{lines}{first}").into_bytes()),
        ("a stranger's", format!("{lines}{strange}").into_bytes()),
        ("no line", b"\n".to_vec()),
        ("without its newline", lines.trim_end().as_bytes().to_vec()),
    ] {
        let report = judged(&|checkpoint, _| checkpoint.cosignatures = bad.clone().into()).unwrap();
        let check = report.checks.iter().find(|check| check.name == CheckName::Cosignatures).unwrap();
        assert!(matches!(check.outcome, Outcome::Fails(_)), "{what}: {check:?}");
        assert_eq!(report.conclusion, Conclusion::DoesNotHold, "{what}");
    }
    let own = |line: &str| line.contains("witness.mv") == (instance_is_mv(&raw));
    let own = if own(first) { first } else { second };
    let report = judged(&|checkpoint, _| checkpoint.cosignatures = own.as_bytes().to_vec().into()).unwrap();
    assert_eq!(report.conclusion, Conclusion::Holds);
    assert!(report.not_proved.contains(&NotProved::Witness), "the own state's witness is not enough");
    let dropped = judged(&|checkpoint, version| {
        checkpoint.cosignatures = bytes::Bytes::new();
        *version = 1;
    });
    assert!(dropped.unwrap().not_proved.contains(&NotProved::Witness));
    assert!(judged(&|_, version| *version = 1).is_none(), "version 1 has no cosignatures");
    assert!(judged(&|_, version| *version = 3).is_none());
}

/// Whether the recorder of this proof stands in Mecklenburg-Vorpommern.
fn instance_is_mv(raw: &schema::Proof) -> bool {
    let note = String::from_utf8(raw.checkpoint.as_ref().unwrap().note.to_vec()).unwrap();
    note.starts_with("NORD/MV/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_other_states_witness_people_are_told_and_nothing_is_refused_unless_the_policy_says_so() {
    let (mut instance, _sh, mut mv) = witnessed(|next| deadlines(next, 10 * 60_000, 0)).await;
    mv.stop().await;
    let exchange = instance.ask(b"unbezeugt").await.exchange();
    let told = |word: &'static str| {
        let server = &instance.sh;
        async move || status(server).await.warnings.iter().any(|warning| warning.contains(word))
    };
    minutes_later(&instance, "the alarm", told("are not witnessed as the policy asks")).await;
    let now = status(&instance.sh).await;
    assert!(now.unwitnessed_since_ms > 0 && now.unwitnessed_left_ms.is_none(), "{now:?}");
    assert_eq!(instance.ask(b"und doch").await.only().as_ref(), b"und doch");
    let file = export(&instance.sh, exchange, false).await;
    let report = judge(&instance, &file);
    assert_eq!(report.conclusion, Conclusion::Holds, "a proof all the same, and it says what is missing");
    assert!(report.not_proved.contains(&NotProved::Witness));

    mv.start().await;
    let clear = async || warnings(&instance.sh).await.is_empty();
    minutes_later(&instance, "the witness is back", clear).await;
    let file = export(&instance.sh, exchange, false).await;
    assert!(!judge(&instance, &file).not_proved.contains(&NotProved::Witness), "witnessed later");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_policy_says_so_exchanges_are_refused_until_the_log_is_witnessed_again() {
    let (mut instance, _sh, mut mv) = witnessed(|next| deadlines(next, 5 * 60_000, 30 * 60_000)).await;
    instance.ask(b"vorher").await.only();
    mv.stop().await;
    instance.ask(b"danach").await.only();
    let left = async || status(&instance.sh).await.unwitnessed_left_ms.is_some_and(|left| left < 20 * 60_000);
    minutes_later(&instance, "the time left runs down", left).await;
    let over = async || status(&instance.sh).await.unwitnessed_left_ms == Some(0);
    minutes_later(&instance, "the time is over", over).await;
    let refused =
        async || instance.ask(b"zu spaet").await.told().is_some_and(|told| told.0 == "not_witnessed");
    minutes_later(&instance, "exchanges are refused", refused).await;
    let (told, why) = health(&instance.sh).await;
    assert!(told == 503 && why.contains("exchanges are refused: "), "{told} {why}");
    // A restart is no way round it.
    instance.sh.stop().await;
    instance.sh.start().await.unwrap();
    assert_eq!(instance.ask(b"nach dem Start").await.told().unwrap().0, "not_witnessed");
    mv.start().await;
    let served = async || instance.ask(b"wieder").await.told().is_none();
    minutes_later(&instance, "exchanges go on", served).await;
    let (told, why) = health(&instance.sh).await;
    assert_eq!(told, 200, "{why}");
    instance.stop().await;
}

/// Over https a witness is asked under the authorities that the server's operator names, and under no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_behind_https_is_asked_under_the_operators_authorities() {
    let (mut instance, _sh, mv) = witnessed(|_| {}).await;
    let at = instance.sh.directory();
    let (own, _) = (Certified::new(&at.join("right.pem")), Certified::new(&at.join("wrong.pem")));
    let front = Tunnel::open(mv.address(), &own).await;
    let next = instance.next_configuration(|next| {
        let witness = next.witnesses.iter_mut().find(|witness| witness.class == "MV").unwrap();
        witness.url = format!("https://{}/", front.address);
    });
    restart(&mut instance, &next).await;
    instance.ask(b"eins").await.only();
    for (authorities, why) in
        [("", "witnesses.authorities"), ("wrong.pem", "does not hold under the trusted")]
    {
        if !authorities.is_empty() {
            let more = format!("\n[witnesses]\nauthorities = \"{authorities}\"\n");
            instance.sh.reconfigure(|config| config + &more).await;
        }
        let told = async || {
            warnings(&instance.sh).await.iter().any(|it| it.contains("witness.mv") && it.contains(why))
        };
        minutes_later(&instance, why, told).await;
    }
    instance.sh.reconfigure(|config| config.replace("wrong.pem", "right.pem")).await;
    let exchange = instance.ask(b"zwei").await.exchange();
    let clear = async || warnings(&instance.sh).await.is_empty();
    minutes_later(&instance, "it cosigns", clear).await;
    let now = status(&instance.sh).await;
    assert!(now.witnessed_by.iter().any(|name| name.contains("witness.mv")), "{now:?}");
    let file = export(&instance.sh, exchange, false).await;
    assert!(file.len() > 1_000);
    // What is no certificate is found at the start.
    std::fs::write(at.join("right.pem"), "nichts").unwrap();
    instance.sh.stop().await;
    assert!(matches!(instance.sh.start().await, Err(StartError::WitnessAuthorities(_))));
    instance.stop().await;
}

/// A witness that takes connections and says nothing delays one export by its five seconds, and not each of many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_witness_is_waited_for_once() {
    let (mut instance, _sh, mut mv) = witnessed(|_| {}).await;
    let exchange = instance.ask(b"eins").await.exchange();
    mv.stop().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let next = instance.next_configuration(|next| {
        next.witnesses.iter_mut().find(|witness| witness.class == "MV").unwrap().url = url;
    });
    restart(&mut instance, &next).await;
    instance.ask(b"zwei").await.only();
    let began = std::time::Instant::now();
    let file = export(&instance.sh, exchange, false).await;
    let first = began.elapsed();
    assert!(judge(&instance, &file).not_proved.contains(&NotProved::Witness), "nobody of the other state");
    let began = std::time::Instant::now();
    for _ in 0..10 {
        // Each is a record too, which the last checkpoint does not cover.
        let exchange = instance.ask(b"noch eins").await.exchange();
        export(&instance.sh, exchange, false).await;
    }
    let then = began.elapsed();
    println!("first export {first:?}, ten more {then:?}");
    assert!(first < Duration::from_secs(12), "{first:?}");
    assert!(then < Duration::from_secs(5), "{then:?}");
    assert!(warnings(&instance.sh).await.iter().any(|it| it.contains("not cosigned by witness.mv")));
    instance.stop().await;
}

/// Another witness in the place of one, long after the log began: it has the time that the policy gives, like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_adopted_later_refuses_nothing_at_once() {
    let (mut instance, sh, _mv) = witnessed(|next| deadlines(next, 5 * 60_000, 3 * 60 * 60_000)).await;
    // Longer than what the policy allows.
    instance.advance(240 * MINUTE);
    let clear =
        async || instance.ask(b"bezeugt").await.told().is_none() && warnings(&instance.sh).await.is_empty();
    minutes_later(&instance, "all is well", clear).await;
    let other = Witness::make("MV", &instance.clock).await;
    let next = instance.next_configuration(|next| next.witnesses = vec![other.listed(), sh.listed()]);
    instance.mv.stop().await;
    instance.mv.put_configuration(&next);
    instance.mv.start().await.unwrap();
    instance.ask(b"mit der neuen").await.only();
    assert_eq!(status(&instance.sh).await.configuration_number, Instance::number(&next), "from its peer");
    let told = async || warnings(&instance.sh).await.iter().any(|it| it.contains("as the policy asks"));
    minutes_later(&instance, "the alarm", told).await;
    let left = status(&instance.sh).await.unwitnessed_left_ms;
    assert!(left.is_some_and(|left| left > 0), "{left:?}");
    assert_eq!(instance.ask(b"und doch").await.only().as_ref(), b"und doch");
    instance.stop().await;
}

/// What `/healthz` of the agency's server answers.
async fn health(server: &Server) -> (u16, String) {
    let address = server.running().operations.unwrap().to_string();
    let (status, body) = trave_tests::agency::get(&address, "/healthz").await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// While no authority answers, checkpoints without a timestamp follow the last that has one: the time counts from that one,
/// also after a restart. Where no authority is listed, nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_gives_no_more_time_without_timestamps() {
    let (mut instance, _sh, _mv) = witnessed(|_| {}).await;
    instance.ask(b"gestempelt").await.only();
    let stamped = async || status(&instance.sh).await.timestamp_ms != 0;
    minutes_later(&instance, "a timestamp", stamped).await;
    let dead = instance.next_configuration(|next| {
        let services = next.trust_services.as_mut().unwrap();
        services.timestamping_authorities[0].url = "http://127.0.0.1:1/tsa".into();
    });
    restart(&mut instance, &dead).await;
    let before = status(&instance.sh).await;
    assert!(before.timestamp_ms != 0 && before.unstamped_since_ms != 0, "{before:?}");
    instance.ask(b"ohne Stempel").await.only();
    let further = async || status(&instance.sh).await.checkpoint_size > before.checkpoint_size + 1;
    minutes_later(&instance, "a checkpoint without a timestamp", further).await;
    restart(&mut instance, &dead).await;
    let after = status(&instance.sh).await;
    assert_eq!(after.timestamp_ms, before.timestamp_ms);
    assert_eq!(after.unstamped_since_ms, before.unstamped_since_ms);

    instance.configuration = dead;
    let none = instance.next_configuration(|next| {
        next.trust_services.as_mut().unwrap().timestamping_authorities.clear();
    });
    restart(&mut instance, &none).await;
    let now = status(&instance.sh).await;
    assert_eq!((now.unstamped_since_ms, now.unstamped_left_ms), (0, None), "there is nobody to give one");
    instance.stop().await;
}

/// Starts the agency's server anew, with this configuration.
async fn restart(instance: &mut Instance, configuration: &SignedConfiguration) {
    instance.sh.stop().await;
    instance.sh.put_configuration(configuration);
    instance.sh.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_timestamps_people_are_told_and_exchanges_refused_as_the_policy_says() {
    let (mut instance, _sh, _mv) = witnessed(|next| {
        let deadlines = Deadlines { alarm_after_ms: 20 * 60_000, refuse_after_ms: 40 * 60_000 };
        next.policy.as_mut().unwrap().timestamping = Some(deadlines);
        let services = next.trust_services.as_mut().unwrap();
        services.timestamping_authorities[0].url = "http://127.0.0.1:1/tsa".into();
    })
    .await;
    instance.ask(b"ohne Stempel").await.only();
    let told = async || {
        let now = status(&instance.sh).await;
        let left = now.unstamped_left_ms.is_some_and(|left| left > 0);
        left && now.warnings.iter().any(|warning| warning.contains("exchanges are refused in"))
    };
    minutes_later(&instance, "the alarm, with the time left", told).await;
    let refused =
        async || instance.ask(b"zu spaet").await.told().is_some_and(|told| told.0 == "timestamper_failed");
    minutes_later(&instance, "exchanges are refused", refused).await;
    instance.stop().await;
}

/// An old backup put back: of the log alone, which is found out at the start; of the whole data directory, which the
/// witnesses find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_put_back_is_found_out() {
    let (mut instance, _sh, _mv) = witnessed(|_| {}).await;
    instance.ask(b"eins").await.only();
    let kept = tempfile::tempdir().unwrap();
    let (data, log) = (instance.sh.data(), instance.sh.layout().log());
    instance.sh.stop().await;
    copy(&data, kept.path());
    instance.sh.start().await.unwrap();
    let before = status(&instance.sh).await.log_size;
    instance.ask(b"zwei").await.only();
    let more = async || status(&instance.sh).await.witnessed_size > before + 1;
    minutes_later(&instance, "the log is witnessed beyond the backup", more).await;

    instance.sh.stop().await;
    std::fs::remove_dir_all(&log).unwrap();
    copy(&kept.path().join("log"), &log);
    let lies = picture(&data);
    match instance.sh.start().await {
        Err(StartError::Log(LogError::ContradictsCheckpoint { .. })) => {}
        other => panic!("it starts with a log that takes back what was witnessed: {other:?}"),
    }
    assert!(picture(&data) == lies, "what was put back lies there as it was");
    std::fs::remove_dir_all(&data).unwrap();
    copy(kept.path(), &data);
    instance.sh.start().await.unwrap();
    let alarmed = async || {
        let now = status(&instance.sh).await;
        now.warnings.iter().any(|warning| warning.contains("ALARM: a witness contradicts this message log"))
    };
    minutes_later(&instance, "the witnesses know better", alarmed).await;
    instance.stop().await;
}
