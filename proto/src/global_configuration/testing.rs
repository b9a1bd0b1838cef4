//! A small valid configuration for this crate's tests.

use bytes::Bytes;
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::{Anchor, AnchorKey, sign_configuration};
use crate::digest::Digest;
use crate::schema::configuration::*;

/// A configuration key, always the same for one `seed`.
pub(crate) fn configuration_key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// How a configuration key signs.
pub(crate) fn by(key: &Ed25519KeyPair) -> impl FnOnce(&[u8]) -> [u8; 64] + '_ {
    |content| key.sign(content).as_ref().try_into().unwrap()
}

/// An anchor of the instance NORD.
pub(crate) fn anchor_of(number: u64, threshold: usize, keys: &[(&str, &Ed25519KeyPair)]) -> Anchor {
    let named = |(name, key): &(&str, &Ed25519KeyPair)| AnchorKey {
        name: (*name).into(),
        public_key: key.public_key().as_ref().try_into().unwrap(),
    };
    Anchor::new("NORD", number, threshold, keys.iter().map(named).collect()).unwrap()
}

/// The two keys and the anchor of the tests' instance: both must sign.
pub(crate) fn instance() -> (Ed25519KeyPair, Ed25519KeyPair, Anchor) {
    let (registry, cosigner) = (configuration_key(1), configuration_key(2));
    let anchor = anchor_of(1, 2, &[("registry-sh", &registry), ("cosigner-mv", &cosigner)]);
    (registry, cosigner, anchor)
}

/// Signed by both keys.
pub(crate) fn signed(configuration: &GlobalConfiguration) -> SignedConfiguration {
    let (registry, cosigner, _) = instance();
    let bytes = Bytes::from(configuration.encode_to_vec());
    let signatures = vec![
        sign_configuration(&bytes, "registry-sh", by(&registry)),
        sign_configuration(&bytes, "cosigner-mv", by(&cosigner)),
    ];
    SignedConfiguration { configuration: bytes, signatures }
}

/// An administrator's key and entry.
pub(crate) fn administrator(name: &str, class: &str) -> (EcdsaKeyPair, Administrator) {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let public_key = Bytes::from([&prefix, pair.public_key().as_ref()].concat());
    let key = Digest::of(&public_key).to_bytes();
    (pair, Administrator { name: name.into(), class: class.into(), key, public_key })
}

/// Number 1: one city with a trade office on one server, one register with one service.
pub(crate) fn example() -> GlobalConfiguration {
    GlobalConfiguration {
        version: 1,
        instance: "NORD".into(),
        number: 1,
        issued_ms: 1_795_288_440_000,
        valid_until_ms: 1_795_374_840_000,
        members: vec![
            member("NORD/MV/gewerberegister", "NORD/MV/gewerberegister/register"),
            member("NORD/SH/luebeck", "NORD/SH/luebeck/gewerbeamt"),
        ],
        security_servers: vec![
            server("NORD/MV/gewerberegister/s1", "NORD/MV/gewerberegister/register", 1),
            server("NORD/SH/luebeck/s1", "NORD/SH/luebeck/gewerbeamt", 4),
        ],
        services: vec![Service {
            id: "NORD/MV/gewerberegister/register/auskunft".into(),
            title: "Gewerbeauskunft".into(),
            kind: ServiceKind::Grpc.into(),
            methods: vec!["/gewerbe.v1.Register/*".into()],
            purposes: vec!["ummeldung".into()],
        }],
        purposes: vec![catalogue_entry("ummeldung")],
        legal_bases: vec![catalogue_entry("GewO-14")],
        trust_services: Some(TrustServices::default()),
        administrators: Vec::new(),
        policy: Some(Policy {
            merge_delay_ms: 86_400_000,
            ocsp_max_age_ms: 3_600_000,
            approval_by_other_class: true,
            algorithms: vec![Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn member(id: &str, subsystem: &str) -> Member {
    let subsystems = vec![Subsystem { id: subsystem.into(), name: "Beispiel".into() }];
    Member { id: id.into(), name: "Beispiel".into(), subsystems }
}

fn server(id: &str, subsystem: &str, key: u8) -> SecurityServer {
    SecurityServer {
        id: id.into(),
        address: "127.0.0.1:7001".into(),
        subsystems: vec![subsystem.into()],
        authentication_keys: vec![Bytes::from(vec![key; 32])],
        signing_keys: vec![Bytes::from(vec![key + 1; 32])],
        logs: vec![LogKey { origin: format!("{id}/1"), public_key: Bytes::from(vec![key + 2; 32]) }],
        suspended: false,
    }
}

pub(crate) fn catalogue_entry(code: &str) -> CatalogueEntry {
    CatalogueEntry {
        code: code.into(),
        text: "Example".into(),
        text_de: "Beispiel".into(),
        citation: "Beispiel, keine Rechtsgrundlage".into(),
    }
}
