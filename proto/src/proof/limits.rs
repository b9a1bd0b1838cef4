//! How much of each thing a proof file may hold, counted on the bytes before anything is built of them: a file that is
//! made to exhaust the verifier's memory is refused at the price of reading it once.

/// What may stand in one field of a message.
struct Limit {
    field: u64,
    /// How often.
    count: usize,
    /// How many bytes each.
    bytes: usize,
    /// Fields within it, if it is a message whose parts are counted too.
    within: &'static [Limit],
}

const fn leaf(field: u64, count: usize, bytes: usize) -> Limit {
    Limit { field, count, bytes, within: &[] }
}

const DIGEST: usize = 32;
const KIBI: usize = 1 << 10;
const MEBI: usize = 1 << 20;

const SIGNATURES: &[Limit] = &[Limit { field: 2, count: 64, bytes: KIBI, within: &[] }];
const BATCH_SIGNATURE: &[Limit] = &[leaf(4, 16, DIGEST)];
const RECORD: &[Limit] = &[
    leaf(1, 1, 64 * KIBI),
    leaf(3, 64, DIGEST),
    Limit { field: 4, count: 1, bytes: 2 * KIBI, within: BATCH_SIGNATURE },
    leaf(6, 1, DIGEST),
    leaf(7, 1, 2 * MEBI),
    leaf(8, 1, DIGEST),
    leaf(9, 1, 4 * KIBI),
];
/// Anchors, configurations, artefacts, records, checkpoint: the numbers of the schema.
const PROOF: &[Limit] = &[
    leaf(2, 1, 16),
    Limit { field: 3, count: 64, bytes: 128 * KIBI, within: SIGNATURES },
    Limit { field: 4, count: 1024, bytes: 17 * MEBI, within: SIGNATURES },
    leaf(5, 16 * KIBI, 128 * KIBI),
    Limit { field: 6, count: 256 * KIBI, bytes: 3 * MEBI, within: RECORD },
    leaf(7, 1, 256 * KIBI),
];

/// Refuses what is not protobuf, and more of anything than a proof may hold.
pub(super) fn check(body: &[u8]) -> Result<(), &'static str> {
    check_within(body, PROOF)
}

fn check_within(message: &[u8], limits: &[Limit]) -> Result<(), &'static str> {
    let mut counts = vec![0_usize; limits.len()];
    let mut rest = message;
    while !rest.is_empty() {
        let (field, content) = next(&mut rest).ok_or("it is cut short, or not protobuf")?;
        let Some(at) = limits.iter().position(|limit| limit.field == field) else { continue };
        counts[at] += 1;
        let limit = &limits[at];
        if counts[at] > limit.count || content.len() > limit.bytes {
            return Err("it holds more of something than a proof may");
        }
        if !limit.within.is_empty() {
            check_within(content, limit.within)?;
        }
    }
    Ok(())
}

/// The content of the first field with this number, if it is a string, bytes or a message.
pub(super) fn find(message: &[u8], field: u64) -> Option<&[u8]> {
    let mut rest = message;
    while !rest.is_empty() {
        let (found, content) = next(&mut rest)?;
        if found == field {
            return Some(content);
        }
    }
    None
}

/// The next field and its content; the bytes of a number for a number.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            let before = *rest;
            varint(rest)?;
            return Some((key >> 3, &before[..before.len() - rest.len()]));
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None, // groups have no place here
    };
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((key >> 3, content))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use prost::Message;

    use crate::schema::proof::{Proof, Record};

    fn refused(proof: &Proof) -> bool {
        check(&proof.encode_to_vec()).is_err()
    }

    #[test]
    fn more_than_a_proof_may_hold_is_refused_unread() {
        let path = |count| Record { path: vec![Bytes::new(); count], ..Record::default() };
        assert!(!refused(&Proof { records: vec![path(64)], ..Proof::default() }));
        assert!(refused(&Proof { records: vec![path(65)], ..Proof::default() }));
        assert!(refused(&Proof { artefacts: vec![Bytes::new(); 16 * KIBI + 1], ..Proof::default() }));
        let long = Record { leaf: vec![0; 64 * KIBI + 1].into(), ..Record::default() };
        assert!(refused(&Proof { records: vec![long], ..Proof::default() }));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for bytes in [&[0x0a][..], &[0x0a, 5, 1], &[0x80], &[0x0b], &[0xff; 11]] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(find(&[0x08, 1, 0x12, 2, b'h', b'i'], 2), Some(&b"hi"[..]));
        assert_eq!(find(&[0x08, 0x96, 1], 1), Some(&[0x96, 1][..]));
    }
}
