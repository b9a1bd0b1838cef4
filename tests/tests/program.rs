//! `trave-gateway` as its operator meets it: processes, files, verbs, exit statuses, and what an idle server costs.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trave_host::clock::SystemClock;
use trave_tests::network::{
    CLIENT, Instance, LEGAL_BASIS, METHOD, OTHER_PURPOSE, PASSPHRASE, PURPOSE, Plan, SERVICE, Server,
};
use trave_tests::program::program;

/// How much memory of its own an idle security server may hold, in KiB. The pages of the program file are not counted: of
/// the unoptimised program that tests run they are 40 MiB, of a released one a fifth of that: `smoke` holds all of what that
/// one holds against 50 MiB.
const IDLE_KIB: u64 = 24 * 1024;

/// A security server in a process of its own; killed when the test ends without it.
struct Running(Child);

impl Running {
    /// Starts it; how long it took until it served.
    async fn start(server: &Server) -> (Self, Duration) {
        let begun = Instant::now();
        let said = std::fs::File::create(server.data().join("../said")).unwrap();
        let child = Command::new(program("trave-gateway"))
            .args(["run", "--config"])
            .arg(server.configuration_file())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut running = Self(child);
        while tokio::net::TcpStream::connect(server.peer).await.is_err() {
            assert_eq!(running.0.try_wait().unwrap(), None, "it ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not serve");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (running, begun.elapsed())
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// What it holds when what opening the keys took has been given back.
    async fn idle_kib(&self) -> u64 {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let resident = self.resident_kib();
            if resident < IDLE_KIB {
                return resident;
            }
            assert!(Instant::now() < until, "{resident} KiB");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// SIGTERM, as a service manager sends it; the exit status.
    fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a verb to its end.
async fn operate(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(program("trave-gateway"));
    command.args(args).arg("--config").arg(server.configuration_file()).env("USER", "pruefer");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a verb printed, if it succeeded.
async fn printed(server: &Server, args: &[&str]) -> String {
    let output = operate(server, args).await;
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// How a verb failed.
async fn failed(server: &Server, args: &[&str]) -> String {
    let output = operate(server, args).await;
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn grant(purpose: &str) -> Vec<&str> {
    let service = ["grant", "--client", CLIENT, "--service", SERVICE, "--method", "/test.v1.Auskunft/*"];
    [&service[..], &["--purpose", purpose, "--legal-basis", LEGAL_BASIS]].concat()
}

fn call(purpose: &str) -> Vec<&str> {
    let what = ["call", "--service", SERVICE, "--method", METHOD, "--data", "cafe"];
    [&what[..], &["--purpose", purpose, "--legal-basis", LEGAL_BASIS]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_day() {
    let sockets = tempfile::tempdir().unwrap();
    let door = sockets.path().join("agency/door.sock");
    let at_client = format!(
        "[[agency]]\nlisten = \"unix:{}\"\nsubsystem = \"{CLIENT}\"\nkeep_content = \"all\"\n",
        door.display()
    );
    let plan = Plan { at_client, grants: vec![], ..Plan::default() };
    let instance = Instance::prepared(plan, Arc::new(SystemClock)).await;
    let (sh, mv) = (&instance.sh, &instance.mv);
    program("trave-gateway");
    let ((luebeck, took), (register, _)) = (Running::start(sh).await, Running::start(mv).await);
    let (first, second) = tokio::join!(luebeck.idle_kib(), register.idle_kib());
    println!("serving after {took:?}; idle: {first} KiB and {second} KiB of their own");

    let denied = operate(sh, &call(PURPOSE)).await;
    assert_eq!(denied.status.code(), Some(1));
    assert!(String::from_utf8(denied.stdout).unwrap().starts_with("status 7 no grant allows"));
    let id = printed(mv, &grant(PURPOSE)).await;
    assert!(printed(mv, &["grants"]).await.starts_with(&format!("{}\t{CLIENT}\t{SERVICE}\t", id.trim())));
    let refused = failed(mv, &grant("statistik")).await;
    assert!(refused.contains("is not a purpose") && refused.contains("\nhint: "), "{refused}");

    let answer = printed(sh, &call(PURPOSE)).await;
    let lines: Vec<_> = answer.lines().collect();
    assert_eq!(
        (lines[0].trim(), lines[2]),
        ("status 0", "answer cafe"),
        "the register sends back what it gets"
    );
    let exchange = lines[1].strip_prefix("exchange ").unwrap();
    let other = operate(sh, &call(OTHER_PURPOSE)).await;
    assert!(String::from_utf8(other.stdout).unwrap().starts_with("status 7 "));

    let listed = printed(mv, &["log", "list", "--outcome", "answered", "--reason", "Stichprobe"]).await;
    assert_eq!(listed.lines().count(), 1);
    assert!(
        listed
            .contains(&format!("\t{exchange}\tanswered\tprovider\t{CLIENT}\t{SERVICE}\t{METHOD}\t{PURPOSE}"))
    );
    let all = printed(mv, &["log", "list", "--from", "2026-01-01", "--reason", "Stichprobe"]).await;
    assert_eq!(all.lines().count(), 3, "{all}");
    let unfounded = operate(mv, &["log", "list"]).await;
    assert_eq!(unfounded.status.code(), Some(2), "reading needs a reason");

    for server in [sh, mv] {
        let before = prove(server, exchange, &sockets.path().join("before")).await;
        assert!(before.contains(exchange), "{before}");
    }
    let erased = printed(sh, &["erase", exchange, "--reason", "Frist"]).await;
    assert!(erased.starts_with("2 contents of exchange"), "{erased}");
    prove(sh, exchange, &sockets.path().join("after")).await;
    let checked = printed(sh, &["check-log"]).await;
    assert!(checked.contains(" 2 contents erased, 0 problems"), "{checked}");
    let status = printed(sh, &["status"]).await;
    assert!(status.contains("valid until") && status.contains("NORD/SH/luebeck/s1"), "{status}");

    read_again(&instance, &register).await;
    printed(mv, &["revoke", id.trim()]).await;
    assert_eq!(operate(sh, &call(PURPOSE)).await.status.code(), Some(1));
    assert!(failed(mv, &["revoke", id.trim()]).await.contains("there is no grant"));
    assert_eq!((luebeck.stop(), register.stop()), (Some(0), Some(0)));
    let said = std::fs::read_to_string(sh.data().join("../said")).unwrap();
    assert!(said.lines().all(|line| line.starts_with('{')), "every line is JSON: {said}");
    assert!(!said.contains(PASSPHRASE) && !said.contains("cafe"));
}

/// SIGHUP: what the file offers changes, and what is wrong in it changes nothing.
async fn read_again(instance: &Instance, register: &Running) {
    let (sh, mv) = (&instance.sh, &instance.mv);
    let (file, said) = (mv.configuration_file(), mv.data().join("../said"));
    let text = std::fs::read_to_string(&file).unwrap();
    let elsewhere =
        text.replace(&format!("id = \"{SERVICE}\""), "id = \"NORD/MV/gewerberegister/register/anderes\"");
    let wrong = elsewhere.replace("keep_content", "keep_contents");
    for (text, answered, told) in [
        (&elsewhere, "status 5 ", "its services, routes and limits are in use"),
        (&wrong, "status 5 ", "the configuration is refused"),
        (&text, "status 0", "its services, routes and limits are in use"),
    ] {
        let before = std::fs::read_to_string(&said).unwrap().len();
        std::fs::write(&file, text).unwrap();
        register.signal("-HUP");
        let until = Instant::now() + Duration::from_secs(20);
        while !std::fs::read_to_string(&said).unwrap()[before..].contains(told) {
            assert!(Instant::now() < until, "it does not say that {told}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let answer = String::from_utf8(operate(sh, &call(PURPOSE)).await.stdout).unwrap();
        assert!(answer.starts_with(answered), "{answer}");
    }
}

/// Exports a proof and has a stranger's program verify it; what that prints.
async fn prove(server: &Server, exchange: &str, stem: &Path) -> String {
    let file = stem.with_extension(server.id.replace('/', "-"));
    let out = file.to_str().unwrap();
    printed(server, &["proof", exchange, "--out", out, "--reason", "Widerspruch"]).await;
    let again = failed(server, &["proof", exchange, "--out", out, "--reason", "Widerspruch"]).await;
    assert!(again.contains("exists already"), "{again}");
    let mut verify = Command::new(program("trave-verify"));
    verify.arg(&file).arg("--anchor").arg(server.layout().anchor());
    let verified = tokio::task::spawn_blocking(move || verify.output().unwrap()).await.unwrap();
    let text = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&verified.stderr));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_what_to_do() {
    let instance = Instance::prepared(Plan::default(), Arc::new(SystemClock)).await;
    let absent = failed(&instance.sh, &["status"]).await;
    assert!(absent.starts_with("error: the security server is not reached\nhint: is it running"), "{absent}");
    let checked = operate(&instance.sh, &["check-config"]).await;
    assert_eq!(checked.status.code(), Some(0));
    assert!(String::from_utf8(checked.stderr).unwrap().contains("is valid"));
    let path = instance.sh.configuration_file();
    let text = std::fs::read_to_string(&path).unwrap().replace("subsystem", "subsytem");
    std::fs::write(&path, text).unwrap();
    let wrong = failed(&instance.sh, &["check-config"]).await;
    assert!(wrong.contains("subsytem"), "{wrong}");
    let unknown = operate(&instance.sh, &["fliegen"]).await;
    assert_eq!(unknown.status.code(), Some(2));
}
