//! A range that is read whole: what is not the log's does not verify, and what a search left out is found out.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message as _;
use trave_proto::message::Manifest;
use trave_proto::scan::ScanError;
use trave_proto::schema::audit::{DamagedLeaf, Filter, ScanHead, scanned_leaf::Shown};
use trave_proto::schema::log::{Leaf, leaf::Entry};
use trave_proto::tree::leaf_hash;
use trave_tests::network::Instance;
use trave_tests::program::program;

use super::{all, audited, ids, raw_scan, scanned, search, sign_in, six};

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

/// Writes the settings of the auditor's program.
fn settings(instance: &Instance) -> PathBuf {
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
    at
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_leaves_something_out_is_found_out() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let at = settings(&instance);
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

/// Changes one byte of a message's leaf in the segment that is written to, while the server runs: of the commitment, which
/// stands there in one piece and nowhere else.
fn damage(instance: &Instance, leaf: &[u8]) {
    let Some(Entry::Message(message)) = Leaf::decode(leaf).unwrap().entry else { panic!("a message") };
    let own = Manifest::parse(message.manifest).unwrap().content_commitment;
    let segments = instance.sh.layout().log().join("segments");
    let names = std::fs::read_dir(segments).unwrap().map(|entry| entry.unwrap().path());
    let segment = names.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(32).position(|window| window == own.as_ref()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_goes_on_behind_a_damaged_record_and_is_not_whole() {
    let mut instance = audited().await;
    let asked = six(&instance).await;
    let mut client = sign_in(&instance.sh, "rechnungshof-sh").await;
    let size = instance.sh.size();
    let (head, before) = raw_scan(&mut client, 0, size).await.unwrap();
    let whole = scanned(&instance, head, &before).unwrap();
    assert!(whole.is_whole() && whole.damaged().is_empty());
    let place = whole.expected(&Filter::default()).iter().find(|it| it.1 == Some(asked[2])).unwrap().0;
    let Shown::Leaf(leaf) = &before[place as usize] else { panic!("it is in scope") };
    damage(&instance, leaf);
    let (head, after) = raw_scan(&mut client, 0, size).await.unwrap();
    let Shown::Damaged(told) = &after[place as usize] else { panic!("{:?}", after[place as usize]) };
    assert_eq!(told.hash, leaf_hash(leaf).to_bytes(), "its place in the tree stays what it was");
    assert!(!told.what.is_empty() && !told.what.contains('/'), "{told:?}");
    let range = scanned(&instance, head.clone(), &after).unwrap();
    assert!(!range.is_whole());
    assert_eq!(range.damaged().iter().map(|it| it.index).collect::<Vec<_>>(), [place]);
    assert_eq!(range.begun(), 5, "all others are told");
    let others = before.iter().zip(&after).enumerate().filter(|(at, _)| *at as u64 != place);
    assert!(others.into_iter().all(|(_, (one, other))| one == other));
    // Whoever says of a record that it is damaged, and gives another hash, or none, shows nothing.
    for (hash, expected) in [
        (leaf_hash(b"another").to_bytes(), "do not lead to the root"),
        (Default::default(), "not even their hashes are known"),
    ] {
        let mut changed = after.clone();
        changed[place as usize] = Shown::Damaged(DamagedLeaf { hash, what: String::new() });
        let refused = scanned(&instance, head.clone(), &changed).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(matches!(refused, ScanError::Root | ScanError::NoHash { count: 1, .. }));
    }
    // A search shows all others, and of this one its place.
    let (found, _) = search(&mut client, all()).await.unwrap();
    assert_eq!(found.len(), 6);
    let damaged = found.iter().find(|entry| entry.index == place).unwrap();
    assert_eq!((damaged.outcome.as_str(), damaged.exchange_id.is_empty()), ("damaged", true));
    let others: Vec<_> = found.into_iter().filter(|entry| entry.index != place).collect();
    let expected: Vec<_> = asked.iter().rev().filter(|id| **id != asked[2]).copied().collect();
    assert_eq!(ids(&others), expected);
    // The auditor's program says so, and does not end well.
    let at = settings(&instance);
    let told = trave_audit(&at, &["scan", "--reason", "Prüfung 7", "--to", &size.to_string()]).await;
    let printed = printed(&told);
    assert_eq!(told.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains(&format!("NOT WHOLE: 1 of the records at the places 0 to {}", size - 1)),
        "{printed}"
    );
    assert!(printed.contains(&format!("DAMAGED: place {place}: ")), "{printed}");
    assert!(printed.contains(&leaf_hash(leaf).to_string()) && !printed.contains("are whole"), "{printed}");
    instance.stop().await;
}
