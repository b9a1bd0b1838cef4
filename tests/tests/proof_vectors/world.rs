//! Two states on one table: an authority that asks, a register that answers, and whom both trust.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use trave_certs::authority::{Addresses, CertificationAuthority, Issued, Reason};
use trave_certs::profile::Profile;
use trave_certs::responder::OcspResponder;
use trave_certs::timestamping::{Terms, Tsa};
use trave_host::clock::ManualClock;
use trave_host::keys::{Sign, SigningKey, certificate_request};
use trave_proto::certificate::{Certificate, ocsp};
use trave_proto::checkpoint::{Checkpoint, NoteSigner};
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, AnchorKey, Configuration, sign_anchor, sign_configuration};
use trave_proto::schema::configuration as schema;
use trave_proto::signature::Signer;
use trave_proto::timestamp;

/// When the exchange takes place.
pub(crate) const NOW: Time = Time::from_millis(1_795_288_440_005);
/// When the verifier looks at it.
pub(crate) const LATER: Time = Time::from_millis(1_795_300_000_000);

pub(crate) const CLIENT: &str = "NORD/SH/luebeck/gewerbeamt";
pub(crate) const SERVICE: &str = "NORD/MV/gewerberegister/register/auskunft";
pub(crate) const METHOD: &str = "/gewerbe.v1.Register/Auskunft";

/// A security server with its keys, its certificates and its log.
pub(crate) struct Server {
    pub(crate) id: &'static str,
    pub(crate) subsystem: &'static str,
    pub(crate) origin: String,
    pub(crate) signing: Arc<SigningKey>,
    pub(crate) authentication: Arc<SigningKey>,
    pub(crate) log_seed: u8,
    pub(crate) signing_chain: Vec<Bytes>,
    pub(crate) tls: Bytes,
    pub(crate) ocsp: Bytes,
    /// What the responder says since the certificate was revoked.
    pub(crate) revoked: Bytes,
}

impl Signer for Server {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.signing.sign(message)?)
    }
}

impl Server {
    pub(crate) fn log_key(&self) -> NoteSigner {
        NoteSigner::new(&self.origin, ed25519(self.log_seed)).unwrap()
    }

    pub(crate) fn certificate(&self) -> Digest {
        Digest::of(&self.signing_chain[0])
    }
}

/// A timestamping authority.
pub(crate) struct Stamping {
    key: Arc<SigningKey>,
    /// DER.
    pub(crate) certificate: Bytes,
}

impl Stamping {
    /// A token over `digest` at `at`.
    pub(crate) fn token(&self, digest: &Digest, at: Time) -> Bytes {
        let terms =
            Terms { policy: "1.3.6.1.4.1.32473.1".into(), accuracy: Duration::from_secs(1), ordering: false };
        let clock = Arc::new(ManualClock::new(at));
        let tsa = Tsa::new(&self.certificate, self.key.clone(), clock, terms).unwrap();
        let request = timestamp::request(digest, timestamp::Nonce::from_random([7; 8]));
        timestamp::token_of(&tsa.answer(&request)).unwrap()
    }
}

/// Everything that the two have in common.
pub(crate) struct World {
    _directory: TempDir,
    clock: ManualClock,
    authority: Arc<CertificationAuthority>,
    pub(crate) stamping: Stamping,
    pub(crate) client: Server,
    pub(crate) provider: Server,
    /// Of no configuration: a stranger with a certificate of the same authority.
    pub(crate) stranger: Server,
    pub(crate) anchor: Anchor,
    pub(crate) configuration: Configuration,
}

/// A key that is the same in every run.
pub(crate) fn ed25519(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn sign_with(seed: u8) -> impl FnOnce(&[u8]) -> [u8; 64] {
    move |content| ed25519(seed).sign(content).as_ref().try_into().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(NOW.minus(Duration::from_secs(86_400)));
        let key = || Arc::new(SigningKey::generate().unwrap());
        let shared = Arc::new(clock.clone());
        let authority = CertificationAuthority::create(
            directory.path(),
            "Beispiel-CA Nord",
            key(),
            shared,
            Addresses::default(),
        );
        let authority = Arc::new(authority.unwrap());
        let responder = OcspResponder::new(Arc::clone(&authority), key(), "Beispiel-OCSP Nord").unwrap();
        let stamping = stamping(&authority, "Beispiel-TSA Nord");
        // The servers' certificates and their status are of the minute before the exchange.
        clock.set(NOW.minus(Duration::from_secs(60)));
        let make = |id, member, subsystem, log_seed| {
            server(&authority, &responder, (id, member, subsystem), log_seed)
        };
        let client = make("NORD/SH/luebeck/s1", "NORD/SH/luebeck", CLIENT, 11);
        let provider = make(
            "NORD/MV/gewerberegister/s1",
            "NORD/MV/gewerberegister",
            "NORD/MV/gewerberegister/register",
            12,
        );
        let stranger = make("NORD/SH/fremd/s1", "NORD/SH/fremd", "NORD/SH/fremd/amt", 13);
        let anchor = anchor("NORD", 1, 2, &[("cosigner-mv", 2), ("registry-sh", 1)]);
        let raw = global(&authority, &stamping.certificate, [&client, &provider]);
        let configuration = Configuration::verify(&signed(&raw), &anchor).unwrap();
        Self {
            _directory: directory,
            clock,
            authority,
            stamping,
            client,
            provider,
            stranger,
            anchor,
            configuration,
        }
    }

    /// What the configuration says, to change something in it.
    pub(crate) fn raw_configuration(&self) -> schema::GlobalConfiguration {
        schema::GlobalConfiguration::decode(self.configuration.bytes().clone()).unwrap()
    }

    /// A note over a tree, and a token over the note at `at`.
    pub(crate) fn seal(&self, signer: &NoteSigner, root: Digest, size: u64, at: Time) -> (Bytes, Bytes) {
        let checkpoint = Checkpoint { origin: signer.name().to_owned(), size, root };
        let note = Bytes::from(checkpoint.sign(signer).to_bytes());
        let token = self.stamping.token(&Digest::of(&note), at);
        (note, token)
    }

    /// Another timestamping authority, certified at `at`: years may have passed since the exchange.
    pub(crate) fn later_stamping(&self, name: &str, at: Time) -> Stamping {
        self.clock.set(at);
        stamping(&self.authority, name)
    }

    /// What the responder says at `at` of a certificate (DER).
    pub(crate) fn status(&self, certificate: &[u8], at: Time) -> Bytes {
        self.clock.set(at);
        let certificate = Certificate::from_der(certificate).unwrap();
        let request = ocsp::request(&certificate, self.authority.certificate(), None).unwrap();
        // A responder of then: its certificate is for a year.
        let key = Arc::new(SigningKey::generate().unwrap());
        let responder = OcspResponder::new(Arc::clone(&self.authority), key, "Beispiel-OCSP Nord").unwrap();
        responder.answer(&request).der
    }

    /// The same, after the certificate was revoked.
    pub(crate) fn status_of_revoked(&self, certificate: &[u8], at: Time) -> Bytes {
        self.clock.set(at);
        let serial = Certificate::from_der(certificate).unwrap().serial().to_vec();
        let serial = hex::encode(serial.strip_prefix(&[0]).unwrap_or(&serial));
        self.authority.revoke(&serial, Reason::KeyCompromise).unwrap();
        self.status(certificate, at)
    }

    /// The certification authority's certificate (DER).
    pub(crate) fn authority(&self) -> &Bytes {
        self.authority.certificate().der()
    }
}

fn stamping(authority: &CertificationAuthority, name: &str) -> Stamping {
    let key = Arc::new(SigningKey::generate().unwrap());
    let profile = Profile::TimestampingAuthority { name: name.into() };
    let certificate = issue(authority, &profile, &key).chain.remove(0);
    Stamping { key, certificate }
}

/// An anchor of an instance with keys that are the same in every run.
pub(crate) fn anchor(instance: &str, number: u64, threshold: usize, keys: &[(&str, u8)]) -> Anchor {
    let named = |(name, seed): &(&str, u8)| AnchorKey {
        name: (*name).into(),
        public_key: ed25519(*seed).public_key().as_ref().try_into().unwrap(),
    };
    Anchor::new(instance, number, threshold, keys.iter().map(named).collect()).unwrap()
}

/// The anchor with the signatures of these keys.
pub(crate) fn signed_anchor(anchor: &Anchor, keys: &[(&str, u8)]) -> schema::SignedAnchor {
    let signatures = keys.iter().map(|(name, seed)| sign_anchor(anchor, name, sign_with(*seed))).collect();
    schema::SignedAnchor { anchor: anchor.bytes().clone(), signatures }
}

/// Signed by both states' keys.
pub(crate) fn signed(configuration: &schema::GlobalConfiguration) -> schema::SignedConfiguration {
    signed_by(configuration, &[("registry-sh", 1), ("cosigner-mv", 2)])
}

/// Signed by these keys.
pub(crate) fn signed_by(
    configuration: &schema::GlobalConfiguration,
    keys: &[(&str, u8)],
) -> schema::SignedConfiguration {
    let bytes = Bytes::from(configuration.encode_to_vec());
    let signatures =
        keys.iter().map(|(name, seed)| sign_configuration(&bytes, name, sign_with(*seed))).collect();
    schema::SignedConfiguration { configuration: bytes, signatures }
}

fn issue(authority: &CertificationAuthority, profile: &Profile, key: &SigningKey) -> Issued {
    authority.issue(profile, &certificate_request(key, "Beispiel").unwrap()).unwrap()
}

fn server(
    authority: &CertificationAuthority,
    responder: &OcspResponder,
    (id, member, subsystem): (&'static str, &'static str, &'static str),
    log_seed: u8,
) -> Server {
    let (signing, authentication) =
        (Arc::new(SigningKey::generate().unwrap()), Arc::new(SigningKey::generate().unwrap()));
    let (named, of) = (id.parse().unwrap(), member.parse().unwrap());
    let profile = Profile::Signing { member: of, server: named };
    let Issued { chain: signing_chain, serial } = issue(authority, &profile, &signing);
    let profile = Profile::Authentication { member: member.parse().unwrap(), server: id.parse().unwrap() };
    let tls = issue(authority, &profile, &authentication).chain.remove(0);
    let certificate = Certificate::from_der(&signing_chain[0]).unwrap();
    let request = ocsp::request(&certificate, authority.certificate(), None).unwrap();
    let ocsp = responder.answer(&request).der;
    authority.revoke(&serial, Reason::KeyCompromise).unwrap();
    let revoked = responder.answer(&request).der;
    let origin = format!("log.example/{id}/1");
    Server { id, subsystem, origin, signing, authentication, log_seed, signing_chain, tls, ocsp, revoked }
}

fn global(
    authority: &CertificationAuthority,
    tsa: &Bytes,
    servers: [&Server; 2],
) -> schema::GlobalConfiguration {
    let member = |id: &str, name: &str, subsystem: &str, title: &str| schema::Member {
        id: id.into(),
        name: name.into(),
        subsystems: vec![schema::Subsystem { id: subsystem.into(), name: title.into() }],
    };
    let mut security_servers = servers.map(entry).to_vec();
    security_servers.sort_by(|a, b| a.id.cmp(&b.id));
    schema::GlobalConfiguration {
        version: 1,
        instance: "NORD".into(),
        number: 1,
        issued_ms: NOW.minus(Duration::from_secs(3600)).as_millis(),
        valid_until_ms: NOW.plus(Duration::from_secs(86_400)).as_millis(),
        members: vec![
            member(
                "NORD/MV/gewerberegister",
                "Gewerberegister Mecklenburg-Vorpommern (Beispiel)",
                "NORD/MV/gewerberegister/register",
                "Register",
            ),
            member("NORD/SH/luebeck", "Hansestadt Lübeck (Beispiel)", CLIENT, "Gewerbeamt"),
        ],
        security_servers,
        services: vec![schema::Service {
            id: SERVICE.into(),
            title: "Auskunft aus dem Gewerberegister".into(),
            kind: schema::ServiceKind::Grpc.into(),
            methods: vec!["/gewerbe.v1.Register/*".into()],
            purposes: vec!["gewerbeummeldung".into()],
        }],
        purposes: vec![catalogue(
            "gewerbeummeldung",
            "Change of a business registration",
            "Gewerbeummeldung",
        )],
        legal_bases: vec![catalogue("GewO-14", "Duty to notify", "Anzeigepflicht")],
        trust_services: Some(schema::TrustServices {
            certification_authorities: vec![schema::CertificationAuthority {
                name: "Beispiel-CA Nord".into(),
                certificate: authority.certificate().der().clone(),
                ..Default::default()
            }],
            timestamping_authorities: vec![schema::TimestampingAuthority {
                name: "Beispiel-TSA Nord".into(),
                certificate: tsa.clone(),
                url: "http://tsa.example/".into(),
            }],
        }),
        policy: Some(schema::Policy {
            merge_delay_ms: 86_400_000,
            ocsp_max_age_ms: 3_600_000,
            approval_by_other_class: true,
            algorithms: vec![schema::Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn catalogue(code: &str, text: &str, text_de: &str) -> schema::CatalogueEntry {
    let citation = "§ 14 GewO (Beispiel, keine geprüfte Rechtsgrundlage)";
    schema::CatalogueEntry {
        code: code.into(),
        text: text.into(),
        text_de: text_de.into(),
        citation: citation.into(),
    }
}

fn entry(server: &Server) -> schema::SecurityServer {
    schema::SecurityServer {
        id: server.id.into(),
        address: "127.0.0.1:7001".into(),
        subsystems: vec![server.subsystem.into()],
        authentication_keys: vec![server.authentication.key_digest_bytes()],
        signing_keys: vec![server.signing.key_digest_bytes()],
        logs: vec![schema::LogKey {
            origin: server.origin.clone(),
            public_key: Bytes::copy_from_slice(ed25519(server.log_seed).public_key().as_ref()),
        }],
        suspended: false,
    }
}

trait KeyDigest {
    fn key_digest_bytes(&self) -> Bytes;
}

impl KeyDigest for SigningKey {
    fn key_digest_bytes(&self) -> Bytes {
        Digest::of(self.public_key_info()).to_bytes()
    }
}
