//! A token with what shows, years later, that its authority's certificate counted: the OCSP answer about it, in the field of
//! the token's own CMS where other programs look for it (`crls`; ETSI EN 319 162-1 annex A.7 asks for it). Nothing signs that field;
//! the answer is signed by itself.

use bytes::Bytes;

use super::{MAX_RESPONSE, TokenError};
use crate::certificate::ocsp;
use crate::der::{self, NotDer, Value};

/// SignedData of which nothing but a TSTInfo is unusual has version 3, with an OCSP answer 5 (RFC 5652 section 5.1).
const PLAIN: &[u8] = &[3];
const WITH_STATUS: &[u8] = &[5];

/// The token (TimeStampToken, DER) with an OCSPResponse (DER) about its authority. A token that states revocation in another way,
/// or would become too large, stays as it is.
pub fn with_status(token: &Bytes, response: &[u8]) -> Bytes {
    match Fields::read(token) {
        Ok(fields) if fields.version == PLAIN && fields.crls.is_none() => {
            let completed = fields.write(WITH_STATUS, &ocsp::crls(response));
            if completed.len() > MAX_RESPONSE { token.clone() } else { completed.into() }
        }
        _ => token.clone(),
    }
}

/// The token as its authority gave it, and the answer that [`with_status`] put in, if one is there.
///
/// # Errors
/// [`TokenError::Malformed`] if an answer stands there and is not written as [`with_status`] does.
pub fn apart(token: &Bytes) -> Result<(Bytes, Option<Bytes>), TokenError> {
    let fields = Fields::read(token)?;
    let Some(crls) = fields.crls else { return Ok((token.clone(), None)) };
    match ocsp::of_crls(crls) {
        Ok(response) => {
            let (plain, response) = (Bytes::from(fields.write(PLAIN, &[])), Bytes::copy_from_slice(response));
            // Written in one way alone: what stands between the two would be nobody's.
            let again = with_status(&plain, &response);
            if again == token { Ok((plain, Some(response))) } else { Err(TokenError::Malformed) }
        }
        // Lists that an authority itself gave along: nothing here rests on them.
        Err(NotDer) if fields.version == PLAIN => Ok((token.clone(), None)),
        Err(NotDer) => Err(TokenError::Malformed),
    }
}

/// A token's SignedData (RFC 5652 section 5.1), as far as it is written anew.
struct Fields<'a> {
    kind: Value<'a>,
    version: &'a [u8],
    digest_algorithms: Value<'a>,
    content: Value<'a>,
    certificates: Option<Value<'a>>,
    crls: Option<Value<'a>>,
    signers: Value<'a>,
}

impl<'a> Fields<'a> {
    fn read(token: &'a [u8]) -> Result<Self, NotDer> {
        let mut info = der::only(der::SEQUENCE, token)?.inside();
        let kind = info.expect(der::OID)?;
        let mut fields = der::only(der::SEQUENCE, info.expect(der::context(0))?.content)?.inside();
        info.finish()?;
        let read = Self {
            kind,
            version: fields.expect(der::INTEGER)?.content,
            digest_algorithms: fields.expect(der::SET)?,
            content: fields.expect(der::SEQUENCE)?,
            certificates: fields.optional(der::context(0))?,
            crls: fields.optional(der::context(1))?,
            signers: fields.expect(der::SET)?,
        };
        fields.finish().map(|()| read)
    }

    fn write(&self, version: &[u8], crls: &[u8]) -> Vec<u8> {
        let data = der::value(
            der::SEQUENCE,
            &[
                &der::value(der::INTEGER, &[version]),
                self.digest_algorithms.raw,
                self.content.raw,
                self.certificates.map_or(&[], |certificates| certificates.raw),
                crls,
                self.signers.raw,
            ],
        );
        der::value(der::SEQUENCE, &[self.kind.raw, &der::value(der::context(0), &[&data])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(version: u8, crls: &[u8]) -> Bytes {
        let oid = der::value(der::OID, &[&[42, 3]]);
        let fields = Fields {
            kind: der::only(der::OID, &oid).unwrap(),
            version: &[version],
            digest_algorithms: der::only(der::SET, &[0x31, 0]).unwrap(),
            content: der::only(der::SEQUENCE, &[0x30, 0]).unwrap(),
            certificates: Some(der::only(0xa0, &[0xa0, 0]).unwrap()),
            crls: None,
            signers: der::only(der::SET, &[0x31, 0]).unwrap(),
        };
        fields.write(&[version], crls).into()
    }

    #[test]
    fn what_is_put_in_is_taken_out_again() {
        let plain = token(3, &[]);
        let with = with_status(&plain, &[0x30, 1, 7]);
        assert_eq!(with, token(5, &ocsp::crls(&[0x30, 1, 7])));
        assert_eq!(apart(&with), Ok((plain.clone(), Some(Bytes::from_static(&[0x30, 1, 7])))));
        assert_eq!(apart(&plain), Ok((plain.clone(), None)));
        // No second answer, and no larger token than is read.
        assert_eq!(with_status(&with, &[0x30, 1, 8]), with);
        assert_eq!(with_status(&plain, &der::value(der::SEQUENCE, &[&[0; MAX_RESPONSE]])), plain);
    }

    #[test]
    fn an_answer_is_written_in_one_way_alone() {
        let with = token(5, &ocsp::crls(&[0x30, 1, 7]));
        for version in [1, 3, 4] {
            assert_eq!(apart(&token(version, &ocsp::crls(&[0x30, 1, 7]))), Err(TokenError::Malformed));
        }
        let list = [0xa1, 2, 0x30, 0];
        assert_eq!(apart(&token(5, &list)), Err(TokenError::Malformed), "a list, as if it were an answer");
        assert_eq!(apart(&token(3, &list)), Ok((token(3, &list), None)), "an authority's own list");
        let twice = [0xa1, 4, 0xa1, 0, 0xa1, 0];
        assert_eq!(apart(&token(5, &twice)), Err(TokenError::Malformed));
        let answer = with.len() - 3;
        for at in (0..with.len()).filter(|at| *at != answer) {
            let mut other = with.to_vec();
            other[at] ^= 1;
            let found = apart(&other.into());
            assert!(!matches!(found, Ok((_, None))), "byte {at} takes the answer away: {found:?}");
        }
    }
}
