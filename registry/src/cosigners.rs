//! How the registry asks the cosigners for their signatures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Request, Status};
use trave_host::client::Channel;
use trave_host::config::with_causes;
use trave_host::stubs::management::cosigner_service_client::CosignerServiceClient;
use trave_host::tls::{self, Http, Identity, Pinned, TlsError};
use trave_proto::clock::{Clock, Time};
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, MAX_CONFIGURATION};
use trave_proto::schema::configuration::{GlobalConfiguration, KeySignature, SignedConfiguration};
use trave_proto::schema::management::CosignRequest;

use crate::config::Cosigner;
use crate::cosigner::{LAST_NUMBER, REASON};
use crate::state::Store;

/// How long a cosigner has to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Most configurations that a cosigner is shown that fell behind.
const MAX_MISSED: u64 = 200;
/// Most bytes of them in one request, unless one alone has more.
const MAX_BATCH: usize = MAX_CONFIGURATION;

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Enough have signed.
    Signed(SignedConfiguration),
    /// All cosigners say that the proposal is too old and that they signed none of its number.
    Stale { digest: Digest, issued: Time },
    /// Signatures are missing.
    Missing { number: u64, missing: String },
}

/// The cosigners, and how to reach them.
#[derive(Debug)]
pub(crate) struct Cosigners(Vec<(Cosigner, tls::Client)>);

impl Cosigners {
    /// The cosigners, each accepted by its own key alone.
    pub(crate) fn new(
        cosigners: &[Cosigner],
        identity: &Arc<Identity>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let client = |cosigner: &Cosigner| {
            let policy = Arc::new(Pinned::new([cosigner.key]));
            let client = tls::Client::new(Some(identity.clone()), policy, Http::Two, clock.clone())?;
            Ok((cosigner.clone(), client))
        };
        cosigners.iter().map(client).collect::<Result<_, _>>().map(Self)
    }

    /// Asks one after another until enough have signed. Each sees the signatures before its own.
    pub(crate) async fn ask(&self, mut request: CosignRequest, anchor: &Anchor, store: &Store) -> Asked {
        let mut signed = request.proposed.clone().unwrap_or_default();
        let proposed = GlobalConfiguration::decode(signed.configuration.clone()).unwrap_or_default();
        let mut missing = Vec::new();
        let mut stale = 0;
        for (cosigner, client) in &self.0 {
            if anchor.count_valid(&signed) >= anchor.threshold() {
                break;
            }
            request.proposed = Some(signed.clone());
            match ask_one(cosigner, client, &request, store).await {
                Ok(signature) => signed.signatures.push(signature),
                Err(why) => {
                    stale += usize::from(why.stale);
                    missing.push(format!("{}: {}", cosigner.address, why.text));
                }
            }
        }
        if anchor.count_valid(&signed) >= anchor.threshold() {
            return Asked::Signed(signed);
        }
        if stale > 0 && stale == self.0.len() {
            let issued = Time::from_millis(proposed.issued_ms);
            return Asked::Stale { digest: Digest::of(&signed.configuration), issued };
        }
        Asked::Missing { number: proposed.number, missing: missing.join("; ") }
    }
}

/// Why a cosigner gave no signature.
struct Unsigned {
    stale: bool,
    text: String,
}

impl Unsigned {
    fn because(text: impl Into<String>) -> Self {
        Self { stale: false, text: text.into() }
    }
}

async fn ask_one(
    cosigner: &Cosigner,
    client: &tls::Client,
    request: &CosignRequest,
    store: &Store,
) -> Result<KeySignature, Unsigned> {
    let channel = Channel::tls(&cosigner.address, client).await;
    let channel = channel.map_err(|error| Unsigned::because(with_causes(&error)))?;
    let mut client = CosignerServiceClient::new(channel).max_encoding_message_size(2 * MAX_CONFIGURATION);
    match call(&mut client, request).await {
        Err(status) if reason(&status) == Some("behind") => {
            let last = status.metadata().get(LAST_NUMBER).and_then(|value| value.to_str().ok()?.parse().ok());
            let last = last.ok_or_else(|| Unsigned::because("it is behind and does not say by how much"))?;
            catch_up(&mut client, store, last, request).await?;
            call(&mut client, request).await.map_err(|status| unsigned(&status))
        }
        answer => answer.map_err(|status| unsigned(&status)),
    }
}

async fn call(
    client: &mut CosignerServiceClient<Channel>,
    request: &CosignRequest,
) -> Result<KeySignature, Status> {
    let mut request = Request::new(request.clone());
    request.set_timeout(ANSWER);
    let answer = tokio::time::timeout(ANSWER, client.cosign(request)).await;
    let answer = answer.map_err(|_| Status::new(Code::DeadlineExceeded, "no answer in time"))??;
    answer.into_inner().signature.ok_or_else(|| Status::internal("an answer without a signature"))
}

fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(REASON).and_then(|value| value.to_str().ok())
}

fn unsigned(status: &Status) -> Unsigned {
    let text: String = status.message().chars().filter(|c| !c.is_control()).take(500).collect();
    Unsigned { stale: reason(status) == Some("stale"), text }
}

/// Shows a cosigner what it missed after number `last`, in as many requests as it takes: the last configuration of each
/// is signed as the anchor demands, so that the cosigner follows it.
async fn catch_up(
    client: &mut CosignerServiceClient<Channel>,
    store: &Store,
    last: u64,
    request: &CosignRequest,
) -> Result<(), Unsigned> {
    let proposed = request.proposed.as_ref().map_or(0, |signed| number_of(&signed.configuration));
    if proposed.saturating_sub(last) > MAX_MISSED {
        return Err(Unsigned::because(format!("it knows nothing after number {last}: restore its state")));
    }
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for number in last + 1..proposed {
        let missed = missed(store, number).await?;
        let more = missed.encoded_len();
        if bytes + more > MAX_BATCH {
            show(client, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += more;
        batch.push(missed);
    }
    show(client, batch).await
}

async fn show(
    client: &mut CosignerServiceClient<Channel>,
    mut batch: Vec<CosignRequest>,
) -> Result<(), Unsigned> {
    let Some(last) = batch.pop() else { return Ok(()) };
    let answer = call(client, &CosignRequest { missed: batch, ..last }).await;
    answer.map(drop).map_err(|status| unsigned(&status))
}

/// A configuration that was published, with its acts.
async fn missed(store: &Store, number: u64) -> Result<CosignRequest, Unsigned> {
    let encoded = store.configuration(number).await;
    let signed = encoded.and_then(|bytes| SignedConfiguration::decode(bytes).ok());
    let signed = signed.ok_or_else(|| Unsigned::because(format!("configuration {number} is not kept")))?;
    let acts = store.lock().await.acts_of(&signed.configuration);
    Ok(CosignRequest { proposed: Some(signed), acts, missed: Vec::new() })
}

fn number_of(configuration: &Bytes) -> u64 {
    GlobalConfiguration::decode(configuration.clone()).map_or(0, |configuration| configuration.number)
}
