//! A range that is read whole: what is not the log's does not verify, and what a search left out is found out.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use trave_proto::schema::audit::{ScanHead, scanned_leaf::Shown};
use trave_tests::program::program;

use super::{audited, raw_scan, scanned, sign_in, six};

/// What was done to an answer, and how.
type Change<'a, T> = (&'a str, &'a dyn Fn(&mut T));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_is_not_the_logs_does_not_verify() {
    let mut instance = audited().await;
    six(&instance).await;
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let size = instance.sh.size();
    let (head, leaves) = raw_scan(&mut client, 2, size).await.unwrap();
    let range = scanned(&instance, head.clone(), &leaves).unwrap();
    assert_eq!((range.head().range(), range.begun()), ((2, size), 6));
    assert!(range.head().stamped.is_some());
    let shown = leaves.iter().position(|leaf| matches!(leaf, Shown::Leaf(_))).unwrap();
    let Shown::Leaf(bytes) = leaves[shown].clone() else { unreachable!() };
    let changes: [Change<'_, Vec<Shown>>; 4] = [
        ("left out", &|leaves| _ = leaves.remove(shown)),
        ("put in", &|leaves| leaves.insert(shown, leaves[shown].clone())),
        ("changed", &|leaves| {
            let mut changed = bytes.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            leaves[shown] = Shown::Leaf(changed.into());
        }),
        ("replaced by another", &|leaves| leaves[shown] = leaves[shown + 1].clone()),
    ];
    for (what, change) in changes {
        let mut changed = leaves.clone();
        change(&mut changed);
        assert!(scanned(&instance, head.clone(), &changed).is_err(), "a leaf was {what}");
    }
    let heads: [Change<'_, ScanHead>; 4] = [
        ("moved", &|head| (head.from, head.to) = (head.from - 1, head.to - 1)),
        ("under another checkpoint", &|head| {
            let mut broken = head.checkpoint.to_vec();
            broken[0] ^= 1;
            head.checkpoint = broken.into();
        }),
        ("without a configuration", &|head| head.configuration = None),
        ("with other paths", &|head| head.last_path.reverse()),
    ];
    for (what, change) in heads {
        let mut changed = head.clone();
        change(&mut changed);
        assert!(scanned(&instance, changed, &leaves).is_err(), "a range {what}");
    }
    for (from, to) in [(size, size), (5, 4), (0, size + 1_000), (0, u64::MAX)] {
        assert!(raw_scan(&mut client, from, to).await.is_err(), "{from}..{to}");
    }
    instance.stop().await;
}

/// The auditor's own program, with its settings.
async fn trave_audit(at: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("trave-audit"));
    command.args(["--config", at.join("audit.toml").to_str().unwrap()]).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_leaves_something_out_is_found_out() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let at = instance.sh.directory();
    let server = instance.sh.layout().authentication_certificate();
    std::fs::write(at.join("anchor"), instance.keys.anchor().bytes()).unwrap();
    let settings = format!(
        "server = \"{}\"\nserver_certificate = \"{}\"\ncertificate = \"rechnungshof-sh.pem\"\nkey = \"rechnungshof-sh.key\"\n\
         passphrase_file = \"passphrase\"\nanchor = \"anchor\"\n",
        instance.sh.running().auditors.unwrap(),
        server.display()
    );
    std::fs::write(at.join("audit.toml"), settings).unwrap();
    let whole =
        trave_audit(&at, &["search", "--json", "--reason", "Prüfung 7", "--member", "NORD/SH/luebeck"]).await;
    assert!(whole.status.success(), "{}", printed(&whole));
    let found = String::from_utf8(whole.stdout).unwrap();
    assert_eq!(found.lines().count(), 1 + asked.len() + 1, "{found}");
    let file = at.join("found.json");
    let scan = async || {
        let expect = file.to_str().unwrap();
        trave_audit(&at, &["scan", "--reason", "Prüfung 7", "--expect", expect]).await
    };
    std::fs::write(&file, &found).unwrap();
    let held = scan().await;
    assert!(held.status.success(), "{}", printed(&held));
    assert!(printed(&held).contains("the search found all 6"), "{}", printed(&held));
    // A server that keeps one of them to itself: whichever it is.
    for hidden in &asked {
        let left: String = found
            .lines()
            .filter(|line| !line.contains(&hidden.to_string()))
            .map(|l| format!("{l}\n"))
            .collect();
        std::fs::write(&file, left).unwrap();
        let told = scan().await;
        assert_eq!(told.status.code(), Some(1), "{}", printed(&told));
        let omitted: BTreeSet<_> =
            printed(&told).lines().filter(|line| line.starts_with("OMITTED")).map(str::to_owned).collect();
        assert!(omitted.len() == 1 && omitted.first().unwrap().contains(&hidden.to_string()), "{omitted:?}");
    }
    std::fs::write(&file, &found).unwrap();
    let out = at.join("proofs");
    let exported = trave_audit(
        &at,
        &[
            "export",
            "--found",
            file.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--reason",
            "Prüfung 7",
        ],
    )
    .await;
    let written = std::fs::read_dir(&out).unwrap().count();
    assert!(written >= 5, "{}", printed(&exported));
    let wrong = trave_audit(&at, &["search", "--reason", "x", "--outcome", "answered"]).await;
    assert!(printed(&wrong).contains("hint: there are complete"), "{}", printed(&wrong));
    instance.stop().await;
}
