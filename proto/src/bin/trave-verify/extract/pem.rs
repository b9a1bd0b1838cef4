//! PEM (RFC 7468), as OpenSSL reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// DER of a SubjectPublicKeyInfo (RFC 8410) up to the 32 bytes of an Ed25519 key.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A certificate.
pub(super) fn certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

/// A public key from its SubjectPublicKeyInfo.
pub(super) fn public_key(spki: &[u8]) -> String {
    encode("PUBLIC KEY", spki)
}

/// An Ed25519 public key (RFC 8032).
pub(super) fn ed25519(key: &[u8; 32]) -> String {
    public_key(&[&ED25519_SPKI[..], key].concat())
}

fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
