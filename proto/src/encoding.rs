//! Canonical encodings: what is hashed or signed has exactly one form.

use bytes::Buf;
use prost::Message;

/// Why bytes are not the canonical encoding of what they should be.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// Not protobuf, or not of this type.
    #[error("not an encoding of {what}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// Unknown or repeated fields, another order, or a longer form than needed.
    #[error("the encoding of {what} is not canonical")]
    NotCanonical {
        /// What was expected.
        what: &'static str,
    },
}

/// Decodes `bytes` if they are exactly what encoding the result would give: no unknown field, none twice, ascending
/// order, no default value written out. So no two different byte strings mean the same. What is decoded from `Bytes` shares
/// their memory; from a slice it is copied.
pub fn decode_canonical<M: Message + Default>(
    what: &'static str,
    bytes: impl Buf + AsRef<[u8]> + Clone,
) -> Result<M, EncodingError> {
    let message = M::decode(bytes.clone()).map_err(|source| EncodingError::Malformed { what, source })?;
    let bytes = bytes.as_ref();
    if message.encoded_len() != bytes.len() || message.encode_to_vec() != bytes {
        return Err(EncodingError::NotCanonical { what });
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::message::Header;

    #[test]
    fn unknown_doubled_and_reordered_fields_are_refused() {
        let canonical = [0x0a, 1, b'a', 0x12, 1, b'b'];
        assert!(decode_canonical::<Header>("header", &canonical[..]).is_ok());
        for (why, bytes) in [
            ("unknown field", &[0x0a, 1, b'a', 0x12, 1, b'b', 0x18, 1][..]),
            ("field twice", &[0x0a, 1, b'x', 0x0a, 1, b'a', 0x12, 1, b'b'][..]),
            ("other order", &[0x12, 1, b'b', 0x0a, 1, b'a'][..]),
            ("default written out", &[0x0a, 0, 0x12, 1, b'b'][..]),
            ("long length", &[0x0a, 0x81, 0, b'a', 0x12, 1, b'b'][..]),
        ] {
            let refused = decode_canonical::<Header>("header", bytes);
            assert!(matches!(refused, Err(EncodingError::NotCanonical { .. })), "{why}");
        }
        assert!(matches!(
            decode_canonical::<Header>("header", &[0x0a][..]),
            Err(EncodingError::Malformed { .. })
        ));
    }
}
