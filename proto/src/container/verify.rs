//! All of a container judged: the seal, the digests, the timestamp, the proof, and that the files beside the proof are the
//! very ones that it commits to.

use bytes::Bytes;
use prost::Message as _;

use super::archive::{self, Entry};
use super::archived::{self, ArchiveStory, Archived};
use super::cades::{self, Seal};
use super::parts::{self, Part, PartName, PartState, Wrong, mismatch};
use super::stamps::{self, StampStory};
use super::{
    AFTER, BEFORE, CONFIGURATION_NAME, ContainerError, ENGLISH_NAME, GERMAN_NAME, MANIFEST_NAME, MEDIA_TYPE,
    PARTS_NAME, PROOF_NAME, README_NAME, SIGNATURE_NAME, manifest,
};
use crate::clock::Time;
use crate::conversation::TOLERANCE;
use crate::digest::Digest;
use crate::global_configuration::{Anchor, Configuration};
use crate::identifier::{MemberId, ServerId};
use crate::proof::{self, Conclusion, Outcome, Proof, Report, Side};
use crate::timestamp;
use crate::verification::TrustedSigner;

/// What a verified seal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealStory {
    /// The exporter.
    pub server: ServerId,
    /// The member in whose name it sealed.
    pub member: MemberId,
    /// When, by its own clock.
    pub at: Time,
    /// When at the latest, by the timestamping authority.
    pub stamp: StampStory,
    /// Number of the configuration that lists the exporter's key.
    pub configuration: u64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerReport {
    /// What follows.
    pub conclusion: Conclusion,
    /// Each part, and what became of it.
    pub parts: Vec<Part>,
    /// Who sealed, where the seal and its timestamp hold.
    pub sealed: Option<SealStory>,
    /// Its archive timestamps, the earliest first, as far as they hold.
    pub archived: Vec<ArchiveStory>,
    /// Why something does not hold, or cannot be told.
    pub why: Vec<String>,
    /// The native proof and what is said of it; none where it cannot be read.
    pub proof: Option<(Proof, Report)>,
}

/// Verifies a container against the verifier's own `anchor`. If `now` is given, what lies after it is doubted. An error says
/// that the file cannot be read as a container; everything else is in the report.
pub fn verify(file: &Bytes, anchor: &Anchor, now: Option<Time>) -> Result<ContainerReport, ContainerError> {
    let entries = archive::read(file).map_err(ContainerError::Archive)?;
    let (contents, archived) = layout(&entries)?;
    let mut report = ContainerReport {
        conclusion: Conclusion::Holds,
        parts: Vec::new(),
        sealed: None,
        archived: Vec::new(),
        why: Vec::new(),
        proof: None,
    };
    let files = &entries[..BEFORE.len() + contents.len()];
    report.judge_proof(data(&entries, PROOF_NAME), (anchor, now));
    report.judge_contents(contents, data(&entries, PARTS_NAME))?;
    report.judge_seal(&entries, (anchor, now));
    report.judge_digests(files, data(&entries, MANIFEST_NAME));
    report.judge_archived(&archived, data(&entries, CONFIGURATION_NAME), (anchor, now));
    report.judge_checksums(&entries);
    report.conclude();
    Ok(report)
}

/// What a seal is made of, byte for byte, for whoever checks it with other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealPieces {
    /// The list of files, which is signed.
    pub manifest: Bytes,
    /// CMS SignedData, DER.
    pub seal: Bytes,
    /// The signature in it, which is stamped.
    pub signature: Bytes,
    /// TimeStampToken, DER.
    pub token: Bytes,
    /// OCSPResponse, DER.
    pub ocsp: Bytes,
    /// The list and the token (DER) of each archive timestamp.
    pub archived: Vec<(Bytes, Bytes)>,
}

/// Takes the seal of a container apart, whether it holds or not. Tokens are as their authorities gave them.
pub fn seal_of(file: &Bytes) -> Result<SealPieces, ContainerError> {
    let entries = archive::read(file).map_err(ContainerError::Archive)?;
    let (_, archived) = layout(&entries)?;
    let unreadable = |what| move |_| ContainerError::NotAContainer(what);
    let (manifest, bytes) = (data(&entries, MANIFEST_NAME).clone(), data(&entries, SIGNATURE_NAME).clone());
    let seal = Seal::read(&bytes).map_err(|_| ContainerError::NotAContainer("its seal cannot be read"))?;
    let given = |token: &Bytes| timestamp::apart(token).map(|(given, _)| given);
    let given = |token| given(token).map_err(unreadable("a timestamp in it cannot be read"));
    let archived = archived.iter().map(|one| Ok((one.manifest().data.clone(), given(&one.token().data)?)));
    let (archived, token) = (archived.collect::<Result<_, ContainerError>>()?, given(&seal.token)?);
    Ok(SealPieces { manifest, seal: bytes, signature: seal.signature, token, ocsp: seal.ocsp, archived })
}

/// How many files of a container come before its archive timestamps, its seal among them.
pub(super) fn sealed_files(entries: &[Entry]) -> usize {
    let seal = entries.iter().position(|entry| entry.name == SIGNATURE_NAME);
    seal.map_or(entries.len(), |seal| seal + 1)
}

/// The files of a container in their order: those that the proof makes, and its archive timestamps.
fn layout(all: &[Entry]) -> Result<(&[Entry], Vec<Archived<'_>>), ContainerError> {
    let sealed = sealed_files(all);
    let entries = &all[..sealed];
    let names = |entries: &[Entry], names: &[&str]| {
        entries.iter().map(|entry| entry.name.as_str()).eq(names.iter().copied())
    };
    let (before, rest) = entries.split_at_checked(BEFORE.len()).unwrap_or((&[], entries));
    let (contents, after) = rest.split_at(rest.len().saturating_sub(AFTER.len()));
    if before.first().is_none_or(|first| first.data != MEDIA_TYPE) {
        return Err(ContainerError::NotAContainer("it does not begin with the media type of ASiC-E"));
    }
    if !names(before, &BEFORE) || !names(after, &AFTER) {
        return Err(ContainerError::NotAContainer("its files are missing, or in another order"));
    }
    Ok((contents, archived::read(all, sealed)?))
}

/// Whether a file is a text of the exporter's for people.
fn is_text(name: &str) -> bool {
    [README_NAME, GERMAN_NAME, ENGLISH_NAME].contains(&name)
}

fn data<'e>(entries: &'e [Entry], name: &str) -> &'e Bytes {
    static NOTHING: Bytes = Bytes::new();
    entries.iter().find(|entry| entry.name == name).map_or(&NOTHING, |entry| &entry.data)
}

impl ContainerReport {
    fn judge_proof(&mut self, file: &Bytes, (anchor, now): (&Anchor, Option<Time>)) {
        let part = |state| Part { name: PartName::Proof, state, files: vec![PROOF_NAME.into()] };
        let proof = match Proof::parse(file.clone()) {
            Ok(proof) => proof,
            Err(error) => {
                self.parts.push(part(PartState::Mismatch));
                self.why.push(format!("proof: {error}"));
                return;
            }
        };
        let report = proof::verify(&proof, anchor, now);
        let state = match report.conclusion {
            Conclusion::Holds => PartState::Verified,
            Conclusion::DoesNotHold => PartState::Mismatch,
            Conclusion::CannotTell => PartState::CannotTell,
        };
        self.parts.push(part(state));
        if state != PartState::Verified {
            self.why.push(format!("proof: {}", why(&report)));
        }
        self.proof = Some((proof, report));
    }

    /// The files beside the proof are exactly those that it makes, byte for byte.
    fn judge_contents(&mut self, found: &[Entry], table: &Bytes) -> Result<(), ContainerError> {
        let Some((proof, report)) = &self.proof else { return Ok(()) };
        let holds = report.conclusion == Conclusion::Holds;
        let (parts, expected) = parts::of(proof, report)?;
        let exchange = report.story.as_ref().map(|story| story.exchange);
        let mut sealed = vec![Part { state: PartState::Verified, ..self.parts[0].clone() }];
        sealed.extend(parts.iter().cloned());
        let mut wrong = Vec::new();
        if let Some(exchange) = exchange.filter(|exchange| *table != parts::table(exchange, &sealed)) {
            let name = PartName::File(PARTS_NAME.into());
            wrong.push(mismatch(name, format!("it does not say what became of exchange {exchange}")));
        }
        for mut part in parts {
            for name in &part.files {
                let wanted = expected.iter().find(|entry| entry.name == *name);
                let there = found.iter().find(|entry| entry.name == *name);
                if wanted.map(|entry| &entry.data) != there.map(|entry| &entry.data) {
                    part.state = PartState::Mismatch;
                    self.why.push(format!("{name}: it is not what the proof commits to"));
                }
            }
            if matches!(part.state, PartState::Verified | PartState::ExportersWord) && !holds {
                part.state = PartState::CannotTell;
            }
            self.parts.push(part);
        }
        for entry in found.iter().filter(|found| expected.iter().all(|entry| entry.name != found.name)) {
            wrong.push(mismatch(PartName::File(entry.name.clone()), "the proof knows no such file"));
        }
        if !found.iter().map(|entry| &entry.name).eq(expected.iter().map(|entry| &entry.name)) {
            wrong.push(mismatch(PartName::Manifest, "the files are not those of the proof, in their order"));
        }
        wrong.into_iter().for_each(|wrong| self.note(wrong));
        Ok(())
    }

    /// The list of files is the one that these files make.
    fn judge_digests(&mut self, files: &[Entry], listed: &[u8]) {
        let state = if manifest::of(files) == listed { PartState::Verified } else { PartState::Mismatch };
        let name = PartName::Manifest;
        self.parts.push(Part { name: name.clone(), state, files: vec![MANIFEST_NAME.into()] });
        let rest =
            files.iter().filter(|entry| self.parts.iter().all(|part| !part.files.contains(&entry.name)));
        let rest: Vec<_> = rest.skip(1).map(|entry| entry.name.clone()).collect();
        let parts = rest.into_iter().filter(|name| !self.has(&PartName::File(name.clone())));
        let parts: Vec<_> = parts
            .map(|name| Part {
                state: match name.as_str() {
                    // What people read is compared with nothing: it is sealed, and that is all.
                    name if is_text(name) => PartState::ExportersWord,
                    name if self.proof.is_some() || BEFORE.contains(&name) => PartState::Verified,
                    // Beside a proof that cannot be read, nothing says what the contents were.
                    _ => PartState::CannotTell,
                },
                files: vec![name.clone()],
                name: PartName::File(name),
            })
            .collect();
        self.parts.extend(parts);
        if state == PartState::Verified {
            return;
        }
        let mut changed = 0;
        for entry in files.iter().skip(1) {
            // Each file has a line of its own in the list, which names it.
            let line = manifest::line(entry);
            if !listed.windows(line.len()).any(|part| part == line.as_bytes()) {
                changed += 1;
                let name = self.part_of(&entry.name);
                self.note(mismatch(name, format!("{} has another digest than was sealed", entry.name)));
            }
        }
        if changed == 0 {
            self.why.push("manifest: the list of files is not the one of these files".into());
        }
    }

    fn judge_checksums(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| !entry.is_intact()) {
            let name = self.part_of(&entry.name);
            self.note(mismatch(name, format!("{} was altered in the archive", entry.name)));
        }
    }

    fn judge_seal(&mut self, entries: &[Entry], trusted: (&Anchor, Option<Time>)) {
        let seal =
            Part { name: PartName::Seal, state: PartState::Verified, files: vec![SIGNATURE_NAME.into()] };
        let stamp = Part { name: PartName::Timestamp, files: Vec::new(), ..seal.clone() };
        let judged = check_seal(entries, trusted).and_then(|story| match self.recorder() {
            Some(recorder) if recorder != story.server => {
                let why = format!("it is of {}, and the proof is from the log of {recorder}", story.server);
                Err(mismatch(PartName::Seal, why))
            }
            _ => Ok(story),
        });
        self.parts.extend([seal, stamp]);
        match judged {
            Ok(story) => self.sealed = Some(story),
            Err(wrong) => {
                // Without the one, the other says nothing.
                for part in &mut self.parts {
                    if matches!(part.name, PartName::Seal | PartName::Timestamp) {
                        part.state = PartState::CannotTell;
                    }
                }
                self.note(wrong);
            }
        }
    }

    /// Each archive timestamp is over all that stands before it, by an authority that was in force, and in time.
    fn judge_archived(
        &mut self,
        found: &[Archived<'_>],
        configuration: &Bytes,
        trusted: (&Anchor, Option<Time>),
    ) {
        let mut configuration = configuration_in(configuration, trusted.0).ok();
        let mut stamp = self.sealed.as_ref().map(|seal| seal.stamp.clone());
        for one in found {
            self.parts.push(Part { name: one.name(), state: PartState::Verified, files: one.files() });
            match one.check((configuration.take(), stamp.as_ref()), trusted) {
                Ok((story, its)) => {
                    (configuration, stamp) = (Some(its), Some(story.stamp.clone()));
                    self.archived.push(story);
                }
                // What follows rests on it.
                Err(wrong) => {
                    stamp = None;
                    self.note(wrong);
                }
            }
        }
    }

    /// The timestamp over everything: other programs want the next one before the end of its authority's certificate.
    pub fn last_stamp(&self) -> Option<&StampStory> {
        let archived = self.archived.last().map(|archived| &archived.stamp);
        archived.or(self.sealed.as_ref().map(|seal| &seal.stamp))
    }

    /// From whose log the proof is.
    fn recorder(&self) -> Option<ServerId> {
        let story = self.proof.as_ref()?.1.story.as_ref()?;
        Some(match story.side {
            Side::Client => story.client_server.clone(),
            Side::Provider => story.provider_server.clone(),
        })
    }

    fn has(&self, name: &PartName) -> bool {
        self.parts.iter().any(|part| part.name == *name)
    }

    /// The part that a file belongs to.
    fn part_of(&self, file: &str) -> PartName {
        let found = self.parts.iter().find(|part| part.files.iter().any(|name| name == file));
        found.map_or_else(|| PartName::File(file.to_owned()), |part| part.name.clone())
    }

    fn note(&mut self, (name, state, why): Wrong) {
        self.why.push(format!("{name}: {why}"));
        match self.parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.state = state,
            None => {
                let files = match &name {
                    PartName::File(file) => vec![file.clone()],
                    _ => Vec::new(),
                };
                self.parts.push(Part { name, state, files });
            }
        }
    }

    fn conclude(&mut self) {
        let any = |state| self.parts.iter().any(|part| part.state == state);
        self.conclusion = if any(PartState::Mismatch) {
            Conclusion::DoesNotHold
        } else if any(PartState::CannotTell) || self.sealed.is_none() || self.proof.is_none() {
            Conclusion::CannotTell
        } else {
            Conclusion::Holds
        };
    }
}

/// The seal is by a security server of the instance over this list of files, and its time is a known authority's.
fn check_seal(entries: &[Entry], (anchor, now): (&Anchor, Option<Time>)) -> Result<SealStory, Wrong> {
    let (list, bytes) = (data(entries, MANIFEST_NAME), data(entries, SIGNATURE_NAME));
    let refused = |why: String| mismatch(PartName::Seal, why);
    let seal = Seal::read(bytes).map_err(|_| refused("it is not one of a container".into()))?;
    let configuration = configuration_in(data(entries, CONFIGURATION_NAME), anchor)
        .map_err(|why| mismatch(PartName::File(CONFIGURATION_NAME.into()), why))?;
    let digest = Digest::of(&seal.signature);
    let stamp = stamps::check((&PartName::Timestamp, &seal.token), &digest, &configuration, now)?;
    let at = stamp.at;
    if seal.signing_time.since(at).max(at.since(seal.signing_time)) > TOLERANCE {
        return Err(refused("the time that it states is not that of its timestamp".into()));
    }
    let (authority, chain) = match seal.certificates.split_last() {
        Some((authority, chain)) => (authority, chain),
        None => return Err(refused("it holds no certificate".into())),
    };
    let chain: Vec<_> = chain.iter().map(|one| one.der().clone()).collect();
    let signer = TrustedSigner::verify(&chain, seal.ocsp.clone(), &configuration, at)
        .map_err(|error| refused(in_full(&error)))?;
    let (subject, certificate) = (signer.chain().subject(), signer.chain().certificate());
    let algorithm = subject.public_key.algorithm();
    let attributes = cades::attributes(list, certificate, algorithm, seal.signing_time);
    let verified = attributes.map(|bytes| signer.chain().verify_signature(&bytes, &seal.signature));
    if !matches!(verified, Some(Ok(()))) {
        return Err(refused("it is not by this key over this list of files".into()));
    }
    // Everything else that stands in it is what belongs there, and nothing stands beside it.
    if seal.encode(list, algorithm).as_deref() != Some(bytes) || authority != signer.chain().authority() {
        return Err(refused("it is not written as the seal of a container".into()));
    }
    Ok(SealStory {
        server: subject.server.clone(),
        member: subject.member.clone(),
        at: seal.signing_time,
        stamp,
        configuration: configuration.number(),
    })
}

/// The configuration in a file: signed as the anchor demands, and written in the one way in which configurations are, for no byte
/// of a container says what nobody looks at.
pub(super) fn configuration_in(file: &Bytes, anchor: &Anchor) -> Result<Configuration, String> {
    let configuration = Configuration::verify_encoded(file.clone(), anchor)
        .map_err(|error| format!("the configuration that shall prove it: {}", in_full(&error)))?;
    if configuration.signed().encode_to_vec() != *file {
        return Err("it is not written in the one way in which a configuration is".into());
    }
    Ok(configuration)
}

/// Why a proof does not hold.
pub(super) fn why(report: &Report) -> String {
    let failed = report.checks.iter().filter_map(|check| match &check.outcome {
        Outcome::Fails(why) | Outcome::CannotTell(why) => Some(format!("{}: {why}", check.name.as_str())),
        Outcome::Holds => None,
    });
    failed.collect::<Vec<_>>().join("; ")
}

/// With all that lies behind `error`.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
