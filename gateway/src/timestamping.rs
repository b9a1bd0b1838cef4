//! Asking the timestamping authorities of the global configuration, one after the other, and what their issuer says of them.

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use trave_host::client::{Fetch, FetchError};
use trave_host::config::with_causes;
use trave_proto::certificate::ocsp::OcspError;
use trave_proto::container::StampingAuthority;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Configuration, TimestampingAuthorityEntry};
use trave_proto::timestamp::{self, MAX_RESPONSE, Nonce, Timestamp, TokenError};

/// Why there is no timestamp.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StampError {
    #[error("the global configuration names no timestamping authority")]
    NoAuthority,
    #[error("the timestamping authority {name} is not reached")]
    Fetch {
        name: String,
        #[source]
        source: FetchError,
    },
    #[error("the timestamping authority {name} gave no usable timestamp")]
    Token {
        name: String,
        #[source]
        source: TokenError,
    },
    #[error("the timestamping authority {name} is not to be believed")]
    Status {
        name: String,
        #[source]
        source: OcspError,
    },
    #[error("this server's system gives no random bytes")]
    Random,
}

/// A timestamp, and who made it.
#[derive(Debug)]
pub(crate) struct Stamped {
    /// TimeStampToken, DER.
    pub(crate) token: Bytes,
    pub(crate) stamp: Timestamp,
    /// The authority's name in the configuration.
    pub(crate) authority: String,
}

/// A timestamp by the first authority that gives one.
pub(crate) async fn stamp(digest: &Digest, configuration: &Configuration) -> Result<Stamped, StampError> {
    first(digest, configuration, false).await
}

/// A timestamp that is to be kept for long: its token carries the answer about its authority's certificate. Where no responder
/// answers, it is as good as the configuration's word for that authority, and is made all the same.
pub(crate) async fn stamp_to_keep(
    digest: &Digest,
    configuration: &Configuration,
) -> Result<Bytes, StampError> {
    first(digest, configuration, true).await.map(|stamped| stamped.token)
}

async fn first(digest: &Digest, configuration: &Configuration, to_keep: bool) -> Result<Stamped, StampError> {
    let mut failed = StampError::NoAuthority;
    for authority in configuration.timestamping_authorities() {
        let stamped = match ask(authority, digest, configuration).await {
            Ok(stamped) if to_keep => completed(stamped, configuration).await,
            other => other,
        };
        match stamped {
            Ok(stamped) => return Ok(stamped),
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "a timestamping authority failed");
                failed = error;
            }
        }
    }
    Err(failed)
}

/// One authority's timestamp, verified before it is believed.
async fn ask(
    authority: &TimestampingAuthorityEntry,
    digest: &Digest,
    configuration: &Configuration,
) -> Result<Stamped, StampError> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| StampError::Random)?;
    let nonce = Nonce::from_random(random);
    let fetch_error = |source| StampError::Fetch { name: authority.name.clone(), source };
    let token_error = |source| StampError::Token { name: authority.name.clone(), source };
    let uri = authority.url.parse().map_err(|_| {
        fetch_error(FetchError::Address { uri: authority.url.clone(), why: "it is not a URL" })
    })?;
    let fetch = Fetch::new(None).with_limit(MAX_RESPONSE);
    let request = timestamp::request(digest, nonce).into();
    let answer = fetch.post(&uri, "application/timestamp-query", request).await.map_err(fetch_error)?;
    let token = timestamp::token_of(&answer.body).map_err(token_error)?;
    let authorities: Vec<_> =
        configuration.timestamping_authorities().iter().map(|authority| &authority.certificate).collect();
    let stamp = Timestamp::verify(&token, digest, Some(nonce), &authorities).map_err(token_error)?;
    Ok(Stamped { token, stamp, authority: authority.name.clone() })
}

/// The same with the answer about its authority, if there is one.
async fn completed(stamped: Stamped, configuration: &Configuration) -> Result<Stamped, StampError> {
    match status(&stamped.stamp, configuration).await {
        Ok(None) => Ok(stamped),
        Ok(Some(answer)) => Ok(Stamped { token: timestamp::with_status(&stamped.token, &answer), ..stamped }),
        Err(source) => Err(StampError::Status { name: stamped.authority, source }),
    }
}

/// What the issuer of the authority's certificate answers, for the time of the timestamp. None if nobody answers; an error if it
/// was revoked, or an answer is not one.
async fn status(stamp: &Timestamp, configuration: &Configuration) -> Result<Option<Bytes>, OcspError> {
    let Some(authority) = StampingAuthority::of(stamp, configuration) else { return Ok(None) };
    let Some((question, urls)) = authority.question() else { return Ok(None) };
    for url in urls {
        let Ok(uri) = url.parse() else { continue };
        match Fetch::new(None).post(&uri, "application/ocsp-request", question.clone().into()).await {
            Ok(answer) => {
                authority.verify_status(&answer.body, stamp.time())?;
                return Ok(Some(answer.body));
            }
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "no answer about a timestamping authority");
            }
        }
    }
    Ok(None)
}
