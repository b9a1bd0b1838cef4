//! The token: a CMS SignedData (RFC 5652) with one signer, the timestamping authority, over a TSTInfo (RFC 3161).

use std::time::Duration;

use rasn::types::Integer;
use rasn_cms::tsp::{Accuracy, TstInfo};
use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};

use super::{Failure, MAX_RESPONSE, Nonce, SHA_256, Timestamp};
use crate::certificate::{Certificate, verify_as_certified};
use crate::clock::Time;
use crate::der::{self, NotDer, Reader, Value};
use crate::digest::Digest;

/// Most timestamping authorities that are tried.
const MAX_AUTHORITIES: usize = 64;

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 4];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SIGNING_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 12];
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 2, 47];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";

/// Why there is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`MAX_RESPONSE`] bytes.
    #[error("a timestamp of {0} bytes is too large: at most {MAX_RESPONSE} are read")]
    TooLarge(usize),
    /// Not what RFC 3161 and RFC 5652 lay down.
    #[error("not a timestamp in DER (RFC 3161)")]
    Malformed,
    /// The authority gave none.
    #[error("the timestamping authority gave no timestamp: {status}{}{}", detail(.failure), quoted(.text))]
    Refused {
        /// PKIStatus.
        status: &'static str,
        /// PKIFailureInfo.
        failure: Option<Failure>,
        /// The authority's own words.
        text: String,
    },
    /// A timestamping authority's certificate in the global configuration cannot be read, or there are too many.
    #[error("the timestamping authorities of the global configuration cannot be read")]
    Authorities,
    /// Signed by none of the given authorities.
    #[error("the timestamp is not by a timestamping authority of the global configuration")]
    UnknownAuthority,
    /// The authority's certificate is not for timestamping, critically and alone (RFC 3161 section 2.3).
    #[error("the authority's certificate is not for timestamping alone")]
    NotForTimestamping,
    /// The authority's certificate was not valid at the time that the token states.
    #[error("the timestamping authority's certificate is not valid at {0}")]
    AuthorityNotValid(Time),
    /// A signed attribute is missing, doubled, or contradicts the token.
    #[error("the signed attribute {0} of the timestamp is missing or wrong")]
    Attribute(&'static str),
    /// The signature is not the authority's over this token.
    #[error("the timestamp's signature is wrong")]
    Signature,
    /// The token is about something else.
    #[error("the timestamp is about another digest")]
    OtherDigest,
    /// The token answers another request.
    #[error("the timestamp does not carry the request's nonce")]
    Nonce,
    /// The token has a critical extension that is not known here.
    #[error("the timestamp has an unknown critical extension")]
    CriticalExtension,
}

fn detail(failure: &Option<Failure>) -> String {
    failure.map(|failure| format!(", {failure}")).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" (\"{text}\")") }
}

impl From<NotDer> for TokenError {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

pub(super) fn verify(
    token: &[u8],
    about: &Digest,
    nonce: Option<Nonce>,
    authorities: &[impl AsRef<[u8]>],
) -> Result<Timestamp, TokenError> {
    if token.len() > MAX_RESPONSE {
        return Err(TokenError::TooLarge(token.len()));
    }
    let signed = SignedData::read(token)?;
    let info: TstInfo = der::decode(signed.content)?;
    let authority = signed.signer.find(authorities)?;
    signed.signer.verify(signed.content, &authority)?;
    check_info(&info, about, nonce)?;
    let time = Time::from_millis(info.gen_time.timestamp_millis());
    if !authority.is_valid_at(time) {
        return Err(TokenError::AuthorityNotValid(time));
    }
    Ok(Timestamp {
        time,
        accuracy: info.accuracy.as_ref().map(accuracy).transpose()?,
        serial: der::only(der::INTEGER, &der::encode(&info.serial_number))?.content.to_vec(),
        policy: info.policy.iter().map(ToString::to_string).collect::<Vec<_>>().join("."),
        authority: authority.digest(),
    })
}

/// SignedData (RFC 5652 section 5.1) as it stands in the token.
struct SignedData<'a> {
    /// The TSTInfo, DER.
    content: &'a [u8],
    signer: Signer<'a>,
}

impl<'a> SignedData<'a> {
    fn read(token: &'a [u8]) -> Result<Self, NotDer> {
        let mut info = der::only(der::SEQUENCE, token)?.inside();
        named(&mut info, SIGNED_DATA)?;
        let data = der::only(der::SEQUENCE, info.expect(der::context(0))?.content)?;
        info.finish()?;
        let mut fields = data.inside();
        fields.expect(der::INTEGER)?;
        fields.expect(der::SET)?; // digest algorithms: the signer names its own
        let content = Self::content(fields.expect(der::SEQUENCE)?)?;
        fields.optional(der::context(0))?; // certificates: the authority's is known already
        fields.optional(der::context(1))?; // revocation lists
        let signers = fields.expect(der::SET)?;
        fields.finish()?;
        let signer = Signer::read(der::only(der::SEQUENCE, signers.content)?)?; // one signer, no more
        Ok(Self { content, signer })
    }

    fn content(encapsulated: Value<'a>) -> Result<&'a [u8], NotDer> {
        let mut fields = encapsulated.inside();
        named(&mut fields, TST_INFO)?;
        let content = der::only(der::OCTET_STRING, fields.expect(der::context(0))?.content)?.content;
        fields.finish().map(|()| content)
    }
}

/// SignerInfo (RFC 5652 section 5.3) as it stands in the token.
struct Signer<'a> {
    id: Value<'a>,
    digest_algorithm: &'a [u8],
    attributes: Value<'a>,
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signer<'a> {
    fn read(info: Value<'a>) -> Result<Self, NotDer> {
        let mut fields = info.inside();
        fields.expect(der::INTEGER)?;
        let id = fields.next()?;
        let digest_algorithm = fields.expect(der::SEQUENCE)?.content;
        let attributes = fields.expect(der::context(0))?;
        let signature_algorithm = fields.expect(der::SEQUENCE)?.content;
        let signature = fields.expect(der::OCTET_STRING)?.content;
        fields.optional(der::context(1))?; // unsigned attributes prove nothing
        fields.finish()?;
        Ok(Self { id, digest_algorithm, attributes, signature_algorithm, signature })
    }

    /// The given authority that this signer says to be, by its identifier and by the certificate's digest under the
    /// signature (ESS, RFC 5035).
    fn find(&self, authorities: &[impl AsRef<[u8]>]) -> Result<Certificate, TokenError> {
        if authorities.len() > MAX_AUTHORITIES {
            return Err(TokenError::Authorities);
        }
        for der in authorities {
            let one = Certificate::from_der(der.as_ref()).map_err(|_| TokenError::Authorities)?;
            if self.is(&one)? && self.binds(&one)? {
                return Ok(one);
            }
        }
        Err(TokenError::UnknownAuthority)
    }

    fn is(&self, certificate: &Certificate) -> Result<bool, NotDer> {
        match self.id.tag {
            der::SEQUENCE => {
                let mut fields = self.id.inside();
                let (issuer, serial) = (fields.expect(der::SEQUENCE)?, fields.expect(der::INTEGER)?);
                fields.finish()?;
                Ok(issuer.raw == certificate.issuer_der() && serial.content == certificate.serial())
            }
            0x80 => Ok(certificate.subject_key_identifier() == Some(self.id.content)),
            _ => Err(NotDer),
        }
    }

    /// ESS signingCertificateV2, or the older signingCertificate with SHA-1: there the certificate is one of those given,
    /// byte for byte, so that a collision finds nothing to stand in for.
    fn binds(&self, certificate: &Certificate) -> Result<bool, TokenError> {
        const NAME: &str = "signingCertificate";
        let (algorithm, id) = match self.attribute(SIGNING_CERTIFICATE_V2, NAME)? {
            Some(value) => ess_cert_id(value, true)?,
            None => {
                let value = self.attribute(SIGNING_CERTIFICATE, NAME)?;
                ess_cert_id(value.ok_or(TokenError::Attribute(NAME))?, false)?
            }
        };
        Ok(digest(algorithm, certificate.der()).as_ref() == id)
    }

    fn verify(&self, content: &[u8], authority: &Certificate) -> Result<(), TokenError> {
        let usage = authority.extended_key_usage();
        if !usage.is_some_and(|usage| usage.critical && usage.purposes == [TIME_STAMPING]) {
            return Err(TokenError::NotForTimestamping);
        }
        let kind = self.attribute(CONTENT_TYPE, "contentType")?;
        if kind.and_then(|kind| der::only(der::OID, kind).ok()).map(|kind| kind.content) != Some(TST_INFO) {
            return Err(TokenError::Attribute("contentType"));
        }
        let algorithm = hash_algorithm(self.digest_algorithm)?;
        let stated = self.attribute(MESSAGE_DIGEST, "messageDigest")?;
        let stated = stated.and_then(|value| der::only(der::OCTET_STRING, value).ok());
        if stated.map(|value| value.content) != Some(digest(algorithm, content).as_ref()) {
            return Err(TokenError::Attribute("messageDigest"));
        }
        // What is signed are the attributes as a SET, not with the tag that they have here (RFC 5652 section 5.4).
        let mut signed = self.attributes.raw.to_vec();
        signed[0] = der::SET;
        let by = signature_algorithm(self.signature_algorithm, algorithm)?;
        verify_as_certified(authority.spki(), by, &signed, self.signature).map_err(|_| TokenError::Signature)
    }

    /// The value of a signed attribute, which stands there at most once and has one value.
    fn attribute(&self, oid: &[u8], name: &'static str) -> Result<Option<&'a [u8]>, TokenError> {
        let mut found = None;
        let mut attributes = self.attributes.inside();
        while !attributes.is_empty() {
            let mut fields = attributes.expect(der::SEQUENCE)?.inside();
            let (kind, mut values) = (fields.expect(der::OID)?, fields.expect(der::SET)?.inside());
            fields.finish()?;
            if kind.content == oid {
                let value = values.next()?.raw;
                if !values.is_empty() || found.replace(value).is_some() {
                    return Err(TokenError::Attribute(name));
                }
            }
        }
        Ok(found)
    }
}

/// The first ESSCertID (RFC 5035 sections 3 and 4): the signer's own.
fn ess_cert_id(value: &[u8], v2: bool) -> Result<(&'static Algorithm, &[u8]), TokenError> {
    let mut certificates = der::only(der::SEQUENCE, value)?.inside().expect(der::SEQUENCE)?.inside();
    let mut id = certificates.expect(der::SEQUENCE)?.inside();
    let algorithm = match (v2, id.optional(der::SEQUENCE)?) {
        (true, Some(algorithm)) => hash_algorithm(algorithm.content)?,
        (true, None) => &SHA256,
        (false, None) => &SHA1_FOR_LEGACY_USE_ONLY,
        (false, Some(_)) => return Err(TokenError::Malformed),
    };
    Ok((algorithm, id.expect(der::OCTET_STRING)?.content))
}

/// The content of an AlgorithmIdentifier of the SHA-2 family, with parameters absent or NULL (RFC 5754 section 2).
fn hash_algorithm(identifier: &[u8]) -> Result<&'static Algorithm, TokenError> {
    let mut fields = Reader::new(identifier);
    let oid = fields.expect(der::OID)?.content;
    if !matches!(identifier.get(oid.len() + 2..), Some([] | [5, 0])) {
        return Err(TokenError::Malformed);
    }
    match oid {
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => Ok(&SHA256),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => Ok(&SHA384),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => Ok(&SHA512),
        _ => Err(TokenError::Signature),
    }
}

/// CMS may name an RSA signature by the key's algorithm alone (RFC 3370 section 3.2); the digest's then completes it.
fn signature_algorithm<'a>(identifier: &'a [u8], hash: &'static Algorithm) -> Result<&'a [u8], TokenError> {
    if Reader::new(identifier).expect(der::OID)?.content != RSA_ENCRYPTION {
        return Ok(identifier);
    }
    let completed: &'static AlgorithmIdentifier = match hash {
        hash if *hash == SHA256 => &alg_id::RSA_PKCS1_SHA256,
        hash if *hash == SHA384 => &alg_id::RSA_PKCS1_SHA384,
        _ => &alg_id::RSA_PKCS1_SHA512,
    };
    Ok(completed.as_ref())
}

fn check_info(info: &TstInfo, about: &Digest, nonce: Option<Nonce>) -> Result<(), TokenError> {
    if info.version != Integer::from(1) {
        return Err(TokenError::Malformed);
    }
    if info.extensions.iter().flat_map(|list| list.iter()).any(|one| one.critical) {
        return Err(TokenError::CriticalExtension);
    }
    let imprint = &info.message_imprint;
    let algorithm: &[u32] = &imprint.hash_algorithm.algorithm;
    if algorithm != SHA_256 || imprint.hashed_message != about.as_bytes()[..] {
        return Err(TokenError::OtherDigest);
    }
    match nonce {
        Some(nonce) if info.nonce != Some(nonce.0.into()) => Err(TokenError::Nonce),
        _ => Ok(()),
    }
}

fn accuracy(of: &Accuracy) -> Result<Duration, TokenError> {
    let part = |value: &Option<Integer>, most: u64| match value {
        None => Ok(0),
        Some(value) => u64::try_from(value).ok().filter(|value| *value <= most).ok_or(TokenError::Malformed),
    };
    let (seconds, millis) = (part(&of.seconds, u64::from(u32::MAX))?, part(&of.millis, 999)?);
    Ok(Duration::from_secs(seconds)
        + Duration::from_millis(millis)
        + Duration::from_micros(part(&of.micros, 999)?))
}

fn named(fields: &mut Reader<'_>, oid: &[u8]) -> Result<(), NotDer> {
    if fields.expect(der::OID)?.content == oid { Ok(()) } else { Err(NotDer) }
}

#[cfg(test)]
mod tests;
