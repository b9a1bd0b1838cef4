//! Writes DER (X.690) around parts that must stand in it byte for byte, such as certificates.

use rasn::types::GeneralizedTime;
use trave_proto::clock::Time;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const CONTEXT_0: u8 = 0xa0;

/// AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758 section 3.2).
pub(crate) const ECDSA_WITH_SHA256: &[u8] = &[0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// AlgorithmIdentifier id-sha256 without parameters (RFC 5754 section 2).
pub(crate) const SHA256: &[u8] = &[0x30, 11, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// One value: its tag, the length in its shortest form, and the parts as its content.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    if length < 0x80 {
        bytes.push(length.to_le_bytes()[0]);
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
        bytes.push(0x80 | digits.len().to_le_bytes()[0]);
        bytes.extend(digits);
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A SET OF, its members in the order that DER asks for.
pub(crate) fn set_of(mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    value(SET, &members.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A BIT STRING of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], bytes])
}

/// The content of the only value in `bytes`, which was written by this program.
pub(crate) fn content(bytes: &[u8]) -> &[u8] {
    match bytes.get(1) {
        Some(short @ 0..=0x7f) => bytes.get(2..2 + usize::from(*short)),
        Some(long) => bytes.get(2 + usize::from(*long & 0x7f)..),
        None => None,
    }
    .unwrap_or_default()
}

/// Encodes a value of a standard's type that this program made.
#[expect(clippy::expect_used, reason = "the types encoded here have no value that DER cannot express")]
pub(crate) fn encode<T: rasn::Encode>(of: &T) -> Vec<u8> {
    rasn::der::encode(of).expect("DER expresses every value of this type")
}

/// Decodes exactly one value of a standard's type.
pub(crate) fn decode<T: rasn::Decode>(bytes: &[u8]) -> Option<T> {
    rasn::der::decode_with_remainder(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

/// A time as the standards' types want it; none after the year 9999.
pub(crate) fn time(of: Time) -> Option<GeneralizedTime> {
    of.to_string().parse().ok()
}

/// A time without its fraction of a second, which OCSP does not know.
pub(crate) fn whole_seconds(of: Time) -> Time {
    Time::from_millis(of.as_secs().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_der_asks() {
        assert_eq!(value(OCTET_STRING, &[b"a", b"b"]), [4, 2, b'a', b'b']);
        assert_eq!(value(OCTET_STRING, &[&[0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(value(OCTET_STRING, &[&[0; 256]])[..4], [4, 0x82, 1, 0]);
        assert_eq!(content(&value(OCTET_STRING, &[&[7; 300]])), [7; 300]);
        assert_eq!(set_of(vec![vec![2, 1, 9], vec![2, 1, 1]]), [0x31, 6, 2, 1, 1, 2, 1, 9]);
    }
}
