//! Bridges to an existing X-Road instance: our agencies call its services, its agencies call ours, and whoever reads a log or
//! a proof sees that a bridge stood between.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod forward;
mod reverse;
mod tls;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use trave_gateway::config::Config;
use trave_host::client::Connections;
use trave_proto::identifier::ExchangeId;
use trave_tests::network::HttpBody;

/// An answer of one of our doors.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn exchange(&self) -> ExchangeId {
        self.header("trave-exchange-id").unwrap().parse().unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn ask(door: std::net::SocketAddr, request: Request<HttpBody>) -> Answer {
    let connection = Connections::new(door.to_string(), None).connection().await.unwrap();
    let response: Response<Incoming> = connection.try_send(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn full(bytes: impl Into<Bytes>) -> HttpBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn nothing() -> HttpBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A register that sends back what it got.
async fn echo(request: Request<Incoming>) -> Response<HttpBody> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let status = if parts.uri.path().ends_with("/404") { 404 } else { 200 };
    Response::builder()
        .status(status)
        .header("content-type", "text/plain")
        .header("x-method", parts.method.as_str())
        .header("server", "register/1")
        .body(full(body))
        .unwrap()
}

/// What the documents tell an operator to write is what a security server reads.
#[test]
fn the_examples_of_the_documents_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let document = include_str!("../../../docs/bridge.md");
    let examples: Vec<&str> =
        document.split("```toml").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    let beginning = "server = \"NORD/SH/luebeck/s1\"\ndata = \"data\"\npassphrase_file = \"passphrase\"\n\
                     [registry]\naddress = \"127.0.0.1:1\"\n[peer]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&file, [beginning, &examples.concat()].concat()).unwrap();
    let config = Config::read(&file).unwrap();
    assert_eq!(config.service[0].x_road().unwrap().clients.len(), 2);
    assert_eq!(config.agency[0].x_road.as_ref().unwrap().len(), 2);
}
