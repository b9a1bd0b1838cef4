//! An answer inside a CMS SignedData, where other programs look for it: `crls` with another format than lists
//! (RFC 5652 section 10.2.1), which RFC 5940 section 2.2 gives to OCSP.

use crate::der::{self, NotDer, Value};

/// id-ri-ocsp-response (RFC 5940 section 2.2).
const OCSP_RESPONSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 16, 2];

/// The field `crls` of a SignedData (section 5.1) with one OCSPResponse (DER); its version is then 5.
pub(crate) fn crls(response: &[u8]) -> Vec<u8> {
    let one = der::value(der::context(1), &[&der::value(der::OID, &[OCSP_RESPONSE]), response]);
    der::value(der::context(1), &[&one])
}

/// The one OCSPResponse (DER) in a field `crls`.
pub(crate) fn of_crls(crls: Value<'_>) -> Result<&[u8], NotDer> {
    let mut one = der::only(der::context(1), crls.content)?.inside();
    if one.expect(der::OID)?.content != OCSP_RESPONSE {
        return Err(NotDer);
    }
    let response = one.expect(der::SEQUENCE)?.raw;
    one.finish().map(|()| response)
}
