//! Containers that hold, renewed over decades, and containers with one thing wrong each. Archive timestamps are put together here
//! by another hand than the program's, which must come to the same bytes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::Message as _;
use trave_proto::clock::Time;
use trave_proto::container::{self, ContainerReport, Unarchived, Unsealed, bundle};
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::proof::{Conclusion, Proof};
use trave_proto::schema::configuration as schema;
use trave_proto::signature::Signer as _;
use trave_proto::timestamp::with_status;
use trave_proto::verification::TrustedSigner;

use crate::exchange::Plan;
use crate::world::{NOW, Stamping, World, signed, signed_by};

const DAY: Duration = Duration::from_secs(86_400);
/// Days from the sealing to each renewal: before the end of the authority of then, whose certificate is for ten years.
const RENEWED: [u32; 2] = [3_300, 6_600];
const ARCHIVED: &str = "archive-timestamp 1";
const RENEWAL: &str = "archive-timestamp 2";

/// A container and what must be said of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it is, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) file: Bytes,
    /// The verifier's clock.
    pub(crate) now: Time,
    pub(crate) expected: Expected,
}

/// What must be said of a container.
#[derive(Clone, Copy)]
pub(crate) enum Expected {
    /// With so many archive timestamps.
    Holds(usize),
    /// Which part is a mismatch, and a part of the reason.
    Mismatch(&'static str, &'static str),
    /// Which part cannot be told, and a part of the reason.
    CannotTell(&'static str, &'static str),
    /// It cannot even be read; a part of the reason.
    Unreadable(&'static str),
}

impl Expected {
    /// Conclusion, part and reason, for the list of vectors.
    pub(crate) fn parts(self) -> (&'static str, Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Holds(_) => ("holds", None, None),
            Self::Mismatch(part, why) => ("does_not_hold", Some(part), Some(why)),
            Self::CannotTell(part, why) => ("cannot_tell", Some(part), Some(why)),
            Self::Unreadable(why) => ("unreadable", None, Some(why)),
        }
    }
}

/// When the container is sealed: the proof in it is some minutes old.
pub(crate) fn sealing() -> Time {
    NOW.plus(Duration::from_secs(1_200))
}

fn after(days: u32) -> Time {
    sealing().plus(DAY * days)
}

/// The files of a container, to be put together anew.
#[derive(Clone)]
struct Files(Vec<(String, Bytes)>);

impl Files {
    fn of(archive: &[u8]) -> Self {
        let number = |at: usize, length: usize| {
            archive[at..at + length].iter().rev().fold(0, |sum, digit| sum << 8 | usize::from(*digit))
        };
        let (mut files, mut at) = (Vec::new(), 0);
        while archive[at..].starts_with(b"PK\x03\x04") {
            let (size, data) = (number(at + 22, 4), at + 30 + number(at + 26, 2));
            let name = String::from_utf8(archive[at + 30..data].to_vec()).unwrap();
            files.push((name, Bytes::copy_from_slice(&archive[data..data + size])));
            at = data + size;
        }
        Self(files)
    }

    fn without(mut self, end: &str) -> Self {
        self.0.retain(|(name, _)| !name.ends_with(end));
        self
    }

    fn with(mut self, name: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let (_, data) = self.0.iter_mut().find(|(found, _)| found == name).unwrap();
        *data = change(data).into();
        self
    }

    fn archive(self) -> Bytes {
        bundle(self.0).unwrap()
    }

    /// With one more archive timestamp, over a list as the standard lays it down.
    fn renewed(self, configuration: Option<Bytes>, token: impl FnOnce(&Digest) -> Bytes) -> Bytes {
        let Self(mut files) = self;
        let number = files.iter().filter(|(name, _)| name.ends_with(".tst")).count() + 1;
        let last = format!("META-INF/ASiCArchiveManifest{:03}.xml", number - 1);
        for (name, _) in &mut files {
            if name == "META-INF/ASiCArchiveManifest.xml" {
                name.clone_from(&last);
            }
        }
        if let Some(configuration) = configuration {
            files.push((format!("META-INF/configuration{number:03}.bin"), configuration));
        }
        let list = list(&files, number, &last);
        let token = token(&Digest::of(list.as_bytes()));
        files.push(("META-INF/ASiCArchiveManifest.xml".into(), list.into()));
        files.push((format!("META-INF/timestamp{number:03}.tst"), token));
        Self(files).archive()
    }
}

/// ASiCArchiveManifest (EN 319 162-1 annex A.7).
fn list(files: &[(String, Bytes)], number: usize, last: &str) -> String {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" \
                xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n";
    let mut list = format!(
        "{head}<asic:SigReference URI=\"META-INF/timestamp{number:03}.tst\" \
         MimeType=\"application/vnd.etsi.timestamp-token\"/>\n"
    );
    for (name, data) in &files[1..] {
        let kind = match name.rsplit('.').next() {
            Some("txt") => "text/plain",
            Some("xml") => "application/xml",
            Some("p7s") => "application/pkcs7-signature",
            Some("tst") => "application/vnd.etsi.timestamp-token",
            _ => "application/octet-stream",
        };
        let root = if name == last { " Rootfile=\"true\"" } else { "" };
        let digest = BASE64.encode(Digest::of(data));
        list.push_str(&format!(
            "<asic:DataObjectReference URI=\"{name}\" MimeType=\"{kind}\"{root}><ds:DigestMethod \
             Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/><ds:DigestValue>{digest}</ds:DigestValue>\
             </asic:DataObjectReference>\n"
        ));
    }
    list + "</asic:ASiCManifest>\n"
}

/// The containers of one world, and the authorities that come after each other.
pub(crate) struct Containers<'w> {
    world: &'w World,
    /// With the configuration that names each.
    later: Vec<(Stamping, Configuration)>,
}

impl<'w> Containers<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        let mut later: Vec<(Stamping, Configuration)> = Vec::new();
        for (days, name) in RENEWED.into_iter().zip(["Beispiel-TSA Nord II", "Beispiel-TSA Nord III"]) {
            let stamping = world.later_stamping(name, after(days).minus(DAY));
            let before = later.last().map_or(&world.configuration, |(_, configuration)| configuration);
            let raw = successor(before, &stamping, after(days));
            later.push((stamping, Configuration::verify(&signed(&raw), &world.anchor).unwrap()));
        }
        Self { world, later }
    }

    /// A token that carries what is said of its authority.
    fn kept(&self, stamping: &Stamping, digest: &Digest, at: Time) -> Bytes {
        with_status(&stamping.token(digest, at), &self.world.status(&stamping.certificate, at))
    }

    /// As a security server exports it; `token` makes the tokens.
    fn sealed(&self, token: impl Fn(&Digest) -> Bytes) -> Bytes {
        let (world, at) = (self.world, sealing());
        let proof = Proof::parse(Plan::unary(world, false).file()).unwrap();
        let (anchor, configuration) = (&world.anchor, &world.configuration);
        let client = &world.client;
        let signer =
            TrustedSigner::verify(&client.signing_chain, client.ocsp.clone(), configuration, at).unwrap();
        let unsealed = Unsealed::new(&proof, (anchor, configuration), signer, at).unwrap();
        let signature = client.sign(&unsealed.to_sign().unwrap()).unwrap();
        let unstamped = unsealed.signed(signature).unwrap();
        let stamp = token(&unstamped.digest());
        let unarchived = unstamped.stamped(stamp, (anchor, configuration)).unwrap();
        let stamp = token(&unarchived.digest());
        unarchived.archived(stamp, anchor, at).unwrap().0
    }

    /// Renewed by the authority of that renewal.
    fn renewed(&self, file: &Bytes, renewal: usize) -> Bytes {
        let (stamping, configuration) = &self.later[renewal];
        self.renewed_by(file, stamping, configuration, after(RENEWED[renewal]))
    }

    /// As the program does it.
    fn renewed_by(
        &self,
        file: &Bytes,
        stamping: &Stamping,
        configuration: &Configuration,
        at: Time,
    ) -> Bytes {
        let anchor = &self.world.anchor;
        let unarchived = Unarchived::renewed(file, (anchor, configuration), at).unwrap();
        let token = self.kept(stamping, &unarchived.digest(), at);
        unarchived.archived(token, anchor, at).unwrap().0
    }

    /// The certificates that whoever judges the containers with another program trusts: name and DER.
    pub(crate) fn trusted(&self) -> Vec<(String, Bytes)> {
        let stampings = [&self.world.stamping].into_iter().chain(self.later.iter().map(|(one, _)| one));
        let named =
            |(at, one): (usize, &Stamping)| (format!("timestamping-{}.der", at + 1), one.certificate.clone());
        let authority = ("authority.der".to_owned(), self.world.authority().clone());
        [authority].into_iter().chain(stampings.enumerate().map(named)).collect()
    }
}

fn successor(before: &Configuration, stamping: &Stamping, at: Time) -> schema::GlobalConfiguration {
    let mut raw = schema::GlobalConfiguration::decode(before.bytes().clone()).unwrap();
    raw.number += 1;
    raw.previous = before.digest().to_bytes();
    raw.issued_ms = at.minus(DAY).as_millis();
    raw.valid_until_ms = at.plus(DAY).as_millis();
    let services = raw.trust_services.as_mut().unwrap();
    let listed = &mut services.timestamping_authorities[0];
    listed.name = format!("Beispiel-TSA Nord {}", raw.number);
    listed.certificate = stamping.certificate.clone();
    raw
}

/// What is otherwise than expected.
pub(crate) fn check(world: &World, case: &Case) -> Result<(), String> {
    let report = match (container::verify(&case.file, &world.anchor, Some(case.now)), case.expected) {
        (Err(error), Expected::Unreadable(why)) if error.to_string().contains(why) => return Ok(()),
        (Err(error), _) => return Err(format!("cannot be read: {error}")),
        (Ok(report), _) => report,
    };
    let (conclusion, part, why) = match case.expected {
        Expected::Holds(count)
            if report.conclusion == Conclusion::Holds && report.archived.len() == count =>
        {
            return Ok(());
        }
        Expected::Mismatch(part, why) => (Conclusion::DoesNotHold, part, why),
        Expected::CannotTell(part, why) => (Conclusion::CannotTell, part, why),
        Expected::Holds(_) | Expected::Unreadable(_) => return Err(told(&report)),
    };
    let state =
        report.parts.iter().find(|found| found.name.to_string() == part).map(|found| found.state.as_str());
    let wanted = if conclusion == Conclusion::CannotTell { "cannot-tell" } else { "MISMATCH" };
    let said = report.why.iter().any(|text| text.starts_with(part) && text.contains(why));
    if report.conclusion == conclusion && state == Some(wanted) && said { Ok(()) } else { Err(told(&report)) }
}

fn told(report: &ContainerReport) -> String {
    format!("{:?} {:#?} {:#?}", report.conclusion, report.why, report.parts)
}

/// All cases.
pub(crate) fn all(containers: &Containers<'_>) -> Vec<Case> {
    let world = containers.world;
    let sealed = containers.sealed(|digest| containers.kept(&world.stamping, digest, sealing()));
    // Before archive timestamps were made, and answers about the authority kept.
    let earlier = Files::of(&containers.sealed(|digest| world.stamping.token(digest, sealing())));
    let earlier = earlier.without("timestamp001.tst").without("ASiCArchiveManifest.xml").archive();
    let once = containers.renewed(&sealed, 0);
    let twice = containers.renewed(&once, 1);
    let mut cases = Vec::new();
    let mut add = |name, about, file: &Bytes, now: Time, expected| {
        cases.push(Case { name, about, file: file.clone(), now, expected });
    };
    let soon = sealing().plus(Duration::from_secs(60));
    add("sealed", "as a security server exports it", &sealed, soon, Expected::Holds(1));
    add(
        "earlier",
        "as an earlier release exported it, without archive timestamp",
        &earlier,
        soon,
        Expected::Holds(0),
    );
    let raw = successor(&world.configuration, &world.stamping, after(300));
    let configuration = Configuration::verify(&signed(&raw), &world.anchor).unwrap();
    let renewed = containers.renewed_by(&earlier, &world.stamping, &configuration, after(300));
    let at = |days: u32| after(days).plus(Duration::from_secs(60));
    add("earlier-renewed", "such a one, renewed within the year", &renewed, at(300), Expected::Holds(1));
    add("renewed", "renewed by a later authority", &once, at(3_300), Expected::Holds(2));
    add("renewed-twice", "renewed again", &twice, at(6_600), Expected::Holds(3));
    for (name, about, file, days, expected) in refused(containers, &sealed, &once) {
        add(name, about, &file, at(days), expected);
    }
    cases
}

type Refused = (&'static str, &'static str, Bytes, u32, Expected);

/// What is wrong with an archive timestamp, each in one thing.
fn refused(containers: &Containers<'_>, sealed: &Bytes, once: &Bytes) -> Vec<Refused> {
    use Expected::{CannotTell, Mismatch, Unreadable};
    let world = containers.world;
    let (stamping, configuration) = &containers.later[0];
    let encoded = |configuration: &Configuration| Bytes::from(configuration.signed().encode_to_vec());
    let (own, day) = (Some(encoded(configuration)), after(3_300));
    let kept = |digest: &Digest| containers.kept(stamping, digest, day);
    let files = || Files::of(sealed);
    let flip = |bytes: &[u8]| {
        let mut other = bytes.to_vec();
        *other.last_mut().unwrap() ^= 1;
        other
    };
    let manifest = "META-INF/ASiCArchiveManifest.xml";
    let one_state = signed_by(&unsigned(configuration), &[("registry-sh", 1)]).encode_to_vec();
    let with = |status: Bytes| {
        let files = Files::of(sealed);
        files.renewed(own.clone(), |digest| with_status(&stamping.token(digest, day), &status))
    };
    let gap = after(3_660);
    let late = successor(&world.configuration, stamping, gap);
    let late = Some(Bytes::from(signed(&late).encode_to_vec()));
    let swapped = {
        let Files(mut files) = Files::of(once);
        let count = files.len();
        files.swap(count - 1, count - 2);
        Files(files).archive()
    };
    let mut list = vec![
        (
            "archive-list",
            "the list of the archive timestamp says something else of one file",
            files()
                .with(manifest, |list| {
                    let list = String::from_utf8(list.to_vec()).unwrap();
                    list.replace("URI=\"exchange.proof\"", "URI=\"exchange.prooF\"").into()
                })
                .archive(),
            0,
            Mismatch(ARCHIVED, "its list is not the one of the files before it"),
        ),
        (
            "archive-other-digest",
            "the token is over something else",
            files()
                .without(".tst")
                .without("ASiCArchiveManifest.xml")
                .renewed(None, |_| containers.kept(&world.stamping, &Digest::of(b"other"), sealing())),
            0,
            Mismatch(ARCHIVED, "about another digest"),
        ),
        (
            "archive-foreign-authority",
            "the token is by an authority that no configuration in it names",
            files().renewed(None, kept),
            3_300,
            Mismatch(RENEWAL, "not by a timestamping authority of the global configuration"),
        ),
        (
            "archive-one-state",
            "the later configuration is signed by one state alone",
            files().renewed(Some(one_state.into()), kept),
            3_300,
            Mismatch(RENEWAL, "the configuration that shall prove it"),
        ),
        (
            "archive-same-configuration",
            "a configuration that is not later than the one before",
            files().renewed(Some(encoded(&world.configuration)), |digest| {
                world.stamping.token(digest, sealing())
            }),
            3_300,
            Mismatch(RENEWAL, "not later than the one before"),
        ),
        (
            "archive-not-in-force",
            "the configuration was no longer in force when the token was made",
            files().renewed(None, |digest| world.stamping.token(digest, after(400))),
            3_300,
            Mismatch(RENEWAL, "was not in force"),
        ),
        (
            "archive-earlier",
            "it is from before the timestamp that it is over",
            files().renewed(None, |digest| {
                world.stamping.token(digest, sealing().minus(Duration::from_secs(900)))
            }),
            3_300,
            Mismatch(RENEWAL, "from before the timestamp"),
        ),
        (
            "archive-gap",
            "it came after the end of the authority before",
            files().renewed(late, |digest| containers.kept(stamping, digest, gap)),
            3_660,
            CannotTell(RENEWAL, "there is a gap"),
        ),
        (
            "archive-future",
            "it lies in the future of the verifier's clock",
            once.clone(),
            3_000,
            CannotTell(RENEWAL, "in the future"),
        ),
        (
            "archive-status-of-another",
            "what is said of its authority is said of another certificate",
            with(world.status(&world.stamping.certificate, day)),
            3_300,
            Mismatch(RENEWAL, "not about this certificate"),
        ),
        (
            "archive-status-old",
            "what is said of its authority was said a day before",
            with(world.status(&stamping.certificate, day.minus(DAY / 2))),
            3_300,
            Mismatch(RENEWAL, "had expired"),
        ),
        (
            "archive-first-altered",
            "the token of before was altered in a byte that nobody signs, under the renewal",
            Files::of(once)
                .with("META-INF/timestamp001.tst", |token| {
                    let mut token = token.to_vec();
                    // The version of its SignedData.
                    let at = token.windows(3).position(|there| there == [2, 1, 5]).unwrap() + 2;
                    token[at] = 4;
                    token
                })
                .archive(),
            3_300,
            Mismatch(RENEWAL, "its list is not the one of the files before it"),
        ),
        (
            "archive-file-altered",
            "the question was altered under a seal and two archive timestamps",
            Files::of(once).with("request/body.bin", flip).archive(),
            3_300,
            Mismatch(ARCHIVED, "its list is not the one of the files before it"),
        ),
        (
            "archive-seal-altered",
            "the timestamp in the seal was altered in its last byte",
            Files::of(once).with("META-INF/signature001.p7s", flip).archive(),
            3_300,
            Mismatch(ARCHIVED, "its list is not the one of the files before it"),
        ),
        (
            "archive-no-token",
            "the token of the first archive timestamp is missing",
            Files::of(once).without("timestamp001.tst").archive(),
            3_300,
            Unreadable("missing, or in another order"),
        ),
        (
            "archive-order",
            "token and list of the last archive timestamp stand in the other order",
            swapped,
            3_300,
            Unreadable("missing, or in another order"),
        ),
    ];
    // Last, for it is revoked from then on.
    let revoked = world.status_of_revoked(&stamping.certificate, day);
    list.push((
        "archive-status-revoked",
        "its authority's certificate was revoked",
        with(revoked),
        3_300,
        Mismatch(RENEWAL, "was revoked"),
    ));
    list
}

fn unsigned(configuration: &Configuration) -> schema::GlobalConfiguration {
    schema::GlobalConfiguration::decode(configuration.bytes().clone()).unwrap()
}
