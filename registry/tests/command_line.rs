//! The program as operators and administrators use it: processes, files, and nothing else.

#![allow(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trave-registry"));
    command.args(arguments).stdin(Stdio::null()).env_remove("TRAVE_CONFIG");
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

fn serve(command: &str, config: &Path) -> Running {
    let config = config.display().to_string();
    let mut command = program(&[command, "--config", &config, "--log", "warn"]);
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Addresses that were free a moment ago.
fn free_addresses() -> Vec<String> {
    let bound: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

#[test]
fn an_instance_is_made_run_and_administered_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let nord = directory.path().join("nord");
    let addresses = free_addresses();
    let path = nord.display().to_string();
    let init = [
        "init",
        &path,
        "--instance",
        "NORD",
        "--registry-key",
        "registry-sh",
        "--cosigner-key",
        "cosigner-mv",
        "--administrator",
        "Frauke Hansen=SH",
        "--administrator",
        "Uwe Schulz=MV",
        "--public",
        &addresses[0],
        "--admin",
        &addresses[1],
        "--cosigner",
        &addresses[2],
        "--trust-services",
        &addresses[3],
    ];
    let told = done(&init);
    assert!(told.contains("first configuration") && told.contains("uwe-schulz/admin.toml"), "{told}");
    assert!(refused(&init).contains("must not be there yet"));
    let file = |name: &str| nord.join(name);
    let (registry, cosigner) = (file("registry/registry.toml"), file("cosigner/cosigner.toml"));
    let frauke = file("administrators/frauke-hansen/admin.toml").display().to_string();
    let uwe = file("administrators/uwe-schulz/admin.toml").display().to_string();
    done(&["check-config", "registry", &registry.display().to_string()]);
    done(&["check-config", "cosigner", &cosigner.display().to_string()]);
    done(&["check-config", "admin", &frauke]);

    let _cosigner = serve("cosigner", &cosigner);
    let running = serve("run", &registry);
    let began = Instant::now();
    while !run(&["admin", "--config", &frauke, "acts"]).status.success() {
        assert!(began.elapsed() < Duration::from_secs(60), "no registry answers");
        std::thread::sleep(Duration::from_millis(100));
    }
    let text = ["--text", "Change of residence", "--text-de", "Ummeldung", "--citation", "Beispiel"];
    let add = [&["admin", "--config", &frauke, "purpose", "add", "ummeldung"][..], &text].concat();
    let id = done(&add).trim().to_owned();
    let alone = refused(&["admin", "--config", &frauke, "approve", &id, "--yes"]);
    assert!(alone.contains("cannot approve it"), "{alone}");
    let unasked = refused(&["admin", "--config", &uwe, "approve", &id]);
    assert!(unasked.contains("nobody is there to be asked"), "{unasked}");
    let approved = done(&["admin", "--config", &uwe, "approve", &id, "--yes"]);
    assert_eq!(approved, "in force with configuration 2\n");
    let shown = done(&["admin", "--config", &uwe, "acts"]);
    assert!(shown.contains("in force since configuration 2") && shown.contains("Uwe Schulz"), "{shown}");

    let put = ["admin", "--config", &uwe, "group", "put", "kommunen", "--name", "Kommunen"];
    let group = done(&put).trim().to_owned();
    let approved = done(&["admin", "--config", &frauke, "approve", &group, "--yes"]);
    assert_eq!(approved, "in force with configuration 3\n");

    let certificate = file("administrators/uwe-schulz/administrator.pem").display().to_string();
    let add = ["admin", "--config", &uwe, "auditor", "add", "LRH MV", "--certificate", &certificate];
    assert!(run(&add).status.code() == Some(2), "an auditor without a scope");
    let auditor = done(&[&add[..], &["--class", "NORD/MV"]].concat()).trim().to_owned();
    let approved = done(&["admin", "--config", &frauke, "approve", &auditor, "--yes"]);
    assert_eq!(approved, "in force with configuration 4\n");

    // Killed, and started again: what was answered is there.
    drop(running);
    let _running = serve("run", &registry);
    let show = ["admin", "--config", &frauke, "configuration", "show"];
    let began = Instant::now();
    let mut output = run(&show);
    while !output.status.success() {
        assert!(began.elapsed() < Duration::from_secs(60), "no registry answers");
        std::thread::sleep(Duration::from_millis(100));
        output = run(&show);
    }
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("group kommunen (Kommunen)"), "{shown}");
    assert!(shown.contains("auditor \"LRH MV\" as an auditor with the key"), "{shown}");
    assert!(shown.contains("purpose ummeldung") && shown.contains("registry-sh, cosigner-mv"), "{shown}");
}

#[test]
fn every_mistake_in_a_configuration_file_is_told_in_one_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cosigner.toml");
    let text = r#"
        listen = "127.0.0.1:7445"
        anchor = "anchor"
        key_name = "cosigner-mv"
        genesis = "zz"
        registry_key = "00"
        state = "cosigner.state"
        [configuration_key]
        key = "configuration.key.pem"
        passphrase_file = "passphrase"
        [tls]
        certificate = "tls.pem"
        key = "tls.key.pem"
        passphrase_file = "passphrase"
    "#;
    std::fs::write(&path, text).unwrap();
    let told = refused(&["check-config", "cosigner", &path.display().to_string()]);
    for key in ["anchor", "genesis", "registry_key", "configuration_key.passphrase_file", "tls.certificate"] {
        assert!(told.contains(&format!("{key}:")), "{key} is not told: {told}");
    }
    std::fs::write(&path, text.replace("listen", "lisetn")).unwrap();
    let told = refused(&["check-config", "cosigner", &path.display().to_string()]);
    assert!(told.contains("did you mean `listen`?"), "{told}");
}
