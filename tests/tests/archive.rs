//! Closed segments go into the archive while the server serves; from the archive alone the log comes back, and what is
//! missing is told.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use trave_proto::proof::Conclusion;
use trave_tests::network::{Instance, Plan, Server, export, judge, status};
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

/// An instance whose provider's server archives into the directory `archive` of the returned one, where the key file stands.
async fn archiving() -> (Instance, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let (instance, _) = archiving_to(place.path(), (&format!("directory = {archive:?}"), "")).await;
    (instance, place)
}

/// An instance whose provider's server archives to what these lines and this table say; a key file `key` is made in `place`.
async fn archiving_to(place: &Path, (lines, table): (&str, &str)) -> (Instance, String) {
    let plan = Plan { keep_at_provider: "all", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let key = place.join("key");
    let made = run(&instance.mv, &["archive", "keygen", "--out", key.to_str().unwrap()]).await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let recipient = text(&made.stdout).trim();
    assert!(recipient.starts_with("trave-archive-1:"), "{recipient}");
    instance.mv.stop().await;
    let mut file = std::fs::OpenOptions::new().append(true).open(instance.mv.configuration_file()).unwrap();
    write!(file, "\n[archive]\n{lines}\nrecipients = [{recipient:?}]\nevery_seconds = 60\n{table}\n")
        .unwrap();
    instance.mv.start().await.unwrap();
    (instance, key.to_str().unwrap().to_owned())
}

/// Exchanges that fill more than two segments of 1 MiB at the provider.
async fn ask_much(instance: &Instance) {
    for number in 0..4_u8 {
        let message = vec![number; 400_000];
        assert_eq!(instance.ask(&message).await.only().as_ref(), &message[..]);
    }
}

/// A byte of the first segment changes, and the segment is fetched again; not under a running server.
async fn a_damaged_segment_is_mended(instance: &mut Instance, key: &str) {
    let refused = run(&instance.mv, &["archive", "repair", "--key", key]).await;
    assert!(text(&refused.stderr).contains("held by another process"), "{}", text(&refused.stderr));
    instance.mv.stop().await;
    let segments = instance.mv.layout().log().join("segments");
    let mut names: Vec<_> = std::fs::read_dir(&segments).unwrap().map(|it| it.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    let first = names.iter().min().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(first).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 2_000).unwrap();
    let told = run(&instance.mv, &["check-log", "--archive", "--key", key]).await;
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stdout));
    let done = run(&instance.mv, &["archive", "repair", "--key", key]).await;
    let said = text(&done.stdout);
    assert!(done.status.success(), "{said}{}", text(&done.stderr));
    assert!(said.starts_with("mended: the segment of the records 0 to "), "{said}");
    assert!(said.contains("give the root of the checkpoint") && said.contains(".damaged-1"), "{said}");
    instance.mv.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_comes_back_from_its_archive() {
    let (mut instance, place) = archiving().await;
    let (key, archive, new) =
        (place.path().join("key"), place.path().join("archive"), place.path().join("new"));
    let first = instance.ask(b"zuerst").await.exchange();
    export(&instance.mv, first, false).await;
    ask_much(&instance).await;
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
    a_damaged_segment_is_mended(&mut instance, key).await;
    let report = judge(&instance, &export(&instance.mv, first, false).await);
    assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
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
    // It is read and proved from without a server: what the last archived checkpoint with a timestamp covers.
    let listed = run(&instance.mv, &["log", "list", "--reason", "Probe", "--restored", to]).await;
    assert!(
        listed.status.success() && text(&listed.stdout).contains(&first.to_string()),
        "{}",
        text(&listed.stderr)
    );
    let file = place.path().join("proof");
    let out = file.to_str().unwrap();
    let id = first.to_string();
    let proved = ["proof", &id, "--reason", "Probe", "--restored", to, "--out", out];
    let done = run(&instance.mv, &proved).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = judge(&instance, &std::fs::read(&file).unwrap().into());
    assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
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

/// `tests/interop/archive/run.sh` runs it, with an object storage that nobody here wrote: its address in
/// `TRAVE_OBJECT_STORAGE`, the bucket `trave`, the two credentials `S3RVER`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an object storage"]
async fn the_log_comes_back_from_an_object_storage() {
    let endpoint = std::env::var("TRAVE_OBJECT_STORAGE").expect("TRAVE_OBJECT_STORAGE names no storage");
    let place = tempfile::tempdir().unwrap();
    let credentials = place.path().join("credentials");
    let write = |id: &str| {
        trave_host::files::replace(&credentials, format!("{id}\nS3RVER\n").as_bytes()).unwrap();
    };
    write("S3RVER");
    let table = format!(
        "[archive.object_storage]\nendpoint = {endpoint:?}\nbucket = \"trave\"\nprefix = \"mv/s1/\"\n\
         credentials_file = {credentials:?}\n"
    );
    let (mut instance, key) = archiving_to(place.path(), ("", &table)).await;
    ask_much(&instance).await;
    let whole = async |instance: &Instance| {
        let checked = run(&instance.mv, &["check-log", "--archive", "--key", &key]).await;
        (checked.status.success(), format!("{}{}", text(&checked.stdout), text(&checked.stderr)))
    };
    let objects = |said: &str| -> usize {
        let told = said.split(", ").find_map(|part| part.strip_suffix(" in the archive"));
        told.map_or(0, |number| number.parse().unwrap())
    };
    // All that are closed: two of the eight messages fit into a segment, and the last is written to.
    let archived = |said: &str| said.contains(" 0 problems") && objects(said) == 3;
    let mut last = whole(&instance).await;
    for _ in 0..60 {
        if archived(&last.1) {
            break;
        }
        instance.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(200)).await;
        last = whole(&instance).await;
    }
    assert!(last.0 && archived(&last.1), "{}", last.1);
    // Whom the storage does not know, it gives nothing, and its word is told.
    write("NOBODY");
    let (held, said) = whole(&instance).await;
    assert!(!held && said.contains("403 Forbidden (InvalidAccessKeyId)"), "{said}");
    write("S3RVER");
    instance.mv.stop().await;
    std::fs::remove_dir_all(instance.mv.layout().log()).unwrap();
    let new = place.path().join("new");
    let restored =
        run(&instance.mv, &["archive", "restore", "--key", &key, "--to", new.to_str().unwrap()]).await;
    let said = text(&restored.stdout);
    assert!(said.contains("missing: records ") && !said.contains("problem:"), "{said}");
    assert_eq!(std::fs::read_dir(new.join("segments")).unwrap().count(), objects(&last.1));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_keeps_no_other_from_the_archive() {
    let (mut instance, place) = archiving().await;
    let archive = place.path().join("archive");
    ask_much(&instance).await;
    // A byte of a content in the first segment, before anything is archived: by the clock, that was at the start.
    assert!(objects(&archive).is_empty());
    let segment = instance.mv.layout().log().join("segments/segment-00000000000000000000.log");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 300_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 300_000).unwrap();
    let mut told = false;
    for _ in 0..300 {
        instance.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
        told = status(&instance.mv).await.warnings.iter().any(|it| it.contains("are not archived"));
        if told && !objects(&archive).is_empty() {
            break;
        }
    }
    let names = objects(&archive);
    assert!(told && !names.is_empty(), "{told} {names:?}");
    assert!(!names.iter().any(|name| name.contains("00000000000000000000")), "{names:?}");
    instance.stop().await;
}
