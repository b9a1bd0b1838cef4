//! Certificate requests (PKCS#10, RFC 2986): a public key and a name, signed with the private key to show possession.

use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData};

use super::{KeyError, Sign, p256_point};

/// A certificate request for `key` in the name of `common_name`, DER. All else that the certificate will say is
/// decided by the certification authority, so the request does not ask for it.
pub fn certificate_request(key: &dyn Sign, common_name: &str) -> Result<Vec<u8>, KeyError> {
    let requester = Requester { key, point: p256_point(key.public_key_info()).ok_or(KeyError::RequestKind)? };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params.serialize_request(&requester).map_err(KeyError::Request)?;
    Ok(request.der().to_vec())
}

/// A certificate for `key` that the key itself signed, PEM: for those who are known by their key alone, which is pinned.
pub fn certificate_of_its_own(key: &dyn Sign, common_name: &str) -> Result<String, KeyError> {
    let issuer = Requester { key, point: p256_point(key.public_key_info()).ok_or(KeyError::RequestKind)? };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let certificate = params.self_signed(&issuer).map_err(KeyError::Request)?;
    Ok(certificate.pem())
}

/// A key of ours as rcgen wants to see it.
struct Requester<'a> {
    key: &'a dyn Sign,
    point: &'a [u8],
}

impl PublicKeyData for Requester<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Requester<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::keys::{NoteKey, SigningKey};

    #[test]
    fn a_request_names_and_proves_its_key() {
        let key = SigningKey::generate().unwrap();
        let der = certificate_request(&key, "NORD/SH/luebeck/s1").unwrap();
        let (rest, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert!(rest.is_empty());
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject_pki.raw, key.public_key_info());
        assert_eq!(info.subject.to_string(), "CN=NORD/SH/luebeck/s1");
    }

    #[test]
    fn a_log_key_gets_no_certificate() {
        let refused = certificate_request(&NoteKey::generate().unwrap(), "x");
        assert!(matches!(refused, Err(KeyError::RequestKind)));
    }
}
