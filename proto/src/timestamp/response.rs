//! A timestamping authority's answer: a token, or why there is none.

use bytes::Bytes;
use rasn_cms::tsp::{PkiStatus, PkiStatusInfo};

use super::MAX_RESPONSE;
use super::token::TokenError;
use crate::der;

/// Longest text of an authority that is passed on, in characters.
const MAX_TEXT: usize = 200;

/// Why an authority refused (PKIFailureInfo, RFC 3161 section 2.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are RFC 3161's own names, explained by Display")]
pub enum Failure {
    BadAlgorithm,
    BadRequest,
    BadDataFormat,
    TimeNotAvailable,
    UnacceptedPolicy,
    UnacceptedExtension,
    AddInfoNotAvailable,
    SystemFailure,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::BadAlgorithm,
        Self::BadRequest,
        Self::BadDataFormat,
        Self::TimeNotAvailable,
        Self::UnacceptedPolicy,
        Self::UnacceptedExtension,
        Self::AddInfoNotAvailable,
        Self::SystemFailure,
    ];

    /// The bit of PKIFailureInfo that stands for it, the first being 0.
    pub const fn bit(self) -> u8 {
        match self {
            Self::BadAlgorithm => 0,
            Self::BadRequest => 2,
            Self::BadDataFormat => 5,
            Self::TimeNotAvailable => 14,
            Self::UnacceptedPolicy => 15,
            Self::UnacceptedExtension => 16,
            Self::AddInfoNotAvailable => 17,
            Self::SystemFailure => 25,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadAlgorithm => "badAlg: the digest's algorithm is not accepted",
            Self::BadRequest => "badRequest: the request is not permitted or supported",
            Self::BadDataFormat => "badDataFormat: the data has the wrong format",
            Self::TimeNotAvailable => "timeNotAvailable: the authority's time source is not available",
            Self::UnacceptedPolicy => "unacceptedPolicy: the requested policy is not supported",
            Self::UnacceptedExtension => "unacceptedExtension: the requested extension is not supported",
            Self::AddInfoNotAvailable => "addInfoNotAvailable: the additional information is not available",
            Self::SystemFailure => "systemFailure: the authority's system failed",
        })
    }
}

/// Takes the token (DER) out of a TimeStampResp (DER, RFC 3161 section 2.4.2), if the authority granted one.
pub fn token_of(response: &[u8]) -> Result<Bytes, TokenError> {
    if response.len() > MAX_RESPONSE {
        return Err(TokenError::TooLarge(response.len()));
    }
    let mut parts = der::only(der::SEQUENCE, response)?.inside();
    let info: PkiStatusInfo = der::decode(parts.expect(der::SEQUENCE)?.raw)?;
    let token = parts.optional(der::SEQUENCE)?;
    parts.finish()?;
    match (info.status, token) {
        (PkiStatus::Granted | PkiStatus::GrantedWithMods, Some(token)) => {
            Ok(Bytes::copy_from_slice(token.raw))
        }
        (PkiStatus::Granted | PkiStatus::GrantedWithMods, None) => Err(TokenError::Malformed),
        (status, _) => {
            Err(TokenError::Refused { status: name(status), failure: failure(&info), text: text(&info) })
        }
    }
}

const fn name(status: PkiStatus) -> &'static str {
    match status {
        PkiStatus::Granted => "granted",
        PkiStatus::GrantedWithMods => "grantedWithMods",
        PkiStatus::Rejection => "rejection",
        PkiStatus::Waiting => "waiting",
        PkiStatus::RevocationWarning => "revocationWarning",
        PkiStatus::RevocationNotification => "revocationNotification",
    }
}

fn failure(info: &PkiStatusInfo) -> Option<Failure> {
    let bits = info.fail_info.as_ref()?;
    let set = |failure: &Failure| bits.get(usize::from(failure.bit())).is_some_and(|bit| *bit);
    Failure::ALL.into_iter().find(set)
}

/// The authority's words, as far as they can be printed safely.
fn text(info: &PkiStatusInfo) -> String {
    let all = info.status_string.iter().flatten().flat_map(|part| part.chars().chain([' ']));
    let text: String = all.filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    text.trim().to_owned()
}
