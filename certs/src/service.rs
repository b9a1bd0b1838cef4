//! The trust services over HTTP: `/ocsp` (GET and POST), `/crl` and `/tsa`. What they say is signed, so that the way does not
//! need to be trusted; who asks what is not secret from the authority that issued it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use trave_host::files::{self, FileError};
use trave_host::keys::{KeyError, Sign, certificate_request};
use trave_proto::clock::{Clock, Time};
use trave_proto::digest::Digest;

use crate::authority::{Addresses, AuthorityError, CertificationAuthority};
use crate::profile::{Profile, ProfileError};
use crate::responder::{Answer, OcspResponder, ResponderError};
use crate::timestamping::{Terms, TimestampingError, Tsa};

/// Largest body of a request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Longest base64 of a request in the path (RFC 5019 section 5 asks for at most 255 bytes; nonces need some more).
const MAX_IN_PATH: usize = 1024;

const OCSP_REQUEST: &str = "application/ocsp-request";
const OCSP_RESPONSE: &str = "application/ocsp-response";
const REVOCATION_LIST: &str = "application/pkix-crl";
const TIMESTAMP_QUERY: &str = "application/timestamp-query";
const TIMESTAMP_REPLY: &str = "application/timestamp-reply";

const TIMESTAMPING_FILE: &str = "timestamping.pem";

/// Why the trust services cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The certification authority.
    #[error("the certification authority cannot begin")]
    Authority(#[source] AuthorityError),
    /// The OCSP responder.
    #[error("the OCSP responder cannot begin")]
    Responder(#[source] ResponderError),
    /// A name made from the authority's.
    #[error("the trust services cannot have this name")]
    Name(#[source] ProfileError),
    /// The timestamping authority.
    #[error("the timestamping authority cannot begin")]
    Timestamping(#[source] TimestampingError),
    /// A certificate request for the timestamping authority's key.
    #[error("the timestamping authority's key is not usable")]
    Key(#[source] KeyError),
    /// The timestamping authority's certificate.
    #[error("the timestamping authority's certificate cannot be written")]
    Write(#[source] FileError),
    /// The timestamping authority's certificate.
    #[error("{} is no certificate in PEM", .0.display())]
    Read(PathBuf),
}

/// What the trust services are called, where they are found, and under which terms they stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Common name of the certification authority; its OCSP responder and timestamping authority are named after it.
    pub name: String,
    /// Written into certificates.
    pub addresses: Addresses,
    /// Of the timestamping authority.
    pub terms: Terms,
}

impl Settings {
    /// Whether trust services can begin with them.
    pub fn check(&self) -> Result<(), ServiceError> {
        self.terms.check().map_err(ServiceError::Timestamping)?;
        let responder = Profile::OcspResponder { name: self.responder_name() };
        let names = [responder, self.timestamping()];
        names.iter().try_for_each(Profile::check).map_err(ServiceError::Name)
    }

    fn responder_name(&self) -> String {
        format!("{} OCSP", self.name)
    }

    fn timestamping(&self) -> Profile {
        Profile::TimestampingAuthority { name: format!("{} TSA", self.name) }
    }
}

/// The keys of the trust services, each ECDSA P-256.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Signs certificates and revocation lists.
    pub authority: Arc<dyn Sign>,
    /// Signs OCSP responses.
    pub responder: Arc<dyn Sign>,
    /// Signs timestamps.
    pub timestamping: Arc<dyn Sign>,
}

/// The trust services of an instance.
#[derive(Debug)]
pub struct TrustServices {
    /// The certification authority.
    pub authority: Arc<CertificationAuthority>,
    /// Its OCSP responder.
    pub responder: OcspResponder,
    /// The timestamping authority, if there is one here.
    pub timestamping: Option<Tsa>,
}

impl TrustServices {
    /// Begins a certification authority with its timestamping authority in `directory`, which exists and holds none.
    pub fn create(
        directory: &Path,
        settings: &Settings,
        keys: &Keys,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        settings.check()?;
        let (key, addresses) = (Arc::clone(&keys.authority), settings.addresses.clone());
        let authority =
            CertificationAuthority::create(directory, &settings.name, key, Arc::clone(&clock), addresses)
                .map_err(ServiceError::Authority)?;
        let request = certificate_request(&*keys.timestamping, &settings.name).map_err(ServiceError::Key)?;
        let issued = authority.issue(&settings.timestamping(), &request);
        let pem = pem(&issued.map_err(ServiceError::Authority)?.chain);
        files::create(&directory.join(TIMESTAMPING_FILE), pem.as_bytes()).map_err(ServiceError::Write)?;
        Self::open(directory, settings, keys, clock)
    }

    /// Opens the trust services in `directory`. The OCSP responder gets a new certificate each time.
    pub fn open(
        directory: &Path,
        settings: &Settings,
        keys: &Keys,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let (key, addresses) = (Arc::clone(&keys.authority), settings.addresses.clone());
        let authority = CertificationAuthority::open(directory, key, Arc::clone(&clock), addresses);
        let authority = Arc::new(authority.map_err(ServiceError::Authority)?);
        let (key, name) = (Arc::clone(&keys.responder), settings.responder_name());
        let responder =
            OcspResponder::new(Arc::clone(&authority), key, &name).map_err(ServiceError::Responder)?;
        let path = directory.join(TIMESTAMPING_FILE);
        let certificate =
            CertificateDer::from_pem_file(&path).map_err(|_| ServiceError::Read(path.clone()))?;
        let tsa = Tsa::new(&certificate, Arc::clone(&keys.timestamping), clock, settings.terms.clone());
        let timestamping = Some(tsa.map_err(ServiceError::Timestamping)?);
        Ok(Self { authority, responder, timestamping })
    }

    /// The routes, to be served over HTTP by themselves or beside others.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/ocsp", post(ocsp_post))
            .route("/ocsp/{*request}", get(ocsp_get))
            .route("/crl", get(revocation_list))
            .route("/tsa", post(timestamp))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }
}

/// Certificates in PEM (RFC 7468), one after another.
pub fn pem(chain: &[Bytes]) -> String {
    let one = |der: &Bytes| {
        let body = STANDARD.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(one).collect()
}

type Services = State<Arc<TrustServices>>;

async fn ocsp_post(State(services): Services, headers: HeaderMap, body: Bytes) -> Response {
    if !is_type(&headers, OCSP_REQUEST) {
        return wrong_type(OCSP_REQUEST);
    }
    // Caches do not keep answers to POST, so they get no caching headers (RFC 5019 section 6.2 is about GET).
    let answer = services.responder.answer(&body);
    ocsp_response(Answer { cacheable: None, ..answer }, services.authority.now())
}

async fn ocsp_get(State(services): Services, UrlPath(request): UrlPath<String>) -> Response {
    // Not base64: as malformed as any other request that cannot be read.
    let whole = request.len() <= MAX_IN_PATH;
    let request = whole.then(|| STANDARD.decode(request).ok()).flatten().unwrap_or_default();
    ocsp_response(services.responder.answer(&request), services.authority.now())
}

async fn revocation_list(State(services): Services) -> Response {
    match services.authority.revocation_list() {
        Ok(list) => {
            let fresh = Some((list.this_update, list.next_update));
            respond(REVOCATION_LIST, list.der, fresh, services.authority.now())
        }
        Err(error) => {
            let cause = trave_host::config::with_causes(&error);
            tracing::error!(%cause, "no revocation list could be made");
            (StatusCode::INTERNAL_SERVER_ERROR, "no revocation list could be made\n").into_response()
        }
    }
}

async fn timestamp(State(services): Services, headers: HeaderMap, body: Bytes) -> Response {
    let Some(tsa) = &services.timestamping else {
        return (StatusCode::NOT_FOUND, "there is no timestamping authority here\n").into_response();
    };
    if !is_type(&headers, TIMESTAMP_QUERY) {
        return wrong_type(TIMESTAMP_QUERY);
    }
    respond(TIMESTAMP_REPLY, tsa.answer(&body), None, services.authority.now())
}

fn ocsp_response(answer: Answer, now: Time) -> Response {
    respond(OCSP_RESPONSE, answer.der, answer.cacheable, now)
}

/// A response with the caching headers of RFC 5019 section 6.2 if it may be kept.
fn respond(kind: &'static str, body: Bytes, fresh: Option<(Time, Time)>, now: Time) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    match fresh {
        None => insert(&mut headers, header::CACHE_CONTROL, "no-store".to_owned()),
        Some((from, until)) => {
            let seconds = until.since(now).as_secs();
            let control = format!("max-age={seconds}, public, no-transform, must-revalidate");
            insert(&mut headers, header::CACHE_CONTROL, control);
            insert(&mut headers, header::LAST_MODIFIED, http_date(from));
            insert(&mut headers, header::EXPIRES, http_date(until));
            insert(&mut headers, header::ETAG, format!("\"{}\"", Digest::of(&body)));
        }
    }
    (headers, body).into_response()
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// RFC 9110 section 5.6.7.
fn http_date(time: Time) -> String {
    let seconds = u64::try_from(time.as_secs()).unwrap_or(0).min(253_402_300_799);
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn is_type(headers: &HeaderMap, expected: &str) -> bool {
    let stated = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    stated.is_some_and(|stated| {
        stated.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
    })
}

fn wrong_type(expected: &str) -> Response {
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("a request here has the content type {expected}\n"))
        .into_response()
}
