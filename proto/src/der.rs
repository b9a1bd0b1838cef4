//! Reads DER (X.690) as it stands, so that a signature is verified over the very bytes that were signed and never over
//! bytes that were written anew.

use rasn::types::Integer;

/// Bytes that are not DER, or not the structure that a standard lays down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDer;

/// Tags that occur here, with class and constructed bit.
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// `[number]` of a constructed, context-specific value.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One value: its tag, its content, and all its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// Reads values one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value: one byte of tag, a length in its shortest form of at most four bytes.
    pub(crate) fn next(&mut self) -> Result<Value<'a>, NotDer> {
        let (&tag, &first) = (self.0.first().ok_or(NotDer)?, self.0.get(1).ok_or(NotDer)?);
        if tag & 0x1f == 0x1f {
            return Err(NotDer); // tags of more than one byte occur in none of the structures read here
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let digits = self.0.get(2..2 + count).ok_or(NotDer)?;
                let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(NotDer);
                }
                (2 + count, length)
            }
            _ => return Err(NotDer),
        };
        let end = header.checked_add(length).ok_or(NotDer)?;
        let raw = self.0.get(..end).ok_or(NotDer)?;
        self.0 = &self.0[end..];
        Ok(Value { tag, content: &raw[header..], raw })
    }

    /// The next value, which has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Value<'a>, NotDer> {
        self.next().and_then(|value| if value.tag == tag { Ok(value) } else { Err(NotDer) })
    }

    /// The next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>, NotDer> {
        if self.0.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// Nothing may follow.
    pub(crate) fn finish(&self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

impl<'a> Value<'a> {
    /// Reads what is inside this value.
    pub(crate) fn inside(&self) -> Reader<'a> {
        Reader(self.content)
    }

    /// The bytes of a bit string without unused bits.
    pub(crate) fn whole_bits(&self) -> Result<&'a [u8], NotDer> {
        match self.content.split_first() {
            Some((0, bytes)) if self.tag == BIT_STRING => Ok(bytes),
            _ => Err(NotDer),
        }
    }
}

/// The only value in `bytes`, which has this tag.
pub(crate) fn only(tag: u8, bytes: &[u8]) -> Result<Value<'_>, NotDer> {
    let mut reader = Reader::new(bytes);
    let value = reader.expect(tag)?;
    reader.finish().map(|()| value)
}

/// Decodes a whole value into a type of a standard; nothing may follow it.
pub(crate) fn decode<T: rasn::Decode>(bytes: &[u8]) -> Result<T, NotDer> {
    match rasn::der::decode_with_remainder(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(NotDer),
    }
}

/// Encodes a value of a standard that this program made itself.
#[expect(clippy::expect_used, reason = "the types encoded here have no value that DER cannot express")]
pub(crate) fn encode<T: rasn::Encode>(value: &T) -> Vec<u8> {
    rasn::der::encode(value).expect("DER expresses every value of this type")
}

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

/// Members as a SET OF has them, or what stands in its place, under `tag`: in the order that DER asks for.
pub(crate) fn set_of(tag: u8, mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    value(tag, &members.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// An integer from the content bytes of its encoding, as a certificate's serial number is kept.
pub(crate) fn integer(content: &[u8]) -> Result<Integer, NotDer> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80).ok_or(NotDer)?;
    decode(&[&[INTEGER, length], content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bytes() {
        let bytes = [0x30, 3, 0x02, 1, 5, 0x04, 0];
        let mut reader = Reader::new(&bytes);
        let sequence = reader.expect(SEQUENCE).unwrap();
        assert_eq!((sequence.raw, sequence.content), (&bytes[..5], &bytes[2..5]));
        assert_eq!(reader.optional(INTEGER).unwrap().map(|value| value.tag), None);
        assert!(reader.expect(OCTET_STRING).unwrap().content.is_empty());
        assert!(reader.finish().is_ok() && reader.is_empty());
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let written = value(OCTET_STRING, &[&content[..length / 2], &content[length / 2..]]);
            assert_eq!(only(OCTET_STRING, &written).map(|value| value.content), Ok(&content[..]));
        }
        assert_eq!(set_of(SET, vec![vec![2, 1, 9], vec![2, 1, 1]]), [0x31, 6, 2, 1, 1, 2, 1, 9]);
    }

    #[test]
    fn what_is_not_der_is_refused() {
        for (why, bytes) in [
            ("nothing", &[][..]),
            ("no length", &[0x30][..]),
            ("cut short", &[0x30, 2, 0][..]),
            ("indefinite length", &[0x30, 0x80, 0, 0][..]),
            ("long form of a short length", &[0x04, 0x81, 1, 0][..]),
            ("leading zero in the length", &[0x04, 0x82, 0, 0x80][..]),
            ("length of five bytes", &[0x04, 0x85, 1, 0, 0, 0, 0][..]),
            ("longest length there is", &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff][..]),
            ("tag of two bytes", &[0x1f, 0x20, 0][..]),
        ] {
            assert_eq!(Reader::new(bytes).next().map(|value| value.tag), Err(NotDer), "{why}");
        }
        assert!(only(SEQUENCE, &[0x30, 0, 0]).is_err(), "something follows");
        assert!(decode::<Integer>(&[0x02, 1, 5, 0]).is_err(), "something follows");
    }
}
