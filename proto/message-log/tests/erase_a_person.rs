//! One person is erased out of many exchanges. Somebody with every file and every key of the log looks for that person before
//! and after: by the bytes of all files, by decrypting all contents, and by a list of 1,000,000 candidates. This reads the
//! files by their written format, and uses nothing of the log but opening it.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::signature::Ed25519KeyPair;
use trave_message_log::{ContentParts, Entry, Log, Options, Person};
use trave_proto::checkpoint::NoteSigner;
use trave_proto::clock::{Clock, Sleep, Time};
use trave_proto::digest::Digest;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::log::{Leaf, MessageEntry, leaf};
use trave_proto::schema::message::Manifest;

const NOW: Time = Time::from_millis(1_795_288_440_000);
/// What is tried, as somebody who has a list of everybody would.
const CANDIDATES: u64 = 1_000_000;
/// The person who is erased: one of the candidates.
const PERSON: u64 = 424_242;

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        NOW
    }

    fn sleep_until(&self, _: Time) -> Sleep {
        Box::pin(std::future::pending())
    }
}

fn identifier(number: u64) -> String {
    (10_000_000_000 + number).to_string()
}

fn open(dir: &Path) -> Log {
    let signer = NoteSigner::new("trave.example/log", Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap());
    let options = Options::new(dir, signer.unwrap(), Arc::new(Still));
    Log::open(Options { segment_size: 4 << 20, reserve: 0, ..options }).unwrap().0
}

fn message(exchange: u64, person: u64, sent: bool) -> Entry {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&exchange.to_be_bytes());
    let manifest = Manifest {
        version: 1,
        exchange_id: Bytes::copy_from_slice(ExchangeId::new(NOW, &random).as_bytes()),
        service: "NORD/MV/gewerberegister/auskunft/register".into(),
        ..Manifest::default()
    };
    let manifest = manifest.encode_to_vec().into();
    let entry = leaf::Entry::Message(MessageEntry { manifest, sent, ..MessageEntry::default() });
    let content = ContentParts {
        content_salt: vec![exchange as u8; 32].into(),
        head: Some(Bytes::from_static(b"head")),
        body: format!("the record of {}, as one has it", identifier(person)).into(),
        caller_context_salt: vec![7; 32].into(),
        caller_context: (!sent).then(|| identifier(person).into()),
        ..ContentParts::default()
    };
    let persons = match sent {
        false => vec![Person::new("steuer-id", &identifier(person)).unwrap()],
        true => vec![],
    };
    Entry { content: Some(content), persons, last: sent, ..Entry::new(Leaf::of(NOW.as_millis(), entry)) }
}

/// So many exchanges of two messages each. Every 500th concerns the person.
async fn fill(log: &Log, exchanges: u64) -> u64 {
    let mut about = 0;
    let mut pending = Vec::new();
    for exchange in 0..exchanges {
        let person = if exchange % 500 == 0 { PERSON } else { 500_000 + exchange % 400_000 };
        about += u64::from(person == PERSON);
        for sent in [false, true] {
            pending.push(log.append(message(exchange, person, sent), ()).unwrap());
        }
        if pending.len() >= 1_000 {
            for one in pending.drain(..) {
                one.await.unwrap();
            }
        }
    }
    for one in pending {
        one.await.unwrap();
    }
    about
}

/// What somebody finds who has all files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Looted {
    /// Files that hold the identifier as it is.
    in_files: usize,
    /// Contents that decrypt with the keys on the disk, and hold the identifier.
    in_contents: usize,
    /// Candidates of whom a pseudonym stands in some file, that of the person alone counted.
    by_list: usize,
    /// Times that the checksum of a pseudonym's record, overwritten or not, fits the person's pseudonym.
    by_checksum: usize,
    /// Contents that decrypt at all, and persons of the list that are found: that this looks at what is there.
    contents: usize,
    persons: usize,
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == what[0]) {
        if rest[at..].starts_with(what) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn loot(dir: &Path) -> Looted {
    let files = files(dir);
    let named = |name: &str| {
        let name = name.to_owned();
        files.iter().filter(move |(path, _)| path.file_name().unwrap().to_string_lossy().starts_with(&name))
    };
    let ending = |end: &str| {
        let end = end.to_owned();
        files.iter().filter(move |(path, _)| path.to_string_lossy().ends_with(&end))
    };
    let wanted = identifier(PERSON);
    let in_files = files.iter().filter(|(_, bytes)| holds(bytes, wanted.as_bytes())).count();
    let mut looted = Looted { in_files, ..Looted::default() };
    // Keys of contents: files of 4,096 slots of 64 bytes.
    let mut slots: HashMap<u64, &[u8]> = HashMap::new();
    for (path, bytes) in named("keys-") {
        let file: u64 = path.file_stem().unwrap().to_string_lossy()[5..].parse().unwrap();
        slots.extend((0..).zip(bytes.chunks_exact(64)).map(|(at, slot)| (file * 4_096 + at, &slot[24..56])));
    }
    // Keys of months: behind 20 bytes of magic and 4 of the period.
    let periods: Vec<_> =
        named("persons-").map(|(_, bytes)| hmac::Key::new(hmac::HMAC_SHA256, &bytes[24..56])).collect();
    // Records of segments: content (3) before its leaf, which is packed (10) and names its form (9); pseudonym (7).
    let mut pseudonyms: HashSet<[u8; 16]> = HashSet::new();
    let mut heads: Vec<([u8; 12], Vec<u8>)> = Vec::new();
    for (_, bytes) in ending(".log") {
        let (mut at, mut content) = (512, None);
        while let Some(head) = bytes.get(at..at + 12).filter(|head| head[4] != 0) {
            let payload = payload_at(bytes, at);
            match head[4] {
                3 => content = Some(payload),
                7 => {
                    pseudonyms.insert(payload[21..].try_into().unwrap());
                    heads.push((head.try_into().unwrap(), payload.to_vec()));
                }
                10 => {
                    let form = payload_at(bytes, number(&payload[..8]) as usize);
                    let manifest = manifest(form, leaf_of(&payload[8..]));
                    if let Some(plain) =
                        content.take().and_then(|content| decrypt(content, &manifest, &slots))
                    {
                        looted.contents += 1;
                        looted.in_contents += usize::from(holds(&plain, wanted.as_bytes()));
                    }
                }
                _ => {}
            }
            at += 12 + payload.len();
        }
    }
    // Tables: pages of 4,096, rows of 32 from the second page on.
    for (_, bytes) in ending(".persons") {
        for page in bytes.chunks_exact(4_096).skip(1) {
            pseudonyms
                .extend(page[..4_092].chunks_exact(32).map(|row| <[u8; 16]>::try_from(&row[..16]).unwrap()));
        }
    }
    for candidate in 0..CANDIDATES {
        for key in &periods {
            let hash = pseudonym(key, candidate);
            let found = pseudonyms.contains(&hash);
            looted.persons += usize::from(found);
            looted.by_list += usize::from(found && candidate == PERSON);
        }
    }
    for key in &periods {
        let hash = pseudonym(key, PERSON);
        let fits = |(head, payload): &&([u8; 12], Vec<u8>)| {
            let guess = [&[1][..], &24_322_u32.to_le_bytes(), &payload[5..21], &hash].concat();
            let mut crc = crc32fast::Hasher::new();
            crc.update(&head[..8]);
            crc.update(&guess);
            crc.finalize().to_le_bytes() == head[8..]
        };
        looted.by_checksum += heads.iter().filter(fits).count();
        // And anywhere else, at any place of any file.
        looted.by_list += files.iter().filter(|(_, bytes)| holds(bytes, &hash)).count();
    }
    looted
}

fn pseudonym(key: &hmac::Key, candidate: u64) -> [u8; 16] {
    let text = [&b"trave person v1\n\x09steuer-id"[..], identifier(candidate).as_bytes()].concat();
    hmac::sign(key, &text).as_ref()[..16].try_into().unwrap()
}

/// The payload of the record at this place of a segment.
fn payload_at(segment: &[u8], at: usize) -> &[u8] {
    &segment[at + 12..at + 12 + number(&segment[at..at + 4]) as usize]
}

/// What stands behind its length.
fn leaf_of(bytes: &[u8]) -> &[u8] {
    &bytes[4..4 + number(&bytes[..4]) as usize]
}

/// The manifest of a message whose leaf is in two parts.
fn manifest(form: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut whole = Manifest::default();
    for part in [form, rest] {
        let Some(leaf::Entry::Message(message)) = Leaf::decode(part).unwrap().entry else { unreachable!() };
        whole.merge(message.manifest).unwrap();
    }
    whole.encode_to_vec()
}

fn decrypt(content: &[u8], manifest: &[u8], slots: &HashMap<u64, &[u8]>) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, slots.get(&number(&content[..8]))?).unwrap());
    let bound = [&b"trave stored content v1\n"[..], &content[8..24], Digest::of(manifest).as_ref()].concat();
    let nonce = Nonce::try_assume_unique_for_key(&content[24..36]).unwrap();
    let mut sealed = content[36..].to_vec();
    key.open_in_place(nonce, Aad::from(bound), &mut sealed).ok().map(|plain| plain.to_vec())
}

async fn erase_one_out_of(exchanges: u64) {
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let about = fill(&log, exchanges).await;
    log.checkpoint().await.unwrap();
    log.close();
    drop(log);
    let filled = begun.elapsed();
    let before = loot(dir.path());
    let looted = begun.elapsed();
    assert_eq!(
        (before.in_files, before.contents as u64),
        (0, 2 * exchanges),
        "contents are encrypted, and all decrypt"
    );
    assert_eq!((before.in_contents as u64, before.by_checksum as u64), (2 * about, about));
    assert!(before.by_list > 1 && before.persons > 1_000, "{before:?}");

    let log = open(dir.path());
    let person = Person::new("steuer-id", &identifier(PERSON)).unwrap();
    let erasing = Instant::now();
    let concerned = log.of_person(&person, 0, usize::MAX).unwrap();
    let found = erasing.elapsed();
    let erased = log.erase_person(&concerned, "officer", "Art. 17").await.unwrap();
    let took = erasing.elapsed();
    assert_eq!((erased.exchanges, erased.contents, erased.pseudonyms), (about, 2 * about, about));
    assert_eq!(log.of_person(&person, 0, usize::MAX).unwrap(), []);
    log.checkpoint().await.unwrap();
    let checking = Instant::now();
    let report = log.check();
    let checked = checking.elapsed();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.contents, report.erased), (2 * (exchanges - about), 2 * about));
    log.close();
    drop(log);
    let after = loot(dir.path());
    let gone = Looted {
        contents: before.contents - 2 * about as usize,
        persons: before.persons - 1,
        ..Looted::default()
    };
    assert_eq!(after, gone, "before: {before:?}");
    // A restart, and indexes that are made again from the segments, bring nothing back.
    for (path, _) in files(dir.path()) {
        if path.extension().is_some_and(|it| it == "persons" || it == "index") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let log = open(dir.path());
    assert_eq!(log.of_person(&person, 0, usize::MAX).unwrap(), []);
    drop(log);
    println!(
        "{exchanges} exchanges: filled in {filled:.1?}, looted in {:.1?}, {about} found in {found:.1?}, erased in {took:.1?}, \
         checked in {checked:.1?}; before {before:?}, after {after:?}",
        looted - filled
    );
}

#[tokio::test]
async fn one_person_out_of_5_000_exchanges() {
    erase_one_out_of(5_000).await;
}

#[tokio::test]
#[ignore = "takes a minute or two; cargo test -p trave-message-log --test erase_a_person -- --ignored --nocapture"]
async fn one_person_out_of_100_000_exchanges() {
    erase_one_out_of(100_000).await;
}
