//! Tokens made for the purpose and properly signed, each with one thing wrong.

use rasn::prelude::{ObjectIdentifier, OctetString};
use rasn_cms::tsp::MessageImprint;
use rasn_pkix::{AlgorithmIdentifier, Extension, Extensions};
use rcgen::{CertificateParams, CustomExtension, KeyPair, SigningKey};

use super::*;

const SHA256_ID: &[u8] = &[0x30, 11, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const ECDSA_ID: &[u8] = &[0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// id-kp-timeStamping, alone and with clientAuth beside it.
const STAMPING: &[u8] = &[0x30, 10, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];
const STAMPING_AND_MORE: &[u8] =
    &[0x30, 20, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A token, correct until a test changes it.
struct Draft {
    usage: &'static [u8],
    critical: bool,
    info: TstInfo,
    content_type: &'static [u8],
    signed_digest: Option<[u8; 32]>,
    certificate_digest: Option<[u8; 32]>,
    digest_algorithm: Vec<u8>,
}

fn about() -> Digest {
    Digest::of(b"what shall be proved")
}

fn draft() -> Draft {
    Draft {
        usage: STAMPING,
        critical: true,
        info: TstInfo {
            version: 1.into(),
            policy: oid(&[1, 2, 3]),
            message_imprint: MessageImprint {
                hash_algorithm: AlgorithmIdentifier { algorithm: oid(SHA_256), parameters: None },
                hashed_message: OctetString::from(about().as_bytes().to_vec()),
            },
            serial_number: 7.into(),
            gen_time: "2026-11-22T12:00:00Z".parse().unwrap(),
            accuracy: None,
            ordering: false,
            nonce: None,
            tsa: None,
            extensions: None,
        },
        content_type: TST_INFO,
        signed_digest: None,
        certificate_digest: None,
        digest_algorithm: SHA256_ID.to_vec(),
    }
}

impl Draft {
    fn verified(self) -> Result<Timestamp, TokenError> {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certificate(&key);
        verify(&self.token(&certificate, &key), &about(), None, &[certificate.der()])
    }

    fn certificate(&self, key: &KeyPair) -> Certificate {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 11, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 1);
        let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], self.usage.to_vec());
        usage.set_criticality(self.critical);
        params.custom_extensions = vec![usage];
        Certificate::from_der(params.self_signed(key).unwrap().der()).unwrap()
    }

    fn token(&self, certificate: &Certificate, key: &KeyPair) -> Vec<u8> {
        let info = der::encode(&self.info);
        let signed_digest = self.signed_digest.unwrap_or(*Digest::of(&info).as_bytes());
        let bound = self.certificate_digest.unwrap_or(*certificate.digest().as_bytes());
        let bound = tlv(der::OCTET_STRING, &[&bound]);
        let attributes = [
            attribute(CONTENT_TYPE, &tlv(der::OID, &[self.content_type])),
            attribute(MESSAGE_DIGEST, &tlv(der::OCTET_STRING, &[&signed_digest])),
            attribute(
                SIGNING_CERTIFICATE_V2,
                &tlv(der::SEQUENCE, &[&tlv(der::SEQUENCE, &[&tlv(der::SEQUENCE, &[&bound])])]),
            ),
        ]
        .concat();
        let signature = key.sign(&tlv(der::SET, &[&attributes])).unwrap();
        let serial = tlv(der::INTEGER, &[certificate.serial()]);
        let signer = [
            &[der::INTEGER, 1, 1][..],
            &tlv(der::SEQUENCE, &[certificate.issuer_der(), &serial]),
            &self.digest_algorithm,
            &tlv(der::context(0), &[&attributes]),
            ECDSA_ID,
            &tlv(der::OCTET_STRING, &[&signature]),
        ];
        let content = tlv(der::context(0), &[&tlv(der::OCTET_STRING, &[&info])]);
        let data = [
            &[der::INTEGER, 1, 3][..],
            &tlv(der::SET, &[SHA256_ID]),
            &tlv(der::SEQUENCE, &[&tlv(der::OID, &[TST_INFO]), &content]),
            &tlv(der::SET, &[&tlv(der::SEQUENCE, &signer)]),
        ];
        let data = tlv(der::context(0), &[&tlv(der::SEQUENCE, &data)]);
        tlv(der::SEQUENCE, &[&tlv(der::OID, &[SIGNED_DATA]), &data])
    }
}

fn oid(arcs: &'static [u32]) -> ObjectIdentifier {
    ObjectIdentifier::new_unchecked(arcs.into())
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(der::SEQUENCE, &[&tlv(der::OID, &[kind]), &tlv(der::SET, &[value])])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..=0x7f => vec![length[1]],
        0x80..=0xff => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag], &length[..], &content].concat()
}

/// Why a token is refused after `change`.
fn refused(change: impl FnOnce(&mut Draft)) -> TokenError {
    let mut draft = draft();
    change(&mut draft);
    draft.verified().unwrap_err()
}

#[test]
fn the_draft_is_correct() {
    let stamp = draft().verified().unwrap();
    assert_eq!(stamp.time().to_string(), "2026-11-22T12:00:00.000Z");
    assert_eq!((stamp.policy(), stamp.serial(), stamp.accuracy()), ("1.2.3", &[7][..], None));
}

#[test]
fn the_certificate_is_for_timestamping_critically_and_alone() {
    assert_eq!(refused(|draft| draft.critical = false), TokenError::NotForTimestamping);
    assert_eq!(refused(|draft| draft.usage = STAMPING_AND_MORE), TokenError::NotForTimestamping);
}

#[test]
fn the_certificate_was_valid_at_the_time_stated() {
    for time in ["2026-10-31T23:59:59Z", "2026-12-01T00:00:01Z"] {
        let error = refused(|draft| draft.info.gen_time = time.parse().unwrap());
        assert!(matches!(error, TokenError::AuthorityNotValid(_)), "{time}: {error}");
    }
}

#[test]
fn the_signed_attributes_are_those_of_this_token() {
    let error = refused(|draft| draft.content_type = SIGNED_DATA);
    assert_eq!(error, TokenError::Attribute("contentType"));
    let error = refused(|draft| draft.signed_digest = Some([0; 32]));
    assert_eq!(error, TokenError::Attribute("messageDigest"));
    let error = refused(|draft| draft.certificate_digest = Some([0; 32]));
    assert_eq!(error, TokenError::UnknownAuthority, "bound to another certificate");
}

#[test]
fn digests_are_of_the_sha_2_family() {
    let sha_1 = vec![0x30, 7, 0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a];
    assert_eq!(refused(|draft| draft.digest_algorithm = sha_1), TokenError::Signature);
    let with_parameters = [&[0x30, 14][..], &SHA256_ID[2..], &[2, 1, 0]].concat();
    assert_eq!(refused(|draft| draft.digest_algorithm = with_parameters), TokenError::Malformed);
}

#[test]
fn the_info_is_of_this_version_without_unknown_critical_parts() {
    assert_eq!(refused(|draft| draft.info.version = 2.into()), TokenError::Malformed);
    let unknown = Extension { extn_id: oid(&[1, 2, 3]), critical: true, extn_value: vec![5, 0].into() };
    let error = refused(|draft| draft.info.extensions = Some(Extensions::from(vec![unknown])));
    assert_eq!(error, TokenError::CriticalExtension);
    let other = |draft: &mut Draft| draft.info.message_imprint.hash_algorithm.algorithm = oid(&[1, 2, 3]);
    assert_eq!(refused(other), TokenError::OtherDigest);
    let wide = Accuracy { seconds: None, millis: Some(1000.into()), micros: None };
    assert_eq!(refused(|draft| draft.info.accuracy = Some(wide)), TokenError::Malformed);
}

#[test]
fn another_key_is_not_the_authoritys() {
    let (draft, key, other) = (draft(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = draft.certificate(&key);
    let forged = draft.token(&certificate, &other);
    let refused = verify(&forged, &about(), None, &[certificate.der()]).unwrap_err();
    assert_eq!(refused, TokenError::Signature);
}
