//! Responses made for the purpose, each with one thing wrong, and those that OpenSSL made.

use rasn::types::GeneralizedTime;
use rasn_ocsp::{ResponderId, RevokedInfo};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa,
    Issuer, KeyPair, SigningKey,
};

use super::*;

/// 2026-11-22T12:00:00Z
const NOW: Time = Time::from_millis(1_795_348_800_000);
const HOUR: Duration = Duration::from_secs(60 * 60);
const EXPECTED: Expected<'static> = Expected { at: NOW, max_age: HOUR, nonce: None };

macro_rules! vector {
    ($name:literal) => {
        &include_bytes!(concat!("../../../vectors/openssl/", $name))[..]
    };
}

/// An authority, a certificate of it, and a responder that it certified.
struct World {
    authority: Certificate,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// Who signs: a certificate and its key.
struct Signer {
    certificate: Certificate,
    key: KeyPair,
}

/// A response, correct until a test changes it.
struct Draft {
    single: SingleResponse,
    more: Vec<SingleResponse>,
    extensions: Option<Extensions>,
    responder: Option<ResponderId>,
}

impl World {
    fn new() -> Self {
        let (params, key) = (authority("authority"), KeyPair::generate().unwrap());
        let authority = read(params.self_signed(&key).unwrap().der());
        let issuer = Issuer::new(params, key);
        let leaf = params_of("leaf").signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        Self { certificate: read(leaf.der()), authority, issuer }
    }

    fn responder(&self, change: impl FnOnce(&mut CertificateParams)) -> Signer {
        let (mut params, key) = (params_of("responder"), KeyPair::generate().unwrap());
        params.extended_key_usages = vec![Purpose::OcspSigning];
        change(&mut params);
        Signer { certificate: read(params.signed_by(&key, &self.issuer).unwrap().der()), key }
    }

    fn draft(&self) -> Draft {
        let single = SingleResponse {
            cert_id: cert_id(&self.certificate, &self.authority, &SHA256, SHA_256).unwrap(),
            cert_status: CertStatus::Good,
            this_update: date(NOW.minus(HOUR / 2)),
            next_update: Some(date(NOW.plus(HOUR))),
            single_extensions: None,
        };
        Draft { single, more: Vec::new(), extensions: None, responder: None }
    }

    fn verify(&self, response: &[u8]) -> Result<Good, OcspError> {
        verify(response, &self.certificate, &self.authority, EXPECTED)
    }

    /// Why a response by a proper responder is refused after `change`.
    fn refused(&self, change: impl FnOnce(&mut Draft)) -> OcspError {
        let mut draft = self.draft();
        change(&mut draft);
        self.verify(&draft.signed_by(&self.responder(|_| {}))).unwrap_err()
    }
}

impl Draft {
    fn signed_by(self, signer: &Signer) -> Vec<u8> {
        let key = digest(&SHA1_FOR_LEGACY_USE_ONLY, signer.certificate.public_key_bits());
        let by_key = || ResponderId::ByKey(OctetString::from(key.as_ref().to_vec()));
        let data = der::encode(&ResponseData {
            version: 0.into(),
            responder_id: self.responder.unwrap_or_else(by_key),
            produced_at: self.single.this_update,
            responses: [vec![self.single], self.more].concat(),
            response_extensions: self.extensions,
        });
        wrap(&data, &signer.key.sign(&data).unwrap(), signer.certificate.der())
    }
}

fn params_of(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let day = time::Duration::days(1);
    let noon = rcgen::date_time_ymd(2026, 11, 22) + time::Duration::hours(12);
    (params.not_before, params.not_after) = (noon - day, noon + day);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params_of(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn read(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}

fn date(time: Time) -> GeneralizedTime {
    time.to_string().parse().unwrap()
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..=0x7f => vec![length[1]],
        0x80..=0xff => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag], &length[..], content].concat()
}

fn wrap(data: &[u8], signature: &[u8], certificate: &[u8]) -> Vec<u8> {
    let algorithm = [0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let bits = tlv(0x03, &[&[0], signature].concat());
    let certificates = tlv(0xa0, &tlv(0x30, certificate));
    let basic = tlv(0x30, &[data, &algorithm, &bits, &certificates].concat());
    let kind = [0x06, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let bytes = tlv(0x30, &[&kind[..], &tlv(0x04, &basic)].concat());
    tlv(0x30, &[&[0x0a, 1, 0], &tlv(0xa0, &bytes)[..]].concat())
}

fn extension(critical: bool) -> Extensions {
    let extn_id = ObjectIdentifier::new_unchecked((&[1, 2, 3][..]).into());
    Extensions::from(vec![Extension { extn_id, critical, extn_value: OctetString::from(vec![5, 0]) }])
}

#[test]
fn good_is_said_by_the_issuer_or_by_its_responder() {
    let world = World::new();
    let response = world.draft().signed_by(&world.responder(|_| {}));
    let good = world.verify(&response).unwrap();
    assert_eq!(good.certificate(), world.certificate.digest());
    assert_eq!(good.response(), Digest::of(&response));
    assert_eq!(good.this_update(), NOW.minus(HOUR / 2));
    assert_eq!(good.expires(), NOW.plus(HOUR / 2), "the policy's age ends before nextUpdate");

    let mut named = world.draft();
    let name: rasn_pkix::Name = der::decode(world.responder(|_| {}).certificate.subject_der()).unwrap();
    named.responder = Some(ResponderId::ByName(name));
    assert!(world.verify(&named.signed_by(&world.responder(|_| {}))).is_ok());

    let mut by_sha_1 = world.draft();
    by_sha_1.single.cert_id =
        cert_id(&world.certificate, &world.authority, &SHA1_FOR_LEGACY_USE_ONLY, SHA_1).unwrap();
    assert!(world.verify(&by_sha_1.signed_by(&world.responder(|_| {}))).is_ok());
}

#[test]
fn responders_that_the_issuer_did_not_certify_are_refused() {
    let world = World::new();
    let response = |signer: &Signer| world.verify(&world.draft().signed_by(signer)).unwrap_err();
    let other = World::new().responder(|_| {});
    assert_eq!(response(&other), OcspError::UnknownResponder, "of a namesake of the authority");
    let no_purpose = world.responder(|params| params.extended_key_usages.clear());
    assert_eq!(response(&no_purpose), OcspError::UnknownResponder, "without the usage");
    let tls = world.responder(|params| params.extended_key_usages = vec![Purpose::ServerAuth]);
    assert_eq!(response(&tls), OcspError::UnknownResponder, "for TLS");
    let unknown = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
    let critical = world.responder(|params| {
        let mut unknown = unknown;
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    assert_eq!(response(&critical), OcspError::UnknownResponder, "with an unknown critical extension");
    let ended = world.responder(|params| params.not_after = rcgen::date_time_ymd(2026, 11, 22));
    assert_eq!(response(&ended), OcspError::ResponderNotValid(NOW));

    let mut nobody = world.draft();
    nobody.responder = Some(ResponderId::ByKey(OctetString::from(vec![0; 20])));
    let refused = world.verify(&nobody.signed_by(&world.responder(|_| {}))).unwrap_err();
    assert_eq!(refused, OcspError::UnknownResponder);
}

#[test]
fn the_issuers_name_without_its_key_is_nothing() {
    let world = World::new();
    let posing = Signer { certificate: world.authority.clone(), key: KeyPair::generate().unwrap() };
    let refused = world.verify(&world.draft().signed_by(&posing)).unwrap_err();
    assert_eq!(refused, OcspError::Signature);
}

#[test]
fn every_altered_byte_is_refused() {
    let world = World::new();
    let response = world.draft().signed_by(&world.responder(|_| {}));
    for byte in 0..response.len() {
        let mut altered = response.clone();
        altered[byte] ^= 1;
        assert!(world.verify(&altered).is_err(), "byte {byte}");
    }
    for length in 0..response.len() {
        assert!(world.verify(&response[..length]).is_err(), "cut at {length}");
    }
    assert_eq!(world.verify(&[&response[..], &[0]].concat()).unwrap_err(), OcspError::Malformed);
    let large = vec![0x30; MAX_RESPONSE + 1];
    assert_eq!(world.verify(&large).unwrap_err(), OcspError::TooLarge(MAX_RESPONSE + 1));
}

#[test]
fn revoked_and_unknown_are_told_apart() {
    let world = World::new();
    let at = NOW.minus(HOUR);
    let revoked =
        |reason| CertStatus::Revoked(RevokedInfo { revocation_time: date(at), revocation_reason: reason });
    let error = world.refused(|draft| draft.single.cert_status = revoked(Some(CrlReason::KeyCompromise)));
    assert_eq!(error, OcspError::Revoked { at, reason: "keyCompromise" });
    let error = world.refused(|draft| {
        draft.single.cert_status = revoked(None);
        draft.single.this_update = date(NOW.minus(100 * HOUR));
    });
    assert_eq!(error, OcspError::Revoked { at, reason: "unspecified" }, "however old");
    let error = world.refused(|draft| draft.single.cert_status = CertStatus::Unknown(()));
    assert_eq!(error, OcspError::Unknown);
}

#[test]
fn an_answer_counts_for_its_time_only() {
    let world = World::new();
    let old = NOW.minus(HOUR + Duration::from_secs(1));
    let error = world.refused(|draft| {
        draft.single.this_update = date(old);
        draft.single.next_update = None;
    });
    assert_eq!(error, OcspError::Expired { this_update: old, at: NOW });
    let recent = NOW.minus(HOUR / 2);
    let error =
        world.refused(|draft| draft.single.next_update = Some(date(NOW.minus(Duration::from_secs(1)))));
    assert_eq!(error, OcspError::Expired { this_update: recent, at: NOW });
    let coming = NOW.plus(MAX_SKEW + Duration::from_secs(1));
    let error = world.refused(|draft| draft.single.this_update = date(coming));
    assert_eq!(error, OcspError::NotYetValid { this_update: coming, at: NOW });
}

#[test]
fn an_answer_about_others_is_no_answer() {
    let world = World::new();
    let changes: [fn(&mut CertId); 4] = [
        |id| id.serial_number = 7.into(),
        |id| id.issuer_key_hash = OctetString::from(vec![0; 32]),
        |id| id.issuer_name_hash = OctetString::from(vec![0; 32]),
        |id| id.hash_algorithm.algorithm = ObjectIdentifier::new_unchecked(SHA_1.into()),
    ];
    for change in changes {
        assert_eq!(world.refused(|draft| change(&mut draft.single.cert_id)), OcspError::OtherCertificate);
    }
    let twice = world.refused(|draft| draft.more.push(draft.single.clone()));
    assert_eq!(twice, OcspError::Malformed);
    let mut among_others = world.draft();
    let mut other = among_others.single.clone();
    other.cert_id.serial_number = 7.into();
    among_others.more.push(other);
    assert!(world.verify(&among_others.signed_by(&world.responder(|_| {}))).is_ok());
}

#[test]
fn unknown_critical_extensions_are_refused() {
    let world = World::new();
    let error = world.refused(|draft| draft.extensions = Some(extension(true)));
    assert_eq!(error, OcspError::CriticalExtension);
    let error = world.refused(|draft| draft.single.single_extensions = Some(extension(true)));
    assert_eq!(error, OcspError::CriticalExtension);
    let mut harmless = world.draft();
    harmless.extensions = Some(extension(false));
    assert!(world.verify(&harmless.signed_by(&world.responder(|_| {}))).is_ok());
}

#[test]
fn the_nonce_is_the_requests() {
    let world = World::new();
    let request: OcspRequest =
        der::decode(&request(&world.certificate, &world.authority, Some(&[7; 16])).unwrap()).unwrap();
    let mut draft = world.draft();
    assert_eq!(request.tbs_request.request_list[0].req_cert, draft.single.cert_id);
    draft.extensions = request.tbs_request.request_extensions;
    let response = draft.signed_by(&world.responder(|_| {}));
    let with = |nonce| {
        let expected = Expected { nonce, ..EXPECTED };
        verify(&response, &world.certificate, &world.authority, expected).map(|_| ())
    };
    assert_eq!(with(Some(&[7; 16][..])), Ok(()));
    assert_eq!(with(None), Ok(()));
    assert_eq!(with(Some(&[8; 16][..])), Err(OcspError::Nonce));
    let without = world.draft().signed_by(&world.responder(|_| {}));
    let expected = Expected { nonce: Some(&[7; 16]), ..EXPECTED };
    let refused = verify(&without, &world.certificate, &world.authority, expected).unwrap_err();
    assert_eq!(refused, OcspError::Nonce);
}

#[test]
fn a_responders_refusal_is_told_in_its_words() {
    let world = World::new();
    for (status, word) in [
        (1, "malformedRequest"),
        (2, "internalError"),
        (3, "tryLater"),
        (5, "sigRequired"),
        (6, "unauthorized"),
    ] {
        assert_eq!(world.verify(&[0x30, 3, 0x0a, 1, status]).unwrap_err(), OcspError::Refused(word));
    }
    assert_eq!(world.verify(&[0x30, 3, 0x0a, 1, 4]).unwrap_err(), OcspError::Malformed);
}

#[test]
fn openssl_made_these() {
    let expected = Expected { max_age: 100 * HOUR, ..EXPECTED };
    for (sub, leaf, revoked, responses) in [
        (
            vector!("ec-sub.der"),
            vector!("ec-signing.der"),
            vector!("ec-revoked.der"),
            [vector!("ec-good.ocsp"), vector!("ec-direct.ocsp"), vector!("ec-revoked.ocsp")],
        ),
        (
            vector!("rsa-sub.der"),
            vector!("rsa-signing.der"),
            vector!("rsa-revoked.der"),
            [vector!("rsa-good.ocsp"), vector!("rsa-direct.ocsp"), vector!("rsa-revoked.ocsp")],
        ),
    ] {
        let (issuer, leaf, revoked) = (read(sub), read(leaf), read(revoked));
        assert!(verify(responses[0], &leaf, &issuer, expected).is_ok());
        assert!(verify(responses[1], &leaf, &issuer, expected).is_ok());
        let error = verify(responses[2], &revoked, &issuer, expected).unwrap_err();
        assert!(matches!(error, OcspError::Revoked { reason: "keyCompromise", .. }), "{error}");
        let error = verify(responses[0], &revoked, &issuer, expected).unwrap_err();
        assert_eq!(error, OcspError::OtherCertificate);
    }
}
