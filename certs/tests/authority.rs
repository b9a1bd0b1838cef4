//! What the certification authority issues, refuses, revokes and remembers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;

use common::{DAY, HOUR, START, World, authentication, request, signing};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ED25519, SanType};
use trave_certs::authority::{
    Addresses, AuthorityError, CertificationAuthority, MAX_REQUEST, Reason, Status,
};
use trave_certs::profile::{Profile, ProfileError};
use trave_host::keys::{NoteKey, SigningKey};
use trave_proto::certificate::{
    Certificate, KeyError, Profile as Kind, VerifiedChain, VerifiedRevocationList,
};
use trave_proto::clock::Clock;

#[test]
fn security_servers_certificates_are_what_the_protocol_trusts() {
    let world = World::new();
    for (profile, kind) in [(signing(), Kind::Signing), (authentication(), Kind::Authentication)] {
        let issued = world.issue(&profile);
        let chain = VerifiedChain::verify(&issued.chain, &[world.authority().der()], kind, START).unwrap();
        assert_eq!(chain.subject().member.as_str(), "NORD/SH/luebeck");
        assert_eq!(chain.subject().server.as_str(), "NORD/SH/luebeck/s1");
        assert_eq!(chain.certificate().subject(), "CN=NORD/SH/luebeck/s1");
    }
}

#[test]
fn the_requester_decides_nothing_but_the_key() {
    let world = World::new();
    let mut wishes = CertificateParams::default();
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.subject_alt_names = vec![SanType::URI("urn:trave:member:NORD/MV/other".try_into().unwrap())];
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let request = wishes.serialize_request(&key).unwrap();
    let issued = world.services.authority.issue(&signing(), request.der()).unwrap();
    let chain =
        VerifiedChain::verify(&issued.chain, &[world.authority().der()], Kind::Signing, START).unwrap();
    assert_eq!(chain.subject().member.as_str(), "NORD/SH/luebeck");
    assert_eq!(chain.certificate().spki(), rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let world = World::new();
    let issue = |request: &[u8]| world.services.authority.issue(&signing(), request).unwrap_err();
    let good = request();
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(matches!(issue(&altered), AuthorityError::Possession));
    assert!(matches!(issue(&[&good[..], &[0]].concat()), AuthorityError::Request));
    assert!(matches!(issue(b""), AuthorityError::Request));
    assert!(matches!(issue(&vec![0x30; MAX_REQUEST + 1]), AuthorityError::Request));
    // A key of another kind: the curve secp256k1 instead of P-256, in the request's SubjectPublicKeyInfo.
    let mut other_curve = good;
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = other_curve.windows(p256.len()).position(|window| window == p256).unwrap();
    other_curve[at + 7] = 0x01;
    assert!(matches!(issue(&other_curve), AuthorityError::Key(KeyError::Unsupported)));
    assert_eq!(world.services.authority.issued().unwrap().len(), 2, "only the services' own certificates");
}

#[test]
fn names_that_cannot_be_certified_are_refused() {
    let world = World::new();
    let issue = |profile: &Profile| match world.services.authority.issue(profile, &request()) {
        Err(AuthorityError::Profile(error)) => error,
        other => panic!("{other:?}"),
    };
    let foreign = Profile::Authentication {
        member: "NORD/SH/kiel".parse().unwrap(),
        server: "NORD/SH/luebeck/s1".parse().unwrap(),
    };
    assert!(matches!(issue(&foreign), ProfileError::Foreign { .. }));
    for name in ["", "two\nlines", &"x".repeat(65)] {
        assert_eq!(issue(&Profile::Administrator { name: name.to_owned() }), ProfileError::CommonName);
    }
    for host in ["", "a..b", "-a.example", "*.example", "a b", "a/b", &"x".repeat(64)] {
        let (name, hosts) = ("registry".to_owned(), vec![host.to_owned()]);
        let profile = Profile::TlsServer { name, hosts, addresses: vec![] };
        assert_eq!(issue(&profile), ProfileError::Host(host.to_owned()));
    }
}

#[test]
fn validity_begins_a_little_earlier_and_never_outlives_the_authority() {
    let world = World::new();
    let (_, certificate) = world.signing();
    assert!(certificate.not_before() < START && certificate.not_before() > START.minus(HOUR));
    let forever = 100_000 * DAY;
    let issued = world.services.authority.issue_for(&signing(), &request(), forever).unwrap();
    let long = Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(long.not_after(), world.authority().not_after());
    world.clock.advance(21 * 365 * DAY);
    let refused = world.services.authority.issue(&signing(), &request()).unwrap_err();
    assert!(matches!(refused, AuthorityError::AuthorityNotValid(at) if at == world.clock.now()));
}

#[test]
fn serial_numbers_are_random_and_long() {
    let world = World::new();
    let serials: HashSet<String> = (0..64).map(|_| world.issue(&signing()).serial).collect();
    assert_eq!(serials.len(), 64);
    assert!(serials.iter().any(|serial| serial.len() == 32), "128 bits");
    let first: HashSet<&str> = serials.iter().map(|serial| &serial[..2]).collect();
    assert!(first.len() > 16, "they do not count up: {first:?}");
}

#[test]
fn a_revocation_is_final_and_survives_a_restart() {
    let world = World::new();
    let (issued, certificate) = world.signing();
    let authority = &world.services.authority;
    assert_eq!(authority.status(certificate.serial()).unwrap(), Status::Good);
    assert_eq!(authority.status(&[7]).unwrap(), Status::Unknown);
    world.clock.advance(HOUR);
    let at = authority.revoke(&issued.serial, Reason::KeyCompromise).unwrap();
    assert_eq!(at, world.clock.now());

    let again = authority.revoke(&issued.serial.to_uppercase(), Reason::Superseded).unwrap_err();
    assert!(matches!(again, AuthorityError::AlreadyRevoked { at: first, .. } if first == at));
    for absent in ["07", "not hexadecimal", ""] {
        let refused = authority.revoke(absent, Reason::Superseded).unwrap_err();
        assert!(matches!(refused, AuthorityError::NotIssued(serial) if serial == absent));
    }
    let expected = Status::Revoked { at, reason: Reason::KeyCompromise };
    assert_eq!(world.reopened().authority.status(certificate.serial()).unwrap(), expected);
}

#[test]
fn another_process_is_heard() {
    let world = World::new();
    let other = world.reopened();
    let (issued, certificate) = world.signing();
    assert_eq!(other.authority.status(certificate.serial()).unwrap(), Status::Good);
    other.authority.revoke(&issued.serial, Reason::Superseded).unwrap();
    let status = world.services.authority.status(certificate.serial()).unwrap();
    assert_eq!(status, Status::Revoked { at: START, reason: Reason::Superseded });
    let overview = world.services.authority.issued().unwrap();
    let one = overview.iter().find(|one| one.serial == issued.serial).unwrap();
    assert_eq!((one.profile.as_str(), one.status), ("signing", status));
}

#[test]
fn revocation_lists_are_numbered_and_renewed() {
    let world = World::new();
    let (issued, certificate) = world.signing();
    let authority = &world.services.authority;
    let first = authority.revocation_list().unwrap();
    assert_eq!((first.number, first.next_update), (1, START.plus(DAY)));
    assert_eq!(authority.revocation_list().unwrap(), first, "nothing changed");
    let verify = |list: &[u8]| VerifiedRevocationList::verify(list, world.authority(), world.clock.now());
    assert_eq!(verify(&first.der).unwrap().revoked_at(certificate.serial()), None);

    world.clock.advance(HOUR);
    let at = authority.revoke(&issued.serial, Reason::CessationOfOperation).unwrap();
    let second = authority.revocation_list().unwrap();
    assert_eq!(second.number, 2);
    let listed = verify(&second.der).unwrap().revoked_at(certificate.serial()).unwrap();
    assert_eq!(listed.as_secs(), at.as_secs());

    world.clock.advance(DAY / 2);
    assert_eq!(authority.revocation_list().unwrap().number, 3, "half its validity is over");
    assert_eq!(world.reopened().authority.revocation_list().unwrap().number, 4, "numbers survive a restart");
}

#[test]
fn an_authority_is_not_begun_twice_nor_opened_with_another_key() {
    let world = World::new();
    let clock = || Arc::new(world.clock.clone());
    let other: Arc<SigningKey> = Arc::new(SigningKey::generate().unwrap());
    let opened =
        CertificationAuthority::open(world.directory.path(), other.clone(), clock(), Addresses::default());
    assert!(matches!(opened.unwrap_err(), AuthorityError::OtherCertificate(_)));
    let directory = world.directory.path();
    let created = CertificationAuthority::create(directory, "again", other, clock(), Addresses::default());
    assert!(matches!(created.unwrap_err(), AuthorityError::File(_)));
    let empty = tempfile::tempdir().unwrap();
    let ed25519 = Arc::new(NoteKey::generate().unwrap());
    let created = CertificationAuthority::create(empty.path(), "x", ed25519, clock(), Addresses::default());
    assert!(matches!(created.unwrap_err(), AuthorityError::WrongKey(_)));
}
