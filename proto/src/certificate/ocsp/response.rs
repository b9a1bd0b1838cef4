//! Who signed an OCSP response, over which bytes.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};

use super::{MAX_RESPONSE, OcspError};
use crate::certificate::chain::unix_time;
use crate::certificate::{Certificate, VERIFICATION_ALGORITHMS, verify_as_certified};
use crate::clock::Time;
use crate::der::{self, NotDer, Reader};

/// Most certificates in a response that are looked at.
const MAX_CERTIFICATES: usize = 8;

const BASIC_RESPONSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
const ENUMERATED: u8 = 0x0a;

/// The parts of a BasicOCSPResponse (section 4.2.1) as they stand in it.
pub(super) struct Basic<'a> {
    /// ResponseData, DER: what is signed.
    pub(super) signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

impl<'a> Basic<'a> {
    pub(super) fn read(response: &'a [u8]) -> Result<Self, OcspError> {
        if response.len() > MAX_RESPONSE {
            return Err(OcspError::TooLarge(response.len()));
        }
        let mut outer = der::only(der::SEQUENCE, response)?.inside();
        check_response_status(outer.expect(ENUMERATED)?.content)?;
        let mut bytes = der::only(der::SEQUENCE, outer.expect(der::context(0))?.content)?.inside();
        outer.finish()?;
        let kind = bytes.expect(der::OID)?.content;
        let basic = bytes.expect(der::OCTET_STRING)?.content;
        bytes.finish()?;
        if kind != BASIC_RESPONSE {
            return Err(OcspError::Malformed);
        }
        Ok(Self::read_basic(basic)?)
    }

    fn read_basic(basic: &'a [u8]) -> Result<Self, NotDer> {
        let mut parts = der::only(der::SEQUENCE, basic)?.inside();
        let signed = parts.expect(der::SEQUENCE)?.raw;
        let algorithm = parts.expect(der::SEQUENCE)?.content;
        let signature = parts.expect(der::BIT_STRING)?.whole_bits()?;
        let mut certificates = Vec::new();
        if let Some(wrapped) = parts.optional(der::context(0))? {
            let mut list = der::only(der::SEQUENCE, wrapped.content)?.inside();
            while !list.is_empty() && certificates.len() < MAX_CERTIFICATES {
                certificates.push(list.expect(der::SEQUENCE)?.raw);
            }
        }
        parts.finish()?;
        Ok(Self { signed, algorithm, signature, certificates })
    }

    /// By the issuer itself, or by a responder that the issuer certified for OCSP (section 4.2.2.2).
    pub(super) fn verify_signature(&self, issuer: &Certificate, at: Time) -> Result<(), OcspError> {
        let id = ResponderId::read(self.signed)?;
        if id.names(issuer) {
            return self.verify_by(issuer);
        }
        let given = self.certificates.iter().filter_map(|der| Certificate::from_der(der).ok());
        let responder = given.into_iter().find(|one| id.names(one)).ok_or(OcspError::UnknownResponder)?;
        verify_delegation(&responder, issuer, at)?;
        self.verify_by(&responder)
    }

    fn verify_by(&self, signer: &Certificate) -> Result<(), OcspError> {
        verify_as_certified(signer.spki(), self.algorithm, self.signed, self.signature)
            .map_err(|_| OcspError::Signature)
    }
}

/// Who says to have signed a response.
enum ResponderId<'a> {
    Name(&'a [u8]),
    /// SHA-1 of the public key's bits; it finds the key, and proves nothing.
    Key(&'a [u8]),
}

impl<'a> ResponderId<'a> {
    fn read(response_data: &'a [u8]) -> Result<Self, NotDer> {
        let mut fields: Reader<'a> = der::only(der::SEQUENCE, response_data)?.inside();
        fields.optional(der::context(0))?; // version: the typed decoder looks at it
        let id = fields.next()?;
        match id.tag {
            tag if tag == der::context(1) => Ok(Self::Name(id.content)),
            tag if tag == der::context(2) => Ok(Self::Key(der::only(der::OCTET_STRING, id.content)?.content)),
            _ => Err(NotDer),
        }
    }

    fn names(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Name(name) => *name == certificate.subject_der(),
            Self::Key(hash) => {
                *hash == digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.public_key_bits()).as_ref()
            }
        }
    }
}

fn verify_delegation(responder: &Certificate, issuer: &Certificate, at: Time) -> Result<(), OcspError> {
    let (issuer_der, responder_der) =
        (CertificateDer::from(&issuer.der()[..]), CertificateDer::from(&responder.der()[..]));
    let anchors = [webpki::anchor_from_trusted_cert(&issuer_der).map_err(|_| OcspError::UnknownResponder)?];
    let end = EndEntityCert::try_from(&responder_der).map_err(|_| OcspError::UnknownResponder)?;
    let now = unix_time(at).map_err(|_| OcspError::ResponderNotValid(at))?;
    let usage = KeyUsage::required(OCSP_SIGNING);
    match end.verify_for_usage(VERIFICATION_ALGORITHMS, &anchors, &[], now, usage, None, None) {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
            Err(OcspError::ResponderNotValid(at))
        }
        Err(_) => Err(OcspError::UnknownResponder),
    }
}

/// OCSPResponseStatus (section 4.2.1).
fn check_response_status(status: &[u8]) -> Result<(), OcspError> {
    match status {
        [0] => Ok(()),
        [1] => Err(OcspError::Refused("malformedRequest")),
        [2] => Err(OcspError::Refused("internalError")),
        [3] => Err(OcspError::Refused("tryLater")),
        [5] => Err(OcspError::Refused("sigRequired")),
        [6] => Err(OcspError::Refused("unauthorized")),
        _ => Err(OcspError::Malformed),
    }
}
