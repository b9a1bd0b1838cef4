//! Tokens that OpenSSL made, and what became of them when a byte or a part was altered.

use super::*;
use crate::certificate::Certificate;
use crate::der::{Reader, Value};

macro_rules! vector {
    ($name:literal) => {
        &include_bytes!(concat!("../../vectors/openssl/", $name))[..]
    };
}

fn stamped() -> Digest {
    Digest::of(vector!("data"))
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..=0x7f => vec![length[1]],
        0x80..=0xff => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag], &length[..], &content].concat()
}

/// Takes the token apart, lets `change` replace the set of signers, and puts it together again.
fn with_signers(token: &[u8], change: impl FnOnce(Value<'_>) -> Vec<u8>) -> Vec<u8> {
    let mut info = der::only(der::SEQUENCE, token).unwrap().inside();
    let kind = info.next().unwrap();
    let data = der::only(der::SEQUENCE, info.next().unwrap().content).unwrap();
    let (mut fields, mut kept) = (data.inside(), Vec::new());
    let signers = loop {
        let field = fields.next().unwrap();
        if fields.is_empty() {
            break field;
        }
        kept.extend_from_slice(field.raw);
    };
    let data = tlv(der::SEQUENCE, &[&kept, &change(signers)]);
    tlv(der::SEQUENCE, &[kind.raw, &tlv(der::context(0), &[&data])])
}

/// The same, replacing the signer's signed attributes.
fn with_attributes(token: &[u8], change: impl Fn(Vec<Value<'_>>) -> Vec<u8>) -> Vec<u8> {
    with_signers(token, |signers| {
        let mut fields = der::only(der::SEQUENCE, signers.content).unwrap().inside();
        let mut parts = Vec::new();
        while !fields.is_empty() {
            let field = fields.next().unwrap();
            if field.tag == der::context(0) {
                parts.extend(tlv(der::context(0), &[&change(all(field.inside()))]));
            } else {
                parts.extend_from_slice(field.raw);
            }
        }
        tlv(der::SET, &[&tlv(der::SEQUENCE, &[&parts])])
    })
}

fn all(mut reader: Reader<'_>) -> Vec<Value<'_>> {
    std::iter::from_fn(|| reader.next().ok()).collect()
}

fn refused(token: &[u8]) -> TokenError {
    Timestamp::verify(token, &stamped(), None, &[vector!("ec-tsa.der")]).unwrap_err()
}

#[test]
fn openssl_made_these() {
    for (token, authority) in [
        (vector!("ec-token.der"), vector!("ec-tsa.der")),
        (vector!("rsa-token.der"), vector!("rsa-tsa.der")),
        (vector!("ec-token-v1.der"), vector!("ec-tsa.der")),
        (vector!("rsa-token-v1.der"), vector!("rsa-tsa.der")),
    ] {
        let authorities = [vector!("rsa-root.der"), authority];
        let stamp = Timestamp::verify(token, &stamped(), None, &authorities).unwrap();
        assert!(stamp.time().to_string().starts_with("2026-11-21T20:"), "{}", stamp.time());
        assert_eq!(stamp.accuracy(), Some(Duration::from_millis(1500)));
        assert_eq!(stamp.policy(), "1.2.3.4.1");
        assert_eq!(stamp.authority(), Digest::of(authority));
        assert!(matches!(stamp.serial(), [1 | 2]), "{:?}", stamp.serial());
    }
}

#[test]
fn the_token_is_taken_out_of_a_granted_response() {
    assert_eq!(token_of(vector!("ec.tsr")).unwrap(), vector!("ec-token.der"));
    let longer = [vector!("ec.tsr"), &[0]].concat();
    assert_eq!(token_of(&longer).unwrap_err(), TokenError::Malformed);
    let without_token = [0x30, 5, 0x30, 3, 0x02, 1, 0];
    assert_eq!(token_of(&without_token).unwrap_err(), TokenError::Malformed);
    assert_eq!(token_of(&[0; MAX_RESPONSE + 1]).unwrap_err(), TokenError::TooLarge(MAX_RESPONSE + 1));
}

#[test]
fn every_refusal_is_told() {
    for failure in Failure::ALL {
        let bit = failure.bit();
        let mut bits = vec![7 - bit % 8];
        bits.extend(vec![0; usize::from(bit / 8)]);
        bits.push(0x80 >> (bit % 8));
        let text = tlv(der::SEQUENCE, &[&tlv(0x0c, &[b"because\n\x1b[31m"])]);
        let info = tlv(der::SEQUENCE, &[&[0x02, 1, 2], &text, &tlv(der::BIT_STRING, &[&bits])]);
        let error = token_of(&tlv(der::SEQUENCE, &[&info])).unwrap_err();
        let expected =
            TokenError::Refused { status: "rejection", failure: Some(failure), text: "because[31m".into() };
        assert_eq!(error, expected);
        assert!(error.to_string().contains(&failure.to_string()), "{error}");
    }
    for (status, name) in
        [(2, "rejection"), (3, "waiting"), (4, "revocationWarning"), (5, "revocationNotification")]
    {
        let error = token_of(&[0x30, 5, 0x30, 3, 0x02, 1, status]).unwrap_err();
        assert_eq!(error, TokenError::Refused { status: name, failure: None, text: String::new() });
    }
    assert_eq!(token_of(&[0x30, 5, 0x30, 3, 0x02, 1, 6]).unwrap_err(), TokenError::Malformed);
}

#[test]
fn a_request_asks_for_this_digest_with_this_nonce() {
    let request: TimeStampReq = der::decode(&request(&stamped(), Nonce::from_random([9; 8]))).unwrap();
    assert_eq!(request.message_imprint.hashed_message, stamped().as_bytes()[..]);
    assert_eq!(request.nonce, Some(0x0909_0909_0909_0909_u64.into()));
    assert!(request.cert_req && request.req_policy.is_none());
    assert_eq!(Nonce::from_random([0; 8]), Nonce(1));
}

#[test]
fn a_token_about_something_else_is_refused() {
    let (token, authorities) = (vector!("ec-token.der"), [vector!("ec-tsa.der")]);
    let other = Timestamp::verify(token, &Digest::of(b"other"), None, &authorities).unwrap_err();
    assert_eq!(other, TokenError::OtherDigest);
    let nonce = Some(Nonce::from_random([9; 8]));
    let other = Timestamp::verify(token, &stamped(), nonce, &authorities).unwrap_err();
    assert_eq!(other, TokenError::Nonce);
}

#[test]
fn only_authorities_of_the_configuration_count() {
    let verify = |authorities: &[&[u8]]| {
        Timestamp::verify(vector!("ec-token.der"), &stamped(), None, authorities).unwrap_err()
    };
    assert_eq!(verify(&[]), TokenError::UnknownAuthority);
    assert_eq!(verify(&[vector!("rsa-tsa.der"), vector!("ec-sub.der")]), TokenError::UnknownAuthority);
    assert_eq!(verify(&[b"rubbish"]), TokenError::Authorities);
    // The same names and number in a certificate with another byte: the signer bound itself to the true one.
    let mut altered = vector!("ec-tsa.der").to_vec();
    *altered.last_mut().unwrap() ^= 1;
    assert!(Certificate::from_der(&altered).is_ok());
    assert_eq!(verify(&[&altered]), TokenError::UnknownAuthority);
}

#[test]
fn there_is_one_signer() {
    let token = vector!("ec-token.der");
    assert_eq!(with_signers(token, |signers| signers.raw.to_vec()), token, "taken apart and put together");
    let two = with_signers(token, |signers| tlv(der::SET, &[signers.content, signers.content]));
    assert_eq!(refused(&two), TokenError::Malformed);
    assert_eq!(refused(&with_signers(token, |_| tlv(der::SET, &[]))), TokenError::Malformed);
}

#[test]
fn signed_attributes_stand_there_once() {
    let token = vector!("ec-token.der");
    let raws = |values: Vec<Value<'_>>| values.iter().map(|value| value.raw.to_vec()).collect::<Vec<_>>();
    let count = std::cell::Cell::new(0);
    let same = with_attributes(token, |values| {
        count.set(values.len());
        raws(values).concat()
    });
    assert_eq!(same, token, "taken apart and put together");
    for which in 0..count.get() {
        let without = with_attributes(token, |values| {
            let mut all = raws(values);
            all.remove(which);
            all.concat()
        });
        let twice = with_attributes(token, |values| {
            let mut all = raws(values);
            all.push(all[which].clone());
            all.concat()
        });
        for altered in [without, twice] {
            let error = refused(&altered);
            assert!(matches!(error, TokenError::Attribute(_) | TokenError::Signature), "{which}: {error}");
        }
    }
}

/// A token has parts that nobody signed (other certificates, the list of algorithms): altering them changes nothing of
/// what was verified.
#[test]
fn no_altered_byte_tells_another_story() {
    for token in [vector!("ec-token.der"), vector!("rsa-token-v1.der")] {
        let authorities = [vector!("ec-tsa.der"), vector!("rsa-tsa.der")];
        let verify = |token: &[u8]| Timestamp::verify(token, &stamped(), None, &authorities);
        let story = verify(token).unwrap();
        let mut refused = 0;
        for byte in 0..token.len() {
            let mut altered = token.to_vec();
            altered[byte] ^= 1;
            match verify(&altered) {
                Ok(told) => assert_eq!(told, story, "byte {byte}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 300, "{refused} of {} bytes matter", token.len());
        for length in 0..token.len() {
            assert!(verify(&token[..length]).is_err(), "cut at {length}");
        }
    }
}
