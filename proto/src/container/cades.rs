//! The seal as bytes: a detached CMS SignedData (RFC 5652) over the manifest, in the profile CAdES-B-LT of ETSI EN 319 122-1:
//! signed content-type, message-digest, signing-time and signing-certificate-v2; a signature timestamp; the signer's
//! certificate and its issuers; the OCSP answer about it.
//!
//! What is signed begins with the byte of a SET and so never is what this key signs elsewhere, which begins with a tag of text.
//! Written in one way: whoever verifies takes the few free parts out, writes the rest again and compares.

use bytes::Bytes;
use rasn::types::{GeneralizedTime, UtcTime};
use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rustls_pki_types::alg_id;

use crate::certificate::{Certificate, MAX_CHAIN, SignatureAlgorithm, ocsp};
use crate::clock::Time;
use crate::der::{self, NotDer, Reader, Value};

/// Largest seal that is read, in bytes.
pub(super) const MAX_SEAL: usize = 256 * 1024;

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 5];
/// id-aa-signingCertificateV2 (RFC 5035).
const SIGNING_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 47];
/// id-aa-signatureTimeStampToken (RFC 3161 appendix A).
const SIGNATURE_TIMESTAMP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 14];

/// 2050-01-01T00:00:00Z, from which on GeneralizedTime is written (RFC 5652 section 11.3).
const GENERALIZED: i64 = 2_524_608_000;

/// The free parts of a seal.
#[derive(Debug)]
pub(super) struct Seal {
    /// The signer's certificate first, then its issuers up to the authority, which is among them.
    pub(super) certificates: Vec<Certificate>,
    /// By the signer's own clock.
    pub(super) signing_time: Time,
    pub(super) signature: Bytes,
    /// RFC 3161, over the signature.
    pub(super) token: Bytes,
    /// OCSPResponse, DER.
    pub(super) ocsp: Bytes,
}

/// What a key of this kind signs: the signed attributes over the manifest, as a SET (RFC 5652 section 5.4).
pub(super) fn attributes(
    manifest: &[u8],
    signer: &Certificate,
    algorithm: SignatureAlgorithm,
    at: Time,
) -> Option<Vec<u8>> {
    let hash = digest(Suite::of(algorithm).hash, manifest);
    // ESSCertIDv2 with SHA-256, its default; issuer and serial number stand in the SignerInfo.
    let id =
        der::value(der::SEQUENCE, &[&der::value(der::OCTET_STRING, &[certificate_hash(signer).as_ref()])]);
    let certificate = der::value(der::SEQUENCE, &[&der::value(der::SEQUENCE, &[&id])]);
    let members = vec![
        attribute(CONTENT_TYPE, &der::value(der::OID, &[DATA])),
        attribute(SIGNING_TIME, &time(at)?),
        attribute(MESSAGE_DIGEST, &der::value(der::OCTET_STRING, &[hash.as_ref()])),
        attribute(SIGNING_CERTIFICATE, &certificate),
    ];
    Some(der::set_of(der::SET, members))
}

impl Seal {
    /// ContentInfo, DER; none if its time cannot be expressed or there is no certificate.
    pub(super) fn encode(&self, manifest: &[u8], algorithm: SignatureAlgorithm) -> Option<Vec<u8>> {
        let (signer, suite) = (self.certificates.first()?, Suite::of(algorithm));
        let mut attributes = attributes(manifest, signer, algorithm, self.signing_time)?;
        attributes[0] = der::context(0);
        let id =
            der::value(der::SEQUENCE, &[signer.issuer_der(), &der::value(der::INTEGER, &[signer.serial()])]);
        let info = der::value(
            der::SEQUENCE,
            &[
                &der::value(der::INTEGER, &[&[1]]),
                &id,
                &der::value(der::SEQUENCE, &[suite.digest]),
                &attributes,
                &der::value(der::SEQUENCE, &[suite.signature]),
                &der::value(der::OCTET_STRING, &[&self.signature]),
                &der::set_of(der::context(1), vec![attribute(SIGNATURE_TIMESTAMP, &self.token)]),
            ],
        );
        let certificates = self.certificates.iter().map(|one| one.der().to_vec()).collect();
        let data = der::value(
            der::SEQUENCE,
            &[
                // Version 5: its revocation information is of another kind than lists (RFC 5652 section 5.1).
                &der::value(der::INTEGER, &[&[5]]),
                &der::value(der::SET, &[&der::value(der::SEQUENCE, &[suite.digest])]),
                // Detached: the manifest stands beside it.
                &der::value(der::SEQUENCE, &[&der::value(der::OID, &[DATA])]),
                &der::set_of(der::context(0), certificates),
                &ocsp::crls(&self.ocsp),
                &der::value(der::SET, &[&info]),
            ],
        );
        let kind = der::value(der::OID, &[SIGNED_DATA]);
        Some(der::value(der::SEQUENCE, &[&kind, &der::value(der::context(0), &[&data])]))
    }

    /// Takes the free parts out of a seal. What else it says, only writing it again tells.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, NotDer> {
        if bytes.len() > MAX_SEAL {
            return Err(NotDer);
        }
        let mut info = der::only(der::SEQUENCE, bytes)?.inside();
        info.expect(der::OID)?;
        let data = der::only(der::SEQUENCE, info.expect(der::context(0))?.content)?;
        let mut fields = data.inside();
        fields.expect(der::INTEGER)?;
        fields.expect(der::SET)?;
        fields.expect(der::SEQUENCE)?;
        let certificates = read_certificates(fields.expect(der::context(0))?)?;
        let ocsp = Bytes::copy_from_slice(ocsp::of_crls(fields.expect(der::context(1))?)?);
        let mut signer = der::only(der::SEQUENCE, fields.expect(der::SET)?.content)?.inside();
        signer.expect(der::INTEGER)?;
        let mut id = signer.expect(der::SEQUENCE)?.inside();
        let id = (id.expect(der::SEQUENCE)?.raw, id.expect(der::INTEGER)?.content);
        signer.expect(der::SEQUENCE)?;
        let signing_time = read_time(attribute_of(signer.expect(der::context(0))?, SIGNING_TIME)?)?;
        signer.expect(der::SEQUENCE)?;
        let signature = Bytes::copy_from_slice(signer.expect(der::OCTET_STRING)?.content);
        let token = attribute_of(signer.expect(der::context(1))?, SIGNATURE_TIMESTAMP)?;
        Ok(Self {
            certificates: in_order(certificates, id)?,
            signing_time,
            signature,
            token: Bytes::copy_from_slice(token),
            ocsp,
        })
    }
}

/// How a key signs in CMS: contents of the AlgorithmIdentifiers.
struct Suite {
    hash: &'static Algorithm,
    digest: &'static [u8],
    signature: &'static [u8],
}

impl Suite {
    /// ECDSA by RFC 5754, Ed25519 by RFC 8419, RSASSA-PSS by RFC 4056; digests without parameters (RFC 5754 section 2).
    fn of(algorithm: SignatureAlgorithm) -> Self {
        const SHA_256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        const SHA_384: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
        const SHA_512: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
        static ECDSA_P256: rustls_pki_types::AlgorithmIdentifier = alg_id::ECDSA_SHA256;
        static ECDSA_P384: rustls_pki_types::AlgorithmIdentifier = alg_id::ECDSA_SHA384;
        static EDDSA: rustls_pki_types::AlgorithmIdentifier = alg_id::ED25519;
        static PSS: rustls_pki_types::AlgorithmIdentifier = alg_id::RSA_PSS_SHA256;
        let (hash, digest, signature) = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => (&SHA256, SHA_256, &ECDSA_P256),
            SignatureAlgorithm::EcdsaP384Sha384 => (&SHA384, SHA_384, &ECDSA_P384),
            SignatureAlgorithm::Ed25519 => (&SHA512, SHA_512, &EDDSA),
            SignatureAlgorithm::RsaPssSha256 => (&SHA256, SHA_256, &PSS),
        };
        Self { hash, digest, signature }
    }
}

fn certificate_hash(certificate: &Certificate) -> ring::digest::Digest {
    digest(&SHA256, certificate.der())
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    der::value(der::SEQUENCE, &[&der::value(der::OID, &[kind]), &der::value(der::SET, &[value])])
}

/// The first attribute of that kind, with its one value.
fn attribute_of<'a>(attributes: Value<'a>, kind: &[u8]) -> Result<&'a [u8], NotDer> {
    let mut rest = attributes.inside();
    loop {
        let mut fields = rest.expect(der::SEQUENCE)?.inside();
        if fields.expect(der::OID)?.content == kind {
            return fields.expect(der::SET)?.inside().next().map(|value| value.raw);
        }
    }
}

fn read_certificates(set: Value<'_>) -> Result<Vec<Certificate>, NotDer> {
    let (mut rest, mut certificates): (Reader<'_>, Vec<_>) = (set.inside(), Vec::new());
    while !rest.is_empty() {
        // The authority's beside the chain.
        if certificates.len() > MAX_CHAIN {
            return Err(NotDer);
        }
        let der = rest.expect(der::SEQUENCE)?.raw;
        certificates.push(Certificate::from_der(der).map_err(|_| NotDer)?);
    }
    Ok(certificates)
}

/// The signer's certificate, then each one's issuer: the set has them in the order of their bytes.
fn in_order(
    mut certificates: Vec<Certificate>,
    (issuer, serial): (&[u8], &[u8]),
) -> Result<Vec<Certificate>, NotDer> {
    let is_signer = |one: &Certificate| one.issuer_der() == issuer && one.serial() == serial;
    let mut at = certificates.iter().position(is_signer).ok_or(NotDer)?;
    let mut chain = Vec::new();
    loop {
        let one = certificates.swap_remove(at);
        let next = certificates.iter().position(|other| other.subject_der() == one.issuer_der());
        chain.push(one);
        match next {
            Some(next) => at = next,
            None if certificates.is_empty() => return Ok(chain),
            None => return Err(NotDer),
        }
    }
}

fn time(at: Time) -> Option<Vec<u8>> {
    let whole = Time::from_millis(at.as_secs().checked_mul(1000)?).to_string();
    Some(if at.as_secs() < GENERALIZED {
        der::encode::<UtcTime>(&whole.parse().ok()?)
    } else {
        der::encode::<GeneralizedTime>(&whole.parse().ok()?)
    })
}

fn read_time(value: &[u8]) -> Result<Time, NotDer> {
    let millis = der::decode::<UtcTime>(value)
        .map(|time| time.timestamp_millis())
        .or_else(|NotDer| der::decode::<GeneralizedTime>(value).map(|time| time.timestamp_millis()))?;
    Ok(Time::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_standard_asks_for_their_year() {
        let before = Time::from_millis((GENERALIZED - 1) * 1000);
        let after = Time::from_millis(GENERALIZED * 1000);
        assert_eq!(time(before).unwrap(), [&[0x17, 13][..], b"491231235959Z"].concat());
        assert_eq!(time(after).unwrap(), [&[0x18, 15][..], b"20500101000000Z"].concat());
        for at in [before, after] {
            assert_eq!(read_time(&time(at).unwrap()), Ok(at));
        }
    }

    #[test]
    fn rubbish_is_no_seal() {
        for bytes in [&b""[..], b"\x30\x00", &[0x30; 400], &[0; MAX_SEAL + 1]] {
            assert!(Seal::read(bytes).is_err());
        }
    }
}
