//! Closed segments go into the archive while the server serves; from the archive alone the log comes back, and what is
//! missing is told.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use trave_tests::network::{Instance, Plan, Server};
use trave_tests::program::program;

async fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(program("trave-gateway"));
    command.args(args).arg("--config").arg(server.configuration_file());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn objects(archive: &Path) -> Vec<String> {
    let names = std::fs::read_dir(archive).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".trave-archive")).collect()
}

/// An instance whose provider's server archives; the archive's directory and key file.
async fn archiving() -> (Instance, tempfile::TempDir) {
    let plan = Plan { keep_at_provider: "all", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let place = tempfile::tempdir().unwrap();
    let (key, archive) = (place.path().join("key"), place.path().join("archive"));
    std::fs::create_dir(&archive).unwrap();
    let made = run(&instance.mv, &["archive", "keygen", "--out", key.to_str().unwrap()]).await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let recipient = text(&made.stdout).trim();
    assert!(recipient.starts_with("trave-archive-1:"), "{recipient}");
    instance.mv.stop().await;
    let mut file = std::fs::OpenOptions::new().append(true).open(instance.mv.configuration_file()).unwrap();
    write!(file, "\n[archive]\ndirectory = {archive:?}\nrecipients = [{recipient:?}]\nevery_seconds = 60\n")
        .unwrap();
    instance.mv.start().await.unwrap();
    (instance, place)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_comes_back_from_its_archive() {
    let (mut instance, place) = archiving().await;
    let (key, archive, new) =
        (place.path().join("key"), place.path().join("archive"), place.path().join("new"));
    for number in 0..4_u8 {
        let message = vec![number; 400_000];
        assert_eq!(instance.ask(&message).await.only().as_ref(), &message[..]);
    }
    for _ in 0..300 {
        if objects(&archive).len() >= 2 {
            break;
        }
        instance.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(objects(&archive).len() >= 2, "{:?}", objects(&archive));
    // Beside the running server: log and archive together are whole.
    let key = key.to_str().unwrap();
    let checked = run(&instance.mv, &["check-log", "--archive", "--key", key]).await;
    let said = text(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", text(&checked.stderr));
    assert!(said.contains(" 0 problems") && said.contains("give the root of the checkpoint"), "{said}");
    // The disk is lost, but for the configurations; what was not archived is told.
    instance.mv.stop().await;
    std::fs::remove_dir_all(instance.mv.layout().log()).unwrap();
    let to = new.to_str().unwrap();
    let restored = run(&instance.mv, &["archive", "restore", "--key", key, "--to", to]).await;
    let said = text(&restored.stdout);
    assert_eq!(restored.status.code(), Some(1), "{said}{}", text(&restored.stderr));
    assert!(said.contains("missing: records ") && !said.contains("problem:"), "{said}");
    assert!(text(&restored.stderr).contains("contents are unreadable"), "{}", text(&restored.stderr));
    assert_eq!(std::fs::read_dir(new.join("segments")).unwrap().count(), objects(&archive).len());
    // It is not continued, whoever puts it in the place of the old one.
    std::fs::rename(&new, instance.mv.layout().log()).unwrap();
    let refused = instance.mv.start().await.unwrap_err();
    let why = trave_host::config::with_causes(&refused);
    assert!(why.contains("came out of an archive"), "{why}");
    // A changed object is found out.
    let object = archive.join(&objects(&archive)[0]);
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let to = place.path().join("again");
    let restored =
        run(&instance.mv, &["archive", "restore", "--key", key, "--to", to.to_str().unwrap()]).await;
    assert_eq!(restored.status.code(), Some(1));
    assert!(text(&restored.stdout).contains("does not decrypt"), "{}", text(&restored.stdout));
    instance.stop().await;
}
