//! The door for security servers: the published configurations and the anchor, over HTTPS.
//!
//! What is served is public and proves itself by its signatures.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use trave_proto::digest::Digest;

use crate::state::Store;

const CONFIGURATION: &str = "application/vnd.trave.configuration";
const ANCHOR: &str = "text/plain; charset=utf-8";

#[derive(Clone)]
struct Served {
    store: Arc<Store>,
    anchor: Bytes,
}

/// `GET /configuration/latest`, `/configuration/{number}` (encoded `SignedConfiguration`), and `/anchor`.
pub(crate) fn distribution_routes(store: Arc<Store>, anchor: Bytes) -> Router {
    Router::new()
        .route("/configuration/latest", get(latest))
        .route("/configuration/{number}", get(numbered))
        .route("/anchor", get(anchor_file))
        .with_state(Served { store, anchor })
}

async fn latest(State(served): State<Served>, headers: HeaderMap) -> Response {
    match served.store.latest() {
        Some(latest) => respond(&headers, latest.encoded.clone(), CONFIGURATION, "no-cache"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no configuration is published yet\n").into_response(),
    }
}

async fn numbered(State(served): State<Served>, Path(number): Path<String>, headers: HeaderMap) -> Response {
    // One number, one spelling.
    let number = number.parse::<u64>().ok().filter(|parsed| *parsed > 0 && parsed.to_string() == number);
    let encoded = match number {
        Some(number) => served.store.configuration(number).await,
        None => None,
    };
    match encoded {
        Some(encoded) => respond(&headers, encoded, CONFIGURATION, "public, max-age=31536000, immutable"),
        None => (StatusCode::NOT_FOUND, "there is no such configuration\n").into_response(),
    }
}

async fn anchor_file(State(served): State<Served>, headers: HeaderMap) -> Response {
    respond(&headers, served.anchor.clone(), ANCHOR, "no-cache")
}

/// With an entity tag, so that whoever has it already is told so (RFC 9110 section 13.1.2).
fn respond(asked: &HeaderMap, body: Bytes, kind: &'static str, cache: &'static str) -> Response {
    let tag = format!("\"{}\"", Digest::of(&body));
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known =
        known.flat_map(|value| value.split(',')).any(|value| value.trim() == tag || value.trim() == "*");
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    (headers, body).into_response()
}
