//! What a witness answers, case by case, and what it remembers.

use ring::signature::Ed25519KeyPair;
use trave_host::clock::ManualClock;
use trave_proto::checkpoint::{Checkpoint, Note, NoteSigner};
use trave_proto::clock::Time;
use trave_proto::tree::{consistency, leaf_hash, root};

use super::*;

const ORIGIN: &str = "NORD/SH/luebeck/s1/1";
const NOW: i64 = 1_795_288_440_000;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn log() -> NoteSigner {
    NoteSigner::new(ORIGIN, pair(1)).unwrap()
}

fn leaves(story: u8, count: usize) -> Vec<Digest> {
    (0..count).map(|i| leaf_hash(&[story, u8::try_from(i).unwrap()])).collect()
}

/// A request about the log with these leaves, from the size `old`, with an honest proof of these leaves.
fn request(leaves: &[Digest], old: usize) -> AddCheckpoint {
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: leaves.len() as u64, root: root(leaves) };
    let proof = consistency(leaves, old).unwrap_or_default();
    AddCheckpoint { old: old as u64, proof, checkpoint: checkpoint.sign(&log()) }
}

struct Fixture {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        begin(directory.path(), &signer().verifier()).unwrap();
        Self { directory, clock: Arc::new(ManualClock::new(Time::from_millis(NOW))) }
    }

    fn desk(&self) -> Desk {
        let memory = Memory::recall(self.directory.path(), &signer().verifier()).unwrap();
        let logs = Arc::new(Logs::new(vec![log().verifier()], None));
        let (memory, bodies) = (Mutex::new(memory), Semaphore::new(BODIES));
        Desk { signer: signer(), logs, clock: self.clock.clone(), memory, bodies }
    }

    /// Names of the files that are kept against the log, without their digests.
    fn evidence(&self) -> Vec<String> {
        let place = self.directory.path().join("evidence").join(Digest::of(ORIGIN.as_bytes()).to_string());
        let Ok(entries) = std::fs::read_dir(place) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut kinds: Vec<_> = names.map(|name| name.rsplit_once('-').unwrap().0.to_owned()).collect();
        kinds.sort();
        kinds
    }
}

fn signer() -> WitnessSigner {
    WitnessSigner::new("witness.example/mv", pair(9)).unwrap()
}

fn status(desk: &Desk, request: &AddCheckpoint) -> u16 {
    match desk.cosign(&request.to_bytes()) {
        Ok(line) => {
            let mut note = request.checkpoint.clone();
            note.add_lines(line.as_bytes()).unwrap();
            assert_eq!(note.cosignatures(&[signer().verifier()]).unwrap().len(), 1);
            200
        }
        Err(error) => refused(&error).status().as_u16(),
    }
}

#[test]
fn every_case_of_the_specification_has_its_answer() {
    let fixture = Fixture::new();
    let desk = fixture.desk();
    let all = leaves(0, 20);
    let strange = |origin: &str, key: u8| {
        let signer = NoteSigner::new(origin, pair(key)).unwrap();
        let checkpoint = Checkpoint { origin: origin.into(), size: 1, root: all[0] };
        AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: checkpoint.sign(&signer) }
    };
    assert_eq!(status(&desk, &strange("NORD/SH/luebeck/s2/1", 1)), 404, "an unknown log");
    assert_eq!(status(&desk, &strange(ORIGIN, 2)), 403, "another key");
    let mut forged = request(&all[..1], 0);
    let text = forged.checkpoint.text().replace("\n1\n", "\n2\n");
    let lines = String::from_utf8(forged.checkpoint.to_bytes()).unwrap();
    let lines = lines.rsplit_once("\n\n").unwrap().1.to_owned();
    forged.checkpoint = Note::parse(format!("{text}\n{lines}").as_bytes()).unwrap();
    assert_eq!(status(&desk, &forged), 403, "the signature is over another text");
    let empty = Checkpoint { origin: ORIGIN.into(), size: 0, root: all[0] };
    let empty = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: empty.sign(&log()) };
    assert_eq!(status(&desk, &empty), 422, "an empty tree with another root");
    assert_eq!(status(&desk, &AddCheckpoint { proof: vec![all[0]], ..request(&all[..1], 0) }), 422);
    assert_eq!(status(&desk, &AddCheckpoint { old: 6, ..request(&all[..5], 5) }), 400, "old beyond new");
    assert_eq!(status(&desk, &request(&all[..5], 3)), 409, "never cosigned, so 0");
    assert_eq!(status(&desk, &request(&all[..5], 0)), 200);
    assert_eq!(status(&desk, &request(&all[..5], 5)), 200, "the same again");
    assert_eq!(status(&desk, &request(&all[..5], 0)), 409);
    assert_eq!(status(&desk, &request(&all[..13], 5)), 200);
    assert_eq!(status(&desk, &request(&all[..9], 9)), 409, "smaller than before");
    let conflict = desk.cosign(&request(&all, 5).to_bytes()).unwrap_err();
    assert!(matches!(conflict, NoCosignature::Refused(Refusal::Conflict { last: 13 })), "{conflict}");
    assert_eq!(status(&desk, &AddCheckpoint { proof: Vec::new(), ..request(&all, 13) }), 422, "no proof");
    assert_eq!(status(&desk, &request(&all, 13)), 200);
    let malformed = desk.cosign(b"new 1\n\n").unwrap_err();
    assert_eq!(refused(&malformed).status().as_u16(), 400);
    let answer = refused(&NoCosignature::Refused(Refusal::Conflict { last: 13 }));
    assert_eq!(answer.headers()["content-type"], "text/x.tlog.size");
}

/// Fork, rewriting, dropping and truncating: all that a log could do to what was cosigned, at every size.
#[test]
fn a_log_with_two_stories_is_found_out_and_the_evidence_kept() {
    for seen in 1..12 {
        let fixture = Fixture::new();
        let desk = fixture.desk();
        let all = leaves(0, 14);
        assert_eq!(status(&desk, &request(&all[..seen], 0)), 200);
        let mut rewritten = all.clone();
        rewritten[seen - 1] = leaf_hash(b"another");
        let mut dropped = all.clone();
        dropped.remove(0);
        let fork = leaves(1, 14);
        for (what, story) in [("fork", &fork), ("rewritten", &rewritten), ("dropped", &dropped)] {
            assert_eq!(status(&desk, &request(story, seen)), 422, "{what} after {seen}");
            assert_eq!(status(&desk, &request(&story[..seen], seen)), 409, "{what} at {seen}");
        }
        assert_eq!(status(&desk, &request(&all[..seen - 1], seen - 1)), 409, "truncated");
        assert_eq!(status(&desk, &request(&all, seen)), 200, "the true story goes on");
        let (unproved, stories) = (["not-proved"; 3], ["two-stories"; 3]);
        assert_eq!(fixture.evidence(), [unproved, stories].concat(), "each lie once");
    }
}

/// Anybody can send what the log has signed, with whatever proof: that speaks against nobody, and fills no disk.
#[test]
fn a_wrong_proof_before_an_honest_checkpoint_is_no_second_story() {
    let fixture = Fixture::new();
    let desk = fixture.desk();
    let all = leaves(0, 100);
    assert_eq!(status(&desk, &request(&all[..4], 0)), 200);
    let garbage = |count: usize, old, salt| AddCheckpoint {
        proof: vec![leaf_hash(&[salt]); 3],
        ..request(&all[..count], old)
    };
    assert_eq!(status(&desk, &garbage(4, 4, 0)), 422, "what was cosigned");
    assert_eq!(fixture.evidence(), Vec::<String>::new());
    for salt in 0..9 {
        assert_eq!(status(&desk, &garbage(9, 4, salt)), 422, "a newer one");
    }
    assert_eq!(fixture.evidence(), ["not-proved"], "each checkpoint once, whatever the proof");
    for count in 10..100 {
        assert_eq!(status(&desk, &garbage(count, 4, 0)), 422);
    }
    assert_eq!(fixture.evidence().len(), 32, "as many as people look at");
    assert_eq!(status(&desk, &request(&leaves(1, 4), 4)), 409, "another root for the same size");
    assert!(fixture.evidence().contains(&"two-stories".to_owned()), "has its own room");
}

/// Whoever repeats the log's line under a note until nothing fits any more gets no note without a cosignature kept: with one
/// the witness would never start again.
#[test]
fn a_signature_line_that_is_repeated_is_kept_once() {
    let fixture = Fixture::new();
    let all = leaves(0, 4);
    let honest = request(&all, 0);
    let body = String::from_utf8(honest.to_bytes()).unwrap();
    let line = body.lines().last().unwrap();
    let repeated = format!("{body}{}", format!("{line}\n").repeat(63));
    let desk = fixture.desk();
    let line = desk.cosign(repeated.as_bytes()).unwrap();
    drop(desk);
    let shown = fixture.desk().checkpoint(&Digest::of(ORIGIN.as_bytes()).to_string()).unwrap();
    let mut expected = honest.checkpoint;
    expected.add_lines(line.as_bytes()).unwrap();
    assert_eq!(shown, expected.to_bytes());
}

/// Killed between the log's file and its line in `origins`, the next start mends the list, so that the file is missed later.
#[test]
fn a_log_that_is_not_listed_yet_is_listed_at_the_next_start() {
    let fixture = Fixture::new();
    let all = leaves(0, 4);
    assert_eq!(status(&fixture.desk(), &request(&all, 0)), 200);
    let path = fixture.directory.path();
    std::fs::write(path.join("origins"), b"").unwrap();
    drop(fixture.desk());
    let origin = Digest::of(ORIGIN.as_bytes()).to_string();
    assert_eq!(std::fs::read_to_string(path.join("origins")).unwrap(), format!("{origin}\n"));
    std::fs::remove_file(path.join("logs").join(origin)).unwrap();
    let lost = Memory::recall(path, &signer().verifier());
    assert!(matches!(lost, Err(MemoryError::Missing { .. })), "{lost:?}");
}

#[tokio::test]
async fn only_so_many_bodies_are_held_at_once() {
    let fixture = Fixture::new();
    let desk = Arc::new(fixture.desk());
    let ask = async || add_checkpoint(State(Arc::clone(&desk)), Body::from("x")).await.status().as_u16();
    assert_eq!(ask().await, 400);
    let all = desk.bodies.acquire_many(u32::try_from(BODIES).unwrap()).await.unwrap();
    assert_eq!(ask().await, 503);
    drop(all);
    assert_eq!(ask().await, 400);
}

#[test]
fn what_was_cosigned_is_remembered_over_a_restart_and_shown() {
    let fixture = Fixture::new();
    let all = leaves(0, 9);
    let origin = Digest::of(ORIGIN.as_bytes());
    {
        let desk = fixture.desk();
        assert_eq!(desk.checkpoint(&origin.to_string()), None);
        assert_eq!(status(&desk, &request(&all[..4], 0)), 200);
    }
    let desk = fixture.desk();
    assert_eq!(status(&desk, &request(&leaves(1, 9), 0)), 409, "it does not begin anew");
    let shown = desk.checkpoint(&origin.to_string()).unwrap();
    let checkpoint = Checkpoint::verify(&shown, &[log().verifier()]).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (4, root(&all[..4])));
    assert_eq!(Note::parse(&shown).unwrap().cosignatures(&[signer().verifier()]).unwrap().len(), 1);
    assert_eq!(desk.checkpoint(&origin.to_string().to_uppercase()), None);
    assert_eq!(desk.checkpoint("x"), None);
}

#[test]
fn a_clock_that_goes_back_makes_no_older_statement() {
    let fixture = Fixture::new();
    let desk = fixture.desk();
    let all = leaves(0, 9);
    assert_eq!(status(&desk, &request(&all[..4], 0)), 200);
    fixture.clock.set(Time::from_millis(NOW - 3_600_000));
    let body = request(&all, 4);
    let line = desk.cosign(&body.to_bytes()).unwrap();
    let mut note = body.checkpoint;
    note.add_lines(line.as_bytes()).unwrap();
    let verifier = [signer().verifier()];
    assert_eq!(note.cosignatures(&verifier).unwrap()[0].time, Time::from_millis(NOW));
    // Nor after a restart, when the same was cosigned again in between.
    fixture.clock.set(Time::from_millis(NOW + 7_200_000));
    assert_eq!(status(&desk, &request(&all, 9)), 200);
    drop(desk);
    fixture.clock.set(Time::from_millis(NOW));
    let again = request(&all, 9);
    let line = fixture.desk().cosign(&again.to_bytes()).unwrap();
    let mut note = again.checkpoint;
    note.add_lines(line.as_bytes()).unwrap();
    assert_eq!(note.cosignatures(&verifier).unwrap()[0].time, Time::from_millis(NOW + 7_200_000));
}

#[test]
fn a_lost_cut_off_or_foreign_memory_is_never_an_empty_one() {
    let fixture = Fixture::new();
    let all = leaves(0, 9);
    assert_eq!(status(&fixture.desk(), &request(&all[..4], 0)), 200);
    let (path, verifier) = (fixture.directory.path(), signer().verifier());
    let file = path.join("logs").join(Digest::of(ORIGIN.as_bytes()).to_string());
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(matches!(Memory::recall(path, &verifier), Err(MemoryError::Damaged { .. })), "{length}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(Memory::recall(path, &verifier), Err(MemoryError::Missing { .. })));
    std::fs::write(path.join("logs").join("aa"), &whole).unwrap();
    assert!(matches!(Memory::recall(path, &verifier), Err(MemoryError::Damaged { .. })), "another's place");
    std::fs::remove_file(path.join("logs").join("aa")).unwrap();
    std::fs::write(&file, &whole).unwrap();
    let held = Memory::recall(path, &verifier).unwrap();
    assert!(matches!(Memory::recall(path, &verifier), Err(MemoryError::InUse { .. })));
    drop(held);
    let other = WitnessSigner::new("witness.example/mv", pair(8)).unwrap().verifier();
    assert!(matches!(Memory::recall(path, &other), Err(MemoryError::Foreign { .. })));
    assert!(begin(path, &other).is_err(), "a memory that is there stays");
    std::fs::remove_file(path.join("witness")).unwrap();
    assert!(matches!(Memory::recall(path, &verifier), Err(MemoryError::Missing { .. })));
}

/// What the disk did not take is not cosigned, and nothing after it either.
#[test]
fn without_its_disk_it_cosigns_nothing() {
    let fixture = Fixture::new();
    let desk = fixture.desk();
    let all = leaves(0, 9);
    assert_eq!(status(&desk, &request(&all[..2], 0)), 200);
    let logs = fixture.directory.path().join("logs");
    std::fs::rename(&logs, fixture.directory.path().join("away")).unwrap();
    assert_eq!(status(&desk, &request(&all[..4], 2)), 503);
    assert_eq!(status(&desk, &request(&all[..2], 2)), 503, "also what was cosigned before");
    std::fs::rename(fixture.directory.path().join("away"), &logs).unwrap();
    assert_eq!(status(&desk, &request(&all[..4], 2)), 503, "until it is started again");
    drop(desk);
    assert_eq!(status(&fixture.desk(), &request(&all[..4], 2)), 200);
}
