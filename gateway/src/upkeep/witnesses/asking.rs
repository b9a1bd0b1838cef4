//! One question to one witness (<https://c2sp.org/tlog-witness>): how it is reached, what it is asked, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{StatusCode, Uri};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::time::Instant;
use trave_host::client::{Fetch, FetchError};
use trave_host::tls::{self, Authority, Http, TlsError};
use trave_message_log::{Log, LogError, SignedCheckpoint};
use trave_proto::checkpoint::{AddCheckpoint, CheckpointError, MAX_NOTE, Note, WitnessVerifier};
use trave_proto::clock::{Clock, Time};
use trave_proto::global_configuration::WitnessEntry;

use crate::config::Config;

/// For all questions to one witness about one checkpoint.
const PATIENCE: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; charset=utf-8";

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCosignature {
    #[error("its address is no URL")]
    Address,
    #[error(
        "its address is https, and this server knows no authority for it\nhint: name a file of certificates in \
         witnesses.authorities of gateway.toml"
    )]
    NoAuthority,
    #[error("https cannot be set up for it")]
    Tls(#[source] TlsError),
    #[error("it was not reached a moment ago: {0}")]
    Silent(String),
    #[error("the message log gives no consistency proof")]
    Log(#[source] LogError),
    #[error("it is not reached")]
    Fetch(#[source] FetchError),
    #[error("its answer cannot be read")]
    Answer(#[source] CheckpointError),
    #[error("its answer is not signed with the key that the configuration names")]
    OtherKey,
    #[error("it answered {status}: {said}")]
    Refused { status: StatusCode, said: String },
    #[error("it saw this log at {last} records, and there are only {size}: the log lost what it gave away")]
    Ahead { last: u64, size: u64 },
    #[error("it says that this log contradicts what it saw before: {0}")]
    Contradiction(String),
    #[error("its cosignature is dated {0}, in the future of this server's clock; compare the clocks")]
    Future(Time),
}

impl NoCosignature {
    /// Whether the log itself may be at fault, which no later attempt mends.
    pub(super) const fn is_alarm(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Contradiction(_))
    }

    /// Whether nobody answered.
    pub(super) const fn is_silence(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Silent(_))
    }
}

/// How witnesses are reached: over http, where what comes and goes proves itself; over https, where somebody wants it so, under
/// the authorities of this server's operator.
#[derive(Debug)]
pub(crate) struct Ways {
    authorities: Vec<CertificateDer<'static>>,
    clock: Arc<dyn Clock>,
}

impl Ways {
    /// As the configuration says.
    pub(crate) fn read(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let authorities = match config.witness_authorities() {
            Some(file) => tls::chain_from_pem(&file)?,
            None => Vec::new(),
        };
        // What cannot be used is found at the start.
        Authority::for_clients(&authorities)?;
        Ok(Self { authorities, clock: Arc::clone(clock) })
    }

    /// How to ask at `uri`.
    fn to(&self, uri: &Uri) -> Result<Fetch, NoCosignature> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Fetch::new(None));
        }
        if self.authorities.is_empty() {
            return Err(NoCosignature::NoAuthority);
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| NoCosignature::Address)?;
        let policy = Authority::for_server(&self.authorities, name).map_err(NoCosignature::Tls)?;
        let client = tls::Client::new(None, Arc::new(policy), Http::One, Arc::clone(&self.clock));
        Ok(Fetch::new(Some(client.map_err(NoCosignature::Tls)?)))
    }
}

/// The line of one witness. Where it saw the log elsewhere than was thought, it is asked once more from there.
pub(super) async fn ask(
    ways: &Ways,
    witness: &WitnessEntry,
    sealed: &SignedCheckpoint,
    log: &Log,
    (seen, latest): (u64, Time),
) -> Result<String, NoCosignature> {
    let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
    let uri = url.parse().map_err(|_| NoCosignature::Address)?;
    let fetch = ways.to(&uri)?.with_limit(MAX_NOTE);
    let size = sealed.checkpoint.size;
    let (mut old, began) = (seen.min(size), Instant::now());
    for _ in 0..2 {
        let request = request(sealed, log, old).await?;
        let fetch = fetch.clone().with_time(PATIENCE.saturating_sub(began.elapsed()));
        let (status, answer) =
            fetch.ask(&uri, TEXT, request.to_bytes().into()).await.map_err(NoCosignature::Fetch)?;
        match answered(status, &answer.body, (old, size))? {
            Answer::Lines => return line(&request.checkpoint, &answer.body, &witness.verifier, latest),
            Answer::Elsewhere(last) => old = last,
        }
    }
    Err(NoCosignature::Refused { status: StatusCode::CONFLICT, said: "twice".into() })
}

/// What goes on after a witness's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has cosigned.
    Lines,
    /// It last saw the log at this size.
    Elsewhere(u64),
}

/// Reads the answer to a request from the `old` size to this one.
pub(super) fn answered(
    status: StatusCode,
    body: &[u8],
    (old, size): (u64, u64),
) -> Result<Answer, NoCosignature> {
    let said = || {
        let said = String::from_utf8_lossy(body);
        said.trim().chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    match (status, AddCheckpoint::parse_conflict(body)) {
        (StatusCode::OK, _) => Ok(Answer::Lines),
        (StatusCode::CONFLICT, Some(last)) if last > size => Err(NoCosignature::Ahead { last, size }),
        // The specification's answer to another root for the size that it cosigned.
        (StatusCode::CONFLICT, Some(last)) if last == old && old == size => {
            Err(NoCosignature::Contradiction(format!("another root at {size} records")))
        }
        (StatusCode::CONFLICT, Some(last)) if last != old => Ok(Answer::Elsewhere(last)),
        (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(NoCosignature::Contradiction(said())),
        _ => Err(NoCosignature::Refused { status, said: said() }),
    }
}

async fn request(sealed: &SignedCheckpoint, log: &Log, old: u64) -> Result<AddCheckpoint, NoCosignature> {
    let (log, size) = (log.clone(), sealed.checkpoint.size);
    let proof = tokio::task::spawn_blocking(move || log.consistency(old, size)).await;
    let proof = proof.unwrap_or(Err(LogError::Closed)).map_err(NoCosignature::Log)?;
    let checkpoint = Note::parse(&sealed.note).map_err(NoCosignature::Answer)?;
    Ok(AddCheckpoint { old, proof, checkpoint })
}

/// The witness's own line of an answer; lines of others are ignored, as the specification asks.
pub(super) fn line(
    checkpoint: &Note,
    answer: &[u8],
    key: &WitnessVerifier,
    latest: Time,
) -> Result<String, NoCosignature> {
    let mut note = checkpoint.clone();
    note.add_lines(answer).map_err(NoCosignature::Answer)?;
    let keys = std::slice::from_ref(key);
    let line = note.cosignature_lines_until(keys, latest);
    if !line.is_empty() {
        return Ok(line);
    }
    let found = note.cosignatures(keys).ok().and_then(|found| found.first().map(|one| one.time));
    Err(found.map_or(NoCosignature::OtherKey, NoCosignature::Future))
}
