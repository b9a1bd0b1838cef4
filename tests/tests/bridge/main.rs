//! Bridges to an existing X-Road instance: our agencies call its services, its agencies call ours, and whoever reads a log or
//! a proof sees that a bridge stood between.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod forward;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
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
