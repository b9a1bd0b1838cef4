//! Chains made for the purpose, each with one thing wrong, and those that OpenSSL made.

use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose as Usage, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MEMBER: &str = "urn:trave:member:NORD/SH/luebeck";
const SERVER: &str = "urn:trave:server:NORD/SH/luebeck/s1";

/// 2026-11-22T12:00:00Z
const NOW: Time = Time::from_millis(1_795_348_800_000);

macro_rules! vector {
    ($name:literal) => {
        &include_bytes!(concat!("../../vectors/openssl/", $name))[..]
    };
}

/// What a certificate of a test is made of, correct until a test changes it.
struct Draft {
    params: CertificateParams,
    key: KeyPair,
}

impl Draft {
    fn of(profile: Profile) -> Self {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (at(NOW.minus(DAY)), at(NOW.plus(DAY)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![uri(MEMBER), uri(SERVER)];
        params.key_usages = vec![Usage::DigitalSignature];
        params.extended_key_usages = match profile {
            Profile::Authentication => vec![Purpose::ClientAuth, Purpose::ServerAuth],
            Profile::Signing => vec![Purpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 36])],
        };
        if profile == Profile::Signing {
            params.key_usages.push(Usage::ContentCommitment);
        }
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn signed_by(&self, authority: &Authority) -> Vec<u8> {
        self.params.signed_by(&self.key, &authority.issuer).unwrap().der().to_vec()
    }
}

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn root(name: &str) -> Self {
        Self::made(authority_params(name), KeyPair::generate().unwrap())
    }

    fn made(params: CertificateParams, key: KeyPair) -> Self {
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn below(&self, name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(NOW.minus(30 * DAY)), at(NOW.plus(30 * DAY)));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign];
    params
}

fn at(time: Time) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(time.as_secs()).unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// Verifies a chain of one for `profile`, now.
fn verified(draft: &Draft, profile: Profile) -> Result<VerifiedChain, ChainError> {
    let root = Authority::root("root");
    VerifiedChain::verify(&[draft.signed_by(&root)], &[&root.der], profile, NOW)
}

/// Why a signing certificate is refused after `change`.
fn refused(change: impl FnOnce(&mut Draft)) -> ChainError {
    let mut draft = Draft::of(Profile::Signing);
    change(&mut draft);
    verified(&draft, Profile::Signing).unwrap_err()
}

#[test]
fn a_chain_says_who_and_where() {
    for profile in [Profile::Authentication, Profile::Signing] {
        let draft = Draft::of(profile);
        let chain = verified(&draft, profile).unwrap();
        let subject = chain.subject();
        assert_eq!(subject.member.as_str(), "NORD/SH/luebeck");
        assert_eq!(subject.server.as_str(), "NORD/SH/luebeck/s1");
        assert_eq!(
            subject.spki_digest,
            Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&draft.key))
        );
        assert_eq!(subject.digest, chain.certificate().digest());
        assert_eq!(chain.issuer(), chain.authority());
        assert_eq!(chain.not_after(), NOW.plus(DAY));
        let signature = rcgen::SigningKey::sign(&draft.key, b"message").unwrap();
        assert_eq!(chain.verify_signature(b"message", &signature), Ok(()));
        assert_eq!(chain.verify_signature(b"massage", &signature), Err(SignatureInvalid));
    }
}

#[test]
fn one_profile_does_not_pass_for_the_other() {
    let signing = Draft::of(Profile::Signing);
    assert_eq!(
        verified(&signing, Profile::Authentication).unwrap_err(),
        ChainError::Profile(Profile::Authentication)
    );
    let authentication = Draft::of(Profile::Authentication);
    assert_eq!(
        verified(&authentication, Profile::Signing).unwrap_err(),
        ChainError::Profile(Profile::Signing)
    );
}

#[test]
fn usages_are_those_of_the_profile_and_no_others() {
    let changes: [fn(&mut Draft); 6] = [
        |draft| draft.params.key_usages = vec![Usage::DigitalSignature],
        |draft| draft.params.key_usages.push(Usage::KeyCertSign),
        |draft| draft.params.key_usages.clear(),
        |draft| draft.params.extended_key_usages.clear(),
        |draft| draft.params.extended_key_usages.push(Purpose::ClientAuth),
        |draft| draft.params.extended_key_usages = vec![Purpose::Any],
    ];
    for change in changes {
        assert_eq!(refused(change), ChainError::Profile(Profile::Signing));
    }
}

#[test]
fn names_are_exactly_one_member_and_one_server() {
    let dns = SanType::DnsName(Ia5String::try_from("luebeck.example").unwrap());
    for names in [
        vec![],
        vec![uri(MEMBER)],
        vec![uri(SERVER)],
        vec![uri(MEMBER), uri(MEMBER), uri(SERVER)],
        vec![uri(MEMBER), uri(SERVER), uri(SERVER)],
        vec![uri(MEMBER), uri(SERVER), uri("https://luebeck.example")],
        vec![uri(MEMBER), uri(SERVER), dns],
        vec![uri("URN:trave:member:NORD/SH/luebeck"), uri(SERVER)],
    ] {
        let shown = format!("{names:?}");
        assert_eq!(refused(|draft| draft.params.subject_alt_names = names), ChainError::Names, "{shown}");
    }
    for (member, server) in [(MEMBER, "urn:trave:server:NORD/SH"), ("urn:trave:member:NORD/SH/a b", SERVER)] {
        let error = refused(|draft| draft.params.subject_alt_names = vec![uri(member), uri(server)]);
        assert!(matches!(error, ChainError::Identifier(_)), "{error}");
    }
}

#[test]
fn a_server_signs_for_members_it_hosts_but_authenticates_as_its_owner_alone() {
    let hosted = vec![uri("urn:trave:member:NORD/SH/kiel"), uri(SERVER)];
    let mut signing = Draft::of(Profile::Signing);
    signing.params.subject_alt_names = hosted.clone();
    let chain = verified(&signing, Profile::Signing).unwrap();
    assert_eq!(chain.subject().member.as_str(), "NORD/SH/kiel");
    let mut authentication = Draft::of(Profile::Authentication);
    authentication.params.subject_alt_names = hosted;
    assert_eq!(verified(&authentication, Profile::Authentication).unwrap_err(), ChainError::Foreign);
    let elsewhere = vec![uri("urn:trave:member:SUED/SH/luebeck"), uri(SERVER)];
    assert_eq!(refused(|draft| draft.params.subject_alt_names = elsewhere), ChainError::Foreign);
}

#[test]
fn validity_is_that_of_the_whole_path() {
    let draft = Draft::of(Profile::Signing);
    let root = Authority::root("root");
    let chain = [draft.signed_by(&root)];
    let verify = |time| VerifiedChain::verify(&chain, &[&root.der], Profile::Signing, time);
    assert!(verify(NOW.minus(DAY)).is_ok() && verify(NOW.plus(DAY)).is_ok(), "both ends are included");
    let early = NOW.minus(DAY + Duration::from_secs(1));
    let expected = ChainError::NotYetValid { not_before: NOW.minus(DAY), at: early };
    assert_eq!(verify(early).unwrap_err(), expected);
    let late = NOW.plus(DAY + Duration::from_secs(1));
    assert_eq!(verify(late).unwrap_err(), ChainError::Expired { not_after: NOW.plus(DAY), at: late });

    let mut params = authority_params("short-lived");
    params.not_after = at(NOW.minus(DAY / 2));
    let ended = Authority::made(params, KeyPair::generate().unwrap());
    let refused = VerifiedChain::verify(&[draft.signed_by(&ended)], &[&ended.der], Profile::Signing, NOW);
    assert_eq!(refused.unwrap_err(), ChainError::Expired { not_after: NOW.minus(DAY / 2), at: NOW });
    let before_1970 = VerifiedChain::verify(&chain, &[&root.der], Profile::Signing, Time::from_millis(-1));
    assert!(before_1970.is_err());
}

#[test]
fn a_renewed_authority_with_the_same_key_counts() {
    let (old, key) = (authority_params("root"), KeyPair::generate().unwrap());
    let mut ended = old.clone();
    ended.not_after = at(NOW.minus(DAY));
    let ended = ended.self_signed(&key).unwrap().der().to_vec();
    let renewed = Authority::made(old, key);
    let chain = [Draft::of(Profile::Signing).signed_by(&renewed)];
    let verified = VerifiedChain::verify(&chain, &[&ended, &renewed.der], Profile::Signing, NOW).unwrap();
    assert_eq!(verified.authority().der(), &renewed.der);
}

#[test]
fn only_authorities_of_the_configuration_count() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let draft = Draft::of(Profile::Signing);
    let verify = |chain: &[Vec<u8>], authorities: &[&Vec<u8>]| {
        VerifiedChain::verify(chain, authorities, Profile::Signing, NOW).map(|_| ()).unwrap_err()
    };
    assert_eq!(verify(&[draft.signed_by(&other)], &[&root.der]), ChainError::UnknownAuthority);
    assert_eq!(verify(&[draft.signed_by(&root)], &[]), ChainError::UnknownAuthority);
    let namesake = Authority::root("root");
    assert_eq!(verify(&[draft.signed_by(&namesake)], &[&root.der]), ChainError::Signature);
    assert_eq!(verify(&[draft.signed_by(&root)], &[&vec![0x30, 0]]), ChainError::Authorities);
    let self_made = draft.params.self_signed(&draft.key).unwrap().der().to_vec();
    assert_eq!(verify(&[self_made], &[&root.der]), ChainError::UnknownAuthority);
}

#[test]
fn an_authority_is_no_security_server_and_the_other_way_round() {
    let root = Authority::root("root");
    let mut draft = Draft::of(Profile::Signing);
    draft.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(matches!(verified(&draft, Profile::Signing).unwrap_err(), ChainError::Rule(_)));

    let server = Draft::of(Profile::Signing);
    let server_der = server.signed_by(&root);
    let posing = Authority { der: server_der.clone(), issuer: Issuer::new(server.params, server.key) };
    let chain = [Draft::of(Profile::Signing).signed_by(&posing), server_der];
    let refused = VerifiedChain::verify(&chain, &[&root.der], Profile::Signing, NOW).unwrap_err();
    assert!(matches!(refused, ChainError::Rule(_)), "{refused}");
}

#[test]
fn an_authority_without_the_usage_certifies_nothing() {
    let mut params = authority_params("root");
    params.key_usages = vec![Usage::CrlSign];
    let root = Authority::made(params, KeyPair::generate().unwrap());
    let chain = [Draft::of(Profile::Signing).signed_by(&root)];
    let refused = VerifiedChain::verify(&chain, &[&root.der], Profile::Signing, NOW).unwrap_err();
    assert!(matches!(refused, ChainError::Rule(_)), "{refused}");
}

#[test]
fn a_chain_is_exactly_the_path() {
    let root = Authority::root("root");
    let between = root.below("between");
    let below = between.below("below");
    let leaf = Draft::of(Profile::Signing).signed_by(&below);
    let verify = |chain: &[&Vec<u8>]| VerifiedChain::verify(chain, &[&root.der], Profile::Signing, NOW);
    let verified = verify(&[&leaf, &below.der, &between.der]).unwrap();
    assert_eq!(verified.issuer().der(), &below.der);
    assert_eq!(verified.certificates().count(), 3);
    assert_eq!(verify(&[&leaf, &between.der, &below.der]).unwrap_err(), ChainError::NotThePath);
    assert_eq!(verify(&[&leaf, &below.der]).unwrap_err(), ChainError::UnknownAuthority);
    let with_root = verify(&[&leaf, &below.der, &between.der, &root.der]);
    assert_eq!(with_root.unwrap_err(), ChainError::NotThePath);
    let five = [&leaf, &below.der, &between.der, &root.der, &root.der];
    assert_eq!(verify(&five).unwrap_err(), ChainError::Length(5));
    assert_eq!(verify(&[]).unwrap_err(), ChainError::Length(0));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let root = Authority::root("root");
    let leaf = Draft::of(Profile::Signing).signed_by(&root);
    let verify = |chain: &[&Vec<u8>]| {
        VerifiedChain::verify(chain, &[&root.der], Profile::Signing, NOW).map(|_| ()).unwrap_err()
    };
    let longer = [&leaf[..], &[0]].concat();
    let expected = ChainError::Certificate { position: 1, source: CertificateError::Malformed };
    assert_eq!(verify(&[&longer]), expected);
    let huge = vec![0x30; MAX_CERTIFICATE + 1];
    let source = CertificateError::TooLarge(MAX_CERTIFICATE + 1);
    assert_eq!(verify(&[&leaf, &huge]), ChainError::Certificate { position: 2, source });
    for byte in 0..leaf.len() {
        let mut altered = leaf.clone();
        altered[byte] ^= 1;
        assert!(
            VerifiedChain::verify(&[&altered], &[&root.der], Profile::Signing, NOW).is_err(),
            "byte {byte}"
        );
    }
}

#[test]
fn the_algorithm_follows_from_the_key() {
    for (algorithm, expected) in [
        (&PKCS_ECDSA_P384_SHA384, SignatureAlgorithm::EcdsaP384Sha384),
        (&PKCS_ED25519, SignatureAlgorithm::Ed25519),
    ] {
        let mut draft = Draft::of(Profile::Signing);
        draft.key = KeyPair::generate_for(algorithm).unwrap();
        let chain = verified(&draft, Profile::Signing).unwrap();
        assert_eq!(chain.subject().public_key.algorithm(), expected);
        let signature = rcgen::SigningKey::sign(&draft.key, b"message").unwrap();
        assert_eq!(chain.verify_signature(b"message", &signature), Ok(()));
    }
    for algorithm in SignatureAlgorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
    }
    assert_eq!("rsa-pkcs1-sha256".parse::<SignatureAlgorithm>(), Err(KeyError::UnknownAlgorithm));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let key = Certificate::from_der(vector!("rsa-signing.der")).unwrap();
    assert_eq!(key.public_key().unwrap().algorithm(), SignatureAlgorithm::RsaPssSha256);
    // An RSA key of 1024 bits: the modulus is 128 bytes, the exponent 65537.
    let modulus = [&[0x02, 0x81, 0x81, 0x00][..], &[0xc1; 128]].concat();
    let numbers = [&modulus[..], &[0x02, 3, 1, 0, 1]].concat();
    let rsa = [&[0x30, 0x81, 0x89][..], &numbers].concat();
    let rsa = [&[0x03, 0x81, 0x8d, 0][..], &rsa].concat();
    let identifier = [0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let spki = [&[0x30, 0x81, 0x9f][..], &identifier, &rsa].concat();
    assert_eq!(PublicKey::from_spki(&spki), Err(KeyError::RsaSize(1024)));

    let p256 = Certificate::from_der(vector!("ec-signing.der")).unwrap();
    let mut compressed_form = p256.spki().to_vec();
    compressed_form[26] = 2;
    assert_eq!(PublicKey::from_spki(&compressed_form), Err(KeyError::Unsupported));
    assert_eq!(PublicKey::from_spki(&[p256.spki(), &[0]].concat()), Err(KeyError::Malformed));
    assert_eq!(PublicKey::from_spki(&[0x30; 4096]), Err(KeyError::Malformed));
}

#[test]
fn openssl_made_these() {
    for (root, sub, leaf) in [
        (vector!("ec-root.der"), vector!("ec-sub.der"), vector!("ec-signing.der")),
        (vector!("rsa-root.der"), vector!("rsa-sub.der"), vector!("rsa-signing.der")),
    ] {
        let chain = VerifiedChain::verify(&[leaf, sub], &[root], Profile::Signing, NOW).unwrap();
        assert_eq!(chain.subject().server.as_str(), "NORD/MV/register/s1");
        assert_eq!(chain.issuer().der(), sub);
    }
}

#[test]
fn a_revocation_list_counts_if_it_is_the_authoritys_whole_and_in_force() {
    let verify = |list: &[u8], authority: &[u8], at| {
        VerifiedRevocationList::verify(list, &Certificate::from_der(authority).unwrap(), at)
    };
    let (list, authority) = (vector!("ec.crl"), vector!("ec-sub.der"));
    let verified = verify(list, authority, NOW).unwrap();
    let revoked = Certificate::from_der(vector!("ec-revoked.der")).unwrap();
    let good = Certificate::from_der(vector!("ec-signing.der")).unwrap();
    assert_eq!(verified.revoked_at(revoked.serial()).unwrap().to_string(), "2025-12-31T00:00:00.000Z");
    assert_eq!(verified.revoked_at(good.serial()), None);
    assert!(verified.next_update() > NOW);

    assert_eq!(verify(list, vector!("ec-root.der"), NOW).unwrap_err(), RevocationListError::Signature);
    for at in [Time::from_millis(0), NOW.plus(4000 * DAY)] {
        assert_eq!(verify(list, authority, at).unwrap_err(), RevocationListError::NotInForce(at));
    }
    for byte in 0..list.len() {
        let mut altered = list.to_vec();
        altered[byte] ^= 1;
        assert!(verify(&altered, authority, NOW).is_err(), "byte {byte}");
    }
}
