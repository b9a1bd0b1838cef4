//! Who decides: the administrators, and the keys with which they sign.

use std::collections::HashMap;

use bytes::Bytes;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::text::{FieldError, digest, is_code, require, require_ascending, require_text};
use crate::digest::Digest;
use crate::schema::configuration as schema;

const MAX_ADMINISTRATORS: usize = 256;
const MAX_NAME: usize = 128;

/// DER of a SubjectPublicKeyInfo (RFC 5480) up to the uncompressed P-256 point, which is 65 bytes.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A person who administers the registry.
#[derive(Debug, Clone)]
pub struct AdministratorEntry {
    /// The person's name, unique in the instance.
    pub name: String,
    /// Member class for which the person acts.
    pub class: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the person's key.
    pub key: Digest,
    public_key: Bytes,
}

impl AdministratorEntry {
    /// Whether `signature` (ECDSA P-256 with SHA-256, ASN.1) over `content` is this person's.
    pub fn signed(&self, content: &[u8], signature: &[u8]) -> bool {
        let point = &self.public_key[P256_SPKI.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(content, signature).is_ok()
    }
}

pub(super) fn check_administrators(
    list: &[schema::Administrator],
) -> Result<HashMap<Digest, AdministratorEntry>, FieldError> {
    let at = "administrators";
    require_ascending(list, MAX_ADMINISTRATORS, at, |administrator| administrator.name.as_str())?;
    let mut administrators = HashMap::with_capacity(list.len());
    for (i, administrator) in list.iter().enumerate() {
        let at = format!("{at}[{i}]");
        require_text(&administrator.name, MAX_NAME, || format!("{at}.name"))?;
        require(is_code(&administrator.class), || format!("{at}.class"), "is not a member class")?;
        let key = digest(&administrator.key, || format!("{at}.key"))?;
        let public_key = administrator.public_key.clone();
        let is_p256 = public_key.len() == P256_SPKI.len() + 65
            && public_key.starts_with(&P256_SPKI)
            && public_key[P256_SPKI.len()] == 4;
        require(is_p256, || format!("{at}.public_key"), "is not an ECDSA P-256 public key in DER")?;
        let matches = Digest::of(&public_key) == key;
        require(matches, || format!("{at}.key"), "is not the SHA-256 of the public key")?;
        let (name, class) = (administrator.name.clone(), administrator.class.clone());
        let other = administrators.insert(key, AdministratorEntry { name, class, key, public_key });
        require(other.is_none(), || format!("{at}.key"), "is another administrator's")?;
    }
    Ok(administrators)
}
