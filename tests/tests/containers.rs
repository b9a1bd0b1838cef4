//! The proof in a form that other people's programs know: a container under the exporter's seal, which our own program verifies
//! to the last file. What EU DSS says of it, tests/interop/dss asks.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use trave_host::clock::SystemClock;
use trave_proto::container::{ContainerError, ContainerReport, PartName, PartState, verify};
use trave_proto::message::Direction;
use trave_proto::proof::Conclusion;
use trave_proto::schema::operator::{EraseRequest, ProofFormat};
use trave_tests::network::{Instance, Plan, Question, Server, export, export_as, operator};
use trave_tests::program::program;

async fn container(server: &Server, exchange: trave_proto::identifier::ExchangeId) -> Bytes {
    export_as(server, exchange, false, ProofFormat::Asice).await.unwrap()
}

fn judge(instance: &Instance, file: &Bytes) -> ContainerReport {
    verify(file, &instance.keys.anchor(), None).unwrap()
}

fn states(report: &ContainerReport) -> BTreeMap<String, PartState> {
    report.parts.iter().map(|part| (part.name.to_string(), part.state)).collect()
}

fn state(report: &ContainerReport, name: &PartName) -> PartState {
    report.parts.iter().find(|part| part.name == *name).unwrap().state
}

/// The files of an archive, as a reader sees them who goes from header to header.
fn files(archive: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let number = |at: usize, length: usize| {
        archive[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (mut at, mut files) = (0, Vec::new());
    while archive[at..].starts_with(b"PK\x03\x04") {
        let (size, name) = (number(at + 22, 4), number(at + 26, 2));
        let data = at + 30 + name;
        let name = std::str::from_utf8(&archive[at + 30..data]).unwrap();
        files.push((name.to_owned(), data..data + size));
        at = data + size;
    }
    files
}

fn file(archive: &[u8], name: &str) -> Vec<u8> {
    let files = files(archive);
    let (_, range) =
        files.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name}: {files:?}"));
    archive[range.clone()].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_seal_what_they_hold_and_every_file_is_checked() {
    let mut instance = Instance::start().await;
    let question = Question::new().message(b"wer?").header("x-road-userid", "frau.muster");
    let exchange = instance.caller().await.ask(question).await.exchange();
    for (server, id) in [(&instance.sh, "NORD/SH/"), (&instance.mv, "NORD/MV/")] {
        let archive = container(server, exchange).await;
        let report = judge(&instance, &archive);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:#?}", report.why);
        for part in &report.parts {
            // Texts for people are the exporter's word: sealed, and compared with nothing.
            let texts = ["README.txt", "report.de.txt", "report.en.txt"];
            let text = matches!(&part.name, PartName::File(name) if texts.contains(&name.as_str()));
            let state = if text { PartState::ExportersWord } else { PartState::Verified };
            assert_eq!(part.state, state, "{part:#?}");
        }
        let [archived] = &report.archived[..] else { panic!("{:?}", report.archived) };
        // All of it, and what shows later that both timestamps' authority counted.
        assert_eq!(archived.files, files(&archive).len() - 3);
        for stamp in [&archived.stamp, &report.sealed.as_ref().unwrap().stamp] {
            assert_eq!(stamp.authority, "Probe-TSA NORD");
            assert!(stamp.status.is_some() && stamp.until > stamp.at, "{stamp:?}");
        }
        let seal = report.sealed.as_ref().unwrap();
        assert!(seal.server.to_string().starts_with(id), "{seal:?}");
        let names: Vec<_> = files(&archive).into_iter().map(|(name, _)| name).collect();
        let known: Vec<_> = report.parts.iter().flat_map(|part| part.files.clone()).collect();
        assert!(names[1..].iter().all(|name| known.contains(name)), "{names:?}");
        assert_eq!(file(&archive, "mimetype"), b"application/vnd.etsi.asic-e+zip");
        assert_eq!(file(&archive, "request/body.bin"), b"\0\0\0\0\x04wer?", "a gRPC frame as it was sent");
        assert!(file(&archive, "request/head.txt").starts_with(b"POST /"));
        let parts = String::from_utf8(file(&archive, "parts.txt")).unwrap();
        let lines: Vec<_> = parts.lines().collect();
        assert_eq!(
            lines[..3],
            ["trave container v1", &format!("exchange\t{exchange}"), "proof\tverified\texchange.proof",]
        );
        assert!(parts.contains("request 0\tverified\trequest/head.txt request/body.bin\n"), "{parts}");
        let read_me = String::from_utf8(file(&archive, "README.txt")).unwrap();
        assert!(read_me.contains("kein qualifiziertes") && read_me.contains("not a qualified"), "{read_me}");
        let german = String::from_utf8(file(&archive, "report.de.txt")).unwrap();
        for word in ["Beweisdatei", "geprüft", "Prüfstand", "Gegenzeichnung", "Rechtsgrundlage"] {
            assert!(german.contains(word), "{word}: {german}");
        }
        // The proof in it is the one that is exported by itself, but for the checkpoint that is newer by then.
        assert!(file(&archive, "exchange.proof").starts_with(b"trave proof v1\n"));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_of_a_container_can_be_altered_unnoticed() {
    let mut instance = Instance::start().await;
    let exchange = instance.ask(b"wer?").await.exchange();
    let archive = container(&instance.mv, exchange).await;
    instance.stop().await;
    let anchor = instance.keys.anchor();
    let before = verify(&archive, &anchor, None).unwrap();
    assert_eq!(before.conclusion, Conclusion::Holds, "{:?}", before.why);
    // The last token has bytes of its own that nobody signs: they tell no other story. All others are under that token.
    let last = files(&archive).pop().unwrap();
    assert_eq!(last.0, "META-INF/timestamp001.tst");
    for (name, range) in files(&archive) {
        let step = (range.len() / if name == last.0 { 400 } else { 40 }).max(1);
        for at in range.clone().step_by(step) {
            for fixed in [false, true] {
                let mut altered = archive.to_vec();
                altered[at] ^= 1;
                if fixed {
                    altered = with_checksums(&altered);
                }
                match verify(&altered.into(), &anchor, None) {
                    Err(ContainerError::NotAContainer(_)) => assert_eq!(name, "mimetype"),
                    Ok(report) if fixed && name == last.0 && report.conclusion == Conclusion::Holds => {
                        assert_eq!(report, before, "{name}, byte {at}");
                    }
                    Ok(report) => assert_eq!(report.conclusion, Conclusion::DoesNotHold, "{name}, byte {at}"),
                    Err(error) => panic!("{name}, byte {at}: {error}"),
                }
            }
        }
    }
    // A file that says something else, in a list that says so too: the seal is not over that list.
    let other = replaced(&archive, "request/body.bin", b"\0\0\0\0\x04was?");
    let report = verify(&other.into(), &anchor, None).unwrap();
    assert_eq!(report.conclusion, Conclusion::DoesNotHold);
    assert_eq!(state(&report, &PartName::Messages(Direction::Request, 0, 0)), PartState::Mismatch);
    assert_eq!(state(&report, &PartName::Proof), PartState::Verified, "the proof itself is as it was");
    // A configuration with a field that nobody knows, behind what both states signed.
    let padded = [&file(&archive, "configuration.bin")[..], &[0xf8, 0x07, 0x01]].concat();
    let report = verify(&replaced(&archive, "configuration.bin", &padded).into(), &anchor, None).unwrap();
    assert_eq!(report.conclusion, Conclusion::DoesNotHold);
    assert!(report.why.iter().any(|why| why.contains("not written in the one way")), "{:?}", report.why);
    // A file that nobody declared, among the contents or behind the seal; one that is missing.
    let all = |archive: &[u8]| -> Vec<_> {
        files(archive).into_iter().map(|(name, range)| (name, archive[range].to_vec())).collect()
    };
    let mut more = all(&archive);
    let seal = more.iter().position(|(name, _)| name.ends_with(".p7s")).unwrap();
    more.insert(seal - 1, ("request/more.txt".to_owned(), b"also".to_vec()));
    let report = verify(&zip(&more).into(), &anchor, None).unwrap();
    assert_eq!(report.conclusion, Conclusion::DoesNotHold);
    assert_eq!(state(&report, &PartName::File("request/more.txt".into())), PartState::Mismatch);
    let last = more.len() - 3;
    more.rotate_left(last);
    assert!(verify(&zip(&more).into(), &anchor, None).is_err(), "another order");
    let mut fewer = all(&archive);
    fewer.retain(|(name, _)| name != "response/body.bin");
    let report = verify(&zip(&fewer).into(), &anchor, None).unwrap();
    assert_eq!(state(&report, &PartName::Messages(Direction::Response, 0, 0)), PartState::Mismatch);
    assert_eq!(report.conclusion, Conclusion::DoesNotHold);
    // An archive timestamp of which half is missing, or all of it: what is left holds, and proves less.
    for (gone, holds) in
        [(&["timestamp001.tst"][..], false), (&["timestamp001.tst", "ASiCArchiveManifest.xml"], true)]
    {
        let mut without = all(&archive);
        without.retain(|(name, _)| !gone.iter().any(|gone| name.ends_with(gone)));
        match verify(&zip(&without).into(), &anchor, None) {
            Ok(report) => {
                assert!(holds && report.conclusion == Conclusion::Holds && report.archived.is_empty())
            }
            Err(error) => assert!(!holds, "{error}"),
        }
    }
    fewer.retain(|(name, _)| name != "exchange.proof");
    assert!(matches!(verify(&zip(&fewer).into(), &anchor, None), Err(ContainerError::NotAContainer(_))));
    // Half of the archive, or something behind it, is no container.
    for cut in [archive.len() / 2, archive.len() - 1] {
        assert!(verify(&archive.slice(..cut), &anchor, None).is_err());
    }
    assert!(verify(&[&archive[..], b"\n"].concat().into(), &anchor, None).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_not_kept_or_left_out_is_told_apart() {
    let plan = Plan { keep_at_provider: "request", ..Plan::default() };
    let mut instance = Instance::planned(plan).await;
    let exchange = instance.ask(b"wer?").await.exchange();
    let theirs = judge(&instance, &container(&instance.mv, exchange).await);
    assert_eq!(theirs.conclusion, Conclusion::Holds, "{:?}", theirs.why);
    let found = states(&theirs);
    assert_eq!((found["request 0"], found["response 0"]), (PartState::Verified, PartState::NotKept));
    let without = export_as(&instance.sh, exchange, true, ProofFormat::Asice).await.unwrap();
    let without = judge(&instance, &without);
    assert_eq!(without.conclusion, Conclusion::Holds, "{:?}", without.why);
    let found = states(&without);
    assert_eq!((found["request 0"], found["response 0"]), (PartState::Absent, PartState::Absent));
    let before = export(&instance.sh, exchange, false).await;
    let request = EraseRequest {
        exchange_id: Bytes::copy_from_slice(exchange.as_bytes()),
        operator: "Operator Muster".into(),
        reason: "Löschfrist".into(),
    };
    operator(&instance.sh).await.erase(request).await.unwrap();
    let archive = container(&instance.sh, exchange).await;
    let erased = judge(&instance, &archive);
    assert_eq!(erased.conclusion, Conclusion::Holds, "{:?}", erased.why);
    let found = states(&erased);
    assert_eq!((found["request 0"], found["response 0"]), (PartState::Erased, PartState::Erased));
    assert!(files(&archive).iter().all(|(name, _)| !name.starts_with("re") || name.starts_with("report")));
    // The files of before do not belong beside the proof of after.
    let mixed = replaced(&archive, "exchange.proof", &before);
    assert_eq!(judge(&instance, &mixed.into()).conclusion, Conclusion::DoesNotHold);
    instance.stop().await;
}

/// `trave-gateway proof renew`; exit status 0, and what it said.
async fn renew(server: &Server, file: &Path, out: &Path) -> (bool, String) {
    let mut command = std::process::Command::new(program("trave-gateway"));
    command.args(["proof", "renew"]).arg(file).arg("--out").arg(out);
    command.arg("--config").arg(server.configuration_file());
    // The authority that it asks lives in this process.
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_renewed_without_a_server_and_as_often_as_wanted() {
    let mut instance = Instance::prepared(Plan::default(), Arc::new(SystemClock)).await;
    instance.sh.start().await.unwrap();
    instance.mv.start().await.unwrap();
    let exchange = instance.ask(b"wer?").await.exchange();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let exported = container(&instance.mv, exchange).await;
    std::fs::write(path("1"), &exported).unwrap();
    instance.sh.stop().await;
    instance.mv.stop().await;
    // Another security server of the instance does it as well as the exporter.
    for (server, from, to) in [(&instance.mv, "1", "2"), (&instance.sh, "2", "3")] {
        let (done, said) = renew(server, &path(from), &path(to)).await;
        assert!(done, "{said}");
        for words in [&format!("archive timestamp {to}: "), "by Probe-TSA NORD", "it holds until "] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let renewed = Bytes::from(std::fs::read(path(to)).unwrap());
        let report = judge(&instance, &renewed);
        assert_eq!(report.conclusion, Conclusion::Holds, "{:?}", report.why);
        let numbers: Vec<_> = report.archived.iter().map(|one| one.number.to_string()).collect();
        assert_eq!(numbers.last().map(String::as_str), Some(to));
        assert!(report.archived.iter().all(|one| one.stamp.status.is_some()), "{:?}", report.archived);
        // Everything that was there is there, byte for byte; the newest list has the name of the newest.
        let (before, now) = (files(&std::fs::read(path(from)).unwrap()), files(&renewed));
        assert_eq!(now.len(), before.len() + 2);
        let last = "META-INF/ASiCArchiveManifest.xml";
        let number = numbers.len() - 1;
        let kept = file(&renewed, &format!("META-INF/ASiCArchiveManifest{number:03}.xml"));
        assert_eq!(kept, file(&std::fs::read(path(from)).unwrap(), last));
    }
    let (done, said) = renew(&instance.mv, &path("1"), &path("2")).await;
    assert!(!done, "what is there is not written over: {said}");
    // What does not hold gets no new timestamp, and no file.
    let altered = replaced(&exported, "request/body.bin", b"\0\0\0\0\x04was?");
    std::fs::write(path("altered"), altered).unwrap();
    let (done, said) = renew(&instance.mv, &path("altered"), &path("4")).await;
    assert!(!done && said.contains("does not hold, so it gets no archive timestamp"), "{said}");
    // Without an authority the container stays as it is.
    instance.authorities.stop().await;
    let (done, said) = renew(&instance.mv, &path("3"), &path("4")).await;
    assert!(!done && said.contains("the container gets no timestamp"), "{said}");
    assert!(!path("4").exists());
}

/// The archive written anew, with one file's data exchanged, and everything but the seal made to fit.
fn replaced(archive: &[u8], name: &str, data: &[u8]) -> Vec<u8> {
    let all = files(archive).into_iter().map(|(found, range)| {
        let data = if found == name { data.to_vec() } else { archive[range].to_vec() };
        (found, data)
    });
    zip(&all.collect::<Vec<_>>())
}

fn with_checksums(archive: &[u8]) -> Vec<u8> {
    replaced(archive, "", b"")
}

/// An archive as ours is written, by another hand.
fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let crc = crc32fast::hash(data).to_le_bytes();
        let facts = [&[10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..], &crc, &size, &size, &length, &[0, 0]].concat();
        let offset = u32::try_from(archive.len()).unwrap().to_le_bytes();
        directory.extend([&b"PK\x01\x02\x0a\0"[..], &facts, &[0; 10], &offset, name.as_bytes()].concat());
        archive.extend([&b"PK\x03\x04"[..], &facts, name.as_bytes(), data].concat());
    }
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let (size, at) = (u32::try_from(directory.len()).unwrap(), u32::try_from(archive.len()).unwrap());
    archive.extend(directory);
    let end = [&size.to_le_bytes()[..], &at.to_le_bytes(), &[0, 0]].concat();
    archive.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &end].concat());
    archive
}
