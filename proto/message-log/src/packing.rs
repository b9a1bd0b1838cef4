//! The leaf of a message in two parts, so that what most messages have in common is stored once: its *form*, which it shares
//! with every message of the same parties, service, purpose, certificates and configuration, and the *rest*, which is its own.
//!
//! Both are leaves in the same encoding, in which the fields of the other part are absent. Joined they are the leaf again, byte
//! for byte: the tree and every proof are over the whole leaf, and nothing but the segment knows of the parts.
//!
//! A form stands in the segment before the first leaf of that form, and again every [`REACH`] bytes. It holds
//! nothing of a single exchange.

use std::collections::HashMap;

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::record::{self, Kind};

/// Most forms of a segment. Leaves of further forms are stored whole: the table of forms stays small whatever is asked.
pub(crate) const MAX_FORMS: usize = 1_024;

/// How far before a leaf its form may stand, in bytes. Then it is written again: so damage to a form costs the leaves of this
/// stretch, and not those of the whole segment.
pub(crate) const REACH: u64 = 1 << 20;

/// The fields of which a leaf, its entry, and the entry's manifest consist: those of the rest, and the one that is taken apart
/// itself.
const LEVELS: [(&[u32], Option<u32>); 3] = [
    // logged_ms; the message
    (&[2], Some(10)),
    // signature_digest; the manifest
    (&[2], Some(1)),
    // exchange_id, index, previous, last_received, nonce, created_ms, content_commitment, caller_context_commitment,
    // content_length
    (&[2, 4, 5, 6, 16, 19, 20, 21, 22], None),
];

/// A leaf in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) form: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

/// Takes an encoded leaf apart; none if it is not of a message, or if its parts would not give it back byte for byte.
pub(crate) fn split(leaf: &[u8]) -> Option<Packed> {
    let packed = split_at(leaf, &LEVELS)?;
    (join(&packed.form, &packed.rest)? == leaf).then_some(packed)
}

fn split_at(mut bytes: &[u8], levels: &[(&[u32], Option<u32>)]) -> Option<Packed> {
    let ((own, inner), deeper) = levels.split_first()?;
    let (mut form, mut rest) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    let mut found = inner.is_none();
    while !bytes.is_empty() {
        let field = Field::take(&mut bytes)?;
        if Some(field.number) == *inner {
            let parts = split_at(field.message?, deeper)?;
            put_message(field.number, &parts.form, &mut form);
            put_message(field.number, &parts.rest, &mut rest);
            found = true;
        } else if own.contains(&field.number) {
            rest.extend_from_slice(field.whole);
        } else {
            form.extend_from_slice(field.whole);
        }
    }
    found.then_some(Packed { form, rest })
}

/// Puts a leaf together; none if the parts are not those of one.
pub(crate) fn join(form: &[u8], rest: &[u8]) -> Option<Vec<u8>> {
    join_at(form, rest, LEVELS.len())
}

/// Two encodings of which no field is in both, but for one that is joined itself: their fields by ascending numbers, as the
/// canonical encoding has them.
fn join_at(mut form: &[u8], mut rest: &[u8], levels: usize) -> Option<Vec<u8>> {
    let deeper = levels.checked_sub(1)?;
    let mut joined = Vec::with_capacity(form.len() + rest.len());
    while !form.is_empty() || !rest.is_empty() {
        let (of_form, of_rest) = (Field::peek(form)?, Field::peek(rest)?);
        match (of_form, of_rest) {
            (Some(one), Some(other)) if one.number == other.number => {
                put_message(one.number, &join_at(one.message?, other.message?, deeper)?, &mut joined);
                form = &form[one.whole.len()..];
                rest = &rest[other.whole.len()..];
            }
            (Some(one), other) if other.as_ref().is_none_or(|other| one.number < other.number) => {
                joined.extend_from_slice(one.whole);
                form = &form[one.whole.len()..];
            }
            (_, Some(other)) => {
                joined.extend_from_slice(other.whole);
                rest = &rest[other.whole.len()..];
            }
            (_, None) => return None,
        }
    }
    Some(joined)
}

/// A field of a protobuf message: its number, its bytes as they stand, and its value if that has a length.
struct Field<'a> {
    number: u32,
    whole: &'a [u8],
    message: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    /// Reads the first field and goes behind it.
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let field = Self::peek(bytes)??;
        *bytes = &bytes[field.whole.len()..];
        Some(field)
    }

    /// Reads the first field; within, none at the end, and none at all if there is no field.
    fn peek(bytes: &'a [u8]) -> Option<Option<Self>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let mut after = bytes;
        let (number, wire) = decode_key(&mut after).ok()?;
        let mut message = None;
        let length = match wire {
            WireType::Varint => decode_varint(&mut after).map(|_| 0).ok()?,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut after).ok()?).ok()?;
                message = Some(after.get(..length)?);
                length
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let whole = &bytes[..bytes.len() - after.get(length..)?.len()];
        Some(Some(Self { number, whole, message }))
    }
}

fn put_message(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Where the form of a packed leaf stands in its segment, by the payload of the leaf's record: the place (8 bytes), then rest
/// and attachment as leaf and attachment stand in the record of a leaf that is not packed.
pub(crate) fn form_at(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|at| u64::from_le_bytes(*at))
}

/// The payload that the record of a packed leaf would have if it were not packed.
pub(crate) fn unpack(form: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let (rest, attachment) = record::split_leaf(payload.get(8..)?)?;
    let leaf = join(form, rest)?;
    Some([&record::len_of(&leaf)[..], &leaf, attachment].concat())
}

/// The forms of a segment that is read from its beginning, by their places.
#[derive(Debug, Default)]
pub(crate) struct Forms(HashMap<u64, Vec<u8>>);

impl Forms {
    /// A record as it would stand if nothing were packed; none if it is packed and its form did not stand before it.
    pub(crate) fn whole(&mut self, kind: Kind, payload: Vec<u8>, at: u64) -> Option<(Kind, Vec<u8>)> {
        match kind {
            Kind::PackedLeaf => Some((Kind::Leaf, unpack(self.0.get(&form_at(&payload)?)?, &payload)?)),
            Kind::Form => {
                self.0.insert(at, payload.clone());
                Some((kind, payload))
            }
            _ => Some((kind, payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use trave_proto::schema::log::leaf::Entry;
    use trave_proto::schema::log::{Leaf, LogRead, MessageEntry};
    use trave_proto::schema::message::Manifest;

    use super::*;

    /// A leaf whose fields are drawn from these bytes and numbers.
    fn leaf(texts: &[String], bytes: &[Vec<u8>], numbers: &[u64]) -> Leaf {
        let (text, part) =
            (|at: usize| texts[at % texts.len()].clone(), |at: usize| bytes[at % bytes.len()].clone().into());
        let number = |at: usize| numbers[at % numbers.len()];
        let manifest = Manifest {
            version: 1,
            exchange_id: part(0),
            direction: i32::try_from(number(0) % 3).unwrap(),
            index: number(1),
            previous: part(1),
            last_received: part(2),
            client: text(0),
            service: text(1),
            method: text(2),
            nonce: part(3),
            created_ms: number(2).cast_signed(),
            content_commitment: part(4),
            caller_context_commitment: part(5),
            content_length: number(3),
            bridged_to: text(3),
            ..Manifest::default()
        };
        let message = MessageEntry {
            manifest: manifest.encode_to_vec().into(),
            signature_digest: part(6),
            chain_digest: part(7),
            sent: number(4) % 2 == 0,
            ..MessageEntry::default()
        };
        Leaf::of(number(5).cast_signed(), Entry::Message(message))
    }

    proptest! {
        #[test]
        fn a_leaf_that_was_taken_apart_is_put_together_byte_for_byte(
            texts in prop::collection::vec("[a-zA-Z/ü]{0,40}", 1..5),
            bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..9),
            numbers in prop::collection::vec(any::<u64>(), 1..7),
        ) {
            let leaf = leaf(&texts, &bytes, &numbers);
            let leaf = leaf.encode_to_vec();
            let Packed { form, rest } = split(&leaf).unwrap();
            prop_assert_eq!(join(&form, &rest).unwrap(), leaf);
        }

        #[test]
        fn what_is_no_leaf_in_parts_is_refused_and_ends_nothing(
            form in prop::collection::vec(any::<u8>(), 0..60), rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = join(&form, &rest);
            let _ = split(&form);
            let _ = unpack(&form, &rest);
        }
    }

    #[test]
    fn two_exchanges_of_one_kind_have_one_form_and_it_tells_of_neither() {
        let leaf = |exchange: u8, time: u64| {
            let bytes: Vec<Vec<u8>> =
                (0..7).map(|part| vec![exchange ^ part; 32]).chain([vec![7; 32]]).collect();
            leaf(&["NORD/SH/luebeck".into()], &bytes, &[1, time, time, time, 1, time])
        };
        let (one, other) =
            (split(&leaf(0x40, 5).encode_to_vec()).unwrap(), split(&leaf(0x80, 9).encode_to_vec()).unwrap());
        assert_eq!(one.form, other.form);
        assert_ne!(one.rest, other.rest);
        assert!((0..7).all(|part| !one.form.windows(8).any(|window| window == [0x40 ^ part; 8])));
    }

    #[test]
    fn what_would_not_come_back_is_left_whole() {
        let leaf = leaf(&["a".into()], &[vec![1]], &[1]).encode_to_vec();
        assert!(split(&leaf).is_some());
        // The time before the version: not the canonical encoding.
        assert_eq!(leaf[..4], [0x08, 2, 0x10, 1]);
        assert_eq!(split(&[&leaf[2..4], &leaf[..2], &leaf[4..]].concat()), None);
        let read = Leaf::of(1, Entry::Read(LogRead::default())).encode_to_vec();
        assert_eq!(split(&read), None);
        assert_eq!(join(&leaf, &leaf), None);
        // Messages within messages are joined as deep as a leaf has them, and no deeper.
        let mut deep = Vec::new();
        for _ in 0..100_000 {
            let mut outer = Vec::new();
            put_message(10, &deep, &mut outer);
            deep = if outer.len() > 4_096 { break } else { outer };
        }
        assert_eq!(join(&deep, &deep), None);
    }
}
