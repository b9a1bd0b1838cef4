//! The checkpoint and the hashes of the log's tree, for programs that nobody here wrote: C2SP tlog-tiles
//! (<https://c2sp.org/tlog-tiles>) over the door for auditors, and to nobody else.
//!
//! A tile says how many records there are and what they hash to, nothing of what they say. Bundles of entries are not
//! offered: a bundle holds 256 records whole, and no auditor may see all of those.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};
use trave_host::config::with_causes;
use trave_message_log::LogError;
use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::schema::log::LogRead;
use trave_proto::schema::log::leaf::Entry as LeafEntry;
use trave_proto::tree::Tile;

use super::{Desk, SignedIn};
use crate::auditors::Auditors;
use crate::exchange::Exchanges;
use crate::proof;
use crate::upkeep::Upkeep;

/// Tiles that are read at a time, for all auditors together; further requests wait.
const READING: usize = 4;
/// That an auditor reads the tree is logged again after this time: each tile by itself would make the log grow by being read.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// What is under a tile's name never changes. It is for the auditor who asked, not for a cache between.
const FOR_EVER: &str = "private, max-age=31536000, immutable";
/// The checkpoint changes, and what is not there yet may come.
const NOT_KEPT: &str = "no-store";

/// Where the tree is read.
#[derive(Debug)]
struct Tiles {
    exchanges: Arc<Exchanges>,
    upkeep: Arc<Upkeep>,
    known: Arc<Auditors>,
    reading: Semaphore,
    /// When it was last logged that this auditor reads.
    told: Mutex<HashMap<String, Time>>,
}

/// `GET /checkpoint` and `GET /tile/…`.
pub(super) fn routes(desk: &Desk) -> Router {
    let (exchanges, upkeep) = (Arc::clone(&desk.exchanges), Arc::clone(&desk.upkeep));
    let (known, reading) = (Arc::clone(&desk.known), Semaphore::new(READING));
    let tiles = Tiles { exchanges, upkeep, known, reading, told: Mutex::default() };
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .with_state(Arc::new(tiles))
}

impl Tiles {
    /// Lets an auditor in, once it is on disk that it reads.
    async fn admit(&self, signed_in: Option<Extension<SignedIn>>) -> Result<(), Response> {
        let stranger = || "this certificate is no auditor's here".to_owned();
        let known = signed_in.ok_or_else(stranger).and_then(|Extension(SignedIn(key))| self.known.find(&key));
        let auditor = known.map_err(|why| told(StatusCode::FORBIDDEN, why))?;
        let now = self.exchanges.clock.now();
        let mut when = self.told.lock().await;
        // Also where the clock was set back.
        if when.get(&auditor.name).is_some_and(|last| *last <= now && now.since(*last) < TOLD_AGAIN) {
            return Ok(());
        }
        let results = self.exchanges.recorder.log().size();
        let (reason, query) = ("checkpoint and hashes alone".into(), "tlog-tiles".into());
        let read = LogRead { reader: auditor.reader(), reason, query, results };
        let logged = self.exchanges.recorder.event(LeafEntry::Read(read), Vec::new()).await;
        logged.map_err(|error| failed(&error))?;
        when.insert(auditor.name.clone(), now);
        Ok(())
    }
}

/// The last checkpoint that is witnessed as the policy asks, with the cosignatures; where none is, the last.
async fn checkpoint(
    State(tiles): State<Arc<Tiles>>,
    signed_in: Option<Extension<SignedIn>>,
    uri: Uri,
) -> Response {
    if let Err(refused) = tiles.admit(signed_in).await {
        return refused;
    }
    match proof::published(&tiles.exchanges, &tiles.upkeep) {
        Some(note) if uri.query().is_none() => given(TEXT, NOT_KEPT, note),
        _ => told(StatusCode::NOT_FOUND, "there is no checkpoint yet: ask again in a minute".into()),
    }
}

async fn tile(State(tiles): State<Arc<Tiles>>, signed_in: Option<Extension<SignedIn>>, uri: Uri) -> Response {
    if let Err(refused) = tiles.admit(signed_in).await {
        return refused;
    }
    // The path as it came: nothing of it is decoded.
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let Some(tile) = Tile::parse(path) else {
        let why = "no tile has this name: /tile/LEVEL/NUMBER[.p/WIDTH], as https://c2sp.org/tlog-tiles says; entries are \
                   not offered as bundles, `trave-audit scan` reads them";
        return told(StatusCode::NOT_FOUND, why.into());
    };
    let Ok(_place) = tiles.reading.acquire().await else {
        return told(StatusCode::SERVICE_UNAVAILABLE, "this server is about to stop".into());
    };
    let log = tiles.exchanges.recorder.log().clone();
    let read = tokio::task::spawn_blocking(move || {
        // What no checkpoint covers yet, nobody could verify.
        let covered = log.latest_checkpoint().map_or(0, |last| last.checkpoint.size);
        log.tile(&tile, covered)
    });
    match read.await.unwrap_or(Err(LogError::Closed)) {
        Ok(Some(hashes)) => given(BYTES, FOR_EVER, bytes_of(&hashes)),
        Ok(None) => told(StatusCode::NOT_FOUND, "no checkpoint of this log covers this tile".into()),
        Err(error) => failed(&error),
    }
}

fn bytes_of(hashes: &[Digest]) -> Bytes {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

fn given(kind: &'static str, kept: &'static str, body: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(kept)),
    ];
    (headers, body).into_response()
}

fn failed(error: &LogError) -> Response {
    told(StatusCode::SERVICE_UNAVAILABLE, format!("the message log failed: {}", with_causes(error)))
}

fn told(status: StatusCode, why: String) -> Response {
    (status, given(TEXT, NOT_KEPT, format!("{why}\n").into())).into_response()
}
