//! An existing X-Road instance, as far as a bridge sees it: one security server that stands for all of them, with a client
//! port that speaks the Message Protocol for REST, services behind it, and errors in the spelling of either time.
//!
//! It is no X-Road: it does what the protocol's documents and code say that one does, and knows nothing of ours.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ring::digest::{SHA512, digest};
use trave_host::client::Connections;

use super::http_register::{HttpBody, HttpRegister, Seen};

/// How its releases write the codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Up to 7.7: `Server.ServerProxy.AccessDenied`.
    Old,
    /// Since 7.8: `server.serverproxy.access_denied`.
    New,
}

/// Not passed on by either security server.
const SKIPPED: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "user-agent",
    "server",
    "expect",
    "content-length",
];

/// A service of the instance.
#[derive(Debug, Clone)]
struct Service {
    /// Its base URL.
    url: String,
    /// Who may call it.
    allowed: BTreeSet<String>,
    /// What an administrator said when it was disabled.
    disabled: Option<String>,
}

#[derive(Debug)]
struct State {
    release: Release,
    /// The clients that are registered on its security server.
    clients: BTreeSet<String>,
    services: HashMap<String, Service>,
    /// What its answers say instead, where a test wants that.
    says: HeaderMap,
    /// What is not said at all.
    unsaid: Vec<HeaderName>,
    calls: u64,
}

/// The instance.
#[derive(Debug)]
pub struct XRoad {
    state: Arc<Mutex<State>>,
    port: HttpRegister,
}

/// An error of X-Road's own: the words of its code, and a sentence.
struct Error(&'static [&'static str], String);

impl XRoad {
    /// Starts it; on its security server these clients are registered.
    pub async fn start(release: Release, clients: &[&str]) -> Self {
        let state = State {
            release,
            clients: clients.iter().map(|client| (*client).to_owned()).collect(),
            services: HashMap::new(),
            says: HeaderMap::new(),
            unsaid: Vec::new(),
            calls: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let told = Arc::clone(&state);
        let port = HttpRegister::start(false, move |request| {
            let state = Arc::clone(&told);
            async move { answer(&state, request).await }
        })
        .await;
        Self { state, port }
    }

    /// The client port.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// What came in at the client port.
    pub fn seen(&self) -> Vec<Seen> {
        self.port.seen()
    }

    /// Publishes a service at `url`, and allows it to these clients.
    pub fn publish(&self, service: &str, url: &str, allowed: &[&str]) {
        let allowed = allowed.iter().map(|client| (*client).to_owned()).collect();
        let entry = Service { url: url.to_owned(), allowed, disabled: None };
        self.state.lock().unwrap().services.insert(service.to_owned(), entry);
    }

    /// Disables a service.
    pub fn disable(&self, service: &str, notice: &str) {
        let mut state = self.state.lock().unwrap();
        state.services.get_mut(service).unwrap().disabled = Some(notice.to_owned());
    }

    /// From now on its answers say this of themselves; nothing of it where the value is none.
    pub fn say(&self, name: &'static str, value: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        let name = HeaderName::from_static(name);
        match value {
            Some(value) => _ = state.says.insert(name, value.parse().unwrap()),
            None => state.unsaid.push(name),
        }
    }

    /// From now on it says again what is so.
    pub fn honest(&self) {
        let mut state = self.state.lock().unwrap();
        (state.says, state.unsaid) = (HeaderMap::new(), Vec::new());
    }

    /// A client of the instance asks at the client port, with these headers.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(full(Bytes::new())).unwrap();
        send(&self.address().to_string(), request).await.unwrap()
    }
}

fn full(bytes: Bytes) -> HttpBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn send(
    address: &str,
    request: Request<HttpBody>,
) -> Result<(StatusCode, HeaderMap, Bytes), tower::BoxError> {
    let connection = Connections::new(address.to_owned(), None).connection().await?;
    let response = connection.try_send(request).await.map_err(|failed| failed.into_error())?;
    let (parts, body) = response.into_parts();
    Ok((parts.status, parts.headers, body.collect().await?.to_bytes()))
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<HttpBody> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (release, number) = {
        let mut state = state.lock().unwrap();
        state.calls += 1;
        (state.release, state.calls)
    };
    match exchange(state, &parts, body, number).await {
        Ok(response) => response,
        Err(Error(code, message)) => refusal(release, code, &message, number),
    }
}

/// The whole way: through the client's security server, the provider's, and to the service.
async fn exchange(
    state: &Mutex<State>,
    parts: &http::request::Parts,
    body: Bytes,
    number: u64,
) -> Result<Response<HttpBody>, Error> {
    let known = [
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    if !known.contains(&parts.method) {
        return Err(Error(&["client", "invalid_request"], "unknown verb".into()));
    }
    // The last one counts.
    let client = parts.headers.get_all("x-road-client").iter().next_back();
    let client = client.and_then(|client| client.to_str().ok()).map(decoded).unwrap_or_default();
    if !matches!(client.split('/').count(), 3 | 4) {
        return Err(Error(&["client", "invalid_client_identifier"], "Invalid client".into()));
    }
    let pieces: Vec<&str> = parts.uri.path().splitn(8, '/').collect();
    let ["", "r1", instance, class, member, subsystem, service, rest @ ..] = &pieces[..] else {
        return Err(Error(&["client", "invalid_request"], "Invalid request URI".into()));
    };
    let service = decoded(&[*instance, class, member, subsystem, service].join("/"));
    let found = {
        let state = state.lock().unwrap();
        if !state.clients.contains(&client) {
            let why = format!("Client '{client}' not found");
            return Err(Error(&["server", "client_proxy", "unknown_member"], why));
        }
        state.services.get(&service).cloned()
    };
    let Some(found) = found else {
        return Err(Error(
            &["server", "server_proxy", "unknown_service"],
            format!("Unknown service: {service}"),
        ));
    };
    if !found.allowed.contains(&client) {
        let why = format!("Request is not allowed: {service}");
        return Err(Error(&["server", "server_proxy", "access_denied"], why));
    }
    if let Some(notice) = found.disabled {
        let why = format!("Service {service} is disabled: {notice}");
        return Err(Error(&["server", "server_proxy", "service_disabled"], why));
    }
    let path = rest.first().map(|rest| format!("/{rest}")).unwrap_or_default();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let (address, base) = found.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut headers = passed(&parts.headers);
    let id = format!("x-road-{number}");
    let queried = headers.get("x-road-id").cloned().unwrap_or_else(|| id.parse().unwrap());
    headers.insert("x-road-id", queried.clone());
    headers.insert("x-road-request-id", id.parse().unwrap());
    headers.remove("x-road-request-hash");
    let hash = hash(parts, &headers, &body);
    let mut request = Request::new(full(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("/{}{path}{query}", base.trim_end_matches('/')).parse().unwrap();
    *request.headers_mut() = headers;
    request.headers_mut().insert("host", address.parse().unwrap());
    request.headers_mut().insert("user-agent", HeaderValue::from_static("Apache-HttpClient"));
    let (status, answered, body) = send(address, request).await.map_err(|error| {
        Error(&["server", "server_proxy", "service_failed"], format!("cannot reach the service: {error}"))
    })?;
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(passed(&answered));
    for (name, value) in [
        ("x-road-client", client.parse().unwrap()),
        ("x-road-service", service.parse().unwrap()),
        ("x-road-id", queried),
        ("x-road-request-id", id.parse().unwrap()),
        ("x-road-request-hash", hash.parse().unwrap()),
    ] {
        headers.insert(name, value);
    }
    // What a service says here of itself is passed on, before X-Road's own.
    let own = headers.remove("x-road-service");
    for value in answered.get_all("x-road-service").iter().cloned().chain(own) {
        headers.append("x-road-service", value);
    }
    let state = state.lock().unwrap();
    state.says.iter().for_each(|(name, value)| _ = headers.insert(name, value.clone()));
    state.unsaid.iter().for_each(|name| _ = headers.remove(name));
    Ok(response)
}

/// Each part of an identifier is decoded on its own.
fn decoded(identifier: &str) -> String {
    let part = |part: &str| trave_proto::path::decoded(part).unwrap_or_else(|_| part.to_owned());
    identifier.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    let passes = |(name, _): &(&HeaderName, &HeaderValue)| !SKIPPED.contains(&name.as_str());
    let mut passed = HeaderMap::new();
    for (name, value) in headers.iter().filter(passes) {
        passed.append(name, value.clone());
    }
    passed
}

/// SHA-512 of the head, or of the hashes of head and body.
fn hash(parts: &http::request::Parts, headers: &HeaderMap, body: &Bytes) -> String {
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut head = format!("{}\r\n{target}\r\n", parts.method).into_bytes();
    for (name, value) in headers {
        head.extend([name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"].concat());
    }
    let head = digest(&SHA512, &head);
    let hash = match body.is_empty() {
        true => head,
        false => digest(&SHA512, &[head.as_ref(), digest(&SHA512, body).as_ref()].concat()),
    };
    STANDARD.encode(hash)
}

fn refusal(release: Release, words: &[&str], message: &str, number: u64) -> Response<HttpBody> {
    let word = |word: &&str| match release {
        Release::New if word.ends_with("_proxy") => word.replace('_', ""),
        Release::New => (*word).to_owned(),
        Release::Old => word.split('_').map(capitalised).collect(),
    };
    let code = words.iter().map(word).collect::<Vec<_>>().join(".");
    let body = serde_json::json!({ "type": code, "message": message, "detail": format!("x-road-{number}") });
    let mut response = Response::new(full(body.to_string().into()));
    let server = words[0] == "server";
    *response.status_mut() = if server { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json;charset=utf-8"));
    response.headers_mut().insert("x-road-error", code.parse().unwrap());
    response
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}
