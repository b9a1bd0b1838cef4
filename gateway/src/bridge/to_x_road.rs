//! A service of ours whose register is an X-Road security server: who of ours is whom there, and whether an answer is to what
//! was asked.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use trave_proto::fault::{Fault, Reason, Side, plain};
use trave_proto::identifier::{ExchangeId, SubsystemId, XRoadClientId, XRoadServerId, XRoadServiceId};
use trave_proto::message::CallerContext;
use trave_proto::schema::transport::RegisterReached;

use super::foreign_error::{self, ForeignError};
use crate::config;

/// The methods of X-Road's message protocol for REST.
const METHODS: [Method; 8] = [
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];
/// The longest error that is read.
const LONGEST_ERROR: usize = 16 << 10;
/// How long an error may take to come.
const ERROR_TIME: Duration = Duration::from_secs(10);

const CLIENT: HeaderName = HeaderName::from_static("x-road-client");
const SERVICE: HeaderName = HeaderName::from_static("x-road-service");
const ID: HeaderName = HeaderName::from_static("x-road-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-road-request-id");
const ERROR: HeaderName = HeaderName::from_static("x-road-error");

/// The other end of a bridge: a service of an X-Road instance.
#[derive(Debug)]
pub(crate) struct ToXRoad {
    service: XRoadServiceId,
    security_server: Option<XRoadServerId>,
    /// As whom each of our clients is known there.
    clients: HashMap<SubsystemId, XRoadClientId>,
}

/// One of our clients that may cross, as who it is on the other side. [`ToXRoad::crossing`] is its only maker.
#[derive(Debug)]
pub(crate) struct Crossing {
    client: XRoadClientId,
    service: XRoadServiceId,
    security_server: Option<XRoadServerId>,
}

impl ToXRoad {
    /// As configured.
    pub(crate) fn new(configured: &config::ToXRoad) -> Self {
        let pair = |(ours, theirs): (&config::Parsed<SubsystemId>, &config::Parsed<XRoadClientId>)| {
            (ours.0.clone(), theirs.0.clone())
        };
        Self {
            service: configured.service.0.clone(),
            security_server: configured.security_server.as_ref().map(|server| server.0.clone()),
            clients: configured.clients.iter().map(pair).collect(),
        }
    }

    /// The path that stands before all others at the security server there.
    pub(crate) fn base(&self) -> String {
        format!("/r1/{}", self.service)
    }

    /// The service there: what every message of an answer is marked with.
    pub(crate) fn service(&self) -> &XRoadServiceId {
        &self.service
    }

    /// Lets a client cross that stands in the list, with a method that there is on the other side.
    pub(crate) fn crossing(&self, client: &SubsystemId, method: &str) -> Result<Crossing, Fault> {
        let Some(known) = self.clients.get(client) else {
            let why = format!(
                "the bridge to {} does not know as whom {client} is to ask there: its operator lists it",
                self.service
            );
            return Err(Fault::before_call(Reason::AccessDenied, Side::ProviderServer, why));
        };
        if !METHODS.iter().any(|known| known.as_str() == method) {
            let why = "X-Road, beyond the bridge, does not know the HTTP method of this call";
            return Err(Fault::before_call(Reason::UnknownMethod, Side::ProviderServer, why));
        }
        Ok(Crossing {
            client: known.clone(),
            service: self.service.clone(),
            security_server: self.security_server.clone(),
        })
    }
}

impl Crossing {
    /// X-Road's headers of the call. By its id the call is found in the logs there: the caller's own, or else that of the
    /// exchange.
    pub(crate) fn headers(&self, context: &CallerContext, exchange: ExchangeId) -> Result<HeaderMap, Fault> {
        let exchange = exchange.to_string();
        let id = if context.message_id.is_empty() { &exchange } else { &context.message_id };
        let server = self.security_server.as_ref().map(XRoadServerId::as_str).unwrap_or_default();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (CLIENT, self.client.as_str()),
            (ID, id),
            (HeaderName::from_static("x-road-userid"), &context.user),
            (HeaderName::from_static("x-road-issue"), &context.issue),
            (HeaderName::from_static("x-road-represented-party"), &context.represented_party),
            (HeaderName::from_static("x-road-security-server"), server),
        ] {
            if value.is_empty() {
                continue;
            }
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                let why = format!("what the caller declares cannot stand in the header {name}");
                Fault::before_call(Reason::InvalidMessage, Side::ProviderServer, why)
            })?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// Takes an answer from the other side: an error of X-Road's own is told apart from what the service there says, and what
    /// does not answer this call is no answer.
    pub(crate) async fn answered(
        &self,
        asked: &HeaderMap,
        exchange: ExchangeId,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Fault> {
        if let Some(error) = response.headers().get(ERROR) {
            let code = plain(&String::from_utf8_lossy(error.as_bytes()));
            // X-Road's own errors are of no exchange of its: they never have an id. A register's answer always has one.
            if response.headers().contains_key(ID) {
                return Err(ForeignError::OfEither { code: &code }.fault(&self.service));
            }
            let (parts, body) = response.into_parts();
            let message = foreign_error::message(parts.headers.get(CONTENT_TYPE), &told(body).await);
            let error = ForeignError::OfXRoad { code: &code, message: message.as_deref() };
            return Err(error.fault(&self.service));
        }
        self.check(asked, response.headers())?;
        let request_id = response.headers().get(REQUEST_ID).map(HeaderValue::as_bytes).unwrap_or_default();
        tracing::info!(%exchange, service = %self.service, client = %self.client,
            x_road_request_id = plain(&String::from_utf8_lossy(request_id)), "answered beyond the bridge");
        Ok(response)
    }

    /// An answer of X-Road says whose it is. One that says nothing comes from something else that stands before it, and one
    /// that says other things is somebody else's.
    fn check(&self, asked: &HeaderMap, answered: &HeaderMap) -> Result<(), Fault> {
        let refuse = |why: &str| {
            let why = format!("what answered beyond the bridge {why}");
            let fault = Fault::before_call(Reason::InconsistentResponse, Side::Register, why);
            Err(fault.with_register(RegisterReached::Unknown))
        };
        let said = |name: &HeaderName| {
            let mut values = answered.get_all(name).iter();
            match (values.next(), values.next()) {
                (value, None) => Ok(value),
                _ => Err(()),
            }
        };
        let (Ok(id), Ok(client)) = (said(&ID), said(&CLIENT)) else {
            return refuse("says twice what it answers");
        };
        // X-Road passes on what a register says here of itself, and puts its own after it.
        let service = answered.get_all(&SERVICE).iter().next_back();
        if id.is_none() {
            return refuse("is no X-Road security server: the header x-road-id is missing");
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let same_client =
            client.is_none_or(|value| XRoadClientId::of(&text(value)).as_ref() == Ok(&self.client));
        let same_service =
            service.is_none_or(|value| XRoadServiceId::of(&text(value)).as_ref() == Ok(&self.service));
        match id == asked.get(ID) && same_client && same_service {
            true => Ok(()),
            false => refuse("answered another call: its x-road headers are not those of this one"),
        }
    }
}

/// The body of an error, as far as it is worth reading.
async fn told(body: Incoming) -> Bytes {
    let collected = tokio::time::timeout(ERROR_TIME, Limited::new(body, LONGEST_ERROR).collect()).await;
    collected.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossing() -> Crossing {
        Crossing {
            client: "EE/GOV/90000001/trave".parse().unwrap(),
            service: "EE/GOV/70000562/rr/isikud".parse().unwrap(),
            security_server: None,
        }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn an_answer_is_to_what_was_asked() {
        let asked = headers(&[("x-road-id", "m-1")]);
        let check = |list: &[(&'static str, &'static str)]| crossing().check(&asked, &headers(list)).is_ok();
        let (id, client, service) = (
            ("x-road-id", "m-1"),
            ("x-road-client", "EE/GOV/90000001/trav%65"),
            ("x-road-service", "EE/GOV/70000562/rr/isikud"),
        );
        assert!(check(&[id]) && check(&[id, client, service]));
        // A register's own name of itself stands before X-Road's.
        let other_service = ("x-road-service", "EE/GOV/70000562/rr/other");
        assert!(check(&[id, other_service, service]));
        for other in [
            &[][..],
            &[client, service],
            &[("x-road-id", "m-2")],
            &[id, id],
            &[id, client, client],
            &[id, ("x-road-client", "EE/GOV/90000001/other")],
            &[id, ("x-road-client", "%")],
            &[id, other_service],
            &[id, service, other_service],
        ] {
            assert!(!check(other), "{other:?}");
        }
    }
}
