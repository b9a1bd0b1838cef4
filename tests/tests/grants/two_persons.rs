//! Two persons: one applies, another approves, and the system says who is who.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;
use trave_proto::proof::Conclusion;
use trave_proto::schema::operator::EraseRequest;
use trave_tests::network::{Server, export, judge};
use trave_tests::program::program;

/// Two accounts of the machine that runs the test; they need not exist.
pub(super) const FRAUKE: u32 = 61_001;
pub(super) const UWE: u32 = 61_002;
/// Who is not named.
pub(super) const STRANGER: u32 = 61_003;

/// A security server at whose door several users of the machine come in.
pub(super) struct World {
    pub(super) instance: Instance,
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl World {
    /// Of the two, with more in the provider's configuration; none where nobody can be two other users.
    pub(super) async fn of_two(more: &str) -> Option<Self> {
        if own_user() != 0 {
            println!("NOT RUN: only root can be two other users");
            return None;
        }
        Some(Self::with([FRAUKE, UWE], more).await)
    }

    /// The same, where the usual client may call.
    pub(super) async fn granted(more: &str) -> Option<Self> {
        let world = Self::of_two(more).await?;
        let id = world.done(FRAUKE, &applying(CLIENT)).await;
        world.done(UWE, &["grant", "approve", &id]).await;
        Some(world)
    }

    async fn with(users: [u32; 2], more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o711)).unwrap();
        // Others must be able to run it, wherever the tests were built.
        let own = directory.path().join("trave-gateway");
        std::fs::copy(program("trave-gateway"), &own).unwrap();
        let at_provider = format!(
            "[access]\napproval = \"two_persons\"\n[operator]\nsocket = \"{}\"\nusers = {users:?}\n{more}",
            directory.path().join("operator/door.sock").display()
        );
        let plan = Plan { grants: vec![], at_provider, ..Plan::default() };
        Self { instance: Instance::planned(plan).await, program: own, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("operator/door.sock")
    }

    /// Runs a verb as this user of the machine. Only root can.
    pub(super) async fn as_user(&self, user: u32, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--socket").arg(self.socket()).uid(user).gid(user).env("USER", "egal");
        command.current_dir(Path::new("/"));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    pub(super) async fn done(&self, user: u32, args: &[&str]) -> String {
        let output = self.as_user(user, args).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) async fn refused(&self, user: u32, args: &[&str]) -> String {
        let output = self.as_user(user, args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn applying(client: &str) -> Vec<&str> {
    let what = ["grant", "--client", client, "--service", SERVICE, "--method", "/test.v1.Auskunft/*"];
    [&what[..], &["--purpose", PURPOSE, "--legal-basis", LEGAL_BASIS]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_grants_anything_alone() {
    // Whoever runs this is one of the two, unless that is root.
    let own = own_user();
    let mut world = World::with([if own == 0 { FRAUKE } else { own }, UWE], "").await;
    let mut mv = operator(&world.instance.mv).await;
    let approve = |id: &str| trave_proto::schema::operator::ApproveRequest {
        id: id.into(),
        operator: "somebody else, truly".into(),
    };
    assert!(mv.approve(approve("g-0")).await.is_err());
    let applied = mv.grant(usual()).await;
    if own == 0 {
        let refused = applied.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("operator.users"), "root is nobody in particular: {refused}");
    } else {
        let applied = applied.unwrap().into_inner();
        assert!(applied.waiting);
        let alone = mv.approve(approve(&applied.id)).await.unwrap_err();
        assert!(alone.message().contains("another person must"), "{alone}");
        let again = mv.grant(usual()).await.unwrap_err();
        assert!(again.message().contains("waits for approval"), "{again}");
    }
    assert_eq!(refused(&world.instance.ask(b"wer?").await).as_deref(), Some("access_denied"));
    world.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_applies_another_approves_and_the_proof_names_both() {
    let Some(mut world) = World::of_two("").await else { return };
    let stranger = world.refused(STRANGER, &["grants"]).await;
    assert!(stranger.contains("error"), "{stranger}");
    let id = world.done(FRAUKE, &applying(CLIENT)).await;
    let alone = world.refused(FRAUKE, &["grant", "approve", &id]).await;
    assert!(alone.contains("user 61001 (egal) applied for it and cannot approve it"), "{alone}");
    assert_eq!(refused(&world.instance.ask(b"noch nicht").await).as_deref(), Some("access_denied"));
    assert!(world.done(UWE, &["grants"]).await.ends_with("waits for approval"));
    // What waits, waits over a restart.
    world.instance.mv.stop().await;
    world.instance.mv.start().await.unwrap();
    world.done(UWE, &["grant", "approve", &id]).await;
    let answer = world.instance.ask(b"jetzt").await;
    assert_eq!(refused(&answer), None);
    let report = judge(&world.instance, &export_from(&world, answer.exchange()).await);
    assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.checks);
    let told = report.story.unwrap().grant.unwrap();
    let persons = (told.operator.as_str(), told.approver.as_deref());
    assert_eq!(persons, ("user 61001 (egal)", Some("user 61002 (egal)")));

    let history = world.done(UWE, &["grant", "history", &id, "--reason", "Stichprobe"]).await;
    let kinds: Vec<_> = history.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
    assert_eq!(kinds, ["applied for", "approved"]);

    // A group opens doors too: to come in takes two, to go out takes one.
    let change = world.done(UWE, &["group", "add", "aemter", "NORD/SH/luebeck"]).await;
    assert!(world.refused(UWE, &["grant", "approve", &change]).await.contains("another person must"));
    assert!(world.refused(UWE, &applying("local-group:aemter")).await.contains("there is no local-group"));
    world.done(FRAUKE, &["grant", "approve", &change]).await;
    let out = world.done(UWE, &["group", "remove", "aemter", "NORD/SH/luebeck"]).await;
    assert!(out.starts_with("c-") && world.done(UWE, &["group", "list"]).await.is_empty());
    world.done(FRAUKE, &["revoke", &id]).await;
    assert_eq!(refused(&world.instance.ask(b"vorbei").await).as_deref(), Some("access_denied"));
    world.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_applied_for_who_counts_no_more_is_not_approved() {
    let Some(mut world) = World::of_two("").await else { return };
    let id = world.done(FRAUKE, &applying(CLIENT)).await;
    let (before, after) = (format!("users = {:?}", [FRAUKE, UWE]), format!("users = {:?}", [STRANGER, UWE]));
    world.instance.mv.reconfigure(|text| text.replace(&before, &after)).await;
    let gone = world.refused(UWE, &["grant", "approve", &id]).await;
    assert!(gone.contains("is none of operator.users any more") && gone.contains("hint: `revoke"), "{gone}");
    assert_eq!(refused(&world.instance.ask(b"noch nicht").await).as_deref(), Some("access_denied"));
    // Somebody else applies anew.
    world.done(UWE, &["revoke", &id]).await;
    let id = world.done(STRANGER, &applying(CLIENT)).await;
    world.done(UWE, &["grant", "approve", &id]).await;
    assert_eq!(refused(&world.instance.ask(b"jetzt").await), None);
    world.instance.stop().await;
}

/// Erasures that the log holds.
fn erased(server: &Server) -> usize {
    let records = server.records(0);
    records.iter().filter(|record| matches!(record.leaf.entry, Some(Entry::Erasure(_)))).count()
}

/// The proof, exported by root, who may read everything.
async fn export_from(world: &World, exchange: trave_proto::identifier::ExchangeId) -> bytes::Bytes {
    export(&world.instance.mv, exchange, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_erases_anything_alone() {
    let Some(mut world) = World::granted("").await else { return };
    let exchange = world.instance.ask(b"wer?").await.exchange().to_string();
    assert!(world.done(FRAUKE, &["erase", &exchange, "--reason", "Art. 17"]).await.is_empty());
    let listed = world.done(UWE, &["erasures", "list"]).await;
    let id = listed.split('\t').next().unwrap().to_owned();
    assert!(id.starts_with("e-") && listed.contains("waits for another person's approval"), "{listed}");
    let alone = world.refused(FRAUKE, &["erasures", "approve", &id]).await;
    assert!(alone.contains("applied for it and cannot approve it"), "{alone}");
    world.refused(STRANGER, &["erasures", "approve", &id]).await;
    assert_eq!(erased(&world.instance.mv), 0);
    // What waits, waits over a restart, and the record names both.
    world.instance.mv.stop().await;
    world.instance.mv.start().await.unwrap();
    assert_eq!(erased(&world.instance.mv), 0);
    world.done(UWE, &["erasures", "approve", &id]).await;
    assert_eq!(erased(&world.instance.mv), 1);
    let records = world.instance.mv.records(0);
    let approved = records.iter().find_map(|record| match &record.leaf.entry {
        Some(Entry::ErasureNotice(notice)) if !notice.approver.is_empty() => Some(notice.clone()),
        _ => None,
    });
    let approved = approved.unwrap();
    assert_eq!((approved.operator_user, approved.approver_user), (Some(FRAUKE), Some(UWE)));
    // What was withdrawn is not there to be approved.
    world.done(UWE, &["erase", &exchange, "--reason", "Art. 17"]).await;
    let id = world.done(UWE, &["erasures", "list"]).await.split('\t').next().unwrap().to_owned();
    world.done(FRAUKE, &["erasures", "drop", &id, "--reason", "Irrtum"]).await;
    world.refused(FRAUKE, &["erasures", "approve", &id]).await;
    assert_eq!(erased(&world.instance.mv), 1);
    world.instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_told_takes_two_persons_too() {
    let Some(mut world) = World::granted("").await else { return };
    let exchange = world.instance.ask(b"wer?").await.exchange();
    let request = EraseRequest {
        exchange_id: bytes::Bytes::copy_from_slice(exchange.as_bytes()),
        operator: "Muster".into(),
        reason: "Art. 17".into(),
    };
    operator(&world.instance.sh).await.erase(request).await.unwrap();
    let mut listed = String::new();
    for _ in 0..200 {
        listed = world.done(UWE, &["erasures", "list"]).await;
        if !listed.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let id = listed.split('\t').next().unwrap().to_owned();
    assert!(id.starts_with("n-") && listed.contains("waits for a decision here"), "{listed}");
    world.done(FRAUKE, &["erasures", "approve", &id]).await;
    let alone = world.refused(FRAUKE, &["erasures", "approve", &id]).await;
    assert!(alone.contains("cannot approve it: another person must"), "{alone}");
    // Over a restart, too.
    world.instance.mv.stop().await;
    world.instance.mv.start().await.unwrap();
    assert_eq!(erased(&world.instance.mv), 0);
    let listed = world.done(UWE, &["erasures", "list"]).await;
    assert!(listed.contains("waits for another person's approval"), "{listed}");
    world.done(UWE, &["erasures", "approve", &id]).await;
    assert_eq!(erased(&world.instance.mv), 1);
    world.instance.stop().await;
}
